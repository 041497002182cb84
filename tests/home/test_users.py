"""Sites with users of their own: by a UUID, by an e-mail address, by a text, by inheritance."""

import pytest

from tests import store
from tests.projects import run_project

pytestmark = pytest.mark.django_db

HEAD = """
import uuid

from django.contrib.auth.models import (
    AbstractBaseUser, AbstractUser, BaseUserManager, PermissionsMixin
)
from django.db import models


class Manager(BaseUserManager):
    def make(self, name, **fields):
        user = self.model(**{self.model.USERNAME_FIELD: name}, **fields)
        user.set_password("secret")
        user.save()
        return user


class ByNaturalKey(AbstractBaseUser, PermissionsMixin):
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)
    email = models.EmailField(unique=True)
    EMAIL_FIELD = USERNAME_FIELD = "email"
    objects = Manager()

    class Meta:
        abstract = True
"""

KINDS = {
    "a UUID as the primary key": """
class Person(ByNaturalKey):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
""",
    "an e-mail address as the user name": """
class Person(ByNaturalKey):
    pass
""",
    "a text as the primary key": """
class Person(ByNaturalKey):
    # With what means something in a URL, in HTML, in LIKE.
    code = models.CharField(max_length=40, primary_key=True, default="Ä/b?c=%27&<i>'_;d 1")
    email = models.EmailField(unique=True)
""",
    "a table that inherits from another": """
class Contact(AbstractUser):
    objects = Manager()


class Person(Contact):
    telephone = models.CharField(max_length=20, default="1")
    objects = Manager()
""",
    "a child with a key of its own": """
class Contact(ByNaturalKey):
    class Meta:
        abstract = False


class Person(Contact):
    number = models.UUIDField(primary_key=True, default=uuid.uuid4)
    contact = models.OneToOneField(Contact, models.CASCADE, parent_link=True)
    objects = Manager()
""",
}

SITE = """
import os

import dj_database_url
import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import include, path

STORE = os.environ["STORE"]
settings.configure(
    SECRET_KEY="of a test",
    USE_TZ=os.environ["USE_TZ"] == "yes",
    TIME_ZONE="America/Chicago",
    ALLOWED_HOSTS=["testserver"],
    ROOT_URLCONF="__main__",
    AUTH_USER_MODEL="people.Person",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    LOGIN_URL="/login/",
    LOGIN_REDIRECT_URL="/whoami/",
    STATIC_URL="static/",
    SESSION_ENGINE=f"django_sessionkit.backends.{STORE}",
    SESSION_CACHE_ALIAS="sessions",
    SESSIONKIT_REDIS_PREFIX=os.environ["REDIS_PREFIX"],
    SESSIONKIT_POLICY="__main__.policy",
    CACHES={
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "sessions": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": os.environ["REDIS_URL"],
        },
    },
    DATABASES={"default": dj_database_url.parse(os.environ["DATABASE_URL"])},
    INSTALLED_APPS=[
        "people",
        "django_sessionkit",
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
    ],
    MIDDLEWARE=[
        "django_sessionkit.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
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
        },
    ],
    MIGRATION_MODULES=dict.fromkeys(
        ["admin", "auth", "contenttypes", "django_sessionkit", "people"]
    ),
)
django.setup()

from django.contrib import admin
from django.contrib.auth import get_user_model, update_session_auth_hash
from django.contrib.auth.models import Group
from django.contrib.auth.views import LoginView
from django.core.management import call_command
from django.test import AsyncClient, Client
from django.test.utils import setup_test_environment
from django.utils.html import escape
from django.utils.http import urlencode
from asgiref.sync import async_to_sync

from django_sessionkit.admin import UserSessionsAdminMixin
from django_sessionkit.models import UserSession
from django_sessionkit.policy import Policy
from django_sessionkit.selection import Selection

User = get_user_model()


def policy(user, request):
    return Policy(limit=None if user.is_staff else 2)


@admin.register(User)
class PersonAdmin(UserSessionsAdminMixin, admin.ModelAdmin):
    search_fields = [User.USERNAME_FIELD]


def whoami(request):
    return HttpResponse(str(request.user))


async def awhoami(request):
    return HttpResponse(str(await request.auser()))


def change_password(request):
    request.user.set_password("better")
    request.user.save()
    update_session_auth_hash(request, request.user)
    return HttpResponse()


urlpatterns = [
    path("whoami/", whoami),
    path("awhoami/", awhoami),
    path("change_password/", change_password),
    path("login/", LoginView.as_view(template_name="admin/login.html"), name="login"),
    path("sessions/", include("django_sessionkit.urls")),
    path("admin/", admin.site.urls),
]

setup_test_environment()
call_command("migrate", run_syncdb=True, verbosity=0)
call_command("check", verbosity=0)

NAME, STAFF = "alice@example.org", "root@example.org"
alice = User.objects.make(NAME)
staff = {"pk": "1 of the staff"} if User._meta.pk.name == "code" else {}
root = User.objects.make(STAFF, is_staff=True, is_superuser=True, **staff)


def sign_in(name=NAME, password="secret"):
    browser = Client()
    response = browser.post("/login/", {"username": name, "password": password})
    assert response.status_code == 302, response.content
    return browser


def is_in(browser):
    asynchronous = AsyncClient()
    asynchronous.cookies = browser.cookies
    answers = [
        browser.get("/whoami/").content,
        async_to_sync(asynchronous.get)("/awhoami/").content,
    ]
    return [answer == NAME.encode() for answer in answers] == [True, True]


def reasons():
    rows = UserSession.objects.filter(user=alice).order_by("pk")
    return list(rows.values_list("end_reason", flat=True))


# Of three devices, the limit ends the first. One of the others ends the other.
devices = [sign_in() for _ in range(3)]
assert [is_in(device) for device in devices] == [False, True, True]
_first, phone, laptop = devices
page = laptop.get("/sessions/").content
assert page.count(b"This device") == 1
other = UserSession.objects.filter(user=alice).order_by("pk")[1]
laptop.post(f"/sessions/{other.pk}/end/")
assert not is_in(phone) and is_in(laptop)
assert reasons() == ["limit", "revoked", ""], reasons()

# The same user proves again who they are: it stays the same row.
assert laptop.post("/sessions/reauthenticate/", {"password": "secret"}).status_code == 302
laptop.post("/login/", {"username": NAME, "password": "secret"})
assert is_in(laptop) and len(reasons()) == 3

# A new password, and new rights.
phone = sign_in()
phone.get("/change_password/")
assert is_in(phone) and not is_in(laptop)
assert reasons()[2] == "password_change", reasons()
alice.refresh_from_db()
alice.groups.add(Group.objects.create(name="editors"))
row = UserSession.objects.filter(user=alice).latest("pk")
assert row.renew and is_in(phone)

# The staff find them, and end them.
staff = sign_in(STAFF)
url = "/admin/django_sessionkit/usersession/"
whose = Selection(users=(str(alice.pk),)).as_text()
for asked in (whose, {"q": NAME}):
    answer = staff.get(url, {**asked, "state": "all"})
    assert len(answer.context["cl"].result_list) == 4, answer.context["cl"].result_list
page = staff.get(f"{url}glance/").content.decode()
assert escape(str(alice)) in page and f"?{urlencode(whose)}" in page, page
page = staff.get(f"/admin/people/person/{admin.utils.quote(alice.pk)}/change/")
assert page.status_code == 200, page
chosen = {"action": "delete_selected", "_selected_action": [row.pk]}
staff.post(url, {**chosen, "post": "yes", "note": "a stolen laptop"})
assert not is_in(phone)
row.refresh_from_db()
assert (row.end_reason, row.ended_by) == ("revoked_by_staff", root)

# Behind Django's back: the purge notices.
phone = sign_in(password="better")
User.objects.filter(pk=alice.pk).update(is_active=False)
call_command("clearsessions", verbosity=0)
assert reasons()[-1] == "account_disabled", reasons()
User.objects.filter(pk=alice.pk).update(is_active=True)

# And the user is deleted, with all rows.
phone = sign_in(password="better")
alice.delete()
assert not is_in(phone)
assert UserSession.objects.exclude(user=root).count() == 0
"""


@pytest.mark.parametrize("kind", KINDS)
def test_users_of_their_own(tmp_path, example_database, settings, kind):
    """One of the sites has local times in its database."""
    env = {
        "DATABASE_URL": example_database,
        "STORE": settings.SESSION_ENGINE.rpartition(".")[2],
        "REDIS_URL": "",
        "REDIS_PREFIX": "-",
        "USE_TZ": "no" if kind.startswith("a text") else "yes",
    }
    if store.ON_REDIS:
        env["REDIS_URL"] = settings.CACHES["sessions"]["LOCATION"]
        env["REDIS_PREFIX"] = settings.SESSIONKIT_REDIS_PREFIX
    run_project(tmp_path, HEAD + KINDS[kind], SITE, env)
