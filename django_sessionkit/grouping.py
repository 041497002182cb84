"""
The sessions of one browser are one device: SESSIONKIT_DEVICE_COOKIE tells which browser a session
is of. Where nothing tells that, the sessions of the same browser and system in the same network are
one device. A session of staff who act as the user is a device by itself.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Case, Count, F, Max, Q, RowRange, UUIDField, When, Window
from django.db.models.functions import FirstValue, RowNumber

from django_sessionkit.models import UserSession, UserSessionQuerySet
from django_sessionkit.visit.client import Client
from django_sessionkit.visit.devices import device_of

# As many sign-ins of one device are shown in the list. A page of the device's own has all of them.
SHOWN = 10

# What rows of one device have in common, in SQL. Without a known browser, rows that differ in the
# version of the browser or in the address are put together afterwards, by merged().
UNKNOWN = Q(browser=None, support=False)
PARTS = {
    "known_browser": Case(
        When(support=True, then=F("pk")), default=F("browser"), output_field=UUIDField()
    ),
    "its_user_agent": Case(When(UNKNOWN, then=F("user_agent"))),
    "its_address": Case(When(UNKNOWN, then=F("ip"))),
}


@dataclass
class SignedInDevice:
    """A device in the list: its sessions, the current one first, then the last active."""

    sessions: list[UserSession]  # SHOWN at most
    count: int  # all of them

    @property
    def session(self) -> UserSession:
        """The session that stands for the device."""
        return self.sessions[0]

    @property
    def is_current(self) -> bool:
        return bool(self.session.is_current)  # type: ignore[attr-defined]  # annotated

    @property
    def more(self) -> int:
        """How many of its sessions are not shown."""
        return self.count - len(self.sessions)


def by_device(rows: UserSessionQuerySet) -> Any:
    """
    Return a queryset of these rows, which are annotated with ``is_current``, with what the device
    of each has:

    rank: the place of the row among those of its device, from 1
    head, seen: the handle and the last activity of the row in the first place
    sign_ins, counting: how many rows the device has, and how many count towards Policy.limit
    is_here: 1 for the device with the current session, or else 0
    """
    # One window for all, whatever a function makes of its order, and without parameters, or SQLite
    # takes it for as many windows as it is used: the database sorts once.
    order: dict[str, Any] = {"partition_by": list(PARTS), "order_by": ["-last_seen_at", "-pk"]}
    device = {**order, "frame": RowRange()}
    here = Case(When(is_current=True, then=1), default=0)
    return rows.annotate(**PARTS).annotate(
        rank=Window(RowNumber(), **order),  # MariaDB takes no frame here
        head=Window(FirstValue("pk"), **device),
        seen=Window(FirstValue("last_seen_at"), **device),
        sign_ins=Window(Count("pk"), **device),
        counting=Window(Count("pk", filter=Q(counts=True)), **device),
        is_here=Window(Max(here), **device),
    )


def merged(rows: Iterable[Any]) -> list[SignedInDevice]:
    """Return the devices of these rows, which by_device() has annotated, in the order of the
    rows."""
    devices: dict[object, SignedInDevice] = {}
    heads = set()
    for row in rows:
        device = devices.setdefault(row.known_browser or _looks(row), SignedInDevice([], 0))
        device.sessions.append(row)
        if row.head not in heads:
            heads.add(row.head)
            device.count += row.sign_ins
    for device in devices.values():
        device.sessions.sort(key=lambda row: not row.is_current)  # type: ignore[attr-defined]
    return list(devices.values())


def count_devices(rows: UserSessionQuerySet) -> int:
    """Return how many devices these rows, of one user, are of. One round trip."""
    parts = rows.order_by().annotate(**PARTS).values_list(*PARTS).distinct()
    return len(
        {
            browser or _looks(UserSession(user_agent=user_agent, ip=ip))
            for browser, user_agent, ip in parts.iterator()
        }
    )


def of_device(rows: UserSessionQuerySet, session: UserSession) -> UserSessionQuerySet:
    """Return those of the rows, of one user, that are of the same device as this session."""
    if session.support:
        return rows.filter(pk=session.pk)
    if session.browser:
        return rows.filter(browser=session.browser, support=False)
    rows, looks = rows.filter(UNKNOWN), _looks(session)
    agents, addresses = set(), set()
    # Whoever has one of these user agents and one of these addresses looks like the session: what a
    # row looks like comes from the one and from the other.
    known = rows.order_by().values_list("user_agent", "ip").distinct()
    for user_agent, ip in known.iterator():
        if _looks(UserSession(user_agent=user_agent, ip=ip)) == looks:
            agents.add(user_agent)
            addresses.add(ip)
    at = Q(ip__in=addresses - {None}) | (Q(ip=None) if None in addresses else Q(pk__in=()))
    return rows.filter(at, user_agent__in=agents)


def with_its_browser(rows: UserSessionQuerySet, session: UserSession) -> set[uuid.UUID]:
    """
    Return the handles, among the rows of one user, of a session that its user does not recognise,
    and of what else its browser has, or did later: that would still count as known.
    """
    if not session.browser:
        return {session.pk}
    later = Q(ended_at=None) | Q(pk__gt=session.pk)
    return {session.pk, *rows.filter(later, browser=session.browser).values_list("pk", flat=True)}


def _looks(session: UserSession) -> tuple[str, str, str]:
    """Return the browser, the system and the network of a session whose browser is not known."""
    device = device_of(session.user_agent)
    network = Client(session.ip, session.user_agent).network
    return device.browser, device.system, network
