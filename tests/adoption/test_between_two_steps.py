"""What others do between two steps of a move: end the session, save it, take it, go away."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.db import OperationalError, transaction

from django_sessionkit.adoption import Table
from django_sessionkit.backends import adopting, db
from django_sessionkit.backends.exchanging import is_moving, new_mark, unmarked
from django_sessionkit.backends.sealing import digest_of, version_of
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.storage import Storage
from tests import moving, store
from tests.browsers import cart
from tests.interleaving import after, before, elsewhere
from tests.moving import (
    BETWEEN,
    DATABASE,
    HERE,
    RETURNING,
    generation,
    is_there,
    old_session,
    restarted,
    session_in,
)
from tests.people import is_still_in, key_of, only_row
from tests.store import SessionStore

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(adopting, "PAUSE", 0)


# From Django's engine.


@pytest.fixture
def known(alice):
    with generation(HERE, (DATABASE,)):
        yield old_session(DATABASE, alice, cart="teapot")


def write_there(known, **fields):
    again = session_in(DATABASE, known.session_key)
    again.update(fields)
    again.save()


def test_session_that_is_saved_there_once_more(known, monkeypatch):
    def write():
        write_there(known, cart="kettle")
        left.append(lambda: write_there(known, language="de"))

    left = before(monkeypatch, Table, "remove", write)
    mine = SessionStore(known.session_key)
    assert (mine["cart"], mine["language"]) == ("kettle", "de")
    assert not left
    assert not is_there(DATABASE, known.session_key)


def test_session_that_is_saved_and_signed_out_there(known, monkeypatch):
    def sign_out():
        session_in(DATABASE).delete(known.session_key)

    before(monkeypatch, Table, "remove", lambda: write_there(known, cart="kettle"))
    left = after(monkeypatch, Table, "read", lambda: None)
    left.append(sign_out)  # after the first read, and after the one of what was written since
    assert SessionStore(known.session_key)["cart"] in ("teapot", "kettle")
    assert not is_there(DATABASE, known.session_key)


def test_session_that_another_process_has_moved_and_somebody_ended(known, monkeypatch):
    def move_and_end():
        assert SessionStore(known.session_key)[SESSION_KEY]
        UserSession.objects.revoke()

    left = before(monkeypatch, SessionStore, "atomic", move_and_end)
    assert SessionStore(known.session_key).load() == {}
    assert not left
    assert only_row().end_reason == EndReason.REVOKED
    assert not store.payloads()


@pytest.mark.parametrize("what", ["goes", "is overwritten"])
def test_session_that_goes_here_before_it_catches_up(known, monkeypatch, what):
    digest = digest_of(known.session_key)

    def act():
        write_there(known, cart="kettle")
        if what == "goes":
            SessionStore.remove([digest])
        else:
            store.tamper(digest, b"garbage" * 10)

    before(monkeypatch, Table, "remove", act)
    assert SessionStore(known.session_key).load() == {}


# Back to Django's engine.


@pytest.fixture
def back(shopper):
    browser = shopper()
    with generation(DATABASE, (HERE,), RETURNING):
        yield restarted(browser)


def ours(browser, **fields):
    session = SessionStore(key_of(browser))
    session.update(fields)
    session.save()


def test_two_requests_at_once_take_a_session_back_once(back, monkeypatch):
    left = before(
        monkeypatch, DatabaseStore, "save", lambda: moving.session_of(back).get(SESSION_KEY)
    )
    assert is_still_in(back)
    assert not left
    assert cart(back) == "teapot"


def test_session_that_is_written_here_before_it_goes_back(back, monkeypatch):
    left = before(monkeypatch, SessionStore, "replace", lambda: ours(back, cart="kettle"))
    assert cart(back) == "kettle"
    assert not left
    assert not store.payloads()


def test_nobody_uses_a_session_in_two_places_while_it_goes_back(back, monkeypatch):
    """What was saved there, a moment ago, is what one reads here: whoever looks here waits."""
    key = key_of(back)
    has_looked = threading.Event()
    read = SessionStore.read

    def note(digest):
        stored = read(digest)
        has_looked.set()
        return stored

    with ThreadPoolExecutor(1) as pool, generation(DATABASE, (DATABASE, HERE), RETURNING):
        seen = []

        def write_and_let_read():
            there = session_in(DATABASE, key)
            there["cart"] = "kettle"
            there.save()
            monkeypatch.setattr(SessionStore, "read", staticmethod(note))
            job = pool.submit(elsewhere, lambda: SessionStore(key)["cart"])
            assert has_looked.wait(60)
            seen.append(job)

        monkeypatch.setattr(adopting, "PAUSE", 0.002)
        left = before(monkeypatch, SessionStore, "take", write_and_let_read)
        assert moving.session_of(back)["cart"] == "teapot"  # loaded before that
        assert not left
        assert [job.result(60) for job in seen] == ["kettle"]


def test_save_of_a_session_that_moves_to_and_fro_is_not_lost(back, monkeypatch, drive):
    """It has moved here, is taken back to be saved, and has moved here again by then."""
    key = key_of(back)
    theirs = moving.session_of(back)
    drive(theirs, "get", "cart")

    def move_here():
        with generation(HERE, (DATABASE,)):
            assert SessionStore(key)["cart"] == "teapot"

    move_here()
    save, saves = DatabaseStore.save, []

    def save_later(self, must_create=False):
        if not must_create:
            saves.append(self)
            if len(saves) in (2, 3):
                move_here()
        save(self, must_create)

    monkeypatch.setattr(DatabaseStore, "save", save_later)
    theirs["theirs"] = "yes"
    drive(theirs, "save")
    assert len(saves) == 4
    assert session_in(DATABASE, key).load()["theirs"] == "yes"
    assert not store.payloads()


def test_old_engine_that_does_not_take_a_session_back_leaves_it_here(back, monkeypatch):
    def fail(self, must_create=False):
        raise OperationalError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(DatabaseStore, "save", fail)
        with pytest.raises(OperationalError):
            moving.session_of(back).load()
    assert not is_moving(SessionStore.read(digest_of(key_of(back))).payload)
    with generation(HERE, (DATABASE,)):
        assert SessionStore(key_of(back)).get("cart") == "teapot"


def test_session_that_another_process_takes_over_on_its_way_back(back, monkeypatch):
    """It waits no longer, and is about to remove what is there: that is not to be lost."""
    digest = digest_of(key_of(back))

    def take_over():
        marked = SessionStore.read(digest).payload
        another = new_mark() + unmarked(marked)
        SessionStore.replace(digest, another, None, version_of(marked))

    left = before(monkeypatch, SessionStore, "take", take_over)
    assert moving.session_of(back)["cart"] == "teapot"
    assert not left
    assert is_there(DATABASE, key_of(back))
    with generation(HERE, (DATABASE,)):
        assert SessionStore(key_of(back))["cart"] == "teapot"


def test_session_that_another_process_still_has_in_hand(back):
    """It is here, and there, where a process is about to remove it: whoever finds it uses that."""
    key = key_of(back)
    copy = session_in(DATABASE, key)
    copy._session_cache = SessionStore(key).load()
    copy.save(must_create=True)
    assert moving.session_of(back)._take_back(key)["cart"] == "teapot"
    assert is_there(DATABASE, key)
    assert not is_moving(SessionStore.read(digest_of(key)).payload)


@pytest.mark.parametrize("is_over", [False, True])
def test_session_that_goes_back_in_the_transaction_of_a_view(back, is_over):
    key = key_of(back)
    with transaction.atomic():
        assert moving.session_of(back)["cart"] == "teapot"
        transaction.set_rollback(is_over)
    assert is_there(DATABASE, key) is not is_over
    assert cart(back) == "teapot"
    assert is_there(DATABASE, key)
    assert not store.payloads()


def test_store_that_is_down_after_the_transaction_of_a_view(back, monkeypatch):
    def fail(digest, expected):
        raise OperationalError("no route to host")

    with monkeypatch.context() as patch, transaction.atomic():
        assert moving.session_of(back)["cart"] == "teapot"
        patch.setattr(SessionStore, "take", staticmethod(fail))
    assert cart(back) == "teapot"


def test_session_that_is_saved_here_before_it_is_back(back, monkeypatch):
    left = before(monkeypatch, SessionStore, "take", lambda: ours(back, cart="kettle"))
    assert cart(back) == "kettle"
    assert not left
    assert not store.payloads()


def test_session_that_is_signed_out_here_before_it_is_back(back, monkeypatch):
    def sign_out():
        with generation(HERE, (DATABASE,)):
            SessionStore(key_of(back)).flush()

    before(monkeypatch, SessionStore, "take", sign_out)
    moving.session_of(back).load()
    assert not is_still_in(back)
    assert only_row().end_reason == EndReason.LOGOUT


def test_session_that_is_signed_out_there_before_it_is_back(back, monkeypatch):
    def act():
        ours(back, cart="kettle")
        session_in(DATABASE).delete(key_of(back))

    left = before(monkeypatch, SessionStore, "take", act)
    moving.session_of(back).load()
    assert not left


def test_save_of_a_session_that_is_gone_fails_as_with_django(back, drive):
    session = moving.session_of(back)
    drive(session, "get", "cart")
    other = moving.session_of(back)
    drive(other, "flush")
    with pytest.raises(UpdateError):
        drive(session, "save")
    assert not store.payloads()
    assert only_row().end_reason == EndReason.LOGOUT


def test_visitor_without_a_session_has_none_to_sign_out_of(back, drive):
    session = type(moving.session_of(back))()
    drive(session, "flush")
    assert session.session_key is None


def test_store_that_is_down_when_a_session_is_only_saved(back, settings, monkeypatch):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    store.take_down(monkeypatch, "read")
    answer = back.get("/")
    assert answer.status_code == 503
    assert "sessionid" not in answer.cookies


# Between our engines.


@pytest.fixture(params=BETWEEN, ids=["to Redis", "to the database"])
def engines(request):
    return request.param


@pytest.fixture
def there(engines):
    return type(session_in(engines[0]))


@pytest.fixture
def here(engines):
    return type(session_in(engines[1]))


@pytest.fixture
def moving_key(shopper, engines):
    """The key of a session that is there, with processes of both kinds."""
    with generation(engines[0]):
        browser = shopper()
    with generation(engines[1], engines):
        yield key_of(browser)


@pytest.mark.redis
def test_session_that_goes_here_on_its_way_is_still_there(there, here, moving_key, monkeypatch):
    digest = digest_of(moving_key)
    left = after(monkeypatch, here, "insert", lambda: here.remove([digest]))
    assert here(moving_key)["cart"] == "teapot"
    assert not left
    assert there.read(digest) is None


@pytest.mark.redis
def test_session_that_is_ended_on_its_way(there, here, moving_key, monkeypatch):
    left = before(monkeypatch, there, "take", lambda: None)
    monkeypatch.setattr(here, "remove", here.remove)
    digest = digest_of(moving_key)

    def end():
        # As revoke() does, in a process that is killed before it comes to the stores.
        UserSession.objects.update(ended_at=only_row().started_at, end_reason="revoked")

    left.append(end)
    left.pop(0)
    assert here(moving_key).load() == {}
    assert there.read(digest) is None
    assert here.read(digest) is None


@pytest.mark.redis
def test_what_is_left_there_does_not_take_the_place_of_what_is_here(there, here, moving_key):
    left = there.read(digest_of(moving_key))
    session = here(moving_key)
    session["cart"] = "kettle"
    session.save()
    there.insert(digest_of(moving_key), left.payload, left.touched_at, store.now() + 60_000)
    here.adopt_all(there.__module__)
    assert here(moving_key)["cart"] == "kettle"
    assert there.read(digest_of(moving_key)) is None


@pytest.mark.redis
def test_what_has_expired_here_is_in_nobodys_way(there, here, moving_key):
    here.insert(digest_of(moving_key), b"x" * 40, 1, 1)
    assert here(moving_key)["cart"] == "teapot"
    assert there.read(digest_of(moving_key)) is None


@pytest.mark.redis
def test_session_exists_where_it_is_not_yet(there, here, moving_key, drive):
    assert drive(here(), "exists", moving_key)
    assert not drive(here(), "exists", "a" * 32)


@pytest.mark.redis
def test_sign_out_where_the_other_store_is_down(there, here, moving_key, drive, monkeypatch):
    session = here(moving_key)
    drive(session, "load")

    def fail(digests):
        raise there.unavailable[0]("no route to host")

    monkeypatch.setattr(there, "remove", staticmethod(fail))
    drive(session, "flush")
    assert only_row().end_reason == EndReason.LOGOUT
    assert here(moving_key).load() == {}


def go_on_there(there, key, **fields):
    """Do what a process does that takes the mark away, because it waits no longer."""
    digest = digest_of(key)
    stored = there.read(digest)
    there.replace(digest, unmarked(stored.payload), None, version_of(stored.payload))
    session = there(key)
    session.update(fields)
    session.save()


@pytest.mark.redis
def test_transaction_of_a_view_that_takes_too_long(there, here, moving_key):
    with transaction.atomic():
        session = here(moving_key)
        session["ours"] = "yes"
        session.save()
        go_on_there(there, moving_key, theirs="yes")
    stored = here(moving_key).load()
    assert (stored["cart"], stored["ours"], stored["theirs"]) == ("teapot", "yes", "yes")
    assert there.read(digest_of(moving_key)) is None


@pytest.mark.redis
@pytest.mark.parametrize("act", ["nothing", "remove", "mark", "garbage", "fail"])
def test_transaction_of_a_view_after_which_others_look_after_the_session(
    there, here, moving_key, act, monkeypatch
):
    digest = digest_of(moving_key)
    with transaction.atomic():
        assert here(moving_key)["cart"] == "teapot"
        if act == "remove":
            there.remove([digest])
        elif act == "garbage":
            there.replace(digest, b"garbage" * 10, None, version_of(there.read(digest).payload))
        elif act == "mark":
            stored = there.read(digest)
            other = stored.payload[:8] + b"else" + unmarked(stored.payload)
            there.replace(digest, other, None, version_of(stored.payload))
        elif act == "fail":

            def fail(*args):
                raise there.unavailable[0]("no route to host")

            monkeypatch.setattr(there, "take", staticmethod(fail))
    monkeypatch.undo()
    monkeypatch.setattr(adopting, "PAUSE", 0)
    assert here(moving_key)["cart"] == "teapot"


# The verbs that an engine need not have.


class Plain(db.SessionStore):
    insert_all = vars(Storage)["insert_all"]
    take = vars(Storage)["take"]
    scan = vars(Storage)["scan"]


def test_engine_with_the_verbs_that_it_must_have(alice):
    session = old_session(DATABASE, alice, cart="teapot")
    with generation(HERE, (DATABASE,)):
        assert Plain(session.session_key)["cart"] == "teapot"
        (stored,) = [Plain.read(digest_of(session.session_key))]
        assert not Plain.take(digest_of(session.session_key), b"another")
        assert Plain.take(digest_of(session.session_key), version_of(stored.payload))
        assert Plain.read(digest_of(session.session_key)) is None
        assert Plain.scan() is None


def test_failure_is_not_taken_for_an_answer(known, monkeypatch):
    def fail(*args):
        raise OperationalError("no route to host")

    monkeypatch.setattr(Table, "_exists", fail)
    with pytest.raises(Exception, match="did not answer"):
        SessionStore().exists(known.session_key)
