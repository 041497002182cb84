"""
Django's session contract, once, over a few storage verbs, and the tracking of signed-in sessions
in the registry.

Each operation is a generator that yields the calls it needs done, and is sent their answers: its
logic is written once, and driven twice, sync and async.
"""

import logging
import time
import uuid
from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

from asgiref.sync import sync_to_async
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.db import InterfaceError, InternalError, OperationalError

from django_sessionkit.client import Client
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, Progress, UserSession
from django_sessionkit.sealing import (
    Contents,
    SessionKey,
    digest_of,
    new_session_key,
    seal,
    unseal,
    version_of,
)

logger = logging.getLogger("django_sessionkit")
security_logger = logging.getLogger("django.security.SuspiciousSession")

# The last that a date can be, in milliseconds since the epoch.
END_OF_TIME = 253_402_214_400_000

T = TypeVar("T")
Flow = Generator[tuple[Any, ...], Any, T]
Facts = dict[str, Any]


class Stored(NamedTuple):
    payload: bytes
    touched_at: int


class SessionStore(SessionBase):
    # Errors of the store, or of the registry's database, that mean "no answer": it is down, a
    # standby that takes no writes (InternalError), or closed its connection.
    unavailable: ClassVar[tuple[type[Exception], ...]] = (
        OperationalError,
        InternalError,
        InterfaceError,
    )

    # The verbs have async twins, called aread(), areplace() and so on.
    native_async: ClassVar[bool] = False

    # Set by the middleware. None where there is no request (tests, a shell, Channels): a session
    # that is used there is not touched, and what is known about its device is kept.
    client: Client | None = None

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key and SessionKey(session_key))
        # What the middleware asks afterwards.
        self.touched = False  # its expiry has slid, so the cookie's should too
        self.failed = False  # the store did not answer
        self.lost: str | None = None  # the digest of a session that was not, or is no longer, there
        self._flushed: str | None = None  # the handle of a session that was flushed
        self._forget()

    def _forget(self) -> None:
        # The kit's own facts lie beside the dictionary, where no view can write: handle, user,
        # authenticated_at, and until, which is what the row says of when the session expires.
        self._facts: Facts = {}
        # The payload as it was read or last written: what the next write expects to replace, and
        # what a conflict is merged against.
        self._loaded: bytes | None = None
        # The dictionary takes the place of what is stored, rather than to be merged with it.
        self._overwrite = False

    @property
    def handle(self) -> uuid.UUID | None:
        """The id of this session's UserSession, or None for a visitor who is not signed in."""
        self.get("")  # loads it
        handle = self._facts.get("handle")
        return uuid.UUID(handle) if handle else None

    # Django's contract.

    def load(self) -> dict[str, Any]:
        return self._run(self._unloaded()._load())

    async def aload(self) -> dict[str, Any]:
        return await self._arun(self._unloaded()._load())

    def _unloaded(self) -> "SessionStore":
        # Who loads once more looks at what is stored: what is not saved yet stays what it is.
        return type(self)(self.session_key) if hasattr(self, "_session_cache") else self

    def exists(self, session_key: str | None) -> bool:
        return self._run(self._exists(session_key))

    async def aexists(self, session_key: str | None) -> bool:
        return await self._arun(self._exists(session_key))

    def create(self) -> None:
        self._run(self._create())

    async def acreate(self) -> None:
        await self._arun(self._create())

    def save(self, must_create: bool = False) -> None:
        self._run(self._save(must_create))

    async def asave(self, must_create: bool = False) -> None:
        await self._arun(self._save(must_create))

    def delete(self, session_key: str | None = None) -> None:
        self._run(self._delete(session_key))

    async def adelete(self, session_key: str | None = None) -> None:
        await self._arun(self._delete(session_key))

    def cycle_key(self) -> None:
        self._run(self._cycle())

    async def acycle_key(self) -> None:
        await self._arun(self._cycle())

    def clear(self) -> None:
        super().clear()
        self._overwrite = True

    def flush(self) -> None:
        self._run(self._flush())

    async def aflush(self) -> None:
        await self._arun(self._flush())

    @classmethod
    def clear_expired(cls, progress: Progress | None = None) -> None:
        """
        Remove what has expired, in small parts. Takes minutes for ten million rows, and holds
        nobody up. Raises StoreUnavailable.
        """
        deleted = cls.call(UserSession.objects.purge, progress)
        logger.info("Purged %d rows of sessions that ended long ago", deleted)

    # What this kit adds.

    @classmethod
    def check(cls, ask: bool) -> Iterable[tuple[str, dict[str, Any]]]:
        """
        Return the ids and values of the system checks that are the engine's own. It may ``ask``
        the store only where it is told to.
        """
        return []

    def reauthenticate(self) -> None:
        """
        Note that the user has proved again, now, who they are, under a new session key.

        ASVS 7.2.4 asks for the new key; Django's login() gives one to a new user only.
        """
        self._run(self._cycle(authenticated_at=_now()))

    @classmethod
    def call(cls, function: Callable[..., T], *args: Any) -> T:
        """Return ``function(*args)``. Raises StoreUnavailable where the store did not answer."""
        try:
            return function(*args)
        except cls.unavailable as error:
            raise cls._no_answer(error) from error

    @staticmethod
    def _no_answer(error: Exception) -> StoreUnavailable:
        # Not the command of a pipeline, which redis-py quotes with its arguments.
        reason = str(error).rpartition(" caused error: ")[2]
        logger.error("The session store did not answer: %s", reason)
        return StoreUnavailable("The session store did not answer.")

    # What an engine is: these verbs. They take digests, never session keys, and times in
    # milliseconds since the epoch, and are class methods: ending a session needs neither its
    # cookie nor an instance.

    @classmethod
    @abstractmethod
    def read(cls, digest: str) -> Stored | None:
        """Return what is stored, or None if it is unknown or has expired. One round trip."""

    @classmethod
    @abstractmethod
    def insert(cls, digest: str, payload: bytes, now: int, expires_at: int) -> bool:
        """Return False if the digest is taken."""

    @classmethod
    @abstractmethod
    def replace(cls, digest: str, payload: bytes, expires_at: int, expected: bytes) -> bool:
        """
        Write over the version ``expected``. False, and nothing is written, if the session is gone
        or has another version by now. Never creates. One atomic statement.
        """

    @classmethod
    @abstractmethod
    def move(
        cls, old: str, new: str, payload: bytes, now: int, expires_at: int, expected: bytes
    ) -> bool:
        """Replace, under another digest. The old one is dead when this returns True."""

    @classmethod
    @abstractmethod
    def touch(cls, digest: str, now: int, expires_at: int) -> bool:
        """Slide the expiry and leave the payload alone. False if the session is gone."""

    @classmethod
    @abstractmethod
    def remove(cls, digests: Collection[str]) -> None:
        """Remove these sessions. Unknown ones are no error."""

    @classmethod
    @abstractmethod
    def peek(cls, digests: Collection[str]) -> set[str]:
        """Return those that are alive. One round trip."""

    @classmethod
    def atomic(cls) -> AbstractContextManager[object]:
        """Return a transaction around a payload and its row, where the store can have one."""
        return nullcontext()

    # The operations.

    def _load(self) -> Flow[dict[str, Any]]:
        self._forget()
        if self.session_key is None:
            return {}
        digest = digest_of(self.session_key)
        stored = yield self.read, digest
        contents = self._open(self.session_key, digest, stored)
        if contents is not None:
            self._facts, data = contents
            self._loaded = stored.payload
            due = stored.touched_at + self._interval(data) <= (now := _now())
            if self.client is None or not due or (yield from self._touch(digest, data, now)):
                return data
        self._forget()
        self.lost, self._session_key = digest, None
        return {}

    def _touch(self, digest: str, data: dict[str, Any], now: int) -> Flow[bool]:
        """
        Write the activity, before the view sees the session: an ended one goes no further,
        whatever the store says (a lost removal, a failover, a restored backup).
        """
        expires_at = self._expires_at(data)
        if handle := self._facts.get("handle"):
            rows = UserSession.objects
            if not (yield rows.touch, handle, digest, now, expires_at, self.client):
                yield self.remove, [digest]
                return False
            self._facts = {**self._facts, "until": expires_at}
        self.touched = yield self.touch, digest, now, expires_at
        return self.touched

    def _exists(self, session_key: str | None) -> Flow[bool]:
        if not session_key:
            return False
        digest = digest_of(session_key)
        return digest in (yield self.peek, [digest])

    def _create(self) -> Flow[None]:
        data = self._fresh()
        self._forget()
        # A key that is taken is as likely as a repeated SHA-1; a random source that repeats itself
        # ends here.
        for _ in range(3):
            with suppress(CreateError):
                yield from self._insert(new_session_key(), data)
                self.modified = True
                return
        raise CreateError("Every new session key was taken.")

    def _insert(self, key: str, data: dict[str, Any]) -> Flow[None]:
        digest = digest_of(key)
        now, expires_at = _now(), self._expires_at(data)
        facts: Facts = {}
        try:
            with self._transaction({}, data):
                facts = yield from self._enrol({}, data, digest, now, expires_at)
                payload = seal((facts, data), key, digest, self.serializer())
                if not (yield self.insert, digest, payload, now, expires_at):
                    raise CreateError
                yield from self._confirm(facts, digest)
        except Exception:
            yield from self._withdraw(facts)
            raise
        self._written(key, facts, data, payload)

    def _save(self, must_create: bool) -> Flow[None]:
        key = self.session_key
        if key is None:
            yield from self._create()
        elif must_create:
            yield from self._insert(key, self._fresh())
        else:
            loaded = yield from self._prepare(key)
            # Who signs out, or in as another, without logout() or login() gets a new key all the
            # same: the old one is that of a row which ends now.
            user = self._session_cache.get(SESSION_KEY)
            switched = "handle" in self._facts and self._facts["user"] != user
            new_key = new_session_key() if switched else key
            yield from self._write(key, loaded, new_key, self._facts)

    def _cycle(self, authenticated_at: int | None = None) -> Flow[None]:
        """
        Give the session a new key. The old one is dead when this returns; the row follows.

        A session that was ended meanwhile does not come back: UpdateError. That of a visitor who
        is not signed in may be gone for any reason: its contents get a new one.
        """
        if (key := self.session_key) is None:
            return (yield from self._create())
        try:
            loaded = yield from self._prepare(key)
            facts = self._facts
            if authenticated_at:
                facts = {**facts, "authenticated_at": authenticated_at}
            yield from self._write(key, loaded, new_session_key(), facts)
            self.modified = True
        except UpdateError:
            if "handle" in self._facts:
                raise
            yield from self._create()

    def _delete(self, session_key: str | None) -> Flow[None]:
        own = session_key in (None, self.session_key)
        if session_key := session_key or self.session_key:
            digest = digest_of(session_key)
            # First, so that whoever is told that the store is down can try again.
            yield self.remove, [digest]
            # A visitor who is known not to be signed in has no row to look for.
            if not (own and self._loaded and "handle" not in self._facts):
                yield UserSession.objects.filter(digest=digest).close, EndReason.LOGOUT

    def _flush(self) -> Flow[None]:
        yield from self._delete(None)
        self._flushed = self._facts.get("handle")
        self.clear()
        self._forget()
        self._session_key = None

    def _prepare(self, key: str) -> Flow[bytes]:
        """
        Know the dictionary, the facts and the version of what is stored, before writing over it;
        return the payload. Raises UpdateError when there is none.
        """
        self.accessed = True
        if not hasattr(self, "_session_cache"):
            self._session_cache = yield from self._load()
        elif self._loaded is None:
            # Somebody set the dictionary without reading what is stored, as clear() does.
            digest = digest_of(key)
            stored = yield self.read, digest
            if contents := self._open(key, digest, stored):
                self._facts, self._loaded, self._overwrite = contents[0], stored.payload, True
            else:
                raise self._gone(digest)
        if self._loaded is None:
            raise UpdateError
        return self._loaded

    def _write(self, key: str, loaded: bytes, new_key: str, facts: Facts) -> Flow[None]:
        """
        Write the dictionary and ``facts`` over ``loaded``, which is stored under ``key``, and have
        them under ``new_key`` then. What other requests have written since is merged.
        """
        old, new, moving = digest_of(key), digest_of(new_key), key != new_key
        data = self._session_cache
        row = self._facts.get("handle")
        follows = moving and row is not None and self._facts["user"] == data.get(SESSION_KEY)
        try:
            with self._transaction(facts, data, moving):
                if follows:
                    # Before the key moves: whoever misses the old one must not find its row.
                    at = _now(), self._expires_at(data), facts["authenticated_at"]
                    if not (yield UserSession.objects.follow, row, old, new, *at):
                        raise self._gone(old)
                while True:
                    now, expires_at = _now(), self._expires_at(data)
                    facts = yield from self._enrol(facts, data, new, now, expires_at, moving)
                    payload = seal((facts, data), new_key, new, self.serializer())
                    expected = version_of(loaded)
                    if moving:
                        done = yield self.move, old, new, payload, now, expires_at, expected
                    else:
                        done = yield self.replace, old, payload, expires_at, expected
                    if done:
                        break
                    loaded, facts, data = yield from self._merged(key, loaded, facts, data)
                if follows or facts.get("handle") != row:
                    yield from self._confirm(facts, new)
        except Exception:
            yield from self._withdraw(facts)
            if follows:  # a store that failed, a value that cannot be stored
                back = new, old, _now(), self._expires_at(data), self._facts["authenticated_at"]
                yield UserSession.objects.follow, row, *back
            raise
        self._written(new_key, facts, data, payload)

    def _merged(
        self, key: str, loaded: bytes, facts: Facts, data: dict[str, Any]
    ) -> Flow[tuple[bytes, Facts, dict[str, Any]]]:
        """Return what another request has written since ``loaded``, and ours merged into it."""
        digest = digest_of(key)
        stored = yield self.read, digest
        theirs = self._open(key, digest, stored)
        if theirs is None:
            raise self._gone(digest)
        # It was opened once. What the serializer makes of ours is what is compared.
        base = cast("Contents", unseal(loaded, key, digest, self.serializer()))
        if not self._overwrite:
            mine = self.serializer().loads(self.serializer().dumps(data))
            data = _merge(base[1], mine, theirs[1])
        return stored.payload, _merge(base[0], facts, theirs[0]), data

    def _confirm(self, facts: Facts, digest: str) -> Flow[None]:
        """
        Look whether a row that was written before its session is still alive: a revocation in
        between has not found the session, for it was not there yet.
        """
        if "handle" in facts:
            rows = UserSession.objects.filter(pk=facts["handle"], digest=digest, ended_at=None)
            if not (yield (rows.exists,)):
                yield self.remove, [digest]
                raise self._gone(digest)

    def _enrol(
        self,
        facts: Facts,
        data: dict[str, Any],
        digest: str,
        now: int,
        expires_at: int,
        moving: bool = False,
    ) -> Flow[Facts]:
        """
        Keep the registry true to the dictionary that is about to be written, and return the facts
        to write with it. Here, and not in a receiver: every way to sign in ends in a save.
        """
        rows, user = UserSession.objects, data.get(SESSION_KEY)
        if user == facts.get("user"):
            if user is not None and self._is_off(facts, data, expires_at):
                if not moving:
                    yield rows.touch, facts["handle"], digest, now, expires_at, self.client
                facts = {**facts, "until": expires_at}
            return facts
        if "handle" in facts:
            reason = EndReason.LOGOUT if user is None else EndReason.REPLACED
            yield rows.filter(pk=facts["handle"]).close, reason
        if user is None:
            return {}
        if self._flushed:
            # By login(), which flushes the session of another user. Not a logout after all.
            replaced = rows.filter(pk=self._flushed, end_reason=EndReason.LOGOUT)
            yield (partial(replaced.update, end_reason=EndReason.REPLACED),)
        handle = yield rows.open, user, digest, now, expires_at, self.client
        return {"handle": handle, "user": user, "authenticated_at": now, "until": expires_at}

    def _is_off(self, facts: Facts, data: dict[str, Any], expires_at: int) -> bool:
        """Tell whether the row is too far from the truth: somebody who reads it acts on it."""
        return bool(abs(expires_at - facts["until"]) >= self._interval(data))

    def _interval(self, data: dict[str, Any]) -> float:
        # Milliseconds. Short sessions are touched often enough to stay alive.
        expiry = data.get("_session_expiry")
        age = expiry if expiry and isinstance(expiry, int) else self.get_session_cookie_age()
        return 1000 * min(conf.SESSIONKIT_TOUCH_INTERVAL, age / 10)

    def _gone(self, digest: str) -> UpdateError:
        self.lost = digest
        return UpdateError("The session has ended.")

    def _withdraw(self, facts: Facts) -> Flow[None]:
        """Take back the row of a sign-in whose session was not written, unless it has ended."""
        if "handle" in facts and facts["handle"] != self._facts.get("handle"):
            rows = UserSession.objects.filter(pk=facts["handle"], ended_at=None)
            yield (rows.delete,)

    def _transaction(
        self, facts: Facts, data: dict[str, Any], moving: bool = False
    ) -> AbstractContextManager[object]:
        """One statement needs no transaction. Where the row is written too, there are two."""
        user = data.get(SESSION_KEY)
        if user == facts.get("user") and (
            user is None or not (moving or self._is_off(facts, data, self._expires_at(data)))
        ):
            return nullcontext()
        return self.atomic()

    def _written(self, key: str, facts: Facts, data: dict[str, Any], payload: bytes) -> None:
        self._session_key, self._session_cache = key, data
        self._facts, self._loaded, self._overwrite = facts, payload, False

    def _fresh(self) -> dict[str, Any]:
        """Return the dictionary without loading it, as save() and create() of a new session do."""
        self.accessed = True
        if not hasattr(self, "_session_cache"):
            self._session_cache = {}
        return self._session_cache

    def _open(self, key: str, digest: str, stored: Stored | None) -> Contents | None:
        if stored is None:
            return None
        contents = unseal(stored.payload, key, digest, self.serializer())
        if contents is None:
            security_logger.warning("A stored session could not be opened, and was ignored")
        return contents

    def _expires_at(self, data: dict[str, Any]) -> int:
        # By its age, not by its date: without USE_TZ a date means two moments once a year.
        age = self.get_expiry_age(expiry=data.get("_session_expiry"))
        return min(_now() + int(age * 1000), END_OF_TIME)

    # The two drivers.

    def _run(self, flow: Flow[T]) -> T:
        try:
            call = next(flow)
            while True:
                try:
                    answer = self.call(*call)
                except Exception as error:
                    call = flow.throw(error)  # so that the flow leaves its transaction
                else:
                    call = flow.send(answer)
        except StopIteration as stop:
            value: T = stop.value
            return value
        except StoreUnavailable:
            self.failed = True
            raise

    async def _arun(self, flow: Flow[T]) -> T:
        if not self.native_async:
            return await sync_to_async(self._run)(flow)
        try:
            call = next(flow)
            while True:
                try:
                    answer = await self._acall(*call)
                except Exception as error:
                    call = flow.throw(error)
                else:
                    call = flow.send(answer)
        except StopIteration as stop:
            value: T = stop.value
            return value
        except StoreUnavailable:
            self.failed = True
            raise

    async def _acall(self, function: Callable[..., T], *args: Any) -> T:
        """Call the async twin of a verb; whatever else there is to call works on the registry."""
        if getattr(function, "__self__", None) is not type(self):
            return await sync_to_async(self.call)(function, *args)
        try:
            answer: T = await getattr(self, f"a{function.__name__}")(*args)
        except self.unavailable as error:
            raise self._no_answer(error) from error
        return answer


def _now() -> int:
    return time.time_ns() // 1_000_000


def _merge(base: Facts, mine: Facts, theirs: Facts) -> Facts:
    """
    Return ``theirs`` with what ``mine`` changed or removed since ``base``. Values are compared, so
    that a change deep inside one counts.
    """
    merged = dict(theirs)
    for name in base.keys() | mine.keys():
        if name not in mine:
            merged.pop(name, None)
        elif name not in base or base[name] != mine[name]:
            merged[name] = mine[name]
    return merged
