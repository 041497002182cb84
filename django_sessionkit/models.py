"""
The two tables, and the verbs on them. One verb ends sessions: ``UserSession.objects.revoke()``.
"""

import logging
import os
import time
import uuid
from contextlib import nullcontext
from importlib import import_module
from typing import Self

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ObjectDoesNotExist
from django.db import connections, models, transaction
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_sessionkit import ranges
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.ranges import WalkableQuerySet
from django_sessionkit.signals import sessions_ended
from django_sessionkit.storage import Storage
from django_sessionkit.visit.devices import Device, device_of
from django_sessionkit.visit.places import place_of

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
        for start in range(0, len(found), ranges.ROWS):
            batch = found[start : start + ranges.ROWS]
            revoked = everything._mark([pk for pk, at, _ in batch if at > now], reason, by)
            expired = everything._mark(
                [pk for pk, at, idle_at in batch if at <= now and at != idle_at], EndReason.EXPIRED
            )
            idle = everything._mark(
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

    def _mark(
        self,
        handles: list[uuid.UUID],
        reason: str,
        by: AbstractBaseUser | None = None,
        at: models.F | None = None,
    ) -> list[uuid.UUID]:
        """Mark the rows ended that still are among these, and return their handles."""
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


def mark_ended(
    rows: UserSessionQuerySet,
    reason: str,
    at: models.F | None = None,
    handles: list[uuid.UUID] | None = None,
) -> None:
    """
    Mark these rows ended, or those with these handles, and say so. The store is the caller's
    business: revoke() is what ends sessions.
    """
    rows = rows.primary()
    if handles is None:
        handles = list(rows.filter(ended_at=None).values_list("pk", flat=True))
    _announce(rows._mark(handles, reason, at=at), reason, None)


def _announce(handles: list[uuid.UUID], reason: str, by: AbstractBaseUser | None) -> None:
    # Robust: a receiver that fails must not keep the next batch alive. Django logs the failure.
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

    objects = WalkableQuerySet["StoredSession"].as_manager()

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["digest"], name="sessionkit_storedsession_digest"),
        ]

    def __str__(self) -> str:
        return f"stored session {self.pk}"
