"""
The Redis engine, seen from a server that the tests have to themselves: what it is asked, what it
keeps and for how long, what somebody else may have written there, and over what connections.
"""

import asyncio
import datetime
import gc
import os
import pickle
import secrets
import ssl
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import groupby
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.sessions.backends.base import UpdateError
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.test import RequestFactory

from django_sessionkit.backends import redis_clients, redis_scripts
from django_sessionkit.backends.redis import SessionStore
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.middleware import SessionMiddleware
from django_sessionkit.models import UserSession
from tests.certificates import Authority
from tests.redis_servers import FORGETFUL, Proxy, Server, sessions_in, wait_for
from tests.servers import HOST
from tests.store import FORTNIGHT, again, now, travel, works

pytestmark = [pytest.mark.redis, pytest.mark.django_db, pytest.mark.usefixtures("own_line")]


@pytest.fixture(scope="module")
def own_server():
    with Server(*FORGETFUL) as server:
        yield server


@pytest.fixture(autouse=True)
def server(own_server):
    with sessions_in(own_server.url):
        yield own_server
    own_server.client.flushall()


def redis_key_of(session):
    return redis_scripts.key_of(digest_of(session.session_key)).encode()


# What it is asked.

# What connections begin with.
GREETINGS = {"HELLO", "AUTH", "SELECT", "CLIENT"}


@contextmanager
def asked(server):
    """Hear what the server is asked meanwhile, as the names of commands."""
    commands = []
    with server.client.monitor() as monitor:
        yield commands
        end = secrets.token_hex(8)
        server.client.echo(end)
        for heard in monitor.listen():
            if end in heard["command"]:
                break
            name = heard["command"].split()[0]
            if heard["client_type"] != "lua" and name not in GREETINGS:
                commands.append(name)


def test_every_operation_is_one_command(drive, server):
    for script in (redis_scripts.REPLACE, redis_scripts.TOUCH):
        server.client.script_load(script.text)
    session = SessionStore()
    session["cart"] = ["teapot"]
    with asked(server) as commands:
        drive(session, "save")
    assert commands == ["SET"]
    with asked(server) as commands:
        drive(again(session), "load")
    assert commands == ["MGET"]
    session["cart"] = []
    with asked(server) as commands:
        drive(session, "save")
    assert commands == ["EVALSHA"]
    with asked(server) as commands:
        drive(SessionStore, "touch", digest_of(session.session_key), now(), now() + FORTNIGHT)
    assert commands == ["EVALSHA"]
    with asked(server) as commands:
        drive(session, "cycle_key")
    assert commands == ["SET", "EVAL"]
    with asked(server) as commands:
        assert drive(session, "exists", session.session_key)
    assert commands == ["EXISTS"]
    with asked(server) as commands:
        drive(session, "delete")
    assert commands == ["DEL"]


def test_nothing_is_asked_about_nothing(drive, server):
    with asked(server) as commands:
        drive(SessionStore, "remove", [])
        assert drive(SessionStore, "peek", []) == set()
    assert commands == []


def test_a_new_key_is_written_and_the_old_one_taken_in_one_go(drive, server, stored):
    with Proxy(server) as proxy, sessions_in(proxy.url):
        drive(stored, "cycle_key")
    # What was sent before anything was answered.
    turns = groupby(proxy.heard, key=lambda passed: passed[0])
    sent = [b"".join(data for _, data in turn) for from_client, turn in turns if from_client]
    assert [(b"\nSET\r" in data, b"\nEVAL\r" in data) for data in sent][-1] == (True, True)


def test_a_server_that_does_not_know_the_scripts_learns_them(drive, server, stored):
    digest = digest_of(stored.session_key)
    for _ in range(2):  # a failover, SCRIPT FLUSH
        server.client.script_flush()
        stored["cart"] = []
        for name, args in [("save", []), ("touch", [digest, now(), now() + FORTNIGHT])]:
            owner = stored if name == "save" else SessionStore
            for expected in (["EVALSHA", "EVAL"], ["EVALSHA"]):
                with asked(server) as commands:
                    drive(owner, name, *args)
                assert commands == expected
    server.client.script_flush()
    drive(stored, "cycle_key")
    assert drive(again(stored), "load") == {"cart": [], "language": "en"}


# What it keeps.


def tagged(session):
    """Return the digest of a session with its hash tag."""
    digest = digest_of(session.session_key)
    return f"{{{digest[:3]}}}{digest[3:]}"


def test_keys_are_the_digest_under_a_prefix_of_our_own(server, settings, stored):
    caches[settings.SESSION_CACHE_ALIAS].set("teapot", 1)
    prefix = settings.SESSIONKIT_REDIS_PREFIX
    keys = {b"cache:1:teapot", f"{prefix}{tagged(stored)}".encode()}
    assert set(server.client.keys()) == keys


def key_of_a_tenant(key, prefix, version):
    return f"{TENANT.get()}:{prefix}:{version}:{key}"


TENANT = ContextVar("tenant", default="nobody")


def test_a_key_function_of_the_site_keeps_tenants_apart(drive, server, settings, stored):
    """As that of django-tenants. Async code asks it in the thread of the request."""
    with sessions_in(server.url, key_function=f"{__name__}.key_of_a_tenant"):
        TENANT.set("north")
        assert drive(again(stored), "load") == {}
        works(drive)
        session = SessionStore()
        session["cart"] = "teapot"
        drive(session, "save")
        key = f"north:cache:1:{settings.SESSIONKIT_REDIS_PREFIX}{tagged(session)}"
        assert server.client.exists(key)
        TENANT.set("south")
        assert drive(again(session), "load") == {}
        assert not SessionStore.native_async
    assert SessionStore.native_async


def test_every_key_expires_with_its_session(drive, server, settings, stored):
    def left():
        keys = server.client.keys(f"{settings.SESSIONKIT_REDIS_PREFIX}*")
        assert keys
        (milliseconds,) = {server.client.pttl(key) for key in keys}
        return round(milliseconds / 60_000)  # a minute more or less is nothing

    day = 24 * 60
    assert left() == 14 * day
    with travel(datetime.timedelta(days=1)):
        drive(SessionStore, "touch", digest_of(stored.session_key), now(), now() + FORTNIGHT)
        assert left() == 15 * day
    with travel(datetime.timedelta(days=2)):
        stored["cart"] = []
        drive(stored, "save")
        assert left() == 16 * day
    with travel(datetime.timedelta(days=3)):
        drive(stored, "cycle_key")
        assert left() == 17 * day
    stored.set_expiry(60 * 60)
    drive(stored, "save")
    assert left() == 60


@pytest.mark.standard("WSTG-SESS-07")
def test_redis_expires_them_by_itself(drive, server):
    session = SessionStore()
    session.set_expiry(1)
    drive(session, "save")
    wait_for(lambda: not server.client.keys())
    assert drive(again(session), "load") == {}
    with pytest.raises(UpdateError):
        drive(session, "save")
    assert not server.client.keys()


@pytest.mark.parametrize("operation", ["create", "save", "cycle_key", "touch"])
def test_an_expiry_in_the_past_leaves_nothing(drive, server, operation):
    session = SessionStore()
    if operation != "create":
        drive(session, "save")
    if operation == "touch":
        drive(SessionStore, "touch", digest_of(session.session_key), now(), now() - 1000)
    else:
        session.set_expiry(-1)
        drive(session, operation)
    assert not server.client.keys()


def test_a_new_key_for_a_session_that_has_changed_leaves_no_orphan(drive, server, stored):
    new, expires_at = "f" * 64, now() + FORTNIGHT
    for old in (digest_of(stored.session_key), "0" * 64):
        assert not drive(
            SessionStore, "move", old, new, b"payload", now(), expires_at, b"otherversion"
        )
    assert server.client.keys() == [redis_key_of(stored)]


# What somebody else has written there.


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


STRINGS = [
    *["pickle", "pickle in place", "empty", "stamp", "truncated", "flipped", "another's"],
    *["number", "10 MB"],
]
JUNK = [*STRINGS, "list", "hash"]


@pytest.fixture(params=JUNK)
def spoil(request, server, tmp_path):
    """Write something else under the key of a session."""

    def spoil(session):
        key, client = redis_key_of(session), server.client
        value = client.get(key)
        bomb = pickle.dumps(Bomb(tmp_path / "canary"))
        if request.param in ("list", "hash"):
            client.delete(key)
            client.rpush(key, value) if request.param == "list" else client.hset(key, "a", value)
            return
        other = SessionStore()
        other["credit"] = 1_000_000
        other.save()
        junk = {
            "pickle": bomb,
            "pickle in place": value[:8] + bomb,
            "empty": b"",
            "stamp": value[:8],
            "truncated": value[:-1],
            "flipped": value[:-1] + bytes([value[-1] ^ 1]),
            "another's": client.get(redis_key_of(other)),
            "number": 1,
            "10 MB": os.urandom(10_000_000),
        }
        other.delete()
        client.set(key, junk[request.param], keepttl=True)

    yield spoil
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("spoil", STRINGS, indirect=True)
@pytest.mark.standard("ASVS-1.5.2", "ASVS-16.3.3")
def test_what_somebody_else_wrote_is_an_empty_session_and_one_line(drive, spoil, stored, caplog):
    spoil(stored)
    session = again(stored)
    assert drive(session, "load") == {}
    (record,) = caplog.records
    assert record.name.startswith("django.security.")
    assert stored.session_key not in record.getMessage()


@pytest.mark.parametrize("spoil", ["list", "hash"], indirect=True)
def test_what_is_no_string_is_no_session(drive, spoil, stored):
    spoil(stored)
    assert drive(again(stored), "load") == {}


@pytest.mark.parametrize("operation", ["save", "cycle_key", "flush", "touch", "exists"])
def test_what_somebody_else_wrote_is_in_nobodys_way(drive, spoil, server, stored, operation):
    spoil(stored)
    old = redis_key_of(stored)
    stored["cart"].append("kettle")
    contents = {"cart": ["teapot", "kettle"], "language": "en"}
    match operation:
        case "save":
            with suppress(UpdateError):  # or it is whole again
                drive(stored, "save")
            assert drive(again(stored), "load") in ({}, contents)
        case "cycle_key":  # of a visitor who is not signed in
            drive(stored, "cycle_key")
            assert drive(again(stored), "load") == contents
            assert set(server.client.keys()) <= {old, redis_key_of(stored)}
        case "flush":
            drive(stored, "flush")
            assert not server.client.keys()
        case "touch":
            drive(SessionStore, "touch", digest_of(stored.session_key), now(), now() + FORTNIGHT)
        case "exists":
            drive(stored, "exists", stored.session_key)


def test_what_somebody_else_wrote_ends_a_session_at_most(drive, spoil, server, stored):
    user = get_user_model().objects.create_user("alice")
    stored[SESSION_KEY] = str(user.pk)
    drive(stored, "save")
    spoil(stored)
    with suppress(UpdateError):  # or it is whole again
        drive(stored, "cycle_key")
    assert len(server.client.keys()) == 1
    assert drive(again(stored), "get", "cart") in (None, ["teapot"])


# Event loops.


async def story():
    session = SessionStore()
    await session.aset("cart", ["teapot"])
    await session.asave()
    return await SessionStore(session.session_key).aload()


def connections(server):
    return len(server.client.client_list())


def connections_ever(server):
    return server.client.info("stats")["total_connections_received"]


@pytest.mark.parametrize("run", [lambda act: asyncio.run(act()), lambda act: async_to_sync(act)()])
def test_a_client_is_closed_with_its_event_loop(server, run):
    gc.collect()  # what earlier tests have left open is closed now, and not meanwhile
    before = connections(server)
    for _ in range(20):
        assert run(story) == {"cart": ["teapot"]}
    wait_for(lambda: connections(server) == before)
    assert not redis_clients._async_clients


def test_an_event_loop_has_one_client(server):
    async def stories():
        first = (await redis_clients.async_client()).client
        await story()
        await story()
        assert (await redis_clients.async_client()).client is first

    before = connections_ever(server)
    asyncio.run(stories())
    assert connections_ever(server) == before + 1


def test_two_hundred_tasks_wait_for_fifty_connections(server):
    async def stories():
        return await asyncio.gather(*[story() for _ in range(200)])

    before = connections_ever(server)
    assert asyncio.run(stories()) == [{"cart": ["teapot"]}] * 200
    assert 1 < connections_ever(server) - before <= redis_clients.CONNECTIONS


# Nobody is left who could close it.
@pytest.mark.filterwarnings("ignore:(unclosed|loop is closed):ResourceWarning")
def test_the_client_of_a_loop_that_is_just_closed_goes_with_the_next_one(server):
    gc.collect()  # what earlier tests have left open is closed now, and not meanwhile
    before = connections(server)
    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(story())
        loop.close()
        assert list(redis_clients._async_clients) == [loop]
    asyncio.run(story())
    assert not redis_clients._async_clients
    del loop
    gc.collect()
    wait_for(lambda: connections(server) == before)


def test_another_thread_opens_and_closes_loops_meanwhile(server, monkeypatch):
    class Loop:
        def is_closed(self):
            del clients[self]
            clients[object()] = clients[object()] = None
            return True

    clients = {Loop(): None, Loop(): None}
    monkeypatch.setattr(redis_clients, "_async_clients", clients)
    assert asyncio.run(story()) == {"cart": ["teapot"]}
    assert not any(isinstance(loop, Loop) for loop in clients)


# Over what connections.


def test_a_unix_socket(drive):
    with Server(*FORGETFUL, "--unixsocket", "socket") as server:
        before = connections_ever(server)
        with sessions_in(f"unix://{server.folder}/socket?db=2"):
            works(drive)
            stored = SessionStore()
            stored.save()
            assert {client["db"] for client in server.client.client_list()} == {"0", "2"}
        assert connections_ever(server) > before
        assert server.client.info("keyspace")["db2"]["keys"] == 1


@pytest.mark.parametrize("where", ["location", "options"])
def test_a_password_and_the_number_of_a_database(drive, where):
    with Server(*FORGETFUL, password="secret") as server:
        if where == "location":
            alias = sessions_in(f"redis://:secret@{HOST}:{server.port}/3")
        else:
            alias = sessions_in(f"redis://{HOST}:{server.port}/3", PASSWORD="secret")
        with alias:
            works(drive)
            drive(SessionStore(), "save")
        assert server.client.info("keyspace")["db3"]["keys"] == 1


def test_a_cache_of_django_itself(drive, server):
    with sessions_in(server.url, "django.core.cache.backends.redis.RedisCache", socket_timeout=5):
        works(drive)


def test_a_cache_that_is_no_redis(drive):
    with (
        sessions_in("", "django.core.cache.backends.locmem.LocMemCache"),
        pytest.raises(ImproperlyConfigured, match="has not one Redis behind it"),
    ):
        drive(SessionStore(), "save")


# TLS. Not every server that we test with was built with it, so a proxy has it in their place.


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "ours")


def tls_of(authority):
    """For servers, which ask who comes for a certificate, too."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.certificate)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(*authority.issue("server"))
    return tls


@pytest.fixture
def secure(server, authority):
    with Proxy(server, tls_of(authority)) as proxy:
        yield proxy


def test_tls(drive, authority, secure):
    certificate, key = authority.issue("client")
    options = {
        "ssl_ca_certs": str(authority.certificate),
        "ssl_certfile": str(certificate),
        "ssl_keyfile": str(key),
    }
    with sessions_in(secure.url, CONNECTION_POOL_KWARGS=options):
        works(drive)
    assert secure.heard


def test_tls_with_a_cache_of_django_itself(drive, authority, secure):
    certificate, key = authority.issue("client")
    options = {
        "ssl_ca_certs": str(authority.certificate),
        "ssl_certfile": str(certificate),
        "ssl_keyfile": str(key),
    }
    with sessions_in(secure.url, "django.core.cache.backends.redis.RedisCache", **options):
        works(drive)


@pytest.fixture
def secure_cluster(authority):
    """A Cluster of one, which says that it is where its proxy is."""
    node = Server(*FORGETFUL, "--cluster-enabled", "yes", bus=True)
    with Proxy(node, tls_of(authority)) as proxy:
        node.options += ["--cluster-announce-ip", HOST]
        node.options += ["--cluster-announce-port", str(proxy.port)]
        with node:
            node.client.execute_command("CLUSTER ADDSLOTS", *range(16384))
            wait_for(lambda: node.client.cluster("INFO")["cluster_state"] == "ok")
            yield proxy


def test_tls_with_a_cluster(drive, authority, secure_cluster):
    factory = "django_sessionkit.backends.redis_clients.ClusterConnectionFactory"
    certificate, key = authority.issue("client")
    options = {
        "ssl_ca_certs": str(authority.certificate),
        "ssl_certfile": str(certificate),
        "ssl_keyfile": str(key),
    }
    location = f"rediss://{HOST}:{secure_cluster.port}"
    with sessions_in(location, CONNECTION_FACTORY=factory, REDIS_CLIENT_KWARGS=options):
        works(drive)


@pytest.mark.parametrize("doubt", ["of the server", "of the client"])
def test_nothing_is_said_to_a_stranger(drive, authority, secure, doubt, tmp_path):
    certificate, key = authority.issue("client")
    options = {
        "ssl_ca_certs": str(authority.certificate),
        "ssl_certfile": str(certificate),
        "ssl_keyfile": str(key),
    }
    if doubt == "of the server":
        options["ssl_ca_certs"] = str(Authority(tmp_path / "theirs").certificate)
    else:
        del options["ssl_certfile"], options["ssl_keyfile"]
    with (
        sessions_in(secure.url, CONNECTION_POOL_KWARGS=options),
        pytest.raises(StoreUnavailable),
    ):
        drive(SessionStore(), "save")
    assert not secure.heard


@pytest.fixture
def go_away_in(monkeypatch):
    """Cancel what a function begins while a verb is under way, as a server does with the request of
    a client that is gone; and wait for what goes on all the same."""

    def go_away_in(name, begin):
        verb = getattr(SessionStore, name)

        async def story():
            begun, go_on = asyncio.Event(), asyncio.Event()

            async def slowly(*args):
                begun.set()
                await go_on.wait()
                return await verb(*args)

            monkeypatch.setattr(SessionStore, name, staticmethod(slowly))
            request = asyncio.create_task(begin())
            await begun.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            go_on.set()
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

        asyncio.run(story())

    return go_away_in


@pytest.mark.django_db(transaction=True)
@pytest.mark.standard("ASVS-16.5.3")
def test_a_visitor_who_goes_away_leaves_no_half_of_a_new_key(go_away_in):
    """Between the row and the store."""
    session = SessionStore()
    session[SESSION_KEY] = str(get_user_model().objects.create_user("alice").pk)
    session.save()
    go_away_in("amove", session.acycle_key)
    assert UserSession.objects.get().digest == digest_of(session.session_key)
    assert SessionStore(session.session_key).handle == session.handle


@pytest.mark.django_db(transaction=True)
@pytest.mark.standard("ASVS-16.5.3")
def test_a_visitor_who_goes_away_leaves_no_half_of_a_sign_in(go_away_in):
    """The same, where the end of the request writes what a view has done by hand."""
    user = get_user_model().objects.create_user("alice")
    session = SessionStore()
    session.create()
    key = session.session_key

    async def view(request):
        await request.session.aset(SESSION_KEY, str(user.pk))
        return HttpResponse()

    request = RequestFactory(HTTP_COOKIE=f"sessionid={key}").get("/")
    go_away_in("amove", lambda: SessionMiddleware(view)(request))
    assert request.session.session_key != key
    assert SessionStore(request.session.session_key).handle == UserSession.objects.get().pk


@pytest.mark.parametrize("kind", ["text", "list", "nothing"])
def test_what_somebody_else_has_written_in_place_of_an_epoch_is_none(drive, server, stored, kind):
    key = redis_scripts.epoch_key_of(digest_of(stored.session_key))
    SessionStore.note_epoch(7)
    assert drive(SessionStore, "read", digest_of(stored.session_key)).epoch == 7
    server.client.delete(key)
    if kind == "text":
        server.client.set(key, "seven")
    elif kind == "list":
        server.client.rpush(key, 7)
    assert drive(SessionStore, "read", digest_of(stored.session_key)).epoch == 0
    SessionStore.note_epoch(8)
    assert drive(SessionStore, "read", digest_of(stored.session_key)).epoch == 8
