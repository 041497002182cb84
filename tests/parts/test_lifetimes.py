"""
Until when a session lives, by what the kit knows of it: arithmetic on milliseconds. No test here
needs a store, a request or a clock.
"""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.sessions.backends.base import SessionBase
from django.test import override_settings
from hypothesis import example, given
from hypothesis import strategies as st

from django_sessionkit.backends import lifetimes
from django_sessionkit.backends.facts import Facts
from django_sessionkit.backends.lifetimes import TIME_TO_CHOOSE
from django_sessionkit.clock import END_OF_TIME, as_datetime
from django_sessionkit.conf import conf
from django_sessionkit.policy import HUNDRED_YEARS
from django_sessionkit.visit.interruptions import Lock
from tests.facts import (
    COOKIE_AGE,
    DAY,
    HOUR,
    IDLE,
    LOCK,
    MINUTE,
    MOMENTS,
    NOW,
    SECONDS,
    SOME_FACTS,
    date,
)

pytestmark = pytest.mark.once

MILLISECONDS = st.integers(0, 1_000_000_000_000) | st.integers(0, 1_000_000)


# Until when.


def test_last_moment_is_a_date_in_every_time_zone():
    assert as_datetime(END_OF_TIME) == datetime(9999, 12, 31, tzinfo=UTC)
    for zone in ("Pacific/Kiritimati", "Etc/GMT+12"):
        with override_settings(USE_TZ=False, TIME_ZONE=zone):
            assert as_datetime(END_OF_TIME).year == 9999


@pytest.mark.parametrize(
    ("facts", "ends_at"),
    [
        pytest.param(Facts(), END_OF_TIME, id="nothing ends it"),
        pytest.param(Facts(policy={"absolute": 60}), END_OF_TIME, id="a rule is no deadline"),
        pytest.param(Facts(deadline=NOW + 5), NOW + 5, id="the deadline"),
        pytest.param(Facts(deadline=NOW - 5), NOW - 5, id="a deadline that has passed"),
        pytest.param(Facts(policy=IDLE), NOW + 600_000, id="idleness"),
        pytest.param(Facts(policy=LOCK), END_OF_TIME, id="idleness only locks it"),
        pytest.param(Facts(policy=IDLE, deadline=NOW + 5), NOW + 5, id="the deadline is first"),
        pytest.param(Facts(policy=IDLE, deadline=NOW + DAY), NOW + 600_000, id="idleness is first"),
        pytest.param(Facts(policy=LOCK, deadline=NOW + DAY), NOW + DAY, id="locked to the last"),
        pytest.param(Facts(pending=3), NOW + 15 * MINUTE, id="who makes room has 15 minutes"),
        pytest.param(
            Facts(pending=3, deadline=NOW + 5), NOW + 5, id="who makes room has no longer than that"
        ),
        pytest.param(Facts(pending=3, policy=IDLE), NOW + 600_000, id="who makes room is idle"),
        pytest.param(
            Facts(pending=3, policy=LOCK), NOW + 600_000, id="who makes room is idle, not locked"
        ),
        pytest.param(
            Facts(pending=3, policy={"idle": 3600, "lock": True}),
            NOW + 15 * MINUTE,
            id="who makes room has 15 minutes of an hour",
        ),
    ],
)
def test_session_ends_at_the_first_of_its_ends(facts: Facts, ends_at: int):
    assert lifetimes.ends_at(facts, NOW, None, 1) == ends_at


@given(SOME_FACTS, MOMENTS, MILLISECONDS)
def test_later_activity_never_ends_a_session_earlier(facts: Facts, active_at: int, later: int):
    ends_at = lifetimes.ends_at(facts, active_at, None, 1)
    assert lifetimes.ends_at(facts, active_at + later, None, 1) >= ends_at
    assert ends_at <= (END_OF_TIME if facts.deadline is None else facts.deadline)
    if facts.pending is not None:
        assert ends_at <= active_at + TIME_TO_CHOOSE


@pytest.mark.parametrize(
    ("facts", "inactive", "lock"),
    [
        (Facts(), 10 * DAY, None),
        (Facts(policy=IDLE), 10 * DAY, None),
        (Facts(policy=LOCK), 0, None),
        (Facts(policy=LOCK), 600_000 - 1, None),
        (Facts(policy=LOCK), 600_000, Lock.IDLE),
        (Facts(policy=LOCK), 600_000 + 1, Lock.IDLE),
        (Facts(policy=LOCK), -DAY, None),
        (Facts(pending=3), 0, Lock.LIMIT),
        (Facts(pending=3, policy=LOCK), 600_000, Lock.LIMIT),
    ],
)
def test_time_locks_a_session(facts: Facts, inactive: int, lock: Lock | None):
    assert lifetimes.lock_at(facts, NOW - inactive, NOW) is lock


@given(SOME_FACTS, MOMENTS, MOMENTS, MILLISECONDS)
def test_lock_stays_locked(facts: Facts, touched_at: int, now: int, later: int):
    locked = lifetimes.lock_at(facts, touched_at, now)
    if locked:
        assert lifetimes.lock_at(facts, touched_at, now + later) is locked
        assert lifetimes.lock_at(facts, touched_at - later, now) is locked


@pytest.mark.parametrize(
    ("policy", "expiry", "cookie_age", "interval", "milliseconds"),
    [
        pytest.param({}, None, COOKIE_AGE, 60, 60_000, id="the setting"),
        pytest.param({}, None, COOKIE_AGE, 30, 30_000, id="another setting"),
        pytest.param({}, None, COOKIE_AGE, 0, 0, id="every request"),
        pytest.param({}, None, 100, 60, 10_000, id="a short age of cookies"),
        pytest.param({}, None, 600, 60, 60_000, id="an age of ten times the setting"),
        pytest.param({}, None, 5, 60, 500, id="less than a second"),
        pytest.param({}, 100, COOKIE_AGE, 60, 10_000, id="a short age of its own"),
        pytest.param({}, 100.5, COOKIE_AGE, 60, 10_050, id="an age with a fraction"),
        pytest.param({}, COOKIE_AGE, 100, 60, 60_000, id="a long age of its own"),
        pytest.param({}, 0, 100, 60, 10_000, id="as long as the browser is open"),
        pytest.param({}, "2026-09-21T14:13:20+00:00", 100, 60, 10_000, id="a date"),
        pytest.param({}, datetime(2050, 1, 1, tzinfo=UTC), 100, 60, 10_000, id="a date, unstored"),
        pytest.param({"idle": 50}, None, COOKIE_AGE, 60, 5000, id="short idleness"),
        pytest.param({"idle": 50}, 100, COOKIE_AGE, 60, 5000, id="idleness is shorter"),
        pytest.param({"idle": 500}, 100, COOKIE_AGE, 60, 10_000, id="the age is shorter"),
        pytest.param({"idle": 50, "lock": True}, None, 100, 60, 5000, id="idleness that locks"),
        pytest.param({"absolute": 50}, None, COOKIE_AGE, 60, 60_000, id="the longest time is none"),
    ],
)
def test_activity_is_written_after_the_setting_or_a_tenth_of_a_short_life(
    settings: Any,
    policy: dict[str, Any],
    expiry: Any,
    cookie_age: int,
    interval: int,
    milliseconds: float,
):
    settings.SESSIONKIT_TOUCH_INTERVAL = interval
    assert lifetimes.touch_interval(Facts(policy=policy), expiry, cookie_age) == milliseconds


@given(SOME_FACTS, st.none() | SECONDS, SECONDS)
def test_activity_is_written_ten_times_in_a_life_without_it(
    facts: Facts, expiry: int | None, cookie_age: int
):
    interval = lifetimes.touch_interval(facts, expiry, cookie_age)
    life = min(expiry or cookie_age, facts.policy.get("idle", HUNDRED_YEARS))
    assert 0 < interval <= 1000 * conf.SESSIONKIT_TOUCH_INTERVAL
    assert interval * 10 <= 1000 * life
    assert interval == 1000 * conf.SESSIONKIT_TOUCH_INTERVAL or interval * 10 == 1000 * life


@pytest.mark.parametrize(
    ("facts", "is_over"),
    [
        (Facts(), False),
        (Facts(policy={"idle": 60}), True),
        (Facts(policy={"idle": 61}), False),
        (Facts(policy={"idle": 60, "lock": True}), False),
        (Facts(deadline=NOW), True),
        (Facts(deadline=NOW + 1), False),
    ],
)
def test_session_is_over_when_it_was_idle_or_at_its_deadline(facts: Facts, is_over: bool):
    assert lifetimes.is_over(facts, NOW - MINUTE, NOW, None, 1) is is_over


# The age of a session, as Django has it.


def age_by_django(expiry: Any, now: int) -> Any:
    """Ask Django, whose now is a date: an aware one, or with USE_TZ = False that of the clock."""
    aware = datetime.fromtimestamp(now / 1000, UTC)
    here = aware if django_settings.USE_TZ else datetime.fromtimestamp(now / 1000)  # noqa: DTZ006
    return SessionBase().get_expiry_age(modification=here, expiry=expiry)


DISTANCES = [
    *[0, 1, 999, 1000, 1001, 59_999, 60_000, HOUR, DAY - 1, DAY, 3650 * DAY],
    *[-1, -999, -1000, -1001, -HOUR, -DAY, -DAY - 1, -3650 * DAY],
]
# In Chicago, where the tests are, an hour is left out half an hour later, or comes again.
CHANGES_OF_THE_CLOCKS = [2_215_063_800_000, 2_235_623_400_000]


@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("age", [1, -1, 100, COOKIE_AGE, 10**12, 2.5])
def test_age_that_is_a_number_is_that_number(settings: Any, use_tz: bool, age: float):
    settings.USE_TZ = use_tz
    assert lifetimes.age_of(age, NOW) == age_by_django(age, NOW) == age


@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("now", [NOW, NOW + 1, NOW + 999, *CHANGES_OF_THE_CLOCKS])
def test_age_of_a_date_is_what_django_says_it_is(settings: Any, use_tz: bool, now: int):
    settings.USE_TZ = use_tz
    for distance in DISTANCES:
        expiry = as_datetime(now + distance)
        assert lifetimes.age_of(expiry, now) == age_by_django(expiry, now)
        assert lifetimes.age_of(expiry.isoformat(), now) == age_by_django(expiry.isoformat(), now)
        assert lifetimes.age_of(expiry.isoformat(), now) == lifetimes.age_of(expiry, now)


def test_age_of_a_date_is_cut_to_whole_seconds():
    for distance, age in [(0, 0), (999, 0), (1000, 1), (-1, -1), (-1000, -1), (-1001, -2)]:
        assert lifetimes.age_of(date(distance), NOW) == age


@pytest.mark.parametrize(
    "expiry", ["2026-09-21T14:13:25Z", "2026-09-21T16:13:25+02:00", "2026-09-21T09:13:25-05:00"]
)
def test_date_may_be_that_of_another_time_zone(expiry: str):
    assert lifetimes.age_of(expiry, NOW) == age_by_django(expiry, NOW) == 5


@pytest.mark.parametrize(("use_tz", "expiry"), [(True, "2026-09-21T14:13:25"), (False, date(0))])
def test_date_of_a_site_that_has_changed_use_tz_is_read(settings: Any, use_tz: bool, expiry: str):
    """Django reads such a session, and fails when it writes it."""
    settings.USE_TZ, settings.TIME_ZONE = use_tz, "UTC"
    with pytest.raises(TypeError, match="naive"):
        age_by_django(expiry, NOW)
    assert lifetimes.age_of(expiry, NOW) == (5 if use_tz else 0)


@given(st.booleans(), MOMENTS, st.integers(-3650 * DAY, 3650 * DAY))
@example(False, CHANGES_OF_THE_CLOCKS[0], HOUR)
@example(False, CHANGES_OF_THE_CLOCKS[1], HOUR)
def test_age_of_any_date_is_what_django_says_it_is(use_tz: bool, now: int, distance: int):
    with override_settings(USE_TZ=use_tz):
        expiry = as_datetime(max(0, now + distance)).isoformat()
        assert lifetimes.age_of(expiry, now) == age_by_django(expiry, now)
