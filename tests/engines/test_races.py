"""
Two requests at once, in threads with connections of their own, and in the tasks of an event loop.
What may happen in between is arranged with barriers; nothing here waits for a clock.
"""

import asyncio
import threading
from contextlib import contextmanager, suppress

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.sessions.backends.base import UpdateError
from django.db import OperationalError, connection, transaction

from django_sessionkit.backends import db
from django_sessionkit.models import StoredSession, UserSession
from tests import store
from tests.interleaving import deadlock, together
from tests.store import SessionStore, again

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.isolation]


@pytest.fixture
def session():
    session = SessionStore()
    session["cart"] = []
    session.save()
    return session


@pytest.fixture
def session_of_alice():
    user = get_user_model().objects.create_user("alice")

    def sign_in():
        session = SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session.save()
        return session

    return sign_in


def test_two_saves_of_different_keys_keep_both(session, drive):
    loaded = threading.Barrier(2)

    def write(name):
        mine = again(session)
        drive(mine, "get", "cart")
        loaded.wait(10)
        mine[name] = True
        drive(mine, "save")

    together(lambda: write("theme"), lambda: write("language"))
    assert again(session).load() == {"cart": [], "theme": True, "language": True}


def test_two_saves_of_the_same_key_leave_one_of_them_whole(session, drive):
    loaded = threading.Barrier(2)

    def write(words):
        mine = again(session)
        mine.get("cart")
        loaded.wait(10)
        mine["cart"] = words
        drive(mine, "save")

    together(lambda: write(["a", "b"]), lambda: write(["c", "d"]))
    assert again(session)["cart"] in (["a", "b"], ["c", "d"])


def test_eight_writers_of_fifty_changes_each_lose_nothing(session):
    def count(name):
        for number in range(1, 51):
            mine = again(session)
            mine[name] = mine.get(name, 0) + 1
            assert mine[name] == number
            mine.save()

    together(*[lambda name=name: count(name) for name in "abcdefgh"])
    assert again(session).load() == {"cart": [], **dict.fromkeys("abcdefgh", 50)}


def test_eight_tasks_of_fifty_changes_each_lose_nothing(session):
    async def count(name):
        for _ in range(50):
            mine = again(session)
            await mine.aset(name, await mine.aget(name, 0) + 1)
            await asyncio.sleep(0)
            await mine.asave()

    async def story():
        await asyncio.gather(*[count(name) for name in "abcdefgh"])

    async_to_sync(story)()
    assert again(session).load() == {"cart": [], **dict.fromkeys("abcdefgh", 50)}


@pytest.mark.standard("ASVS-7.4.1", "ASVS-15.4.2")
def test_a_save_after_a_revocation_does_not_bring_the_session_back(session_of_alice, drive):
    session = session_of_alice()
    loaded, ended = threading.Event(), threading.Event()

    def slow_request():
        mine = again(session)
        mine["cart"] = []
        loaded.set()
        assert ended.wait(10)
        with pytest.raises(UpdateError):
            drive(mine, "save")

    def revoke():
        assert loaded.wait(10)
        drive(UserSession.objects.all(), "revoke")
        ended.set()

    together(slow_request, revoke)
    assert not store.payloads()


def test_a_delete_between_load_and_save_is_final(session, drive):
    loaded, deleted = threading.Event(), threading.Event()

    def slow_request():
        mine = again(session)
        mine["cart"] = ["teapot"]
        loaded.set()
        assert deleted.wait(10)
        with pytest.raises(UpdateError):
            drive(mine, "save")

    def delete():
        assert loaded.wait(10)
        drive(again(session), "delete")
        deleted.set()

    together(slow_request, delete)
    assert again(session).load() == {}


@pytest.mark.parametrize("operation", ["save", "cycle_key"])
@pytest.mark.standard("ASVS-7.4.1", "ASVS-15.4.2")
def test_whoever_wins_a_race_against_a_revocation_nobody_is_signed_in(session_of_alice, operation):
    """Not arranged: 100 rounds, in which every order comes about."""
    for number in range(100):
        session = session_of_alice()
        start = threading.Barrier(2)

        def write(session=session, start=start, number=number):
            mine = again(session)
            mine["cart"] = [number]
            start.wait(10)
            with suppress(UpdateError):
                getattr(mine, operation)()

        def revoke(start=start):
            start.wait(10)
            UserSession.objects.revoke()

        together(write, revoke)
        assert not store.payloads()
        assert not UserSession.objects.filter(ended_at=None).exists()


def test_twenty_new_keys_at_once_leave_one_session(session):
    start = threading.Barrier(20)
    kept = []

    def cycle():
        mine = again(session)
        mine.get("cart")
        start.wait(10)
        mine.cycle_key()
        kept.append(mine.session_key)

    together(*[cycle] * 20)
    assert not SessionStore().exists(session.session_key)
    # A visitor who is not signed in: those who came too late got copies with keys of their own.
    assert len(set(kept)) == 20


@pytest.mark.standard("ASVS-15.4.2")
def test_of_twenty_new_keys_of_a_signed_in_session_one_wins(session_of_alice):
    session = session_of_alice()
    start = threading.Barrier(20)
    kept = []

    def cycle():
        mine = again(session)
        mine.get("cart")
        start.wait(10)
        try:
            mine.cycle_key()
            kept.append(mine.session_key)
        except UpdateError:
            pass

    together(*[cycle] * 20)
    assert len(kept) == 1
    assert len(store.payloads()) == 1
    assert UserSession.objects.active().get().pk == SessionStore(kept[0]).handle


# What MySQL does about a circle of those who wait for each other.


@pytest.fixture
def deadlocks():
    """A function that has the next statements fail, as many as are given."""

    @contextmanager
    def deadlocks(number):
        left = [number]

        def look(execute, *args):
            if left[0]:
                left[0] -= 1
                deadlock()
            return execute(*args)

        with connection.execute_wrapper(look):
            yield
        assert left == [0]

    return deadlocks


def test_statement_that_a_deadlock_has_broken_off_is_repeated(deadlocks):
    with deadlocks(2):
        assert db.SessionStore.insert("0" * 64, b"sealed", 0, store.now() + store.FORTNIGHT)
    assert StoredSession.objects.get().payload == b"sealed"
    with deadlocks(3), pytest.raises(OperationalError):
        db.SessionStore.remove(["0" * 64])


def test_transaction_that_a_deadlock_has_broken_off_is_not_repeated_in_part(deadlocks):
    with pytest.raises(OperationalError), transaction.atomic(), deadlocks(1):
        db.SessionStore.remove(["0" * 64])
