"""
Activity at scale, by SESSIONKIT_ACTIVITY = "buffered": a request writes its activity into the store
alone, and a task carries what waits there to the rows, a thousand sessions with one statement.

A row is behind then, and must never look as if its session had expired while that is used. So the
store also says until when all activity was carried. If that is long ago, because no task is at
work, requests write their activity into the rows, as if nothing could wait: plans.can_wait().

Requests that do not ask the registry do not hear from it that their session has ended. The removal
of its payload tells them. If that was lost, the row says so when the activity is carried.

Nothing is taken away from what waits before it is written. So a task that is killed has lost
nothing, and two tasks that carry the same do no harm: a row never goes back.
"""

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from django.db import connections
from django.utils import timezone

from django_sessionkit import clock, epochs, registry
from django_sessionkit.clock import Lifetime, as_datetime
from django_sessionkit.conf import conf
from django_sessionkit.models import UserSession, get_session_store, remove_from_stores
from django_sessionkit.storage import Seen, Storage, Waiting

# So many sessions are written with one statement.
SIZE = 1_000
# Whose row has another key by now may just be given that. Nobody takes longer to do so.
A_WHILE = timedelta(seconds=10)
# For so many milliseconds, requests of a session of which that cannot be told ask the registry.
AN_HOUR = 3_600_000
TABLE = UserSession._meta.db_table


class Carried(NamedTuple):
    """What a task has done, in sessions."""

    written: int = 0
    removed: int = 0  # they have ended, and the store still had them
    left: int = 0  # they go on waiting: another transaction has their rows, or is about to


class _Row(NamedTuple):
    """What the registry says of a session that was not written."""

    pk: uuid.UUID
    digest: str
    ended_at: Any
    last_seen_at: Any
    renew: bool


def carry(seconds: float | None = None) -> Carried:
    """
    Carry activity that waits in the store to the rows, for so many seconds at most, or all of it.
    Remove from the store what has ended. Several may do so at once; nobody is waited for.

    Raises StoreUnavailable.
    """
    store = get_session_store()
    # Django's own knows nothing of that: a site that has moved away may still have the setting.
    if conf.SESSIONKIT_ACTIVITY != "buffered" or not issubclass(store, Storage):
        return Carried()
    return store.call(_carry, store, seconds)


def _carry(store: type[Storage], seconds: float | None) -> Carried:
    until = None if seconds is None else time.monotonic() + seconds
    total = Carried()
    all_ask = None
    for parts in _enough(store.waiting()):
        if all_ask is None:
            # The rows do not say yet what an epoch has ended, and a store that has lost the number
            # does not either.
            all_ask = epochs.unfinished().exists()
        figures = _carry_parts(store, parts, all_ask)
        total = Carried(*map(sum, zip(total, figures, strict=True)))
        if until is not None and time.monotonic() >= until:
            break
    return total


def _enough(found: Iterable[list[Waiting]]) -> Iterator[list[Waiting]]:
    """Put parts together until there are enough sessions for a statement."""
    parts: list[Waiting] = []
    for some in found:
        parts += some
        if sum(len(part.seen) for part in parts) >= SIZE:
            yield parts
            parts = []
    if parts:
        yield parts


def _carry_parts(store: type[Storage], parts: list[Waiting], all_ask: bool) -> Carried:
    # In one order, so that two who carry the same do not wait for each other in a circle.
    seen = sorted((each for part in parts for each in part.seen), key=lambda each: each.handle)
    over: list[str] = []
    left: set[Seen] = set()
    asks: set[Seen] = set()
    for start in range(0, len(seen), SIZE):
        batch = seen[start : start + SIZE]
        if all_ask or _write(batch) < len(batch):
            _look(store, batch, over, left, asks, all_ask)
    if over:
        remove_from_stores(over)
    for part in parts:
        store.note_flushed(part, left.intersection(part.seen), not asks.isdisjoint(part.seen))
    return Carried(len(seen) - len(over) - len(left), len(over), len(left))


def _look(
    store: type[Storage],
    batch: list[Seen],
    over: list[str],
    left: set[Seen],
    asks: set[Seen],
    all_ask: bool,
) -> None:
    """Sort out why some of these sessions were not written. If ``all_ask``, none was."""
    found = UserSession.objects.primary().filter(pk__in={seen.handle for seen in batch})
    rows = {row[0]: _Row(*row) for row in found.values_list(*_Row._fields)}
    now = clock.now()
    for seen in batch:
        row, age, at = rows.get(seen.handle), now - seen.at, as_datetime(seen.at)
        if row is None or (row.ended_at is not None and row.digest == seen.digest):
            over.append(seen.digest)
        elif row.ended_at is not None or row.digest != seen.digest:
            # It has got another key since, and there is a trace under this one or nothing; or the
            # store has brought back what there was. That goes, if nobody has written to it.
            # A row gets the moment along with its key: what waits may be much older.
            newest = max(row.last_seen_at, at)
            if row.ended_at is None and timezone.now() - newest < A_WHILE:
                left.add(seen)
            elif store.take(seen.digest, seen.version):
                over.append(seen.digest)
            elif age < AN_HOUR and store.peek([seen.digest]):
                left.add(seen)
                asks.add(seen)
        elif age >= AN_HOUR and (row.last_seen_at >= at or _write_alone(seen)):
            pass  # its user has left: if they come back, the activity after the next one asks
        elif row.renew or all_ask or row.last_seen_at < at:
            left.add(seen)
            if row.renew or all_ask:
                asks.add(seen)


def _write_alone(seen: Seen) -> bool:
    """Write the activity of a session that is to ask the registry, if its row is free."""
    lifetime = Lifetime(seen.expires_at, seen.idle_at)
    row = seen.handle.hex, [seen.digest], seen.at, lifetime, None, seen.at
    return registry.touch(*row)


# One statement.


def _write(batch: Sequence[Seen]) -> int:
    """
    Write the activity of these sessions into their rows, as far as these go on, have the same key,
    and are free. A row that knows of a later activity stays as it is. Return how many such rows
    there are.
    """
    database = UserSession.objects.primary().db
    connection = connections[database]
    ops = connection.ops
    pk = UserSession._meta.pk
    values = [
        [
            pk.get_db_prep_value(seen.handle, connection),
            seen.digest,
            *(
                None if at is None else ops.adapt_datetimefield_value(as_datetime(at))
                for at in (seen.at, seen.expires_at, seen.idle_at)
            ),
        ]
        for seen in batch
    ]
    sql = STATEMENTS[connection.vendor]
    if connection.vendor == "postgresql":
        params: list[Any] = [list(column) for column in zip(*values, strict=True)]
    else:
        params = [json.dumps(values, default=str)]
    if connection.vendor == "mysql":
        keys = [value[0] for value in values]
        is_native = connection.features.has_native_uuid_field
        kind, places = "UUID" if is_native else "BINARY", ", ".join(["%s"] * len(keys))
        sql = sql.replace("KIND", kind).replace("PLACES", places)
        params += keys
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return int(cursor.rowcount)


# "given" is what waits, "free" are the rows that nobody holds.
GOES_ON = f"{TABLE}.digest = given.digest AND {TABLE}.ended_at IS NULL AND NOT {TABLE}.renew"


def _set(known: str, prefix: str = "") -> str:
    return ", ".join(
        f"{prefix}{column} = CASE WHEN given.last_seen_at > {known}"
        f" THEN given.{column} ELSE {TABLE}.{column} END"
        for column in ("expires_at", "idle_at", "last_seen_at")
    )


STATEMENTS = {
    # Locked by the primary key alone: of the digest, too, PostgreSQL expects to find one row, and
    # then looks at a thousand a thousand times.
    "postgresql": f"""
        UPDATE {TABLE} SET {_set(f"{TABLE}.last_seen_at")}
        FROM (
            SELECT given.* FROM unnest(
                %s::uuid[], %s::varchar[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[]
            ) AS given (id, digest, last_seen_at, expires_at, idle_at)
            JOIN {TABLE} AS free ON free.id = given.id
            FOR UPDATE OF free SKIP LOCKED
        ) AS given
        WHERE {TABLE}.id = given.id AND {GOES_ON}
    """,  # noqa: S608 (constants)
    # Whether a SET sees what another one has set is not said: so it goes by the rows as they were.
    # Text in a JSON_TABLE may have another collation than the table.
    "mysql": f"""
        UPDATE {TABLE}
        JOIN JSON_TABLE(%s, '$[*]' COLUMNS (
            id CHAR(36) PATH '$[0]',
            digest CHAR(64) PATH '$[1]',
            last_seen_at DATETIME(6) PATH '$[2]',
            expires_at DATETIME(6) PATH '$[3]',
            idle_at DATETIME(6) PATH '$[4]'
        )) AS given
        JOIN (
            SELECT id, last_seen_at FROM {TABLE} WHERE id IN (PLACES) FOR UPDATE SKIP LOCKED
        ) AS free ON CAST(free.id AS KIND) = CAST(given.id AS KIND) AND free.id = {TABLE}.id
        SET {_set("free.last_seen_at", f"{TABLE}.")}
        WHERE {GOES_ON.replace("given.digest", "CAST(given.digest AS BINARY)")}
    """,  # noqa: S608
    "sqlite": f"""
        UPDATE {TABLE} SET {_set(f"{TABLE}.last_seen_at")}
        FROM (
            SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS digest,
                json_extract(value, '$[2]') AS last_seen_at,
                json_extract(value, '$[3]') AS expires_at, json_extract(value, '$[4]') AS idle_at
            FROM json_each(%s)
        ) AS given
        WHERE {TABLE}.id = given.id AND {GOES_ON}
    """,  # noqa: S608 (constants)
}
