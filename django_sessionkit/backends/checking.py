"""Whether a session that was found may go on: by its facts, the registry, and its client."""

import logging
from functools import partial

from django.contrib.auth import HASH_SESSION_KEY

from django_sessionkit import registry
from django_sessionkit.backends.facts import FAMILY, Facts
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.former_keys import FormerKeys
from django_sessionkit.backends.records import Data, Record
from django_sessionkit.conf import conf
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.policy import Policy
from django_sessionkit.signals import session_moved
from django_sessionkit.visit.interruptions import Lock, Missing

security_logger = logging.getLogger("django.security.SuspiciousSession")


class Again:
    """A parallel request has changed the session meanwhile: load it again."""


# What a check finds: None or new facts for a session that goes on, or what is in its way.
Verdict = Facts | Missing | Lock | Again | None


class Checking(FormerKeys):
    _activity_is_due = False  # it is time to write the activity of this request
    _privileges_changed = False  # the key is to change, and the policy to be asked again

    def _is_due(self, record: Record, now: int, cookie_age: int) -> bool:
        """Tell whether it is time to write the activity."""
        interval = record.facts.touch_interval(record.expiry, cookie_age)
        return abs(now - record.touched_at) >= interval

    def _is_over(self, record: Record, now: int) -> bool:
        """Tell whether a session has ended by its facts, whatever the store says."""
        age = self.get_session_cookie_age()
        return record.facts.is_over(record.touched_at, now, record.expiry, age)

    def _check(self, record: Record, data: Data, resuming: bool) -> Flow[Verdict]:
        """
        Ask the registry before the view sees the session, if its activity is due: a session that
        was ended goes no further, whatever the store says (a lost removal, a failover, a restored
        backup). Look whether the session is where it is bound to be.
        """
        facts, digest = record.facts, record.digest
        if self._activity_is_due:
            # A proof of identity may just have made the hash of the password a stronger one.
            auth_hash = "" if resuming else data.get(HASH_SESSION_KEY, "")
            known = facts.may_have(digest), auth_hash, facts.user, facts.person
            row = yield registry.may_go_on, facts.handle, *known, facts.authenticated_at
            if row is None:
                again = yield self.read, digest
                if again is not None and again.payload != record.payload:
                    return Again()
                # An open row with another digest: a parallel request is about to move the session.
                if (yield registry.is_open, facts.handle):
                    return Missing(digest)
                yield self.remove, [digest]
                # If its row went with the transaction of a view, the session is still elsewhere.
                return Again() if conf.SESSIONKIT_ADOPT_FROM else Missing(digest)
            self._privileges_changed = row.renew
        if resuming or not facts.bound:
            return None
        if changed := facts.changed(self.client):
            handle, names = facts.row, ", ".join(changed)
            security_logger.warning("Session %s is used with another %s", handle, names)
            send = partial(session_moved.send_robust, UserSession, handle=handle)
            yield (partial(send, changed=changed, client=self.client),)
            # Nobody can tell whether the first address of another family is somewhere else.
            on_change = "report" if changed == [FAMILY] else Policy.of(facts.policy).on_change
            match on_change:
                case "ask":
                    return Lock.MOVED
                case "end":
                    # If somebody else holds the row, the session goes no further all the same.
                    yield registry.free(handle.hex).revoke, EndReason.MOVED
                    return Missing(digest)
        # For a session that was signed in by code, without a client, this is the first time.
        bound = facts.bound_to(self.client)
        if bound is facts:
            return None
        self.modified = True
        return bound
