"""Which sessions do not move, and what a visitor is told when an engine does not answer."""

import logging
from datetime import timedelta
from functools import partial

import pytest
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.db import OperationalError
from django.test import override_settings
from django.utils import timezone

from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.models import EndReason, UserSession
from tests import moving, store
from tests.adoption import engine_on_redis
from tests.browsers import BROWSERS, PAGE, Browser, cart, put, read, sets_no_cookie, view
from tests.moving import (
    CACHE,
    COOKIES,
    DATABASE,
    FILES,
    HERE,
    ON_REDIS,
    generation,
    is_there,
    old_session,
    with_cookie,
)
from tests.people import is_still_in, key_of, only_row, post_sign_in
from tests.store import SessionStore

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def browse():
    """On one of the two handlers: what happens here is the same on the other, in a thread."""
    return lambda: Browser(raise_request_exception=False, headers=PAGE)


@pytest.fixture
def here(old):
    """The site has moved from the engine ``old``."""
    with generation(HERE, (old,)):
        yield


def test_disabled_user_stays_out(alice, browse, old, here):
    session = old_session(old, alice)
    type(alice).objects.update(is_active=False)
    assert not is_still_in(with_cookie(browse(), session))
    assert not UserSession.objects.exists()
    assert not store.payloads()


def test_deleted_user_stays_out(alice, browse, old, here):
    session = old_session(old, alice)
    alice.delete()
    assert not is_still_in(with_cookie(browse(), session))
    assert not UserSession.objects.exists()


def test_password_that_was_changed_keeps_old_sessions_out(alice, browse, old, here):
    session = old_session(old, alice)
    alice.set_password("new")
    alice.save()
    assert not is_still_in(with_cookie(browse(), session))
    assert not UserSession.objects.exists()


def test_hash_of_a_former_secret_key_is_as_good_as_with_django(alice, browse, old, here):
    with override_settings(SECRET_KEY="former"):
        session = old_session(old, alice, cart="teapot")
    with override_settings(SECRET_KEY_FALLBACKS=["former"]):
        browser = with_cookie(browse(), session)
        assert is_still_in(browser)
        assert cart(browser) == "teapot"


def test_what_is_no_key_of_a_user_is_nobody(browse, old, here):
    session = old_session(old, **{SESSION_KEY: "nobody", HASH_SESSION_KEY: "x"})
    assert read(with_cookie(browse(), session)).json() == {}
    assert not UserSession.objects.exists()


def test_session_that_was_signed_out_here_does_not_come_back(alice, browse, old, here):
    session = old_session(old, alice)
    contents = dict(session.items())
    browser = with_cookie(browse(), session)
    assert is_still_in(browser)
    here_too = key_of(browser)
    browser.post("/logout/")
    # Somebody has put a copy of it back, or has copied the cookie.
    again = old_session(old, alice)
    if old != COOKIES:
        again.delete()
        again = moving.session_in(old, session.session_key)
        again._session_cache = contents
        again.save(must_create=True)
    else:
        again = session
    browser = with_cookie(browse(), again)
    assert not is_still_in(browser)
    assert only_row().end_reason == EndReason.LOGOUT
    assert only_row().digest == digest_of(here_too)
    assert not is_there(old, again.session_key)  # and processes with that engine have it no more


def test_row_of_somebody_else_refuses_a_session(alice, bob, browse, here, old):
    if old == COOKIES:
        return
    session = old_session(old, alice)
    assert is_still_in(with_cookie(browse(), session))
    store.wipe()
    forged = moving.session_in(old, session.session_key)
    forged._session_cache = {**session._session, SESSION_KEY: str(bob.pk)}
    forged._session_cache[HASH_SESSION_KEY] = bob.get_session_auth_hash()
    forged.save(must_create=True)
    assert not is_still_in(with_cookie(browse(), session))


def test_expired_session_does_not_move(browse, old, here, clock):
    session = old_session(old, cart="teapot")
    clock.move(days=15)
    if old in (CACHE, ON_REDIS):  # their clocks are those of the servers
        session.delete()
    assert cart(with_cookie(browse(), session)) is None
    assert not store.payloads()


@pytest.mark.parametrize("made_up", ["a" * 32, "a", "A" * 32, "a:b:c", "a" * 5000, "../../etc"])
def test_made_up_cookie_is_a_stranger(browse, old, here, made_up):
    browser = browse()
    browser.cookies["sessionid"] = made_up
    assert not is_still_in(browser)
    put(browser, cart="teapot")
    assert key_of(browser) != made_up
    assert cart(browser) == "teapot"


@pytest.mark.parametrize("engine", [DATABASE, FILES])
def test_session_that_can_not_be_read_is_left(alice, browse, engine, settings):
    session = old_session(engine, alice)
    with generation(HERE, (engine,)):
        settings.SECRET_KEY = "another"
        assert not is_still_in(with_cookie(browse(), session))
    assert is_there(engine, session.session_key)


def test_objects_that_the_serializer_can_not_say_are_left(browse, caplog):
    session = old_session(CACHE, cart={"teapot"})  # a set: caches keep any object
    with generation(HERE, (CACHE,)):
        assert cart(with_cookie(browse(), session)) is None
    assert is_there(CACHE, session.session_key)
    assert "set is not JSON serializable" in caplog.text


def test_empty_session_needs_not_move(browse, old, here):
    session = moving.session_in(old)
    session.create()
    if old == COOKIES:
        session.save()
    assert read(with_cookie(browse(), session)).json() == {}
    assert not store.payloads()


# An engine that does not answer.


@pytest.fixture
def down(monkeypatch):
    """A function that takes an engine down."""

    def fail(*args, **kwargs):
        raise OperationalError("no route to host")

    def down(engine):
        if engine == ON_REDIS:
            engine_on_redis.server.down = True
        elif engine == DATABASE:
            manager = moving.session_in(engine).model._base_manager
            monkeypatch.setattr(type(manager), "using", fail)
        elif engine == CACHE:
            cache = moving.session_in(engine)._cache
            monkeypatch.setattr(type(cache), "has_key", fail)
            monkeypatch.setattr(type(cache), "get", fail)

    return down


@pytest.mark.parametrize("handler", BROWSERS)
@pytest.mark.parametrize("engine", [DATABASE, CACHE, ON_REDIS])
def test_engine_that_does_not_answer_signs_nobody_out(alice, handler, engine, down, caplog):
    session = old_session(engine, alice)
    browse = partial(BROWSERS[handler], raise_request_exception=False, headers=PAGE)
    with generation(HERE, (engine,)):
        browser = with_cookie(browse(), session)
        other = browse()
        post_sign_in(other)  # is here
        with pytest.MonkeyPatch.context():
            down(engine)
            answer = browser.get(view(browser, "whoami"))
            assert answer.status_code == 503
            assert answer.headers["Retry-After"]
            assert sets_no_cookie(answer)
            assert is_still_in(other)
    assert session.session_key not in caplog.text
    assert "did not answer" in caplog.text


def test_engine_that_comes_back_has_lost_nobody(alice, browse):
    session = old_session(ON_REDIS, alice)
    with generation(HERE, (ON_REDIS,)):
        browser = with_cookie(browse(), session)
        engine_on_redis.server.down = True
        assert browser.get(view(browser, "whoami")).status_code == 503
        engine_on_redis.server.down = False
        assert is_still_in(browser)


def test_engine_that_dies_while_it_is_asked(alice, browse, monkeypatch):
    """Its load() takes the error for an empty session."""
    session = old_session(ON_REDIS, alice)
    exists = engine_on_redis.SessionStore.exists

    def exists_and_dies(self, key):
        answer = exists(self, key)
        engine_on_redis.server.down = True
        return answer

    monkeypatch.setattr(engine_on_redis.SessionStore, "exists", exists_and_dies)
    with generation(HERE, (ON_REDIS,)):
        browser = with_cookie(browse(), session)
        assert browser.get(view(browser, "whoami")).status_code == 503


def test_session_is_found_where_another_engine_is_down(alice, browse):
    session = old_session(DATABASE, alice)
    engine_on_redis.server.down = True
    with generation(HERE, (ON_REDIS, DATABASE)):
        assert is_still_in(with_cookie(browse(), session))


def test_old_session_that_can_not_be_removed_does_no_harm(alice, browse, monkeypatch, caplog):
    session = old_session(ON_REDIS, alice)
    monkeypatch.setattr(engine_on_redis.SessionStore, "delete", None)
    with generation(HERE, (ON_REDIS,)):
        browser = with_cookie(browse(), session)
        assert is_still_in(browser)
        browser.post("/logout/")
        # It is left there, but does not come back.
        assert not is_still_in(with_cookie(browse(), session))
    assert "did not answer: TypeError" in caplog.text


def test_sign_out_is_told_to_the_store_first(alice, browse, old, here, monkeypatch):
    """Who is told that the store is down can try again."""
    browser = with_cookie(browse(), old_session(old, alice))
    assert is_still_in(browser)
    with monkeypatch.context() as patch:
        store.take_down(patch, "remove")
        assert browser.post("/logout/").status_code == 503
    assert is_still_in(browser)


# Ways to use a session before it was loaded.


@pytest.fixture
def session(alice, old, here):
    return old_session(old, alice, cart="teapot")


def test_session_exists_before_it_has_moved(session, drive, old):
    assert drive(SessionStore(), "exists", session.session_key)
    assert not drive(SessionStore(), "exists", "a" * 32)
    assert not UserSession.objects.exists()


def test_session_that_is_flushed_unread_is_gone_for_good(session, drive, old):
    drive(SessionStore(session.session_key), "flush")
    assert not store.payloads()
    if old != COOKIES:
        assert not is_there(old, session.session_key)
    assert only_row().end_reason == EndReason.LOGOUT
    assert drive(SessionStore(session.session_key), "load") == {}


def test_session_that_is_overwritten_unread_has_moved(session, drive):
    mine = SessionStore(session.session_key)
    mine.clear()
    mine["cart"] = "kettle"
    drive(mine, "save")
    assert SessionStore(mine.session_key).load() == {"cart": "kettle"}


def test_line_in_the_log_names_no_session(alice, browse, old, here, caplog):
    caplog.set_level(logging.DEBUG)
    session = old_session(old, alice)
    assert is_still_in(with_cookie(browse(), session))
    ours = [record.getMessage() for record in caplog.records if "sessionkit" in record.name]
    assert session.session_key not in "".join(ours)


def test_purge_leaves_what_another_process_may_have(alice, browse, clock):
    """A process with the other engine has it: nobody here has lost it."""
    browser = with_cookie(browse(), old_session(DATABASE, alice))
    with generation(HERE, (DATABASE,)):
        assert is_still_in(browser)
        store.wipe()
        clock.move(hours=1)
        SessionStore.clear_expired()
        assert only_row().ended_at is None
        assert not is_still_in(browser)  # nor is that the end of it
        assert only_row().ended_at is None
        assert only_row().expires_at > timezone.now() + timedelta(days=13)
        clock.move(days=14)
        SessionStore.clear_expired()
        assert only_row().end_reason == EndReason.EXPIRED
    with generation(HERE):
        SessionStore.clear_expired()
