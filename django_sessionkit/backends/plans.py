"""
What one attempt to write a session writes, to the store and to the row, and which activity the row
can wait for. Pure: no store, no request, no clock. Moments are milliseconds since the epoch.
"""

from datetime import datetime
from typing import Any, NamedTuple

from django_sessionkit.backends import lifetimes
from django_sessionkit.backends.facts import Facts
from django_sessionkit.clock import Lifetime

# The row of a session can wait for its activity as long as the last flush is not longer ago than so
# many writes of activity take: see can_wait().
PATIENCE = 3


class Plan(NamedTuple):
    """
    What one attempt to write a session writes: to the store, and, where that is necessary, to the
    row. There is one lifetime, for both. The store never says later than the row.
    """

    active_at: int  # the moment that counts as the last activity
    lifetime: Lifetime
    # A background request does not slide the expiry in the store; set_expiry() in one does set it.
    keeps_expiry: bool
    # The row's expiry is a touch interval or more away from the store's. Lists and the purge rely
    # on the row, so it is then written too.
    row_is_behind: bool
    # The expiry in the store, where the row is not written. None: as it is.
    without_row: int | None


class Activity(NamedTuple):
    """What counts as activity at the moment of a write. Each attempt to write has its own."""

    now: int
    cookie_age: int  # seconds: the age of a session that has none of its own, see default_age()
    stored_at: int = 0  # when the last activity was, as it is stored; 0 is not known
    expiry: Any = None  # the _session_expiry of the dictionary, as it was read
    in_request: bool = False
    background: bool = False
    due: bool = False  # it is time to write the activity

    def plan(self, facts: Facts, expiry: object, moving: bool = False) -> Plan:
        """Return what to write of a session with this ``_session_expiry``."""
        # Activity is now, except for background requests, and for saves outside of a request where
        # a session is locked for idleness: the moment in the store locks it, and a save leaves that
        # alone, unless it gives the session a new key. Nor does a save open what was locked while
        # its request was under way.
        policy, now, active_at = facts.policy, self.now, self.now
        is_still = self.background or (not self.in_request and not moving and "lock" in policy)
        is_still = is_still or lifetimes.lock_at(facts, self.stored_at, now) is not None
        if is_still and self.stored_at:
            active_at = min(self.stored_at, now)
        keeps_expiry = self.background and expiry == self.expiry

        # By its age, not by its date: without USE_TZ a date means two moments once a year.
        if expiry:
            age = lifetimes.age_of(expiry, now)
        else:
            age = lifetimes.default_age(facts, self.cookie_age)
        # An age begins with the last activity. A date stays where it is.
        slides = not isinstance(expiry, (str, datetime))
        ends = (active_at if keeps_expiry and slides else now) + int(age * 1000)
        # After 1970: not every store takes a date before that.
        ends = min(ends, lifetimes.ends_at(facts, active_at, expiry, self.cookie_age))
        expires_at = max(1, ends)  # every store takes that
        idle = policy.get("idle")
        lifetime = Lifetime(expires_at, None if idle is None else active_at + 1000 * idle)

        is_behind = False
        # Less than an interval ago the row was written with the last activity.
        was_written = self.in_request and not self.due and self.stored_at > 0
        if not keeps_expiry and not (was_written and expiry == self.expiry):
            off = abs(expires_at - facts.row_expires_at)
            is_behind = off >= lifetimes.touch_interval(facts, expiry, self.cookie_age)

        without_row: int | None = expires_at
        has_row = facts.handle is not None
        if not moving and (keeps_expiry or (has_row and expiry == self.expiry)):
            without_row = None
        elif has_row:
            # The row may say later than these facts, which are as old as the last save.
            without_row = min(expires_at, facts.row_expires_at)
        return Plan(active_at, lifetime, keeps_expiry, is_behind, without_row)


def can_wait(
    facts: Facts, touched_at: int, flushed_at: int, now: int, expiry: object, cookie_age: int
) -> bool:
    """
    Tell whether the row can wait for the activity of a request. A session whose activity is flushed
    now and then never looks expired by its row, and one that is used at least once in two intervals
    does not either if there is no flush any more.

    The row has every activity until ``flushed_at``. What comes within PATIENCE intervals after that
    may wait, and two intervals later the row is written. So whoever may wait has to have more time
    left than that.
    """
    interval = lifetimes.touch_interval(facts, expiry, cookie_age)
    # Moments that are ahead: the clock of another server, a little. Of a clock that was put back,
    # the row is to know at once.
    if not -interval < now - flushed_at < PATIENCE * interval or touched_at > now:
        return False
    # Such sessions are few, and the registry is asked more of them, or is about to change.
    if facts.previous or facts.pending is not None or facts.actor or facts.parent:
        return False
    if facts.wants_new_key(now):
        return False
    left = lifetimes.time_left(facts, touched_at, now, expiry, cookie_age).idle_in
    return left is None or 1000 * left > (PATIENCE + 2) * interval
