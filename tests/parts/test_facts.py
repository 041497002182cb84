"""
What the kit knows of a session, and what becomes of that. No test here needs a store, a request or
a clock.
"""

import json
import uuid
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from django_sessionkit.accounts import UNKNOWN
from django_sessionkit.backends.facts import KNOWN, Facts, known_of
from django_sessionkit.policy import AAL1, AAL2, AAL3, STAFF, Policy
from django_sessionkit.visit.client import Client
from tests.facts import (
    DAY,
    HOME,
    HOUR,
    IDLE,
    LOCK,
    MINUTE,
    MOMENTS,
    NOW,
    POLICIES,
    SOME_FACTS,
    TRAITS,
)
from tests.people import FIREFOX, FIREFOX_ON_WINDOWS, IPHONE

pytestmark = pytest.mark.once

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

JSON = st.none() | st.integers(-5, 5) | st.text(max_size=3) | st.lists(st.booleans(), max_size=2)
# Facts for those who ask only which values are the same.
NUMBERED = st.lists(st.integers(0, 2), min_size=KNOWN + 1, max_size=KNOWN + 1).map(Facts._make)


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
