"""``manage.py adoptsessions``: what is not in use moves, too, from stores that can be listed."""

import io
from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection

from django_sessionkit import adoption, ranges
from django_sessionkit.adoption import Table
from django_sessionkit.backends import adopting
from django_sessionkit.checks import check_settings
from django_sessionkit.models import EndReason, StoredSession, UserSession
from tests import store
from tests.browsers import cart
from tests.interleaving import before, deadlock, together
from tests.moving import (
    BETWEEN,
    CACHE,
    CACHED_DATABASE,
    DATABASE,
    HERE,
    ON_REDIS,
    generation,
    is_there,
    old_session,
    restarted,
    session_in,
    with_cookie,
)
from tests.people import is_still_in, only_row, row_of
from tests.store import SessionStore, later

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(ranges, "ROWS", 5)
    monkeypatch.setattr(adopting, "PAUSE", 0)


@pytest.fixture
def from_database():
    with generation(HERE, (DATABASE,)):
        yield


def adopt(*args, **kwargs):
    out = io.StringIO()
    call_command("adoptsessions", *args, stdout=out, **kwargs)
    return out.getvalue()


def visitors(count, engine=DATABASE):
    return [old_session(engine, number=number) for number in range(count)]


def test_everybody_moves(alice, bob, browse, from_database):
    sessions = [old_session(DATABASE, user, cart="teapot") for user in (alice, bob)]
    some = visitors(12)
    assert "Moved 14 sessions.\n" in adopt()
    assert not Session.objects.exists()
    assert len(store.payloads()) == 14
    with generation(HERE):
        for session, user in zip(sessions, (alice, bob), strict=True):
            browser = with_cookie(browse(), session)
            assert browser.get("/whoami/").text == user.username
            assert cart(browser) == "teapot"
        for number, session in enumerate(some):
            assert SessionStore(session.session_key).load() == {"number": number}
    assert UserSession.objects.count() == 2
    row = UserSession.objects.get(user=alice)
    assert row.adopted_at
    assert row.started_at <= row.adopted_at


def test_session_that_moves_unused_lives_as_long_as_it_would_have(alice, from_database):
    session = old_session(DATABASE, alice)
    until = Session.objects.get().expire_date
    with later(3 * 24 * 3600):
        adopt()
    row = only_row()
    assert row.expires_at == until.replace(microsecond=until.microsecond // 1000 * 1000)
    assert abs(until - row.last_seen_at - timedelta(days=14)) < timedelta(seconds=1)
    assert (row.ip, row.user_agent) == (None, "")
    with later(14 * 24 * 3600 + 60):
        assert SessionStore(session.session_key).load() == {}


def test_dry_run_moves_nothing(alice, from_database):
    visitors(7)
    old_session(DATABASE, alice)
    said = adopt("--dry-run")
    assert "Counting the sessions of django.contrib.sessions.backends.db.\n" in said
    assert "Would move 8 sessions.\n" in said
    assert Session.objects.count() == 8
    assert not UserSession.objects.exists()
    assert not store.payloads()


def test_visitors_can_be_left(alice, from_database):
    visitors(7)
    old_session(DATABASE, alice)
    said = adopt("--signed-in-only")
    assert "Moved 1 sessions.\n" in said
    assert "Left 7 sessions of visitors who are not signed in.\n" in said
    assert Session.objects.count() == 7
    assert only_row().user == alice


def test_what_can_not_be_read_or_let_in_is_counted_and_left(alice, bob, from_database, root):
    old_session(DATABASE, alice)
    unreadable = old_session(DATABASE, bob)
    Session.objects.filter(pk=unreadable.session_key).update(session_data="garbage")
    old_session(DATABASE, bob)
    type(bob).objects.filter(pk=bob.pk).update(is_active=False)
    session_in(DATABASE).create()  # nothing is in it
    said = adopt()
    assert "Moved 1 sessions.\n" in said
    assert "Left 2 sessions that are empty or cannot be read.\n" in said
    assert "Left 1 sessions that have ended, or whose users would not be let in.\n" in said
    assert Session.objects.count() == 3
    # Once more, nothing changes.
    assert "Moved 0 sessions.\n" in adopt()


def test_expired_sessions_are_not_looked_at(from_database):
    visitors(3)
    with later(15 * 24 * 3600):
        assert "Moved 0 sessions.\n" in adopt()
    assert Session.objects.count() == 3


def test_session_that_has_ended_here_does_not_come_back(alice, from_database):
    session = old_session(DATABASE, alice)
    SessionStore(session.session_key).flush()
    again = session_in(DATABASE, session.session_key)
    again._session_cache = dict(session.items())
    again.save(must_create=True)
    assert "Left 1 sessions that have ended" in adopt()
    assert not Session.objects.exists()  # nor can processes with that engine use it
    assert only_row().end_reason == EndReason.LOGOUT


def test_run_that_was_killed_is_taken_up(alice, browse, from_database, monkeypatch):
    session = old_session(DATABASE, alice)
    visitors(11)
    with monkeypatch.context() as patch:
        before(patch, Table, "remove_all", stop)
        with pytest.raises(CommandError, match="Run this again to go on"):
            adopt()
    # Five are in both places.
    assert len(store.payloads()) == 5
    assert Session.objects.count() == 12
    adopt()
    assert len(store.payloads()) == 12
    assert not Session.objects.exists()
    assert UserSession.objects.count() == 1
    assert is_still_in(with_cookie(browse(), session))


def stop():
    raise KeyboardInterrupt


def test_several_at_once_do_no_harm(alice, from_database):
    for _ in range(6):
        old_session(DATABASE, alice)
    visitors(20)
    together(*[adopt] * 4)
    assert not Session.objects.exists()
    assert len(store.payloads()) == 26
    assert UserSession.objects.count() == 6
    assert UserSession.objects.filter(ended_at=None).count() == 6


def test_deadlock_stops_nobody(alice, from_database, monkeypatch):
    old_session(DATABASE, alice)
    visitors(2)
    left = before(monkeypatch, SessionStore, "insert_all", deadlock)
    assert "Moved 3 sessions.\n" in adopt()
    assert not left
    assert not Session.objects.exists()
    assert len(store.payloads()) == 3
    assert UserSession.objects.count() == 1


def test_session_that_is_saved_while_it_moves(from_database, monkeypatch):
    (session,) = visitors(1)

    def save():
        again = session_in(DATABASE, session.session_key)
        again["cart"] = "teapot"
        again.save()

    before(monkeypatch, Table, "remove_all", save)
    adopt()
    assert SessionStore(session.session_key).load() == {"number": 0, "cart": "teapot"}
    assert not Session.objects.exists()


def test_session_that_is_saved_again_and_again_while_it_moves(from_database, monkeypatch):
    (session,) = visitors(1)

    def save(**fields):
        again = session_in(DATABASE, session.session_key)
        again.update(fields)
        again.save()

    before(monkeypatch, Table, "remove_all", lambda: save(cart="teapot"))
    left = before(monkeypatch, Table, "remove", lambda: save(theme="dark"))
    adopt()
    assert not left
    assert SessionStore(session.session_key).load() == {
        "number": 0,
        "cart": "teapot",
        "theme": "dark",
    }
    assert not Session.objects.exists()


def test_session_that_is_saved_and_signed_out_while_it_moves(from_database, monkeypatch):
    (session,) = visitors(1)

    def save():
        session["cart"] = "teapot"
        session.save()
        left.append(lambda: session_in(DATABASE).delete(session.session_key))

    before(monkeypatch, Table, "remove_all", save)
    left = before(monkeypatch, Table, "read", lambda: None)
    left.clear()
    adopt()
    assert not left
    assert SessionStore(session.session_key).load() == {"number": 0}


def test_memory_stays_flat(from_database, monkeypatch):
    """No statement reads more than a part."""
    visitors(23)
    most = []

    def note(execute, sql, params, many, context):
        if sql.startswith("SELECT") and "session_data" in sql:
            most.append(sql.count("LIMIT 5"))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        adopt()
    assert set(most) == {1}
    assert len(most) == 6


def test_progress_is_told(from_database):
    visitors(12)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    call_command("adoptsessions", stdout=out)
    assert "100 %" in out.getvalue()
    assert "Done: 3 parts in" in out.getvalue()
    visitors(1)
    assert adopt(verbosity=0) == ""
    assert not Session.objects.exists()


def test_cached_database_is_left_in_both_places(alice):
    session = old_session(CACHED_DATABASE, alice)
    with generation(HERE, (CACHED_DATABASE,)):
        assert "Moved 1 sessions.\n" in adopt()
        assert not is_there(CACHED_DATABASE, session.session_key)


def test_engine_that_can_not_list_is_named(alice):
    for engine in (CACHE, ON_REDIS):
        old_session(engine, alice)
        with generation(HERE, (engine,)):
            said = adopt()
        assert f"Moving the sessions of {engine}.\n" in said
        assert "It cannot list its sessions: each moves when it is used.\n" in said


def test_one_of_several_engines_can_be_chosen(alice):
    old_session(DATABASE, alice)
    with generation(HERE, (CACHE, DATABASE)):
        assert "cache" not in adopt(DATABASE)
        with pytest.raises(CommandError, match="SESSIONKIT_ADOPT_FROM does not name elsewhere"):
            adopt("elsewhere")


def test_command_says_what_it_needs():
    with pytest.raises(CommandError, match="names no engine to move sessions from"):
        adopt()
    with (
        generation(DATABASE, (HERE,)),
        pytest.raises(CommandError, match="SESSION_ENGINE is no engine of django-sessionkit"),
    ):
        adopt()


def test_store_that_does_not_answer_can_be_tried_again(from_database, monkeypatch):
    visitors(3)
    with monkeypatch.context() as patch:
        store.take_down(patch, "insert_all")
        with pytest.raises(CommandError, match="Nothing is lost: run this again later"):
            adopt()
    with monkeypatch.context() as patch:

        def fail(*args):
            raise OperationalError("no route to host")

        patch.setattr(Table, "_part", fail)
        with pytest.raises(CommandError, match=r"backends.db did not answer. Nothing is lost"):
            adopt()
    assert "Moved 3 sessions.\n" in adopt()


def test_table_that_is_not_there_is_found_by_the_check(from_database, monkeypatch):
    assert not [m for m in check_settings(databases=["default"]) if m.id == "sessionkit.W021"]
    monkeypatch.setattr(Session._meta, "db_table", "nowhere")
    adoption.engine_of.cache_clear()
    found = [m for m in check_settings(databases=["default"]) if m.id == "sessionkit.W021"]
    assert "but there is no table 'nowhere'" in found[0].msg


def test_command_of_django_purges_while_its_engine_is_in_use(from_database):
    visitors(3)
    with generation(DATABASE, (HERE,)), later(15 * 24 * 3600):
        call_command("clearsessions", stdout=io.StringIO())
    assert not Session.objects.exists()


# Between our engines.


@pytest.mark.redis
@pytest.mark.parametrize(("there", "here"), BETWEEN, ids=["to Redis", "to the database"])
def test_sealed_sessions_move(signed_in, there, here):
    with generation(there):
        browser = signed_in()
        ended = signed_in()
        for number in range(12):
            session = session_in(there)
            session["number"] = number
            session.save()
        row_of(ended)
        UserSession.objects.filter(pk=row_of(ended).pk).update(ended_at=row_of(ended).started_at)
    until = row_of(browser).expires_at
    with generation(here, (there,)):
        assert "Would move 13 sessions.\n" in adopt("--dry-run")
        said = adopt("--signed-in-only")
        assert "Moved 1 sessions.\n" in said
        assert "Left 1 sessions that have ended" in said
        assert "Left 12 sessions of visitors" in said
        assert "Moved 12 sessions.\n" in adopt()
        assert "Moved 0 sessions.\n" in adopt()
    with generation(here):
        assert is_still_in(restarted(browser))
        assert session_in(here, session.session_key).load() == {"number": 11}
        assert not session_in(there).exists(session.session_key)
    assert row_of(browser).expires_at == until
    assert row_of(browser).adopted_at is None


@pytest.mark.redis
def test_what_is_no_session_in_redis_is_left(monkeypatch):
    (there, here) = BETWEEN[1]
    with generation(there):
        session = session_in(there)
        session["cart"] = "teapot"
        session.save()
    prefix = store.conf.SESSIONKIT_REDIS_PREFIX
    store.client().set(f"{prefix}elsewhere", "1")
    store.client().set(f"{prefix}{'0' * 64}", "1")  # without an expiry, it is not ours
    store.client().rpush(f"{prefix}{'1' * 64}", "1")
    with generation(here, (there,)):
        assert "Moved 1 sessions.\n" in adopt()
    assert StoredSession.objects.count() == 1
    assert len(list(store.client().scan_iter(match=f"{prefix}*"))) == 3
    store.client().delete(f"{prefix}{'1' * 64}", f"{prefix}{'0' * 64}")


@pytest.mark.redis
@pytest.mark.parametrize(("there", "here"), BETWEEN, ids=["to Redis", "to the database"])
def test_sealed_session_that_is_saved_while_it_moves(there, here, monkeypatch):
    with generation(there):
        session = session_in(there)
        session["cart"] = "teapot"
        session.save()

        again = session_in(there, session.session_key)
        again["language"] = "de"
    with generation(here, (there, here)):
        left = before(monkeypatch, type(session), "take", again.save)
        adopt(there)
        assert not left
        moved = session_in(here, session.session_key).load()
    assert moved == {"cart": "teapot", "language": "de"}
    assert not session_in(there).exists(session.session_key)
