"""
What users may see of their sessions, and do with them: the rules that their pages and the JSON API
share.
"""

import uuid
from datetime import timedelta
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.http import HttpRequest
from django.utils import timezone

from django_sessionkit import epochs
from django_sessionkit.accounts import acting_user, key_of
from django_sessionkit.grouping import of_device
from django_sessionkit.models import UserSession, UserSessionQuerySet
from django_sessionkit.paging import with_activity

# A sign-in that was from something new is said to be new for so long.
NEW = timedelta(days=14)


def handle_of(request: HttpRequest) -> uuid.UUID | None:
    """Return the handle of a request's session, or None if that has none."""
    return getattr(request.session, "handle", None)


def own_sessions(request: HttpRequest, user: AbstractBaseUser) -> UserSessionQuerySet:
    """
    Return the rows of a user, ended ones included, for a request of that user. Those that an epoch
    has ended come once they are marked.
    """
    rows = UserSession.objects.primary().filter(user=user.pk)
    rows = rows.exclude(epochs.over([key_of(user)]), ended_at=None)
    return with_activity(rows, handle_of(request))


def renamable(sessions: UserSessionQuerySet) -> UserSessionQuerySet:
    """Return those of these rows whose device their user may name."""
    return sessions.filter(support=False)


def for_its_user(sessions: list[UserSession]) -> list[UserSession]:
    """
    Return these rows as their user may see them: where staff act as the user is none of the user's
    business. Do not save these rows.
    """
    for session in sessions:
        if session.support:
            session.ip, session.user_agent, session.client_hints = None, "", ""
            session.backend = session.novelty = session.label = ""
    return sessions


def is_new(session: Any) -> bool:
    """Tell whether to call a session new. Its row is of own_sessions()."""
    if not session.novelty or session.is_current:
        return False
    return bool(timezone.now() - session.started_at < NEW)


def rename(sessions: UserSessionQuerySet, session: UserSession, label: str) -> None:
    """Name the device of a session: all of its sessions among these rows get the name."""
    session.label = label
    of_device(sessions, session).update(label=label)


def end(request: HttpRequest, sessions: UserSessionQuerySet) -> int:
    """
    End these sessions for the user of a request, and return how many were active. Raises
    StoreUnavailable after all rows are marked: then it takes SESSIONKIT_TOUCH_INTERVAL at most.
    """
    by = acting_user(request.user, request.session)
    return sessions.revoke(by=by, ended_from=handle_of(request))
