"""
What an engine implements: a few verbs on sealed payloads, and the meaning of their answers.

A storage knows digests, never session keys, and payloads, never what is in them. Moments are
milliseconds since the epoch. The verbs are class methods: to end a session takes neither its cookie
nor an instance. To write an engine of your own, inherit from ``backends.base.SessionStore`` and
implement the abstract verbs. docs/engines.md leads through that, and ``testing`` has the tests.

Four words are used as they are meant here:

- *unknown*: nothing is stored under this digest. That is an answer and never an error.
- *expired*: ``expires_at`` is not later than now. What has expired counts as unknown, for every
  verb, whether or not it was removed yet. Only insert() may refuse its digest.
- *malformed*: something is stored under the digest that this storage cannot have written. It is
  never an error. It has no version, so a verb that expects one finds it unknown. read() returns
  bytes that do not open, which the callers log: an empty payload, or what there is. remove()
  removes it.
- *unavailable*: the storage cannot tell, for it does not answer, or refuses to write. Only then a
  verb raises, namely one of the classes in ``unavailable``, and nobody may conclude anything about
  the session from that. A verb that was to write may have done so. Any other error is a bug, or a
  payload that is larger than the storage takes, and nobody catches it.

Every verb is atomic, also where it takes several digests: for each of them by itself. A storage
that acknowledges a write has it, and its next read, from wherever, finds it.
"""

import logging
import secrets
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NamedTuple, TypeVar

from django.db import InterfaceError, InternalError, OperationalError, connections

from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.pace import Pace

logger = logging.getLogger("django_sessionkit")

# What MySQL says to one of those who wait for each other. InnoDB sees circles easily, for it also
# locks what is between two rows: https://dev.mysql.com/doc/refman/8.4/en/innodb-deadlocks.html
DEADLOCK = 1213
# How often a transaction is begun that a deadlock ends.
TRIES = 3

T = TypeVar("T")


class Stored(NamedTuple):
    payload: bytes  # as it was given: bytes, not a memoryview
    touched_at: int
    epoch: int = 0  # what note_epoch() was given last, or 0
    # Until when all activity was carried to the rows, by note_flushed(). 0: that is not known.
    flushed_at: int = 0


class StoredFully(NamedTuple):
    """All that is stored of a session."""

    digest: str
    payload: bytes
    touched_at: int
    expires_at: int


class Seen(NamedTuple):
    """An activity of a session that waits in the store to be carried to the row."""

    digest: str
    handle: uuid.UUID
    at: int
    expires_at: int  # by this activity
    idle_at: int | None
    version: bytes  # of the payload: the session itself, and not a trace under the same digest


class Waiting(NamedTuple):
    """A part of the activity that waits."""

    place: str  # the storage's own name of the part
    read_at: int
    seen: list[Seen]


class NodeStatus(NamedTuple):
    """What staff see of a store, or of one of its servers. None and "": that is not told."""

    latency: float | None  # seconds that one round trip took. None: it does not answer
    name: str = ""  # of one of several servers
    sessions: int | None = None  # how many are stored, about
    size: int | None = None  # bytes that they take, about, or that the server uses
    limit: int | None = None  # bytes that it may use. 0: without a limit
    version: str = ""
    persistence: str = ""  # what survives a restart, in the store's own words
    eviction: str = ""  # what goes when the limit is reached, in the store's own words


class Storage(ABC):
    # The errors that mean "unavailable". Those of the registry's database belong to them: it is
    # down (OperationalError), a standby that takes no writes (InternalError), or has closed its
    # connection (InterfaceError). An engine adds those of its store. Where a client has one class
    # for all errors, raise a class of your own for those that mean this.
    unavailable: ClassVar[tuple[type[Exception], ...]] = (
        OperationalError,
        InternalError,
        InterfaceError,
    )

    # Do the verbs have async twins of their own, called aread(), areplace() and so on? Otherwise
    # a thread runs the sync ones. remove_expired() has no twin.
    native_async: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def read(cls, digest: str) -> Stored | None:
        """
        Return what is stored under a digest, or None if it is unknown or expired. Of what is
        malformed, return its bytes, or none of them.

        One round trip.
        """

    @classmethod
    def read_again(cls, digest: str) -> Stored | None:
        """
        Do what read() does, and see what others have written since. A storage in whose transactions
        a second read() can show what the first one has shown (REPEATABLE READ) overrides this. Such
        a storage is not ``native_async``.
        """
        return cls.read(digest)

    @classmethod
    @abstractmethod
    def insert(cls, digest: str, payload: bytes, touched_at: int, expires_at: int) -> bool:
        """
        Store a new session, with ``touched_at`` as its last activity. Return False, and change
        nothing, if the digest is taken, also by what is malformed. Of what has expired and was not
        removed yet, either is right: to refuse, or to write over it.

        One round trip, and atomic: of two calls for one digest, one returns True.
        """

    @classmethod
    @abstractmethod
    def replace(cls, digest: str, payload: bytes, expires_at: int | None, expected: bytes) -> bool:
        """
        Put another payload in the place of the one whose version, its first 12 bytes, is
        ``expected``. An ``expires_at`` of None leaves the expiry as it is; the last activity always
        stays. Return False, and change nothing, if the digest is unknown, expired or malformed, or
        stores another version by now. Never create a session. An ``expires_at`` that is over leaves
        nothing, and is no error.

        One round trip, and atomic: of two calls that expect the same version, one returns True.
        """

    @classmethod
    @abstractmethod
    def move(
        cls, old: str, new: str, payload: bytes, touched_at: int, expires_at: int, expected: bytes
    ) -> bool:
        """
        Do what replace() does, under another digest, and with ``touched_at`` as the last activity.
        When this returns True, the old digest is unknown. When this returns False, nothing is
        stored under the new one. The new digest is random, and nobody knows of it yet: it need not
        be looked at whether it is taken.

        One round trip, or two where the digests are on two servers. Of two calls for one session,
        one returns True. If the storage becomes unavailable half-way, the old digest still has its
        session; the new one may have it, too, until it expires: nobody knows its key.
        """

    @classmethod
    @abstractmethod
    def touch(
        cls, digest: str, touched_at: int, expires_at: int, expected: bytes | None = None
    ) -> bool:
        """
        Write the last activity and the expiry, and leave the payload alone, whatever others write
        meanwhile. Return False, and change nothing, if the digest is unknown or expired, stores
        another version by now than the one that is expected, if one is, or is held by another
        transaction: a touch waits for nobody. What is malformed may be touched, if no version is
        expected. An ``expires_at`` that is over leaves nothing.

        One round trip.
        """

    @classmethod
    @abstractmethod
    def remove(cls, digests: Collection[str]) -> None:
        """
        Remove these sessions, and what is malformed under their digests. There may be hundreds of
        digests, or none; none of them is there twice. Unknown ones are no error. When this returns,
        no request that is under way can write any of the sessions back. If the storage becomes
        unavailable half-way, some are removed: of several servers, those that answer do their part
        before the error is raised.

        One round trip, or as few as the storage allows.
        """

    @classmethod
    @abstractmethod
    def peek(cls, digests: Collection[str]) -> set[str]:
        """
        Return the digests that are neither unknown nor expired. What is malformed is there, or not.
        There may be hundreds of digests, or none; none of them is there twice.

        One round trip, or as few as the storage allows. A storage of several servers counts the
        digests of one that does not answer as known, because nobody may conclude anything from
        that. It raises an error if none answers.
        """

    # Verbs that an engine can leave out.

    # Can activity wait here, for a task that carries much of it to the rows at once? Then there are
    # the next four verbs. activity.py says how they belong together.
    buffers: ClassVar[bool] = False

    @classmethod
    def touch_later(cls, seen: Seen) -> bool:
        """
        Do what touch() does for this activity, whose version is expected, and keep the activity, in
        place of the last one of this session that still waits. Return False, and change nothing, if
        one of the two cannot be done.

        One round trip, and atomic.
        """
        return False

    @classmethod
    def waiting(cls) -> Iterator[list[Waiting]]:
        """
        Return what waits, a few parts at a time. It goes on waiting: several may read it, and who
        is killed has lost nothing. Of a part where nothing waits, note that it was flushed now.
        """
        return iter(())

    @classmethod  # noqa: B027 (an engine can leave it out)
    def note_flushed(cls, part: Waiting, left: Collection[Seen] = (), asks: bool = False) -> None:
        """
        Forget the activity of a part that was carried, all but what is ``left``, and but for what
        is newer than what was read. If nothing is left, read() returns from now on when the part
        was read, as the moment until which all was carried. If the part ``asks``, read() returns 0:
        the next activity of its sessions does not wait.
        """

    @classmethod
    def last_seen(cls, digests: Collection[str]) -> dict[str, int]:
        """Return what peek() does, with the last activity of each session, which its row may not
        have yet. 0: that is not known."""
        return dict.fromkeys(cls.peek(digests), 0)

    @classmethod  # noqa: B027 (an engine can leave it out)
    def note_epoch(cls, number: int) -> None:
        """
        Note that staff have just ended many sessions together, for which ``number`` stands: see
        epochs.py. From now on, read() returns this number with every session, in the same round
        trip. The number is no moment to compare with: one that differs from the last is news.

        A storage that leaves this method out, or that loses the number, ends such sessions with
        their next write of activity. Of several servers, those that answer do their part before an
        error is raised. This has no async twin.
        """

    @classmethod
    def remove_expired(cls, pace: Pace) -> int:
        """
        Remove what has expired, in small parts that hold nobody up, and return how many sessions
        that were. A storage that forgets expired sessions by itself, at once or not, leaves this
        out. This has no async twin.
        """
        return 0

    @classmethod
    def is_stored(cls, database: str) -> Any:
        """
        Return the condition, for rows of this database with a column ``digest``, that a session is
        stored under it. None: the sessions are elsewhere, so peek() has to be asked.
        """
        return None

    # Verbs that are made of the others. An engine can have better ones.

    @classmethod
    def insert_all(cls, sessions: Collection[StoredFully]) -> None:
        """Do what insert() does for each of these sessions. What is there already stays."""
        for session in sessions:
            cls.insert(*session)

    @classmethod
    def take(cls, digest: str, expected: bytes) -> bool:
        """
        Remove a session if its version is the one that is expected. Return False, and change
        nothing, if the digest is unknown, expired, or stores another version by now.
        """
        if not cls.replace(digest, b"", 1, expected):
            return False
        cls.remove([digest])
        return True

    @classmethod
    def remove_free(cls, digests: Collection[str]) -> set[str]:
        """
        Do what remove() does, and wait for nobody. Return the digests of those sessions that are
        still there, because another transaction holds them.
        """
        cls.remove(digests)
        return set()

    @classmethod
    def scan(cls) -> tuple[int, Iterator[list[StoredFully]]] | None:
        """
        Return all sessions that have not expired, in small parts, and about how many parts there
        are. A session that moves meanwhile may be missing, or be there twice. None: the storage
        cannot list what it has.
        """
        return None

    @classmethod
    def is_within_reach(cls, digest: str) -> bool:
        """
        Tell whether a new session can be stored under this digest, as far as is known without
        asking: of several servers, the one that it falls to may be down.
        """
        return True

    @classmethod
    def status(cls) -> list[NodeStatus]:
        """
        Return how the store is, or each of its servers. Raises no error where it is unavailable:
        then ``latency`` is None. This takes no longer than the timeouts of the store.
        """
        return [NodeStatus(cls.latency())]

    @classmethod
    def latency(cls) -> float | None:
        """Return how many seconds one round trip takes, or None if there is no answer."""
        started = time.perf_counter()
        try:
            cls.call(cls.peek, [secrets.token_hex(32)])
        except StoreUnavailable:
            return None
        return time.perf_counter() - started

    @classmethod
    def atomic(cls) -> AbstractContextManager[object]:
        """Return a transaction around a payload and its row, where the storage can have one."""
        return nullcontext()

    @classmethod
    def check(cls, ask: bool) -> Iterable[tuple[str, dict[str, Any]]]:
        """
        Return the ids and values of the system checks that are the engine's own. Ask no server
        unless ``ask`` is true. The messages are in checks.py, so this is for the engines of this
        package: others register checks with Django, as every app does.
        """
        return []

    @classmethod
    def call(cls, function: Callable[..., T], *args: Any) -> T:
        """Return ``function(*args)``. Raises StoreUnavailable where the storage is unavailable."""
        try:
            return function(*args)
        except cls.unavailable as error:
            raise no_answer(error) from error


def despite_deadlocks(database: str, function: Callable[..., T], *args: Any) -> T:
    """
    Return ``function(*args)``, which MySQL may end as one of two that wait for each other. Then do
    it again, twice at most. Not in a transaction: a deadlock has undone what came before in that.

    Raises OperationalError.
    """
    for _ in range(TRIES - 1):
        try:
            return function(*args)
        except OperationalError as error:
            if not may_be_repeated(database, error):
                raise
    return function(*args)


def may_be_repeated(database: str, error: OperationalError) -> bool:
    """Tell whether a deadlock has ended what was done, and no transaction is around that."""
    return error.args[:1] == (DEADLOCK,) and not connections[database].in_atomic_block


def no_answer(error: Exception) -> StoreUnavailable:
    """Log an error that means "unavailable", and return what to raise instead."""
    # Without the command of a pipeline, which redis-py quotes with its arguments.
    reason = str(error).rpartition(" caused error: ")[2]
    logger.error("The session store did not answer: %s", reason)
    return StoreUnavailable("The session store did not answer.")
