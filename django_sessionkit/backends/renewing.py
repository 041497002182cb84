"""
A session key that changes by itself, at the end of a request. Under the old key lies a trace that
leads to the new key: former_keys.py follows that.
"""

from collections.abc import Mapping
from typing import cast

from django_sessionkit import registry
from django_sessionkit.accounts import stored_policy_of
from django_sessionkit.backends import lifetimes
from django_sessionkit.backends.exchanging import after_commit
from django_sessionkit.backends.facts import RECOGNISED, Facts
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.merging import Merging
from django_sessionkit.backends.records import Data, Record, sealed
from django_sessionkit.backends.sealing import SessionKey, new_salt, successor_of, version_of
from django_sessionkit.clock import Lifetime
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import TooManySessions
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.policy import Policy
from django_sessionkit.signals import session_renewed
from django_sessionkit.visit.current import current_request


class Renewing(Merging):
    def _wants_new_key(self, now: int) -> bool:
        facts = self._facts
        return facts.handle is not None and (self._privileges_changed or facts.wants_new_key(now))

    def _renew(
        self, old: SessionKey, now: int, flags: Mapping[str, bool] = registry.NO_FLAGS
    ) -> Flow[None]:
        """
        Give the session a new key, and leave a trace under the old one: requests that are under way
        come with that key, and so does the next one if this answer is lost.

        1. Touch the row. Whoever writes to a session locks its row first, everywhere. A row that
           has ended stops us here.
        2. Store the session under the new key. Nobody knows of that key yet.
        3. Replace what lies under the old key by the trace, if it still is what we have read. From
           here on, the old key leads to the new one. Otherwise a parallel request has written, or
           has renewed the key itself: remove the new key, and begin again with what it has written,
           or leave it at that.
        4. Have the row follow, with its new ``flags``. A row that has ended meanwhile takes both
           keys with it. If the row has followed another key already, a parallel request goes on
           with the renewal.

        The trace is a salt, from which, with the old key, the new one follows (successor_of()). It
        is sealed for the holder of the old key, and is not itself the new key: a dump of the store
        and SECRET_KEY together do not make a cookie of it.
        """
        if self._facts.keeps_key:
            yield from self._keep_key(old, now, flags)
            return
        salt = new_salt()
        new_key = successor_of(old, salt)
        data, record = self._session_cache, cast("Record", self._record)
        handle = record.facts.handle
        lifetime = self._lifetime(record.facts, data, now)
        with self.atomic():
            if not (yield registry.touch, handle, [old.digest], now, lifetime, self.client):
                return
            while True:
                facts = record.facts.rekeyed(old.digest, now)
                payload = sealed(facts, data, new_key, self.serializer)
                trace = sealed(record.facts.left_behind(salt), {}, old, self.serializer)
                expires_at = lifetime.expires_at
                yield self.insert, new_key.digest, payload, now, expires_at
                if (yield self.replace, old.digest, trace, expires_at, version_of(record.payload)):
                    break
                yield self.remove, [new_key.digest]
                yield from self._merged(old, record, record.facts)
                data, record = self._session_cache, cast("Record", self._record)
                if record.key != old:
                    return
                lifetime = self._lifetime(record.facts, data, now)
            follows = new_key.digest, now, lifetime, facts.authenticated_at, flags
            if not (yield registry.rekey, handle, [old.digest], *follows):
                if not (yield registry.is_open, handle):
                    yield self.remove, [old.digest, new_key.digest]
                return
        self._is_now_stored(new_key, payload, facts, data)
        if conf.SESSIONKIT_ADOPT_FROM:
            yield after_commit, self._forget_copies, old
        self.has_new_key = True
        if session_renewed.has_listeners(UserSession):  # else an async request would take a thread
            yield registry.announce_renewal, handle

    def _keep_key(self, key: SessionKey, now: int, flags: Mapping[str, bool]) -> Flow[None]:
        """Write what else a renewal writes, for an app that goes on with the key that it has."""
        facts = self._facts
        lifetime = self._lifetime(facts, self._session_cache, now)
        row = key.digest, now, lifetime, facts.authenticated_at, flags
        yield registry.rekey, facts.handle, [key.digest], *row
        self.modified = True  # the facts may have another policy

    def _renew_for_privileges(self, old: SessionKey, now: int) -> Flow[None]:
        """Give the session a new key, and the policy that its user has under their privileges."""
        policy = yield from self._stored_policy()
        if not (yield from self._put_under(policy, now)):
            return
        waits = self._facts.pending is not None
        flags = {"renew": False}
        if waits:
            flags |= {"counts": False, "waits": True}
        yield from self._renew(old, now, flags)
        # What has changed since the policy was asked has found the flag that is cleared now.
        if policy != (yield from self._stored_policy()):
            yield registry.renew_again, self._facts.handle

    def _stored_policy(self) -> Flow[Policy]:
        user = cast("str", self._facts.person)
        policy: Policy = yield stored_policy_of, user, current_request.get()
        return policy

    def _put_under(self, policy: Policy, now: int) -> Flow[bool]:
        """
        Put the session under the policy that its user has since their privileges changed. Return
        False, and end the session, where its time is over by that, or where that policy refuses a
        sign-in over the limit.
        """
        facts, reason = self._facts.under(policy, self.client), None
        if self._lifetime(facts, self._session_cache, now).expires_at <= now:
            reason = EndReason.EXPIRED
        else:
            try:
                if not (yield registry.stay_within, facts.handle, policy):
                    facts = facts._replace(pending=policy.limit)
            except TooManySessions:
                reason = EndReason.LIMIT
        if reason is not None:
            yield UserSession.objects.filter(pk=facts.row).revoke, reason
            return False
        self._keep(facts)
        return True

    def _new_key_arrived(self, record: Record, key: SessionKey, now: int) -> Flow[None]:
        """
        Note that the visitor has used the new key. The old key works for ``renew_grace`` seconds
        more; for a day we still recognise it, to notice its reuse.
        """
        facts = record.facts
        # The row still has the old digest if the renewal broke off.
        yield registry.catch_up, facts.handle, facts.previous, key.digest
        expiry = self._session_cache.get("_session_expiry")
        ends_at = lifetimes.ends_at(facts, now, expiry, self.get_session_cookie_age())
        yield self.touch, facts.previous, now, min(now + RECOGNISED, ends_at)
        self._keep(facts.arrived(now))
        self.modified = True

    def _lifetime(self, facts: Facts, data: Data, now: int) -> Lifetime:
        """Return until when a session lives that is active now."""
        activity = self._activity()._replace(now=now)
        return activity.plan(facts, data.get("_session_expiry")).lifetime
