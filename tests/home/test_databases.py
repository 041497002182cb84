"""Sites with several databases: replicas that lag, and a database for the sessions alone."""

import pytest

from tests.projects import run_project

pytestmark = [pytest.mark.once, pytest.mark.django_db]

SITE = '''
import os

import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import include, path

SESSIONS = ("django_sessionkit", "storedsession")
HOLDS = os.environ.get("HOLDS")


class Replica:
    """Everything is read from a replica, which has not heard of anything yet."""

    def db_for_read(self, model, **hints):
        return "replica"

    def db_for_write(self, model, **hints):
        return "default"

    def allow_relation(self, one, other, **hints):
        return True


class OwnDatabase:
    """What visitors have in their sessions is in a database of its own. The registry is not."""

    def db_for_read(self, model, **hints):
        if (model._meta.app_label, model._meta.model_name) == SESSIONS:
            return "sessions"

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, model_name=None, **hints):
        return (db == "sessions") == ((app_label, model_name) == SESSIONS)


class Apart(OwnDatabase):
    """The registry is in the other database, too. That cannot work, and a check says so."""

    def db_for_read(self, model, **hints):
        if model._meta.app_label == "django_sessionkit":
            return "sessions"

    db_for_write = db_for_read


settings.configure(
    SECRET_KEY="of a test",
    USE_TZ=True,
    ROOT_URLCONF="__main__",
    ALLOWED_HOSTS=["testserver"],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    SESSION_ENGINE="django_sessionkit.backends.db",
    DATABASE_ROUTERS=[f"__main__.{os.environ['ROUTER']}"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django_sessionkit"],
    MIDDLEWARE=[
        "django_sessionkit.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    TEMPLATES=[
        {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True},
    ],
    LOGIN_URL="/",
    STATIC_URL="static/",
    DATABASES={
        name: {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": f"{name}.sqlite3",
            "ATOMIC_REQUESTS": os.environ["ATOMIC"] == "yes",
            "OPTIONS": {"transaction_mode": "IMMEDIATE"},
        }
        for name in ("default", "replica", "sessions")
    },
)
django.setup()


def whoami(request):
    return HttpResponse(str(request.user))


def put(request):
    request.session["cart"] = request.GET["what"]
    return HttpResponse()


def cart(request):
    return HttpResponse(request.session.get("cart", "nothing"))


urlpatterns = [
    path("whoami/", whoami),
    path("put/", put),
    path("cart/", cart),
    path("sessions/", include("django_sessionkit.urls")),
]

from datetime import timedelta

from django.contrib.auth.models import User
from django.core import checks
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from django_sessionkit.models import StoredSession, UserSession

for name in ("default", "replica", "sessions"):
    call_command("migrate", database=name, verbosity=0)
'''

LIFE = '''
# The replica knows the users, who are older than its lag.
alice = User(pk=1, username="alice")
alice.set_password("secret")
for name in ("default", "replica"):
    alice.save(using=name)
alice = User.objects.using("default").get()


def signed_in():
    browser = Client()
    browser.force_login(alice)
    browser.get("/put/?what=teapot")
    return browser


def looks(browser):
    return browser.get("/whoami/").content, browser.get("/cart/").content


def is_in(browser):
    return browser.get("/whoami/").content == b"alice"


def make_due():
    """The activity of all sessions is to be written, so the registry is asked first."""
    StoredSession.objects.using(HOLDS).update(touched_at=0)


laptop, phone = signed_in(), signed_in()
for browser in (laptop, phone):
    assert looks(browser) == (b"alice", b"teapot"), looks(browser)
    make_due()
    assert looks(browser) == (b"alice", b"teapot"), looks(browser)
page = laptop.get("/sessions/")
assert page.content.count(b"This device") == 1 and b"other" in page.content, page.content

# The laptop ends the phone: at once, whatever the replica says.
other = UserSession.objects.using("default").latest("pk")
laptop.post(f"/sessions/{other.pk}/end/")
other.refresh_from_db(using="default")
assert other.end_reason == "revoked"
assert not is_in(phone) and is_in(laptop)
assert StoredSession.objects.using(HOLDS).count() == 1

# A new password ends the others. The admin, a task, a command write to the primary, too.
phone = signed_in()
alice.set_password("another")
alice.save(using="default")
assert not is_in(phone) and not is_in(laptop)
User.objects.using("replica").update(password=alice.password)
browser = signed_in()
assert UserSession.objects.revoke() == 1
assert not is_in(browser)
assert not StoredSession.objects.using(HOLDS).exists()

# The purge.
browser = signed_in()
long_ago = timezone.now() - timedelta(days=60)
rows = UserSession.objects.using("default")
rows.update(last_seen_at=long_ago, expires_at=long_ago)
StoredSession.objects.using(HOLDS).update(expires_at=0)
call_command("clearsessions", verbosity=0)
assert not StoredSession.objects.using(HOLDS).exists()
assert not rows.filter(ended_at=None).exists()
rows.update(ended_at=long_ago)
call_command("clearsessions", verbosity=0)
assert not rows.exists()
'''

CHECK = """
found = [each.id for each in checks.run_checks() if each.id.startswith("sessionkit.E")]
assert found == os.environ["EXPECTED"].split(), found
"""


@pytest.mark.parametrize("atomic", ["yes", "no"])
@pytest.mark.parametrize(("router", "holds"), [("Replica", "default"), ("OwnDatabase", "sessions")])
def test_sessions_are_where_the_routers_write(tmp_path, router, holds, atomic):
    """A replica that never hears of anything stands for one that lags."""
    env = {"ROUTER": router, "HOLDS": holds, "ATOMIC": atomic, "EXPECTED": ""}
    run_project(tmp_path, "", SITE + CHECK + LIFE, env)


def test_check_finds_users_and_registry_apart(tmp_path):
    env = {"ROUTER": "Apart", "ATOMIC": "no", "EXPECTED": "sessionkit.E014"}
    run_project(tmp_path, "", SITE + CHECK, env)
