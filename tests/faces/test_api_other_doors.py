"""By the API, a session gets a token for other services, and an app opens a web view."""

import importlib.util
import runpy
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import include, path

from django_sessionkit.api import token, urls
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.tokens import issue, verify
from tests.apps import App
from tests.people import handle
from tests.programs import call, problem

pytestmark = pytest.mark.django_db

# A site with the API, and without our pages.
urlpatterns = [
    path("api/", include("django_sessionkit.api.urls")),
    path("api/", include("django_sessionkit.api.sign_in_urls")),
]


@pytest.fixture
def signing_key(settings: Any) -> None:
    settings.SESSIONKIT_SITE_URL = "https://shop.example"
    call_command("tokenkeys", "--make", verbosity=0)


@pytest.fixture
def app(alice: User) -> App:
    app = App()
    answer = call(app, "POST", "sign-in/", {"username": "alice", "password": "secret"})
    app.key = answer.json()["key"]
    return app


def test_a_session_gets_a_token_and_none_once_it_has_ended(signing_key: None, laptop: Client):
    answer = call(laptop, "POST", "token/")
    assert answer.status_code == 200
    assert verify(answer.json()["token"])["sid"] == str(handle(laptop))
    UserSession.objects.revoke(EndReason.REVOKED)
    assert problem(call(laptop, "POST", "token/"), 401, "ended")["reason"] == "revoked"


def test_a_token_takes_the_csrf_token_of_a_browser(signing_key: None, laptop: Client):
    problem(call(laptop, "POST", "token/", token=False), 403, "csrf_failed")
    problem(call(Client(), "POST", "token/"), 401, "not_authenticated")


def test_a_session_that_ends_in_this_moment_gets_no_token(
    signing_key: None, laptop: Client, monkeypatch: pytest.MonkeyPatch
):
    def end(session: Any) -> str:
        UserSession.objects.revoke()
        return issue(session)

    monkeypatch.setattr(token, "issue", end)
    problem(call(laptop, "POST", "token/"), 401, "not_authenticated")


@pytest.mark.parametrize("site", ["", "https://shop.example"])
def test_a_site_without_an_issuer_or_a_key_gives_no_tokens(
    laptop: Client, settings: Any, site: str
):
    settings.SESSIONKIT_SITE_URL = site
    problem(call(laptop, "POST", "token/"), 404, "no_tokens")


def test_an_api_without_pyjwt_has_all_but_tokens(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    patterns = runpy.run_path(urls.__file__)["urlpatterns"]
    assert {each.name for each in patterns} == {each.name for each in urls.urlpatterns} - {"token"}


def test_an_app_opens_a_web_view(app: App):
    authorization = f"Bearer {app.key}"
    answer = call(app, "POST", "hand-over/", {"next": "/whoami/"}, authorization=authorization)
    assert answer.status_code == 200
    web_view = Client()
    opened = web_view.get(answer.json()["url"], follow=True)
    assert (opened.redirect_chain, opened.content) == ([("/whoami/", 302)], b"alice")
    assert Client().get(answer.json()["url"]).status_code == 410


@pytest.mark.site(__name__)
def test_an_app_opens_no_web_view_where_there_are_no_pages(app: App):
    answer = call(app, "POST", "hand-over/", {}, authorization=f"Bearer {app.key}")
    problem(answer, 404, "not_found")


def test_a_browser_opens_no_web_view(laptop: Client):
    problem(call(laptop, "POST", "hand-over/", {}), 403, "not_an_app")
