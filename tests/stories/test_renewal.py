"""
The key of a session changes by itself. Nobody notices, whatever happens at that moment; and whoever
comes with an old one later on is noticed.
"""

import re
import threading
import traceback
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.contrib.sessions.backends.base import UpdateError
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.views.debug import ExceptionReporter

from django_sessionkit.client import Client
from django_sessionkit.models import EndReason, UserSession, UserSessionQuerySet
from django_sessionkit.sealing import digest_of
from django_sessionkit.signals import session_key_reused
from tests import interleaving, store
from tests.browsers import (
    SCRIPT,
    browse_as,
    cart,
    deletes_the_cookie,
    given,
    put,
    read,
    sets_no_cookie,
    view,
)
from tests.interleaving import together
from tests.people import is_in, is_told, key_of, post_sign_in, row_of
from tests.store import SessionStore, later, round_trips
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

# Seconds: the policy of these tests, and when the key of a session that began now is to change.
AFTER, GRACE = 600, 60
DUE = AFTER + 1
DAY = 24 * 60 * 60

REUSED = b"an old copy of this session was used"


# Views of a project.


def flush(request):
    """Has no use for what it ends."""
    request.session.flush()
    return HttpResponse("flushed")


def crash(request):
    request.session["cart"] = "crashed"
    raise RuntimeError("out of order")


def remember(request):
    request.session.set_expiry(365 * DAY)
    return HttpResponse("remembered")


def prove(request):
    request.session.reauthenticate()
    return HttpResponse("proved")


urlpatterns = [
    *site,
    path("flush/", flush),
    path("crash/", crash),
    path("prove/", prove),
    path("remember/", remember),
]


# People and their browsers.


@pytest.fixture
def alice(policy):
    policy(renew_after=AFTER, renew_grace=GRACE)
    return get_user_model().objects.create_user("alice", password="secret")


@pytest.fixture
def reused():
    """What session_key_reused says: (handle, client) each time."""
    heard = []

    def listen(sender, handle, client, **kwargs):
        assert sender is UserSession
        heard.append((handle, client))

    session_key_reused.connect(listen)
    yield heard
    session_key_reused.disconnect(listen)


def renewed(browser, after=DUE):
    """Let the time come, and return the key that was there before."""
    old = key_of(browser)
    with later(after):
        assert is_in(browser)
    assert key_of(browser) != old
    return old


def seen(browser, after=DUE + 9):
    """Come with the new key for the first time."""
    with later(after):
        assert is_in(browser)


# What can happen in between.

STEPS = {
    "read": (SessionStore, "read"),
    "verify": (UserSessionQuerySet, "verify"),
    "note": (UserSessionQuerySet, "touch"),
    "touch": (SessionStore, "touch"),
    "begin": (SessionStore, "atomic"),
    "insert": (SessionStore, "insert"),
    "replace": (SessionStore, "replace"),
    "follow": (UserSessionQuerySet, "follow"),
    "move": (SessionStore, "move"),
    "remove": (SessionStore, "remove"),
}
# Of a request that renews a key. On the database engine what follows "begin" is a transaction, into
# which nobody can look.
OPEN_STEPS = ["read", "verify", "note", "touch", "begin"]
OPEN_STEPS += ["insert", "replace", "follow"] if store.ON_REDIS else []
WRITES = ["note", "touch", "insert", "replace", "follow"]


@pytest.fixture
def at(monkeypatch):
    """Do something just before the next time that a step is done, or just after it."""

    def at(step, act, after=False):
        interleave = interleaving.after if after else interleaving.before
        return interleave(monkeypatch, *STEPS[step], act)

    return at


# When it happens.


@pytest.mark.standard("NIST-SB-3")
def test_the_key_changes_when_its_time_has_come(shopper):
    browser = shopper()
    old, before = key_of(browser), UserSession.objects.get()
    with later(AFTER - 70):
        response = read(browser)
        assert given(response) == old  # it slides
    with later(DUE):
        response = read(browser)
        assert response.json() == {"cart": "teapot"}
        new = given(response)
        assert re.fullmatch("[a-z2-7]{32}", new)
        assert new != old
        cookie = response.cookies["sessionid"]
        assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
        assert 14 * DAY - 60 < cookie["max-age"] <= 14 * DAY
        assert "no-store" in response.headers["Cache-Control"]
        assert "Cookie" in response.headers["Vary"]
    after = UserSession.objects.get()
    assert (after.pk, after.digest) == (before.pk, digest_of(new))
    assert (after.started_at, after.authenticated_at) == (
        before.started_at,
        before.authenticated_at,
    )
    assert after.last_seen_at - before.started_at >= timedelta(seconds=AFTER)
    assert after.ended_at is None
    session = SessionStore(new)
    assert session.handle == before.pk
    assert session.authenticated_at == before.authenticated_at
    # And again, as long after that.
    with later(2 * AFTER - 70):
        read(browser)
        assert key_of(browser) == new
    with later(2 * AFTER + 5):
        assert cart(browser) == "teapot"
        assert key_of(browser) not in (old, new)
    assert UserSession.objects.get().pk == before.pk


def test_what_the_view_writes_at_that_moment_is_kept(shopper):
    browser = shopper()
    old = key_of(browser)
    with later(DUE):
        response = put(browser, theme="dark")
        assert given(response) == key_of(browser) != old
        assert read(browser).json() == {"cart": "teapot", "theme": "dark"}
    assert row_of(browser).ended_at is None


def test_the_key_changes_on_a_site_that_saves_at_every_request(shopper, settings):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    browser = shopper()
    old = renewed(browser)
    with later(DUE + 9):
        # A cookie that is good is left alone: else a late answer could bring back an old key.
        assert sets_no_cookie(read(browser))
        assert given(read(browse_as(browser, old))) == key_of(browser)


def test_without_a_policy_for_it_no_key_changes(shopper, policy):
    policy()
    browser = shopper()
    old = key_of(browser)
    for days in (7, 14, 21):
        with later(days * DAY - 60):
            assert is_in(browser)
    assert key_of(browser) == old


def test_a_visitor_keeps_the_key(browse, alice):
    browser = browse()
    put(browser, cart="teapot")
    old = key_of(browser)
    for seconds in (DUE, 2 * DUE, DAY):
        with later(seconds):
            assert cart(browser) == "teapot"
    assert key_of(browser) == old
    assert len(store.payloads()) == 1


@pytest.mark.parametrize("how", ["header", "prefetch", "view", "path"])
def test_nobody_is_there_in_a_background_request(shopper, settings, how):
    settings.SESSIONKIT_BACKGROUND = ["/read/", "/aread/"] if how == "path" else []
    headers = {"header": {"X-Background-Request": "1"}, "prefetch": {"Sec-Purpose": "prefetch"}}
    url = "poll" if how == "view" else "read"
    browser = shopper()
    with later(DUE):
        response = browser.get(view(browser, url), headers=headers.get(how, {}))
        assert response.status_code == 200
        assert sets_no_cookie(response)
    assert len(store.payloads()) == 1
    settings.SESSIONKIT_BACKGROUND = []
    renewed(browser)


@pytest.mark.parametrize("failure", ["/fail/", "/crash/"])
@pytest.mark.standard("ASVS-16.5.3")
def test_an_answer_that_failed_brings_no_new_key(shopper, failure):
    browser = shopper()
    with later(DUE):
        response = browser.get(failure)
        assert response.status_code == 500
        assert sets_no_cookie(response)
    assert len(store.payloads()) == 1
    with later(DUE + 5):
        assert cart(browser) == "teapot"
    with later(DUE + 70):  # the next time that activity is written
        old = key_of(browser)
        assert cart(browser) == "teapot"
        assert key_of(browser) != old


@pytest.mark.parametrize("how", ["of the site", "of the session"])
@pytest.mark.standard("NIST-5.1-persistence")
def test_a_cookie_that_goes_with_the_browser_still_does(shopper, settings, how):
    browser = shopper()
    if how == "of the site":
        settings.SESSION_EXPIRE_AT_BROWSER_CLOSE = True
    else:
        session = SessionStore(key_of(browser))
        session.set_expiry(0)
        session.save()
    with later(AFTER - 70):
        assert sets_no_cookie(read(browser))
    renewed(browser)
    cookie = browser.cookies["sessionid"]
    assert (cookie["max-age"], cookie["expires"]) == ("", "")
    old = renewed(browser, after=2 * DUE + 5)
    with later(2 * DUE + 10):  # the answer was lost
        cookie = read(browse_as(browser, old)).cookies["sessionid"]
        assert (cookie.value, cookie["max-age"]) == (key_of(browser), "")


@pytest.mark.parametrize("act", ["signs in again", "proves it", "gets another key"])
def test_a_key_that_is_new_for_other_reasons_has_its_time_before_it(shopper, act):
    browser = shopper()
    with later(AFTER - 100):
        if act == "signs in again":
            post_sign_in(browser)
        elif act == "proves it":
            browser.get("/prove/")
        else:
            session = SessionStore(key_of(browser))
            session.cycle_key()
            browser.cookies["sessionid"] = session.session_key
    key = key_of(browser)
    with later(2 * AFTER - 160):
        assert cart(browser) == "teapot"
    assert key_of(browser) == key
    renewed(browser, after=2 * AFTER - 90)


@pytest.mark.standard("ASVS-7.3.2", "NIST-SB-5")
def test_new_keys_do_not_put_off_the_end(shopper, policy):
    policy(renew_after=AFTER, renew_grace=GRACE, absolute=3600)
    browser = shopper()
    end = UserSession.objects.get().started_at + timedelta(seconds=3600)
    keys = [key_of(browser)]
    for seconds in range(DUE, 3599, DUE + 5):
        with later(seconds):
            cookie = read(browser).cookies["sessionid"]
            assert cookie["max-age"] <= 3600 - seconds
            keys.append(cookie.value)
        assert UserSession.objects.get().expires_at <= end
    assert len(set(keys)) == len(keys) == 6
    with later(3601):
        for key in keys[::-1]:  # nor is anything left that leads anywhere
            assert not is_in(browse_as(browser, key))
            assert not SessionStore().exists(key)
        assert is_told(browser, b"Your session has expired.")


def test_a_session_that_may_last_for_a_year_still_does(shopper):
    browser = shopper()
    cookie = browser.get("/remember/").cookies["sessionid"]
    assert cookie["max-age"] >= 365 * DAY - 10
    renewed(browser)
    assert browser.cookies["sessionid"]["max-age"] >= 365 * DAY - 10
    assert row_of(browser).expires_at - row_of(browser).started_at > timedelta(days=364)
    with later(364 * DAY):
        assert cart(browser) == "teapot"


def test_what_a_renewal_costs(shopper):
    browser = shopper()
    old = key_of(browser)
    with later(DUE):
        # Reads and checks, writes the activity in row and store, and four that are a transaction.
        with round_trips(8 if store.ON_REDIS else 10):
            read(browser)
        assert key_of(browser) != old
        with round_trips(2):  # what is left under the old key, and where that leads
            read(browse_as(browser, old))
        # The new key is seen: the row has followed, what was left expires, and it is noted.
        with round_trips(4):
            read(browser)
        with round_trips(1):
            read(browser)


# Twenty requests at that moment.


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", ["read", "write"])
@pytest.mark.standard("ASVS-15.4.2")
def test_twenty_requests_at_that_moment(shopper, monkeypatch, reused, caplog, what):
    browser = shopper()
    old = key_of(browser)
    # Each has read its session, and its view is done.
    everybody = threading.Barrier(20)
    finish = SessionStore.finish

    def all_at_once(self, answered):
        everybody.wait(30)
        finish(self, answered)

    responses = []

    def request(number):
        tab = browse_as(browser, old)
        response = read(tab) if what == "read" else put(tab, **{f"tab{number}": "here"})
        responses.append(response)

    with later(DUE):
        with monkeypatch.context() as patch:
            patch.setattr(SessionStore, "finish", all_at_once)
            together(*[lambda number=number: request(number) for number in range(20)])
        assert [response.status_code for response in responses] == [200] * 20
        (new,) = {given(response) for response in responses} - {None}
        assert new != old
        if what == "write":
            assert all(given(response) for response in responses)
        # One successor, and what leads to it.
        assert len(store.payloads()) == 2
        assert UserSession.objects.get().digest == digest_of(new)
        written = {f"tab{number}": "here" for number in range(20)} if what == "write" else {}
        for key in (old, new):
            assert read(browse_as(browser, key)).json() == {"cart": "teapot", **written}
    for seconds in (DUE + 10, DUE + 10 + 2 * GRACE, 2 * DUE + 10):
        with later(seconds):
            assert is_in(browse_as(browser, new))
    assert not reused
    assert "did not answer" not in caplog.text


@pytest.mark.django_db(transaction=True)
def test_hundred_requests_of_ten_tabs_and_nobody_arranges_them(shopper, reused, caplog):
    """Each tab keeps the cookie that it was given last."""
    browser = shopper()
    old = key_of(browser)
    given_out = []

    def use(number):
        tab = browse_as(browser, old)
        for turn in range(10):
            response = put(tab, **{f"tab{number}": turn})
            assert response.status_code == 200
            given_out.append(given(response))

    written = {f"tab{number}": "9" for number in range(10)}
    with later(DUE):
        together(*[lambda number=number: use(number) for number in range(10)])
        (key,) = {*given_out} - {None}
        assert key != old
        assert len(store.payloads()) == 2
    for seconds in (DUE + 10, DUE + 80, DUE + 80 + 2 * GRACE):
        with later(seconds):
            tab = browse_as(browser, key)
            assert read(tab).json() == {"cart": "teapot", **written}
            key = key_of(tab)
    assert not reused
    assert "did not answer" not in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("theirs", ["read", "write"])
@pytest.mark.parametrize("mine", ["read", "write"])
@pytest.mark.parametrize("step", OPEN_STEPS)
@pytest.mark.standard("ASVS-15.4.2")
def test_another_request_between_two_steps(shopper, at, reused, step, mine, theirs):
    browser = shopper()
    old = key_of(browser)
    responses = []

    def send(what, name):
        tab = browse_as(browser, old)
        response = read(tab) if what == "read" else put(tab, **{name: "dark"})
        assert response.status_code == 200
        responses.append(response)

    with later(DUE):
        pending = at(step, lambda: together(lambda: send(theirs, "theirs")))
        send(mine, "mine")
        assert not pending
    # Who is told a key is told the one that there is.
    (new,) = {given(response) for response in responses} - {None}
    assert UserSession.objects.get().digest == digest_of(new)
    assert new != old
    assert len(store.payloads()) == 2
    names = [name for name, what in [("mine", mine), ("theirs", theirs)] if what == "write"]
    for seconds in (DUE + 10, DUE + 10 + 2 * GRACE):
        with later(seconds):
            written = read(browse_as(browser, new)).json()
            assert written == {"cart": "teapot", **dict.fromkeys(names, "dark")}
    assert not reused


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("step", OPEN_STEPS)
@pytest.mark.parametrize("how", ["revoked", "signed out"])
@pytest.mark.standard("ASVS-7.4.1", "ASVS-15.4.2")
def test_ended_between_two_steps(shopper, at, step, how):
    browser = shopper()
    old = key_of(browser)

    def end():
        if how == "revoked":
            assert UserSession.objects.revoke() == 1
        else:
            browse_as(browser, old).post("/logout/")

    with later(DUE):
        pending = at(step, lambda: together(end))
        response = put(browser, theme="dark")
        assert not pending
        assert response.status_code in (200, 302)
    reason = EndReason.REVOKED if how == "revoked" else EndReason.LOGOUT
    assert UserSession.objects.get().end_reason == reason
    for key in {old, given(response)} - {None, ""}:
        assert not is_in(browse_as(browser, key))
    with later(DUE + 70):
        for key in {old, given(response)} - {None, ""}:
            assert not is_in(browse_as(browser, key))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("step", OPEN_STEPS)
@pytest.mark.standard("ASVS-15.4.2")
def test_given_another_key_between_two_steps(shopper, at, reused, step):
    """By a change of the password in another tab, say."""
    browser = shopper()
    old = key_of(browser)
    other = SessionStore(old)

    def cycle():
        other.get("")
        other.cycle_key()

    with later(DUE):
        pending = at(step, lambda: together(cycle))
        response = read(browser)
        assert not pending
        assert response.status_code == 200
    assert UserSession.objects.get().digest == digest_of(other.session_key)
    assert given(response) in (None, other.session_key)
    with later(DUE + 70):
        assert cart(browse_as(browser, other.session_key)) == "teapot"
        assert not is_in(browse_as(browser, old))
    assert not reused


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("step", ["read", "verify", "note", "touch"])
def test_another_request_whose_clock_is_ahead(shopper, at, reused, step):
    """For one of them it is time, for the other it is not."""
    browser = shopper()
    old = key_of(browser)
    tab = browse_as(browser, old)

    def theirs():
        with later(5):
            read(tab)

    with later(AFTER - 3):
        pending = at(step, lambda: together(theirs))
        response = read(browser)
        assert not pending
    # Once the activity is written, theirs is not due.
    assert (key_of(tab) == old) is (step == "note")
    assert given(response) in (None, key_of(tab))
    with later(DUE + 2 * GRACE):
        assert cart(tab) == "teapot"
    assert not reused


# A request that is under way meanwhile.


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("step", ["read", "remove"])
@pytest.mark.parametrize("how", ["/logout/", "/flush/"])
@pytest.mark.standard("ASVS-7.4.1", "ASVS-15.4.2", "WSTG-SESS-06")
def test_who_signs_out_meanwhile_has_signed_out(shopper, at, how, step):
    browser = shopper()
    old = key_of(browser)
    tab = browse_as(browser, old)
    with later(DUE):
        if how == "/flush/" or step == "remove":
            pending = at("remove", lambda: together(lambda: read(tab)))
        else:
            pending = at("read", lambda: together(lambda: read(tab)), after=True)
        browser.post(how)
        assert not pending
    assert key_of(tab) != old
    with later(DUE + 5):
        assert not is_in(browse_as(browser, key_of(tab)))
        assert not is_in(browse_as(browser, old))
    assert UserSession.objects.get().end_reason == EndReason.LOGOUT
    assert UserSession.objects.alive() == []


@pytest.mark.parametrize("how", ["/logout/", "/flush/"])
@pytest.mark.standard("ASVS-7.4.1", "WSTG-SESS-06")
def test_who_signs_out_with_the_old_key_has_signed_out(shopper, how):
    """The answer with the new one was lost, or not there yet."""
    browser = shopper()
    old = renewed(browser)
    with later(DUE + 5):
        browse_as(browser, old).post(how)
        assert UserSession.objects.get().end_reason == EndReason.LOGOUT
        for key in (old, key_of(browser)):
            assert not is_in(browse_as(browser, key))


def test_deleting_a_session_by_its_old_key_ends_it(shopper, drive):
    browser = shopper()
    old = renewed(browser)
    drive(SessionStore(), "delete", old)
    assert UserSession.objects.get().end_reason == EndReason.LOGOUT
    assert not is_in(browser)


@pytest.mark.parametrize("operation", ["save", "cycle_key", "reauthenticate"])
@pytest.mark.standard("ASVS-15.4.2")
def test_what_was_loaded_before_is_written_to_the_successor(shopper, drive, operation):
    browser = shopper()
    old, handle = key_of(browser), UserSession.objects.get().pk
    slow = SessionStore(old)
    drive(slow, "get", "cart")
    slow["theme"] = "dark"
    with later(DUE):
        put(browser, language="de")
        renewed_key = key_of(browser)
        assert renewed_key != old
        drive(slow, operation)
        if operation == "save":
            assert slow.session_key == renewed_key
            assert slow.renewed
        else:
            assert slow.session_key not in (old, renewed_key)
            assert not SessionStore().exists(renewed_key)
        kept = {"cart": "teapot", "theme": "dark", "language": "de"}
        session = SessionStore(slow.session_key)
        assert {name: session.get(name) for name in kept} == kept
    assert UserSession.objects.get().pk == handle
    assert row_of(browse_as(browser, slow.session_key)).ended_at is None


def test_a_save_without_a_load_is_written_to_the_successor(shopper, drive):
    """As by clear(), which takes the place of all that is there; but signs out."""
    browser = shopper()
    old = renewed(browser)
    session = SessionStore(old)
    session.clear()
    session["cart"] = "kettle"
    drive(session, "save")
    assert UserSession.objects.get().end_reason == EndReason.LOGOUT
    assert SessionStore(session.session_key).load() == {"cart": "kettle"}
    for key in (old, key_of(browser)):
        assert SessionStore(key).load() == {}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("operation", ["cycle_key", "save"])
@pytest.mark.standard("ASVS-15.4.2")
def test_nobody_waits_for_each_other(shopper, at, caplog, operation):
    """Both write the row of the session and what is stored of it, in a transaction."""
    browser = shopper()
    other = SessionStore(key_of(browser))
    other.get("")
    threads, errors = [], []

    def act():
        try:
            other["theme"] = "dark"
            getattr(other, operation)()
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    def start_and_wait():
        thread = threading.Thread(target=act)
        threads.append(thread)
        thread.start()
        while connection.vendor == "postgresql" and thread.is_alive() and not waits():
            pass

    def waits():
        """Tell whether somebody waits for a lock of ours."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_locks WHERE NOT granted"
                " AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
            )
            return cursor.fetchone()[0]

    with later(DUE):
        pending = at("replace", start_and_wait, after=True)
        response = read(browser)
        assert not pending
        assert response.status_code == 200
        threads[0].join(60)
        assert not threads[0].is_alive()
        assert not errors
    assert "did not answer" not in caplog.text
    assert UserSession.objects.get().digest == digest_of(other.session_key)
    assert SessionStore(other.session_key)["theme"] == "dark"


@pytest.mark.redis
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("operation", ["cycle_key", "reauthenticate"])
def test_a_new_key_for_other_reasons_takes_the_row_first(shopper, at, drive, operation):
    """Where it is not one transaction: what is stored follows when the renewal is over."""
    browser = shopper()
    old, other = key_of(browser), SessionStore(key_of(browser))
    other.get("")
    has_row, is_over, errors = threading.Event(), threading.Event(), []

    def wait():
        has_row.set()
        assert is_over.wait(10)

    def act():
        try:
            drive(other, operation)
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    def start_and_wait():
        thread.start()
        assert has_row.wait(10)

    thread = threading.Thread(target=act)
    with later(DUE):
        at("move", wait)
        at("follow", start_and_wait)
        response = read(browser)
        is_over.set()
        thread.join(60)
    assert not thread.is_alive()
    assert not errors
    assert given(response) in (None, other.session_key)
    assert not is_in(browse_as(browser, old))
    assert UserSession.objects.get().digest == digest_of(other.session_key)
    assert cart(browse_as(browser, other.session_key)) == "teapot"


# The answer with the new cookie is lost.


def test_an_answer_that_is_lost_costs_nothing(shopper, reused):
    browser = shopper()
    old = renewed(browser)
    new = key_of(browser)
    lost = browse_as(browser, old)
    for seconds in (DUE + 5, DUE + 10 * GRACE, 2 * DUE + 100, DAY, 10 * DAY, 20 * DAY, 30 * DAY):
        with later(seconds):
            lost.cookies["sessionid"] = old
            response = put(lost, day=seconds)
            assert response.status_code == 200
            # Told again, and no second successor.
            assert given(response) == new
            assert 14 * DAY - 60 < response.cookies["sessionid"]["max-age"] <= 14 * DAY
            assert given(read(browse_as(browser, old))) == new
            assert is_in(browse_as(browser, old))
            assert len(store.payloads()) == 2
    with later(30 * DAY + 5):
        assert read(browse_as(browser, new)).json() == {"cart": "teapot", "day": str(30 * DAY)}
    assert UserSession.objects.get().digest == digest_of(new)
    assert not reused


def test_an_answer_that_is_lost_costs_nothing_who_only_reads(shopper):
    browser = shopper()
    old = renewed(browser)
    new = key_of(browser)
    for days in (1, 14, 27, 40):
        with later(days * DAY):
            response = read(browse_as(browser, old))
            assert response.json() == {"cart": "teapot"}
            assert given(response) == new
    assert len(store.payloads()) == 2
    with later(55 * DAY):  # then it is over
        assert not is_in(browse_as(browser, old))
        assert not is_in(browse_as(browser, new))


def test_an_answer_that_is_lost_is_told_again_in_the_background(shopper):
    browser = shopper()
    old = renewed(browser)
    with later(DUE + 5):
        poll = browse_as(browser, old)
        response = poll.get(view(poll, "read"), headers={"X-Background-Request": "1"})
        assert given(response) == key_of(browser)


def test_a_failing_answer_does_not_tell_it_again(shopper):
    browser = shopper()
    old = renewed(browser)
    with later(DUE + 5):
        assert sets_no_cookie(browse_as(browser, old).get("/fail/"))


def test_two_answers_that_are_lost(shopper, reused):
    browser = shopper()
    first = renewed(browser)
    second = renewed(browser, after=2 * DUE + 10)  # by its first use
    third = key_of(browser)
    assert len({first, second, third}) == 3
    with later(2 * DUE + 15):
        for key in (first, second):
            response = read(browse_as(browser, key))
            assert response.json() == {"cart": "teapot"}
            assert given(response) == third
    with later(2 * DUE + 15 + 2 * GRACE):
        assert is_in(browser)
        # The grace of the second begins, and that of the first is over.
        assert is_in(browse_as(browser, second))
        assert not is_in(browse_as(browser, first))
    assert len(reused) == 1


def test_the_grace_counts_from_the_first_use_of_the_new_key(shopper, reused):
    browser = shopper()
    old = renewed(browser)
    with later(DUE + 50 * GRACE):
        assert is_in(browse_as(browser, old))
    seen(browser, DUE + 50 * GRACE + 5)
    with later(DUE + 51 * GRACE - 10):
        tab = browse_as(browser, old)
        assert cart(tab) == "teapot"
        assert key_of(tab) == key_of(browser)
        assert given(put(browse_as(browser, old), theme="dark")) == key_of(browser)
    assert not reused
    with later(DUE + 51 * GRACE + 10):
        assert read(browser).json() == {"cart": "teapot", "theme": "dark"}
        assert not is_in(browse_as(browser, old))
    assert len(reused) == 1


def test_later_uses_of_the_new_key_do_not_prolong_the_grace(shopper, reused):
    browser = shopper()
    old = renewed(browser)
    for seconds in range(5, GRACE + 30, 10):
        seen(browser, DUE + seconds)
    with later(DUE + GRACE + 30):
        assert not is_in(browse_as(browser, old))
    assert len(reused) == 1


def test_a_use_in_the_background_is_a_use_of_the_new_key(shopper, reused):
    """Else the old one would be good for as long as a page is open that asks for news."""
    browser = shopper()
    old = renewed(browser)
    with later(DUE + 5):
        browser.get(view(browser, "poll"))
    with later(DUE + GRACE + 30):
        assert not is_in(browse_as(browser, old))
    assert len(reused) == 1


# Several generations.


@pytest.fixture
def generations(shopper, policy):
    """A browser that has had three keys before, all within their grace, and those."""
    policy(renew_after=60, renew_grace=3600)
    browser = shopper()
    return browser, [renewed(browser, after=70 * number) for number in (1, 2, 3)]


def test_the_key_before_the_key_before(generations, reused):
    browser, keys = generations
    new = key_of(browser)
    assert len({*keys, new}) == 4
    with later(220):
        for number, key in enumerate(keys):
            tab = browse_as(browser, key)
            response = put(tab, **{f"tab{number}": "here"})
            assert (response.status_code, given(response)) == (200, new)
        assert read(browser).json() == {"cart": "teapot", "tab0": "here", "tab1": "here"} | {
            "tab2": "here"
        }
    assert len(store.payloads()) == 4
    assert not reused


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.standard("ASVS-16.3.3", "NIST-SB-3")
def test_each_of_them_is_noticed_after_its_grace(generations, reused, number):
    browser, keys = generations
    with later(220):
        assert is_in(browser)
    with later(4000):
        assert not is_in(browse_as(browser, keys[number]))
        assert len(reused) == 1
        assert UserSession.objects.get().end_reason == EndReason.REUSED
        for key in [*keys, key_of(browser)]:
            assert not is_in(browse_as(browser, key))
    assert len(reused) == 1


def end_how(how, browser):
    if how == "revoked":
        assert UserSession.objects.revoke() == 1
    elif how == "signed out":
        browse_as(browser, key_of(browser)).post("/logout/")
    elif how == "other key":
        SessionStore(key_of(browser)).cycle_key()
    elif how == "proved":
        SessionStore(key_of(browser)).reauthenticate()
    elif how == "lost":
        SessionStore.remove([digest_of(key_of(browser))])


HOW = ["revoked", "signed out", "other key", "proved", "lost"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("seconds", [240, 4000, DAY - 100])
@pytest.mark.standard("ASVS-7.4.1", "NIST-SB-3")
def test_keys_before_lead_nowhere_when_the_last_is_gone(generations, reused, how, seconds):
    browser, keys = generations
    with later(220):
        assert is_in(browser)
        end_how(how, browser)
    with later(seconds):
        for key in [*keys, key_of(browser)]:
            for _ in range(2):  # who has been told why, or not, is a visitor
                tab = browse_as(browser, key)
                response = read(tab)
                assert response.status_code in (200, 302)
                assert "teapot" not in response.content.decode()
                assert not is_in(tab)
            # Nor is it of use to whoever fills a cart with it.
            tab = browse_as(browser, key)
            put(tab, cart="kettle")
            assert key_of(tab) not in [*keys, key_of(browser)]
            assert read(tab).json() in ({"cart": "kettle"}, {})
    alive = UserSession.objects.filter(ended_at=None).count()
    assert alive == (1 if how in ("other key", "proved") else 0)


# An old key is used again, after its grace.


@pytest.fixture
def thief(shopper):
    """A browser that got hold of a key, and the one that it is of, which has a new one by now."""
    owner = shopper()
    thief = browse_as(owner, renewed(owner))
    seen(owner)
    return thief, owner


LATE = DUE + 9 + GRACE + 10


@pytest.mark.standard("ASVS-7.4.1", "ASVS-16.3.3", "ASVS-16.2.5", "NIST-SB-3")
def test_reuse_ends_the_session_for_everybody(thief, reused, ended, caplog):
    thief, owner = thief
    row, keys = row_of(owner), [key_of(owner), key_of(thief)]
    with later(LATE):
        response = thief.get("/whoami/", REMOTE_ADDR="192.0.2.66")
        assert response.headers["Location"] == "/login/?next=/whoami/"
        assert deletes_the_cookie(response)
        assert REUSED in thief.get("/login/").content
        assert UserSession.objects.get().end_reason == EndReason.REUSED
        ((handle, client),) = reused
        assert (handle, client.user_agent) == (row.pk, "")
        assert ended == [({row.pk}, EndReason.REUSED, None)]
        (record,) = [record for record in caplog.records if record.name != "django.request"]
        assert record.name == "django.security.SuspiciousSession"
        assert str(row.pk) in record.getMessage()
        # Both, as nobody knows which of them is the thief.
        assert not is_in(browse_as(owner, key_of(owner)))
        assert is_told(owner, REUSED)
        assert len(reused) == 1
    for key in keys:
        assert key not in caplog.text
        assert digest_of(key) not in caplog.text


def test_reuse_is_noticed_whoever_it_is(thief, reused):
    """In a sync or an async view, by a page or by a script."""
    thief, _owner = thief
    with later(LATE):
        response = thief.get(view(thief, "read"), headers=SCRIPT)
        assert response.status_code == 401
        assert response.json()["reason"] == "reused"
    ((handle, client),) = reused
    assert handle == UserSession.objects.get().pk
    assert client.address == "127.0.0.1"


def test_reuse_in_the_background_is_noticed_too(thief, reused):
    thief, owner = thief
    with later(LATE):
        thief.get(view(thief, "read"), headers={"X-Background-Request": "1"})
        assert len(reused) == 1
        assert not is_in(owner)


@pytest.mark.standard("ASVS-7.4.1")
def test_what_the_thief_writes_is_not_written(thief):
    thief, owner = thief
    old = key_of(thief)
    with later(LATE):
        response = put(thief, cart="stolen")
        assert given(response) not in (old, key_of(owner))
        assert not is_in(owner)
    assert UserSession.objects.get().end_reason == EndReason.REUSED
    assert UserSession.objects.alive() == []


@pytest.mark.standard("ASVS-7.4.1", "ASVS-15.4.2")
def test_the_owner_is_about_to_write(thief, drive):
    thief, owner = thief
    session = SessionStore(key_of(owner))
    session["cart"] = "kettle"
    with later(LATE):
        read(thief)
        with pytest.raises(UpdateError):
            drive(session, "save")
    assert UserSession.objects.alive() == []


@pytest.fixture
def reports(policy, alice):
    policy(renew_after=AFTER, renew_grace=GRACE, on_reuse="report")


@pytest.mark.standard("ASVS-16.3.3", "ASVS-16.2.5", "NIST-SB-3")
def test_reuse_is_only_reported(reports, thief, reused, ended, caplog):
    thief, owner = thief
    row, keys = row_of(owner), [key_of(owner), key_of(thief)]
    with later(LATE):
        caplog.clear()
        response = thief.get("/whoami/")
        assert response.content == b"AnonymousUser"
        assert deletes_the_cookie(response)
        ((handle, _client),) = reused
        assert handle == row.pk
        (record,) = caplog.records
        assert record.name == "django.security.SuspiciousSession"
        assert str(row.pk) in record.getMessage()
        assert is_in(owner)
        assert cart(owner) == "teapot"
        # Without the cookie there is nothing to report.
        assert thief.get("/whoami/").content == b"AnonymousUser"
        assert len(reused) == 1
    assert not ended
    assert UserSession.objects.get().ended_at is None
    for key in keys:
        assert key not in caplog.text
        assert digest_of(key) not in caplog.text


def test_who_is_reported_can_not_read_or_write(reports, thief):
    thief, owner = thief
    old = key_of(thief)
    with later(LATE):
        assert read(browse_as(owner, old)).json() == {}
        response = put(thief, cart="stolen")
        assert given(response) not in (old, key_of(owner))  # a session of its own
        assert cart(owner) == "teapot"
        browse_as(owner, old).post("/logout/")
        assert is_in(owner)


def test_a_listener_that_fails_does_not_keep_it_alive(thief):
    def fail(**kwargs):
        raise RuntimeError("out of order")

    thief, owner = thief
    session_key_reused.connect(fail)
    try:
        with later(LATE):
            assert thief.get("/whoami/").status_code == 302
            assert not is_in(owner)
    finally:
        session_key_reused.disconnect(fail)


def test_a_use_within_the_grace_is_none_of_it(thief, reused, caplog):
    thief, owner = thief
    with later(DUE + 9 + GRACE - 10):
        assert is_in(thief)
        assert is_in(owner)
    assert not reused
    assert not [record for record in caplog.records if "security" in record.name]


@pytest.mark.django_db(transaction=True)
def test_two_late_requests_end_it_once(thief, reused, ended):
    thief, owner = thief
    old, both = key_of(thief), threading.Barrier(2)

    def request():
        tab = browse_as(owner, old)
        both.wait(10)
        assert tab.get("/whoami/").status_code == 302

    with later(LATE):
        together(request, request)
    assert [reason for _, reason, _ in ended] == [EndReason.REUSED]
    assert 1 <= len(reused) <= 2


@pytest.mark.standard("ASVS-16.5.2")
def test_the_store_is_down_when_a_reuse_is_noticed(thief, at, reused):
    thief, owner = thief

    def fail():
        raise OperationalError("no route to host")

    with later(LATE):
        pending = at("remove", fail)
        assert thief.get("/whoami/").status_code == 503
        assert not pending
    assert UserSession.objects.get().end_reason == EndReason.REUSED
    with later(LATE + 61):  # what an ended session can outlive at most
        assert is_told(owner, REUSED)


# Locked meanwhile.


def test_an_old_key_of_a_locked_session_opens_nothing(shopper, policy):
    policy(renew_after=AFTER, renew_grace=10 * AFTER, idle=3 * AFTER, lock=True)
    browser = shopper()
    old = renewed(browser)
    seen(browser)
    with later(5 * AFTER):
        for key in (old, key_of(browser)):
            response = browse_as(browser, key).get("/whoami/")
            assert response.headers["Location"].startswith("/account/sessions/reauthenticate/")
            assert "teapot" not in read(browse_as(browser, key)).content.decode()
        locked = browse_as(browser, key_of(browser))
        locked.post("/account/sessions/reauthenticate/", {"password": "secret"})
        assert cart(locked) == "teapot"
        assert key_of(locked) not in (old, key_of(browser))
        for key in (old, key_of(browser)):
            response = browse_as(browser, key).get("/whoami/")
            assert response.content == b"AnonymousUser"
    assert row_of(locked).ended_at is None


def test_a_session_that_is_opened_by_an_old_key(shopper, policy):
    """The answer with the new one was lost, and then its user went away."""
    policy(renew_after=AFTER, renew_grace=GRACE, idle=3 * AFTER, lock=True)
    browser = shopper()
    lost = browse_as(browser, renewed(browser))
    with later(5 * AFTER):
        assert lost.get("/whoami/").status_code == 302
        lost.post("/account/sessions/reauthenticate/", {"password": "secret"})
        assert cart(lost) == "teapot"
        assert not is_in(browser)
    assert row_of(lost).ended_at is None


# It breaks off half-way.


@pytest.mark.parametrize("visit", [5, 70], ids=["soon", "after an interval"])
@pytest.mark.parametrize("answer", ["arrives", "is lost"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", WRITES)
@pytest.mark.standard("ASVS-16.5.2", "ASVS-16.5.3")
def test_a_renewal_that_breaks_off(shopper, at, reused, step, after, answer, visit):
    """A store is down, or the process is killed; or it is done, and nobody hears of it."""

    def fail():
        raise OperationalError("no route to host")

    browser = shopper()
    old = key_of(browser)
    with later(DUE):
        pending = at(step, fail, after)
        assert cart(browser) == "teapot"
        assert not pending
    if answer == "is lost":
        browser.cookies["sessionid"] = old
    # Then, when the activity is written the next times, and at the next renewal.
    for seconds in (visit, visit + 5, 80, 150, AFTER + 85, AFTER + 90, AFTER + 90 + 2 * GRACE):
        with later(DUE + seconds):
            assert cart(browser) == "teapot"
            assert is_in(browser)
    assert key_of(browser) != old
    assert row_of(browser).ended_at is None
    assert not reused


@pytest.mark.parametrize("step", WRITES)
@pytest.mark.standard("ASVS-7.4.1")
def test_what_broke_off_can_be_ended(shopper, at, step):
    def fail():
        raise OperationalError("no route to host")

    browser = shopper()
    old = key_of(browser)
    with later(DUE):
        at(step, fail, after=True)
        assert is_in(browser)
    with later(DUE + 5):
        assert is_in(browser)
        assert [row.pk for row in UserSession.objects.alive()] == [UserSession.objects.get().pk]
        assert UserSession.objects.revoke() == 1
        assert not is_in(browse_as(browser, old))
    with later(DUE + 66):  # within an interval
        for key in (old, key_of(browser)):
            assert not is_in(browse_as(browser, key))
    assert UserSession.objects.alive() == []


@pytest.mark.parametrize("step", WRITES)
def test_what_the_view_writes_is_kept_when_it_breaks_off(shopper, at, step):
    def fail():
        raise OperationalError("no route to host")

    browser = shopper()
    with later(DUE):
        pending = at(step, fail, after=True)
        assert put(browser, theme="dark").status_code == 200
        assert not pending
        assert read(browser).json() == {"cart": "teapot", "theme": "dark"}


@pytest.mark.redis
@pytest.mark.parametrize("at_what_time", ["before", "when it was new", "when it was seen"])
def test_redis_comes_back_with_what_it_had_before(shopper, reused, at_what_time):
    def copy():
        return {key: (store.client().dump(key), store.client().pttl(key)) for key in keys()}

    def keys():
        return [*store._keys().values()]

    browser = shopper()
    older = copy()
    old = renewed(browser)
    if at_what_time != "before":
        older = copy()
    seen(browser)
    if at_what_time == "when it was seen":
        older = copy()
    with later(DUE + 20):
        put(browser, theme="dark")
    store.client().delete(*keys())
    for key, (value, milliseconds) in older.items():
        store.client().restore(key, milliseconds, value)
    if at_what_time == "before":
        # The new key was lost, and the old one is not what the row says: out, and told so.
        with later(DUE + 80):
            assert is_told(browser, b"You were signed out.")
            assert not is_in(browse_as(browser, old))
        return
    for seconds in (30, 35, 80, 140, AFTER + 90, AFTER + 100):
        with later(DUE + seconds):
            assert cart(browser) == "teapot"
    assert row_of(browser).ended_at is None
    assert not reused


# What somebody may do has changed.


@pytest.mark.standard("NIST-SB-3")
def test_new_privileges_take_a_new_key(shopper, alice, policy):
    policy()
    browser = shopper()
    old, before = key_of(browser), UserSession.objects.get()
    assert not before.renew
    alice.groups.add(Group.objects.create(name="others"))
    assert UserSession.objects.get().renew
    with later(30):  # it is noticed when the activity is written
        assert is_in(browser)
        assert key_of(browser) == old
    with later(61):
        assert cart(browser) == "teapot"
        assert key_of(browser) != old
    after = UserSession.objects.get()
    assert (after.pk, after.renew, after.digest) == (before.pk, False, digest_of(key_of(browser)))
    assert after.authenticated_at == before.authenticated_at
    new = key_of(browser)
    with later(130):  # once
        assert is_in(browser)
        assert key_of(browser) == new
    with later(200):
        assert not is_in(browse_as(browser, old))


def test_new_privileges_are_not_forgotten_when_there_is_no_answer(shopper, policy):
    policy()
    browser = shopper()
    old = key_of(browser)
    UserSession.objects.update(renew=True)
    with later(61):
        assert browser.get("/fail/").status_code == 500
        browser.get(view(browser, "poll"))
    assert UserSession.objects.get().renew
    with later(130):
        assert is_in(browser)
    assert key_of(browser) != old
    assert not UserSession.objects.get().renew


def test_another_new_key_will_do(shopper, policy, drive):
    policy()
    browser = shopper()
    UserSession.objects.update(renew=True)
    session = SessionStore(key_of(browser))
    drive(session, "cycle_key")
    assert not UserSession.objects.get().renew
    browser.cookies["sessionid"] = session.session_key
    with later(61):
        assert is_in(browser)
    assert key_of(browser) == session.session_key


# What is left of it.


def test_what_is_left_under_an_old_key_expires(shopper, reused):
    browser = shopper()
    old = renewed(browser)
    assert SessionStore().exists(old)
    seen(browser, DUE + 9)
    with later(DUE + DAY - 60):
        assert SessionStore().exists(old)
    with later(DUE + 9 + DAY + 10):
        assert not SessionStore().exists(old)
        response = browse_as(browser, old).get("/whoami/")
        assert response.content == b"AnonymousUser"
        SessionStore.clear_expired()
        assert set(store.payloads()) == {digest_of(key_of(browser))}
        assert cart(browser) == "teapot"
    assert not reused


def test_what_is_left_expires_although_the_old_key_was_used_within_its_grace(shopper, policy):
    policy(renew_after=2 * DAY, renew_grace=3600)
    browser = shopper()
    old = renewed(browser, after=2 * DAY + 1)
    seen(browser, 2 * DAY + 10)
    with later(2 * DAY + 300):
        assert is_in(browse_as(browser, old))
    with later(3 * DAY + 320):
        assert not SessionStore().exists(old)
        assert cart(browser) == "teapot"


def test_what_is_left_expires_with_its_session(shopper, policy):
    policy(renew_after=AFTER, renew_grace=GRACE, absolute=2 * AFTER)
    browser = shopper()
    old = renewed(browser)
    seen(browser)
    with later(2 * AFTER + 1):
        assert not SessionStore().exists(old)
        SessionStore.clear_expired()
        assert not store.payloads()


def test_what_is_left_holds_nothing_of_the_session(shopper):
    browser = shopper()
    put(browser, letter="A" * 100 + "".join(map(str, range(2000))))
    before = store.payloads()[digest_of(key_of(browser))]
    old = renewed(browser)
    after = store.payloads()
    assert len(after[digest_of(old)]) < len(before) / 4
    # It opens with the old key only.
    digest = digest_of(key_of(browser))
    store.put(digest, after[digest_of(old)])
    assert not is_in(browser)


@pytest.mark.standard("ASVS-3.3.4", "ASVS-14.2.1", "ASVS-16.2.5")
def test_no_key_is_anywhere_but_in_its_cookie(generations, caplog, reused):
    browser, keys = generations
    caplog.set_level("DEBUG")
    pages = []
    with CaptureQueriesContext(connection) as queries:
        for seconds in (220, 300, 380):
            with later(seconds):
                pages.append(read(browser))
                keys.append(key_of(browser))
        with later(400):
            pages.append(read(browser))
            pages.append(browser.get("/account/sessions/"))
        dump = everything()
        with later(5000):
            pages.append(read(browse_as(browser, keys[0])))
            pages.append(browser.get("/whoami/"))
    assert len(reused) == 1
    assert len(set(keys)) == 6
    dump += everything() + caplog.text + repr([query["sql"] for query in queries])
    for page in pages:
        headers = [value for name, value in page.headers.items()]
        dump += page.content.decode() + repr(headers)
    assert digest_of(keys[-1]) in dump
    assert [key for key in keys if key in dump] == []


def everything():
    """All that is stored, and all rows."""
    return repr(store.payloads()) + repr(list(UserSession.objects.values_list()))


@pytest.mark.parametrize("step", ["insert", "replace", "follow", "value"])
@pytest.mark.standard("ASVS-3.3.4")
def test_an_error_report_of_a_renewal_does_not_show_the_keys(shopper, at, step):
    def fail():
        raise RuntimeError("out of order")

    browser = shopper()
    with later(DUE):
        session = SessionStore(key_of(browser))
        session.client = Client(None, "")
        session["cart"] = object() if step == "value" else []
        if step != "value":
            at(step, fail, after=True)
        with pytest.raises((RuntimeError, TypeError)) as caught:
            session.finish(answered=True)
    error = caught.value
    reporter = ExceptionReporter(None, type(error), error, error.__traceback__)
    report = reporter.get_traceback_html() + reporter.get_traceback_text()
    (new,) = [
        frame.f_locals["new_key"]
        for frame, _line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_name == "_renew"
    ]
    assert "new_key" in report
    assert str(new) not in report
    assert key_of(browser) not in report
