"""What it costs a table to write the last activity. The clock is put forward meanwhile."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

import time_machine
from django.core.handlers.wsgi import WSGIRequest
from django.db import connection
from django.utils import timezone

from benchmarks.drivers import Engine, expect
from benchmarks.report import Table, Verdict

TABLES = ["django_sessionkit_usersession", "django_sessionkit_storedsession"]


class State(NamedTuple):
    """The state of a table: rows updated, rows updated in place (HOT), bytes, bytes of indexes."""

    updated: int
    in_place: int
    size: int
    indexes: int


def states() -> dict[str, State]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT relname, n_tup_upd, n_tup_hot_upd, pg_relation_size(relid),"
            " pg_indexes_size(relid) FROM pg_stat_user_tables WHERE relname = ANY(%s)",
            [TABLES],
        )
        return {name: State(*state) for name, *state in cursor.fetchall()}


def poll(driver: Engine, keys: list[str], moments: Iterable[datetime]) -> None:
    """Send a request of each session at each of these moments."""
    for moment in moments:
        with time_machine.travel(moment, tick=False):
            for key in keys:
                response = driver.handler.get_response(WSGIRequest(driver.environ("read", key)))
                expect(response.status_code, 200)


def measure(driver: Engine, sessions: int, seconds: int, touches: int) -> Table:
    """Poll once a second for so many seconds, then so rarely that every request writes activity."""
    name = driver.contender.name
    table = Table(
        f"The last activity, {name}",
        ["", "requests", "that write", "in place (HOT)", "table MB", "its indexes MB", "bar"],
    )
    keys = [driver.signed_in().session_key for _ in range(sessions)]
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")  # this does not measure time
    # To make them can take longer than an interval. From now on, all are due at the same time.
    now = timezone.now() + timedelta(seconds=61)
    poll(driver, keys, [now])
    for what, rounds, every in [
        (f"{sessions:,} sessions poll once a second", seconds, 1),
        ("and then once in 61 seconds", touches // sessions, 61),
    ]:
        before = states()
        moments = [now + timedelta(seconds=every * number) for number in range(1, rounds + 1)]
        poll(driver, keys, moments)
        now = moments[-1]
        after = states()
        requests = rounds * sessions
        for relation in TABLES:
            start, end = before[relation], after[relation]
            written, in_place = end.updated - start.updated, end.in_place - start.in_place
            if not written:
                continue  # only the other engine writes this table
            row = f"{what}: {relation.partition('_')[2]}"
            share, hot = written / requests, in_place / written
            verdicts = [Verdict(f"{name}, {row}: in place", 0.9, hot, at_least=True)]
            if every == 1:
                verdicts.append(Verdict(f"{name}, {row}: writes", 1 / 60, share))
            else:
                growth = end.indexes / start.indexes
                verdicts.append(Verdict(f"{name}, {row}: indexes", 1.1, growth))
            table.rows.append(
                [
                    row,
                    f"{requests:,}",
                    f"{share:.2%}",
                    f"{hot:.1%}",
                    f"{start.size / 2**20:.1f} → {end.size / 2**20:.1f}",
                    f"{start.indexes / 2**20:.1f} → {end.indexes / 2**20:.1f}",
                    ", ".join(map(str, verdicts)),
                ]
            )
            table.verdicts += verdicts
            table.figures[row] = start, end
    with connection.cursor() as cursor:
        cursor.execute("RESET synchronous_commit")
    return table
