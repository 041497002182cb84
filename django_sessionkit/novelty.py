"""
What is new at a sign-in, by what the registry still has of its user. Pure: no query, no clock.

The answer has to be quiet and never wrong about a stranger. So a browser is known by its cookie
(visit/browsers.py) or, once its cookies were cleared, by the networks in which the same browser on
the same system was used before. Networks are as wide as what a provider has: narrower ones change
from day to day, at home and on the way. docs/security.md has how often this is wrong.
"""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from django_sessionkit.models import Novelty, UserSession
from django_sessionkit.visit.places import country_of

# The first bits of an address by which a provider can be told. A provider's customers get another
# /64 of IPv6 with every connection, and its smallest share is a /32.
BITS = {4: 16, 6: 32}


# People come more than once, and parsing an address takes longer than the rest of the comparison.
@lru_cache(maxsize=1000)
def network_of(address: str | None) -> str:
    """Return the network of an address, or "" if the address is not known."""
    if not address:
        return ""
    version = ipaddress.ip_address(address).version
    return str(ipaddress.ip_network(f"{address}/{BITS[version]}", strict=False))


def networks_of(address: str | None) -> str:
    """Return the value of UserSession.networks where this is the first address."""
    return f"{network}," if (network := network_of(address)) else ""


def what_is_new(row: UserSession, before: Sequence[UserSession]) -> str:
    """
    Return what is new at the sign-in of ``row``: one of Novelty, or "".

    ``before`` are other rows of the user, the newest of each browser before its older ones. If they
    say nothing, because the user signs in for the first time, everything would be new: "".
    """
    if not _says_something(row) or not any(map(_says_something, before)):
        return ""
    newest: dict[object, UserSession] = {}
    for other in before:
        newest.setdefault(other.browser or other.pk, other)
    # If the user did not recognise the last session of a browser, they do not know the browser,
    # whatever they have left uncontradicted before.
    known = [
        other
        for other in before
        if other.reported_at is None and newest[other.browser or other.pk].reported_at is None
    ]
    if not (_is_by_cookie(row, known) or _is_by_network(row, known)):
        return Novelty.DEVICE
    if country := country_of(row.ip):
        countries = {country_of(other.ip) for other in known} - {""}
        if countries and country not in countries:
            return Novelty.PLACE
    return ""


def _says_something(row: UserSession) -> bool:
    return bool(row.browser or row.user_agent or row.ip)


def _is_by_cookie(row: UserSession, known: Sequence[UserSession]) -> bool:
    return row.browser is not None and any(other.browser == row.browser for other in known)


def _is_by_network(row: UserSession, known: Sequence[UserSession]) -> bool:
    network = network_of(row.ip)
    return network != "" and any(
        network in other.networks.split(",") and row.device.is_like(other.device) for other in known
    )
