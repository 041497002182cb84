"""
A site with Django's sessions. With KIT in the environment, it has the lines of the README: that
names the engine. STORE is where Redis is, for the engine on Redis.
"""

import os

SECRET_KEY = "of the newspaper"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "newspaper.urls"
LOGIN_URL = "/accounts/login/"
LOGIN_REDIRECT_URL = "/"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "newspaper",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
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
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "newspaper.sqlite3"}}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

if engine := os.environ.get("KIT"):
    INSTALLED_APPS.append("django_sessionkit")
    MIDDLEWARE[0] = "django_sessionkit.middleware.SessionMiddleware"
    SESSION_ENGINE = f"django_sessionkit.backends.{engine}"
if store := os.environ.get("STORE"):
    SESSION_CACHE_ALIAS = "sessions"
    CACHES["sessions"] = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": store}
