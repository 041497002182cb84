"""A session that is locked for want of activity, and what opens it again."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import UpdateError
from django.db import OperationalError
from django.http import HttpResponse
from django.urls import path

from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, UserSession
from tests import store
from tests.apps import Keeping
from tests.browsers import SCRIPT
from tests.calls import CALL, leads_to_the_lock, prove_and_go_on, use
from tests.calls import urlpatterns as site_with_calls
from tests.interleaving import before
from tests.pages import PROVE
from tests.people import CREDENTIALS, is_still_in, key_of, only_row, told
from tests.policies import LOCK
from tests.store import HOUR, SessionStore

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site(__name__),
    pytest.mark.transports("cookie", "header"),
]


SEEN: list[Any] = []


def look(request):
    """Answers, and tells the test what it has seen of its visitor."""
    SEEN.append((str(request.user), request.session.get("cart"), request.session.locked))
    return HttpResponse("seen")


async def alook(request):
    session = request.session
    SEEN.append((str(await request.auser()), await session.aget("cart"), session.locked))
    return HttpResponse("seen")


def no_route():
    raise OperationalError("no route to host")


def save_all_the_same(request):
    """Goes on after a store that did not answer, as if it had."""
    with suppress(StoreUnavailable):
        request.session.unlock()
    request.session["cart"] = "kettle"
    request.session.save()
    return HttpResponse("done")


urlpatterns = [
    *site_with_calls,
    path("look/", look),
    path("alook/", alook),
    path("save_all_the_same/", save_all_the_same),
]


@pytest.mark.parametrize(("seconds", "open_"), [(599, True), (600, False), (601, False)])
@pytest.mark.standard("ASVS-7.3.1", "NIST-2.2.3", "NIST-SB-8.4")
def test_it_is_locked_after_so_long_without_activity(lockable, clock, seconds, open_):
    assert not only_row().is_locked
    clock.move(seconds=seconds)
    assert only_row().is_locked is not open_
    assert is_still_in(lockable) is open_
    assert only_row().ended_at is None
    assert list(UserSession.objects.active()) == [only_row()]


@pytest.mark.standard("NIST-2.2.3")
def test_a_locked_session_keeps_what_it_holds_and_gives_nothing_away(locked):
    before, key = store.payloads(), key_of(locked)
    SEEN.clear()
    response = locked.get(f"/{locked.a}look/")
    assert response.content == b"seen"
    assert "sessionid" not in response.cookies
    header = "Authorization" if isinstance(locked, Keeping) else "Cookie"
    assert header in response.headers["Vary"]
    response = locked.get(f"/{locked.a}private/?page=2")
    assert leads_to_the_lock(response, f"?next=%2F{locked.a}private%2F%3Fpage%3D2")
    assert header in response.headers["Vary"]
    assert "no-store" in response.headers["Cache-Control"]
    ((name, cart, lock),) = SEEN
    assert (name, cart) == ("AnonymousUser", None)
    assert (lock.reason, lock.handle) == ("idle", only_row().pk)
    assert key not in repr(lock)
    assert (store.payloads(), key_of(locked)) == (before, key)


@pytest.mark.transports("cookie")
def test_the_way_to_the_lock_is_no_longer_than_a_redirect_may_be(locked):
    page = "/forbidden/"
    long = f"{page}?q=" + "&" * 8000
    quoted = page.replace("/", "%2F")
    assert leads_to_the_lock(locked.get(long), f"?next={quoted}")
    assert leads_to_the_lock(locked.post(page, headers={"referer": long}), f"?next={quoted}")
    longer = f"{page}{'x' * 20_000}"
    assert leads_to_the_lock(locked.post(page, headers={"referer": longer}))


def test_a_script_is_told_that_it_is_locked(locked):
    for _ in range(2):
        response = locked.get(f"/{locked.a}look/", headers=SCRIPT)
        assert response.content == b"seen"
        assert response.headers["Session-Locked"] == "idle"
        assert "sessionid" not in response.cookies
        response = locked.get(f"/{locked.a}private/", headers=SCRIPT)
        assert response.status_code == 401
        assert response.headers["Session-Locked"] == "idle"
        assert response.json() == {
            "detail": "This session is locked. Please confirm it is you.",
            "reason": "locked",
            "url": f"{PROVE}?next=%2F{locked.a}private%2F",
        }
        assert "sessionid" not in response.cookies


@pytest.mark.standard("NIST-2.2.3", "NIST-SB-4", "ASVS-7.2.4")
def test_the_password_opens_it_again(locked, clock):
    old, handle = key_of(locked), only_row().pk
    assert prove_and_go_on(locked).headers["Location"] == "/read/"
    assert key_of(locked) != old
    assert locked.get(f"/{locked.a}read/").json() == {"cart": "teapot"}
    assert (only_row().pk, only_row().authenticated_at) == (handle, datetime.now(UTC))
    assert not only_row().is_locked
    clock.move(seconds=599)
    assert is_still_in(locked)
    clock.move(seconds=600)
    assert not is_still_in(locked)
    assert only_row().is_locked
    locked.cookies["sessionid"] = old
    assert locked.get("/whoami/").content == b"AnonymousUser"


def test_to_look_at_a_locked_session_does_not_open_it(locked, clock):
    for _ in range(3):
        assert locked.post(f"/{locked.a}look/").content == b"seen"
        assert leads_to_the_lock(locked.post(f"/{locked.a}private/"))
        clock.move(seconds=100)
    assert only_row().last_seen_at == only_row().started_at


@pytest.mark.parametrize(
    "act",
    [
        *["write", "overwrite", "fail", "save", "create", "cycle_key", "set_expiry"],
        *["clear", "blindly clear"],
    ],
)
def test_nothing_of_what_a_view_does_is_kept_while_it_is_locked(locked, act):
    before = store.payloads()
    act, blindly = act.removeprefix("blindly "), "_blindly" if act.startswith("blindly ") else ""
    if act == "write":
        response = locked.post(f"/{locked.a}write/", {"cart": "kettle"})
    elif act == "overwrite":
        response = locked.post(f"/{locked.a}overwrite/")
    elif act == "fail":
        response = locked.post("/fail/")
    else:
        CALL[:] = (act, 60) if act == "set_expiry" else (act,)
        # To clear() is nothing to wait for: it has no twin.
        a = "" if act == "clear" else locked.a
        response = locked.post(f"/{a}call{blindly}/")
    if act in ("fail", "cycle_key"):  # which keep nothing in any session
        assert response.content == (b"out of order" if act == "fail" else b"done")
        assert "sessionid" not in response.cookies
    else:
        assert leads_to_the_lock(response)
    assert store.payloads() == before
    prove_and_go_on(locked)
    assert locked.get(f"/{locked.a}read/").json() == {"cart": "teapot"}


def test_what_asks_for_the_lock_first_is_told(locked):
    session = SessionStore(key_of(locked))
    assert session.locked.reason == "idle"


def test_a_store_that_fails_while_it_is_locked_takes_no_cookie_away(locked, monkeypatch):
    before(monkeypatch, SessionStore, "read", no_route)
    answer = locked.post("/save_all_the_same/")
    assert answer.status_code == 503
    assert "sessionid" not in answer.cookies
    prove_and_go_on(locked)
    assert locked.get(f"/{locked.a}read/").json() == {"cart": "teapot"}


@pytest.mark.parametrize("full", [False, True])
def test_what_opens_it_first_opens_it(locked, full):
    CALL[:] = ["unlock", full]
    assert locked.post(f"/{locked.a}call_blindly/").content == b"done"
    assert locked.get(f"/{locked.a}read/").json() == {"cart": "teapot"}


@pytest.mark.parametrize("csrf_in_session", [False, True])
def test_a_site_that_saves_every_request_leaves_it_alone_too(locked, settings, csrf_in_session):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    settings.CSRF_USE_SESSIONS = csrf_in_session
    before, key = store.payloads(), key_of(locked)
    assert locked.get("/").content == b"home"
    assert leads_to_the_lock(locked.get("/private/"), "?next=%2Fprivate%2F")
    assert (store.payloads(), key_of(locked)) == (before, key)


@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest.mark.standard("ASVS-7.2.4", "ASVS-7.4.1")
def test_to_sign_in_rather_than_to_unlock_it_ends_it(locked, who):
    User.objects.create_user("bob", password="secret")
    old, handle, key = only_row(), only_row().pk, key_of(locked)
    assert locked.get("/login/").status_code == 200
    assert locked.post("/login/", {**CREDENTIALS, "username": who}).headers["Location"] == "/"
    assert locked.get("/whoami/").content == who.encode()
    assert locked.get(f"/{locked.a}read/").json() == {}
    old.refresh_from_db()
    assert (old.end_reason, old.pk) == (EndReason.LOGOUT, handle)
    assert not SessionStore().exists(key)
    assert UserSession.objects.active().get().user.username == who


def test_a_sign_in_that_fails_leaves_it_locked(locked):
    before = store.payloads()
    response = locked.post("/login/", {**CREDENTIALS, "password": "wrong"})
    assert response.status_code == 200
    assert "sessionid" not in response.cookies
    assert store.payloads() == before


@pytest.mark.parametrize("how", ["/logout/", "flush"])
@pytest.mark.standard("ASVS-7.4.1", "NIST-SB-8.2")
@pytest.mark.transports("cookie")
def test_to_sign_out_of_it_ends_it(locked, how):
    response = locked.post(how) if how == "/logout/" else use(locked, how)
    assert response.cookies["sessionid"]["max-age"] == 0
    assert only_row().end_reason == EndReason.LOGOUT
    assert not store.payloads()


@pytest.mark.standard("ASVS-7.3.2", "NIST-2.2.3", "NIST-REAUTH-2")
def test_the_longest_time_ends_it_all_the_same(locked, clock):
    clock.move(seconds=HOUR - 600 - 1)
    assert leads_to_the_lock(locked.post("/private/"))
    clock.move(seconds=1)
    assert not only_row().is_locked
    assert told(locked) == "expired"
    assert only_row().end_reason == EndReason.EXPIRED


def test_so_does_the_age_of_cookies(signed_in, policy, clock, settings):
    settings.SESSION_COOKIE_AGE = 900
    policy(**LOCK)
    browser = signed_in()
    clock.move(seconds=899)
    assert leads_to_the_lock(browser.post("/private/"))
    clock.move(seconds=1)
    assert told(browser) == "expired"


@pytest.mark.parametrize(("full", "end"), [(False, HOUR), (True, 600 + HOUR)])
@pytest.mark.standard("NIST-2.2.3", "NIST-REAUTH-1", "NIST-REAUTH-3", "ASVS-7.3.2")
def test_a_full_proof_begins_the_longest_time_anew_and_the_password_does_not(
    locked, clock, full, end
):
    use(locked, "unlock", full)
    assert only_row().authenticated_at == datetime.now(UTC)
    for _ in range((end - 600) // 300 - 1):
        clock.move(seconds=300)
        assert locked.get(f"/{locked.a}read/").json() == {"cart": "teapot"}
    clock.move(seconds=299)
    assert is_still_in(locked)
    clock.move(seconds=1)
    assert told(locked) == "expired"


def test_only_a_full_proof_asks_the_policy_again(locked, policy, clock):
    policy(idle=60)
    use(locked, "unlock")
    clock.move(seconds=599)
    assert is_still_in(locked)
    clock.move(seconds=600)
    use(locked, "unlock", True)
    clock.move(seconds=60)
    assert told(locked) == "idle"


@pytest.mark.standard("ASVS-7.4.1", "ASVS-7.4.5")
def test_it_can_be_ended(locked):
    assert UserSession.objects.revoke(EndReason.REVOKED_BY_STAFF) == 1
    assert not only_row().is_locked
    assert not store.payloads()
    assert told(locked) == "revoked_by_staff"


@pytest.mark.parametrize("how", ["revoked", "marked", "lost", "over"])
@pytest.mark.standard("ASVS-7.4.1")
def test_what_is_there_no_more_cannot_be_opened(locked, drive, clock, how):
    session = SessionStore(key_of(locked))
    assert drive(session, "load") == {}
    session = SessionStore(key_of(locked))
    drive(session, "get", "cart")
    assert session.locked
    if how == "revoked":
        UserSession.objects.revoke()
    elif how == "marked":  # and the store has lost the removal
        UserSession.objects.update(ended_at=datetime.now(UTC), end_reason=EndReason.REVOKED)
    elif how == "lost":
        store.wipe()
    else:
        clock.move(hours=1)
    with pytest.raises(UpdateError):
        drive(session, "unlock")
    assert drive(SessionStore(key_of(locked)), "get", "cart") is None


@pytest.mark.standard("ASVS-7.4.1")
def test_who_opens_what_was_ended_is_told_so(locked):
    UserSession.objects.update(ended_at=datetime.now(UTC), end_reason=EndReason.REVOKED)
    CALL[:] = ["unlock"]
    response = locked.get(f"/{locked.a}call/", headers=SCRIPT)
    assert response.json()["reason"] == "revoked"
    assert not store.payloads()


def test_what_is_not_locked_cannot_be_unlocked(lockable, drive):
    session = SessionStore(key_of(lockable))
    with pytest.raises(UpdateError):
        drive(session, "unlock")
    assert drive(session, "get", "cart") == "teapot"


@pytest.mark.standard("NIST-2.2.3")
def test_without_a_request_it_is_locked_as_well(locked, drive):
    """In a shell, on a web socket."""
    session = SessionStore(key_of(locked))
    assert dict(drive(session, "items")) == {}
    assert (session.locked.reason, session.handle) == ("idle", None)
    before = store.payloads()
    session["cart"] = "kettle"
    with pytest.raises(UpdateError):
        drive(session, "save")
    assert store.payloads() == before
    drive(session, "unlock")
    assert session["cart"] == "teapot"
    assert session.session_key != key_of(locked)
    assert SessionStore(session.session_key)["cart"] == "teapot"
    assert not SessionStore().exists(key_of(locked))
    assert not only_row().is_locked


def test_to_save_it_without_a_request_is_no_activity_and_the_row_says_so(
    signed_in, policy, drive, clock
):
    """Nobody knows whether its user was there."""
    policy(idle=600, lock=True)
    browser = signed_in()
    clock.move(seconds=300)
    session = SessionStore(key_of(browser))
    session["cart"] = "kettle"
    drive(session, "save")
    clock.move(seconds=300)
    assert drive(SessionStore(key_of(browser)), "get", "cart") is None
    assert only_row().is_locked


@pytest.mark.parametrize("url", ["/whoami/", "/read/", "/write/"])
@pytest.mark.standard("NIST-2.2.3", "ASVS-16.5.3")
@pytest.mark.transports("cookie")
def test_behind_the_middleware_of_django_it_is_closed_and_nobody_opens_it(
    locked, settings, browse, url
):
    settings.MIDDLEWARE = [
        name.replace("django_sessionkit.middleware", "django.contrib.sessions.middleware")
        for name in settings.MIDDLEWARE
    ]
    key, browser = key_of(locked), browse()
    sealed = store.payloads()[digest_of(key)]
    browser.cookies = locked.cookies
    SEEN.clear()
    browser.post(url, {"theme": "dark"})
    browser.cookies["sessionid"] = key
    browser.get("/look/")
    ((name, cart, _),) = SEEN
    assert (name, cart) == ("AnonymousUser", None)
    assert store.payloads()[digest_of(key)] == sealed


@pytest.mark.standard("NIST-SB-10")
@pytest.mark.transports("cookie")
def test_forms_work_where_their_tokens_are_in_the_session(browse, alice, policy, clock, settings):
    settings.CSRF_USE_SESSIONS = True
    policy(**LOCK)
    browser = browse()
    browser.handler.enforce_csrf_checks = True

    def send(url, **fields):
        (token,) = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', browser.get(url).text)[
            :1
        ]
        return browser.post(url, {"csrfmiddlewaretoken": token, **fields})

    assert send("/login/", **CREDENTIALS).headers["Location"] == "/"
    clock.move(seconds=600)
    assert leads_to_the_lock(browser.get("/private/"), "?next=%2Fprivate%2F")
    assert send(PROVE, password="secret", next="/read/").headers["Location"] == "/read/"
    assert is_still_in(browser)
    clock.move(seconds=600)
    assert send("/login/", **CREDENTIALS).headers["Location"] == "/"
    assert is_still_in(browser)
    assert UserSession.objects.filter(end_reason=EndReason.LOGOUT).count() == 1
