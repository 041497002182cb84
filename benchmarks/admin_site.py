"""A site with an admin, and nothing else: its settings, and its URLs."""

from typing import Any

import dj_database_url
import django
from django.conf import settings

from benchmarks.processes import SECRET_KEY

APPS = [
    "django_sessionkit",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django_sessionkit.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
PROCESSORS = [
    "django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth",
    "django.contrib.messages.context_processors.messages",
]
TEMPLATES = {
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {"context_processors": PROCESSORS},
}


def set_up(database: str) -> None:
    """Set Django up for the site, in this process."""
    settings.configure(
        SECRET_KEY=SECRET_KEY,
        ALLOWED_HOSTS=["testserver"],
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=APPS,
        MIDDLEWARE=MIDDLEWARE,
        TEMPLATES=[TEMPLATES],
        ROOT_URLCONF=__name__,
        STATIC_URL="static/",
        SESSION_ENGINE="django_sessionkit.backends.db",
        # What is written once a minute is not measured here.
        SESSIONKIT_TOUCH_INTERVAL=24 * 60 * 60,
        DATABASES={"default": dj_database_url.parse(database)},
    )
    django.setup()


def __getattr__(name: str) -> Any:
    """Return ``urlpatterns``, for which Django has to be set up."""
    if name != "urlpatterns":
        raise AttributeError(name)
    from django.contrib import admin
    from django.urls import path

    return [path("admin/", admin.site.urls)]
