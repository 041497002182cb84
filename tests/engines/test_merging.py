"""What a view holds of its session when a save, or the end of its request, meets another writer."""

import json
from contextlib import nullcontext
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import UserSession
from django_sessionkit.visit.client import Client
from tests import store
from tests.calls import hand_made
from tests.interleaving import HOLDS_ROWS, after, before, elsewhere
from tests.store import READ_AGAIN, SessionStore, again, later

pytestmark = [pytest.mark.django_db, pytest.mark.isolation]


def write(session, drive=None, **values):
    """Let another request write to a session."""
    theirs = again(session)
    theirs.update(values)
    (drive or (lambda session, name: getattr(session, name)()))(theirs, "save")


# The view keeps what it holds.


def test_a_view_counts_on_in_a_value_that_it_has_taken_before_a_merge(drive, stored):
    mine = again(stored)
    progress = drive(mine, "setdefault", "progress", {"done": 0})
    write(stored, drive, theme="dark")
    for done in (1, 2, 3):
        progress["done"] = done
        drive(mine, "save")
    assert again(stored).load() == {
        "cart": ["teapot"],
        "language": "en",
        "theme": "dark",
        "progress": {"done": 3},
    }
    assert mine["progress"] is progress
    assert mine["theme"] == "dark"


def test_a_view_counts_on_in_a_value_that_another_request_has_changed(drive, stored):
    write(stored, progress={"done": 0, "steps": [{"n": 1}, {"n": 2}], "by": {"name": "me"}})
    mine = again(stored)
    progress = drive(mine, "get", "progress")
    steps, second, by = progress["steps"], progress["steps"][1], progress["by"]
    theirs = {"done": 5, "steps": [{"n": 0}, {"n": 1}, {"n": 2}], "by": {"name": "they"}}
    write(stored, drive, progress=theirs)
    mine["language"] = "de"
    drive(mine, "save")
    assert progress == theirs
    by["name"] += " and I"
    second["n"] = 9
    steps.append({"n": 3})
    progress["done"] += 1
    drive(mine, "save")
    assert again(stored)["progress"] == {
        "done": 6,
        "steps": [{"n": 0}, {"n": 1}, {"n": 9}, {"n": 3}],
        "by": {"name": "they and I"},
    }


@pytest.mark.parametrize("operation", ["save", "cycle_key"])
def test_the_dictionary_and_the_types_in_it_stay_until_the_next_load(drive, stored, operation):
    mine = again(stored)
    prices, size = {1: "one", None: []}, (3, (4, 5))
    mine.update({"prices": prices, "size": size, 7: "seven", "old": 1})
    drive(mine, "save")
    dictionary = mine._session
    theirs = again(stored)
    theirs["size"][1].append(6)
    theirs["prices"].update({"1": "uno", "2": "dos"})
    theirs["theme"] = "dark"
    del theirs["old"]
    drive(theirs, "save")
    mine["language"] = "de"
    drive(mine, operation)
    assert mine._session is dictionary
    assert mine["prices"] is prices
    assert dictionary == {
        "cart": ["teapot"],
        "language": "de",
        "theme": "dark",
        "size": (3, (4, 5, 6)),
        "prices": {1: "uno", None: [], "2": "dos"},
        7: "seven",
    }
    loaded = drive(again(mine), "load")
    assert loaded["prices"] == {"1": "uno", "null": [], "2": "dos"}
    assert loaded["size"] == [3, [4, 5, 6]]
    assert loaded["7"] == "seven"


def test_true_that_became_1_is_a_change_and_nan_that_stayed_is_none(drive, stored):
    write(stored, agreed=True, rate=float("nan"))
    mine = again(stored)
    drive(mine, "get", "agreed")
    write(stored, drive, rate=1.5)
    mine["agreed"] = 1
    drive(mine, "save")
    assert repr(again(stored)["agreed"]) == "1"
    assert again(stored)["rate"] == 1.5


# Several conflicts, failures, and what happens while a session is being saved.


def test_a_change_wins_against_every_writer_that_comes_between(stored, monkeypatch):
    mine = again(stored)
    mine["language"] = "de"
    del mine["cart"]

    def same_as_mine():
        theirs = again(stored)
        theirs["language"] = "de"
        del theirs["cart"]
        theirs.save()
        before(monkeypatch, SessionStore, "replace", other)

    def other():
        write(stored, language="fr", cart=["cup"], theme="dark")

    before(monkeypatch, SessionStore, "replace", same_as_mine)
    mine.save()
    assert again(stored).load() == dict(mine.items()) == {"language": "de", "theme": "dark"}


def test_what_was_merged_before_a_save_failed_is_no_change_of_the_view(stored, monkeypatch):
    mine = again(stored)
    mine["cart"].append("cup")
    write(stored, language="de", cart=["teapot", "cup"])
    with monkeypatch.context() as patch:
        after(patch, SessionStore, READ_AGAIN, lambda: store.take_down(patch, "replace"))
        with pytest.raises(StoreUnavailable):
            mine.save()
    assert mine["language"] == "de"
    write(stored, language="fr", cart=[])
    mine.save()
    assert again(stored).load() == {"cart": ["teapot", "cup"], "language": "fr"}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("operation", ["save", "cycle_key"])
def test_a_transaction_merges_what_was_written_since_it_began(stored, drive, operation):
    """Under REPEATABLE READ, it would read again what it has read before."""
    with transaction.atomic() if HOLDS_ROWS else nullcontext():
        mine = again(stored)
        mine["theme"] = "dark"
        elsewhere(lambda: write(stored, language="de"))
        drive(mine, operation)
    assert again(mine).load() == {"cart": ["teapot"], "language": "de", "theme": "dark"}


def test_a_value_that_cannot_be_stored_spoils_nothing_that_is_merged(drive, stored):
    mine = again(stored)
    mine["what"] = object()
    write(stored, theme="dark")
    with pytest.raises(TypeError):
        drive(mine, "save")
    mine["what"] = "text"
    drive(mine, "save")
    assert again(stored)["theme"] == "dark"
    assert again(stored)["what"] == "text"


def test_a_sign_in_that_was_merged_is_not_taken_back_when_the_save_fails(
    stored, alice, monkeypatch
):
    mine = again(stored)
    mine["language"] = "de"
    write(stored, _auth_user_id=str(alice.pk))
    with monkeypatch.context() as patch:
        after(patch, SessionStore, READ_AGAIN, lambda: store.take_down(patch, "replace"))
        with pytest.raises(StoreUnavailable):
            mine.save()
    assert alice.sessionkit_sessions.active().count() == 1


def test_a_change_while_a_session_is_saved_is_saved_next(stored, monkeypatch):
    mine = again(stored)
    cart = mine["cart"]
    mine["language"] = "de"
    write(stored, theme="dark")
    after(monkeypatch, SessionStore, READ_AGAIN, lambda: cart.append("cup"))
    mine.save()
    assert again(stored)["cart"] == ["teapot", "cup"]
    write(stored, theme="light")
    before(monkeypatch, SessionStore, "replace", lambda: cart.append("kettle"))
    mine["language"] = "fr"
    mine.save()
    mine.save()
    assert again(stored).load() == {
        "cart": ["teapot", "cup", "kettle"],
        "language": "fr",
        "theme": "light",
    }


@pytest.mark.parametrize("conflict", [True, False])
def test_clear_while_a_session_is_saved_means_what_it_says(stored, monkeypatch, conflict):
    mine = again(stored)
    mine["language"] = "de"
    if conflict:
        write(stored, theme="dark")
        after(monkeypatch, SessionStore, READ_AGAIN, mine.clear)
    else:
        before(monkeypatch, SessionStore, "replace", mine.clear)
    mine.save()
    assert dict(mine.items()) == {}
    write(stored, theme="light")
    mine["fresh"] = True
    if conflict:  # that clear() is over, with the save that it fell into
        mine.save()
        assert again(stored).load() == {"fresh": True, "theme": "light"}
    else:
        mine.save()
        assert again(stored).load() == {"fresh": True}


def test_flush_after_a_merge_leaves_nothing(drive, stored):
    mine = again(stored)
    mine["language"] = "de"
    write(stored, theme="dark")
    drive(mine, "save")
    drive(mine, "flush")
    assert dict(mine.items()) == {}
    assert not store.payloads()


# At the end of a request, when the key is renewed.


@pytest.fixture
def old(alice, policy):
    """A session that gets a new key with the next request after ten minutes."""
    policy(renew_after=600)
    session = hand_made(alice)
    write(session, cart=["teapot"], theme="light")
    return session


def request_of(session):
    mine = again(session)
    mine.client = Client("192.0.2.1", "Firefox")
    mine.ensure_loaded()
    return mine


@pytest.fixture
def due(old):
    """A request whose session is about to get a new key."""
    with later(601):
        yield request_of(old)


def test_a_view_keeps_its_dictionary_when_a_renewal_is_merged(due, old, drive, monkeypatch):
    dictionary, cart = due._session, due["cart"]
    before(monkeypatch, SessionStore, "insert", lambda: write(old, theme="dark"))
    due.finish(answered=True)
    assert due.session_key != old.session_key
    assert due._session is dictionary
    assert due["cart"] is cart
    assert dictionary["theme"] == "dark"
    cart.append("cup")
    drive(due, "save")
    loaded = drive(again(due), "load")
    assert (loaded["cart"], loaded["theme"]) == (["teapot", "cup"], "dark")


def test_a_request_that_comes_too_late_to_renew_keeps_its_dictionary(due, old, drive, monkeypatch):
    dictionary, cart = due._session, due["cart"]
    theirs = request_of(old)
    theirs["theme"] = "dark"

    def renew():
        theirs.save()
        theirs.finish(answered=True)

    before(monkeypatch, SessionStore, "insert", renew)
    due.finish(answered=True)
    assert due.session_key == theirs.session_key != old.session_key
    assert due.has_new_key
    assert due._session is dictionary
    assert dictionary["theme"] == "dark"
    cart.append("cup")
    drive(due, "save")
    loaded = drive(again(due), "load")
    assert (loaded["cart"], loaded["theme"]) == (["teapot", "cup"], "dark")


def test_an_expiry_that_is_set_while_the_key_is_renewed_holds(old, drive, monkeypatch):
    with later(601):
        due, theirs = request_of(old), again(old)
        theirs.set_expiry(300)
        before(monkeypatch, SessionStore, "insert", theirs.save)
        due.finish(answered=True)
        assert due.session_key != old.session_key
        assert due["_session_expiry"] == 300
        left = UserSession.objects.get().expires_at - timezone.now()
        assert left < timedelta(seconds=301)
    with later(601 + 302):
        assert drive(again(due), "load") == {}


# A serializer of the site.


class Stamped:
    """What a SESSION_SERIALIZER may do with the dictionary of a session."""

    def dumps(self, obj):
        assert type(obj) is dict
        return json.dumps({"until": obj.get("expires"), "copy": dict(obj)}).encode()

    def loads(self, data):
        return json.loads(data)["copy"]


def test_a_serializer_is_given_the_dictionary_alone(drive, settings, alice):
    settings.SESSION_SERIALIZER = f"{__name__}.Stamped"
    session = hand_made(alice)
    session["expires"] = "2040-03-01"
    drive(session, "save")
    mine = again(session)
    progress = drive(mine, "setdefault", "progress", {"done": 0})
    write(session, drive, theme="dark")
    drive(mine, "save")
    progress["done"] = 1
    drive(mine, "cycle_key")
    loaded = drive(again(mine), "load")
    assert loaded["expires"] == "2040-03-01"
    assert loaded["theme"] == "dark"
    assert loaded["progress"] == {"done": 1}
