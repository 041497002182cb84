import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache

from tests import moving, servers, store
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


@pytest.fixture
def site(
    example_database: str, log: Path, tmp_path: Path, settings: Any
) -> Callable[..., AbstractContextManager[tuple[str, dict[str, str]]]]:
    """A function that serves one generation of the site, and gives its URL and environment."""
    base = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.adoption.site_settings",
        "SITE_DATABASE": example_database,
        "SITE_FOLDER": str(tmp_path),
        "SITE_PREFIX": settings.SESSIONKIT_REDIS_PREFIX,
        "PYTHONPATH": os.pathsep.join([str(servers.PROJECT), os.environ.get("PYTHONPATH", "")]),
    }
    if store.ON_REDIS:
        base["SESSIONKIT_TEST_ENGINE"] = "redis"
        base["TEST_REDIS_URL"] = settings.CACHES["sessions"]["LOCATION"]

    @contextmanager
    def site(**environment: str) -> Iterator[tuple[str, dict[str, str]]]:
        env = {**base, **{f"SITE_{name.upper()}": value for name, value in environment.items()}}
        with servers.serve(["-m", "tests.adoption.serve_site", "{port}"], log, env) as url:
            yield url, env

    return site
