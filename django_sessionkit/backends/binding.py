"""
What a session is bound to, by Policy.bind: the browser, system and network of its client, as far as
they are known, and which of them have changed. Pure.
"""

from collections.abc import Iterable, Mapping

from django_sessionkit.visit.client import Client
from django_sessionkit.visit.devices import device_of

# What is known of a browser or system that was known and then did not say what it is.
HIDDEN = "?"
# What has changed, if a session has its first address of IPv4 or of IPv6.
FAMILY = "address family"


def traits(names: Iterable[str], client: Client | None) -> dict[str, str]:
    """
    Return what is known of the client under these names of Policy.bind, or else "". A name that a
    later version has stored is left out.
    """
    if client is None:
        return dict.fromkeys(names, "")
    device = device_of(client.user_agent)
    known = {"browser": device.browser, "system": device.system, "network": client.network}
    return {name: known[name] for name in names if name in known}


def changed(bound: Mapping[str, str] | None, client: Client | None) -> list[str]:
    """
    Return what has changed of the browser, system and network to which a session is bound. What was
    not known then has not changed, and neither has a network that is not known now. FAMILY stands
    for the first network of another address family.
    """
    if bound is None or client is None:
        return []
    now = traits(bound, client)
    changes = [_change(name, bound[name], now[name]) for name in now]
    return [change for change in changes if change]


def bound_to(bound: Mapping[str, str] | None, client: Client | None) -> Mapping[str, str] | None:
    """
    Return what a session is bound to after a request of this client: ``bound`` itself if the client
    is known already.
    """
    if bound is None or client is None:
        return bound
    now = traits(bound, client)
    known = {**bound, **{name: _known(name, bound[name], now[name]) for name in now}}
    return bound if known == bound else known


def _change(name: str, then: str, now: str) -> str:
    """Return what has changed of a trait: nothing, its name, or FAMILY."""
    if not then or (name == "network" and not now):
        return ""
    if name != "network":
        return "" if then == (now or HIDDEN) else name
    known = _by_family(then).get(":" in now)
    if known is None:
        return FAMILY
    return "" if known == now else name


def _known(name: str, then: str, now: str) -> str:
    """Return what is known of a trait after a request."""
    if name == "network":
        return " ".join((_by_family(then) | {":" in now: now}).values()) if now else then
    return now or (HIDDEN if then else "")


def _by_family(networks: str) -> dict[bool, str]:
    """
    Return the networks of one trait by whether they are of IPv6. A browser with both kinds of
    address uses now this one, now that.
    """
    return {":" in network: network for network in networks.split()}
