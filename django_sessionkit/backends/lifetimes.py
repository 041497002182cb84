"""
Until when a session lives by its facts: when it ends, when it locks, and how often its activity has
to be written so that use keeps it alive. Pure: no store, no request, no clock. Moments are
milliseconds since the epoch, and ``expiry`` is the ``_session_expiry`` of a session.
"""

from datetime import datetime
from typing import NamedTuple, cast

from django.conf import settings
from django.utils import timezone

from django_sessionkit.backends.facts import Facts
from django_sessionkit.clock import END_OF_TIME, as_datetime, as_milliseconds
from django_sessionkit.conf import conf
from django_sessionkit.visit.interruptions import Lock

# How long somebody has to make room for a sign-in that is over the limit, in milliseconds.
TIME_TO_CHOOSE = 15 * 60 * 1000
# The activity of a short session is written this many times in its life without activity, so that
# use keeps the session alive.
SHARE = 10


class TimeLeft(NamedTuple):
    """For how much longer a session goes on, in seconds."""

    expires_in: float | None  # at most, however active its user is. None: for good
    idle_in: float | None  # without activity. None: activity makes no difference
    idle_after: float | None  # that time from its beginning, with the last activity
    is_idle: bool  # by Policy.idle, and not by the age of the session's cookie
    locks: bool  # the session is locked then, and does not end
    every: float  # between two writes of activity


def default_age(facts: Facts, cookie_age: int) -> int:
    """
    Return the age, in seconds, of a session that has none of its own by set_expiry():
    ``cookie_age``, or what the site has set for visitors, if that is less.
    """
    of_visitors = conf.SESSIONKIT_VISITOR_AGE
    if of_visitors is None or facts.user is not None or facts.handle is not None:
        return cookie_age
    return min(cookie_age, of_visitors)


def age_of(expiry: object, now: int) -> float:
    """
    Return in how many seconds a session ends, by its ``_session_expiry``: a number of seconds, a
    date, or the text of a date. Django's get_expiry_age() returns the same, but for a date of a
    site that has changed USE_TZ since: Django fails.
    """
    if isinstance(expiry, str):
        expiry = datetime.fromisoformat(expiry)
    if isinstance(expiry, datetime):
        if timezone.is_aware(expiry) != settings.USE_TZ:  # the site has changed USE_TZ since
            expiry = as_datetime(as_milliseconds(expiry))
        left = expiry - as_datetime(now)
        return left.days * 24 * 60 * 60 + left.seconds
    return expiry  # type: ignore[return-value]


def ends_at(facts: Facts, active_at: int, expiry: object, cookie_age: int) -> int:
    """
    Return when a session ends that was last active then, at the latest. Its own expiry,
    ``_session_expiry`` or else an age of ``cookie_age`` seconds, may end it earlier.
    """
    ends = _longest(facts, active_at, expiry, cookie_age)
    idle = facts.policy.get("idle")
    # A session that waits for room is locked already, and ends when it is idle.
    if idle is not None and (facts.pending is not None or not facts.policy.get("lock")):
        ends = min(ends, active_at + 1000 * idle)
    if facts.pending is not None:
        ends = min(ends, active_at + TIME_TO_CHOOSE)
    return ends


def is_over(facts: Facts, touched_at: int, now: int, expiry: object, cookie_age: int) -> bool:
    """Tell whether a session has ended by now that was last active then. See ends_at()."""
    return ends_at(facts, touched_at, expiry, cookie_age) <= now


def lock_at(facts: Facts, touched_at: int, now: int) -> Lock | None:
    """Return what the session is locked for, as far as time alone can tell."""
    if facts.pending is not None:
        return Lock.LIMIT
    if facts.policy.get("lock") and touched_at + 1000 * facts.policy["idle"] <= now:
        return Lock.IDLE
    return None


def time_left(facts: Facts, active_at: int, now: int, expiry: object, cookie_age: int) -> TimeLeft:
    """Return for how much longer a session goes on that was last active then."""
    ends = _longest(facts, active_at, expiry, cookie_age)
    age: float | None = None
    if isinstance(expiry, (str, datetime)):  # no activity moves a date
        ends = min(ends, now + int(1000 * age_of(expiry, now)))
    else:
        age = age_of(expiry, now) if expiry else default_age(facts, cookie_age)
    idle = facts.policy.get("idle")
    is_idle = idle is not None and (age is None or idle <= age)
    age = idle if is_idle else age
    return TimeLeft(
        expires_in=None if ends >= END_OF_TIME else max(0, ends - now) / 1000,
        idle_in=None if age is None else max(0.0, active_at + 1000 * age - now) / 1000,
        idle_after=age,
        is_idle=is_idle,
        locks=is_idle and bool(facts.policy.get("lock")),
        every=touch_interval(facts, expiry, cookie_age) / 1000,
    )


def touch_interval(facts: Facts, expiry: object, cookie_age: int) -> float:
    """
    Return how many milliseconds lie between two writes of activity, for a session with this
    ``_session_expiry``, or else an age of ``cookie_age`` seconds.
    """
    is_own = expiry and isinstance(expiry, (int, float))
    age: float = cast("float", expiry) if is_own else default_age(facts, cookie_age)
    age = min(age, facts.policy.get("idle", age))
    return min(1000.0 * conf.SESSIONKIT_TOUCH_INTERVAL, 1000.0 * age / SHARE)


def _longest(facts: Facts, active_at: int, expiry: object, cookie_age: int) -> int:
    """Return when a session ends, however active its user is: its longest lifetime."""
    ends = END_OF_TIME if facts.deadline is None else facts.deadline
    if facts.policy.get("extendable"):
        ends = max(ends, min(END_OF_TIME, _asked_for(facts, active_at, expiry, cookie_age)))
    return ends


def _asked_for(facts: Facts, active_at: int, expiry: object, cookie_age: int) -> int:
    """Return the end of the age that the site has asked for, or the date."""
    if isinstance(expiry, (str, datetime)):  # in whole seconds, so one more
        return active_at + 1000 * (int(age_of(expiry, active_at)) + 1)
    return facts.began_at + int(1000 * (age_of(expiry, active_at) if expiry else cookie_age))
