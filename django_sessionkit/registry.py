"""
The registry: one row of UserSession, as engines write it and ask about it. A handle, as text, names
the session. All of this happens on the database that is written to.

A row has the digest of its session's key. A key changes in two steps, in the store and in the row,
so for a moment the row can have the digest before, or the one after: where it may have either, a
function takes both.
"""

import uuid
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from functools import partial
from typing import Any, cast

from django.db import connections, transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.expressions import Expression, RawSQL
from django.db.models.functions import Coalesce, Concat, Greatest, Left
from django.utils import timezone
from django.utils.timezone import is_aware
from django.utils.translation import get_language

from django_sessionkit import epochs, models
from django_sessionkit.accounts import has_password_of, is_disabled, user_of
from django_sessionkit.clock import Lifetime, as_datetime
from django_sessionkit.conf import conf
from django_sessionkit.limits import make_room
from django_sessionkit.models import (
    Ending,
    EndReason,
    Novelty,
    Transport,
    UserSession,
    UserSessionQuerySet,
)
from django_sessionkit.novelty import network_of, networks_of, what_is_new
from django_sessionkit.policy import Policy
from django_sessionkit.signals import session_renewed, session_started
from django_sessionkit.visit.client import App, Client, Parent
from django_sessionkit.visit.devices import APP_HINTS, device_of

A_MINUTE = timedelta(minutes=1)
# So many rows of a user are compared with a sign-in: those of the same browser, then those that
# were active last. Whoever has more is a program, which signs in again and again. What else its
# user does is known by the cookie then.
ENOUGH = 100
COMPARED = "browser", "user_agent", "client_hints", "ip", "networks", "label", "reported_at"
# So many characters of UserSession.networks.
ROOM = cast("int", UserSession._meta.get_field("networks").max_length)
NO_FLAGS: Mapping[str, bool] = {}
TABLE = UserSession._meta.db_table
# MySQL takes the row to update from a derived table only, if it is in the same table.
FREE = "SELECT id FROM (SELECT id FROM {table} WHERE {where} FOR UPDATE SKIP LOCKED) AS free"


def enter(
    user: str,
    digest: str,
    at: int,
    lifetime: Lifetime,
    client: Client | None,
    policy: Policy,
    counts: bool,
    authenticated_at: int,
    support: bool,
    backend: str,
    remembered: bool,
    browser: uuid.UUID | None = None,
    instead_of: uuid.UUID | None = None,
    app: App | None = None,
    parent: Parent | None = None,
) -> tuple[str, bool, str]:
    """
    Write the row of a sign-in, as far as the limit of ``policy`` allows. Return its handle as 32
    hexadecimal digits, whether the session counts towards that limit, and what is new, one of
    Novelty or "". A session that ``counts`` and for which there is no room yet has to wait until
    its user has made some. ``support``: staff act as the user, and proved who they are at the
    moment ``authenticated_at``. ``instead_of``: the handle of a locked session that ends by this
    sign-in, and counts no more. ``app``: the client, if the key travels in headers. ``parent``: the
    app's session that has opened this one.

    Raises TooManySessions where the policy is to refuse, and StoreUnavailable.
    """
    user_id = UserSession._meta.get_field("user").target_field.to_python(user)
    started = as_datetime(at)
    rows = UserSession.objects.primary()
    limited, pk, said = counts and policy.limit is not None, None, app or parent
    with transaction.atomic(rows.db) if limited else nullcontext():
        if limited:
            others = rows.exclude(pk=instead_of) if instead_of else rows
            pk = make_room(others, user_id, policy)
            counts = pk is not None
        hints = (said and said.hints) or (client.hints if client else "")
        row = UserSession(
            id=pk or models.uuid7(),
            user_id=user_id,
            digest=digest,
            started_at=started,
            authenticated_at=_moment(authenticated_at),
            last_seen_at=started,
            ip=client.recorded_address if client else None,
            user_agent=client.user_agent if client else "",
            client_hints=hints,
            device_type=device_of(client.user_agent, hints).kind if client else "",
            transport=Transport.HEADER if app else Transport.COOKIE,
            parent=parent and parent.handle,
            label=said.label if said else "",
            browser=browser,
            backend=backend,
            remembered=remembered,
            language=(get_language() or "")[:35],
            counts=counts,
            waits=limited and not counts,
            support=support,
            **lifetime.as_columns(),
        )
        row.networks = networks_of(row.ip)
        row.save(using=rows.db, force_insert=True)
        # Not before: SQLite refuses to write in a transaction that began to read too long ago.
        if client and not support and not parent:
            _compare(row, rows)
    return row.pk.hex, counts, row.novelty


def _compare(row: UserSession, rows: UserSessionQuerySet) -> None:
    """Write into the row of a sign-in what is new, and what the user calls this browser."""
    others = rows.filter(user=row.user_id, support=False).exclude(pk=row.pk)
    is_same = Case(When(browser=row.browser, then=0), default=1)
    order: list[Any] = [is_same] if row.browser else []
    newest = others.only(*COMPARED).order_by(*order, "-last_seen_at", "-pk")
    before = list(newest[:ENOUGH])
    row.novelty = what_is_new(row, before)
    if row.novelty == Novelty.DEVICE and _is_new_account(row):
        row.novelty = ""
    if before and row.browser and before[0].browser == row.browser:
        row.label = before[0].label
    if row.novelty or row.label:
        row.save(using=rows.db, update_fields=["novelty", "label"])


def _is_new_account(row: UserSession) -> bool:
    """Tell whether the user has opened the account within the last minute, as far as that is known:
    whoever does so on one device may go on at once on another."""
    joined = getattr(user_of(str(row.user_id)), "date_joined", None)
    if not isinstance(joined, datetime) or is_aware(joined) != is_aware(row.started_at):
        return False
    return abs(row.started_at - joined) <= A_MINUTE


def enter_late(handle: str, user: str, policy: Policy) -> bool:
    """
    Count a session towards the limit that was entered without, as enter() does. Return False if its
    user has to make room first.

    Raises TooManySessions where the policy is to refuse, and StoreUnavailable.
    """
    user_id = UserSession._meta.get_field("user").target_field.to_python(user)
    rows = UserSession.objects.primary()
    with transaction.atomic(rows.db):
        counts = policy.limit is None or bool(make_room(rows, user_id, policy, uuid.UUID(handle)))
        rows.filter(pk=handle, ended_at=None).update(counts=counts, waits=not counts)
    return counts


def enter_support(handle: str, authenticated_at: int, lifetime: Lifetime) -> None:
    """Note in a row that staff act as its user: the session does not count towards the limit, the
    browser is none of the user's, and the row has the time at which the staff proved who they are.
    """
    row = UserSession.objects.primary().filter(pk=handle, ended_at=None)
    proved = _moment(authenticated_at)
    row.update(
        counts=False,
        waits=False,
        support=True,
        browser=None,
        label="",
        novelty="",
        authenticated_at=proved,
        **lifetime.as_columns(),
    )


def _moment(authenticated_at: int) -> datetime | None:
    """Return the value of the column, which is None where nobody knows of a proof."""
    return as_datetime(authenticated_at) if authenticated_at else None


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
        return bool(make_room(rows, row.user_id, policy, row.pk, is_new=False))


def take_back(handle: str) -> None:
    """Delete the row of a sign-in whose session was not written, unless the row has ended."""
    UserSession.objects.primary().filter(pk=handle, ended_at=None).delete()


def may_go_on(
    handle: str, digests: list[str], auth_hash: str, user: str, person: str, authenticated_at: int
) -> UserSession | None:
    """
    Return the row of a session, with its user, if the session may go on. Return None if it was
    ended or has another key, or if its user was disabled, deleted, or given another password behind
    Django's back: that ends the session now. If staff act as the user, ``person`` is their primary
    key as text, and the session also ends if their account is disabled or deleted. Neither goes on
    what an epoch has ended, by the moment ``authenticated_at``, though the store did not say so.
    """
    rows = UserSession.objects.primary()
    row = rows.filter(pk=handle, digest__in=digests, ended_at=None)
    row = row.annotate(is_over=epochs.over([user, person], as_datetime(authenticated_at)))
    found: Any = row.select_related("user").first()
    if found is None:
        # A row whose user has gone is not found together with its user.
        if row.exists():
            _end_if_free(handle, EndReason.ACCOUNT_DISABLED, digests)
        return None
    if found.is_over and end_by_epoch(user, person, authenticated_at, found.pk):
        epochs.note_again()
        return None
    if found.parent and not rows.active().filter(pk=found.parent).exists():
        reason = EndReason.PARENT
    elif is_disabled(found.user) or (found.support and not _may_act(person)):
        reason = EndReason.ACCOUNT_DISABLED
    elif not has_password_of(found.user, auth_hash):
        reason = EndReason.PASSWORD_CHANGE
    else:
        return cast("UserSession", found)
    # Only if it still has this digest: a change of the password may just have given it a new key.
    _end_if_free(handle, reason, digests)
    return None


def _may_act(person: str) -> bool:
    user = user_of(person)
    return user is not None and not is_disabled(user)


def end_by_epoch(user: str, person: str, authenticated_at: int, handle: uuid.UUID) -> bool:
    """
    Tell whether an epoch has ended a session, and mark its row, as the work that cleans up behind
    the epoch will. See epochs.py.
    """
    ending = epochs.ending_of(user, person, authenticated_at, handle)
    if ending is None:
        return False
    _end_if_free(handle.hex, EndReason.REVOKED_BY_STAFF, ending=ending)
    return True


def is_open(handle: str, digest: str | None = None) -> bool:
    """Tell whether a row has not ended and, if a digest is given, has that one."""
    row = UserSession.objects.primary().filter(pk=handle, ended_at=None)
    return (row if digest is None else row.filter(digest=digest)).exists()


def keep_open(handle: str, until: int) -> None:
    """
    Have the row of a session that another engine has from now on expire at this moment, if it would
    expire sooner: that engine does not tell of any use.
    """
    expiry = as_datetime(until)
    row = free(handle).filter(ended_at=None, expires_at__lt=expiry)
    row.update(expires_at=expiry, idle_at=None)


def touch(
    handle: str,
    digests: list[str],
    at: int,
    lifetime: Lifetime,
    client: Client | None,
    seen_at: int = 0,
) -> bool:
    """
    Write when a session expires and, as far as its client is known, its last activity. The row gets
    the first of ``digests``. Return False if the row has ended, has none of them, or is held by
    another transaction. ``seen_at``: the last activity that the store knows of, which may wait
    there for the row, with another expiry.
    """
    known: dict[str, Any] = {}
    if seen_at:
        known["last_seen_at"] = Greatest("last_seen_at", as_datetime(seen_at))
    if client:
        known["last_seen_at"] = as_datetime(at)
        if client.address:
            known["ip"] = at_all = client.recorded_address
            known["networks"] = _with(network_of(at_all)) if at_all else ""
        if client.user_agent:
            known["client_hints"] = _hints_of(client)  # first: MySQL goes by what a row has by now
            known["user_agent"] = client.user_agent
    row = free(handle, digests).filter(ended_at=None)
    return bool(row.update(digest=digests[0], **lifetime.as_columns(), **known))


def _hints_of(client: Client) -> Any:
    """
    Return what a row gets for client hints. A browser sends all of them only after our pages have
    asked for them, and forgets that: those that a row has stay, while the user agent does.
    Those of an app always stay.
    """
    same = Q(client_hints__startswith=APP_HINTS)  # said once, at the sign-in
    if not client.has_all_hints:
        same |= Q(user_agent=client.user_agent) & ~Q(client_hints="")
    return Case(When(same, then=F("client_hints")), default=Value(client.hints))


def _with(network: str) -> Expression:
    """Return the networks of a row, and this one in front of them if it is not one of them."""
    has_it = Q(networks__startswith=f"{network},") | Q(networks__contains=f",{network},")
    longer = Left(Concat(Value(f"{network},"), "networks"), ROOM)
    return Case(When(has_it, then=F("networks")), default=longer)


def announce(handle: str, novelty: str) -> None:
    """Say that somebody has signed in, once that is committed. A receiver that fails, which Django
    logs, must not keep the next one from being told, nor the visitor from the answer."""
    session = {"handle": uuid.UUID(handle), "novelty": novelty}
    tell = partial(session_started.send_robust, UserSession, **session)
    transaction.on_commit(tell, using=UserSession.objects.primary().db, robust=True)


def announce_renewal(handle: str) -> None:
    """Say that a session has a new key, once that is committed, as announce() does."""
    tell = partial(session_renewed.send_robust, UserSession, handle=uuid.UUID(handle))
    transaction.on_commit(tell, using=UserSession.objects.primary().db, robust=True)


def free(handle: str, digests: Sequence[str] = ()) -> UserSessionQuerySet:
    """
    Return the row with this handle and, if there are any, one of these digests, to be written by a
    request that does not wait: where the database can skip a row that another transaction holds,
    that row is left alone. Add no condition on a column with an index: MariaDB then waits for the
    row before it asks whether the row is free.
    """
    rows, pk = UserSession.objects.primary(), uuid.UUID(handle)
    connection = connections[rows.db]
    if not connection.features.has_select_for_update_skip_locked:
        return _with_one_of(digests, rows.filter(pk=pk)) if digests else rows.filter(pk=pk)
    where = "id = %s"
    if digests:
        where += f" AND digest IN ({', '.join(['%s'] * len(digests))})"
    params = [UserSession._meta.pk.get_db_prep_value(pk, connection), *digests]
    unheld = RawSQL(FREE.format(table=TABLE, where=where), params)  # noqa: S611 (constants)
    return rows.filter(pk=unheld)


def _with_one_of(digests: Sequence[str], rows: UserSessionQuerySet) -> UserSessionQuerySet:
    """
    Return the rows, which are found by their primary keys, that have one of these digests.

    In an expression: MariaDB may go by the index of digests otherwise, and then locks index and row
    in the other order than whoever goes by the primary key. Two who write the same row would be a
    deadlock.
    """
    return rows.alias(present=Coalesce("digest", Value(""))).filter(present__in=digests)


def _end_if_free(
    handle: str, reason: str, digests: Sequence[str] = (), ending: Ending | None = None
) -> None:
    """
    Mark a row ended and say so, unless another transaction holds it. ``ending`` is what staff end
    it by.
    """
    by, note = (ending.by, ending.note) if ending else (None, "")
    row = free(handle, digests).filter(ended_at=None)
    if row.update(
        ended_at=timezone.now(),
        end_reason=reason,
        ended_by=by,
        ended_from=ending and ending.ended_from,
        end_note=note,
    ):
        models.announce([uuid.UUID(handle)], reason, by, note)


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
    row = _with_one_of(old, UserSession.objects.primary().filter(pk=handle, ended_at=None))
    return bool(
        row.update(
            digest=new,
            last_seen_at=as_datetime(at),
            authenticated_at=_moment(authenticated_at),
            **flags,
            **lifetime.as_columns(),
        )
    )


def renew_again(handle: str) -> None:
    """Note that the session is to get another new key: privileges have changed meanwhile."""
    UserSession.objects.primary().filter(pk=handle, ended_at=None).update(renew=True)


def catch_up(handle: str, old: str, new: str) -> None:
    """Write the digest of a new key into a row that still has the old one: a renewal broke off."""
    free(handle, [old]).update(digest=new)


def is_in_transaction() -> bool:
    """Tell whether what is written now can be rolled back, as with ATOMIC_REQUESTS."""
    return connections[UserSession.objects.primary().db].in_atomic_block


def digests_of(handle: str) -> list[str]:
    """Return the digest that a row has now, or nothing if there is no row."""
    return list(UserSession.objects.primary().filter(pk=handle).values_list("digest", flat=True))


def mark_ended(handle: str, reason: str) -> None:
    """Mark a row ended and say so, without reading it first. The store is the caller's business."""
    models.mark_ended(UserSession.objects.all(), reason, handles=[uuid.UUID(handle)])


def end_children(handle: str) -> None:
    """End the sessions that the app's session with this handle has opened in web views."""
    row = row_of(uuid.UUID(handle))
    if row is not None:
        rows = UserSession.objects.primary()
        models.children_of({row.pk: row.user_id}, rows).revoke(EndReason.PARENT)


def sign_out(digest: str) -> None:
    """Mark the row with this digest ended by its user, and say so."""
    models.mark_ended(UserSession.objects.filter(digest=digest), EndReason.LOGOUT)


def row_of(handle: uuid.UUID | None) -> UserSession | None:
    """Return the row with this handle, if it is still there."""
    return UserSession.objects.primary().filter(pk=handle).first() if handle else None


def call_replaced(handle: str) -> None:
    """Change the reason of a row from LOGOUT to REPLACED: login() of another account has flushed
    the session."""
    signed_out = UserSession.objects.primary().filter(pk=handle, end_reason=EndReason.LOGOUT)
    signed_out.update(end_reason=EndReason.REPLACED)


def row_of_missing(digest: str) -> UserSession | None:
    """
    Return the row of a session that the store does not have, and mark it ended if it was not.
    Return None for the session of a visitor, or one that a parallel request has given another key,
    or is giving one, or may have moved. Who gives one holds the row, as does somebody who has not
    said the reason yet.
    """
    rows = UserSession.objects.primary()
    row = rows.filter(digest=digest).first()
    if row and row.ended_at is None:
        has_expired = row.expires_at <= timezone.now()
        if conf.SESSIONKIT_ADOPT_FROM and not has_expired:
            return None  # it may just be moving back, to a process with another engine
        reason = row.expiry_reason if has_expired else EndReason.LOST
        _end_if_free(row.pk.hex, reason)
        row = rows.filter(pk=row.pk).first()
        if row and row.ended_at is None:
            if not has_expired:
                return None
            row.end_reason = reason
    return row
