"""
The purge: what goes, what stays, and that it holds nobody up. With the commands that run it.

Nothing here waits for a clock. What happens in between two statements of a purge is put there by
looking at every statement before it is sent.
"""

import io
import math
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from unittest import mock

import pytest
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.db import SessionStore as DjangosStore
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command, load_command_class
from django.core.management import get_commands as registered
from django.core.management.base import OutputWrapper
from django.db import OperationalError, connection, transaction
from django.db.models import F
from django.db.models.signals import post_delete
from django.test import override_settings
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from django_sessionkit import activity, purging, ranges, sweeping, tallies
from django_sessionkit.backends import db
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.management.commands import clearsessions
from django_sessionkit.models import EndReason, PurgeRun, StoredSession, UserSession, mark_ended
from django_sessionkit.pace import LEAST, MOST, STEPS, TARGET, Pace
from django_sessionkit.purging import purge
from django_sessionkit.signals import purge_finished
from django_sessionkit.sweeping import mend, sweep
from django_sessionkit.tallies import last_run
from django_sessionkit.visit.client import Client
from tests.interleaving import (
    HOLDS_ROWS,
    be_impatient,
    before_statement,
    before_write,
    elsewhere,
    held_open,
)
from tests.people import FIREFOX
from tests.servers import PROJECT
from tests.store import APART, SessionStore, take_down

pytestmark = pytest.mark.django_db

AGE = timedelta(seconds=settings.SESSION_COOKIE_AGE)
RETENTION = timedelta(days=30)
CLIENT = Client("192.0.2.1", FIREFOX)


@pytest.fixture
def parts(monkeypatch, request):
    """Parts so small that a few rows are many of them, however fast the database is."""
    request.getfixturevalue("db")
    if connection.vendor == "postgresql" and not connection.in_atomic_block:
        # Of a table that is empty again, nobody has taken away the blocks.
        with connection.cursor() as cursor:
            for model in (StoredSession, UserSession):
                cursor.execute(f"TRUNCATE {model._meta.db_table}")
    monkeypatch.setattr(ranges, "ROWS", 5)
    monkeypatch.setattr(ranges, "BLOCKS", 1)
    monkeypatch.setattr("django_sessionkit.pace.MOST", 1)
    monkeypatch.setattr("django_sessionkit.pace.TARGET", math.inf)


@pytest.fixture
def apart(monkeypatch):
    """The sessions are in another store than the database with their rows."""
    monkeypatch.setattr(SessionStore, "is_stored", lambda database: None)


def purge_payloads(progress=None):
    return db.SessionStore.remove_expired(Pace(progress, clock=float))


def purge_rows(progress=None):
    """Do what a purge does with the registry, and return how many rows it has deleted."""
    pace = Pace(progress, clock=float)
    for unavailable in (mend(pace), sweep(pace)):
        if unavailable:
            raise unavailable
    return pace.figures["deleted"]


def visit(user=None):
    session = SessionStore()
    session["cart"] = ["teapot"]
    if user:
        session[SESSION_KEY] = str(user.pk)
    session.save()
    return session


def come_back(session):
    """Come back with a request, and return what the session holds."""
    again = SessionStore(session.session_key)
    again.client = CLIENT
    data = dict(again.items())
    again.finish(answered=True)
    return data


def is_stored(session):
    return SessionStore().exists(session.session_key)


def stored_rows(number, expires_in=-1):
    """Write rows as the database engine does, four to a block of 8 KB."""
    at = int(timezone.now().timestamp()) * 1000
    return StoredSession.objects.bulk_create(
        StoredSession(
            digest=os.urandom(32).hex(),
            payload=os.urandom(1600),
            touched_at=at,
            expires_at=at + expires_in * 1000,
        )
        for _ in range(number)
    )


def register(user, number, **changes):
    """Write rows of sessions that nobody has, nine or ten to a block."""
    at = timezone.now()
    row = {
        "started_at": at,
        "authenticated_at": at,
        "last_seen_at": at,
        "expires_at": at + AGE,
        "user_agent": "M" * 512,
        **changes,
    }
    return UserSession.objects.bulk_create(
        UserSession(user=user, digest=os.urandom(32).hex(), **row) for _ in range(number)
    )


def overdue(user, number):
    """Write rows of sessions that have expired since a purge has last looked."""
    at = timezone.now() - timedelta(days=1)
    return register(user, number, last_seen_at=at - AGE, expires_at=at)


def history(user, number):
    """Write rows of sessions that ended long ago."""
    long_ago = timezone.now() - 2 * RETENTION
    return register(user, number, ended_at=long_ago, expires_at=long_ago)


def ended_with_an_address(user, number):
    """Write rows of sessions that ended yesterday and still have an address."""
    at = timezone.now() - timedelta(days=1)
    return register(user, number, last_seen_at=at, ended_at=at, expires_at=at, ip="192.0.2.1")


@contextmanager
def statements():
    """Collect the statements and how many rows each of them met, as far as the database says."""
    seen = []

    def look(execute, sql, params, many, context):
        result = execute(sql, params, many, context)
        seen.append((sql, context["cursor"].rowcount))
        return result

    with connection.execute_wrapper(look):
        yield seen


# What goes and what stays.


def test_expired_sessions_go_and_live_and_renewed_ones_stay(clock, alice):
    old, old_signed_in = visit(), visit(alice)
    renewed, renewed_signed_in = visit(), visit(alice)
    clock.move(AGE - timedelta(seconds=1))
    assert come_back(renewed)
    assert come_back(renewed_signed_in)
    live, live_signed_in = visit(), visit(alice)
    clock.move(timedelta(minutes=2))
    SessionStore.clear_expired()

    assert not is_stored(old)
    assert not is_stored(old_signed_in)
    for session in (renewed, renewed_signed_in, live, live_signed_in):
        assert is_stored(session)
        assert come_back(session)["cart"] == ["teapot"]
    rows = UserSession.objects.active()
    assert {row.pk for row in rows} == {renewed_signed_in.handle, live_signed_in.handle}


def test_purge_says_how_many_rows_it_deleted(alice):
    stored_rows(3)
    stored_rows(2, expires_in=60)
    history(alice, 4)
    register(alice, 2)
    assert purge_payloads() == 3
    assert purge_rows() == 4
    assert StoredSession.objects.count() == UserSession.objects.count() == 2


def test_purge_of_nothing_is_nothing(ended):
    SessionStore.clear_expired()
    assert ended == []


def test_session_expires_to_the_millisecond(clock):
    stored_rows(1, expires_in=60)
    clock.move(timedelta(seconds=60, milliseconds=-1))
    assert purge_payloads() == 0
    clock.move(timedelta(milliseconds=1))
    assert purge_payloads() == 1


# The walk.


def walked():
    return [list(part.values_list("pk", flat=True)) for part in StoredSession.objects.walk()]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("number", [0, 1, 4, 5, 6, 20, 23])
def test_parts_are_the_whole_table(parts, number):
    stored_rows(number)
    found = walked()
    assert all(len(part) <= ranges.ROWS for part in found)
    rows = [row for part in found for row in part]
    assert sorted(rows) == sorted(StoredSession.objects.values_list("pk", flat=True))


@pytest.mark.django_db(transaction=True)
def test_walk_on_postgresql_begins_anywhere_and_goes_round(parts, monkeypatch):
    """So that runs that are cut short get everywhere in time."""
    stored_rows(23)
    asked = []

    def begin_at(start):
        monkeypatch.setattr(ranges.random, "randrange", lambda stop: asked.append(stop) or start)
        return walked()

    from_start = begin_at(0)
    number = len(from_start)
    assert number >= 5
    if connection.vendor == "postgresql":
        for start in range(number):
            assert begin_at(start) == from_start[start:] + from_start[:start]
        assert set(asked) == {number}
    else:
        assert begin_at(1) == from_start
        assert asked == []


def test_statements_do_not_grow_with_the_table(monkeypatch):
    monkeypatch.setattr(ranges, "ROWS", 1)
    stored_rows(1100)
    with statements() as seen:
        for part in StoredSession.objects.walk():
            part.exists()
    assert max(len(sql) for sql, _ in seen) < 500


@pytest.mark.django_db(transaction=True)
def test_statements_are_small_and_one_for_each_part(parts):
    stored_rows(12)
    stored_rows(11, expires_in=60)
    number = len(walked())
    with statements() as seen:
        assert purge_payloads() == 12
    deletes = [met for sql, met in seen if sql.startswith("DELETE")]
    assert len(deletes) == (number if connection.vendor == "postgresql" else 3)
    assert number >= 5
    assert sum(deletes) == 12
    assert max(deletes) <= ranges.ROWS
    others = [sql for sql, _ in seen if not sql.startswith("DELETE")]
    # How large the table is or, but for PostgreSQL, where each part ends and what is to go. After
    # as much as a statement can have, what else? MariaDB is asked what of that is free, too.
    asked = {"postgresql": 1, "sqlite": number + 7, "mysql": number + 7 + 3}
    assert len(others) == asked[connection.vendor]


@pytest.mark.django_db(transaction=True)
def test_statements_on_the_registry_are_small(parts, alice):
    register(alice, 10)
    overdue(alice, 10)
    register(alice, 10, ended_at=timezone.now())
    history(alice, 10)
    with statements() as seen:
        assert purge_rows() == 10
    writes = [met for sql, met in seen if sql.startswith(("UPDATE", "DELETE"))]
    assert sum(writes) == 10 + 10 + 10  # closed, confirmed, deleted
    # Ten of these rows are all that a block of PostgreSQL's can hold.
    assert max(writes) <= (10 if connection.vendor == "postgresql" else ranges.ROWS)


@pytest.mark.django_db(transaction=True)
def test_rows_that_nothing_happens_to_are_looked_at_and_not_written(parts, alice, monkeypatch):
    asked = mock.Mock()
    monkeypatch.setattr(SessionStore, "peek", asked)
    monkeypatch.setattr(SessionStore, "remove", asked)
    yesterday = timezone.now() - timedelta(days=1)
    register(alice, 20)
    register(alice, 20, last_seen_at=yesterday, ended_at=yesterday, expires_at=yesterday)
    with statements() as seen:
        sweep(Pace())
    assert not [met for sql, met in seen if sql.startswith(("UPDATE", "DELETE"))]
    assert not asked.called


@pytest.mark.django_db(transaction=True)
def test_addresses_are_taken_once_and_in_one_statement_for_each_part(parts, alice, settings):
    settings.SESSIONKIT_ADDRESS_RETENTION = 3600
    ended_with_an_address(alice, 20)
    register(alice, 10, ip="192.0.2.1")
    # Those that are deleted are not written before.
    UserSession.objects.filter(pk__in=[row.pk for row in history(alice, 10)]).update(ip="::1")
    with statements() as seen:
        assert purge_rows() == 10
    updates = [met for sql, met in seen if sql.startswith("UPDATE")]
    assert sum(updates) == 20
    assert len(updates) < 20
    assert UserSession.objects.filter(ip="192.0.2.1").count() == 10
    with statements() as seen:
        assert purge_rows() == 0
    assert not any(met for sql, met in seen if sql.startswith("UPDATE"))


@pytest.mark.django_db(transaction=True)
def test_every_part_is_a_transaction_of_its_own(parts, alice):
    """What is done stays done, and locks are held for a part and no longer."""
    stored_rows(23)
    history(alice, 23)
    for rows, run in ((StoredSession.objects, purge_payloads), (UserSession.objects, purge_rows)):
        left = [23]

        def look(done, total, rows=rows, left=left):
            assert not connection.in_atomic_block
            left.append(elsewhere(rows.count))

        run(look)
        assert left == sorted(left, reverse=True)
        assert len(set(left)) >= 4
        assert left[-1] == 0


@pytest.mark.django_db(transaction=True)
def test_no_transaction_spans_two_statements_that_write(
    parts, alice, django_assert_max_num_queries
):
    stored_rows(23)
    overdue(alice, 23)
    with django_assert_max_num_queries(1000) as queries:
        db.SessionStore.clear_expired()
    writes = 0
    for query in queries.captured_queries:
        if query["sql"] == "BEGIN":
            writes = 0
        elif query["sql"].startswith(("UPDATE", "DELETE")):
            writes += 1
        elif query["sql"] == "COMMIT":
            assert writes <= 1
    assert queries.captured_queries[-1]["sql"] != "BEGIN"


def test_progress_counts_the_parts_of_each_table(parts, alice):
    stored_rows(12)
    register(alice, 12)
    calls = []
    db.SessionStore.clear_expired(lambda done, total: calls.append((done, total)))
    starts = [place for place, (done, _) in enumerate(calls) if done == 1]
    assert len(starts) == 2
    for table in (calls[: starts[1]], calls[starts[1] :]):
        total = table[-1][1]
        assert table == [(done, total) for done in range(1, total + 1)]


# What happens meanwhile.


@pytest.mark.django_db(transaction=True)
@pytest.mark.isolation
def test_purge_waits_for_nobody_whose_session_is_alive(alice, settings):
    """And so holds nobody up meanwhile: a request may hold its session for as long as it runs."""
    settings.SESSIONKIT_ADDRESS_RETENTION = 3600
    stored_rows(2)
    history(alice, 2)
    (inactive,) = ended_with_an_address(alice, 1)
    (stored,), (row,) = stored_rows(1, expires_in=60), register(alice, 1)

    def use():
        StoredSession.objects.filter(pk=stored.pk).update(payload=b"")
        UserSession.objects.filter(pk=row.pk).update(renew=True)

    be_impatient()
    with held_open(use):
        assert purge_payloads() == purge_rows() == 2
    inactive.refresh_from_db()
    assert inactive.ip is None
    connection.close()


def renew(row):
    """Slide the expiry of a stored session, as a request would that was let in before it ended."""
    at = int(timezone.now().timestamp()) * 1000
    StoredSession.objects.filter(pk=row.pk).update(touched_at=at, expires_at=at + 60_000)


@pytest.mark.parametrize("receiver", [None, lambda **kwargs: None], ids=["", "with a receiver"])
def test_session_that_is_renewed_just_before_the_delete_survives(parts, receiver):
    """With a receiver for deletions, Django would read the rows and delete them by their ids."""
    first, _second = stored_rows(2)
    if receiver:
        post_delete.connect(receiver)
    try:
        with before_write("DELETE", lambda: renew(first)):
            assert purge_payloads() == 1
    finally:
        post_delete.disconnect(receiver)
    assert StoredSession.objects.get() == first


@pytest.mark.django_db(transaction=True)
@pytest.mark.isolation
def test_what_somebody_holds_is_left_out_and_nobody_waits(clock, alice):
    """A request that was let in just in time holds its session and its row."""
    (stored, _), (row, _) = stored_rows(2), overdue(alice, 2)

    def use():
        renew(stored)
        now = timezone.now()
        held = UserSession.objects.filter(pk=row.pk)
        held.update(last_seen_at=now, expires_at=now + AGE)

    be_impatient()
    with held_open(use):
        assert purge_payloads() == 1
        purge_rows()
    assert StoredSession.objects.get() == stored
    assert UserSession.objects.get(ended_at=None).pk == row.pk
    connection.close()


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
def test_purge_waits_for_the_disk_only_where_the_transaction_is_somebody_elses(inside):
    """What a crash takes back of a purge, the next one does again. This is not so of a site's."""
    stored_rows(3)
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = on")
        cursor.execute("CREATE TABLE waits AS SELECT current_setting('synchronous_commit') AS said")
        cursor.execute(
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO waits"
            " VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$"
        )
        table = StoredSession._meta.db_table
        cursor.execute(
            f"CREATE TRIGGER noting AFTER DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION note()"
        )
        try:
            with transaction.atomic() if inside else nullcontext():
                assert purge_payloads() == 3
            cursor.execute("SELECT said, current_setting('synchronous_commit') FROM waits")
            own = "on" if inside else "off"
            assert cursor.fetchall() == [("on", "on"), *[(own, "on")] * 3]
        finally:
            cursor.execute("DROP TABLE waits; DROP FUNCTION note CASCADE")
            cursor.execute("RESET synchronous_commit")


@pytest.mark.django_db(transaction=True)
@pytest.mark.isolation
@pytest.mark.parametrize("beside", ["another", "none"])
def test_session_that_was_ended_and_that_somebody_holds_is_removed_by_the_next_purge(alice, beside):
    held, other = visit(alice), visit(alice)
    row = lose_the_removal(held)
    if beside == "another":
        lose_the_removal(other)
    stored = StoredSession.objects.filter(digest=row.digest)
    be_impatient()
    with held_open(lambda: stored.update(touched_at=1)):
        purge_rows()
        assert is_stored(other) == (beside == "none")
        row.refresh_from_db()
        is_held = HOLDS_ROWS and not APART
        assert (row.expires_at > row.ended_at) == is_held
    purge_rows()
    assert not is_stored(held)
    connection.close()


@pytest.mark.django_db(transaction=True)
def test_session_that_is_renewed_elsewhere_between_two_parts_survives(parts):
    """It may move on the disk, into a part that is still to come or one that is done."""
    rows = stored_rows(23)

    def look(done, total):
        if done == 2:
            elsewhere(lambda: [renew(row) for row in rows])

    purge_payloads(look)
    left = set(StoredSession.objects.values_list("pk", flat=True))
    assert 10 <= len(left) < 23
    purge_payloads()
    assert set(StoredSession.objects.values_list("pk", flat=True)) == left


def test_nothing_is_said_of_rows_that_are_all_renewed_before_they_are_closed(clock, alice, ended):
    visit(alice)
    clock.move(AGE + timedelta(minutes=2))

    def renew():
        now = timezone.now()
        UserSession.objects.update(last_seen_at=now, expires_at=now + AGE)

    with before_write("UPDATE django_sessionkit_usersession", renew):
        purge_rows()
    assert ended == []


def test_a_stored_session_has_a_name_that_says_nothing():
    assert str(StoredSession(pk=7, digest="secret")) == "stored session 7"


def test_row_that_is_renewed_before_it_is_closed_stays_open(clock, alice, ended):
    session, other = visit(alice), visit(alice)
    clock.move(AGE + timedelta(minutes=2))

    def touch():
        now = timezone.now()
        row = UserSession.objects.filter(pk=session.handle)
        row.update(last_seen_at=now, expires_at=now + AGE)

    with before_write("UPDATE django_sessionkit_usersession", touch):
        purge_rows()
    assert UserSession.objects.active().get().pk == session.handle
    assert ended == [({other.handle}, "expired", None)]


def test_nobody_is_told_of_nobody(clock, alice, ended):
    visit(alice)
    clock.move(AGE + timedelta(minutes=2))

    def touch():
        now = timezone.now()
        UserSession.objects.update(last_seen_at=now, expires_at=now + AGE)

    with before_write("UPDATE django_sessionkit_usersession", touch):
        purge_rows()
    assert ended == []


def test_row_that_is_ended_before_it_is_closed_keeps_its_reason(clock, alice, ended):
    session, other = visit(alice), visit(alice)
    clock.move(AGE + timedelta(minutes=2))
    row = UserSession.objects.filter(pk=session.handle)

    def revoke():
        row.update(ended_at=timezone.now(), end_reason=EndReason.REVOKED)

    with before_write("UPDATE django_sessionkit_usersession", revoke):
        purge_rows()
    assert row.get().end_reason == EndReason.REVOKED
    assert ended == [({other.handle}, "expired", None)]


# The registry.


def test_expired_row_is_closed_and_said_so(clock, alice, ended):
    start = timezone.now()
    session, live = visit(alice), visit(alice)
    row = UserSession.objects.get(pk=session.handle)
    clock.move(AGE - timedelta(seconds=1))
    assert come_back(live)
    clock.move(timedelta(minutes=2))
    SessionStore.clear_expired()

    closed = UserSession.objects.get(pk=row.pk)
    assert closed.end_reason == EndReason.EXPIRED
    assert closed.ended_at == closed.expires_at == row.expires_at == start + AGE
    assert closed.ended_by is None
    assert ended == [({row.pk}, "expired", None)]
    SessionStore.clear_expired()
    assert len(ended) == 1


def test_row_waits_for_a_session_that_the_store_has_renewed(clock, alice):
    """Between two touches a write slides the expiry in the store, and not that of the row."""
    session = visit(alice)
    clock.move(timedelta(minutes=1))
    again = SessionStore(session.session_key)
    again.client = CLIENT
    again["cart"] = []
    clock.move(timedelta(seconds=59))
    again.save()
    clock.move(AGE - timedelta(seconds=1))
    SessionStore.clear_expired()
    assert UserSession.objects.get(ended_at=None).pk == session.handle
    assert come_back(session)

    clock.move(AGE + timedelta(minutes=2))
    SessionStore.clear_expired()
    assert UserSession.objects.get().end_reason == EndReason.EXPIRED


@pytest.mark.parametrize("elsewhere", [False, True], ids=["", "store elsewhere"])
def test_session_that_the_store_has_for_longer_than_its_row_says_is_not_closed(
    clock, alice, ended, monkeypatch, elsewhere
):
    """As if the row lagged behind: its activity waits in the store, say."""
    if elsewhere:
        monkeypatch.setattr(SessionStore, "is_stored", lambda database: None)
    session = visit(alice)
    clock.move(timedelta(hours=1))
    UserSession.objects.update(expires_at=timezone.now() - timedelta(minutes=1))
    purge()
    assert ended == []
    assert purge(dry_run=True).figures["closed.expired"] == 0
    SessionStore.remove([UserSession.objects.get().digest])
    purge()
    assert ended == [({session.handle}, "expired", None)]


def test_session_that_lives_without_requests_is_not_closed(clock, alice, ended, policy):
    """Behind Django's middleware, or on a web socket, nothing but the store hears of its use."""
    policy()
    session = visit(alice)
    for day in range(30):
        clock.move(timedelta(days=1))
        again = SessionStore(session.session_key)
        again["day"] = day
        again.save()
        SessionStore.clear_expired()
    (row,) = UserSession.objects.alive()
    assert row.pk == session.handle
    assert ended == []

    clock.move(2 * AGE)
    SessionStore.clear_expired()
    assert [handles for handles, _, _ in ended] == [{row.pk}]


def test_session_that_the_store_has_lost_is_closed(clock, alice, ended):
    session, live = visit(alice), visit(alice)
    row = UserSession.objects.get(pk=session.handle)
    SessionStore.remove([row.digest])
    clock.move(timedelta(seconds=59))
    purge_rows()
    assert ended == []  # too fresh: it might be a sign-in that is only being written
    clock.move(timedelta(seconds=1))
    purge_rows()
    assert ended == [({row.pk}, "lost", None)]
    row.refresh_from_db()
    assert (row.end_reason, row.ended_at) == (EndReason.LOST, timezone.now())
    assert UserSession.objects.alive() == [UserSession.objects.get(pk=live.handle)]


def test_nobody_is_lost_because_the_store_does_not_answer(clock, alice, ended, monkeypatch, apart):
    visit(alice)
    clock.move(timedelta(hours=1))
    monkeypatch.setattr(SessionStore, "peek", mock.Mock(side_effect=OperationalError))
    with pytest.raises(StoreUnavailable):
        purge_rows()
    assert UserSession.objects.active().count() == 1
    assert ended == []


@pytest.mark.parametrize("verb", ["save", "cycle_key"])
def test_session_that_is_written_meanwhile_is_not_lost(clock, alice, ended, verb, apart):
    """It is used, and may get a new key, between the look at its row and the look at the store."""
    session = visit(alice)
    clock.move(timedelta(hours=1))

    def request():
        again = SessionStore(session.session_key)
        again.client = CLIENT
        again["cart"] = []
        getattr(again, verb)()

    peek = SessionStore.peek
    with mock.patch.object(SessionStore, "peek", lambda digests: [request(), peek(digests)][1]):
        purge_rows()
    assert ended == []
    assert len(UserSession.objects.alive()) == 1


@pytest.mark.django_db(transaction=True)
def test_everyone_who_expires_is_announced_wherever_the_row_moves(parts, alice, ended):
    """On PostgreSQL a row that is written moves, out of the part of the table that is looked at."""
    rows = overdue(alice, 40)
    purge_rows()
    assert not UserSession.objects.filter(ended_at=None).exists()
    announced = [handle for handles, _, _ in ended for handle in handles]
    assert sorted(announced) == sorted(row.pk for row in rows)


def test_active_rows_are_left_alone(parts, alice):
    register(alice, 20)
    overdue(alice, 20)
    before = list(UserSession.objects.active().order_by("pk").values())
    assert len(before) == 20
    purge_rows()
    assert list(UserSession.objects.active().order_by("pk").values()) == before


@pytest.mark.parametrize("reason", EndReason)
@pytest.mark.standard("NIST-SESSM-1")
def test_history_is_kept_for_the_time_of_retention(clock, alice, reason):
    at = timezone.now()
    register(alice, 1, ended_at=at, end_reason=reason, expires_at=at + AGE)
    clock.move(RETENTION)
    assert purge_rows() == 0
    clock.move(timedelta(seconds=1))
    assert purge_rows() == 1


def test_time_of_retention_is_a_setting(clock, alice, settings):
    settings.SESSIONKIT_RETENTION = 60
    register(alice, 1, ended_at=timezone.now())
    clock.move(timedelta(seconds=60))
    assert purge_rows() == 0
    clock.move(timedelta(seconds=1))
    assert purge_rows() == 1


def test_expired_row_is_history_from_the_time_when_it_expired(clock, alice):
    visit(alice)
    clock.move(AGE + RETENTION + timedelta(minutes=2))
    SessionStore.clear_expired()
    SessionStore.clear_expired()
    assert not UserSession.objects.exists()


# A removal that was lost.


@pytest.fixture
def removed(monkeypatch):
    """The digests that the store is asked to remove, each time."""
    asked = []
    remove = SessionStore.remove_free
    monkeypatch.setattr(
        SessionStore, "remove_free", lambda digests: asked.append(list(digests)) or remove(digests)
    )
    return asked


def lose_the_removal(session):
    """End a session in the registry, and crash before the store hears of it."""
    row = UserSession.objects.get(pk=session.handle)
    mark_ended(UserSession.objects.filter(pk=row.pk), EndReason.REVOKED)
    assert is_stored(session)
    return row


def test_payload_of_an_ended_session_is_removed_once(clock, alice, removed):
    session, live = visit(alice), visit(alice)
    row = lose_the_removal(session)
    clock.move(timedelta(minutes=1))
    purge_rows()
    assert not is_stored(session)
    assert is_stored(live)
    assert removed == [[row.digest]]
    row.refresh_from_db()
    assert row.expires_at == row.ended_at == timezone.now() - timedelta(minutes=1)
    assert row.end_reason == EndReason.REVOKED

    clock.move(timedelta(minutes=1))
    purge_rows()
    assert removed == [[row.digest]]


def test_store_that_is_down_is_asked_again_by_the_next_purge(alice, removed, monkeypatch):
    session = visit(alice)
    row = lose_the_removal(session)

    def fail(digests):
        raise OperationalError("no route to the store")

    with monkeypatch.context() as down:
        down.setattr(SessionStore, "remove_free", fail)
        with pytest.raises(StoreUnavailable):
            purge_rows()
    assert is_stored(session)
    SessionStore.clear_expired()
    assert not is_stored(session)
    assert removed == [[row.digest]]


def test_history_does_not_go_before_the_payload_does(clock, alice, monkeypatch):
    """Without its row, nothing would remove a payload that the store has kept."""
    session = visit(alice)
    session.set_expiry(10 * RETENTION)
    session.save()
    lose_the_removal(session)
    history(alice, 1)  # others of the same time go
    clock.move(2 * RETENTION)
    with monkeypatch.context() as down:
        down.setattr(SessionStore, "remove_free", mock.Mock(side_effect=OperationalError))
        with pytest.raises(StoreUnavailable):
            SessionStore.clear_expired()
    assert UserSession.objects.filter(pk=session.handle).exists()
    SessionStore.clear_expired()
    assert not is_stored(session)
    SessionStore.clear_expired()
    assert not UserSession.objects.filter(pk=session.handle).exists()


@pytest.mark.django_db(transaction=True)  # else PostgreSQL puts rows into gaps anywhere
def test_many_lost_removals_are_one_call_for_each_part(parts, alice, removed):
    sessions = [visit(alice) for _ in range(12)]
    for session in sessions:
        lose_the_removal(session)
    purge_rows()
    assert not any(map(is_stored, sessions))
    assert sum(map(len, removed)) == 12
    assert len(removed) <= 4


# Two at once, and half of one.


@pytest.mark.django_db(transaction=True)
def test_two_purges_at_once_do_what_one_does(parts, alice, ended):
    for _ in range(5):
        live = stored_rows(20, expires_in=60)
        stored_rows(40)
        active = register(alice, 10)
        expired = overdue(alice, 20)
        history(alice, 20)
        start = threading.Barrier(2)

        def purge(start=start):
            start.wait(60)
            try:
                db.SessionStore.clear_expired()
            finally:
                connection.close()

        with ThreadPoolExecutor(2) as pool:
            for run in [pool.submit(purge), pool.submit(purge)]:
                run.result(60)
        assert set(StoredSession.objects.all()) == set(live)
        assert set(UserSession.objects.active()) == set(active)
        assert set(UserSession.objects.ended()) == set(expired)
        assert {handle for handles, _, _ in ended for handle in handles} == {
            row.pk for row in expired
        }
        ended.clear()
        StoredSession.objects.all().delete()
        UserSession.objects.all().delete()


@pytest.mark.django_db(transaction=True)
def test_who_expires_is_announced_once_if_another_purge_is_just_faster(alice, ended):
    rows = overdue(alice, 3)
    with before_write("UPDATE django_sessionkit_usersession", lambda: elsewhere(purge_rows)):
        purge_rows()
    told = [handle for handles, _, _ in ended for handle in handles]
    assert sorted(told) == sorted(row.pk for row in rows)


@pytest.mark.django_db(transaction=True)
def test_purge_that_is_killed_half_way_is_run_again(parts, alice, ended):
    stored_rows(23)
    expired = []
    for _ in range(10):
        history(alice, 3)
        expired += overdue(alice, 3)

    class Killed(BaseException):
        pass

    def kill(done, total):
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        purge_payloads(kill)
    assert 0 < elsewhere(StoredSession.objects.count) < 23
    with pytest.raises(Killed):
        purge_rows(kill)
    assert 30 <= elsewhere(UserSession.objects.count) < 60

    db.SessionStore.clear_expired()
    assert not StoredSession.objects.exists()
    assert set(UserSession.objects.all()) == set(expired)
    announced = [handle for handles, _, _ in ended for handle in handles]
    assert sorted(announced) == sorted(row.pk for row in expired)


# How large a part is, and how long a run.


class Machine:
    """A clock that a test moves, and that moves while the purge rests."""

    def __init__(self):
        self.now = 0.0
        self.rested = []

    def sleep(self, seconds):
        self.rested.append(seconds)
        self.now += seconds

    def pace(self, **options):
        return Pace(clock=lambda: self.now, sleep=self.sleep, **options)


@pytest.mark.once
@given(
    cost=st.floats(1e-7, 1e-2),  # seconds that a row takes
    overhead=st.floats(0, TARGET / 8),
    first=st.integers(1, 500),
)
def test_a_statement_takes_a_few_milliseconds_on_any_machine(cost, overhead, first):
    machine = Machine()
    pace = machine.pace()
    size = pace.size("delete", first)
    took = []

    def act(number):
        before = machine.now
        machine.now += overhead + number * cost
        took.append(machine.now - before)
        return number

    for _ in range(40):
        pace.step(size, act)
    settled = took[20:]
    smallest = overhead + max(1, first // LEAST) * cost
    largest = overhead + first * MOST * cost
    assert max(settled) <= max(TARGET, smallest) * 1.01
    assert max(settled) >= min(TARGET / 4, largest * 0.99)


@pytest.mark.once
def test_a_part_that_takes_too_many_statements_to_write_becomes_smaller():
    machine = Machine()
    pace = machine.pace()
    size, other = pace.size("walk", 64), pace.size("update", 10)
    pace.read(lambda: None)
    for _ in range(STEPS):
        pace.step(other, lambda number: number)
    pace.learn(size)
    assert size.number == 8
    pace.read(lambda: None)
    pace.learn(size)
    assert size.number == 16
    pace.learn(size)  # nothing was done, nothing is known
    assert size.number == 16
    for expected in (16, 8):  # what there was did not fit into a statement: not only once
        pace.step(other, lambda number: number)
        pace.learn(size)
        assert size.number == expected
    pace.step(other, lambda number: number - 1)
    pace.learn(size)
    assert size.number == 16


@pytest.mark.once
def test_a_part_becomes_larger_until_its_statements_take_as_long_as_they_may():
    """A statement that writes may take two TARGETs, and then its part is as large as it may be."""
    machine = Machine()
    pace = machine.pace()
    size, write = pace.size("walk", 100), pace.size("update", 1000, target=2)

    def work(seconds):
        machine.now += seconds
        return 1

    for seconds, number in [(0.9, 200), (1.1, 250), (1.4, 312), (1.6, 312), (2, 312)]:
        pace.step(write, lambda number, seconds=seconds: work(seconds * TARGET))
        pace.learn(size)
        assert size.number == number


@pytest.mark.once
def test_one_slow_statement_means_nothing_and_two_do():
    machine = Machine()
    size = machine.pace().size("delete", 100, least=25)
    for seconds, number in [
        (1.5, 100),
        (0.9, 100),
        (1.5, 100),
        (1.5, 50),
        (1.5, 50),
        (0.4, 100),
        (4.1, 50),  # but if it was far too slow
        (4.1, 25),
        (4.1, 25),  # not smaller, for then the statements would take most of the time
    ]:
        size.learn(seconds * TARGET, size.number)
        assert size.number == number
    size.learn(0, 24)  # there was no more to do
    assert size.number == 25


@pytest.mark.once
@pytest.mark.parametrize(("duty", "share"), [(1, 0), (0.5, 1), (0.25, 3)])
def test_a_purge_rests_after_each_statement(duty, share):
    machine = Machine()
    pace = machine.pace(duty=duty)

    def work(seconds):
        machine.now += seconds
        return 1

    pace.step(pace.size("delete", 1), lambda number: work(0.25))
    pace.read(lambda: work(0.5))
    assert machine.rested == [seconds * share for seconds in (0.25, 0.5) if share]


@pytest.mark.once
def test_a_purge_does_not_rest_for_longer_than_its_time():
    """Others could carry it on by then. And a worker that is to stop has some seconds for that."""
    machine = Machine()
    pace = machine.pace(seconds=1, duty=0.01)

    def work():
        machine.now += 0.25

    pace.read(work)
    assert machine.rested == [0.75]
    pace.read(work)
    assert machine.rested == [0.75]


@pytest.mark.parametrize("seconds", [1e12, math.inf])
def test_a_time_without_end_is_a_time(alice, seconds):
    history(alice, 3)
    purged = purge(seconds=seconds)
    assert purged.finished
    assert purged.figures["deleted"] == 3


@pytest.mark.once
@pytest.mark.parametrize("duty", [0, -1, 1.5])
def test_a_share_of_the_time_is_a_share(duty):
    with pytest.raises(ValueError, match="above 0"):
        purge(duty=duty)


@pytest.mark.django_db(transaction=True)
def test_a_run_with_nothing_to_do_reads_each_part_once(parts, alice):
    stored_rows(23, expires_in=60)
    at = timezone.now()
    register(alice, 20)
    register(alice, 20, ended_at=at, expires_at=at)
    by_block = connection.vendor == "postgresql"
    for rows, run in (
        (StoredSession.objects, lambda: db.SessionStore.remove_expired(Pace())),
        (UserSession.objects, lambda: sweep(Pace())),
    ):
        number = len(list(rows.walk()))
        assert number >= 4
        with statements() as seen:
            assert not run()
        # How large the table is, or where each part ends.
        assert len(seen) == (1 + number if by_block else 2 * number)


@pytest.mark.django_db(transaction=True)
def test_a_part_that_is_fuller_than_a_statement_takes_many(alice, monkeypatch):
    monkeypatch.setattr(ranges, "FIRST", 5)
    monkeypatch.setattr("django_sessionkit.pace.MOST", 1)
    stored_rows(40)
    overdue(alice, 40)
    with statements() as seen:
        assert purge_payloads() == 40
        purge_rows()
    writes = [met for sql, met in seen if sql.startswith(("UPDATE", "DELETE"))]
    assert (sum(writes), max(writes)) == (80, 5)


@override_settings(SESSION_ENGINE="django.contrib.sessions.backends.db")
def test_site_with_an_engine_of_django_is_purged_by_that():
    Session.objects.create(session_key="expired", expire_date=timezone.now() - timedelta(days=1))
    assert not any(purge(dry_run=True).figures.values())
    assert Session.objects.exists()
    assert purge().finished
    assert not Session.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_rows_are_closed_by_one_statement_and_not_named_unless_somebody_listens(alice):
    rows = overdue(alice, 30)
    for row in rows[:10]:
        UserSession.objects.filter(pk=row.pk).update(idle_at=row.expires_at)
    with statements() as seen:
        sweep(Pace())
    updates = [met for sql, met in seen if sql.startswith("UPDATE")]
    assert sorted(updates) == [10, 20]
    if connection.vendor == "postgresql" and not APART:
        # How large the table is, what there is to do, and for each reason one statement.
        assert len(seen) == 4
    reasons = UserSession.objects.values_list("end_reason", flat=True)
    assert sorted(reasons) == [EndReason.EXPIRED] * 20 + [EndReason.IDLE] * 10


def test_dry_run_says_what_a_run_would_do_and_does_nothing(clock, alice, bob, settings):
    settings.SESSIONKIT_ADDRESS_RETENTION = 3600
    lost, ended = visit(alice), visit(alice)
    disabled = visit(bob)
    SessionStore.remove([UserSession.objects.get(pk=lost.handle).digest])
    lose_the_removal(ended)
    clock.move(timedelta(minutes=30))
    overdue(alice, 3)
    for row in overdue(alice, 2):
        UserSession.objects.filter(pk=row.pk).update(idle_at=row.expires_at)
    history(alice, 4)
    ended_with_an_address(alice, 5)
    type(bob).objects.filter(pk=bob.pk).update(is_active=False)
    orphan = visit(alice)
    row = lose_the_removal(orphan)
    UserSession.objects.filter(pk=row.pk).update(expires_at=F("ended_at"))
    visit(alice)
    before = list(UserSession.objects.order_by("pk").values())

    would = purge(dry_run=True)
    assert list(UserSession.objects.order_by("pk").values()) == before
    assert not PurgeRun.objects.exists()
    assert is_stored(orphan)
    assert is_stored(disabled)
    did = purge()
    assert would == did
    assert did.finished
    assert did.figures == {
        "expired": 0,
        "closed.idle": 2,
        "closed.expired": 3,
        "closed.lost": 1,
        "confirmed": 3,  # and the two that end now
        "deleted": 4,
        "addresses": 5,
        "disabled": 1,
        "orphans": 1,
    }
    assert not is_stored(orphan)
    assert not is_stored(disabled)
    stored_rows(3)
    assert purge(dry_run=True, store=db.SessionStore).figures["expired"] == 3
    assert purge(store=db.SessionStore).figures == dict.fromkeys(did.figures, 0) | {"expired": 3}


def test_one_statement_asks_for_sessions_only_if_they_are_on_the_same_database():
    assert db.SessionStore.is_stored(connection.alias) is not None
    assert db.SessionStore.is_stored("another") is None


def test_a_run_says_in_the_log_what_it_has_done(alice, caplog):
    caplog.set_level("INFO", "django_sessionkit")
    history(alice, 4)
    purge()
    purge(dry_run=True)
    purged, to_purge = caplog.messages
    assert purged.startswith("Purged: expired 0, closed.idle 0, ")
    assert ", deleted 4, " in purged
    assert to_purge.startswith("There is to purge: expired 0, ")


def test_runs_that_have_too_little_time_carry_each_other_on(parts, alice):
    stored_rows(23)
    expired = overdue(alice, 23)
    register(alice, 5)
    runs = 1
    while not (purged := purge(seconds=0, store=db.SessionStore)).finished:
        assert last_run().goes_on
        assert last_run().finished_at is None
        runs += 1
    assert runs > 8
    assert (purged.figures["expired"], purged.figures["closed.expired"]) == (23, 23)
    assert not StoredSession.objects.exists()
    assert set(UserSession.objects.exclude(ended_at=None)) == set(expired)
    assert PurgeRun.objects.count() == 1
    assert last_run().finished_at
    assert not last_run().goes_on
    figures = tallies.figures([tallies.today()])
    assert figures["active."] == {tallies.today(): 5}
    # The next one begins anew.
    purge(seconds=0)
    assert PurgeRun.objects.count() == 2


def test_run_that_somebody_else_carries_on_is_left_to_them(parts, clock, alice):
    """Until their time is over: they were killed then, and what they did is done again."""
    stored_rows(23)

    def killed(pace):
        raise KeyboardInterrupt

    assert not purge(seconds=0, store=db.SessionStore).finished
    first = last_run()
    with (
        mock.patch.object(db.SessionStore, "remove_expired", killed),
        pytest.raises(KeyboardInterrupt),
    ):
        purge(seconds=30, store=db.SessionStore)
    assert last_run() == first
    clock.move(seconds=85)
    assert purge(seconds=0, store=db.SessionStore).figures["expired"] <= 5
    assert last_run() != first
    last_run().delete()
    clock.move(seconds=5)
    while not purge(seconds=0, store=db.SessionStore).finished:
        assert last_run() == first
    assert last_run() == first
    assert not StoredSession.objects.exists()


def test_run_that_two_want_to_carry_on_is_carried_on_by_one(parts, alice):
    stored_rows(23)
    assert not purge(seconds=0, store=db.SessionStore).finished
    first = last_run()

    def other():
        assert not purge(seconds=0, store=db.SessionStore).finished
        assert last_run() == first

    with before_statement("UPDATE django_sessionkit_purgerun", other):
        purge(seconds=0, store=db.SessionStore)
    assert last_run() != first


def test_run_that_others_have_finished_meanwhile_stays_finished(clock, alice, purges):
    """Its process stood still for longer than it had the run to itself."""
    history(alice, 3)
    remove_expired = SessionStore.remove_expired

    def stand_still(pace):
        clock.move(seconds=91)
        monkeypatch.undo()
        assert purge(seconds=30).finished
        return remove_expired(pace)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(SessionStore, "remove_expired", stand_still)
        purge(seconds=30)
    assert PurgeRun.objects.count() == 1
    assert last_run().finished_at
    assert not last_run().goes_on
    assert len(purges) == 1


@pytest.fixture
def purges():
    """The figures of the purges that were said to have finished."""
    heard = []

    def listen(figures, **kwargs):
        heard.append(figures)

    purge_finished.connect(listen)
    yield heard
    purge_finished.disconnect(listen)


def test_store_that_does_not_answer_does_not_send_short_runs_back_to_the_beginning(
    parts, alice, apart, monkeypatch
):
    """A server may be away for days. What is at the end of the table has its turn all the same."""
    overdue(alice, 23)
    history(alice, 12)
    take_down(monkeypatch, "peek")
    goes_on = True
    while goes_on:
        with suppress(StoreUnavailable):
            purge(seconds=0)
        goes_on = last_run().goes_on
    assert not UserSession.objects.filter(ended_at__lt=timezone.now() - RETENTION).exists()


def test_store_whose_activity_cannot_be_carried_does_not_keep_the_rest_from_being_done(
    alice, monkeypatch
):
    """Of a Cluster, one server may be away for days."""
    history(alice, 3)
    down = mock.Mock(side_effect=StoreUnavailable("The session store did not answer."))
    monkeypatch.setattr(activity, "carry", down)
    with pytest.raises(StoreUnavailable):
        purge()
    assert not UserSession.objects.exists()
    assert last_run().finished_at is None
    assert not last_run().goes_on


def test_run_that_was_killed_at_once_is_begun_again(clock, alice):
    with (
        mock.patch.object(SessionStore, "remove_expired", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        purge(seconds=30)
    killed = last_run()
    clock.move(timedelta(seconds=91))
    history(alice, 3)
    assert purge(seconds=30).figures["deleted"] == 3
    assert last_run() == killed
    assert last_run().finished_at


@pytest.mark.django_db(transaction=True)
def test_run_that_has_time_for_all_is_not_kept_by_one_that_had_not(parts, alice):
    stored_rows(23)
    assert not purge(seconds=0, store=db.SessionStore).finished
    assert purge(store=db.SessionStore).finished
    assert not StoredSession.objects.exists()
    assert PurgeRun.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_each_run_mends_a_slice_and_all_have_their_turn(parts, alice, monkeypatch):
    monkeypatch.setattr(sweeping, "FEWEST", 1)
    monkeypatch.setattr(sweeping, "SHARE", 3)
    at = timezone.now() - timedelta(hours=1)
    register(alice, 60, last_seen_at=at)
    lost = [purge().figures["closed.lost"] for _ in range(8)]
    assert sum(lost) == 60
    assert 0 < max(lost[1:]) <= 30
    assert len([number for number in lost if number]) >= 3
    # A store that does not answer does not keep the others from their turn.
    assert purge().figures["closed.lost"] == 0


@pytest.mark.django_db(transaction=True)
def test_another_purge_between_any_two_parts_does_no_harm(parts, alice, ended):
    stored_rows(23)
    expired = overdue(alice, 23)
    history(alice, 12)

    def other(done, total):
        if done == 2:
            elsewhere(lambda: purge(store=db.SessionStore))

    purge(other, store=db.SessionStore)
    assert not StoredSession.objects.exists()
    assert set(UserSession.objects.all()) == set(expired)
    told = [handle for handles, _, _ in ended for handle in handles]
    assert sorted(told) == sorted(row.pk for row in expired)


def test_session_that_a_store_has_again_is_removed(clock, alice, ended):
    """It came back with an older state of the store, say. Its row has refused it all the time."""
    session, live = visit(alice), visit(alice)
    row = lose_the_removal(session)
    UserSession.objects.filter(pk=row.pk).update(expires_at=F("ended_at"))
    ended.clear()
    assert purge().figures["orphans"] == 1
    assert not is_stored(session)
    assert is_stored(live)
    assert ended == []
    assert purge().figures["orphans"] == 0


# The commands.


def run_command(stdout=None, app="django_sessionkit", **options):
    """Run the command of an app, on the engine with two tables to purge; return what it says."""
    stdout = stdout or io.StringIO()
    with override_settings(SESSION_ENGINE=db.__name__):
        call_command(load_command_class(app, "clearsessions"), stdout=stdout, **options)
    return stdout.getvalue()


@pytest.mark.parametrize("app", ["django.contrib.sessions", "django_sessionkit"])
def test_command_of_django_and_ours_purge_both_tables(alice, app):
    stored_rows(3)
    history(alice, 3)
    run_command(app=app)
    assert not StoredSession.objects.exists()
    assert not UserSession.objects.exists()


def test_site_that_is_about_to_move_purges_with_our_command_as_with_that_of_django():
    Session.objects.create(session_key="expired", expire_date=timezone.now() - timedelta(days=1))
    kept = Session.objects.create(
        session_key="kept", expire_date=timezone.now() + timedelta(days=1)
    )
    stdout = io.StringIO()
    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.db"):
        call_command(load_command_class("django_sessionkit", "clearsessions"), stdout=stdout)
    assert [session.pk for session in Session.objects.all()] == [kept.pk]
    assert "Done" in stdout.getvalue()


@pytest.mark.once
@pytest.mark.parametrize("app", ["django.contrib.sessions", "django_sessionkit"])
def test_engine_that_cannot_purge_is_told_in_one_line(app, monkeypatch):
    """Whichever command of this name comes first."""
    monkeypatch.setattr(DjangosStore, "clear_expired", SessionBase.clear_expired)
    with (
        override_settings(SESSION_ENGINE="django.contrib.sessions.backends.db"),
        pytest.raises(CommandError, match="doesn't support clearing expired"),
    ):
        call_command(load_command_class(app, "clearsessions"))


@pytest.mark.once
@pytest.mark.parametrize("first", ["django.contrib.sessions", "django_sessionkit"])
def test_the_app_that_comes_first_has_the_command(first):
    apps = [first, *(app for app in settings.INSTALLED_APPS if app != first)]
    registered.cache_clear()
    with override_settings(INSTALLED_APPS=apps):
        assert registered()["clearsessions"] == first
    registered.cache_clear()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_command_says_when_it_begins_and_ends(parts):
    stored_rows(12)
    said = run_command()
    assert re.fullmatch(
        r"Removing expired sessions\.\nDone: \d+ parts in \d seconds\.\n  expired +12\n", said
    )


@pytest.mark.django_db(transaction=True)
def test_command_says_how_far_it_is_every_few_seconds(parts, monkeypatch):
    monkeypatch.setattr(clearsessions, "IN_LOG", 0)
    stored_rows(12)
    number = len(walked())
    assert number >= 3
    _, *lines, last, _figure = run_command().splitlines()
    assert lines[:number] == [f"Part {done} of {number}." for done in range(1, number + 1)]
    assert last.startswith(f"Done: {len(lines)} parts in ")


@pytest.mark.django_db(transaction=True)
def test_command_draws_a_bar_on_a_terminal(parts, alice, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr(clearsessions, "ON_TERMINAL", 0)
    stored_rows(12)
    register(alice, 1)
    number = len(walked())
    first, sessions, registry, last, _figure = run_command(Terminal()).split("\n")[:-1]
    assert first == "Removing expired sessions."
    bars = sessions.split("\r")[1:]
    assert len(bars) == number
    assert bars[-1] == f"[{'#' * 40}] 100 %"
    assert bars[0] == f"[{'#' * (40 // number):40}] {100 // number:3} %"
    assert registry == f"\r[{'#' * 40}] 100 %"
    assert last.startswith("Done: ")


@pytest.mark.django_db(transaction=True)
def test_command_draws_no_more_often_than_can_be_seen(parts, alice, monkeypatch):
    monkeypatch.setattr(clearsessions, "ON_TERMINAL", 3600)
    stored_rows(23)
    register(alice, 1)
    said = run_command(Terminal())
    assert said.count("\r") == said.count("100 %") == 2  # the end of each table, always


@pytest.fixture
def wait(monkeypatch):
    """A function that lets so many seconds pass, for who measures how long something takes."""
    passed = 1000.0
    monkeypatch.setattr(clearsessions.time, "monotonic", lambda: passed)

    def wait(seconds):
        nonlocal passed
        passed += seconds

    return wait


@pytest.mark.once
def test_who_waits_for_long_is_told_how_long_it_still_takes(wait, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stdout = Terminal()
    report = clearsessions.Report(OutputWrapper(stdout), "Removing.")
    for done in range(1, 101):
        report(done, 100)
        wait(7)
    report(1, 1)  # the next table, which is a small one
    report.end_line()
    first, last = stdout.getvalue().split("\n")[1:-1]
    lines = first.split("\r")[1:]
    assert {len(line) for line in lines} == {58}
    assert lines[0] == f"[{'#':50}]   2 %"
    assert lines[1] == f"[{'':25}]   3 %  about 11 minutes left  "
    assert lines[48] == f"[{'#' * 12:25}]  50 %  about 6 minutes left   "
    assert lines[89] == f"[{'#' * 22:25}]  91 %  about a minute left    "
    assert lines[97] == f"[{'#' * 24:25}]  99 %  less than a minute left"
    assert lines[98] == f"[{'#' * 25}] 100 %{'':25}"
    assert last == f"\r[{'#' * 50}] 100 %"


@pytest.mark.once
def test_log_tells_how_long_it_still_takes(wait):
    stdout = io.StringIO()
    report = clearsessions.Report(OutputWrapper(stdout), "Removing.")
    for done in (1, 2, 3):
        wait(9)
        report(done, 3000)
    wait(8 * 3600)
    report(1500, 3000)
    assert stdout.getvalue().splitlines()[1:] == [
        "Part 1 of 3,000.",
        "Part 2 of 3,000.",
        "Part 3 of 3,000. About 7 hours left.",
        "Part 1,500 of 3,000. About 8 hours left.",
    ]


@pytest.mark.once
@given(
    total=st.integers(2, 50),
    speeds=st.lists(st.floats(0.001, 1000), min_size=50, max_size=50),
)
def test_estimate_is_smooth_and_never_far_from_the_speed_so_far(total, speeds):
    estimate, now, ends = clearsessions.Estimate(), 5.0, []
    assert estimate.left(1, total, now) is None
    for done, seconds in zip(range(2, total + 1), speeds, strict=False):
        now += seconds
        left = estimate.left(done, total, now)
        if done == total or now < 5 + clearsessions.LONG:
            assert left is None
            continue
        exact = (now - 5) / (done - 1) * (total - done)
        assert abs(left - exact) <= exact / 10 + 1e-6
        if ends and abs(now + exact - ends[-1]) <= exact / 10:
            assert now + left == pytest.approx(ends[-1])  # what was said stays
        ends.append(now + left)


@pytest.mark.once
def test_estimate_begins_anew_with_each_table():
    estimate = clearsessions.Estimate()
    estimate.left(1, 100, 0)
    assert estimate.left(50, 100, 490) == 500
    assert estimate.left(1, 100, 500) is None
    assert estimate.left(2, 100, 520) == 98 * 20
    # An ending that somebody resumes begins in the middle.
    resumed = clearsessions.Estimate()
    resumed.left(900, 1000, 0)
    assert resumed.left(950, 1000, 60) == 60


def test_command_says_nothing_if_it_is_told_so():
    stored_rows(3)
    assert run_command(verbosity=0) == ""
    assert not StoredSession.objects.exists()


@pytest.mark.parametrize("verbosity", [0, 1])
def test_command_that_is_stopped_ends_its_line(parts, monkeypatch, verbosity):
    monkeypatch.setattr(clearsessions, "ON_TERMINAL", 0)
    stored_rows(12)
    stdout = Terminal()
    with (
        mock.patch.object(purging, "sweep", side_effect=KeyboardInterrupt),
        pytest.raises(CommandError, match="Stopped") as stopped,
    ):
        run_command(stdout, verbosity=verbosity)
    assert stopped.value.returncode == 130
    assert "Done" not in stdout.getvalue()
    assert stdout.getvalue().endswith("\n") == bool(verbosity)


@pytest.mark.once
def test_command_says_so_when_the_store_does_not_answer(monkeypatch):
    def fail(*args):
        raise OperationalError("no route to host")

    monkeypatch.setattr(db.SessionStore, "remove_expired", fail)
    with pytest.raises(CommandError, match="did not answer"):
        call_command(clearsessions.Command())


def test_command_fails_in_plain_words_when_the_store_does_not_answer(tmp_path):
    done = subprocess.run(
        [sys.executable, "manage.py", "clearsessions"],
        cwd=PROJECT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "example_project.settings",
            "DATABASE_URL": f"sqlite:///{tmp_path}/no/such/folder/db.sqlite3",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Done" not in done.stdout
    assert done.stderr.splitlines()[-1] == (
        "CommandError: The session store did not answer. Nothing is lost: run this again later."
    )
    assert "Traceback" not in done.stderr
