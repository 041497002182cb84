"""
The facts of a session: what the kit keeps of it beside the dictionary, where no view can write (who
signed in, when, under which policy), and what becomes of them with a new key, a proof of identity,
another policy. Pure: no store, no request, no clock. Moments are milliseconds since the epoch.
"""

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple, Self, cast

from django_sessionkit.accounts import UNKNOWN
from django_sessionkit.backends.binding import traits
from django_sessionkit.conf import conf
from django_sessionkit.policy import Policy
from django_sessionkit.visit.client import Client

# How long the former key of a session is recognised once its new key was seen, in milliseconds.
RECOGNISED = 24 * 60 * 60 * 1000
# What a former key keeps of the policy.
ON_REUSE = ("renew_grace", "on_reuse")


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
        bound, known = traits(policy.bind, client), self.bound or {}
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
            bound=traits(policy.bind, client) if policy.bind else None,
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

    def rebound(self, client: Client | None) -> Self:
        """Return the facts of a session that is bound to this client alone, known or not."""
        return self if self.bound is None else self._replace(bound=traits(self.bound, client))


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
