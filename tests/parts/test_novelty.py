"""What is new at a sign-in, by the rows that the registry still has of its user."""

import uuid
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_sessionkit import novelty
from django_sessionkit.models import Novelty, UserSession
from django_sessionkit.novelty import network_of, networks_of, what_is_new
from tests.people import CHROME, FIREFOX, FIREFOX_ON_WINDOWS, IPHONE, NEW_FIREFOX

pytestmark = pytest.mark.once

LAPTOP, TELEPHONE, THEIRS = uuid.UUID(int=1), uuid.UUID(int=2), uuid.UUID(int=3)
HOME, SAME_PROVIDER, OFFICE = "192.0.2.1", "192.0.200.9", "198.51.100.7"
HOME_IPV6, SAME_PROVIDER_IPV6, OTHER_IPV6 = "2001:db8:1:2::3", "2001:db8:ffff::9", "2001:db9::1"


def row(browser=LAPTOP, user_agent=FIREFOX, ip=HOME, **fields):
    return UserSession(
        **{"browser": browser, "user_agent": user_agent, "ip": ip, "networks": networks_of(ip)}
        | fields
    )


@pytest.mark.parametrize(
    ("sign_in", "before", "expected"),
    [
        # The first one of an account, as far as anybody knows.
        (row(), [], ""),
        (row(), [row(None, "", None)], ""),  # moved here from another engine, and not used since
        # The browser is known by its cookie, wherever it is and whatever it is called now.
        (row(ip=OFFICE), [row()], ""),
        (row(ip=None), [row()], ""),
        (row(user_agent=NEW_FIREFOX, ip=OFFICE), [row()], ""),
        (row(user_agent=CHROME, ip=OFFICE), [row()], ""),
        # Its cookies were cleared, but it is where it was before.
        (row(THEIRS), [row()], ""),
        (row(THEIRS, NEW_FIREFOX), [row()], ""),
        (row(THEIRS, ip=SAME_PROVIDER), [row()], ""),
        (row(THEIRS, ip=SAME_PROVIDER_IPV6), [row(ip=HOME_IPV6)], ""),
        (row(THEIRS, ip=OFFICE), [row(networks=networks_of(OFFICE) + networks_of(HOME))], ""),
        (row(THEIRS), [row(networks=networks_of(OFFICE) + networks_of(HOME))], ""),
        (row(None), [row(None)], ""),  # the site has switched the cookie off
        # Somebody else, or another browser.
        (row(THEIRS, ip=OFFICE), [row()], "device"),
        (row(THEIRS, ip=OTHER_IPV6), [row(ip=HOME_IPV6)], "device"),
        (row(THEIRS, ip=HOME_IPV6), [row()], "device"),
        (row(THEIRS, CHROME), [row()], "device"),
        (row(THEIRS, FIREFOX_ON_WINDOWS), [row()], "device"),
        (row(THEIRS, ""), [row()], "device"),
        (row(None, ip=OFFICE), [row(None)], "device"),
        # The browser was used there, but not on this system; the system, but not there.
        (row(THEIRS, IPHONE), [row(), row(TELEPHONE, IPHONE, OFFICE)], "device"),
        # The beginning of a network is none.
        (row(THEIRS, ip="19.0.2.1"), [row(networks="19.0.0.0/16"[:-1])], "device"),
        (row(THEIRS, ip="92.0.2.1"), [row(networks="192.0.0.0/16,")], "device"),
        # Nothing is known of where it is: that is no network to be known by.
        (row(THEIRS, ip=None), [row(ip=None)], "device"),
        (row(None, ip=None), [row(None, ip=None)], "device"),
        # The site does not know who is asking.
        (row(None, "", None), [row()], ""),
    ],
)
def test_what_is_new(sign_in, before, expected):
    assert what_is_new(sign_in, before) == expected


REPORTED = {"reported_at": "at noon"}


@pytest.mark.parametrize(
    ("sign_in", "before", "expected"),
    [
        # The user did not recognise the last session of this browser.
        (row(), [row(**REPORTED)], "device"),
        (row(ip=OFFICE), [row(**REPORTED), row()], "device"),
        # It is in a network where they had left it uncontradicted.
        (row(), [row(**REPORTED), row()], "device"),
        (row(None), [row(**REPORTED), row()], "device"),  # its cookies were cleared
        (row(), [row(**REPORTED), row(), row(TELEPHONE)], ""),  # as another of theirs, there
        # They did recognise it since.
        (row(ip=OFFICE), [row(), row(**REPORTED)], ""),
        # What they did not recognise vouches for nothing.
        (row(TELEPHONE), [row(THEIRS, **REPORTED), row(LAPTOP, CHROME)], "device"),
    ],
)
def test_browser_that_was_not_recognised_is_new_again(sign_in, before, expected):
    assert what_is_new(sign_in, before) == expected


@pytest.fixture
def world(monkeypatch):
    """Where addresses are: at home, on the way and at work."""
    countries = {HOME: "DE", SAME_PROVIDER: "DE", OFFICE: "FR", None: ""}
    monkeypatch.setattr(novelty, "country_of", lambda address: countries.get(address, ""))


@pytest.mark.parametrize(
    ("sign_in", "before", "expected"),
    [
        (row(ip=OFFICE), [row()], "place"),
        (row(ip=OFFICE), [row(), row(TELEPHONE, IPHONE, OFFICE)], ""),
        (row(ip=OFFICE), [row(), row(TELEPHONE, IPHONE, OFFICE, **REPORTED)], "place"),
        (row(ip=SAME_PROVIDER), [row()], ""),
        (row(THEIRS, ip=OFFICE), [row()], "device"),  # which says more
        # Nobody knows where they are, or were.
        (row(ip=HOME_IPV6), [row()], ""),
        (row(ip=OFFICE), [row(ip=HOME_IPV6)], ""),
        (row(ip=OFFICE), [row(ip=None)], ""),
        (row(ip=OFFICE), [], ""),
    ],
)
def test_known_browser_in_a_country_of_its_own_is_in_an_unusual_place(
    sign_in, before, expected, world
):
    assert what_is_new(sign_in, before) == expected


def test_network_is_that_of_a_provider():
    assert network_of(HOME) == network_of(SAME_PROVIDER) == "192.0.0.0/16"
    assert network_of(HOME_IPV6) == network_of(SAME_PROVIDER_IPV6) == "2001:db8::/32"
    assert network_of(None) == network_of("") == networks_of(None) == ""


ADDRESSES = st.none() | st.ip_addresses().map(str)
ROWS = st.builds(
    row,
    st.sampled_from([None, LAPTOP, TELEPHONE, THEIRS]),
    st.sampled_from(["", FIREFOX, CHROME, IPHONE, "curl/8", "Mozilla/5.0 (" * 20]),
    ADDRESSES,
    reported_at=st.sampled_from([None, "at noon"]),
)


@given(ROWS, st.lists(ROWS, max_size=8))
def test_stranger_is_never_taken_for_somebody(sign_in, before):
    """Whoever has neither the cookie, nor a network of the user's, is a new device."""
    sign_in.browser = uuid.uuid4()
    used = {network_of(other.ip) for other in before} - {""}
    known = [other for other in before if other.browser or other.user_agent or other.ip]
    if network_of(sign_in.ip) not in used:
        assert what_is_new(sign_in, before) == (Novelty.DEVICE if known else "")


@given(ROWS, st.lists(ROWS, max_size=8))
def test_browser_that_has_just_signed_in_is_known_everywhere(sign_in, before):
    last = row(LAPTOP, CHROME, HOME)
    sign_in.browser = LAPTOP
    assert what_is_new(sign_in, [last, *before]) == ""


@given(ROWS, st.lists(ROWS, max_size=8), st.lists(ROWS, max_size=8))
def test_what_was_recognised_makes_nothing_newer(sign_in, before, more):
    """More rows that the user has not objected to never turn a known device into a new one."""
    sign_in.browser, more = uuid.uuid4(), [each for each in more if each.reported_at is None]
    if before and what_is_new(sign_in, before) == "":
        known = [other for other in before if other.browser or other.user_agent or other.ip]
        assert not known or what_is_new(sign_in, [*before, *more]) == ""


@given(st.ip_addresses())
def test_every_address_is_in_its_network(address):
    assert ip_address(address) in novelty.ipaddress.ip_network(network_of(str(address)))
