"""Whether a session that was found may go on: by its facts, the registry, and its client."""

import logging
from functools import partial

from django.contrib.auth import HASH_SESSION_KEY

from django_sessionkit import clock, registry
from django_sessionkit.backends import binding, lifetimes
from django_sessionkit.backends.facts import Facts, known_of
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.former_keys import FormerKeys
from django_sessionkit.backends.plans import can_wait
from django_sessionkit.backends.records import Data, Record
from django_sessionkit.conf import conf
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.policy import Policy
from django_sessionkit.signals import session_moved
from django_sessionkit.visit.client import Client
from django_sessionkit.visit.interruptions import Lock, Missing

security_logger = logging.getLogger("django.security.SuspiciousSession")


class Again:
    """A parallel request has changed the session meanwhile: load it again."""


# What a check finds: None or new facts for a session that goes on, or what is in its way.
Verdict = Facts | Missing | Lock | Again | None


class Checking(FormerKeys):
    _activity_is_due = False  # it is time to write the activity of this request
    _is_unchecked = False  # the registry is asked at the end of the request, if at all
    _privileges_changed = False  # the key is to change, and the policy to be asked again

    def _is_due(self, record: Record, now: int, cookie_age: int) -> bool:
        """Tell whether it is time to write the activity."""
        interval = lifetimes.touch_interval(record.facts, record.expiry, cookie_age)
        return abs(now - record.touched_at) >= interval

    def _is_over(self, record: Record, now: int) -> bool:
        """Tell whether a session has ended by its facts, whatever the store says."""
        age = self.get_session_cookie_age()
        return lifetimes.is_over(record.facts, record.touched_at, now, record.expiry, age)

    def _can_wait(self, record: Record, now: int) -> bool:
        """Tell whether the activity of this request may wait in the store: see activity.py."""
        facts, client = record.facts, self.client
        if not (facts.handle and self.buffers) or self.background or client is None:
            return False
        if facts.client != known_of(client, facts.client):
            return False
        moments = record.touched_at, record.flushed_at, now
        if not can_wait(facts, *moments, record.expiry, self.get_session_cookie_age()):
            return False
        # The purge takes the address from a row that was not used for so long.
        kept = conf.SESSIONKIT_ADDRESS_RETENTION
        return kept is None or now - record.touched_at < 500 * kept

    def _with_client(self, facts: Facts, client: Client | None) -> Facts:
        """Return the facts of a session whose row says what is known of this client by now. From
        the next request on, the row can wait for activity."""
        # Facts that have it stay true without the setting, too: that may be set again.
        is_of_use = conf.SESSIONKIT_ACTIVITY == "buffered" or facts.client is not None
        if client is None or not self.buffers or not is_of_use:
            return facts
        known = known_of(client, facts.client)
        return facts if known == facts.client else facts._replace(client=known)

    def _check(
        self, record: Record, data: Data, resuming: bool, may_wait: bool = False
    ) -> Flow[Verdict]:
        """
        Ask the registry before the view sees the session, if its activity is due: a session that
        was ended goes no further, whatever the store says (a lost removal, a failover, a restored
        backup). Look whether the session is where it is bound to be. ``may_wait``: the activity may
        wait in the store, and then the registry is not asked.
        """
        facts, digest = record.facts, record.digest
        if may_wait and conf.SESSIONKIT_ACTIVITY == "buffered" and self._activity_is_due:
            # Not with a former key, which is not put in the place of the session's yet.
            is_plain = self._session_key == record.key
            self._is_unchecked = is_plain and self._can_wait(record, clock.now())
        if self._activity_is_due and not self._is_unchecked:
            # A proof of identity may just have made the hash of the password a stronger one.
            auth_hash = "" if resuming else data.get(HASH_SESSION_KEY, "")
            known = facts.may_have(digest), auth_hash, facts.user, facts.person
            row = yield registry.may_go_on, facts.handle, *known, facts.authenticated_at
            if row is None:
                return (yield from self._refused(record))
            self._privileges_changed = row.renew
        if resuming or not facts.bound:
            return None
        if changed := binding.changed(facts.bound, self.client):
            handle, names = facts.row, ", ".join(changed)
            security_logger.warning("Session %s is used with another %s", handle, names)
            send = partial(session_moved.send_robust, UserSession, handle=handle)
            yield (partial(send, changed=changed, client=self.client),)
            # Nobody can tell whether the first address of another family is somewhere else.
            is_new_family = changed == [binding.FAMILY]
            on_change = "report" if is_new_family else Policy.of(facts.policy).on_change
            match on_change:
                case "ask":
                    return Lock.MOVED
                case "end":
                    # If somebody else holds the row, the session goes no further all the same.
                    yield registry.free(handle.hex).revoke, EndReason.MOVED
                    return Missing(digest)
        # For a session that was signed in by code, without a client, this is the first time.
        bound = binding.bound_to(facts.bound, self.client)
        if bound is facts.bound:
            return None
        self.modified = True
        return facts._replace(bound=bound)

    def _refused(self, record: Record) -> Flow[Missing | Again]:
        """Return what becomes of a session that the registry does not let go on."""
        digest = record.digest
        again = yield self.read, digest
        if again is not None and again.payload != record.payload:
            return Again()
        # An open row with another digest: a parallel request is about to move the session.
        if (yield registry.is_open, record.facts.handle):
            return Missing(digest)
        yield self.remove, [digest]
        # If its row went with the transaction of a view, the session is still elsewhere.
        return Again() if conf.SESSIONKIT_ADOPT_FROM else Missing(digest)
