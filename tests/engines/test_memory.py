"""The memory engine: what bounds it, what it waits for, and what the tests of a project see."""

import asyncio
import os
import uuid
from unittest import mock

import pytest
from django.contrib.auth import SESSION_KEY
from django.core.management import call_command

from django_sessionkit import activity
from django_sessionkit.backends import memory
from django_sessionkit.backends.memory import SessionStore
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.purging import purge
from django_sessionkit.storage import Seen, Waiting
from tests.projects import run_python
from tests.servers import PROJECT
from tests.store import FORTNIGHT, later, now

pytestmark = [pytest.mark.once, pytest.mark.django_db]


@pytest.fixture(autouse=True)
def engine(settings):
    settings.SESSION_ENGINE = "django_sessionkit.backends.memory"
    memory.clear()
    yield
    memory.clear()


def insert(digest):
    return SessionStore.insert(digest, b"twelve bytes, and more", now(), now() + FORTNIGHT)


def sign_in(user):
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session.save()
    return session


# What bounds it.


def test_what_was_written_longest_ago_has_to_go(settings):
    settings.SESSIONKIT_MEMORY_LIMIT = 3
    for digest in "abc":
        insert(digest)
    SessionStore.touch("a", now(), now() + FORTNIGHT)
    SessionStore.replace("b", b"another version", None, b"twelve bytes")
    SessionStore.read("c")  # is no write
    insert("d")
    assert SessionStore.peek("abcd") == set("abd")
    SessionStore.move("a", "e", b"yet another version", now(), now() + FORTNIGHT, b"twelve bytes")
    for digest in "fg":
        insert(digest)
    assert SessionStore.peek("abcdefg") == set("efg")


def test_a_limit_that_is_lowered_holds_from_the_next_session_on(settings):
    for digest in "abcd":
        insert(digest)
    settings.SESSIONKIT_MEMORY_LIMIT = 2
    insert("e")
    assert len(memory._entries) == 2


def test_the_users_of_sessions_that_had_to_go_are_out(settings, alice):
    settings.SESSIONKIT_MEMORY_LIMIT = 2
    sessions = [sign_in(alice) for _ in range(3)]
    is_in = [bool(SessionStore(session.session_key).load()) for session in sessions]
    assert is_in == [False, True, True]
    handles = {row.pk for row in UserSession.objects.alive()}
    assert handles == {session.handle for session in sessions[1:]}


# What it waits for.


def test_async_code_waits_for_nothing_and_takes_no_thread():
    """A coroutine that ends at its first step has given way to nobody."""
    session = SessionStore()
    session["cart"] = ["teapot"]

    async def story():
        for step in (session.asave, session.asave, session.aload, session.adelete):
            with pytest.raises(StopIteration):
                step().send(None)

    with mock.patch("django_sessionkit.backends.base.sync_to_async", side_effect=AssertionError):
        asyncio.run(story())


# The purge.


def test_the_purge_removes_what_has_expired():
    insert("a")
    SessionStore.insert("b", b"another", now(), now() - 1)
    assert purge(dry_run=True).figures["expired"] == 1
    assert list(memory._entries) == ["a", "b"]
    SessionStore.clear_expired()
    assert list(memory._entries) == ["a"]


# The tests of a project.


def test_clear_leaves_nothing_and_the_purge_closes_the_rows(alice):
    session = sign_in(alice)
    memory.clear()
    assert SessionStore(session.session_key).load() == {}
    with later(seconds=120):
        call_command("clearsessions", verbosity=0)
    assert UserSession.objects.get().end_reason == EndReason.LOST


TESTS = '''
from urllib.request import Request, urlopen

from django.contrib.auth.models import User
from django.test import Client, LiveServerTestCase, TestCase, TransactionTestCase

from django_sessionkit import activity
from django_sessionkit.backends import memory
from django_sessionkit.models import UserSession
from django_sessionkit.testing.races import RaceContract
from django_sessionkit.testing.sessions import SessionContract
from django_sessionkit.testing.storage import StorageContract


class Story:
    """Each test signs Alice in, in a process that others have left sessions in."""

    def setUp(self):
        self.alice = User.objects.create_user("alice")

    def sign_in(self):
        assert self.client.get("/account/sessions/").status_code == 302
        assert not UserSession.objects.exists()
        self.client.force_login(self.alice)
        page = self.client.get("/account/sessions/")
        assert len(page.context["object_list"]) == 1
        assert UserSession.objects.alive() == [UserSession.objects.get()]

    test_one = test_another = test_a_third = sign_in


class Isolated(Story, TestCase):
    pass


class Flushed(Story, TransactionTestCase):
    pass


class Emptied(Story, TestCase):
    def setUp(self):
        super().setUp()
        memory.clear()

    def test_nothing_is_left(self):
        assert not memory._entries


class OfAClass(TestCase):
    """Signed in once, for all tests of a class."""

    @classmethod
    def setUpTestData(cls):
        cls.browser = Client()
        cls.browser.force_login(User.objects.create_user("alice"))

    def is_in(self):
        assert self.browser.get("/account/sessions/").status_code == 200

    test_one = test_another = is_in


class StorageTests(StorageContract, TestCase):
    engine = "django_sessionkit.backends.memory"

    def spoil(self, digest):
        memory._entries[digest] = memory.Entry(b"", 0, 1 << 60)


class RaceTests(RaceContract, TransactionTestCase):
    engine = "django_sessionkit.backends.memory"


class SessionTests(SessionContract, TestCase):
    engine = "django_sessionkit.backends.memory"


class Live(LiveServerTestCase):
    def test_a_browser_that_was_signed_in_by_force(self):
        self.client.force_login(User.objects.create_user("alice"))
        cookie = f"sessionid={self.client.cookies['sessionid'].value}"
        url = f"{self.live_server_url}/account/sessions/"
        page = urlopen(Request(url, headers={"Cookie": cookie}))
        assert page.url.endswith("/account/sessions/")
'''

SETTINGS = """
from mysite.settings import *

SESSION_ENGINE = "django_sessionkit.backends.memory"
INSTALLED_APPS = ["django_sessionkit", *INSTALLED_APPS]
MIDDLEWARE[MIDDLEWARE.index("django.contrib.sessions.middleware.SessionMiddleware")] = (
    "django_sessionkit.middleware.SessionMiddleware"
)
LOGIN_URL = "admin:login"
STATIC_URL = "static/"
"""


def test_tests_of_a_project_do_not_see_each_others_sessions(tmp_path):
    """Those of an engine, which inherit the contract, are among them."""
    call_command("startproject", "mysite", str(tmp_path))
    (tmp_path / "mysite" / "test_settings.py").write_text(SETTINGS)
    (tmp_path / "mysite" / "tests.py").write_text(TESTS)
    urls = tmp_path / "mysite" / "urls.py"
    mount = 'urlpatterns += [path("account/sessions/", include("django_sessionkit.urls"))]'
    urls.write_text(f"{urls.read_text()}\nfrom django.urls import include\n{mount}\n")
    env = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}:{PROJECT}",
        "DJANGO_SETTINGS_MODULE": "mysite.test_settings",
    }
    for way in (["--shuffle"], ["--parallel", "2"]):
        said = run_python(tmp_path, "manage.py", "test", *way, env=env)
        assert "\nOK\n" in said, said  # and none was skipped


# Activity that waits: see activity.py.


def test_no_activity_waits_in_memory(settings, alice):
    settings.SESSIONKIT_ACTIVITY = "buffered"
    digest = "ab" * 32
    insert(digest)
    assert not SessionStore.touch_later(Seen(digest, uuid.uuid4(), now(), now(), None, b""))
    assert activity.carry() == activity.Carried()
    SessionStore.note_flushed(Waiting("", now(), []))
    assert SessionStore.last_seen([digest, "0" * 64]) == {digest: 0}
    session = sign_in(alice)
    (row,) = UserSession.objects.alive()
    assert (row.pk, row.last_seen_at) == (session.handle, UserSession.objects.get().last_seen_at)
