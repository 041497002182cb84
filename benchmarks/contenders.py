"""The contenders: their apps, engines and stores, and the settings in which they differ."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import dj_database_url


class App(NamedTuple):
    """What a site installs. Contenders with the same app have the same tables and database."""

    name: str
    apps: tuple[str, ...]
    middleware: str = "django.contrib.sessions.middleware.SessionMiddleware"
    after: tuple[str, ...] = ()  # middleware that needs the user


KIT = App("sessionkit", ("django_sessionkit",), "django_sessionkit.middleware.SessionMiddleware")
SESSIONS = App("django", ("django.contrib.sessions",))
USER_SESSIONS = App(
    "user_sessions", ("user_sessions",), "user_sessions.middleware.SessionMiddleware"
)
QSESSIONS = App("qsessions", ("qsessions",), "qsessions.middleware.SessionMiddleware")
ALLAUTH = App(
    "allauth",
    ("django.contrib.sessions", "allauth", "allauth.account", "allauth.usersessions"),
    after=(
        "allauth.account.middleware.AccountMiddleware",
        "allauth.usersessions.middleware.UserSessionsMiddleware",
    ),
)


class Servers(NamedTuple):
    """The URLs of a database for every app, and of a Redis."""

    databases: dict[str, str]
    redis: str


@dataclass(frozen=True)
class Contender:
    name: str
    store: str  # DRIVER and ENGINE say what is compared on this store
    app: App
    engine: str = ""  # SESSION_ENGINE; a bare driver has none
    options: dict[str, Any] = field(default_factory=dict, hash=False)  # OPTIONS of the database

    def settings_on(self, servers: Servers) -> dict[str, Any]:
        """Return the settings in which contenders differ."""
        database = dj_database_url.parse(servers.databases[self.app.name], conn_max_age=None)
        cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": servers.redis}
        return {
            "DATABASES": {"default": {**database, "OPTIONS": self.options}},
            "CACHES": {"default": {**cache, "KEY_PREFIX": self.app.name}},
            "SESSION_ENGINE": self.engine or "django_sessionkit.backends.db",
            "INSTALLED_APPS": [
                "django.contrib.auth",
                "django.contrib.contenttypes",
                *self.app.apps,
            ],
            "MIDDLEWARE": [
                self.app.middleware,
                "django.contrib.auth.middleware.AuthenticationMiddleware",
                *self.app.after,
            ],
            "USERSESSIONS_TRACK_ACTIVITY": True,  # all others that have a list track it, too
        }


ON_POSTGRESQL, ON_REDIS = "PostgreSQL", "Redis"

PSYCOPG = Contender("psycopg 3", ON_POSTGRESQL, KIT)
KIT_DB = Contender("django-sessionkit db", ON_POSTGRESQL, KIT, "django_sessionkit.backends.db")
KIT_PREPARED = Contender(
    "django-sessionkit db, prepared",
    ON_POSTGRESQL,
    KIT,
    "django_sessionkit.backends.db",
    # By default, Django puts values into statements itself, so psycopg prepares none of them.
    {"server_side_binding": True, "prepare_threshold": 0},
)
DJANGO_DB = Contender("Django db", ON_POSTGRESQL, SESSIONS, "django.contrib.sessions.backends.db")
DJANGO_CACHED_DB = Contender(
    "Django cached_db", ON_POSTGRESQL, SESSIONS, "django.contrib.sessions.backends.cached_db"
)
WITH_USER_SESSIONS = Contender(
    "django-user-sessions", ON_POSTGRESQL, USER_SESSIONS, "user_sessions.backends.db"
)
QSESSIONS_DB = Contender("django-qsessions db", ON_POSTGRESQL, QSESSIONS, "qsessions.backends.db")
QSESSIONS_CACHED_DB = Contender(
    "django-qsessions cached_db", ON_POSTGRESQL, QSESSIONS, "qsessions.backends.cached_db"
)
WITH_ALLAUTH = Contender(
    "Django db, allauth", ON_POSTGRESQL, ALLAUTH, "django.contrib.sessions.backends.db"
)
REDIS_PY = Contender("redis-py", ON_REDIS, KIT)
KIT_REDIS = Contender("django-sessionkit redis", ON_REDIS, KIT, "django_sessionkit.backends.redis")
KIT_DERIVED = Contender("django-sessionkit redis, in threads", ON_REDIS, KIT, "benchmarks.derived")
DJANGO_CACHE = Contender(
    "Django cache", ON_REDIS, SESSIONS, "django.contrib.sessions.backends.cache"
)

# In the order of the tables.
CONTENDERS = [
    *[PSYCOPG, KIT_DB, KIT_PREPARED, DJANGO_DB, DJANGO_CACHED_DB],
    *[WITH_USER_SESSIONS, QSESSIONS_DB, QSESSIONS_CACHED_DB, WITH_ALLAUTH],
    *[REDIS_PY, KIT_REDIS, KIT_DERIVED, DJANGO_CACHE],
]
DRIVER = {ON_POSTGRESQL: PSYCOPG, ON_REDIS: REDIS_PY}
ENGINE = {ON_POSTGRESQL: DJANGO_DB, ON_REDIS: DJANGO_CACHE}
