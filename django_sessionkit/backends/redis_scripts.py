"""
What lies in Redis: the keys, 8 bytes of ``touched_at`` before each payload, and the scripts of the
steps that have to be atomic. The keys of a script have one hash tag.
"""

import hashlib
from collections.abc import Sequence
from operator import methodcaller
from typing import NamedTuple

from redis import exceptions

from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.redis_clients import key_function
from django_sessionkit.backends.sealing import NONCE
from django_sessionkit.conf import conf


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


def call(script: Script, digest: str, *args: bytes | int, also: Sequence[str] = ()) -> Flow[bool]:
    key = key_of(digest)
    keys = 1 + len(also), key, *also
    try:
        command = "EVALSHA", script.sha, *keys, *args
        done = yield methodcaller("execute_command", *command), key
    except exceptions.NoScriptError:  # a new server, a failover, SCRIPT FLUSH; EVAL keeps it
        done = yield methodcaller("eval", script.text, *keys, *args), key
    return bool(done)


def key_of(digest: str) -> str:
    return made(f"{conf.SESSIONKIT_REDIS_PREFIX}{{{digest[:TAG]}}}{digest[TAG:]}")


def epoch_key_of(digest: str) -> str:
    """Return under which key the number is, on the node that has this digest."""
    return made(f"{conf.SESSIONKIT_REDIS_PREFIX}{{{digest[:TAG]}}}epoch")


def made(key: str) -> str:
    make_key = key_function()
    return make_key(key) if make_key else key


def stamp_of(milliseconds: int) -> bytes:
    return milliseconds.to_bytes(STAMP)


def touched_at_of(value: bytes) -> int:
    return int.from_bytes(value[:STAMP])
