"""
The two tables, and the verbs on them. One verb ends sessions: ``UserSession.objects.revoke()``.
"""

import logging
import os
import time
import uuid
from contextlib import nullcontext, suppress
from datetime import timedelta
from importlib import import_module
from typing import Any, Self, cast

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import FieldDoesNotExist, ObjectDoesNotExist
from django.db import connections, models, transaction
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_sessionkit import clock, walking
from django_sessionkit.accounts import has_password_of, is_disabled
from django_sessionkit.clock import Lifetime, as_datetime
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import StoreUnavailable, TooManySessions
from django_sessionkit.policy import Policy
from django_sessionkit.signals import sessions_ended, sign_in_refused
from django_sessionkit.storage import Storage
from django_sessionkit.visit.client import Client
from django_sessionkit.visit.devices import Device, device_of
from django_sessionkit.visit.places import place_of
from django_sessionkit.walking import Progress, WalkableQuerySet

security_logger = logging.getLogger("django.security.SuspiciousSession")


def get_session_store() -> type[Storage]:
    """Return the engine that SESSION_ENGINE names, at call time, as contrib.sessions does."""
    store: type[Storage] = import_module(settings.SESSION_ENGINE).SessionStore
    return store


def uuid7() -> uuid.UUID:
    """
    Return a UUID of version 7 (RFC 9562 §5.7): 48 bits of milliseconds since the epoch, 12 bits of
    the fraction of this one (§6.2, method 3), so that the order is that of time, and 62 random
    bits. Python has its own from 3.14 on.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = (nanoseconds << 12) // 1_000_000
    version, variant = 7 << 76, 0b10 << 62
    noise = int.from_bytes(os.urandom(8)) >> 2
    return uuid.UUID(int=milliseconds << 80 | version | fraction << 64 | variant | noise)


class EndReason(models.TextChoices):
    """Why a session ended. The labels are read by staff."""

    LOGOUT = "logout", _("Signed out")
    REVOKED = "revoked", _("Ended from another device")
    REVOKED_BY_STAFF = "revoked_by_staff", _("Ended by staff")
    IDLE = "idle", _("Inactive for too long")
    EXPIRED = "expired", _("Expired")
    LIMIT = "limit", _("Too many devices")
    PASSWORD_CHANGE = "password_change", _("Password changed")
    ACCOUNT_DISABLED = "account_disabled", _("Account disabled")
    REPLACED = "replaced", _("Another account signed in")
    LOST = "lost", _("Lost by the session store")
    REUSED = "reused", _("An old session key was used")
    MOVED = "moved", _("Browser or network changed")
    PRIVILEGE_CHANGE = "privilege_change", _("Permissions changed")


# As in UserSession.expiry_reason.
IDLE = models.Q(idle_at=models.F("expires_at"))


class UserSessionQuerySet(WalkableQuerySet["UserSession"]):
    def active(self) -> Self:
        """Return the rows that say that their session is alive. See also alive()."""
        return self.filter(ended_at=None, expires_at__gt=timezone.now())

    def ended(self) -> Self:
        """Return the rows of sessions that were ended or have expired."""
        return self.exclude(ended_at=None, expires_at__gt=timezone.now())

    def other_than(self, current: HttpRequest | SessionBase) -> Self:
        """Return these rows without the one of the current session, a request's or a session."""
        handle = getattr(getattr(current, "session", current), "handle", None)
        return self if handle is None else self.exclude(pk=handle)

    def alive(self) -> "list[UserSession]":
        """
        Return the active rows whose session the store still has. Two round trips, however many.

        Raises StoreUnavailable.
        """
        rows = list(self.active())
        store = get_session_store()
        alive = store.call(store.peek, [row.digest for row in rows]) if rows else ()
        return [row for row in rows if row.digest in alive]

    def revoke(self, reason: str = EndReason.REVOKED, by: AbstractBaseUser | None = None) -> int:
        """
        End these sessions, now, and return how many were alive. ASVS 7.4.1, 7.4.5, 7.5.2.

        The rows are marked first and the store is cleared after, so that a session whose removal
        is lost on the way (a crash, a store that is down) is refused by its next touch and removed
        by the next purge. What a request that is under way writes back is refused by the store.

        Raises StoreUnavailable, with every row marked, when the store did not answer, and
        ValueError for a reason that is none of EndReason.
        """
        reason = EndReason(reason)
        store = get_session_store()
        rows = self.primary()
        now = timezone.now()
        found = list(rows.filter(ended_at=None).values_list("pk", "expires_at", "idle_at"))
        # By their keys, once: PostgreSQL reads the whole table for two lists of 500.
        everything = self.model.objects.using(rows.db)
        ended, unavailable = 0, None
        for start in range(0, len(found), walking.ROWS):
            batch = found[start : start + walking.ROWS]
            revoked = everything._end([pk for pk, at, _ in batch if at > now], reason, by)
            expired = everything._end(
                [pk for pk, at, idle_at in batch if at <= now and at != idle_at], EndReason.EXPIRED
            )
            idle = everything._end(
                [pk for pk, at, idle_at in batch if at <= now and at == idle_at], EndReason.IDLE
            )
            ended += len(revoked)
            # Read after they were marked: a key that is cycled now is refused by the mark, one
            # that was cycled before it is found here under its new digest.
            marked = everything.filter(pk__in=[row[0] for row in batch])
            digests = list(marked.values_list("digest", flat=True))
            if unavailable is None:
                # In a transaction of somebody's, a failure must not take the marks back.
                in_atomic_block = connections[rows.db].in_atomic_block
                try:
                    with transaction.atomic(rows.db) if in_atomic_block else nullcontext():
                        store.call(store.remove, digests)
                except StoreUnavailable as error:
                    unavailable = error
            _announce(revoked, reason, by)
            _announce(expired, EndReason.EXPIRED, None)
            _announce(idle, EndReason.IDLE, None)
        if unavailable:
            raise unavailable
        return ended

    async def arevoke(
        self, reason: str = EndReason.REVOKED, by: AbstractBaseUser | None = None
    ) -> int:
        """See revoke()."""
        return await sync_to_async(self.revoke)(reason, by)

    def purge(self, progress: Progress | None = None) -> int:
        """
        Close the rows of sessions that have expired or that the store has lost, end those of users
        who were disabled or deleted behind Django's back (``QuerySet.update()``, SQL), confirm the
        removal of those that were ended, and delete the rows that were ended SESSIONKIT_RETENTION
        ago. Return how many were deleted.

        Raises StoreUnavailable.
        """
        store = get_session_store()
        deleted = 0
        for part in self.walk(progress):
            now = timezone.now()
            # Busy ones are looked after by their touch, and one may be only being written.
            quiet = now - timedelta(seconds=conf.SESSIONKIT_TOUCH_INTERVAL)
            silent = part.filter(ended_at=None, last_seen_at__lte=quiet)
            if digests := list(silent.values_list("digest", flat=True)):
                gone = silent.filter(digest__in=set(digests) - store.call(store.peek, digests))
                expired = gone.filter(expires_at__lte=now)
                expired.filter(IDLE).close(EndReason.IDLE, at=models.F("expires_at"))
                expired.close(EndReason.EXPIRED, at=models.F("expires_at"))
                gone.filter(expires_at__gt=now).close(EndReason.LOST)
            if disabled := part.filter(ended_at=None)._of_disabled_users():
                part.filter(user__in=disabled).revoke(EndReason.ACCOUNT_DISABLED)
            unconfirmed = part.filter(expires_at__gt=models.F("ended_at"))
            if digests := list(unconfirmed.values_list("digest", flat=True)):
                store.call(store.remove, digests)
                unconfirmed.filter(digest__in=digests).update(expires_at=models.F("ended_at"))
            kept_from = now - timedelta(seconds=conf.SESSIONKIT_RETENTION)
            deleted += part.filter(ended_at__lt=kept_from).delete_now()
        return deleted

    # What the engines say about single rows.

    def open(
        self,
        user: str,
        digest: str,
        at: int,
        lifetime: Lifetime,
        client: Client | None,
        policy: Policy,
        counts: bool,
    ) -> tuple[str, bool]:
        """
        Write the row of a sign-in, as far as the limit of ``policy`` allows. Return its handle as
        32 hex digits, and whether it counts towards that limit: one that should and does not has to
        wait until its user has made room.

        Raises TooManySessions where the policy is to refuse, and StoreUnavailable.
        """
        user_id = UserSession._meta.get_field("user").target_field.to_python(user)
        started = as_datetime(at)
        rows = self.primary()
        limited = counts and policy.limit is not None
        # Until the row is there: of two sign-ins at once, the second one counts the first.
        with transaction.atomic(rows.db) if limited else nullcontext():
            if limited:
                counts = rows._make_room(user_id, policy)
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

    def admit(self, handle: uuid.UUID, limit: int) -> bool:
        """
        Let a session in that waits for room under the limit. False: there still is none.

        Raises StoreUnavailable.
        """
        return get_session_store().call(self.primary()._admit, handle, limit)

    def _admit(self, handle: uuid.UUID, limit: int) -> bool:
        row = self.filter(pk=handle, ended_at=None)
        for user_id in row.values_list("user_id", flat=True):
            with transaction.atomic(self.db):
                # It may count already, if its key could not be changed then.
                others = [each for each in self._counted(user_id) if each.pk != handle]
                return len(others) < limit and bool(row.update(counts=True))
        return False

    def _make_room(self, user_id: Any, policy: Policy) -> bool:
        """End what is too much for one more session to be within the limit, or return False."""
        limit = cast("int", policy.limit)
        others = self._counted(user_id)
        surplus = len(others) - limit + 1
        if surplus <= 0:
            return True
        security_logger.warning("A user with %d sessions, the limit, signed in once more", limit)
        if policy.on_limit == "refuse":
            user = get_user_model()._base_manager.filter(pk=user_id).first()
            sign_in_refused.send_robust(UserSession, user=user, limit=limit)
            raise TooManySessions(limit)
        if policy.on_limit == "ask":
            return False
        if policy.on_limit == "end_idlest":
            others.sort(key=lambda row: (row.last_seen_at, row.pk))
        victims = [row.pk for row in others[:surplus]]
        self.filter(pk__in=victims).revoke(EndReason.LIMIT)
        return True

    def _counted(self, user_id: Any) -> "list[UserSession]":
        """
        Return the user's sessions that count, the oldest first, with nobody else able to sign in
        as this user before the transaction ends.
        """
        user = get_user_model()._base_manager.using(self.db).filter(pk=user_id)
        features = connections[self.db].features
        if features.has_select_for_update:
            # Without holding up those who write rows that belong to the user.
            no_key = features.has_select_for_no_key_update
            user.select_for_update(no_key=no_key).values_list("pk").first()
        else:  # SQLite: whoever writes is alone
            name = user.model.USERNAME_FIELD
            user.update(**{name: models.F(name)})
        rows = self.filter(user=user_id, counts=True).order_by("pk")
        counted = list(rows.alive())
        # One that is only being written, or has got another key since its row was read, is not
        # found, but is there.
        fresh = timezone.now() - timedelta(seconds=10)
        missed = (
            rows.active().filter(last_seen_at__gt=fresh).exclude(pk__in=[row.pk for row in counted])
        )
        return sorted([*counted, *missed], key=lambda row: row.pk)

    def verify(self, handle: str, digests: list[str], auth_hash: str) -> "UserSession | None":
        """
        Return the row of a session, with its user, or None if it may not go on: it was ended, its
        key was changed, or its user was disabled, deleted, or given a new password behind Django's
        back, which ends it now.
        """
        row = self.primary().filter(pk=handle, digest__in=digests, ended_at=None)
        found = row.select_related("user").first()
        if found and is_disabled(found.user):
            row.close_one(handle, EndReason.ACCOUNT_DISABLED)
        elif found and not has_password_of(found.user, auth_hash):
            row.close_one(handle, EndReason.PASSWORD_CHANGE)
        elif found:
            return found
        else:
            row.close(EndReason.ACCOUNT_DISABLED)  # if there is one, it has no user
        return None

    def follow(
        self,
        handle: str,
        old: list[str],
        new: str,
        at: int,
        lifetime: Lifetime,
        authenticated_at: int,
    ) -> bool:
        """Follow a session to the digest of its new key. False: it has been ended meanwhile."""
        row = self.primary().filter(pk=handle, digest__in=old, ended_at=None)
        return bool(
            row.update(
                digest=new,
                last_seen_at=as_datetime(at),
                authenticated_at=as_datetime(authenticated_at),
                renew=False,
                **lifetime.as_columns(),
            )
        )

    def touch(
        self, handle: str, digests: list[str], at: int, lifetime: Lifetime, client: Client | None
    ) -> bool:
        """
        Write when a session expires and, as far as it is known who uses it, its last activity. The
        first of ``digests`` is its own. False: it was ended or its key was changed.
        """
        known: dict[str, Any] = {}
        if client:
            known["last_seen_at"] = as_datetime(at)
            if client.address:
                known["ip"] = client.address
            if client.user_agent:
                known["user_agent"] = client.user_agent
        row = self.primary().filter(pk=handle, digest__in=digests, ended_at=None)
        return bool(row.update(digest=digests[0], **lifetime.as_columns(), **known))

    def close(self, reason: str, at: models.F | None = None) -> None:
        """Mark these rows ended and say so; the store is the caller's business."""
        rows = self.primary()
        handles = list(rows.filter(ended_at=None).values_list("pk", flat=True))
        _announce(rows._end(handles, reason, at=at), reason, None)

    def close_one(self, handle: str, reason: str) -> None:
        """The same for one row, which need not be asked for then."""
        _announce(self.primary()._end([uuid.UUID(handle)], reason), reason, None)

    def lost(self, digest: str) -> "UserSession | None":
        """
        Return the row of a session that the store does not have, marked ended if it was not, or
        None: it was never signed in, or a concurrent request has given it a new key.
        """
        row = self.primary().filter(digest=digest).first()
        if row and row.ended_at is None:
            has_expired = row.expires_at <= timezone.now()
            self.close_one(row.pk.hex, row.expiry_reason if has_expired else EndReason.LOST)
            row = self.primary().filter(pk=row.pk).first()
        return row

    def _of_disabled_users(self) -> set[Any]:
        """Return the users of these rows who may have no session, or are not there any more."""
        users = get_user_model()._base_manager.all()
        there = users.filter(pk=models.OuterRef("user_id"))
        with suppress(FieldDoesNotExist):  # is_active is True for everybody then
            users.model._meta.get_field("is_active")
            there = there.filter(is_active=True)
        found = set(self.filter(~models.Exists(there)).values_list("user_id", flat=True))
        let_in = users.filter(pk__in=found) if found else ()
        return found - {user.pk for user in let_in if not is_disabled(user)}

    def _end(
        self,
        handles: list[uuid.UUID],
        reason: str,
        by: AbstractBaseUser | None = None,
        at: models.F | None = None,
    ) -> list[uuid.UUID]:
        """Mark those of these rows that still are what they were, and return their handles."""
        if not handles:
            return []
        when = at or timezone.now()
        marked = self.filter(pk__in=handles, ended_at=None).update(
            ended_at=when, end_reason=reason, ended_by=by
        )
        if marked == len(handles):
            return handles
        # Somebody else was faster: by ending some too, or by using one again.
        ended = self.model.objects.using(self.db).filter(pk__in=handles, end_reason=reason)
        return list(ended.filter(ended_at=when).values_list("pk", flat=True))


def _announce(handles: list[uuid.UUID], reason: str, by: AbstractBaseUser | None) -> None:
    # Robust: a receiver that fails must not keep the next batch alive. Django logs it.
    if handles:
        sessions_ended.send_robust(UserSession, handles=handles, reason=reason, by=by)


class UserSession(models.Model):
    """
    The registry: one sign-in of one user on one device, on whichever store.

    The row survives a change of the session's key, and its own end: as history, and as a tombstone
    that refuses what a store brings back. ``id`` is the handle that URLs, logs and signals use.
    """

    id = models.UUIDField(_("handle"), primary_key=True, default=uuid7, editable=False)
    # No constraint: signing in takes no lock on the user's row, but for a limit, and users can be
    # deleted when the app is long gone.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        on_delete=models.CASCADE,
        related_name="sessionkit_sessions",
        db_constraint=False,
    )
    digest = models.CharField(max_length=64, editable=False)
    started_at = models.DateTimeField(_("signed in"))
    authenticated_at = models.DateTimeField(_("last proved who they are"))
    last_seen_at = models.DateTimeField(_("last active"))
    expires_at = models.DateTimeField(_("expires"))
    ip = models.GenericIPAddressField(_("address"), null=True, unpack_ipv4=True)
    user_agent = models.CharField(_("user agent"), max_length=512)
    # When it goes idle, by Policy.idle: that is its end, or it is locked.
    idle_at = models.DateTimeField(_("idle"), null=True)
    # Towards Policy.limit. Not those of staff who act as this user, nor one that waits for room.
    counts = models.BooleanField(_("counts towards the limit"), default=True)
    # Its key is to be changed, because what its user may do was.
    renew = models.BooleanField(_("gets a new key"), default=False)
    ended_at = models.DateTimeField(_("ended"), null=True)
    end_reason = models.CharField(_("reason"), max_length=20, choices=EndReason)
    ended_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("ended by"),
        on_delete=models.SET_NULL,
        related_name="+",
        null=True,
        db_constraint=False,
    )

    objects = UserSessionQuerySet.as_manager()

    class Meta:
        verbose_name = _("session")
        verbose_name_plural = _("sessions")
        ordering = ["-id"]  # newest first: the key begins with the time
        default_permissions = ["view"]
        permissions = [("end_usersession", _("Can end the sessions of other users"))]
        constraints = [
            # Not unique=True, which adds an index for LIKE on PostgreSQL.
            models.UniqueConstraint(fields=["digest"], name="sessionkit_usersession_digest"),
        ]

    def __str__(self) -> str:
        try:
            return f"{self.user}: {self.device}"
        except ObjectDoesNotExist:  # deleted behind Django's back
            return f"{self.user_id}: {self.device}"

    @property
    def is_locked(self) -> bool:
        """Whether it has been idle for too long, and can be resumed by a proof of identity."""
        if self.ended_at or self.idle_at is None:
            return False
        return self.idle_at <= timezone.now() < self.expires_at

    @property
    def expiry_reason(self) -> EndReason:
        """What ends it when its time is over: idleness, if nothing else was due earlier."""
        return EndReason.IDLE if self.expires_at == self.idle_at else EndReason.EXPIRED

    @property
    def device(self) -> Device:
        return device_of(self.user_agent)

    @property
    def place(self) -> str:
        """Roughly where the address is, or "". See places.py."""
        return place_of(self.ip)


class StoredSessionQuerySet(WalkableQuerySet["StoredSession"]):
    def purge(self, progress: Progress | None = None) -> int:
        """
        Delete what has expired, and return how many. The DELETE repeats the condition, so that a
        session that is renewed meanwhile survives.
        """
        return sum(
            part.filter(expires_at__lte=clock.now()).delete_now() for part in self.walk(progress)
        )


class StoredSession(models.Model):
    """
    What the database engine keeps, for any visitor: narrow, hot, and nothing in it can be used as,
    or turned into, a session cookie. Times are milliseconds since the epoch, free of time zones.
    """

    id = models.BigAutoField(primary_key=True)
    digest = models.CharField(max_length=64)
    payload = models.BinaryField()
    touched_at = models.BigIntegerField()
    expires_at = models.BigIntegerField()

    objects = StoredSessionQuerySet.as_manager()

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["digest"], name="sessionkit_storedsession_digest"),
        ]

    def __str__(self) -> str:
        return f"stored session {self.pk}"
