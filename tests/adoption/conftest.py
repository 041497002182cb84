from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache

from tests import moving
from tests.adoption import engine_on_redis


@pytest.fixture(autouse=True)
def own_stores(tmp_path: Any, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Other engines begin with nothing, and leave nothing behind."""
    from django.contrib.sessions.backends import file

    monkeypatch.setattr(file.SessionStore, "_storage_path", str(tmp_path), raising=False)
    settings.SESSION_CACHE_ALIAS = getattr(settings, "SESSION_CACHE_ALIAS", "default")
    yield
    cache.clear()
    engine_on_redis.server.strings.clear()
    engine_on_redis.server.down = False


@pytest.fixture(params=moving.OTHERS)
def old(request: pytest.FixtureRequest) -> str:
    """The engine that a site has had before: each that is not ours."""
    engine: str = request.param
    return engine
