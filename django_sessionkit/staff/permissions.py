"""What the staff member who asks may see and do."""

import ipaddress

from django.contrib.auth import get_permission_codename, get_user_model
from django.http import HttpRequest

from django_sessionkit.models import UserSession
from django_sessionkit.selection import Network
from django_sessionkit.visit.client import network_of


def may_end_sessions(request: HttpRequest) -> bool:
    return request.user.has_perm("django_sessionkit.end_usersession")


def may_view_users(request: HttpRequest) -> bool:
    users = get_user_model()._meta
    codes = [get_permission_codename(action, users) for action in ("view", "change")]
    return any(request.user.has_perm(f"{users.app_label}.{code}") for code in codes)


def may_view_addresses(request: HttpRequest) -> bool:
    """Tell whether the request's user may see whole addresses. Others see their networks."""
    return request.user.has_perm("django_sessionkit.view_address_usersession")


def address_of(request: HttpRequest, session: UserSession) -> str:
    """Return what the request's user may see of the address of a session; "" if none is known."""
    if not session.ip or may_view_addresses(request):
        return session.address
    return network_of(session.ip)


def network_for(request: HttpRequest, network: Network) -> Network:
    """
    Return the network that the request's user may ask for: this one, or the network around it.
    Whoever may not see addresses could find them out by asking for one after the other.
    """
    around = ipaddress.ip_network(network_of(str(network[0])))
    is_wide = network.prefixlen <= around.prefixlen
    return network if is_wide or may_view_addresses(request) else around
