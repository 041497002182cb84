"""A site with SESSIONKIT_ACTIVITY = "buffered": its sessions are in Redis, whatever the leg."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import redis as driver
import redis.asyncio as async_driver
from django.conf import settings
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_sessionkit.backends import redis_buffer, redis_scripts
from django_sessionkit.backends.redis_clients import sync_client
from django_sessionkit.conf import conf
from tests import servers, store


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
