"""
What happens when Redis fails, on real servers that are killed, frozen and filled. A visitor is told
to try again, and is who they were when it is over; and what was ended stays ended.
"""

import asyncio
import threading
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from unittest.mock import Mock

import pytest
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.sessions.backends.base import UpdateError
from django.db import connection
from redis import exceptions
from redis.cluster import RedisCluster
from redis.exceptions import RedisError

from django_sessionkit import activity
from django_sessionkit.backends import redis, redis_clients, redis_scripts
from django_sessionkit.backends.redis import SessionStore
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.visit.interruptions import NoAnswer
from tests.browsers import sets_no_cookie, view
from tests.buffered import waiting_sessions
from tests.people import is_in, key_of, post_sign_in
from tests.redis_servers import (
    DURABLE,
    FORGETFUL,
    PATIENCE,
    LineClock,
    Proxy,
    Server,
    fresh_lines,
    sessions_in,
    wait_for,
)
from tests.servers import HOST, free_port
from tests.store import travel

pytestmark = [pytest.mark.redis, pytest.mark.django_db]

# Short, as some of these tests wait for it.
TIMEOUTS = {"SOCKET_TIMEOUT": 1, "SOCKET_CONNECT_TIMEOUT": 1}
PASSWORD = "open sesame"
AN_INTERVAL = timedelta(seconds=61)  # SESSIONKIT_TOUCH_INTERVAL and a bit


@pytest.fixture(autouse=True)
def line_clock(monkeypatch):
    clock = LineClock()
    monkeypatch.setattr(redis_clients, "time", clock)
    fresh_lines(monkeypatch)
    return clock


@pytest.fixture
def server():
    """One that keeps everything."""
    with (
        Server(*DURABLE, password=PASSWORD) as server,
        sessions_in(server.url, PASSWORD=PASSWORD, **TIMEOUTS),
    ):
        yield server


@pytest.fixture
def forgetful():
    """One that keeps what it is told to."""
    with Server(*FORGETFUL) as server, sessions_in(server.url, **TIMEOUTS):
        yield server


@pytest.fixture
def proxy(server):
    with Proxy(server) as proxy, sessions_in(proxy.url, PASSWORD=PASSWORD, **TIMEOUTS):
        yield proxy


def is_asked_to_try_again(response):
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert b"still signed in" in response.content
    assert sets_no_cookie(response)
    return True


def keys(server):
    return [key.decode() for key in server.client.scan_iter()]


# The ways to fail, each until the end of the block, and whether it can be read meanwhile.


@contextmanager
def killed(server):
    server.kill()
    yield
    server.start()


@contextmanager
def frozen(server):
    server.freeze()
    yield
    server.thaw()


@contextmanager
def paused(server):
    server.client.client_pause(1500)
    yield
    server.client.ping()  # is paused as well


@contextmanager
def writes_paused(server):
    server.client.client_pause(60_000, all=False)
    yield
    server.client.client_unpause()


@contextmanager
def loading(server):
    """It has a large file to read, on a slow disk."""
    server.client.config_set("appendonly", "no")
    server.client.config_set("rdbcompression", "no")
    for number in range(30):
        # As much as it reads at a time, before it looks up.
        server.client.setrange(f"ballast:{number}", 2 << 20, "!")
    server.client.save()
    server.kill()
    server.options += ["--appendonly", "no"]
    options = server.options
    server.options = [*options, "--key-load-delay", "200000"]  # microseconds
    server.start(loaded=False)
    yield
    assert server.client.info("persistence")["loading"]
    server.kill()
    server.options = options
    server.start()


@contextmanager
def busy(server):
    """Somebody else's script runs for ever."""
    server.client.config_set("lua-time-limit", 1)

    def run():
        with suppress(RedisError):
            server.client.eval("while true do end", 0)

    thread = threading.Thread(target=run)
    thread.start()

    def is_busy():
        try:
            server.client.ping()
        except RedisError as error:
            return "BUSY" in str(error)
        return False  # the script has not begun

    wait_for(is_busy)
    yield
    server.client.script_kill()
    thread.join()


@contextmanager
def a_replica(server):
    """As it is when another one was promoted."""
    server.client.replicaof(HOST, free_port())
    yield
    server.client.replicaof("NO", "ONE")


@contextmanager
def a_replica_that_knows_it_is_stale(server):
    server.client.config_set("replica-serve-stale-data", "no")
    with a_replica(server):
        yield


@contextmanager
def full(server):
    server.client.config_set("maxmemory", 1)
    yield
    server.client.config_set("maxmemory", 0)


@contextmanager
def behind_another_password(server):
    server.client.config_set("requirepass", "another")
    server.client.client_kill_filter(_type="normal", skipme=True)
    yield
    server.client.config_set("requirepass", PASSWORD)


SPEECHLESS = [killed, frozen, paused, loading, busy]
SPEECHLESS += [a_replica_that_knows_it_is_stale, behind_another_password]
READ_ONLY = [writes_paused, a_replica, full]


def have_a_view(browser, what):
    """Have a view read or write the session, in the way of the server that the browser talks to."""
    method = browser.get if what == "read" else browser.post
    return method(view(browser, what), {"theme": "dark"})


def name_of(function):
    return function.__name__


@pytest.mark.parametrize("what", ["read", "write"])
@pytest.mark.parametrize("failing", SPEECHLESS, ids=name_of)
@pytest.mark.standard("ASVS-16.5.2")
def test_redis_does_not_answer(server, line_clock, alice, signed_in, failing, what):
    browser = signed_in()
    browser.post("/write/", {"cart": "teapot"})
    key = key_of(browser)
    with failing(server):
        assert is_asked_to_try_again(have_a_view(browser, what))
        assert is_asked_to_try_again(browser.get("/whoami/"))
        assert browser.get("/").content == b"home"  # leaves the session alone
    line_clock.tick()
    assert key_of(browser) == key
    assert is_in(browser)
    # What was written into the socket of a frozen one may have been read from it in the end.
    assert browser.get("/read/").json() in ({"cart": "teapot"}, {"cart": "teapot", "theme": "dark"})
    assert have_a_view(browser, "write").content == b"written"
    assert browser.get("/read/").json() == {"cart": "teapot", "theme": "dark"}


@pytest.mark.parametrize("failing", READ_ONLY, ids=name_of)
def test_redis_can_only_be_read(server, line_clock, alice, signed_in, failing):
    browser = signed_in()
    browser.post("/write/", {"cart": "teapot"})
    key = key_of(browser)
    with failing(server):
        assert is_asked_to_try_again(have_a_view(browser, "write"))
        line_clock.tick()
        assert is_in(browser)
        assert have_a_view(browser, "read").json() == {"cart": "teapot"}
    assert key_of(browser) == key
    assert have_a_view(browser, "write").content == b"written"
    assert browser.get("/read/").json() == {"cart": "teapot", "theme": "dark"}


def test_the_address_leads_to_another_primary(server, proxy, alice, signed_in):
    """As the name does that a hosting service gives: old connections go where they always went."""
    browser = signed_in()
    for name, value in [("masterauth", PASSWORD), ("repl-diskless-sync-delay", 0)]:
        server.client.config_set(name, value)
    following = ["--replicaof", HOST, str(server.port), "--masterauth", PASSWORD]
    with Server(*DURABLE, *following, password=PASSWORD) as other:
        wait_for(lambda: keys(other) == keys(server))
        other.client.replicaof("NO", "ONE")
        server.client.replicaof(HOST, other.port)
        proxy.server = other
        # At most once for those who write; there are other workers, and more connections.
        statuses = [browser.post("/write/", {"cart": "teapot"}).status_code for _ in range(3)]
        assert statuses[1:] == [200, 200]
        assert browser.get("/read/").json() == {"cart": "teapot"}


def kill_before(verb, server, monkeypatch):
    """Kill the server when the verb is about to ask it the next time."""
    step = getattr(SessionStore, verb)

    def killed_first(*args):
        monkeypatch.setattr(SessionStore, verb, step)
        server.kill()
        return step(*args)

    monkeypatch.setattr(SessionStore, verb, staticmethod(killed_first))


@pytest.mark.parametrize("verb", ["insert", "replace", "move"])
def test_redis_is_killed_between_a_load_and_a_save(
    server, line_clock, alice, browse, verb, monkeypatch
):
    browser = browse()
    if verb != "insert":
        browser.post("/write/", {"cart": "teapot"})
    cookies = browser.cookies.output()
    kill_before(verb, server, monkeypatch)
    if verb == "move":
        response = post_sign_in(browser)
    else:
        response = browser.post("/write/", {"theme": "dark"})
    assert response.status_code == 503
    assert sets_no_cookie(response)
    server.start()
    line_clock.tick()
    assert browser.cookies.output() == cookies
    assert browser.get("/read/").json() == ({} if verb == "insert" else {"cart": "teapot"})
    assert post_sign_in(browser).status_code == 302
    assert is_in(browser)
    assert UserSession.objects.count() == 1


def test_a_full_redis_slides_the_expiry_of_those_who_read(server, alice, signed_in):
    browser = signed_in()
    (key,) = keys(server)
    stamp, left = server.client.getrange(key, 0, 7), server.client.pttl(key)
    with full(server), travel(timedelta(days=1)):
        assert is_in(browser)
        assert browser.cookies["sessionid"]["max-age"]
        assert server.client.pttl(key) > left
        # Whoever comes next tries that again.
        assert server.client.getrange(key, 0, 7) == stamp
        server.client.config_set("maxmemory", 0)
        assert is_in(browser)
        assert server.client.getrange(key, 0, 7) != stamp


@pytest.mark.parametrize("failing", READ_ONLY, ids=name_of)
def test_a_new_key_that_can_not_be_written_costs_nothing(server, line_clock, drive, failing):
    session = SessionStore()
    session["cart"] = ["teapot"]
    session.save()
    old = session.session_key
    with failing(server):
        with pytest.raises(StoreUnavailable):
            drive(session, "cycle_key")
        assert isinstance(session.interruption, NoAnswer)
        assert session.session_key == old
    line_clock.tick()
    # The new one may have been on its way, as an orphan: nobody has its key.
    assert redis_scripts.key_of(digest_of(old)) in keys(server)
    assert all(server.client.pttl(key) > 0 for key in keys(server))
    assert drive(SessionStore(old), "load") == {"cart": ["teapot"]}


def test_a_redis_that_is_full_by_then_keeps_the_old_key(server):
    """The new one that was just written is an orphan, which expires: nobody has its key."""
    session = SessionStore()
    session["cart"] = ["teapot"]
    session.save()
    (key,) = keys(server)
    with full(server), pytest.raises(RedisError, match="maxmemory"):
        server.client.eval(redis_scripts.TAKE.text, 1, key, server.client.getrange(key, 8, 19))
    assert keys(server) == [key]


def test_sessions_can_be_ended_in_a_full_redis(server, alice, signed_in):
    browser = signed_in()
    with full(server):
        assert UserSession.objects.revoke() == 1
        assert keys(server) == []
        assert browser.get("/private/").headers["Location"].startswith("/login/")


# No storm.


@pytest.mark.standard("ASVS-16.5.2")
def test_after_a_failure_nobody_knocks_for_a_moment(server, proxy, line_clock, alice, signed_in):
    browser = signed_in()
    server.kill()
    assert is_asked_to_try_again(browser.get("/whoami/"))
    for _ in range(3):
        before = proxy.connections
        for path in ["/whoami/", "/read/", "/aread/"] * 3:
            assert is_asked_to_try_again(browser.get(path))
        assert proxy.connections == before
        line_clock.tick()
        assert is_asked_to_try_again(browser.get("/whoami/"))
        assert proxy.connections == before + 1
    server.start()
    assert is_asked_to_try_again(browser.get("/whoami/"))
    line_clock.tick()
    for _ in range(3):  # at once, without a tick
        assert is_in(browser)


def test_a_redis_that_hangs_costs_one_timeout(server, proxy, line_clock, alice, signed_in):
    browser = signed_in()
    with frozen(server):
        started = time.monotonic()
        for _ in range(100):
            assert is_asked_to_try_again(browser.get("/whoami/"))
        assert time.monotonic() - started < 50 * TIMEOUTS["SOCKET_TIMEOUT"]
    line_clock.tick()
    assert is_in(browser)


def knock():
    with suppress(StoreUnavailable):
        SessionStore.call(SessionStore.read, "0" * 64)


def test_one_thread_knocks_for_all(server, proxy, line_clock):
    knock()
    with frozen(server):
        knock()
        line_clock.tick()
        before = proxy.connections
        threads = [threading.Thread(target=knock) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert proxy.connections == before + 1


def test_one_task_knocks_for_all(server, proxy, line_clock):
    async def knocks(count):
        tasks = [SessionStore.aread("0" * 64) for _ in range(count)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    async def story():
        assert await knocks(1) == [None]
        with frozen(server):
            await knocks(1)
            line_clock.tick()
            before = proxy.connections
            errors = await knocks(200)
            assert proxy.connections == before + 1
        assert all(isinstance(error, RedisError) for error in errors)
        line_clock.tick()
        assert await knocks(1) == [None]
        assert await knocks(200) == [None] * 200

    asyncio.run(story())


def test_who_gives_up_knocking_has_had_no_answer(server, proxy, line_clock):
    async def story():
        await SessionStore.aread("0" * 64)
        with frozen(server):
            with pytest.raises(RedisError):
                await SessionStore.aread("0" * 64)
            line_clock.tick()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(SessionStore.aread("0" * 64), 0.1)
            before = proxy.connections
            with pytest.raises(RedisError, match="a moment ago"):
                await SessionStore.aread("0" * 64)
            assert proxy.connections == before

    asyncio.run(story())


@pytest.mark.parametrize(
    "pool",
    [
        {"CONNECTION_POOL_KWARGS": {"max_connections": 1}},
        {
            "CONNECTION_POOL_CLASS": "redis.BlockingConnectionPool",
            "CONNECTION_POOL_KWARGS": {"max_connections": 1, "timeout": 0.1},
        },
    ],
    ids=["fails", "blocks"],
)
def test_a_pool_that_is_used_up_is_no_failure_of_redis(server, alice, signed_in, pool):
    browser = signed_in()
    # Another URL: django-redis has a pool for each.
    with sessions_in(f"{server.url}?", PASSWORD=PASSWORD, **TIMEOUTS, **pool):
        with redis_clients.sync_client().monitor():  # has the one that there is
            assert is_asked_to_try_again(browser.get("/whoami/"))
        assert is_in(browser)  # without a tick


# What was ended stays ended.


@pytest.mark.standard("ASVS-7.4.1", "ASVS-16.5.2")
def test_revoking_while_redis_is_down(server, line_clock, alice, signed_in):
    browsers = [signed_in() for _ in range(2)]
    server.kill()
    with pytest.raises(StoreUnavailable):
        alice.sessionkit_sessions.revoke(by=alice)
    assert not UserSession.objects.active().exists()
    assert set(UserSession.objects.values_list("end_reason", flat=True)) == {EndReason.REVOKED}
    server.start()
    line_clock.tick()
    assert len(keys(server)) == 2
    with travel(AN_INTERVAL):
        for browser in browsers:
            response = browser.get("/private/")
            assert response.headers["Location"].startswith("/login/")
            page = browser.get(response.headers["Location"])
            assert b"signed out from another device" in page.content
    assert keys(server) == []


def test_the_purge_removes_what_was_ended_while_redis_was_down(
    server, line_clock, alice, signed_in
):
    browser = signed_in()
    server.kill()
    with pytest.raises(StoreUnavailable):
        UserSession.objects.revoke()
    with pytest.raises(StoreUnavailable):
        SessionStore.clear_expired()
    server.start()
    line_clock.tick()
    SessionStore.clear_expired()
    assert keys(server) == []
    assert browser.get("/private/").headers["Location"].startswith("/login/")


def test_the_page_says_that_redis_is_down(server, line_clock, alice, signed_in, monkeypatch):
    here, there = signed_in(), signed_in()
    kill_before("remove", server, monkeypatch)
    assert here.post("/account/sessions/others/end/").status_code == 302
    server.start()
    line_clock.tick()
    page = here.get("/account/sessions/")
    assert b"it may take up to 60 seconds" in page.content
    assert page.content.count(b"This device") == 1
    with travel(AN_INTERVAL):
        assert not is_in(there)
        assert is_in(here)
    assert len(keys(server)) == 1


@pytest.mark.parametrize("who", ["the touch", "the purge"])
@pytest.mark.standard("ASVS-7.4.1")
def test_redis_comes_back_with_what_it_had_before(forgetful, line_clock, alice, signed_in, who):
    """A kill -9 before it has written, a replica that lagged behind, a backup."""
    browser = signed_in()
    forgetful.client.save()
    UserSession.objects.revoke()
    forgetful.kill()
    forgetful.start()
    assert len(keys(forgetful)) == 1
    line_clock.tick()
    if who == "the purge":
        SessionStore.clear_expired()
        assert keys(forgetful) == []
    with travel(AN_INTERVAL):
        assert browser.get("/private/").headers["Location"].startswith("/login/")
    assert keys(forgetful) == []


def test_redis_comes_back_with_a_key_that_was_changed(
    forgetful, line_clock, alice, signed_in, browse
):
    """After a change of the password, say, when somebody had got hold of the old one."""
    browser = signed_in()
    thief = browse()
    thief.cookies["sessionid"] = key_of(browser)
    forgetful.client.save()
    SessionStore(key_of(browser)).cycle_key()
    forgetful.kill()
    forgetful.start()
    line_clock.tick()
    with travel(AN_INTERVAL):
        for _ in range(2):  # the store keeps what it has, for the row may just be about to follow
            assert not is_in(thief)


# What is lost.


def evicted(server):
    server.client.config_set("maxmemory-policy", "allkeys-random")
    server.client.config_set("maxmemory", 1)
    with suppress(RedisError):
        server.client.set("something", "else")
    assert server.client.info("stats")["evicted_keys"]
    server.client.config_set("maxmemory", 0)


def flushed(server):
    server.client.flushall()


def restarted_empty(server):
    server.kill()
    server.start()


@pytest.mark.parametrize("lose", [evicted, flushed, restarted_empty], ids=name_of)
def test_lost_sessions_are_signed_out_cleanly(forgetful, alice, signed_in, lose):
    here, there = signed_in(), signed_in()
    lose(forgetful)
    response = here.get("/private/")
    assert response.headers["Location"] == "/login/?next=/private/"
    assert b"You were signed out." in here.get(response.headers["Location"]).content
    assert [row.end_reason for row in UserSession.objects.ended()] == [EndReason.LOST]
    # The other one is not shown to be alive, and known to be lost after the next purge.
    assert post_sign_in(here).status_code == 302
    assert here.get("/account/sessions/").content.count(b"This device") == 1
    assert [row.pk for row in alice.sessionkit_sessions.alive()] == [here.session.handle]
    assert alice.sessionkit_sessions.active().count() == 2
    with travel(AN_INTERVAL):
        SessionStore.clear_expired()
        assert [row.pk for row in alice.sessionkit_sessions.active()] == [here.session.handle]
        assert [row.end_reason for row in UserSession.objects.ended()] == [EndReason.LOST] * 2
    assert not is_in(there)


def test_lost_sessions_are_told_so_once(forgetful, alice, signed_in):
    browser = signed_in()
    forgetful.client.flushall()
    assert browser.get("/private/").status_code == 302
    assert browser.get("/whoami/").content == b"AnonymousUser"


# Races.


@pytest.mark.django_db(transaction=True)
@pytest.mark.standard("ASVS-7.4.1", "ASVS-15.4.2")
def test_a_thousand_revocations_win_against_a_thousand_saves(server, alice):
    """Not arranged, as those in test_races.py are: every order comes about."""
    start, end = threading.Barrier(3), threading.Barrier(3)
    sessions, errors = [], []

    def save():
        session = SessionStore(sessions[-1].session_key)
        if session.get(SESSION_KEY):
            session["cart"] = len(sessions)
            with suppress(UpdateError):
                session.save()

    def revoke():
        UserSession.objects.filter(pk=sessions[-1].handle).revoke()

    def in_each_round(act):
        try:
            for _ in range(1000):
                start.wait(PATIENCE)
                act()
                end.wait(PATIENCE)
        except Exception as error:
            errors.append(error)
            start.abort(), end.abort()
        finally:
            connection.close()

    threads = [threading.Thread(target=in_each_round, args=[act]) for act in (save, revoke)]
    for thread in threads:
        thread.start()
    with suppress(threading.BrokenBarrierError):
        for _ in range(1000):
            sessions.append(SessionStore())
            sessions[-1][SESSION_KEY] = str(alice.pk)
            sessions[-1].save()
            start.wait(PATIENCE)
            end.wait(PATIENCE)
            assert keys(server) == []
    for thread in threads:
        thread.join()
    assert not errors
    assert UserSession.objects.filter(end_reason=EndReason.REVOKED).count() == 1000


def test_a_cluster_of_which_no_node_answers_is_not_an_empty_one(monkeypatch):
    """Otherwise the purge would take every session for one that the store has lost."""
    monkeypatch.setattr(redis, "sync_client", lambda: Mock(RedisCluster))
    asking = redis._peek({"key": "digest"}, {})
    next(asking)
    with pytest.raises(exceptions.ConnectionError):
        asking.throw(exceptions.ConnectionError())


def test_a_task_that_may_not_carry_activity_says_so(server, settings):
    settings.SESSIONKIT_ACTIVITY = "buffered"
    assert activity.carry() == activity.Carried()
    server.client.execute_command("ACL SETUSER default -eval -evalsha")
    with pytest.raises(StoreUnavailable):
        activity.carry()
    server.client.execute_command("ACL SETUSER default +eval +evalsha")


def test_an_activity_does_not_wait_in_a_redis_that_is_full(server, settings):
    settings.SESSIONKIT_ACTIVITY = "buffered"
    (seen,) = waiting_sessions(get_user_model().objects.create_user("alice"), 1)
    assert activity.carry() == activity.Carried(written=1)
    before = SessionStore.read(seen.digest)
    later = seen._replace(at=seen.at + 1)
    with full(server):
        assert not SessionStore.touch_later(later)
        assert SessionStore.read(seen.digest) == before
    assert SessionStore.touch_later(later)
