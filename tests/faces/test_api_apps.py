"""Apps and the JSON API: they sign in by it, and have their session key in a header."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.urls import path
from ninja import NinjaAPI
from ninja.security import django_auth

from django_sessionkit.api.throttling import PerAddress
from django_sessionkit.models import EndReason, UserSession
from tests.browsers import BROWSERS
from tests.people import is_in, sign_in
from tests.policies import IDLE
from tests.programs import call, problem
from tests.store import HOUR, MINUTE, later
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

CREDENTIALS = {"username": "alice", "password": "secret"}
PHONE = {"name": "Shop", "version": "2.3.1", "system": "Android", "model": "Pixel 8"}


ninja = NinjaAPI(auth=django_auth, urls_namespace="test_api_apps")


@ninja.get("who")
def who(request: Any) -> str:
    return str(request.user)


@ninja.post("who")
def who_writes(request: Any) -> str:
    return str(request.user)


urlpatterns = [*site, path("ninja/", ninja.urls)]


@pytest.fixture(autouse=True)
def nobody_has_tried() -> None:
    cache.clear()


@pytest.fixture(params=BROWSERS)
def client(request: pytest.FixtureRequest) -> Any:
    """What talks to either handler, and to which nobody may send a cookie."""
    return BROWSERS[request.param](raise_request_exception=False, enforce_csrf_checks=True)


@pytest.fixture
def use(client: Any) -> Callable[..., Any]:
    """A function that sends a request with a session key."""

    def use(key: str, method: str, path: str, data: Any = None) -> Any:
        answer = call(client, method, path, data, authorization=f"Bearer {key}")
        assert not client.cookies
        return answer

    return use


def enter(client: Any, **sent: Any) -> Any:
    return call(client, "POST", "sign-in/", {**CREDENTIALS, **sent})


def test_an_app_signs_in_and_sees_itself(client: Any, use: Callable[..., Any], alice: User):
    answer = enter(client, app=PHONE)
    said = answer.json()
    assert (answer.status_code, said["locked"]) == (200, None)
    assert said["key"].startswith("sk_")
    assert "no-store" in answer["Cache-Control"]
    current = use(said["key"], "GET", "sessions/current/").json()
    assert (current["name"], current["transport"]) == ("Shop on Android", "header")
    assert (current["details"], current["csrf_token"]) == ("Shop 2.3.1, Pixel 8", None)

    again = enter(client, app={**PHONE, "device": said["device"]}).json()
    browsers = UserSession.objects.values_list("browser", flat=True)
    assert len(browsers) == 2
    assert len(set(browsers)) == 1  # one device
    assert use(again["key"], "DELETE", "sessions/current/").status_code == 204
    assert use(again["key"], "GET", "sessions/").status_code == 401
    assert use(said["key"], "GET", "sessions/").status_code == 200


def test_an_app_needs_no_csrf_token_and_gets_its_new_key(
    client: Any, use: Callable[..., Any], alice: User
):
    laptop = sign_in(alice)
    key = enter(client).json()["key"]
    with later(2 * HOUR):
        answer = use(key, "POST", "sessions/end-others/")
        problem(answer, 401, "reauthentication_required")
        assert answer["WWW-Authenticate"].startswith("Bearer error=")
        answer = use(key, "POST", "reauthenticate/", {"password": "secret"})
        assert answer.status_code == 204
        new = answer["Session-Key"]
        assert new.startswith("sk_")
        assert new != key
        assert use(new, "POST", "sessions/end-others/").json() == {"ended": 1}
        assert not is_in(laptop)
        assert use(key, "GET", "sessions/").status_code == 401


def test_an_app_is_told_why_its_session_has_ended(
    client: Any, use: Callable[..., Any], alice: User
):
    key = enter(client).json()["key"]
    UserSession.objects.revoke(EndReason.REVOKED_BY_STAFF)
    answer = use(key, "GET", "sessions/")
    assert problem(answer, 401, "ended")["reason"] == "revoked_by_staff"


def test_an_app_unlocks_its_session(
    client: Any, use: Callable[..., Any], alice: User, policy: Callable[..., None]
):
    policy(**IDLE)
    key = enter(client).json()["key"]
    with later(11 * MINUTE):
        assert problem(use(key, "GET", "sessions/"), 401, "locked")["reason"] == "idle"
        answer = use(key, "POST", "reauthenticate/", {"password": "secret"})
        assert answer.status_code == 204
        assert use(answer["Session-Key"], "GET", "sessions/").status_code == 200


def test_an_app_makes_room(
    client: Any, use: Callable[..., Any], alice: User, policy: Callable[..., None]
):
    policy(limit=1, on_limit="ask")
    laptop = sign_in(alice)
    said = enter(client).json()
    assert said["locked"] == "limit"
    (other,) = use(said["key"], "GET", "limit/").json()["results"]
    answer = use(said["key"], "POST", "limit/", {"sessions": [other["id"]]})
    assert answer.status_code == 204
    assert use(answer["Session-Key"], "GET", "sessions/").status_code == 200
    assert not is_in(laptop)


def test_an_app_that_is_one_too_many_is_refused(
    client: Any, alice: User, policy: Callable[..., None]
):
    policy(limit=1, on_limit="refuse")
    laptop = sign_in(alice)
    said = problem(enter(client), 403, "limit")
    assert said["detail"].startswith("You are already signed in on 1 device")
    assert is_in(laptop)


@pytest.mark.parametrize(
    "sent", [{"password": "guess"}, {"username": "nobody"}, {"password": "se\0cret"}]
)
def test_another_password_signs_nobody_in(client: Any, alice: User, sent: Any):
    said = problem(enter(client, **sent), 403, "wrong_password")
    assert said == {"detail": "That is not the user name and password of an account."}
    assert not UserSession.objects.exists()


def test_who_guesses_has_to_wait(client: Any, alice: User, bob: User):
    for name in ("alice", "Alice"):
        for _ in range(5):
            enter(client, username=name, password="guess")
    problem(enter(client), 429, "throttled")
    problem(enter(client, username="\uff21lice "), 429, "throttled")
    assert enter(client, username="bob").status_code == 200


@pytest.mark.parametrize("typed", ["anaïs", "anai\u0308s", " anaïs ", "\uff41naïs"])
def test_a_name_is_read_as_by_the_sign_in_form(client: Any, alice: User, typed: str):
    User.objects.create_user("anaïs", password="secret")
    assert enter(client, username=typed).status_code == 200


def test_a_long_name_is_no_name_of_a_user(client: Any, alice: User):
    problem(enter(client, username="\ufb01" * 5000), 403, "wrong_password")


@pytest.mark.parametrize(
    ("sent", "pointer"),
    [
        ({"username": ""}, "#/username"),
        ({"username": 5}, "#/username"),
        ({"username": "alice\0"}, "#/username"),
        ({"username": "\ud800"}, "#/username"),
        ({"password": 5}, "#/password"),
        ({"app": "Shop"}, "#/app"),
        ({"app": {"name": 5}}, "#/app/name"),
    ],
)
def test_what_is_no_sign_in_is_a_problem_with_its_place(
    client: Any, alice: User, sent: Any, pointer: str
):
    (error,) = problem(enter(client, **sent), 400, "invalid")["errors"]
    assert error["pointer"] == pointer


def test_a_list_is_no_sign_in(client: Any, alice: User):
    problem(call(client, "POST", "sign-in/", []), 400, "invalid")


def test_a_browser_keeps_its_own_session(alice: User, bob: User):
    laptop = sign_in(bob)
    assert enter(laptop).status_code == 200
    assert is_in(laptop, bob)


def test_django_ninja_knows_an_app_by_its_own_class_for_sessions(
    client: Any, use: Callable[..., Any], alice: User
):
    key = enter(client).json()["key"]
    assert use(key, "GET", "/ninja/who").json() == "alice"
    assert use(key, "POST", "/ninja/who").json() == "alice"
    UserSession.objects.revoke()
    answer = use(key, "POST", "/ninja/who")
    assert (answer.status_code, answer.headers["Session-Ended"]) == (401, "revoked")


def test_who_comes_from_nowhere_keeps_nobody_out(
    alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(PerAddress, "limit", 1)
    behind_a_socket = Client(REMOTE_ADDR="")  # of a proxy that the site does not count
    for _ in range(2):
        enter(behind_a_socket, username="nobody", password="guess")
    assert enter(behind_a_socket, username="bob").status_code == 200
    elsewhere = Client(REMOTE_ADDR="192.0.2.1")
    assert enter(elsewhere).status_code == 200
    problem(enter(elsewhere), 429, "throttled")
