"""
The storage verbs on the StoredSession table: one statement each, in autocommit, and no model
instance in between (measured on PostgreSQL: a cursor costs 1.6 times the bare driver, the ORM 6).
"""
# ruff: noqa: S608 (the statements are put together from constants; values are parameters)

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

from django.db import OperationalError, connections, models, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.constants import OnConflict
from django.db.models.functions import Coalesce
from django.db.models.lookups import GreaterThan

from django_sessionkit import clock, ranges
from django_sessionkit.backends import base
from django_sessionkit.backends.sealing import NONCE
from django_sessionkit.clock import END_OF_TIME
from django_sessionkit.models import StoredSession
from django_sessionkit.pace import Pace
from django_sessionkit.storage import TRIES, NodeStatus, Stored, StoredFully, may_be_repeated

TABLE = "django_sessionkit_storedsession"
ALIVE = "digest = %s AND expires_at > %s"
VERSION = f"substr(payload, 1, {NONCE}) = %s"
# The number that note_epoch() was given is in a row of this table, under what is no digest. To read
# it along takes one more step down an index, and no round trip.
EPOCH = "epoch"
READ = (
    f"SELECT payload, touched_at, (SELECT touched_at FROM {TABLE} WHERE digest = '{EPOCH}')"
    f" FROM {TABLE} WHERE {ALIVE}"
)
NOTE_EPOCH = f"UPDATE {TABLE} SET touched_at = %s WHERE digest = '{EPOCH}'"
INSERT = f"{TABLE} (digest, payload, touched_at, expires_at) VALUES"
REPLACE = f"UPDATE {TABLE} SET payload = %s, expires_at = %s WHERE {ALIVE} AND {VERSION}"
REPLACE_ONLY = f"UPDATE {TABLE} SET payload = %s WHERE {ALIVE} AND {VERSION}"
MOVE = (
    f"UPDATE {TABLE} SET digest = %s, payload = %s, touched_at = %s, expires_at = %s"
    f" WHERE {ALIVE} AND {VERSION}"
)
TOUCH = f"UPDATE {TABLE} SET touched_at = %s, expires_at = %s WHERE"
# MySQL takes the rows to update from a derived table only, if they are in the same table.
FREE = f"id = (SELECT id FROM (SELECT id FROM {TABLE} WHERE {{}} FOR UPDATE SKIP LOCKED) AS free)"
REMOVE = f"DELETE FROM {TABLE} WHERE digest IN"
TAKE = f"DELETE FROM {TABLE} WHERE {ALIVE} AND {VERSION}"
PEEK = f"SELECT digest FROM {TABLE} WHERE expires_at > %s AND digest IN"
EXTENT = {
    "postgresql": "SELECT reltuples::bigint, pg_total_relation_size(oid) FROM pg_class"
    f" WHERE oid = '{TABLE}'::regclass",
    "mysql": "SELECT table_rows, data_length + index_length FROM information_schema.tables"
    f" WHERE table_schema = DATABASE() AND table_name = '{TABLE}'",
    # SQLite knows the size of the whole file only.
    "sqlite": "SELECT NULL, page_count * page_size FROM pragma_page_count(), pragma_page_size()",
}


class SessionStore(base.SessionStore):
    @classmethod
    def read(cls, digest: str) -> Stored | None:
        with _connection().cursor() as cursor:
            cursor.execute(READ, [digest, clock.now()])
            # The driver's own cursor has the answer already: Django's takes five calls to ask it.
            row = cursor.cursor.fetchone()
        return _stored(row)

    @classmethod
    def read_again(cls, digest: str) -> Stored | None:
        connection = _connection()
        if not (connection.in_atomic_block and connection.features.has_select_for_update):
            return cls.read(digest)
        with connection.cursor() as cursor:
            # What an UPDATE would find. To a transaction, MySQL may show what there was before.
            cursor.execute(f"{READ} FOR UPDATE", [digest, clock.now()])
            row = cursor.fetchone()
        return _stored(row)

    @classmethod
    def insert(cls, digest: str, payload: bytes, touched_at: int, expires_at: int) -> bool:
        return _insert([StoredFully(digest, payload, touched_at, expires_at)])

    @classmethod
    def replace(cls, digest: str, payload: bytes, expires_at: int | None, expected: bytes) -> bool:
        if expires_at is None:
            return _execute(REPLACE_ONLY, [payload, digest, clock.now(), expected])
        return _execute(REPLACE, [payload, expires_at, digest, clock.now(), expected])

    @classmethod
    def move(
        cls, old: str, new: str, payload: bytes, touched_at: int, expires_at: int, expected: bytes
    ) -> bool:
        return _execute(MOVE, [new, payload, touched_at, expires_at, old, clock.now(), expected])

    @classmethod
    def touch(
        cls, digest: str, touched_at: int, expires_at: int, expected: bytes | None = None
    ) -> bool:
        where, params = ALIVE, [touched_at, expires_at, digest, clock.now()]
        if expected is not None:
            where, params = f"{ALIVE} AND {VERSION}", [*params, expected]
        if _connection().features.has_select_for_update_skip_locked:
            where = FREE.format(where)
        return _execute(f"{TOUCH} {where}", params)

    @classmethod
    def remove(cls, digests: Collection[str]) -> None:
        if digests:
            _execute(f"{REMOVE} ({_marks(digests)})", [*digests])

    @classmethod
    def peek(cls, digests: Collection[str]) -> set[str]:
        if not digests:
            return set()
        with _connection().cursor() as cursor:
            cursor.execute(f"{PEEK} ({_marks(digests)})", [clock.now(), *digests])
            return {digest for (digest,) in cursor.fetchall()}

    @classmethod
    def note_epoch(cls, number: int) -> None:
        if not _execute(NOTE_EPOCH, [number]):
            _insert([StoredFully(EPOCH, b"", number, END_OF_TIME)])

    @classmethod
    def insert_all(cls, sessions: Collection[StoredFully]) -> None:
        if sessions:
            _insert(sessions)

    @classmethod
    def take(cls, digest: str, expected: bytes) -> bool:
        return _execute(TAKE, [digest, clock.now(), expected])

    @classmethod
    def scan(cls) -> tuple[int, Iterator[list[StoredFully]]]:
        walk = StoredSession.objects.walk()
        return StoredSession.objects.primary().count() // ranges.ROWS + 1, map(_stored_in, walk)

    @classmethod
    def status(cls) -> list[NodeStatus]:
        latency = cls.latency()
        if latency is None:
            return [NodeStatus(None)]
        connection = _connection()
        numbers = ".".join(map(str, connection.get_database_version()))
        sessions, size = _extent(connection)
        version = f"{connection.display_name} {numbers}"
        return [NodeStatus(latency, sessions=sessions, size=size, version=version)]

    @classmethod
    def is_stored(cls, database: str) -> Any:
        if database != _connection().alias:
            return None
        sessions = StoredSession.objects.using(database).filter(digest=models.OuterRef("digest"))
        # Not Exists(): for a part of the registry, PostgreSQL would read this whole table.
        expires_at = models.Subquery(sessions.values("expires_at")[:1])
        return GreaterThan(Coalesce(expires_at, 0), clock.now())

    @classmethod
    def remove_free(cls, digests: Collection[str]) -> set[str]:
        connection = _connection()
        if not (digests and connection.features.has_select_for_update_skip_locked):
            return super().remove_free(digests)
        sessions = StoredSession.objects.using(connection.alias).filter(digest__in=digests)
        ranges.Writing("free", models.Q()).on(sessions, Pace())
        return cls.peek(digests)

    @classmethod
    def remove_expired(cls, pace: Pace) -> int:
        """
        Remove what has expired. Each statement looks at the expiry itself, so that a session which
        is touched meanwhile survives.
        """
        removed, now = 0, clock.now()
        expired = ranges.Writing("expired", models.Q(expires_at__lte=now))
        for part in StoredSession.objects.walk(pace):
            if pace.dry_run:
                removed += pace.read(expired.rows(part).count)
            else:
                removed += expired.on(part, pace)
        return removed

    @classmethod
    def atomic(cls) -> AbstractContextManager[object]:
        return transaction.atomic(using=_connection().alias)


def _stored(row: Any) -> Stored | None:
    return Stored(bytes(row[0]), row[1], row[2] or 0) if row else None


def _stored_in(part: "models.QuerySet[StoredSession]") -> list[StoredFully]:
    rows = part.filter(expires_at__gt=clock.now()).exclude(digest=EPOCH)
    found = rows.values_list("digest", "payload", "touched_at", "expires_at")
    return [StoredFully(digest, bytes(payload), *at) for digest, payload, *at in found]


def _connection() -> BaseDatabaseWrapper:
    # Never a replica: it lags, and a session that has just been ended must be gone.
    return connections[router.db_for_write(StoredSession)]


def _insert(sessions: Collection[StoredFully]) -> bool:
    ops = _connection().ops
    verb = ops.insert_statement(on_conflict=OnConflict.IGNORE)
    values = ", ".join(["(%s, %s, %s, %s)"] * len(sessions))
    suffix = ops.on_conflict_suffix_sql([], OnConflict.IGNORE, [], [])
    return _execute(f"{verb} {INSERT} {values} {suffix}", [*chain.from_iterable(sessions)])


def _execute(statement: str, params: list[Any], tries: int = TRIES) -> bool:
    # What despite_deadlocks() does, without its two calls around every statement.
    connection = _connection()
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, params)
            return bool(cursor.rowcount > 0)
    except OperationalError as error:
        if tries == 1 or not may_be_repeated(connection.alias, error):
            raise
    return _execute(statement, params, tries - 1)


def _extent(connection: BaseDatabaseWrapper) -> tuple[int | None, int | None]:
    """
    Return how many sessions the table has, as the database estimates it, and the bytes that the
    table and its indexes take. To count the rows would take seconds where there are many.
    """
    if connection.vendor not in EXTENT:
        return None, None
    with connection.cursor() as cursor:
        cursor.execute(EXTENT[connection.vendor])
        sessions, size = cursor.fetchone() or (None, None)
    # PostgreSQL says -1 of a table that was never analyzed.
    return None if sessions is None or sessions < 0 else int(sessions), size


def _marks(values: Collection[str]) -> str:
    return ", ".join(["%s"] * len(values))
