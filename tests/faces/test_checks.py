"""What ``manage.py check`` says. Every id has its mistakes here, and only its own."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions import middleware as contrib
from django.core import checks
from django.core.cache import cache
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_sessionkit import middleware, signing_keys
from django_sessionkit.backends import db
from django_sessionkit.checks import (
    MESSAGES,
    METRICS,
    VALUES,
    check_deployment,
    check_settings,
)
from django_sessionkit.models import PurgeRun, SigningKey, uuid7
from django_sessionkit.policy import Policy
from tests.many import many
from tests.moving import CACHE, COOKIES, DATABASE, FILES, RETURNING
from tests.servers import PROJECT
from tests.workers import celery_app

pytestmark = pytest.mark.once

OURS = "django_sessionkit.middleware.SessionMiddleware"
DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"
OF_A_SITE = "tests.faces.test_checks.SessionMiddlewareOfASite"
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
MESSAGE = "django.contrib.messages.middleware.MessageMiddleware"
PROCESSOR = "django.contrib.messages.context_processors.messages"
REMOTE_USER = "django.contrib.auth.middleware.RemoteUserMiddleware"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"
UPDATE_CACHE = "django.middleware.cache.UpdateCacheMiddleware"
FETCH_FROM_CACHE = "django.middleware.cache.FetchFromCacheMiddleware"
OTHER_MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != OURS]


class SessionMiddlewareOfASite(middleware.SessionMiddleware):
    pass


class SessionsElsewhere:
    """A database router."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "sessions" if model._meta.app_label == "django_sessionkit" else None


class EndingsElsewhere:
    """A router that knows of some of the models only."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "sessions" if model._meta.model_name == "ending" else None


class SessionMiddlewareOfAnotherPackage(contrib.SessionMiddleware):
    pass


class SessionStore(db.SessionStore):
    """The engine "tests.faces.test_checks", of a site."""


# id: settings that are wrong in this way, and in no other.
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
SHARD = "django_redis.client.ShardClient"
REDIS: dict[str, Any] = {
    "SESSION_ENGINE": "django_sessionkit.backends.redis",
    "SESSION_CACHE_ALIAS": "default",
}
# Nobody is there: a check asks nobody.
DJANGO_REDIS = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1"}

CLUSTER: dict[str, Any] = {
    **DJANGO_REDIS,
    "OPTIONS": {
        "CONNECTION_FACTORY": "django_sessionkit.backends.redis_clients.ClusterConnectionFactory"
    },
}


def hashed(key: str, prefix: str, version: int) -> str:
    """A KEY_FUNCTION of a site."""
    return sha256(f"{prefix}:{version}:{key}".encode()).hexdigest()


def named(key: str, prefix: str, version: int) -> str:
    return f"{prefix}:{version}:{key}"


NOTICES: dict[str, Any] = {
    "SESSIONKIT_NOTICES": ["new_device", "others_ended", "ended_by_staff", "old_key"],
    "SESSIONKIT_SITE_URL": "https://shop.example",
}

TOKENS: dict[str, Any] = {"SESSIONKIT_TOKEN_ISSUER": "https://shop.example"}

APPS = ["django.contrib.messages", "django_sessionkit"]

WRONG: dict[str, list[dict[str, Any]]] = {
    "E001": [
        {"SESSION_ENGINE": "nowhere"},
        {"SESSION_ENGINE": "django_sessionkit.backends"},
        {"SESSION_ENGINE": "django_sessionkit.backends.db.SessionStore"},
        {"SESSION_ENGINE": ""},
        {"SESSION_ENGINE": None},
    ],
    "E002": [{"SESSION_ENGINE": "tests.other_engine"}],
    "E003": [
        {"MIDDLEWARE": OTHER_MIDDLEWARE},
        {"MIDDLEWARE": [MESSAGE]},
        {"MIDDLEWARE": ["nowhere.SessionMiddleware", MESSAGE]},
        {"MIDDLEWARE": ["tests.faces.test_checks.check_settings", MESSAGE]},  # a function
    ],
    "E004": [
        {"MIDDLEWARE": [OURS, DJANGOS, *OTHER_MIDDLEWARE]},
        {"MIDDLEWARE": [DJANGOS, OURS, *OTHER_MIDDLEWARE]},
        {"MIDDLEWARE": [OF_A_SITE, OURS, MESSAGE]},
        {"MIDDLEWARE": [OURS, OURS, MESSAGE]},
    ],
    "E005": [
        {"MIDDLEWARE": [AUTHENTICATION, OURS, MESSAGE]},
        {"MIDDLEWARE": [REMOTE_USER, OURS, MESSAGE]},
        {"MIDDLEWARE": [MESSAGE, OURS]},
        {"MIDDLEWARE": [CSRF, OURS, MESSAGE], "CSRF_USE_SESSIONS": True},
        {"MIDDLEWARE": [AUTHENTICATION, OF_A_SITE, MESSAGE]},
    ],
    "E006": [
        {"SESSIONKIT_TOUCH_INTERVAL": "60"},
        {"SESSIONKIT_TOUCH_INTERVAL": True},
        {"SESSIONKIT_TOUCH_INTERVAL": None},
        {"SESSIONKIT_TOUCH_INTERVAL": 0},
        {"SESSIONKIT_TOUCH_INTERVAL": -1},
        {"SESSIONKIT_TOUCH_INTERVAL": 60.0},
        {"SESSIONKIT_ACTIVITY": "later"},
        {"SESSIONKIT_ACTIVITY": None},
        {"SESSIONKIT_ACTIVITY": ["buffered"]},
        {"SESSIONKIT_TRUSTED_PROXIES": "1"},
        {"SESSIONKIT_TRUSTED_PROXIES": -1},
        {"SESSIONKIT_TRUSTED_PROXIES": 100},
        {"SESSIONKIT_TRUSTED_PROXIES": ["10.0.0.1"]},
        {"SESSIONKIT_RETENTION": False},
        {"SESSIONKIT_RETENTION": -1},
        {"SESSIONKIT_RETENTION": 10**12},  # no date is that long ago
        {"SESSIONKIT_ADDRESSES": "some"},
        {"SESSIONKIT_ADDRESSES": None},
        {"SESSIONKIT_ADDRESSES": ["whole"]},
        {"SESSIONKIT_ADDRESS_RETENTION": -1},
        {"SESSIONKIT_ADDRESS_RETENTION": "3600"},
        {"SESSIONKIT_ADDRESS_RETENTION": True},
        {"SESSIONKIT_ADDRESS_RETENTION": 3600.0},
        {"SESSIONKIT_ADDRESS_RETENTION": 10**12},
        {"SESSIONKIT_REDIS_PREFIX": b"sessions:"},
        {"SESSIONKIT_REDIS_PREFIX": ""},
        {"SESSIONKIT_REDIS_PREFIX": None},
        {"SESSIONKIT_MEMORY_LIMIT": 0},
        {"SESSIONKIT_MEMORY_LIMIT": None},
        {"SESSIONKIT_MEMORY_LIMIT": "10000"},
        {"SESSIONKIT_POLICY": Policy(idle=60)},
        {"SESSIONKIT_POLICY": ""},
        {"SESSIONKIT_POLICY": None},
        {"SESSIONKIT_VISITOR_AGE": 0},
        {"SESSIONKIT_VISITOR_AGE": -1},
        {"SESSIONKIT_VISITOR_AGE": "86400"},
        {"SESSIONKIT_VISITOR_AGE": False},
        {"SESSIONKIT_VISITOR_AGE": 86400.0},
        {"SESSIONKIT_REAUTHENTICATION_URL": None},
        {"SESSIONKIT_REAUTHENTICATION_URL": ["reauthenticate"]},
        {"SESSIONKIT_BACKGROUND": "/poll/"},
        {"SESSIONKIT_BACKGROUND": None},
        {"SESSIONKIT_BACKGROUND": 7},
        {"SESSIONKIT_BACKGROUND": ["/poll/", "chat/"]},
        {"SESSIONKIT_BACKGROUND": ["/poll/", ""]},
        {"SESSIONKIT_BACKGROUND": [b"/poll/"]},
        {"SESSIONKIT_DEVICE_COOKIE": True},
        {"SESSIONKIT_DEVICE_COOKIE": 0},
        {"SESSIONKIT_DEVICE_COOKIE": b"browser"},
        {"SESSIONKIT_DEVICE_COOKIE": "my browser"},
        {"SESSIONKIT_DEVICE_COOKIE": "browser;"},
        {"SESSIONKIT_DEVICE_COOKIE": "browser\n"},
        {"SESSIONKIT_DEVICE_COOKIE": "Gerät"},
        {"SESSIONKIT_DEVICE_COOKIE": "b" * 101},
        {"SESSIONKIT_DEVICE_COOKIE": "sessionid"},
        {"SESSIONKIT_DEVICE_COOKIE": "csrftoken"},
        {"SESSIONKIT_DEVICE_COOKIE": settings.LANGUAGE_COOKIE_NAME},
        {"SESSIONKIT_ADOPT_FROM": DATABASE},
        {"SESSIONKIT_ADOPT_FROM": None},
        {"SESSIONKIT_ADOPT_FROM": [""]},
        {"SESSIONKIT_ADOPT_FROM": [SessionsElsewhere]},
        {"SESSIONKIT_NOTICES": "new_device"},
        {"SESSIONKIT_NOTICES": None},
        {"SESSIONKIT_NOTICES": ["new_device", "new_devices"]},
        {"SESSIONKIT_NOTICES": [["new_device"]]},
        {"SESSIONKIT_SITE_URL": None},
        {"SESSIONKIT_SITE_URL": "shop.example"},
        {"SESSIONKIT_SITE_URL": "//shop.example"},
        {"SESSIONKIT_SITE_URL": "ftp://shop.example"},
        {"SESSIONKIT_SITE_URL": "https://shop.example/path"},
        {"SESSIONKIT_SITE_URL": "https://shop.example?"},
        {"SESSIONKIT_SITE_URL": "https://bank.example@shop.example"},
        {"SESSIONKIT_SITE_URL": "https://shop.example\n"},
        {"SESSIONKIT_TOKEN_AGE": 0},
        {"SESSIONKIT_TOKEN_AGE": 3601},
        {"SESSIONKIT_TOKEN_AGE": 300.0},
        {"SESSIONKIT_TOKEN_ISSUER": None},
        {"SESSIONKIT_TOKEN_AUDIENCE": None},
        {"SESSIONKIT_TOKEN_AUDIENCE": ["orders"], "SESSIONKIT_TOKEN_ISSUER": "https://a.example"},
        {"SESSIONKIT_TOKEN_CLAIMS": None},
        {"SESSIONKIT_TOKEN_CLAIMS": len},
        {"SESSIONKIT_TOKEN_ALGORITHM": "RS256"},
        {"SESSIONKIT_TOKEN_ALGORITHM": "none"},
        {"SESSIONKIT_TOKEN_ALGORITHM": ["ES256"]},
    ],
    "E007": [
        {"SESSIONKIT_TUCH_INTERVAL": 60},
        {"SESSIONKIT_": 1},
    ],
    "E008": [
        {"SESSION_SERIALIZER": "django.contrib.sessions.serializers.PickleSerializer"},
        {"SESSION_SERIALIZER": "site.serializers.pickled"},
    ],
    "E009": [
        {"SESSION_COOKIE_NAME": "__Secure-sessionid"},
        {"SESSION_COOKIE_NAME": "__Http-sessionid"},
        {"SESSION_COOKIE_NAME": "__Host-sessionid"},
        {"SESSION_COOKIE_NAME": "__Host-Http-sessionid"},
        {"SESSION_COOKIE_NAME": "__HOST-sessionid"},
        {
            "SESSION_COOKIE_NAME": "__Http-sessionid",
            "SESSION_COOKIE_SECURE": True,
            "SESSION_COOKIE_HTTPONLY": False,
        },
        {
            "SESSION_COOKIE_NAME": "__Host-Http-sessionid",
            "SESSION_COOKIE_SECURE": True,
            "SESSION_COOKIE_HTTPONLY": False,
        },
        {
            "SESSION_COOKIE_NAME": "__Host-sessionid",
            "SESSION_COOKIE_SECURE": True,
            "SESSION_COOKIE_PATH": "/shop/",
        },
        {
            "SESSION_COOKIE_NAME": "__Host-sessionid",
            "SESSION_COOKIE_SECURE": True,
            "SESSION_COOKIE_DOMAIN": "example.com",
        },
        {
            "SESSION_COOKIE_NAME": "__Host-Http-sessionid",
            "SESSION_COOKIE_SECURE": True,
            "SESSION_COOKIE_DOMAIN": "example.com",
        },
        {"SESSIONKIT_DEVICE_COOKIE": "__Host-browser"},
        {"SESSIONKIT_DEVICE_COOKIE": "__Http-browser", "SESSION_COOKIE_HTTPONLY": False},
        {
            "SESSIONKIT_DEVICE_COOKIE": "__Host-browser",
            "SESSION_COOKIE_SECURE": True,
            "SESSION_COOKIE_PATH": "/shop/",
        },
    ],
    "E010": [
        {"SESSION_COOKIE_SAMESITE": "None"},
        {"SESSION_COOKIE_SAMESITE": "none"},
    ],
    "E011": [
        {"INSTALLED_APPS": ["django.contrib.auth", *APPS]},
        {"INSTALLED_APPS": ["django.contrib.contenttypes", *APPS]},
    ],
    "E012": [
        {**REDIS, "CACHES": {"default": {"BACKEND": LOCMEM}}},
        {
            **REDIS,
            "CACHES": {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}},
        },
        {**REDIS, "SESSION_CACHE_ALIAS": "nowhere"},
        {**REDIS, "CACHES": {"default": {**DJANGO_REDIS, "OPTIONS": {"CLIENT_CLASS": SHARD}}}},
    ],
    "E013": [
        {"SESSIONKIT_POLICY": "nowhere"},
        {"SESSIONKIT_POLICY": "nowhere.policy"},
        {"SESSIONKIT_POLICY": ".policy"},
        {"SESSIONKIT_POLICY": "django_sessionkit.policy"},  # imported, it is no function
        {"SESSIONKIT_POLICY": "django_sessionkit.policy.aal4"},
        {"SESSIONKIT_POLICY": "django_sessionkit.policy.AAL2"},  # not the function
    ],
    "E014": [
        {"DATABASE_ROUTERS": ["tests.faces.test_checks.SessionsElsewhere"]},
        {"DATABASE_ROUTERS": ["tests.faces.test_checks.EndingsElsewhere"]},
    ],
    "E015": [
        {"SESSIONKIT_ADOPT_FROM": ["nowhere"]},
        {"SESSIONKIT_ADOPT_FROM": [DATABASE, "django.contrib.sessions.backends"]},
        {"SESSIONKIT_ADOPT_FROM": ["tests.faces.test_checks.SessionStore"]},
        {
            # Its app is not installed.
            "SESSIONKIT_ADOPT_FROM": ["user_sessions.backends.db"],
        },
    ],
    "E016": [{"SESSIONKIT_NOTICES": ["new_device"]}, {"SESSIONKIT_NOTICES": ("old_key",)}],
    "E017": [
        {**NOTICES, "ROOT_URLCONF": "django.contrib.auth.urls"},
        {**NOTICES, "ROOT_URLCONF": None},
    ],
    "E018": [
        {"SESSIONKIT_TOKEN_AUDIENCE": "orders"},
        {"ROOT_URLCONF": "tests.tokens"},
    ],
    "E019": [
        {"SESSIONKIT_TOKEN_CLAIMS": "nowhere"},
        {"SESSIONKIT_TOKEN_CLAIMS": "nowhere.claims"},
        {"SESSIONKIT_TOKEN_CLAIMS": ".claims"},
        {"SESSIONKIT_TOKEN_CLAIMS": "tests.tokens.claims"},
        {"SESSIONKIT_TOKEN_CLAIMS": "tests.tokens.ISSUER"},
    ],
    "E020": [],  # see below: PyJWT is installed here
    "E021": [{**REDIS, "CACHES": {"default": {**CLUSTER, "KEY_FUNCTION": f"{__name__}.hashed"}}}],
    "E022": [],  # and so is OpenTelemetry
    "E023": [
        {"SESSIONKIT_ACTIVITY": "buffered"},
        {"SESSIONKIT_ACTIVITY": "buffered", "SESSION_ENGINE": "tests.faces.test_checks"},
    ],
    "W001": [
        {"MIDDLEWARE": [DJANGOS, *OTHER_MIDDLEWARE]},
        {
            "MIDDLEWARE": [
                "tests.faces.test_checks.SessionMiddlewareOfAnotherPackage",
                *OTHER_MIDDLEWARE,
            ]
        },
    ],
    "W002": [
        {"MIDDLEWARE": [OURS, UPDATE_CACHE, *OTHER_MIDDLEWARE, FETCH_FROM_CACHE]},
    ],
    "W003": [
        {"SESSIONKIT_TOUCH_INTERVAL": 60, "SESSION_COOKIE_AGE": 60},
        {"SESSIONKIT_TOUCH_INTERVAL": 61, "SESSION_COOKIE_AGE": 60},
    ],
    "W004": [
        {"SESSION_SAVE_EVERY_REQUEST": True},
    ],
    "W012": [
        {"SESSION_ENGINE": "django.contrib.sessions.backends.db"},
        {"SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies"},
    ],
    "W014": [
        {
            "INSTALLED_APPS": [
                name for name in settings.INSTALLED_APPS if name != "django.contrib.messages"
            ]
        },
        {"MIDDLEWARE": [name for name in settings.MIDDLEWARE if name != MESSAGE]},
        {"TEMPLATES": [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]},
        {
            "TEMPLATES": [
                {
                    "BACKEND": "django.template.backends.django.DjangoTemplates",
                    "OPTIONS": {
                        "context_processors": ["django.template.context_processors.request"]
                    },
                },
                {"BACKEND": "django.template.backends.dummy.TemplateStrings"},
            ]
        },
    ],
    "W015": [{"LOGIN_URL": "/nowhere/"}, {"LOGIN_URL": "nowhere"}],
    "W020": [
        {"SESSIONKIT_POLICY": policy, "ROOT_URLCONF": "django.contrib.auth.urls"}
        for policy in ("tests.policies.of_everybody", "django_sessionkit.policy.aal2")
    ],
    "W022": [
        {"SESSIONKIT_ADOPT_FROM": [settings.SESSION_ENGINE]},
        {"SESSIONKIT_ADOPT_FROM": [DATABASE, settings.SESSION_ENGINE]},
    ],
    "W024": [
        {"SESSIONKIT_VISITOR_AGE": 3600, "SESSION_COOKIE_AGE": 3600},
        {"SESSIONKIT_VISITOR_AGE": 3601, "SESSION_COOKIE_AGE": 3600},
    ],
    "W025": [{**REDIS, "CACHES": {"default": DJANGO_REDIS}, "SESSIONKIT_ACTIVITY": "buffered"}],
}

DEPLOYED: dict[str, Any] = {
    "INSTALLED_APPS": [name for name in settings.INSTALLED_APPS if "sessions" not in name],
    "SESSION_COOKIE_NAME": "__Host-sessionid",
    "SESSION_COOKIE_SECURE": True,
}

# What the presets of NIST's levels are told to have, and others need not have.
STRICT = {"CSRF_USE_SESSIONS": True, "SESSION_EXPIRE_AT_BROWSER_CLOSE": True}

WRONG_WHEN_DEPLOYED: dict[str, list[dict[str, Any]]] = {
    "W005": [
        {"SESSION_COOKIE_SECURE": False},
    ],
    "W006": [
        {"SESSION_COOKIE_HTTPONLY": False},
    ],
    "W007": [
        {"SESSION_COOKIE_SAMESITE": None},
        {"SESSION_COOKIE_SAMESITE": False},
        {"SESSION_COOKIE_SAMESITE": "None"},
        {"SESSION_COOKIE_SAMESITE": "none"},
    ],
    "W008": [
        {"SESSION_COOKIE_NAME": "sessionid"},
        {"SESSION_COOKIE_NAME": "Host-sessionid"},
    ],
    "W010": [
        {"SESSIONKIT_POLICY": "django_sessionkit.policy.aal2", "CSRF_USE_SESSIONS": False},
        {"SESSIONKIT_POLICY": "django_sessionkit.policy.aal3", "CSRF_USE_SESSIONS": False},
    ],
    "W011": [
        {
            "SESSIONKIT_POLICY": "django_sessionkit.policy.aal2",
            "SESSION_EXPIRE_AT_BROWSER_CLOSE": False,
        },
        {
            "SESSIONKIT_POLICY": "django_sessionkit.policy.aal3",
            "SESSION_EXPIRE_AT_BROWSER_CLOSE": False,
        },
    ],
    "W016": [{**NOTICES, "SESSIONKIT_SITE_URL": "http://shop.example"}],
    "W019": [
        {"SESSION_ENGINE": "django_sessionkit.backends.memory"},
    ],
}

# What only `check --database` asks for: see test_redis_checks.py.
WRONG_WHEN_ASKED = ["W009", "W013", "W017", "W021", "W023"]

RIGHT: list[dict[str, Any]] = [
    {},
    {"ROOT_URLCONF": None},
    {"LOGIN_URL": "https://sso.example/sign-in"},
    {**REDIS, "CACHES": {"default": DJANGO_REDIS}},
    {**REDIS, "CACHES": {"default": {**DJANGO_REDIS, "KEY_FUNCTION": f"{__name__}.hashed"}}},
    {**REDIS, "CACHES": {"default": CLUSTER}},
    {**REDIS, "CACHES": {"default": {**CLUSTER, "KEY_FUNCTION": f"{__name__}.named"}}},
    {
        **REDIS,
        "CACHES": {
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": "redis://127.0.0.1:1",
            }
        },
    },
    DEPLOYED,
    {"SESSION_ENGINE": "tests.faces.test_checks"},
    {"SESSION_ENGINE": "django_sessionkit.backends.memory"},
    {"SESSION_ENGINE": "django_sessionkit.backends.memory", "SESSIONKIT_MEMORY_LIMIT": 1},
    {"MIDDLEWARE": [OF_A_SITE, *OTHER_MIDDLEWARE]},
    {"MIDDLEWARE": [UPDATE_CACHE, OURS, *OTHER_MIDDLEWARE, FETCH_FROM_CACHE]},
    {"MIDDLEWARE": [CSRF, OURS, MESSAGE]},
    {
        "MIDDLEWARE": [MESSAGE, OURS],
        "MESSAGE_STORAGE": "django.contrib.messages.storage.cookie.CookieStorage",
    },
    {"TEMPLATES": [{"BACKEND": "django.template.backends.dummy.TemplateStrings"}]},
    {"TEMPLATES": [*settings.TEMPLATES, {**settings.TEMPLATES[0], "NAME": "mail", "OPTIONS": {}}]},
    {"SESSIONKIT_POLICY": "django_sessionkit.policy.aal2"},
    {
        "SESSIONKIT_POLICY": "django_sessionkit.policy.aal3",
        "ROOT_URLCONF": "django.contrib.auth.urls",
    },
    {"SESSIONKIT_POLICY": "django_sessionkit.policy.aal2", "ROOT_URLCONF": None},
    {"SESSIONKIT_REAUTHENTICATION_URL": "two_factor:profile"},
    {"SESSIONKIT_REAUTHENTICATION_URL": "https://id.example.com/"},
    {"SESSIONKIT_ADOPT_FROM": [DATABASE, CACHE, FILES, COOKIES]},
    {"SESSIONKIT_ADOPT_FROM": ("tests.adoption.engine_on_redis",)},
    {
        "SESSION_ENGINE": DATABASE,
        "SESSIONKIT_ADOPT_FROM": [settings.SESSION_ENGINE],
        "MIDDLEWARE": [RETURNING, *OTHER_MIDDLEWARE],
    },
    {"SESSIONKIT_DEVICE_COOKIE": None},
    {"SESSIONKIT_DEVICE_COOKIE": ""},
    {"SESSIONKIT_DEVICE_COOKIE": "__Host-browser", "SESSION_COOKIE_SECURE": True},
    {
        "SESSIONKIT_DEVICE_COOKIE": "__Http-browser",
        "SESSION_COOKIE_SECURE": True,
        "SESSION_COOKIE_HTTPONLY": False,
    },
    {"SESSIONKIT_BACKGROUND": []},
    {"SESSIONKIT_BACKGROUND": ["/poll/", "/chat"]},
    {"SESSIONKIT_BACKGROUND": ("/poll/",)},
    {"SESSIONKIT_TOUCH_INTERVAL": 1, "SESSIONKIT_TRUSTED_PROXIES": 0, "SESSIONKIT_RETENTION": 0},
    {"SESSIONKIT_TOUCH_INTERVAL": 59, "SESSION_COOKIE_AGE": 60},
    {
        "SESSION_COOKIE_NAME": "__Secure-sessionid",
        "SESSION_COOKIE_SECURE": True,
        "SESSION_COOKIE_DOMAIN": "example.com",
        "SESSION_COOKIE_HTTPONLY": False,
        "SESSION_COOKIE_PATH": "/shop/",
    },
    {
        "SESSION_COOKIE_NAME": "__Http-sessionid",
        "SESSION_COOKIE_SECURE": True,
        "SESSION_COOKIE_DOMAIN": "example.com",
        "SESSION_COOKIE_PATH": "/shop/",
    },
    {"SESSION_COOKIE_NAME": "__Host-Http-sessionid", "SESSION_COOKIE_SECURE": True},
    {"SESSION_COOKIE_NAME": "__Host-sessionid", "SESSION_COOKIE_SECURE": True},
    {"SESSION_COOKIE_SAMESITE": "None", "SESSION_COOKIE_SECURE": True},
    {"SESSION_COOKIE_SAMESITE": None},
    NOTICES,
    {**NOTICES, "SESSIONKIT_SITE_URL": "http://127.0.0.1:8000"},
    {**NOTICES, "SESSIONKIT_SITE_URL": "http://[::1]:8000/"},
    {**NOTICES, "SESSIONKIT_SITE_URL": "https://b\u00fccher.example"},
    {"SESSIONKIT_SITE_URL": "https://shop.example"},
    {"SESSIONKIT_NOTICES": []},
    TOKENS,
    {"ROOT_URLCONF": "tests.tokens", "SESSIONKIT_SITE_URL": "https://shop.example"},
    {"SESSIONKIT_TOKEN_CLAIMS": "tests.tokens.encoded", "SESSIONKIT_TOKEN_AGE": 3600},
    {"SESSIONKIT_TOKEN_ALGORITHM": "EdDSA"},
]


def each(wrong: dict[str, list[dict[str, Any]]]) -> pytest.MarkDecorator:
    cases = [(name, case) for name, cases in wrong.items() for case in cases]
    return pytest.mark.parametrize(("name", "case"), cases)


def assert_says(found: list[checks.CheckMessage], name: str) -> None:
    assert {message.id for message in found} == {f"sessionkit.{name}"}
    for message in found:
        assert message.msg.endswith(".")
        assert message.hint
        assert "{" not in f"{message.msg}{message.hint}"
        assert message.is_serious() == name.startswith("E")
        assert message.level == (checks.ERROR if name.startswith("E") else checks.WARNING)


@each(WRONG)
@pytest.mark.standard("ASVS-1.5.2", "ASVS-3.3.1", "ASVS-3.3.2")
def test_mistake_is_found_and_no_other(name: str, case: dict[str, Any]):
    with override_settings(**case):
        assert_says(check_settings(), name)


@each(WRONG_WHEN_DEPLOYED)
@pytest.mark.standard("ASVS-3.3.1", "ASVS-3.3.2", "ASVS-3.3.3", "NIST-5.1.1")
@pytest.mark.standard("NIST-SB-8.3", "WSTG-SESS-02", "WSTG-SESS-09")
def test_mistake_of_a_deployed_site_is_found_and_no_other(name: str, case: dict[str, Any]):
    with override_settings(**{**DEPLOYED, **STRICT, **case}):
        assert_says(check_deployment(), name)


def test_every_id_has_a_mistake():
    assert [*WRONG, *WRONG_WHEN_DEPLOYED, *WRONG_WHEN_ASKED] == list(MESSAGES)


def test_site_with_tokens_is_told_to_install_what_signs_them(monkeypatch: pytest.MonkeyPatch):
    def find(name: str, *args: Any) -> Any:
        assert name == "jwt"

    monkeypatch.setattr("django_sessionkit.checks.find_spec", find)
    assert check_settings() == []
    with override_settings(**TOKENS):
        assert_says(check_settings(), "E020")


@pytest.mark.django_db
def test_site_with_tokens_is_told_to_make_a_key(monkeypatch: pytest.MonkeyPatch):
    def told(**settings: Any) -> list[str | None]:
        with override_settings(**settings):
            return [message.id for message in check_settings(databases=["default"])]

    assert told() == []
    with override_settings(**TOKENS):
        assert check_settings() == []
        assert check_settings(databases=["another"]) == []
        assert_says(check_settings(databases=["default"]), "W023")
    signing_keys.make()
    assert told(**TOKENS) == []
    SigningKey.objects.all().delete()
    assert told(**TOKENS) == ["sessionkit.W023"]
    monkeypatch.setattr(SigningKey._meta, "db_table", "not_there_before_migrate")
    assert told(**TOKENS) == []


class Installed(NamedTuple):
    """A site whose last purge has finished some time ago, and what the check says of it."""

    alice: User

    def purged(self, **ago: float) -> None:
        at = timezone.now() - timedelta(**ago)
        PurgeRun.objects.create(started_at=at, finished_at=at)

    def signed_in(self, **ago: float) -> None:
        at = timezone.now() - timedelta(**ago)
        many(1, self.alice, id=uuid7(int(at.timestamp()) * 1_000_000_000), started_at=at)

    def migrated(self, **ago: float) -> None:
        migrations = MigrationRecorder(connection).migration_qs
        migrations.update(applied=timezone.now() - timedelta(**ago))

    def told(self, databases: Sequence[str] | None = ("default",)) -> list[str | None]:
        return [message.id for message in check_settings(databases=databases)]


@pytest.fixture
def installed(alice: User) -> Installed:
    return Installed(alice)


@pytest.mark.django_db
def test_site_that_nobody_purges_is_told_after_a_day(installed: Installed):
    assert installed.told() == []  # a fresh install
    installed.signed_in(hours=1)
    installed.migrated(days=30)
    assert installed.told() == []
    installed.signed_in(hours=25)
    assert installed.told() == ["sessionkit.W017"]
    assert installed.told(None) == installed.told(["another"]) == []  # nobody is asked
    installed.purged(hours=25)
    assert installed.told() == ["sessionkit.W017"]
    PurgeRun.objects.create(started_at=timezone.now())  # it has not finished
    assert installed.told() == ["sessionkit.W017"]
    installed.purged(hours=23)
    assert installed.told() == []


@pytest.mark.django_db
def test_newcomer_is_not_told_on_the_first_day_though_old_sessions_have_moved_there(
    installed: Installed,
):
    installed.signed_in(days=10)
    installed.migrated(hours=23)
    assert installed.told() == []
    installed.migrated(hours=25)
    assert installed.told() == ["sessionkit.W017"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "settings_of_the_site",
    [
        {"DEBUG": True},
        {"SESSION_ENGINE": "django.contrib.sessions.backends.db"},
        {"SESSION_ENGINE": "no.such.engine"},
    ],
)
def test_whoever_need_not_purge_is_not_told(
    installed: Installed, settings_of_the_site: dict[str, Any]
):
    installed.signed_in(days=10)
    installed.migrated(days=10)
    assert installed.told() == ["sessionkit.W017"]
    with override_settings(**settings_of_the_site):
        assert "sessionkit.W017" not in installed.told()


@pytest.mark.django_db
def test_database_that_django_has_not_migrated_is_asked_for_nothing(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
):
    installed.signed_in(days=10)
    installed.migrated(days=10)
    monkeypatch.setattr(MigrationRecorder, "has_table", lambda self: False)
    assert installed.told() == []


@pytest.mark.django_db
def test_check_names_the_columns_that_it_reads(installed: Installed):
    """Those of a later version are not there yet when its migrate asks for the checks."""
    installed.signed_in(days=10)
    installed.migrated(days=10)
    with CaptureQueriesContext(connection) as queries:
        assert installed.told() == ["sessionkit.W017"]
    columns = {"deleted", "payload", "user_agent"}
    assert not [query for query in queries if any(f'"{name}"' in query["sql"] for name in columns)]


def test_site_that_lacks_what_metrics_need_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("django_sessionkit.checks.find_spec", lambda name: None)
    monkeypatch.setattr("django_sessionkit.metrics.apps.find_spec", lambda name: None)
    assert check_settings() == []
    with override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS, METRICS]):
        assert_says(check_settings(), "E022")


@pytest.mark.parametrize("case", RIGHT)
def test_right_settings_are_passed_in_silence(case: dict[str, Any]):
    with override_settings(**case):
        assert check_settings() == []


@pytest.mark.parametrize("domain", [None, "example.com"])
def test_rightly_deployed_site_is_passed_in_silence(domain: str | None):
    name = "__Secure-sessionid" if domain else "__Host-sessionid"
    right = {**DEPLOYED, "SESSION_COOKIE_NAME": name, "SESSION_COOKIE_DOMAIN": domain}
    with override_settings(**right):
        assert [*check_settings(), *check_deployment()] == []


@pytest.mark.parametrize("level", ["aal2", "aal3"])
def test_site_that_follows_nist_is_passed_in_silence(level: str):
    policy = f"django_sessionkit.policy.{level}"
    with override_settings(**{**DEPLOYED, **STRICT, "SESSIONKIT_POLICY": policy}):
        assert [*check_settings(), *check_deployment()] == []


@pytest.mark.parametrize("policy", ["default", "aal1", "staff"])
def test_site_that_claims_no_level_need_not_follow_nist(policy: str):
    with override_settings(**DEPLOYED, SESSIONKIT_POLICY=f"django_sessionkit.policy.{policy}"):
        assert check_deployment() == []


@pytest.mark.parametrize("policy", [["aal2"], None, 7])
def test_policy_that_is_no_path_is_left_to_the_other_check(policy: Any):
    with override_settings(**DEPLOYED, SESSIONKIT_POLICY=policy):
        assert check_deployment() == []
        assert_says(check_settings(), "E006")


def test_worker_is_enough_for_activity_that_waits():
    case = {**REDIS, "CACHES": {"default": DJANGO_REDIS}, "SESSIONKIT_ACTIVITY": "buffered"}
    with override_settings(**case), celery_app():
        assert check_settings() == []


def test_level_is_named_to_those_who_claim_it():
    with override_settings(**DEPLOYED, SESSIONKIT_POLICY="django_sessionkit.policy.aal3"):
        csrf, cookie = check_deployment()
    assert "AAL3" in csrf.msg
    assert "AAL3" in cookie.msg


def test_policy_that_can_not_be_used_says_why():
    with override_settings(SESSIONKIT_POLICY="nowhere.policy"):
        (message,) = check_settings()
    assert "No module named 'nowhere'" in message.msg
    with override_settings(SESSIONKIT_POLICY="django_sessionkit.policy.AAL2"):
        (message,) = check_settings()
    assert "is not a function" in message.msg


@pytest.mark.parametrize(
    ("case", "prefix"),
    [
        ({}, "__Host-"),
        ({"SESSION_COOKIE_DOMAIN": "example.com"}, "__Secure-"),
        ({"SESSION_COOKIE_PATH": "/shop/"}, "__Secure-"),
    ],
)
def test_hint_about_the_cookies_name_is_one_that_browsers_take(case: dict[str, Any], prefix: str):
    with override_settings(**{**DEPLOYED, "SESSION_COOKIE_NAME": "sessionid", **case}):
        (message,) = check_deployment()
    name = f"{prefix}sessionid"
    assert message.hint
    assert f'SESSION_COOKIE_NAME = "{name}"' in message.hint
    with override_settings(**{**DEPLOYED, **case, "SESSION_COOKIE_NAME": name}):
        assert [*check_settings(), *check_deployment()] == []


@pytest.mark.django_db  # which Django 6.1 asks whenever it checks
@pytest.mark.parametrize(
    "django_speaks",
    [
        {"INSTALLED_APPS": settings.INSTALLED_APPS},
        {"MIDDLEWARE": [DJANGOS, *OTHER_MIDDLEWARE]},
    ],
)
def test_what_django_says_of_the_cookie_is_not_said_twice(django_speaks: dict[str, Any]):
    careless = {"SESSION_COOKIE_SECURE": False, "SESSION_COOKIE_HTTPONLY": False}
    with override_settings(**{**DEPLOYED, **careless}):
        assert [message.id for message in check_deployment()] == [
            "sessionkit.W005",
            "sessionkit.W006",
        ]
    with override_settings(**{**DEPLOYED, **careless, **django_speaks}):
        assert check_deployment() == []
        ids = {message.id for message in checks.run_checks(include_deployment_checks=True)}
    assert ids & {"security.W010", "security.W011"}
    assert ids & {"security.W013", "security.W014"}


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("SESSIONKIT_TUCH_INTERVAL", "Rename it to SESSIONKIT_TOUCH_INTERVAL, or remove it."),
        ("SESSIONKIT_TRUSTED_PROXY", "Rename it to SESSIONKIT_TRUSTED_PROXIES, or remove it."),
        (
            "SESSIONKIT_X",
            f"Rename it to {' or '.join(sorted(VALUES))}, or remove it.",
        ),
    ],
)
def test_unknown_setting_is_met_with_the_nearest_known(typo: str, meant: str):
    with override_settings(**{typo: 1}):
        (message,) = check_settings()
    assert message.hint == meant


def test_every_middleware_that_comes_too_early_is_named():
    with override_settings(MIDDLEWARE=[AUTHENTICATION, MESSAGE, OURS, CSRF]):
        first, second = check_settings()
    assert f"{AUTHENTICATION} comes before {OURS}" in first.msg
    assert f"{MESSAGE} comes before {OURS}" in second.msg
    with override_settings(MIDDLEWARE=[AUTHENTICATION, DJANGOS, MESSAGE]):
        ids = [message.id for message in check_settings()]
    assert ids == ["sessionkit.W001", "sessionkit.E005"]


def test_middleware_that_can_not_be_imported_is_djangos_to_report():
    with override_settings(MIDDLEWARE=["nowhere.Middleware", *settings.MIDDLEWARE]):
        assert check_settings() == []


def test_what_keeps_messages_from_the_pages_is_named():
    bare = [{"BACKEND": settings.TEMPLATES[0]["BACKEND"], "APP_DIRS": True}]
    left = [name for name in settings.MIDDLEWARE if name != MESSAGE]
    apps = [name for name in settings.INSTALLED_APPS if "messages" not in name]
    with override_settings(INSTALLED_APPS=apps, MIDDLEWARE=left, TEMPLATES=bare):
        (message,) = check_settings()
    what = [
        '"django.contrib.messages" in INSTALLED_APPS',
        f'"{MESSAGE}" in MIDDLEWARE',
        f'"{PROCESSOR}" in the "context_processors" of TEMPLATES',
    ]
    assert message.msg.endswith(f"there is no {', '.join(what)}.")
    assert message.hint
    assert message.hint.startswith(f"Add {', '.join(what)}.")


def test_check_command_fails_on_an_error():
    with (
        override_settings(SESSION_ENGINE="nowhere"),
        pytest.raises(SystemCheckError, match=r"sessionkit\.E001"),
    ):
        call_command("check")


@pytest.mark.django_db  # which Django 6.1 asks whenever it checks
def test_check_command_passes_what_is_right():
    call_command("check", fail_level="WARNING")


@pytest.mark.django_db  # which Django 6.1 asks whenever it checks
def test_deployment_is_checked_only_when_asked_for(capsys: pytest.CaptureFixture[str]):
    call_command("check")
    assert "sessionkit" not in capsys.readouterr().err
    call_command("check", deploy=True, tags=["security"])
    assert "sessionkit.W008" in capsys.readouterr().err


def test_site_without_the_apps_is_told_which_to_add(tmp_path: Path):
    """In a process of its own: without them, not even the middleware can be imported."""
    (tmp_path / "site_settings.py").write_text(
        "from example_project.settings import *\n"
        "INSTALLED_APPS = ['django.contrib.messages', 'django_sessionkit']\n"
        "ROOT_URLCONF = 'site_urls'\n"
        "LOGIN_URL = 'https://sso.example/'\n"
    )
    (tmp_path / "site_urls.py").write_text("urlpatterns = []\n")
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--settings", "site_settings"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert re.findall(r"sessionkit\.E\d+", done.stderr) == ["sessionkit.E011", "sessionkit.E011"]
    assert 'HINT: Add "django.contrib.auth" to INSTALLED_APPS.' in done.stderr
    assert 'HINT: Add "django.contrib.contenttypes" to INSTALLED_APPS.' in done.stderr


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("order", "seen_by_bob"),
    [
        ([UPDATE_CACHE, OURS, AUTHENTICATION, FETCH_FROM_CACHE], "bob"),
        ([OURS, UPDATE_CACHE, AUTHENTICATION, FETCH_FROM_CACHE], "alice"),
    ],
    ids=["right", "W002"],
)
def test_cache_inside_the_session_shows_the_page_of_another(order: list[str], seen_by_bob: str):
    pages = []
    with override_settings(MIDDLEWARE=order):
        for name in ("alice", "bob"):
            client = Client()
            client.force_login(User.objects.create_user(name))
            pages.append(client.get("/whoami/").content.decode())
        cache.clear()
    assert pages == ["alice", seen_by_bob]
