"""
The Redis engine on more than one server: a primary that Sentinels watch over, and a Cluster.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.sessions.backends.base import UpdateError
from redis.exceptions import RedisError

from django_sessionkit.backends import redis, redis_clients
from django_sessionkit.backends.redis import SessionStore
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import UserSession
from django_sessionkit.visit.client import Client
from tests import redis_servers
from tests.redis_servers import PATIENCE, fresh_lines, sessions_in
from tests.store import again, payloads, travel

pytestmark = [pytest.mark.redis, pytest.mark.django_db, pytest.mark.usefixtures("own_line")]

TOPOLOGIES = [redis_servers.sentinels, redis_servers.cluster]


@pytest.fixture(scope="module", params=TOPOLOGIES, ids=["sentinels", "cluster"])
def servers(request):
    with request.param() as topology:
        yield topology


@pytest.fixture
def topology(servers):
    with sessions_in(servers.location, **servers.options):
        yield servers


@pytest.fixture
def stored(topology, stored):
    """A session that is stored in this topology."""
    return stored


def connections_of(client):
    return getattr(client, "nodes_manager", None) or client.connection_pool


def test_threads_have_their_connections_in_common(topology):
    """Also a thread that comes to the alias by Django's way to a cache."""
    with ThreadPoolExecutor(1) as executor:
        there = executor.submit(redis_clients.sync_client).result()
    for here in (redis_clients.sync_client(), redis_clients.source().get_client(write=True)):
        assert connections_of(there) is connections_of(here)


# The contract, in short: the whole of it is tested on one server.


def test_a_session_lives(drive, stored):
    assert drive(again(stored), "load") == {"cart": ["teapot"], "language": "en"}
    stored["cart"].append("kettle")
    drive(stored, "save")
    assert drive(again(stored), "get", "cart") == ["teapot", "kettle"]
    assert drive(stored, "exists", stored.session_key)
    drive(stored, "flush")
    assert payloads() == {}


def test_changes_of_two_requests_are_both_kept(drive, stored):
    mine, theirs = again(stored), again(stored)
    mine.get("cart"), theirs.get("cart")
    theirs["theme"] = "dark"
    drive(theirs, "save")
    mine["cart"].append("kettle")
    drive(mine, "save")
    expected = {"cart": ["teapot", "kettle"], "language": "en", "theme": "dark"}
    assert drive(again(stored), "load") == expected


def test_new_keys_kill_the_old_ones(drive, stored):
    for _ in range(20):  # now on one node of a Cluster, now on another
        old = stored.session_key
        drive(stored, "cycle_key")
        assert not drive(stored, "exists", old)
    assert drive(again(stored), "load") == {"cart": ["teapot"], "language": "en"}
    assert list(payloads()) == [digest_of(stored.session_key)]


def test_a_new_key_for_a_session_that_has_changed_leaves_no_orphan(drive, stored):
    old = digest_of(stored.session_key)
    for number in range(20):
        new = f"{number:064}"
        expires_at = int(time.time() + 60) * 1000
        args = old, new, b"payload", 0, expires_at, b"otherversion"
        assert not drive(SessionStore, "move", *args)
    assert list(payloads()) == [old]


def test_what_is_gone_stays_gone(drive, stored):
    mine = again(stored)
    mine["cart"] = []
    drive(again(stored), "delete")
    with pytest.raises(UpdateError):
        drive(mine, "save")
    assert payloads() == {}


def test_a_request_slides_the_expiry(drive, stored):
    with travel(timedelta(days=10)):
        session = again(stored)
        session.client = Client("192.0.2.1", "Firefox")
        drive(session, "get", "cart")
        session.finish(answered=True)
        assert session.slid
    with travel(timedelta(days=20)):
        assert drive(again(stored), "load")


def test_a_hundred_sessions_are_listed_and_ended_at_once(drive, topology):
    alice = get_user_model().objects.create_user("alice")
    for _ in range(100):
        session = SessionStore()
        session[SESSION_KEY] = str(alice.pk)
        session.save()
    digests = list(alice.sessionkit_sessions.values_list("digest", flat=True))
    assert drive(SessionStore, "peek", [*digests, "0" * 64]) == set(digests)
    assert len(alice.sessionkit_sessions.alive()) == 100
    drive(SessionStore, "remove", digests[:10])
    assert len(alice.sessionkit_sessions.alive()) == 90
    assert drive(UserSession.objects.all(), "revoke") == 100
    assert payloads() == {}


def test_servers_that_do_not_know_the_scripts_learn_them(drive, stored, topology):
    for node in topology.primaries():
        node.client.script_flush()
    stored["cart"] = []
    drive(stored, "save")
    drive(stored, "cycle_key")
    assert drive(again(stored), "load")["cart"] == []


def test_replicas_are_never_asked(drive, topology, stored):
    def asked(node):
        return node.client.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"]

    before = {node: asked(node) for node in topology.nodes}
    for _ in range(30):
        drive(again(stored), "load")
        SessionStore.peek([digest_of(stored.session_key)])
    assert all(asked(node) == before[node] for node in topology.replicas())
    assert sum(asked(node) - before[node] for node in topology.primaries()) == 30


def test_the_check_asks_every_primary(topology):
    assert SessionStore.check(ask=True) == []
    for node in topology.primaries():
        node.client.config_set("maxmemory-policy", "allkeys-lru")
        assert SessionStore.check(ask=True) == [("W009", {"policy": "allkeys-lru"})]
        node.client.config_set("maxmemory-policy", "noeviction")


# A primary is killed.


@pytest.fixture(params=TOPOLOGIES, ids=["sentinels", "cluster"])
def doomed(request):
    with request.param() as topology, sessions_in(topology.location, **topology.options):
        yield topology


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_primary_is_killed_and_nothing_is_lost_that_had_a_replica(doomed, way):
    async def call(session, name, *args):
        if way == "sync":
            return getattr(session, name)(*args)
        return await getattr(session, f"a{name}")(*args)

    async def until_it_answers(session, name, *args):
        """There is no other error than that, and it passes."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await call(session, name, *args)
            except StoreUnavailable:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)

    async def story():
        sessions = [SessionStore() for _ in range(60)]
        for number, session in enumerate(sessions):
            session["number"] = number
            await call(session, "save")
        doomed.wait_until_replicated()
        holder_of(sessions[0], doomed).kill()
        sessions[0]["late"] = True
        await until_it_answers(sessions[0], "save")
        for number, session in enumerate(sessions):
            contents = await until_it_answers(again(session), "load")
            assert contents["number"] == number
            session["number"] = -number
            await until_it_answers(session, "save")
            await until_it_answers(session, "cycle_key")
            contents = await until_it_answers(again(session), "load")
            assert contents["number"] == -number

    asyncio.run(story())


def holder_of(session, topology):
    key = redis._key(digest_of(session.session_key))
    for node in topology.primaries():
        with suppress(RedisError):  # of a Cluster, that it is another one
            if node.client.exists(key):
                return node
    raise AssertionError("nobody has it")


def test_nobody_knocks_for_a_moment_when_all_are_gone(doomed, monkeypatch):
    session = SessionStore()
    session["cart"] = ["teapot"]
    session.save()
    for node in doomed.nodes:
        node.kill()
    for load in (again(session).load, async_to_sync(again(session).aload)):
        fresh_lines(monkeypatch)
        with pytest.raises(StoreUnavailable):
            load()
        with pytest.raises(StoreUnavailable) as failure:
            load()
        assert "a moment ago" in str(failure.value.__cause__)
    assert SessionStore.check(ask=True) == []  # the site says so


def test_a_node_that_hangs_costs_two_timeouts(monkeypatch):
    """And not as many as redis-py would wait for, while its replica has not taken over yet."""

    async def story():
        session = SessionStore()
        await session.asave()
        digest = digest_of(session.session_key)
        holder_of(session, topology).freeze()
        for ask in (SessionStore.aread, sync_to_async(SessionStore.read)):
            fresh_lines(monkeypatch)
            for seconds in (8, 1):  # then nobody even knocks
                started = time.monotonic()
                with pytest.raises(RedisError):
                    await ask(digest)
                assert time.monotonic() - started < seconds

    with (
        redis_servers.cluster(node_timeout=60_000) as topology,
        sessions_in(topology.location, SOCKET_TIMEOUT=1, **topology.options),
    ):
        asyncio.run(story())
