"""What is known of a session that has moved is kept. What is not known is not claimed."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.models import Session
from django.utils import timezone, translation

from django_sessionkit.adoption import Table
from django_sessionkit.models import UserSession
from tests.browsers import PAGE, Browser, given, read
from tests.moving import DATABASE, HERE, generation, old_session, with_cookie
from tests.pages import PROVE, words
from tests.people import is_still_in, key_of, only_row, post_sign_in, row_of
from tests.store import DAY, HOUR, SessionStore, expiries, later

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def browse():
    """On one of the two handlers: what happens here is the same on the other, in a thread."""
    return lambda: Browser(raise_request_exception=False, headers=PAGE)


URL = "/pay/"  # asks for a proof that is not older than five minutes


@pytest.fixture(autouse=True)
def moving():
    with generation(HERE, (DATABASE,)):
        yield


@pytest.fixture
def old():
    """A function that returns a session of Django's engine."""

    def old(*args, **kwargs):
        with generation(DATABASE):
            return old_session(DATABASE, *args, **kwargs)

    return old


def test_sign_in_was_before_the_last_sign_in_of_its_user(alice, browse, old, clock):
    alice.last_login = timezone.now()
    alice.save()
    clock.move(minutes=10)
    session = old(alice)
    clock.move(days=3)
    browser = with_cookie(browse(), session)
    assert is_still_in(browser)
    row = only_row()
    assert row.started_at == alice.last_login
    assert row.adopted_at == row.last_seen_at == timezone.now()
    page = browser.get("/account/sessions/")
    assert "Signed in before March 1, 2040, noon" in " ".join(words(page, " ").split())
    with translation.override("de"):
        page = browser.get("/account/sessions/")
    assert "Angemeldet vor dem 1. März 2040 12:00" in " ".join(words(page, " ").split())


def test_sign_in_was_before_the_session_was_last_saved(alice, browse, old, clock):
    session = old(alice)
    clock.move(days=1)
    alice.last_login = timezone.now()  # on another device
    alice.save()
    clock.move(days=2)
    assert is_still_in(with_cookie(browse(), session))
    assert only_row().started_at == timezone.now() - timedelta(days=3)


def test_sign_in_of_unknown_time_was_before_now(alice, browse, old, clock):
    session = old(alice)
    session.set_expiry(timezone.now() + timedelta(days=30))
    session.save()
    clock.move(days=3)
    assert is_still_in(with_cookie(browse(), session))
    assert only_row().started_at == timezone.now()


def test_sessions_are_listed_by_their_sign_in(alice, browse, old, clock):
    first = old(alice)
    clock.move(hours=1)
    second = old(alice)
    clock.move(hours=1)
    for session in (second, first):  # the first moves last
        assert is_still_in(with_cookie(browse(), session))
        clock.move(seconds=1)
    newest, oldest = UserSession.objects.all()
    assert newest.started_at - oldest.started_at == timedelta(hours=1)


def test_step_up_asks_for_a_proof(alice, browse, old):
    alice.last_login = timezone.now()
    alice.save()
    browser = with_cookie(browse(), old(alice))
    assert browser.get(URL).headers["Location"] == f"{PROVE}?next={URL}"
    assert only_row().authenticated_at is None
    session = SessionStore(key_of(browser))
    assert session.authenticated_at is None
    assert session.proof_age is None
    browser.post(PROVE, {"password": "secret", "next": URL})
    assert browser.get(URL).status_code == 200
    assert only_row().authenticated_at is not None
    assert only_row().adopted_at is not None


def test_new_key_claims_no_proof(alice, browse, old, drive):
    browser = with_cookie(browse(), old(alice))
    assert is_still_in(browser)
    session = SessionStore(key_of(browser))
    drive(session, "cycle_key")
    assert only_row().authenticated_at is None
    assert SessionStore(session.session_key).authenticated_at is None


def test_key_that_changed_by_itself_is_recognised_if_it_is_reused(alice, browse, old, policy):
    policy(renew_after=HOUR, renew_grace=60)
    browser = with_cookie(browse(), old(alice))
    assert is_still_in(browser)
    stolen = key_of(browser)
    with later(HOUR + 1):
        assert is_still_in(browser)
    assert key_of(browser) != stolen
    with later(HOUR + 10):
        assert is_still_in(browser)
    with later(HOUR + 100):
        browser.cookies["sessionid"] = stolen
        assert not is_still_in(browser)
    assert only_row().end_reason == "reused"


def test_policy_of_staff_begins_with_the_move(root, browse, old, clock):
    """Otherwise everybody who has signed in a day ago would be signed out."""
    session = old(root)
    clock.move(days=3)
    browser = with_cookie(browse(), session)
    assert browser.get("/admin/").status_code == 200
    clock.move(minutes=59)
    assert browser.get("/admin/").status_code == 200
    clock.move(minutes=61)
    assert browser.get("/admin/").status_code == 302


def test_longest_lifetime_begins_with_the_move(alice, browse, old, clock, policy):
    policy(absolute=DAY)
    session = old(alice)
    clock.move(days=3)
    browser = with_cookie(browse(), session)
    assert is_still_in(browser)
    clock.move(hours=23)
    assert is_still_in(browser)
    clock.move(hours=2)
    assert not is_still_in(browser)


def test_limit_ends_no_session_that_moves(alice, browse, old, policy, clock):
    policy(limit=2)
    browsers = []
    for _ in range(3):
        browsers.append(with_cookie(browse(), old(alice)))
        clock.move(minutes=1)
    for browser in browsers:
        assert is_still_in(browser)
    # The next sign-in makes room, as the policy says.
    clock.move(minutes=1)
    post_sign_in(browse())
    assert [is_still_in(browser) for browser in browsers] == [False, False, True]


def test_session_of_staff_who_act_as_a_user_does_not_count(alice, browse, old):
    assert is_still_in(with_cookie(browse(), old(alice, hijack_history=["1"])))
    assert not only_row().counts


# Expiry.


def moved(old, browse, expiry):
    session = old(None, cart="teapot")
    session.set_expiry(expiry)
    session.save()
    browser = with_cookie(browse(), session)
    assert read(browser).json() == {"cart": "teapot"}
    (expires_at,) = expiries().values()
    ours = SessionStore(key_of(browser))
    return browser, ours, datetime.fromtimestamp(expires_at / 1000, UTC)


def test_age_of_a_session_is_kept(old, browse, clock):
    _, ours, expires_at = moved(old, browse, 2 * HOUR)
    assert ours.get_expiry_age() == 2 * HOUR
    assert abs(expires_at - timezone.now() - timedelta(hours=2)) < timedelta(seconds=1)


def test_date_of_expiry_is_kept(old, browse, clock):
    date = timezone.now() + timedelta(hours=3)
    browser, ours, expires_at = moved(old, browse, date)
    assert abs(expires_at - date) < timedelta(seconds=1)
    assert ours.get_expiry_date() == date
    clock.move(hours=2)
    assert read(browser).json() == {"cart": "teapot"}
    clock.move(hours=1, seconds=1)
    assert read(browser).json() == {}


def test_session_that_ends_with_the_browser_does_so_here(old, browse, clock):
    browser, ours, _ = moved(old, browse, 0)
    assert ours.get_expire_at_browser_close()
    clock.move(minutes=2)
    answer = read(browser)
    assert given(answer) is None  # no cookie with a date
    ours.cycle_key()
    browser.cookies["sessionid"] = ours.session_key
    assert read(browser).json() == {"cart": "teapot"}


def test_background_request_does_not_lengthen_a_session(alice, old, browse, clock):
    session = old(alice)
    until = Session.objects.get().expire_date
    clock.move(days=3)
    browser = with_cookie(browse(), session)
    assert read(browser, **{"x-background-request": "1"}).status_code == 200
    row = only_row()
    assert row.expires_at == until
    assert row.last_seen_at == timezone.now() - timedelta(days=3)
    assert (row.ip, row.user_agent) == (None, "")
    clock.move(minutes=2)
    assert read(browser).status_code == 200
    assert row_of(browser).ip == "127.0.0.1"
    assert row_of(browser).expires_at == timezone.now() + timedelta(days=14)


@pytest.mark.parametrize(
    ("extent", "kept"), [("whole", "192.0.2.7"), ("truncated", "192.0.2.0"), ("none", None)]
)
def test_address_that_another_engine_has_is_kept_as_far_as_the_site_wants(
    alice, old, browse, settings, monkeypatch, extent, kept
):
    """django-user-sessions and django-qsessions have columns for that."""
    settings.SESSIONKIT_ADDRESSES = extent
    opened = Table._opened
    monkeypatch.setattr(
        Table, "_opened", lambda *args: opened(*args)._replace(address="192.0.2.7", user_agent="M")
    )
    assert (
        read(with_cookie(browse(), old(alice)), **{"x-background-request": "1"}).status_code == 200
    )
    assert (only_row().ip, only_row().user_agent, only_row().client_hints) == (kept, "M", "")


def test_what_the_browser_says_beside_its_user_agent_is_kept(alice, old, browse):
    hints = {"sec-ch-ua": '"Brave";v="156"', "user-agent": "(Windows NT 10.0) Chrome/156.0"}
    assert read(with_cookie(browse(), old(alice)), **hints).status_code == 200
    assert str(only_row().device) == "Brave on Windows"


def test_script_that_loads_a_session_moves_it_and_claims_no_device(alice, old, drive):
    session = SessionStore(old(alice).session_key)
    assert drive(session, "get", SESSION_KEY) == str(alice.pk)
    row = only_row()
    assert (row.ip, row.user_agent) == (None, "")
