"""
Published attacks on other systems, tried on this one: the key of a user in a session and that in
the table of users are not the same, so that nothing ends. docs/security.md has the list.
"""

import json

import pytest
from django.conf import settings

from tests.projects import run_project

pytestmark = pytest.mark.django_db

PEOPLE = """
import uuid

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models


class People(BaseUserManager):
    def get_by_natural_key(self, name):
        return self.get(name=name)


class Person(AbstractBaseUser, PermissionsMixin):
    key = KEY
    name = models.CharField(max_length=20, unique=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=True)
    USERNAME_FIELD = "name"
    objects = People()
"""

SITE = """
import os
from json import loads
from unittest import mock

import dj_database_url
import django
from django.conf import settings
from django.http import HttpResponse

settings.configure(
    SECRET_KEY="of a test",
    ALLOWED_HOSTS=["testserver"],
    USE_TZ=True,
    ROOT_URLCONF="__main__",
    AUTH_USER_MODEL="people.Person",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    MIDDLEWARE=[
        "django_sessionkit.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    INSTALLED_APPS=[
        "people",
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django_sessionkit",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    # Without migrations, so that each kind of key makes its tables.
    MIGRATION_MODULES=dict.fromkeys(["admin", "auth", "contenttypes", "django_sessionkit"]),
    DATABASES={"default": dj_database_url.parse(os.environ["DATABASE_URL"])},
    **loads(os.environ["SETTINGS"]),
)
django.setup()

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import SetPasswordForm
from django.core.management import call_command
from django.test import Client
from django.urls import path

from django_sessionkit.models import UserSession, get_session_store
from people.models import Person


class PersonAdmin(UserAdmin):
    list_display = list_filter = ordering = filter_horizontal = ()


admin.site.register(Person, PersonAdmin)
urlpatterns = [
    path("admin/", admin.site.urls),
    path("login/", lambda request: HttpResponse(), name="login"),
    path("whoami/", lambda request: HttpResponse(request.user.get_username())),
]
call_command("migrate", run_syncdb=True, verbosity=0)


def make(name, **fields):
    person = Person(name=name, **fields)
    person.set_password("secret")
    person.save()
    return person


def sign_in(person):
    browser = Client()
    browser.force_login(person)
    return browser


def is_in(browser, person):
    return browser.get("/whoami/").content == str(person).encode()


ann, bob, root = make("ann", key=A), make("bob", key=B), make("root", key=C, is_superuser=True)
desk = sign_in(root)
NEW = dict.fromkeys(["password1", "password2", "new_password1", "new_password2"], "Zu9-better")


def by_code():
    ann.set_password("better")
    ann.save()


def by_mail():
    form = SetPasswordForm(Person.objects.get(name="ann"), NEW)
    assert form.is_valid()
    form.save()


def by_command():
    with mock.patch("getpass.getpass", return_value="Zu9-better"):
        call_command("changepassword", "ann", stdout=open(os.devnull, "w"))


def by_staff():
    url = f"/admin/people/person/{quote(str(ann.key))}/password/"
    response = desk.post(url, NEW | {"usable_password": "true"})
    assert response.status_code == 302, response.content


def by_being_disabled():
    fresh = Person.objects.get(name="ann")
    fresh.is_active = False
    fresh.save()


for reset in (by_code, by_mail, by_command, by_staff, by_being_disabled):
    ann.refresh_from_db()
    browsers, other = [sign_in(ann), sign_in(ann)], sign_in(bob)
    keys = [browser.cookies["sessionid"].value for browser in browsers]
    assert all(is_in(browser, ann) for browser in browsers)
    open_rows = UserSession.objects.filter(user=ann.pk, ended_at=None)
    assert open_rows.count() == 2, reset
    reset()
    assert not open_rows.exists(), reset
    assert not any(get_session_store()().exists(key) for key in keys), reset
    assert not any(is_in(browser, ann) for browser in browsers), reset
    assert is_in(other, bob), reset
    assert is_in(desk, root), reset
rows = UserSession.objects.filter(user=ann.pk).order_by("pk")
reasons = [row.end_reason for row in rows]
assert reasons == ["password_change"] * 8 + ["account_disabled"] * 2, reasons
"""

# How a model says what its key is, and three keys that are easily taken for something else.
KEYS = {
    "integer": ("models.BigAutoField(primary_key=True)", [1, 10, 2]),
    "UUID": (
        "models.UUIDField(primary_key=True, default=uuid.uuid4)",
        ["0" * 31 + "a", "0" * 31 + "b", "A" * 32],
    ),
    "text": ("models.CharField(primary_key=True, max_length=30)", ["07", "7", "Ä/7 _5F"]),
}


# A password is reset, and the sessions stay: Airflow, by its command and by its admin.


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.standard("ASVS-7.4.2", "ASVS-7.4.3")
def test_cve_2026_82311_reset_ends_sessions_whatever_the_keys_of_users_are(
    tmp_path, example_database, kind
):
    """By code, by mail, by the command, by staff in the admin; and an account that is disabled."""
    field, keys = KEYS[kind]
    site = SITE
    for name, key in zip("ABC", keys, strict=True):
        site = site.replace(f"key={name}", f"key={key!r}")
    names = ("SESSION_ENGINE", "SESSION_CACHE_ALIAS", "CACHES", "SESSIONKIT_REDIS_PREFIX")
    of_this_leg = json.dumps({name: getattr(settings, name) for name in names})
    env = {"DATABASE_URL": example_database, "SETTINGS": of_this_leg}
    run_project(tmp_path, PEOPLE.replace("KEY", field, 1), site, env)
