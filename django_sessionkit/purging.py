"""
The purge: it deletes stored sessions that have expired, and rows whose sessions ended long ago. On
the way it mends what a lost request, or a change behind Django's back, has left.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Exists, F, OuterRef
from django.utils import timezone

from django_sessionkit import clock, endings, tallies
from django_sessionkit.accounts import is_disabled
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import (
    IDLE,
    EndReason,
    StoredSession,
    UserSession,
    UserSessionQuerySet,
    alive_in_stores,
    get_session_store,
    mark_ended,
    remove_from_stores,
)
from django_sessionkit.ranges import Pace, Progress
from django_sessionkit.storage import Storage

logger = logging.getLogger("django_sessionkit")

# A worker purges for so many seconds, then it sends itself on: whatever else there is for it has a
# turn. Kubernetes and Heroku give a process that is to stop 30 seconds.
SLICE = 20.0
# So many seconds after the first message, no more are sent on. The schedule sends one every hour.
LONGEST = 3600


class Purged(NamedTuple):
    """What a run of the purge has done."""

    # How many, by name: "expired" are stored sessions, "deleted" rows of the registry.
    figures: Mapping[str, int]
    # False: the time of this run was used up. The next run goes on where this one has stopped.
    finished: bool


def purge(
    progress: Progress | None = None,
    *,
    seconds: float | None = None,
    duty: float = 0.5,
    dry_run: bool = False,
    store: type[Storage] | None = None,
) -> Purged:
    """
    Remove what has expired, in small parts that hold nobody up, and return what was done. Before
    that, finish the endings that no worker looks after.

    ``seconds`` is the time that this run has, or None: all that it needs. ``duty`` is the share of
    the time in which it works: 1 is without pauses. ``dry_run``: count, and change nothing.
    ``store`` is the engine's class, or None: that of SESSION_ENGINE.

    Raises StoreUnavailable, after it has done what it can.
    """
    engine: Any = store or get_session_store()
    if not issubclass(engine, Storage):  # of a site that is about to move here, or has moved away
        engine.clear_expired()
        return Purged({}, True)
    pace = Pace(progress, seconds=seconds, duty=duty, dry_run=dry_run)
    expired = engine.call(engine.remove_expired, pace)
    logger.info("Purged %d expired sessions", expired)
    engine.call(endings.finish_all)
    run, active = engine.call(tallies.begin), tallies.Active()
    deleted = engine.call(purge_rows, progress, active)
    engine.call(tallies.finish, run, deleted, active)
    logger.info("Purged %d rows of sessions that ended long ago", deleted)
    figures = {"expired": expired, "deleted": deleted}
    tallies.announce(run, figures)
    return Purged(figures, True)


def purge_slice(begun: int = 0, seconds: float | None = SLICE) -> int | None:
    """
    Do a worker's work at the purge for so many seconds, or all of it. Return what the worker is to
    send itself as the next ``begun``, or None if there is nothing more to do for it.

    ``begun`` is when the first of these messages was taken, in seconds since the epoch. 0: this is
    the first. They stop after LONGEST, for then the schedule has sent another one. So there are
    never many at once, whatever a broker sends twice, too late or from somebody else.

    Raises StoreUnavailable.
    """
    now = int(time.time())
    begun = begun or now
    finished = purge(seconds=seconds).finished
    return None if finished or now - begun not in range(LONGEST) else begun


def purge_payloads(progress: Progress | None = None) -> int:
    """
    Delete the stored sessions that have expired, and return how many there were. Each DELETE looks
    at the expiry itself, so that a session which is touched meanwhile survives.
    """
    return sum(
        part.filter(expires_at__lte=clock.now()).delete_now()
        for part in StoredSession.objects.walk(progress)
    )


def purge_rows(
    progress: Progress | None = None, look: Callable[[UserSessionQuerySet], None] | None = None
) -> int:
    """
    Mark the rows ended of sessions that have expired or that the store has lost, end the sessions
    of users who were disabled or deleted behind Django's back (``QuerySet.update()``, SQL), confirm
    the removal of sessions that were ended, delete the rows of sessions that ended
    SESSIONKIT_RETENTION seconds ago, and take the addresses from rows that were not active for
    SESSIONKIT_ADDRESS_RETENTION seconds. Return how many were deleted. ``look`` is called with each
    part of the table, after all that.

    Raises StoreUnavailable, after it has done what it can: a store of several servers may lack one.
    """
    deleted, unavailable = 0, None
    for part in UserSession.objects.walk(progress):
        for step in (_close_gone, _end_disabled, _confirm_removals):
            try:
                step(part)
            except StoreUnavailable as error:
                unavailable = error
        kept_from = timezone.now() - timedelta(seconds=conf.SESSIONKIT_RETENTION)
        # Without its row, nothing would remove a session that the store may still have.
        confirmed = part.filter(ended_at__lt=kept_from, expires_at__lte=F("ended_at"))
        deleted += confirmed.delete_now()
        _forget_addresses(part)
        if look:
            look(part)
    if unavailable:
        raise unavailable
    return deleted


def _close_gone(part: UserSessionQuerySet) -> None:
    """Mark the rows ended of sessions that the store does not have any more."""
    now = timezone.now()
    # Skip rows that were active within the last interval: their next touch checks them, and
    # the session of a new one may not be stored yet.
    quiet = now - timedelta(seconds=conf.SESSIONKIT_TOUCH_INTERVAL)
    silent = part.filter(ended_at=None, last_seen_at__lte=quiet)
    if digests := list(silent.values_list("digest", flat=True)):
        gone = silent.filter(digest__in=set(digests) - alive_in_stores(digests))
        expired = gone.filter(expires_at__lte=now)
        mark_ended(expired.filter(IDLE), EndReason.IDLE, at=F("expires_at"))
        mark_ended(expired, EndReason.EXPIRED, at=F("expires_at"))
        if not conf.SESSIONKIT_ADOPT_FROM:  # it may be with a process of another engine
            mark_ended(gone.filter(expires_at__gt=now), EndReason.LOST)


def _end_disabled(part: UserSessionQuerySet) -> None:
    """End the sessions of users who were disabled or deleted."""
    if disabled := _disabled_users(part.filter(ended_at=None)):
        part.filter(user__in=disabled).revoke(EndReason.ACCOUNT_DISABLED)


def _confirm_removals(part: UserSessionQuerySet) -> None:
    """Remove the sessions that were ended, as far as nobody has confirmed that they are gone."""
    unconfirmed = part.filter(expires_at__gt=F("ended_at"))
    if digests := list(unconfirmed.values_list("digest", flat=True)):
        remove_from_stores(digests)
        unconfirmed.filter(digest__in=digests).update(expires_at=F("ended_at"))


def _forget_addresses(part: UserSessionQuerySet) -> None:
    """Take the addresses, and with them the places, from rows that were not active for long."""
    if conf.SESSIONKIT_ADDRESS_RETENTION is None:
        return
    until = timezone.now() - timedelta(seconds=conf.SESSIONKIT_ADDRESS_RETENTION)
    inactive = part.filter(last_seen_at__lt=until).exclude(ip=None, networks="")
    # Named, for an UPDATE on MySQL waits for every row that it looks at.
    if handles := list(inactive.values_list("pk", flat=True)):
        inactive.filter(pk__in=handles).update(ip=None, networks="")


def _disabled_users(rows: UserSessionQuerySet) -> set[Any]:
    """Return the users of these rows who may have no session, or are not there any more."""
    users = get_user_model()._base_manager.all()
    there = users.filter(pk=OuterRef("user_id"))
    with suppress(FieldDoesNotExist):  # is_active is True for everybody then
        users.model._meta.get_field("is_active")
        there = there.filter(is_active=True)
    found = set(rows.filter(~Exists(there)).values_list("user_id", flat=True))
    let_in = users.filter(pk__in=found) if found else ()
    return found - {user.pk for user in let_in if not is_disabled(user)}
