"""
The newspaper's own tests. They know nothing of the kit, and use sessions in every way in which
projects do in their tests. They pass with Django's engines, and have to pass with the kit's.
"""

import http.client
from datetime import timedelta
from importlib import import_module
from typing import Any
from unittest import mock

import time_machine
from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user,
    login,
    logout,
)
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.contrib.messages import get_messages
from django.contrib.messages.storage.fallback import FallbackStorage
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpResponse
from django.test import (
    AsyncClient,
    AsyncRequestFactory,
    Client,
    LiveServerTestCase,
    RequestFactory,
    SimpleTestCase,
    TestCase,
    TransactionTestCase,
    modify_settings,
    override_settings,
    tag,
)
from django.utils import timezone
from django.utils.module_loading import import_string

from .urls import article, front_page

BACKEND = "django.contrib.auth.backends.ModelBackend"


def session_store(key: str | None = None) -> Any:
    """What a project calls that makes sessions by hand, as Django's documentation shows."""
    return import_module(settings.SESSION_ENGINE).SessionStore(key)


def session_middleware() -> Any:
    """The middleware of the settings, as a test would name it."""
    return import_string(settings.MIDDLEWARE[0])


def made_by_hand(user: Any) -> Any:
    """A session of a user, as the recipes for Selenium and Playwright make it."""
    session = session_store()
    session[SESSION_KEY] = user.pk  # an integer, as the recipes have it
    session[BACKEND_SESSION_KEY] = BACKEND
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return session


class ClientTests(TestCase):
    reader: User
    editor: User

    @classmethod
    def setUpTestData(cls) -> None:
        cls.reader = User.objects.create_user("reader", "reader@example.org", "secret")
        cls.editor = User.objects.create_superuser("editor", "editor@example.org", "secret")

    def test_a_stranger_reads_three_articles(self) -> None:
        for number in range(3):
            self.assertContains(self.client.get(f"/articles/{number}/"), "Article")
        self.assertEqual(self.client.get("/articles/3/").status_code, 403)
        self.assertEqual(self.client.session["last"], [0, 1, 2])

    def test_a_session_is_prepared_before_the_first_request(self) -> None:
        session = self.client.session
        session["read"] = 3
        session.save()
        self.assertEqual(self.client.get("/articles/1/").status_code, 403)

    def test_a_session_is_prepared_by_update(self) -> None:
        session = self.client.session
        session.update({"read": 2, "last": [7, 8]})
        session.save()
        self.client.get("/articles/9/")
        self.assertEqual(self.client.session["last"], [7, 8, 9])

    def test_a_session_is_changed_after_a_sign_in(self) -> None:
        self.client.force_login(self.reader)
        session = self.client.session
        session["read"] = 40
        session.save()
        self.assertEqual(self.client.get("/").json(), {"read": 40, "reader": "reader"})
        self.assertEqual(self.client.session[SESSION_KEY], str(self.reader.pk))

    def test_a_session_that_is_not_saved_is_not_seen(self) -> None:
        self.client.force_login(self.reader)
        self.client.session["read"] = 40
        self.assertEqual(self.client.get("/").json()["read"], 0)

    def test_the_key_is_that_of_the_cookie(self) -> None:
        self.client.force_login(self.reader)
        cookie = self.client.cookies[settings.SESSION_COOKIE_NAME]
        self.assertEqual(cookie.value, self.client.session.session_key)
        self.assertTrue(session_store().exists(cookie.value))
        self.assertEqual(session_store(cookie.value)[SESSION_KEY], str(self.reader.pk))

    def test_a_cookie_is_taken_to_another_client(self) -> None:
        self.client.force_login(self.reader)
        other = Client()
        other.cookies = self.client.cookies
        self.assertContains(other.get("/subscription/"), "The subscription of reader")

    def test_login_by_credentials_and_logout(self) -> None:
        self.assertTrue(self.client.login(username="reader", password="secret"))
        self.assertContains(self.client.get("/subscription/"), "reader")
        self.client.logout()
        self.assertNotIn(SESSION_KEY, self.client.session)
        self.assertRedirects(
            self.client.get("/subscription/"),
            "/accounts/login/?next=/subscription/",
            fetch_redirect_response=False,
        )

    def test_wrong_password(self) -> None:
        self.assertFalse(self.client.login(username="reader", password="wrong"))
        self.assertNotIn(settings.SESSION_COOKIE_NAME, self.client.cookies)

    def test_login_keeps_what_a_stranger_has_read(self) -> None:
        self.client.get("/articles/1/")
        before = self.client.session.session_key
        self.client.post("/accounts/login/", {"username": "reader", "password": "secret"})
        self.assertNotEqual(self.client.session.session_key, before)
        self.assertEqual(self.client.get("/").json(), {"read": 1, "reader": "reader"})

    def test_another_user_gets_a_new_session(self) -> None:
        self.client.force_login(self.reader)
        self.client.get("/articles/1/")
        self.client.force_login(self.editor)
        self.assertEqual(self.client.get("/").json(), {"read": 0, "reader": "editor"})

    def test_the_same_user_signs_in_twice(self) -> None:
        self.client.force_login(self.reader)
        self.client.get("/articles/1/")
        self.client.force_login(self.reader)
        self.assertEqual(self.client.get("/").json(), {"read": 1, "reader": "reader"})

    def test_logout_by_the_view(self) -> None:
        self.client.force_login(self.reader)
        self.client.post("/accounts/logout/")
        self.assertEqual(self.client.get("/").json()["reader"], "AnonymousUser")

    def test_two_clients_of_one_user(self) -> None:
        clients = Client(), Client()
        for client in clients:
            client.force_login(self.reader)
        clients[0].logout()
        self.assertEqual(clients[0].get("/").json()["reader"], "AnonymousUser")
        self.assertEqual(clients[1].get("/").json()["reader"], "reader")

    def test_a_session_is_deleted(self) -> None:
        self.client.force_login(self.reader)
        self.client.session.delete()
        self.assertEqual(self.client.get("/").json()["reader"], "AnonymousUser")

    def test_a_session_is_flushed(self) -> None:
        self.client.force_login(self.reader)
        session = self.client.session
        session.flush()
        self.assertIsNone(session.session_key)
        self.assertEqual(self.client.get("/subscription/").status_code, 302)

    def test_a_new_password_ends_the_session(self) -> None:
        self.client.force_login(self.reader)
        self.reader.set_password("another")
        self.reader.save()
        response = self.client.get("/subscription/")
        self.assertRedirects(
            response, "/accounts/login/?next=/subscription/", fetch_redirect_response=False
        )

    def test_the_form_for_a_new_password_keeps_the_session(self) -> None:
        self.client.force_login(self.reader)
        form = {
            "old_password": "secret",
            "new_password1": "n3w-secret",
            "new_password2": "n3w-secret",
        }
        self.client.post("/accounts/password_change/", form)
        self.assertContains(self.client.get("/subscription/"), "reader")

    def test_a_reader_becomes_an_editor(self) -> None:
        self.client.force_login(self.reader)
        self.reader.is_staff = self.reader.is_superuser = True
        self.reader.save()
        self.assertEqual(self.client.get("/admin/").status_code, 200)

    def test_a_reader_gets_a_permission(self) -> None:
        self.client.force_login(self.reader)
        self.assertEqual(self.client.get("/newsroom/").status_code, 403)
        self.reader.user_permissions.add(Permission.objects.get(codename="change_user"))
        self.assertEqual(self.client.get("/newsroom/").status_code, 200)

    def test_a_reader_is_disabled(self) -> None:
        self.client.force_login(self.reader)
        self.reader.is_active = False
        self.reader.save()
        self.assertEqual(self.client.get("/").json()["reader"], "AnonymousUser")

    def test_a_reader_is_deleted(self) -> None:
        reader = User.objects.create_user("guest")
        self.client.force_login(reader)
        reader.delete()
        self.assertEqual(self.client.get("/").json()["reader"], "AnonymousUser")

    def test_messages(self) -> None:
        self.client.force_login(self.reader)
        response = self.client.get("/subscription/")
        said = [str(message) for message in get_messages(response.wsgi_request)]
        self.assertEqual(said, ["Welcome back"])

    def test_the_admin(self) -> None:
        self.client.force_login(self.editor)
        self.assertContains(self.client.get("/admin/auth/user/"), "reader@example.org")
        url = f"/admin/auth/user/{self.reader.pk}/delete/"
        self.client.post(url, {"post": "yes"})
        self.assertFalse(User.objects.filter(username="reader").exists())

    def test_queries(self) -> None:
        self.client.force_login(self.reader)
        with self.assertNumQueries(2 if "db" in settings.SESSION_ENGINE else 1):
            self.client.get("/")

    def test_stay_signed_in_for_a_year(self) -> None:
        self.client.force_login(self.reader)
        cookie = self.client.get("/remember/").cookies[settings.SESSION_COOKIE_NAME]
        self.assertEqual(cookie["max-age"], 365 * 24 * 60 * 60)
        self.assertEqual(self.client.session.get_expiry_age(), 365 * 24 * 60 * 60)

    @tag("clock")  # Redis has a clock of its own, whatever the engine
    def test_a_session_expires(self) -> None:
        self.client.force_login(self.reader)
        session = self.client.session
        session.set_expiry(60)
        session.save()
        with time_machine.travel(timezone.now() + timedelta(seconds=61)):
            self.assertEqual(self.client.get("/").json()["reader"], "AnonymousUser")

    def test_a_test_cookie(self) -> None:
        session = self.client.session
        session.set_test_cookie()
        session.save()
        self.assertTrue(self.client.session.test_cookie_worked())

    def test_the_users_of_all_sessions(self) -> None:
        """A cookie that no one has given out is a stranger's."""
        self.client.cookies[settings.SESSION_COOKIE_NAME] = "0" * 32
        self.assertEqual(self.client.get("/").json()["reader"], "AnonymousUser")

    @override_settings(SESSION_COOKIE_NAME="paper", SESSION_COOKIE_AGE=3600)
    def test_another_cookie(self) -> None:
        self.client.force_login(self.reader)
        self.assertEqual(self.client.get("/articles/1/").cookies["paper"]["max-age"], 3600)
        self.assertEqual(self.client.get("/").json(), {"read": 1, "reader": "reader"})

    @override_settings(SESSION_EXPIRE_AT_BROWSER_CLOSE=True)
    def test_until_the_browser_is_closed(self) -> None:
        response = self.client.get("/articles/1/")
        self.assertEqual(response.cookies[settings.SESSION_COOKIE_NAME]["max-age"], "")

    @override_settings(SESSION_SAVE_EVERY_REQUEST=True)
    def test_saved_with_every_request(self) -> None:
        self.client.force_login(self.reader)
        self.assertIn(settings.SESSION_COOKIE_NAME, self.client.get("/").cookies)

    @override_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies")
    def test_sessions_in_cookies(self) -> None:
        self.client.force_login(self.reader)
        self.client.get("/articles/1/")
        self.assertEqual(self.client.get("/").json(), {"read": 1, "reader": "reader"})

    @override_settings(SESSION_ENGINE="django.contrib.sessions.backends.cache")
    def test_sessions_in_the_cache(self) -> None:
        self.client.force_login(self.reader)
        self.client.get("/articles/1/")
        self.assertEqual(self.client.get("/").json(), {"read": 1, "reader": "reader"})

    @override_settings(SESSION_ENGINE="django.contrib.sessions.backends.db")
    def test_sessions_in_the_database(self) -> None:
        self.client.post("/accounts/login/", {"username": "reader", "password": "secret"})
        self.assertContains(self.client.get("/subscription/"), "reader")
        self.client.post("/accounts/logout/")
        self.assertEqual(self.client.get("/").json()["reader"], "AnonymousUser")

    @modify_settings(MIDDLEWARE={"remove": ["django.middleware.csrf.CsrfViewMiddleware"]})
    def test_without_a_middleware(self) -> None:
        self.client.force_login(self.reader)
        self.assertContains(self.client.get("/subscription/"), "reader")

    async def test_async_client(self) -> None:
        await self.async_client.aforce_login(self.reader)
        for visits in 1, 2:
            response = await self.async_client.get("/async/")
            self.assertEqual(response.json(), {"visits": visits, "reader": "reader"})
        session = await self.async_client.asession()
        self.assertEqual(await session.aget("visits"), 2)
        await self.async_client.alogout()
        response = await self.async_client.get("/async/")
        self.assertEqual(response.json(), {"visits": 1, "reader": "AnonymousUser"})

    async def test_async_session_prepared(self) -> None:
        client = AsyncClient()
        session = await client.asession()
        await session.aset("visits", 10)
        await session.asave()
        self.assertEqual((await client.get("/async/")).json()["visits"], 11)


class FactoryTests(TestCase):
    reader: User

    def setUp(self) -> None:
        self.reader = User.objects.create_user("reader", password="secret")
        self.factory = RequestFactory()

    def request(self, middleware: Any) -> Any:
        request = self.factory.get("/")
        middleware(lambda request: HttpResponse()).process_request(request)
        request.session.save()
        return request

    def test_a_session_by_the_middleware(self) -> None:
        for middleware in session_middleware(), SessionMiddleware:
            with self.subTest(middleware=middleware):
                request = self.request(middleware)
                request.user = AnonymousUser()
                article(request, 1)
                self.assertEqual(request.session["read"], 1)
                self.assertTrue(request.session.modified)

    def test_login_and_logout(self) -> None:
        for middleware in session_middleware(), SessionMiddleware:
            with self.subTest(middleware=middleware):
                request = self.request(middleware)
                login(request, self.reader, backend=BACKEND)
                self.assertEqual(get_user(request), self.reader)
                logout(request)
                self.assertEqual(get_user(request), AnonymousUser())

    def test_a_whole_middleware(self) -> None:
        def view(request: Any) -> HttpResponse:
            request.session["read"] = 3
            return HttpResponse()

        response = session_middleware()(view)(self.factory.get("/"))
        key = response.cookies[settings.SESSION_COOKIE_NAME].value
        self.assertEqual(session_store(key)["read"], 3)

    def test_a_dictionary_as_session(self) -> None:
        request: Any = self.factory.get("/articles/1/")
        request.session = mock.MagicMock(**{"get.return_value": 1})
        request.user = AnonymousUser()
        article(request, 1)
        request.session = {"read": 2}
        self.assertJSONEqual(front_page(request).content, {"read": 2, "reader": "AnonymousUser"})

    def test_a_session_of_the_client(self) -> None:
        request: Any = self.factory.get("/")
        request.session = self.client.session
        request.user = self.reader
        request._messages = FallbackStorage(request)
        article(request, 1)
        request.session.save()
        self.assertEqual(self.client.get("/").json()["read"], 1)

    async def test_async_factory(self) -> None:
        request = AsyncRequestFactory().get("/")
        request.session = session_store()
        await request.session.aset("visits", 1)
        await request.session.asave()
        self.assertEqual(await session_store(request.session.session_key).aget("visits"), 1)

    def test_a_store_without_a_request(self) -> None:
        session = session_store()
        session["read"] = 1
        session.create()
        session["read"] = 2
        session.save()
        again = session_store(session.session_key)
        self.assertEqual((again["read"], dict(again.items())), (2, {"read": 2}))
        again.cycle_key()
        self.assertFalse(session_store().exists(session.session_key))
        again.clear()
        again.save()
        self.assertEqual(list(session_store(again.session_key).keys()), [])

    def test_clear_expired(self) -> None:
        session_store().clear_expired()

    def test_sign_in_by_hand_in_a_view(self) -> None:
        def view(request: Any) -> HttpResponse:
            for key, value in made_by_hand(self.reader).items():
                request.session[key] = value
            return HttpResponse()

        response = session_middleware()(view)(self.factory.get("/"))
        self.client.cookies[settings.SESSION_COOKIE_NAME] = response.cookies[
            settings.SESSION_COOKIE_NAME
        ].value
        self.assertEqual(self.client.get("/").json()["reader"], "reader")


class LiveTests(LiveServerTestCase):
    """As with Selenium: a browser that is given a cookie."""

    def get(self, path: str, key: str | None) -> tuple[int, bytes]:
        host, port = self.server_thread.host, self.server_thread.port
        connection = http.client.HTTPConnection(host, port)
        self.addCleanup(connection.close)
        cookie = {"Cookie": f"{settings.SESSION_COOKIE_NAME}={key}"} if key else {}
        connection.request("GET", path, headers=cookie)
        response = connection.getresponse()
        return response.status, response.read()

    def test_a_session_made_by_hand(self) -> None:
        session = made_by_hand(User.objects.create_user("reader"))
        for _ in range(2):
            answer = self.get("/subscription/", session.session_key)
            self.assertEqual(answer, (200, b"The subscription of reader"))

    def test_a_session_of_the_test_client(self) -> None:
        self.client.force_login(User.objects.create_user("reader"))
        key = self.client.cookies[settings.SESSION_COOKIE_NAME].value
        self.assertEqual(self.get("/subscription/", key)[0], 200)

    def test_what_the_browser_did_is_seen_by_the_test(self) -> None:
        session = made_by_hand(User.objects.create_user("reader"))
        self.get("/articles/5/", session.session_key)
        self.assertEqual(session_store(session.session_key)["last"], [5])

    def test_a_stranger(self) -> None:
        self.assertEqual(self.get("/subscription/", None)[0], 302)


class TransactionTests(TransactionTestCase):
    def test_a_session_in_an_empty_database(self) -> None:
        for _ in range(2):  # all tables are emptied between the two tests, and within each
            self.client.force_login(User.objects.create_user("reader"))
            self.assertEqual(self.client.get("/").json()["reader"], "reader")
            User.objects.all().delete()
            self.client = Client()

    test_once_more = test_a_session_in_an_empty_database


@override_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies")
class SimpleTests(SimpleTestCase):
    """Tests that must not ask the database."""

    def test_a_page_for_strangers(self) -> None:
        self.assertEqual(self.client.get("/").json(), {"read": 0, "reader": "AnonymousUser"})
