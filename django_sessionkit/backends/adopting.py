"""
A session that another engine has moves here, when it is used next or when ``adoptsessions`` comes
by: from an engine of this package (exchanging.py) or of somebody else (admitting.py, adoption.py).
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from django.contrib.auth import SESSION_KEY
from django.utils import timezone

from django_sessionkit import clock, ranges
from django_sessionkit.adoption import Engine, OldSession, Table, engine_of, engines
from django_sessionkit.backends.admitting import Admitting
from django_sessionkit.backends.exchanging import Outcome, is_moving, rows, unmarked
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.sealing import SessionKey, successor_of, version_of
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.pace import Progress
from django_sessionkit.storage import Storage, Stored, StoredFully, despite_deadlocks
from django_sessionkit.visit.interruptions import Interruption, NoAnswer

# The salt by which a key follows from a signed cookie.
FROM_COOKIE = b"django_sessionkit.adoption".hex()
# How often somebody looks for a session that another process is moving at this moment, which takes
# a few milliseconds; and how often if only its row says that it is somewhere.
LOOKS, FEW_LOOKS = 100, 6
PAUSE = 0.002  # seconds, and more with every look: 10 seconds in all

# How many sessions have moved, and how many were left for which reason.
Counts = Counter[str]


class Adopting(Admitting):
    # What the middleware asks afterwards.
    interruption: Interruption | None = None

    # One session, when it is used.

    def _adopt(self, key: SessionKey) -> Flow[tuple[SessionKey, Stored | None]]:
        """
        Return the session with this key, after it has moved here, with the key that it has now; or
        None where no engine has it. Raises StoreUnavailable if one that may have it is silent.
        """
        try:
            found: tuple[SessionKey, Stored | None] = yield self._fetch, key
        except StoreUnavailable:
            self.interruption = NoAnswer()
            raise
        return found

    def _fetch(self, key: SessionKey) -> tuple[SessionKey, Stored | None]:
        look, missed, mark = 0, 0, b""  # missed: how often it was nowhere
        while look < LOOKS:
            is_last = look == LOOKS - 1
            new, outcome = self._fetch_from_all(key, force=is_last)
            if outcome is Outcome.REFUSED:
                return new, None
            # Also if nobody else has it: it may have moved here since somebody first looked.
            stored = self.read(new.digest)
            if stored is not None and not is_moving(stored.payload):
                return new, stored
            is_absent = outcome is Outcome.ABSENT
            if stored is None and is_absent:
                if not self._is_elsewhere(new.digest, missed):
                    return new, None
                missed += 1
            elif stored is not None and is_absent and is_last:
                # Whoever was moving it here has broken off, after it was removed there.
                before = version_of(stored.payload)
                self.replace(new.digest, unmarked(stored.payload), None, before)
            look += 1
            if stored is not None and version_of(stored.payload) != mark:
                look, mark = 1, version_of(stored.payload)  # yet another process is moving it
            time.sleep(PAUSE * look)
        return new, self.read(new.digest)

    def _is_elsewhere(self, digest: str, missed: int) -> bool:
        """
        Tell whether a session is worth another look that nobody has. It may move to and fro between
        processes, and always be where one does not look at the moment.
        """
        if missed < FEW_LOOKS:
            row = rows().filter(digest=digest, ended_at=None, expires_at__gt=timezone.now())
            if row.exists():
                return True
        # A visitor has no row. Between engines of this package, moves take turns most quickly.
        return missed == 0 and any(not isinstance(each, Engine) for each in engines())

    def _fetch_from_all(self, key: SessionKey, force: bool) -> tuple[SessionKey, Outcome]:
        """
        Move a session here from the first engine that has it. Return the key that it has here, and
        what has come of that.
        """
        unavailable = None
        for engine in engines():
            if engine is type(self):
                continue
            try:
                new, outcome = self._fetch_from(engine, key, force)
            except StoreUnavailable as error:
                unavailable = error
                continue
            if outcome is not Outcome.ABSENT:
                return new, outcome
        if unavailable and self.read(key.digest) is None:
            raise unavailable
        return key, Outcome.ABSENT

    def _fetch_from(
        self, engine: Engine | type[Storage], key: SessionKey, force: bool
    ) -> tuple[SessionKey, Outcome]:
        if not isinstance(engine, Engine):
            return key, self._fetch_sealed(engine, key, force)
        old = engine.read(key)
        if old is None:
            return key, Outcome.ABSENT
        new = key if engine.keeps_key else successor_of(key, FROM_COOKIE)
        return new, despite_deadlocks(rows().db, self._admit, engine, new, old, force)

    def _forget_elsewhere(self, key: SessionKey) -> None:
        """Remove a session that is signed out from the other engines: it may have moved back."""
        for engine in engines():
            try:
                if isinstance(engine, Engine):
                    engine.forget(key)
                else:
                    engine.call(engine.remove, [key.digest])
            except StoreUnavailable:
                pass  # which is in the log; its row refuses the session

    def _forget_copies(self, key: SessionKey) -> None:
        """
        Remove what an engine that did not answer has kept of a session that moved here. The session
        has another key by now, so its row refuses this one no more.
        """
        for engine in engines():
            if isinstance(engine, Engine):
                with suppress(StoreUnavailable):  # which is in the log
                    engine.forget(key)

    def _exists_elsewhere(self, key: SessionKey) -> bool:
        for engine in engines():
            if isinstance(engine, Engine):
                if engine.exists(key):
                    return True
            elif engine.call(engine.peek, [key.digest]):
                return True
        return False

    # All sessions, for adoptsessions.

    @classmethod
    def adopt_all(
        cls,
        path: str,
        signed_in_only: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Counts | None:
        """
        Move all sessions here from the engine with this path, in small parts. Return how many have
        "moved", and how many were left: of "visitors", with ``signed_in_only``; "refused" ones, for
        they have ended, or their users would not be let in; and "unreadable" ones. With
        ``dry_run``, write nothing.

        Return None if the engine cannot list its sessions. Raises StoreUnavailable.
        """
        engine, counts = engine_of(path), Counter[str]()
        if engine is cls:
            return counts
        if (listed := _listed(engine)) is None:
            return None
        total, parts = listed
        for done, part in enumerate(parts, start=1):
            cls.call(cls()._adopt_part, engine, part, signed_in_only, dry_run, counts)
            if progress:
                progress(done, max(done, total))
        return counts

    def _adopt_part(
        self,
        engine: Any,
        part: Sequence[Any],
        signed_in_only: bool,
        dry_run: bool,
        counts: Counts,
    ) -> None:
        if isinstance(engine, Engine):
            counts["unreadable"] += sum(old is None for old in part)
            readable: list[OldSession] = [old for old in part if old is not None]
            chosen = [old for old in readable if not signed_in_only or SESSION_KEY in old.data]
            moves = [(SessionKey(old.key), old) for old in chosen]
            if dry_run:
                moved = len(self._may_move(moves, clock.now()))
            else:
                moved = despite_deadlocks(rows().db, self._admit_all, engine, moves)
            counts["visitors"] += len(readable) - len(chosen)
            counts["refused"] += len(chosen) - moved
        else:
            sealed_ones = part
            if signed_in_only:
                found = rows().filter(digest__in=[session.digest for session in part])
                signed_in = {*found.values_list("digest", flat=True)}
                sealed_ones = [session for session in part if session.digest in signed_in]
            if dry_run:
                moved = len(self._not_ended(sealed_ones))
            else:
                moved = self._exchange_all(engine, sealed_ones)
            counts["visitors"] += len(part) - len(sealed_ones)
            counts["refused"] += len(sealed_ones) - moved
        counts["moved"] += moved


def _listed(engine: Engine | type[Storage]) -> tuple[int, Iterator[Sequence[Any]]] | None:
    """Return about how many parts there are, and the parts. Raises StoreUnavailable."""
    if isinstance(engine, Table):
        return engine.count() // ranges.ROWS + 1, engine.parts()
    if not isinstance(engine, Engine) and (listed := engine.call(engine.scan)):
        return listed[0], _each(engine, listed[1])
    return None


def _each(engine: type[Storage], parts: Iterator[list[StoredFully]]) -> Iterator[Sequence[Any]]:
    while (part := engine.call(next, parts, None)) is not None:
        yield part
