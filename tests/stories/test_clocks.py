"""Clocks that are set back or forward, and the clock of the store."""

import time
from datetime import datetime

import pytest

from django_sessionkit.models import UserSession
from tests.pages import PROVE
from tests.people import is_still_in, key_of, told
from tests.store import DAY, HOUR, NOON, SessionStore

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site("tests.calls"),
    pytest.mark.transports("cookie", "header"),
]


@pytest.mark.standard("ASVS-7.3.2", "NIST-SB-8.4")
def test_a_clock_that_was_ahead_at_the_sign_in_prolongs_nothing(signed_in, policy, clock):
    policy(absolute=12 * HOUR)
    browser = signed_in()
    clock.move(hours=-5)
    for _ in range(12):
        assert is_still_in(browser)
        clock.move(hours=1, seconds=-1)
        assert is_still_in(browser)
        clock.move(seconds=1)
    assert told(browser) == "expired"


@pytest.mark.parametrize("lock", [False, True])
@pytest.mark.parametrize("back", [30, 300, 5 * HOUR])
@pytest.mark.standard("ASVS-7.3.1", "NIST-SB-8.4")
def test_a_clock_that_steps_back_after_an_activity_does_no_harm(
    signed_in, policy, clock, lock, back
):
    policy(idle=1200, lock=lock)
    browser = signed_in()
    clock.move(seconds=200)
    assert is_still_in(browser)
    clock.move(seconds=-back)
    assert is_still_in(browser)
    clock.move(seconds=1199)
    assert is_still_in(browser)
    # Of a small step nothing is known: it is like activity.
    clock.move(seconds=1200 + (back if back < 60 else 0))
    assert not is_still_in(browser)


@pytest.mark.transports("cookie")
def test_a_clock_that_was_ahead_proves_nothing_for_longer(signed_in, policy, clock):
    policy(recent=600)
    browser = signed_in()
    clock.move(hours=-5)
    assert is_still_in(browser)
    clock.move(seconds=600)
    assert browser.get("/pay/by_policy/").status_code == 200
    clock.move(seconds=1)
    assert browser.get("/pay/by_policy/").headers["Location"].startswith(PROVE)


@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("begin", ["2040-03-11T07:30:00+00:00", "2040-11-04T06:30:00+00:00"])
@pytest.mark.parametrize(
    ("rules", "cookie_age"), [({"idle": HOUR}, DAY), ({"absolute": HOUR}, DAY), ({}, HOUR)]
)
def test_an_hour_is_an_hour_when_the_clocks_change(
    signed_in, policy, clock, settings, use_tz, begin, rules, cookie_age
):
    """In Chicago it is half past one then, and the hour of two is left out, or comes again."""
    settings.USE_TZ = use_tz
    settings.SESSION_COOKIE_AGE = cookie_age
    policy(**rules)
    clock.move(seconds=(datetime.fromisoformat(begin) - NOON).total_seconds())
    first, second, third = signed_in(), signed_in(), signed_in()
    clock.move(minutes=59)
    assert is_still_in(first)
    clock.move(minutes=1)
    assert told(second) == ("idle" if "idle" in rules else "expired")
    UserSession.objects.revoke()
    assert key_of(third)
    assert not is_still_in(third)
    assert not SessionStore().exists(key_of(third))


@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("begin", ["2040-03-11T07:30:00+00:00", "2040-11-04T06:30:00+00:00"])
@pytest.mark.standard("ASVS-7.5.3")
@pytest.mark.transports("cookie")
def test_a_proof_is_as_old_as_it_is_when_the_clocks_change(
    signed_in, policy, clock, settings, use_tz, begin
):
    settings.USE_TZ = use_tz
    policy(recent=600)
    clock.move(seconds=(datetime.fromisoformat(begin) - NOON).total_seconds())
    browser = signed_in()
    clock.move(minutes=10)
    assert browser.get("/pay/by_policy/").status_code == 200
    for _ in range(8):
        clock.move(minutes=10)
        assert browser.get("/pay/by_policy/").headers["Location"].startswith(PROVE)


def until(holds):
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.01)


@pytest.mark.parametrize(("rules", "reason"), [({"idle": 1}, "idle"), ({"absolute": 1}, "expired")])
@pytest.mark.standard("ASVS-7.3.1", "ASVS-7.3.2", "WSTG-SESS-07")
def test_the_clocks_of_the_stores_end_them_too(signed_in, policy, rules, reason):
    policy(**rules)
    began, browser = time.monotonic(), signed_in()
    assert SessionStore().exists(key_of(browser))
    until(lambda: not SessionStore().exists(key_of(browser)))
    assert time.monotonic() - began > 0.9
    assert told(browser) == reason


def test_the_clock_of_a_store_does_not_end_what_is_used(signed_in, policy):
    policy(idle=1)
    began, uses = time.monotonic(), [time.monotonic()]
    browser = signed_in()

    def used_for_longer():
        nonlocal began, browser
        uses.append(time.monotonic())
        if is_still_in(browser):
            return time.monotonic() - began > 1.5
        # A busy machine may stop the test itself for so long: then nobody used the session, or the
        # use before this one came just in time, and was not over in time.
        assert time.monotonic() - uses[-3:][0] > 0.5
        began, browser = uses[-1], signed_in()
        return False

    until(used_for_longer)
