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
from django.db.models import Q
from django.utils import timezone
from django.utils.http import urlencode

from django_sessionkit.conf import conf
from django_sessionkit.grouping import NEWEST, SHOWN, SignedInDevice, by_device, newest_first
from django_sessionkit.models import UserSession, UserSessionQuerySet, still_stored

# Sessions, or devices, on a page.
SIZE = 25
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

# What a page is made of: a session, or the sessions of a device, the last active first.
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

    def rows(self, side: str) -> Q:
        """Return the condition for the rows that have ended "before" or "after" this position in
        the list."""
        at = EPOCH + timedelta(microseconds=self.microseconds)
        at = at if settings.USE_TZ else timezone.make_naive(at)
        way = "gt" if side == "before" else "lt"
        same = Q(ended_at=at) & Q(**{f"pk__{way}": self.handle})
        # The first condition follows from the second one, and has no OR: so a database begins at
        # this position of the index, and not at an end.
        return Q(**{f"ended_at__{way}e": at}) & (Q(**{f"ended_at__{way}": at}) | same)


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
    # How many sign-ins the list is made of, where the user has more than NEWEST; or 0.
    newest: int = 0
    # On all pages of the list.
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
    active = current | Q(last_seen_at__gte=_active_since())
    return sessions.annotate(is_current=current, is_active_now=active)


def _active_since() -> datetime:
    """Return since when a session has been active that is so now. This is as exact as it gets:
    activity is written once per interval."""
    return timezone.now() - timedelta(seconds=conf.SESSIONKIT_TOUCH_INTERVAL)


@dataclass(frozen=True, kw_only=True)
class _Turned:
    """What is on the page that a URL asks for, and the query strings around it."""

    entries: list[Entry]
    ways: dict[str, Any]  # the fields of Page with the query strings

    @property
    def rows(self) -> list[UserSession]:
        return [row for entry in self.entries for row in entry]


def _turn(
    asked: Mapping[str, str],
    fetch: Callable[[str, Position | None], list[Entry]],
    position_of: Callable[[Any], Position],
    sides: tuple[str, str] = SIDES,
) -> _Turned:
    """
    Return the page that the parameters of a URL ask for. ``fetch`` returns the entries on a side of
    a position, one more than a page has if there are so many, the nearest first; or the first ones.
    It is called once, or twice for somebody who turns back to the first page.
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


def _newest(sessions: UserSessionQuerySet, current: uuid.UUID | None) -> tuple[list[Any], int]:
    """
    Return those of these sessions that have not ended, the last active first: the NEWEST sign-ins
    of them, and the ``current`` one in any case. Also return NEWEST if there are more, or else 0.

    Two round trips, or three where the current session is an older one.
    """
    rows = sessions.filter(ended_at=None)
    found: list[Any] = list(newest_first(rows)[: NEWEST + 1])
    newest = NEWEST if len(found) > NEWEST else 0
    if newest:
        del found[NEWEST:]
        if current and not _is_here(found):
            # Not by is_current: MariaDB would go through the whole table for it.
            found += rows.filter(pk=current)
    stored: list[Any] = still_stored(found)
    since = _active_since()
    for row in stored:
        row.is_active_now = row.is_active_now or row.last_seen_at >= since
    return sorted(stored, key=Position.of, reverse=True), newest


def _is_here(entry: Entry) -> bool:
    """Tell whether it is the current session, or has it."""
    return any(row.is_current for row in entry)


def _of(entries: list[Entry]) -> Callable[[str, Position | None], list[Entry]]:
    """Return the ``fetch`` of _turn() for these entries, the last active first. The current one
    comes before the others, and only on the first page."""
    here = [entry for entry in entries if _is_here(entry)]
    others = [entry for entry in entries if not _is_here(entry)]

    def fetch(side: str, position: Position | None) -> list[Entry]:
        if position is None:
            return here + others
        if side == "before":
            return [each for each in others[::-1] if Position.of(each[0]) > position]
        return [each for each in others if Position.of(each[0]) < position]

    return fetch


def page_of(
    sessions: UserSessionQuerySet, current: uuid.UUID | None, asked: Mapping[str, str]
) -> Page:
    """
    Return the page of these sessions that the parameters of a URL ask for. The sessions are
    annotated with ``is_current``. The one with the handle ``current`` comes first, and only on the
    first page. The others come by their last activity, the last active first.

    Two round trips. Of more sessions than NEWEST, only the newest are on the pages, and another
    round trip or two count all of them, and get the current one.

    Raises StoreUnavailable.
    """
    rows, newest = _newest(sessions, current)
    turned = _turn(asked, _of([[row] for row in rows]), Position.of)
    count = sessions.filter(ended_at=None).count() if newest else len(rows)
    return Page(
        sessions=turned.rows,
        newest=newest,
        other_count=count - any(row.pk == current for row in rows),
        counted=sum(row.counts for row in rows),
        **turned.ways,
    )


def inactive(sessions: UserSessionQuerySet) -> UserSessionQuerySet:
    """
    Return the sessions of the devices that were not used for INACTIVE, however many there are. The
    sessions are annotated with ``is_current``.
    """
    rows = sessions.filter(ended_at=None).order_by("-last_seen_at")
    devices: Any = by_device(rows.only("browser", "support", "user_agent", "ip", "last_seen_at"))
    return sessions.filter(pk__in=[row.pk for each in devices if _is_idle(each) for row in each])


def _is_idle(entry: Entry) -> bool:
    return not _is_here(entry) and entry[0].last_seen_at < timezone.now() - INACTIVE


def devices_of(
    sessions: UserSessionQuerySet, current: uuid.UUID | None, asked: Mapping[str, str]
) -> Page:
    """
    Return the page of the devices with these sessions, as page_of() does of sessions: the current
    device comes first. With the parameter "inactive", it is a page of the inactive devices.

    Two round trips. Of more sessions than NEWEST, only the newest make up the devices and the
    counts, and another round trip gets the current one if it is not among them.

    Raises StoreUnavailable.
    """
    rows, newest = _newest(sessions, current)
    entries = by_device(rows)
    idle = [entry for entry in entries if _is_idle(entry)]
    turned = _turn(asked, _of(idle if "inactive" in kept_in(asked) else entries), Position.of)
    devices = [_shown(entry) for entry in turned.entries]
    return Page(
        sessions=[row for device in devices for row in device.sessions],
        devices=devices,
        newest=newest,
        other_count=sum(not _is_here(entry) for entry in entries),
        counted=sum(row.counts for row in rows),
        inactive_count=len(idle),
        **turned.ways,
    )


def _shown(entry: Entry) -> SignedInDevice:
    shown: Entry = [row for rank, row in enumerate(entry) if rank < SHOWN or row.is_current]
    shown.sort(key=lambda row: not row.is_current)
    return SignedInDevice(shown, len(entry))


def ended_of(sessions: UserSessionQuerySet, asked: Mapping[str, str]) -> Page:
    """
    Return the page of these sessions that have ended within HISTORY, the last one first. One round
    trip, and a second one for somebody who turns back to the first page.
    """
    rows = sessions.filter(ended_at__gt=timezone.now() - HISTORY)

    def fetch(side: str, position: Position | None) -> list[Entry]:
        found = rows if position is None else rows.filter(position.rows(side))
        order = ("ended_at", "pk") if side == "before" else ("-ended_at", "-pk")
        return [[row] for row in found.order_by(*order)[: SIZE + 1]]

    turned = _turn(asked, fetch, lambda row: Position.at(row.ended_at, row.pk), ENDED_SIDES)
    return Page(sessions=turned.rows, **turned.ways)
