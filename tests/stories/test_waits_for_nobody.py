"""A page waits for nobody's transaction: what another one holds is skipped, and stays due."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection

from django_sessionkit.models import UserSession
from tests import store
from tests.browsers import browse_as, put
from tests.interleaving import HOLDS_ROWS, be_impatient, held_open
from tests.people import CHROME, FIREFOX, is_still_in, key_of, only_row, who
from tests.renewals import AFTER, DUE, GRACE, renewed, seen
from tests.store import SessionStore, later

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.isolation,
    pytest.mark.site("tests.calls"),
    pytest.mark.transports("cookie", "header"),
]


@pytest.fixture(autouse=True)
def impatient():
    """Whoever waits for a lock fails, and does not wait for the end of the test."""
    be_impatient()
    yield
    connection.close()


def joins(browser):
    """What an import of users does: it changes groups, and goes on for a while."""
    group, _made = Group.objects.get_or_create(name="editors")
    User.objects.get(username="alice").groups.add(group)


def saves(browser):
    session = SessionStore(key_of(browser))
    session["news"] = "many"
    session.save()


def marks(browser):
    """What revoke() does first; until the end of its transaction nobody else knows of that."""
    UserSession.objects.update(
        ended_at=datetime.now(UTC), end_reason="revoked_by_staff", ended_by=None
    )


@pytest.mark.parametrize("job", [joins, saves])
@pytest.mark.parametrize("rules", [{}, {"idle": 600}, {"renew_after": 60}])
def test_page_of_a_session_that_a_job_holds_does_not_wait_and_stays_due(
    signed_in, policy, clock, caplog, job, rules
):
    policy(on_privilege_change="renew", **rules)
    browser = signed_in()
    before = only_row().last_seen_at
    clock.move(seconds=100)
    with held_open(lambda: job(browser)):
        assert is_still_in(browser)
    assert "did not answer" not in caplog.text
    if HOLDS_ROWS and not (store.APART and job is saves):
        assert only_row().last_seen_at == before
        clock.move(seconds=1)
        assert is_still_in(browser)
        assert only_row().last_seen_at == before + timedelta(seconds=101)


@pytest.mark.transports("cookie")
def test_page_of_a_visitor_whose_session_a_job_holds_does_not_wait(browse, clock, caplog):
    browser = browse()
    put(browser, cart="teapot")
    clock.move(seconds=100)
    with held_open(lambda: saves(browser)):
        who(browser)
    assert "did not answer" not in caplog.text
    assert SessionStore(key_of(browser)).load() == {"cart": "teapot", "news": "many"}


@pytest.mark.parametrize("ways", [["PRESENT"], ["REMOVED"]])
def test_page_during_a_bulk_revoke_does_not_wait(signed_in, clock, caplog, ways):
    """The marks are there, but not committed; a Redis may have removed the session already."""
    browser = signed_in()
    clock.move(seconds=100)
    with held_open(lambda: marks(browser)):
        if ways == ["REMOVED"]:
            store.wipe()
        who(browser)
    assert "did not answer" not in caplog.text
    assert who(browser) != "alice"
    assert [row.end_reason for row in UserSession.objects.all()] == ["revoked_by_staff"]


def test_save_that_also_writes_the_row_does_not_wait_for_the_row(
    signed_in, policy, clock, caplog, settings
):
    """The session is saved, and lives on no longer than the row that somebody holds says."""
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=100)
    with held_open(lambda: joins(browser)):
        session = SessionStore(key_of(browser))
        session["cart"] = "teapot"
        session.save()
    assert "did not answer" not in caplog.text
    assert SessionStore(key_of(browser))["cart"] == "teapot"


def test_page_whose_password_has_changed_does_not_wait_for_the_row(signed_in, clock, caplog):
    browser = signed_in()
    clock.move(seconds=100)
    User.objects.update(password="another")  # behind Django's back
    with held_open(lambda: joins(browser)):
        assert who(browser) != "alice"
    assert "did not answer" not in caplog.text


def test_page_in_another_browser_does_not_wait_to_be_refused(signed_in, policy, clock, caplog):
    policy(bind=("browser",), on_change="end")
    browser = signed_in(**{"user-agent": FIREFOX})
    clock.move(seconds=1)
    thief = browse_as(browser, key_of(browser))
    with held_open(lambda: joins(browser)):
        assert who_by(thief, CHROME) != "alice"
    assert "did not answer" not in caplog.text
    assert who_by(browse_as(browser, key_of(browser)), CHROME) != "alice"
    assert only_row().ended_at is not None


def test_page_by_an_old_copy_of_the_key_does_not_wait_to_be_refused(
    shopper, policy, caplog, reused
):
    """What is noticed meanwhile is reported, and the session is ended next time."""
    policy(renew_after=AFTER, renew_grace=GRACE)
    browser = shopper()
    old = renewed(browser)
    seen(browser)
    with later(DUE + 900):
        with held_open(lambda: joins(browser)):
            assert who(browse_as(browser, old)) != "alice"
        assert "did not answer" not in caplog.text
        assert len(reused) == 1
        assert who(browse_as(browser, old)) != "alice"
        assert only_row().end_reason == "reused"
        assert not is_still_in(browser)


def who_by(browser, user_agent):
    return browser.get("/whoami/", headers={"user-agent": user_agent}).content.decode()
