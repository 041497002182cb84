"""
What the kit knows of a session, and until when the session lives: arithmetic on milliseconds. No
test here needs a store, a request or a clock.
"""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.sessions.backends.base import SessionBase
from django.test import override_settings
from hypothesis import assume, example, given
from hypothesis import strategies as st

from django_sessionkit.accounts import UNKNOWN
from django_sessionkit.backends.facts import (
    END_OF_TIME,
    FAMILY,
    HIDDEN,
    KNOWN,
    TIME_TO_CHOOSE,
    Activity,
    Facts,
    age_of,
    known_of,
)
from django_sessionkit.clock import Lifetime, as_datetime
from django_sessionkit.conf import conf
from django_sessionkit.policy import AAL1, AAL2, AAL3, HUNDRED_YEARS, STAFF, Policy
from django_sessionkit.visit.client import Client
from django_sessionkit.visit.interruptions import Lock
from tests.people import CHROME_ON_LINUX, FIREFOX, FIREFOX_ON_WINDOWS, IPHONE, NEW_FIREFOX

pytestmark = pytest.mark.once

# In milliseconds.
SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
NOW = 1_790_000_000_000
FORTNIGHT = 14 * DAY
COOKIE_AGE = 14 * 24 * 60 * 60  # seconds

IDLE = {"idle": 600}
LOCK = {"idle": 600, "lock": True}

FULL = Facts(
    handle="0192f0c1a2b37c4d8e5f60718293a4b5",
    user="7",
    authenticated_at=NOW - DAY,
    row_expires_at=NOW + DAY,
    policy=LOCK,
    deadline=NOW + 2 * DAY,
    keyed_at=NOW - HOUR,
    seen=NOW - MINUTE,
    previous="ab" * 32,
    bound={"browser": "Firefox"},
    pending=3,
    successor="cd" * 20,
    actor="9",
    by_header=True,
    keeps_key=True,
    parent="ef" * 16,
    client="5e" * 5,
)
# The list that is stored of FULL. Sessions are stored like this: no value may change its place.
FULL_AS_STORED = [
    "0192f0c1a2b37c4d8e5f60718293a4b5",
    "7",
    NOW - DAY,
    NOW + DAY,
    {"idle": 600, "lock": True},
    NOW + 2 * DAY,
    NOW - HOUR,
    NOW - MINUTE,
    "ab" * 32,
    {"browser": "Firefox"},
    3,
    "cd" * 20,
    "9",
    True,
    True,
    "ef" * 16,
    "5e" * 5,
]

HOME, ELSEWHERE = "192.0.2.7", "198.51.100.7"


# What the properties are tried with.

MOMENTS = st.integers(1, 4_000_000_000_000)  # to the year 2096
SECONDS = st.integers(1, HUNDRED_YEARS) | st.integers(1, 1000)
MILLISECONDS = st.integers(0, 1_000_000_000_000) | st.integers(0, 1_000_000)
JSON = st.none() | st.integers(-5, 5) | st.text(max_size=3) | st.lists(st.booleans(), max_size=2)
CLIENTS = st.none() | st.builds(
    Client,
    st.sampled_from([None, HOME, ELSEWHERE, "2001:db8::7"]),
    st.sampled_from(["", "curious", FIREFOX, CHROME_ON_LINUX, FIREFOX_ON_WINDOWS, IPHONE]),
)
TRAITS = st.fixed_dictionaries(
    {},
    optional={
        "browser": st.sampled_from(["", "Firefox", "Chrome"]),
        "system": st.sampled_from(["", "Windows", "Linux"]),
        "network": st.sampled_from(["", "192.0.2.0/24"]),
    },
)


# What sessions keep of their policies.
POLICIES = st.sampled_from(
    [
        policy.facts()
        for policy in [
            *[Policy(), AAL1, AAL2, AAL3, STAFF, Policy(renew_after=60)],
            *[Policy(idle=idle) for idle in (1, 7, 600, HUNDRED_YEARS)],
            *[Policy(idle=idle, lock=True) for idle in (1, 50, 601, HUNDRED_YEARS)],
        ]
    ]
)
SOME_FACTS = st.tuples(
    st.just(0) | MOMENTS,
    st.just(0) | MOMENTS,
    POLICIES,
    st.none() | MOMENTS,
    st.none() | MOMENTS,
    st.none() | st.integers(1, 5),
).map(
    lambda known: Facts(
        authenticated_at=known[0],
        row_expires_at=known[1],
        policy=known[2],
        deadline=known[3],
        keyed_at=known[4],
        pending=known[5],
    )
)
# Facts for those who ask only which values are the same.
NUMBERED = st.lists(st.integers(0, 2), min_size=KNOWN + 1, max_size=KNOWN + 1).map(Facts._make)


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


# What is stored.


def test_visitor_who_is_not_signed_in_has_no_facts():
    assert Facts().as_stored() == []
    assert Facts.of([]) == Facts()


def test_every_fact_has_its_place_for_good():
    assert FULL.as_stored() == FULL_AS_STORED
    assert Facts.of(FULL_AS_STORED) == FULL
    assert len(FULL_AS_STORED) == KNOWN


@pytest.mark.parametrize(
    ("facts", "stored"),
    [
        (Facts(handle="ab"), ["ab"]),
        (Facts(user="7"), [None, "7"]),
        (Facts(row_expires_at=5), [None, None, 0, 5]),
        (Facts(handle="ab", deadline=5), ["ab", None, 0, 0, {}, 5]),
        (Facts(policy=IDLE, pending=None), [None, None, 0, 0, {"idle": 600}]),
        (Facts(successor="cd"), [None, None, 0, 0, {}, None, None, None, None, None, None, "cd"]),
    ],
)
def test_only_the_values_at_the_end_that_say_nothing_are_left_out(facts: Facts, stored: list[Any]):
    assert facts.as_stored() == stored
    assert Facts.of(stored) == facts


@pytest.mark.parametrize("later", [["new"], ["new", 5], [None], [0, None], [[]], [{}, "new", None]])
def test_what_a_later_version_has_stored_is_kept_as_it_is(later: list[Any]):
    facts = Facts.of([*FULL_AS_STORED, *later])
    assert facts == FULL._replace(unknown=tuple(later))
    assert facts.as_stored() == [*FULL_AS_STORED, *later]
    renewed = facts.rekeyed("ef" * 32, NOW).arrived(NOW)._replace(pending=None, successor=None)
    assert renewed.as_stored()[KNOWN:] == later


def test_what_a_later_version_has_stored_keeps_its_place_behind_facts_that_say_nothing():
    assert Facts(unknown=("new",)).as_stored() == [*Facts()[:KNOWN], "new"]


def test_whoever_acts_as_the_user_is_behind_the_session():
    assert FULL.person == "9"
    assert FULL._replace(actor=None).person == FULL._replace(actor=UNKNOWN).person == "7"
    passed_on = FULL.passed_on("5", True, NOW)
    assert (passed_on.user, passed_on.actor, passed_on.keyed_at) == ("5", "9", NOW)
    kept = ("authenticated_at", "policy", "deadline", "bound")
    assert all(getattr(passed_on, name) == getattr(FULL, name) for name in kept)
    assert (passed_on.handle, passed_on.pending, passed_on.previous) == (None, None, None)
    assert FULL._replace(keyed_at=None).passed_on("9", False, NOW).keyed_at is None


@given(
    st.tuples(
        st.none() | st.just("ab" * 16),
        st.none() | st.text(min_size=1, max_size=5),
        st.just(0) | MOMENTS,
        st.just(0) | MOMENTS,
        POLICIES,
        *[st.none() | MOMENTS] * 3,
        st.none() | st.just("cd" * 32),
        st.none() | TRAITS.filter(bool),
        st.none() | st.integers(1, 5),
        st.none() | st.just("ef" * 20),
        st.none() | st.sampled_from(["7", UNKNOWN]),
        st.booleans(),
        st.booleans(),
        st.none() | st.just("0d" * 16),
        st.none() | st.just("5e" * 5),
        st.lists(JSON, max_size=2).map(tuple),
    ).map(Facts._make)
)
def test_facts_are_the_same_once_they_were_stored(facts: Facts):
    stored = json.loads(json.dumps(facts.as_stored()))
    assert Facts.of(stored) == facts
    assert Facts.of(stored).as_stored() == stored


@given(st.lists(JSON, max_size=KNOWN + 3))
def test_list_is_the_same_once_it_was_read(stored: list[Any]):
    """But for values at its end that say nothing, which no list that is stored has."""
    assume(len(stored) > KNOWN or not stored or stored[-1])
    assert Facts.of(stored).as_stored() == stored


def test_handle_names_the_row():
    assert FULL.row == uuid.UUID("0192f0c1-a2b3-7c4d-8e5f-60718293a4b5")


# Merged.


def test_two_requests_that_changed_different_facts_have_both_changed_them():
    mine = FULL._replace(bound={"browser": "Chrome"})
    theirs = FULL._replace(row_expires_at=NOW + 3 * DAY, previous=None, unknown=("new",))
    both = theirs._replace(bound={"browser": "Chrome"})
    assert mine.merged(FULL, theirs) == theirs.merged(FULL, mine) == both


def test_own_change_wins():
    mine, theirs = FULL._replace(deadline=NOW + 5), FULL._replace(deadline=NOW + 6)
    assert mine.merged(FULL, theirs).deadline == NOW + 5
    assert theirs.merged(FULL, mine).deadline == NOW + 6


def test_to_remove_a_fact_is_a_change():
    assert FULL._replace(pending=None).merged(FULL, FULL._replace(seen=NOW)).pending is None
    assert FULL.merged(FULL, FULL._replace(pending=None)).pending is None


def test_equal_values_are_no_change_whoever_made_them():
    mine = FULL._replace(policy=dict(LOCK), bound={"browser": "Firefox"})
    theirs = FULL._replace(policy=IDLE, bound={"browser": "Chrome"})
    assert mine.merged(FULL, theirs) == theirs


@given(NUMBERED, NUMBERED, NUMBERED)
def test_what_was_not_changed_follows_the_others(base: Facts, mine: Facts, theirs: Facts):
    assert base.merged(base, theirs) == theirs
    assert mine.merged(base, base) == mine
    merged = mine.merged(base, theirs)
    assert type(merged) is Facts
    for name in Facts._fields:
        follows = theirs if getattr(mine, name) == getattr(base, name) else mine
        assert getattr(merged, name) == getattr(follows, name)


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
    assert facts.ends_at(NOW, None, 1) == ends_at


@given(SOME_FACTS, MOMENTS, MILLISECONDS)
def test_later_activity_never_ends_a_session_earlier(facts: Facts, active_at: int, later: int):
    ends_at = facts.ends_at(active_at, None, 1)
    assert facts.ends_at(active_at + later, None, 1) >= ends_at
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
    assert facts.lock_at(NOW - inactive, NOW) is lock


@given(SOME_FACTS, MOMENTS, MOMENTS, MILLISECONDS)
def test_lock_stays_locked(facts: Facts, touched_at: int, now: int, later: int):
    locked = facts.lock_at(touched_at, now)
    if locked:
        assert facts.lock_at(touched_at, now + later) is locked
        assert facts.lock_at(touched_at - later, now) is locked


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
    assert Facts(policy=policy).touch_interval(expiry, cookie_age) == milliseconds


@given(SOME_FACTS, st.none() | SECONDS, SECONDS)
def test_activity_is_written_ten_times_in_a_life_without_it(
    facts: Facts, expiry: int | None, cookie_age: int
):
    interval = facts.touch_interval(expiry, cookie_age)
    life = min(expiry or cookie_age, facts.policy.get("idle", HUNDRED_YEARS))
    assert 0 < interval <= 1000 * conf.SESSIONKIT_TOUCH_INTERVAL
    assert interval * 10 <= 1000 * life
    assert interval == 1000 * conf.SESSIONKIT_TOUCH_INTERVAL or interval * 10 == 1000 * life


# Whose key.


def test_row_may_have_the_key_before_until_the_new_key_is_seen():
    renewed = FULL.rekeyed("old", NOW)
    assert renewed == FULL._replace(keyed_at=NOW, previous="old", seen=None)
    assert renewed.may_have("new") == ["new", "old"]
    arrived = renewed.arrived(NOW + 5)
    assert arrived == FULL._replace(keyed_at=NOW, previous=None, seen=NOW + 5)
    assert arrived.may_have("new") == ["new"]


@pytest.mark.parametrize(
    ("policy", "keyed_at", "wants"),
    [
        ({}, NOW - DAY, False),
        ({"renew_after": 60}, None, False),
        ({"renew_after": 60}, NOW, False),
        ({"renew_after": 60}, NOW - MINUTE + 1, False),
        ({"renew_after": 60}, NOW - MINUTE, True),
        ({"renew_after": 60}, NOW - DAY, True),
        # A clock that was put back a little, and by so much that the key would never be renewed.
        ({"renew_after": 60}, NOW + MINUTE - 1, False),
        ({"renew_after": 60}, NOW + MINUTE, True),
        ({"renew_after": 60}, NOW + DAY, True),
    ],
)
def test_key_is_renewed_when_its_time_is_over(
    policy: dict[str, Any], keyed_at: int | None, wants: bool
):
    assert Facts(policy=policy, keyed_at=keyed_at).wants_new_key(NOW) is wants


# Who it is.


@pytest.mark.parametrize("policy", [Policy(), AAL1, AAL2, AAL3, STAFF])
def test_proof_of_identity_begins_the_longest_time_anew(policy: Policy):
    proved = FULL.proved(policy, None, NOW)
    assert proved == FULL._replace(
        authenticated_at=NOW,
        policy=policy.facts(),
        deadline=None if policy.absolute is None else NOW + 1000 * policy.absolute,
        keyed_at=None,
        bound=None,
    )


def test_proof_of_identity_counts_the_age_of_the_key_anew():
    proved = Facts().proved(Policy(renew_after=60), None, NOW)
    assert proved.keyed_at == NOW
    assert not proved.wants_new_key(NOW)
    assert proved.wants_new_key(NOW + MINUTE)


@pytest.mark.parametrize(
    ("bind", "client", "bound"),
    [
        ((), Client(HOME, FIREFOX), None),
        (("browser",), Client(HOME, FIREFOX), {"browser": "Firefox"}),
        (
            ("browser", "system", "network"),
            Client(HOME, FIREFOX_ON_WINDOWS),
            {"browser": "Firefox", "system": "Windows", "network": "192.0.2.0/24"},
        ),
        (("network",), Client("2001:db8:1:2::7", ""), {"network": "2001:db8:1::/48"}),
        (("browser", "network"), Client(None, ""), {"browser": "", "network": ""}),
        (("browser", "network"), None, {"browser": "", "network": ""}),
    ],
)
def test_proof_of_identity_binds_to_what_is_known_of_the_client(
    bind: Any, client: Client | None, bound: dict[str, str] | None
):
    assert Facts().proved(Policy(bind=bind), client, NOW).bound == bound


@pytest.mark.parametrize("ahead", [-DAY, 0, 1, MINUTE])
def test_clock_that_is_right_changes_nothing(ahead: int):
    facts = Facts(authenticated_at=NOW + ahead, deadline=NOW + DAY)
    assert facts.with_clock_set(NOW, MINUTE) is facts


@pytest.mark.parametrize("ahead", [MINUTE + 1, HOUR, DAY])
def test_clock_that_was_put_back_takes_the_longest_time_back_with_it(ahead: int):
    facts = FULL._replace(authenticated_at=NOW + ahead, deadline=NOW + ahead + HOUR)
    set_back = FULL._replace(authenticated_at=NOW, deadline=NOW + HOUR)
    assert facts.with_clock_set(NOW, MINUTE) == set_back
    endless = facts._replace(deadline=None)
    assert endless.with_clock_set(NOW, MINUTE) == set_back._replace(deadline=None)


def test_clock_that_was_put_back_begins_the_grace_anew():
    facts = FULL._replace(authenticated_at=NOW, seen=NOW + HOUR)
    assert facts.with_clock_set(NOW, MINUTE) == facts._replace(seen=NOW)


@pytest.mark.parametrize(
    ("seen", "late"),
    [
        (NOW, False),
        (NOW - 10_000 + 1, False),
        (NOW - 10_000, True),
        (NOW - DAY, True),
        (NOW + MINUTE - 1, False),
        (NOW + MINUTE, True),
    ],
)
def test_former_key_is_late_after_its_grace_or_long_before(seen: int, late: bool):
    assert Facts(policy={"renew_grace": 10}).is_late(seen, NOW) is late


def test_former_key_keeps_no_more_than_it_takes_to_judge_its_use():
    policy = {"idle": 600, "renew_grace": 10, "on_reuse": "report"}
    kept = FULL._replace(policy=policy).left_behind("cd" * 20)
    assert kept == Facts(
        handle=FULL.handle,
        authenticated_at=FULL.authenticated_at,
        policy={"renew_grace": 10, "on_reuse": "report"},
        seen=FULL.seen,
        successor="cd" * 20,
    )


@given(SOME_FACTS, MOMENTS, st.integers(0, HOUR))
def test_clock_that_was_put_back_makes_no_session_longer(facts: Facts, now: int, tolerance: int):
    by_clock = facts.with_clock_set(now, tolerance)
    assert by_clock.authenticated_at <= now + tolerance
    assert by_clock.authenticated_at <= facts.authenticated_at
    assert (by_clock.deadline is None) is (facts.deadline is None)
    if by_clock.deadline is not None and facts.deadline is not None:
        assert by_clock.deadline <= facts.deadline
        # The longest time is as long as before.
        assert (
            by_clock.deadline - by_clock.authenticated_at == facts.deadline - facts.authenticated_at
        )
    assert by_clock.with_clock_set(now, tolerance) is by_clock


# Where it is bound to be.

BOUND = {"browser": "Firefox", "system": "Linux", "network": "192.0.2.0/24"}
BOTH = BOUND | {"network": "192.0.2.0/24 2001:db8::/48"}


@pytest.mark.parametrize(
    ("bound", "client", "changed"),
    [
        (None, Client(ELSEWHERE, IPHONE), []),
        (BOUND, Client(HOME, FIREFOX), []),
        (BOUND, Client(HOME, NEW_FIREFOX), []),
        (BOUND, Client("192.0.2.250", FIREFOX), []),
        (BOUND, Client(HOME, CHROME_ON_LINUX), ["browser"]),
        (BOUND, Client(HOME, FIREFOX_ON_WINDOWS), ["system"]),
        (BOUND, Client(ELSEWHERE, FIREFOX), ["network"]),
        (BOUND, Client("2001:db8::7", FIREFOX), [FAMILY]),
        (BOTH, Client("2001:db8::7", FIREFOX), []),
        (BOTH, Client(HOME, FIREFOX), []),
        (BOTH, Client("2001:db8:1::7", FIREFOX), ["network"]),
        (BOTH, Client(ELSEWHERE, FIREFOX), ["network"]),
        (BOUND, Client(ELSEWHERE, IPHONE), ["browser", "system", "network"]),
        # What is not known now.
        (BOUND, None, []),
        (BOUND, Client(None, FIREFOX), []),
        (BOUND, Client(HOME, ""), ["browser", "system"]),
        (BOUND | {"browser": HIDDEN, "system": HIDDEN}, Client(HOME, ""), []),
        (BOUND | {"browser": HIDDEN}, Client(HOME, FIREFOX), ["browser"]),
        (BOUND, Client(None, IPHONE), ["browser", "system"]),
        # What was not known then.
        (dict.fromkeys(BOUND, ""), Client(HOME, FIREFOX), []),
        (BOUND | {"system": ""}, Client(HOME, IPHONE), ["browser"]),
        # What the policy does not name.
        ({"network": "192.0.2.0/24"}, Client(HOME, IPHONE), []),
        ({"system": "Linux"}, Client(ELSEWHERE, IPHONE), ["system"]),
    ],
)
def test_what_was_known_then_and_is_another_now_has_changed(
    bound: dict[str, str] | None, client: Client | None, changed: list[str]
):
    assert Facts(bound=bound).changed(client) == changed


@pytest.mark.parametrize(
    ("bound", "client", "bound_to", "rebound"),
    [
        (None, Client(HOME, FIREFOX), None, None),
        (
            BOUND,
            Client(ELSEWHERE, FIREFOX),
            BOUND | {"network": "198.51.100.0/24"},
            BOUND | {"network": "198.51.100.0/24"},
        ),
        (BOUND, Client(None, FIREFOX), BOUND, BOUND | {"network": ""}),
        (BOUND, None, BOUND, dict.fromkeys(BOUND, "")),
        (dict.fromkeys(BOUND, ""), Client(HOME, FIREFOX), BOUND, BOUND),
        ({"system": ""}, Client(HOME, FIREFOX), {"system": "Linux"}, {"system": "Linux"}),
        ({"system": "Linux"}, Client(HOME, ""), {"system": HIDDEN}, {"system": ""}),
        ({"system": HIDDEN}, Client(HOME, ""), {"system": HIDDEN}, {"system": ""}),
        ({"system": ""}, Client(HOME, ""), {"system": ""}, {"system": ""}),
        (BOUND, Client("2001:db8::7", FIREFOX), BOTH, BOUND | {"network": "2001:db8::/48"}),
        (
            BOTH,
            Client(ELSEWHERE, FIREFOX),
            BOUND | {"network": "198.51.100.0/24 2001:db8::/48"},
            BOUND | {"network": "198.51.100.0/24"},
        ),
    ],
)
def test_only_a_proof_of_identity_forgets_what_is_not_known_any_more(
    bound: dict[str, str] | None,
    client: Client | None,
    bound_to: dict[str, str] | None,
    rebound: dict[str, str] | None,
):
    facts = FULL._replace(bound=bound)
    assert facts.bound_to(client) == FULL._replace(bound=bound_to)
    assert facts.rebound(client) == FULL._replace(bound=rebound)


def test_session_that_is_where_it_was_has_no_new_facts():
    facts = FULL._replace(bound=BOUND)
    for client in (None, Client(None, FIREFOX), Client("192.0.2.8", NEW_FIREFOX)):
        assert facts.bound_to(client) is facts
    free = FULL._replace(bound=None)
    assert free.bound_to(Client(HOME, IPHONE)) is free.rebound(Client(HOME, IPHONE)) is free


def test_what_a_later_version_is_bound_to_is_left_to_that():
    facts = FULL._replace(bound={"browser": "Firefox", "colour": "green"})
    elsewhere = Client(ELSEWHERE, CHROME_ON_LINUX)
    assert facts.changed(elsewhere) == ["browser"]
    assert facts.bound_to(elsewhere).bound == {"browser": "Chrome", "colour": "green"}
    assert facts.bound_to(Client(HOME, FIREFOX)) is facts
    assert facts.rebound(elsewhere).bound == {"browser": "Chrome"}


@given(st.none() | TRAITS, CLIENTS)
def test_session_has_not_moved_from_the_client_to_which_it_is_bound(
    bound: dict[str, str] | None, client: Client | None
):
    facts = Facts(bound=bound)
    names = set(bound or {})
    assert set(facts.changed(client)) <= {name for name in names if (bound or {})[name]} | {FAMILY}
    assert facts.changed(None) == []
    for after in (facts.bound_to(client), facts.rebound(client)):
        assert after.changed(client) == []
        assert set(after.bound or {}) == names
    assert facts.rebound(None).changed(client) == []


# What a write writes.


def write(**known: Any) -> Activity:
    """Return what a write in a person's request knows, but for what is said here."""
    return Activity(**({"now": NOW, "cookie_age": COOKIE_AGE, "in_request": True} | known))


def test_new_key_in_the_background_ends_at_the_date_that_was_set():
    """The date is nearer than the last activity is long ago."""
    date = as_datetime(NOW + 5 * MINUTE).isoformat()
    activity = write(background=True, stored_at=NOW - HOUR, expiry=date)
    plan = activity.plan(Facts(), date, moving=True)
    assert plan.lifetime.expires_at == NOW + 5 * MINUTE


def in_background(**known: Any) -> Activity:
    """The last activity was a minute ago; what happens now happens by itself."""
    return write(**({"stored_at": NOW - MINUTE, "background": True} | known))


def without_request(**known: Any) -> Activity:
    return write(**({"stored_at": NOW - MINUTE, "in_request": False} | known))


def date(milliseconds: int) -> str:
    """Return what set_expiry() stores of a date that is so far from now."""
    return (
        datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(milliseconds=milliseconds)
    ).isoformat()


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
    assert facts.is_over(NOW - MINUTE, NOW, None, 1) is is_over


@given(writes())
def test_no_write_outlives_what_the_facts_and_the_age_allow(
    known: tuple[Activity, Facts, Any, bool],
):
    activity, facts, expiry, moving = known
    plan = activity.plan(facts, expiry, moving)
    expires_at = plan.lifetime.expires_at
    assert expires_at >= 1
    assert expires_at <= max(1, facts.ends_at(plan.active_at, expiry, activity.cookie_age))
    age = age_of(expiry, activity.now) if expiry else activity.cookie_age
    assert expires_at <= max(1, activity.now + int(1000 * age))
    is_date = isinstance(expiry, (str, datetime))
    assert expires_at in (
        1,
        facts.ends_at(plan.active_at, expiry, activity.cookie_age),
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
    interval = facts.touch_interval(expiry, of_visitor)
    left = facts.time_left(NOW, NOW, expiry, of_visitor)
    with override_settings(SESSIONKIT_VISITOR_AGE=age):
        assert activity.plan(facts, expiry, moving) == plan
        assert facts.touch_interval(expiry, activity.cookie_age) == interval
        assert facts.time_left(NOW, NOW, expiry, activity.cookie_age) == left


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
    was_locked = activity.stored_at and facts.lock_at(activity.stored_at, activity.now)
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
    is_near = off < facts.touch_interval(expiry, activity.cookie_age)
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
    assert age_of(age, NOW) == age_by_django(age, NOW) == age


@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("now", [NOW, NOW + 1, NOW + 999, *CHANGES_OF_THE_CLOCKS])
def test_age_of_a_date_is_what_django_says_it_is(settings: Any, use_tz: bool, now: int):
    settings.USE_TZ = use_tz
    for distance in DISTANCES:
        expiry = as_datetime(now + distance)
        assert age_of(expiry, now) == age_by_django(expiry, now)
        assert age_of(expiry.isoformat(), now) == age_by_django(expiry.isoformat(), now)
        assert age_of(expiry.isoformat(), now) == age_of(expiry, now)


def test_age_of_a_date_is_cut_to_whole_seconds():
    for distance, age in [(0, 0), (999, 0), (1000, 1), (-1, -1), (-1000, -1), (-1001, -2)]:
        assert age_of(date(distance), NOW) == age


@pytest.mark.parametrize(
    "expiry", ["2026-09-21T14:13:25Z", "2026-09-21T16:13:25+02:00", "2026-09-21T09:13:25-05:00"]
)
def test_date_may_be_that_of_another_time_zone(expiry: str):
    assert age_of(expiry, NOW) == age_by_django(expiry, NOW) == 5


@pytest.mark.parametrize(("use_tz", "expiry"), [(True, "2026-09-21T14:13:25"), (False, date(0))])
def test_date_of_a_site_that_has_changed_use_tz_is_an_error_as_in_django(
    settings: Any, use_tz: bool, expiry: str
):
    settings.USE_TZ = use_tz
    for ask in (age_of, age_by_django):
        with pytest.raises(TypeError, match="naive"):
            ask(expiry, NOW)


@given(st.booleans(), MOMENTS, st.integers(-3650 * DAY, 3650 * DAY))
@example(False, CHANGES_OF_THE_CLOCKS[0], HOUR)
@example(False, CHANGES_OF_THE_CLOCKS[1], HOUR)
def test_age_of_any_date_is_what_django_says_it_is(use_tz: bool, now: int, distance: int):
    with override_settings(USE_TZ=use_tz):
        expiry = as_datetime(max(0, now + distance)).isoformat()
        assert age_of(expiry, now) == age_by_django(expiry, now)


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
    interval, life = facts.touch_interval(None, age), 1000 * age
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
            if not facts.can_wait(touched_at, flushed_at, now, None, age):
                known_at = now
            touched_at = now


def test_row_waits_for_no_longer_than_three_writes_of_activity():
    facts = Facts(handle="ab" * 16, user="7")

    def can_wait(facts: Facts = facts, *, flushed: int = 0, touched: int = MINUTE) -> bool:
        return facts.can_wait(NOW - touched, NOW - flushed, NOW, None, COOKIE_AGE)

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
    assert facts.can_wait(NOW - MINUTE, NOW, NOW, None, COOKIE_AGE)
    facts = facts._replace(**change)
    assert not facts.can_wait(NOW - MINUTE, NOW, NOW, None, COOKIE_AGE)


def test_what_the_row_says_of_a_client_is_known_by_a_hash():
    """Of client hints, a row takes those that come with the whole of them."""
    firefox = Client("192.0.2.1", FIREFOX)
    known = known_of(firefox, None)
    assert known_of(firefox, known) == known
    assert "192" not in known
    assert "Firefox" not in known
    others = [Client("192.0.2.2", FIREFOX), Client("192.0.2.1", IPHONE), Client(None, FIREFOX)]
    assert len({known_of(other, known) for other in others} | {known}) == 4
    some, whole = Client("192.0.2.1", FIREFOX, "UA=1"), Client("192.0.2.1", FIREFOX, "Model=2")
    assert known_of(some, known) == known
    with_hints = known_of(whole, known)
    assert with_hints != known
    assert known_of(some, with_hints) == with_hints == known_of(whole, with_hints)
