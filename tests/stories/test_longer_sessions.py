"""A site asks for sessions that are longer than the default policy has them."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User

from django_sessionkit.backends.sealing import digest_of
from tests import store
from tests.apps import Keeping
from tests.calls import use
from tests.people import is_still_in, key_of, only_row, told
from tests.store import DAY, HOUR, SessionStore

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site("tests.calls"),
    pytest.mark.transports("cookie", "header"),
]

YEAR = 365 * DAY


def end_by_the_store(browser):
    """Return when the store forgets the session of a browser, in milliseconds."""
    return store.expiries()[digest_of(key_of(browser))]


def agree(browser, seconds):
    """Tell whether the cookie, the store, the row and the session end in so many seconds."""
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    session = SessionStore(key_of(browser))
    return (
        (isinstance(browser, Keeping) or browser.cookies["sessionid"]["max-age"] == seconds)
        and abs(end_by_the_store(browser) - at.timestamp() * 1000) < 500
        and only_row().expires_at == at
        and session.get_expiry_age() == seconds
        and session.get_expiry_date() == at
    )


@pytest.fixture
def remembered(signed_in, settings, clock):
    """A function that signs Alice in for a year, by the setting or by a view."""

    def remembered(how):
        if how == "SESSION_COOKIE_AGE":
            settings.SESSION_COOKIE_AGE = YEAR
            return signed_in()
        browser = signed_in()
        use(browser, "set_expiry", YEAR if how == "a number" else timedelta(seconds=YEAR))
        return browser

    return remembered


@pytest.mark.parametrize("how", ["SESSION_COOKIE_AGE", "a number", "a date"])
def test_a_session_that_is_to_last_for_a_year_does(remembered, clock, how):
    browser = remembered(how)
    assert agree(browser, YEAR)
    for day in range(73, 365, 73):
        clock.move(days=73)
        assert is_still_in(browser)
        assert agree(browser, YEAR - day * DAY)
    clock.move(seconds=73 * DAY - 1)
    assert is_still_in(browser)
    clock.move(seconds=1)
    assert told(browser) == "expired"


def test_it_lasts_for_a_year_without_activity_too(remembered, clock):
    browser = remembered("a number")
    clock.move(seconds=YEAR - 1)
    assert is_still_in(browser)


def test_what_slides_by_itself_ends_after_30_days(signed_in, clock):
    browser = signed_in()
    use(browser, "set_expiry", 20 * DAY)
    clock.move(days=15)
    assert is_still_in(browser)
    assert agree(browser, 15 * DAY)
    clock.move(days=15)
    assert told(browser) == "expired"


def test_a_date_after_the_30_days_is_the_end(signed_in, clock):
    """However near it is when a view names it: a date does not slide."""
    browser = signed_in()
    clock.move(days=13, milliseconds=300)
    date = datetime.now(UTC) + timedelta(days=20, microseconds=400_900)
    use(browser, "set_expiry", date)
    assert isinstance(browser, Keeping) or browser.cookies["sessionid"]["max-age"] == 20 * DAY
    assert SessionStore(key_of(browser)).get_expiry_date() == date
    clock.move(seconds=20 * DAY - 1)
    assert is_still_in(browser)
    clock.move(seconds=1)
    assert told(browser) == "expired"


def test_who_takes_back_a_longer_age_is_back_under_the_policy(remembered, clock):
    browser = remembered("a number")
    clock.move(days=20)
    use(browser, "set_expiry", None)
    assert agree(browser, 10 * DAY)


@pytest.mark.parametrize("how", ["SESSION_COOKIE_AGE", "a number"])
def test_the_first_level_of_nist_ends_after_30_days_all_the_same(remembered, settings, clock, how):
    settings.SESSIONKIT_POLICY = "django_sessionkit.policy.aal1"
    browser = remembered(how)
    assert agree(browser, 30 * DAY)
    clock.move(days=30)
    assert told(browser) == "expired"


def test_staff_are_not_remembered_for_longer(remembered, alice, clock):
    User.objects.update(is_staff=True)
    browser = remembered("a number")
    assert agree(browser, HOUR)


def test_a_new_key_is_as_good_for_a_year(remembered, policy, clock):
    policy(absolute=30 * DAY, extendable=True, renew_after=DAY)
    browser = remembered("a number")
    old = key_of(browser)
    clock.move(days=100)
    assert is_still_in(browser)
    assert key_of(browser) != old
    assert agree(browser, YEAR - 100 * DAY)
    # The trace of the old key is kept: its reuse is noticed.
    assert is_still_in(browser)
    assert digest_of(old) in store.payloads()


def test_what_is_said_of_an_age_that_is_only_asked_about(remembered, clock, drive):
    browser = remembered("a number")
    session = SessionStore(key_of(browser))
    assert drive(session, "get_expiry_age", expiry=40 * DAY) == 40 * DAY
    assert drive(session, "get_expiry_age", expiry=10 * DAY) == 10 * DAY
