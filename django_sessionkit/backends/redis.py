"""
The storage verbs on Redis or Valkey, through a cache alias of django-redis (SESSION_CACHE_ALIAS).

One string per session, under a digest: 8 bytes of ``touched_at``, then the payload; Redis expires
the string. A step that has to be atomic is a script on that one key, so that the verbs run on Redis
6.2 and later and on Valkey, alone, behind Sentinel and in a Cluster.

The number of note_epoch() is read along with a session. In a Cluster, both must be on one node. So
the first digits of a digest are the hash tag of its key (see "Hash tags" in the specification of
Redis Cluster), and the number is there once for each tag. The cache's own serializer and
compressor are not involved, and its key prefix only in a KEY_FUNCTION of the site. A replica is
never asked, because replicas lag.
"""

import hashlib
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from operator import methodcaller
from typing import Any, ClassVar, NamedTuple

from django.conf import settings
from django.core.cache import InvalidCacheBackendError
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import classproperty
from redis import exceptions
from redis.cluster import RedisCluster
from redis.crc import key_slot

from django_sessionkit import clock, ranges
from django_sessionkit.backends import base
from django_sessionkit.backends.flows import Flow, arun, run
from django_sessionkit.backends.redis_clients import (
    NO_ANSWER,
    ClusterConnectionFactory,
    aask,
    ask,
    ask_node,
    ask_nodes,
    is_within_reach,
    key_function,
    source,
    sync_client,
)
from django_sessionkit.backends.sealing import NONCE
from django_sessionkit.conf import conf
from django_sessionkit.storage import NodeStatus, Stored, StoredFully, no_answer


class Script(NamedTuple):
    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> "Script":
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


STAMP = 8  # bytes of touched_at
# Digits of a digest that are the hash tag. 4,096 tags are spread evenly over a Cluster, and are
# written in some milliseconds.
TAG = 3
# A value that is no string was written by another program: no session is there, as MGET has it.
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
# ARGV: touched_at, when it expires, the version that is expected, or nothing: any. SETRANGE alone
# would make a key that is gone. A Redis that is full refuses it, and nobody should be kept from
# reading by that: the session just stays due.
TOUCH = Script.of(f"""
if not ({IS_THERE}) or (ARGV[3] and {VERSION} ~= ARGV[3]) then return 0 end
redis.pcall('SETRANGE', KEYS[1], 0, ARGV[1])
redis.call('PEXPIREAT', KEYS[1], ARGV[2])
return 1
""")


class SessionStore(base.SessionStore):
    unavailable: ClassVar = (
        *base.SessionStore.unavailable,
        exceptions.RedisError,
        exceptions.RedisClusterException,
    )

    @classproperty
    def native_async(cls) -> bool:  # noqa: N805 (a property of the class)
        """
        Whether async code needs no thread. A site's KEY_FUNCTION needs that of the request: the one
        of django-tenants looks at the database connection, which belongs to a thread.
        """
        return key_function() is None

    @classmethod
    def check(cls, ask: bool) -> Iterable[tuple[str, dict[str, Any]]]:
        try:
            client = sync_client() if ask else source()
        except (ImproperlyConfigured, InvalidCacheBackendError):
            return [("E012", {"alias": settings.SESSION_CACHE_ALIAS})]
        factory = getattr(source(), "connection_factory", None)
        is_cluster = isinstance(client, RedisCluster)
        if (is_cluster or isinstance(factory, ClusterConnectionFactory)) and _are_parted():
            return [("E021", {"alias": settings.SESSION_CACHE_ALIAS})]
        if not ask:
            return []
        nodes: list[dict[str, Any]] = [{}]
        try:
            if isinstance(client, RedisCluster):
                primaries = client.get_primaries()  # type: ignore[no-untyped-call]
                nodes = [{"target_nodes": node} for node in primaries]
            policies = {client.info("memory", **node)["maxmemory_policy"] for node in nodes}
        except cls.unavailable:
            return [("W013", {"alias": settings.SESSION_CACHE_ALIAS})]
        return [("W009", {"policy": policy}) for policy in policies - {"noeviction"}]

    @classmethod
    def status(cls) -> list[NodeStatus]:
        try:
            client = sync_client()  # that of a Cluster asks who has which keys
        except cls.unavailable as error:
            no_answer(error)
            return [NodeStatus(None)]
        if not isinstance(client, RedisCluster):
            database = client.connection_pool.connection_kwargs.get("db", 0)
            return [_status("", partial(ask, (_info, "")), database)]
        nodes = client.get_primaries()  # type: ignore[no-untyped-call]
        return [_status(node.name, partial(ask_node, _info, node), 0) for node in nodes]

    # The one verb that is not a flow: every request waits for it, and a flow costs three calls.

    @classmethod
    def read(cls, digest: str) -> Stored | None:
        key, epoch = _key(digest), _epoch_key(digest)
        value, number = ask((methodcaller("mget", key, epoch), key))
        return _stored(value, number)

    @classmethod
    async def aread(cls, digest: str) -> Stored | None:
        key, epoch = _key(digest), _epoch_key(digest)
        value, number = await aask((methodcaller("mget", key, epoch), key))
        return _stored(value, number)

    @classmethod
    def insert(cls, digest: str, payload: bytes, touched_at: int, expires_at: int) -> bool:
        return run(_insert(digest, payload, touched_at, expires_at), ask)

    @classmethod
    async def ainsert(cls, digest: str, payload: bytes, touched_at: int, expires_at: int) -> bool:
        return await arun(_insert(digest, payload, touched_at, expires_at), aask)

    @classmethod
    def replace(cls, digest: str, payload: bytes, expires_at: int | None, expected: bytes) -> bool:
        return run(_replace(digest, payload, expires_at, expected), ask)

    @classmethod
    async def areplace(
        cls, digest: str, payload: bytes, expires_at: int | None, expected: bytes
    ) -> bool:
        return await arun(_replace(digest, payload, expires_at, expected), aask)

    @classmethod
    def move(
        cls, old: str, new: str, payload: bytes, touched_at: int, expires_at: int, expected: bytes
    ) -> bool:
        return run(_move(old, new, payload, touched_at, expires_at, expected), ask)

    @classmethod
    async def amove(
        cls, old: str, new: str, payload: bytes, touched_at: int, expires_at: int, expected: bytes
    ) -> bool:
        return await arun(_move(old, new, payload, touched_at, expires_at, expected), aask)

    @classmethod
    def touch(
        cls, digest: str, touched_at: int, expires_at: int, expected: bytes | None = None
    ) -> bool:
        return run(_touch(digest, touched_at, expires_at, expected), ask)

    @classmethod
    async def atouch(
        cls, digest: str, touched_at: int, expires_at: int, expected: bytes | None = None
    ) -> bool:
        return await arun(_touch(digest, touched_at, expires_at, expected), aask)

    @classmethod
    def insert_all(cls, sessions: Collection[StoredFully]) -> None:
        if len(sessions) == 1:
            super().insert_all(sessions)  # which knows what node is down
            return
        pipeline = sync_client().pipeline(transaction=False)
        for digest, payload, touched_at, expires_at in sessions:
            pipeline.set(_key(digest), _stamp(touched_at) + payload, nx=True, pxat=expires_at)
        pipeline.execute()

    @classmethod
    def take(cls, digest: str, expected: bytes) -> bool:
        return run(_script(TAKE, digest, expected), ask)

    @classmethod
    def scan(cls) -> tuple[int, Iterator[list[StoredFully]]]:
        # About: there may be other keys.
        return sync_client().dbsize() // ranges.ROWS + 1, _scan()

    @classmethod
    def remove(cls, digests: Collection[str]) -> None:
        keys = [*map(_key, digests)]
        run(_remove(keys, ask_nodes("DEL", keys)), ask)

    @classmethod
    async def aremove(cls, digests: Collection[str]) -> None:
        await arun(_remove([*map(_key, digests)], {}), aask)

    @classmethod
    def peek(cls, digests: Collection[str]) -> set[str]:
        keys = {_key(digest): digest for digest in digests}
        return run(_peek(keys, ask_nodes("EXISTS", keys)), ask)

    @classmethod
    async def apeek(cls, digests: Collection[str]) -> set[str]:
        return await arun(_peek({_key(digest): digest for digest in digests}, {}), aask)

    @classmethod
    def note_epoch(cls, number: int) -> None:
        keys = [_epoch_key(f"{tag:0{TAG}x}") for tag in range(16**TAG)]
        run(_note_epoch(keys, number, ask_nodes("SET", keys, number)), ask)

    @classmethod
    def is_within_reach(cls, digest: str) -> bool:
        return is_within_reach(_key(digest))


def _info(client: Any) -> tuple[Any, Any]:
    """
    Return what a server says to INFO, and to the question for its snapshots: None where that
    question is not allowed.
    """
    pipeline = client.pipeline(transaction=False)
    pipeline.info()
    pipeline.config_get("save")
    info, saves = pipeline.execute(raise_on_error=False)
    if isinstance(info, Exception):
        raise info
    return info, None if isinstance(saves, Exception) else saves.get("save", "")


def _status(name: str, ask_server: Callable[[], tuple[Any, Any]], database: int) -> NodeStatus:
    started = time.perf_counter()
    try:
        info, saves = ask_server()
    except SessionStore.unavailable as error:
        no_answer(error)
        return NodeStatus(None, name)
    latency = time.perf_counter() - started
    brand = info.get("server_name", "redis")  # Redis itself does not say
    kept = ["AOF"] if info["aof_enabled"] else []
    kept += ["RDB"] if saves else []
    return NodeStatus(
        latency,
        name,
        info.get(f"db{database}", {}).get("keys", 0),  # about: there may be other keys
        info["used_memory"],
        info["maxmemory"],
        f"{brand.capitalize()} {info[f'{brand}_version']}",
        ", ".join(kept) or ("" if saves is None else "none"),
        info["maxmemory_policy"],
    )


def _stored(value: bytes | None, number: bytes | None) -> Stored | None:
    if value is None:
        return None
    # Somebody else may have written what is no number.
    epoch = int(number) if number and number.isdigit() else 0
    return Stored(value[STAMP:], _touched_at(value), epoch)


def _touched_at(value: bytes) -> int:
    return int.from_bytes(value[:STAMP])


# The other verbs are flows, once for both kinds of client.


def _insert(digest: str, payload: bytes, touched_at: int, expires_at: int) -> Flow[bool]:
    value = _stamp(touched_at) + payload
    key = _key(digest)
    return bool((yield methodcaller("set", key, value, nx=True, pxat=expires_at), key))


def _replace(digest: str, payload: bytes, expires_at: int | None, expected: bytes) -> Flow[bool]:
    until = () if expires_at is None else (expires_at,)
    return _script(REPLACE, digest, expected, payload, *until)


def _touch(digest: str, touched_at: int, expires_at: int, expected: bytes | None) -> Flow[bool]:
    version = () if expected is None else (expected,)
    return _script(TOUCH, digest, _stamp(touched_at), expires_at, *version)


def _move(
    old: str, new: str, payload: bytes, touched_at: int, expires_at: int, expected: bytes
) -> Flow[bool]:
    value = _stamp(touched_at) + payload
    old, new = _key(old), _key(new)

    write = methodcaller("set", new, value, pxat=expires_at)
    # The text, not its hash: a pipeline cannot answer "no such script" half-way.
    take = methodcaller("eval", TAKE.text, 1, old, expected)

    def both(client: Any) -> Any:
        pipeline = client.pipeline(transaction=False)
        write(pipeline)
        take(pipeline)
        return pipeline.execute()

    if isinstance(sync_client(), RedisCluster):
        # Two nodes: one that is down must not cost the session what the other one has.
        yield write, new
        taken = yield take, old
    else:
        _written, taken = yield both, ""
    if not taken:
        yield from _remove([new], {})
    return bool(taken)


def _scan() -> Iterator[list[StoredFully]]:
    prefix = conf.SESSIONKIT_REDIS_PREFIX
    digit = "[0-9a-f]"
    escaped = re.sub(r"[][*?\\]", r"\\\g<0>", prefix)
    pattern = f"{escaped}{{{digit * TAG}}}{digit * (64 - TAG)}"
    client = sync_client()
    keys = client.scan_iter(match=pattern, count=ranges.ROWS)
    while part := list(islice(keys, ranges.ROWS)):
        pipeline = client.pipeline(transaction=False)
        for key in part:
            pipeline.get(key)
            pipeline.pttl(key)
        now, answers = clock.now(), iter(pipeline.execute(raise_on_error=False))
        yield [
            StoredFully(_digest_in(key, prefix), value[STAMP:], _touched_at(value), now + left)
            for key, value, left in zip(part, answers, answers, strict=True)
            # Not what has expired meanwhile, or what somebody else has put there.
            if isinstance(value, bytes) and left > 0
        ]


def _digest_in(key: bytes, prefix: str) -> str:
    return key.decode()[len(prefix) :].replace("{", "").replace("}", "")


def _script(script: Script, digest: str, *args: bytes | int) -> Flow[bool]:
    key = _key(digest)
    try:
        command = "EVALSHA", script.sha, 1, key, *args
        done = yield methodcaller("execute_command", *command), key
    except exceptions.NoScriptError:  # a new server, a failover, SCRIPT FLUSH; EVAL keeps it
        done = yield methodcaller("eval", script.text, 1, key, *args), key
    return bool(done)


def _remove(keys: Collection[str], answers: dict[str, Any]) -> Flow[None]:
    if not isinstance(sync_client(), RedisCluster):
        if keys:
            yield methodcaller("delete", *keys), ""
    elif failure := (yield from _ask_each("DEL", keys, answers)):
        raise failure


def _peek(digests: Mapping[str, str], answers: dict[str, Any]) -> Flow[set[str]]:
    """Return which of these digests, by their keys, are there."""

    def exist(client: Any) -> Any:
        pipeline = client.pipeline(transaction=False)
        for key in digests:
            pipeline.exists(key)
        return pipeline.execute()

    if not isinstance(sync_client(), RedisCluster):
        answers = dict(zip(digests, (yield exist, ""), strict=True))
    elif failure := (yield from _ask_each("EXISTS", digests, answers)):
        if not answers:
            raise failure
        no_answer(failure)  # is logged; what is on that node may be there
    return {digest for key, digest in digests.items() if answers.get(key, True)}


def _note_epoch(keys: Sequence[str], number: int, answers: dict[str, Any]) -> Flow[None]:
    def write(client: Any) -> Any:
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.set(key, number)
        return pipeline.execute()

    if not isinstance(sync_client(), RedisCluster):
        yield write, ""
    elif failure := (yield from _ask_each("SET", keys, answers, number)):
        raise failure


def _ask_each(
    command: str, keys: Iterable[str], answers: dict[str, Any], *args: int
) -> Flow[Exception | None]:
    """
    Ask a command of each key that has no answer yet. Return the last error of a node that does not
    answer: that must not keep the others from theirs.
    """
    failure = None
    for key in keys:
        if key not in answers:
            try:
                answers[key] = yield methodcaller("execute_command", command, key, *args), key
            except NO_ANSWER as error:
                failure = error
    return failure


def _key(digest: str) -> str:
    return _made(f"{conf.SESSIONKIT_REDIS_PREFIX}{{{digest[:TAG]}}}{digest[TAG:]}")


def _epoch_key(digest: str) -> str:
    """Return under which key the number is, on the node that has this digest."""
    return _made(f"{conf.SESSIONKIT_REDIS_PREFIX}{{{digest[:TAG]}}}epoch")


def _are_parted() -> bool:
    """
    Tell whether a KEY_FUNCTION parts a session and the number that is read along with it: in a
    Cluster, they are in two slots then. It may hash keys, and so hide their hash tags.
    """
    digests = [f"{tag:0{TAG}x}" for tag in range(10)]
    return any(_slot(_key(digest)) != _slot(_epoch_key(digest)) for digest in digests)


def _slot(key: str) -> int:
    return key_slot(key.encode())


def _made(key: str) -> str:
    make_key = key_function()
    return make_key(key) if make_key else key


def _stamp(milliseconds: int) -> bytes:
    return milliseconds.to_bytes(STAMP)
