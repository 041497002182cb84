"""
Purges 1,000,000 stored sessions and 1,000,000 rows of the registry, half of them expired, beside
one big DELETE and one big UPDATE of the same rows, and beside the ``clearsessions`` of Django and
of django-qsessions, on PostgreSQL and on MariaDB. This takes some minutes, and 10 GB of disk::

    .venv/bin/python -m benchmarks.purge [--quick] [--rows NUMBER] [--on MariaDB]

``make bench`` has the same tables. The command fails if the purge misses a bar. 10,000,000 rows are
purged once, and take 50 GB of disk.
"""
# ruff: noqa: S608 (the statements are put together from constants)

import argparse
import multiprocessing
import random
import resource
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from statistics import median, quantiles
from typing import Any, NamedTuple

from django.db import connection

from benchmarks.machine import Cores
from benchmarks.purge_tables import (
    DAY,
    DJANGO,
    KIT,
    PAYLOAD,
    QSESSIONS,
    apart,
    configure,
    copy_of,
    filled,
)
from benchmarks.registry import digest_of
from benchmarks.report import Table, Verdict
from tests import servers

FULL, QUICK = 1_000_000, 10_000
# Fewer rows take too few statements to be judged.
JUDGED = 300_000
# To copy a database takes MariaDB as long as to fill it.
ROUNDS = {"PostgreSQL": 3, "MariaDB": 1}
SERVERS: dict[str, Callable[[], str]] = {
    "PostgreSQL": partial(servers.postgresql, durable=True),
    "MariaDB": servers.mariadb,
}
# How many times as long as the bare statements the purge without pauses may take.
STORED_BAR, ROWS_BAR, NOTHING_BAR = 1.3, 1.6, 2.0
LONGEST = 20.0  # milliseconds of one statement: four times what a purge aims at
GROWTH = 16.0  # MiB by which the process may grow
# How many times as long as at rest the slowest of 100 operations of a site may take meanwhile.
LATENCY_BAR = 3.0
# The processes of the site, and the seconds that each of them waits after an operation.
SITE, THINKING = 2, 0.002
OPERATIONS = ("load", "save", "touch")
STORED, REGISTRY = "django_sessionkit_storedsession", "django_sessionkit_usersession"
WRITTEN_AHEAD = {
    "postgresql": "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn",
    "mysql": "SHOW GLOBAL STATUS LIKE 'Innodb_os_log_written'",
}
NOW = {"postgresql": "now()", "mysql": "utc_timestamp(6)"}
OTHERS = {
    DJANGO: ("Django's clearsessions", "django.contrib.sessions.backends.db", "django_session"),
    QSESSIONS: ("django-qsessions' clearsessions", "qsessions.backends.db", "qsessions_session"),
}


# What is measured.


class Figures(NamedTuple):
    """What it takes to purge one table."""

    seconds: float
    longest: float = 0.0  # milliseconds of the longest statement
    statements: int = 0
    wal: float = 0.0  # MiB that were written ahead
    dead: int = 0  # rows that a VACUUM has to look after
    memory: float = 0.0  # MiB by which the process has grown


class Meter:
    """
    Watches the statements of a purge, and parts them where the first one names the registry: stored
    sessions come before that.
    """

    def __init__(self) -> None:
        self.took: list[list[float]] = [[]]  # seconds of each statement, by phase
        self.marks = [self._mark()]

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql == WRITTEN_AHEAD[connection.vendor]:
            return execute(sql, params, many, context)
        if len(self.marks) == 1 and REGISTRY in sql:
            self.marks.append(self._mark())
            self.took.append([])
        start = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            self.took[-1].append(time.perf_counter() - start)

    def figures(self) -> list[Figures]:
        self.marks.append(self._mark())
        return [
            Figures(
                after[0] - before[0],
                max(took, default=0.0) * 1000,
                len(took),
                (after[1] - before[1]) / 2**20,
                memory=(after[2] - before[2]) / 1024,
            )
            for before, after, took in zip(self.marks, self.marks[1:], self.took, strict=False)
        ]

    def _mark(self) -> tuple[float, int, int]:
        """Return the time, how many bytes were written ahead, and the KiB of this process."""
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wal = written_ahead()
        return time.perf_counter(), wal, memory


def written_ahead() -> int:
    """Return how many bytes the server has written ahead."""
    with connection.cursor() as cursor:
        cursor.execute(WRITTEN_AHEAD[connection.vendor])
        return int(cursor.fetchone()[-1])


def dead_rows(table: str) -> int:
    if connection.vendor != "postgresql":
        return 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = %s", [table])
        return int(cursor.fetchone()[0])


def bare(statement: str, table: str) -> Figures:
    """Measure one statement."""
    before, start = written_ahead(), time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute(statement)
    seconds = time.perf_counter() - start
    wal = (written_ahead() - before) / 2**20
    return Figures(seconds, seconds * 1000, 1, wal, dead_rows(table))


def delete_and_update() -> list[Figures]:
    """Do with one statement each what the purge does with the two tables."""
    delete = f"DELETE FROM {STORED} WHERE expires_at <= {int(time.time() * 1000)}"
    update = (
        f"UPDATE {REGISTRY} SET ended_at = expires_at, end_reason = 'expired'"
        f" WHERE ended_at IS NULL AND expires_at <= {NOW[connection.vendor]}"
    )
    return [bare(delete, STORED), bare(update, REGISTRY)]


class Run(NamedTuple):
    stored: Figures
    registry: Figures
    began: float  # by time.monotonic(), which all processes of a machine have in common
    ended: float


def purge(duty: float) -> Run:
    """Purge both tables."""
    from django_sessionkit import purging

    began, meter = time.monotonic(), Meter()
    with connection.execute_wrapper(meter):
        purging.purge(duty=duty)
    stored, registry = meter.figures()
    ended = time.monotonic()
    stored = stored._replace(dead=dead_rows(STORED))
    return Run(stored, registry._replace(dead=dead_rows(REGISTRY)), began, ended)


def purge_nothing(rounds: int) -> tuple[list[Figures], list[Figures]]:
    """Purge, and then purge again where nothing is left, in turns with the count of it."""
    from django_sessionkit import purging

    purging.purge(duty=1)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE)" if connection.vendor == "postgresql" else "SELECT 1")
    ours, counts = [], []
    for _ in range(rounds):
        meter = Meter()
        with connection.execute_wrapper(meter):
            purging.purge(duty=1)
        both = meter.figures()
        seconds, longest = sum(each.seconds for each in both), max(each.longest for each in both)
        ours.append(Figures(seconds, longest, sum(each.statements for each in both)))
        now, moment = int(time.time() * 1000), NOW[connection.vendor]
        first = bare(f"SELECT count(*) FROM {STORED} WHERE expires_at < {now}", STORED)
        second = bare(f"SELECT count(*) FROM {REGISTRY} WHERE expires_at < {moment}", REGISTRY)
        counts.append(
            Figures(first.seconds + second.seconds, max(first.longest, second.longest), 2)
        )
    return ours, counts


def clear(engine: str, table: str) -> list[Figures]:
    """Measure the clearsessions of another engine."""
    from django.utils.module_loading import import_string

    store, meter = import_string(f"{engine}.SessionStore"), Meter()
    with connection.execute_wrapper(meter):
        store.clear_expired()
    return [each._replace(dead=dead_rows(table)) for each in meter.figures()]


# The site that is used meanwhile.


class Latency(NamedTuple):
    operation: str
    at: float  # when it was done, by time.monotonic()
    seconds: float


def use(url: str, rows: int, stop: Any, pipe: Any) -> None:
    """Load, save and touch sessions that have not expired, until somebody sets ``stop``."""
    configure(url)
    from django_sessionkit.backends.db import SessionStore
    from django_sessionkit.backends.sealing import NONCE

    found: list[Latency] = []

    def timed(operation: str, function: Callable[..., Any], *args: Any) -> Any:
        start = time.perf_counter()
        answer = function(*args)
        found.append(Latency(operation, time.monotonic(), time.perf_counter() - start))
        time.sleep(THINKING)
        return answer

    pipe.send("up")
    while not stop.is_set():
        digest = digest_of(2 * random.randrange(rows // 2) + 1)  # noqa: S311
        now, payload = int(time.time() * 1000), secrets.token_bytes(PAYLOAD)
        stored = timed("load", SessionStore.read, digest)
        timed("save", SessionStore.replace, digest, payload, now + DAY, stored.payload[:NONCE])
        timed("touch", SessionStore.touch, digest, now, now + DAY)
    pipe.send(found)


@contextmanager
def in_use(url: str, rows: int) -> Iterator[Callable[[], list[Latency]]]:
    """Have a site use the database, and yield a function that stops that and returns how long
    everything took."""
    context = multiprocessing.get_context("spawn")
    stop, pipes = context.Event(), []
    for _ in range(SITE):
        ours, theirs = context.Pipe()
        context.Process(target=use, args=[url, rows, stop, theirs], daemon=True).start()
        theirs.close()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()

    def end() -> list[Latency]:
        stop.set()
        return [latency for pipe in pipes for latency in pipe.recv()]

    try:
        yield end
    finally:
        stop.set()


def p99(latencies: list[Latency], operation: str, began: float, ended: float) -> float:
    """Return in how many milliseconds 99 of 100 of these operations were done, in this time."""
    found = [each.seconds for each in latencies if each.operation == operation]
    timed = [
        each.seconds
        for each in latencies
        if each.operation == operation and began <= each.at <= ended
    ]
    some = timed if len(timed) > 1 else found  # a small table is purged at once
    return quantiles(some, n=100, method="inclusive")[98] * 1000


def purge_in_use(url: str, rows: int, rest: float) -> tuple[Run, dict[str, tuple[float, float]]]:
    """
    Purge with the usual pauses while a site uses the database. Return also in how many milliseconds
    99 of 100 of each operation were done, at rest and meanwhile.
    """
    with in_use(url, rows) as end:
        time.sleep(rest / 2)  # until everything is warm
        began = time.monotonic()
        time.sleep(rest)
        rested = time.monotonic()
        run = apart(url, purge, 0.5)
        latencies = end()
    return run, {
        name: (p99(latencies, name, began, rested), p99(latencies, name, run.began, run.ended))
        for name in OPERATIONS
    }


# The tables of figures.


def measure(server: str, name: str, rows: int) -> Iterator[Table]:
    """
    Measure the purge on a server, and yield what was found. ``name`` is that of the database. More
    rows than usual are purged once, and by nobody else.
    """
    judged, is_huge = rows >= JUDGED, rows > FULL
    rounds = ROUNDS[name] if judged and not is_huge else 1
    with filled(server, KIT, rows) as full:
        bare_ones, runs = [], []
        for _ in range(rounds):
            with copy_of(server, full) as url:
                bare_ones.append(apart(url, delete_and_update))
            with copy_of(server, full) as url:
                runs.append(apart(url, purge, 1.0))
                if is_huge:
                    nothing, counts = apart(url, purge_nothing, 1)
        if not is_huge:
            with copy_of(server, full) as url:
                nothing, counts = apart(url, purge_nothing, 2 * rounds + 1)
            with copy_of(server, full) as url:
                busy, latencies = purge_in_use(url, rows, rest=min(10.0, rows / 50_000))
    table = Table(f"The purge of {rows:,} sessions, half of them expired, {name}", COLUMNS)
    stored, registry = [run.stored for run in runs], [run.registry for run in runs]
    deletes, updates = ([pair[number] for pair in bare_ones] for number in (0, 1))
    add(table, "one DELETE of stored sessions", deletes)
    add(table, "django-sessionkit, stored sessions", stored, deletes, STORED_BAR, judged)
    add(table, "one UPDATE of the registry", updates)
    add(table, "django-sessionkit, the registry", registry, updates, ROWS_BAR, judged)
    add(table, "two SELECT count(*) of what has expired", counts)
    add(table, "django-sessionkit, nothing to do", nothing, counts, NOTHING_BAR, judged)
    if is_huge:
        yield table
        return
    add(table, "django-sessionkit, half the time, site in use: stored sessions", [busy.stored])
    add(table, "django-sessionkit, half the time, site in use: the registry", [busy.registry])
    for what, (title, engine, relation) in OTHERS.items():
        if what == QSESSIONS and not find_spec("qsessions"):
            table.rows.append([title, "cannot be used here: not installed", *[""] * 7])
            continue
        with filled(server, what, rows) as full:
            add(table, title, apart(full, clear, engine, relation))
    yield table
    yield latencies_of(name, rows, latencies, judged)


COLUMNS = ["", "seconds", "to the line above", "statements", "longest, ms"]
COLUMNS += ["WAL, MiB", "dead rows", "memory, MiB", "bar"]


def add(
    table: Table,
    title: str,
    figures: list[Figures],
    others: list[Figures] | None = None,
    bar: float = 0.0,
    judged: bool = False,
) -> None:
    """Add a line, with the medians of the rounds. ``others`` is what the bar is a multiple of."""
    ratio, verdicts = "", []
    if others is not None:
        found = median(
            own.seconds / other.seconds for own, other in zip(figures, others, strict=True)
        )
        longest, growth = (
            median(each) for each in zip(*[(f.longest, f.memory) for f in figures], strict=True)
        )
        ratio, what = f"{found:.2f}", f"{table.title}: {title}"
        verdicts = [
            Verdict(what, bar, found, judged),
            Verdict(f"{what}, longest statement", LONGEST, longest, judged),
            Verdict(f"{what}, memory", GROWTH, growth, judged),
        ]
    middle = Figures(*map(median, zip(*figures, strict=True)))
    row = [title, f"{middle.seconds:,.2f}", ratio, f"{middle.statements:,.0f}"]
    row += [f"{middle.longest:,.1f}", f"{middle.wal:,.0f}", f"{middle.dead:,.0f}"]
    row += [f"{middle.memory:,.1f}", ", ".join(map(str, verdicts))]
    table.rows.append(row)
    table.verdicts += verdicts
    table.figures[title] = figures


def latencies_of(
    name: str, rows: int, latencies: dict[str, tuple[float, float]], judged: bool
) -> Table:
    table = Table(
        f"A site that is used during the purge of {rows:,} sessions, {name}",
        ["99 of 100 are done in, ms", "at rest", "meanwhile", "times", "bar"],
    )
    for operation, (rest, meanwhile) in latencies.items():
        verdict = Verdict(f"{table.title}: {operation}", LATENCY_BAR, meanwhile / rest, judged)
        figures = [f"{rest:.2f}", f"{meanwhile:.2f}", f"{meanwhile / rest:.2f}"]
        table.rows.append([operation, *figures, str(verdict)])
        table.verdicts.append(verdict)
        table.figures[operation] = rest, meanwhile
    return table


def tables(rows: int, cores: Cores, names: Iterable[str] = ROUNDS) -> Iterator[Table]:
    """Measure the purge on each of these databases that there is."""
    for name in names:
        with cores.on(cores.servers):
            try:
                server = SERVERS[name]()
            except RuntimeError as error:
                say(f"{name} cannot be used here: {error}")
                continue
        yield from measure(server, name, rows)


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main(rows: int, names: Iterable[str]) -> int:
    """Measure, and return the exit status: 1 if a bar is missed."""
    missed = 0
    for table in tables(rows, Cores(), names):
        say(str(table))
        missed += sum(verdict.missed for verdict in table.verdicts)
    return int(missed > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.purge")
    parser.add_argument("--quick", action="store_true", help=f"with {QUICK:,} sessions")
    parser.add_argument("--rows", type=int, help="with so many sessions")
    parser.add_argument("--on", choices=ROUNDS, help="on one of the databases only")
    given = parser.parse_args()
    number = given.rows or (QUICK if given.quick else FULL)
    sys.exit(main(number, [given.on] if given.on else ROUNDS))
