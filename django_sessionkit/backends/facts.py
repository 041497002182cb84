"""
The facts of a session: what the kit keeps of it beside the dictionary, where no view can write (who
signed in, when, under which policy), and the arithmetic on them: when the session expires, locks,
gets a new key. Pure: no store, no request, no clock. Moments are milliseconds since the epoch.
"""

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, Self, cast

from django_sessionkit.accounts import UNKNOWN
from django_sessionkit.clock import Lifetime, as_datetime
from django_sessionkit.conf import conf
from django_sessionkit.policy import Policy
from django_sessionkit.visit.client import Client
from django_sessionkit.visit.devices import device_of
from django_sessionkit.visit.interruptions import Lock

# The last moment that a date can be.
END_OF_TIME = 253_402_214_400_000
# How long somebody has to make room for a sign-in that is over the limit, in milliseconds.
TIME_TO_CHOOSE = 15 * 60 * 1000
# How long the former key of a session is recognised once its new key was seen, in milliseconds.
RECOGNISED = 24 * 60 * 60 * 1000
# The activity of a short session is written this many times in its life without activity, so that
# use keeps the session alive.
SHARE = 10
# The row of a session can wait for its activity as long as the last flush is not longer ago than so
# many writes of activity take: see Facts.can_wait().
PATIENCE = 3
# What facts know of a browser or system that was known and then did not say what it is.
HIDDEN = "?"
# What has changed, if a session has its first address of IPv4 or of IPv6.
FAMILY = "address family"
# What a former key keeps of the policy.
ON_REUSE = ("renew_grace", "on_reuse")


class TimeLeft(NamedTuple):
    """For how much longer a session goes on, in seconds."""

    expires_in: float | None  # at most, however active its user is. None: for good
    idle_in: float | None  # without activity. None: activity makes no difference
    idle_after: float | None  # that time from its beginning, with the last activity
    is_idle: bool  # by Policy.idle, and not by the age of the session's cookie
    locks: bool  # the session is locked then, and does not end
    every: float  # between two writes of activity


class Facts(NamedTuple):
    """
    A visitor who is not signed in has none of these: ``Facts()``. None and an empty policy mean
    that there is no such fact.

    What is stored is the list of the values in this order, so a new fact goes to the end, before
    ``unknown``, and no fact ever changes its place.
    """

    handle: str | None = None  # of the row, as 32 hexadecimal digits
    user: str | None = None  # the primary key of the user, as text
    authenticated_at: int = 0  # when the user last proved who they are
    # The expiry in the session's row, which may be one touch interval behind the store's.
    row_expires_at: int = 0
    policy: Mapping[str, Any] = {}  # what Policy.facts() keeps
    deadline: int | None = None  # the end of the longest lifetime, by Policy.absolute
    keyed_at: int | None = None  # when the key was issued, by Policy.renew_after
    seen: int | None = None  # when that key was first used
    previous: str | None = None  # the digest of the key before, until this one is seen
    bound: Mapping[str, str] | None = None  # what is known of the client, by Policy.bind
    pending: int | None = None  # the limit, while the session waits for room
    successor: str | None = None  # under a former key only: the salt that leads to the next key
    # The primary key of whoever acts as the user, as text, or accounts.UNKNOWN.
    actor: str | None = None
    by_header: bool = False  # the key travels in headers, not in a cookie
    keeps_key: bool = False  # the key does not change by itself: an app has declined that
    parent: str | None = None  # the handle of the app's session that has opened this one
    # What the row says of the client, as known_of() has it: activity can wait to be written
    # into the row only where nothing else is to be written.
    client: str | None = None
    # What a later version has stored: kept as it is, for a session outlives the way back.
    unknown: tuple[Any, ...] = ()

    @classmethod
    def of(cls, stored: list[Any]) -> Self:
        """Return the facts of a list that as_stored() has returned, here or in another version."""
        if len(stored) > KNOWN:
            return cls._make([*stored[:KNOWN], tuple(stored[KNOWN:])])
        return cls(*stored)

    def as_stored(self) -> list[Any]:
        """Return what JSON can say: the values, without the last ones that say nothing."""
        stored = [*self[:KNOWN], *self.unknown]
        while len(stored) <= KNOWN and stored and not stored[-1]:
            stored.pop()
        return stored

    @property
    def row(self) -> uuid.UUID:
        """The handle of a session that is signed in, as the primary key of its row."""
        return uuid.UUID(self.handle)

    @property
    def person(self) -> str | None:
        """The primary key of whoever is behind the session: its user, or who acts as the user."""
        return self.user if self.actor in (None, UNKNOWN) else self.actor

    def merged(self, base: Self, theirs: Self) -> Self:
        """Return ``theirs`` with what these facts have changed since ``base``."""
        facts = zip(self, base, theirs, strict=True)
        return type(self)._make([other if own == was else own for own, was, other in facts])

    # Expiry and lock.

    def age(self, cookie_age: int) -> int:
        """
        Return the age, in seconds, of a session that has none of its own by set_expiry():
        ``cookie_age``, or what the site has set for visitors, if that is less.
        """
        of_visitors = conf.SESSIONKIT_VISITOR_AGE
        if of_visitors is None or self.user is not None or self.handle is not None:
            return cookie_age
        return min(cookie_age, of_visitors)

    def ends_at(self, active_at: int, expiry: object, cookie_age: int) -> int:
        """
        Return when a session ends that was last active then, at the latest. Its own expiry,
        ``_session_expiry`` or else an age of ``cookie_age`` seconds, may end it earlier.
        """
        ends = self._longest(active_at, expiry, cookie_age)
        idle = self.policy.get("idle")
        # A session that waits for room is locked already, and ends when it is idle.
        if idle is not None and (self.pending is not None or not self.policy.get("lock")):
            ends = min(ends, active_at + 1000 * idle)
        if self.pending is not None:
            ends = min(ends, active_at + TIME_TO_CHOOSE)
        return ends

    def time_left(self, active_at: int, now: int, expiry: object, cookie_age: int) -> TimeLeft:
        """Return for how much longer a session goes on that was last active then."""
        ends = self._longest(active_at, expiry, cookie_age)
        age: float | None = None
        if isinstance(expiry, (str, datetime)):  # no activity moves a date
            ends = min(ends, now + int(1000 * age_of(expiry, now)))
        else:
            age = age_of(expiry, now) if expiry else self.age(cookie_age)
        idle = self.policy.get("idle")
        is_idle = idle is not None and (age is None or idle <= age)
        age = idle if is_idle else age
        return TimeLeft(
            expires_in=None if ends >= END_OF_TIME else max(0, ends - now) / 1000,
            idle_in=None if age is None else max(0.0, active_at + 1000 * age - now) / 1000,
            idle_after=age,
            is_idle=is_idle,
            locks=is_idle and bool(self.policy.get("lock")),
            every=self.touch_interval(expiry, cookie_age) / 1000,
        )

    def _longest(self, active_at: int, expiry: object, cookie_age: int) -> int:
        """Return when a session ends, however active its user is: its longest lifetime."""
        ends = END_OF_TIME if self.deadline is None else self.deadline
        if self.policy.get("extendable"):
            ends = max(ends, min(END_OF_TIME, self._asked_for(active_at, expiry, cookie_age)))
        return ends

    def _asked_for(self, active_at: int, expiry: object, cookie_age: int) -> int:
        """Return the end of the age that the site has asked for, or the date."""
        if isinstance(expiry, (str, datetime)):  # in whole seconds, so one more
            return active_at + 1000 * (int(age_of(expiry, active_at)) + 1)
        return self.began_at + int(1000 * (age_of(expiry, active_at) if expiry else cookie_age))

    def lock_at(self, touched_at: int, now: int) -> Lock | None:
        """Return what the session is locked for, as far as time alone can tell."""
        if self.pending is not None:
            return Lock.LIMIT
        if self.policy.get("lock") and touched_at + 1000 * self.policy["idle"] <= now:
            return Lock.IDLE
        return None

    def is_over(self, touched_at: int, now: int, expiry: object, cookie_age: int) -> bool:
        """Tell whether a session has ended by now that was last active then. See ends_at()."""
        return self.ends_at(touched_at, expiry, cookie_age) <= now

    def touch_interval(self, expiry: object, cookie_age: int) -> float:
        """
        Return how many milliseconds lie between two writes of activity, for a session with this
        ``_session_expiry``, or else an age of ``cookie_age`` seconds.
        """
        is_own = expiry and isinstance(expiry, (int, float))
        age: float = cast("float", expiry) if is_own else self.age(cookie_age)
        age = min(age, self.policy.get("idle", age))
        return min(1000.0 * conf.SESSIONKIT_TOUCH_INTERVAL, 1000.0 * age / SHARE)

    def can_wait(
        self, touched_at: int, flushed_at: int, now: int, expiry: object, cookie_age: int
    ) -> bool:
        """
        Tell whether the row can wait for the activity of a request. A session whose activity is
        flushed now and then never looks expired by its row, and one that is used at least once in
        two intervals does not either if there is no flush any more.

        The row has every activity until ``flushed_at``. What comes within PATIENCE intervals after
        that may wait, and two intervals later the row is written. So whoever may wait has to have
        more time left than that.
        """
        interval = self.touch_interval(expiry, cookie_age)
        # Moments that are ahead: the clock of another server, a little. Of a clock that was put
        # back, the row is to know at once.
        if not -interval < now - flushed_at < PATIENCE * interval or touched_at > now:
            return False
        # Such sessions are few, and the registry is asked more of them, or is about to change.
        if self.previous or self.pending is not None or self.actor or self.parent:
            return False
        if self.wants_new_key(now):
            return False
        left = self.time_left(touched_at, now, expiry, cookie_age).idle_in
        return left is None or 1000 * left > (PATIENCE + 2) * interval

    # The session key.

    def may_have(self, digest: str) -> list[str]:
        """Return the digests that the row may have: a renewal writes the store first."""
        return [digest] if self.previous is None else [digest, self.previous]

    def wants_new_key(self, now: int) -> bool:
        """Tell whether Policy.renew_after is over, by a clock that may have been put back."""
        after = self.policy.get("renew_after")
        if after is None or self.keyed_at is None or self.keeps_key:
            return False
        return bool(abs(now - self.keyed_at) >= 1000 * after)

    def rekeyed(self, old: str, now: int) -> Self:
        """Return the facts under a key that has just taken the place of the ``old`` digest's."""
        return self._replace(keyed_at=now, previous=old, seen=None)

    def left_behind(self, salt: str) -> Self:
        """Return what stays under this key when another one takes its place: no more than it takes
        to follow the salt to the next key, and to notice a use that is too late."""
        policy = {name: self.policy[name] for name in ON_REUSE if name in self.policy}
        at = self.authenticated_at
        return type(self)(self.handle, None, at, policy=policy, seen=self.seen, successor=salt)

    def is_late(self, seen: int, now: int) -> bool:
        """
        Tell whether the grace of this former key is over. Its successor was first used at the
        moment ``seen``. A moment that is ahead is long ago, by a clock that was put back: nobody
        knows then for how much longer the key was good. A little ahead is another server's clock.
        """
        grace = 1000 * Policy.of(self.policy).renew_grace
        ahead = max(grace, 1000 * conf.SESSIONKIT_TOUCH_INTERVAL)
        return now - seen >= grace or seen - now >= ahead

    def arrived(self, now: int) -> Self:
        """Return the facts after the visitor has used the new key for the first time."""
        return self._replace(previous=None, seen=now)

    # The policy, the proof of identity, and what the session is bound to.

    @property
    def began_at(self) -> int:
        """When the longest lifetime began. To open a locked session does not begin it anew."""
        absolute = self.policy.get("absolute")
        if self.deadline is None or absolute is None:
            return self.authenticated_at
        return self.deadline - 1000 * int(absolute)

    def under(self, policy: Policy, client: Client | None) -> Self:
        """
        Return the facts of a session that has another policy from now on. That proves nothing: the
        longest lifetime goes on, and what the session is bound to stays.
        """
        bound, known = _traits(policy.bind, client), self.bound or {}
        return self._replace(
            policy=policy.facts(),
            deadline=None if policy.absolute is None else self.began_at + 1000 * policy.absolute,
            bound={name: known.get(name) or bound[name] for name in bound} or None,
        )

    def proved(self, policy: Policy, client: Client | None, now: int) -> Self:
        """Return the facts after a proof of identity that is as good as signing in."""
        return self._replace(
            authenticated_at=now,
            policy=policy.facts(),
            deadline=None if policy.absolute is None else now + 1000 * policy.absolute,
            keyed_at=None if policy.renew_after is None else now,
            bound=_traits(policy.bind, client) if policy.bind else None,
        )

    def passed_on(self, user: str, acting: bool, now: int) -> Self:
        """
        Return the facts of the session that follows this one because whoever is behind it begins or
        stops acting as another user. That proves nothing: the proof of identity stays the one that
        there was, with its policy and its longest lifetime.
        """
        return type(self)(
            user=user,
            authenticated_at=self.authenticated_at,
            policy=self.policy,
            deadline=self.deadline,
            keyed_at=None if self.keyed_at is None else now,
            bound=self.bound,
            actor=self.person if acting else None,
            by_header=self.by_header,
            keeps_key=self.keeps_key,
        )

    def handed_over(self, policy: Policy, client: Client | None, now: int) -> Self:
        """
        Return the facts of the session that this one, of an app, opens in a web view. That proves
        nothing either. The web view has a key of its own, and may be another browser. Its session
        ends no later than this one.
        """
        facts = self.passed_on(cast("str", self.user), False, now).under(policy, client)
        deadlines = [at for at in (self.deadline, facts.deadline) if at is not None]
        return facts.rebound(client)._replace(
            deadline=min(deadlines, default=None),
            keyed_at=None if policy.renew_after is None else now,
            by_header=False,
            keeps_key=False,
            parent=self.handle,
        )

    def with_clock_set(self, now: int, tolerance: int) -> Self:
        """
        Return the facts for a clock that was put back: it must make neither the session longer nor
        the time for which the key before this one is good.
        """
        facts = self
        if self.seen is not None and self.seen - now > tolerance:
            facts = facts._replace(seen=now)
        ahead = self.authenticated_at - now
        if ahead <= tolerance:
            return facts
        deadline = None if self.deadline is None else self.deadline - ahead
        return facts._replace(authenticated_at=now, deadline=deadline)

    def changed(self, client: Client | None) -> list[str]:
        """
        Return what has changed of the browser, system and network to which the session is bound.
        What was not known then has not changed, and neither has a network that is not known now.
        FAMILY stands for the first network of another address family.
        """
        if client is None:
            return []
        then = self.bound or {}
        now = _traits(then, client)
        changes = [_change(name, then[name], now[name]) for name in now]
        return [change for change in changes if change]

    def bound_to(self, client: Client | None) -> Self:
        """Return the facts of a session that is bound to what is known of this client."""
        if self.bound is None or client is None:
            return self
        now = _traits(self.bound, client)
        known = {name: _known(name, self.bound[name], now[name]) for name in now}
        bound = {**self.bound, **known}
        return self if bound == self.bound else self._replace(bound=bound)

    def rebound(self, client: Client | None) -> Self:
        """Return the facts of a session that is bound to this client alone, known or not."""
        return self if self.bound is None else self._replace(bound=_traits(self.bound, client))


KNOWN = len(Facts._fields) - 1


def known_of(client: Client, before: str | None) -> str:
    """
    Return the fact ``client`` of a session whose row says what is known of this client. It is the
    same as ``before`` if the row says so already. See registry.touch() for the client hints.
    """
    looks = _hash(f"{client.recorded_address}\n{client.user_agent}")
    if client.has_all_hints:
        return looks + _hash(client.hints)
    return before if before is not None and before.startswith(looks) else looks


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:10]


def _traits(names: Iterable[str], client: Client | None) -> dict[str, str]:
    """
    Return what is known of the client under these names of Policy.bind, or else "". A name that a
    later version has stored is left out.
    """
    if client is None:
        return dict.fromkeys(names, "")
    device = device_of(client.user_agent)
    known = {"browser": device.browser, "system": device.system, "network": client.network}
    return {name: known[name] for name in names if name in known}


def _change(name: str, then: str, now: str) -> str:
    """Return what has changed of a trait: nothing, its name, or FAMILY."""
    if not then or (name == "network" and not now):
        return ""
    if name != "network":
        return "" if then == (now or HIDDEN) else name
    known = _by_family(then).get(":" in now)
    if known is None:
        return FAMILY
    return "" if known == now else name


def _known(name: str, then: str, now: str) -> str:
    """Return what is known of a trait after a request."""
    if name == "network":
        return " ".join((_by_family(then) | {":" in now: now}).values()) if now else then
    return now or (HIDDEN if then else "")


def _by_family(networks: str) -> dict[bool, str]:
    """
    Return the networks of one trait by whether they are of IPv6. A browser with both kinds of
    address uses now this one, now that.
    """
    return {":" in network: network for network in networks.split()}


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
    cookie_age: int  # seconds: the age of a session that has none of its own, see Facts.age()
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
        is_still = is_still or facts.lock_at(self.stored_at, now) is not None
        if is_still and self.stored_at:
            active_at = min(self.stored_at, now)
        keeps_expiry = self.background and expiry == self.expiry

        # By its age, not by its date: without USE_TZ a date means two moments once a year.
        age = facts.age(self.cookie_age) if not expiry else age_of(expiry, now)
        # An age begins with the last activity. A date stays where it is.
        slides = not isinstance(expiry, (str, datetime))
        ends = (active_at if keeps_expiry and slides else now) + int(age * 1000)
        # After 1970: not every store takes a date before that.
        ends = min(ends, facts.ends_at(active_at, expiry, self.cookie_age))
        expires_at = max(1, ends)  # every store takes that
        idle = policy.get("idle")
        lifetime = Lifetime(expires_at, None if idle is None else active_at + 1000 * idle)

        is_behind = False
        # Less than an interval ago the row was written with the last activity.
        was_written = self.in_request and not self.due and self.stored_at > 0
        if not keeps_expiry and not (was_written and expiry == self.expiry):
            off = abs(expires_at - facts.row_expires_at)
            is_behind = off >= facts.touch_interval(expiry, self.cookie_age)

        without_row: int | None = expires_at
        has_row = facts.handle is not None
        if not moving and (keeps_expiry or (has_row and expiry == self.expiry)):
            without_row = None
        elif has_row:
            # The row may say later than these facts, which are as old as the last save.
            without_row = min(expires_at, facts.row_expires_at)
        return Plan(active_at, lifetime, keeps_expiry, is_behind, without_row)


def age_of(expiry: object, now: int) -> float:
    """
    Return in how many seconds a session ends, by its ``_session_expiry``: a number of seconds, a
    date, or the text of a date. Django's get_expiry_age() returns the same.
    """
    if isinstance(expiry, str):
        expiry = datetime.fromisoformat(expiry)
    if isinstance(expiry, datetime):
        left = expiry - as_datetime(now)
        return left.days * 24 * 60 * 60 + left.seconds
    return expiry  # type: ignore[return-value]
