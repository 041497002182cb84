"""Whoever comes with an old key of a session later on is noticed."""

import threading

import pytest
from django.contrib.sessions.backends.base import UpdateError
from django.db import OperationalError

from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.signals import session_key_reused
from tests import store
from tests.apps import Keeping
from tests.browsers import SCRIPT, browse_as, cart, deletes_the_cookie, given, put, read, view
from tests.interleaving import together
from tests.people import is_in, is_told, key_of, row_of, who
from tests.renewals import AFTER, DUE, GRACE, REUSED, renewed, seen
from tests.store import DAY, SessionStore, later

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("keys_change"),
    pytest.mark.transports("cookie", "header"),
]


# Several generations.


def test_the_key_before_the_key_before(generations, reused):
    browser, keys = generations
    new = key_of(browser)
    assert len({*keys, new}) == 4
    with later(220):
        for number, key in enumerate(keys[1:]):
            tab = browse_as(browser, key)
            response = put(tab, **{f"tab{number}": "here"})
            # The keys in between have reached the browser, the last one may have got lost.
            assert (response.status_code, given(response)) == (200, new if number == 1 else None)
        assert read(browser).json() == {"cart": "teapot", "tab0": "here", "tab1": "here"}
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
            # For an app that nobody knows, nothing is kept.
            assert isinstance(tab, Keeping) or key_of(tab) not in [*keys, key_of(browser)]
            assert read(tab).json() in ({"cart": "kettle"}, {})
    # The first key comes too late for the second, whatever became of the last one. Only a new proof
    # of identity makes that nobody's business.
    goes_on = how == "proved" or (how == "other key" and seconds == 240)
    assert UserSession.objects.filter(ended_at=None).count() == goes_on


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
        assert is_told(thief, REUSED)
        assert is_told(thief, REUSED) is isinstance(thief, Keeping)  # a browser has no cookie now
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
        assert (response.json(), response.headers["Session-Ended"]) == ({}, "reused")
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


@pytest.mark.site("tests.calls")
@pytest.mark.transports("cookie")
def test_reuse_that_is_only_reported_writes_nothing_unread(reports, thief, ended):
    thief, owner = thief
    former = key_of(thief)
    with later(LATE):
        thief.post("/overwrite/")
        assert key_of(thief) != former  # that of a new session, which has what was written
        assert is_in(owner)
        assert cart(owner) == "teapot"
    assert not ended


@pytest.mark.standard("ASVS-16.3.3", "ASVS-16.2.5", "NIST-SB-3")
def test_reuse_is_only_reported(reports, thief, reused, ended, caplog):
    thief, owner = thief
    row, keys = row_of(owner), [key_of(owner), key_of(thief)]
    with later(LATE):
        caplog.clear()
        response = thief.get("/whoami/")
        assert response.content == b"AnonymousUser"
        assert isinstance(thief, Keeping) or deletes_the_cookie(response)
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
            assert who(thief) == ""
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
        assert who(tab) == ""

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
