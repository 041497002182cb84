"""
Which sessions an ending reaches: in batches, for whoever does the work, and by number and names,
for whoever is about to begin it. No statement looks at more than a part of a large table.
"""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import connections
from django.db.models import Count, Exists, OuterRef, Q

from django_sessionkit.models import Ending, EndReason, UserSession, UserSessionQuerySet
from django_sessionkit.pace import Size
from django_sessionkit.selection import (
    Selection,
    staff,
    superusers,
    without_superusers,
    without_unfound_superusers,
)

# The handles of so many sessions are fetched at once, where an index leads to them, and a preview
# counts so many.
LIMIT = 100_000
# Else, one statement of the work looks at so many rows of the table, and a preview at so many of
# the newest.
PART, NEWEST = 5_000, 1_000_000
# How many names of staff and how many sessions a preview shows.
NAMES, SAMPLE = 20, 10

Batch = tuple[list[uuid.UUID], uuid.UUID, int]


def batches(ending: Ending, size: Size) -> Iterator[Batch]:
    """
    Yield the work in batches of ``size``, each with the handles of the sessions, that up to which
    all is done after it, and how many rows it has looked at.
    """
    done_to = beginning(ending)
    if are_few(ending):
        # Without ORDER BY and LIMIT, for which a database might go through the whole table.
        rows = matching(ending).filter(pk__gt=done_to).order_by()
        handles = iter(sorted(rows.values_list("pk", flat=True)))
        while batch := list(islice(handles, size.number)):
            yield batch, batch[-1], len(batch)
        return
    end = done_to  # of the part of the table
    while done_to < ending.last:
        rest = _table(ending).filter(pk__gt=done_to).order_by("pk").values_list("pk", flat=True)
        if end == done_to:
            end = rest[PART - 1 : PART].first() or ending.last
        number = size.number
        part = matching(ending).filter(pk__gt=done_to, pk__lte=end).order_by("pk")
        batch = list(part.values_list("pk", flat=True)[:number])
        to = batch[-1] if len(batch) == number else end
        yield batch, to, rest.filter(pk__lte=to).count()
        done_to = to


def matching(ending: Ending) -> UserSessionQuerySet:
    """
    Return the rows of the sessions that an ending is about and that have not ended. Where staff act
    as a user, the row does not say who they are: of the sessions of staff, these end by the epoch
    alone.
    """
    rows = _table(ending).filter(ended_at=None)
    if ending.scope == Ending.Scope.FILTER:
        rows = _selection_of(ending).of(rows)
    else:
        rows = rows.filter(_from_before(ending))
        if ending.scope != Ending.Scope.EVERYBODY:
            rows = rows.filter(user__pk__in=json.loads(ending.users or "[]"))
    if ending.spares_own and ending.ended_from:
        rows = rows.exclude(pk=ending.ended_from)
    return without_superusers(rows) if ending.spares_superusers else rows


def _table(ending: Ending) -> UserSessionQuerySet:
    return UserSession.objects.primary().filter(pk__lte=ending.last)


def rows_again(ending: Ending, handles: list[uuid.UUID]) -> UserSessionQuerySet:
    """
    Return the rows with these handles that an ending is still about: some may have been used since
    they were found, or their users may have proved who they are. What has a list of its own is not
    looked at again: see revoke().
    """
    rows = UserSession.objects.primary().filter(pk__in=handles)
    if ending.scope != Ending.Scope.FILTER:
        return rows.filter(_from_before(ending))
    rows = replace(_selection_of(ending), users=None, network=None, staff=False).of(rows)
    return without_unfound_superusers(rows) if ending.spares_superusers else rows


def _from_before(ending: Ending) -> Q:
    return Q(authenticated_at=None) | Q(authenticated_at__lte=ending.before)


def _selection_of(ending: Ending) -> Selection:
    return Selection.parse(json.loads(ending.filters))


def _leads(ending: Ending) -> bool:
    """Tell whether an index leads to the sessions."""
    if ending.scope == Ending.Scope.FILTER:
        return _selection_of(ending).is_narrow
    return ending.scope != Ending.Scope.EVERYBODY


def are_few(ending: Ending) -> bool:
    """Tell whether to fetch all handles at once, and not to go through the table."""
    return ending.total is not None and ending.total < LIMIT and _leads(ending)


def total(ending: Ending) -> int | None:
    """
    Return how many rows there are to look at: where an index leads to them those of the sessions,
    if they are fewer than LIMIT, else all of the table. None: nobody can tell fast enough. Raises
    ValidationError for a filter that makes no sense.
    """
    found = matching(ending).order_by()
    if _leads(ending) and (count := found[:LIMIT].count()) < LIMIT:
        return count
    table = _table(ending).filter(pk__gt=beginning(ending)).order_by()
    if (count := table[:LIMIT].count()) < LIMIT:
        return count
    rows = estimate(table.db)
    return None if rows is None else max(LIMIT, rows)


ESTIMATES = {
    "postgresql": "SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass",
    "mysql": "SELECT table_rows FROM information_schema.tables"
    " WHERE table_schema = DATABASE() AND table_name = %s",
}


def estimate(database: str) -> int | None:
    """
    Return about how many rows the table has, as the database has counted them at some time: -1 on
    PostgreSQL if it never has. None: this database does not say.
    """
    connection = connections[database]
    if connection.vendor not in ESTIMATES:
        return None
    with connection.cursor() as cursor:
        cursor.execute(ESTIMATES[connection.vendor], [UserSession._meta.db_table])
        (rows,) = cursor.fetchone()
    return int(rows)


def beginning(ending: Ending) -> uuid.UUID:
    """Return the handle up to which all is done."""
    return ending.done_to or uuid.UUID(int=0)


def ended_rows(ending: Ending, after: datetime | None = None) -> UserSessionQuerySet:
    """Return the rows of the sessions that this has ended, or of those that it has ended since."""
    return UserSession.objects.primary().filter(
        pk__lte=ending.last,
        end_reason=EndReason.REVOKED_BY_STAFF,
        ended_at__gte=after or ending.created_at,
        ended_by=ending.by_id,
        ended_from=ending.ended_from,
        end_note=ending.note,
    )


# What staff are shown before.


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What an ending of a selection would reach: active sessions, one's own included."""

    count: int  # LIMIT at most
    is_more: bool  # than count, as far as could be looked in time
    users: int  # whose sessions these are, of those that were counted
    staff: list[str]  # the names of those users who are staff, NAMES at most
    staff_count: int
    has_own: bool
    superusers: int  # the sessions of superusers that are left out
    sample: list[UserSession]  # SAMPLE at most, with their users

    @property
    def has_any(self) -> bool:
        """Whether there may be sessions to end."""
        return self.is_more or self.count > 0


def preview(selection: Selection, *, by: AbstractBaseUser | None, own: uuid.UUID | None) -> Preview:
    """
    Return what begin() would reach for ``by``, who ends sessions in the session with the handle
    ``own``. Raises ValidationError, with a message for people, for what makes no sense.

    Of a selection that no index leads to, this looks at the NEWEST sessions alone that began when
    it says.
    """
    rows = selection.of(UserSession.objects.primary()).active().order_by()
    left_out, is_part = 0, False
    if not may_end_superusers(by):
        # Their keys lead MariaDB to the index of users, and a subquery does not.
        keys = list(superusers().using(rows.db).values_list("pk", flat=True))
        left_out = rows.filter(user__in=keys)[:LIMIT].count()
        rows = rows.exclude(user__in=keys)
    has_own = own is not None and rows.filter(pk=own).exists()
    if not selection.is_narrow:
        began = selection.in_time(UserSession.objects.primary()).order_by("-pk")
        oldest = began.values_list("pk", flat=True)[NEWEST - 1 : NEWEST].first()
        if is_part := oldest is not None:
            rows = rows.filter(pk__gte=oldest)
    counted = rows.values("pk", "user")[: LIMIT + 1].aggregate(
        count=Count("pk"), users=Count("user", distinct=True)
    )
    there = staff().using(rows.db).filter(Exists(rows.filter(user=OuterRef("pk"))))
    names = list(
        there.order_by("pk").values_list(get_user_model().USERNAME_FIELD, flat=True)[: NAMES + 1]
    )
    return Preview(
        count=min(counted["count"], LIMIT),
        is_more=is_part or counted["count"] > LIMIT,
        users=counted["users"],
        staff=[str(name) for name in names[:NAMES]],
        staff_count=there.count() if len(names) > NAMES else len(names),
        has_own=has_own,
        superusers=left_out,
        sample=list(rows.select_related("user")[:SAMPLE]),
    )


def may_end_superusers(by: AbstractBaseUser | None) -> bool:
    """Tell whether somebody may end the sessions of superusers: superusers, and commands."""
    return by is None or bool(getattr(by, "is_superuser", False))
