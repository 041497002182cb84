"""
The tables, and the operations on them. ``UserSession.objects.revoke()`` ends sessions.
"""

import logging
import os
import time
import uuid
from collections.abc import Mapping
from contextlib import nullcontext
from importlib import import_module
from typing import Any, Self

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ObjectDoesNotExist
from django.db import connections, models, transaction
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_sessionkit import ranges
from django_sessionkit.clock import as_datetime
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.ranges import WalkableQuerySet
from django_sessionkit.signals import sessions_ended, sessions_revoked
from django_sessionkit.storage import Storage
from django_sessionkit.visit.client import network_of
from django_sessionkit.visit.devices import Device, device_of
from django_sessionkit.visit.places import place_of

security_logger = logging.getLogger("django.security.SuspiciousSession")


def get_session_store() -> type[Storage]:
    """
    Return the ``SessionStore`` class of SESSION_ENGINE. Like contrib.sessions, this reads the
    setting with every call.
    """
    store: type[Storage] = import_module(settings.SESSION_ENGINE).SessionStore
    return store


def get_session_stores() -> list[type[Storage]]:
    """
    Return the ``SessionStore`` classes of this package that have sessions: that of SESSION_ENGINE,
    and of the engines in SESSIONKIT_ADOPT_FROM, from which not all sessions have moved yet.
    """
    engines = [settings.SESSION_ENGINE, *conf.SESSIONKIT_ADOPT_FROM]
    stores = [import_module(engine).SessionStore for engine in engines]
    return [store for store in stores if issubclass(store, Storage)]


def uuid7(at: int | None = None) -> uuid.UUID:
    """
    Return a UUID of version 7 (RFC 9562 §5.7). Such UUIDs sort by the time at which they were made,
    or by ``at``, in nanoseconds since the epoch.

    A UUID has 48 bits of milliseconds since the epoch, 12 bits of the fraction of the current
    millisecond (§6.2, method 3), and 62 random bits. Python has its own uuid7() from 3.14 on.
    """
    milliseconds, nanoseconds = divmod(time.time_ns() if at is None else at, 1_000_000)
    fraction = (nanoseconds << 12) // 1_000_000
    version, variant = 7 << 76, 0b10 << 62
    noise = int.from_bytes(os.urandom(8)) >> 2
    return uuid.UUID(int=milliseconds << 80 | version | fraction << 64 | variant | noise)


class EndReason(models.TextChoices):
    """Why a session ended. Staff read the labels in the admin."""

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
    PARENT = "parent", _("Ended with the app that opened it")


class Transport(models.TextChoices):
    """How the key of a session travels."""

    COOKIE = "cookie", _("Cookie")
    HEADER = "header", _("Header")


class DeviceType(models.TextChoices):
    """What Device.kind in visit/devices.py says. Staff read the labels in the admin."""

    DESKTOP = "desktop", _("Computer")
    MOBILE = "mobile", _("Phone")
    TABLET = "tablet", _("Tablet")
    BOT = "bot", _("Program")
    OTHER = "other", _("Other")


class Novelty(models.TextChoices):
    """What was new at a sign-in. "" means that nothing was."""

    DEVICE = "device", _("New device")
    PLACE = "place", _("Unusual place")


# The sessions whose end is IDLE, as in UserSession.expiry_reason.
IDLE = models.Q(idle_at=models.F("expires_at"))


class UserSessionQuerySet(WalkableQuerySet["UserSession"]):
    def active(self) -> Self:
        """
        Return the rows of sessions that have neither ended nor expired. The store may have lost
        some of these sessions: alive() asks it.
        """
        return self.filter(ended_at=None, expires_at__gt=timezone.now())

    def ended(self) -> Self:
        """Return the rows of sessions that have ended or expired."""
        return self.exclude(ended_at=None, expires_at__gt=timezone.now())

    def other_than(self, current: HttpRequest | SessionBase) -> Self:
        """Return these rows without that of the current session: give a request, or its session."""
        handle = getattr(getattr(current, "session", current), "handle", None)
        return self if handle is None else self.exclude(pk=handle)

    def alive(self) -> "list[UserSession]":
        """
        Return a list of the rows that have not ended and whose sessions the store still has. This
        takes two round trips, whatever the number of rows.

        Raises StoreUnavailable if the store does not answer.
        """
        # Not active(): what only looks expired, by a clock that is ahead, must not be missed.
        return still_stored(list(self.filter(ended_at=None)))

    def revoke(
        self,
        reason: str = EndReason.REVOKED,
        by: AbstractBaseUser | None = None,
        ended_from: uuid.UUID | None = None,
        note: str = "",
    ) -> int:
        """
        End these sessions at once, and return how many of them were active (ASVS 7.4.1, 7.4.5,
        7.5.2). ``reason`` is one of EndReason. ``by`` is the user who ends the sessions, and
        ``ended_from`` the handle of the session in which they do so, or None. ``note`` is what
        staff say to their colleagues about the reason, 255 characters at most. With the session of
        an app end those that the app has opened in web views.

        This method first marks the rows, then removes the sessions from the store. If a removal is
        lost, because of a crash or because the store is down, the next write of activity refuses
        the session, and the next purge removes it. A request that is under way cannot write its
        session back: the store refuses that.

        Raises StoreUnavailable, after all rows are marked, if the store did not answer. Raises
        ValueError if the reason is not one of EndReason.
        """
        reason = EndReason(reason)
        rows = self.primary()
        now = timezone.now()
        columns = "pk", "expires_at", "idle_at", "transport", "user_id"
        found = list(rows.filter(ended_at=None).values_list(*columns))
        # Address rows by primary key only: a second list of 500 keys in one query makes PostgreSQL
        # scan the whole table.
        everything = self.model.objects.using(rows.db)
        ended, unavailable = 0, None
        for start in range(0, len(found), ranges.ROWS):
            batch = found[start : start + ranges.ROWS]
            alive = [pk for pk, at, *_ in batch if at > now]
            revoked = everything._mark(alive, reason, by, ended_from=ended_from, note=note)
            expired = everything._mark(
                [pk for pk, at, idle_at, *_ in batch if at <= now and at != idle_at],
                EndReason.EXPIRED,
            )
            idle = everything._mark(
                [pk for pk, at, idle_at, *_ in batch if at <= now and at == idle_at],
                EndReason.IDLE,
            )
            ended += len(revoked)
            # Read the digests after the rows are marked. The mark refuses a key that changes from
            # now on. A key that changed before has its new digest here.
            marked = everything.filter(pk__in=[row[0] for row in batch])
            digests = list(marked.values_list("digest", flat=True))
            # Inside the caller's transaction, use a savepoint: a failure of the store must not take
            # the marks back.
            in_atomic_block = connections[rows.db].in_atomic_block
            try:
                with transaction.atomic(rows.db) if in_atomic_block else nullcontext():
                    remove_from_stores(digests)
            except StoreUnavailable as error:
                unavailable = error
            announce(revoked, reason, by, note)
            announce(expired, EndReason.EXPIRED, None)
            announce(idle, EndReason.IDLE, None)
            apps = {
                pk: user for pk, _, _, transport, user in batch if transport == Transport.HEADER
            }
            if apps:
                try:
                    children_of(apps, everything).revoke(EndReason.PARENT, by, ended_from, note)
                except StoreUnavailable as error:
                    unavailable = error
        if unavailable:
            raise unavailable
        return ended

    async def arevoke(
        self,
        reason: str = EndReason.REVOKED,
        by: AbstractBaseUser | None = None,
        ended_from: uuid.UUID | None = None,
        note: str = "",
    ) -> int:
        """The async form of revoke()."""
        return await sync_to_async(self.revoke)(reason, by, ended_from, note)

    def report(self) -> int:
        """
        Note that their user does not recognise these sessions, and return of how many that was not
        known yet. This ends none: see revoke().
        """
        return self.primary().filter(reported_at=None).update(reported_at=timezone.now())

    async def areport(self) -> int:
        """The async form of report()."""
        return await sync_to_async(self.report)()

    def _mark(
        self,
        handles: list[uuid.UUID],
        reason: str,
        by: AbstractBaseUser | None = None,
        ended_from: uuid.UUID | None = None,
        note: str = "",
    ) -> list[uuid.UUID]:
        """
        Mark the rows with these handles ended, if they are still in this QuerySet and not ended.
        Return the handles of the rows that this has marked.
        """
        if not handles:
            return []
        when = timezone.now()
        marked = self.filter(pk__in=handles, ended_at=None).update(
            ended_at=when, end_reason=reason, ended_by=by, ended_from=ended_from, end_note=note
        )
        if marked == len(handles):
            return handles
        # Meanwhile, somebody else has ended some of these sessions, or has used one again.
        ended = self.model.objects.using(self.db).filter(pk__in=handles, end_reason=reason)
        return list(ended.filter(ended_at=when).values_list("pk", flat=True))


def children_of(apps: Mapping[uuid.UUID, Any], rows: UserSessionQuerySet) -> UserSessionQuerySet:
    """
    Return, of these rows, the sessions that apps have opened in web views and that have not ended.
    ``apps`` has the handles of the sessions of the apps, and the primary keys of their users: the
    column of those has an index.
    """
    return rows.filter(user_id__in=set(apps.values()), parent__in=apps, ended_at=None)


def alive_in_stores(digests: list[str]) -> set[str]:
    """Return those of the digests under which a session is stored. Raises StoreUnavailable."""
    if not digests:
        return set()
    return set().union(*(store.call(store.peek, digests) for store in get_session_stores()))


def seen_in_stores(digests: list[str]) -> dict[str, int]:
    """
    Return those of the digests under which a session is stored, with its last activity, or 0 where
    only the row knows that. Raises StoreUnavailable.
    """
    seen: dict[str, int] = {}
    for store in get_session_stores() if digests else ():
        for digest, at in store.call(store.last_seen, digests).items():
            seen[digest] = max(at, seen.get(digest, 0))
    return seen


def remove_from_stores(digests: list[str]) -> None:
    """Remove the sessions with these digests. Raises StoreUnavailable, after asking all stores."""
    unavailable = None
    for store in get_session_stores():
        try:
            store.call(store.remove, digests)
        except StoreUnavailable as error:
            unavailable = error
    if unavailable:
        raise unavailable


def still_stored(rows: "list[UserSession]") -> "list[UserSession]":
    """
    Return those of these rows whose sessions the store still has, with their last activity, also if
    that waits there to be carried to the rows. One round trip.

    Raises StoreUnavailable if the store does not answer.
    """
    digests = [row.digest for row in rows]
    if conf.SESSIONKIT_ACTIVITY != "buffered":
        alive = alive_in_stores(digests)
        return [row for row in rows if row.digest in alive]
    seen = seen_in_stores(digests)
    found = [row for row in rows if row.digest in seen]
    for row in found:
        row.last_seen_at = max(row.last_seen_at, as_datetime(seen[row.digest]))
    return found


def mark_ended(
    rows: UserSessionQuerySet,
    reason: str,
    handles: list[uuid.UUID] | None = None,
) -> None:
    """
    Mark these rows ended, or only those with these handles, and send ``sessions_ended``. The caller
    takes care of the store. To end sessions that are alive, use revoke().
    """
    rows = rows.primary()
    if handles is None:
        handles = list(rows.filter(ended_at=None).values_list("pk", flat=True))
    announce(rows._mark(handles, reason), reason, None)


def announce(
    handles: list[uuid.UUID], reason: str, by: AbstractBaseUser | None, note: str = ""
) -> None:
    # send_robust(): a receiver that fails must not keep the next batch alive. Django logs it.
    if handles:
        what = {"handles": handles, "reason": reason, "by": by, "note": note}
        if reason in (EndReason.REVOKED, EndReason.REVOKED_BY_STAFF):
            sessions_revoked.send_robust(UserSession, **what)
        sessions_ended.send_robust(UserSession, **what)


class UserSession(models.Model):
    """
    The registry: one row for each sign-in of a user on a device, whatever the store.

    URLs, logs and signals name a session by its ``id``, the handle. The handle stays the same when
    the session gets a new key. The row stays after the session has ended: as history, and to refuse
    the session if the store brings it back.
    """

    id = models.UUIDField(_("handle"), primary_key=True, default=uuid7, editable=False)
    # No constraint in the database: it would lock the user's row at every sign-in, and it would
    # keep users from being deleted after a site has removed this app.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        on_delete=models.CASCADE,
        related_name="sessionkit_sessions",
        db_constraint=False,
        db_index=False,  # the index below begins with it
    )
    digest = models.CharField(max_length=64, editable=False)
    # Of a session that was adopted, the user has signed in at some time before this.
    started_at = models.DateTimeField(_("signed in"))
    # None: the session was adopted, and the user has not proved it since.
    authenticated_at = models.DateTimeField(_("last proved who they are"), null=True)
    # When the session was adopted from another engine, by SESSIONKIT_ADOPT_FROM.
    adopted_at = models.DateTimeField(_("moved here"), null=True)
    last_seen_at = models.DateTimeField(_("last active"))
    expires_at = models.DateTimeField(_("expires"))
    ip = models.GenericIPAddressField(_("address"), null=True, unpack_ipv4=True)
    user_agent = models.CharField(_("user agent"), max_length=512)
    # What the browser says beside its user agent, as visit/devices.py reads it: see there.
    client_hints = models.CharField(_("client hints"), max_length=512)
    # What kind of device it is, as far as the sign-in has told. "": not known.
    device_type = models.CharField(_("device type"), max_length=10, choices=DeviceType)
    # Names the browser across sign-ins, by SESSIONKIT_DEVICE_COOKIE. None: not known.
    browser = models.UUIDField(_("browser"), null=True, editable=False)
    # The networks that the session was used from, as novelty.py has them: each with a comma after
    # it, the one that was new last in front, as many as there is room for.
    networks = models.CharField(_("networks"), max_length=255, editable=False)
    # What the user calls this browser, "Work laptop" say.
    label = models.CharField(_("name"), max_length=64)
    # The language in which the site spoke at the sign-in: mails of the session are in it.
    language = models.CharField(_("language"), max_length=35)
    novelty = models.CharField(_("new"), max_length=10, choices=Novelty)
    # The authentication backend that has signed the user in, as a dotted path.
    backend = models.CharField(_("sign-in method"), max_length=255)
    transport = models.CharField(
        _("transport"), max_length=10, choices=Transport, default=Transport.COOKIE
    )
    # The handle of the app's session that has opened this one, in a web view: see handover.py.
    parent = models.UUIDField(_("opened by"), null=True, editable=False)
    # Whether the session outlives a restart of the browser.
    remembered = models.BooleanField(_("stays signed in"), default=False)
    # When Policy.idle ends or locks the session.
    idle_at = models.DateTimeField(_("idle"), null=True)
    # Whether the session counts towards Policy.limit. A session of staff who act as this user does
    # not count, nor does a session that waits for room.
    counts = models.BooleanField(_("counts towards the limit"), default=True)
    # The session waits until its user has made room for it, where Policy.on_limit is "ask".
    waits = models.BooleanField(_("waits for room"), default=False)
    # Staff act as the user, by a package for that. The user's page tells no more of such a session.
    support = models.BooleanField(_("support access"), default=False)
    # The session is to get a new key, because the permissions of its user have changed.
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
    # What staff have told their colleagues about the end. Users do not see this.
    end_note = models.CharField(_("note"), max_length=255)
    # The handle of the session in which somebody has ended this one.
    ended_from = models.UUIDField(_("ended from"), null=True, editable=False)
    # When the user said that they do not recognise this session.
    reported_at = models.DateTimeField(_("not recognised"), null=True)

    objects = UserSessionQuerySet.as_manager()

    class Meta:
        verbose_name = _("session")
        verbose_name_plural = _("sessions")
        ordering = ["-id"]  # newest first: the id begins with the time
        default_permissions = ["view"]
        permissions = [
            ("end_usersession", _("Can end the sessions of other users")),
            ("end_every_usersession", _("Can end the sessions of everybody at once")),
            ("view_address_usersession", _("Can see whole addresses of sessions")),
        ]
        indexes = [
            # The sign-ins of a user that have not ended, and those that have, are in it by time. So
            # a page reads what it shows, however many there are.
            models.Index(fields=["user", "ended_at", "id"], name="sessionkit_usersession_user"),
            # What staff look for: the sessions from an address, those of a browser, and what has
            # ended when, by reason.
            models.Index(fields=["ip", "id"], name="sessionkit_usersession_ip"),
            models.Index(fields=["browser", "id"], name="sessionkit_usersession_browser"),
            models.Index(
                fields=["end_reason", "ended_at", "id"], name="sessionkit_usersession_ended"
            ),
        ]
        constraints = [
            # Not unique=True: on PostgreSQL, that adds a second index, for LIKE.
            models.UniqueConstraint(fields=["digest"], name="sessionkit_usersession_digest"),
        ]

    def __str__(self) -> str:
        try:
            return f"{self.user}: {self.device}"
        except ObjectDoesNotExist:  # SQL has deleted the user
            return f"{self.user_id}: {self.device}"

    @property
    def is_locked(self) -> bool:
        """Whether Policy.idle has locked the session. A proof of identity opens it again."""
        if self.ended_at or self.idle_at is None:
            return False
        return self.idle_at <= timezone.now() < self.expires_at

    @property
    def expiry_reason(self) -> EndReason:
        """The reason if the session expires: IDLE if Policy.idle ends it, or else EXPIRED."""
        return EndReason.IDLE if self.expires_at == self.idle_at else EndReason.EXPIRED

    @property
    def device(self) -> Device:
        return device_of(self.user_agent, self.client_hints)

    @property
    def name(self) -> str:
        """What its user calls the session: by the label, the device, or who else is behind it."""
        return gettext("Support access") if self.support else self.label or str(self.device)

    @property
    def address(self) -> str:
        """
        The IP address, or "192.0.2.0/24" where SESSIONKIT_ADDRESSES keeps no more of it than the
        network; or "".
        """
        network = network_of(self.ip) if self.ip else ""
        is_network = network.partition("/")[0] == self.ip
        return network if is_network and conf.SESSIONKIT_ADDRESSES == "truncated" else self.ip or ""

    @property
    def place(self) -> str:
        """Roughly where the IP address is, or "" if that is not known. See visit/places.py."""
        return place_of(self.ip)


class StoredSession(models.Model):
    """
    A session of a user or a visitor, as the database engine keeps it. Nobody can use anything in
    this table as a session cookie, or turn it into one. The rows are small, for they are read and
    written often. Times are milliseconds since the epoch.
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


class Ending(models.Model):
    """
    Sessions that staff end together: those of a filter, in the background, or by the switch those
    of everybody, of all staff or of one user, which takes effect at once. The row says who ends
    which sessions and why, and how far the work is. endings.py does the work.
    """

    class Scope(models.TextChoices):
        FILTER = "filter", _("Sessions of a filter")
        EVERYBODY = "everybody", _("All sessions of everybody")
        STAFF = "staff", _("All sessions of staff")
        USER = "user", _("All sessions of a user")

    id = models.BigAutoField(primary_key=True)
    scope = models.CharField(_("scope"), max_length=10, choices=Scope)
    # Of FILTER: what Selection.as_text() returns, as JSON.
    filters = models.TextField(_("filter"))
    # Of STAFF and USER: the primary keys of the users as a list of texts, as JSON.
    users = models.TextField(editable=False)
    # Of the switch: sessions whose user has proved who they are since go on.
    before = models.DateTimeField(_("before"), null=True)
    # The handle of the session in which staff have begun this, and whether that one goes on.
    ended_from = models.UUIDField(_("ended from"), null=True, editable=False)
    spares_own = models.BooleanField(_("leaves out the session of who ends"), default=True)
    # Staff end a superuser's sessions only if they are one.
    spares_superusers = models.BooleanField(_("leaves out superusers"), default=True)
    note = models.CharField(_("reason"), max_length=255)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("by"),
        on_delete=models.SET_NULL,
        related_name="+",
        null=True,
        db_constraint=False,
    )
    created_at = models.DateTimeField(_("begun"))
    # The rows with handles up to this one are done: a worker that was killed, or the next one, goes
    # on from here. None: from the beginning.
    done_to = models.UUIDField(null=True, editable=False)
    # Rows with handles beyond this one are newer than the ending.
    last = models.UUIDField(editable=False)
    # How many rows there are to look at, about, how many were looked at, and how many of their
    # sessions this has ended.
    total = models.BigIntegerField(_("sessions to look at"), null=True)
    looked_at = models.BigIntegerField(_("sessions looked at"), default=0)
    ended = models.BigIntegerField(_("sessions ended"), default=0)
    # Until when a worker has this to itself. A worker that is alive moves it on.
    claimed_until = models.DateTimeField(null=True, editable=False)
    # When a worker was here last, or is to come. None: nobody has sent for one.
    worker_at = models.DateTimeField(null=True, editable=False)
    finished_at = models.DateTimeField(_("finished"), null=True)

    class Meta:
        verbose_name = _("ending")
        verbose_name_plural = _("endings")
        ordering = ["-id"]
        default_permissions = ()
        # Each write of activity looks for those since a proof of identity: see epochs.py.
        indexes = [models.Index(fields=["before"], name="sessionkit_ending_before")]

    def __str__(self) -> str:
        return f"{self.get_scope_display()} ({self.pk})"


class SigningKeyQuerySet(WalkableQuerySet["SigningKey"]):
    def verifying(self) -> Self:
        """Return the keys that verify tokens now."""
        never, later = models.Q(verifies_until=None), models.Q(verifies_until__gt=timezone.now())
        return self.filter(never | later)


class SigningKey(models.Model):
    """A key that signs tokens. See signing_keys.py, which makes, rotates and retires them."""

    id = models.BigAutoField(primary_key=True)
    # Counts the keys of the site. The one that signs is that with the highest number whose time has
    # come. It is unique, so two who make the next key at once make one.
    number = models.PositiveIntegerField(unique=True)
    kid = models.CharField(max_length=16)
    algorithm = models.CharField(max_length=10)
    # Sealed: see key_material.py. Empty once the key was retired.
    private = models.BinaryField()
    created_at = models.DateTimeField()
    signs_from = models.DateTimeField()
    # None: there is no key after this one.
    verifies_until = models.DateTimeField(null=True)

    objects = SigningKeyQuerySet.as_manager()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"signing key {self.kid}"


class Tally(models.Model):
    """A figure of one day, which lasts longer than the rows that it counts. See tallies.py."""

    id = models.BigAutoField(primary_key=True)
    day = models.DateField()
    name = models.CharField(max_length=40)
    value = models.BigIntegerField()

    objects = WalkableQuerySet["Tally"].as_manager()

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["day", "name"], name="sessionkit_tally_day_name"),
        ]

    def __str__(self) -> str:
        return f"{self.day:%Y-%m-%d} {self.name}: {self.value}"


class PurgeRun(models.Model):
    """A run of the purge. See purging.py and tallies.py."""

    id = models.BigAutoField(primary_key=True)
    started_at = models.DateTimeField()
    # None: the purge is under way, or was stopped, or a store did not answer.
    finished_at = models.DateTimeField(null=True)
    # How many rows of sessions that had ended long ago were deleted.
    deleted = models.BigIntegerField(default=0)
    # The time of the run was too short, and the next one carries it on.
    goes_on = models.BooleanField(default=False)
    # Until when nobody else carries it on.
    claimed_until = models.DateTimeField(null=True)
    # How far the run has come, and what it has done, as JSON.
    places = models.TextField()
    figures = models.TextField()

    objects = WalkableQuerySet["PurgeRun"].as_manager()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"purge {self.pk}"
