"""
How many sessions a user may have at a time, and what becomes of the one that is too many: the right
one goes, or waits, and whoever is concerned is told.
"""

import threading
from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, login
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import UpdateError
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.urls import path

from django_sessionkit import limits, registry
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.exceptions import TooManySessions
from django_sessionkit.models import EndReason, UserSession, UserSessionQuerySet
from django_sessionkit.signals import sign_in_refused
from tests import store
from tests.apps import Keeping
from tests.browsers import PAGE, SCRIPT, deletes_the_cookie, put, read, sets_no_cookie, view
from tests.interleaving import before, together
from tests.pages import PROVE
from tests.people import CHROME, is_in, is_told, key_of, post_sign_in, row_of, who
from tests.store import DAY, MINUTE, SessionStore, later
from tests.urls import urlpatterns as site

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site(__name__),
    pytest.mark.usefixtures("alice", "bob"),
    pytest.mark.transports("cookie", "header"),
]

TOO_MANY = b"You were signed out here to make room for another device"
BACKEND = "django.contrib.auth.backends.ModelBackend"

# All that can happen; and which of them let the new session in.
END = ["end_oldest", "end_idlest"]
MODES = [*END, "refuse", "ask"]


# Views of a project.


def impersonate(request, note):
    """As django-hijack and django-loginas do it."""
    login(request, User.objects.get(username="alice"), BACKEND)
    request.session[note] = ["bob"]
    return HttpResponse("welcome")


def impersonate_late(request):
    """Saves the session before it notes who acts: staff who are known by a token, say."""
    login(request, User.objects.get(username="alice"), BACKEND)
    request.session.save()
    people = [User.objects.get(username=name) for name in ("bob", "alice")]
    request.session["hijack_history"] = [str(user.pk) for user in people]
    return HttpResponse("welcome")


def release(request):
    login(request, User.objects.get(username="bob"), BACKEND)
    return HttpResponse("welcome back")


def enter_and_save(request):
    """Does not leave it to the middleware."""
    login(request, User.objects.get(username="alice"), BACKEND)
    request.session.save()
    User.objects.filter(username="bob").update(first_name="known")
    return HttpResponse("welcome")


def come_back(request):
    login(request, User.objects.get(username="alice"), BACKEND)
    return HttpResponse("welcome")


urlpatterns = [
    *site,
    path("impersonate/<str:note>/", impersonate),
    path("impersonate_late/", impersonate_late),
    path("release/", release),
    path("enter_and_save/", enter_and_save),
    path("come_back/", come_back),
]


# People and their browsers.


@pytest.fixture
def enter(browse):
    """Sign in in a new browser."""

    def enter(name="alice"):
        browser = browse()
        assert post_sign_in(browser, name).status_code in (200, 302)  # to an app, and to a browser
        return browser

    return enter


@pytest.fixture
def refused():
    """What sign_in_refused says: (name of the user, limit) each time."""
    heard = []

    def listen(sender, user, limit, **kwargs):
        assert sender is UserSession
        heard.append((user.get_username(), limit))

    sign_in_refused.connect(listen)
    yield heard
    sign_in_refused.disconnect(listen)


def held(browser):
    return read(browser).json()


def is_pushed_out(browser):
    """Tell whether the browser is led to a page that says so, once, or an app is told."""
    if isinstance(browser, Keeping):
        return is_told(browser, TOO_MANY)
    response = browser.get("/private/")
    page = browser.get(response.headers["Location"])
    return TOO_MANY in page.content and deletes_the_cookie(response) and who(browser) == ""


def is_asked(browser):
    return who(browser) == "/account/sessions/limit/"


def counted():
    return [row for row in UserSession.objects.filter(user__username="alice").alive() if row.counts]


# What happens to the one that is too many.


def test_without_a_limit_there_is_none(enter, policy):
    policy()
    browsers = [enter() for _ in range(10)]
    assert all(map(is_in, browsers))


def test_a_limit_that_is_not_reached_concerns_nobody(enter, policy, ended, caplog):
    policy(limit=3, on_limit="refuse")
    browsers = [enter() for _ in range(3)]
    assert all(map(is_in, browsers))
    assert not ended
    assert not caplog.records


@pytest.mark.standard("ASVS-7.1.2", "ASVS-16.3.3", "ASVS-16.2.5", "WSTG-SESS-11")
def test_the_oldest_goes_and_is_told(enter, policy, ended, caplog):
    policy(limit=2)
    first, second = enter(), enter()
    gone = row_of(first).pk
    with later(5 * MINUTE):  # however active it is
        assert is_in(first)
    third = enter()
    assert ended == [({gone}, EndReason.LIMIT, None)]
    (record,) = caplog.records
    assert record.name == "django.security.SuspiciousSession"
    for browser in (first, second, third):
        assert key_of(browser) not in caplog.text
        assert digest_of(key_of(browser)) not in caplog.text
    assert is_in(second)
    assert is_in(third)
    row = UserSession.objects.get(pk=gone)
    assert (row.end_reason, row.ended_by) == (EndReason.LIMIT, None)
    assert is_pushed_out(first)
    fourth = enter()
    assert is_pushed_out(second)
    assert is_in(third)
    assert is_in(fourth)
    assert len(store.payloads()) == 2


def test_a_script_is_told_so_too(enter, policy):
    policy(limit=1)
    first = enter()
    enter()
    response = first.get(view(first, "private"), headers=SCRIPT)
    assert response.status_code == 401
    assert response.headers["Session-Ended"] == "limit"
    told = f"{TOO_MANY.decode()} (Unknown device, just now). If you did not sign in there, change"
    assert response.json() == {"detail": f"{told} your password.", "reason": "limit"}


@pytest.mark.standard("ASVS-7.1.2", "WSTG-SESS-11")
def test_the_idlest_goes_and_is_told(enter, policy, ended):
    policy(limit=3, on_limit="end_idlest")
    first, second, third = enter(), enter(), enter()
    with later(2 * MINUTE):
        assert is_in(first)
    with later(4 * MINUTE):
        assert is_in(third)
        fourth = enter()
        assert len(ended) == 1
        assert is_pushed_out(second)
        fifth = enter()
        assert is_pushed_out(first)
        assert all(map(is_in, [third, fourth, fifth]))


@pytest.mark.parametrize("mode", END)
def test_of_those_that_nobody_has_used_since_the_oldest_goes(enter, policy, mode):
    policy(limit=3, on_limit=mode)
    browsers = [enter() for _ in range(7)]
    assert [is_in(browser) for browser in browsers] == [False] * 4 + [True] * 3


@pytest.mark.parametrize("mode", END)
def test_a_limit_of_one(enter, policy, mode):
    policy(limit=1, on_limit=mode)
    first, second = enter(), enter()
    assert is_pushed_out(first)
    assert is_in(second)
    post_sign_in(first)
    assert is_pushed_out(second)
    assert is_in(first)


@pytest.mark.parametrize("mode", END)
def test_a_limit_that_is_lower_than_before(enter, policy, mode, ended):
    policy()
    browsers = [enter() for _ in range(6)]
    policy(limit=2, on_limit=mode)
    assert all(map(is_in, browsers))
    last = enter()
    assert [is_in(browser) for browser in [*browsers, last]] == [False] * 5 + [True] * 2
    assert [len(handles) for handles, _, _ in ended] == [5]


@pytest.mark.standard("ASVS-7.1.2", "ASVS-16.3.3", "ASVS-16.2.5", "WSTG-SESS-11")
@pytest.mark.transports("cookie")
def test_the_new_one_is_refused_and_told(enter, browse, policy, ended, refused, caplog):
    policy(limit=2, on_limit="refuse")
    first, second = enter(), enter()
    third = browse()
    response = post_sign_in(third)
    assert (response.status_code, response.headers["Location"]) == (302, "/login/")
    assert "no-store" in response.headers["Cache-Control"]
    assert refused == [("alice", 2)]
    (record,) = caplog.records
    assert record.name == "django.security.SuspiciousSession"
    page = third.get("/login/").content
    assert b"You are already signed in on 2 devices" in page
    assert b"already signed in" not in third.get("/login/").content  # once
    assert who(third) == ""
    assert is_in(first)
    assert is_in(second)
    assert UserSession.objects.count() == 2
    assert not ended
    # Until there is room.
    second.post("/logout/")
    assert post_sign_in(third).headers["Location"] == "/"
    assert is_in(third)
    assert len(refused) == 1


@pytest.mark.parametrize("storage", ["cookie.CookieStorage", "session.SessionStorage"])
@pytest.mark.transports("cookie")
def test_a_limit_of_one_is_told_in_the_singular(enter, browse, policy, settings, storage):
    settings.MESSAGE_STORAGE = f"django.contrib.messages.storage.{storage}"
    policy(limit=1, on_limit="refuse")
    enter()
    browser = browse()
    post_sign_in(browser)
    assert b"You are already signed in on 1 device," in browser.get("/login/").content


@pytest.mark.transports("cookie")
def test_a_script_is_refused_so_that_it_can_tell(enter, browse, policy):
    policy(limit=1, on_limit="refuse")
    first, script = enter(), browse()
    response = post_sign_in(script, headers=SCRIPT)
    assert response.status_code == 403
    assert set(response.json()) == {"detail", "reason"}
    assert response.json()["reason"] == "limit"
    assert "already signed in on 1 device" in response.json()["detail"]
    assert who(script) == ""
    assert is_in(first)


@pytest.mark.parametrize("headers", [PAGE, SCRIPT], ids=["page", "script"])
@pytest.mark.standard("WSTG-SESS-03")
@pytest.mark.transports("cookie")
def test_who_is_refused_keeps_what_a_visitor_had(enter, browse, policy, headers):
    policy(limit=1, on_limit="refuse")
    first, browser = enter(), browse()
    put(browser, cart="teapot")
    before = key_of(browser)
    post_sign_in(browser, headers=headers)
    assert who(browser) == ""
    assert held(browser) == {"cart": "teapot"}
    # Under a key that nobody can have foisted on them, as at every sign-in.
    assert key_of(browser) != before
    assert not SessionStore().exists(before)
    first.post("/logout/")
    post_sign_in(browser)
    assert is_in(browser)
    assert held(browser) == {"cart": "teapot"}


@pytest.mark.parametrize("name", ["alice", "bob"])
@pytest.mark.parametrize("saves", [False, True])
@pytest.mark.transports("cookie")
def test_who_is_refused_keeps_the_locked_session_of_the_browser(
    enter, bob, policy, clock, ended, refused, settings, name, saves
):
    """Of the same user, or of somebody else."""
    settings.SESSION_SAVE_EVERY_REQUEST = settings.CSRF_USE_SESSIONS = saves
    policy(limit=2, on_limit="refuse", idle=600, lock=True)
    browser, _other = enter(), enter(name)
    browser.get("/login/")
    clock.move(seconds=601)
    policy(limit=1, on_limit="refuse", idle=600, lock=True)
    response = post_sign_in(browser, name)
    assert response.headers["Location"] == "/login/"
    assert refused == [(name, 1)]
    assert sets_no_cookie(response)
    assert not ended
    assert who(browser) == PROVE


@pytest.mark.transports("cookie")
def test_whoever_signs_in_instead_of_unlocking_takes_the_place(enter, policy, clock, refused):
    policy(limit=1, on_limit="refuse", idle=600, lock=True)
    browser = enter()
    clock.move(seconds=601)
    assert who(browser) == PROVE
    assert post_sign_in(browser).headers["Location"] == "/"
    assert not refused
    assert is_in(browser)
    reasons = UserSession.objects.order_by("pk").values_list("end_reason", flat=True)
    assert list(reasons) == ["logout", ""]


@pytest.mark.transports("cookie")
def test_who_is_known_elsewhere_and_refused_here_is_not_sent_round_in_circles(
    enter, browse, policy, settings
):
    """A sign-in page that asks for nothing leads to another site, and from there back to this."""
    settings.LOGIN_URL = "/come_back/"
    policy(limit=1, on_limit="refuse")
    enter()
    response = browse().get("/come_back/")
    assert response.status_code == 403
    assert b"already signed in on 1 device" in response.content


@pytest.mark.transports("cookie")
def test_a_listener_that_fails_lets_nobody_in(enter, browse, policy):
    def fail(**kwargs):
        raise RuntimeError("out of order")

    policy(limit=1, on_limit="refuse")
    enter()
    sign_in_refused.connect(fail)
    try:
        browser = browse()
        assert post_sign_in(browser).headers["Location"] == "/login/"
        assert who(browser) == ""
    finally:
        sign_in_refused.disconnect(fail)


@pytest.mark.transports("cookie")
def test_who_is_refused_behind_djangos_own_middleware_is_not_in(enter, browse, policy, settings):
    policy(limit=1, on_limit="refuse")
    first = enter()
    ours, theirs = "django_sessionkit.middleware", "django.contrib.sessions.middleware"
    settings.MIDDLEWARE = [name.replace(ours, theirs) for name in settings.MIDDLEWARE]
    browser = browse()
    assert post_sign_in(browser).status_code == 400
    assert who(browser) == ""
    assert is_in(first)
    assert UserSession.objects.count() == 1


# Ask.


@pytest.fixture
def waiting(enter, policy):
    """Two browsers that are in, and two that wait for a place."""
    policy(limit=2, on_limit="ask")
    return [enter() for _ in range(4)]


@pytest.mark.standard("ASVS-7.1.2", "WSTG-SESS-11")
@pytest.mark.transports("cookie")
def test_who_is_asked_is_locked_out_until_then(enter, policy, ended):
    policy(limit=2, on_limit="ask")
    first, second, third = enter(), enter(), enter()
    assert is_in(first)
    assert is_in(second)
    response = third.get("/private/?page=2")
    url = "/account/sessions/limit/?next=%2Fprivate%2F%3Fpage%3D2"
    assert (response.status_code, response.headers["Location"]) == (302, url)
    response = third.get(view(third, "private"), headers=SCRIPT)
    assert response.status_code == 401
    assert response.json()["reason"] == "limit"
    assert third.post(view(third, "write"), {"cart": "kettle"}).status_code == 302
    row = row_of(third)
    assert (row.counts, row.ended_at) == (False, None)
    session = SessionStore(key_of(third))
    session.get("")
    assert (session.locked.reason, session.locked.limit) == ("limit", 2)
    assert session.locked.handle == row.pk
    # What an API's caller makes of it is another matter, as is who else may sign in.
    assert not ended
    assert len(counted()) == 2


def test_one_that_waits_is_none_of_the_two(waiting, ended):
    first, second, third, fourth = waiting
    assert [is_in(browser) for browser in waiting] == [True, True, False, False]
    first.post("/logout/")
    second.post("/logout/")
    # Nobody is in, whoever waits, so there is room.
    fifth = type(first)(raise_request_exception=False, headers=PAGE)
    post_sign_in(fifth)
    assert is_in(fifth)
    assert is_asked(third)
    assert is_asked(fourth)
    assert len(counted()) == 1


def test_one_that_waits_does_so_for_a_quarter_of_an_hour(waiting):
    third = waiting[2]
    started = row_of(third).started_at
    assert row_of(third).expires_at - started <= timedelta(minutes=15, seconds=1)
    for seconds in (5 * MINUTE, 10 * MINUTE, 14 * MINUTE + 50):
        with later(seconds):  # however often it looks
            assert is_asked(third)
            assert third.get("/account/sessions/limit/").status_code == 200
    with later(15 * MINUTE + 5):
        assert is_told(third, b"Your sign-in has expired.")
        assert who(third) == ""


def let_in(browser, drive):
    session = SessionStore(key_of(browser))
    drive(session, "get", "")
    admitted = limits.admit(session.locked.handle, session.locked.limit)
    if admitted:
        drive(session, "unlock")
        browser.cookies["sessionid"] = session.session_key
    return admitted


@pytest.mark.standard("ASVS-7.1.2", "NIST-SB-3")
@pytest.mark.transports("cookie")
def test_who_makes_room_is_let_in_with_all_that_was_there(enter, browse, policy, drive):
    policy(limit=1, on_limit="ask")
    first, browser = enter(), browse()
    put(browser, cart="teapot")
    post_sign_in(browser)
    assert is_asked(browser)
    waited, before = key_of(browser), row_of(browser)
    assert not let_in(browser, drive)
    assert is_asked(browser)
    first.post("/logout/")
    assert let_in(browser, drive)
    assert is_in(browser)
    assert held(browser) == {"cart": "teapot"}
    assert key_of(browser) != waited
    assert not SessionStore().exists(waited)
    row = row_of(browser)
    assert (row.pk, row.counts) == (before.pk, True)
    assert row.authenticated_at == before.authenticated_at  # nobody has proved anything since
    assert row.expires_at - row.started_at > timedelta(days=13)
    with later(10 * DAY):
        assert is_in(browser)


@pytest.mark.transports("cookie")
def test_who_is_asked_chooses_on_the_page(enter, policy, alice, ended):
    policy(limit=2, on_limit="ask")
    first, second, third = enter(), enter(), enter()
    stranger = enter("bob")
    url = "/account/sessions/limit/"
    assert b"You are signed in on too many devices" in third.get(url).content
    for chosen in ([], [str(row_of(stranger).pk)], [str(row_of(third).pk)], ["nonsense"]):
        response = third.post(url, {"session": chosen, "next": "/read/"})
        assert b"Choose at least one device." in response.content
        assert is_asked(third)
    assert who(stranger) == "bob"
    assert not ended
    gone = row_of(second)
    response = third.post(url, {"session": [str(gone.pk)], "next": "/read/"})
    assert response.headers["Location"] == "/read/"
    assert is_in(third)
    assert is_in(first)
    assert is_pushed_out(second)
    gone.refresh_from_db()
    assert (gone.end_reason, gone.ended_by) == (EndReason.LIMIT, alice)


def test_who_is_let_in_when_the_store_fails_can_try_again(enter, policy, monkeypatch):
    """There is room for it by then, and nobody else has it."""

    def fail():
        raise OperationalError("no route to host")

    policy(limit=2, on_limit="ask")
    first, second, third = enter(), enter(), enter()
    url, gone = "/account/sessions/limit/", str(row_of(first).pk)
    with_place = before(monkeypatch, SessionStore, "move", fail)
    assert third.post(url, {"session": [gone]}).status_code == 503
    assert not with_place
    assert is_asked(third)
    assert b"There is room for this device now" in third.get(url).content
    assert third.post(url, {"session": []}).status_code == 302
    assert is_in(third)
    assert is_in(second)
    assert len(counted()) == 2


def test_who_is_let_in_counts_once(waiting, drive):
    first, _second, third, fourth = waiting
    first.post("/logout/")
    handle = row_of(third).pk
    assert limits.admit(handle, 2)
    assert limits.admit(handle, 2)
    assert not limits.admit(row_of(fourth).pk, 2)


def test_who_has_ended_meanwhile_is_not_let_in(waiting):
    handle = row_of(waiting[2]).pk
    UserSession.objects.revoke()
    assert not limits.admit(handle, 2)
    for browser in waiting:
        assert not is_in(browser)
        assert not is_asked(browser)


def test_who_waits_can_be_signed_out_from_elsewhere(waiting):
    third = waiting[2]
    UserSession.objects.filter(pk=row_of(third).pk).revoke()
    assert is_told(third, b"from another device")


def test_who_waits_and_signs_in_again_waits_once(waiting):
    third, handle = waiting[2], row_of(waiting[2]).pk
    post_sign_in(third)
    assert is_asked(third)
    assert UserSession.objects.get(pk=handle).ended_at
    assert UserSession.objects.filter(ended_at=None, counts=False).count() == 2


# What counts.


def gone_how(how, browser):
    match how:
        case "signed out":
            browser.post("/logout/")
        case "revoked":
            UserSession.objects.filter(pk=row_of(browser).pk).revoke()
        case "lost":
            SessionStore.remove([digest_of(key_of(browser))])
        case "revoked in the registry alone":
            now = row_of(browser).started_at
            UserSession.objects.filter(pk=row_of(browser).pk).update(ended_at=now)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "how", ["signed out", "revoked", "lost", "revoked in the registry alone", "expired"]
)
def test_what_has_ended_does_not_count(enter, policy, mode, how, ended):
    policy(limit=2, on_limit=mode)
    first = enter()
    with later(10 * DAY if how == "expired" else 0):
        second = enter()
        gone_how(how, first)
    ended.clear()
    with later(15 * DAY if how == "expired" else 61):
        third = enter()
        assert is_in(second)
        assert is_in(third)
        assert not is_in(first)
    assert not [reason for _, reason, _ in ended if reason == EndReason.LIMIT]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_locked_does(enter, browse, policy, mode):
    policy(limit=1, on_limit=mode, idle=600, lock=True)
    first = enter()
    with later(700):
        second = browse()
        post_sign_in(second)
        if mode in END:
            assert is_in(second)
            assert is_pushed_out(first)
        else:
            assert not is_in(second)
            assert who(first) == "/account/sessions/reauthenticate/"


@pytest.mark.parametrize("mode", MODES)
def test_signing_in_again_in_the_same_browser_counts_once(enter, policy, mode, ended):
    policy(limit=1, on_limit=mode)
    browser = enter()
    handle = row_of(browser).pk
    for _ in range(3):
        post_sign_in(browser)
        assert is_in(browser)
    assert row_of(browser).pk == handle
    assert not ended


@pytest.mark.parametrize("mode", MODES)
def test_signing_in_again_where_it_was_locked_counts_once(enter, policy, mode):
    policy(limit=1, on_limit=mode, idle=600, lock=True)
    browser = enter()
    with later(700):
        assert who(browser) == "/account/sessions/reauthenticate/"
        post_sign_in(browser)
        assert is_in(browser)
        assert len(counted()) == 1


@pytest.mark.parametrize("mode", MODES)
def test_another_user_in_the_same_browser_makes_room(enter, policy, mode):
    policy(limit=1, on_limit=mode)
    browser = enter()
    post_sign_in(browser, "bob")
    assert who(browser) == "bob"
    other = enter()
    assert is_in(other)
    assert who(browser) == "bob"


@pytest.mark.parametrize("mode", MODES)
def test_a_new_key_counts_once(enter, policy, mode, drive):
    policy(limit=2, on_limit=mode, renew_after=600)
    browser = enter()
    with later(601):
        old = key_of(browser)
        assert is_in(browser)
        assert key_of(browser) != old
        session = SessionStore(key_of(browser))
        drive(session, "cycle_key")
        browser.cookies["sessionid"] = session.session_key
        other = enter()
        assert is_in(browser)
        assert is_in(other)


@pytest.mark.parametrize("mode", MODES)
def test_each_user_has_a_limit_of_their_own(enter, browse, policy, mode, ended):
    policy(limit=2, on_limit=mode)
    theirs = [enter("bob"), enter("bob")]
    mine = [enter(), enter()]
    assert [who(browser) for browser in theirs + mine] == ["bob"] * 2 + ["alice"] * 2
    assert not ended
    post_sign_in(browse())
    assert [who(browser) for browser in theirs] == ["bob"] * 2


# The names under which django-hijack 3 and django-loginas 0.3 note it; the latter is the default of
# LOGINAS_FROM_USER_SESSION_FLAG, and the last one is what a site has set in its place.
@pytest.mark.parametrize("note", ["hijack_history", "loginas_from_user", "acting"])
@pytest.mark.parametrize("mode", MODES)
def test_staff_who_act_as_a_user_do_not_count(enter, browse, policy, mode, note, ended, settings):
    if note == "acting":
        settings.LOGINAS_FROM_USER_SESSION_FLAG = note
    policy(limit=2, on_limit=mode)
    mine = [enter(), enter()]
    staff = enter("bob")
    staff.get(f"/impersonate/{note}/")  # is not limited, nor does it push anybody out
    assert who(staff) == "alice"
    assert all(map(is_in, mine))
    assert row_of(staff).counts is False
    assert EndReason.LIMIT not in [reason for _, reason, _ in ended]
    mine[1].post("/logout/")
    assert is_in(enter())  # nor does it take a place
    assert is_in(mine[0])
    # It goes on as long as it likes, and is unlimited after a new key as well.
    with later(5 * MINUTE):
        assert who(staff) == "alice"
    staff.get("/release/")
    assert who(staff) == "bob"
    assert row_of(staff).counts is True


@pytest.mark.transports("cookie")
def test_staff_who_note_late_that_they_act_as_a_user_do_not_count_from_then_on(
    enter, browse, policy
):
    policy(limit=2)
    mine, staff = enter(), browse()
    User.objects.update(date_joined="2020-01-01T00:00Z")
    staff.get("/impersonate_late/", headers={"user-agent": CHROME})
    row = row_of(staff)
    assert (row.counts, row.support) == (False, True)
    assert (row.browser, row.novelty) == (None, "")  # theirs is none of the user's
    assert SessionStore(key_of(staff)).person == str(User.objects.get(username="bob").pk)
    other = enter()
    assert all(map(is_in, [mine, staff, other]))


def test_staff_do_count_as_themselves(enter, policy):
    policy(limit=1, on_limit="end_oldest")
    staff = enter("bob")
    staff.get("/impersonate/hijack_history/")
    other = enter("bob")
    staff.get("/release/")
    assert who(staff) == "bob"
    assert is_pushed_out(other)


# Twenty sign-ins at once.


@pytest.mark.django_db(transaction=True)
@pytest.mark.isolation
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.standard("ASVS-7.1.2", "ASVS-15.4.2", "WSTG-SESS-11")
def test_twenty_sign_ins_at_once(enter, browse, policy, monkeypatch, refused, mode, caplog):
    policy(limit=3, on_limit=mode)
    before = [enter(), enter()]
    enter_row, everybody = registry.enter, threading.Barrier(20)

    def all_at_once(*args):
        everybody.wait(30)
        return enter_row(*args)

    browsers = [browse() for _ in range(20)]
    responses = []
    with monkeypatch.context() as patch:
        patch.setattr(registry, "enter", all_at_once)
        together(*[lambda b=browser: responses.append(post_sign_in(b)) for browser in browsers])
    is_app = isinstance(browsers[0], Keeping)  # which is refused by 403, and not on a page
    assert {response.status_code for response in responses} <= ({200, 403} if is_app else {302})
    assert "did not answer" not in caplog.text
    if mode in END:
        assert all(map(is_pushed_out, before))
    # At the limit, and nobody is in who is not counted.
    inside = [browser for browser in before + browsers if is_in(browser)]
    assert len(inside) == 3
    assert {row.pk for row in counted()} == {row_of(browser).pk for browser in inside}
    alive = UserSession.objects.alive()
    if mode in END:
        assert set(inside).isdisjoint(before)
        gone = UserSession.objects.exclude(ended_at=None)
        assert set(gone.values_list("end_reason", flat=True)) == {EndReason.LIMIT}
        assert gone.count() == 19
        assert len(alive) == 3
    elif mode == "refuse":
        assert set(before) < set(inside)
        assert refused == [("alice", 3)] * 19
        assert UserSession.objects.count() == len(alive) == 3
    else:
        assert set(before) < set(inside)
        assert len(alive) == 22
        assert [browser for browser in browsers if is_asked(browser)] == [
            browser for browser in browsers if browser not in inside
        ]
    if mode == "end_oldest":
        newest = UserSession.objects.order_by("-pk")[:3]
        assert {row.pk for row in newest} == {row.pk for row in alive}


@pytest.mark.redis
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("how", ["by login()", "by hand"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.standard("ASVS-7.1.2", "ASVS-15.4.2")
def test_one_that_is_only_being_written_counts(
    enter, browse, alice, policy, monkeypatch, mode, how
):
    """Its row is there, and what is stored of it is not yet: where that is not one transaction."""
    policy(limit=1, on_limit=mode)
    first, second = browse(), browse()
    verb = "replace" if how == "by login()" else "insert"
    pending = before(
        monkeypatch, SessionStore, verb, lambda: together(lambda: post_sign_in(second))
    )
    if how == "by login()":
        expected = (401 if mode in END else 200) if isinstance(first, Keeping) else 302
        assert post_sign_in(first).status_code == expected
    else:
        session = SessionStore()
        session[SESSION_KEY], session[BACKEND_SESSION_KEY] = str(alice.pk), BACKEND
        session[HASH_SESSION_KEY] = alice.get_session_auth_hash()
        with suppress(UpdateError):
            session.save()
        first.cookies["sessionid"] = session.session_key or ""
    assert not pending
    assert [is_in(first), is_in(second)] == [mode not in END, mode in END]
    assert len(counted()) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.standard("ASVS-7.4.1", "ASVS-15.4.2")
@pytest.mark.transports("cookie")
def test_who_is_pushed_out_is_about_to_write(enter, policy, monkeypatch):
    policy(limit=1)
    first = enter()
    put(first, cart="teapot")
    pending = before(monkeypatch, SessionStore, "replace", lambda: together(enter))
    response = put(first, cart="kettle")
    assert not pending
    assert deletes_the_cookie(response)
    assert TOO_MANY in first.get("/login/").content
    assert len(store.payloads()) == 1
    assert len(counted()) == 1


@pytest.fixture
def two_count(monkeypatch):
    """Have two wait for each other before they count what there is."""
    count, both = limits._counted, threading.Barrier(2)

    def at_once(rows, user_id):
        both.wait(10)
        return count(rows, user_id)

    @contextmanager
    def two_count():
        with monkeypatch.context() as patch:
            patch.setattr(limits, "_counted", at_once)
            yield

    return two_count


@pytest.mark.django_db(transaction=True)
@pytest.mark.isolation
@pytest.mark.standard("ASVS-15.4.2")
def test_two_wait_for_one_place(waiting, two_count):
    first, second, *both = waiting
    first.post("/logout/")
    handles = [row_of(browser).pk for browser in both]
    admitted = []

    def admit(handle):
        admitted.append(limits.admit(handle, 2))

    with two_count():
        together(*[lambda handle=handle: admit(handle) for handle in handles])
    assert sorted(admitted) == [False, True]
    assert len(counted()) == 2
    assert is_in(second)


@pytest.mark.django_db(transaction=True)
@pytest.mark.isolation
@pytest.mark.standard("ASVS-15.4.2")
@pytest.mark.transports("cookie")
def test_two_choose_the_same_one(waiting, two_count, monkeypatch):
    first, second, *both = waiting
    gone, responses = str(row_of(first).pk), []
    revoke, have_chosen = UserSessionQuerySet.revoke, threading.Barrier(2)

    def revoke_at_once(*args, **kwargs):
        have_chosen.wait(10)
        return revoke(*args, **kwargs)

    def choose(browser):
        url = "/account/sessions/limit/"
        responses.append(browser.post(url, {"session": [gone], "next": "/read/"}))

    with two_count(), monkeypatch.context() as patch:
        patch.setattr(UserSessionQuerySet, "revoke", revoke_at_once)
        together(*[lambda browser=browser: choose(browser) for browser in both])
    assert sorted(response.status_code for response in responses) == [200, 302]
    (told,) = [response for response in responses if response.status_code == 200]
    assert b'name="sign_out"' in told.content  # asked once more
    assert sorted(map(is_in, both)) == [False, True]
    assert sorted(map(is_asked, both)) == [False, True]
    assert is_in(second)
    assert len(counted()) == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.isolation
@pytest.mark.standard("ASVS-15.4.2")
def test_a_sign_in_and_one_that_waits_want_the_same_place(waiting, browse, two_count):
    first, _second, third, _fourth = waiting
    first.post("/logout/")
    handle, fifth, admitted = row_of(third).pk, browse(), []
    with two_count():
        together(
            lambda: admitted.append(limits.admit(handle, 2)),
            lambda: post_sign_in(fifth),
        )
    assert [is_in(fifth), *admitted] in ([True, False], [False, True])
    assert len(counted()) == 2


# In a transaction of the site's.


@pytest.mark.django_db(transaction=True)
@pytest.mark.isolation
@pytest.mark.parametrize("url", ["/login/", "/enter_and_save/"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.transports("cookie")
def test_a_view_in_a_transaction(enter, browse, policy, atomic_requests, mode, url):
    policy(limit=1, on_limit=mode)
    first, second = enter(), browse()
    response = second.post(url, {"username": "alice", "password": "secret"})
    if mode in END:
        assert response.status_code in (200, 302)
        assert is_in(second)
        assert is_pushed_out(first)
    else:
        assert is_in(first)
        assert not is_in(second)
        assert len(counted()) == 1
        if mode == "refuse":
            assert response.headers["Location"] == "/login/"
            assert UserSession.objects.count() == 1
        else:
            assert is_asked(second)


@pytest.mark.django_db(transaction=True)
@pytest.mark.isolation
@pytest.mark.standard("ASVS-15.4.2")
@pytest.mark.transports("cookie")
def test_twenty_views_in_transactions(browse, policy, atomic_requests, caplog):
    policy(limit=3, on_limit="refuse")
    browsers, start = [browse() for _ in range(20)], threading.Barrier(20)
    statuses = []

    def enter(browser):
        start.wait(30)
        statuses.append(browser.post("/enter_and_save/").status_code)

    together(*[lambda browser=browser: enter(browser) for browser in browsers])
    assert sorted(statuses) == [200] * 3 + [302] * 17
    assert len([browser for browser in browsers if is_in(browser)]) == 3
    assert len(counted()) == 3
    assert "did not answer" not in caplog.text


# A store that is down.


# What a sign-in asks the store.
VERBS = [(mode, "peek") for mode in MODES]
VERBS += [(mode, "remove") for mode in END]
VERBS += [(mode, "replace") for mode in MODES if mode != "refuse"]


@pytest.mark.parametrize(("mode", "verb"), VERBS)
@pytest.mark.standard("ASVS-16.5.2", "ASVS-16.5.3")
def test_the_store_is_down_when_somebody_signs_in(enter, browse, policy, monkeypatch, mode, verb):
    def fail():
        raise OperationalError("no route to host")

    policy(limit=1, on_limit=mode)
    first, second = enter(), browse()
    put(second, cart="teapot")
    pending = before(monkeypatch, SessionStore, verb, fail)
    response = post_sign_in(second)
    assert not pending
    assert response.status_code == 503
    assert "sessionid" not in response.cookies
    assert UserSession.objects.count() == 1  # the one that there was
    assert not is_in(second)
    if verb == "replace" and mode in END and store.APART:
        assert is_pushed_out(first)  # there was no taking that back
    else:
        assert is_in(first)
        first.post("/logout/")
    post_sign_in(second)
    assert is_in(second)
    assert len(counted()) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.standard("ASVS-16.5.2")
def test_the_registry_is_down_when_somebody_signs_in(enter, browse, policy, monkeypatch, mode):
    def fail():
        raise OperationalError("no route to host")

    policy(limit=2, on_limit=mode)
    first, second = enter(), browse()
    pending = before(monkeypatch, registry, "enter", fail)
    assert post_sign_in(second).status_code == 503
    assert not pending
    assert UserSession.objects.count() == 1
    assert is_in(first)
    assert not is_in(second)
    assert connection.is_usable()


def test_a_new_key_is_refused_like_a_save(alice, enter, policy, refused, drive):
    """To somebody who is signed in by hand."""
    policy(limit=1, on_limit="refuse")
    enter()
    session = SessionStore()
    session["cart"] = "teapot"
    session.save()
    key = session.session_key
    session[SESSION_KEY] = str(alice.pk)
    with pytest.raises(TooManySessions):
        drive(session, "cycle_key")
    assert len(refused) == 1
    assert SessionStore(key)["cart"] == "teapot"
