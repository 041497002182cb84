"""
What a write of a session writes, and which activity the row can wait for: arithmetic on
milliseconds. No test here needs a store, a request or a clock.
"""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import example, given
from hypothesis import strategies as st

from django_sessionkit.backends import lifetimes, plans
from django_sessionkit.backends.facts import Facts
from django_sessionkit.backends.plans import Activity
from django_sessionkit.clock import END_OF_TIME, Lifetime, as_datetime
from tests.facts import (
    COOKIE_AGE,
    DAY,
    FORTNIGHT,
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


@st.composite
def expiries(draw: st.DrawFn, now: int) -> Any:
    """What set_expiry() leaves in a dictionary: nothing, a number, or the text of a date."""
    if draw(st.booleans()):
        return draw(st.none() | st.integers(-1000, 2 * COOKIE_AGE))
    ends = now + draw(st.integers(-HOUR, 2 * FORTNIGHT))
    return datetime.fromtimestamp(ends / 1000, UTC).isoformat()


@st.composite
def activities(draw: st.DrawFn) -> Activity:
    now = draw(MOMENTS)
    return Activity(
        now=now,
        cookie_age=draw(st.integers(1, 2 * COOKIE_AGE)),
        stored_at=draw(st.just(0) | MOMENTS | st.integers(max(0, now - HOUR), now + HOUR)),
        expiry=draw(expiries(now)),
        in_request=draw(st.booleans()),
        background=draw(st.booleans()),
        due=draw(st.booleans()),
    )


@st.composite
def writes(draw: st.DrawFn) -> tuple[Activity, Facts, Any, bool]:
    """Whatever one attempt to write a session knows: activity, facts, expiry, moving."""
    activity, facts = draw(activities()), draw(SOME_FACTS)
    expiry = draw(st.just(activity.expiry) | expiries(activity.now))
    if draw(st.booleans()):
        # A row that was written for about this moment, as most rows were.
        right = activity.plan(facts, expiry).lifetime.expires_at
        off = draw(st.integers(-2 * MINUTE, 2 * MINUTE))
        facts = facts._replace(row_expires_at=max(1, right + off))
    return activity, facts, expiry, draw(st.booleans())


# What a write writes.


def write(**known: Any) -> Activity:
    """Return what a write in a person's request knows, but for what is said here."""
    return Activity(**({"now": NOW, "cookie_age": COOKIE_AGE, "in_request": True} | known))


def in_background(**known: Any) -> Activity:
    """The last activity was a minute ago; what happens now happens by itself."""
    return write(**({"stored_at": NOW - MINUTE, "background": True} | known))


def without_request(**known: Any) -> Activity:
    return write(**({"stored_at": NOW - MINUTE, "in_request": False} | known))


@pytest.mark.parametrize(
    ("facts", "expiry", "expires_in", "idle_in"),
    [
        pytest.param(Facts(), None, FORTNIGHT, None, id="the age of cookies"),
        pytest.param(Facts(), 0, FORTNIGHT, None, id="as long as the browser is open"),
        pytest.param(Facts(), 100, 100_000, None, id="an age of its own"),
        pytest.param(Facts(), 2.5, 2500, None, id="an age with a fraction"),
        pytest.param(Facts(), date(HOUR), HOUR, None, id="a date of its own"),
        pytest.param(Facts(), date(HOUR + 999), HOUR, None, id="a date, to the second"),
        pytest.param(Facts(), -1, -1000, None, id="an age in the past"),
        pytest.param(Facts(), date(-HOUR), -HOUR, None, id="a date in the past"),
        pytest.param(Facts(), "0001-01-01T00:00:00+00:00", 1 - NOW, None, id="long before 1970"),
        pytest.param(Facts(deadline=-5), None, 1 - NOW, None, id="a deadline before 1970"),
        pytest.param(Facts(), 10**15, END_OF_TIME - NOW, None, id="no date is that late"),
        pytest.param(Facts(policy=IDLE), None, 600_000, 600_000, id="idleness"),
        pytest.param(Facts(policy=IDLE), 100, 100_000, 600_000, id="its own age is shorter"),
        pytest.param(Facts(policy=IDLE), 10**9, 600_000, 600_000, id="its own age is longer"),
        pytest.param(Facts(policy=IDLE), date(DAY), 600_000, 600_000, id="its date is later"),
        pytest.param(Facts(policy=LOCK), None, FORTNIGHT, 600_000, id="idleness that locks"),
        pytest.param(Facts(policy=LOCK, deadline=NOW + HOUR), None, HOUR, 600_000, id="both times"),
        pytest.param(Facts(deadline=NOW + HOUR), None, HOUR, None, id="the longest time"),
        pytest.param(Facts(deadline=NOW + HOUR), 100, 100_000, None, id="shorter than the longest"),
        pytest.param(
            Facts(deadline=NOW + HOUR), 10**9, HOUR, None, id="no longer than the longest"
        ),
        pytest.param(Facts(deadline=NOW - HOUR), None, -HOUR, None, id="the longest time is over"),
        pytest.param(Facts(pending=3), None, 15 * MINUTE, None, id="time to make room"),
        pytest.param(Facts(pending=3, policy=LOCK), None, 600_000, 600_000, id="room, and a lock"),
    ],
)
def test_activity_makes_a_session_last_until_the_first_of_its_ends(
    facts: Facts, expiry: Any, expires_in: int, idle_in: int | None
):
    plan = write().plan(facts, expiry)
    idle_at = None if idle_in is None else NOW + idle_in
    assert plan.lifetime == Lifetime(NOW + expires_in, idle_at)
    assert plan.active_at == NOW
    assert not plan.keeps_expiry


@pytest.mark.parametrize(
    ("activity", "policy", "moving", "active_at"),
    [
        pytest.param(write(stored_at=NOW - HOUR), {}, False, NOW, id="a request"),
        pytest.param(write(stored_at=NOW - MINUTE), LOCK, False, NOW, id="a request, with a lock"),
        pytest.param(write(stored_at=NOW - HOUR), LOCK, False, NOW - HOUR, id="locked meanwhile"),
        pytest.param(write(stored_at=NOW - HOUR), LOCK, True, NOW - HOUR, id="and a new key"),
        pytest.param(in_background(), {}, False, NOW - MINUTE, id="the background"),
        pytest.param(in_background(), LOCK, False, NOW - MINUTE, id="the background, with a lock"),
        pytest.param(in_background(), {}, True, NOW - MINUTE, id="a new key in the background"),
        pytest.param(in_background(stored_at=0), {}, False, NOW, id="who knows when it was"),
        pytest.param(in_background(stored_at=NOW + HOUR), {}, False, NOW, id="a clock put back"),
        pytest.param(without_request(), {}, False, NOW, id="a shell"),
        pytest.param(without_request(), IDLE, False, NOW, id="a shell, where idleness ends"),
        pytest.param(without_request(), LOCK, False, NOW - MINUTE, id="a shell, with a lock"),
        pytest.param(without_request(), LOCK, True, NOW, id="a new key in a shell, with a lock"),
        pytest.param(without_request(stored_at=0), LOCK, False, NOW, id="a shell without a past"),
        pytest.param(
            without_request(stored_at=NOW + HOUR), LOCK, False, NOW, id="a shell, a clock put back"
        ),
    ],
)
def test_activity_is_now_unless_nobody_was_there(
    activity: Activity, policy: dict[str, Any], moving: bool, active_at: int
):
    plan = activity.plan(Facts(policy=policy), None, moving)
    assert plan.active_at == active_at
    assert plan.lifetime.idle_at == (active_at + 600_000 if policy else None)


@pytest.mark.parametrize(
    ("policy", "was", "expiry", "keeps", "expires_in"),
    [
        pytest.param({}, None, None, True, FORTNIGHT - MINUTE, id="the age of cookies"),
        pytest.param({}, 100, 100, True, 40_000, id="an age of its own"),
        pytest.param(IDLE, None, None, True, 540_000, id="idleness"),
        pytest.param(LOCK, None, None, True, FORTNIGHT - MINUTE, id="a lock"),
        pytest.param({}, None, 100, False, 100_000, id="a new age"),
        pytest.param({}, 100, None, False, FORTNIGHT, id="no age any more"),
        pytest.param({}, None, date(HOUR), False, HOUR, id="a new date"),
        pytest.param(IDLE, None, 900, False, 540_000, id="a new age that idleness cuts"),
        pytest.param(LOCK, None, 900, False, 900_000, id="a new age beside a lock"),
    ],
)
def test_background_request_moves_the_expiry_only_if_it_sets_one(
    policy: dict[str, Any], was: Any, expiry: Any, keeps: bool, expires_in: int
):
    plan = in_background(expiry=was).plan(Facts(policy=policy), expiry)
    assert plan.keeps_expiry is keeps
    assert plan.lifetime.expires_at == NOW + expires_in


def test_save_without_a_request_slides_the_expiry_and_leaves_the_lock_where_it_was():
    plan = without_request().plan(Facts(policy=LOCK), None)
    assert not plan.keeps_expiry
    assert plan.lifetime == Lifetime(NOW + FORTNIGHT, NOW - MINUTE + 600_000)


@pytest.mark.parametrize(
    ("activity", "expiry", "off", "is_behind"),
    [
        pytest.param(write(due=True), None, 0, False, id="the row says the same"),
        pytest.param(write(due=True), None, MINUTE - 1, False, id="nearly an interval"),
        pytest.param(write(due=True), None, MINUTE, True, id="an interval"),
        pytest.param(write(due=True), None, -MINUTE, True, id="the row says later"),
        pytest.param(write(due=True), None, 1 - MINUTE, False, id="the row says hardly later"),
        pytest.param(write(due=True), None, NOW, True, id="the row was never written"),
        # Less than an interval ago the row was written with the last activity.
        pytest.param(write(stored_at=NOW - 5), None, HOUR, False, id="not due"),
        pytest.param(write(stored_at=NOW - 5, due=True), None, HOUR, True, id="due"),
        pytest.param(write(stored_at=0), None, HOUR, True, id="who knows when it was written"),
        pytest.param(write(stored_at=NOW - 5), 10**6, HOUR, True, id="not due, and a new age"),
        pytest.param(
            write(stored_at=NOW - 5, expiry=10**6), 10**6, HOUR, False, id="not due, its own age"
        ),
        pytest.param(
            write(stored_at=NOW - 5, expiry=10**6), None, HOUR, True, id="not due, no age any more"
        ),
        pytest.param(without_request(), None, HOUR, True, id="nobody asks whether it is due"),
        # A short life has a short interval.
        pytest.param(write(due=True), 100, 10_000, True, id="a tenth of a short age"),
        pytest.param(write(due=True), 100, 9999, False, id="nearly a tenth of a short age"),
        pytest.param(write(due=True, cookie_age=50), None, 5000, True, id="a short age of cookies"),
        # What is not written to the store need not be written to the row.
        pytest.param(in_background(due=True), None, HOUR, False, id="the background"),
        pytest.param(in_background(), 10**6, HOUR, True, id="the background sets an age"),
        pytest.param(in_background(expiry=5), None, HOUR, True, id="the background takes it away"),
        pytest.param(in_background(due=True), 10**6, 0, False, id="the background sets the same"),
    ],
)
def test_row_is_behind_when_it_is_an_interval_off(
    activity: Activity, expiry: Any, off: int, is_behind: bool
):
    right = activity.plan(Facts(), expiry).lifetime.expires_at
    facts = Facts(row_expires_at=max(0, right - off))
    assert activity.plan(facts, expiry).row_is_behind is is_behind


def test_row_that_is_behind_an_idle_session_is_told_by_its_idle_time():
    """The deadline and the age are far away: only the idle time makes the interval short."""
    facts = Facts(policy={"idle": 50}, row_expires_at=NOW + 50_000 - 5000)
    assert write(due=True).plan(facts, None).row_is_behind
    assert not write(due=True).plan(facts._replace(row_expires_at=NOW + 45_001), None).row_is_behind


def test_new_key_in_the_background_ends_at_the_date_that_was_set():
    """The date is nearer than the last activity is long ago."""
    date = as_datetime(NOW + 5 * MINUTE).isoformat()
    activity = write(background=True, stored_at=NOW - HOUR, expiry=date)
    plan = activity.plan(Facts(), date, moving=True)
    assert plan.lifetime.expires_at == NOW + 5 * MINUTE


@given(writes())
def test_no_write_outlives_what_the_facts_and_the_age_allow(
    known: tuple[Activity, Facts, Any, bool],
):
    activity, facts, expiry, moving = known
    plan = activity.plan(facts, expiry, moving)
    expires_at = plan.lifetime.expires_at
    assert expires_at >= 1
    assert expires_at <= max(
        1, lifetimes.ends_at(facts, plan.active_at, expiry, activity.cookie_age)
    )
    age = lifetimes.age_of(expiry, activity.now) if expiry else activity.cookie_age
    assert expires_at <= max(1, activity.now + int(1000 * age))
    is_date = isinstance(expiry, (str, datetime))
    assert expires_at in (
        1,
        lifetimes.ends_at(facts, plan.active_at, expiry, activity.cookie_age),
        (plan.active_at if plan.keeps_expiry and not is_date else activity.now) + int(1000 * age),
    )


@given(writes(), SECONDS, st.sampled_from([Facts(), Facts(user="7"), Facts(handle="ab" * 16)]))
def test_age_of_visitors_is_an_age_of_cookies_for_them_alone(
    known: tuple[Activity, Facts, Any, bool], age: int, who: Facts
):
    """Whoever is about to sign in has no handle yet, and a former key has no user."""
    activity, facts, expiry, moving = known
    facts = facts._replace(user=who.user, handle=who.handle)
    of_visitor = min(age, activity.cookie_age) if who == Facts() else activity.cookie_age
    plan = activity._replace(cookie_age=of_visitor).plan(facts, expiry, moving)
    interval = lifetimes.touch_interval(facts, expiry, of_visitor)
    left = lifetimes.time_left(facts, NOW, NOW, expiry, of_visitor)
    with override_settings(SESSIONKIT_VISITOR_AGE=age):
        assert activity.plan(facts, expiry, moving) == plan
        assert lifetimes.touch_interval(facts, expiry, activity.cookie_age) == interval
        assert lifetimes.time_left(facts, NOW, NOW, expiry, activity.cookie_age) == left


@given(writes())
def test_no_activity_is_in_the_future_and_idleness_begins_with_it(
    known: tuple[Activity, Facts, Any, bool],
):
    activity, facts, expiry, moving = known
    plan = activity.plan(facts, expiry, moving)
    assert plan.active_at in (activity.now, activity.stored_at)
    assert plan.active_at <= activity.now
    idle = facts.policy.get("idle")
    assert plan.lifetime.idle_at == (None if idle is None else plan.active_at + 1000 * idle)


@given(writes())
def test_background_request_never_prolongs_more_than_a_person_would(
    known: tuple[Activity, Facts, Any, bool],
):
    activity, facts, expiry, moving = known
    by_itself = activity._replace(background=True).plan(facts, expiry, moving)
    by_a_person = activity._replace(background=False, in_request=True).plan(facts, expiry, moving)
    assert by_itself.lifetime.expires_at <= by_a_person.lifetime.expires_at
    was_locked = activity.stored_at and lifetimes.lock_at(facts, activity.stored_at, activity.now)
    assert by_itself.active_at <= by_a_person.active_at
    at = min(activity.stored_at, activity.now) if was_locked else activity.now
    assert by_a_person.active_at == at
    assert by_itself.keeps_expiry is (expiry == activity.expiry)
    assert not by_a_person.keeps_expiry


@given(writes())
def test_store_says_what_the_row_says_give_or_take_an_interval(
    known: tuple[Activity, Facts, Any, bool],
):
    activity, facts, expiry, moving = known
    plan = activity.plan(facts, expiry, moving)
    off = abs(plan.lifetime.expires_at - facts.row_expires_at)
    is_near = off < lifetimes.touch_interval(facts, expiry, activity.cookie_age)
    was_written = (
        activity.in_request
        and not activity.due
        and activity.stored_at > 0
        and expiry == activity.expiry
    )
    if plan.row_is_behind:
        assert not is_near
        assert not plan.keeps_expiry
        assert not was_written
    else:
        assert is_near or was_written or plan.keeps_expiry


# Activity that waits for its row.


@given(
    st.integers(10, 2000),
    st.lists(st.tuples(st.integers(0, 2_000_000), st.booleans()), max_size=60),
)
@example(100, [(0, True), (9_000, False), (29_000, False), (10_000, False), (9_000, False)])
def test_row_of_a_session_that_is_used_never_looks_expired(age: int, steps: list[tuple[int, bool]]):
    """
    Whenever activity is carried to the row. If that stops, the session is used again within two
    intervals, and then the row knows.
    """
    facts = Facts(handle="ab" * 16, user="7")
    interval, life = lifetimes.touch_interval(facts, None, age), 1000 * age
    now = touched_at = known_at = NOW  # the last two: by the store, and by the row
    flushed_at = 0
    for milliseconds, is_flush in steps:
        now += milliseconds % (life + 1)
        if known_at < touched_at and not is_flush:
            now = min(now, touched_at + 2 * int(interval))
        if is_flush:
            known_at, flushed_at = touched_at, now
            continue
        if now >= touched_at + life:  # it is over
            break
        assert now < known_at + life
        if now - touched_at >= interval:
            if not plans.can_wait(facts, touched_at, flushed_at, now, None, age):
                known_at = now
            touched_at = now


def test_row_waits_for_no_longer_than_three_writes_of_activity():
    facts = Facts(handle="ab" * 16, user="7")

    def can_wait(facts: Facts = facts, *, flushed: int = 0, touched: int = MINUTE) -> bool:
        return plans.can_wait(facts, NOW - touched, NOW - flushed, NOW, None, COOKIE_AGE)

    assert can_wait()
    assert can_wait(flushed=3 * MINUTE - 1)
    assert not can_wait(flushed=3 * MINUTE)
    assert can_wait(flushed=-MINUTE + 1)  # the clock of another server
    assert not can_wait(flushed=-MINUTE)
    assert not can_wait(touched=-1)
    assert can_wait(touched=FORTNIGHT - 6 * MINUTE)
    assert not can_wait(touched=FORTNIGHT - 5 * MINUTE)


@pytest.mark.parametrize(
    "change",
    [
        {"previous": "ab" * 32},
        {"pending": 3},
        {"actor": "9"},
        {"parent": "ab" * 16},
        {"policy": {"renew_after": 60}, "keyed_at": NOW - HOUR},
    ],
    ids=lambda change: next(iter(change)),
)
def test_row_waits_for_no_session_of_which_more_is_asked(change: dict[str, Any]):
    facts = Facts(handle="ab" * 16, user="7")
    assert plans.can_wait(facts, NOW - MINUTE, NOW, NOW, None, COOKIE_AGE)
    facts = facts._replace(**change)
    assert not plans.can_wait(facts, NOW - MINUTE, NOW, NOW, None, COOKIE_AGE)
