"""Several requests and processes at once, while a session moves. Nothing here is left to chance."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth import SESSION_KEY
from django.db import OperationalError, transaction

from django_sessionkit.adoption import Engine, Table
from django_sessionkit.backends import adopting
from django_sessionkit.backends.exchanging import new_mark, unmarked
from django_sessionkit.backends.sealing import digest_of, version_of
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, UserSession
from tests import store
from tests.browsers import cart, put
from tests.interleaving import after, before, deadlock, elsewhere
from tests.moving import (
    COOKIES,
    DATABASE,
    FILES,
    HERE,
    OTHERS,
    all_at_once,
    generation,
    is_there,
    old_session,
    session_in,
    with_cookie,
)
from tests.people import is_still_in, only_row
from tests.store import SessionStore, later

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def here(old):
    with generation(HERE, (old,)):
        yield


@pytest.fixture
def from_database():
    with generation(HERE, (DATABASE,)):
        yield


@pytest.fixture
def session(alice, old, here):
    return old_session(old, alice, cart="teapot")


def test_twenty_requests_at_once_move_a_session_once(session, old, drive):
    seen = []

    def use(mine):
        assert drive(mine, "get", "cart") == "teapot"
        seen.append((mine.session_key, mine.handle))

    all_at_once(20, SessionStore, session.session_key, use)
    assert len(seen) == 20
    ((key, handle),) = set(seen)
    assert only_row().pk == handle
    assert len(store.payloads()) == 1
    assert (key == session.session_key) is (old != COOKIES)
    if old != COOKIES:
        assert not is_there(old, key)


def test_session_that_moves_while_it_is_looked_for_is_found(session, old, monkeypatch):
    """Two processes look here, then one moves it, then the other one looks there."""

    def move():
        assert SessionStore(session.session_key)["cart"] == "teapot"

    left = after(monkeypatch, SessionStore, "read", move)
    assert SessionStore(session.session_key).get("cart") == "teapot"
    assert not left
    assert UserSession.objects.count() == 1


@pytest.mark.parametrize("deadlocks", [1, 2])
def test_session_moves_despite_a_deadlock(session, drive, monkeypatch, deadlocks):
    left = [before(monkeypatch, SessionStore, "insert", deadlock) for _ in range(deadlocks)]
    assert drive(SessionStore(session.session_key), "get", "cart") == "teapot"
    assert not any(left)
    assert UserSession.objects.count() == 1
    assert len(store.payloads()) == 1


def test_what_is_no_deadlock_is_not_tried_again(session, monkeypatch):
    def fail():
        raise OperationalError("no route to host")

    left = before(monkeypatch, SessionStore, "insert", fail)
    with pytest.raises((StoreUnavailable, OperationalError)):
        SessionStore(session.session_key).load()
    assert not left
    assert not store.payloads()
    assert SessionStore(session.session_key).get("cart") == "teapot"


# The old engine is written to meanwhile.


def write_there(session, **fields):
    """Save a session as a process with the old engine does."""
    again = type(session)(session.session_key)
    again.update(fields)
    again.save()


@pytest.fixture
def known(alice, from_database):
    return old_session(DATABASE, alice, cart="teapot", theme="dark")


def test_change_that_was_saved_there_meanwhile_comes_along(known, drive, monkeypatch):
    left = before(
        monkeypatch, Table, "remove", lambda: write_there(known, cart="kettle", language="de")
    )
    mine = SessionStore(known.session_key)
    assert drive(mine, "get", "cart") == "kettle"
    assert not left
    stored = SessionStore(known.session_key).load()
    assert (stored["cart"], stored["language"], stored["theme"]) == ("kettle", "de", "dark")
    assert not is_there(DATABASE, known.session_key)
    assert only_row().ended_at is None


@pytest.mark.parametrize("old", [engine for engine in OTHERS if engine != COOKIES])
def test_change_in_any_engine_comes_along(session, old, monkeypatch):
    left = before(monkeypatch, Engine, "remove", lambda: write_there(session, cart="kettle"))
    assert SessionStore(session.session_key)["cart"] == "kettle"
    assert not left
    assert not is_there(old, session.session_key)


def test_what_was_removed_there_meanwhile_is_gone_here(known, monkeypatch):
    def remove():
        again = session_in(DATABASE, known.session_key)
        del again["theme"]
        again.save()

    before(monkeypatch, Table, "remove", remove)
    assert "theme" not in SessionStore(known.session_key).load()


def go_on_here(session):
    """Do what a process does that waits no longer for the one that moves the session."""
    digest = digest_of(session.session_key)
    marked = SessionStore.read(digest).payload
    SessionStore.replace(digest, unmarked(marked), None, version_of(marked))


def write_here(session, **fields):
    mine = SessionStore(session.session_key)
    mine.update(fields)
    mine.save()


def test_nobody_reads_what_is_old_while_a_session_moves_here(known, monkeypatch):
    """What was saved there, a moment ago, is what one reads here."""
    has_looked = threading.Event()
    read = SessionStore.read

    def note(digest):
        stored = read(digest)
        has_looked.set()
        return stored

    with ThreadPoolExecutor(1) as pool:
        seen = []

        def write_and_let_read():
            write_there(known, cart="kettle")
            monkeypatch.setattr(SessionStore, "read", staticmethod(note))
            job = pool.submit(elsewhere, lambda: SessionStore(known.session_key)["cart"])
            assert has_looked.wait(60)
            seen.append(job)

        left = before(monkeypatch, Table, "remove", write_and_let_read)
        assert SessionStore(known.session_key)["cart"] == "kettle"
        assert not left
        assert [job.result(60) for job in seen] == ["kettle"]


def test_process_that_waits_no_longer_loses_nothing(known, monkeypatch):
    monkeypatch.setattr(adopting, "PAUSE", 0)

    def write():
        write_there(known, cart="kettle")
        write_here(known, language="de")

    before(monkeypatch, Table, "remove", write)
    stored = SessionStore(known.session_key).load()
    assert (stored["cart"], stored["language"]) == ("kettle", "de")
    assert not is_there(DATABASE, known.session_key)


def test_changes_in_both_places_meanwhile_are_kept(known, monkeypatch):
    def write():
        there = session_in(DATABASE, known.session_key)
        there["cart"] = "kettle"
        del there["theme"]
        there.save()
        go_on_here(known)
        write_here(known, language="de")

    before(monkeypatch, Table, "remove", write)
    stored = SessionStore(known.session_key).load()
    assert (stored["cart"], stored["language"]) == ("kettle", "de")
    assert "theme" not in stored
    assert not is_there(DATABASE, known.session_key)


def test_change_here_between_two_steps_of_catching_up_is_kept(known, monkeypatch):
    def write():
        write_there(known, cart="kettle")
        go_on_here(known)
        # The first one finds that others have gone on.
        left = before(monkeypatch, SessionStore, "replace", lambda: left.append(again))

        def again():
            write_here(known, language="de")

    before(monkeypatch, Table, "remove", write)
    stored = SessionStore(known.session_key).load()
    assert (stored["cart"], stored["language"]) == ("kettle", "de")


def test_process_leaves_what_another_one_has_taken_over(known, monkeypatch):
    """It would lose what was written there since, which the other one is about to bring along."""
    digest = digest_of(known.session_key)

    def take_over():
        write_there(known, cart="kettle")
        go_on_here(known)
        stored = SessionStore.read(digest)
        mark = new_mark()
        SessionStore.replace(digest, mark + stored.payload, None, version_of(stored.payload))

    monkeypatch.setattr(adopting, "PAUSE", 0)
    before(monkeypatch, Table, "remove", take_over)
    assert SessionStore(known.session_key)["cart"] == "kettle"
    assert not is_there(DATABASE, known.session_key)


def test_session_that_was_signed_out_there_meanwhile(known, monkeypatch):
    """Nobody knows why it is gone: it may have moved. It is here, and here its user can end it."""
    before(monkeypatch, Table, "remove", lambda: session_in(DATABASE).delete(known.session_key))
    assert SessionStore(known.session_key)["cart"] == "teapot"


def test_session_that_is_signed_out_here_meanwhile_stays_out(known, monkeypatch):
    def write_and_sign_out():
        write_there(known, cart="kettle")
        SessionStore(known.session_key).flush()

    monkeypatch.setattr(adopting, "PAUSE", 0)
    before(monkeypatch, Table, "remove", write_and_sign_out)
    assert SessionStore(known.session_key).load() == {}
    assert not store.payloads()
    assert only_row().end_reason == EndReason.LOGOUT


# A session is ended while it moves.


@pytest.mark.redis
def test_session_that_is_ended_while_it_moves_does_not_come_back(session, old, monkeypatch, drive):
    """Who ends it does not find it, for it is not here yet: its row says so."""
    before(monkeypatch, SessionStore, "insert", UserSession.objects.revoke)
    assert drive(SessionStore(session.session_key), "load") == {}
    assert not store.payloads()
    assert only_row().end_reason == EndReason.REVOKED
    assert not is_there(old, session.session_key)


# It breaks off.


class Killed(BaseException):
    pass


def kill():
    raise Killed


def test_process_that_is_killed_before_the_session_is_here(session, old, browse, monkeypatch):
    with monkeypatch.context() as patch:
        before(patch, SessionStore, "insert", kill)
        with pytest.raises(Killed):
            SessionStore(session.session_key).load()
    assert not store.payloads()
    browser = with_cookie(browse(), session)
    assert is_still_in(browser)
    assert cart(browser) == "teapot"
    assert UserSession.objects.count() == 1


def test_process_that_is_killed_before_the_old_one_is_gone(session, old, browse, monkeypatch):
    monkeypatch.setattr(adopting, "PAUSE", 0)
    with monkeypatch.context() as patch:
        before(patch, Engine, "remove", kill)
        with pytest.raises(Killed):
            SessionStore(session.session_key).load()
    assert len(store.payloads()) == 1
    browser = with_cookie(browse(), session)
    assert is_still_in(browser)
    assert UserSession.objects.count() == 1


@pytest.mark.parametrize("old", [DATABASE, FILES])
def test_view_whose_transaction_is_rolled_back_signs_nobody_out(alice, browse, old, drive):
    session = old_session(old, alice, cart="teapot")
    with generation(HERE, (old,)):
        with transaction.atomic():
            assert SessionStore(session.session_key)[SESSION_KEY] == str(alice.pk)
            transaction.set_rollback(True)
        browser = with_cookie(browse(), session)
        with later(61):
            assert is_still_in(browser)
            assert cart(browser) == "teapot"
        assert not is_there(old, session.session_key)
        assert only_row().ended_at is None
        with later(130):
            put(browser, cart="kettle")
            assert cart(browser) == "kettle"
