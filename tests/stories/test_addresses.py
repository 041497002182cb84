"""How much of an address the registry keeps, and for how long: a site may not want to know more."""

from datetime import timedelta

import pytest
from django.utils import timezone

from django_sessionkit.models import UserSession
from django_sessionkit.purging import purge
from tests import people
from tests.browsers import PAGE, view
from tests.interleaving import before_write
from tests.people import is_still_in, only_row, post_sign_in, row_of
from tests.store import DAY

pytestmark = pytest.mark.django_db

HOME, AT_HOME, ELSEWHERE = "192.0.2.7", "192.0.2.99", "198.51.100.7"
HOME_6, AT_HOME_6 = "2001:db8:1:2::7", "2001:db8:1:99::1"


@pytest.fixture
def browse(client_kind, settings):
    """Open a browser with an address: the site is behind a proxy."""
    settings.SESSIONKIT_TRUSTED_PROXIES = 1

    def browse(address=HOME):
        headers = PAGE | {"x-forwarded-for": address}
        return client_kind(raise_request_exception=False, headers=headers)

    return browse


@pytest.mark.parametrize(
    ("extent", "address", "kept"),
    [
        ("whole", HOME, HOME),
        ("whole", HOME_6, HOME_6),
        ("truncated", HOME, "192.0.2.0"),
        ("truncated", HOME_6, "2001:db8:1::"),
        ("truncated", "unknown", None),
        ("none", HOME, None),
        ("none", HOME_6, None),
    ],
)
def test_row_has_as_much_of_an_address_as_the_site_wants(
    browse, alice, clock, settings, extent, address, kept
):
    settings.SESSIONKIT_ADDRESSES = extent
    browser = browse(address)
    post_sign_in(browser)
    assert only_row().ip == kept
    clock.move(minutes=2)
    assert is_still_in(browser)
    assert only_row().ip == kept


@pytest.mark.parametrize(("extent", "kept"), [("truncated", "192.0.2.0"), ("none", None)])
def test_site_that_wants_less_has_less_with_the_next_activity(
    browse, alice, clock, settings, extent, kept
):
    browser = browse()
    post_sign_in(browser)
    assert only_row().ip == HOME
    settings.SESSIONKIT_ADDRESSES = extent
    clock.move(minutes=2)
    assert is_still_in(browser)
    assert only_row().ip == kept


@pytest.mark.parametrize("extent", ["whole", "truncated", "none"])
@pytest.mark.parametrize(("home", "at_home"), [(HOME, AT_HOME), (HOME_6, AT_HOME_6)])
def test_session_that_is_bound_to_a_network_is_bound_all_the_same(
    browse, alice, settings, policy, extent, home, at_home
):
    settings.SESSIONKIT_ADDRESSES = extent
    policy(bind=("network",), on_change="end")
    browser = browse(home)
    post_sign_in(browser)
    assert is_still_in(browser)
    near = {"x-forwarded-for": at_home}
    assert browser.get(view(browser, "whoami"), headers=near).content == b"alice"
    far = {"x-forwarded-for": ELSEWHERE if home == HOME else "2001:db8:2::1"}
    assert browser.get(view(browser, "whoami"), headers=far).content == b"AnonymousUser"
    assert only_row().end_reason == "moved"


def test_page_without_addresses_has_no_line_for_one(browse, alice, settings):
    settings.SESSIONKIT_ADDRESSES = "none"
    browser = browse()
    post_sign_in(browser)
    page = browser.get("/account/sessions/").text
    assert "ddress" not in page
    settings.SESSIONKIT_ADDRESSES = "whole"
    post_sign_in(browse())
    assert HOME in browser.get("/account/sessions/").text


def test_network_is_not_shown_as_an_address(browse, alice, clock, settings):
    whole, truncated = browse(), browse(AT_HOME_6)
    post_sign_in(whole)
    settings.SESSIONKIT_ADDRESSES = "truncated"
    post_sign_in(truncated)
    page = truncated.get("/account/sessions/").text
    assert f"<bdi>{HOME}</bdi>" in page  # until it is active again
    assert "<bdi>2001:db8:1::/48</bdi>" in page
    clock.move(minutes=2)
    assert is_still_in(whole)
    assert "<bdi>192.0.2.0/24</bdi>" in truncated.get("/account/sessions/").text


def test_staff_are_shown_a_network_as_one(alice, root, settings):
    settings.SESSIONKIT_ADDRESSES = "truncated"
    UserSession.objects.filter(pk=row_of(people.sign_in(alice)).pk).update(ip="192.0.2.0")
    desk = people.sign_in(root)
    row = UserSession.objects.get(user=alice)
    for url in ("change", "delete"):
        page = desk.get(f"/admin/django_sessionkit/usersession/{row.pk}/{url}/")
        assert "192.0.2.0/24" in page.text


# The purge.


def test_addresses_go_from_rows_that_were_not_active_for_long(browse, alice, clock, settings):
    settings.SESSIONKIT_ADDRESS_RETENTION = DAY
    settings.SESSIONKIT_RETENTION = 100 * DAY
    used, unused, ended = browse(), browse(AT_HOME), browse(ELSEWHERE)
    for browser in (used, unused, ended):
        post_sign_in(browser)
    rows = [row_of(browser) for browser in (used, unused, ended)]
    UserSession.objects.filter(pk=rows[2].pk).revoke()
    clock.move(hours=24)
    assert is_still_in(used)
    purge()
    for row in rows:
        row.refresh_from_db()
    assert [row.ip for row in rows] == [HOME, AT_HOME, ELSEWHERE]
    clock.move(seconds=1)
    purge()
    for row in rows:
        row.refresh_from_db()
    assert [row.ip for row in rows] == [HOME, None, None]
    assert rows[2].end_reason == "revoked"
    # Whoever comes back has one again.
    assert is_still_in(unused)
    assert row_of(unused).ip == AT_HOME


def test_addresses_stay_for_as_long_as_the_rows_do(browse, alice, clock):
    post_sign_in(browse())
    UserSession.objects.revoke()
    clock.move(days=29)
    purge()
    assert only_row().ip == HOME


def test_row_that_becomes_active_meanwhile_keeps_its_address(browse, alice, clock, settings):
    settings.SESSIONKIT_ADDRESS_RETENTION = DAY
    browser = browse()
    post_sign_in(browser)
    clock.move(days=2)

    def come_back():
        UserSession.objects.filter(ip=HOME).update(last_seen_at=timezone.now())

    with before_write("UPDATE", come_back):
        purge()
    assert only_row().ip == HOME
    assert timezone.now() - only_row().last_seen_at < timedelta(days=1)
