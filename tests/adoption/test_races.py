"""Several requests and processes at once, while a session moves. Nothing here is left to chance."""

import pytest
from django.contrib.auth import SESSION_KEY
from django.db import transaction

from django_sessionkit.adoption import Engine, Table
from django_sessionkit.models import EndReason, UserSession
from tests import store
from tests.browsers import cart, put
from tests.interleaving import after, before
from tests.moving import (
    COOKIES,
    DATABASE,
    FILES,
    HERE,
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
        monkeypatch, Table, "remove_all", lambda: write_there(known, cart="kettle", language="de")
    )
    mine = SessionStore(known.session_key)
    assert drive(mine, "get", "cart") == "kettle"
    assert not left
    stored = SessionStore(known.session_key).load()
    assert (stored["cart"], stored["language"], stored["theme"]) == ("kettle", "de", "dark")
    assert not is_there(DATABASE, known.session_key)
    assert only_row().ended_at is None


def test_what_was_removed_there_meanwhile_is_gone_here(known, monkeypatch):
    def remove():
        again = session_in(DATABASE, known.session_key)
        del again["theme"]
        again.save()

    before(monkeypatch, Table, "remove_all", remove)
    assert "theme" not in SessionStore(known.session_key).load()


def test_changes_in_both_places_meanwhile_are_kept(known, monkeypatch):
    def write():
        write_there(known, cart="kettle")
        mine = SessionStore(known.session_key)
        mine["language"] = "de"
        mine.save()

    before(monkeypatch, Table, "remove_all", write)
    stored = SessionStore(known.session_key).load()
    assert (stored["cart"], stored["language"]) == ("kettle", "de")
    assert not is_there(DATABASE, known.session_key)


def test_change_here_between_two_steps_of_catching_up_is_kept(known, monkeypatch):
    def write_here():
        mine = SessionStore(known.session_key)
        mine["language"] = "de"
        mine.save()

    before(monkeypatch, Table, "remove_all", lambda: write_there(known, cart="kettle"))
    left = before(monkeypatch, SessionStore, "replace", write_here)
    stored = SessionStore(known.session_key).load()
    assert not left
    assert (stored["cart"], stored["language"]) == ("kettle", "de")


def test_session_that_was_signed_out_there_meanwhile(known, monkeypatch):
    """Nobody knows why it is gone: it may have moved. It is here, and here its user can end it."""
    before(monkeypatch, Table, "remove_all", lambda: session_in(DATABASE).delete(known.session_key))
    assert SessionStore(known.session_key)["cart"] == "teapot"


def test_session_that_is_signed_out_here_meanwhile_stays_out(known, monkeypatch):
    def write_and_sign_out():
        write_there(known, cart="kettle")
        SessionStore(known.session_key).flush()

    before(monkeypatch, Table, "remove_all", write_and_sign_out)
    assert SessionStore(known.session_key).load() == {}
    assert not store.payloads()
    assert only_row().end_reason == EndReason.LOGOUT


# A session is ended while it moves.


@pytest.mark.redis
def test_session_that_is_ended_while_it_moves_does_not_come_back(session, old, monkeypatch, drive):
    """Who ends it does not find it, for it is not here yet: its row says so."""
    before(monkeypatch, SessionStore, "insert_all", UserSession.objects.revoke)
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
        before(patch, SessionStore, "insert_all", kill)
        with pytest.raises(Killed):
            SessionStore(session.session_key).load()
    assert not store.payloads()
    browser = with_cookie(browse(), session)
    assert is_still_in(browser)
    assert cart(browser) == "teapot"
    assert UserSession.objects.count() == 1


def test_process_that_is_killed_before_the_old_one_is_gone(session, old, browse, monkeypatch):
    with monkeypatch.context() as patch:
        before(patch, Engine, "remove_all", kill)
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
