"""
The purge: it deletes stored sessions that have expired, and rows whose sessions ended long ago. On
the way it mends what a lost request, or a change behind Django's back, has left.

A run goes through both tables. One that has only so many seconds notes in its row of PurgeRun how
far it has come, and the next one carries it on. Several runs at once do no harm, and wait for
nobody: what one of them holds, the others leave out.
"""

import json
import logging
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.utils import timezone

from django_sessionkit import activity, endings, tallies
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, PurgeRun, get_session_store
from django_sessionkit.pace import Pace, Progress
from django_sessionkit.storage import Storage
from django_sessionkit.sweeping import mend, next_slice, sweep

logger = logging.getLogger("django_sessionkit")

FIGURES = (
    # Stored sessions that had expired.
    "expired",
    # Rows that were marked ended, by the reason.
    f"closed.{EndReason.IDLE}",
    f"closed.{EndReason.EXPIRED}",
    f"closed.{EndReason.LOST}",
    # Rows of sessions that were ended, of which it is certain now that no store has them.
    "confirmed",
    # Rows that were deleted, and rows that have lost their addresses.
    "deleted",
    "addresses",
    # Sessions that were ended because their users were disabled or deleted behind Django's back.
    "disabled",
    # Sessions that a store still had, or had again, although they were ended.
    "orphans",
)
# Where a run notes that the engine has removed what had expired.
EXPIRED = "expired"
# A run that has only so many seconds has its row to itself for so much longer.
CLAIM = timedelta(seconds=60)
# And for this time at most: a clock may have been years ahead.
LONGEST_CLAIM = timedelta(days=1)
# A worker purges for so many seconds, then it sends itself on: whatever else there is for it has a
# turn. Kubernetes and Heroku give a process that is to stop 30 seconds.
SLICE = 20.0
# So many seconds after the first message, no more are sent on. The schedule sends one every hour.
LONGEST = 3600


class Purged(NamedTuple):
    """What the purge has done, in this run and in those that it has carried on."""

    figures: Mapping[str, int]  # how many, by the names in FIGURES
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
    that, carry activity that waits to the rows, and finish the endings that no worker looks after.

    ``seconds`` is the time that this run has, or None: all that it needs. A run with a time carries
    on the last one whose time was too short. ``duty`` is the share of the time in which it works: 1
    is without pauses. ``dry_run``: count what there is to do now, and change nothing. ``store`` is
    the engine's class, or None: that of SESSION_ENGINE.

    Raises StoreUnavailable, after it has done what it can.
    """
    engine: Any = store or get_session_store()
    if not issubclass(engine, Storage):  # of a site that is about to move here, or has moved away
        if not dry_run:
            engine.clear_expired()
        return Purged(dict.fromkeys(FIGURES, 0), True)
    pace = Pace(progress, seconds=seconds, duty=duty, dry_run=dry_run)
    purged: Purged = engine.call(_dry_run if dry_run else _run, engine, pace)
    return purged


def _run(engine: type[Storage], pace: Pace) -> Purged:
    unavailable = _carry_activity(pace)
    endings.finish_all(pace.time_left())
    run = _carry_on(pace) or _begin(pace)
    try:
        _go_through(engine, pace)
        if unavailable:
            raise unavailable
    except StoreUnavailable:
        # If its time was over, the next one does not begin anew: a server may be away for days.
        _note(run, pace)
        raise
    is_ours = _note(run, pace)
    if pace.is_cut_short or not is_ours:
        return _said("Purged so far", pace)
    tallies.finish(run, pace)
    purged = _said("Purged", pace)
    tallies.announce(run, purged.figures)
    return purged


def _carry_activity(pace: Pace) -> StoreUnavailable | None:
    try:
        activity.carry(pace.time_left())
    except StoreUnavailable as error:  # of several servers one may be missing
        return error
    return None


def _dry_run(engine: type[Storage], pace: Pace) -> Purged:
    _go_through(engine, pace)
    return _said("There is to purge", pace)


def _go_through(engine: type[Storage], pace: Pace) -> None:
    if not pace.places.get(EXPIRED):
        pace.figures["expired"] += engine.remove_expired(pace)
        if pace.is_cut_short:
            return
        pace.places[EXPIRED] = {"is_done": True}
    # First what was lost: those sessions are not active.
    errors = [mend(pace), sweep(pace)]
    for error in filter(None, errors):
        raise error


# The row of a run.


def _begin(pace: Pace) -> PurgeRun:
    """Note that a run begins. What it mends is the next slice of the table."""
    before = PurgeRun.objects.primary().exclude(places="").order_by("-pk").first()
    if before:
        pace.places.update(next_slice(json.loads(before.places)))
    return PurgeRun.objects.primary().create(
        started_at=timezone.now(),
        goes_on=pace.time_left() is not None,
        claimed_until=_claim(pace),
    )


def _carry_on(pace: Pace) -> PurgeRun | None:
    """Return the newest run, if its time was too short and nobody carries it on yet."""
    run, now = tallies.last_run(), timezone.now()
    if pace.time_left() is None or run is None or not run.goes_on:
        return None
    if run.claimed_until and run.claimed_until > now:
        return None
    # With the places: somebody may have carried it on and stopped meanwhile.
    same = PurgeRun.objects.primary().filter(pk=run.pk, goes_on=True, places=run.places)
    claim = _claim(pace)
    if not same.filter(claimed_until=run.claimed_until).update(claimed_until=claim):
        return None
    run.claimed_until = claim
    if run.places:  # or else its process was killed before it could write them
        pace.places.update(json.loads(run.places))
        pace.figures.update(json.loads(run.figures))
    return run


def _claim(pace: Pace) -> datetime | None:
    seconds = pace.time_left()
    if seconds is None:
        return None
    longest = LONGEST_CLAIM.total_seconds()
    return timezone.now() + min(timedelta(seconds=min(seconds, longest)) + CLAIM, LONGEST_CLAIM)


def _note(run: PurgeRun, pace: Pace) -> bool:
    """
    Note how far a run has come. Return False, and note nothing, if somebody else has carried it on
    meanwhile: this process has stood still.
    """
    ours = PurgeRun.objects.primary().filter(pk=run.pk, finished_at=None)
    ours = ours.filter(claimed_until=run.claimed_until)
    run.goes_on, run.claimed_until = pace.is_cut_short, None
    run.places, run.figures = json.dumps(pace.places), json.dumps(pace.figures)
    columns = "goes_on", "claimed_until", "places", "figures"
    return bool(ours.update(**{name: getattr(run, name) for name in columns}))


def _said(what: str, pace: Pace) -> Purged:
    figures = {name: pace.figures[name] for name in FIGURES}
    logger.info("%s: %s", what, ", ".join(f"{name} {figures[name]}" for name in FIGURES))
    return Purged(figures, not pace.is_cut_short)


# The work of a worker.


class Turn(NamedTuple):
    """What a worker is to send itself: the argument, and after how many seconds."""

    begun: int
    wait: float


def take_turn(begun: int = 0, seconds: float | None = SLICE) -> Turn | None:
    """
    Do a worker's work at the purge for so many seconds, or all of it. Return what the worker is to
    send itself, or None if there is nothing more to do for it. If another worker is at it, wait for
    that one: it may have been killed.

    ``begun`` is when the first of these messages was taken, in seconds since the epoch. 0: this is
    the first. They stop after LONGEST, for then the schedule has sent another one. So there are
    never many at once, whatever a broker sends twice, too late or from somebody else.

    Raises StoreUnavailable.
    """
    now = int(time.time())
    begun = begun or now
    wait = 0.0 if seconds is None else Storage.call(_seconds_of_others)
    finished = not wait and purge(seconds=seconds).finished
    return None if finished or now - begun not in range(LONGEST) else Turn(begun, wait)


def _seconds_of_others() -> float:
    """Return for how long another worker has its run to itself, or 0."""
    now = timezone.now()
    claims = PurgeRun.objects.primary().values_list("claimed_until", flat=True)
    claims = claims.filter(claimed_until__gt=now, claimed_until__lte=now + LONGEST_CLAIM)
    until = claims.order_by("-claimed_until").first()
    return (until - now).total_seconds() if until else 0.0
