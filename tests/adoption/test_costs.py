"""What it costs to look elsewhere: nothing where no engine is named, and little where one is."""

import secrets
from collections import Counter

import pytest
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.contrib.sessions.models import Session
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_sessionkit.models import StoredSession, UserSession
from tests import store
from tests.moving import DATABASE, HERE, ON_REDIS, generation, old_session
from tests.store import SessionStore, round_trips

pytestmark = pytest.mark.django_db

MADE_UP = "a" * 32


def test_miss_is_one_round_trip_where_no_engine_is_named(drive):
    session = SessionStore(MADE_UP)
    with round_trips(1):
        assert drive(session, "load") == {}


def test_unknown_cookie_costs_one_look_up_per_engine_and_two_more_here(drive):
    with generation(HERE, (DATABASE,)):
        session = SessionStore(MADE_UP)
        with round_trips(4):  # here, there, here again, and for a row
            assert drive(session, "load") == {}
    with generation(HERE, (DATABASE, "django.contrib.sessions.backends.cached_db")):
        session = SessionStore(MADE_UP)
        with round_trips(5):
            assert drive(session, "load") == {}


def test_session_that_is_here_costs_what_it_does_anyway(drive):
    session = SessionStore()
    session["cart"] = "teapot"
    session.save()
    with generation(HERE, (DATABASE, ON_REDIS)):
        again = SessionStore(session.session_key)
        with round_trips(1):
            assert drive(again, "load") == {"cart": "teapot"}


def test_thousand_made_up_cookies_write_nothing():
    asked = Counter()

    def note(execute, sql, *args):
        asked[sql.split()[0]] += 1
        return execute(sql, *args)

    with generation(HERE, (DATABASE, ON_REDIS)), connection.execute_wrapper(note):
        for _ in range(1000):
            assert SessionStore(secrets.token_hex(16)).load() == {}
    assert asked == {"SELECT": 2000 if store.ON_REDIS else 4000}
    assert not Session.objects.exists()
    assert not UserSession.objects.exists()
    assert not StoredSession.objects.exists()
    assert not store.payloads()


def test_cookie_of_a_foreign_shape_reaches_no_engine(monkeypatch):
    """Files have the name of the key, and a cache refuses some."""
    monkeypatch.setattr(DatabaseStore, "exists", None)
    with generation(HERE, (ON_REDIS,)):
        for key in ("../../etc/passwd", "A" * 32, "é" * 32, "a" * 33, "a b" * 10):
            assert SessionStore(key).load() == {}


def test_session_moves_in_few_round_trips(alice):
    session = old_session(DATABASE, alice)
    with generation(HERE, (DATABASE,)), CaptureQueriesContext(connection) as queries:
        SessionStore(session.session_key).load()
    assert len(queries) <= 20, [query["sql"] for query in queries]
