"""
What the engine of this leg does beyond the contract (test_contract.py), driven sync and async: what
it costs, what is kept, and what nobody learns. Tables are looked at from outside, in SQL.
"""

import logging
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.views.debug import ExceptionReporter

from django_sessionkit.backends import loading
from django_sessionkit.backends.sealing import SessionKey, digest_of
from django_sessionkit.models import UserSession
from django_sessionkit.visit.client import Client
from tests import store
from tests.store import READ_AGAIN, SessionStore, again, round_trips, travel

pytestmark = pytest.mark.django_db


# What it costs.


def test_every_operation_is_one_statement(drive):
    session = SessionStore()
    session["cart"] = ["teapot"]
    with round_trips(1):
        drive(session, "save")  # creates
    session["cart"] = []
    with round_trips(1):
        drive(session, "save")
    other = again(session)
    with round_trips(1):
        assert drive(other, "load") == {"cart": []}
    with round_trips(1):
        drive(session, "cycle_key")
    with round_trips(1):
        assert drive(session, "exists", session.session_key)
    with round_trips(1):
        drive(session, "delete")
    with round_trips(1):
        drive(SessionStore(), "create")


def test_a_new_session_goes_where_the_storage_answers(drive, monkeypatch):
    """A key of which a part of the storage would have to be asked that is down is not taken."""
    drawn = []

    def is_within_reach(digest):
        drawn.append(digest)
        return len(drawn) == 3

    monkeypatch.setattr(SessionStore, "is_within_reach", staticmethod(is_within_reach))
    session = SessionStore()
    with round_trips(1):
        drive(session, "create")
    assert digest_of(session.session_key) == drawn[-1]
    assert len(drawn) == 3


def test_where_nothing_is_known_to_answer_a_new_session_is_tried_anyway(drive, monkeypatch):
    monkeypatch.setattr(SessionStore, "is_within_reach", staticmethod(lambda digest: False))
    session = SessionStore()
    drive(session, "create")
    assert drive(SessionStore(), "exists", session.session_key)


def test_a_session_that_is_not_used_costs_nothing(stored):
    with round_trips(0):
        assert again(stored).session_key == stored.session_key
        SessionStore().load()


def test_a_write_costs_one_statement_whatever_was_loaded(drive, stored):
    session = again(stored)
    drive(session, "get", "cart")
    session["cart"] = []
    with round_trips(1):
        drive(session, "save")


# What is kept, and how.


@pytest.mark.standard("ASVS-3.3.4")
def test_neither_the_session_key_nor_the_contents_are_stored(stored):
    dump = repr(store.payloads())
    assert digest_of(stored.session_key) in dump
    assert stored.session_key not in dump
    assert "teapot" not in dump


@pytest.mark.standard("ASVS-7.2.1", "ASVS-16.2.5", "ASVS-16.3.3", "ASVS-16.5.3")
def test_a_payload_that_is_tampered_with_is_an_empty_session(drive, stored, caplog):
    ((digest, payload),) = store.payloads().items()
    store.tamper(digest, payload[:-1] + bytes([payload[-1] ^ 1]))
    session = again(stored)
    assert drive(session, "load") == {}
    (record,) = caplog.records
    assert record.name == "django.security.SuspiciousSession"
    assert stored.session_key not in record.getMessage()


@pytest.mark.standard("ASVS-7.2.1")
def test_a_payload_from_another_session_is_an_empty_session(drive, stored):
    rich = SessionStore()
    rich["credit"] = 1_000_000
    rich.save()
    theirs = store.payloads()[digest_of(rich.session_key)]
    store.tamper(digest_of(stored.session_key), theirs)
    assert drive(again(stored), "load") == {}


@pytest.mark.standard("WSTG-SESS-08")
def test_no_key_of_the_kit_is_in_the_dictionary(drive, stored):
    assert drive(again(stored), "load") == {"cart": ["teapot"], "language": "en"}


# Keys.


@pytest.mark.parametrize("how", ["clear", "cycle_key", "flush"])
@pytest.mark.standard("ASVS-7.2.2", "WSTG-SESS-03")
def test_a_key_that_was_never_issued_is_not_adopted_by_a_detour(drive, how):
    session = SessionStore("a" * 32)
    if how == "clear":
        session.clear()
        with pytest.raises(UpdateError):
            drive(session, "save")
    else:
        drive(session, how)
        session["cart"] = ["teapot"]
        drive(session, "save")
        assert session.session_key != "a" * 32
    assert not SessionStore().exists("a" * 32)


@pytest.mark.standard("ASVS-7.2.3", "ASVS-15.4.2")
def test_a_random_source_that_repeats_itself_overwrites_nobody(drive, stored, monkeypatch):
    keys = iter([stored.session_key, "b" * 32])
    monkeypatch.setattr(loading, "new_session_key", lambda: SessionKey(next(keys)))
    session = SessionStore()
    session["cart"] = ["kettle"]
    drive(session, "save")
    assert session.session_key == "b" * 32
    assert again(stored)["cart"] == ["teapot"]


@pytest.mark.standard("ASVS-7.2.3")
def test_a_random_source_that_is_stuck_is_an_error(drive, stored, monkeypatch):
    monkeypatch.setattr(loading, "new_session_key", lambda: stored.session_key)
    with pytest.raises(CreateError):
        drive(SessionStore(), "create")


def test_there_is_no_session_without_a_key(drive):
    session = SessionStore()
    assert drive(session, "exists", None) is False
    assert drive(session, "exists", "") is False
    drive(session, "delete")
    drive(session, "cycle_key")
    assert session.session_key


# Two requests at once.


def test_what_is_compared_is_what_a_serializer_makes_of_it(drive, stored):
    """A tuple is no change of the list that it has been stored as."""
    mine = again(stored)
    mine["pair"] = ("a", "b")
    drive(mine, "save")
    theirs = again(stored)
    theirs["pair"] = ["c"]
    drive(theirs, "save")
    mine["theme"] = "dark"
    drive(mine, "save")
    assert again(stored)["pair"] == ["c"]


def test_who_loads_once_more_loses_nothing(drive, stored):
    mine, theirs = again(stored), again(stored)
    mine["cart"] = []
    theirs["theme"] = "dark"
    drive(theirs, "save")
    assert drive(mine, "load")["theme"] == "dark"
    drive(mine, "save")
    assert again(stored).load() == {"cart": [], "language": "en", "theme": "dark"}


def test_clear_needs_no_load(drive, stored):
    mine = again(stored)
    mine.clear()
    mine["fresh"] = True
    drive(mine, "save")
    assert again(stored).load() == {"fresh": True}
    mine["more"] = True  # and is over with the save: from here on it is merged again
    other = again(stored)
    other["theme"] = "dark"
    drive(other, "save")
    drive(mine, "save")
    assert again(stored).load() == {"fresh": True, "more": True, "theme": "dark"}


def test_a_conflict_costs_two_more_statements(drive, stored):
    mine, theirs = again(stored), again(stored)
    mine.get("cart")
    theirs["theme"] = "dark"
    theirs.save()
    mine["language"] = "de"
    with round_trips(3):
        drive(mine, "save")


# What is gone stays gone.


def test_the_end_between_a_conflict_and_its_merge_is_the_end(drive, stored, monkeypatch):
    mine, theirs = again(stored), again(stored)
    mine["cart"] = []
    theirs["theme"] = "dark"
    theirs.save()
    read = getattr(SessionStore, READ_AGAIN)

    def ended_just_before(digest):
        SessionStore.remove([digest])
        return read(digest)

    monkeypatch.setattr(SessionStore, READ_AGAIN, staticmethod(ended_just_before))
    with pytest.raises(UpdateError):
        drive(mine, "save")


# Time.


def test_an_expired_session_is_not_there(drive, stored):
    with travel(timedelta(seconds=settings.SESSION_COOKIE_AGE + 1)):
        assert drive(again(stored), "load") == {}
        assert not drive(SessionStore(), "exists", stored.session_key)
        stored["cart"] = []
        with pytest.raises(UpdateError):
            drive(stored, "save")


def test_a_save_slides_the_expiry(drive, stored):
    with travel(timedelta(days=10)):
        stored["cart"] = []
        drive(stored, "save")
    with travel(timedelta(days=20)):
        assert drive(again(stored), "load")


def test_a_request_slides_the_expiry_without_writing_the_payload(drive, stored):
    payloads = store.payloads()
    with travel(timedelta(days=10)):
        session = again(stored)
        session.client = Client("192.0.2.1", "Firefox")
        with round_trips(2):
            drive(session, "get", "cart")
            session.finish(answered=True)
        assert session.slid
    assert store.payloads() == payloads
    with travel(timedelta(days=20)):
        assert drive(again(stored), "load")


def test_activity_is_written_once_in_an_interval(drive, stored):
    for seconds, touched in [(59, False), (61, True), (119, False), (122, True)]:
        with travel(timedelta(seconds=seconds), tick=False):
            session = again(stored)
            session.client = Client(None, "")
            with round_trips(2 if touched else 1):
                drive(session, "get", "cart")
                session.finish(answered=True)
            assert session.slid is touched


def test_a_short_session_is_touched_more_often(drive, settings):
    settings.SESSION_COOKIE_AGE = 30
    session = SessionStore()
    session["cart"] = []
    session.save()
    with travel(timedelta(seconds=4)):
        later = again(session)
        later.client = Client(None, "")
        drive(later, "get", "cart")
        later.finish(answered=True)
        assert later.slid


def test_a_session_with_a_short_expiry_of_its_own_is_touched_more_often(drive, stored):
    stored.set_expiry(60)
    drive(stored, "save")
    for seconds in range(29, 120, 29):
        with travel(timedelta(seconds=seconds)):
            session = again(stored)
            session.client = Client(None, "")
            assert drive(session, "get", "cart") == ["teapot"]
            session.finish(answered=True)


def test_a_session_never_expires_after_the_end_of_time(drive, stored):
    stored.set_expiry(10**11)
    drive(stored, "save")
    assert drive(again(stored), "load")


def report_of(operation):
    """Return what Django mails to the administrators: with all that the frames hold."""
    try:
        operation()
    except TypeError as error:
        report = ExceptionReporter(None, type(error), error, error.__traceback__)
        return report.get_traceback_html() + report.get_traceback_text()


@pytest.mark.parametrize("name", ["save", "cycle_key"])
@pytest.mark.standard("ASVS-3.3.4")
def test_an_error_report_does_not_show_the_session_key(drive, stored, name):
    session = again(stored)
    session["cart"] = object()
    report = report_of(lambda: drive(session, name))
    assert "new_key" in report
    assert session.session_key not in report


def test_a_session_that_is_used_without_a_request_is_not_touched(drive, stored):
    with travel(timedelta(days=10)), round_trips(1):
        drive(again(stored), "load")


@pytest.mark.parametrize("use_tz", [True, False])
def test_the_clock_does_not_depend_on_the_time_zone(drive, settings, use_tz):
    settings.USE_TZ = use_tz
    settings.TIME_ZONE = "America/New_York"
    session = SessionStore()
    session["cart"] = []
    session.set_expiry(3600)
    with travel("2030-11-03T05:30:00+00:00"):  # half an hour before the clocks go back
        drive(session, "save")
    with travel("2030-11-03T06:29:00+00:00"):
        assert drive(again(session), "load")
    with travel("2030-11-03T06:31:00+00:00"):
        assert not drive(again(session), "load")


# Losing the secret key.


def test_sessions_survive_a_new_secret_key_and_are_sealed_with_it(drive, stored, settings):
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "new"
    session = again(stored)
    session["language"] = "de"
    drive(session, "save")
    settings.SECRET_KEY_FALLBACKS = []
    assert drive(again(stored), "load")["language"] == "de"


def test_without_the_old_secret_key_everybody_is_a_new_visitor(drive, stored, settings, caplog):
    settings.SECRET_KEY = "new"
    with caplog.at_level(logging.WARNING):
        assert drive(again(stored), "load") == {}
    assert len(caplog.records) == 1


@pytest.mark.parametrize("reading", [True, False], ids=["read", "overwritten unread"])
def test_what_does_not_open_is_not_written_over(drive, stored, settings, caplog, reading):
    settings.SECRET_KEY, known = "another", settings.SECRET_KEY
    mine = again(stored)
    if reading:
        assert drive(mine, "get", "cart") is None
    else:
        mine.clear()
    drive(mine, "save")  # nothing is nowhere
    assert mine.session_key == stored.session_key
    mine["cart"] = ["kettle"]
    drive(mine, "save")
    drive(mine, "save")
    assert mine.session_key != stored.session_key
    assert len(caplog.records) == 1
    assert drive(again(mine), "load") == {"cart": ["kettle"]}
    settings.SECRET_KEY = known
    assert drive(again(stored), "load") == {"cart": ["teapot"], "language": "en"}
    assert len(store.payloads()) == 2


@pytest.mark.parametrize("verb", ["cycle_key", "create"])
def test_a_new_key_for_what_does_not_open_leaves_that_alone(drive, stored, settings, verb):
    settings.SECRET_KEY, known = "another", settings.SECRET_KEY
    mine = again(stored)
    mine["cart"] = ["kettle"]
    drive(mine, verb)
    assert drive(again(mine), "load") == {"cart": ["kettle"]}
    settings.SECRET_KEY = known
    assert drive(again(stored), "load") == {"cart": ["teapot"], "language": "en"}


@pytest.mark.parametrize("verb", ["delete", "flush"])
@pytest.mark.parametrize("reading", [True, False], ids=["read", "unread"])
def test_what_does_not_open_can_be_deleted(drive, stored, settings, caplog, reading, verb):
    settings.SECRET_KEY = "another"
    mine = again(stored)
    if reading:
        assert drive(mine, "get", "cart") is None
    drive(mine, verb)
    assert store.payloads() == {}
    assert len(caplog.records) == 1


def test_it_works_in_an_event_loop():
    async def story():
        session = SessionStore()
        await session.aset("cart", ["teapot"])
        await session.asave()
        assert await SessionStore(session.session_key).aget("cart") == ["teapot"]
        assert await sync_to_async(UserSession.objects.count)() == 0
        await session.aflush()

    async_to_sync(story)()
