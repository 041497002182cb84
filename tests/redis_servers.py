"""
Servers of Redis or Valkey for a single test, which can kill, freeze, fill and restart them: one
server, a server behind a proxy, three servers that Sentinels watch, and a Cluster of six. They are
of the brand of this leg, need no redis-cli, and stop with the test, even if the test is killed.
"""

import contextlib
import select
import signal
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Self
from unittest.mock import patch

import pytest
import redis
from django.conf import settings
from django.core.cache import caches
from django.test import override_settings
from django_redis.pool import ConnectionFactory
from redis.cluster import ClusterNode
from redis.exceptions import RedisClusterException

from django_sessionkit.backends import redis_clients
from django_sessionkit.backends.redis_clients import ClusterConnectionFactory, sync_client
from tests import servers
from tests.servers import HOST

FORGETFUL = ["--save", "", "--appendonly", "no"]
# The server hands every write to the kernel before it answers, so writes survive a kill -9.
DURABLE = ["--save", "", "--appendonly", "yes", "--appendfsync", "no"]
# The timeout of the cache alias, in seconds. This is enough on a busy machine.
SOCKET_TIMEOUT = 2
# Seconds that a test waits at most for what takes a moment on an idle machine.
PATIENCE = 60


@cache
def brand() -> str:
    """Return the brand of this leg's server: "redis" or "valkey"."""
    name: str = sync_client().info("server").get("server_name", "redis")
    return name


class Server:
    """
    A server on a port of its own, of the brand of this leg or another. After a restart, the port is
    the same.
    """

    process: "subprocess.Popen[bytes]"

    def __init__(
        self,
        *options: str,
        bus: bool = False,
        password: str | None = None,
        of_brand: str | None = None,
    ) -> None:
        self.program = str(servers.redis_program(of_brand or brand()))
        self.options = [*options, *(["--requirepass", password] if password else [])]
        self.bus, self.password = bus, password
        self.folder = servers._temporary_folder()
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self.client.close()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self, loaded: bool = True) -> None:
        """
        Start the server, and wait until it has loaded its data. Unless ``loaded``, wait only until
        the server answers.
        """
        for _ in range(1 if self.port else 5):
            port = self.port or _port(self.bus)
            # For tests to look into the server, and to change its state.
            self.client: Any = redis.Redis(
                host=HOST, port=port, password=self.password, socket_timeout=PATIENCE, protocol=2
            )
            # SIGKILL, because SIGTERM does not end a frozen server when the test run is killed.
            with self.log.open("ab") as log:
                command = [self.program, *self.options, "--port", str(port), "--bind", HOST]
                self.process = servers._spawn(
                    command, self.folder, log=log.fileno(), stop=signal.SIGKILL
                )
            if servers._came_up(self.process, lambda: self._is_up(loaded)):
                self.port = port
                return
            self.kill()
        raise RuntimeError(f"{self.program} did not come up:\n{servers._end_of(self.log)}")

    def kill(self) -> None:
        """Kill the server, as the kernel does when it runs out of memory."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Stop the server from answering. The kernel still accepts connections for it."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def _is_up(self, loaded: bool) -> bool:
        with contextlib.suppress(redis.RedisError):
            info = self.client.info()
            # Another server may have taken the port, which was free a moment ago.
            mine: bool = info["process_id"] == self.process.pid
            return mine and not (loaded and info.get("loading"))
        return False


def _port(bus: bool = False) -> int:
    """
    Return a free port. With a bus, which a Cluster has, the port 10000 above it is free, too, and
    is below the ports of outgoing connections.
    """
    while True:
        port = servers.free_port()
        if not bus:
            return port
        if port + 10_000 < 32768:
            with contextlib.suppress(OSError), socket.create_server((HOST, port + 10_000)):
                return port


def wait_for(happens: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until a function returns something true. An error of Redis means "not yet"."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError, RedisClusterException):
            if happens():
                return
        assert time.monotonic() < deadline, f"not within {seconds} seconds"
        time.sleep(0.02)


@contextlib.contextmanager
def sessions_in(
    location: str,
    backend: str = "django_redis.cache.RedisCache",
    key_function: str | None = None,
    **options: Any,
) -> Iterator[None]:
    """Let the cache alias of the sessions lead to this server, with these OPTIONS."""
    if backend.startswith("django_redis."):
        timeouts = {"SOCKET_TIMEOUT": SOCKET_TIMEOUT, "SOCKET_CONNECT_TIMEOUT": SOCKET_TIMEOUT}
        options = {**timeouts, **options}
    alias = {"BACKEND": backend, "LOCATION": location, "KEY_PREFIX": "cache", "OPTIONS": options}
    if key_function:
        alias["KEY_FUNCTION"] = key_function
    name = settings.SESSION_CACHE_ALIAS
    with contextlib.ExitStack() as stack:
        # These caches of clients go by the URL alone. An earlier server may have had the same port,
        # and no password.
        for known in (ConnectionFactory._pools, ClusterConnectionFactory._clients):
            stack.enter_context(patch.dict(known, clear=True))
        stack.enter_context(override_settings(CACHES={**settings.CACHES, name: alias}))
        yield
        if client := getattr(caches[name], "client", None):
            client.do_close_clients()


def fresh_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget which lines to Redis are dead, and let no later test know which ones become so."""
    monkeypatch.setattr(redis_clients, "line", redis_clients.Line())
    monkeypatch.setattr(redis_clients, "dead_lines", {})


class LineClock:
    """The clock of the lines to Redis, for which a test need not wait."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def tick(self) -> None:
        """Let the moment pass for which nobody knocks again."""
        self.now += redis_clients.HOLD


class Proxy(socketserver.ThreadingTCPServer):
    """A proxy that notes all bytes on the way to a server. It may use TLS."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, server: Server, tls: ssl.SSLContext | None = None) -> None:
        super().__init__((HOST, servers.free_port()), _Passage)
        self.server, self.tls = server, tls
        self.connections = 0
        # The bytes, in order, each with whether they came from the client.
        self.heard: list[tuple[bool, bytes]] = []
        self.open: set[socket.socket] = set()
        self.thread = threading.Thread(target=self.serve_forever, args=[0.05])

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        for end in list(self.open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.server_close()  # waits for the threads of the connections
        self.thread.join()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://{HOST}:{self.port}/0"


class _Passage(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        self.server.connections += 1
        # Errors are part of some tests: a certificate that is not trusted, a server that is down.
        with contextlib.suppress(OSError), contextlib.ExitStack() as ends:
            client: socket.socket = self.request
            if self.server.tls:
                client = ends.enter_context(self.server.tls.wrap_socket(client, server_side=True))
            to = (HOST, self.server.server.port)
            server = ends.enter_context(socket.create_connection(to))
            pair = {client, server}
            self.server.open |= pair
            ends.callback(self.server.open.difference_update, pair)
            self.carry(client, server)

    def carry(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            readable, _, _ = select.select([client, server], [], [])
            for source in readable:
                data = source.recv(65536)
                while isinstance(source, ssl.SSLSocket) and source.pending():
                    data += source.recv(source.pending())
                if not data:
                    return
                self.server.heard.append((source is client, data))
                (server if source is client else client).sendall(data)


class Topology(NamedTuple):
    """Servers that can replace each other, and the cache alias that finds the right server."""

    nodes: list[Server]
    location: str
    options: dict[str, Any]

    def primaries(self) -> list[Server]:
        return [node for node in self.nodes if _role(node) == b"master"]

    def replicas(self) -> list[Server]:
        return [node for node in self.nodes if _role(node) == b"slave"]

    def wait_until_replicated(self) -> None:
        """Wait until the replicas have everything that the primaries have right now."""
        written = {
            node.port: node.client.info("replication")["master_repl_offset"]
            for node in self.primaries()
        }
        replicas = self.replicas()
        wait_for(lambda: all(_has(replica, written) for replica in replicas))


# Replicate at once, instead of waiting for more replicas.
AT_ONCE = ["--repl-diskless-sync-delay", "0"]


@contextlib.contextmanager
def sentinels() -> Iterator[Topology]:
    """Run a primary and two replicas, and three Sentinels that watch them."""
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(Server(*FORGETFUL, *AT_ONCE))
        replica_of = ["--replicaof", HOST, str(primary.port)]
        replicas = [
            stack.enter_context(Server(*FORGETFUL, *AT_ONCE, *replica_of)) for _ in range(2)
        ]
        name = f"primary{primary.port}"  # unique, because pools of django-redis go by the URL
        rules = {
            "monitor": f"{HOST} {primary.port} 2",
            "down-after-milliseconds": 1000,
            "failover-timeout": 3000,
            "parallel-syncs": 2,
        }
        guards = [Server("sentinel.conf", "--sentinel") for _ in range(3)]
        for guard in guards:
            # Sentinels need a file, because they write into it what they learn.
            lines = [f"sentinel {rule} {name} {value}\n" for rule, value in rules.items()]
            (guard.folder / "sentinel.conf").write_text("".join(lines))
            stack.enter_context(guard)
        wait_for(lambda: all(map(_follows, replicas)))
        wait_for(lambda: all(_knows_all(guard, name) for guard in guards))
        yield Topology(
            [primary, *replicas],
            f"redis://{name}/0",
            {
                "CLIENT_CLASS": "django_redis.client.SentinelClient",
                "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
                "SENTINELS": [(HOST, guard.port) for guard in guards],
            },
        )


@contextlib.contextmanager
def cluster(node_timeout: int = 1000) -> Iterator[Topology]:
    """
    Run a Cluster of three primaries, with a replica each. A replica replaces its primary after so
    many milliseconds without a sign of life.
    """
    options = [*FORGETFUL, *AT_ONCE, "--cluster-enabled", "yes"]
    options += [
        "--cluster-node-timeout",
        str(node_timeout),
        "--cluster-replica-validity-factor",
        "0",
    ]
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(Server(*options, bus=True)) for _ in range(6)]
        primaries, replicas = nodes[:3], nodes[3:]
        slots = [range(5461), range(5461, 10923), range(10923, 16384)]
        for number, (node, its_slots) in enumerate(zip(primaries, slots, strict=True), start=1):
            node.client.execute_command("CLUSTER ADDSLOTS", *its_slots)
            node.client.execute_command("CLUSTER SET-CONFIG-EPOCH", number)
        for node in nodes[1:]:
            nodes[0].client.execute_command("CLUSTER MEET", HOST, node.port)
        for node, primary in zip(replicas, primaries, strict=True):
            # This fails until the node has heard of the primary.
            name = primary.client.execute_command("CLUSTER MYID")
            wait_for(partial(node.client.execute_command, "CLUSTER REPLICATE", name))
        wait_for(lambda: all(map(_follows, replicas)))
        wait_for(lambda: all(map(_is_complete, nodes)))
        factory = "django_sessionkit.backends.redis_clients.ClusterConnectionFactory"
        yield Topology(nodes, f"redis://{HOST}:{nodes[0].port}", {"CONNECTION_FACTORY": factory})


def node_at(server: Server) -> ClusterNode:
    """Return a server of a Cluster as redis-py is told of it."""
    return ClusterNode(HOST, server.port)


def _role(node: Server) -> bytes | None:
    with contextlib.suppress(redis.ConnectionError):
        role: bytes = node.client.role()[0]
        return role
    return None  # the node was killed


def _follows(replica: Server) -> bool:
    return bool(replica.client.info("replication")["master_link_status"] == "up")


def _has(replica: Server, written: dict[int, int]) -> bool:
    state = replica.client.info("replication")
    return bool(state["slave_repl_offset"] >= written[state["master_port"]])


def _knows_all(sentinel: Server, name: str) -> bool:
    known = sentinel.client.sentinel_master(name)
    return (known["num-slaves"], known["num-other-sentinels"]) == (2, 2)


def _is_complete(node: Server) -> bool:
    state = node.client.cluster("INFO")["cluster_state"]
    members = node.client.cluster("NODES").values()
    return state == "ok" and sum("slave" in member["flags"] for member in members) == 3
