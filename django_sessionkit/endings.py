"""
What staff end together: the sessions of a selection or, by the switch, those of everybody, of all
staff or of one user. A row of Ending says what there is to do and how far that is. Whoever comes
next goes on from there: a worker, the page that shows the progress, or the purge.

The work goes through the table by the handle, in small parts. Of each part the sessions are ended,
then the row says so. A worker that is killed in between leaves a part that the next one does again:
nothing is ended twice, because revoke() marks a row once, and sends ``sessions_ended`` for it once.
"""

import json
import logging
import math
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import connections, router, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from django_sessionkit import audit, epochs, ranges, workers
from django_sessionkit.accounts import key_of, user_of
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import Ending, EndReason, UserSession, uuid7
from django_sessionkit.pace import Size
from django_sessionkit.reach import (
    Preview,
    are_few,
    batches,
    beginning,
    ended_rows,
    may_end_superusers,
    rows_again,
    total,
)
from django_sessionkit.selection import Selection, finds_all_staff, since, staff
from django_sessionkit.signals import ending_finished, ending_started

logger = logging.getLogger("django_sessionkit")

# An ending of more sessions than this runs in the background, and its confirmation is typed.
BACKGROUND = 1000
# Whoever works has an ending to itself for so long. Each batch moves that on.
CLAIM = timedelta(seconds=30)
# Whoever shows the progress leaves the work to a worker who was here, or was to be, so long ago.
PATIENCE = timedelta(seconds=15)
# A task works for so many seconds, then it sends itself on: a worker that is to stop waits for it.
SLICE = 5.0
# What rests between two batches rests for so many seconds at most: CLAIM goes on.
LONGEST_REST = 5.0
# Then a batch is to take about so many times pace.TARGET. What it writes goes to the disk at once,
# and whoever else writes waits for that.
BATCH = 5.0

# The admin does not offer this.
NO_COLUMN = (
    "A property of the user model says who is staff, and not a column, so nobody can find all of"
    " them. End the sessions of everybody, or of one user after the other."
)


def are_many(found: Preview) -> bool:
    """Tell whether these end in the background, and the confirmation of that is typed."""
    return found.is_more or found.count > BACKGROUND


def begin(
    selection: Selection,
    *,
    by: AbstractBaseUser | None,
    note: str,
    ended_from: uuid.UUID | None,
    spares_own: bool = True,
    spares_superusers: bool = True,
) -> Ending:
    """
    Note that staff end the sessions of a selection that there are now, and return the row of that.
    work() ends them, here and now if they are few, or a worker by send().

    ``by`` is the user who ends the sessions, or None for a command. ``note`` is the reason, 255
    characters at most. ``ended_from`` is the handle of the session in which they do so:
    ``spares_own`` leaves it out. Whoever is no superuser never ends the sessions of superusers.

    Raises ValidationError, with a message for people, for what makes no sense.
    """
    until = [at for at in (selection.started_before, selection.seen_before) if at]
    ending = Ending(
        scope=Ending.Scope.FILTER,
        filters=json.dumps(selection.as_text()),
        by_id=None if by is None else by.pk,
        note=note,
        ended_from=ended_from,
        spares_own=spares_own,
        spares_superusers=spares_superusers or not may_end_superusers(by),
        created_at=timezone.now(),
        last=min([_newest(), *map(since, until)]),
    )
    if selection.started_after:
        ending.done_to = uuid.UUID(int=max(1, since(selection.started_after).int) - 1)
    return _begun(ending)


def throw(
    scope: Ending.Scope,
    *,
    by: AbstractBaseUser | None,
    note: str,
    ended_from: uuid.UUID | None,
    user: AbstractBaseUser | None = None,
    before: datetime | None = None,
    spares_own: bool = True,
) -> Ending:
    """
    Throw the switch: the sessions of everybody, of all staff, or of one user do not go on, from the
    next seconds on, unless their users have proved who they are since ``before``, or since now.
    Return the row of that, whose work() marks the rows of the sessions and removes these.

    In a transaction, it takes effect once that is committed. Raises ValidationError, with a message
    for people, if ``before`` is to come, and PermissionDenied for a superuser's sessions if ``by``
    is no superuser.
    """
    now = timezone.now()
    if before and before > now:
        raise ValidationError(_("This time has not come yet."))
    users: list[str | None] = []
    if scope == Ending.Scope.STAFF:
        if not finds_all_staff():
            raise ValidationError(NO_COLUMN)
        database = router.db_for_write(UserSession)
        users = [
            str(pk) for pk in staff().using(database).order_by("pk").values_list("pk", flat=True)
        ]
    elif scope == Ending.Scope.USER:
        if user is None:
            raise ValueError("Whose sessions are to end?")
        if getattr(user, "is_superuser", False) and not may_end_superusers(by):
            raise PermissionDenied
        users = [key_of(user)]
    elif scope != Ending.Scope.EVERYBODY:
        raise ValueError("The sessions of a filter end by begin().")
    ending = Ending(
        scope=scope,
        users=json.dumps(users) if users else "",
        before=before or now,
        by_id=None if by is None else by.pk,
        note=note,
        ended_from=ended_from,
        spares_own=spares_own,
        spares_superusers=False,
        created_at=now,
        last=_newest(),
    )
    return _begun(ending)


def _newest() -> uuid.UUID:
    """Return the last handle that a session of this moment can have."""
    return uuid.UUID(int=uuid7().int | (1 << 62) - 1)


def _begun(ending: Ending) -> Ending:
    Ending._meta.get_field("note").run_validators(ending.note)
    ending.total = total(ending)  # which understands the filter, or raises ValidationError
    database = all_endings().db
    ending.save(using=database, force_insert=True)
    tell: list[Callable[[], Any]] = [
        partial(audit.started, ending),
        partial(ending_started.send_robust, Ending, ending=ending),
    ]
    if ending.scope != Ending.Scope.FILTER:
        tell.insert(0, partial(epochs.note, ending))
    for each in tell:
        transaction.on_commit(each, using=database, robust=True)
    return ending


# The work.


def send(ending: Ending) -> bool:
    """
    Have a worker of Celery or of Django's Tasks do the work, once the row is committed. Return
    False if the site has none, or none that can be reached: whoever shows the progress does it.
    """
    enqueue = workers.enqueue_of("end")
    if enqueue is None:
        return False
    database = all_endings().db
    if connections[database].in_atomic_block:
        transaction.on_commit(partial(_hand_on, enqueue, ending.pk), using=database, robust=True)
        return True
    return _hand_on(enqueue, ending.pk)


def _hand_on(enqueue: Any, number: int) -> bool:
    try:
        enqueue(number)
    except Exception as error:  # whatever a broker raises; its address may be in the text
        logger.error("No worker was given the ending %s: %s", number, type(error).__name__)
        return False
    _expect_worker(number)
    return True


def _expect_worker(number: int, wait: timedelta = timedelta()) -> None:
    """Note that a worker is here, or is to come after so much time."""
    at = timezone.now() + wait
    all_endings().filter(pk=number, finished_at=None).update(worker_at=at)


def is_left_to_worker(ending: Ending) -> bool:
    """Tell whether a worker is at work, or is to come soon. One that is late is not waited for."""
    return ending.worker_at is not None and ending.worker_at > timezone.now() - PATIENCE


def carry_on(number: int, seconds: float | None = None) -> float | None:
    """
    Do a worker's work at an ending for so many seconds, or for SLICE. Return after how many seconds
    to come again, or None if there is nothing left to do. A number that somebody has made up does
    no harm.
    """
    ending = all_endings().filter(pk=number).first()
    if ending is None:
        return None
    _expect_worker(number)
    if work(ending, SLICE if seconds is None else seconds, gently=True):
        return None
    if ending.claimed_until is None:
        return 0.0
    # Somebody else has it, who may have been killed.
    _expect_worker(number, CLAIM)
    return CLAIM.total_seconds()


def finish_all(seconds: float | None = None) -> None:
    """
    Finish the endings that nobody works at, for a broker can lose a message, and delete those that
    were finished long ago. This takes so many seconds, or None: all that it needs.
    """
    until = math.inf if seconds is None else time.monotonic() + seconds
    for ending in all_endings().filter(finished_at=None).order_by("pk"):
        try:
            work(ending, until - time.monotonic(), gently=True)
        except (ValidationError, ValueError) as error:  # another version had another filter, say
            logger.error("The ending %s does not go on: %s", ending.pk, type(error).__name__)
    _forget_old()


def work(ending: Ending, seconds: float, gently: bool = False) -> bool:
    """
    End sessions for so many seconds, and tell whether all is done. False: there is more to do, or
    somebody else does it. ``gently``: batches are as small as BATCH says, and the work rests for as
    long as each of them took. Afterwards, ``ending`` says how far the work is.

    Call this outside of a transaction, so that others see how far it is, and a part that was done
    stays done. If the store does not answer, the rows are marked all the same, and the purge
    removes the sessions: see revoke().
    """
    until = time.monotonic() + seconds
    goes_on = _claim(ending)
    by = user_of(str(ending.by_id)) if goes_on and ending.by_id is not None else None
    size = Size(ranges.ROWS, target=BATCH)
    for handles, to, looked_at in batches(ending, size) if goes_on else ():
        began = time.monotonic()
        ended = _end(ending, handles, by)
        goes_on = _write(
            ending,
            done_to=to,
            looked_at=F("looked_at") + looked_at,
            ended=F("ended") + ended,
            claimed_until=timezone.now() + CLAIM,
        )
        now = time.monotonic()
        if goes_on and now >= until:
            _write(ending, claimed_until=None)
            goes_on = False
        if not goes_on:
            break
        if gently:
            size.learn(now - began, len(handles))
            time.sleep(min(now - began, LONGEST_REST))
    if goes_on and _write(ending, claimed_until=None, finished_at=timezone.now()):
        ending.refresh_from_db(using=all_endings().db)
        audit.finished(ending)
        ending_finished.send_robust(Ending, ending=ending)
    else:
        ending.refresh_from_db(using=all_endings().db)
    return ending.finished_at is not None


def _claim(ending: Ending) -> bool:
    """
    Take an ending for a while, unless it is finished or somebody else has it.

    Who had it and has not given it back was killed, probably after a batch and before the row said
    so. What that batch has ended is counted now: it was marked after the claim was last moved on,
    by the clock of that worker. This count can be off in one case: who had it was not killed but
    stood still for longer than CLAIM, and goes on with that one batch.
    """
    ending.refresh_from_db(using=all_endings().db)
    before, now = ending.claimed_until, timezone.now()
    if ending.finished_at or (before and before > now):
        return False
    uncounted = 0
    if before:
        rows = ended_rows(ending, before - CLAIM).filter(pk__gt=beginning(ending))
        uncounted = rows.count()
    return _write(
        ending,
        claimed_until=now + CLAIM,
        ended=F("ended") + uncounted,
        # Where the work goes through the table, the rows of that batch are looked at again.
        looked_at=F("looked_at") + (uncounted if are_few(ending) else 0),
    )


def _write(ending: Ending, **columns: Any) -> bool:
    """
    Write into the row of an ending, unless somebody else has claimed it meanwhile, or has done a
    part of it and given it back.
    """
    row = all_endings().filter(pk=ending.pk, claimed_until=ending.claimed_until, finished_at=None)
    if not row.filter(done_to=ending.done_to).update(**columns):
        return False
    ending.claimed_until = columns["claimed_until"]
    ending.done_to = columns.get("done_to", ending.done_to)
    return True


def _end(ending: Ending, handles: list[uuid.UUID], by: AbstractBaseUser | None) -> int:
    """End these sessions, and return how many of them were active."""
    began = timezone.now()
    rows = rows_again(ending, handles)
    try:
        return rows.revoke(EndReason.REVOKED_BY_STAFF, by, ending.ended_from, ending.note)
    except StoreUnavailable:
        return ended_rows(ending, began).filter(pk__in=handles).count()


def all_endings() -> QuerySet[Ending]:
    """Return the rows of all endings, on the database that is written to."""
    return Ending._base_manager.using(router.db_for_write(Ending))


# The history.


def _forget_old() -> None:
    """
    Delete the endings that were finished SESSIONKIT_RETENTION seconds ago. An epoch stays until a
    later one of the same people, or of everybody, says more than it: the payload of a session may
    come back from a backup at any time, when its row has been deleted long ago.
    """
    kept_from = timezone.now() - timedelta(seconds=conf.SESSIONKIT_RETENTION)
    same = Q(scope=Ending.Scope.EVERYBODY) | Q(scope=OuterRef("scope"), users=OuterRef("users"))
    later = all_endings().filter(same, pk__gt=OuterRef("pk"), before__gte=OuterRef("before"))
    old = all_endings().filter(finished_at__lt=kept_from)
    obsolete = old.filter(Q(scope=Ending.Scope.FILTER) | Exists(later))
    if numbers := list(obsolete.values_list("pk", flat=True)):  # MySQL deletes by no subquery
        all_endings().filter(pk__in=numbers).delete()
