"""Old sessions that are not as Django writes them: none stops the others, and none is lost."""

import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.contrib.sessions.models import Session
from django.contrib.sessions.serializers import JSONSerializer
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from django_sessionkit import adoption, ranges
from django_sessionkit.adoption import Table
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import UserSession
from tests import store
from tests.adoption.test_command import adopt
from tests.browsers import PAGE, Browser, browse_as, cart, put, read
from tests.moving import (
    CACHE,
    DATABASE,
    FILES,
    HERE,
    ON_REDIS,
    generation,
    is_there,
    old_session,
    restarted,
    session_in,
    with_cookie,
)
from tests.people import is_still_in, key_of, only_row, post_sign_in
from tests.store import SessionStore

pytestmark = pytest.mark.django_db(transaction=True)

IN_A_WEEK = (datetime.now(UTC) + timedelta(days=7)).replace(microsecond=0, tzinfo=None)


@pytest.fixture
def browser():
    """On one of the two handlers: what happens here is the same on the other, in a thread."""
    return Browser(raise_request_exception=False, headers=PAGE)


class Salted(JSONSerializer):
    """Writes the same in another way each time, as a serializer that encrypts does."""

    def dumps(self, obj):
        return os.urandom(8).hex().encode() + super().dumps(obj)

    def loads(self, data):
        return super().loads(data[16:])


def with_contents(session, **data):
    """Put this into a session of Django's database engine, as it is."""
    text = session.encode({**session.load(), **data})
    Session.objects.filter(session_key=session.session_key).update(session_data=text)
    return session


@pytest.mark.parametrize(
    "expiry",
    [
        *("garbage", "", "9999-12-31T23:59:59", "9999-12-31T23:59:59-14:00"),
        *(float("nan"), 10**400, {"a": 1}, 10**12),
    ],
    ids=range(8),
)
def test_expiry_that_makes_no_sense_loses_no_session(alice, browser, expiry):
    for user in (alice, None):
        session = with_contents(old_session(DATABASE, user, cart="teapot"), _session_expiry=expiry)
        other = old_session(DATABASE, cart="kettle")
        with generation(HERE, (DATABASE,)):
            assert cart(with_cookie(browser, session)) == "teapot"
            assert is_still_in(browser) == bool(user)
            assert "Moved " in adopt()
            assert cart(with_cookie(browser, other)) == "kettle"
        again = with_contents(old_session(DATABASE, user, cart="tin"), _session_expiry=expiry)
        with generation(HERE, (DATABASE,)):
            adopt()
            assert not is_there(DATABASE, again.session_key)


@pytest.mark.parametrize("offset", ["", "+00:00"])
@pytest.mark.parametrize("use_tz", [True, False])
def test_date_of_expiry_is_read_after_use_tz_was_changed(browser, offset, use_tz):
    """Django does not compare dates of the two kinds."""
    text = f"{IN_A_WEEK.isoformat()}{offset}"
    session = with_contents(old_session(DATABASE, cart="teapot"), _session_expiry=text)
    with generation(HERE, (DATABASE,)), override_settings(USE_TZ=use_tz, TIME_ZONE="UTC"):
        assert cart(with_cookie(browser, session)) == "teapot"
        assert put(browser, cart="pan").status_code == 200
        found = SessionStore(session.session_key).get_expiry_date()
        assert timezone.is_aware(found) == use_tz
        assert found.replace(tzinfo=None) == IN_A_WEEK


def test_date_of_expiry_stays_a_date():
    with override_settings(USE_TZ=True, TIME_ZONE="UTC"):
        found = adoption._sound({"_session_expiry": IN_A_WEEK})
    assert found == {"_session_expiry": IN_A_WEEK.replace(tzinfo=UTC)}


def test_session_here_is_read_after_use_tz_was_changed(alice, signed_in):
    browser = signed_in()
    session = SessionStore(key_of(browser))
    session["cart"] = "teapot"
    session.set_expiry(IN_A_WEEK)
    with override_settings(USE_TZ=False):
        session.save()
    assert cart(restarted(browser)) == "teapot"


@pytest.mark.parametrize("key", ["9" * 20, "-" + "9" * 20])
def test_key_of_a_user_beyond_all_columns_is_nobody(alice, browser, key):
    odd = old_session(DATABASE, **{SESSION_KEY: key, HASH_SESSION_KEY: "x"})
    other = old_session(DATABASE, alice)
    with generation(HERE, (DATABASE,)):
        assert read(with_cookie(browser, odd)).json() == {}
        assert "Moved 1 sessions." in adopt()
        assert is_still_in(with_cookie(browser, other))


@pytest.mark.parametrize("history", [5, True, {"a": 1}, "x"])
def test_odd_note_of_somebody_who_acts_as_the_user(alice, browser, history):
    session = old_session(DATABASE, alice, hijack_history=history)
    with generation(HERE, (DATABASE,)):
        assert is_still_in(with_cookie(browser, session))
        assert only_row().support


@pytest.mark.parametrize("key", ["SELENIUM-1", "A" * 32, "a" * 40])
def test_key_that_no_cookie_can_have_here_stays_where_it_is(alice, key):
    session = old_session(DATABASE, alice)
    Session.objects.filter(session_key=session.session_key).update(session_key=key)
    with generation(HERE, (DATABASE,)):
        assert "Left 1 sessions that are empty or cannot be read." in adopt()
    assert Session.objects.get().session_key == key
    assert not UserSession.objects.exists()


@pytest.mark.parametrize("age", [10, 100, 10**6, 10**12])
def test_age_of_cookies_that_was_raised_since_stops_nothing(alice, browser, age):
    session = old_session(DATABASE, alice)
    with generation(HERE, (DATABASE,)), override_settings(SESSION_COOKIE_AGE=age * 366 * 86_400):
        saved_at = adoption._saved_at(Session.objects.get().expire_date, {})
        assert (saved_at is None) == (age != 10)
        if age <= 100:
            assert "Moved 1 sessions." in adopt()
            assert is_still_in(with_cookie(browser, session))


def test_parts_are_small_in_bytes_too(monkeypatch):
    """All of a part is written by one statement, and MariaDB takes no large ones."""
    monkeypatch.setattr(adoption, "LARGEST", 1000)
    for size in (10, 400, 2000, 10, 10, 700):
        old_session(DATABASE, text=os.urandom(size).hex())
    parts = list(Table(DATABASE, DatabaseStore, Session).parts())
    assert sum(map(len, parts)) == 6
    for part in parts:
        assert len(part) == 1 or sum(len(old.version) for old in part) <= 1000
    assert len(parts) < 6


def test_table_may_have_another_primary_key(monkeypatch):
    """The parts go by the session key, and not by that."""
    with_number = [old_session(DATABASE, number=number) for number in range(7)]
    monkeypatch.setattr(ranges, "ROWS", 3)
    monkeypatch.setattr(Session, "pk", property(lambda row: 0))
    parts = Table(DATABASE, DatabaseStore, Session).parts()
    found = [old.key for _, part in zip(range(3), parts, strict=False) for old in part]
    assert sorted(found) == sorted(each.session_key for each in with_number)
    assert next(parts, None) is None


@pytest.mark.parametrize("old", [DATABASE, FILES, CACHE, ON_REDIS])
def test_session_moves_whose_serializer_encrypts(browser, settings, old):
    settings.SESSION_SERIALIZER = f"{__name__}.Salted"
    session = old_session(old, cart="teapot")
    with generation(HERE, (old,)):
        assert cart(with_cookie(browser, session)) == "teapot"
    assert not is_there(old, session.session_key)


def written_instead_of_removed(name):
    """Return a list, and what to replace remove() of an engine by: it saves the session there with
    another number each time, and puts its key into the list."""
    written = []

    def remove(engine, old):
        written.append(old.key)
        again = session_in(name, old.key)
        again["number"] = len(written)
        again.save()
        return False

    return written, remove


def test_session_that_is_written_there_all_the_time_moves_at_last(browser, monkeypatch):
    session = old_session(FILES, cart="teapot")
    written, remove = written_instead_of_removed(FILES)
    monkeypatch.setattr("django_sessionkit.backends.admitting.WRITES", 5)
    with generation(HERE, (FILES,)):
        with monkeypatch.context() as patch:
            patch.setattr(adoption.Engine, "remove", remove)
            assert cart(with_cookie(browser, session)) == "teapot"
        assert SessionStore(session.session_key)["number"] == len(written) == 5


def test_what_is_no_dictionary_is_left_and_counted(alice):
    session = old_session(DATABASE, alice)
    Session.objects.update(session_data=session.encode(["a", "b"]))
    with generation(HERE, (DATABASE,)):
        assert "Left 1 sessions that are empty or cannot be read." in adopt()


def test_session_that_is_written_there_all_the_time_moves_in_bulk_at_last(monkeypatch):
    session = old_session(DATABASE, cart="teapot")
    written, remove = written_instead_of_removed(DATABASE)
    monkeypatch.setattr("django_sessionkit.backends.admitting.WRITES", 5)
    monkeypatch.setattr(Table, "remove", remove)
    monkeypatch.setattr(Table, "remove_all", lambda engine, olds: olds)
    with generation(HERE, (DATABASE,)):
        adopt()
        assert len(written) == 5
        assert SessionStore(session.session_key)["number"] == 4


@pytest.mark.parametrize("named", [(HERE,), (DATABASE, HERE), ("tests.adoption.own_engine",)])
def test_engine_that_moves_to_itself_loses_nothing(alice, signed_in, named):
    browser = signed_in()
    put(browser, cart="teapot")
    payloads = store.payloads()
    with generation(HERE, named):
        assert "Moved" in adopt()
        assert store.payloads() == payloads
        assert cart(restarted(browser)) == "teapot"
        adopt("--dry-run")
        with transaction.atomic():
            adopt()
        assert cart(restarted(browser)) == "teapot"
    assert not only_row().ended_at


def cannot_remove(*args):
    raise StoreUnavailable("It is read-only.")


@pytest.mark.parametrize("old", [DATABASE, FILES])
@pytest.mark.parametrize("how", ["sign_in", "cycle_key"])
def test_copy_that_was_left_does_not_come_back_after_the_key_has_changed(
    alice, browser, monkeypatch, old, how
):
    session = old_session(old, alice)
    with generation(HERE, (old,)):
        with monkeypatch.context() as patch:
            patch.setattr(adoption.Engine, "remove", cannot_remove)
            assert is_still_in(with_cookie(browser, session))
        assert is_there(old, session.session_key)
        if how == "sign_in":
            post_sign_in(browser)
        else:
            mine = SessionStore(session.session_key)
            mine.load()
            mine.cycle_key()
        assert not is_there(old, session.session_key)
        UserSession.objects.revoke()
        assert not is_still_in(browse_as(browser, session.session_key))


def test_copy_that_was_left_does_not_shorten_the_session(alice, browser, monkeypatch):
    """By the row it would have expired, and could not be ended."""
    session = old_session(DATABASE, alice)
    Session.objects.update(expire_date=timezone.now() + timedelta(minutes=2))
    with generation(HERE, (DATABASE,)):
        with monkeypatch.context() as patch:
            patch.setattr(adoption.Engine, "remove", cannot_remove)
            patch.setattr(Table, "remove", cannot_remove)
            assert is_still_in(with_cookie(browser, session))
        until = only_row().expires_at
        assert until > timezone.now() + timedelta(days=1)
        assert "Moved 1 sessions." in adopt()
        assert not is_there(DATABASE, session.session_key)
        assert only_row().expires_at == until


def test_session_that_was_elsewhere_is_back_in_bulk(alice):
    session = old_session(DATABASE, alice)
    with generation(HERE, (DATABASE,)):
        adopt()
        contents = SessionStore(session.session_key).load()
    store.wipe()  # it has moved back, and was used there
    UserSession.objects.update(
        expires_at=timezone.now() - timedelta(days=1),
        last_seen_at=timezone.now() - timedelta(days=2),
    )
    again = session_in(DATABASE, session.session_key)
    again._session_cache = contents
    again.save(must_create=True)
    with generation(HERE, (DATABASE,)):
        assert "Moved 1 sessions." in adopt()
        assert only_row().expires_at > timezone.now() + timedelta(days=1)
        assert SessionStore(session.session_key).load() == contents


def test_new_key_without_autocommit(alice, browser):
    session = old_session(FILES, alice)
    with generation(HERE, (FILES,)):
        mine = SessionStore(session.session_key)
        transaction.set_autocommit(False)
        try:
            mine.load()
            mine.cycle_key()
            transaction.commit()
        finally:
            transaction.set_autocommit(True)
        assert SessionStore(mine.session_key).load() == dict(mine.items())


def test_engine_that_is_silent_stops_no_new_key(alice, browser, monkeypatch):
    session = old_session(FILES, alice)
    with generation(HERE, (FILES,)):
        assert is_still_in(with_cookie(browser, session))
        monkeypatch.setattr(adoption.Engine, "forget", cannot_remove)
        post_sign_in(browser)
        assert is_still_in(browser)
        assert key_of(browser) != session.session_key


def test_new_key_that_is_rolled_back_leaves_the_session_where_it_was(alice, browser):
    """It moves here and gets a key in one transaction, in which the view fails then."""
    session = old_session(FILES, alice)
    with generation(HERE, (FILES,)):
        with suppress(ZeroDivisionError), transaction.atomic():
            mine = SessionStore(session.session_key)
            mine.load()
            mine.cycle_key()
            raise ZeroDivisionError
        if store.ON_REDIS:  # which knows of no transaction
            return
        assert is_there(FILES, session.session_key)
        assert is_still_in(with_cookie(browser, session))
