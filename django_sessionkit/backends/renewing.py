"""
A session key that changes by itself, at the end of a request. Under the old key lies a trace that
leads to the new key: former_keys.py follows that.
"""

from typing import cast

from django_sessionkit import registry
from django_sessionkit.backends.facts import Facts
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.merging import Merging
from django_sessionkit.backends.records import Data, Record, sealed
from django_sessionkit.backends.sealing import SessionKey, new_salt, successor_of, version_of
from django_sessionkit.clock import Lifetime

# How long the former key of a session is recognised once its new key was seen, in milliseconds.
RECOGNISED = 24 * 60 * 60 * 1000


class Renewing(Merging):
    def _wants_new_key(self, now: int) -> bool:
        facts = self._facts
        return facts.handle is not None and (self._privileges_changed or facts.wants_new_key(now))

    def _renew(self, old: SessionKey, now: int) -> Flow[None]:
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
        4. Have the row follow. A row that has ended meanwhile takes both keys with it. If the row
           has followed another key already, a parallel request goes on with the renewal.

        The trace is a salt, from which, with the old key, the new one follows (successor_of()). It
        is sealed for the holder of the old key, and is not itself the new key: a dump of the store
        and SECRET_KEY together do not make a cookie of it.
        """
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
                trace = sealed(record.facts._replace(successor=salt), {}, old, self.serializer)
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
            follows = new_key.digest, now, lifetime, facts.authenticated_at
            if not (yield registry.rekey, handle, [old.digest], *follows):
                if not (yield registry.is_open, handle):
                    yield self.remove, [old.digest, new_key.digest]
                return
        self._is_now_stored(new_key, payload, facts, data)
        self.has_new_key = True

    def _new_key_arrived(self, record: Record, key: SessionKey, now: int) -> Flow[None]:
        """
        Note that the visitor has used the new key. The old key works for ``renew_grace`` seconds
        more; for a day we still recognise it, to notice its reuse.
        """
        facts = record.facts
        # The row still has the old digest if the renewal broke off.
        yield registry.catch_up, facts.handle, facts.previous, key.digest
        yield self.touch, facts.previous, now, min(now + RECOGNISED, facts.ends_at(now))
        self._keep(facts.arrived(now))
        self.modified = True

    def _lifetime(self, facts: Facts, data: Data, now: int) -> Lifetime:
        """Return until when a session lives that is active now."""
        activity = self._activity()._replace(now=now)
        return activity.plan(facts, data.get("_session_expiry")).lifetime
