"""Visitors who are not signed in have shorter sessions, if the site says so."""

from datetime import UTC, datetime, timedelta

import pytest

from django_sessionkit.backends.sealing import digest_of
from tests import store
from tests.browsers import cart, put
from tests.calls import BACKGROUND, use
from tests.moving import DATABASE, HERE, generation, old_session, with_cookie
from tests.people import is_still_in, key_of, only_row, post_sign_in
from tests.store import DAY, HOUR, SessionStore

pytestmark = [pytest.mark.django_db, pytest.mark.site("tests.calls")]

FORTNIGHT = 14 * DAY


@pytest.fixture(autouse=True)
def one_day(settings, clock):
    settings.SESSIONKIT_VISITOR_AGE = DAY


@pytest.fixture
def visitor(browse):
    """Somebody who has put something into their cart."""
    browser = browse()
    put(browser, cart="teapot")
    return browser


def ends_in(browser):
    """Return in how many seconds a session ends, once the cookie, the store and the session agree
    on that."""
    digest = digest_of(key_of(browser))
    by_store = round((store.expiries()[digest] - store.now()) / 1000)
    session = SessionStore(key_of(browser))
    session.get("")
    assert browser.cookies["sessionid"]["max-age"] == by_store
    assert session.get_expiry_age() == by_store
    assert session.get_expiry_date() == datetime.now(UTC) + timedelta(seconds=by_store)
    return by_store


def test_cart_is_kept_for_a_day(visitor, clock):
    assert ends_in(visitor) == DAY
    clock.move(seconds=DAY - 1)
    assert cart(visitor) == "teapot"
    assert ends_in(visitor) == DAY  # once more: this was activity
    clock.move(days=1)
    assert cart(visitor) is None


def test_cart_is_kept_while_its_visitor_only_looks_around(visitor, settings, clock):
    settings.SESSIONKIT_VISITOR_AGE = 100  # activity is then written every ten seconds
    put(visitor, cart="kettle")
    for _ in range(5):
        clock.move(seconds=60)
        assert cart(visitor) == "kettle"
    clock.move(seconds=11)
    cart(visitor)
    assert ends_in(visitor) == 100


def test_request_in_the_background_keeps_no_cart(visitor, clock):
    clock.move(hours=20)
    assert visitor.get("/read/" if not visitor.a else "/aread/", headers=BACKGROUND)
    clock.move(hours=5)
    assert cart(visitor) is None


def test_cart_of_whoever_signs_in_lives_as_long_as_their_session(visitor, alice, clock):
    post_sign_in(visitor)
    assert ends_in(visitor) == FORTNIGHT
    assert only_row().expires_at == datetime.now(UTC) + timedelta(seconds=FORTNIGHT)
    clock.move(days=13)
    assert is_still_in(visitor)
    assert cart(visitor) == "teapot"
    assert ends_in(visitor) == FORTNIGHT


def test_whoever_has_signed_out_is_a_visitor(visitor, alice, clock):
    post_sign_in(visitor)
    visitor.post("/logout/")
    put(visitor, cart="kettle")
    assert ends_in(visitor) == DAY


def test_whoever_is_signed_out_by_hand_is_a_visitor(visitor, alice, drive):
    """As some sites do, which keep the cart."""
    post_sign_in(visitor)
    session = SessionStore(key_of(visitor))
    drive(session, "pop", "_auth_user_id")
    assert drive(session, "get_expiry_age") == DAY
    drive(session, "save")
    by_store = store.expiries()[digest_of(session.session_key)] - store.now()
    assert round(by_store / 1000) == DAY


def test_age_of_a_view_takes_the_place_of_that_of_visitors(visitor, clock):
    use(visitor, "set_expiry", 7 * DAY)
    assert ends_in(visitor) == 7 * DAY
    use(visitor, "set_expiry", HOUR)
    assert ends_in(visitor) == HOUR
    use(visitor, "set_expiry", None)
    assert ends_in(visitor) == DAY


def test_date_of_a_view_stays(visitor, clock):
    use(visitor, "set_expiry", datetime.now(UTC) + timedelta(days=7))
    assert ends_in(visitor) == 7 * DAY


def test_session_that_ends_with_the_browser_is_stored_for_a_day(visitor):
    use(visitor, "set_expiry", 0)
    assert visitor.cookies["sessionid"]["max-age"] == ""
    by_store = store.expiries()[digest_of(key_of(visitor))] - store.now()
    assert round(by_store / 1000) == DAY


def test_new_key_of_a_visitor_is_good_for_a_day(visitor, drive):
    session = SessionStore(key_of(visitor))
    drive(session, "cycle_key")
    by_store = store.expiries()[digest_of(session.session_key)] - store.now()
    assert round(by_store / 1000) == DAY


def test_session_that_was_there_before_the_setting_follows(visitor, settings, clock):
    settings.SESSIONKIT_VISITOR_AGE = None
    put(visitor, cart="kettle")
    assert ends_in(visitor) == FORTNIGHT
    settings.SESSIONKIT_VISITOR_AGE = DAY
    clock.move(days=3)
    assert cart(visitor) == "kettle"
    assert ends_in(visitor) == DAY


def test_age_that_is_longer_than_that_of_cookies_changes_nothing(browse, settings):
    settings.SESSIONKIT_VISITOR_AGE = 30 * DAY
    browser = browse()
    put(browser, cart="teapot")
    assert ends_in(browser) == FORTNIGHT


def test_what_is_said_of_an_age_that_is_only_asked_about(visitor, drive, clock):
    session = SessionStore(key_of(visitor))
    # Nobody has read yet whose session this is.
    yesterday = datetime.now(UTC) - timedelta(days=1)
    assert drive(session, "get_expiry_age", expiry=None, modification=yesterday) == FORTNIGHT
    drive(session, "get", "cart")
    assert drive(session, "get_expiry_age", expiry=7 * DAY) == 7 * DAY
    assert drive(session, "get_expiry_age", expiry=None) == DAY
    assert drive(session, "get_expiry_date", modification=yesterday) == datetime.now(UTC)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("used", [True, False])
def test_cart_that_moves_here_is_kept_for_a_day(browse, used, clock):
    with generation(DATABASE):
        session = old_session(DATABASE, cart="teapot")
    with generation(HERE, (DATABASE,)):
        if used:
            browser = with_cookie(browse(), session)
            assert cart(browser) == "teapot"
            clock.move(hours=20)
            assert cart(browser) == "teapot"
            assert ends_in(browser) == DAY
        else:
            assert SessionStore.adopt_all(DATABASE) == {
                "moved": 1,
                "visitors": 0,
                "refused": 0,
                "unreadable": 0,
            }
            digest = digest_of(session.session_key)
            assert round((store.expiries()[digest] - store.now()) / 1000) == DAY


@pytest.mark.django_db(transaction=True)
def test_session_of_a_user_that_moves_here_lives_on(browse, alice, clock):
    with generation(DATABASE):
        session = old_session(DATABASE, alice, cart="teapot")
    with generation(HERE, (DATABASE,)):
        browser = with_cookie(browse(), session)
        assert is_still_in(browser)
        clock.move(days=13)
        assert is_still_in(browser)
        assert ends_in(browser) == FORTNIGHT
