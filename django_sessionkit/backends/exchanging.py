"""
A session moves between two engines of this package, as it is sealed. Processes of both kinds may
serve at the same time, and each of them may move it, in these steps:

1. Mark what is stored there: a mark takes the place of its version. From here on nobody writes it,
   for every write expects another version, and nobody reads it either.
2. Store it here, marked in the same way.
3. Remove it there, if it still has this mark.
4. Take the mark away here.

So a session can be used in one place at most, and whoever reads it reads what was saved last. Who
finds a mark looks again, for another process is moving the session, which takes milliseconds. A
mark that stays is of a process that broke off: after some seconds, whoever finds it goes on from
there, with a mark of its own.

In the transaction of a view, which others cannot look into, steps 3 and 4 are different: it is
stored here without a mark, and removed there once the transaction is committed.
"""

import os
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import Any

from django.contrib.sessions.backends.base import SessionBase
from django.db import connections, transaction

from django_sessionkit import clock
from django_sessionkit.backends.facts import RECOGNISED, Facts
from django_sessionkit.backends.plans import Activity
from django_sessionkit.backends.records import Data, opened, sealed
from django_sessionkit.backends.sealing import NONCE, SessionKey, unseal, version_of
from django_sessionkit.clock import as_milliseconds
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import UserSession, UserSessionQuerySet
from django_sessionkit.storage import Storage, StoredFully

# What a mark begins with. The rest is random, so that nobody takes it for another one. A version is
# random, too, and never begins like this by chance. What follows is the payload as it was.
MOVING = b"\xffmoving\xff"
ABSENT = object()


class Outcome(Enum):
    """What comes of moving a session from an engine."""

    ABSENT = "the engine does not have it"
    REFUSED = "it may not move: it has ended"
    BUSY = "another process is moving it"
    MOVED = "it has moved, or was written meanwhile: look where it is now"


class Exchanging(Storage, SessionBase):
    def _fetch_sealed(self, engine: type[Storage], key: SessionKey, force: bool) -> Outcome:
        """Move a session here. ``force``: also if another process has begun to, and broke off."""
        stored = engine.call(engine.read, key.digest)
        if stored is None:
            return Outcome.ABSENT
        payload = unmarked(stored.payload)
        contents = None
        if unseal(payload, key) is not None:
            contents = opened(payload, key, self.serializer)
        if contents is None:
            return Outcome.ABSENT  # sealed with a SECRET_KEY that another process knows
        until = self._until(*contents, stored.touched_at)
        session = StoredFully(key.digest, stored.payload, stored.touched_at, until)
        if not (going_on := self._not_ended([session])):
            engine.call(engine.remove, [key.digest])
            return Outcome.REFUSED
        return self._exchange(engine, going_on[0], force, key)

    def _until(self, facts: Facts, data: Data, touched_at: int) -> int:
        """Return when a session expires that was last active then, or a former key's trace."""
        now, age = clock.now(), self.get_session_cookie_age()
        plan = Activity(touched_at or now, age).plan(facts, data.get("_session_expiry"))
        until = plan.lifetime.expires_at
        return until if facts.successor is None else min(until, now + RECOGNISED)

    def _exchange(
        self,
        engine: type[Storage],
        session: StoredFully,
        force: bool,
        key: SessionKey | None = None,
    ) -> Outcome:
        """Move a session as it was read there."""
        digest, before = session.digest, session.payload
        if is_moving(before) and not force:
            return Outcome.BUSY
        mark, payload = new_mark(), unmarked(before)
        marked = mark + payload
        if not engine.call(engine.replace, digest, marked, None, version_of(before)):
            return Outcome.MOVED
        if connections[rows().db].in_atomic_block:
            if self._put(session._replace(payload=payload), mark):
                after_commit(self._leave, engine, digest, mark, payload, key)
        elif self._put(session._replace(payload=marked), mark):
            here = self.read(digest)
            if here is None:
                engine.call(engine.replace, digest, payload, None, mark)  # as it was
            elif not engine.call(engine.take, digest, mark):
                self.take(digest, mark)  # this took so long that somebody else has gone on
            else:
                self.replace(digest, payload, None, mark)
        if self._take_back_what_has_ended([digest]):
            engine.call(engine.remove, [digest])
        return Outcome.MOVED

    def _put(self, session: StoredFully, mark: bytes) -> bool:
        """
        Store a session here, also in the place of one with a mark. Return False if that is the mark
        which it has just got there: the two engines have one store, and it stays as it was.
        """
        digest, payload, _, expires_at = session
        if self._insert_anew(session):
            return True
        stored = self.read(digest)
        if stored is not None and version_of(stored.payload) == mark:
            self.replace(digest, unmarked(payload), None, mark)
            return False
        if stored is not None and is_moving(stored.payload):
            self.replace(digest, payload, expires_at, version_of(stored.payload))
        return True

    def _insert_anew(self, session: StoredFully) -> bool:
        """Store a session here if there is none, also in the place of one that has expired."""
        if self.insert(*session):
            return True
        if self.read(session.digest) is not None:
            return False
        self.remove([session.digest])
        return self.insert(*session)

    def _exchange_all(self, engine: type[Storage], sessions: Sequence[StoredFully]) -> int:
        """Move sessions that were read there, and return how many of them may move."""
        going_on = self._not_ended(sessions)
        for session in going_on:
            self._exchange(engine, session, force=True)
        if ended := {each.digest for each in sessions} - {each.digest for each in going_on}:
            engine.call(engine.remove, ended)
        return len(going_on)

    def _leave(
        self,
        engine: type[Storage],
        digest: str,
        mark: bytes,
        payload: bytes,
        key: SessionKey | None,
    ) -> None:
        """Remove a session from where it was, after the transaction of a view."""
        try:
            if engine.call(engine.take, digest, mark):
                return
            there, here = engine.call(engine.read, digest), self.read(digest)
            if key is None or there is None or here is None:
                return
            if is_moving(there.payload) or is_moving(here.payload):
                return  # others look after it
            # The transaction took so long that others have gone on there: it is in two places.
            was = opened(payload, key, self.serializer)
            became = opened(there.payload, key, self.serializer)
            if was and became:
                self._catch_up(key, was, became)
            engine.call(engine.take, digest, version_of(there.payload))
        except StoreUnavailable:
            pass  # which is in the log; adoptsessions removes what is left there

    def _catch_up(
        self, key: SessionKey, was: tuple[Facts, Data], became: tuple[Facts, Data]
    ) -> bool:
        """
        Put what was changed elsewhere into the session as it is here by now. Return False where
        another process is moving it, and looks after that.
        """
        while (stored := self.read(key.digest)) is not None:
            if is_moving(stored.payload):
                return False
            contents = opened(stored.payload, key, self.serializer)
            if contents is None:
                break
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
                break
        return True

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


def new_mark() -> bytes:
    return MOVING + os.urandom(NONCE - len(MOVING))


def is_moving(payload: bytes) -> bool:
    return payload.startswith(MOVING)


def unmarked(payload: bytes) -> bytes:
    """Return a payload without the mark that it is moving, or the same object."""
    return payload[NONCE:] if is_moving(payload) else payload


def rows() -> UserSessionQuerySet:
    return UserSession.objects.primary()


def after_commit(function: Callable[..., None], *args: Any) -> None:
    """Call a function after the transaction of a view or, where there is none, now."""
    if connections[rows().db].in_atomic_block:
        transaction.on_commit(partial(function, *args), using=rows().db)
    else:
        function(*args)
