"""
A sign-in: the row that it opens in the registry, with what is written of the session then, and
whether the session counts towards the limit of its user.
"""

from typing import cast

from django.contrib.auth import BACKEND_SESSION_KEY
from django.http import HttpRequest

from django_sessionkit import clock, registry
from django_sessionkit.accounts import actor_in, policy_of, user_of
from django_sessionkit.backends.facts import Facts
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.merging import Merging
from django_sessionkit.backends.plans import Plan
from django_sessionkit.backends.records import Data
from django_sessionkit.exceptions import TooManySessions
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.policy import Policy
from django_sessionkit.visit.browsers import browser_of
from django_sessionkit.visit.current import current_request, visit_of
from django_sessionkit.visit.interruptions import Locked, OverLimit


class SigningIn(Merging):
    def _open_row(self, user: str, data: Data, digest: str) -> Flow[tuple[Facts, Plan]]:
        """Return what is to be written of a session that has just been signed in."""
        lock = self.interruption if isinstance(self.interruption, Locked) else None
        policy = yield from self._policy_of(user)
        activity, actor, before = self._activity(), actor_in(data), self._flushed
        now = activity.now
        visit = visit_of(self) if self.client is not None and actor is None else None
        app, parent = (visit.app, visit.parent) if visit is not None else (None, None)
        if parent is not None:
            facts = parent.facts.handed_over(policy, self.client, now)
        elif before is not None and actor is not None:
            facts = before.passed_on(user, True, now)
        elif before is not None and before.actor == user:
            facts = before.passed_on(user, False, now).under(policy, self.client)
        else:
            keeps_key = app is not None and not app.takes_new_keys
            facts = Facts(user=user, actor=actor, by_header=app is not None, keeps_key=keeps_key)
            facts = facts.proved(policy, self.client, now)
        self._is_entered = actor is None
        self._decides_later = self._decides_later and actor is None and parent is None
        plan = activity.plan(facts, data.get("_session_expiry"))
        counts = actor is None and not self._decides_later and parent is None
        row = user, digest, now, plan.lifetime, self.client, policy, counts
        request = cast("HttpRequest", current_request.get())
        browser = parent.browser if parent else visit and (visit.browser or browser_of(request))
        remembered = app is not None or not self.get_expire_at_browser_close()
        how = str(data.get(BACKEND_SESSION_KEY, ""))[:255], remembered
        try:
            proved = facts.authenticated_at, actor is not None
            where = browser, lock and lock.handle, app, parent
            entered = yield registry.enter, *row, *proved, *how, *where
        except TooManySessions as refusal:
            self._interrupted_by(OverLimit(refusal.args[0]))
            raise
        handle, is_in, novelty = entered
        facts = facts._replace(handle=handle)
        if visit is not None and parent is None:
            visit.browser = browser
        self._to_announce = (handle, novelty) if actor is None else None
        if lock is not None:
            # Its user, or somebody else, has signed in instead of unlocking it.
            yield UserSession.objects.filter(pk=lock.handle).revoke, EndReason.LOGOUT
            self._unlocked()
        if counts and not is_in:
            return (yield from self._wait_for_room(facts, data, digest, policy))
        return with_row(facts, plan)

    def _wait_for_room(
        self, facts: Facts, data: Data, digest: str, policy: Policy
    ) -> Flow[tuple[Facts, Plan]]:
        facts, activity = facts._replace(pending=policy.limit), self._activity()
        self._has_to_wait = True
        plan = activity.plan(facts, data.get("_session_expiry"))
        yield registry.touch, facts.handle, [digest], activity.now, plan.lifetime, None
        return with_row(facts, plan)

    def _is_to_be_decided(self, facts: Facts, data: Data) -> bool:
        """Tell whether somebody has noted, since this request has opened the row, that they act as
        its user, or whether the session does not count yet, because somebody may note that."""
        if not self._is_entered:
            return False
        return self._decides_later or (facts.actor is None and actor_in(data) is not None)

    def _decide(self, facts: Facts, data: Data, digest: str) -> Flow[tuple[Facts, Plan]]:
        """Decide what was open until it was known whether somebody acts as the user."""
        actor, handle, user = actor_in(data), facts.handle, cast("str", facts.user)
        if actor is None:
            policy = yield from self._policy_of(user)
            try:
                is_in = yield registry.enter_late, handle, user, policy
            except TooManySessions as refusal:
                self._interrupted_by(OverLimit(refusal.args[0]))
                raise
            self._decides_later = False
            if not is_in:
                return (yield from self._wait_for_room(facts, data, digest, policy))
            return facts, self._activity().plan(facts, data.get("_session_expiry"))
        facts, activity = facts._replace(actor=actor), self._activity()
        self._to_announce = None
        if self._flushed is not None:
            facts = self._flushed.passed_on(user, True, activity.now)._replace(handle=handle)
        plan = activity.plan(facts, data.get("_session_expiry"))
        yield registry.enter_support, handle, facts.authenticated_at, plan.lifetime
        self._decides_later = False
        return with_row(facts, plan)

    def _take_row_back(self, facts: Facts) -> Flow[None]:
        """Delete the row of a sign-in whose session was not written."""
        if facts.handle and facts.handle != self._facts.handle:
            yield registry.take_back, facts.handle

    def _announce(self) -> Flow[None]:
        """Say that somebody has signed in, once their session is stored, and not before it is
        decided whether it was staff who act as the user."""
        known = self._to_announce
        if known and known[0] == self._facts.handle and not self._decides_later:
            self._to_announce = None
            yield registry.announce, *known

    def _authenticated(self, facts: Facts) -> Flow[Facts]:
        """Return the facts after a new proof of identity that is as good as signing in."""
        policy = yield from self._policy_of(cast("str", facts.person))
        return facts.proved(policy, self.client, clock.now())

    def _policy_of(self, user: str) -> Flow[Policy]:
        person = self.signing_in
        if person is None or person._meta.pk.value_to_string(person) != user:
            person = yield user_of, user
        if person is None:
            return Policy()
        policy: Policy = yield policy_of, person, current_request.get()
        return policy


def with_row(facts: Facts, plan: Plan) -> tuple[Facts, Plan]:
    """Return what to write of a session whose row has just been written."""
    expires_at = plan.lifetime.expires_at
    facts = facts._replace(row_expires_at=expires_at)
    return facts, plan._replace(row_is_behind=False, without_row=expires_at)
