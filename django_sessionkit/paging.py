"""
A user's sessions and devices in pages, the last active first. A page begins at a position in that
order and not at a number. So nobody misses a session because others end while the pages are turned.
A session that is used meanwhile moves to the first page.
"""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self

from django.conf import settings
from django.db.models import Count, Q, Sum
from django.utils import timezone
from django.utils.http import urlencode

from django_sessionkit.conf import conf
from django_sessionkit.grouping import SHOWN, SignedInDevice, by_device, merged
from django_sessionkit.models import UserSession, UserSessionQuerySet, still_stored

# Sessions, or devices, on a page.
SIZE = 25
LAST_ACTIVE_FIRST = ("-last_seen_at", "-pk")
IDLEST_FIRST = ("last_seen_at", "pk")
# A device that was not used for so long is worth a question.
INACTIVE = timedelta(days=90)
# Sessions that ended within this time are shown, as far as SESSIONKIT_RETENTION keeps them.
HISTORY = timedelta(days=30)

# As many digits as there are microseconds until the year 5138: every such number is a date.
POSITION = re.compile(r"(\d{1,17})-([0-9a-f]{32})", re.ASCII)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The parameters of a URL that name a position: for the list, and for what has ended.
SIDES = ("before", "after")
ENDED_SIDES = ("ended_before", "ended_after")

# What a page is made of: a session, or the sessions of a device.
Entry = list[Any]


class Position(NamedTuple):
    """The place of a session or device in the order of a list. URLs have it as text."""

    microseconds: int  # of the last activity, or of the end, since the epoch
    handle: uuid.UUID

    @classmethod
    def at(cls, moment: datetime, handle: uuid.UUID) -> Self:
        moment = moment if settings.USE_TZ else timezone.make_aware(moment)
        return cls((moment - EPOCH) // timedelta(microseconds=1), handle)

    @classmethod
    def of(cls, row: UserSession) -> Self:
        return cls.at(row.last_seen_at, row.pk)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the position that a text says, or None if it says none."""
        found = POSITION.fullmatch(text)
        return cls(int(found[1]), uuid.UUID(found[2])) if found else None

    def __str__(self) -> str:
        return f"{self.microseconds}-{self.handle.hex}"

    def rows(self, side: str, moment: str = "last_seen_at", handle: str = "pk") -> Q:
        """
        Return the condition for the rows "before" or "after" this position, by the columns that
        have the moment and the handle.
        """
        at = EPOCH + timedelta(microseconds=self.microseconds)
        at = at if settings.USE_TZ else timezone.make_naive(at)
        way = "gt" if side == "before" else "lt"
        same = Q(**{moment: at, f"{handle}__{way}": self.handle})
        return Q(**{f"{moment}__{way}": at}) | same


@dataclass(frozen=True, kw_only=True)
class Page:
    """
    The sessions on one page. ``previous``, ``here`` and ``next`` are the query strings of the pages
    around it and of this one, such as "?after=…". They are "" where there is no such page, and for
    the first page of all sessions.
    """

    sessions: list[UserSession]
    # Of a list of devices: their sessions are those above.
    devices: list[SignedInDevice] = field(default_factory=list)
    previous: str = ""
    here: str = ""
    next: str = ""
    # On all pages. The list of a single page is exact. More are counted in the registry alone, with
    # what the store has lost since the last purge.
    other_count: int = 0  # all but the current session, or the current device
    counted: int = 0  # the sessions that count towards Policy.limit
    inactive_count: int = 0  # the devices that were not used for INACTIVE

    @property
    def is_whole(self) -> bool:
        """Whether this page has all the sessions."""
        return not self.previous and not self.next


def asked_position(
    asked: Mapping[str, str], sides: tuple[str, str] = SIDES
) -> tuple[str, Position] | None:
    """
    Return which page the parameters of a URL ask for: that "before" or that "after" a position.
    None stands for the first page.
    """
    for side, name in zip(SIDES, sides, strict=True):
        if position := Position.parse(asked.get(name, "")):
            return side, position
    return None


def asked_device(asked: Mapping[str, str]) -> uuid.UUID | None:
    """Return the handle of a session, where the parameters of a URL ask for its device alone."""
    found = re.fullmatch(r"[0-9a-f]{32}", asked.get("device", ""))
    return uuid.UUID(found[0]) if found else None


def kept_in(asked: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that all pages of a list share: they say what it is a list of."""
    if device := asked_device(asked):
        return {"device": device.hex}
    return {"inactive": "1"} if asked.get("inactive") == "1" else {}


def query_of(asked: Mapping[str, str]) -> str:
    """Return the query string of the page that the parameters of a URL ask for."""
    where, kept = asked_position(asked), kept_in(asked)
    return _query({**kept, where[0]: str(where[1])} if where else kept)


def _query(parameters: Mapping[str, str]) -> str:
    return f"?{urlencode(parameters)}" if parameters else ""


def with_activity(sessions: UserSessionQuerySet, handle: uuid.UUID | None) -> UserSessionQuerySet:
    """Return these rows with the annotations ``is_current`` and ``is_active_now``."""
    current = Q(pk=handle)
    # This is as exact as it gets: activity is written once per interval.
    since = timezone.now() - timedelta(seconds=conf.SESSIONKIT_TOUCH_INTERVAL)
    active = current | Q(last_seen_at__gte=since)
    return sessions.annotate(is_current=current, is_active_now=active)


@dataclass(frozen=True, kw_only=True)
class _Turned:
    """What is on the page that a URL asks for, and the query strings around it."""

    entries: list[Entry]
    ways: dict[str, Any]  # the fields of Page with the query strings

    @property
    def rows(self) -> list[UserSession]:
        return [row for entry in self.entries for row in entry]

    @property
    def is_whole(self) -> bool:
        return not self.ways["previous"] and not self.ways["next"]


def _turn(
    asked: Mapping[str, str],
    fetch: Callable[[str, Position | None], list[Entry]],
    position_of: Callable[[Any], Position],
    sides: tuple[str, str] = SIDES,
) -> _Turned:
    """
    Return the page that the parameters of a URL ask for. ``fetch`` returns the entries on a side of
    a position, one more than a page has if there are so many, the nearest first; or the first ones.
    One round trip, or two for somebody who turns back to the first page.
    """
    side, position = asked_position(asked, sides) or ("", None)
    found: list[Entry] = []
    if position:
        found = fetch(side, position)
        if side == "before" and len(found) <= SIZE:
            side = ""  # they are on the first page, with the current session
    if not side:
        found = fetch("", None)
    shown, has_next = found[:SIZE], len(found) > SIZE
    if side == "before":
        shown.reverse()
    kept = kept_in(asked) if sides == SIDES else {}
    before, after = sides

    def query(name: str, at: Position | None) -> str:
        return _query({**kept, name: str(at)})

    first = position_of(shown[0][0]) if shown else position
    ways = {
        "previous": query(before, first) if side else "",
        "here": query(sides[SIDES.index(side)], position) if side else _query(kept),
        "next": query(after, position_of(shown[-1][0])) if has_next else "",
    }
    return _Turned(entries=shown, ways=ways)


def page_of(
    sessions: UserSessionQuerySet,
    current: uuid.UUID | None,
    asked: Mapping[str, str],
    idlest_first: bool = False,
) -> Page:
    """
    Return the page of these sessions that the parameters of a URL ask for. The sessions are
    annotated with ``is_current``. The one with the handle ``current`` comes first, and only on the
    first page. The others come by their last activity, by default the last active first.

    Two round trips, however many sessions there are. Where they take several pages, a third counts
    them, and a fourth gets the first page for somebody who turns back to it.

    Raises StoreUnavailable.
    """
    rows, is_current = sessions.filter(ended_at=None), Q(pk=current)

    def fetch(side: str, position: Position | None) -> list[Entry]:
        down = (side != "before") != idlest_first
        order = LAST_ACTIVE_FIRST if down else IDLEST_FIRST
        if position is None:
            found = rows.order_by("-is_current", *order)  # type: ignore[misc]  # annotated
        else:
            others = rows.exclude(is_current).filter(position.rows("after" if down else "before"))
            found = others.order_by(*order)
        return [[row] for row in found[: SIZE + 1]]

    turned = _turn(asked, fetch, Position.of)
    alive = still_stored(turned.rows)
    if not turned.is_whole:
        counted = rows.active().aggregate(
            other_count=Count("pk", filter=~is_current),
            counted=Count("pk", filter=Q(counts=True)),
        )
    else:
        counted = {
            "other_count": sum(row.pk != current for row in alive),
            "counted": sum(row.counts for row in alive),
        }
    return Page(sessions=alive, **turned.ways, **counted)


def inactive(sessions: UserSessionQuerySet) -> Any:
    """
    Return a queryset of the sessions of the devices that were not used for INACTIVE. The sessions
    are annotated with ``is_current``.
    """
    return by_device(sessions.filter(ended_at=None)).filter(_is_inactive())


def _is_inactive() -> Q:
    return Q(is_here=0, seen__lt=timezone.now() - INACTIVE)


def devices_of(sessions: UserSessionQuerySet, asked: Mapping[str, str]) -> Page:
    """
    Return the page of the devices with these sessions, as page_of() does of sessions: the current
    device comes first. With the parameter "inactive", it is a page of the inactive devices.

    As many round trips as page_of() takes. Of a device, SHOWN sessions at most are read.

    Raises StoreUnavailable.
    """
    rows = by_device(sessions.filter(ended_at=None))
    listed = rows.filter(_is_inactive()) if "inactive" in kept_in(asked) else rows

    def fetch(side: str, position: Position | None) -> list[Entry]:
        found = listed.filter(Q(rank__lte=SHOWN) | Q(is_current=True))
        if position is None:
            found = found.order_by("-is_here", "-seen", "-head", "rank")
        else:
            found = found.filter(Q(is_here=0), position.rows(side, "seen", "head"))
            order = ("-seen", "-head") if side == "after" else ("seen", "head")
            found = found.order_by(*order, "rank")
        entries: dict[uuid.UUID, Entry] = {}
        row: Any
        # As many devices as a page has, and one more; and the current session, in any case.
        for row in found[: (SIZE + 1) * SHOWN + 1]:
            entries.setdefault(row.head, []).append(row)
        return list(entries.values())[: SIZE + 1]

    turned = _turn(asked, fetch, lambda row: Position.at(row.seen, row.head))
    alive = still_stored(turned.rows)
    devices = merged(turned.rows)
    stored = {row.pk for row in alive}
    for device in devices:
        left = [row for row in device.sessions if row.pk in stored]
        device.count -= len(device.sessions) - len(left)
        device.sessions = left
    devices = [device for device in devices if device.sessions]
    if not turned.is_whole or listed is not rows or any(each.more for each in devices):
        heads = by_device(sessions.active()).filter(rank=1)
        counted = heads.aggregate(
            other_count=Count("pk", filter=Q(is_here=0)),
            counted=Sum("counting", default=0),
            inactive_count=Count("pk", filter=_is_inactive()),
        )
    else:
        since = timezone.now() - INACTIVE
        others = [device for device in devices if not device.is_current]
        counted = {
            "other_count": len(others),
            "counted": sum(row.counts for row in alive),
            "inactive_count": sum(each.session.last_seen_at < since for each in others),
        }
    return Page(sessions=alive, devices=devices, **turned.ways, **counted)


def ended_of(sessions: UserSessionQuerySet, asked: Mapping[str, str]) -> Page:
    """
    Return the page of these sessions that have ended within HISTORY, the last one first. One round
    trip, and a second one for somebody who turns back to the first page.
    """
    rows = sessions.filter(ended_at__gt=timezone.now() - HISTORY)

    def fetch(side: str, position: Position | None) -> list[Entry]:
        found = rows if position is None else rows.filter(position.rows(side, "ended_at"))
        order = ("ended_at", "pk") if side == "before" else ("-ended_at", "-pk")
        return [[row] for row in found.order_by(*order)[: SIZE + 1]]

    turned = _turn(asked, fetch, lambda row: Position.at(row.ended_at, row.pk), ENDED_SIDES)
    return Page(sessions=turned.rows, **turned.ways)
