"""
The sessions of one browser are one device: SESSIONKIT_DEVICE_COOKIE tells which browser a session
is of. Where nothing tells that, the sessions of the same browser and system in the same network are
one device. A session of staff who act as the user is a device by itself.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import connections
from django.db.models import Case, F, Q, UUIDField, When

from django_sessionkit.models import UserSession, UserSessionQuerySet
from django_sessionkit.visit.client import Client
from django_sessionkit.visit.devices import device_of

# As many sign-ins of one device are shown in the list. A page of the device's own has all of them.
SHOWN = 10
# So many sign-ins of a user are looked at to show or count devices: the newest. Whoever has more is
# a program, which signs in again and again.
NEWEST = 500

# What rows of one device have in common, as far as SQL knows. Those without a browser are also put
# together if they differ in the version of the browser, or in the address within a network.
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


def newest_first(rows: UserSessionQuerySet) -> UserSessionQuerySet:
    """
    Return these rows, which have not ended and are of one user, in the order of their sign-ins. It
    is the order of an index, backwards: a database that wants some reads no others.
    """
    # That ended_at is null everywhere, PostgreSQL does not see. MariaDB sees it, and then does not
    # see that the index has this order too.
    is_mysql = connections[rows.db].vendor == "mysql"
    return rows.order_by("-pk") if is_mysql else rows.order_by("-ended_at", "-pk")


def by_device(rows: Iterable[UserSession]) -> list[list[UserSession]]:
    """Return the rows of each device, of one user, in the order of the rows."""
    devices: dict[object, list[UserSession]] = {}
    for row in rows:
        browser = row.pk if row.support else row.browser
        devices.setdefault(browser or _looks(row.user_agent, row.ip), []).append(row)
    return list(devices.values())


def count_devices(rows: UserSessionQuerySet, at_most: int | None = None) -> int:
    """
    Return how many devices these rows, of one user, are of. Of rows that have not ended, it can be
    the newest alone, so many ``at_most``. One round trip.
    """
    chosen = newest_first(rows)[:at_most] if at_most else rows.order_by().distinct()
    parts = chosen.annotate(**PARTS).values_list(*PARTS)
    looks = {browser or _looks(user_agent, ip) for browser, user_agent, ip in parts.iterator()}
    return len(looks)


def of_device(rows: UserSessionQuerySet, session: UserSession) -> UserSessionQuerySet:
    """Return those of the rows, of one user, that are of the same device as this session."""
    if session.support:
        return rows.filter(pk=session.pk)
    if session.browser:
        return rows.filter(browser=session.browser, support=False)
    rows, looks = rows.filter(UNKNOWN), _looks(session.user_agent, session.ip)
    agents, addresses = set(), set()
    # Whoever has one of these user agents and one of these addresses looks like the session: what a
    # row looks like comes from the one and from the other.
    known = rows.order_by().values_list("user_agent", "ip").distinct()
    for user_agent, ip in known.iterator():
        if _looks(user_agent, ip) == looks:
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


def _looks(user_agent: str, ip: str | None) -> tuple[str, str, str]:
    """Return the browser, the system and the network of a session whose browser is not known."""
    device = device_of(user_agent)
    return device.browser, device.system, Client(ip, user_agent).network
