"""What it costs that sessions end, or are locked, in time."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests import store
from tests.browsers import browse_as
from tests.calls import BACKGROUND, hand_made
from tests.people import key_of, post_sign_in, told
from tests.store import HOUR, SessionStore, round_trips

pytestmark = [pytest.mark.django_db, pytest.mark.transports("cookie", "header")]


@pytest.mark.parametrize(
    "rules", [{}, {"idle": 600, "absolute": HOUR}, {"idle": 600, "absolute": HOUR, "lock": True}]
)
def test_what_a_policy_costs(signed_in, policy, clock, rules):
    policy(**rules)
    browser = signed_in()
    url = f"/{browser.a}read/"
    clock.move(seconds=50)
    with round_trips(1):
        browser.get(url)
    clock.move(seconds=50)
    with round_trips(2):  # the session and the row
        browser.get(url, headers=BACKGROUND)
    with round_trips(4):  # both are read first, and written last
        browser.get(url)
    with round_trips(1):
        browser.get(url)
    if "lock" in rules:
        clock.move(seconds=600)
        with round_trips(1):
            browser.get(url)


def test_what_it_costs_to_end(signed_in, policy, clock):
    policy(idle=600)
    browser = signed_in()
    again = browse_as(browser, key_of(browser))
    clock.move(seconds=600)
    with round_trips(4):
        told(browser)
    with round_trips(2):  # the session and the row
        told(again)


@pytest.mark.parametrize("full", [False, True])
def test_what_it_costs_to_unlock_a_session(locked, drive, full):
    session = SessionStore(key_of(locked))
    with round_trips(1):
        drive(session, "get", "cart")
    # It is read again, and its row looked at when it is there; a full proof needs the user.
    count = 4 if store.APART else 6
    with round_trips(count + full):
        drive(session, "unlock", full)


def test_what_it_costs_to_prove_who_one_is(alice, policy, clock, drive):
    policy(idle=600, absolute=HOUR)
    session = SessionStore(hand_made(alice).session_key)
    session.get("cart")
    with round_trips(4 if store.APART else 6):
        drive(session, "reauthenticate")


@pytest.mark.parametrize("rules", [{}, {"idle": 600, "absolute": HOUR, "lock": True}])
@pytest.mark.transports("cookie")
def test_a_sign_in_costs_the_same_whatever_the_policy(browse, alice, policy, rules):
    policy(**rules)
    browser = browse()
    with CaptureQueriesContext(connection) as queries:
        post_sign_in(browser)
    made = [query["sql"] for query in queries]
    # The row is written, compared with others of its user, and looked at once more.
    assert len([sql for sql in made if "django_sessionkit_usersession" in sql]) == 3
