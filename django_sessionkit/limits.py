"""
How many sessions a user may have at a time, by Policy.limit (ASVS 7.1.2): room for a sign-in is
made, refused, or asked for.
"""

import logging
import uuid
from datetime import timedelta
from typing import Any, cast

from django.contrib.auth import get_user_model
from django.db import connections, models, transaction
from django.utils import timezone

from django_sessionkit import epochs
from django_sessionkit.exceptions import TooManySessions
from django_sessionkit.models import (
    EndReason,
    UserSession,
    UserSessionQuerySet,
    get_session_store,
    uuid7,
)
from django_sessionkit.policy import Policy
from django_sessionkit.signals import sign_in_refused

security_logger = logging.getLogger("django.security.SuspiciousSession")


def make_room(
    rows: UserSessionQuerySet,
    user_id: Any,
    policy: Policy,
    handle: uuid.UUID | None = None,
    is_new: bool = True,
) -> uuid.UUID | None:
    """
    End the sessions that are too many for one more to be within the limit, and return the handle of
    that one. Without a handle, it gets one here: of two sign-ins at the same time, the second one
    is the newer one. Return None where the user is to choose them: the session does not count until
    they have gone. It is not new where it has only got another policy.

    Call it in a transaction that also writes the row of the new session: of two sign-ins at the
    same time, the second one counts the first. Raises TooManySessions where the policy is to
    refuse, and StoreUnavailable.
    """
    limit = cast("int", policy.limit)
    others = [row for row in _counted(rows, user_id) if row.pk != handle]
    handle = handle or uuid7()
    surplus = len(others) - limit + 1
    if surplus <= 0:
        return handle
    if is_new:
        security_logger.warning("A user with %d sessions, the limit, signed in once more", limit)
    else:
        security_logger.warning("A user has more sessions than %d, the limit from now on", limit)
    if policy.on_limit == "refuse":
        if is_new:
            user = get_user_model()._base_manager.filter(pk=user_id).first()
            sign_in_refused.send_robust(UserSession, user=user, limit=limit)
        raise TooManySessions(limit)
    if policy.on_limit == "ask":
        return None
    if policy.on_limit == "end_idlest":
        others.sort(key=lambda row: (row.last_seen_at, row.pk))
    victims = [row.pk for row in others[:surplus]]
    rows.filter(pk__in=victims).revoke(EndReason.LIMIT, ended_from=handle)
    return handle


def admit(handle: uuid.UUID, limit: int) -> bool:
    """
    Let a session in that waits for room under the limit. Return False if there still is no room.

    Raises StoreUnavailable.
    """
    return get_session_store().call(_admit, handle, limit)


def _admit(handle: uuid.UUID, limit: int) -> bool:
    rows = UserSession.objects.primary()
    row = rows.filter(pk=handle, ended_at=None)
    user_id = row.values_list("user_id", flat=True).first()
    if user_id is None:
        return False
    with transaction.atomic(rows.db):
        # The session may count already, if its key could not be changed afterwards.
        others = [each for each in _counted(rows, user_id) if each.pk != handle]
        return len(others) < limit and bool(row.update(counts=True, waits=False))


def _counted(rows: UserSessionQuerySet, user_id: Any) -> list[UserSession]:
    """
    Return the user's sessions that count, the oldest first. Nobody else can sign in as this user
    before the transaction ends.
    """
    user = get_user_model()._base_manager.using(rows.db).filter(pk=user_id)
    connection = connections[rows.db]
    features = connection.features
    if features.has_select_for_update:
        # Do not hold up those who write rows that belong to the user.
        no_key = features.has_select_for_no_key_update
        user.select_for_update(no_key=no_key).values_list("pk").first()
    else:  # SQLite: whoever writes is alone
        name = user.model.USERNAME_FIELD
        user.update(**{name: models.F(name)})
    # Those that an epoch has ended leave room at once, also before their rows are marked.
    counting = rows.filter(~epochs.over([str(user_id)]), user=user_id, counts=True).order_by("pk")
    # In a transaction of the site's, MySQL shows what there was when that began, or else locks.
    level = getattr(connection, "isolation_level", None)  # None: the server's default
    repeats = connection.vendor == "mysql" and level != "read committed"
    counting = counting.select_for_update() if repeats else counting
    counted = counting.alive()
    # alive() misses a session that is only being written, and one that has got another key since
    # its row was read.
    fresh = timezone.now() - timedelta(seconds=10)
    missed = (
        counting.active().filter(last_seen_at__gt=fresh).exclude(pk__in=[row.pk for row in counted])
    )
    return sorted([*counted, *missed], key=lambda row: row.pk)
