"""
The JSON API asks for a recent proof of identity, for a password to unlock a session, and for room.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_login_failed
from django.core.cache import cache
from django.core.signals import got_request_exception
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path
from django.views.debug import ExceptionReporter

from django_sessionkit import limits
from django_sessionkit.models import EndReason, UserSession
from tests import store
from tests.faces.test_paging import give_devices
from tests.people import (
    CHROME,
    FIREFOX,
    IPHONE,
    handle,
    is_in,
    key_of,
    post_sign_in,
    sign_in,
)
from tests.policies import IDLE
from tests.programs import API, call, problem
from tests.store import HOUR, MINUTE, later, take_down
from tests.urls import urlpatterns as site

pytestmark = pytest.mark.django_db

# What somebody types.
TYPED = "correct horse"
HERE = "/api/v1/reauthenticate/"
CHALLENGE = (
    'Bearer error="insufficient_user_authentication", '
    'error_description="More recent authentication is required", max_age="{}"'
)

# A site that has the API, and none of the pages.
urlpatterns = [
    *(each for each in site if getattr(each, "app_name", "") != "django_sessionkit"),
    path("prove/", lambda request: HttpResponse("a key?"), name="prove"),
]


@pytest.fixture(autouse=True)
def nobody_has_tried(settings: Any) -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def prove(browser: Any, password: Any = "secret", **more: Any) -> Any:
    return call(browser, "POST", "reauthenticate/", {"password": password}, **more)


# A recent proof.


def test_to_end_others_takes_a_recent_proof(signed_in: Callable[..., Any]):
    laptop, phone = signed_in(), signed_in(**{"user-agent": IPHONE})
    with later(2 * HOUR):
        key = key_of(laptop)
        for method, where in (
            ("DELETE", f"sessions/{handle(phone)}/"),
            ("POST", "sessions/end-others/"),
        ):
            answer = call(laptop, method, where)
            said = problem(answer, 401, "reauthentication_required")
            assert said == {
                "detail": "Please confirm that it is you.",
                "url": HERE,
                "max_age": 3600,
            }
            assert answer["WWW-Authenticate"] == CHALLENGE.format(3600)
        assert is_in(phone)
        assert prove(laptop).status_code == 204
        assert key_of(laptop) != key
        assert call(laptop, "DELETE", f"sessions/{handle(phone)}/").status_code == 204
        assert not is_in(phone)
        assert is_in(laptop)


def test_the_age_is_that_of_the_policy(alice: User, policy: Callable[..., None]):
    policy(recent=60)
    laptop = sign_in(alice)
    with later(61):
        answer = call(laptop, "POST", "sessions/end-others/")
        assert problem(answer, 401, "reauthentication_required")["max_age"] == 60
        assert answer["WWW-Authenticate"] == CHALLENGE.format(60)


@pytest.mark.parametrize("password", ["wrong", "secret ", "se\0cret", " "])
def test_another_password_proves_nothing(signed_in: Callable[..., Any], password: str):
    laptop, failed = signed_in(), []

    def heard(**arguments: Any) -> None:
        failed.append(arguments)

    user_login_failed.connect(heard)
    try:
        with later(2 * HOUR):
            said = problem(prove(laptop, password), 403, "wrong_password")
            assert call(laptop, "POST", "sessions/end-others/").status_code == 401
    finally:
        user_login_failed.disconnect(heard)
    if "\0" not in password:
        assert said == {"detail": "That is not the password of this account."}
        assert [each["request"].path for each in failed] == [HERE]  # who guards the sign-in hears


@pytest.mark.parametrize(
    ("sent", "code"),
    [({}, "required"), ({"password": ""}, "blank"), ({"password": 5}, "invalid")],
)
def test_what_is_no_password_is_a_problem_with_its_place(laptop: Client, sent: Any, code: str):
    answer = call(laptop, "POST", "reauthenticate/", sent)
    (error,) = problem(answer, 400, "invalid")["errors"]
    assert (error["pointer"], error["code"]) == ("#/password", code)


def test_the_hash_that_the_proof_has_upgraded_is_that_of_the_session(
    alice: User, laptop: Client, settings: Any
):
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.PBKDF2PasswordHasher",
        *settings.PASSWORD_HASHERS,
    ]
    assert prove(laptop).status_code == 204
    alice.refresh_from_db()
    assert alice.password.startswith("pbkdf2")
    assert is_in(laptop)


class Broken(BaseBackend):
    """An authentication backend of a site, with a fault."""

    def authenticate(self, request: Any, **credentials: Any) -> None:
        raise RuntimeError("the directory is down")


def test_no_error_report_has_the_password(laptop: Client, settings: Any):
    settings.AUTHENTICATION_BACKENDS = [*settings.AUTHENTICATION_BACKENDS, f"{__name__}.Broken"]
    laptop.raise_request_exception = False
    reports: list[str] = []

    def report(request: HttpRequest, **kwargs: Any) -> None:
        reporter = ExceptionReporter(request, *sys.exc_info())
        reports.append(reporter.get_traceback_html() + reporter.get_traceback_text())

    got_request_exception.connect(report)
    try:
        assert prove(laptop, TYPED).status_code == 500
    finally:
        got_request_exception.disconnect(report)
    (text,) = reports
    assert "the directory is down" in text
    assert TYPED not in text


# A proof that is given elsewhere.


@override_settings(ROOT_URLCONF=__name__, SESSIONKIT_REAUTHENTICATION_URL="prove")
def test_a_site_with_a_page_of_its_own_for_a_proof(alice: User):
    laptop = sign_in(alice)
    said = problem(prove(laptop), 403, "reauthentication_elsewhere")
    assert said["url"] == "/prove/"
    with later(2 * HOUR):
        answer = call(laptop, "POST", "sessions/end-others/")
        assert problem(answer, 401, "reauthentication_required")["url"] == "/prove/"


def test_a_user_without_a_password_signs_in_again(alice: User, laptop: Client):
    User.objects.filter(pk=alice.pk).update(password="!")
    laptop.force_login(User.objects.get())
    assert problem(prove(laptop), 403, "reauthentication_elsewhere")["url"] == "/login/"


@override_settings(LOGIN_URL="/nowhere/")
def test_who_can_prove_it_nowhere_is_refused(alice: User, laptop: Client):
    User.objects.filter(pk=alice.pk).update(password="!")
    laptop.force_login(User.objects.get())
    problem(prove(laptop), 403, "permission_denied")


def test_a_session_of_another_engine_has_no_proofs(alice: User, settings: Any):
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    settings.MIDDLEWARE = [
        name.replace("django_sessionkit.middleware", "django.contrib.sessions.middleware")
        for name in settings.MIDDLEWARE
    ]
    browser = Client()
    browser.force_login(alice)
    assert call(browser, "GET", "sessions/").json()["results"] == []
    problem(call(browser, "GET", "sessions/current/"), 404, "not_found")
    problem(prove(browser), 401, "not_authenticated")
    problem(call(browser, "POST", "sessions/end-others/"), 401, "reauthentication_required")
    assert call(browser, "DELETE", "sessions/current/").status_code == 204


# Passwords that are guessed.


def test_who_guesses_has_to_wait(alice: User, bob: User, clock: store.Clock):
    laptop, phone, other = sign_in(alice), sign_in(alice, IPHONE, "192.0.2.2"), sign_in(bob)
    for _ in range(10):
        problem(prove(laptop, "guess"), 403, "wrong_password")
    # The right one, too; also in another session of this user, and not of others.
    for each in (laptop, phone):
        answer = prove(each)
        problem(answer, 429, "throttled")
    assert prove(other).status_code == 204
    wait = int(answer["Retry-After"])
    assert 0 < wait <= 601
    clock.move(seconds=wait)
    assert prove(laptop).status_code == 204


def test_an_address_tries_the_passwords_of_few(alice: User, db: None, clock: store.Clock):
    users = [User.objects.create_user(f"user{number}", password="secret") for number in range(11)]
    for number, user in enumerate(users):
        # Of an address of IPv6, somebody has a whole network.
        device = sign_in(user, FIREFOX, f"2001:db8::{number:x}")
        for _ in range(10):
            status = prove(device, "guess").status_code
            assert status == (403 if number < 10 else 429)
    assert prove(sign_in(alice, FIREFOX, "2001:db8:1::1")).status_code == 204
    assert prove(sign_in(alice, FIREFOX, "192.0.2.1")).status_code == 204


def test_a_site_that_caches_nothing_has_no_limit(laptop: Client, settings: Any):
    settings.CACHES = {
        **settings.CACHES,
        "default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
    }
    for _ in range(11):
        problem(prove(laptop, "guess"), 403, "wrong_password")


# Locked sessions.


@pytest.fixture
def locked(signed_in: Callable[..., Any], policy: Callable[..., None]) -> Iterator[Any]:
    """A browser whose session is locked, because nobody has used it for a while."""
    policy(**IDLE)
    browser = signed_in(**{"user-agent": FIREFOX})
    with later(11 * MINUTE):
        yield browser


def test_a_locked_session_says_so_and_the_password_opens_it(locked: Any):
    gets = [("GET", where) for where in ("sessions/", "sessions/current/", "limit/")]
    for method, where in (*gets, ("POST", "limit/")):
        answer = call(locked, method, where, sec_fetch_mode="navigate")
        said = problem(answer, 401, "locked")
        assert (said["reason"], said["url"]) == ("idle", HERE)
        assert said["detail"] == "This session is locked. Please confirm it is you."
        assert answer["Session-Locked"] == "idle"
    key = key_of(locked)
    problem(prove(locked, "wrong"), 403, "wrong_password")
    assert prove(locked).status_code == 204
    assert key_of(locked) != key
    assert call(locked, "GET", "sessions/").status_code == 200


def test_who_has_locked_a_session_may_sign_out(locked: Any):
    assert call(locked, "DELETE", "sessions/current/").status_code == 204
    assert UserSession.objects.get().end_reason == EndReason.LOGOUT
    problem(call(locked, "GET", "sessions/"), 401, "not_authenticated")


def test_a_copy_of_a_locked_session_is_ended_and_not_asked(
    alice: User, policy: Callable[..., None]
):
    policy(**IDLE)
    laptop = sign_in(alice)
    thief = Client(headers={"user-agent": IPHONE})
    thief.cookies["sessionid"] = key_of(laptop)
    with later(11 * MINUTE):
        answer = prove(thief)
        said = problem(answer, 401, "ended")
        assert answer["Session-Ended"] == said["reason"] == "idle"
        assert UserSession.objects.get().end_reason == EndReason.IDLE
        problem(call(laptop, "GET", "sessions/"), 401, "ended")


def test_a_user_who_is_gone_proves_nothing(locked: Any):
    User.objects.all()._raw_delete("default")
    assert prove(locked).status_code == 401


def test_nobody_opens_a_locked_session_by_a_forged_request(
    alice: User, policy: Callable[..., None]
):
    policy(**IDLE)
    laptop = sign_in(alice)
    with later(11 * MINUTE):
        problem(prove(laptop, token=False), 403, "csrf_failed")
        problem(call(laptop, "DELETE", "sessions/current/", token=False), 403, "csrf_failed")
        assert prove(laptop).status_code == 204


def test_a_session_that_ends_while_its_user_proves_who_they_are(
    locked: Any, monkeypatch: pytest.MonkeyPatch
):
    take_down(monkeypatch, "move", "replace")
    answer = prove(locked)
    problem(answer, 503, "store_unavailable")
    assert answer["Retry-After"] == "5"


# Room for one more session.


@pytest.fixture
def tablet(signed_in: Callable[..., Any], policy: Callable[..., None]) -> Any:
    """One too many, beside a laptop and a phone."""
    policy(limit=2, on_limit="ask")
    signed_in(**{"user-agent": FIREFOX})
    signed_in(**{"user-agent": IPHONE})
    return signed_in(**{"user-agent": CHROME})


def row_with(user_agent: str) -> UserSession:
    return UserSession.objects.get(user_agent=user_agent)


def test_who_has_one_session_too_many_chooses_which_is_to_go(tablet: Any):
    answer = call(tablet, "GET", "sessions/")
    said = problem(answer, 401, "locked")
    assert (said["reason"], said["url"]) == ("limit", "/api/v1/limit/")
    problem(prove(tablet), 401, "locked")  # a password makes no room
    choice = call(tablet, "GET", "limit/").json()
    assert (choice["limit"], choice["needed"], choice["other_count"]) == (2, 1, 2)
    assert [each["name"] for each in choice["results"]] == ["Safari on iOS", "Firefox on Linux"]
    key = key_of(tablet)
    phone, laptop = (each["id"] for each in choice["results"])
    assert call(tablet, "POST", "limit/", {"sessions": [phone]}).status_code == 204
    assert key_of(tablet) != key
    ended = row_with(IPHONE)
    assert (ended.end_reason, ended.ended_from) == (EndReason.LIMIT, handle(tablet))
    assert [each["id"] for each in call(tablet, "GET", "sessions/").json()["results"]] == [
        str(handle(tablet)),
        laptop,
    ]


def test_what_is_chosen_has_to_be_enough(tablet: Any, bob: User):
    theirs = handle(sign_in(bob))
    none: list[Any] = [{}, {"sessions": []}, {"sessions": [str(theirs)]}, {"all": False}]
    for sent in none:
        said = problem(call(tablet, "POST", "limit/", sent), 409, "choose_more")
        assert (said["needed"], said["detail"]) == (1, "Choose at least one device.")
    assert not UserSession.objects.ended().exists()
    assert call(tablet, "POST", "limit/", {"all": True}).status_code == 204
    assert UserSession.objects.ended().count() == 2


@pytest.mark.parametrize(
    ("sent", "pointer"),
    [
        ({"sessions": ["1"]}, "#/sessions/0"),
        ({"sessions": [7]}, "#/sessions/0"),
        ({"sessions": "all"}, "#/sessions"),
        ({"all": "yes"}, "#/all"),
    ],
)
def test_a_choice_that_is_none_is_a_problem_with_its_place(tablet: Any, sent: Any, pointer: str):
    (error,) = problem(call(tablet, "POST", "limit/", sent), 400, "invalid")["errors"]
    assert error["pointer"] == pointer


def test_somebody_else_may_be_faster(tablet: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "_admit", lambda handle, limit: False)
    said = problem(call(tablet, "POST", "limit/", {"all": True}), 409, "choose_more")
    assert said["detail"] == "These devices were signed out. Please choose more."


def test_whose_sign_in_has_ended_meanwhile_has_nothing_to_choose(tablet: Any):
    UserSession.objects.filter(user_agent=CHROME)._mark([row_with(CHROME).pk], EndReason.REVOKED)
    for method in ("GET", "POST"):
        assert call(tablet, method, "limit/", {}).status_code == 401


def test_who_has_room_has_nothing_to_choose(laptop: Client):
    problem(call(laptop, "GET", "limit/"), 404, "nothing_to_choose")
    problem(call(laptop, "POST", "limit/", {"all": True}), 404, "nothing_to_choose")


def test_a_long_choice_has_pages(alice: User, policy: Callable[..., None]):
    policy(limit=2, on_limit="ask")
    others = give_devices(alice, 30)
    device = sign_in(alice)
    first = call(device, "GET", "limit/").json()
    second = call(device, "GET", first["next"]).json()
    assert (first["needed"], second["needed"]) == (1, 1)
    listed = [each["id"] for page in (first, second) for each in page["results"]]
    assert listed == list(map(str, others))
    sent = {"sessions": [each["id"] for each in second["results"]]}
    answer = call(device, "POST", first["next"], sent)
    problem(answer, 409, "choose_more")  # they have ended, and it takes more
    assert UserSession.objects.ended().count() == 5


# A site without the pages of the kit.


@override_settings(ROOT_URLCONF=__name__, LOGIN_URL="/login/")
def test_a_site_needs_none_of_the_pages(alice: User, policy: Callable[..., None]):
    policy(limit=1, on_limit="ask")
    laptop = Client()
    post_sign_in(laptop)
    phone = Client()
    post_sign_in(phone)
    said = problem(call(phone, "GET", "sessions/"), 401, "locked")
    assert said["url"] == f"{API}limit/"
    assert call(phone, "POST", "limit/", {"all": True}).status_code == 204
    with later(2 * HOUR):
        said = problem(
            call(phone, "POST", "sessions/end-others/"), 401, "reauthentication_required"
        )
        assert said["url"] == HERE
        # A view of the site's, which asks for a proof as well.
        answer = call(phone, "GET", "/pay/")
        assert (answer.status_code, answer.json()["url"]) == (401, "/login/")
        assert prove(phone).status_code == 204
        assert call(phone, "GET", "/pay/").status_code == 200
