"""
A session moves between two engines of this package, as it is sealed. Processes of both kinds may
serve at the same time, and each of them may move it:

1. Mark what is stored as moving: MOVING takes the place of its version. From here on nobody writes
   it there, for every write expects another version. Who reads it looks elsewhere.
2. Store it here. It is the same, byte by byte.
3. Remove what is marked.

A mark that stays is of a process that broke off. Who finds one, and nothing elsewhere, looks again
for a moment, and then takes the mark away.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction

from django_sessionkit import clock
from django_sessionkit.backends.facts import RECOGNISED, Activity, Facts
from django_sessionkit.backends.records import Data, opened, sealed
from django_sessionkit.backends.sealing import NONCE, SessionKey, unseal, version_of
from django_sessionkit.clock import as_milliseconds
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import UserSession, UserSessionQuerySet
from django_sessionkit.storage import Storage, StoredFully

# In place of a version, which is random. What follows is the payload as it was.
MOVING = b"\xff" * NONCE
ABSENT = object()


class Exchanging(Storage, SessionBase):
    def _fetch_sealed(self, engine: type[Storage], key: SessionKey) -> bool | None:
        """
        Move a session here from another engine. Return None if that does not have it, and False if
        it may not move.
        """
        while (stored := engine.call(engine.read, key.digest)) is not None:
            payload = unmarked(stored.payload)
            contents = None
            if unseal(payload, key) is not None:
                contents = opened(payload, key, self.serializer)
            if contents is None:
                return None  # sealed with a SECRET_KEY that another process knows: it stays there
            until = self._until(*contents, stored.touched_at)
            session = StoredFully(key.digest, stored.payload, stored.touched_at, until)
            if not (going_on := self._not_ended([session])):
                engine.call(engine.remove, [key.digest])
                return False
            if self._exchange(engine, going_on[0], key):
                return True
        return None

    def _until(self, facts: Facts, data: Data, touched_at: int) -> int:
        """Return when a session expires that was last active then, or a former key's trace."""
        now, age = clock.now(), self.get_session_cookie_age()
        plan = Activity(touched_at or now, age).plan(facts, data.get("_session_expiry"))
        until = plan.lifetime.expires_at
        return until if facts.successor is None else min(until, now + RECOGNISED)

    def _exchange(
        self, engine: type[Storage], session: StoredFully, key: SessionKey | None = None
    ) -> bool:
        """Move a session that was read there. Return False if it was written since, or is gone."""
        digest, payload = session.digest, unmarked(session.payload)
        if payload is session.payload and not engine.call(
            engine.replace, digest, MOVING + payload, None, version_of(payload)
        ):
            return False
        session = session._replace(payload=payload)
        if not self.insert(*session):
            # What lies here may be marked: the session has been here before.
            self.replace(digest, payload, session.expires_at, MOVING)
        if self._take_back_what_has_ended([digest]):
            engine.call(engine.remove, [digest])
        else:
            after_commit(self._leave, engine, digest, payload, key)
        return True

    def _exchange_all(self, engine: type[Storage], sessions: Sequence[StoredFully]) -> int:
        """Move sessions that were read there, and return how many of them may move."""
        going_on = self._not_ended(sessions)
        for session in going_on:
            self._exchange(engine, session)
        if ended := {each.digest for each in sessions} - {each.digest for each in going_on}:
            engine.call(engine.remove, ended)
        return len(going_on)

    def _leave(
        self, engine: type[Storage], digest: str, payload: bytes, key: SessionKey | None
    ) -> None:
        """Remove a session from where it was."""
        try:
            if engine.call(engine.take, digest, MOVING):
                return
            there, here = engine.call(engine.read, digest), self.read(digest)
            if there is None or here is None:
                return  # somebody else has moved it, there or back
            if is_moving(there.payload) or is_moving(here.payload):
                return  # or is about to
            # This has taken so long that somebody has taken the mark away: it is in two places.
            if self.take(digest, version_of(payload)) or key is None:
                return
            was = opened(payload, key, self.serializer)
            became = opened(there.payload, key, self.serializer)
            if was and became:
                self._catch_up(key, was, became)
            engine.call(engine.take, digest, version_of(there.payload))
        except StoreUnavailable:
            pass  # which is in the log; adoptsessions removes what is left there

    def _catch_up(
        self, key: SessionKey, was: tuple[Facts, Data], became: tuple[Facts, Data]
    ) -> None:
        """Put what was changed elsewhere into the session as it is here by now."""
        while (stored := self.read(key.digest)) is not None:
            contents = opened(stored.payload, key, self.serializer)
            if contents is None:
                return
            facts, data = contents
            facts = became[0].merged(was[0], facts)
            for name in was[1].keys() | became[1].keys():
                if was[1].get(name, ABSENT) == became[1].get(name, ABSENT):
                    continue
                if name in became[1]:
                    data[name] = became[1][name]
                else:
                    data.pop(name, None)
            payload = sealed(facts, data, key, self.serializer)
            if self.replace(key.digest, payload, None, version_of(stored.payload)):
                return

    def _not_ended(self, sessions: Sequence[StoredFully]) -> list[StoredFully]:
        """Return the sessions whose rows have not ended, none of them longer than its row."""
        digests = [session.digest for session in sessions]
        known = {row.digest: row for row in rows().filter(digest__in=digests)}
        going_on = []
        for session in sessions:
            until, row = session.expires_at, known.get(session.digest)
            if row is None or row.ended_at is None:
                until = until if row is None else min(until, as_milliseconds(row.expires_at))
                going_on.append(session._replace(expires_at=until))
        return going_on

    def _take_back_what_has_ended(self, digests: Sequence[str]) -> list[str]:
        """
        Remove those of the sessions whose rows have ended, and return their digests. Who has just
        ended one has not found it, if it was not here yet.
        """
        found = rows().filter(digest__in=digests).exclude(ended_at=None)
        ended = list(found.values_list("digest", flat=True))
        if ended:
            self.remove(ended)
        return ended


def is_moving(payload: bytes) -> bool:
    return payload[:NONCE] == MOVING


def unmarked(payload: bytes) -> bytes:
    """Return a payload without the mark that it is moving, or the same object."""
    return payload[NONCE:] if is_moving(payload) else payload


def rows() -> UserSessionQuerySet:
    return UserSession.objects.primary()


def after_commit(function: Callable[..., None], *args: Any) -> None:
    transaction.on_commit(partial(function, *args), using=rows().db)
