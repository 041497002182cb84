"""
Times what staff ask of 10,000,000 sessions, beside the bare SQL that fetches the same, in turns.
Then ends 1,000,000 of them, and times what other visitors notice of that. To fill the table takes
some minutes. The PostgreSQL is one of its own, and needs 12 GB::

    .venv/bin/python -m benchmarks.admin [--quick] [--rows NUMBER] [--ending NUMBER] [--write]

The command fails if a bar is missed. With ``--write``, the tables are put in docs/performance.md.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock
from urllib.parse import urlencode

import psycopg

from benchmarks.admin_site import set_up
from benchmarks.machine import Cores, processor
from benchmarks.report import Ratio, Table, Verdict
from tests import servers

FULL, QUICK = 10_000_000, 100_000
# One in so many sessions ends, unless somebody says how many do.
ENDING = 10
# How many times each question is asked, and each page looked at.
ROUNDS, VIEWS = 21, 7
# How many times as long as the bare SQL a question may take, on the full table.
BAR = 3.0

COLUMNS = [
    "",
    "ms",
    "bare SQL, ms",
    "times",
    "bar",
    "by psycopg alone, ms",
    "times",
    "the page, ms",
]
LIST = "/admin/django_sessionkit/usersession/"
DOCUMENT, HEADING = servers.PROJECT / "docs" / "performance.md", "## The admin on a large table\n"
BEFORE = "\n## Python frames around the driver\n"
ABOUT = """
What staff ask of a month of sessions, {rows:,} in all: what the page asks the database for, beside
the bare SQL that fetches the same with one statement. The bare SQL goes by Django's cursor, which
gives times the time zone of Django, and once more by psycopg alone, which prepares the statement.
What takes a millisecond or two in either case is Python: to make a statement, and 100 instances of
models. The page is the answer to a request, with its template. Then {ending:,} sessions end by a
filter, as a worker ends them in the background, while other visitors go on. To measure it on your
machine: `python -m benchmarks.admin`.

{machine}; PostgreSQL {postgresql}, Django {django}; {cores}. {rounds} rounds; the rows were written
in {seconds:,.0f} seconds.
"""


class Size(NamedTuple):
    rows: int
    ending: int
    rounds: int = ROUNDS
    views: int = VIEWS

    @property
    def judged(self) -> bool:
        return self.rows >= FULL


class Asked(NamedTuple):
    name: str
    ours: Callable[[], Any]
    sql: str
    read: Callable[[list[Any]], Any]  # makes the same result of the rows that the SQL finds
    parameters: Mapping[str, str] | None = None  # of the URL of the list, if that is the page


def asked_of_the_list() -> Iterator[Asked]:
    from benchmarks.questions import questions
    from django_sessionkit.models import UserSession
    from django_sessionkit.paging import SIDES
    from django_sessionkit.selection import Selection, search
    from django_sessionkit.staff.seeking import SIZE, page_of

    def ours(asked: Mapping[str, str]) -> list[Any]:
        words = {name: text for name, text in asked.items() if name not in ("q", *SIDES)}
        selection = Selection.parse({**words, **search(asked.get("q", ""), by_email=True)})
        rows = UserSession.objects.select_related("user", "ended_by")
        return [session.pk for session in page_of(rows, selection, asked).sessions]

    def read(rows: list[Any]) -> list[Any]:
        return [row[0] for row in rows[:SIZE]]

    for each in questions():
        yield Asked(each.name, partial(ours, each.asked), each.sql, read, each.asked)


def asked_of_the_glance() -> Iterator[Asked]:
    from benchmarks.questions import pictures

    for each in pictures():
        yield Asked(each.name, each.ours, each.sql, dict)


def timed(ask: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a question takes, and what it finds."""
    start = time.perf_counter()
    found = ask()
    return time.perf_counter() - start, found


def compared(table: Table, asked: Asked, cursors: Sequence[Any], client: Any, size: Size) -> None:
    """Add a row to the table for this question."""

    def theirs(cursor: Any) -> Any:
        cursor.execute(asked.sql)
        return asked.read(cursor.fetchall())

    name, parameters, page = asked.name, asked.parameters, ""
    everybody: list[Callable[[], Any]] = [asked.ours]
    everybody += [partial(theirs, cursor) for cursor in cursors]
    took: list[list[float]] = [[] for _ in everybody]
    for _ in range(size.rounds):
        (seconds, expected), *others = map(timed, everybody)
        if any(found != expected for _seconds, found in others):
            raise AssertionError(f"{name}: {expected}, and by bare SQL {others}")
        for times, each in zip(took, [seconds, *(each for each, _found in others)], strict=True):
            times.append(each)
    ours, bare, alone = took
    ratio = Ratio.of(ours, bare)
    verdict = Verdict(f"{name}, to bare SQL", BAR, ratio.middle, size.judged)
    if parameters is not None:
        url = f"{LIST}?{urlencode({'state': 'all', **parameters})}"
        page = milliseconds([seen(client, url) for _ in range(size.views)])
        table.figures[name] = {"asked": parameters, "seconds": took}
    figures = [milliseconds(ours), milliseconds(bare), str(ratio), str(verdict)]
    figures += [milliseconds(alone), str(Ratio.of(ours, alone))]
    table.rows.append([name, *figures, page])
    table.verdicts.append(verdict)


def seen(client: Any, url: str) -> float:
    seconds, answer = timed(lambda: client.get(url))
    if answer.status_code != 200 or b"errornote" in answer.content:
        raise AssertionError(f"{url}: {answer.status_code}")
    return seconds


def milliseconds(times: list[float]) -> str:
    return f"{median(times) * 1000:,.2f}"


def tables(database: str, size: Size) -> Iterator[Table]:
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test import Client
    from django.utils import timezone

    from benchmarks.bystanders import measure

    last = User.objects.order_by("-pk")[0].pk
    root = User.objects.create(pk=last + 1, username="root", is_staff=True, is_superuser=True)
    User.objects.create(pk=last + 2, username="visitor")
    client = Client()
    client.force_login(root)
    with psycopg.connect(database, autocommit=True) as alone, connection.cursor() as cursor:
        cursors = cursor, alone.cursor()
        table = Table("The list of sessions", COLUMNS)
        for asked in asked_of_the_list():
            compared(table, asked, cursors, client, size)
        yield table
        table = Table("At a glance", COLUMNS)
        # Time stands still: some sessions of this many expire with every second.
        with mock.patch("django.utils.timezone.now", return_value=timezone.now()):
            for asked in asked_of_the_glance():
                compared(table, asked, cursors, client, size)
        page = milliseconds([seen(client, f"{LIST}glance/") for _ in range(size.views)])
        table.rows.append(["all of it", *[""] * (len(COLUMNS) - 2), page])
        yield table
    client.logout()
    yield measure(database, size.ending, size.judged)


def run(size: Size) -> tuple[str, list[Table]]:
    """Measure it all. Return what was measured, in words, and the tables."""
    cores = Cores()
    with cores.on(cores.servers):
        server = servers.postgresql(durable=True)
    with servers.own_database(server) as database:
        set_up(database)
        import django
        from django.core.management import call_command
        from django.db import connection

        from benchmarks import month

        with closing(connection):
            call_command("migrate", verbosity=0)
            seconds, _ = timed(lambda: month.fill(size.rows))
            month.count_days()
            version = ".".join(map(str, connection.get_database_version()))
            about = ABOUT.format(
                rows=size.rows,
                ending=size.ending,
                machine=processor(),
                postgresql=version,
                django=django.get_version(),
                cores=cores,
                rounds=size.rounds,
                seconds=seconds,
            )
            say(about)
            found = []
            for table in tables(database, size):
                say(str(table))
                found.append(table)
    return about, found


def written(document: str, about: str, found: list[Table]) -> str:
    """Return the document with these tables, in place of those of another run."""
    before, rest = document.split(HEADING if HEADING in document else BEFORE, 1)
    after = rest[rest.index("\n## ") :] if HEADING in document else f"{BEFORE}{rest}"
    text = "\n".join([HEADING.strip("\n"), about, *map(str, found)])
    return f"{before.rstrip()}\n\n{text}{after}"


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> int:
    """Ask everything. Return the exit status: 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.admin")
    parser.add_argument("--quick", action="store_true", help=f"with {QUICK:,} sessions")
    parser.add_argument("--rows", type=int, help="with so many sessions")
    parser.add_argument("--ending", type=int, help="end so many (a tenth)")
    parser.add_argument("--rounds", type=int, help=f"ask each question so many times ({ROUNDS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    parser.add_argument("--write", action="store_true", help="put the figures in the documents")
    given = parser.parse_args()
    rows = given.rows or (QUICK if given.quick else FULL)
    rounds = given.rounds or ROUNDS
    size = Size(rows, given.ending or rows // ENDING, rounds, min(rounds, VIEWS))
    about, found = run(size)
    missed = [verdict for table in found for verdict in table.verdicts if verdict.missed]
    for verdict in missed:
        say(f"Missed: {verdict.what}: {verdict.found:.2f}, not {verdict.bar}")
    say(f"{len(missed)} bars missed.")
    if given.json:
        results = {"about": about, "tables": [asdict(table) for table in found]}
        given.json.write_text(json.dumps(results, indent=1))
    if given.write:
        DOCUMENT.write_text(written(DOCUMENT.read_text(), about, found))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
