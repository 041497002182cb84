"""
The store of this leg, looked at from outside, so that the tests of the contract are the same for
every engine.
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

from django_sessionkit.conf import conf
from django_sessionkit.models import StoredSession, get_session_store
from django_sessionkit.sealing import digest_of

SessionStore: Any = get_session_store()
MINUTE, HOUR, DAY = 60, 60 * 60, 24 * 60 * 60  # in seconds
FORTNIGHT = 14 * 24 * 60 * 60 * 1000  # SESSION_COOKIE_AGE, in milliseconds
# When the clock stands still. In the future: what is past for Redis, it expires by itself.
NOON = datetime(2040, 3, 1, 12, tzinfo=ZoneInfo("America/Chicago"))
ON_REDIS = settings.SESSION_ENGINE.endswith(".redis")

if ON_REDIS:
    import redis as driver
    import redis.asyncio as async_driver

    from django_sessionkit.backends import redis, redis_clients


def payloads() -> dict[str, bytes]:
    """Return what is stored: the sealed payloads, by digest."""
    if not ON_REDIS:
        rows = StoredSession.objects.values_list("digest", "payload")
        return {digest: bytes(payload) for digest, payload in rows}
    return {digest: client().get(key)[8:] for digest, key in _keys().items()}


def tamper(digest: str, payload: bytes) -> None:
    """Write something else over a payload, as somebody would who got at the store."""
    if not ON_REDIS:
        StoredSession.objects.filter(digest=digest).update(payload=payload)
        return
    key = _keys()[digest]
    client().set(key, client().getrange(key, 0, 7) + payload, keepttl=True)


def wipe() -> None:
    """Lose everything."""
    if not ON_REDIS:
        StoredSession.objects.all().delete()
    elif keys := _keys().values():
        client().delete(*keys)


def now() -> int:
    """Return the time as a store has it, in milliseconds."""
    return int(datetime.now(UTC).timestamp() * 1000)


def works(drive: Callable[..., Any]) -> None:
    """Live through a session, from its first save to its end."""
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
    """Have these verbs of the store fail, as when nobody can reach it."""

    def fail(*args: Any) -> None:
        raise OperationalError("no route to host")

    for verb in verbs:
        monkeypatch.setattr(SessionStore, verb, staticmethod(fail))


def again(session: SessionBase) -> Any:
    """Return the same session, as another request has it."""
    return SessionStore(session.session_key)


def client():
    return redis_clients.sync_client()


def _keys() -> dict[str, bytes]:
    prefix = conf.SESSIONKIT_REDIS_PREFIX
    keys = client().scan_iter(match=f"{prefix}*", count=1000)
    return {key.decode().removeprefix(prefix): key for key in keys}


@contextmanager
def counted(asked: list[str]) -> Iterator[None]:
    """Note whatever redis-py sends: a command or a pipeline, of either kind of client."""
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
def round_trips(count: int) -> Iterator[None]:
    """
    Allow so many, exactly. Every SQL statement is one, with BEGIN, COMMIT and savepoints; so is
    every command, script or pipeline of Redis.
    """
    asked: list[str] = []
    with CaptureQueriesContext(connection) as queries:
        if ON_REDIS:
            for script in (redis.REPLACE, redis.TOUCH):
                client().script_load(script.text)  # once in the life of a server
            with counted(asked):
                yield
        else:
            yield
    made = [query["sql"] for query in queries] + asked
    assert len(made) == count, made


class travel(time_machine.travel):  # noqa: N801 (as it is called there)
    """
    Go to another time, or on by a timedelta. Redis has a clock of its own, which stays: what it
    would have expired by then is taken away.
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
    """Go on by so many seconds."""
    return travel(timedelta(seconds=seconds))


class Clock:
    """It stands still until it is moved: ``clock.move(seconds=60)``."""

    def __init__(self, at: datetime) -> None:
        self._zone = at.tzinfo  # where it stands, as to the time of the day
        self._stand(at)

    def move(self, step: timedelta = timedelta(0), **by: float) -> None:
        at = datetime.now(UTC) + step + timedelta(**by)
        self.stop()  # what is expired in Redis is found from the real time only
        self._stand(at.astimezone(self._zone))

    def stop(self) -> None:
        self._travel.stop()

    def _stand(self, at: datetime) -> None:
        self._travel = travel(at, tick=False)
        self._travel.start()
