"""The key of a session changes by itself, when its time has come, and nobody notices."""

import re
import traceback
from datetime import timedelta
from unittest import mock

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.views.debug import ExceptionReporter

from django_sessionkit import registry
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.models import UserSession
from django_sessionkit.signals import session_renewed
from django_sessionkit.visit.client import Client
from tests import store
from tests.browsers import browse_as, cart, given, put, read, sets_no_cookie, view
from tests.pages import PROVE
from tests.people import is_in, is_told, key_of, post_sign_in, row_of, who
from tests.renewals import AFTER, DUE, GRACE, renewed, seen
from tests.store import DAY, SessionStore, later, round_trips
from tests.urls import urlpatterns as site

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site(__name__),
    pytest.mark.usefixtures("keys_change"),
    pytest.mark.transports("cookie", "header"),
]


# Views of a project.


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
    path("crash/", crash),
    path("prove/", prove),
    path("remember/", remember),
]


# When it happens.


@pytest.mark.standard("NIST-SB-3")
@pytest.mark.transports("cookie")
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


@pytest.fixture
def heard():
    """The handles of the sessions that session_renewed was sent for."""
    handles = []

    def listen(sender, handle, **kwargs):
        assert sender is UserSession
        handles.append(handle)

    session_renewed.connect(listen)
    yield handles
    session_renewed.disconnect(listen)


@pytest.mark.django_db(transaction=True)
@pytest.mark.transports("cookie")
def test_a_new_key_is_announced_once_and_a_sign_in_is_not(shopper, heard):
    browser = shopper()
    assert cart(browser) == "teapot"
    assert heard == []
    old = renewed(browser)
    row = UserSession.objects.get()
    assert heard == [row.pk]
    seen(browser)
    with later(DUE + 20):
        assert cart(browse_as(browser, old)) == "teapot"  # a request that comes late
    assert heard == [row.pk]


def test_a_renewal_costs_no_more_where_nobody_listens(shopper):
    browser = shopper()
    with later(DUE), mock.patch.object(registry, "announce_renewal") as announce:
        read(browser)
    assert not announce.called


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
        assert given(read(browse_as(browser, old))) == key_of(browser)
        # A cookie that is good is left alone: else a late answer could bring back an old key.
        assert sets_no_cookie(read(browser))
        assert sets_no_cookie(read(browse_as(browser, old)))


def test_without_a_policy_for_it_no_key_changes(shopper, policy):
    policy()
    browser = shopper()
    old = key_of(browser)
    for days in (7, 14, 21):
        with later(days * DAY - 60):
            assert is_in(browser)
    assert key_of(browser) == old


@pytest.mark.transports("cookie")
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
@pytest.mark.transports("cookie")
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
            response = read(browser)
            for cookie in response.cookies.values():
                assert cookie["max-age"] <= 3600 - seconds
            keys.append(given(response))
        assert UserSession.objects.get().expires_at <= end
    assert len(set(keys)) == len(keys) == 6
    with later(3601):
        for key in keys[::-1]:  # nor is anything left that leads anywhere
            assert not is_in(browse_as(browser, key))
            assert not SessionStore().exists(key)
        assert is_told(browser, b"Your sign-in has expired.")


@pytest.mark.transports("cookie")
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
        with round_trips(8 if store.APART else 10):
            read(browser)
        assert key_of(browser) != old
        with round_trips(2):  # what is left under the old key, and where that leads
            read(browse_as(browser, old))
        # The new key is seen: the row has followed, what was left expires, and it is noted.
        with round_trips(4):
            read(browser)
        with round_trips(1):
            read(browser)


# Locked meanwhile.


def test_an_old_key_of_a_locked_session_opens_nothing(shopper, policy):
    policy(renew_after=AFTER, renew_grace=10 * AFTER, idle=3 * AFTER, lock=True)
    browser = shopper()
    old = renewed(browser)
    seen(browser)
    with later(5 * AFTER):
        for key in (old, key_of(browser)):
            assert who(browse_as(browser, key)) == PROVE
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
        assert who(lost) == PROVE
        lost.post("/account/sessions/reauthenticate/", {"password": "secret"})
        assert cart(lost) == "teapot"
        assert not is_in(browser)
    assert row_of(lost).ended_at is None


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


def test_another_new_key_will_not_do(shopper, policy, drive):
    """The policy was not asked for it."""
    policy()
    browser = shopper()
    UserSession.objects.update(renew=True)
    session = SessionStore(key_of(browser))
    drive(session, "cycle_key")
    assert UserSession.objects.get().renew
    browser.cookies["sessionid"] = session.session_key
    with later(61):
        assert is_in(browser)
    assert key_of(browser) != session.session_key
    assert not UserSession.objects.get().renew


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
    store.tamper(digest, after[digest_of(old)])
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
        headers = [value for name, value in page.headers.items() if name != "Session-Key"]
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
