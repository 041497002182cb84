"""
A session key leads to its session, and for a while a former key does, too. A key that was changed
by itself leaves a trace in the store, under its own digest: a salt, from which, with the former
key, the next key follows. Whoever uses a former key too late has a copy of the cookie, or somebody
else has one.
"""

import logging
from functools import partial

from django.contrib.sessions.backends.base import SessionBase

from django_sessionkit import clock
from django_sessionkit.backends.facts import Facts
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.records import Resolved, found
from django_sessionkit.backends.sealing import SessionKey, successor_of
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.policy import Policy
from django_sessionkit.signals import session_key_reused
from django_sessionkit.storage import Storage
from django_sessionkit.visit.client import Client
from django_sessionkit.visit.interruptions import Missing

security_logger = logging.getLogger("django.security.SuspiciousSession")


class FormerKeys(Storage, SessionBase):
    # The middleware sets this. None where there is no request (tests, a shell, Channels): a session
    # that is used there is not touched, and what is known about its device is kept.
    client: Client | None = None

    def _resolve(self, key: SessionKey) -> Flow[Resolved]:
        """Return the session with this key, or the one that a former key leads to."""
        came_by: str | None = None
        trace: Facts | None = None
        reused = is_delivered = False
        while True:
            key.prepare()  # before the wait for the store: after it, everything takes longer
            stored = yield self.read, key.digest
            here = stored and found(stored, key, self.serializer)
            if here is None:
                return Missing(key.digest)
            facts: Facts = here.record.facts
            if trace is not None and facts.seen is not None:
                is_delivered = True
                grace = Policy.of(trace.policy).renew_grace
                reused = reused or facts.seen + 1000 * grace <= clock.now()
            if facts.successor is None:
                break
            came_by = came_by or key.digest
            trace, key = facts, successor_of(key, facts.successor)
        if not reused:
            return here._replace(came_by=came_by, is_delivered=is_delivered) if came_by else here
        return (yield from self._reused(facts, key.digest))

    def _reused(self, facts: Facts, digest: str) -> Flow[Missing | None]:
        """Report that a former key was used after its grace, and end the session if the policy says
        so."""
        handle = facts.row
        security_logger.warning("A former key of session %s was used again", handle)
        send = session_key_reused.send_robust
        yield (partial(send, UserSession, handle=handle, client=self.client),)
        if Policy.of(facts.policy).on_reuse != "end":
            return None
        yield UserSession.objects.filter(pk=handle).revoke, EndReason.REUSED
        return Missing(digest)
