"""
A session that is suddenly used with another browser, on another system or from another network:
told as stories of Alice, of those who have copied her cookie, and of her telephone on the train.
"""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY
from django.db import OperationalError
from django.http import HttpResponse
from django.test import Client
from django.urls import path

from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.signals import session_moved
from tests import store
from tests.browsers import PAGE, SCRIPT, read, view
from tests.pages import PROVE
from tests.people import CHROME_ON_LINUX as CHROME
from tests.people import (
    FIREFOX,
    FIREFOX_ON_WINDOWS,
    IPHONE,
    NEW_FIREFOX,
    is_in,
    is_told,
    key_of,
    only_row,
    told,
    who,
)
from tests.store import SessionStore, round_trips, travel
from tests.urls import urlpatterns as site

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site(__name__),
    pytest.mark.transports("cookie", "header"),
]


ALL = ("browser", "system", "network")

HOME, ELSEWHERE = "192.0.2.7", "198.51.100.7"


SEEN: list[Any] = []


def look(request):
    """Tells the test what it has seen of its visitor."""
    SEEN.append((str(request.user), request.session.get("cart")))
    return HttpResponse("seen")


async def alook(request):
    SEEN.append((str(await request.auser()), await request.session.aget("cart")))
    return HttpResponse("seen")


urlpatterns = [*site, path("look/", look), path("alook/", alook)]


@pytest.fixture
def browse(client_kind, settings):
    """Open a browser of some kind, somewhere: the site is behind a proxy."""
    settings.SESSIONKIT_TRUSTED_PROXIES = 1

    def browse(user_agent=FIREFOX, address=HOME):
        headers = PAGE | {"user-agent": user_agent, "x-forwarded-for": address}
        headers = {name: value for name, value in headers.items() if value is not None}
        return client_kind(raise_request_exception=False, headers=headers)

    return browse


@pytest.fixture
def copy(browse):
    """Open a browser that has the cookie of another one."""

    def copy(browser, user_agent=FIREFOX, address=HOME):
        other = browse(user_agent, address)
        other.cookies["sessionid"] = key_of(browser)
        return other

    return copy


@pytest.fixture
def moved():
    """What session_moved says: (handle, changed, address) each time."""
    heard = []

    def listen(sender, handle, changed, client, **kwargs):
        assert sender is UserSession
        heard.append((handle, changed, client.address))

    session_moved.connect(listen)
    yield heard
    session_moved.disconnect(listen)


# What is a change.

CHANGES = [
    (FIREFOX, HOME, []),
    (NEW_FIREFOX, HOME, []),
    (FIREFOX, "192.0.2.250", []),
    (None, HOME, ["browser", "system"]),
    ("x", HOME, ["browser", "system"]),
    ("Mozilla/5.0", HOME, ["browser", "system"]),
    ("Firefox/150.0", HOME, ["system"]),
    ("", "unknown", ["browser", "system"]),
    (FIREFOX, "unknown", []),
    ("curious", "", ["browser", "system", "network"]),  # of the proxy itself
    (FIREFOX, None, ["network"]),
    (CHROME, HOME, ["browser"]),
    (FIREFOX_ON_WINDOWS, HOME, ["system"]),
    (IPHONE, HOME, ["browser", "system"]),
    (FIREFOX, ELSEWHERE, ["network"]),
    (FIREFOX, "192.0.3.7", ["network"]),
    (FIREFOX, "2001:db8::7", ["address family"]),
    (IPHONE, "2001:db8::7", ["browser", "system", "address family"]),
    (NEW_FIREFOX, ELSEWHERE, ["network"]),
    (IPHONE, ELSEWHERE, ["browser", "system", "network"]),
]


@pytest.mark.parametrize(("user_agent", "address", "changed"), CHANGES)
@pytest.mark.standard("ASVS-8.2.4", "NIST-5.3-monitoring")
def test_what_is_a_change(shopper, copy, policy, moved, user_agent, address, changed):
    policy(bind=ALL)
    other = copy(shopper(), user_agent, address)
    assert read(other).json() == {"cart": "teapot"}
    assert [names for _handle, names, _address in moved] == [changed] * bool(changed)


@pytest.mark.parametrize(
    ("address", "changed"),
    [
        ("2001:db8:1:ffff:ffff::9", []),
        ("[2001:db8:1::9]:4711", []),
        ("2001:db8:2::7", ["network"]),
        (HOME, ["address family"]),
    ],
)
def test_a_network_of_ipv6_has_48_bits(shopper, copy, policy, moved, address, changed):
    policy(bind=ALL)
    other = copy(shopper(FIREFOX, "2001:db8:1:2::7"), FIREFOX, address)
    assert read(other).json() == {"cart": "teapot"}
    assert [names for _handle, names, _address in moved] == [changed] * bool(changed)


@pytest.mark.parametrize("bind", [(), *[(name,) for name in ALL], ("system", "network")])
def test_only_what_the_policy_names_counts(shopper, copy, policy, moved, bind):
    policy(bind=bind, on_change="ask")
    other = copy(shopper(), IPHONE, ELSEWHERE)
    assert is_in(other) is (not bind)
    assert [names for _handle, names, _address in moved] == [list(bind)] * bool(bind)


def test_it_is_off_unless_somebody_wants_it(shopper, copy, moved, caplog):
    assert is_in(copy(shopper(), IPHONE, ELSEWHERE))
    assert moved == []
    assert caplog.text == ""


@pytest.mark.parametrize("on_change", ["report", "ask", "end"])
def test_what_was_not_known_at_the_sign_in_counts_from_the_first_request_on(
    alice, copy, browse, policy, moved, on_change
):
    policy(bind=ALL, on_change=on_change)
    session = SessionStore()
    session[SESSION_KEY] = str(alice.pk)
    session.save()
    browser = browse()
    browser.cookies["sessionid"] = session.session_key
    assert read(browser).status_code == 200
    assert moved == []
    with round_trips(1):  # it is written down once
        assert read(browser).status_code == 200
    told = {"report": set(), "ask": {"Session-Locked"}, "end": {"Session-Ended"}}
    response = read(copy(browser, IPHONE, ELSEWHERE), **SCRIPT)
    assert {name for name in response.headers if name.startswith("Session-")} == told[on_change]
    assert len(moved) == 1


@pytest.mark.parametrize("on_change", ["report", "ask", "end"])
@pytest.mark.transports("cookie")
def test_a_visitor_who_has_not_signed_in_may_go_where_they_like(
    browse, copy, policy, moved, on_change
):
    policy(bind=ALL, on_change=on_change)
    browser = browse()
    browser.post(f"/{browser.a}write/", {"cart": "teapot"})
    assert read(copy(browser, IPHONE, ELSEWHERE)).json() == {"cart": "teapot"}
    assert moved == []


@pytest.mark.parametrize("on_change", ["ask", "end"])
def test_a_session_that_is_used_without_a_request_has_not_moved(
    shopper, policy, moved, drive, on_change
):
    policy(bind=ALL, on_change=on_change)
    browser = shopper()
    session = SessionStore(key_of(browser))
    assert drive(session, "get", "cart") == "teapot"
    session["cart"] = "kettle"
    drive(session, "save")
    assert moved == []
    assert read(browser).json() == {"cart": "kettle"}
    assert not is_in(copy_of(browser, IPHONE))  # and is bound as before


def copy_of(browser, user_agent):
    other = Client(headers=PAGE | {"user-agent": user_agent}, raise_request_exception=False)
    other.cookies["sessionid"] = key_of(browser)
    return other


# Report.


@pytest.mark.standard("ASVS-8.2.4", "ASVS-16.3.3", "NIST-5.3-monitoring")
def test_a_change_is_reported_once_and_the_session_goes_on(shopper, copy, policy, moved, caplog):
    policy(bind=ALL)
    browser = shopper()
    handle, key = only_row().pk, key_of(browser)
    other = copy(browser, CHROME, ELSEWHERE)
    for _ in range(3):
        assert read(other).json() == {"cart": "teapot"}
    assert moved == [(handle, ["browser", "network"], ELSEWHERE)]
    (record,) = [line for line in caplog.records if line.name.startswith("django.security")]
    assert record.name == "django.security.SuspiciousSession"
    said = record.getMessage()
    assert said == f"Session {handle} is used with another browser, network"
    assert key not in caplog.text
    # The way back is another one.
    for _ in range(3):
        assert is_in(browser)
    assert [names for _handle, names, _address in moved[1:]] == [["browser", "network"]]
    assert only_row().ended_at is None


def test_a_browser_that_hides_is_reported_once_and_so_is_its_way_back(shopper, copy, policy, moved):
    policy(bind=ALL)
    browser = shopper()
    for user_agent in ("", "x", None, IPHONE, NEW_FIREFOX, FIREFOX):
        read(copy(browser, user_agent))
    device = ["browser", "system"]
    assert [names for _handle, names, _address in moved] == [device] * 3


def test_a_network_that_is_not_known_any_more_is_remembered(shopper, copy, policy, moved):
    policy(bind=ALL)
    browser = shopper()
    for address in ("unknown", HOME, "unknown"):
        read(copy(browser, FIREFOX, address))
    assert moved == []
    read(copy(browser, FIREFOX, ELSEWHERE))
    assert [names for _handle, names, _address in moved] == [["network"]]


@pytest.mark.parametrize("user_agent", [None, "x", "Mozilla/5.0"])
@pytest.mark.parametrize(
    ("on_change", "header"), [("ask", "Session-Locked"), ("end", "Session-Ended")]
)
def test_a_thief_who_does_not_say_what_they_use_is_kept_out(
    shopper, copy, policy, moved, user_agent, on_change, header
):
    policy(bind=("browser",), on_change=on_change)
    response = read(copy(shopper(), user_agent), **SCRIPT)
    assert (response.json(), response.headers[header]) == ({}, "moved")
    assert [names for _handle, names, _address in moved] == [["browser"]]


# A browser with an address of IPv4 and one of IPv6.

HOME6, ELSEWHERE6 = "2001:db8:1::7", "2001:db8:2::7"


@pytest.mark.parametrize("on_change", ["report", "ask", "end"])
def test_a_browser_with_two_addresses_is_reported_once(
    shopper, copy, policy, moved, caplog, on_change
):
    policy(bind=("network",), on_change=on_change)
    browser = shopper()
    for address in (HOME, HOME6) * 3:
        assert read(copy(browser, FIREFOX, address)).json() == {"cart": "teapot"}
    assert moved == [(only_row().pk, ["address family"], HOME6)]
    assert caplog.text.count("is used with another address family") == 1
    # Each of the two networks is known now.
    for address in (ELSEWHERE6, ELSEWHERE):
        copied = who(copy(browser, FIREFOX, address))
        assert moved[-1][1:] == (["network"], address)
        assert copied == {"report": "alice", "ask": PROVE, "end": ""}[on_change]
        if on_change == "end":
            break


def test_a_browser_that_moves_with_both_addresses_is_reported_for_each(
    shopper, copy, policy, moved
):
    policy(bind=("network",))
    browser = shopper()
    for address in (HOME6, ELSEWHERE, ELSEWHERE6, ELSEWHERE, ELSEWHERE6):
        read(copy(browser, FIREFOX, address))
    assert [each[1:] for each in moved] == [
        (["address family"], HOME6),
        (["network"], ELSEWHERE),
        (["network"], ELSEWHERE6),
    ]


def test_what_a_view_writes_then_is_kept(shopper, copy, policy, moved):
    policy(bind=ALL)
    other = copy(shopper(), IPHONE)
    other.post(f"/{other.a}write/", {"cart": "kettle"})
    assert read(other).json() == {"cart": "kettle"}
    assert len(moved) == 1


def test_a_listener_that_fails_is_no_obstacle(shopper, copy, policy, caplog):
    def fail(**kwargs):
        raise RuntimeError("out of order")

    policy(bind=ALL)
    other = copy(shopper(), IPHONE)
    session_moved.connect(fail)
    try:
        assert read(other).json() == {"cart": "teapot"}
    finally:
        session_moved.disconnect(fail)
    assert "out of order" in caplog.text


def test_it_is_seen_at_once_and_in_the_background_as_well(shopper, copy, policy, moved):
    policy(bind=ALL)
    other = copy(shopper(), IPHONE)
    assert read(other, **{"x-background-request": "1"}).json() == {"cart": "teapot"}
    assert [names for _handle, names, _address in moved] == [["browser", "system"]]
    assert read(other, **{"x-background-request": "1"}).json() == {"cart": "teapot"}
    assert len(moved) == 1


# Ask.


@pytest.mark.standard("ASVS-8.2.4", "NIST-5.3-monitoring")
@pytest.mark.transports("cookie")
def test_who_comes_with_a_copy_is_asked_for_the_password(shopper, copy, policy, moved, caplog):
    policy(bind=ALL, on_change="ask")
    browser = shopper()
    key, before = key_of(browser), store.payloads()
    thief = copy(browser, CHROME)
    response = thief.get(view(thief, "private"))
    assert response.headers["Location"] == f"{PROVE}?next=%2F{thief.a}private%2F"
    assert "sessionid" not in response.cookies
    response = read(thief, **SCRIPT)
    assert (response.json(), response.headers["Session-Locked"]) == ({}, "moved")
    response = thief.post(f"/{thief.a}write/", {"cart": "kettle"})
    assert response.headers["Location"] == PROVE
    assert store.payloads() == before
    assert moved
    assert all(each == (only_row().pk, ["browser"], HOME) for each in moved)
    assert "is used with another browser" in caplog.text
    assert key not in caplog.text
    # It is still open where it was.
    assert read(browser).json() == {"cart": "teapot"}
    assert not only_row().is_locked


@pytest.mark.standard("ASVS-8.2.4", "ASVS-7.2.4")
def test_the_password_ties_it_to_where_its_user_is_now(shopper, copy, policy, moved):
    policy(bind=ALL, on_change="ask")
    browser = shopper()
    handle = only_row().pk
    phone = copy(browser, IPHONE, ELSEWHERE)
    response = phone.post(PROVE, {"password": "wrong", "next": "/read/"})
    assert response.status_code == 200
    assert not is_in(phone)
    response = phone.post(PROVE, {"password": "secret", "next": "/read/"})
    assert response.headers["Location"] == "/read/"
    del moved[:]
    assert read(phone).json() == {"cart": "teapot"}
    assert moved == []
    assert only_row().pk == handle
    assert browser.get("/whoami/").content == b"AnonymousUser"  # its key is of no use any more
    assert not is_in(copy(phone, FIREFOX, HOME))
    assert [names for _handle, names, _address in moved] == [list(ALL)]


def test_to_sign_in_there_ends_it(shopper, copy, policy):
    policy(bind=ALL, on_change="ask")
    browser = shopper()
    other = copy(browser, IPHONE)
    assert not is_in(other)
    other.post("/login/", {"username": "alice", "password": "secret"})
    assert is_in(other)
    assert not is_in(browser)
    assert UserSession.objects.active().count() == 1
    assert UserSession.objects.get(ended_at__isnull=False).end_reason == EndReason.LOGOUT


def test_the_longest_time_goes_on(shopper, copy, policy):
    policy(bind=ALL, on_change="ask", absolute=3600)
    phone = copy(shopper(), IPHONE)
    with travel(timedelta(minutes=50)):
        phone.post(PROVE, {"password": "secret"})
        assert is_in(phone)
    with travel(timedelta(minutes=61)):
        assert told(phone) == "expired"


def test_it_can_be_ended_meanwhile(shopper, copy, policy, drive):
    policy(bind=ALL, on_change="ask")
    other = copy(shopper(), IPHONE)
    assert not is_in(other)
    assert UserSession.objects.revoke() == 1
    assert told(other) == "revoked"


# End.


@pytest.mark.standard("ASVS-8.2.4", "ASVS-7.4.1", "NIST-5.3-monitoring")
def test_who_comes_with_a_copy_ends_it_for_everybody(shopper, copy, policy, moved, caplog):
    policy(bind=ALL, on_change="end")
    browser = shopper()
    handle, key = only_row().pk, key_of(browser)
    thief = copy(browser, FIREFOX_ON_WINDOWS)
    assert is_told(thief, b"your browser or network has changed")
    assert moved == [(handle, ["system"], HOME)]
    assert only_row().end_reason == EndReason.MOVED
    assert not store.payloads()
    assert key not in caplog.text
    assert told(copy(browser, FIREFOX)) == "moved"
    assert is_told(browser, b"your browser or network has changed")
    assert len(moved) == 1


def test_a_script_with_a_copy_ends_it_as_well(shopper, copy, policy):
    policy(bind=("network",), on_change="end")
    browser = shopper()
    response = read(copy(browser, FIREFOX, ELSEWHERE), **SCRIPT)
    assert (response.json(), response.headers["Session-Ended"]) == ({}, "moved")
    assert not is_in(browser)


@pytest.mark.parametrize("on_change", ["ask", "end"])
@pytest.mark.standard("ASVS-8.2.4")
def test_no_view_takes_who_has_a_copy_for_alice(shopper, copy, policy, on_change):
    policy(bind=ALL, on_change=on_change)
    thief = copy(shopper(), IPHONE, ELSEWHERE)
    SEEN.clear()
    assert thief.get(f"/{thief.a}look/").status_code == 200
    thief.post(f"/{thief.a}look/")
    assert SEEN == [("AnonymousUser", None)] * 2


def test_a_store_that_is_down_gives_nothing_away(shopper, copy, policy, monkeypatch):
    """Its row is marked, so that whatever the store still has is refused when it is due."""

    def no_route(*args):
        raise OperationalError("no route to host")

    policy(bind=ALL, on_change="end")
    browser = shopper()
    thief = copy(browser, CHROME)
    with monkeypatch.context() as down:
        down.setattr(SessionStore, "remove", staticmethod(no_route))
        assert read(thief).status_code == 503
    assert only_row().end_reason == EndReason.MOVED
    with travel(timedelta(seconds=61)):
        assert not is_in(browser)
        assert not store.payloads()


# Together with a lock.


def test_who_was_idle_is_asked_anyway(shopper, copy, policy, moved):
    policy(idle=600, lock=True, bind=ALL, on_change="end")
    browser = shopper()
    with travel(timedelta(seconds=601)):
        assert who(copy(browser, FIREFOX, ELSEWHERE)) == PROVE
        assert moved == []
        elsewhere = copy(browser, NEW_FIREFOX, ELSEWHERE)
        elsewhere.post(PROVE, {"password": "secret"})
        assert is_in(elsewhere)  # it is bound to this network now
        assert moved == []
        assert not is_in(copy(elsewhere))
        assert [names for _handle, names, _address in moved] == [["network"]]


# What it costs.


@pytest.mark.parametrize(
    ("on_change", "first", "then"),
    # The end has a savepoint, because the test has a transaction.
    [("report", 2, 1), ("ask", 1, 1), ("end", 8, 0)],
)
@pytest.mark.transports("cookie")
def test_what_it_costs(shopper, copy, policy, on_change, first, then):
    policy(bind=ALL, on_change=on_change)
    browser = shopper()
    with round_trips(1):
        read(browser)
    other = copy(browser, IPHONE, ELSEWHERE)
    with round_trips(first):
        read(other)
    with round_trips(then):
        read(other)
