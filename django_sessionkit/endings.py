"""
A stand-in, for the pages alone: work in the background comes with another branch.
"""

import json
import time
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import F
from django.utils import timezone

from django_sessionkit.models import Ending, EndReason, UserSession, UserSessionQuerySet, uuid7
from django_sessionkit.selection import Selection, staff, superusers

BACKGROUND = 1000
LIMIT = 100_000
ROWS = 500


@dataclass(frozen=True)
class Preview:
    count: int
    is_more: bool
    users: int
    staff: list[str]
    staff_count: int
    has_own: bool
    superusers: int
    sample: list[UserSession]


def begin(
    selection: Selection,
    *,
    by: Any,
    note: str,
    ended_from: uuid.UUID | None,
    spares_own: bool = True,
    spares_superusers: bool = True,
) -> Ending:
    return _create(
        scope=Ending.Scope.FILTER,
        filters=json.dumps(selection.as_text()),
        by=by,
        note=note,
        ended_from=ended_from,
        spares_own=spares_own,
        spares_superusers=spares_superusers,
    )


def throw(
    scope: Ending.Scope,
    *,
    by: Any,
    note: str,
    ended_from: uuid.UUID | None,
    user: Any = None,
    before: datetime | None = None,
    spares_own: bool = True,
) -> Ending:
    return _create(
        scope=scope,
        users=json.dumps([str(user.pk)]) if user else "",
        by=by,
        note=note,
        ended_from=ended_from,
        before=before or timezone.now(),
        spares_own=spares_own,
        spares_superusers=False,
    )


def _create(**columns: Any) -> Ending:
    ending = Ending(created_at=timezone.now(), last=uuid7(), **columns)
    ending.total = _rows(ending).count()
    ending.save()
    return ending


def _rows(ending: Ending) -> UserSessionQuerySet:
    rows = UserSession.objects.primary().active().filter(pk__lte=ending.last)
    match ending.scope:
        case Ending.Scope.FILTER:
            rows = Selection.parse(json.loads(ending.filters)).of(rows)
        case Ending.Scope.STAFF:
            rows = rows.filter(user__in=staff())
        case Ending.Scope.USER:
            rows = rows.filter(user__pk__in=json.loads(ending.users))
    if ending.before:
        rows = rows.exclude(authenticated_at__gte=ending.before)
    if ending.spares_own and ending.ended_from:
        rows = rows.exclude(pk=ending.ended_from)
    if ending.spares_superusers:
        rows = rows.exclude(user__in=superusers())
    return rows


def work(ending: Ending, seconds: float) -> bool:
    until = time.monotonic() + seconds
    ending.refresh_from_db()
    while ending.finished_at is None and time.monotonic() < until:
        handles = list(_rows(ending).values_list("pk", flat=True)[:ROWS])
        rows = UserSession.objects.primary().filter(pk__in=handles)
        ended = rows.revoke(EndReason.REVOKED_BY_STAFF, ending.by, ending.ended_from, ending.note)
        done = Ending.objects.filter(pk=ending.pk)
        done.update(looked_at=F("looked_at") + len(handles), ended=F("ended") + ended)
        if len(handles) < ROWS:
            done.update(finished_at=timezone.now())
        ending.refresh_from_db()
    return ending.finished_at is not None


def send(ending: Ending) -> bool:
    return False


def preview(selection: Selection, *, by: Any, own: uuid.UUID | None) -> Preview:
    rows = selection.of(UserSession.objects.primary().active())
    spared = 0
    if not getattr(by, "is_superuser", False):
        spared = rows.filter(user__in=superusers()).count()
        rows = rows.exclude(user__in=superusers())
    model = get_user_model()
    people = staff().filter(pk__in=rows.order_by().values("user"))
    count = rows[: LIMIT + 1].count()
    return Preview(
        count=min(count, LIMIT),
        is_more=count > LIMIT,
        users=rows.order_by().values("user").distinct().count(),
        staff=list(people.values_list(model.USERNAME_FIELD, flat=True)[:20]),
        staff_count=people.count(),
        has_own=rows.filter(pk__in=[own]).exists(),
        superusers=spared,
        sample=list(rows.select_related("user")[:10]),
    )
