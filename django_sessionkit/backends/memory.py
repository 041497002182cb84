"""
The storage verbs in the memory of this process: for development, and for the tests of a project.
All sessions end with the process, and no other process knows of them.
"""

from collections import OrderedDict
from collections.abc import Collection
from threading import Lock
from typing import Any, NamedTuple

from django_sessionkit import clock
from django_sessionkit.backends import base
from django_sessionkit.backends.sealing import version_of
from django_sessionkit.conf import conf
from django_sessionkit.pace import Pace
from django_sessionkit.storage import NodeStatus, Stored


class Entry(NamedTuple):
    payload: bytes
    touched_at: int
    expires_at: int


# By digest. The entry that was written longest ago comes first, and has to go first.
_entries: OrderedDict[str, Entry] = OrderedDict()
_lock = Lock()
_epoch = 0


class SessionStore(base.SessionStore):
    native_async = True

    @classmethod
    def read(cls, digest: str) -> Stored | None:
        return (entry := _alive(digest)) and Stored(entry.payload, entry.touched_at, _epoch)

    @classmethod
    def insert(cls, digest: str, payload: bytes, touched_at: int, expires_at: int) -> bool:
        with _lock:
            if digest in _entries:
                return False
            _put(digest, Entry(payload, touched_at, expires_at))
            return True

    @classmethod
    def replace(cls, digest: str, payload: bytes, expires_at: int | None, expected: bytes) -> bool:
        with _lock:
            if entry := _alive(digest, expected):
                until = entry.expires_at if expires_at is None else expires_at
                _put(digest, Entry(payload, entry.touched_at, until))
            return entry is not None

    @classmethod
    def move(
        cls, old: str, new: str, payload: bytes, touched_at: int, expires_at: int, expected: bytes
    ) -> bool:
        with _lock:
            if entry := _alive(old, expected):
                del _entries[old]
                _put(new, Entry(payload, touched_at, expires_at))
            return entry is not None

    @classmethod
    def touch(
        cls, digest: str, touched_at: int, expires_at: int, expected: bytes | None = None
    ) -> bool:
        with _lock:
            if entry := _alive(digest, expected):
                _put(digest, Entry(entry.payload, touched_at, expires_at))
            return entry is not None

    @classmethod
    def remove(cls, digests: Collection[str]) -> None:
        with _lock:
            for digest in digests:
                _entries.pop(digest, None)

    @classmethod
    def peek(cls, digests: Collection[str]) -> set[str]:
        return {digest for digest in digests if _alive(digest)}

    @classmethod
    def note_epoch(cls, number: int) -> None:
        global _epoch
        _epoch = number

    @classmethod
    def remove_expired(cls, pace: Pace) -> int:
        with _lock:
            expired = [digest for digest in _entries if not _alive(digest)]
            if not pace.dry_run:
                for digest in expired:
                    del _entries[digest]
        return len(expired)

    @classmethod
    def status(cls) -> list[NodeStatus]:
        return [NodeStatus(cls.latency(), sessions=len(_entries))]

    # No verb waits for anything but the lock, which is held for some microseconds: none of the
    # async verbs takes a thread, or lets other tasks in.

    @classmethod
    async def aread(cls, digest: str) -> Stored | None:
        return cls.read(digest)

    @classmethod
    async def ainsert(cls, *args: Any) -> bool:
        return cls.insert(*args)

    @classmethod
    async def areplace(cls, *args: Any) -> bool:
        return cls.replace(*args)

    @classmethod
    async def amove(cls, *args: Any) -> bool:
        return cls.move(*args)

    @classmethod
    async def atouch(cls, *args: Any) -> bool:
        return cls.touch(*args)

    @classmethod
    async def aremove(cls, digests: Collection[str]) -> None:
        cls.remove(digests)

    @classmethod
    async def apeek(cls, digests: Collection[str]) -> set[str]:
        return cls.peek(digests)


def clear() -> None:
    """Remove every session, expired or not. Their rows stay, and the next purge ends them."""
    SessionStore.note_epoch(0)
    with _lock:
        _entries.clear()


def _alive(digest: str, expected: bytes | None = None) -> Entry | None:
    entry = _entries.get(digest)
    if entry is None or entry.expires_at <= clock.now():
        return None
    return entry if expected in (None, version_of(entry.payload)) else None


def _put(digest: str, entry: Entry) -> None:
    _entries[digest] = entry
    _entries.move_to_end(digest)
    while len(_entries) > conf.SESSIONKIT_MEMORY_LIMIT:
        _entries.popitem(last=False)
