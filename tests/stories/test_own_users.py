"""A project that has users, groups and databases of its own."""

import pytest

from tests.projects import run_project

pytestmark = pytest.mark.django_db

PEOPLE = """
import uuid

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, Group, PermissionsMixin
from django.db import models


class Person(BASES):
    uid = models.UUIDField(primary_key=True, default=uuid.uuid4)
    telephone = models.CharField(max_length=20, unique=True)
    state = models.CharField(max_length=20, default="fine")
    USERNAME_FIELD = "telephone"
    objects = BaseUserManager()

    @property
    def is_active(self):
        return self.state != "gone"


class Guest(Person):
    class Meta:
        proxy = True


class Employee(Person):
    number = models.AutoField(primary_key=True)
    person = models.OneToOneField(Person, models.CASCADE, parent_link=True)


class Team(Group):
    class Meta:
        proxy = True
"""

SITE = """
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="of a test",
    USE_TZ=True,
    AUTH_USER_MODEL="people.Person",
    SESSION_ENGINE="django_sessionkit.backends.db",
    INSTALLED_APPS=[
        "people",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django_sessionkit",
    ],
    # Without migrations, so that Team can be there.
    MIGRATION_MODULES={"auth": None, "contenttypes": None, "django_sessionkit": None},
    DATABASES={
        name: {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{name}.sqlite3"}
        for name in ("default", "archive")
    },
)
django.setup()

from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_sessionkit.backends.db import SessionStore
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.models import StoredSession, UserSession
from people.models import Employee, Guest, Person, Team

for name in ("default", "archive"):
    call_command("migrate", database=name, run_syncdb=True, verbosity=0)


def sign_in(person):
    Client().force_login(person)
    return UserSession.objects.latest("pk")


def reason(session):
    session.refresh_from_db()
    return session.end_reason


# Another database is another matter.
ann = Person.objects.create(telephone="1")
ann.save(using="archive")
ann.set_password("secret")
ann.save(using="default")
session = sign_in(ann)
Person.objects.using("archive").get().save()
assert reason(session) == ""

# What somebody is, is computed.
with CaptureQueriesContext(connection) as queries:
    ann.save(using="default", update_fields=["last_login"])
assert len(queries) == 1, queries.captured_queries
ann.state = "gone"
ann.save(using="default", update_fields=["state"])
assert reason(session) == "account_disabled"
ann.state = "fine"
ann.save(using="default")

# By a proxy.
session = sign_in(ann)
guest = Guest.objects.get()
guest.set_password("better")
guest.save()
assert reason(session) == "password_change"
sign_in(ann)
guest.delete()
assert not UserSession.objects.exists()
assert not StoredSession.objects.exists()

# By a child, which has a key of its own.
stranger = Person.objects.create(telephone="2")
Employee.objects.create(telephone="3")
employee = Employee.objects.create(telephone="4")
assert employee.pk != employee.uid
session, other = sign_in(Person.objects.get(telephone="4")), sign_in(stranger)
employee.set_password("secret")
employee.save()
assert reason(session) == "password_change"
session = sign_in(Person.objects.get(telephone="4"))
employee.delete(keep_parents=True)
assert reason(session) == ""
sign_in(Person.objects.get(telephone="3"))
Employee.objects.get().delete()
assert StoredSession.objects.count() == 2
assert reason(session) == reason(other) == ""

# By a key in another spelling, in a session that was made by hand.
by_hand = SessionStore()
by_hand["_auth_user_id"] = stranger.pk.hex.upper()
by_hand["_auth_user_hash"] = stranger.get_session_auth_hash()
by_hand.save()
row = UserSession.objects.latest("pk")
browser = Client()
browser.cookies["sessionid"] = by_hand.session_key
browser.force_login(stranger)
assert reason(row) == "", reason(row)
assert row.digest == digest_of(browser.cookies["sessionid"].value)
row.delete()

# By a proxy of their group.
if hasattr(Person, "groups"):
    team = Team.objects.create(name="team")
    stranger.groups.add(team)
    assert UserSession.objects.get(renew=True) == other
    UserSession.objects.update(renew=False)
    team.delete()
    assert UserSession.objects.get(renew=True) == other
    employee = Employee.objects.create(telephone="5")
    session = sign_in(Person.objects.get(telephone="5"))
    employee.groups.add(Team.objects.create(name="new team"))
    session.refresh_from_db()
    assert session.renew
"""


@pytest.mark.once
@pytest.mark.parametrize("bases", ["AbstractBaseUser", "AbstractBaseUser, PermissionsMixin"])
def test_users_of_another_model(tmp_path, bases):
    """With and without groups."""
    run_project(tmp_path, PEOPLE.replace("BASES", bases), SITE)
