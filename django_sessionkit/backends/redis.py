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

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from operator import methodcaller
from typing import Any, ClassVar

from django.conf import settings
from django.core.cache import InvalidCacheBackendError
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import classproperty
from redis import exceptions
from redis.cluster import RedisCluster
from redis.crc import key_slot

from django_sessionkit import clock, ranges
from django_sessionkit.backends import base, redis_buffer
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
from django_sessionkit.backends.redis_scripts import (
    REPLACE,
    STAMP,
    TAG,
    TAKE,
    TOUCH,
    call,
    epoch_key_of,
    key_of,
    stamp_of,
    touched_at_of,
)
from django_sessionkit.clock import END_OF_TIME
from django_sessionkit.conf import conf
from django_sessionkit.storage import (
    NodeStatus,
    Seen,
    Stored,
    StoredFully,
    Waiting,
    no_answer,
)


class SessionStore(base.SessionStore):
    buffers = True

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
        key, epoch = key_of(digest), epoch_key_of(digest)
        if conf.SESSIONKIT_ACTIVITY == "buffered":
            keys = key, epoch, redis_buffer.flushed_key_of(digest)
            return _stored(*ask((methodcaller("mget", *keys), key)))
        value, number = ask((methodcaller("mget", key, epoch), key))
        return _stored(value, number)

    @classmethod
    async def aread(cls, digest: str) -> Stored | None:
        key, epoch = key_of(digest), epoch_key_of(digest)
        if conf.SESSIONKIT_ACTIVITY == "buffered":
            keys = key, epoch, redis_buffer.flushed_key_of(digest)
            return _stored(*(await aask((methodcaller("mget", *keys), key))))
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
            pipeline.set(key_of(digest), stamp_of(touched_at) + payload, nx=True, pxat=expires_at)
        pipeline.execute()

    @classmethod
    def take(cls, digest: str, expected: bytes) -> bool:
        return run(call(TAKE, digest, expected), ask)

    @classmethod
    def scan(cls) -> tuple[int, Iterator[list[StoredFully]]]:
        # About: there may be other keys.
        return sync_client().dbsize() // ranges.ROWS + 1, _scan()

    @classmethod
    def remove(cls, digests: Collection[str]) -> None:
        keys = [*map(key_of, digests)]
        run(_remove(keys, ask_nodes("DEL", keys)), ask)

    @classmethod
    async def aremove(cls, digests: Collection[str]) -> None:
        await arun(_remove([*map(key_of, digests)], {}), aask)

    @classmethod
    def peek(cls, digests: Collection[str]) -> set[str]:
        keys = {key_of(digest): digest for digest in digests}
        return run(_peek(keys, ask_nodes("EXISTS", keys)), ask)

    @classmethod
    async def apeek(cls, digests: Collection[str]) -> set[str]:
        return await arun(_peek({key_of(digest): digest for digest in digests}, {}), aask)

    @classmethod
    def note_epoch(cls, number: int) -> None:
        keys = [epoch_key_of(f"{tag:0{TAG}x}") for tag in range(16**TAG)]
        run(_note_epoch(keys, number, ask_nodes("SET", keys, number)), ask)

    @classmethod
    def touch_later(cls, seen: Seen) -> bool:
        return run(redis_buffer.touch_later(seen), ask)

    @classmethod
    async def atouch_later(cls, seen: Seen) -> bool:
        return await arun(redis_buffer.touch_later(seen), aask)

    @classmethod
    def waiting(cls) -> Iterator[list[Waiting]]:
        return redis_buffer.waiting()

    @classmethod
    def note_flushed(cls, part: Waiting, left: Collection[Seen] = (), asks: bool = False) -> None:
        redis_buffer.note_flushed(part, left, asks)

    @classmethod
    def last_seen(cls, digests: Collection[str]) -> dict[str, int]:
        keys = {key_of(digest): digest for digest in digests}
        return run(_last_seen(keys, ask_nodes("GETRANGE", keys, 0, STAMP - 1)), ask)

    @classmethod
    def is_within_reach(cls, digest: str) -> bool:
        return is_within_reach(key_of(digest))


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


def _stored(
    value: bytes | None, number: bytes | None, flushed: bytes | None = None
) -> Stored | None:
    if value is None:
        return None
    # Somebody else may have written what is no number.
    epoch = int(number) if number and number.isdigit() else 0
    flushed_at = int(flushed) if flushed and flushed.isdigit() else 0
    return Stored(value[STAMP:], touched_at_of(value), epoch, flushed_at)


# The other verbs are flows, once for both kinds of client.


def _insert(digest: str, payload: bytes, touched_at: int, expires_at: int) -> Flow[bool]:
    value = stamp_of(touched_at) + payload
    key = key_of(digest)
    return bool((yield methodcaller("set", key, value, nx=True, pxat=expires_at), key))


def _replace(digest: str, payload: bytes, expires_at: int | None, expected: bytes) -> Flow[bool]:
    until = () if expires_at is None else (expires_at,)
    return call(REPLACE, digest, expected, payload, *until)


def _touch(digest: str, touched_at: int, expires_at: int, expected: bytes | None) -> Flow[bool]:
    version = () if expected is None else (expected,)
    return call(TOUCH, digest, stamp_of(touched_at), expires_at, *version)


def _move(
    old: str, new: str, payload: bytes, touched_at: int, expires_at: int, expected: bytes
) -> Flow[bool]:
    value = stamp_of(touched_at) + payload
    old, new = key_of(old), key_of(new)

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


def _last_seen(digests: Mapping[str, str], answers: dict[str, Any]) -> Flow[dict[str, int]]:
    """Return when these sessions were active last, by their keys, as far as they are there."""

    def stamps(client: Any) -> Any:
        pipeline = client.pipeline(transaction=False)
        for key in digests:
            pipeline.getrange(key, 0, STAMP - 1)
        return pipeline.execute(raise_on_error=False)

    if not isinstance(sync_client(), RedisCluster):
        answers = dict(zip(digests, (yield stamps, ""), strict=True))
    else:
        yield from _ask_each("GETRANGE", digests, answers, 0, STAMP - 1, some=True)
    there = {digest: answers.get(key) for key, digest in digests.items() if answers.get(key, True)}
    # What is no string was written by somebody else, and so was a moment that no date can be.
    seen = {
        digest: touched_at_of(stamp or b"")
        for digest, stamp in there.items()
        if not isinstance(stamp, Exception)
    }
    return {digest: at if at <= END_OF_TIME else 0 for digest, at in seen.items()}


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
            StoredFully(_digest_in(key, prefix), value[STAMP:], touched_at_of(value), now + left)
            for key, value, left in zip(part, answers, answers, strict=True)
            # Not what has expired meanwhile, or what somebody else has put there.
            if isinstance(value, bytes) and left > 0
        ]


def _digest_in(key: bytes, prefix: str) -> str:
    return key.decode()[len(prefix) :].replace("{", "").replace("}", "")


def _remove(keys: Collection[str], answers: dict[str, Any]) -> Flow[None]:
    if not isinstance(sync_client(), RedisCluster):
        if keys:
            yield methodcaller("delete", *keys), ""
    else:
        yield from _ask_each("DEL", keys, answers)


def _peek(digests: Mapping[str, str], answers: dict[str, Any]) -> Flow[set[str]]:
    """Return which of these digests, by their keys, are there."""

    def exist(client: Any) -> Any:
        pipeline = client.pipeline(transaction=False)
        for key in digests:
            pipeline.exists(key)
        return pipeline.execute()

    if not isinstance(sync_client(), RedisCluster):
        answers = dict(zip(digests, (yield exist, ""), strict=True))
    else:
        yield from _ask_each("EXISTS", digests, answers, some=True)
    return {digest for key, digest in digests.items() if answers.get(key, True)}


def _note_epoch(keys: Sequence[str], number: int, answers: dict[str, Any]) -> Flow[None]:
    def write(client: Any) -> Any:
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.set(key, number)
        return pipeline.execute()

    if not isinstance(sync_client(), RedisCluster):
        yield write, ""
    else:
        yield from _ask_each("SET", keys, answers, number)


def _ask_each(
    command: str, keys: Iterable[str], answers: dict[str, Any], *args: int, some: bool = False
) -> Flow[None]:
    """
    Ask a command of each key that has no answer yet. A node that does not answer must not keep the
    others from theirs: only then raise its error. Where ``some`` answers are enough, and there are
    some, log the error: what is on that node may be there.
    """
    failure = None
    for key in keys:
        if key not in answers:
            try:
                answers[key] = yield methodcaller("execute_command", command, key, *args), key
            except NO_ANSWER as error:
                failure = error
    if failure and not (some and answers):
        raise failure
    if failure:
        no_answer(failure)


def _are_parted() -> bool:
    """
    Tell whether a KEY_FUNCTION parts a session and the number that is read along with it: in a
    Cluster, they are in two slots then. It may hash keys, and so hide their hash tags.
    """
    digests = [f"{tag:0{TAG}x}" for tag in range(10)]
    return any(_slot(key_of(digest)) != _slot(epoch_key_of(digest)) for digest in digests)


def _slot(key: str) -> int:
    return key_slot(key.encode())
