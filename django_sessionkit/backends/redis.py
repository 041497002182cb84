"""
The storage verbs on Redis or Valkey, through a cache alias of django-redis (SESSION_CACHE_ALIAS).

One string per session, under a digest: 8 bytes of ``touched_at``, then the payload; Redis expires
it. What has to be atomic is a script on that one key, so that this runs on Redis 6.2 and later and
on Valkey, alone, behind Sentinel and in a Cluster. The cache's own serializer, compressor and key
prefix are not involved, and a replica is never asked: it lags.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterable, Mapping
from threading import Lock
from typing import Any, ClassVar, NamedTuple, TypeVar

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
from django.conf import settings
from django.core.cache import InvalidCacheBackendError, caches
from django.core.exceptions import ImproperlyConfigured
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from django_sessionkit.backends import base
from django_sessionkit.backends.base import Stored
from django_sessionkit.conf import conf
from django_sessionkit.sealing import NONCE

logger = logging.getLogger("django.security.SuspiciousSession")

T = TypeVar("T")

# Seconds for which nobody knocks again at a Redis that did not answer; then one request does.
HOLD = 1.0
NO_ANSWER = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.RedisClusterException,
)
# Not always a MaxConnectionsError.
POOL_IS_EMPTY = ("Too many connections", "No connection available.")
# A Cluster is asked once more, for another node may have taken over. redis-py would ask ten times
# more, and wait for as many timeouts.
RETRIES = 1
# Connections of one event loop, or, in a Cluster, of one to each node.
CONNECTIONS = 50
# What a sync connection is made with and an async one can be.
SAME_FOR_BOTH = [
    *["host", "port", "path", "db", "username", "password", "client_name", "credential_provider"],
    *["socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_keepalive_options"],
    *["health_check_interval", "protocol"],
    *["ssl_keyfile", "ssl_certfile", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_data", "ssl_ca_path"],
    *["ssl_check_hostname", "ssl_min_version", "ssl_ciphers", "ssl_password"],
    *["ssl_include_verify_flags", "ssl_exclude_verify_flags"],
]
NOT_IN_CLUSTER = ["host", "port", "path", "db", "ssl_ca_path", "ssl_password"]


class Script(NamedTuple):
    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> "Script":
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


STAMP = 8  # bytes of touched_at
# What is no string was written by somebody else: no session is there.
IS_THERE = "redis.call('TYPE', KEYS[1]).ok == 'string'"
VERSION = f"redis.call('GETRANGE', KEYS[1], {STAMP}, {STAMP + NONCE - 1})"
# ARGV: the version that is expected, the payload, when it expires, or nothing: as before.
REPLACE = Script.of(f"""
if not ({IS_THERE} and {VERSION} == ARGV[1]) then return 0 end
local stamp = redis.call('GETRANGE', KEYS[1], 0, {STAMP - 1})
if ARGV[3] then
    redis.call('SET', KEYS[1], stamp .. ARGV[2], 'PXAT', ARGV[3])
else
    redis.call('SET', KEYS[1], stamp .. ARGV[2], 'KEEPTTL')
end
return 1
""")
# ARGV: the version that is expected. A Redis that is full refuses the APPEND, and with it the rest:
# else the old key of a session could go when the new one could not be written.
TAKE = Script.of(f"""
if not ({IS_THERE} and {VERSION} == ARGV[1]) then return 0 end
redis.call('APPEND', KEYS[1], '')
redis.call('DEL', KEYS[1])
return 1
""")
# ARGV: touched_at, when it expires. SETRANGE alone would make a key that is gone. A Redis that is
# full refuses it, and nobody should be kept from reading by that: the session just stays due.
TOUCH = Script.of(f"""
if not ({IS_THERE}) then return 0 end
redis.pcall('SETRANGE', KEYS[1], 0, ARGV[1])
redis.call('PEXPIREAT', KEYS[1], ARGV[2])
return 1
""")


# What a verb asks of Redis: functions of a client, sync or async, yielded one after the other.
Asking = Generator[Callable[[Any], Any], Any, T]


class SessionStore(base.SessionStore):
    unavailable: ClassVar = (
        *base.SessionStore.unavailable,
        exceptions.RedisError,
        exceptions.RedisClusterException,
    )
    native_async = True

    @classmethod
    def check(cls, ask: bool) -> Iterable[tuple[str, dict[str, Any]]]:
        try:
            client = sync_client() if ask else _source()
        except (ImproperlyConfigured, InvalidCacheBackendError):
            return [("E012", {"alias": settings.SESSION_CACHE_ALIAS})]
        if not ask:
            return []
        try:
            if isinstance(client, redis.cluster.RedisCluster):
                nodes = client.get_primaries()  # type: ignore[no-untyped-call]
                answers = [client.info("memory", target_nodes=node) for node in nodes]
            else:
                answers = [client.info("memory")]
        except cls.unavailable:
            return []  # the site will say so
        policies = {answer["maxmemory_policy"] for answer in answers} - {"noeviction"}
        return [("W009", {"policy": policy}) for policy in policies]

    @classmethod
    def read(cls, digest: str) -> Stored | None:
        return _ask(_read(digest))

    @classmethod
    async def aread(cls, digest: str) -> Stored | None:
        return await _aask(_read(digest))

    @classmethod
    def insert(cls, digest: str, payload: bytes, now: int, expires_at: int) -> bool:
        return _ask(_insert(digest, payload, now, expires_at))

    @classmethod
    async def ainsert(cls, digest: str, payload: bytes, now: int, expires_at: int) -> bool:
        return await _aask(_insert(digest, payload, now, expires_at))

    @classmethod
    def replace(cls, digest: str, payload: bytes, expires_at: int | None, expected: bytes) -> bool:
        return _ask(_replace(digest, payload, expires_at, expected))

    @classmethod
    async def areplace(
        cls, digest: str, payload: bytes, expires_at: int | None, expected: bytes
    ) -> bool:
        return await _aask(_replace(digest, payload, expires_at, expected))

    @classmethod
    def move(
        cls, old: str, new: str, payload: bytes, now: int, expires_at: int, expected: bytes
    ) -> bool:
        return _ask(_move(old, new, payload, now, expires_at, expected))

    @classmethod
    async def amove(
        cls, old: str, new: str, payload: bytes, now: int, expires_at: int, expected: bytes
    ) -> bool:
        return await _aask(_move(old, new, payload, now, expires_at, expected))

    @classmethod
    def touch(cls, digest: str, now: int, expires_at: int) -> bool:
        return _ask(_run(TOUCH, digest, _stamp(now), expires_at))

    @classmethod
    async def atouch(cls, digest: str, now: int, expires_at: int) -> bool:
        return await _aask(_run(TOUCH, digest, _stamp(now), expires_at))

    @classmethod
    def remove(cls, digests: Collection[str]) -> None:
        _ask(_remove(digests))

    @classmethod
    async def aremove(cls, digests: Collection[str]) -> None:
        await _aask(_remove(digests))

    @classmethod
    def peek(cls, digests: Collection[str]) -> set[str]:
        return _ask(_peek(digests))

    @classmethod
    async def apeek(cls, digests: Collection[str]) -> set[str]:
        return await _aask(_peek(digests))


# The verbs, once for both kinds of client.


def _read(digest: str) -> Asking[Stored | None]:
    try:
        value = yield lambda client: client.get(_key(digest))
    except exceptions.ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        logger.warning("Something that is no string lies where a session should, and was ignored")
        return None
    return None if value is None else Stored(value[STAMP:], int.from_bytes(value[:STAMP]))


def _insert(digest: str, payload: bytes, now: int, expires_at: int) -> Asking[bool]:
    value = _stamp(now) + payload
    return bool((yield lambda client: client.set(_key(digest), value, nx=True, pxat=expires_at)))


def _replace(digest: str, payload: bytes, expires_at: int | None, expected: bytes) -> Asking[bool]:
    until = () if expires_at is None else (expires_at,)
    return (yield from _run(REPLACE, digest, expected, payload, *until))


def _move(
    old: str, new: str, payload: bytes, now: int, expires_at: int, expected: bytes
) -> Asking[bool]:
    value = _stamp(now) + payload

    def write(client: Any) -> Any:
        return client.set(_key(new), value, pxat=expires_at)

    def take(client: Any) -> Any:
        # The text, not its hash: a pipeline cannot answer "no such script" half-way.
        return client.eval(TAKE.text, 1, _key(old), expected)

    def both(client: Any) -> Any:
        pipeline = client.pipeline(transaction=False)
        write(pipeline)
        take(pipeline)
        return pipeline.execute()

    if isinstance(sync_client(), redis.cluster.RedisCluster):
        # Two nodes: one that is down must not cost the session what the other one has.
        yield write
        taken = yield take
    else:
        _written, taken = yield both
    if not taken:
        yield from _remove([new])
    return bool(taken)


def _run(script: Script, digest: str, *args: bytes | int) -> Asking[bool]:
    try:
        done = yield lambda client: client.evalsha(script.sha, 1, _key(digest), *args)
    except exceptions.NoScriptError:  # a new server, a failover, SCRIPT FLUSH; EVAL keeps it
        done = yield lambda client: client.eval(script.text, 1, _key(digest), *args)
    return bool(done)


def _remove(digests: Collection[str]) -> Asking[None]:
    if digests:
        yield lambda client: client.delete(*map(_key, digests))


def _peek(digests: Collection[str]) -> Asking[set[str]]:
    def exist(client: Any) -> Any:
        pipeline = client.pipeline(transaction=False)
        for digest in digests:
            pipeline.exists(_key(digest))
        return pipeline.execute()

    there = yield exist
    return {digest for digest, alive in zip(digests, there, strict=True) if alive}


def _key(digest: str) -> str:
    return f"{conf.SESSIONKIT_REDIS_PREFIX}{digest}"


def _stamp(milliseconds: int) -> bytes:
    return milliseconds.to_bytes(STAMP)


# Asking.


def _ask(asking: Asking[T]) -> T:
    try:
        request = next(asking)
        while True:
            try:
                with _line:
                    client = sync_client()
                    answer = request(client)
            except Exception as error:
                if _was_demoted(error):
                    client.connection_pool.disconnect(inuse_connections=False)
                request = asking.throw(error)
            else:
                request = asking.send(answer)
    except StopIteration as stop:
        value: T = stop.value
        return value


async def _aask(asking: Asking[T]) -> T:
    try:
        request = next(asking)
        while True:
            try:
                client, room, _keeper = await async_client()
                async with room:
                    with _line:
                        answer = await request(client)
            except Exception as error:
                if _was_demoted(error):
                    await client.connection_pool.disconnect(inuse_connections=False)
                request = asking.throw(error)
            else:
                request = asking.send(answer)
    except StopIteration as stop:
        value: T = stop.value
        return value


def _was_demoted(error: Exception) -> bool:
    """
    Tell whether this came from a primary that is one no longer. Its address may lead to the new one
    by now, but only new connections do. Redis 6.2 says it somewhere in the error of a script.
    """
    return isinstance(error, exceptions.ReadOnlyError) or "READONLY" in str(error)


class Line:
    """
    The line to Redis. When it is dead, requests fail at once for a moment, rather than to wait for
    a timeout each and to knock all together; then one of them tries.
    """

    def __init__(self) -> None:
        self.dead_until = 0.0

    def __enter__(self) -> None:
        if self.dead_until:
            if time.monotonic() < self.dead_until:
                raise exceptions.ConnectionError("Redis did not answer a moment ago")
            self.dead_until = time.monotonic() + HOLD  # the others wait for this one

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, exceptions.ResponseError):
            self.dead_until = 0.0
        elif isinstance(error, NO_ANSWER) and str(error) not in POOL_IS_EMPTY:
            self.dead_until = time.monotonic() + HOLD
        # Else it was given up, or never sent: nobody knows.


_line = Line()


# Clients.


def sync_client() -> Any:
    """
    Return the client of the primary behind SESSION_CACHE_ALIAS: django-redis' (plain, Sentinel, or
    with ClusterConnectionFactory) or that of Django's own Redis cache.
    """
    return _source().get_client(write=True)


def _source() -> Any:
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
    # Waits where redis.asyncio's pools would fail: each command has one of its connections.
    room: asyncio.Semaphore
    keeper: AsyncGenerator[None, None]


_async_clients: dict[asyncio.AbstractEventLoop, AsyncClient] = {}


async def async_client() -> AsyncClient:
    """
    Return a client for this event loop, with the same connection as sync_client()'s. It is closed
    with its loop: redis.asyncio cannot be used from another one.
    """
    loop = asyncio.get_running_loop()
    if loop not in _async_clients:
        # Other threads do the same with theirs.
        for closed in [other for other in list(_async_clients) if other.is_closed()]:
            _async_clients.pop(closed, None)  # without the warning that _keep() relies on
        client = _twin_of(sync_client())
        keeper = _keep(loop, client)
        _async_clients[loop] = AsyncClient(client, asyncio.Semaphore(CONNECTIONS), keeper)
        await anext(keeper)
    return _async_clients[loop]


async def _keep(loop: asyncio.AbstractEventLoop, client: Any) -> AsyncGenerator[None, None]:
    # A loop that shuts down, as asyncio.run() and the servers have it do, closes the asynchronous
    # generators that run on it: the only word that it gives of its end.
    try:
        yield
    finally:
        _async_clients.pop(loop, None)
        await client.aclose()
        if isinstance(client, redis.asyncio.cluster.RedisCluster):
            # After an error that was not enough.
            await client.nodes_manager.aclose()
            await client.nodes_manager.aclose("startup_nodes")
        elif manager := getattr(client.connection_pool, "sentinel_manager", None):
            for sentinel in manager.sentinels:
                await sentinel.aclose()


def _twin_of(client: Any) -> Any:
    """Return an async client with the connection of a sync one."""
    if isinstance(client, redis.cluster.RedisCluster):
        nodes = client.nodes_manager.startup_nodes.values()
        given = client.nodes_manager.connection_kwargs
        return redis.asyncio.cluster.RedisCluster(
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
                        "django_sessionkit.backends.redis.ClusterConnectionFactory",
                    "SOCKET_TIMEOUT": 1,
                },
            },
        }

    PASSWORD, USERNAME, SOCKET_TIMEOUT and SOCKET_CONNECT_TIMEOUT (seconds) are those of
    django-redis; REDIS_CLIENT_KWARGS go to redis.cluster.RedisCluster.
    """

    # Of the process: django-redis has a factory for every thread.
    _clients: ClassVar[dict[str, redis.cluster.RedisCluster]] = {}
    _lock: ClassVar = Lock()

    def __init__(self, options: dict[str, Any]) -> None:
        names = ["USERNAME", "PASSWORD", "SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT"]
        self.options = {name.lower(): options[name] for name in names if name in options}
        self.options["retry"] = Retry(NoBackoff(), RETRIES)
        self.options |= options.get("REDIS_CLIENT_KWARGS", {})

    def connect(self, url: str) -> redis.cluster.RedisCluster:
        with self._lock:
            if url not in self._clients:
                self._clients[url] = redis.cluster.RedisCluster.from_url(url, **self.options)
            return self._clients[url]

    def disconnect(self, connection: redis.cluster.RedisCluster) -> None:
        connection.disconnect_connection_pools()  # type: ignore[no-untyped-call]
