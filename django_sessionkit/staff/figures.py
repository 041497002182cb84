"""
What the pages of staff count while somebody waits. Each function takes one query, and looks at so
many rows at most, however large the table is.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import Count, QuerySet
from django.utils import timezone

from django_sessionkit import tallies
from django_sessionkit.conf import conf
from django_sessionkit.models import EndReason, UserSession, UserSessionQuerySet

# How many rows of one kind are counted in an index.
LIMIT = 100_000
# Of how many sessions more is asked than the index says.
NEWEST = 20_000
PEOPLE = 10  # users with most active sessions


class Newest(NamedTuple):
    """
    The newest sessions that have not ended, NEWEST at most. ``is_part``: there are more of them.
    """

    rows: UserSessionQuerySet
    is_part: bool

    @classmethod
    def find(cls) -> "Newest":
        rows = UserSession.objects.primary().filter(end_reason="", ended_at=None)
        # Backwards in the index. Without naming its columns, PostgreSQL would sort all open rows.
        in_order = rows.order_by("-end_reason", "-ended_at", "-pk")
        oldest = in_order.values_list("pk", flat=True)[NEWEST - 1 : NEWEST].first()
        return cls(rows.filter(pk__gte=oldest) if oldest else rows, oldest is not None)

    def by_device(self) -> dict[str, int]:
        """Count those that have not expired, by DeviceType, and "" where the type is not known."""
        return self._count("device_type")

    def people(self) -> dict[Any, int]:
        """Return the users with most of them, by primary key, and how many have not expired."""
        return self._count("user", PEOPLE)

    def _count(self, column: str, number: int | None = None) -> dict[Any, int]:
        rows = self.rows.active().values_list(column).annotate(number=Count("pk"))
        return dict(rows.order_by("-number", column)[:number])


def since_midnight() -> dict[str, int]:
    """Count the sign-ins and, by reason, the endings of today, under their names in tallies.py."""
    start = tallies.start_of(tallies.today())
    parts = {"sign_ins": tallies.sign_ins(start)}
    return _count_each({**parts, **_by_reason("ended.", ended_at__gte=start)})


def backlog() -> int:
    """
    Count the rows of sessions that ended longer ago than SESSIONKIT_RETENTION, and that the purge
    has not deleted yet: up to LIMIT for each reason.
    """
    kept_from = timezone.now() - timedelta(seconds=conf.SESSIONKIT_RETENTION)
    return sum(_count_each(_by_reason("", ended_at__lt=kept_from)).values())


def _by_reason(prefix: str, **ended_at: Any) -> dict[str, QuerySet[Any]]:
    """Return the rows of each reason by themselves: so the index leads to each of these parts."""
    rows = UserSession.objects.primary().filter(**ended_at)
    return {f"{prefix}{reason}": rows.filter(end_reason=reason) for reason in EndReason.values}


def _count_each(parts: Mapping[str, QuerySet[Any]]) -> dict[str, int]:
    """Count the rows of each part, up to LIMIT of each, in one query."""
    using = UserSession.objects.primary().db
    queries, params = [], []
    for number, rows in enumerate(parts.values()):
        inner, its_params = _sql(rows.order_by().values("pk")[:LIMIT], using)
        queries.append(f"SELECT {number}, COUNT(*) FROM ({inner}) AS part{number}")  # noqa: S608
        params += its_params
    with connections[using].cursor() as cursor:
        cursor.execute(" UNION ALL ".join(queries), params)
        found = dict(cursor.fetchall())
    return {name: found[number] for number, name in enumerate(parts)}


def _sql(rows: QuerySet[Any], using: str) -> tuple[str, list[Any]]:
    sql, params = rows.query.get_compiler(using).as_sql()
    return sql, list(params)
