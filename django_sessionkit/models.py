"""
The two tables, and the verbs on them. One verb ends sessions: ``UserSession.objects.revoke()``.
"""

import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self, TypeVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ObjectDoesNotExist
from django.db import connections, models, router, transaction
from django.db.models.expressions import RawSQL
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_sessionkit.client import Client
from django_sessionkit.conf import conf
from django_sessionkit.devices import Device, device_of
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.places import place_of
from django_sessionkit.signals import sessions_ended

if TYPE_CHECKING:
    from django_sessionkit.backends.base import SessionStore

# Rows that one statement of revoke() or purge() handles, and blocks of 8 KB that one statement of
# a purge looks at on PostgreSQL: a few milliseconds each, which is how long it can hold others up.
ROWS, BLOCKS = 500, 100

# Called by a purge with (parts done, parts in all).
Progress = Callable[[int, int], None]

Row = TypeVar("Row", bound=models.Model)


def get_session_store() -> "type[SessionStore]":
    """Return the engine that SESSION_ENGINE names, at call time, as contrib.sessions does."""
    store: type[SessionStore] = import_module(settings.SESSION_ENGINE).SessionStore
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


def as_datetime(milliseconds: int) -> datetime:
    """Return milliseconds since the epoch as a datetime, aware or naive as USE_TZ says."""
    value = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return value if settings.USE_TZ else timezone.make_naive(value)


class WalkableQuerySet(models.QuerySet[Row]):
    def primary(self) -> Self:
        """Return the same rows on the database that is written to, never a replica that lags."""
        return self.using(router.db_for_write(self.model))

    def walk(self, progress: Progress | None = None) -> Iterator[Self]:
        """
        Yield the table in small parts, for statements that are each a short transaction.

        Neither table has an index on its expiry, so that a touch stays cheap; looking at every row
        in physical order costs about as much as one big DELETE, and holds nobody up. On PostgreSQL
        the walk begins at a random place: runs that are cut short still get everywhere in time.
        """
        rows = self.primary()
        if connections[rows.db].vendor == "postgresql":
            parts, total = rows._parts_by_block()
        else:
            parts, total = rows._parts_by_key(), rows.count() // ROWS + 1
        for done, part in enumerate(parts, start=1):
            yield part
            if progress:
                progress(done, max(done, total))

    def delete_now(self) -> int:
        """
        Delete these rows in one statement, and return how many. delete() would read them first
        where a site has a receiver for deletions, and not look again whether they still match.
        """
        deleted: int = self._raw_delete(self.db)
        return deleted

    def _parts_by_block(self) -> tuple[Iterator[Self], int]:
        with connections[self.db].cursor() as cursor:
            cursor.execute(
                "SELECT pg_relation_size(%s::regclass) / current_setting('block_size')::int",
                [self.model._meta.db_table],
            )
            (blocks,) = cursor.fetchone()
        starts = list(range(0, blocks, BLOCKS))
        cut = random.randrange(len(starts)) if starts else 0  # noqa: S311
        in_part = "ctid >= %s::tid AND ctid < %s::tid"
        parts = (
            self.filter(
                RawSQL(  # noqa: S611 (a constant, with its parameters)
                    in_part,
                    [f"({start},0)", f"({start + BLOCKS},0)"],
                    output_field=models.BooleanField(),
                )
            )
            for start in starts[cut:] + starts[:cut]
        )
        return parts, len(starts)

    def _parts_by_key(self) -> Iterator[Self]:
        rows = rest = self.order_by("pk")
        while last := rest.values_list("pk", flat=True)[ROWS - 1 : ROWS].first():
            yield rest.filter(pk__lte=last)
            rest = rows.filter(pk__gt=last)
        yield rest


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
        found = list(rows.filter(ended_at=None).values_list("pk", "expires_at"))
        ended, unavailable = 0, None
        for start in range(0, len(found), ROWS):
            batch = found[start : start + ROWS]
            marked = self.model.objects.using(rows.db).filter(pk__in=[pk for pk, _ in batch])
            revoked = marked._end([pk for pk, at in batch if at > now], reason, by)
            expired = marked._end([pk for pk, at in batch if at <= now], EndReason.EXPIRED)
            ended += len(revoked)
            # Read after they were marked: a key that is cycled now is refused by the mark, one
            # that was cycled before it is found here under its new digest.
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
        Close the rows of sessions that have expired or that the store has lost, confirm the removal
        of those that were ended, and delete the rows that were ended SESSIONKIT_RETENTION ago.
        Return how many were deleted.

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
                gone.filter(expires_at__lte=now).close(EndReason.EXPIRED, at=models.F("expires_at"))
                gone.filter(expires_at__gt=now).close(EndReason.LOST)
            unconfirmed = part.filter(expires_at__gt=models.F("ended_at"))
            if digests := list(unconfirmed.values_list("digest", flat=True)):
                store.call(store.remove, digests)
                unconfirmed.filter(digest__in=digests).update(expires_at=models.F("ended_at"))
            kept_from = now - timedelta(seconds=conf.SESSIONKIT_RETENTION)
            deleted += part.filter(ended_at__lt=kept_from).delete_now()
        return deleted

    # What the engines say about single rows.

    def open(self, user: str, digest: str, at: int, expires_at: int, client: Client | None) -> str:
        """Write the row of a sign-in, and return its handle as 32 hex digits."""
        started = as_datetime(at)
        row = UserSession(
            user_id=UserSession._meta.get_field("user").target_field.to_python(user),
            digest=digest,
            started_at=started,
            authenticated_at=started,
            last_seen_at=started,
            expires_at=as_datetime(expires_at),
            ip=client.address if client else None,
            user_agent=client.user_agent if client else "",
        )
        row.save(using=self.primary().db, force_insert=True)
        return row.pk.hex

    def follow(
        self, handle: str, old: str, new: str, at: int, expires_at: int, authenticated_at: int
    ) -> bool:
        """Follow a session to the digest of its new key. False: it has been ended meanwhile."""
        row = self.primary().filter(pk=handle, digest=old, ended_at=None)
        return bool(
            row.update(
                digest=new,
                last_seen_at=as_datetime(at),
                expires_at=as_datetime(expires_at),
                authenticated_at=as_datetime(authenticated_at),
            )
        )

    def touch(
        self, handle: str, digest: str, at: int, expires_at: int, client: Client | None
    ) -> bool:
        """
        Write when a session expires and, as far as it is known who uses it, its last activity.
        False: it was ended or its key was changed, whatever the store says.
        """
        known: dict[str, Any] = {}
        if client:
            known["last_seen_at"] = as_datetime(at)
            if client.address:
                known["ip"] = client.address
            if client.user_agent:
                known["user_agent"] = client.user_agent
        row = self.primary().filter(pk=handle, digest=digest, ended_at=None)
        return bool(row.update(expires_at=as_datetime(expires_at), **known))

    def close(self, reason: str, at: models.F | None = None) -> None:
        """Mark these rows ended and say so; the store is the caller's business."""
        rows = self.primary()
        handles = list(rows.filter(ended_at=None).values_list("pk", flat=True))
        _announce(rows._end(handles, reason, at=at), reason, None)

    def lost(self, digest: str) -> "UserSession | None":
        """
        Return the row of a session that the store does not have, marked ended if it was not, or
        None: it was never signed in, or a concurrent request has given it a new key.
        """
        row = self.primary().filter(digest=digest).first()
        if row and row.ended_at is None:
            gone = EndReason.EXPIRED if row.expires_at <= timezone.now() else EndReason.LOST
            self.filter(pk=row.pk).close(gone)
            row = self.primary().filter(pk=row.pk).first()
        return row

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
        marked = self.filter(pk__in=handles, ended_at=None).update(
            ended_at=at or timezone.now(), end_reason=reason, ended_by=by
        )
        if marked == len(handles):
            return handles
        # Somebody else was faster: with another reason, or by using one again.
        ended = self.model.objects.using(self.db).filter(pk__in=handles, end_reason=reason)
        return list(ended.values_list("pk", flat=True))


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
    # No constraint: signing in takes no lock on the user's row, and users can be deleted when the
    # app is long gone.
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
            part.filter(expires_at__lte=time.time_ns() // 1_000_000).delete_now()
            for part in self.walk(progress)
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
