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
from asyncio import shield
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar, cast
from weakref import ref

from asgiref.sync import sync_to_async
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.db import InterfaceError, InternalError, OperationalError
from django.middleware.csrf import CSRF_SESSION_KEY
from django.utils import timezone

from django_sessionkit.client import Client
from django_sessionkit.conf import conf
from django_sessionkit.current import current_request, loaded_session
from django_sessionkit.devices import device_of
from django_sessionkit.exceptions import StoreUnavailable, TooManySessions
from django_sessionkit.models import (
    EndReason,
    Lifetime,
    Progress,
    UserSession,
    as_datetime,
    policy_of,
    user_of,
)
from django_sessionkit.policy import Policy
from django_sessionkit.sealing import (
    SessionKey,
    digest_of,
    new_salt,
    new_session_key,
    seal,
    successor_of,
    unseal,
    version_of,
)
from django_sessionkit.serializing import dump, dump_facts, load, load_facts
from django_sessionkit.signals import session_key_reused, session_moved

logger = logging.getLogger("django_sessionkit")
security_logger = logging.getLogger("django.security.SuspiciousSession")

# The last that a date can be, in milliseconds since the epoch.
END_OF_TIME = 253_402_214_400_000

# Milliseconds for which the former key of a session is recognised once its new one was seen.
RECOGNISED = 24 * 60 * 60 * 1000
# Milliseconds that somebody has to make room for a sign-in that is over the limit.
TIME_TO_CHOOSE = 15 * 60 * 1000
# Where django-hijack and django-loginas note that staff act as somebody else.
IMPERSONATION = ("hijack_history", "loginas_from_session")

T = TypeVar("T")
Flow = Generator[tuple[Any, ...], Any, T]
Facts = dict[str, Any]
Contents = tuple[Facts, dict[str, Any]]


class Stored(NamedTuple):
    payload: bytes
    touched_at: int


class Locked(NamedTuple):
    """What is known of a session that is there, but not for whoever holds its cookie."""

    # "idle" and "moved" ask for a proof of identity, "limit" for other sessions to be ended.
    reason: str
    handle: uuid.UUID
    user: str
    limit: int | None


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
    # This request is no activity of its user's: see decorators.py.
    background = False
    # Set by the receiver of user_logged_in, to spare a query.
    signing_in: AbstractBaseUser | None = None

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key and SessionKey(session_key))
        self._given_key = self._session_key
        # What the middleware asks afterwards.
        self.touched = False  # its expiry has slid, so the cookie's should too
        self.renewed = False  # it has another key than the cookie
        self.refused: int | None = None  # the limit that a sign-in was refused by
        # See locked. None, too, as long as nobody has loaded it.
        self.lock: Locked | None = None
        self._locked_key: SessionKey | None = None
        self.failed = False  # the store did not answer
        self.lost: str | None = None  # the digest of a session that was not, or is no longer, there
        self._flushed: str | None = None  # the handle of a session that was flushed
        self._forget()

    def _forget(self) -> None:
        # The kit's own facts lie beside the dictionary, where no view can write. Times are in
        # milliseconds since the epoch:
        #   handle, user      of the row, as texts
        #   authenticated_at  when the user last proved who they are
        #   until             what the row says of when the session expires
        #   policy            what the Policy says other than the default
        #   deadline          the end of the longest lifetime, by Policy.absolute
        #   pending           the limit, while the session waits for room
        #   bound             the browser, system and network of Policy.bind
        #   keyed_at, seen    when its key was issued, and first used, by Policy.renew_after
        #   previous          the digest of the key before, until this one is seen
        #   successor         in what is left under a former key: what leads to the next one
        self._facts: Facts = {}
        # The payload as it was read or last written: what the next write expects to replace, and
        # what a conflict is merged against.
        self._loaded: bytes | None = None
        # The dictionary takes the place of what is stored, rather than to be merged with it.
        self._overwrite = False
        self._expiry: Any = None  # of the dictionary as it was read
        self._touched_at: int | None = None
        self._due = False  # its activity is to be written
        self._privileges_changed = False
        self._former: str | None = None  # the digest of the former key that has led here

    @property
    def handle(self) -> uuid.UUID | None:
        """The id of this session's UserSession, or None for a visitor who is not signed in."""
        self.get("")  # loads it
        handle = self._facts.get("handle")
        return uuid.UUID(handle) if handle else None

    @property
    def locked(self) -> Locked | None:
        """
        What the session is locked for, or None. One that is locked reads as that of a stranger, and
        is not written.
        """
        self.get("")
        return self.lock

    @property
    def authenticated_at(self) -> datetime | None:
        """When the user last proved who they are in this session, or None for a visitor."""
        self.get("")
        at = self._facts.get("authenticated_at")
        return as_datetime(at) if at else None

    @property
    def policy(self) -> Policy:
        """What of the user's Policy still matters after signing in. See Policy.facts()."""
        self.get("")
        return _policy(self._facts)

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

    # A visitor who goes away in the middle cancels the request. A new key is for the row and the
    # store, or for none of them.
    async def acycle_key(self) -> None:
        await shield(self._arun(self._cycle()))

    def clear(self) -> None:
        super().clear()
        self._overwrite = True

    def flush(self) -> None:
        self._run(self._flush())

    async def aflush(self) -> None:
        await self._arun(self._flush())

    def get_expiry_age(self, **kwargs: Any) -> int:
        return self._capped(super().get_expiry_age(**kwargs))

    async def aget_expiry_age(self, **kwargs: Any) -> int:
        return self._capped(await super().aget_expiry_age(**kwargs))

    def get_expiry_date(self, **kwargs: Any) -> datetime:
        return self._capped_date(super().get_expiry_date(**kwargs))

    async def aget_expiry_date(self, **kwargs: Any) -> datetime:
        return self._capped_date(await super().aget_expiry_date(**kwargs))

    def _capped(self, age: int) -> int:
        now = _now()
        age = min(age, max(0, (self._end(self._facts, now) - now) // 1000))
        return max(age, -now // 1000)  # after 1970, as in _lifetime()

    def _capped_date(self, date: datetime) -> datetime:
        end = self._end(self._facts, _now())
        at = datetime.fromtimestamp(end / 1000, UTC)
        at = at if timezone.is_aware(date) else timezone.make_naive(at)
        return min(date, at)

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
        Note that the user has proved again, now, who they are, under a new session key. Both
        clocks, of idleness and of the longest lifetime, begin anew (NIST SP 800-63B-4 §5.2), and
        the policy is asked again.

        ASVS 7.2.4 asks for the new key; Django's login() gives one to a new user only.
        """
        self._run(self._cycle(proved=True))

    async def areauthenticate(self) -> None:
        """See reauthenticate()."""
        await shield(self._arun(self._cycle(proved=True)))

    def unlock(self, full: bool = False) -> None:
        """
        Resume a locked session, whose user has just done what it was locked for, under a new key,
        with all that it held. A proof of identity is ``full`` if it is as good as signing in: only
        that begins the longest lifetime anew (NIST SP 800-63B-4 §2.2.3).

        Raises UpdateError if it is there no more.
        """
        self._run(self._unlock(full))

    async def aunlock(self, full: bool = False) -> None:
        """See unlock()."""
        await shield(self._arun(self._unlock(full)))

    def has_good_cookie(self) -> bool:
        """
        Tell whether the visitor needs no cookie, although the session was written. One with a key
        that changes by itself is not sent again: it could arrive after that with the next key.
        """
        return (
            "keyed_at" in self._facts
            and self.session_key == self._given_key
            and self._session_cache.get("_session_expiry") == self._expiry
        )

    @property
    def was_found(self) -> bool:
        """Whether what is stored under its key has been read, or written."""
        return self._loaded is not None

    def is_settled(self) -> bool:
        """
        Tell whether nothing is left to do at the end of a request but to save what was modified:
        no activity is to be written, the visitor is to be told nothing.
        """
        due = self._due and not self.background
        unread = self.modified and not hasattr(self, "_session_cache")
        open_ends = self.failed, self.lost, self.lock, due, unread
        return not any(open_ends) and "previous" not in self._facts

    def finish(self, answered: bool) -> None:
        """
        Write the activity of a request, at its end, outside of the view's transaction; give the
        session a new key if it is time for one and the visitor is going to get it. A store that
        does not answer now is not worth an answer: the session stays due.
        """
        try:
            self._run(self._finish(answered))
        except StoreUnavailable:
            self.failed = False
        except UpdateError:
            pass  # ended meanwhile: the next request is told, or what writes the session now

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
    def replace(cls, digest: str, payload: bytes, expires_at: int | None, expected: bytes) -> bool:
        """
        Write over the version ``expected``. False, and nothing is written, if the session is gone
        or has another version by now. Never creates. One atomic statement. None leaves the expiry
        as it is.
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

    def _load(self, resuming: bool = False) -> Flow[dict[str, Any]]:
        self._forget()
        self.lock = None
        if self.session_key is None:
            return {}
        found = yield from self._find(self.session_key)
        if found is None:
            self._forget()
            self._session_key = None
            return {}
        key, stored, contents = found
        facts, data = contents
        reason = None if resuming else self._lock_of(facts, stored.touched_at)
        if self.client is not None and reason is None:
            self._due = abs(_now() - stored.touched_at) >= self._interval(facts, data)
            if "handle" in facts:
                reason = yield from self._check(key, stored, contents, resuming)
        if reason == "renewed":
            return (yield from self._load(resuming))
        if reason == "ended":
            self._forget()
            self.lost, self._session_key = digest_of(key), None
            return {}
        if reason:
            return self._lock(reason, key, contents)
        loaded_session.set(ref(self))
        self._session_key, self._facts, self._loaded = key, facts, stored.payload
        self._touched_at = stored.touched_at
        self.renewed = self._former is not None
        self._expiry = data.get("_session_expiry")
        return data

    def _find(self, key: str) -> Flow[tuple[str, Stored, Contents] | None]:
        """
        Return the session with this key, or the one that a former key leads to, with its own key.
        """
        former: Facts | None = None
        reused = False
        while True:
            key = _as_session_key(key)
            digest = key.digest
            key.prepare()  # before the wait
            stored = yield self.read, digest
            contents = self._open(key, stored)
            facts = contents[0] if contents else {}
            if former and (seen := facts.get("seen")):
                grace = _policy(former).renew_grace
                reused = reused or seen + 1000 * grace <= _now()
            if contents is None or "successor" not in facts:
                break
            self._former = self._former or digest
            former, key = facts, successor_of(key, facts["successor"])
        if reused and contents is not None and not (yield from self._reused(facts)):
            return None
        if reused or contents is None:
            self.lost = digest
            return None
        return key, stored, contents

    def _reused(self, facts: Facts) -> Flow[bool]:
        """Report that a former key was used after its grace; tell whether that ends the session."""
        handle = uuid.UUID(facts["handle"])
        security_logger.warning("A former key of session %s was used again", handle)
        send = session_key_reused.send_robust
        yield (partial(send, UserSession, handle=handle, client=self.client),)
        if _policy(facts).on_reuse != "end":
            return False
        yield UserSession.objects.filter(pk=handle).revoke, EndReason.REUSED
        return True

    def _lock_of(self, facts: Facts, touched_at: int) -> str | None:
        """Return what the session is locked for, as far as time alone can tell."""
        if "pending" in facts:
            return "limit"
        policy = facts.get("policy", {})
        if policy.get("lock") and touched_at + 1000 * policy["idle"] <= _now():
            return "idle"
        return None

    def _check(
        self, key: str, stored: Stored, contents: Contents, resuming: bool
    ) -> Flow[str | None]:
        """
        Ask the registry before the view sees the session, if its activity is due: one that was
        ended goes no further, whatever the store says (a lost removal, a failover, a restored
        backup). Return why it does not go on: "ended", "moved"; or "renewed", to load it again.
        """
        facts, data = contents
        digest = digest_of(key)
        if self._due:
            ask = UserSession.objects.verify, facts["handle"], _digests(facts, digest)
            # Who has just proved who they are may have got a stronger hash by that.
            row = yield *ask, "" if resuming else data.get(HASH_SESSION_KEY, "")
            if row is None:
                again = yield self.read, digest
                if again is not None and again.payload != stored.payload:
                    return "renewed"  # meanwhile, by a parallel request
                yield self.remove, [digest]
                return "ended"
            self._privileges_changed = row.renew
        if "bound" in facts and not resuming:
            return (yield from self._check_binding(facts))
        return None

    def _check_binding(self, facts: Facts) -> Flow[str | None]:
        then, now = facts["bound"], self._traits(facts["bound"])
        # What is not known, now or then, does not count.
        changed = [name for name in then if then[name] and now[name] and then[name] != now[name]]
        if not changed:
            self._bind(facts, now)  # it may have been signed in by code
            return None
        handle = uuid.UUID(facts["handle"])
        security_logger.warning("Session %s is used with another %s", handle, ", ".join(changed))
        send = partial(session_moved.send_robust, UserSession, handle=handle)
        yield (partial(send, changed=changed, client=self.client),)
        match _policy(facts).on_change:
            case "ask":
                return "moved"
            case "end":
                yield UserSession.objects.filter(pk=handle).revoke, EndReason.MOVED
                return "ended"
        self._bind(facts, now)
        return None

    def _bind(self, facts: Facts, now: dict[str, str]) -> None:
        bound = {name: now[name] or then for name, then in facts["bound"].items()}
        if bound != facts["bound"]:
            facts["bound"] = bound
            self.modified = True

    def _traits(self, names: Iterable[str]) -> dict[str, str]:
        """Return what is known of the client under these names of Policy.bind."""
        if self.client is None:
            return dict.fromkeys(names, "")
        device = device_of(self.client.user_agent)
        known = {
            "browser": device.browser,
            "system": device.system,
            "network": self.client.network,
        }
        return {name: known[name] for name in names}

    def _lock(self, reason: str, key: str, contents: Contents) -> dict[str, Any]:
        facts, data = contents
        self._forget()
        handle, limit = uuid.UUID(facts["handle"]), facts.get("pending")
        self.lock = Locked(reason, handle, facts["user"], limit)
        self._locked_key = SessionKey(key)
        self._session_key = None
        # The page that unlocks it has a form.
        return {name: data[name] for name in [CSRF_SESSION_KEY] if name in data}

    def _raise_if_locked(self, data: dict[str, Any]) -> None:
        if self.lock and SESSION_KEY not in data:
            raise UpdateError("The session is locked.")

    def _unlock(self, full: bool) -> Flow[None]:
        if not hasattr(self, "_session_cache"):
            self._session_cache = yield from self._load()
        if self.lock is None:
            raise UpdateError("The session is not locked.")
        limit = self.lock.limit
        if limit is not None and not (yield UserSession.objects.admit, self.lock.handle, limit):
            raise TooManySessions(limit)
        self._session_key = self._locked_key
        self._session_cache = yield from self._load(resuming=True)
        if self._loaded is None:
            raise UpdateError("The session has ended.")
        self._touched_at = None
        facts = {**self._facts}
        pending = facts.pop("pending", None)
        if full:
            facts = yield from self._authenticated(facts)
        elif pending is None:
            facts["authenticated_at"] = _now()
        if "bound" in facts and (full or pending is None):  # to make room proves nothing
            facts["bound"] = self._traits(facts["bound"])
        yield from self._write(
            cast("str", self._session_key), self._loaded, new_session_key(), facts
        )
        self.modified = True

    def _finish(self, answered: bool) -> Flow[None]:
        key, facts = self.session_key, self._facts
        unseen = "previous" in facts and self._former is None
        if key is None or self._loaded is None or not (unseen or self._due):
            return
        digest, now = digest_of(key), _now()
        if unseen:
            yield from self._see(digest, now)
        if self.background or not self._due:
            return
        self._due = False
        if not (yield from self._touch(digest, now)):
            return
        if answered and not self._former and self._is_to_be_renewed(now):
            yield from self._renew(key, now)  # or a parallel request has, and this is an old key
        else:
            self.touched = True

    def _see(self, digest: str, now: int) -> Flow[None]:
        """Note that the visitor has the new key: the old one is of no use soon, but recognised."""
        facts = self._facts
        # The row may not have followed yet, if the renewal broke off.
        row = UserSession.objects.primary().filter(pk=facts["handle"], digest=facts["previous"])
        yield (partial(row.update, digest=digest),)
        yield self.touch, facts["previous"], now, min(now + RECOGNISED, self._end(facts, now))
        self._facts = {k: v for k, v in facts.items() if k != "previous"} | {"seen": now}
        self.modified = True

    def _touch(self, digest: str, now: int) -> Flow[bool]:
        """
        Write the activity. False: the session was ended or given a new key meanwhile, or its time
        was over before the view was done. The next request is told.
        """
        facts = self._facts
        lifetime = self._lifetime(facts, self._session_cache, now)
        if not (yield self.touch, digest, now, lifetime.expires_at):
            return False
        if self._former and "previous" in facts:  # still all that the visitor has
            yield self.touch, self._former, now, lifetime.expires_at
        if row := facts.get("handle"):
            # Last, because it is the row that knows whether this is still the key.
            write = UserSession.objects.touch, row, _digests(facts, digest), now
            if not (yield *write, lifetime, self.client):
                return False
            self._facts = {**facts, "until": lifetime.expires_at}
            self._set_clock(now)
        return True

    def _set_clock(self, now: int) -> None:
        """A clock that was ahead when the user signed in must not make the session live longer."""
        ahead = self._facts["authenticated_at"] - now
        if ahead > 1000 * conf.SESSIONKIT_TOUCH_INTERVAL:
            self._facts = {**self._facts, "authenticated_at": now}
            if "deadline" in self._facts:
                self._facts["deadline"] -= ahead
            self.modified = True

    def _is_to_be_renewed(self, now: int) -> bool:
        if "handle" not in self._facts:
            return False
        if self._privileges_changed:
            return True
        after = self._facts.get("policy", {}).get("renew_after")
        return after is not None and abs(now - self._facts["keyed_at"]) >= 1000 * after

    def _renew(self, key: str, now: int) -> Flow[None]:
        """
        Give the session a new key, and leave under the old one what leads there: requests that are
        under way come with that, and so does the next one if this answer is lost. What is left
        can be read with the old key only, like everything else, and is not the new key.
        """
        salt, serializer = new_salt(), self.serializer
        new_key = successor_of(key, salt)
        old, new = digest_of(key), digest_of(new_key)
        rows, row, data = UserSession.objects, self._facts["handle"], self._session_cache
        lifetime = self._lifetime(self._facts, data, now)
        base = key, cast("bytes", self._loaded)
        with self.atomic():
            # The row first, which is locked by that, as everywhere else.
            if not (yield rows.touch, row, [old], now, lifetime, self.client):
                return
            while True:
                facts = {k: v for k, v in self._facts.items() if k != "seen"}
                facts |= {"keyed_at": now, "previous": old}
                payload = _sealed(facts, data, new_key, serializer)
                trace = _sealed({**self._facts, "successor": salt}, {}, key, serializer)
                # Nobody knows of the new key before the old one leads there.
                yield self.insert, new, payload, now, lifetime.expires_at
                expected = version_of(base[1])
                if (yield self.replace, old, trace, lifetime.expires_at, expected):
                    break
                # A parallel request has written, or was faster.
                yield self.remove, [new]
                now_key, stored, merged, data = yield from self._merged(
                    key, base, self._facts, data
                )
                self._written(now_key, merged, data, stored)
                if now_key != key:
                    return
                base = key, stored
            at = now, lifetime, facts["authenticated_at"]
            if not (yield rows.follow, row, [old], new, *at):
                # Ended meanwhile, or it has followed to a key that a parallel request gives it.
                if not (yield (rows.primary().filter(pk=row, ended_at=None).exists,)):
                    yield self.remove, [old, new]
                return
        self._written(new_key, facts, data, payload)
        self.renewed = True

    def _exists(self, session_key: str | None) -> Flow[bool]:
        if not session_key:
            return False
        digest = digest_of(session_key)
        return digest in (yield self.peek, [digest])

    def _create(self) -> Flow[None]:
        data = self._fresh()
        self._raise_if_locked(data)
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
        facts: Facts = {}
        try:
            with self._transaction({}, data):
                facts = yield from self._enrol({}, data, digest)
                now = _now()
                expires_at = self._lifetime(facts, data, now).expires_at
                payload = _sealed(facts, data, key, self.serializer)
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
            key = cast("str", self.session_key)
            new_key = new_session_key() if switched else key
            yield from self._write(key, loaded, new_key, self._facts)

    def _cycle(self, proved: bool = False) -> Flow[None]:
        """
        Give the session a new key. The old one is dead when this returns; the row follows.

        A session that was ended meanwhile does not come back: UpdateError. That of a visitor who
        is not signed in may be gone for any reason: its contents get a new one.
        """
        if (key := self.session_key) is None:
            # login() begins with this: who signs in rather than to unlock a session gets another.
            if self.lock and proved:
                raise UpdateError("The session is locked: see unlock().")
            return None if self.lock else (yield from self._create())
        try:
            loaded = yield from self._prepare(key)
            facts = self._facts
            if proved and "handle" in facts:
                self._touched_at = None
                facts = yield from self._authenticated(facts)
            if "keyed_at" in facts:
                facts = {**facts, "keyed_at": _now()}
            key = cast("str", self.session_key)
            yield from self._write(key, loaded, new_session_key(), facts)
            self.modified = True
        except TooManySessions:
            raise
        except UpdateError:
            if "handle" in self._facts:
                raise
            yield from self._create()

    def _delete(self, session_key: str | None) -> Flow[None]:
        known = session_key in (None, self.session_key) and self._loaded is not None
        key = session_key or self.session_key or (self._locked_key if self.lock else None)
        if key is None:
            return
        digests, facts, rows = [digest_of(key)], self._facts, UserSession.objects
        if not known:
            lost, former = self.lost, self._former
            found = yield from self._find(key)
            self.lost, self._former = lost, former  # not what this session is about
            facts = found[2][0] if found else {}
            digests += [digest_of(found[0])] if found else []
        # First, so that whoever is told that the store is down can try again.
        yield self.remove, digests
        if "handle" in facts:
            yield rows.close_one, facts["handle"], EndReason.LOGOUT
            # After it was marked: a parallel request may have given it a new key until then.
            row = rows.primary().filter(pk=facts["handle"])
            found = yield (partial(list, row.values_list("digest", flat=True)),)
            if left := set(found) - set(digests):
                yield self.remove, left
        elif not known:
            yield rows.filter(digest=digests[0]).close, EndReason.LOGOUT

    def _flush(self) -> Flow[None]:
        yield from self._delete(None)
        self._flushed = self._facts.get("handle")
        self.clear()
        self._forget()
        self._session_key = self.lock = None

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
            found = yield from self._find(key)
            if found is None:
                raise UpdateError("The session has ended.")
            new_key, stored, contents = found
            if reason := self._lock_of(contents[0], stored.touched_at):
                self._lock(reason, new_key, contents)
                self._raise_if_locked({})
            self._session_key, self._facts = SessionKey(new_key), contents[0]
            self._loaded, self._touched_at = stored.payload, stored.touched_at
            self._overwrite = True
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
                base = key, loaded
                if follows:
                    # Before the key moves: whoever misses the old one must not find its row.
                    key = yield from self._follow(key, new, facts, data)
                    old = digest_of(key)
                while True:
                    facts = yield from self._enrol(facts, data, new, moving)
                    since = self._since(facts, moving)
                    expires_at = self._lifetime(facts, data, since).expires_at
                    payload = _sealed(facts, data, new_key, self.serializer)
                    expected = version_of(loaded)
                    if moving:
                        done = yield self.move, old, new, payload, since, expires_at, expected
                    else:
                        until = None if self._is_held(data) else expires_at
                        done = yield self.replace, old, payload, until, expected
                    if done:
                        break
                    key, loaded, facts, data = yield from self._merged(key, base, facts, data)
                    base, old = (key, loaded), digest_of(key)
                    if not moving:
                        new_key, new = key, old
                if follows or facts.get("handle") != row:
                    yield from self._confirm(facts, new)
        except Exception:
            yield from self._withdraw(facts)
            if follows:  # a store that failed, a value that cannot be stored
                since = self._since(self._facts, moving)
                back = [new], old, since, self._lifetime(self._facts, data, since)
                was = self._facts["authenticated_at"]
                yield UserSession.objects.follow, row, *back, was
            raise
        self._written(new_key, facts, data, payload)

    def _follow(self, key: str, new: str, facts: Facts, data: dict[str, Any]) -> Flow[str]:
        """Have the row follow to a new key; return the key that the session has until then."""
        while True:
            since = self._since(facts, moving=True)
            at = since, self._lifetime(facts, data, since), facts["authenticated_at"]
            digests = _digests(facts, digest_of(key))
            if (yield UserSession.objects.follow, facts["handle"], digests, new, *at):
                return key
            found = yield from self._find(key)
            if found is None or found[0] == key:
                raise self._gone(digest_of(key))
            key = found[0]  # a parallel request has renewed it

    def _merged(
        self, key: str, base: tuple[str, bytes], facts: Facts, data: dict[str, Any]
    ) -> Flow[tuple[str, bytes, Facts, dict[str, Any]]]:
        """
        Return what another request has written since ``base``, and ours merged into it. It may
        have a new key by now.
        """
        found = yield from self._find(key)
        if found is None:
            raise UpdateError("The session has ended.")
        new_key, stored, theirs = found
        # It was opened once. What the serializer makes of ours is what is compared.
        old_key, loaded = base
        was = cast("Contents", _opened(loaded, old_key, self.serializer))
        if not self._overwrite:
            mine = self.serializer().loads(self.serializer().dumps(data))
            data = _merge(was[1], mine, theirs[1])
        self.renewed = self.renewed or new_key != key
        return new_key, stored.payload, _merge(was[0], facts, theirs[0]), data

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
        self, facts: Facts, data: dict[str, Any], digest: str, moving: bool = False
    ) -> Flow[Facts]:
        """
        Keep the registry true to the dictionary that is about to be written, and return the facts
        to write with it. Here, and not in a receiver: every way to sign in ends in a save.
        """
        rows, user = UserSession.objects, data.get(SESSION_KEY)
        if user == facts.get("user"):
            if user is not None and self._is_off(facts, data):
                lifetime = self._lifetime(facts, data, self._since(facts, moving))
                if not moving:
                    client = None if self.background else self.client
                    at = _digests(facts, digest), _now(), lifetime, client
                    yield rows.touch, facts["handle"], *at
                facts = {**facts, "until": lifetime.expires_at}
            return facts
        if "handle" in facts:
            reason = EndReason.LOGOUT if user is None else EndReason.REPLACED
            yield rows.close_one, facts["handle"], reason
        if user is None:
            return {}
        if self._flushed:
            # By login(), which flushes the session of another user. Not a logout after all.
            replaced = rows.filter(pk=self._flushed, end_reason=EndReason.LOGOUT)
            yield (partial(replaced.update, end_reason=EndReason.REPLACED),)
        return (yield from self._signed_in(user, data, digest))

    def _signed_in(self, user: str, data: dict[str, Any], digest: str) -> Flow[Facts]:
        rows = UserSession.objects
        if self.lock:
            # Its user, or somebody else, has signed in rather than to unlock it.
            yield rows.filter(pk=self.lock.handle).revoke, EndReason.LOGOUT
            self.lock = None
        policy = yield from self._policy_of(user)
        facts = self._proved({"user": user}, policy)
        now = facts["authenticated_at"]
        lifetime = self._lifetime(facts, data, now)
        counts = not any(data.get(name) for name in IMPERSONATION)
        try:
            opened = yield rows.open, user, digest, now, lifetime, self.client, policy, counts
        except TooManySessions as refusal:
            self.refused = refusal.args[0]
            raise
        facts["handle"], is_in = opened
        if counts and not is_in:
            facts["pending"] = policy.limit
            lifetime = self._lifetime(facts, data, now)
            yield rows.touch, facts["handle"], [digest], now, lifetime, None
        return {**facts, "until": lifetime.expires_at}

    def _policy_of(self, user: str) -> Flow[Policy]:
        person = self.signing_in
        if person is None or person._meta.pk.value_to_string(person) != user:
            person = yield user_of, user
        if person is None:
            return Policy()
        policy: Policy = yield policy_of, person, current_request.get()
        return policy

    def _authenticated(self, facts: Facts) -> Flow[Facts]:
        """Return the facts after a new proof of identity that is as good as signing in."""
        policy = yield from self._policy_of(facts["user"])
        of_policy = {"policy", "deadline", "bound", "keyed_at"}
        rest = {name: value for name, value in facts.items() if name not in of_policy}
        return self._proved(rest, policy)

    def _proved(self, facts: Facts, policy: Policy) -> Facts:
        now = _now()
        facts["authenticated_at"] = now
        if kept := policy.facts():
            facts["policy"] = kept
        if policy.absolute is not None:
            facts["deadline"] = now + 1000 * policy.absolute
        if policy.renew_after is not None:
            facts["keyed_at"] = now
        if policy.bind:
            facts["bound"] = self._traits(policy.bind)
        return facts

    def _since(self, facts: Facts, moving: bool = False) -> int:
        """Return when the last activity was, for what is written now: mostly, this is it."""
        still = self.background
        if self.client is None and not moving:
            # What locks a session is in the store, and a save leaves it alone there.
            still = still or "lock" in facts.get("policy", {})
        now = _now()
        return min(self._touched_at, now) if still and self._touched_at else now

    def _lifetime(self, facts: Facts, data: dict[str, Any], since: int) -> Lifetime:
        # By its age, not by its date: without USE_TZ a date means two moments once a year.
        now = _now()
        age = super().get_expiry_age(expiry=data.get("_session_expiry"))
        idle = facts.get("policy", {}).get("idle")
        idle_at = None if idle is None else since + 1000 * idle
        start = since if self._is_held(data) else now
        # After 1970: not every store takes a date before it.
        return Lifetime(max(1, min(start + int(age * 1000), self._end(facts, since))), idle_at)

    def _end(self, facts: Facts, since: int) -> int:
        """Return when a session ends that was active then, whatever its own expiry says."""
        policy = facts.get("policy", {})
        ends = [END_OF_TIME, facts.get("deadline", END_OF_TIME)]
        if "idle" in policy and not policy.get("lock"):
            ends.append(since + 1000 * policy["idle"])
        if "pending" in facts:
            ends.append(since + min(TIME_TO_CHOOSE, 1000 * policy.get("idle", TIME_TO_CHOOSE)))
        return int(min(ends))

    def _is_off(self, facts: Facts, data: dict[str, Any]) -> bool:
        """Tell whether the row is too far from the truth: somebody who reads it acts on it."""
        if self._is_held(data):
            return False
        kept = self.client is not None and not self._due and self._touched_at is not None
        if kept and data.get("_session_expiry") == self._expiry:
            # The row was written with the last activity, less than an interval ago.
            return False
        lifetime = self._lifetime(facts, data, self._since(facts))
        off = abs(lifetime.expires_at - facts["until"])
        return bool(off >= self._interval(facts, data))

    def _is_held(self, data: dict[str, Any]) -> bool:
        """A background request does not slide the expiry; set_expiry() in it does set it."""
        return self.background and data.get("_session_expiry") == self._expiry

    def _span(self, facts: Facts, data: dict[str, Any]) -> int:
        """Return for how many milliseconds it can live without activity."""
        expiry = data.get("_session_expiry")
        age = expiry if expiry and isinstance(expiry, int) else self.get_session_cookie_age()
        idle: int = facts.get("policy", {}).get("idle", age)
        return 1000 * min(age, idle)

    def _interval(self, facts: Facts, data: dict[str, Any]) -> float:
        # Milliseconds. Short sessions are touched often enough to stay alive.
        return min(1000 * conf.SESSIONKIT_TOUCH_INTERVAL, self._span(facts, data) / 10)

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
            user is None or not (moving or self._is_off(facts, data))
        ):
            return nullcontext()
        return self.atomic()

    def _written(self, key: str, facts: Facts, data: dict[str, Any], payload: bytes) -> None:
        if key != self._session_key:
            self._due, self._former, self._touched_at = False, None, None
        self._session_key, self._session_cache = _as_session_key(key), data
        self._facts, self._loaded, self._overwrite = facts, payload, False

    def _fresh(self) -> dict[str, Any]:
        """Return the dictionary without loading it, as save() and create() of a new session do."""
        self.accessed = True
        if not hasattr(self, "_session_cache"):
            self._session_cache = {}
        return self._session_cache

    def _open(self, key: str, stored: Stored | None) -> Contents | None:
        if stored is None:
            return None
        contents = _opened(stored.payload, key, self.serializer)
        if contents is None:
            security_logger.warning("A stored session could not be opened, and was ignored")
        return contents

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


def _as_session_key(key: str) -> SessionKey:
    return key if isinstance(key, SessionKey) else SessionKey(key)


def _sealed(facts: Facts, data: dict[str, Any], key: str, serializer: Any) -> bytes:
    body, plain = dump(data, serializer)
    return seal(dump_facts(facts), body, _as_session_key(key), plain)


def _opened(payload: bytes, key: str, serializer: Any) -> Contents | None:
    opened = unseal(payload, _as_session_key(key))
    if opened is None:
        return None
    written, body, plain = opened
    try:
        return load_facts(written), load(body, plain, serializer)
    except Exception:  # a change of SESSION_SERIALIZER
        return None


def _policy(facts: Facts) -> Policy:
    return Policy.of(facts.get("policy", {}))


def _digests(facts: Facts, digest: str) -> list[str]:
    """Return what the row can have as the digest: it follows a renewal last."""
    return [digest, facts["previous"]] if "previous" in facts else [digest]


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
