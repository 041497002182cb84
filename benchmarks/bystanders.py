"""
What other visitors notice while staff end very many sessions: how long their loads and saves take
at worst, beside the time before.
"""

import math
import multiprocessing
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from statistics import quantiles
from typing import Any, NamedTuple

from django.db import connection
from django.utils import timezone

from benchmarks.admin_site import set_up
from benchmarks.drivers import CART, STORED
from benchmarks.report import Table, Verdict

# How many visitors there are, and the seconds between two of their requests.
VISITORS, PAUSE = 200, 0.005
# So many sessions end while the visitors have been watched for a second before.
FOR_A_SECOND = 30_000
# How many times as long as before the slowest hundredth may take, and how many seconds a statement.
BAR, LONGEST = 3.0, 1.0

Times = dict[str, list[float]]  # seconds, by operation


@contextmanager
def visitors_of(database: str) -> Iterator[Callable[[], Times]]:
    """
    Let other people use their sessions all the time, in a process of their own. Yield a function
    that returns how long their loads and saves have taken since it was called last.
    """
    pipe, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_use, args=[theirs, database], daemon=True)
    process.start()
    theirs.close()
    pipe.recv()

    def times() -> Times:
        pipe.send(None)
        found: Times = pipe.recv()
        return found

    yield times
    pipe.close()
    process.join()


def _use(pipe: Any, database: str) -> None:
    set_up(database)
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import User

    from django_sessionkit.backends.db import SessionStore

    user = User.objects.order_by("-pk")[0]
    keys = []
    for _ in range(VISITORS):
        session = SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        session["cart"] = CART
        session.create()
        keys.append(session.session_key)
    pipe.send(None)
    times: Times = {"load": [], "save": []}
    while True:
        if pipe.poll(PAUSE):
            try:
                pipe.recv()
            except EOFError:  # the benchmark is over
                return
            pipe.send(times)
            times = {"load": [], "save": []}
        session = SessionStore(secrets.choice(keys))
        start = time.perf_counter()
        if session["cart"] is None:
            raise RuntimeError("A visitor was signed out.")
        loaded = time.perf_counter()
        session["number"] = secrets.randbits(32)
        session.save()
        times["load"].append(loaded - start)
        times["save"].append(time.perf_counter() - loaded)


class Statements:
    """Watches the statements of the connection of this process."""

    def __init__(self) -> None:
        self.number, self.longest, self.sql = 0, 0.0, ""

    def __call__(self, execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        start = time.perf_counter()
        try:
            return execute(sql, *args)
        finally:
            took = time.perf_counter() - start
            self.number += 1
            if took > self.longest:
                self.longest, self.sql = took, sql


class Many(NamedTuple):
    """The newest active sessions, up to a number: they began from one moment up to another."""

    number: int
    start: datetime
    end: datetime


def measure(database: str, sessions: int, judged: bool) -> Table:
    """End so many sessions, as a worker does. Return what the visitors noticed of that."""
    many = _many(sessions)
    statements = Statements()
    with visitors_of(database) as times_of_visitors:
        times_of_visitors()
        time.sleep(max(1.0, many.number / FOR_A_SECOND))
        before = times_of_visitors()
        start = time.perf_counter()
        with connection.execute_wrapper(statements):
            ended = _end(many)
        seconds = time.perf_counter() - start
        meanwhile = times_of_visitors()
    if ended != many.number:
        raise AssertionError(f"{ended} sessions have ended, of {many.number}")

    columns = ["", "before, ms", "meanwhile, ms", "times", "bar"]
    table = Table(f"What others notice while {ended:,} sessions end", columns)
    for name in before:
        for percent in (50, 99):
            then, now = (_percentile(times[name], percent) for times in (before, meanwhile))
            is_bar = percent == 99
            verdict = Verdict(f"{name}, p{percent}, to before", BAR, now / then, judged and is_bar)
            table.verdicts += [verdict] if is_bar else []
            figures = [f"{then * 1000:,.2f}", f"{now * 1000:,.2f}", f"{now / then:.2f}"]
            label = f"{name}, {'the slowest hundredth from' if is_bar else 'the middle'}"
            table.rows.append([label, *figures, str(verdict) if is_bar else ""])
    longest = Verdict("the longest statement, in seconds", LONGEST, statements.longest, judged)
    table.verdicts.append(longest)
    row = ["the longest statement of the ending", "", f"{statements.longest * 1000:,.2f}", ""]
    table.rows.append([*row, str(longest)])
    table.notes.append(
        f"The ending took {seconds:,.0f} seconds and {statements.number:,} statements, as a worker"
        f" does it. The longest one began with `{' '.join(statements.sql.split()[:3])}`. Beside it,"
        f" {VISITORS} visitors loaded and saved their sessions {len(meanwhile['load']):,} times."
    )
    return table


def _many(sessions: int) -> Many:
    """Find the sessions that are to end, and give each something in the store."""
    from django_sessionkit.models import UserSession

    now = timezone.now()
    newest = UserSession.objects.active().order_by("-pk").values_list("pk", "started_at")
    found = newest[sessions - 1 : sessions].first() or newest.last()
    if found is None:
        raise RuntimeError("There are no sessions.")
    with connection.cursor() as cursor:
        # Beside theirs is nothing in the store: what else there is makes no difference to an index.
        cursor.execute(
            "INSERT INTO django_sessionkit_storedsession (digest, payload, touched_at, expires_at)"
            " SELECT digest, decode(repeat('00', %s), 'hex'), 0,"
            " (extract(epoch FROM expires_at) * 1000)::bigint FROM django_sessionkit_usersession"
            " WHERE id >= %s AND ended_at IS NULL AND expires_at > %s AND id < %s",
            [STORED, found[0], now, _handle(now)],
        )
        cursor.execute("VACUUM ANALYZE django_sessionkit_storedsession")
        cursor.execute("CHECKPOINT")
    rows = UserSession.objects.active().filter(pk__gte=found[0], pk__lt=_handle(now))
    # The milliseconds of a handle are those of its moment.
    return Many(rows.count(), _moment(found[0]), now)


def _handle(moment: datetime) -> Any:
    from django_sessionkit.selection import since

    return since(moment)


def _moment(handle: Any) -> datetime:
    from django_sessionkit.clock import as_datetime

    return as_datetime(handle.int >> 80)


def _end(many: Many) -> int:
    from django_sessionkit import endings
    from django_sessionkit.selection import Selection

    selection = Selection(state="active", started_after=many.start, started_before=many.end)
    ending = endings.begin(selection, by=None, note="A benchmark", ended_from=None)
    endings.work(ending, math.inf, gently=True)
    return ending.ended


def _percentile(times: list[float], percent: int) -> float:
    return quantiles(times, n=100, method="inclusive")[percent - 1]
