"""
The store of this leg, as seen from outside. With this module, the tests of the contract are the
same for every engine.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_sessionkit.backends import db
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.conf import conf
from django_sessionkit.models import StoredSession, get_session_store

SessionStore: Any = get_session_store()
MINUTE, HOUR, DAY = 60, 60 * 60, 24 * 60 * 60  # in seconds
FORTNIGHT = 14 * 24 * 60 * 60 * 1000  # SESSION_COOKIE_AGE, in milliseconds
# The time of a clock that stands still. It is in the future, because Redis expires past keys.
NOON = datetime(2040, 3, 1, 12, tzinfo=ZoneInfo("America/Chicago"))
ON_REDIS = settings.SESSION_ENGINE.endswith(".redis")
IN_MEMORY = settings.SESSION_ENGINE.endswith(".memory")
# The sessions are apart from the database with their rows: no transaction holds both.
APART = ON_REDIS or IN_MEMORY
VERBS = ["read", "insert", "replace", "move", "touch", "remove", "peek"]

# The verb that reads what others have written since, after a write that has failed.
READ_AGAIN = "read" if SessionStore.native_async else "read_again"

NO_BRACES = str.maketrans("", "", "{}")

if IN_MEMORY:
    from django_sessionkit.backends import memory
if ON_REDIS:
    import redis as driver
    import redis.asyncio as async_driver

    from django_sessionkit.backends import redis_buffer, redis_clients, redis_scripts


def payloads() -> dict[str, bytes]:
    """Return the sealed payloads in the store, by digest."""
    if IN_MEMORY:
        return {digest: entry.payload for digest, entry in memory._entries.items()}
    if not ON_REDIS:
        rows = _rows().values_list("digest", "payload")
        return {digest: bytes(payload) for digest, payload in rows}
    return {digest: client().get(key)[8:] for digest, key in _keys().items()}


def expiries() -> dict[str, int]:
    """Return when the sessions in the store expire, by digest, as far as Redis can tell."""
    if IN_MEMORY:
        return {digest: entry.expires_at for digest, entry in memory._entries.items()}
    if not ON_REDIS:
        return dict(_rows().values_list("digest", "expires_at"))
    seconds, microseconds = client().time()  # PEXPIRETIME is there from Redis 7 on
    at = 1000 * seconds + microseconds // 1000
    return {digest: at + client().pttl(key) for digest, key in _keys().items()}


def tamper(digest: str, payload: bytes) -> None:
    """Overwrite a payload, as somebody with access to the store could."""
    if IN_MEMORY:
        memory._entries[digest] = memory._entries[digest]._replace(payload=payload)
        return
    if not ON_REDIS:
        StoredSession.objects.filter(digest=digest).update(payload=payload)
        return
    key = _keys()[digest]
    client().set(key, client().getrange(key, 0, 7) + payload, keepttl=True)


def wipe() -> None:
    """Remove everything from the store."""
    if IN_MEMORY:
        memory.clear()
    elif not ON_REDIS:
        StoredSession.objects.all().delete()
    elif keys := [*client().scan_iter(match=f"{conf.SESSIONKIT_REDIS_PREFIX}*", count=10_000)]:
        client().delete(*keys)


def now() -> int:
    """Return the time in milliseconds since the epoch, as stores count it."""
    return int(datetime.now(UTC).timestamp() * 1000)


def works(drive: Callable[..., Any]) -> None:
    """Check a session, from its first save to its end. ``drive`` is the fixture of that name."""
    session = SessionStore()
    session["cart"] = ["teapot"]
    drive(session, "save")
    session["cart"] = ["kettle"]
    drive(session, "save")
    drive(session, "cycle_key")
    digest = digest_of(session.session_key or "")
    assert drive(SessionStore, "touch", digest, now(), now() + FORTNIGHT)
    assert drive(SessionStore, "peek", [digest, "0" * 64]) == {digest}
    assert drive(again(session), "load") == {"cart": ["kettle"]}
    drive(session, "flush")
    assert not drive(SessionStore, "peek", [digest])


def take_down(monkeypatch: pytest.MonkeyPatch, *verbs: str) -> None:
    """Let these verbs of the store fail, as if the store did not answer."""

    def fail(*args: Any) -> None:
        raise OperationalError("no route to host")

    for verb in verbs:
        monkeypatch.setattr(SessionStore, verb, staticmethod(fail))


def again(session: SessionBase) -> Any:
    """Return the same session, as another request would load it."""
    return SessionStore(session.session_key)


def client():
    return redis_clients.sync_client()


def key_in_redis(digest: str) -> str:
    """Return under which key Redis has the session with this digest."""
    return f"{conf.SESSIONKIT_REDIS_PREFIX}{{{digest[:3]}}}{digest[3:]}"


def _rows() -> Any:
    return StoredSession.objects.exclude(digest=db.EPOCH)


def _keys() -> dict[str, bytes]:
    prefix = conf.SESSIONKIT_REDIS_PREFIX
    keys = client().scan_iter(match=f"{prefix}*", count=1000)
    digests = {key.decode().removeprefix(prefix).translate(NO_BRACES): key for key in keys}
    return {digest: key for digest, key in digests.items() if len(digest) == 64}


@contextmanager
def counted(asked: list[str]) -> Iterator[None]:
    """Count what redis-py sends, commands and pipelines, by sync and async clients."""
    with ExitStack() as stack:
        for owner, name in [
            (driver.Redis, "execute_command"),
            (driver.client.Pipeline, "execute"),
            (async_driver.Redis, "execute_command"),
            (async_driver.client.Pipeline, "execute"),
        ]:
            original = getattr(owner, name)

            def note(*args, original=original, **kwargs):
                asked.append("Redis")
                return original(*args, **kwargs)

            stack.enter_context(mock.patch.object(owner, name, note))
        yield


@contextmanager
def counted_verbs(asked: list[str]) -> Iterator[None]:
    """Count the verbs of the store. Those of the memory engine send nothing that could be seen."""
    with ExitStack() as stack:
        for verb in VERBS:
            original = getattr(SessionStore, verb)

            def note(cls, *args, verb=verb, original=original):
                asked.append(verb)
                return original(*args)

            note.__name__ = verb  # async code looks for the twin by that
            stack.enter_context(mock.patch.object(SessionStore, verb, classmethod(note)))
        yield


@contextmanager
def round_trips(count: int) -> Iterator[None]:
    """
    Check that the block takes exactly so many round trips. Each SQL statement is a round trip,
    also BEGIN, COMMIT and savepoints. So is each command, script or pipeline of Redis, and each
    verb of the memory engine.
    """
    asked: list[str] = []
    with CaptureQueriesContext(connection) as queries:
        if IN_MEMORY:
            with counted_verbs(asked):
                yield
        elif ON_REDIS:
            for script in (redis_scripts.REPLACE, redis_scripts.TOUCH, redis_buffer.TOUCH_LATER):
                client().script_load(script.text)  # once in the life of a server
            with counted(asked):
                yield
        else:
            yield
    made = [query["sql"] for query in queries] + asked
    assert len(made) == count, made


class travel(time_machine.travel):  # noqa: N801 (named like the base class)
    """
    Go to another time, or forward by a timedelta. This cannot move the clock of Redis. Keys that
    Redis would have expired by then are deleted.
    """

    def __init__(self, destination: datetime | timedelta | str, **kwargs: bool) -> None:
        if isinstance(destination, timedelta):
            destination = timezone.now() + destination
        super().__init__(destination, **kwargs)

    def start(self):
        expiries = {}
        if ON_REDIS:
            now = time.time_ns() // 1_000_000
            expiries = {key: now + client().pttl(key) for key in _keys().values()}
        traveller = super().start()
        if gone := [key for key, at in expiries.items() if at <= time.time_ns() // 1_000_000]:
            client().delete(*gone)
        return traveller


def later(seconds: float) -> travel:
    """Go forward by so many seconds."""
    return travel(timedelta(seconds=seconds))


class Clock:
    """A clock that stands still until a test moves it: ``clock.move(seconds=60)``."""

    def __init__(self, at: datetime) -> None:
        self._zone = at.tzinfo
        self._stand(at)

    def move(self, step: timedelta = timedelta(0), **by: float) -> None:
        at = datetime.now(UTC) + step + timedelta(**by)
        self.stop()  # only from the real time, travel() finds the keys that expire in Redis
        self._stand(at.astimezone(self._zone))

    def stop(self) -> None:
        self._travel.stop()

    def _stand(self, at: datetime) -> None:
        self._travel = travel(at, tick=False)
        self._travel.start()
