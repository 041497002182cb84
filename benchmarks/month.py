"""
The sessions of a month, as many as it takes: a table in which each question of staff finds some. To
write ten million takes some minutes, and 10 GB.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from benchmarks.registry import DIGEST, FIREFOX, copy_row
from django_sessionkit import tallies
from django_sessionkit.models import DeviceType, EndReason, PurgeRun, Tally, UserSession

# So many rows are written by one statement.
BATCH = 1_000_000
DAYS = 30
MS = 24 * 3600 * 1000  # milliseconds of a day

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15"
    " (KHTML, like Gecko) Version/26.1 Mobile/15E148 Safari/604.1"
)


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
    model.objects.update(id=number + 1)
    columns = {"username": "'user' || n", "email": "'user' || n || '@example.org'"}
    copy_row(model, range(1, number + 1), id="n", is_staff="n % 1000 = 7", **columns)


def count_days() -> None:
    """Write figures of each day, as many as a purge writes down. What they say does not matter."""
    names = ["sign_ins", "active.", *(f"active.{name}" for name in DeviceType.values)]
    names += [f"ended.{reason}" for reason in EndReason.values]
    days = tallies.days_until(tallies.today() - timedelta(days=1))
    Tally.objects.bulk_create(
        Tally(day=day, name=name, value=1000) for day in days for name in names
    )
    now = timezone.now()
    PurgeRun.objects.create(started_at=now, finished_at=now)


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
