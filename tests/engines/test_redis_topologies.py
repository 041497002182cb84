"""
The Redis engine on more than one server: a primary that Sentinels watch over, and a Cluster.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.sessions.backends.base import UpdateError
from django.utils import timezone
from redis.crc import key_slot
from redis.exceptions import RedisError

from django_sessionkit import activity, ranges
from django_sessionkit.backends import redis_clients, redis_scripts
from django_sessionkit.backends.redis import SessionStore
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.clock import as_milliseconds
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.visit.client import Client
from tests import redis_servers
from tests.browsers import put, read
from tests.buffered import waiting_sessions
from tests.people import key_of
from tests.redis_servers import PATIENCE, LineClock, fresh_lines, sessions_in
from tests.servers import HOST
from tests.store import again, now, payloads, travel
from tests.switch import throw

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
        return node.client.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"]

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


def hashed(key, prefix, version):
    return digest_of(f"{prefix}:{version}:{key}")


class FactoryOfASite:
    def __init__(self, options):
        ours = redis_clients.ClusterConnectionFactory(options)
        self.connect, self.disconnect = ours.connect, ours.disconnect


def test_keys_that_a_site_hashes_are_found_in_a_cluster(servers):
    """What is read together is on two nodes, and so nobody reads it."""
    is_cluster = "Cluster" in servers.options["CONNECTION_FACTORY"]
    options = {**servers.options}
    if is_cluster:  # ours is known without a question
        options["CONNECTION_FACTORY"] = f"{__name__}.FactoryOfASite"
    with sessions_in(servers.location, key_function=f"{__name__}.hashed", **options):
        session = SessionStore()
        session["cart"] = ["teapot"]
        session.save()
        if is_cluster:
            with pytest.raises(StoreUnavailable):
                again(session).load()
            assert SessionStore.check(ask=True) == [("E021", {"alias": "sessions"})]
        else:
            assert again(session)["cart"] == ["teapot"]
            assert SessionStore.check(ask=True) == []


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
    key = redis_scripts.key_of(digest_of(session.session_key))
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
    assert [name for name, _ in SessionStore.check(ask=True)] == ["W013"]


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


# Two nodes of a Cluster are gone, and nothing takes their places. Nobody else must notice.


class Outage(NamedTuple):
    """A Cluster of which one primary is going to be killed, and another one to hang."""

    topology: redis_servers.Topology
    healthy: redis_servers.Server
    killed: redis_servers.Server
    frozen: redis_servers.Server
    clock: LineClock

    def begin(self):
        self.killed.kill()
        self.frozen.freeze()

    def holder(self, key):
        """Return the server that has the session with a key."""
        client = redis_clients.sync_client()
        name = redis_clients.node_of(client, redis_scripts.key_of(digest_of(key)))
        (server,) = [node for node in self.topology.nodes if name == f"{HOST}:{node.port}"]
        return server

    def spread(self, make):
        """Make sessions until there are some on every node. Return the keys of each node."""
        found = {server: [] for server in (self.healthy, self.killed, self.frozen)}
        while min(map(len, found.values())) < 4:
            key = make()
            found[self.holder(key)].append(key)
        return found


@pytest.fixture
def outage(monkeypatch):
    clock = LineClock()
    monkeypatch.setattr(redis_clients, "time", clock)
    fresh_lines(monkeypatch)
    # The nodes are not replaced for as long as a test takes.
    with (
        redis_servers.cluster(node_timeout=600_000) as topology,
        sessions_in(topology.location, SOCKET_TIMEOUT=1, **topology.options),
    ):
        yield Outage(topology, *topology.nodes[:3], clock)


def stored_session():
    session = SessionStore()
    session["cart"] = ["teapot"]
    session.save()
    return session.session_key


@pytest.mark.standard("ASVS-16.5.2")
def test_all_requests_to_healthy_nodes_are_answered(outage, browse):
    def open_browser():
        browser = browse()
        put(browser, cart="teapot")
        browsers[key_of(browser)] = browser
        return key_of(browser)

    browsers = {}
    keys = outage.spread(open_browser)
    outage.begin()
    for _ in range(3):
        # In turn, as they come.
        for one, other, another in zip(*(keys[server][:4] for server in keys), strict=True):
            answers = {key: read(browsers[key]) for key in (another, other, one)}
            assert answers[one].json()["cart"] == "teapot"
            assert [answers[key].status_code for key in (other, another)] == [503, 503]
        assert put(browsers[one], theme="dark").content == b"written"
        outage.clock.tick()
    # When the node answers again, so does the site.
    outage.frozen.thaw()
    for key in keys[outage.frozen]:
        assert read(browsers[key]).json() == {"cart": "teapot"}
    assert set(redis_clients.dead_lines) == {f"{HOST}:{outage.killed.port}"}


def test_staff_see_which_nodes_do_not_answer(outage):
    outage.spread(stored_session)
    states = {status.name: status for status in SessionStore.status()}
    names = {f"{HOST}:{node.port}" for node in (outage.healthy, outage.killed, outage.frozen)}
    assert states.keys() == names
    for status in states.values():
        assert status.latency is not None
        assert status.sessions >= 4
    outage.begin()
    started = time.monotonic()
    states = SessionStore.status()
    assert time.monotonic() - started < 8
    answering = [status.name for status in states if status.latency is not None]
    assert answering == [f"{HOST}:{outage.healthy.port}"]
    # Nobody knocks again at one that has not answered a request a moment ago.
    redis_clients.dead_lines[f"{HOST}:{outage.frozen.port}"] = redis_clients.Line()
    started = time.monotonic()
    assert SessionStore.status()
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("count", [4, 60], ids=["a few", "more than there are connections"])
def test_nobody_waits_for_a_task_that_knocks(outage, count):
    keys = outage.spread(stored_session)
    done = []

    async def load(key):
        try:
            await SessionStore(key).aload()
        except StoreUnavailable:
            done.append("no answer")
        else:
            done.append("answer")

    async def story():
        await load(keys[outage.healthy][0])
        outage.begin()
        knocking = [load(keys[outage.frozen][0]) for _ in range(count)]
        others = [load(key) for key in keys[outage.healthy]]
        await asyncio.gather(*knocking, *others)

    asyncio.run(story())
    answers = 1 + len(keys[outage.healthy])
    assert done == ["answer"] * answers + ["no answer"] * count


def test_nobody_waits_for_a_thread_that_knocks(outage):
    keys = outage.spread(stored_session)
    done = []

    def knock():
        with pytest.raises(StoreUnavailable):
            SessionStore(keys[outage.frozen][0]).load()
        done.append("no answer")

    outage.begin()
    with ThreadPoolExecutor(4) as pool:
        knocking = [pool.submit(knock) for _ in range(4)]
        for key in keys[outage.healthy]:
            assert SessionStore(key).load()
            done.append("answer")
        for each in knocking:
            each.result(PATIENCE)
    assert done == ["answer"] * len(keys[outage.healthy]) + ["no answer"] * 4


def test_a_new_session_is_kept_where_it_can_be(outage, drive):
    keys = outage.spread(stored_session)
    outage.begin()
    for server in (outage.killed, outage.frozen):
        with pytest.raises(StoreUnavailable):
            drive(SessionStore(keys[server][0]), "load")
    for _ in range(10):
        session = SessionStore(keys[outage.healthy][0])
        session["cart"] = ["kettle"]
        drive(session, "cycle_key")
        keys[outage.healthy][0] = session.session_key
        assert outage.holder(session.session_key) == outage.healthy
        assert drive(again(session), "load") == {"cart": ["kettle"]}
    # If no node is left, it is an error, and not an endless search.
    outage.healthy.kill()
    with pytest.raises(StoreUnavailable):
        drive(SessionStore(keys[outage.healthy][0]), "load")
    with pytest.raises(StoreUnavailable):
        drive(SessionStore(), "create")


def test_what_can_be_ended_and_listed_is(outage, drive, alice, caplog):
    def sign_in():
        session = SessionStore()
        session[SESSION_KEY] = str(alice.pk)
        session.save()
        return session.session_key

    keys = outage.spread(sign_in)
    digests = {server: {digest_of(key) for key in each} for server, each in keys.items()}
    lost, *_ = digests[outage.healthy]
    SessionStore.remove([lost])
    outage.begin()
    everything = set().union(*digests.values())
    # What does not answer may be there.
    assert drive(SessionStore, "peek", sorted(everything)) == everything - {lost}
    assert "The session store did not answer" in caplog.text
    assert len(alice.sessionkit_sessions.alive()) == len(everything) - 1
    for server in (outage.killed, outage.frozen):
        with pytest.raises(RedisError):
            drive(SessionStore, "peek", sorted(digests[server]))
    with pytest.raises(RedisError):
        drive(SessionStore, "remove", sorted(everything))
    assert drive(SessionStore, "peek", sorted(digests[outage.healthy])) == set()


@pytest.mark.standard("ASVS-7.4.1")
def test_all_parts_of_a_revocation_are_done_that_can_be(outage, alice, monkeypatch):
    monkeypatch.setattr(ranges, "ROWS", 2)

    def sign_in():
        session = SessionStore()
        session[SESSION_KEY] = str(alice.pk)
        session.save()
        return session.session_key

    keys = outage.spread(sign_in)
    outage.begin()
    with pytest.raises(StoreUnavailable):
        UserSession.objects.revoke()
    assert not UserSession.objects.active().exists()
    assert SessionStore.peek([digest_of(key) for key in keys[outage.healthy]]) == set()


def test_a_purge_does_its_part(outage, alice, caplog):
    def sign_in():
        session = SessionStore()
        session[SESSION_KEY] = str(alice.pk)
        session.save()
        return session.session_key

    keys = outage.spread(sign_in)
    lost, ended, *_ = [digest_of(key) for key in keys[outage.healthy]]
    SessionStore.remove([lost])
    rows = UserSession.objects.all()
    with travel(timedelta(hours=1)):
        # Their removal was lost.
        for digest in [ended, digest_of(keys[outage.frozen][0])]:
            rows.filter(digest=digest).update(ended_at=timezone.now(), end_reason=EndReason.REVOKED)
        outage.begin()
        with pytest.raises(StoreUnavailable):
            SessionStore.clear_expired()
    assert rows.get(digest=lost).end_reason == EndReason.LOST
    assert rows.filter(end_reason=EndReason.LOST).count() == 1
    assert SessionStore.peek([ended]) == set()


# A replica takes over.


def take_over(outage, server):
    """Let the replica of a server take its place, and wait until everybody knows."""
    others = [node for node in outage.topology.nodes if node is not server]
    (replica,) = [
        node for node in others if node.client.info("replication").get("master_port") == server.port
    ]
    replica.client.execute_command("CLUSTER FAILOVER TAKEOVER")

    def is_known_to(node):
        slots = node.client.execute_command("CLUSTER SLOTS")
        return replica.port in [primary[1] for _first, _last, primary, *_replicas in slots]

    redis_servers.wait_for(lambda: all(map(is_known_to, others)))


def test_the_line_to_a_node_that_was_replaced_is_in_nobodys_way(outage, drive):
    keys = outage.spread(stored_session)
    outage.topology.wait_until_replicated()
    drive(SessionStore(keys[outage.killed][0]), "load")
    outage.killed.freeze()
    take_over(outage, outage.killed)
    for key in keys[outage.killed] * 2:  # the first one learns it
        assert drive(SessionStore(key), "load") == {"cart": ["teapot"]}
    assert redis_clients.dead_lines == {}


def test_the_node_that_takes_over_has_not_failed(outage, monkeypatch):
    """Both attempts of a request were too early: the third one would have been answered."""
    keys = outage.spread(stored_session)
    outage.topology.wait_until_replicated()
    nodes = redis_clients.sync_client().nodes_manager
    refreshes = []
    refresh = nodes.initialize

    def late(*args, **kwargs):
        refreshes.append(1)
        if len(refreshes) == 2:
            take_over(outage, outage.killed)
        refresh(*args, **kwargs)

    monkeypatch.setattr(nodes, "initialize", late)
    outage.killed.freeze()
    with pytest.raises(StoreUnavailable):
        SessionStore(keys[outage.killed][0]).load()
    assert len(refreshes) == 2
    for key in keys[outage.killed]:
        assert SessionStore(key).load() == {"cart": ["teapot"]}


# A process that starts meanwhile.


def test_a_process_can_start_without_the_node_in_location(outage, drive):
    (key, *_) = outage.spread(stored_session)[outage.healthy]
    outage.killed.kill()
    others = {"startup_nodes": [redis_servers.node_at(outage.healthy)]}
    location = f"redis://{HOST}:{outage.killed.port}"
    options = {**outage.topology.options, "REDIS_CLIENT_KWARGS": others}
    with sessions_in(location, SOCKET_TIMEOUT=1, **options):
        assert drive(SessionStore(key), "load") == {"cart": ["teapot"]}


# The switch: see epochs.py.


def signed_in(user):
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session.save()
    return session


def test_every_node_knows_of_an_epoch(drive, topology):
    alice = get_user_model().objects.create_user("alice")
    sessions = [signed_in(alice) for _ in range(100)]
    throw()
    assert len(payloads()) == 100
    assert not any(drive(again(session), "load") for session in sessions)
    later = signed_in(alice)
    assert drive(again(later), "get", SESSION_KEY)


def test_a_session_and_the_number_are_on_one_node(topology, settings):
    def slots(*digests):
        keys = [
            key(digest)
            for digest in digests
            for key in (redis_scripts.key_of, redis_scripts.epoch_key_of)
        ]
        return {key_slot(key.encode()) for key in keys}

    one, other = "0f3" + "0" * 61, "0f3" + "f" * 61
    assert len(slots(one, other)) == 1
    settings.SESSIONKIT_REDIS_PREFIX = "{shop}:"
    assert len(slots(one, "fff" + "0" * 61)) == 1
    SessionStore.note_epoch(7)
    assert sum(len(node.client.keys("{shop}:*")) for node in topology.primaries()) == 4096


def test_a_dead_node_keeps_no_other_from_knowing_of_an_epoch(outage, caplog):
    alice = get_user_model().objects.create_user("alice")
    found = outage.spread(lambda: signed_in(alice).session_key)
    outage.begin()
    throw()
    assert "The session store did not answer" in caplog.text
    assert not any(SessionStore(key).load() for key in found[outage.healthy])
    with pytest.raises(StoreUnavailable):
        SessionStore(found[outage.killed][0]).load()


# Activity that waits: see activity.py.


def test_activity_waits_on_the_node_of_its_session(drive, topology, settings):
    settings.SESSIONKIT_ACTIVITY = "buffered"
    seen = waiting_sessions(get_user_model().objects.create_user("alice"), 100)
    later = seen[0]._replace(at=seen[0].at + 1)
    assert drive(SessionStore, "touch_later", later)
    digests = [each.digest for each in seen]
    assert SessionStore.last_seen([*digests, "0" * 64])[digests[0]] == later.at
    assert SessionStore.last_seen([*digests, "0" * 64]).keys() == {*digests}
    before = now()
    assert activity.carry() == activity.Carried(written=100)
    assert activity.carry() == activity.Carried()
    row = UserSession.objects.get(pk=later.handle)
    assert as_milliseconds(row.last_seen_at) == later.at
    assert drive(SessionStore, "read", later.digest).flushed_at >= before


def test_a_dead_node_keeps_no_other_from_being_carried(outage, settings, caplog):
    settings.SESSIONKIT_ACTIVITY = "buffered"
    seen = waiting_sessions(get_user_model().objects.create_user("alice"), 60)
    holders = [
        redis_clients.node_of(redis_clients.sync_client(), redis_scripts.key_of(each.digest))
        for each in seen
    ]
    healthy = holders.count(f"{HOST}:{outage.healthy.port}")
    assert 0 < healthy < 60
    outage.begin()
    assert activity.carry() == activity.Carried(written=healthy)
    assert len(SessionStore.last_seen([each.digest for each in seen])) == 60
    assert "The session store did not answer" in caplog.text
    outage.healthy.kill()
    with pytest.raises(StoreUnavailable):
        activity.carry()
    with pytest.raises(StoreUnavailable):
        UserSession.objects.alive()
