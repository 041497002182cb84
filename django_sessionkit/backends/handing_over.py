"""
A session of an app opens another one, in a web view: by a code, which works once. The code takes
the place of a session key. What it opens rests in the store as a session does, under a digest and a
cipher of its own, and is no session.
"""

from typing import NamedTuple

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY
from django.contrib.sessions.backends.base import UpdateError
from django.core.signing import JSONSerializer
from django.utils.encoding import iri_to_uri

from django_sessionkit import clock, registry
from django_sessionkit.backends import binding
from django_sessionkit.backends.facts import Facts
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.loading import Loading
from django_sessionkit.backends.records import opened, sealed
from django_sessionkit.backends.sealing import HandOverCode, SessionKey, new_code, version_of
from django_sessionkit.policy import Policy
from django_sessionkit.visit.interruptions import Missing

# For so long a code is good, in milliseconds: an app opens the web view at once.
AGE = 60 * 1000
# Characters of the URL to which a code leads. Django redirects to no longer one than 2048.
LONGEST = 2000


class HandOver(NamedTuple):
    """What a code leads to: what was known of the app's session when the code was issued."""

    digest: str
    version: bytes
    facts: Facts
    backend: str
    auth_hash: str
    to: str


class HandingOver(Loading):
    def _issue_code(self, to: str) -> Flow[SessionKey]:
        """
        Store what a new code leads to, and return the code. ``to``: the URL that the web view is to
        show. One that is too long is forgotten.
        """
        if not self.is_loaded():
            self._session_cache = yield from self._load()
        facts, data = self._facts, self._session_cache
        if self.interruption or facts.pending is not None:
            raise UpdateError("The session has ended, or is locked: see unlock().")
        if facts.handle is None or not facts.by_header:
            raise ValueError(
                "Only the session of an app, whose key travels in a header, has codes."
            )
        if facts.actor is not None:
            # The new session would be one of the user.
            raise ValueError("Staff who act as a user cannot hand the session over.")
        if not (yield registry.is_open, facts.handle):
            raise self._ended(Missing(self._record.digest) if self._record else None)
        code, now = self._new_key(new_code), clock.now()
        contents = {
            "until": now + AGE,  # as facts do: whatever the clock of the store says
            "backend": data.get(BACKEND_SESSION_KEY, ""),
            "hash": data.get(HASH_SESSION_KEY, ""),
            "to": to if len(iri_to_uri(to)) <= LONGEST else "",
        }
        # Not by SESSION_SERIALIZER, which may be anything.
        payload = sealed(facts, contents, code, JSONSerializer)
        yield self.insert, code.digest, payload, now, now + AGE  # random: the digest is not taken
        return code

    def _read_code(self, text: str) -> Flow[HandOver | None]:
        """
        Return what a code leads to, or None if it leads nowhere: it was made up or used, it is too
        old, or it was issued in another network than the one to which the app's session is bound.
        """
        code = HandOverCode(text)
        stored = yield self.read, code.digest
        contents = stored and opened(stored.payload, code, JSONSerializer)
        if not contents:
            return None
        facts, data = contents
        if data["until"] <= clock.now():
            return None
        if stored.epoch and (yield from self._is_of_the_past(facts, stored.epoch)):
            return None
        # The web view is another browser than the app, on the same device.
        moved = "network" in binding.changed(facts.bound, self.client)
        if moved and Policy.of(facts.policy).on_change != "report":
            return None
        version = version_of(stored.payload)
        return HandOver(code.digest, version, facts, data["backend"], data["hash"], data["to"])

    def _take_code(self, hand_over: HandOver) -> Flow[bool]:
        """Use a code up. Return False if somebody else has used it."""
        return bool((yield self.take, hand_over.digest, hand_over.version))
