"""
Which sessions staff look at, or end: whose they are, where they come from, what has become of them.
The list of the admin, the work in the background and the command share this. A selection is text,
so that a URL, a row of Ending and the arguments of a command can have it.
"""

import ipaddress
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Self, cast
from urllib.parse import quote, unquote

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import connections
from django.db.models import Q
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _

from django_sessionkit.accounts import is_of_none, storable_key
from django_sessionkit.models import (
    DeviceType,
    EndReason,
    Transport,
    UserSession,
    UserSessionQuerySet,
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# A search by name finds so many users at most: those of a common name are found by more letters.
PEOPLE = 200
# A search has so many characters at most: SQLite refuses to look for very long texts.
LONGEST = 1000
# A selection has so many users at most: SQLite takes 32,766 values in a statement.
MOST = 10_000
# Between a sign-in and the making of its handle lies far less than this.
A_MINUTE = timedelta(minutes=1)
STATES = "active", "ended"
RANKS = "is_staff", "is_superuser"
# What has an index: with one of these, a database reads no more than it returns.
NARROW = "users", "network", "handle", "browser", "reason", "staff"


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """
    Sessions that have all of this. None, "" and False mean that any session has it. Times are
    aware, or naive without USE_TZ. They are from the moment "after" on, up to the moment "before".
    """

    users: tuple[str, ...] | None = None  # primary keys, as text
    network: Network | None = None  # an address is a network of one
    handle: uuid.UUID | None = None
    browser: uuid.UUID | None = None  # UserSession.browser
    state: str = ""  # one of STATES
    reason: str = ""  # one of EndReason
    device_type: str = ""  # one of DeviceType
    transport: str = ""  # one of Transport
    staff: bool = False
    new: bool = False  # from a new device, or an unusual place
    # By the handle: see since().
    started_after: datetime | None = None
    started_before: datetime | None = None
    seen_after: datetime | None = None
    seen_before: datetime | None = None
    ended_after: datetime | None = None
    ended_before: datetime | None = None

    @classmethod
    def parse(cls, asked: Mapping[str, str]) -> Self:
        """
        Return what this asks for, in the words of as_text(); other words are left alone. Raises
        ValidationError, with a message for people, for what makes no sense.
        """
        given = {f.name: asked[f.name] for f in fields(cls) if asked.get(f.name)}
        return cls(**{name: PARSERS[name](_searchable(text)) for name, text in given.items()})

    @classmethod
    def of_user(cls, key: object) -> Self:
        """Return the sessions of the user with this primary key."""
        return cls(users=(str(key),))

    def as_text(self) -> dict[str, str]:
        """Return what parse() makes the same selection of."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: _text(value) for name, value in values.items() if value not in (None, "", False)
        }

    @property
    def is_narrow(self) -> bool:
        """Whether an index leads to these sessions. Else, look at the table in ranges."""
        return any(getattr(self, name) not in (None, "", False) for name in NARROW)

    def rows(self) -> UserSessionQuerySet:
        """Return the rows of these sessions, on the database that is written to."""
        return self.of(UserSession.objects.primary())

    def of(self, rows: UserSessionQuerySet) -> UserSessionQuerySet:
        """Return those of the rows that have all of this."""
        if self.users is not None:
            rows = rows.filter(user__pk__in=self.users)
        if self.network is not None:
            rows = rows.filter(_within(self.network, connections[rows.db].vendor))
        if self.state:
            rows = rows.active() if self.state == "active" else rows.ended()
        if self.staff:
            rows = rows.filter(user__in=staff())
        if self.new:
            rows = rows.exclude(novelty="")
        same = {
            "pk": self.handle,
            "browser": self.browser,
            "end_reason": self.reason,
            "device_type": self.device_type,
            "transport": self.transport,
            "last_seen_at__gte": self.seen_after,
            "last_seen_at__lt": self.seen_before,
            "ended_at__gte": self.ended_after,
            "ended_at__lt": self.ended_before,
        }
        return self.in_time(rows.filter(**{name: value for name, value in same.items() if value}))

    def in_time(self, rows: UserSessionQuerySet) -> UserSessionQuerySet:
        """Return those of the rows that began when these sessions did: the handle has an index."""
        if self.started_after:
            rows = rows.filter(pk__gte=since(self.started_after))
        if self.started_before:
            rows = rows.filter(pk__lt=since(self.started_before))
        if self.seen_before:  # nobody was active before the sign-in
            rows = rows.filter(pk__lt=since(self.seen_before + A_MINUTE))
        return rows


def search(text: str, by_email: bool) -> dict[str, str]:
    """
    Return the words of Selection.parse() for what staff have typed: a handle, the identifier of a
    browser, an address, a network, a user name or, with ``by_email``, an e-mail address, or several
    of these. Names need not be whole; of a common part, PEOPLE users are found.

    Raises ValidationError, with a message for people, for what makes no sense.
    """
    asked: dict[str, str] = {}
    names = []
    if len(text) > LONGEST:
        raise ValidationError(_("Search for a shorter text."))
    for word in _searchable(text).split():
        name = _kind_of(word)
        if name == "name":
            names.append(word)
        elif name in asked:
            raise ValidationError(_("Search for one address and one session at a time."))
        else:
            asked[name] = word
    if names:
        asked["users"] = ",".join(_people(" ".join(names), by_email))
    return {name: value or "," for name, value in asked.items()}


def _kind_of(word: str) -> str:
    try:
        handle = uuid.UUID(word)
    except ValueError:
        try:
            _network(word)
        except ValidationError:
            return "name"
        return "network"
    rows = UserSession.objects.primary()
    if rows.filter(pk=handle).exists():
        return "handle"
    return "browser" if rows.filter(browser=handle).exists() else "name"


def _people(name: str, by_email: bool) -> list[str]:
    """Return the primary keys of the users of this name, as text, or else of those who have every
    word of it in one of their names."""
    model = get_user_model()
    keys = model._base_manager.values_list("pk", flat=True)
    found: list[Any] = []
    with suppress(ValueError, ValidationError):  # where user names are numbers, or UUIDs
        found = list(keys.filter(**{model.USERNAME_FIELD: name})[:1])
    names = {model.USERNAME_FIELD, by_email and model.get_email_field_name()}
    columns = [f.name for f in model._meta.fields if f.name in names and not f.is_relation]
    if columns and not found:
        for word in name.split():
            like: list[Any] = [Q(**{f"{column}__icontains": word}) for column in columns]
            keys = keys.filter(Q.create(like, Q.OR))
        found = list(keys[:PEOPLE])
    return [quote(str(key), safe="") for key in found]


def staff() -> Any:
    """Return the users who are staff or superusers, as far as the user model knows such."""
    users = get_user_model()._base_manager.all()
    ranks = Q.create([Q(**{name: True}) for name in RANKS if _has(name)], Q.OR)
    return users.filter(ranks) if ranks else users.none()


def finds_all_staff() -> bool:
    """Tell whether staff() finds everybody who is staff. It finds none of those of whom a property
    of the user model says so."""
    return all(_has(name) or not hasattr(get_user_model(), name) for name in RANKS)


def superusers() -> Any:
    """Return the users who are superusers, as far as the user model knows such."""
    users = get_user_model()._base_manager.all()
    return users.filter(is_superuser=True) if _has("is_superuser") else users.none()


def without_superusers(rows: UserSessionQuerySet) -> UserSessionQuerySet:
    """Return those of these rows that are not of superusers whom superusers() finds."""
    if not _has("is_superuser"):
        return rows
    return rows.filter(is_of_none(superusers()))


def without_unfound_superusers(rows: UserSessionQuerySet) -> UserSessionQuerySet:
    """Return those of these rows, which are few, that are not of superusers whom superusers() does
    not find: no column tells, but a property of the user model."""
    if _has("is_superuser"):
        return rows
    people = get_user_model()._base_manager.using(rows.db)
    people = people.filter(pk__in=rows.order_by().values("user"))
    spared = [person.pk for person in people if getattr(person, "is_superuser", False)]
    return rows.exclude(user__in=spared)


def _has(name: str) -> bool:
    try:
        get_user_model()._meta.get_field(name)
    except FieldDoesNotExist:
        return False
    return True


def since(moment: datetime) -> uuid.UUID:
    """
    Return a handle that is greater than those of all sessions from before this moment: handles
    begin with the time, in milliseconds. That of a session which SESSIONKIT_ADOPT_FROM has moved
    here has the earliest time at which somebody knew of it.
    """
    aware = moment if timezone.is_aware(moment) else timezone.make_aware(moment)
    milliseconds = max(0, (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))
    return uuid.UUID(int=milliseconds << 80)


def _within(network: Network, vendor: str) -> Q:
    """
    Return the condition for the addresses in a network. PostgreSQL knows addresses. Other databases
    have them as text: there, networks of IPv6 are found as far as their text begins alike.
    """
    if network.num_addresses == 1:
        return Q(ip=str(network[0]))
    if vendor == "postgresql":
        return Q(ip__gte=str(network[0]), ip__lte=str(network[-1]))
    is_v4 = isinstance(network, ipaddress.IPv4Network)
    if is_v4 and network.prefixlen > 24:
        return Q(ip__in=[str(address) for address in network])
    starts = _octets(network) if is_v4 else [_groups(network)]
    if vendor == "sqlite":  # whose LIKE uses no index, for it knows no case
        ranges = [Q(ip__gte=start, ip__lt=start[:-1] + chr(ord(start[-1]) + 1)) for start in starts]
    else:
        ranges = [Q(ip__istartswith=start) for start in starts]
    return Q.create(cast("Any", ranges), Q.OR)


def _octets(network: Network) -> list[str]:
    """Return how the addresses in this network of IPv4 begin: "192.0.2." say. 256 texts at most."""
    whole = -(-max(network.prefixlen, 1) // 8)
    parts = network.subnets(new_prefix=8 * whole)
    return [".".join(str(part.network_address).split(".")[:whole]) + "." for part in parts]


def _groups(network: Network) -> str:
    """Return how the addresses in this network begin: "2001:db8:" say."""
    groups = network.network_address.exploded.split(":")[: network.prefixlen // 16]
    if network.prefixlen % 16 or not groups or "0000" in groups:
        raise ValidationError(
            _(
                "This database finds networks of IPv6 by whole groups that are not zero, such as"
                " 2001:db8:1::/48."
            )
        )
    return "".join(f"{int(group, 16):x}:" for group in groups)


# From text, and back.


def _searchable(text: str) -> str:
    """Return the text, unless no column can hold it."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValidationError(_("That is no text to search for."))
    return text


def _text(value: object) -> str:
    match value:
        case tuple():
            return ",".join(quote(key, safe="") for key in value) or ","
        case True:
            return "1"
        case datetime():
            return value.isoformat()
    return str(value)


def _users(text: str) -> tuple[str, ...]:
    parts = text.split(",", MOST + 1)
    if len(parts) > MOST:
        raise ValidationError(_("Search for a shorter text."))
    return tuple(_user(_searchable(unquote(part))) for part in parts if part)


def _user(text: str) -> str:
    try:
        return storable_key(text)
    except ValidationError as error:
        raise ValidationError(_("“%s” is no user.") % text) from error


def _network(text: str) -> Network:
    try:
        if "%" in text:  # the zone of an address, which the column does not have
            raise ValueError
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        message = _("“%s” is no address or network, such as 192.0.2.1 or 192.0.2.0/24.")
        raise ValidationError(message % text) from None
    if isinstance(network, ipaddress.IPv6Network):
        first = network.network_address
        if first.ipv4_mapped and network.prefixlen >= 96:  # the column has it as IPv4
            return ipaddress.ip_network((first.ipv4_mapped, network.prefixlen - 96))
    return network


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise ValidationError(_("“%s” is no handle of a session.") % text) from None


def _moment(text: str) -> datetime:
    try:
        found = parse_datetime(text)  # which knows dates, too
        if found and settings.USE_TZ:
            found = found if timezone.is_aware(found) else timezone.make_aware(found)
            found = found.astimezone(UTC)  # as_text() says nothing of the rest of a time zone
        # No database has trouble with these years, in any time zone.
        if found is None or not 1970 <= found.year <= 9998:
            raise ValueError
    except (ValueError, OverflowError):
        message = _("“%s” is no time, such as 2026-11-28 or 2026-11-28T03:00.")
        raise ValidationError(message % text) from None
    if timezone.is_aware(found) and not settings.USE_TZ:
        return timezone.make_naive(found)
    return found


def _one_of(choices: Any) -> Callable[[str], str]:
    values = list(choices)

    def parse(text: str) -> str:
        if text not in values:
            message = _("“%(text)s” is none of: %(values)s.")
            raise ValidationError(message % {"text": text, "values": ", ".join(values)})
        return text

    return parse


def _flag(text: str) -> bool:
    return _one_of("01")(text) == "1"


PARSERS: dict[str, Callable[[str], Any]] = {
    "users": _users,
    "network": _network,
    "handle": _uuid,
    "browser": _uuid,
    "state": _one_of(STATES),
    "reason": _one_of(EndReason.values),
    "device_type": _one_of(DeviceType.values),
    "transport": _one_of(Transport.values),
    "staff": _flag,
    "new": _flag,
    "started_after": _moment,
    "started_before": _moment,
    "seen_after": _moment,
    "seen_before": _moment,
    "ended_after": _moment,
    "ended_before": _moment,
}
