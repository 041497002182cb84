"""One generation of a site that moves, in a process of its own. The environment says which."""

import os
from typing import Any

import dj_database_url

from tests import settings as of_leg
from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS, MIDDLEWARE, SESSION_ENGINE

OURS = "django_sessionkit.middleware.SessionMiddleware"
DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"

database: dict[str, Any] = {**dj_database_url.parse(os.environ["SITE_DATABASE"])}
if database["ENGINE"].endswith("sqlite3"):
    # As sites on SQLite do that have several writers; but waiting for no disk.
    database["OPTIONS"] = {
        "timeout": 60,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF",
    }

DATABASES = {"default": database}

ROOT_URLCONF = "tests.adoption.site"
SESSION_ENGINE = os.environ.get("SITE_ENGINE", SESSION_ENGINE)
SESSIONKIT_ADOPT_FROM = os.environ.get("SITE_ADOPT_FROM", "").split()
SESSIONKIT_REDIS_PREFIX = os.environ["SITE_PREFIX"]
INSTALLED_APPS = [*INSTALLED_APPS, *os.environ.get("SITE_APPS", "").split()]
OF_SITE = os.environ.get("SITE_MIDDLEWARE") or (OURS if "sessionkit" in SESSION_ENGINE else DJANGOS)
MIDDLEWARE = [OF_SITE if name == OURS else name for name in MIDDLEWARE]
# What one process keeps, the next one finds.
SESSION_FILE_PATH = os.environ["SITE_FOLDER"]
caches: dict[str, Any] = getattr(of_leg, "CACHES", {})
CACHES = {
    **caches,
    "default": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": SESSION_FILE_PATH,
    },
}
if "sessions" in caches:
    # Of django-redis-sessions, on the server of this leg.
    SESSION_REDIS = {"url": caches["sessions"]["LOCATION"], "prefix": SESSIONKIT_REDIS_PREFIX}
    SESSION_REDIS["socket_timeout"] = 5

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
