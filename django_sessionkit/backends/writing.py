"""One write of a session, and of its row in the registry, which is kept true to the session."""

from contextlib import AbstractContextManager, nullcontext
from typing import cast

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import CreateError
from django.http import HttpRequest

from django_sessionkit import clock, registry
from django_sessionkit.accounts import actor_in, policy_of, user_in, user_of
from django_sessionkit.backends.facts import Facts
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.merging import Merging
from django_sessionkit.backends.plans import Plan
from django_sessionkit.backends.records import NO_FACTS, Data, Found, Record, sealed
from django_sessionkit.backends.sealing import SessionKey, version_of
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import TooManySessions
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.policy import Policy
from django_sessionkit.visit.browsers import browser_of
from django_sessionkit.visit.current import current_request, visit_of
from django_sessionkit.visit.interruptions import Locked, Missing, OverLimit

ONE_STATEMENT: AbstractContextManager[object] = nullcontext()


class Writing(Merging):
    def _insert(self, key: SessionKey, data: Data) -> Flow[None]:
        facts = NO_FACTS
        plan = self._activity().plan(facts, data.get("_session_expiry"))
        try:
            with self._transaction(facts, data, plan):
                facts, plan = yield from self._keep_row_true(facts, data, key.digest, plan)
                payload = sealed(facts, data, key, self.serializer)
                moments = plan.active_at, plan.lifetime.expires_at
                if not (yield self.insert, key.digest, payload, *moments):
                    raise CreateError
                yield from self._check_not_revoked(facts, key.digest)
        except Exception:
            yield from self._take_row_back(facts)
            raise
        self._is_now_stored(key, payload, facts, data)
        yield from self._note_transaction(facts.handle is not None)
        yield from self._announce()

    def _write(self, record: Record, new_key: SessionKey, facts: Facts) -> Flow[None]:
        """
        Write the dictionary and ``facts`` in the place of ``record``, under this key or a new one.
        What other requests have written since is merged.
        """
        data, key, moving = self._session_cache, record.key, record.key != new_key
        before = record.facts
        is_same_user = before.user == user_in(data, before.user)
        moves_row = moving and before.handle is not None and is_same_user
        touched_at = record.touched_at
        plan = self._activity(touched_at).plan(facts, data.get("_session_expiry"), moving)
        try:
            with self._transaction(facts, data, plan, moving):
                if moves_row:
                    # Before the key moves: a parallel request that finds the old key gone looks for
                    # the row by the old digest, and would close it as lost.
                    key = yield from self._move_row(key, new_key.digest, facts, plan)
                    facts, plan = _with_row(facts, plan)
                while True:
                    facts, plan = yield from self._keep_row_true(
                        facts, data, new_key.digest, plan, moving
                    )
                    payload = sealed(facts, data, new_key, self.serializer)
                    until, expected = plan.without_row, version_of(record.payload)
                    if moving:
                        to = new_key.digest, payload, plan.active_at, until, expected
                        done = yield self.move, key.digest, *to
                    else:
                        done = yield self.replace, key.digest, payload, until, expected
                    if done:
                        break
                    record, facts = yield from self._merged(key, record, facts)
                    data, key = self._session_cache, record.key
                    if not moving:
                        new_key = key
                    expiry = data.get("_session_expiry")
                    plan = self._activity(touched_at).plan(facts, expiry, moving)
                if moves_row or facts.handle != before.handle:
                    yield from self._check_not_revoked(facts, new_key.digest)
        except Exception as error:
            yield from self._take_row_back(facts)
            if self._decides_later and isinstance(error, TooManySessions):
                # create() has let the session in, until it could be decided.
                yield self.remove, [key.digest]
                yield registry.take_back, before.handle
                self._session_key = None
            if moves_row:  # a store that failed, a value that cannot be stored
                plan = self._activity(touched_at).plan(before, data.get("_session_expiry"), moving)
                back = [new_key.digest], key.digest, plan.active_at, plan.lifetime
                yield registry.rekey, before.handle, *back, before.authenticated_at
            raise
        self._is_now_stored(new_key, payload, facts, data)
        yield from self._note_transaction(moving or facts.handle != before.handle)
        yield from self._announce()

    def _transaction(
        self, facts: Facts, data: Data, plan: Plan, moving: bool = False
    ) -> AbstractContextManager[object]:
        """One statement needs no transaction. Where the row is written too, there are two."""
        user = user_in(data, facts.user)
        writes_row = moving or plan.row_is_behind or self._is_to_be_decided(facts, data)
        if user == facts.user and (user is None or not writes_row):
            return ONE_STATEMENT
        return self.atomic()

    # The row.

    def _keep_row_true(
        self, facts: Facts, data: Data, digest: str, plan: Plan, moving: bool = False
    ) -> Flow[tuple[Facts, Plan]]:
        """
        Keep the registry true to the dictionary that is about to be written. Return the facts to
        write with it, and what else to write. Here, and not in a receiver: every way to sign in
        ends in a save.
        """
        user = user_in(data, facts.user)
        if user == facts.user:
            if self._is_to_be_decided(facts, data):
                facts, plan = yield from self._decide(facts, data, digest)
            if facts.handle and plan.row_is_behind:
                client = None if self.background else self.client
                at = facts.may_have(digest), plan.active_at, plan.lifetime, client
                seen_at = 0
                if conf.SESSIONKIT_ACTIVITY == "buffered" and not (client or moving):
                    stored = yield self.read, digest
                    seen_at = stored.touched_at if stored else 0
                if (yield registry.touch, facts.handle, *at, seen_at):
                    facts, plan = _with_row(self._with_client(facts, client), plan)
            return facts, plan
        if facts.handle:
            reason = EndReason.LOGOUT if user is None else EndReason.REPLACED
            yield registry.mark_ended, facts.handle, reason
        if user is None:
            expiry = data.get("_session_expiry")
            return NO_FACTS, self._activity().plan(NO_FACTS, expiry, moving)
        if self._flushed:
            # By login(), which flushes the session of another user. Not a logout after all.
            yield registry.call_replaced, self._flushed.handle
        return (yield from self._open_row(user, data, digest))

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
        return _with_row(facts, plan)

    def _wait_for_room(
        self, facts: Facts, data: Data, digest: str, policy: Policy
    ) -> Flow[tuple[Facts, Plan]]:
        facts, activity = facts._replace(pending=policy.limit), self._activity()
        self._has_to_wait = True
        plan = activity.plan(facts, data.get("_session_expiry"))
        yield registry.touch, facts.handle, [digest], activity.now, plan.lifetime, None
        return _with_row(facts, plan)

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
        return _with_row(facts, plan)

    def _move_row(self, key: SessionKey, new: str, facts: Facts, plan: Plan) -> Flow[SessionKey]:
        """Have the row follow to a new key; return the key that the session has until then."""
        row = new, plan.active_at, plan.lifetime, facts.authenticated_at
        while not (yield registry.rekey, facts.handle, facts.may_have(key.digest), *row):
            found = yield from self._resolve(key, again=True)
            if not isinstance(found, Found) or found.record.key == key:
                raise self._ended(Missing(key.digest))
            key = found.record.key  # a parallel request has renewed it
        return key

    def _take_row_back(self, facts: Facts) -> Flow[None]:
        """Delete the row of a sign-in whose session was not written."""
        if facts.handle and facts.handle != self._facts.handle:
            yield registry.take_back, facts.handle

    def _check_not_revoked(self, facts: Facts, digest: str) -> Flow[None]:
        """
        Look whether a row that was written before its session is still alive. A revocation in
        between has not found the session, for that was not there yet.
        """
        if facts.handle and not (yield registry.is_open, facts.handle, digest):
            yield self.remove, [digest]
            raise self._ended(Missing(digest))

    def _note_transaction(self, matters: bool) -> Flow[None]:
        """Note whether a new key or a new row has been written that can be rolled back."""
        if matters:
            self._may_be_rolled_back = yield (registry.is_in_transaction,)

    def _announce(self) -> Flow[None]:
        """Say that somebody has signed in, once their session is stored, and not before it is
        decided whether it was staff who act as the user."""
        known = self._to_announce
        if known and known[0] == self._facts.handle and not self._decides_later:
            self._to_announce = None
            yield registry.announce, *known

    def _look_after_row(self) -> Flow[None]:
        """
        Look, after the view's transaction, whether that was rolled back. On a database, the session
        is as it was before the view, under its former key. Redis has kept what the view has
        written, but the row is gone, or has the digest of the former key: then nobody has signed
        in, or the row has to follow again.
        """
        record = cast("Record", self._record)
        facts, key = record.facts, record.key
        self._may_be_rolled_back = False
        digests = (yield registry.digests_of, facts.handle) if facts.handle else []
        if key.digest in digests:
            return
        if (yield self.read, key.digest) is None:
            self.is_rolled_back = True
            raise self._ended(Missing(key.digest))
        if digests:
            plan = self._activity().plan(facts, self._session_cache.get("_session_expiry"), True)
            row = digests, key.digest, plan.active_at, plan.lifetime, facts.authenticated_at
            yield registry.rekey, facts.handle, *row
        elif facts.handle:
            for name in (SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY):
                self._session_cache.pop(name, None)
            self._keep(NO_FACTS)
            yield from self._write(record._replace(facts=NO_FACTS), key, NO_FACTS)
            self.modified = True

    # The user.

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


def _with_row(facts: Facts, plan: Plan) -> tuple[Facts, Plan]:
    """Return what to write of a session whose row has just been written."""
    expires_at = plan.lifetime.expires_at
    facts = facts._replace(row_expires_at=expires_at)
    return facts, plan._replace(row_is_behind=False, without_row=expires_at)
