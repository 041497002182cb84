"""What a page is told of its session in the background, which changes nothing."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import path, reverse

from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.models import EndReason, UserSession
from tests import store
from tests.browsers import SCRIPT, Browser, given, sets_no_cookie, view
from tests.calls import BACKGROUND, CALL, acall, call
from tests.people import (
    CHROME,
    is_still_in,
    is_told,
    key_of,
    only_row,
    post_sign_in,
    row_of,
    same,
    sign_in,
)
from tests.policies import LOCK
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

urlpatterns = [*site, path("call/", call), path("acall/", acall)]

STATUS = "/account/sessions/status/"
# As session.js asks, in a browser that says so.
FETCH = {"accept": "application/json", "sec-fetch-mode": "cors", **BACKGROUND}


def ask(browser: Any, **headers: str) -> dict[str, Any]:
    """Ask as the script does, and return what it is told."""
    answer = browser.get(STATUS, headers={**FETCH, **headers})
    assert answer.status_code == 200
    told: dict[str, Any] = answer.json()
    return told


def stay(browser: Any) -> Any:
    """Press "Stay signed in"."""
    return browser.post(STATUS, headers=SCRIPT)


# A session that goes on.


def test_page_is_told_how_long_its_session_goes_on(signed_in, policy, clock):
    policy(idle=600, absolute=3600)
    browser = signed_in()
    clock.move(seconds=100)
    told = ask(browser)
    assert told.pop("csrf")
    assert told == {
        "state": "active",
        "expires_in": 3500,
        "idle_in": 500,
        "idle_after": 600,
        "every": 60,
        "reason": "idle",
        "detail": "You were signed out because you were inactive for a while.",
        "user": str(User.objects.get().pk),
        "url": "/account/sessions/reauthenticate/",
        "sign_out": f"/account/sessions/{row_of(browser).pk}/end/",
    }


@pytest.mark.parametrize(
    ("rules", "expiry", "idle_in", "expires_in", "reason"),
    [
        ({}, None, store.DAY, None, "expired"),
        ({"absolute": 3600}, None, store.DAY, 3600, "expired"),
        ({"absolute": 3600, "extendable": True}, None, store.DAY, store.DAY, "expired"),
        ({"idle": 600}, None, 600, None, "idle"),
        ({"idle": 600}, 300, 300, None, "expired"),
        ({"idle": 600}, 600, 600, None, "idle"),
        ({"idle": 600}, timedelta(seconds=900), 600, 900, "idle"),
        ({}, timedelta(seconds=900), None, 900, "expired"),
        ({"absolute": 300}, timedelta(seconds=900), None, 300, "expired"),
        (LOCK, None, 600, 3600, "locked"),
        (LOCK, 300, 300, 3600, "expired"),
    ],
)
def test_it_lasts_exactly_as_long_as_the_page_was_told(
    signed_in, policy, clock, settings, rules, expiry, idle_in, expires_in, reason
):
    settings.SESSION_COOKIE_AGE = store.DAY
    policy(**rules)
    browser = signed_in()
    if expiry:
        CALL[:] = "set_expiry", expiry
        browser.get(view(browser, "call"))
    told = ask(browser)
    assert (told["idle_in"], told["expires_in"], told["reason"]) == (idle_in, expires_in, reason)
    clock.move(seconds=min(left for left in (idle_in, expires_in) if left) - 1)
    assert ask(browser)["state"] == "active"
    clock.move(seconds=1)
    assert ask(browser)["state"] == ("locked" if reason == "locked" else "ended")


@pytest.mark.parametrize("headers", [BACKGROUND, {"x-background-request": "0"}])
@pytest.mark.parametrize("csrf_in_session", [False, True])
@pytest.mark.standard("ASVS-7.3.1")
def test_asking_keeps_no_session_alive(
    signed_in, policy, clock, settings, csrf_in_session, headers
):
    settings.CSRF_USE_SESSIONS = csrf_in_session
    policy(idle=600)
    browser = signed_in()
    for left in (500, 400, 300, 200, 100):
        clock.move(seconds=100)
        assert ask(browser, **headers)["idle_in"] == left
    assert only_row().last_seen_at == only_row().started_at
    clock.move(seconds=100)
    assert not is_still_in(browser)


def test_asking_gives_no_new_key_and_staying_does(signed_in, policy, clock):
    policy(idle=600, renew_after=120)
    browser = signed_in()
    clock.move(seconds=300)
    assert sets_no_cookie(browser.get(STATUS, headers=FETCH))
    key = key_of(browser)
    assert given(stay(browser)) != key
    assert ask(browser)["idle_in"] == 600


@pytest.mark.parametrize("rules", [{"idle": 600}, LOCK])
def test_who_presses_stay_signed_in_stays(signed_in, policy, clock, rules):
    policy(**rules)
    browser = signed_in()
    for _ in range(3):
        clock.move(seconds=599)
        answer = stay(browser)
        assert answer.status_code == 204
        assert answer.content == b""
        assert ask(browser)["idle_in"] == 600
    assert is_still_in(browser)


@pytest.mark.parametrize("csrf_in_session", [False, True])
@pytest.mark.parametrize("has_middleware", [False, True])
def test_no_other_site_can_keep_a_session(
    alice, policy, clock, settings, csrf_in_session, has_middleware
):
    settings.CSRF_USE_SESSIONS = csrf_in_session
    policy(idle=600)
    laptop = sign_in(alice)
    if not has_middleware:
        settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "Csrf" not in name]
        laptop = same(laptop)
    clock.move(seconds=500)
    assert laptop.post(STATUS).status_code == 403
    assert laptop.post(STATUS, {"csrfmiddlewaretoken": "x" * 64}).status_code == 403
    if not csrf_in_session:  # to read the token there is to use the session
        assert ask(laptop)["idle_in"] == 100
    token = ask(laptop)["csrf"]
    assert laptop.post(STATUS, {"csrfmiddlewaretoken": token}).status_code == 204
    assert ask(laptop)["idle_in"] == 600


# A session that does not.


def revoke() -> None:
    UserSession.objects.revoke()


def revoke_by_staff() -> None:
    UserSession.objects.revoke(EndReason.REVOKED_BY_STAFF)


@pytest.mark.parametrize("every_request", [False, True])
@pytest.mark.parametrize(
    ("end", "reason", "words"),
    [
        (revoke, "revoked", "You were signed out from another device."),
        (revoke_by_staff, "revoked_by_staff", "by the staff"),
        (None, "idle", "because you were inactive for a while"),
    ],
)
def test_every_tab_is_told_that_it_has_ended_and_the_next_page_still_says_so(
    signed_in, policy, clock, settings, end, reason, words, every_request
):
    settings.SESSION_SAVE_EVERY_REQUEST = every_request
    policy(idle=600)
    browser = signed_in()
    if end:
        end()
    else:
        clock.move(seconds=600)
    for _tab in range(3):
        told = ask(browser)
        assert (told["state"], told["reason"], told["url"]) == ("ended", reason, "/login/")
        assert words in told["detail"]
    for response in (browser.get(STATUS, headers=FETCH), stay(browser)):
        assert sets_no_cookie(response)
        assert not response.cookies.get("messages")
    assert is_told(browser, words.encode())
    assert ask(browser)["state"] == "anonymous"


def test_page_is_told_on_which_device_somebody_has_ended_its_session(alice):
    laptop, phone = sign_in(alice), sign_in(alice, CHROME)
    ended_from = UserSession.objects.filter(pk=row_of(laptop).pk)
    ended_from.revoke()
    ended_from.update(ended_from=row_of(phone).pk)
    assert f"({row_of(phone).name}, just now)" in ask(laptop)["detail"]


def test_asking_marks_no_row(signed_in, policy, clock):
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=600)
    assert ask(browser)["reason"] == "idle"
    assert only_row().ended_at is None


def test_page_hears_no_reason_that_only_a_guess_would_be(signed_in):
    browser = signed_in()
    store.wipe()
    told = ask(browser)
    assert (told["state"], told["reason"], told["detail"]) == ("anonymous", "", "")
    assert only_row().ended_at is None
    assert is_told(browser, b"You were signed out.")


def test_visitors_are_told_that_they_are_strangers(browse, db):
    browser = browse()
    told = ask(browser)
    assert told == {"state": "anonymous", "reason": "", "detail": "", "url": "/login/"}
    assert stay(browser).status_code == 204
    assert not browser.cookies.get("sessionid")


def test_what_a_visitor_has_in_the_session_is_nobodys_sign_in(browse, db):
    browser = browse()
    browser.post(view(browser, "write"), {"cart": "teapot"})
    key = key_of(browser)
    assert ask(browser)["state"] == "anonymous"
    assert key_of(browser) == key


def test_who_has_signed_in_again_is_signed_in(signed_in, bob):
    browser = signed_in()
    UserSession.objects.revoke()
    post_sign_in(browser, "bob")
    told = ask(browser)
    assert (told["state"], told["user"]) == ("active", str(bob.pk))


class Remembered:
    """The middleware of a site that signs somebody in again whose session has ended."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if not request.user.is_authenticated:
            login(request, User.objects.get(), "django.contrib.auth.backends.ModelBackend")
        return self.get_response(request)


def test_who_is_signed_in_again_by_the_site_gets_that_session(laptop, settings):
    UserSession.objects.revoke()
    key = key_of(laptop)
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.Remembered"]
    laptop = same(laptop)
    assert ask(laptop)["state"] == "active"
    assert ask(laptop)["sign_out"] == f"/account/sessions/{row_of(laptop).pk}/end/"
    assert key_of(laptop) != key


def test_locked_page_is_told_where_to_unlock_it(signed_in, policy, clock):
    policy(**LOCK)
    browser = signed_in()
    clock.move(seconds=600)
    assert ask(browser) == {
        "state": "locked",
        "reason": "idle",
        "detail": "This session is locked. Please confirm it is you.",
        "url": "/account/sessions/reauthenticate/",
    }
    assert stay(browser).status_code == 204
    assert ask(browser)["state"] == "locked"
    assert only_row().ended_at is None


def test_who_has_to_make_room_is_told_where(signed_in, policy):
    policy(limit=1, on_limit="ask")
    signed_in()
    told = ask(signed_in())
    assert (told["state"], told["reason"]) == ("locked", "limit")
    assert told["url"] == "/account/sessions/limit/"


# Whatever there is around it.


def test_it_is_never_a_redirect_and_never_in_a_cache(browse, signed_in, settings):
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]
    for browser in (browse(), signed_in()):
        for response in (browser.get(STATUS, headers=FETCH), stay(browser)):
            assert response.status_code in (200, 204)
            assert "no-store" in response.headers["Cache-Control"]
            assert "Cookie" in response.headers["Vary"]
    assert browser.get("/private/").status_code == 200
    assert browse().get("/private/").status_code == 302


def test_only_get_and_post_are_taken(client):
    assert client.head(STATUS).status_code == 200
    assert client.put(STATUS).status_code == 405
    assert client.delete(STATUS).status_code == 405


def test_store_that_is_down_is_no_end(signed_in, monkeypatch):
    browser = signed_in()
    with monkeypatch.context() as patch:
        store.take_down(patch, "read")
        for response in (browser.get(STATUS, headers=FETCH), stay(browser)):
            assert response.status_code == 503
            assert sets_no_cookie(response)
    assert ask(browser)["state"] == "active"


def test_session_that_only_another_server_can_open_is_no_end(signed_in):
    browser = signed_in()
    digest = digest_of(key_of(browser))
    payload = store.payloads()[digest]
    store.tamper(digest, payload[:-1] + bytes([payload[-1] ^ 1]))
    response = browser.get(STATUS, headers=FETCH)
    assert response.status_code == 503
    assert "still signed in" in response.json()["detail"]
    assert sets_no_cookie(response)


@pytest.mark.parametrize("is_due", [False, True])
def test_it_reads_no_more_than_the_session(signed_in, policy, clock, is_due):
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=300 if is_due else 30)
    with CaptureQueriesContext(connection) as of_a_poll:
        browser.get(view(browser, "read"), headers=BACKGROUND)
    with CaptureQueriesContext(connection) as of_the_status:
        ask(browser)
    assert len(of_the_status) == len(of_a_poll) == (0 if store.APART else 1) + is_due


def test_of_an_end_it_reads_one_row_more(signed_in):
    browser = signed_in()
    UserSession.objects.revoke()
    with CaptureQueriesContext(connection) as captured:
        ask(browser)
    rows = [query["sql"] for query in captured if "sessionkit_usersession" in query["sql"]]
    assert len(rows) == 1
    assert not [sql for sql in rows if not sql.startswith("SELECT")]


@pytest.mark.once
@pytest.mark.parametrize(
    ("language", "word"),
    [("de", "abgemeldet"), ("en", "signed out"), ("xx", "signed out"), ("", "signed out")],
)
def test_reason_is_in_the_language_of_the_page_that_asks(laptop, language, word):
    revoke_by_staff()
    told = laptop.get(STATUS, {"language": language}, headers=FETCH).json()
    assert word in told["detail"]


@pytest.mark.once
def test_site_without_a_sign_in_page_has_no_link_to_one(client, settings):
    settings.LOGIN_URL = "/nobody/knows/"
    assert ask(client)["url"] is None


@pytest.mark.once
def test_with_an_engine_of_djangos_nobody_is_signed_out_either(alice, settings):
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.db"
    browser = Browser()
    browser.force_login(alice)
    told = ask(browser)
    assert (told["state"], told["expires_in"], told["idle_in"]) == ("active", None, None)
    assert told["sign_out"] is None
    assert stay(browser).status_code == 204
    browser.logout()
    assert ask(browser)["state"] == "anonymous"


@pytest.mark.once
def test_status_has_a_name():
    assert reverse("django_sessionkit:session_status") == STATUS
