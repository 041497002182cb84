"""
The figures of each day: how many sessions were active, how many sign-ins there were, how many
sessions ended and why. The purge writes them down, so that nobody who looks at them waits for ten
million rows to be counted. Days are those of TIME_ZONE.

The names of the figures:

- ``active.<device type>``: sessions that were active when a purge looked last on that day.
- ``sign_ins``: sign-ins of that day, without sessions that moved here and those of support.
- ``ended.<reason>``: sessions that ended on that day, by EndReason.
- ``request.unopened``, ``request.refused``: requests of that day whose stored session did not open,
  and sign-ins that the limit refused. They leave no row that could be counted later.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import partial

from django.conf import settings
from django.db import DatabaseError, connections
from django.db.models import Count, F
from django.db.models.expressions import RawSQL
from django.utils import timezone

from django_sessionkit.models import (
    DeviceType,
    EndReason,
    PurgeRun,
    Tally,
    UserSession,
    UserSessionQuerySet,
)
from django_sessionkit.pace import Pace
from django_sessionkit.selection import since
from django_sessionkit.signals import purge_finished

logger = logging.getLogger("django_sessionkit")

# How many days the pictures of staff show. A first run counts so many days, and as many days of
# runs stay.
DAYS = 30
# What is counted by one statement: an hour at first, then less after so MANY rows, for that is to
# take milliseconds, and more after so FEW.
FIRST_SPAN, FEW, MANY = timedelta(hours=1), 5_000, 20_000
# How many days of figures stay.
KEPT = 366
# What requests count.
UNOPENED, REFUSED = "request.unopened", "request.refused"
TABLE = Tally._meta.db_table
# MySQL takes the row to update from a derived table only, if it is in the same table.
FREE = (
    f"SELECT id FROM (SELECT id FROM {TABLE} WHERE day = %s AND name = %s FOR UPDATE SKIP LOCKED)"  # noqa: S608
    " AS free"
)


# Days.


def day_of(moment: datetime) -> date:
    """Return the day, by TIME_ZONE, of a moment that is aware, or naive without USE_TZ."""
    zone = timezone.get_default_timezone()
    return timezone.localtime(moment, zone).date() if timezone.is_aware(moment) else moment.date()


def today() -> date:
    return day_of(timezone.now())


def start_of(day: date) -> datetime:
    """Return the first moment of a day, aware or naive as USE_TZ says."""
    start = datetime(day.year, day.month, day.day)  # noqa: DTZ001 (made aware below)
    if not settings.USE_TZ:
        return start
    return timezone.make_aware(start, timezone.get_default_timezone())


def days_until(last: date, number: int = DAYS) -> list[date]:
    """Return so many days, the last one included, the earliest first."""
    return [last - timedelta(days=ago) for ago in reversed(range(number))]


# What is counted.


def sign_ins(start: datetime, end: datetime | None = None) -> UserSessionQuerySet:
    """Return the rows of the sign-ins from one moment on, up to another one."""
    rows = UserSession.objects.primary().filter(pk__gte=since(start))
    rows = rows.filter(adopted_at=None, support=False)
    return rows.filter(pk__lt=since(end)) if end else rows


def endings(start: datetime, end: datetime) -> UserSessionQuerySet:
    """
    Return the rows of the sessions that ended from one moment on, up to another one. The reasons
    are named because the index begins with them.
    """
    return UserSession.objects.primary().filter(
        end_reason__in=EndReason.values, ended_at__gte=start, ended_at__lt=end
    )


# The purge calls this.


def finish(run: PurgeRun, pace: Pace) -> None:
    """
    Write down the figures of the days since the last purge that has finished, and note that this
    one has. In ``pace.figures`` are the rows that it has deleted, and active sessions by device
    type.
    """
    before, now, counted = last_finished(), timezone.now(), pace.figures
    day = day_of(now)
    # Of all device types, for the sessions of one may all have ended.
    active = [f"active.{name}" for name in ("", *DeviceType.values)]
    _write(day, {name: counted.get(name, 0) for name in active})
    # A purge marks what has expired with the time of its expiry: since the purge before, that is.
    # And the day before that, for what that purge passed over.
    roll_up(day_of(before.started_at) - timedelta(days=1) if before else date.min, day, pace)
    runs = PurgeRun.objects.primary()
    run.finished_at, run.deleted = now, counted["deleted"]
    run.save(using=runs.db)
    runs.filter(started_at__lt=now - timedelta(days=DAYS)).delete_now()
    Tally.objects.primary().filter(day__lt=day - timedelta(days=KEPT)).delete_now()


def announce(run: PurgeRun, figures: Mapping[str, int]) -> None:
    """Say that a purge has finished."""
    seconds = (timezone.now() - run.started_at).total_seconds()
    purge_finished.send_robust(PurgeRun, figures=figures, seconds=seconds)


def roll_up(first: date, last: date, pace: Pace) -> None:
    """
    Count the sign-ins and endings of these days, of the DAYS last ones at most, and write them
    down. A figure does not become smaller: rows go, by SESSIONKIT_RETENTION and with their users.
    """
    first = max(first, last - timedelta(days=DAYS - 1))
    tallies = Tally.objects.primary().filter(day__gte=first)
    known = {(row.day, row.name): row.value for row in tallies}
    span = FIRST_SPAN
    for day in days_until(last, (last - first).days + 1):
        start, end = _utc(start_of(day)), _utc(start_of(day + timedelta(days=1)))
        counted = Counter(sign_ins=0)
        while start < end:
            until = min(end, start + span)
            found = pace.read(partial(_count, start, until))
            if found.total() > MANY:
                span /= 2
            elif found.total() < FEW:
                span = min(2 * span, timedelta(days=1))
            counted.update(found)
            start = until
        _write(
            day, {name: max(value, known.get((day, name), 0)) for name, value in counted.items()}
        )


def _count(start: datetime, end: datetime) -> Counter[str]:
    """
    Count the sign-ins and endings of a time, by the names of their figures. Each of two statements
    reads a part of an index.
    """
    counted = Counter(sign_ins=sign_ins(start, end).count())
    reasons = endings(start, end).order_by().values_list("end_reason")
    for reason, number in reasons.annotate(number=Count("pk")):
        counted[f"ended.{reason}"] = number
    return counted


def _utc(moment: datetime) -> datetime:
    """Return a moment that knows how long an hour is, also if the clocks change then."""
    return moment.astimezone(UTC) if timezone.is_aware(moment) else moment


def _write(day: date, figures: Mapping[str, int]) -> None:
    tallies = Tally.objects.primary()
    has_target = connections[tallies.db].features.supports_update_conflicts_with_target
    tallies.bulk_create(
        [Tally(day=day, name=name, value=value) for name, value in figures.items()],
        update_conflicts=True,
        unique_fields=["day", "name"] if has_target else None,
        update_fields=["value"],
    )


# Requests call this.


def count_request(name: str) -> None:
    """
    Add a request to the figure of this name, of today. One statement, or four for the first one of
    a day.

    Call this after the view. In a transaction, as in the tests of a site, nothing is counted:
    others would wait for the figure until it is over. Of two requests at the same moment, one may
    not be counted: neither waits for the other.
    """
    tallies = Tally.objects.primary()
    connection = connections[tallies.db]
    if connection.in_atomic_block:
        return
    day = today()
    figure = free = tallies.filter(day=day, name=name)
    if connection.features.has_select_for_update_skip_locked:
        free = tallies.filter(pk=RawSQL(FREE, [day, name]))  # noqa: S611 (a constant)
    more = {"value": F("value") + 1}
    try:
        if not (free.update(**more) or figure.exists()):
            first = Tally(day=day, name=name, value=0)
            tallies.bulk_create([first], ignore_conflicts=True)
            free.update(**more)
    except DatabaseError as error:  # a figure is not worth an answer
        logger.warning("A request was not counted: %s", type(error).__name__)


# Reading them.


def figures(days: list[date]) -> dict[str, dict[date, int]]:
    """Return the figures of these days, by name and day. One query."""
    rows = Tally.objects.primary().filter(day__gte=days[0], day__lte=days[-1])
    found: dict[str, dict[date, int]] = {}
    for day, name, value in rows.values_list("day", "name", "value"):
        found.setdefault(name, {})[day] = value
    return found


def last_run() -> PurgeRun | None:
    """Return the newest run of the purge, finished or not."""
    return PurgeRun.objects.primary().order_by("-pk").first()


def last_finished() -> PurgeRun | None:
    """Return the newest run of the purge that has finished."""
    return PurgeRun.objects.primary().exclude(finished_at=None).order_by("-pk").first()
