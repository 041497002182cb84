"""
A user's sessions in pages, the last active first. A page begins at a position in that order and not
at a number. So nobody misses a session because others end while the pages are turned. A session
that is used meanwhile moves to the first page.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Self

from django.conf import settings
from django.db.models import Count, Q
from django.utils import timezone

from django_sessionkit.conf import conf
from django_sessionkit.models import UserSession, UserSessionQuerySet, still_stored

# Sessions on a page.
SIZE = 25
LAST_ACTIVE_FIRST = ("-last_seen_at", "-pk")

# As many digits as there are microseconds until the year 5138: every such number is a date.
POSITION = re.compile(r"(\d{1,17})-([0-9a-f]{32})", re.ASCII)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Position(NamedTuple):
    """The place of a session in the order of the list. URLs have it as text."""

    microseconds: int  # of the last activity, since the epoch
    handle: uuid.UUID

    @classmethod
    def of(cls, row: UserSession) -> Self:
        at = row.last_seen_at if settings.USE_TZ else timezone.make_aware(row.last_seen_at)
        return cls((at - EPOCH) // timedelta(microseconds=1), row.pk)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the position that a text says, or None if it says none."""
        found = POSITION.fullmatch(text)
        return cls(int(found[1]), uuid.UUID(found[2])) if found else None

    def __str__(self) -> str:
        return f"{self.microseconds}-{self.handle.hex}"

    def rows(self, side: str) -> Q:
        """Return the condition for the rows "before" or "after" this position."""
        at = EPOCH + timedelta(microseconds=self.microseconds)
        at = at if settings.USE_TZ else timezone.make_naive(at)
        way = "gt" if side == "before" else "lt"
        same = Q(last_seen_at=at, **{f"pk__{way}": self.handle})
        return Q(**{f"last_seen_at__{way}": at}) | same


@dataclass(frozen=True, kw_only=True)
class Page:
    """
    The sessions on one page. ``previous``, ``here`` and ``next`` are the query strings of the pages
    around it and of this one, such as "?after=…". They are "" where there is no such page, and for
    the first page.
    """

    sessions: list[UserSession]
    previous: str = ""
    here: str = ""
    next: str = ""
    # On all pages. The list of a single page is exact. More are counted in the registry alone, with
    # what the store has lost since the last purge.
    other_count: int  # all but the current session
    counted: int  # those that count towards Policy.limit

    @property
    def is_whole(self) -> bool:
        """Whether this page has all the sessions."""
        return not self.previous and not self.next


def asked_position(asked: Mapping[str, str]) -> tuple[str, Position] | None:
    """
    Return which page the parameters of a URL ask for: that "before" or that "after" a position.
    None stands for the first page.
    """
    for side in ("before", "after"):
        if position := Position.parse(asked.get(side, "")):
            return side, position
    return None


def query_of(asked: Mapping[str, str]) -> str:
    """Return the query string of the page that the parameters of a URL ask for."""
    where = asked_position(asked)
    return f"?{where[0]}={where[1]}" if where else ""


def with_activity(sessions: UserSessionQuerySet, handle: uuid.UUID | None) -> UserSessionQuerySet:
    """Return these rows with the annotations ``is_current`` and ``is_active_now``."""
    current = Q(pk=handle)
    # This is as exact as it gets: activity is written once per interval.
    since = timezone.now() - timedelta(seconds=conf.SESSIONKIT_TOUCH_INTERVAL)
    active = current | Q(last_seen_at__gte=since)
    return sessions.annotate(is_current=current, is_active_now=active)


def page_of(
    sessions: UserSessionQuerySet, current: uuid.UUID | None, asked: Mapping[str, str]
) -> Page:
    """
    Return the page of these sessions that the parameters of a URL ask for. The sessions are
    annotated with ``is_current``. The one with the handle ``current`` comes first, and only on the
    first page.

    Two round trips, however many sessions there are. Where they take several pages, a third counts
    them, and a fourth gets the first page for somebody who turns back to it.

    Raises StoreUnavailable.
    """
    rows, is_current = sessions.filter(ended_at=None), Q(pk=current)
    side, position = asked_position(asked) or ("", None)
    found: list[UserSession] = []
    if position:
        others = rows.exclude(is_current).filter(position.rows(side))
        order = LAST_ACTIVE_FIRST if side == "after" else ("last_seen_at", "pk")
        found = list(others.order_by(*order)[: SIZE + 1])
        if side == "before" and len(found) <= SIZE:
            side = ""  # they are on the first page, with the current session
    if not side:
        rows = rows.order_by("-is_current", *LAST_ACTIVE_FIRST)  # type: ignore[misc]  # annotated
        found = list(rows[: SIZE + 1])
    shown, has_next = found[:SIZE], len(found) > SIZE
    if side == "before":
        shown.reverse()
    previous = f"?before={Position.of(shown[0]) if shown else position}" if side else ""
    following = f"?after={Position.of(shown[-1])}" if has_next else ""
    here = f"?{side}={position}" if side else ""
    alive = still_stored(shown)
    if side or has_next:
        counted = rows.active().aggregate(
            other_count=Count("pk", filter=~is_current),
            counted=Count("pk", filter=Q(counts=True)),
        )
    else:
        counted = {
            "other_count": sum(row.pk != current for row in alive),
            "counted": sum(row.counts for row in alive),
        }
    return Page(sessions=alive, previous=previous, here=here, next=following, **counted)
