"""The policy of a user: when it is asked, and what the presets of the kit do."""

from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_sessionkit.models import UserSession
from django_sessionkit.policy import Policy
from tests import policies, store
from tests.browsers import PAGE, Browser
from tests.calls import CALL, hand_made, leads_to_the_lock, prove_and_go_on, use
from tests.people import is_still_in, key_of, only_row, post_sign_in, told
from tests.store import DAY, HOUR, MINUTE, SessionStore

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site("tests.calls"),
    pytest.mark.transports("cookie", "header"),
]


TEN_YEARS = 10 * 365 * DAY


# The policy is asked once.

ASKED: list[Any] = []


def asked_and_chosen(user, request=None):
    ASKED.append((user, request and request.path))
    return policies.chosen


@pytest.fixture
def asking(settings, policy):
    """What SESSIONKIT_POLICY was asked: (user, path) each time."""
    policy(idle=600, absolute=HOUR, lock=True)
    settings.SESSIONKIT_POLICY = f"{__name__}.asked_and_chosen"
    ASKED.clear()
    return ASKED


@pytest.mark.transports("cookie")
def test_the_policy_is_asked_when_somebody_proves_who_they_are(
    signed_in, asking, alice, clock, settings
):
    browser = signed_in()
    assert asking == [(alice, "/login/")]
    for _ in range(3):
        clock.move(seconds=300)
        browser.get(f"/{browser.a}whoami/")
        browser.post(f"/{browser.a}write/", {"cart": "teapot"})
    use(browser, "cycle_key")
    clock.move(seconds=600)
    browser.get("/whoami/")
    use(browser, "unlock")
    assert asking.pop() == (alice, "/login/")
    assert asking == []
    use(browser, "reauthenticate")
    clock.move(seconds=600)
    use(browser, "unlock", True)
    post_sign_in(browser)
    call_path = f"/{browser.a}call/"
    assert asking == [(alice, call_path), (alice, call_path), (alice, "/login/")]


def test_a_sign_in_by_hand_has_a_policy_too(asking, alice, drive, clock):
    Browser(headers=PAGE).get("/whoami/")  # has nothing to do with it
    session = SessionStore()
    session[SESSION_KEY] = str(alice.pk)
    drive(session, "save")
    assert asking == [(alice, None)]
    clock.move(seconds=600)
    session = SessionStore(session.session_key)
    assert drive(session, "get", SESSION_KEY) is None
    drive(session, "unlock")
    drive(session, "reauthenticate")
    assert asking == [(alice, None)] * 2


def test_a_sign_in_of_somebody_who_is_not_there_has_none(asking, drive):
    session = SessionStore()
    session[SESSION_KEY] = "123456"
    drive(session, "save")
    assert asking == []
    assert session.policy == Policy()


def test_what_a_session_knows_of_its_policy(signed_in, policy, drive):
    rules = {"idle": 600, "absolute": HOUR, "lock": True, "recent": 60, "bind": ("browser",)}
    policy(**rules, limit=3)
    browser = signed_in()
    assert SessionStore(key_of(browser)).policy == Policy(**rules)
    assert SessionStore(key_of(browser)).authenticated_at == only_row().authenticated_at
    assert (SessionStore().policy, SessionStore().authenticated_at) == (Policy(), None)


@pytest.mark.parametrize("answer", [None, {"idle": 600}, Policy])
def test_what_is_no_policy_is_an_error_and_nobody_is_signed_in(
    browse, alice, monkeypatch, settings, answer
):
    settings.SESSIONKIT_POLICY = "tests.policies.of_everybody"
    monkeypatch.setattr(policies, "chosen", answer)
    browser = browse()
    assert post_sign_in(browser).status_code == 500
    assert not UserSession.objects.exists()
    assert browser.get("/whoami/").content == b"AnonymousUser"
    with pytest.raises(TypeError, match=r"of_everybody has to return a Policy, not "):
        hand_made(alice)
    assert not UserSession.objects.exists()


def test_a_proof_without_a_policy_leaves_the_session_as_it_is(signed_in, monkeypatch, settings):
    browser = signed_in()
    settings.SESSIONKIT_POLICY = "tests.policies.of_everybody"
    monkeypatch.setattr(policies, "chosen", None)
    before, old = store.payloads(), only_row()
    CALL[:] = ["reauthenticate"]
    assert browser.get(f"/{browser.a}call/").status_code == 500
    assert store.payloads() == before
    assert only_row().authenticated_at == old.authenticated_at
    assert is_still_in(browser)


def users_fetched(queries):
    table = connection.ops.quote_name("auth_user")
    return sum(f"FROM {table}" in query["sql"] for query in queries)


def test_nobody_is_fetched_for_it_who_is_known(browse, alice, policy, clock):
    policy(idle=600)
    browser = browse()
    for _ in range(2):  # in, and in again
        with CaptureQueriesContext(connection) as queries:
            post_sign_in(browser)
        assert users_fetched(queries) == 1  # by Django, to check the password
    with CaptureQueriesContext(connection) as queries:
        hand_made(alice)
    assert users_fetched(queries) == 1


# Presets.


@pytest.mark.parametrize(
    ("name", "idle", "absolute"),
    [("aal1", None, 30 * DAY), ("aal3", 15 * MINUTE, 12 * HOUR), ("staff", HOUR, 12 * HOUR)],
)
@pytest.mark.standard("NIST-2.1.3", "NIST-2.3.3", "NIST-SB-8.4", "NIST-REAUTH-2")
def test_what_the_levels_of_nist_ask_for(signed_in, settings, clock, name, idle, absolute):
    settings.SESSIONKIT_POLICY = f"django_sessionkit.policy.{name}"
    browser, *forgotten = signed_in(), signed_in(), signed_in()
    every = (idle or DAY) // 2
    for number in range(1, absolute // every):
        clock.move(seconds=every - 1)
        assert is_still_in(browser)
        if idle and number == 2:
            assert is_still_in(forgotten[0])
        clock.move(seconds=1)
        if idle and number == 2:
            assert not is_still_in(forgotten[1])
    clock.move(seconds=every - 1)
    assert is_still_in(browser)
    clock.move(seconds=1)
    assert told(browser) == "expired"


@pytest.mark.standard("NIST-2.2.3", "NIST-SB-8.4", "NIST-REAUTH-2")
def test_a_day_at_the_second_level(signed_in, settings, clock):
    settings.SESSIONKIT_POLICY = "django_sessionkit.policy.aal2"
    browser = signed_in()
    for _ in range(11):
        clock.move(seconds=HOUR - 1)
        assert is_still_in(browser)
        clock.move(seconds=HOUR)
        assert not is_still_in(browser)
        assert prove_and_go_on(browser).headers["Location"] == "/read/"
        assert is_still_in(browser)
    clock.move(seconds=HOUR)
    assert not is_still_in(browser)
    prove_and_go_on(browser)
    clock.move(seconds=HOUR + 10)
    assert leads_to_the_lock(browser.post("/private/"))
    clock.move(seconds=1)
    assert told(browser) == "expired"


@pytest.mark.parametrize(("is_staff", "lives"), [(True, HOUR), (False, 14 * DAY)])
def test_whoever_says_nothing_has_a_policy_for_staff_and_one_for_others(
    signed_in, alice, clock, is_staff, lives
):
    User.objects.update(is_staff=is_staff)
    browser = signed_in()
    clock.move(seconds=lives - 1)
    assert is_still_in(browser)
    clock.move(seconds=lives)
    assert told(browser) == ("idle" if is_staff else "expired")
