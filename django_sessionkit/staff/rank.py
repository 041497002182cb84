"""
Whose sessions a member of staff may end. Only superusers end the sessions of superusers: else,
whoever has the permission to end sessions could keep those out who could take it away.
"""

from typing import Any

from django.http import HttpRequest

from django_sessionkit.accounts import acting_user
from django_sessionkit.models import UserSession


def may_throw_switch(request: HttpRequest) -> bool:
    return request.user.has_perm("django_sessionkit.end_every_usersession")


def person_of(request: HttpRequest) -> Any:
    """Return who is behind a request: its user, or the staff who act as that user."""
    return acting_user(request.user, request.session)


def is_superuser(user: Any) -> bool:
    return bool(getattr(user, "is_superuser", False))


def lower_of(request: HttpRequest) -> Any:
    """Return the user of a request or who is behind it, whoever of the two has the lower rank."""
    return person_of(request) if is_superuser(request.user) else request.user


def has_highest_rank(request: HttpRequest) -> bool:
    """Tell whether this is a superuser. Staff who act as a superuser are none."""
    return is_superuser(lower_of(request))


def is_spared(request: HttpRequest, session: UserSession) -> bool:
    """Tell whether it takes a superuser to end this session."""
    return is_superuser(session.user) and not has_highest_rank(request)
