"""A site that moves from one engine to another, with its visitors."""

import asyncio
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase
from django.test import override_settings

from django_sessionkit.leaving import returning
from tests.browsers import PAGE
from tests.interleaving import together

OURS = "django_sessionkit.middleware.SessionMiddleware"
DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"
RETURNING = "django_sessionkit.leaving.SessionMiddleware"
HERE = settings.SESSION_ENGINE

DATABASE = "django.contrib.sessions.backends.db"
CACHE = "django.contrib.sessions.backends.cache"
CACHED_DATABASE = "django.contrib.sessions.backends.cached_db"
FILES = "django.contrib.sessions.backends.file"
COOKIES = "django.contrib.sessions.backends.signed_cookies"
ON_REDIS = "tests.adoption.engine_on_redis"
OF_DJANGO = [DATABASE, CACHE, CACHED_DATABASE, FILES, COOKIES]
OTHERS = [*OF_DJANGO, ON_REDIS]

# From each of our engines to the other, for the legs that have both.
DB, REDIS = "django_sessionkit.backends.db", "django_sessionkit.backends.redis"
BETWEEN = [(DB, REDIS), (REDIS, DB)]


def generation(engine: str, adopt_from: tuple[str, ...] = (), middleware: str = "") -> Any:
    """The settings of a site with this engine: a decorator, or a context manager."""
    if not middleware:
        middleware = OURS if engine.startswith("django_sessionkit") else DJANGOS
    names = [middleware if name == OURS else name for name in settings.MIDDLEWARE]
    return override_settings(
        SESSION_ENGINE=engine, SESSIONKIT_ADOPT_FROM=adopt_from, MIDDLEWARE=names
    )


def restarted(browser: Any) -> Any:
    """Return the same browser, for a site that was started again with other settings."""
    again = type(browser)(raise_request_exception=False, headers=PAGE)
    again.cookies = browser.cookies
    again.defaults = browser.defaults
    return again


def session_in(engine: str, key: str | None = None) -> SessionBase:
    """Return a session as an engine has it."""
    session: SessionBase = import_module(engine).SessionStore(key)
    return session


def is_there(engine: str, key: str) -> bool:
    """Tell whether an engine has a session with this key."""
    return bool(session_in(engine).exists(key))


def session_of(browser: Any) -> Any:
    """Return the session of a browser, as a process with the way back has it."""
    engine = returning(import_module(settings.SESSION_ENGINE).SessionStore)
    return engine(browser.cookies["sessionid"].value)


def old_session(engine: str, user: Any = None, **data: Any) -> SessionBase:
    """Return a session that an engine has stored: of this user, or of a visitor."""
    session = session_in(engine)
    if user is not None:
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.update(data)
    session.save()
    return session


def with_cookie(browser: Any, session: SessionBase) -> Any:
    """Return the browser, with the cookie of a session."""
    browser.cookies["sessionid"] = session.session_key
    return browser


def all_at_once(count: int, engine: Any, key: str, use: Callable[[Any], None]) -> None:
    """Use a session in so many threads. None goes on before all have found that it is not here."""
    all_miss = threading.Barrier(count)

    def request() -> None:
        session = engine(key)
        looks: list[Any] = []
        read, aread = session.read, getattr(session, "aread", None)

        def look(digest: str) -> Any:
            stored = read(digest)
            if not looks:
                looks.append(stored)
                all_miss.wait(60)
            return stored

        async def alook(digest: str) -> Any:
            assert aread
            stored = await aread(digest)
            if not looks:
                looks.append(stored)
                await asyncio.to_thread(all_miss.wait, 60)
            return stored

        session.read, session.aread = look, alook
        use(session)
        assert looks == [None]

    together(*[request] * count)
