"""
The registry: one row of UserSession, as engines write it and ask about it. A handle, as text, names
the session. All of this happens on the database that is written to.

A row has the digest of its session's key. A key changes in two steps, in the store and in the row,
so for a moment the row can have the digest before, or the one after: where it may have either, a
function takes both.
"""

import uuid
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from django.db import connections, transaction
from django.db.models.expressions import RawSQL
from django.utils import timezone

from django_sessionkit import models
from django_sessionkit.accounts import has_password_of, is_disabled
from django_sessionkit.clock import Lifetime, as_datetime
from django_sessionkit.conf import conf
from django_sessionkit.limits import make_room
from django_sessionkit.models import EndReason, UserSession, UserSessionQuerySet
from django_sessionkit.policy import Policy
from django_sessionkit.visit.client import Client

NO_FLAGS: Mapping[str, bool] = {}
FREE = f"""
SELECT id FROM {UserSession._meta.db_table} WHERE id = %s FOR UPDATE SKIP LOCKED
"""  # noqa: S608 (a constant)


def enter(
    user: str,
    digest: str,
    at: int,
    lifetime: Lifetime,
    client: Client | None,
    policy: Policy,
    counts: bool,
) -> tuple[str, bool]:
    """
    Write the row of a sign-in, as far as the limit of ``policy`` allows. Return its handle as 32
    hexadecimal digits, and whether the session counts towards that limit. A session that ``counts``
    and for which there is no room yet has to wait until its user has made some.

    Raises TooManySessions where the policy is to refuse, and StoreUnavailable.
    """
    user_id = UserSession._meta.get_field("user").target_field.to_python(user)
    started = as_datetime(at)
    rows = UserSession.objects.primary()
    limited = counts and policy.limit is not None
    with transaction.atomic(rows.db) if limited else nullcontext():
        if limited:
            counts = make_room(rows, user_id, policy)
        row = UserSession(
            user_id=user_id,
            digest=digest,
            started_at=started,
            authenticated_at=started,
            last_seen_at=started,
            ip=client.address if client else None,
            user_agent=client.user_agent if client else "",
            counts=counts,
            **lifetime.as_columns(),
        )
        row.save(using=rows.db, force_insert=True)
    return row.pk.hex, counts


def stay_within(handle: str, policy: Policy) -> bool:
    """
    Make room for a session that has got another policy, as for a sign-in. Return False if its user
    has to make some first.

    Raises TooManySessions where the policy is to refuse, and StoreUnavailable.
    """
    if policy.limit is None:
        return True
    rows = UserSession.objects.primary()
    row = rows.filter(pk=handle, ended_at=None, counts=True).first()
    if row is None:
        return True
    with transaction.atomic(rows.db):
        return make_room(rows, row.user_id, policy, own=row.pk)


def take_back(handle: str) -> None:
    """Delete the row of a sign-in whose session was not written, unless the row has ended."""
    UserSession.objects.primary().filter(pk=handle, ended_at=None).delete()


def may_go_on(handle: str, digests: list[str], auth_hash: str) -> UserSession | None:
    """
    Return the row of a session, with its user, if the session may go on. Return None if it was
    ended or has another key, or if its user was disabled, deleted, or given another password behind
    Django's back: that ends the session now.
    """
    row = UserSession.objects.primary().filter(pk=handle, digest__in=digests, ended_at=None)
    found = row.select_related("user").first()
    # Only if it still has this digest: a change of the password may just have given it a new key.
    free = _free(handle).filter(digest__in=digests)
    if found is None:
        # A row whose user has gone is not found together with its user.
        orphans = list(row.values_list("pk", flat=True))
        models.mark_ended(free, EndReason.ACCOUNT_DISABLED, handles=orphans)
        return None
    if is_disabled(found.user):
        reason = EndReason.ACCOUNT_DISABLED
    elif not has_password_of(found.user, auth_hash):
        reason = EndReason.PASSWORD_CHANGE
    else:
        return found
    models.mark_ended(free, reason, handles=[found.pk])
    return None


def is_open(handle: str, digest: str | None = None) -> bool:
    """Tell whether a row has not ended and, if a digest is given, has that one."""
    row = UserSession.objects.primary().filter(pk=handle, ended_at=None)
    return (row if digest is None else row.filter(digest=digest)).exists()


def touch(
    handle: str, digests: list[str], at: int, lifetime: Lifetime, client: Client | None
) -> bool:
    """
    Write when a session expires and, as far as its client is known, its last activity. The row gets
    the first of ``digests``. Return False if the row has ended, has none of them, or is held by
    another transaction.
    """
    known: dict[str, Any] = {}
    if client:
        known["last_seen_at"] = as_datetime(at)
        if client.address:
            known["ip"] = client.address
        if client.user_agent:
            known["user_agent"] = client.user_agent
    row = _free(handle).filter(digest__in=digests, ended_at=None)
    return bool(row.update(digest=digests[0], **lifetime.as_columns(), **known))


def _free(handle: str) -> UserSessionQuerySet:
    """
    Return the row with this handle, to be written by a request that does not wait: on PostgreSQL, a
    row that another transaction holds is left alone.
    """
    rows, pk = UserSession.objects.primary(), uuid.UUID(handle)
    if connections[rows.db].vendor == "postgresql":
        return rows.filter(pk=RawSQL(FREE, [pk]))  # noqa: S611 (a constant)
    return rows.filter(pk=pk)


def rekey(
    handle: str,
    old: list[str],
    new: str,
    at: int,
    lifetime: Lifetime,
    authenticated_at: int,
    flags: Mapping[str, bool] = NO_FLAGS,
) -> bool:
    """
    Write the digest of the session's new key into its row. Return False if the row has ended, or
    has none of the ``old`` digests.

    ``flags`` are written too. Without them ``renew`` stays as it is: whoever clears it has asked
    the policy again, and has given the session its new key already.
    """
    row = UserSession.objects.primary().filter(pk=handle, digest__in=old, ended_at=None)
    return bool(
        row.update(
            digest=new,
            last_seen_at=as_datetime(at),
            authenticated_at=as_datetime(authenticated_at) if authenticated_at else None,
            **flags,
            **lifetime.as_columns(),
        )
    )


def renew_again(handle: str) -> None:
    """Note that the session is to get another new key: privileges have changed meanwhile."""
    UserSession.objects.primary().filter(pk=handle, ended_at=None).update(renew=True)


def catch_up(handle: str, old: str, new: str) -> None:
    """Write the digest of a new key into a row that still has the old one: a renewal broke off."""
    _free(handle).filter(digest=old).update(digest=new)


def digests_of(handle: str) -> list[str]:
    """Return the digest that a row has now, or nothing if there is no row."""
    return list(UserSession.objects.primary().filter(pk=handle).values_list("digest", flat=True))


def mark_ended(handle: str, reason: str) -> None:
    """Mark a row ended and say so, without reading it first. The store is the caller's business."""
    models.mark_ended(UserSession.objects.all(), reason, handles=[uuid.UUID(handle)])


def sign_out(digest: str) -> None:
    """Mark the row with this digest ended by its user, and say so."""
    models.mark_ended(UserSession.objects.filter(digest=digest), EndReason.LOGOUT)


def call_replaced(handle: str) -> None:
    """Change the reason of a row from LOGOUT to REPLACED: login() of another account has flushed
    the session."""
    signed_out = UserSession.objects.primary().filter(pk=handle, end_reason=EndReason.LOGOUT)
    signed_out.update(end_reason=EndReason.REPLACED)


def row_of_missing(digest: str) -> UserSession | None:
    """
    Return the row of a session that the store does not have, and mark it ended if it was not.
    Return None for the session of a visitor, or one that a parallel request has given another key,
    or may have moved.
    """
    rows = UserSession.objects.primary()
    row = rows.filter(digest=digest).first()
    if row and row.ended_at is None:
        has_expired = row.expires_at <= timezone.now()
        if conf.SESSIONKIT_ADOPT_FROM and not has_expired:
            return None  # it may just be moving back, to a process with another engine
        reason = row.expiry_reason if has_expired else EndReason.LOST
        models.mark_ended(_free(row.pk.hex), reason, handles=[row.pk])
        row = rows.filter(pk=row.pk).first()
        if row and row.ended_at is None:  # held by somebody who has not said the reason yet
            row.end_reason = reason
    return row
