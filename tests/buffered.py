"""A site with SESSIONKIT_ACTIVITY = "buffered": its sessions are in Redis, whatever the leg."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import redis as driver
import redis.asyncio as async_driver
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_sessionkit.backends import redis_buffer, redis_scripts
from django_sessionkit.backends.redis import SessionStore
from django_sessionkit.backends.redis_clients import sync_client
from django_sessionkit.backends.sealing import version_of
from django_sessionkit.clock import as_datetime
from django_sessionkit.clock import now as milliseconds
from django_sessionkit.conf import conf
from django_sessionkit.models import UserSession
from django_sessionkit.storage import Seen, StoredFully
from tests import servers, store
from tests.store import HOUR


@contextmanager
def site() -> Iterator[None]:
    """Let the site have its sessions in Redis, and its activity buffered."""
    changes: dict[str, Any] = {"SESSIONKIT_ACTIVITY": "buffered"}
    if not store.ON_REDIS:
        backend = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": servers.redis("redis")}
        changes["SESSION_ENGINE"] = "django_sessionkit.backends.redis"
        changes["SESSION_CACHE_ALIAS"] = "sessions"
        changes["CACHES"] = {**settings.CACHES, "sessions": backend}
    with override_settings(**changes):
        for script in (redis_scripts.REPLACE, redis_scripts.TOUCH, redis_buffer.TOUCH_LATER):
            sync_client().script_load(script.text)
        yield
        if found := keys():
            sync_client().delete(*found)


def keys(ending: str = "") -> list[bytes]:
    """Return the keys of this test in Redis whose names end like this."""
    pattern = f"{conf.SESSIONKIT_REDIS_PREFIX}*{ending}"
    return list(sync_client().scan_iter(match=pattern, count=10_000))


def count_waiting() -> int:
    """Return how many sessions have an activity that waits."""
    return sum(sync_client().hlen(key) for key in keys("activity"))


@contextmanager
def costs(sql: int, commands: int | None = None) -> Iterator[None]:
    """
    Check how many SQL statements the block takes and, if that is told, how many commands, scripts
    and pipelines of Redis.
    """
    sent: list[str] = []
    with CaptureQueriesContext(connection) as queries, _noted(sent):
        yield
    assert len(queries) == sql, [query["sql"] for query in queries]
    assert commands is None or len(sent) == commands, sent


@contextmanager
def _noted(sent: list[str]) -> Iterator[None]:
    owners = [
        (driver.Redis, "execute_command"),
        (driver.client.Pipeline, "execute"),
        (async_driver.Redis, "execute_command"),
        (async_driver.client.Pipeline, "execute"),
    ]
    originals = [getattr(*owner) for owner in owners]

    def noting(original: Any) -> Any:
        def note(*args: Any, **kwargs: Any) -> Any:
            sent.append(str(args[1:2]))
            return original(*args, **kwargs)

        return note

    patches = [
        mock.patch.object(*owner, noting(original))
        for owner, original in zip(owners, originals, strict=True)
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def waiting_sessions(user: User, count: int, *, idle: bool = False) -> list[Seen]:
    """Store so many sessions whose activity waits, and return what waits."""
    now = milliseconds()
    at = as_datetime(now - 90_000)
    rows, stored, seen = [], [], []
    for number in range(count):
        digest, payload = uuid.uuid4().hex * 2, uuid.uuid4().bytes
        row = UserSession(
            user=user, digest=digest, started_at=at, last_seen_at=at, expires_at=at, idle_at=None
        )
        moments = now - number, now + HOUR * 1000, now + 600_000 if idle else None
        rows.append(row)
        stored.append(StoredFully(digest, payload, now - 90_000, now + HOUR * 1000))
        seen.append(Seen(digest, row.pk, *moments, version_of(payload)))
    UserSession.objects.bulk_create(rows)
    SessionStore.insert_all(stored)
    for each in seen:
        assert SessionStore.touch_later(each)
    return seen
