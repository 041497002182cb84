"""Settings of the example shop. Comments mark what django-sessionkit needs, 1 of 4 to 4 of 4."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django_sessionkit.schedule import sessionkit_schedule

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = os.environ.get("SECRET_KEY", "django-insecure-demo-key-that-everybody-can-read")
DEBUG = os.environ.get("DEBUG", "true").lower() in {"1", "true", "yes", "on"}
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

INSTALLED_APPS = [
    "example_project",
    "django_sessionkit",  # django-sessionkit, 1 of 4
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

# The JSON API is optional: pip install "django-sessionkit[api]".
if find_spec("drf_spectacular"):
    INSTALLED_APPS += ["rest_framework", "drf_spectacular"]
    REST_FRAMEWORK = {"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"}
    SPECTACULAR_SETTINGS = {"TITLE": "The example shop", "VERSION": "1"}

MIDDLEWARE = [
    "example_project.middleware.ContentSecurityPolicyMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django_sessionkit.middleware.SessionMiddleware",  # 2 of 4, in place of Django's
    "example_project.middleware.LanguageMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

SESSION_ENGINE = "django_sessionkit.backends.db"  # 3 of 4; the fourth is in urls.py
SESSIONKIT_POLICY = "example_project.policy.policy"  # optional: there is a default policy

if os.environ.get("STORE") == "redis":
    SESSION_ENGINE = "django_sessionkit.backends.redis"
    SESSION_CACHE_ALIAS = "sessions"
    CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "sessions": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": os.environ.get("REDIS_URL", ""),  # if empty, "demo" starts a server
            "OPTIONS": {"SOCKET_TIMEOUT": 2, "SOCKET_CONNECT_TIMEOUT": 2},
        },
    }
    # The worker and its beat have the same Redis: see celery.py.
    CELERY_BROKER_URL = os.environ.get("REDIS_URL", "").replace("unix://", "redis+socket://", 1)
    CELERY_BROKER_TRANSPORT_OPTIONS = {"global_keyprefix": "shop-worker:"}
    CELERY_BEAT_SCHEDULE = {**sessionkit_schedule()}
    # Every 5 seconds, so that there is something to watch. A site leaves out this line.
    CELERY_BEAT_SCHEDULE["django_sessionkit.purge"]["schedule"] = 5

ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "example_project.cart.context_processor",
            ],
        },
    },
]

DATABASES: dict[str, Any]
if os.environ.get("DATABASE_URL"):
    import dj_database_url

    DATABASES = {"default": dj_database_url.config()}
    if os.environ["DATABASE_URL"].startswith("mysql") and not find_spec("MySQLdb"):
        import pymysql

        pymysql.install_as_MySQLdb()
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": BASE_DIR / "demo.sqlite3",
        }
    }

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "account"
LOGOUT_REDIRECT_URL = "home"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
TIME_ZONE = "UTC"

STATIC_URL = "static/"
