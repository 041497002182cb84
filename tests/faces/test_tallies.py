"""The figures of each day: what the purge writes down, and what stays when the rows have gone."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.test import override_settings

from django_sessionkit import tallies
from django_sessionkit.models import (
    EndReason,
    PurgeRun,
    Tally,
    UserSession,
    mark_ended,
)
from django_sessionkit.selection import since
from django_sessionkit.tallies import days_until, figures, last_finished, last_run, today
from tests import store
from tests.people import CHROME, IPHONE, handle, row_of, sign_in
from tests.store import DAY, HOUR, SessionStore

pytestmark = pytest.mark.django_db


def purge():
    SessionStore.clear_expired()


def recorded(name):
    """Return what is written of the last 30 days under a name, by how many days ago it was."""
    found = figures(days_until(today())).get(name, {})
    return {(today() - day).days: value for day, value in found.items()}


def active():
    names = {name for name in figures(days_until(today())) if name.startswith("active.")}
    return {name: value for name in names if (value := recorded(name)[0])}


# Days.


def test_the_purge_counts_who_is_active_who_has_signed_in_and_what_has_ended(clock, alice, bob):
    phone, pc = sign_in(alice, IPHONE), sign_in(alice, CHROME)
    sign_in(bob, "curl/8.14.1")
    UserSession.objects.filter(pk=handle(pc)).revoke(EndReason.LIMIT)
    purge()
    assert active() == {"active.mobile": 1, "active.bot": 1}
    assert recorded("sign_ins")[0] == 3
    assert recorded("ended.limit") == {0: 1}
    # The next day, the row of the phone is the same, and what has ended is that of yesterday.
    clock.move(seconds=DAY)
    UserSession.objects.filter(pk=handle(phone)).revoke(EndReason.REVOKED)
    purge()
    assert active() == {"active.bot": 1}
    assert recorded("active.mobile") == {0: 0, 1: 1}
    assert recorded("sign_ins") == {0: 0, **recorded("sign_ins"), 1: 3}
    assert (recorded("ended.limit"), recorded("ended.revoked")) == ({1: 1}, {0: 1})


def test_the_first_purge_counts_the_days_before_it(clock, alice):
    sign_in(alice)
    clock.move(seconds=3 * DAY)
    sign_in(alice)
    purge()
    counted = recorded("sign_ins")
    assert (counted[3], counted[0], sum(counted.values()), len(counted)) == (1, 1, 2, 30)


def test_a_day_is_counted_again_for_what_the_purge_marks_with_the_time_of_its_expiry(clock, alice):
    laptop = sign_in(alice)
    row = row_of(laptop)
    clock.move(row.expires_at - datetime.now(UTC) - timedelta(seconds=HOUR))
    purge()
    clock.move(seconds=2 * DAY)
    assert recorded("ended.expired") == {}
    purge()
    assert recorded("ended.expired") == {2: 1}


def test_a_figure_stays_when_its_rows_go(clock, alice):
    sign_in(alice)
    purge()
    alice.delete()
    purge()
    assert recorded("sign_ins")[0] == 1
    assert active() == {}


def test_sessions_that_have_moved_here_and_those_of_support_are_no_sign_ins(clock, alice):
    for change in ({"adopted_at": datetime.now(UTC)}, {"support": True}):
        UserSession.objects.filter(pk=handle(sign_in(alice))).update(**change)
    sign_in(alice)
    purge()
    assert recorded("sign_ins")[0] == 1


@pytest.mark.parametrize("use_tz", [True, False])
def test_days_are_those_of_the_time_zone_of_the_site(use_tz):
    with override_settings(USE_TZ=use_tz, TIME_ZONE="Asia/Tokyo"):
        with store.travel(datetime(2040, 3, 2, 1, tzinfo=ZoneInfo("Asia/Tokyo")), tick=False):
            assert today() == date(2040, 3, 2)
            start = tallies.start_of(today())
        assert start.isoformat().startswith("2040-03-02T00:00:00")
        assert (start.tzinfo is not None) is use_tz
        assert tallies.day_of(start) == date(2040, 3, 2)


@pytest.mark.once
@pytest.mark.parametrize("day", [date(2040, 3, 25), date(2040, 10, 28)], ids=["23 h", "25 h"])
def test_a_day_is_counted_in_parts_where_there_is_much(alice, monkeypatch, day):
    """So no statement takes long. Also where an hour is skipped, or comes twice."""
    found, count = [], tallies._count

    def counted(start, end):
        found.append(count(start, end))
        return found[-1]

    monkeypatch.setattr(tallies, "_count", counted)
    monkeypatch.setattr(tallies, "FEW", 2)
    monkeypatch.setattr(tallies, "MANY", 4)
    berlin = ZoneInfo("Europe/Berlin")
    with override_settings(TIME_ZONE="Europe/Berlin"):
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=berlin)
        start = (noon - timedelta(days=2)).astimezone(UTC)
        moments = [start + timedelta(minutes=20 * number) for number in range(3 * 72)]
        at = {"last_seen_at": start, "expires_at": start}
        UserSession.objects.bulk_create(
            UserSession(
                id=UUID(int=since(moment).int + 1),
                user=alice,
                digest=f"{number:064x}",
                started_at=moment,
                ended_at=moment,
                end_reason=EndReason.LOGOUT,
                **at,
            )
            for number, moment in enumerate(moments)
        )
        with store.travel(noon + timedelta(days=1), tick=False):
            purge()
            by_day = Counter(moment.astimezone(berlin).date() for moment in moments)
            expected = {(today() - each).days: number for each, number in by_day.items()}
            assert recorded("ended.logout") == expected
            assert {ago: recorded("sign_ins")[ago] for ago in expected} == expected
    numbers = [each.total() for each in found]
    # A whole day after a month without any, then less and less.
    assert max(numbers) == 72
    assert numbers.index(72) < 31
    assert max(numbers[40:]) <= 6


def test_figures_of_a_year_ago_go(clock):
    Tally.objects.create(day=today() - timedelta(days=366), name="sign_ins", value=1)
    Tally.objects.create(day=today() - timedelta(days=367), name="sign_ins", value=1)
    purge()
    assert Tally.objects.filter(day__lt=today() - timedelta(days=30)).count() == 1


def test_a_figure_says_which_it_is():
    figure = Tally(day=date(2040, 3, 1), name="sign_ins", value=7)
    assert str(figure) == "2040-03-01 sign_ins: 7"


# Runs of the purge.


def test_a_purge_says_when_it_ran_and_how_many_rows_it_deleted(clock, alice):
    for _ in range(2):
        sign_in(alice)
    mark_ended(UserSession.objects.all(), EndReason.LOGOUT)
    UserSession.objects.update(expires_at=datetime.now(UTC))
    purge()
    assert last_run() == last_finished()
    assert last_run().deleted == 0
    clock.move(seconds=31 * DAY)
    purge()
    assert (last_run().deleted, UserSession.objects.count()) == (2, 0)
    assert last_run().started_at == last_run().finished_at == datetime.now(UTC)
    assert PurgeRun.objects.count() == 1  # that of a month ago has gone
    assert str(last_run()) == f"purge {last_run().pk}"


def test_a_purge_that_fails_has_not_finished(clock, alice, monkeypatch):
    purge()
    clock.move(seconds=HOUR)
    sign_in(alice)
    clock.move(seconds=HOUR)
    monkeypatch.setattr(SessionStore, "is_stored", lambda database: None)
    store.take_down(monkeypatch, "peek")
    with pytest.raises(Exception, match="did not answer"):
        purge()
    assert last_run() != last_finished()
    assert last_run().finished_at is None
    assert last_finished().finished_at == datetime.now(UTC) - timedelta(hours=2)
