"""
Times what staff ask of 10,000,000 sessions, beside the bare SQL that fetches the same, in turns. To
fill the table takes some minutes. The PostgreSQL is one of its own, and needs 10 GB::

    .venv/bin/python -m benchmarks.admin [--quick] [--rows NUMBER]

The command fails if a question takes longer than the bar, in times of the bare SQL.
"""

import argparse
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

import dj_database_url
import django
import psycopg
from django.conf import settings
from django.db import connection

from benchmarks.registry import DIGEST, FIREFOX, copy_row
from benchmarks.report import Ratio, Table, Verdict
from tests import servers

FULL, QUICK = 10_000_000, 100_000
# So many rows are written by one statement.
BATCH = 1_000_000
PAGE = 100
ROUNDS = 21
# How many times as long as the bare SQL a question may take, on the full table.
BAR = 3.0
DAYS = 30
MS = 24 * 3600 * 1000  # milliseconds of a day

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15"
    " (KHTML, like Gecko) Version/26.1 Mobile/15E148 Safari/604.1"
)
SELECT = "SELECT * FROM django_sessionkit_usersession JOIN auth_user ON auth_user.id = user_id"
NEWEST = f"ORDER BY django_sessionkit_usersession.id DESC LIMIT {PAGE}"


class Question(NamedTuple):
    words: Mapping[str, str]  # of Selection.parse()
    condition: str  # the same in SQL


QUESTIONS = {
    "everything": Question({}, "true"),
    "of a user": Question({"users": "7"}, "user_id = 7"),
    "from an address": Question({"network": "203.0.113.7"}, "ip = '203.0.113.7'"),
    "from a network": Question({"network": "203.0.113.0/24"}, "ip <<= '203.0.113.0/24'"),
    "active": Question({"state": "active"}, "ended_at IS NULL AND expires_at > now()"),
    "ended, and why": Question({"reason": "reused"}, "end_reason = 'reused'"),
    "of staff": Question({"staff": "1"}, "is_staff"),
    "of apps": Question({"transport": "header"}, "transport = 'header'"),
    "from a new device": Question({"new": "1"}, "novelty <> ''"),
    "on a telephone": Question({"device_type": "mobile"}, "device_type = 'mobile'"),
}


# The table.


def some(number: int, salt: int) -> str:
    """Return SQL for one of so many numbers, from 0 on, which looks like chance. n decides."""
    return f"((hashint8extended(n, {salt}) & 2147483647) % {number})"


def share(percent: float, salt: int) -> str:
    """Return SQL that is true for so many of a hundred rows."""
    return f"{some(1000, salt)} < {percent * 10}"


def columns_of(rows: int) -> dict[str, str]:
    """Return SQL for the columns of row n: sessions of the last month, of five sign-ins a user."""
    last = int(time.time() * 1000)
    at = f"({last} - ({rows} - n) * {DAYS * MS / rows:.3f})::bigint"
    moment = f"to_timestamp({at} / 1000.0)"
    later = f"{moment} + {some(100, 1)} * interval '1 hour'"
    ended = share(70, 2)
    # One address in a thousand is in a network that somebody attacks from.
    anywhere = [some(256, salt) for salt in (3, 4, 5, 6)]
    address = f"concat_ws('.', {', '.join(anywhere)})"
    mobile = share(30, 8)
    return {
        "id": f"(lpad(to_hex({at}), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid",
        "user_id": f"1 + n % {max(rows // 5, 1)}",
        "digest": DIGEST,
        "started_at": moment,
        "authenticated_at": moment,
        "last_seen_at": later,
        "expires_at": f"{moment} + interval '14 days'",
        "ip": f"CASE WHEN {share(0.1, 7)} THEN '203.0.113.' || {some(256, 6)} ELSE {address} END"
        "::inet",
        "user_agent": f"CASE WHEN {mobile} THEN '{IPHONE}' ELSE '{FIREFOX}' END",
        "device_type": f"CASE WHEN {mobile} THEN 'mobile' ELSE 'desktop' END",
        "browser": "gen_random_uuid()",
        "novelty": f"CASE WHEN {share(2, 9)} THEN 'device' ELSE '' END",
        "transport": f"CASE WHEN {share(5, 10)} THEN 'header' ELSE 'cookie' END",
        "ended_at": f"CASE WHEN {ended} THEN {later} END",
        "end_reason": f"CASE WHEN NOT {ended} THEN '' WHEN {share(60, 11)} THEN 'logout'"
        f" WHEN {share(1, 12)} THEN 'reused' ELSE 'expired' END",
    }


def fill(rows: int) -> None:
    """Write the table, without its indexes meanwhile."""
    from django.contrib.auth.models import User
    from django.utils import timezone

    from django_sessionkit.models import UserSession

    now = timezone.now()
    template = User.objects.create(username="template")
    copy_users(User, max(rows // 5, 1))
    moments = {"started_at": now, "last_seen_at": now, "expires_at": now}
    row = UserSession.objects.create(user=template, digest=secrets.token_hex(32), **moments)
    with without_indexes(UserSession):
        for start in range(1, rows + 1, BATCH):
            copy_row(UserSession, range(start, min(start + BATCH, rows + 1)), **columns_of(rows))
        row.delete()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def copy_users(model: Any, number: int) -> None:
    """Copy the only user. One in a thousand is staff."""
    staff = "n % 1000 = 7"
    model.objects.update(id=number + 1)
    copy_row(model, range(1, number + 1), id="n", username="'user' || n", is_staff=staff)


@contextmanager
def without_indexes(model: Any) -> Iterator[None]:
    indexes, constraints = model._meta.indexes, model._meta.constraints
    with connection.schema_editor() as editor:
        for index in indexes:
            editor.remove_index(model, index)
        for constraint in constraints:
            editor.remove_constraint(model, constraint)
    yield
    with connection.schema_editor() as editor:
        for constraint in constraints:
            editor.add_constraint(model, constraint)
        for index in indexes:
            editor.add_index(model, index)


# The questions.


def timed(ask: Callable[[], int]) -> tuple[float, int]:
    """Return the seconds that a question takes, and the number of rows that it finds."""
    start = time.perf_counter()
    number = ask()
    return time.perf_counter() - start, number


def compared(name: str, question: Question, bare: psycopg.Cursor[Any], judged: bool) -> Table:
    from django_sessionkit.selection import Selection

    def ours() -> int:
        rows = Selection.parse(question.words).rows().select_related("user").order_by("-pk")
        return len(rows[:PAGE])

    def theirs() -> int:
        bare.execute(f"{SELECT} WHERE {question.condition} {NEWEST}")
        return len(bare.fetchall())

    took: tuple[list[float], list[float]] = [], []
    for _ in range(ROUNDS):
        found = [timed(ours), timed(theirs)]
        if found[0][1] != found[1][1]:
            raise AssertionError(f"{name}: {found[0][1]} rows, and {found[1][1]} by bare SQL")
        for times, (seconds, _number) in zip(took, found, strict=True):
            times.append(seconds)
    ratio = Ratio.of(*took)
    verdict = Verdict(f"{name}, to bare SQL", BAR, ratio.middle, judged)
    milliseconds = [f"{median(times) * 1000:,.2f}" for times in took]
    row = [name, *milliseconds, str(ratio), str(verdict)]
    return Table(name, [], [row], verdicts=[verdict])


def main(rows: int) -> int:
    """Ask all questions. Return the exit status: 1 if a bar is missed."""
    with servers.own_database(servers.postgresql()) as url:
        settings.configure(
            SECRET_KEY=secrets.token_hex(),
            USE_TZ=True,
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            INSTALLED_APPS=[
                "django.contrib.auth",
                "django.contrib.contenttypes",
                "django_sessionkit",
            ],
            SESSION_ENGINE="django_sessionkit.backends.db",
            DATABASES={"default": dj_database_url.parse(url)},
        )
        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        start = time.perf_counter()
        fill(rows)
        seconds = time.perf_counter() - start
        print(f"{rows:,} sessions, written in {seconds:,.0f} seconds\n")  # noqa: T201
        table = Table("What staff ask", ["", "ms", "bare SQL, ms", "times", "bar"])
        with psycopg.connect(url, autocommit=True) as bare:
            for name, question in QUESTIONS.items():
                one = compared(name, question, bare.cursor(), judged=rows >= FULL)
                table.rows += one.rows
                table.verdicts += one.verdicts
        print(table)  # noqa: T201
        connection.close()
    return int(any(verdict.missed for verdict in table.verdicts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.admin")
    parser.add_argument("--quick", action="store_true", help=f"with {QUICK:,} sessions")
    parser.add_argument("--rows", type=int, help="with so many sessions")
    given = parser.parse_args()
    sys.exit(main(given.rows or (QUICK if given.quick else FULL)))
