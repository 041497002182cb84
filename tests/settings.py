"""The smallest site with all that the kit works with: users, the admin, messages."""

import os
import secrets
import tempfile
from importlib.util import find_spec

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

from django_sessionkit.schedule import sessionkit_schedule
from tests import servers

SECRET_KEY = "of the tests"
ALLOWED_HOSTS = ["testserver", "127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_sessionkit",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django_sessionkit.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

TEST_NAME = f"test_sessionkit_{secrets.token_hex(8)}"

match os.environ.get("SESSIONKIT_TEST_DATABASE", "sqlite"):
    case "sqlite":
        # In a file: unlike the database of a site, an in-memory database locks whole tables.
        database_url, test_name = (
            "sqlite://:memory:",
            f"{tempfile.gettempdir()}/{TEST_NAME}.sqlite3",
        )
    case "postgresql":
        # A name of its own: the server may hold other data, and Django replaces a database of the
        # same name.
        database_url, test_name = servers.postgresql(), TEST_NAME
    case "mariadb":
        database_url, test_name = servers.mariadb(), TEST_NAME
        if not find_spec("MySQLdb"):
            import pymysql

            pymysql.install_as_MySQLdb()
    case unknown:
        raise ImproperlyConfigured(
            f"SESSIONKIT_TEST_DATABASE: sqlite, postgresql or mariadb, not {unknown}"
        )

DATABASES = {"default": {**dj_database_url.parse(database_url), "TEST": {"NAME": test_name}}}
if database_url.startswith("sqlite"):
    DATABASES["default"]["OPTIONS"] = {"timeout": 60}  # seconds that a writer waits for others

match os.environ.get("SESSIONKIT_TEST_ENGINE", "db"):
    case "db":
        SESSION_ENGINE = "django_sessionkit.backends.db"
    case "memory":
        SESSION_ENGINE = "django_sessionkit.backends.memory"
    case "redis" | "valkey" as brand:
        SESSION_ENGINE = "django_sessionkit.backends.redis"
        SESSION_CACHE_ALIAS = "sessions"
        CACHES = {
            "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
            "sessions": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": servers.redis(brand),
                "OPTIONS": {"SOCKET_TIMEOUT": 5, "SOCKET_CONNECT_TIMEOUT": 5},
            },
        }
    case unknown:
        raise ImproperlyConfigured(
            f"SESSIONKIT_TEST_ENGINE: db, memory, redis or valkey, not {unknown}"
        )

# Django 6.1 asks for this setting. In tests, Django keeps mails in memory anyway.
MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}

# The schedule in the README. A test compares the two.
CELERY_BEAT_SCHEDULE = {**sessionkit_schedule()}
