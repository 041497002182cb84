"""
The pages of the list of sessions, on a table of any size. A page begins at a position in the order
of the list and not at a number, so a page far back costs what the first one does. Nothing is
counted. Where no index leads to the sessions that are asked for, a page looks at so many rows and
no more, and says how far it has looked.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Any, cast

from django.db import connections
from django.db.models import Q

from django_sessionkit.clock import as_datetime
from django_sessionkit.models import EndReason, UserSession, UserSessionQuerySet
from django_sessionkit.paging import SIDES, Position
from django_sessionkit.selection import Selection, since, staff

# Sessions on a page.
SIZE = 50
# So many sessions of users, or from a network, are put into order, from an index that has another
# one. Of more, a page is looked for in windows.
KEYS = 100_000
# Their handles are in as many statements as it takes to fill a page. SQLite can have 32,766 in one.
SLICES = 1_000, 9_000, 30_000, 30_000, 30_000
# Staff and superusers whose sessions are looked for in this way.
MEMBERS = 10_000
# Rows that a page looks at, one window after the other, until it has enough sessions.
WINDOWS = 1_000, 10_000, 100_000

# What an index leads to in the order of the list, by sign-in and by end.
BY_START = "started_after", "started_before"
BY_END = "reason", "ended_after", "ended_before"
# Where a page begins, or ends: a handle or, in the order of ends, a time and a handle.
Place = uuid.UUID | Position


@dataclass(frozen=True, kw_only=True)
class Page:
    """The sessions on a page, and the positions of those around it, as URLs have them."""

    sessions: list[UserSession]
    is_first: bool = True
    newer: str = ""  # the page "before" this position; "" if there is none
    older: str = ""  # the page "after" this position
    # There may be more sessions: the page has looked at those since this time, and the page "after"
    # this position looks further back.
    looked_since: datetime | None = None
    further: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether this page has all sessions of the selection."""
        return self.is_first and not self.older and not self.further


def is_by_end(selection: Selection) -> bool:
    """Tell whether the list has the session first that was ended last. Else, it has the newest
    sign-in first."""
    if selection.reason:
        return True
    is_ended = bool(selection.ended_after or selection.ended_before)
    others = replace(selection, ended_after=None, ended_before=None)
    return is_ended and others in (Selection(), Selection(state="ended"))


def page_of(rows: UserSessionQuerySet, selection: Selection, asked: Mapping[str, str]) -> Page:
    """
    Return the page of these sessions that the parameters of a URL ask for: the first one, or that
    "before" or "after" a position. This takes a statement, or at most two for every window. Whoever
    turns back to the first page needs them twice.
    """
    by_end = is_by_end(selection)
    side, place = _asked(asked, by_end)
    found, further = _seek(rows, selection, side, place)
    if side == "before" and len(found) <= SIZE:  # these are on the first page
        side, place = "after", None
        found, further = _seek(rows, selection, side, place)
    shown, has_more = found[:SIZE], len(found) > SIZE
    if side == "before":
        shown.reverse()
    first = _place_of(shown[0], by_end) if shown else place
    last = _place_of(shown[-1], by_end) if shown else None
    return Page(
        sessions=shown,
        is_first=place is None,
        newer=_text(first) if place else "",
        older=_text(last) if has_more or side == "before" else "",
        looked_since=_moment(further) if further else None,
        further=_text(further),
    )


# Positions.


def _asked(asked: Mapping[str, str], by_end: bool) -> tuple[str, Place | None]:
    for side in SIDES:
        text = asked.get(side, "")
        if by_end and (position := Position.parse(text)):
            return side, position
        if not by_end and len(text) == 32:
            try:
                return side, uuid.UUID(text)
            except ValueError:
                pass
    return "after", None


def _place_of(row: UserSession, by_end: bool) -> Place:
    return Position.at(cast("datetime", row.ended_at), row.pk) if by_end else row.pk


def _text(place: Place | None) -> str:
    if place is None:
        return ""
    return place.hex if isinstance(place, uuid.UUID) else str(place)


def _moment(place: Place) -> datetime:
    if isinstance(place, uuid.UUID):  # handles begin with the time
        return as_datetime(place.int >> 80)
    return as_datetime(place.microseconds // 1000)


def _beyond(place: Place | None, side: str) -> Q:
    """Return the condition for the rows on one side of a position in the list."""
    if place is None:
        return Q()
    if isinstance(place, uuid.UUID):
        return Q(pk__gt=place) if side == "before" else Q(pk__lt=place)
    return place.rows(side)


def _ordered(rows: UserSessionQuerySet, side: str, by_end: bool) -> UserSessionQuerySet:
    """Return the rows in the order of the list, those next to a position on this side first."""
    way = "" if side == "before" else "-"
    return rows.order_by(f"{way}ended_at", f"{way}pk") if by_end else rows.order_by(f"{way}pk")


# The rows.


def _seek(
    rows: UserSessionQuerySet, selection: Selection, side: str, place: Place | None
) -> tuple[list[UserSession], Place | None]:
    """
    Return the sessions on one side of a position, or the first ones, one more than a page has if
    there are so many. If there may be more, also return up to which position this has looked.
    """
    by_end = is_by_end(selection)
    beyond = rows.filter(_beyond(place, side))

    def first(found: UserSessionQuerySet) -> list[UserSession]:
        return list(_ordered(found, side, by_end)[: SIZE + 1])

    if selection.handle:
        return first(selection.of(beyond)), None
    keys = _keys(rows, selection)
    if keys is not None:
        # Without what has led to the keys: PostgreSQL reads the whole table for a second list.
        rest = replace(selection, users=None, network=None, staff=False)
        if not by_end:
            return _among(rows, rest, keys, side, cast("uuid.UUID | None", place)), None
        if len(keys) <= max(SLICES):
            return first(rest.of(beyond.filter(pk__in=keys))), None
    indexed = _indexed(selection, by_end)
    if by_end and not selection.reason:
        # The index begins with the reason. Of each, it has what tells which are the first ones.
        ended = _ordered(indexed.of(beyond.select_related(None)), side, by_end)
        columns = ended.values_list("ended_at", "pk")
        parts = [columns.filter(end_reason=reason)[: SIZE + 1] for reason in EndReason.values]
        # In one statement, where a database can have a LIMIT in a part of it.
        can_be_one = connections[rows.db].features.supports_slicing_ordering_in_compound
        places = parts[0].union(*parts[1:], all=True) if can_be_one else chain(*parts)
        keys = [pk for _at, pk in sorted(places, reverse=side == "after")[: SIZE + 1]]
        return first(rows.filter(pk__in=keys)), None
    if selection == indexed or (by_end and replace(selection, state="") == indexed):
        return first(selection.of(beyond)), None
    return _in_windows(rows, selection, side, place)


def _indexed(selection: Selection, by_end: bool) -> Selection:
    """Return the part of a selection to which an index leads in the order of the list."""
    names = BY_END if by_end else BY_START
    return Selection(**{name: getattr(selection, name) for name in names})


def _keys(rows: UserSessionQuerySet, selection: Selection) -> list[Any] | None:
    """
    Return the handles of the sessions of these users, of this browser or from this network. They
    are in the order of an index, so that a database reads no other rows. None stands for too many,
    or for everybody.
    """
    if selection.users is not None or selection.staff:
        users = selection.users
        if users is None:
            users = tuple(staff().values_list("pk", flat=True)[: MEMBERS + 1])
            if len(users) > MEMBERS:
                return None
        # The index parts the sessions of a user that have ended from those that have not.
        state = selection.state if selection.state == "active" else ""
        found = Selection(users=users, network=selection.network, state=state).of(rows)
        found = found.order_by("user_id", "ended_at", "pk")
        if selection.staff and selection.users is not None:
            found = found.filter(user__in=staff())
    elif selection.browser:
        found = Selection(browser=selection.browser, network=selection.network).of(rows)
        found = found.order_by("browser", "pk")
    elif selection.network is not None:
        found = Selection(network=selection.network).of(rows).order_by("ip", "pk")
    else:
        return None
    keys = list(found.select_related(None).values_list("pk", flat=True)[: KEYS + 1])
    return keys if len(keys) <= KEYS else None


def _among(
    rows: UserSessionQuerySet,
    selection: Selection,
    keys: list[uuid.UUID],
    side: str,
    place: uuid.UUID | None,
) -> list[UserSession]:
    """Return what _seek() returns, of the sessions with these handles."""
    is_before = side == "before"
    if place:
        keys = [key for key in keys if (key.int > place.int) == is_before and key != place]
    keys.sort(key=lambda key: key.int, reverse=not is_before)
    found: list[UserSession] = []
    start = 0
    for size in SLICES:
        part = keys[start : start + size]
        if len(found) > SIZE or not part:
            break
        among = _ordered(selection.of(rows.filter(pk__in=part)), side, by_end=False)
        found += among[: SIZE + 1 - len(found)]
        start += size
    return found


def _in_windows(
    rows: UserSessionQuerySet, selection: Selection, side: str, place: Place | None
) -> tuple[list[UserSession], Place | None]:
    """Do as _seek() does, but look at no more rows than WINDOWS says."""
    by_end = is_by_end(selection)
    inside = _indexed(selection, by_end).of(rows.select_related(None))
    if selection.seen_before and not by_end:  # what has begun since is no use to look at
        inside = inside.filter(pk__lt=since(selection.seen_before))
    names = ("ended_at", "pk") if by_end else ("pk",)
    found: list[UserSession] = []
    for size in WINDOWS:
        window = _ordered(inside.filter(_beyond(place, side)), side, by_end)
        edge = [
            Position.at(*values) if by_end else values[0]
            for values in window.values_list(*names)[size - 1 : size + 1]
        ]
        part = selection.of(rows).filter(_beyond(place, side))
        if len(edge) == 2:
            other = "after" if side == "before" else "before"
            part = part.filter(_beyond(edge[1], other))
        found += _ordered(part, side, by_end)[: SIZE + 1 - len(found)]
        if len(found) > SIZE or len(edge) < 2:
            return found, None
        place = edge[0]
    return found, place
