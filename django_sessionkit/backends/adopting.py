"""
A session that another engine has moves here, when it is used next or when ``adoptsessions`` comes
by: see adoption.py for the engines.

1. Open the row of a session that is signed in, with what is known. A row with this digest that has
   ended refuses the session: it does not come back from elsewhere.
2. Insert the session under its digest. Of several processes that do this at the same time, the
   digest lets one do it, and all of them go on with that session.
3. Remove the old one, last, and not before the transaction of a view is committed: wherever this
   breaks off, the session is somewhere. A session that was written there meanwhile takes those
   changes along.

Whoever finds a session neither here nor there looks here again: it may have moved in between.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ValidationError
from django.db import router, transaction

from django_sessionkit import clock, ranges
from django_sessionkit.accounts import (
    has_password_of,
    is_disabled,
    is_impersonated,
    policy_of,
    user_in,
)
from django_sessionkit.adoption import Engine, OldSession, Table, engine_of, engines
from django_sessionkit.backends.facts import RECOGNISED, Activity, Facts
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.records import NO_FACTS, Data, opened, sealed
from django_sessionkit.backends.sealing import (
    SessionKey,
    successor_of,
    unseal,
    version_of,
)
from django_sessionkit.clock import Lifetime, as_datetime, as_milliseconds
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import UserSession, UserSessionQuerySet, uuid7
from django_sessionkit.ranges import Progress
from django_sessionkit.storage import Storage, Stored, StoredFully
from django_sessionkit.visit.client import USER_AGENT_LENGTH, Client
from django_sessionkit.visit.current import current_request
from django_sessionkit.visit.interruptions import Interruption, NoAnswer

# The salt by which a key follows from a signed cookie.
FROM_COOKIE = b"django_sessionkit.adoption".hex()
ABSENT = object()

# What is to move: a session, and the key that it has here.
Move = tuple[SessionKey, OldSession]
# How many sessions have moved, and how many were left for which reason.
Counts = Counter[str]


class Checked(NamedTuple):
    """A session that may move, with its user, and its row if it was here before."""

    key: SessionKey
    old: OldSession
    user: str | None
    person: Any
    row: UserSession | None


class Plan(NamedTuple):
    """What to write of a session that may move."""

    facts: Facts
    lifetime: Lifetime
    row: UserSession | None
    is_new: bool  # the row is to be written, too


class Adopting(Storage, SessionBase):
    # The middleware sets this. None where there is no request (tests, a shell, Channels): a session
    # that is used there is not touched, and what is known about its device is kept.
    client: Client | None = None
    # This request is no activity of its user's: see decorators.py.
    background = False
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
        unavailable = None
        for engine in engines():
            if engine is type(self):
                continue
            try:
                new = self._fetch_from(engine, key)
            except StoreUnavailable as error:
                unavailable = error
                continue
            if new is not None:
                return new, self.read(new.digest)
        # It may have moved here since somebody first looked.
        stored = self.read(key.digest)
        if stored is None and unavailable:
            raise unavailable
        return key, stored

    def _fetch_from(self, engine: Engine | type[Storage], key: SessionKey) -> SessionKey | None:
        """Move a session here. Return the key that it has now, or None if the engine has it not."""
        if not isinstance(engine, Engine):
            return self._fetch_sealed(engine, key)
        old = engine.read(key)
        if old is None:
            return None
        new = key if engine.keeps_key else successor_of(key, FROM_COOKIE)
        self._move(engine, [(new, old)])
        return new

    def _fetch_sealed(self, engine: type[Storage], key: SessionKey) -> SessionKey | None:
        """Move a session from another engine of this package, as it is sealed."""
        digest = key.digest
        stored = engine.call(engine.read, digest)
        if stored is None:
            return None
        contents = None
        if unseal(stored.payload, key) is not None:
            contents = opened(stored.payload, key, self.serializer)
        if contents is None:
            return None  # sealed with a SECRET_KEY that another process knows: it stays there
        facts, data = contents
        now, age = clock.now(), self.get_session_cookie_age()
        active = Activity(stored.touched_at or now, age)
        plan = active.plan(facts, data.get("_session_expiry"))
        until = plan.lifetime.expires_at
        if facts.successor is not None:
            until = min(until, now + RECOGNISED)
        full = StoredFully(digest, stored.payload, stored.touched_at, until)
        self._move_sealed(engine, [full], {digest: key})
        return key

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

    def _exists_elsewhere(self, key: SessionKey) -> bool:
        for engine in engines():
            if isinstance(engine, Engine):
                if engine.exists(key):
                    return True
            elif engine.call(engine.peek, [key.digest]):
                return True
        return False

    # Sessions that are open: of any other engine.

    def _move(self, engine: Engine, moves: Sequence[Move]) -> int:
        """Move sessions here, and return how many of them were let in."""
        now = clock.now()
        plans = self._plans(self._may_move(moves, now), now)
        with self.atomic():
            # First, for SQLite refuses to write in a transaction that began to read too long ago.
            let_in = self._with_rows(plans, now)
            moved = [move for move in moves if move[0].digest in let_in]
            self.insert_all(
                [self._stored_of(*move, *let_in[move[0].digest], now=now) for move in moved]
            )
        # Those that have ended go as well: nobody is to find them elsewhere.
        ended = self._take_back_what_has_ended([key.digest for key, _ in moves])
        to_go = [move for move in moves if move[0].digest in let_in or move[0].digest in ended]
        _after_commit(self._leave, engine, to_go)
        return len(moved)

    def _stored_of(
        self, key: SessionKey, old: OldSession, facts: Facts, lifetime: Lifetime, now: int
    ) -> StoredFully:
        payload = sealed(facts, old.data, key, self.serializer)
        return StoredFully(key.digest, payload, now, lifetime.expires_at)

    def _may_move(self, moves: Sequence[Move], now: int) -> list[Checked]:
        """
        Return the sessions that may move: of visitors, and of users who would be let in with them.
        """
        digests = [key.digest for key, _ in moves]
        rows = {row.digest: row for row in _rows().filter(digest__in=digests)}
        users = [_user_in(old.data) for _, old in moves]
        people = _people({user for user in users if user})
        checked = []
        for (key, old), user in zip(moves, users, strict=True):
            row, person = rows.get(key.digest), people.get(user or "")
            goes_on = row is None or _goes_on(row, user, now)
            if goes_on and (user is None or _is_let_in(person, old.data)):
                checked.append(Checked(key, old, user, person, row))
        return checked

    def _plans(self, checked: Sequence[Checked], now: int) -> dict[str, Plan]:
        """Return what to write of these sessions, by digest."""
        plans = {}
        for key, old, user, person, row in checked:
            facts = NO_FACTS if user is None else self._facts_since(user, person, row, now)
            lifetime = self._lifetime_of(facts, old, now)
            is_new = user is not None and row is None
            if is_new:
                row = self._row_of(key.digest, person, old, lifetime, now)
            plans[key.digest] = Plan(facts, lifetime, row, is_new)
        return plans

    def _with_rows(self, plans: Mapping[str, Plan], now: int) -> dict[str, tuple[Facts, Lifetime]]:
        """
        Write the rows of sessions that are signed in and have none. Return the facts of all
        sessions that may move, and until when they live, by digest.
        """
        rows = {digest: plan.row for digest, plan in plans.items()}
        if new := [plan.row for plan in plans.values() if plan.row and plan.is_new]:
            # A row that somebody else has just written stays, and is the session's.
            UserSession.objects.using(_rows().db).bulk_create(new, ignore_conflicts=True)
            digests = [row.digest for row in new]
            rows |= {row.digest: row for row in _rows().filter(digest__in=digests)}
        let_in = {}
        for digest, plan in plans.items():
            row = rows[digest]
            if row is None:
                let_in[digest] = plan.facts, plan.lifetime
            elif _goes_on(row, plan.facts.user, now):
                let_in[digest] = _with_row(plan.facts, plan.lifetime, row)
        return let_in

    def _facts_since(self, user: str, person: Any, row: UserSession | None, now: int) -> Facts:
        """
        Return the facts of a session that moves. When its user has last proved who they are is not
        known, unless it was here before: that proof is none, and the longest lifetime begins now.
        """
        policy = policy_of(person, current_request.get())
        proved = row and row.authenticated_at
        began = proved or (row and row.adopted_at)
        facts = Facts(user=user).proved(
            policy, self.client, as_milliseconds(began) if began else now
        )
        return facts._replace(
            authenticated_at=as_milliseconds(proved) if proved else 0,
            keyed_at=None if facts.keyed_at is None else now,
        )

    def _lifetime_of(self, facts: Facts, old: OldSession, now: int) -> Lifetime:
        """Return until when a session lives. It is used now, or lives as long as it would have."""
        age = self.get_session_cookie_age()
        lifetime = Activity(now, age).plan(facts, old.data.get("_session_expiry")).lifetime
        if old.expires_at is None or self._is_used:
            return lifetime
        return lifetime._replace(expires_at=min(lifetime.expires_at, old.expires_at))

    @property
    def _is_used(self) -> bool:
        """Whether it is the session's user who brings it here."""
        return self.client is not None and not self.background

    def _row_of(
        self, digest: str, person: Any, old: OldSession, lifetime: Lifetime, now: int
    ) -> UserSession:
        last_login = getattr(person, "last_login", None)
        known = [old.seen_at, old.signed_in_by, last_login and as_milliseconds(last_login)]
        by = min(at for at in [*known, now] if at)
        seen_at = now if self._is_used else min(old.seen_at or now, now)
        address, user_agent = old.address, old.user_agent[:USER_AGENT_LENGTH]
        if self.client is not None and self._is_used:
            address, user_agent = self.client.address, self.client.user_agent
        return UserSession(
            pk=uuid7(by * 1_000_000),
            user=person,
            digest=digest,
            started_at=as_datetime(by),
            adopted_at=as_datetime(now),
            last_seen_at=as_datetime(seen_at),
            ip=address,
            user_agent=user_agent,
            counts=not is_impersonated(old.data),
            **lifetime.as_columns(),
        )

    def _leave(self, engine: Engine, moves: Sequence[Move]) -> None:
        """Remove sessions from where they were. What was written there meanwhile comes along."""
        try:
            keys = {old.key: key for key, old in moves}
            for old in engine.remove_all([old for _, old in moves]):
                self._leave_written(engine, keys[old.key], old)
        except StoreUnavailable:
            pass  # which is in the log; adoptsessions removes what is left there

    def _leave_written(self, engine: Engine, key: SessionKey, old: OldSession) -> None:
        """Do so with a session that was written since."""
        while (newer := engine.read(old.key)) is not None:
            self._catch_up(key, (NO_FACTS, old.data), (NO_FACTS, newer.data))
            if engine.remove(newer):
                return
            old = newer

    # Sessions that are sealed: of another engine of this package.

    def _move_sealed(
        self,
        engine: type[Storage],
        sessions: Sequence[StoredFully],
        keys: dict[str, SessionKey] | None = None,
    ) -> int:
        """Move sessions here as they are, and return how many of them were let in."""
        moved = self._not_ended(sessions)
        with self.atomic():
            self.insert_all(moved)
        self._take_back_what_has_ended([session.digest for session in moved])
        _after_commit(self._leave_sealed, engine, sessions, keys or {})
        return len(moved)

    def _not_ended(self, sessions: Sequence[StoredFully]) -> list[StoredFully]:
        """Return the sessions whose rows have not ended, none of them longer than its row."""
        digests = [session.digest for session in sessions]
        rows = {row.digest: row for row in _rows().filter(digest__in=digests)}
        going_on = []
        for session in sessions:
            until, row = session.expires_at, rows.get(session.digest)
            if row is None or row.ended_at is None:
                until = until if row is None else min(until, as_milliseconds(row.expires_at))
                going_on.append(session._replace(expires_at=until))
        return going_on

    def _leave_sealed(
        self,
        engine: type[Storage],
        sessions: Sequence[StoredFully],
        keys: dict[str, SessionKey],
    ) -> None:
        try:
            for session in sessions:
                digest, payload = session.digest, session.payload
                while not engine.call(engine.take, digest, version_of(payload)):
                    newer = engine.call(engine.read, digest)
                    if newer is None or not self._follow(keys.get(digest), digest, payload, newer):
                        break
                    payload = newer.payload
        except StoreUnavailable:
            pass  # as in _leave()

    def _follow(self, key: SessionKey | None, digest: str, payload: bytes, newer: Stored) -> bool:
        """
        Put what was written elsewhere since ``payload`` into the session as it is here. Return
        False if that cannot be: it was written here, too, and nobody has its key.
        """
        if key is None:
            return self.replace(digest, newer.payload, None, version_of(payload))
        was = opened(payload, key, self.serializer)
        became = opened(newer.payload, key, self.serializer)
        if was and became:
            self._catch_up(key, was, became)
        return True

    # What both have in common.

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

    def _take_back_what_has_ended(self, digests: Sequence[str]) -> list[str]:
        """
        Remove those of the sessions whose rows have ended, and return their digests. Who has just
        ended one has not found it, if it was not here yet.
        """
        rows = _rows().filter(digest__in=digests).exclude(ended_at=None)
        ended = list(rows.values_list("digest", flat=True))
        if ended:
            self.remove(ended)
        return ended

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
                moved = self._move(engine, moves)
            counts["visitors"] += len(readable) - len(chosen)
            counts["refused"] += len(chosen) - moved
        else:
            sealed_ones = part
            if signed_in_only:
                rows = _rows().filter(digest__in=[session.digest for session in part])
                signed_in = {*rows.values_list("digest", flat=True)}
                sealed_ones = [session for session in part if session.digest in signed_in]
            if dry_run:
                moved = len(self._not_ended(sealed_ones))
            else:
                moved = self._move_sealed(engine, sealed_ones)
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


def _rows() -> UserSessionQuerySet:
    return UserSession.objects.primary()


def _after_commit(function: Callable[..., None], *args: Any) -> None:
    transaction.on_commit(partial(function, *args), using=_rows().db)


def _user_in(data: Data) -> str | None:
    """Return the primary key of the user, None for a visitor, or "" for what can be no key."""
    try:
        return user_in(data)
    except ValidationError:
        return ""


def _people(keys: Collection[str]) -> dict[str, Any]:
    """Return users by their primary keys, as text."""
    if not keys:
        return {}
    users = get_user_model()
    found = users._base_manager.using(router.db_for_write(users)).filter(pk__in=keys)
    return {str(user.pk): user for user in found}


def _is_let_in(person: Any, data: Data) -> bool:
    if person is None or is_disabled(person):
        return False
    return has_password_of(person, data.get(HASH_SESSION_KEY, ""))


def _goes_on(row: UserSession, user: str | None, now: int) -> bool:
    """Tell whether the session of a row may come back, with this user."""
    return (
        row.ended_at is None and str(row.user_id) == user and as_milliseconds(row.expires_at) > now
    )


def _with_row(facts: Facts, lifetime: Lifetime, row: UserSession) -> tuple[Facts, Lifetime]:
    """Return the facts and the lifetime of a session that has this row: never longer than that."""
    until = as_milliseconds(row.expires_at)
    lifetime = lifetime._replace(expires_at=min(lifetime.expires_at, until))
    return facts._replace(handle=row.pk.hex, row_expires_at=until), lifetime
