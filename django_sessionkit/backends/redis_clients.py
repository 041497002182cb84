"""
The Redis behind SESSION_CACHE_ALIAS: its client and the async twin of that, alone, behind Sentinel
or as a Cluster; and a circuit breaker: a Redis that did not answer is left alone for a moment.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from functools import cache, partial
from operator import methodcaller
from threading import Lock
from typing import Any, ClassVar, NamedTuple, Self

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.sentinel
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import get_key_func
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from redis import exceptions
from redis.asyncio.cluster import RedisCluster as AsyncRedisCluster
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

# Seconds for which requests leave a Redis alone that did not answer. Then one of them tries again.
HOLD = 1.0
NO_ANSWER = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.RedisClusterException,
)
# The texts of the errors of an empty pool, which not always is a MaxConnectionsError.
POOL_IS_EMPTY = ("Too many connections", "No connection available.")
# A Cluster is asked once more, for another node may have taken over. redis-py would ask ten times
# more, and wait for as many timeouts.
RETRIES = 1
# Connections of one event loop; in a Cluster, of one event loop to each node.
CONNECTIONS = 50
# The options of a sync connection that an async connection has, too.
SAME_FOR_BOTH = [
    *["host", "port", "path", "db", "username", "password", "client_name", "credential_provider"],
    *["socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_keepalive_options"],
    *["health_check_interval", "protocol"],
    *["ssl_keyfile", "ssl_certfile", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_data", "ssl_ca_path"],
    *["ssl_check_hostname", "ssl_min_version", "ssl_ciphers", "ssl_password"],
    *["ssl_include_verify_flags", "ssl_exclude_verify_flags"],
]
NOT_IN_CLUSTER = ["host", "port", "path", "db", "ssl_ca_path", "ssl_password"]


# For each node of a Cluster, or for "", the one Redis: has commands wait where the pools of
# redis.asyncio would fail, one connection for a command.
Rooms = defaultdict[str, asyncio.Semaphore]
# What a verb asks of Redis: a function of the client, which is a sync or an async one, and the key
# that it is about, which in a Cluster says which node is asked.
Question = tuple[Callable[[Any], Any], str]


def ask(question: Question) -> Any:
    """Return what the sync client answers. Raises an error of redis-py."""
    if _is_cluster:
        return _ask_node(_client, *question)
    if line.dead_until:
        line.take()
    try:
        answer = question[0](_client or sync_client())
    except Exception as error:
        line.failed(error)
        if pool := _pool_to_leave(sync_client(), error):
            pool.disconnect(inuse_connections=False)
        raise
    line.dead_until = 0.0
    return answer


async def aask(question: Question) -> Any:
    """Return what the async client of this event loop answers. See ask()."""
    client, rooms, _keeper = await async_client()
    if _is_cluster:
        return await _aask_node(client, rooms, *question)
    async with rooms[""]:
        if line.dead_until:
            line.take()
        try:
            answer = await question[0](client)
        except Exception as error:
            line.failed(error)
            if pool := _pool_to_leave(client, error):
                await pool.disconnect(inuse_connections=False)
            raise
        line.dead_until = 0.0
        return answer


def _ask_node(client: RedisCluster, call: Callable[[Any], Any], key: str) -> Any:
    """Do what ask() does, by the line to the node of a Cluster that has the key."""
    node = node_of(client, key)
    if dead := dead_lines.get(node):
        dead.take()
    try:
        answer = call(client)
    except Exception as error:
        _node_failed(client, key, node, error)
        raise
    dead_lines.pop(node, None)
    return answer


async def _aask_node(
    client: AsyncRedisCluster, rooms: Rooms, call: Callable[[Any], Any], key: str
) -> Any:
    """See _ask_node()."""
    # A new event loop does not know the nodes yet.
    node = node_of(client, key) or node_of(sync_client(), key)
    async with rooms[node]:
        if dead := dead_lines.get(node):
            dead.take()
        try:
            if client.get_default_node() is None:
                # Otherwise redis-py asks any primary, to be told which one it is.
                await client.initialize()
            answer = await call(client)
        except Exception as error:
            _node_failed(client, key, node, error)
            raise
        dead_lines.pop(node, None)
        return answer


def ask_nodes(command: str, keys: Collection[str], *args: int) -> dict[str, Any]:
    """
    Ask a command of each of these keys, each node of a Cluster in one round trip. Return the
    answers by key, as far as there are any: a node may not answer, and a key may have moved.

    A pipeline of redis-py's Cluster asks a node that hangs again for each key, and waits each time.
    """

    def send(client: Any, part: Collection[str]) -> Any:
        pipeline = client.pipeline(transaction=False)
        for key in part:
            pipeline.execute_command(command, key, *args)
        return pipeline.execute(raise_on_error=False)

    client = sync_client()
    if isinstance(client, RedisCluster) and len(keys) > 2:  # fewer are asked in no time by ask()
        return _ask_each_node(client, keys, send)
    return {}


def ask_script(
    text: str, sha: str, count: int, calls: Mapping[str, Sequence[Any]]
) -> tuple[dict[str, Any], Exception | None]:
    """
    Call a script for each of these keys, with so many keys in all, which are of one hash tag, and
    its arguments. Each server is asked in one round trip. Return the answers by key, and the last
    error of a node of a Cluster that does not answer. Raises an error of redis-py.
    """

    def send(client: Any, part: Collection[str]) -> Any:
        pipeline = client.pipeline(transaction=False)
        for number, key in enumerate(part):
            # The first one teaches the server the script.
            script = ("EVALSHA", sha) if number else ("EVAL", text)
            pipeline.execute_command(*script, count, key, *calls[key])
        return pipeline.execute(raise_on_error=False)

    client = sync_client()
    if not isinstance(client, RedisCluster):
        got = ask((partial(send, part=calls), ""))
        for error in got:
            if isinstance(error, Exception):
                raise error
        return dict(zip(calls, got, strict=True)), None
    answers, failure = _ask_each_node(client, calls, send), None
    for key in calls.keys() - answers.keys():  # it may have moved to another node
        try:
            answers[key] = ask((methodcaller("eval", text, count, key, *calls[key]), key))
        except NO_ANSWER as error:
            failure = error
    return answers, failure


def _ask_each_node(
    client: RedisCluster, keys: Collection[str], send: Callable[[Any, Collection[str]], Any]
) -> dict[str, Any]:
    """Send a pipeline of one command for each key to its node. Return the answers by key, as far as
    there are any."""
    answers: dict[str, Any] = {}
    parts: dict[str, list[str]] = {}
    for key in keys:
        parts.setdefault(node_of(client, key), []).append(key)
    for name, part in parts.items():
        node = client.get_node(node_name=name)  # type: ignore[no-untyped-call]
        if node is None or name in dead_lines:
            continue
        try:
            got = send(client.get_redis_connection(node), part)
        except NO_ANSWER:
            continue
        found = zip(part, got, strict=True)
        answers |= {key: each for key, each in found if not isinstance(each, Exception)}
    return answers


def ask_node(call: Callable[[Any], Any], node: Any) -> Any:
    """
    Return what one node of a Cluster answers, whatever keys it has. Raises an error of redis-py, at
    once if the node has not answered a moment ago.
    """
    if node.name in dead_lines:
        raise exceptions.ConnectionError("Redis did not answer a moment ago")
    return call(sync_client().get_redis_connection(node))


def is_within_reach(key: str) -> bool:
    """Tell whether the node that has a key, or would have it, is not known to be dead."""
    return not dead_lines or node_of(sync_client(), key) not in dead_lines


def node_of(client: RedisCluster | AsyncRedisCluster, key: str) -> str:
    """Return the name of the node that has a key, or "" if that is not known, or not yet."""
    try:
        node: Any = client.get_node_from_key(key)
    except exceptions.RedisClusterException:
        return ""
    return str(node.name)


def _node_failed(
    client: RedisCluster | AsyncRedisCluster, key: str, node: str, error: Exception
) -> None:
    # After a failure redis-py asks the other nodes who has the key. If that is another node by now,
    # nobody will ask this one again, and the other one has not failed.
    if node_of(client, key) not in ("", node):
        return
    known = dead_lines.setdefault(node, Line())
    known.failed(error)
    if not known.dead_until:
        dead_lines.pop(node, None)


def _pool_to_leave(client: Any, error: Exception) -> Any:
    """
    Return the connections to a Redis that says that it is no primary any more, or None. Its address
    may lead to the new primary by now, but only new connections do. A Cluster finds its primaries
    by itself.
    """
    # Redis 6.2 hides the word in the error of a script.
    was_demoted = isinstance(error, exceptions.ReadOnlyError) or "READONLY" in str(error)
    return getattr(client, "connection_pool", None) if was_demoted else None


class Line:
    """
    The line to Redis. When the line is dead, requests fail at once for a moment, rather than that
    each waits for a timeout and all knock together. Then one of them tries.
    """

    def __init__(self) -> None:
        self.dead_until = 0.0

    def take(self) -> None:
        """Take a line that was dead. Raise ConnectionError if its time is not over yet."""
        if time.monotonic() < self.dead_until:
            raise exceptions.ConnectionError("Redis did not answer a moment ago")
        self.dead_until = time.monotonic() + HOLD  # until this request has an answer

    def failed(self, error: Exception) -> None:
        """Take note of an error: of a dead line, or the answer of a Redis that is there."""
        if isinstance(error, exceptions.ResponseError):
            self.dead_until = 0.0
        elif isinstance(error, NO_ANSWER) and str(error) not in POOL_IS_EMPTY:
            self.dead_until = time.monotonic() + HOLD
        # Any other error says nothing of the line: the question was never sent.


line = Line()
# In a Cluster each node has a line of its own: those that are dead, by the names of their nodes.
dead_lines: dict[str, Line] = {}

# Clients.


# Of the process, kept until CACHES changes: redis-py's clients are made for all threads, and
# Django's way to a cache takes longer than to open a session.
_client: Any = None
_is_cluster = False  # isinstance() takes longer, for classes that are abstract


def sync_client() -> Any:
    """
    Return the client of the primary behind SESSION_CACHE_ALIAS: the client of django-redis (plain,
    Sentinel, or with ClusterConnectionFactory), or that of Django's own Redis cache.

    Raises ImproperlyConfigured or InvalidCacheBackendError where the alias names no such cache.
    """
    global _client, _is_cluster
    if _client is None:
        _client = source().get_client(write=True)
        _is_cluster = isinstance(_client, RedisCluster)
    return _client


def _forget_client(*, setting: str, **kwargs: object) -> None:
    global _client, _is_cluster
    if setting in ("CACHES", "SESSION_CACHE_ALIAS"):
        _client, _is_cluster = None, False
        key_function.cache_clear()


setting_changed.connect(_forget_client)


@cache
def key_function() -> Callable[[str], str] | None:
    """
    Return what makes keys of the site's own by the KEY_FUNCTION of SESSION_CACHE_ALIAS, or None if
    the alias has none. A site with tenants tells their sessions apart by it.
    """
    aliases: Mapping[str, Any] = settings.CACHES
    alias = aliases.get(settings.SESSION_CACHE_ALIAS, {})
    if not alias.get("KEY_FUNCTION"):
        return None
    function = get_key_func(alias["KEY_FUNCTION"])
    prefix, version = alias.get("KEY_PREFIX", ""), alias.get("VERSION", 1)
    return lambda key: function(key, prefix, version)


def source() -> Any:
    """Return what makes the client, without asking Redis for anything. Raises as sync_client()."""
    cache = caches[settings.SESSION_CACHE_ALIAS]
    source = getattr(cache, "client", None) or getattr(cache, "_cache", None)
    # A ShardClient has many primaries, and wants to know which by a key of the cache's own.
    if not hasattr(source, "get_client") or hasattr(source, "get_server_name"):
        raise ImproperlyConfigured(
            f"CACHES[{settings.SESSION_CACHE_ALIAS!r}] has not one Redis behind it: see E012."
        )
    return source


class AsyncClient(NamedTuple):
    client: Any
    rooms: Rooms
    keeper: AsyncGenerator[None, None]


_async_clients: dict[asyncio.AbstractEventLoop, AsyncClient] = {}


async def async_client() -> AsyncClient:
    """
    Return the client of this event loop, with the same connection as sync_client()'s. The client is
    closed with its loop, for redis.asyncio cannot be used from another loop.
    """
    loop = asyncio.get_running_loop()
    if loop not in _async_clients:
        # Other threads do the same with theirs.
        for closed in [other for other in list(_async_clients) if other.is_closed()]:
            _async_clients.pop(closed, None)  # without the warning that _keep() relies on
        client = _twin_of(sync_client())
        rooms = Rooms(partial(asyncio.Semaphore, CONNECTIONS))
        keeper = _keep(loop, client)
        _async_clients[loop] = AsyncClient(client, rooms, keeper)
        await anext(keeper)
    return _async_clients[loop]


async def _keep(loop: asyncio.AbstractEventLoop, client: Any) -> AsyncGenerator[None, None]:
    # A loop that shuts down, as asyncio.run() and servers have it do, closes the asynchronous
    # generators that run on it. Nothing else tells of the loop's end.
    try:
        yield
    finally:
        _async_clients.pop(loop, None)
        await _close(client)


async def _close(client: Any) -> None:
    await client.aclose()
    if isinstance(client, AsyncRedisCluster):
        # After an error, aclose() alone leaves connections open.
        await client.nodes_manager.aclose()
        await client.nodes_manager.aclose("startup_nodes")
    elif manager := getattr(client.connection_pool, "sentinel_manager", None):
        for sentinel in manager.sentinels:
            await sentinel.aclose()


def _twin_of(client: Any) -> Any:
    """Return an async client with the connection of a sync one."""
    if isinstance(client, RedisCluster):
        nodes = client.nodes_manager.startup_nodes.values()
        given = client.nodes_manager.connection_kwargs
        return AsyncCluster(
            startup_nodes=[redis.asyncio.cluster.ClusterNode(n.host, n.port) for n in nodes],
            max_connections=CONNECTIONS,
            retry=redis.asyncio.retry.Retry(NoBackoff(), RETRIES),
            ssl=issubclass(given.get("connection_class", redis.Connection), redis.SSLConnection),
            **_options(given, NOT_IN_CLUSTER),
        )
    pool = client.connection_pool
    options = {"max_connections": CONNECTIONS, **_options(pool.connection_kwargs)}
    secure = issubclass(pool.connection_class, redis.SSLConnection)
    if isinstance(pool, redis.sentinel.SentinelConnectionPool):
        manager = pool.sentinel_manager
        places = [sentinel.connection_pool.connection_kwargs for sentinel in manager.sentinels]
        sentinel = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]
            [(place["host"], place["port"]) for place in places],
            sentinel_kwargs=manager.sentinel_kwargs,
        )
        return sentinel.master_for(pool.service_name, ssl=secure, **options)
    connection: Any = redis.asyncio.SSLConnection if secure else redis.asyncio.Connection
    if "path" in options:
        connection = redis.asyncio.UnixDomainSocketConnection
    return redis.asyncio.Redis.from_pool(
        redis.asyncio.ConnectionPool(connection_class=connection, **options)
    )


class AsyncCluster(AsyncRedisCluster):
    """
    The client of redis-py. When that looks who has which keys now, because a node has failed, all
    commands of the event loop wait. So it must not ask a node that is dead.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands_parser: Any = KeyIsFirst()

    async def initialize(self, *args: Any, **kwargs: Any) -> Self:
        nodes = self.nodes_manager.startup_nodes
        dead = [*dead_lines.keys() & nodes.keys()]
        for name in dead[: len(nodes) - 1]:  # somebody has to be asked
            await nodes.pop(name).disconnect()
        await super().initialize(*args, **kwargs)
        return self


class KeyIsFirst:
    """
    Where our commands have their keys. redis-py asks the first of the primaries, and no other one,
    for the keys of all commands that there are.
    """

    async def initialize(self, node: object = None) -> None:
        pass

    async def get_keys(self, command: str, key: str, *args: object) -> list[str]:
        return [key]


def _options(given: Mapping[str, Any], but_for: Collection[str] = ()) -> dict[str, Any]:
    names = [name for name in SAME_FOR_BOTH if name in given and name not in but_for]
    return {name: given[name] for name in names}


class ClusterConnectionFactory:
    """
    Redis Cluster for the sessions' alias of django-redis, which has no support of its own::

        CACHES = {
            "sessions": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": "redis://10.0.0.1:6379",  # any node
                "OPTIONS": {
                    "CONNECTION_FACTORY":
                        "django_sessionkit.backends.redis_clients.ClusterConnectionFactory",
                    "SOCKET_TIMEOUT": 1,
                },
            },
        }

    PASSWORD, USERNAME, SOCKET_TIMEOUT and SOCKET_CONNECT_TIMEOUT (seconds) are those of
    django-redis; REDIS_CLIENT_KWARGS go to redis.cluster.RedisCluster.
    """

    # Of the process: django-redis has a factory for every thread.
    _clients: ClassVar[dict[str, RedisCluster]] = {}
    _lock: ClassVar = Lock()

    def __init__(self, options: dict[str, Any]) -> None:
        names = ["USERNAME", "PASSWORD", "SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT"]
        self.options = {name.lower(): options[name] for name in names if name in options}
        self.options["retry"] = Retry(NoBackoff(), RETRIES)
        self.options |= options.get("REDIS_CLIENT_KWARGS", {})

    def connect(self, url: str) -> RedisCluster:
        with self._lock:
            if url not in self._clients:
                self._clients[url] = RedisCluster.from_url(url, **self.options)
            return self._clients[url]

    def disconnect(self, connection: RedisCluster) -> None:
        connection.disconnect_connection_pools()  # type: ignore[no-untyped-call]
