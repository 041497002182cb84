"""
Activity that waits in Redis for its row: see activity.py. In a Cluster, it must be on the node of
its session. So there is a hash for each hash tag, and beside that the moment until which all of it
was carried.
"""

import random
import struct
import uuid
from collections.abc import Collection, Iterator
from itertools import chain
from operator import methodcaller

from django_sessionkit import clock
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.redis_clients import ask, ask_script
from django_sessionkit.backends.redis_scripts import (
    IS_THERE,
    TAG,
    VERSION,
    Script,
    call,
    made,
    stamp_of,
)
from django_sessionkit.backends.sealing import NONCE
from django_sessionkit.clock import END_OF_TIME
from django_sessionkit.conf import conf
from django_sessionkit.storage import Seen, Waiting

# After so many milliseconds, Redis forgets what no task carries to the rows, or has carried.
FORGOTTEN = 24 * 60 * 60 * 1000
# KEYS: the session, and the activity that waits. ARGV: as of TOUCH, then the name and the value of
# the activity. A Redis that is full refuses the HSET: then the row has to be written at once.
TOUCH_LATER = Script.of(f"""
if not ({IS_THERE}) or {VERSION} ~= ARGV[3] then return 0 end
if type(redis.pcall('HSET', KEYS[2], ARGV[4], ARGV[5])) == 'table' then return 0 end
redis.call('PEXPIRE', KEYS[2], {FORGOTTEN})
redis.pcall('SETRANGE', KEYS[1], 0, ARGV[1])
redis.call('PEXPIREAT', KEYS[1], ARGV[2])
return 1
""")
# KEYS: the activity that waits, and the moment until which all was carried. ARGV: now.
WAITING = Script.of(f"""
local waiting = redis.pcall('HGETALL', KEYS[1])
if waiting.err then return {{}} end
if #waiting == 0 then redis.pcall('SET', KEYS[2], ARGV[1], 'PX', {FORGOTTEN}) end
return waiting
""")
# KEYS: as of WAITING. ARGV: the moment, "0" to forget that, or "" to leave it as it is; then the
# names and values of what was carried. What has another value by now is newer.
FLUSHED = Script.of(f"""
for i = 2, #ARGV, 2 do
    if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
        redis.call('HDEL', KEYS[1], ARGV[i])
    end
end
if ARGV[1] == '0' then
    redis.call('DEL', KEYS[2])
elseif ARGV[1] ~= '' then
    redis.pcall('SET', KEYS[2], ARGV[1], 'PX', {FORGOTTEN})
end
return 1
""")
# An activity that waits, under the 32 bytes of its digest: the handle, when it was, when the
# session expires, when it goes idle or 0, the version. Not more than 64 bytes: Redis then keeps it
# in a third of the memory.
SEEN = struct.Struct(f">16s3Q{NONCE}s")
# Parts that are read at once.
PARTS = 64


def touch_later(seen: Seen) -> Flow[bool]:
    touch = stamp_of(seen.at), seen.expires_at, seen.version
    also = _buffer_key_of(seen.digest)
    return call(TOUCH_LATER, seen.digest, *touch, *_as_field(seen), also=[also])


def waiting() -> Iterator[list[Waiting]]:
    """See Storage.waiting()."""
    places = [f"{tag:0{TAG}x}" for tag in range(16**TAG)]
    cut = random.randrange(len(places))  # noqa: S311 (a run that is cut short gets everywhere)
    places = places[cut:] + places[:cut]
    for start in range(0, len(places), PARTS):
        yield _read(places[start : start + PARTS])


def _read(places: list[str]) -> list[Waiting]:
    now = clock.now()
    calls = {_buffer_key_of(place): [flushed_key_of(place), now] for place in places}
    answers, failure = ask_script(WAITING.text, WAITING.sha, 2, calls)
    if failure is not None and not answers:
        raise failure
    parts = zip(places, calls, strict=True)
    return [
        Waiting(place, now, [*_seen_in(answers[key])]) for place, key in parts if answers.get(key)
    ]


def _seen_in(fields: list[bytes]) -> Iterator[Seen]:
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        # Somebody else may have written what is none.
        if len(name) == 32 and len(value) == SEEN.size:
            handle, at, expires_at, idle_at, version = SEEN.unpack(value)
            if max(at, expires_at, idle_at) > END_OF_TIME:
                continue
            moments = at, expires_at, idle_at or None
            yield Seen(name.hex(), uuid.UUID(bytes=handle), *moments, version)


def _as_field(seen: Seen) -> tuple[bytes, bytes]:
    moments = seen.at, seen.expires_at, seen.idle_at or 0
    return bytes.fromhex(seen.digest), SEEN.pack(seen.handle.bytes, *moments, seen.version)


def note_flushed(part: Waiting, left: Collection[Seen], asks: bool) -> None:
    """See Storage.note_flushed()."""
    keys = _buffer_key_of(part.place), flushed_key_of(part.place)
    carried = chain.from_iterable(_as_field(seen) for seen in part.seen if seen not in left)
    moment = "0" if asks else "" if left else part.read_at
    # The text, not its hash: few parts have anything, and a new server does not know it.
    ask((methodcaller("eval", FLUSHED.text, 2, *keys, moment, *carried), keys[0]))


def _buffer_key_of(digest: str) -> str:
    """Return under which key activity waits, on the node that has this digest."""
    return made(f"{conf.SESSIONKIT_REDIS_PREFIX}{{{digest[:TAG]}}}activity")


def flushed_key_of(digest: str) -> str:
    """Return under which key it is said until when all of that was carried to the rows."""
    return made(f"{conf.SESSIONKIT_REDIS_PREFIX}{{{digest[:TAG]}}}flushed")
