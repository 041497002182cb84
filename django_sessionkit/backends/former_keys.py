"""
A session key leads to its session, and for a while a former key does, too. A key that was changed
by itself leaves a trace in the store, under its own digest: a salt, from which, with the former
key, the next key follows. Whoever uses a former key too late has a copy of the cookie, or somebody
else has one.
"""

import logging
import uuid

from django_sessionkit import clock, epochs, registry
from django_sessionkit.backends.adopting import Adopting
from django_sessionkit.backends.exchanging import is_moving
from django_sessionkit.backends.facts import Facts
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.records import Record, Resolved, found
from django_sessionkit.backends.sealing import SessionKey, successor_of, version_of
from django_sessionkit.clock import as_datetime
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.policy import Policy
from django_sessionkit.signals import session_key_reused
from django_sessionkit.visit.client import Client
from django_sessionkit.visit.interruptions import Missing, Unopened

security_logger = logging.getLogger("django.security.SuspiciousSession")

# How often a request reads the store at most, until it has its session.
READS = 3
# A moment that every store takes for an expiry, and that is over.
LONG_AGO = 1


class FormerKeys(Adopting):
    def _resolve(self, key: SessionKey, again: bool = False) -> Flow[Resolved]:
        """
        Return the session with this key, or the one that a former key leads to. ``again``: others
        have written to it since it was read.

        Each key on the way but the last one has reached the browser. So the first step already
        tells whether a former key comes too late, however many keys there were since. A key that is
        not late, but takes more than three reads, leads nowhere.

        Only a visitor is judged, who is known by the client. A former key that a package has stored
        leads to its session for as long as there is a trace.
        """
        is_visitor = self.client is not None
        given = key
        read = self.read_again if again and not self.native_async else self.read
        former: Record | None = None  # what lies under the key, if that is a former one
        is_delivered, reads = False, 0
        while True:
            reads += 1
            key.prepare()  # before the wait for the store: after it, everything takes longer
            stored = yield read, key.digest
            if conf.SESSIONKIT_ADOPT_FROM and (stored is None or is_moving(stored.payload)):
                key, stored = yield from self._adopt(key)
            if stored is None:
                return Missing(key.digest)
            here = found(stored, key, self.serializer)
            if here is None:
                return Unopened()
            facts: Facts = here.record.facts
            if former is not None and facts.seen is not None:
                is_delivered = True
                if is_visitor and former.facts.is_late(facts.seen, clock.now()):
                    return (yield from self._reused(former))
            if facts.successor is None:
                if stored.epoch and (yield from self._is_of_the_past(facts, stored.epoch)):
                    yield self.remove, [key.digest]
                    return Missing(key.digest)
                by = (former or given).digest
                return (
                    here if key is given else here._replace(came_by=by, is_delivered=is_delivered)
                )
            if is_visitor and reads == READS:
                return None
            former = former or here.record
            key = successor_of(key, facts.successor)

    def _is_of_the_past(self, facts: Facts, number: int) -> Flow[bool]:
        """Tell whether an epoch has ended a session. Its row is marked then: see epochs.py."""
        if facts.handle is None:
            return False
        known = epochs.known(number)
        if known is None:
            known = yield epochs.learn, number
        session = facts.user, facts.person, facts.authenticated_at, facts.row
        if not known.ends(*session):
            return False
        if (yield registry.end_by_epoch, *session):
            return True
        epochs.forget(number)
        return False

    def _reused(self, former: Record) -> Flow[Missing | None]:
        """Report that a former key was used after its grace, and end the session if the policy says
        so."""
        handle, digest = former.facts.row, former.digest
        if Policy.of(former.facts.policy).on_reuse == "end":
            ended = yield end_and_report, handle, former.facts.authenticated_at, self.client
            return Missing(ended or digest)
        # Of all requests that come by this key, one removes the trace, and reports it.
        if (yield self.replace, digest, b"", LONG_AGO, version_of(former.payload)):
            yield report, handle, self.client
        return None


def end_and_report(handle: uuid.UUID, authenticated_at: int, client: Client | None) -> str | None:
    """
    End a session whose former key was used too late, and report that, unless the session has ended
    already. Return the digest that it had last. Return None, and do nothing, if its user has proved
    since ``authenticated_at`` who they are: the former keys from before lead nowhere.
    """
    proved_at = as_datetime(authenticated_at)
    sessions = UserSession.objects.primary().filter(pk=handle)
    sessions = sessions.exclude(authenticated_at__gt=proved_at)
    free = registry.free(handle.hex).exclude(authenticated_at__gt=proved_at)
    try:
        is_news = free.revoke(EndReason.REUSED) > 0
    except StoreUnavailable:  # the row was marked before
        report(handle, client)
        raise
    digest, ended_at = sessions.values_list("digest", "ended_at").first() or (None, None)
    # A session whose row somebody else holds is ended by the next use of the key.
    if is_news or (digest and ended_at is None):
        report(handle, client)
    return digest


def report(handle: uuid.UUID, client: Client | None) -> None:
    security_logger.warning("A former key of session %s was used again", handle)
    session_key_reused.send_robust(UserSession, handle=handle, client=client)
