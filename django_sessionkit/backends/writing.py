"""One write of a session, and of its row in the registry, which is kept true to the session."""

from contextlib import AbstractContextManager, nullcontext
from typing import cast

from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import CreateError

from django_sessionkit import clock, registry
from django_sessionkit.accounts import policy_of, user_of
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.loading import Loading
from django_sessionkit.backends.records import NO_FACTS, Data, Found, Record
from django_sessionkit.clock import Lifetime
from django_sessionkit.exceptions import TooManySessions
from django_sessionkit.facts import Activity, Facts
from django_sessionkit.interruptions import Locked, Missing, OverLimit
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.policy import Policy
from django_sessionkit.sealing import SessionKey
from django_sessionkit.visit.current import current_request

# Where django-hijack and django-loginas note that staff act as somebody else.
IMPERSONATION = ("hijack_history", "loginas_from_session")


class Writing(Loading):
    def _insert(self, key: SessionKey, data: Data) -> Flow[None]:
        facts = NO_FACTS
        activity = self._activity(None)
        try:
            with self._transaction(facts, data, activity):
                facts, lifetime = yield from self._keep_row_true(facts, data, key.digest, activity)
                payload = self._sealed(facts, data, key)
                now, expires_at = activity.now, lifetime.expires_at
                if not (yield self.insert, key.digest, payload, now, expires_at):
                    raise CreateError
                yield from self._check_not_revoked(facts, key.digest)
        except Exception:
            yield from self._take_row_back(facts)
            raise
        self._is_now_stored(key, payload, facts, data)

    def _write(self, record: Record, new_key: SessionKey, facts: Facts) -> Flow[None]:
        """
        Write the dictionary and ``facts`` in the place of ``record``, under this key or a new one.
        What other requests have written since is merged.
        """
        data, key, moving = self._session_cache, record.key, record.key != new_key
        before = record.facts
        moves_row = moving and before.handle is not None and before.user == data.get(SESSION_KEY)
        activity = self._activity(record.touched_at)
        try:
            with self._transaction(facts, data, activity, moving):
                if moves_row:
                    # Before the key moves: a parallel request that finds the old key gone looks for
                    # the row by the old digest, and would close it as lost.
                    key = yield from self._move_row(key, new_key.digest, facts, data, activity)
                while True:
                    facts, lifetime = yield from self._keep_row_true(
                        facts, data, new_key.digest, activity, moving
                    )
                    payload = self._sealed(facts, data, new_key)
                    expires_at, expected = lifetime.expires_at, record.version
                    if moving:
                        at = activity.at(facts, moving), expires_at, expected
                        done = yield self.move, key.digest, new_key.digest, payload, *at
                    else:
                        keeps = activity.keeps_expiry(data.get("_session_expiry"))
                        until = None if keeps else expires_at
                        done = yield self.replace, key.digest, payload, until, expected
                    if done:
                        break
                    record, facts, data = yield from self._merged(key, record, facts, data)
                    key, activity = record.key, self._activity(activity.stored_at)
                    if not moving:
                        new_key = key
                if moves_row or facts.handle != before.handle:
                    yield from self._check_not_revoked(facts, new_key.digest)
        except Exception:
            yield from self._take_row_back(facts)
            if moves_row:  # a store that failed, a value that cannot be stored
                now = self._activity(activity.stored_at)
                lifetime = now.lifetime(before, data.get("_session_expiry"), moving)
                back = [new_key.digest], key.digest, now.at(before, moving), lifetime
                yield registry.rekey, before.handle, *back, before.authenticated_at
            raise
        self._is_now_stored(new_key, payload, facts, data)

    def _transaction(
        self, facts: Facts, data: Data, activity: Activity, moving: bool = False
    ) -> AbstractContextManager[object]:
        """One statement needs no transaction. Where the row is written too, there are two."""
        user = data.get(SESSION_KEY)
        if user == facts.user and (
            user is None
            or not (moving or activity.row_is_behind(facts, data.get("_session_expiry")))
        ):
            return nullcontext()
        return self.atomic()

    # Its row.

    def _keep_row_true(
        self, facts: Facts, data: Data, digest: str, activity: Activity, moving: bool = False
    ) -> Flow[tuple[Facts, Lifetime]]:
        """
        Keep the registry true to the dictionary that is about to be written. Return the facts to
        write with it, and until when the session lives. Here, and not in a receiver: every way to
        sign in ends in a save.
        """
        user, expiry = data.get(SESSION_KEY), data.get("_session_expiry")
        if user == facts.user:
            lifetime = activity.lifetime(facts, expiry, moving)
            if facts.handle and activity.row_is_behind(facts, expiry):
                if not moving:
                    client = None if self.background else self.client
                    at = facts.may_have(digest), activity.now, lifetime, client
                    yield registry.touch, facts.handle, *at
                facts = facts._replace(row_expires_at=lifetime.expires_at)
            return facts, lifetime
        if facts.handle:
            reason = EndReason.LOGOUT if user is None else EndReason.REPLACED
            yield registry.mark_ended, facts.handle, reason
        if user is None:
            return NO_FACTS, activity.lifetime(NO_FACTS, expiry, moving)
        if self._flushed:
            # By login(), which flushes the session of another user. Not a logout after all.
            yield registry.call_replaced, self._flushed
        return (yield from self._open_row(user, data, digest))

    def _open_row(self, user: str, data: Data, digest: str) -> Flow[tuple[Facts, Lifetime]]:
        """Return the facts and the lifetime of a session that has just been signed in."""
        if isinstance(self.interruption, Locked):
            # Its user, or somebody else, has signed in instead of unlocking it.
            locked = UserSession.objects.filter(pk=self.interruption.handle)
            yield locked.revoke, EndReason.LOGOUT
            self._unlocked()
        policy = yield from self._policy_of(user)
        activity, expiry = self._activity(None), data.get("_session_expiry")
        now = activity.now
        facts = Facts(user=user).proved(policy, self.client, now)
        lifetime = activity.lifetime(facts, expiry)
        counts = not any(data.get(name) for name in IMPERSONATION)
        row = user, digest, now, lifetime, self.client, policy, counts
        try:
            handle, is_in = yield registry.enter, *row
        except TooManySessions as refusal:
            self._interrupted_by(OverLimit(refusal.args[0]))
            raise
        facts = facts._replace(handle=handle)
        if counts and not is_in:
            facts = facts._replace(pending=policy.limit)
            lifetime = activity.lifetime(facts, expiry)
            yield registry.touch, handle, [digest], now, lifetime, None
        return facts._replace(row_expires_at=lifetime.expires_at), lifetime

    def _move_row(
        self, key: SessionKey, new: str, facts: Facts, data: Data, activity: Activity
    ) -> Flow[SessionKey]:
        """Have the row follow to a new key; return the key that the session has until then."""
        at = activity.at(facts, moving=True)
        lifetime = activity.lifetime(facts, data.get("_session_expiry"), moving=True)
        now = new, at, lifetime, facts.authenticated_at
        while not (yield registry.rekey, facts.handle, facts.may_have(key.digest), *now):
            found = yield from self._resolve(key)
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

    # Its user.

    def _authenticated(self, facts: Facts) -> Flow[Facts]:
        """Return the facts after a new proof of identity that is as good as signing in."""
        policy = yield from self._policy_of(cast("str", facts.user))
        return facts.proved(policy, self.client, clock.now())

    def _policy_of(self, user: str) -> Flow[Policy]:
        person = self.signing_in
        if person is None or person._meta.pk.value_to_string(person) != user:
            person = yield user_of, user
        if person is None:
            return Policy()
        policy: Policy = yield policy_of, person, current_request.get()
        return policy
