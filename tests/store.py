"""
The store of this leg, looked at from outside, so that the tests of the contract are the same for
every engine.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

import time_machine
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_sessionkit.conf import conf
from django_sessionkit.models import StoredSession, get_session_store

SessionStore: Any = get_session_store()
ON_REDIS = settings.SESSION_ENGINE.endswith(".redis")

if ON_REDIS:
    from django_sessionkit.backends import redis, redis_clients


def payloads() -> dict[str, bytes]:
    """Return what is stored: the sealed payloads, by digest."""
    if not ON_REDIS:
        rows = StoredSession.objects.values_list("digest", "payload")
        return {digest: bytes(payload) for digest, payload in rows}
    return {digest: client().get(key)[8:] for digest, key in _keys().items()}


def put(digest: str, payload: bytes) -> None:
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


def client():
    return redis_clients.sync_client()


def _keys() -> dict[str, bytes]:
    prefix = conf.SESSIONKIT_REDIS_PREFIX
    keys = client().scan_iter(match=f"{prefix}*", count=1000)
    return {key.decode().removeprefix(prefix): key for key in keys}


@contextmanager
def round_trips(count: int) -> Iterator[None]:
    """
    Allow so many, exactly. Every SQL statement is one, with BEGIN, COMMIT and savepoints; so is
    every command, script or pipeline of Redis.
    """
    asked = []
    with CaptureQueriesContext(connection) as queries:
        if ON_REDIS:
            for script in (redis.REPLACE, redis.TOUCH):
                client().script_load(script.text)  # once in the life of a server
            take = redis_clients.Line.take

            def count_and_take(line):
                asked.append("Redis")
                return take(line)

            with mock.patch.object(redis_clients.Line, "take", count_and_take):
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
