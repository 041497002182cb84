"""
Tenants, each with a schema of PostgreSQL: by the real django-tenants, which sets the search path.
With sessions in Redis, its KEY_FUNCTION keeps them apart.
"""

import secrets

import pytest

from tests import servers
from tests.documents import TENANTS
from tests.projects import run_project

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db]

CUSTOMERS = """
from django.db import models
from django_tenants.models import DomainMixin, TenantMixin


class Tenant(TenantMixin):
    auto_create_schema = True


class Domain(DomainMixin):
    pass
"""

SITE = '''
import os

import dj_database_url
import django
from django.conf import settings
from django.http import HttpResponse, JsonResponse
from django.urls import include, path

TENANT_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_sessionkit"]
STORE, REDIS_PREFIX = os.environ["STORE"], os.environ["REDIS_PREFIX"]

settings.configure(
    SECRET_KEY="of a test",
    ALLOWED_HOSTS=["*"],
    USE_X_FORWARDED_HOST=True,  # Django's AsyncClient has always the same host
    USE_TZ=True,
    ROOT_URLCONF="__main__",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    DATABASES={
        "default": {
            **dj_database_url.parse(os.environ["DATABASE_URL"]),
            "ENGINE": "django_tenants.postgresql_backend",
        }
    },
    DATABASE_ROUTERS=["django_tenants.routers.TenantSyncRouter"],
    TENANT_MODEL="customers.Tenant",
    TENANT_DOMAIN_MODEL="customers.Domain",
    SHARED_APPS=["django_tenants", "customers"],
    TENANT_APPS=TENANT_APPS,
    INSTALLED_APPS=["django_tenants", "customers", *TENANT_APPS],
    MIDDLEWARE=[
        "django_tenants.middleware.main.TenantMainMiddleware",
        "django_sessionkit.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    LOGIN_URL="/",
    SESSION_ENGINE=f"django_sessionkit.backends.{STORE}",
    SESSION_CACHE_ALIAS="sessions",
    SESSIONKIT_REDIS_PREFIX=REDIS_PREFIX,
    CACHES={
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "sessions": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": os.environ["REDIS_URL"],
            "KEY_FUNCTION": "django_tenants.cache.make_key",
            "KEY_PREFIX": "site",
        },
    },
)
django.setup()


def look(request):
    return JsonResponse({"user": str(request.user), "cart": request.session.get("cart")})


async def alook(request):
    user, cart = await request.auser(), await request.session.aget("cart")
    return JsonResponse({"user": str(user), "cart": cart})


def put(request):
    request.session["cart"] = "teapot"
    return HttpResponse()


async def aput(request):
    await request.session.aset("cart", "teapot")
    return HttpResponse()


urlpatterns = [
    path("look/", look),
    path("alook/", alook),
    path("put/", put),
    path("aput/", aput),
    path("sessions/", include("django_sessionkit.urls")),
]

from datetime import timedelta

from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import AsyncClient, Client
from django.utils import timezone
from django_tenants.utils import schema_context

from customers.models import Domain, Tenant
from django_sessionkit.models import UserSession

call_command("check")
call_command("migrate_schemas", shared=True, verbosity=0)
with connection.schema_editor() as editor:  # an app that has no migrations
    editor.create_model(Tenant)
    editor.create_model(Domain)
NAMES = ["north", "south", "west"]
for name in NAMES:
    tenant = Tenant(schema_name=name)
    tenant.save(verbosity=0)
    Domain.objects.create(domain=f"{name}.example", tenant=tenant)
    with schema_context(name):
        # A copy of the same person, as tenants have that were made from one template.
        User.objects.create(pk=1, username="alice", password="md5$salt$hash")


class OfTenant:
    def __init__(self, tenant):
        super().__init__()
        self.tenant = tenant

    def ask(self, name):
        headers = {"x-forwarded-host": f"{self.tenant}.example"}
        return self.fetch(f"/{self.a}{name}/", headers=headers)

    def sign_in(self):
        with schema_context(self.tenant):
            self.force_login(User.objects.get())

    def looks(self):
        return list(self.ask("look").json().values())

    def is_in(self):
        return b"alice" in self.ask("look").content


class Browser(OfTenant, Client):
    """A browser of a tenant's site, on Django's WSGI handler."""

    a, fetch = "", Client.get


class AsgiBrowser(OfTenant, AsyncClient):
    """The same on the ASGI handler, with async views."""

    a, fetch = "a", async_to_sync(AsyncClient.get)


def rows(tenant):
    with schema_context(tenant):
        return list(UserSession.objects.values_list("end_reason", flat=True))


def signed_in(kind, tenant):
    browser = kind(tenant)
    browser.sign_in()
    browser.ask("put")
    assert browser.looks() == ["alice", "teapot"], browser.looks()
    return browser


def two_on(tenant):
    """Two browsers, one on each handler, which share a session."""
    browser, other = signed_in(Browser, tenant), AsgiBrowser(tenant)
    other.cookies = browser.cookies
    assert other.looks() == ["alice", "teapot"], other.looks()
    return browser, other


# A tenant's cookie is nothing at another's, and does no harm there.
for kind in (Browser, AsgiBrowser):
    browser = signed_in(kind, "north")
    cookie = browser.cookies["sessionid"].value
    browser.tenant = "south"
    assert browser.looks() == ["AnonymousUser", None], browser.looks()
    browser.tenant = "north"
    browser.cookies["sessionid"] = cookie
    assert browser.looks() == ["alice", "teapot"]
assert rows("north") == ["", ""]
assert rows("south") == []

# Sync code and async code of a tenant have the same sessions. Ending those of one tenant ends
# nobody else's.
here, there = two_on("north"), two_on("south")
with schema_context("north"):
    assert UserSession.objects.revoke() == 3
    assert UserSession.objects.all().alive() == []
assert [browser.is_in() for browser in here] == [False, False]
assert [browser.is_in() for browser in there] == [True, True]
with schema_context("south"):
    assert len(UserSession.objects.all().alive()) == 1

# A purge for each schema. One of them is broken: only it is not purged.
long_ago = timezone.now() - timedelta(days=60)
for name in NAMES:
    with schema_context(name):
        signed_in(Browser, name)
        UserSession.objects.revoke()
        UserSession.objects.update(ended_at=long_ago, expires_at=long_ago)
with connection.cursor() as cursor:
    cursor.execute("ALTER TABLE south.django_sessionkit_usersession RENAME TO broken")

PURGE
assert [name for name, error in failed] == ["south"], failed
assert rows("north") == rows("west") == []

# And its site is down, but nobody else's.
working = signed_in(Browser, "west")
there[0].raise_request_exception = False
assert there[0].ask("sessions").status_code >= 500
assert working.looks() == ["alice", "teapot"]
'''


@pytest.mark.parametrize("store", ["db", "redis"])
def test_tenants_have_nothing_in_common(tmp_path, postgresql, store):
    env = {
        "STORE": store,
        "DATABASE_URL": postgresql,
        "REDIS_URL": servers.redis("valkey"),
        "REDIS_PREFIX": f"test:{secrets.token_hex(8)}:",
    }
    (purge,) = TENANTS
    run_project(tmp_path, CUSTOMERS, SITE.replace("PURGE", purge.text), env, app="customers")
