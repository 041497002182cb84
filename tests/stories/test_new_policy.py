"""
The policy is asked again when privileges have changed: what it says then holds from the new key on.
"""

from datetime import timedelta

import pytest
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import Group
from django.db import OperationalError

from django_sessionkit.accounts import stored_policy_of
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.policy import STAFF, Policy
from tests import policies
from tests.apps import Keeping
from tests.browsers import cart, put
from tests.calls import CALL, use
from tests.people import (
    FIREFOX,
    handle,
    is_in,
    is_still_in,
    key_of,
    row_of,
    told,
    who,
)
from tests.store import HOUR, SessionStore

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site("tests.calls"),
    pytest.mark.transports("cookie", "header"),
]


def promote(user, is_staff=True):
    """Let a user join the staff, or leave it."""
    user.is_staff = is_staff
    user.save()


def of_staff(user, request=None):
    """Return ``policies.chosen`` for staff, and no rule for others."""
    return policies.chosen if user.is_staff else Policy()


@pytest.fixture
def staff_have(settings, monkeypatch):
    """A function that gives staff a Policy with these fields; others have no rule."""
    settings.SESSIONKIT_POLICY = f"{__name__}.of_staff"

    def choose(**fields):
        monkeypatch.setattr(policies, "chosen", Policy(**fields))

    return choose


# Its times.


@pytest.mark.standard("ASVS-8.3.2")
def test_who_joins_the_staff_is_under_the_rules_for_staff_from_the_next_key_on(
    shopper, alice, clock
):
    browser = shopper()
    key, at = key_of(browser), row_of(browser).authenticated_at
    promote(alice)
    clock.move(seconds=61)
    assert cart(browser) == "teapot"
    assert key_of(browser) != key
    session, row = SessionStore(key_of(browser)), row_of(browser)
    assert session.policy.facts() == STAFF.facts()
    assert session.authenticated_at == row.authenticated_at == at
    assert row.expires_at == row.idle_at == at + timedelta(seconds=61 + HOUR)
    assert isinstance(browser, Keeping) or browser.cookies["sessionid"]["max-age"] == HOUR
    assert not row.renew
    clock.move(seconds=HOUR - 1)
    assert is_still_in(browser)
    clock.move(seconds=HOUR)
    assert told(browser) == "idle"


def test_the_longest_time_of_who_joins_the_staff_counts_from_the_sign_in(signed_in, alice, clock):
    browser = signed_in()
    clock.move(hours=11, minutes=30)
    promote(alice)
    assert is_still_in(browser)
    clock.move(minutes=29, seconds=59)
    assert is_still_in(browser)
    clock.move(seconds=1)
    assert told(browser) == "expired"


def test_who_leaves_the_staff_is_under_the_rules_for_all(signed_in, alice, clock):
    promote(alice)
    browser = signed_in()
    promote(alice, is_staff=False)
    clock.move(seconds=61)
    assert is_still_in(browser)
    for _ in range(3):
        clock.move(days=9)
        assert is_still_in(browser)
    clock.move(days=3)
    assert told(browser) == "expired"


def test_who_signed_in_too_long_ago_for_staff_signs_in_again(signed_in, alice, clock, ended):
    browser = signed_in()
    gone = handle(browser)
    clock.move(days=5)
    promote(alice)
    assert is_still_in(browser)
    assert ended == [({gone}, EndReason.EXPIRED, None)]
    assert told(browser) == "expired"


def test_a_session_that_was_opened_by_the_password_is_no_longer_for_that(
    signed_in, staff_have, alice, clock
):
    """The longest time goes on when a locked session is opened, and under another policy too."""
    staff_have(idle=600, absolute=HOUR, lock=True)
    promote(alice)
    browser = signed_in()
    clock.move(seconds=1800)
    browser.get("/whoami/")
    use(browser, "unlock")
    clock.move(seconds=120)
    staff_have(absolute=2 * HOUR)
    alice.is_superuser = True
    alice.save()
    assert is_still_in(browser)
    clock.move(seconds=2 * HOUR - 1921)
    assert is_still_in(browser)
    clock.move(seconds=1)
    assert told(browser) == "expired"


def test_a_longest_time_that_there_was_not_counts_from_the_sign_in_too(
    signed_in, staff_have, alice, clock
):
    staff_have(absolute=HOUR)
    browser = signed_in()
    clock.move(seconds=1800)
    promote(alice)
    assert is_still_in(browser)
    clock.move(seconds=1799)
    assert is_still_in(browser)
    clock.move(seconds=1)
    assert told(browser) == "expired"


def test_what_counts_as_recent_is_asked_again(signed_in, staff_have, alice, clock):
    staff_have(recent=900)
    browser = signed_in()
    promote(alice)
    clock.move(seconds=61)
    assert is_still_in(browser)
    assert SessionStore(key_of(browser)).policy == Policy(recent=900)


def test_what_a_session_is_bound_to_is_learnt_and_stays(signed_in, staff_have, alice, clock):
    staff_have(bind=("browser",), on_change="end")
    browser = signed_in(**{"user-agent": FIREFOX})
    promote(alice)
    clock.move(seconds=61)
    assert is_still_in(browser)
    staff_have(bind=("browser", "system"), on_change="report")
    alice.is_superuser = True
    alice.save()
    clock.move(seconds=61)
    assert is_still_in(browser)
    bound = SessionStore(key_of(browser))
    assert bound.policy == Policy(bind=("browser", "system"))
    bound.ensure_loaded()
    assert bound._facts.bound == {"browser": "Firefox", "system": "Linux"}


# Its limit.


def test_who_is_over_the_new_limit_keeps_the_session_that_is_used_first(
    signed_in, staff_have, alice, clock, ended
):
    staff_have(limit=2)
    browsers = []
    for _ in range(4):
        clock.move(seconds=1)
        browsers.append(signed_in())
    handles = [handle(browser) for browser in browsers]
    promote(alice)
    clock.move(seconds=61)
    assert is_still_in(browsers[0])
    assert ended == [({handles[1], handles[2]}, EndReason.LIMIT, None)]
    assert is_still_in(browsers[3])
    assert len(ended) == 1
    assert told(browsers[1]) == "limit"


def test_who_is_over_the_new_limit_that_refuses_signs_in_again(
    signed_in, staff_have, alice, clock, ended, caplog
):
    staff_have(limit=1, on_limit="refuse")
    first, second = signed_in(), signed_in()
    gone = handle(first)
    promote(alice)
    clock.move(seconds=61)
    assert is_still_in(first)
    assert ended == [({gone}, EndReason.LIMIT, None)]
    assert told(first) == "limit"
    assert "A user has more sessions than 1, the limit from now on" in caplog.messages
    assert is_still_in(second)
    assert is_still_in(second)


def test_who_is_over_the_new_limit_that_asks_chooses(signed_in, staff_have, alice, clock, ended):
    staff_have(limit=1, on_limit="ask")
    first, second = signed_in(), signed_in()
    put(first, cart="teapot")
    promote(alice)
    clock.move(seconds=61)
    assert is_still_in(first)
    assert who(first) == "/account/sessions/limit/"
    row = UserSession.objects.get(pk=handle_of_waiting(first))
    assert (row.counts, row.waits) == (False, True)
    url, gone = "/account/sessions/limit/", str(row_of(second).pk)
    assert first.post(url, {"session": [gone]}).status_code == 302
    assert cart(first) == "teapot"
    assert (row_of(first).counts, row_of(first).waits) == (True, False)
    assert not is_still_in(second)


def handle_of_waiting(browser):
    return SessionStore(key_of(browser)).locked.handle


def test_staff_who_act_as_somebody_are_not_limited(
    browse, signed_in, staff_have, alice, root, clock
):
    staff_have(limit=1)
    signed_in()
    session = SessionStore()
    session[SESSION_KEY], session[HASH_SESSION_KEY] = str(alice.pk), alice.get_session_auth_hash()
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session["hijack_history"] = [str(root.pk)]
    session.save()
    browser = browse()
    browser.cookies["sessionid"] = session.session_key
    acting = UserSession.objects.get(counts=False)
    assert not acting.waits
    promote(alice)
    clock.move(seconds=61)
    assert is_in(browser)
    acting.refresh_from_db()
    assert (acting.renew, acting.counts, acting.ended_at) == (False, False, None)
    assert UserSession.objects.active().count() == 2


# It is not forgotten.


def test_a_new_policy_is_not_forgotten_when_a_new_key_fails(shopper, alice, policy, at, clock):
    """Redis goes away while the user proves who they are: the key is as it was."""

    def fail():
        raise OperationalError("no route to host")

    policy()
    browser = shopper()
    key = key_of(browser)
    alice.groups.add(Group.objects.create(name="others"))
    CALL[:] = ["reauthenticate"]
    pending = at("move", fail)
    assert browser.get(f"/{browser.a}call/").status_code == 503
    assert not pending
    assert UserSession.objects.get().renew
    clock.move(seconds=61)
    assert cart(browser) == "teapot"
    assert key_of(browser) != key
    assert not UserSession.objects.get().renew


@pytest.mark.parametrize("act", ["reauthenticate", "cycle_key"])
def test_a_new_key_for_another_reason_does_not_do(signed_in, alice, clock, act):
    """cycle_key() asks no policy, and neither looks at the limit."""
    browser = signed_in()
    promote(alice)
    use(browser, act)
    clock.move(seconds=61)
    assert is_still_in(browser)
    assert SessionStore(key_of(browser)).policy.facts() == STAFF.facts()
    assert not UserSession.objects.get().renew


def test_a_renewal_that_has_begun_before_does_not_do(shopper, alice, policy, at, clock):
    policy(renew_after=600)
    browser = shopper()
    clock.move(seconds=601)
    pending = at("touch", lambda: alice.groups.add(Group.objects.create(name="others")))
    key = key_of(browser)
    assert is_in(browser)
    assert not pending
    assert key_of(browser) != key
    assert UserSession.objects.get().renew
    clock.move(seconds=61)
    key = key_of(browser)
    assert is_in(browser)
    assert key_of(browser) != key
    assert not UserSession.objects.get().renew


def test_privileges_that_change_again_meanwhile_are_not_forgotten(
    signed_in, staff_have, alice, at, clock
):
    staff_have(recent=900)
    browser = signed_in()
    alice.groups.add(Group.objects.create(name="others"))
    clock.move(seconds=61)
    pending = at("follow", lambda: promote(alice))
    assert is_still_in(browser)
    assert not pending
    assert UserSession.objects.get().renew
    clock.move(seconds=61)
    assert is_still_in(browser)
    assert SessionStore(key_of(browser)).policy == Policy(recent=900)
    assert not UserSession.objects.get().renew


def test_a_user_who_is_gone_has_no_policy(db):
    assert stored_policy_of("123456", None) == Policy()
