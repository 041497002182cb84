"""What has expired in the tables that a site had before goes away. What is still valid stays."""

import io
import json
import re
from contextlib import suppress
from datetime import timedelta

import pytest
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, models
from django.test import override_settings
from django.test.utils import isolate_apps
from django.utils import timezone
from django.utils.crypto import get_random_string

from django_sessionkit import old_tables, ranges
from django_sessionkit.adoption import Table
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.exceptions import StoreUnavailable
from tests import store
from tests.interleaving import (
    HOLDS_ROWS,
    be_impatient,
    before_statement,
    elsewhere,
    held_open,
)
from tests.moving import (
    CACHED_DATABASE,
    DATABASE,
    FILES,
    HERE,
    generation,
    old_session,
    with_cookie,
)
from tests.people import is_still_in
from tests.store import DAY, SessionStore

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(ranges, "ROWS", 5)
    monkeypatch.setattr(ranges, "BLOCKS", 1)


@pytest.fixture(autouse=True)
def moved_here():
    with generation(HERE, (DATABASE,)):
        yield


def sessions(number, expires_in):
    """Write rows as Django's engine does, four to a block of 8 KB."""
    at = timezone.now() + timedelta(seconds=expires_in)
    keys = [f"{number:08}{'a' * 24}" for number in range(Session.objects.count(), 10_000)][:number]
    rows = [Session(session_key=key, session_data="x" * 1600, expire_date=at) for key in keys]
    return set(Session.objects.bulk_create(rows))


def test_what_has_expired_goes_and_what_is_valid_stays():
    sessions(12, expires_in=-1)
    valid = sessions(7, expires_in=60)
    sessions(5, expires_in=-DAY)
    purged = old_tables.purge_old_tables(duty=1)
    assert purged == ({"django_session": 17}, True)
    assert set(Session.objects.all()) == valid
    assert old_tables.purge_old_tables(duty=1) == ({"django_session": 0}, True)


def test_valid_session_moves_here_afterwards(alice, browse):
    with generation(DATABASE):
        session = old_session(DATABASE, alice)
    sessions(7, expires_in=-1)
    old_tables.purge_old_tables(duty=1)
    assert is_still_in(with_cookie(browse(), session))
    assert not Session.objects.exists()


def test_nothing_is_deleted_that_is_only_counted():
    sessions(12, expires_in=-1)
    sessions(7, expires_in=60)
    assert old_tables.purge_old_tables(duty=1, dry_run=True) == ({"django_session": 12}, True)
    assert Session.objects.count() == 19


def test_session_that_is_prolonged_meanwhile_stays():
    """A process of the generation before may still write there."""
    (session,) = sessions(1, expires_in=-1)

    later, prolonged = timezone.now() + timedelta(days=1), []

    def prolong(execute, sql, *args):
        """After the row was found, and before it is taken."""
        if not prolonged and (sql.startswith("DELETE") or "FOR UPDATE" in sql):
            prolonged.append(session)
            elsewhere(lambda: Session.objects.filter(pk=session.pk).update(expire_date=later))
        return execute(sql, *args)

    with connection.execute_wrapper(prolong):
        assert old_tables.purge_old_tables(duty=1).figures == {"django_session": 0}
    assert prolonged
    assert Session.objects.get() == session


def test_progress_is_told():
    sessions(23, expires_in=-1)
    told = []
    old_tables.purge_old_tables(lambda done, total: told.append((done, total)), duty=1)
    assert told == sorted(told)  # the last part is told once more if it ends before its end
    assert told[-1][0] == told[-1][1] >= 4


def test_who_has_no_time_left_goes_on_with_the_next_run():
    sessions(23, expires_in=-1)
    runs = [old_tables.purge_old_tables(seconds=0) for _ in range(3)]
    assert not any(run.finished for run in runs)
    assert 0 < Session.objects.count() < 23
    runs.append(old_tables.purge_old_tables(duty=1))
    assert runs[-1].finished
    assert not Session.objects.exists()
    assert sum(run.figures["django_session"] for run in runs) == 23


def test_short_runs_get_everywhere_though_most_sessions_are_valid():
    at = timezone.now()
    for _ in range(25):
        Session.objects.create(session_key=get_random_string(32), expire_date=at + timedelta(1))
    last = Session.objects.create(session_key="z" * 32, expire_date=at)
    for _ in range(100):
        old_tables.purge_old_tables(seconds=0)
    assert last not in Session.objects.all()
    assert Session.objects.count() == 25


def test_run_with_a_time_goes_round(monkeypatch):
    """From wherever it begins."""
    for begin in ("0", "00000011", "00000022", "x"):
        sessions(23, expires_in=-1)
        monkeypatch.setattr(old_tables.random, "choices", lambda *args, k, begin=begin: begin)
        purged = old_tables.purge_old_tables(seconds=60, duty=1)
        assert purged == ({"django_session": 23}, True)
        assert not Session.objects.exists()


def test_session_that_somebody_holds_is_left_and_not_waited_for():
    sessions(40, expires_in=-1)
    held = Session.objects.first()
    with held_open(lambda: Session.objects.filter(pk=held.pk).update(session_data="")):
        old_tables.purge_old_tables(duty=1)
    assert list(Session.objects.all()) == ([held] if HOLDS_ROWS else [])


@pytest.fixture
def without_table():
    with connection.schema_editor() as editor:
        editor.delete_model(Session)
    yield
    with connection.schema_editor() as editor:
        editor.create_model(Session)


def test_table_that_was_never_made_is_none(without_table):
    assert old_tables.old_tables() == []
    assert old_tables.purge_old_tables() == ({}, True)


@pytest.mark.once
def test_tables_are_those_of_the_engines_that_are_named_and_that_of_django():
    apps = [app for app in settings.INSTALLED_APPS if app != "django.contrib.sessions"]
    with generation(HERE, (FILES, DATABASE, CACHED_DATABASE)):
        assert old_tables.old_tables() == [Session]
    with generation(HERE):
        assert old_tables.old_tables() == [Session]
        with override_settings(INSTALLED_APPS=apps):
            assert old_tables.old_tables() == []


@pytest.fixture
def peer(monkeypatch):
    """The models of another package, whose engine the settings name: sessions, and what belongs to
    each of them."""
    with isolate_apps("tests"):

        class Visit(models.Model):  # noqa: DJ008
            session_key = models.CharField(primary_key=True, max_length=40)
            session_data = models.TextField()
            expire_date = models.DateTimeField()

            class Meta:
                app_label = "tests"

        class Note(models.Model):  # noqa: DJ008
            visit = models.ForeignKey(Visit, models.CASCADE)

            class Meta:
                app_label = "tests"

    engine = Table("peer.sessions", SessionBase, Visit)
    monkeypatch.setattr(old_tables, "engines", lambda: [engine])
    with connection.schema_editor() as editor:
        editor.create_model(Visit)
        editor.create_model(Note)
    yield Visit, Note
    with connection.schema_editor() as editor:
        editor.delete_model(Note)
        editor.delete_model(Visit)


def test_what_belongs_to_a_session_of_another_package_goes_along(peer):
    visits, notes = peer
    at = timezone.now()
    for number, days in enumerate([-1, 1, -1, -1, 1]):
        visit = visits.objects.create(
            session_key=str(number), session_data="", expire_date=at + timedelta(days=days)
        )
        notes.objects.create(visit=visit)
    sessions(3, expires_in=-1)
    purged = old_tables.purge_old_tables(duty=1)
    assert purged == ({"tests_visit": 3, "django_session": 3}, True)
    assert {visit.pk for visit in visits.objects.all()} == {"1", "4"}
    assert {note.visit_id for note in notes.objects.all()} == {"1", "4"}


def test_session_of_another_package_that_is_prolonged_meanwhile_stays(peer):
    """Django reads these and deletes them by their keys, because something belongs to them."""
    visits, notes = peer
    at = timezone.now()
    visit = visits.objects.create(session_key="a", session_data="", expire_date=at)
    notes.objects.create(visit=visit)
    prolonged = []

    def prolong():
        be_impatient()
        if connection.vendor == "sqlite":
            connection.cursor().execute("PRAGMA busy_timeout = 100")
        with suppress(OperationalError):  # the purge holds it
            rows = visits.objects.filter(pk="a")
            prolonged.append(rows.update(expire_date=at + timedelta(days=1)))

    with before_statement("DELETE FROM tests_note", lambda: elsewhere(prolong)):
        old_tables.purge_old_tables(duty=1)
    assert visits.objects.exists() == bool(sum(prolonged))


@pytest.fixture(params=["Mixed Case.sessions", "select"])
def odd_name(request, monkeypatch):
    with isolate_apps("tests"):

        class Visit(models.Model):  # noqa: DJ008
            session_key = models.CharField(primary_key=True, max_length=40)
            session_data = models.TextField()
            expire_date = models.DateTimeField()

            class Meta:
                app_label = "tests"
                db_table = request.param

    engine = Table("peer.sessions", SessionBase, Visit)
    monkeypatch.setattr(old_tables, "engines", lambda: [engine])
    with connection.schema_editor() as editor:
        editor.create_model(Visit)
    yield Visit
    with connection.schema_editor() as editor:
        editor.delete_model(Visit)


def test_table_may_have_any_name(odd_name):
    at = timezone.now()
    odd_name.objects.create(session_key="a", session_data="", expire_date=at)
    assert old_tables.purge_old_tables(duty=1).figures[odd_name._meta.db_table] == 1
    assert not odd_name.objects.exists()


@pytest.fixture
def partitioned():
    """The table in partitions: its rows are in the blocks of these, each from the first one on."""
    with connection.cursor() as cursor:
        cursor.execute(
            "ALTER TABLE django_session RENAME TO whole;"
            " CREATE TABLE django_session (LIKE whole) PARTITION BY HASH (session_key);"
            " CREATE TABLE part_0 PARTITION OF django_session"
            " FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
            " CREATE TABLE part_1 PARTITION OF django_session"
            " FOR VALUES WITH (MODULUS 2, REMAINDER 1)"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE django_session; ALTER TABLE whole RENAME TO django_session")


@pytest.mark.postgresql
def test_table_may_be_in_partitions(partitioned):
    sessions(12, expires_in=-1)
    valid = sessions(11, expires_in=DAY)
    assert old_tables.purge_old_tables(duty=1).figures == {"django_session": 12}
    assert set(Session.objects.all()) == valid


def test_table_that_has_two_models_is_one_table(monkeypatch):
    with isolate_apps("tests"):

        class Ours(Session):
            class Meta:
                app_label = "tests"
                proxy = True

    engine = Table("ours.sessions", SessionBase, Ours)
    monkeypatch.setattr(old_tables, "engines", lambda: [engine])
    sessions(7, expires_in=-1)
    assert old_tables.purge_old_tables(duty=1).figures == {"django_session": 7}


def test_database_that_does_not_answer_loses_nothing():
    sessions(12, expires_in=-1)

    def fail(execute, sql, *args):
        if sql.startswith("DELETE") and Session.objects.count() < 12:
            raise OperationalError("no route to host")
        return execute(sql, *args)

    with connection.execute_wrapper(fail), pytest.raises(StoreUnavailable):
        old_tables.purge_old_tables(duty=1)
    assert 0 < Session.objects.count() < 12
    old_tables.purge_old_tables(duty=1)
    assert not Session.objects.exists()


# The command.


def command(*options):
    stdout = io.StringIO()
    call_command("purgesessions", "--old-table", "--full-speed", *options, stdout=stdout)
    return stdout.getvalue()


def test_command_purges_the_old_table_and_not_ours(alice):
    sessions(12, expires_in=-1)
    valid = sessions(7, expires_in=60)
    ours = SessionStore()
    ours.set_expiry(-1)
    ours.save()
    said = command()
    assert said.startswith("Removing expired sessions of django_session.\n")
    assert re.search(r"^  django_session +12$", said, re.MULTILINE)
    assert set(Session.objects.all()) == valid
    if not store.ON_REDIS:  # which has forgotten it
        assert digest_of(ours.session_key) in store.payloads()


def test_command_counts_what_it_would_remove():
    sessions(12, expires_in=-1)
    assert json.loads(command("--json", "--dry-run"))["figures"] == {"django_session": 12}
    assert Session.objects.count() == 12


@pytest.mark.once
def test_command_refuses_where_there_is_no_old_table(without_table):
    with pytest.raises(CommandError, match="There is no table of sessions from before"):
        command()


@pytest.mark.once
def test_command_can_be_run_again_if_the_database_does_not_answer():
    def fail(*args):
        raise OperationalError("no route to host")

    with connection.execute_wrapper(fail), pytest.raises(CommandError, match="run this again"):
        command()


@pytest.mark.once
def test_site_that_has_moved_away_purges_the_table_that_it_has():
    sessions(3, expires_in=-1)
    with generation(DATABASE):
        command()
    assert not Session.objects.exists()
