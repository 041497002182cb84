"""
A session that an engine of somebody else has moves here:

1. Open the row of a session that is signed in, with what is known. A row with this digest that has
   ended refuses the session: it does not come back from elsewhere.
2. Insert the session under its digest, with a mark: see exchanging.py. Of several processes that do
   this at the same time, the digest lets one do it, and all of them go on with that session.
3. Remove the old one. What was written there meanwhile comes along.
4. Take the mark away.

A request that has loaded the old one goes on with it until it is removed, and nobody uses the new
one before: so nobody reads, or writes over, less than what was saved last. Wherever this breaks
off, the session is somewhere.

In the transaction of a view, which others cannot look into, there is no mark, and step 3 is done
once that is committed. Neither is there one for ``adoptsessions``: it moves what nobody uses.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, cast

from django.contrib.auth import HASH_SESSION_KEY, get_user_model
from django.core.exceptions import ValidationError
from django.db import connections, router

from django_sessionkit import clock
from django_sessionkit.accounts import (
    actor_in,
    has_password_of,
    is_disabled,
    policy_of,
    storable_key,
    user_in,
)
from django_sessionkit.adoption import Engine, OldSession
from django_sessionkit.backends.exchanging import (
    Exchanging,
    Outcome,
    after_commit,
    is_moving,
    new_mark,
    rows,
    unmarked,
)
from django_sessionkit.backends.facts import Facts
from django_sessionkit.backends.plans import Activity
from django_sessionkit.backends.records import NO_FACTS, Data, sealed
from django_sessionkit.backends.sealing import SessionKey, version_of
from django_sessionkit.clock import Lifetime, as_datetime, as_milliseconds
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import UserSession, uuid7
from django_sessionkit.novelty import networks_of
from django_sessionkit.storage import StoredFully
from django_sessionkit.visit.client import USER_AGENT_LENGTH, Client, address_in
from django_sessionkit.visit.current import current_request

# A session that is written elsewhere so many times while it moves here is left there as well.
WRITES = 100
# What is to move: a session, and the key that it has here.
Move = tuple[SessionKey, OldSession]


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

    @property
    def is_back(self) -> bool:
        """Whether the session had its row before it moves."""
        return self.row is not None and not self.is_new


class Admitting(Exchanging):
    # The middleware sets this. None where there is no request (tests, a shell, Channels): a session
    # that is used there is not touched, and what is known about its device is kept.
    client: Client | None = None
    # This request is no activity of its user's: see decorators.py.
    background = False

    def _admit(self, engine: Engine, key: SessionKey, old: OldSession, force: bool) -> Outcome:
        """Move a session here. ``force``: also if another process has begun to, and broke off."""
        digest, now, stored = key.digest, clock.now(), self.read(key.digest)
        if stored is not None and not (force and is_moving(stored.payload)):
            return Outcome.BUSY if is_moving(stored.payload) else Outcome.MOVED
        mark = b"" if connections[rows().db].in_atomic_block else new_mark()
        plans = self._plans(self._may_move([(key, old)], now), now)
        with self.atomic():
            # First, for SQLite refuses to write in a transaction that began to read too long ago.
            let_in = self._with_rows(plans, now)
            if digest in let_in:
                session = self._stored_of(key, old, *let_in[digest], now=now)
                session = session._replace(payload=mark + session.payload)
                if stored is None:
                    is_mine = self._insert_anew(session)
                else:
                    before = version_of(stored.payload)
                    is_mine = self.replace(digest, session.payload, session.expires_at, before)
                if is_mine and plans[digest].is_back:
                    _write_lifetimes([plans[digest]])
        if self._take_back_what_has_ended([digest]):
            # Nobody is to find it elsewhere.
            after_commit(self._leave_open, engine, [(key, old)])
            return Outcome.REFUSED
        if digest not in let_in:
            return Outcome.REFUSED
        if not is_mine:
            return Outcome.BUSY
        if mark:
            self._hand_over(engine, key, old, let_in[digest][0], session.payload)
        else:
            after_commit(self._leave_open, engine, [(key, old)])
        return Outcome.MOVED

    def _hand_over(
        self, engine: Engine, key: SessionKey, old: OldSession, facts: Facts, marked: bytes
    ) -> None:
        """Remove a session from where it was, and let it be used here, as it was there at last."""
        mark = version_of(marked)
        try:
            for _ in range(WRITES):
                if engine.remove(old) or (newer := engine.read(old.key)) is None:
                    break
                marked = mark + sealed(facts, newer.data, key, self.serializer)
                if not self.replace(key.digest, marked, None, mark):
                    # This took so long that somebody else has gone on.
                    self._leave_written(engine, key, old)
                    return
                old = newer
        except StoreUnavailable:
            pass  # which is in the log; adoptsessions removes what is left there
        self.replace(key.digest, unmarked(marked), None, mark)

    def _admit_all(self, engine: Engine, moves: Sequence[Move]) -> int:
        """Move sessions here that nobody uses, and return how many of them were let in."""
        now = clock.now()
        plans = self._plans(self._may_move(moves, now), now)
        back = {digest: plan for digest, plan in plans.items() if plan.is_back}
        here = self.peek(list(back)) if back else set()
        with self.atomic():
            # First, for SQLite refuses to write in a transaction that began to read too long ago.
            let_in = self._with_rows(plans, now)
            moved = [move for move in moves if move[0].digest in let_in]
            _write_lifetimes([plan for digest, plan in back.items() if digest not in here])
            self.insert_all(
                [self._stored_of(*move, *let_in[move[0].digest], now=now) for move in moved]
            )
        # Those that have ended go as well: nobody is to find them elsewhere.
        ended = self._take_back_what_has_ended([key.digest for key, _ in moves])
        to_go = [move for move in moves if move[0].digest in let_in or move[0].digest in ended]
        after_commit(self._leave_open, engine, to_go)
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
        known = {row.digest: row for row in rows().filter(digest__in=digests)}
        users = [_user_in(old.data) for _, old in moves]
        people = _people({user for user in users if user})
        checked = []
        for (key, old), user in zip(moves, users, strict=True):
            row, person = known.get(key.digest), people.get(user or "")
            goes_on = row is None or _goes_on(row, user, old, now)
            if goes_on and (user is None or _is_let_in(person, old.data)):
                checked.append(Checked(key, old, user, person, row))
        return checked

    def _plans(self, checked: Sequence[Checked], now: int) -> dict[str, Plan]:
        """Return what to write of these sessions, by digest."""
        plans = {}
        for key, old, user, person, row in checked:
            facts = NO_FACTS
            if user is not None:
                actor = actor_in(old.data)
                facts = self._facts_since(Facts(user=user, actor=actor), person, row, now)
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
        known = {digest: plan.row for digest, plan in plans.items()}
        if new := [plan.row for plan in plans.values() if plan.row and plan.is_new]:
            # A row that somebody else has just written stays, and is the session's.
            UserSession.objects.using(rows().db).bulk_create(new, ignore_conflicts=True)
            digests = [row.digest for row in new]
            known |= {row.digest: row for row in rows().filter(digest__in=digests)}
        let_in = {}
        for digest, plan in plans.items():
            row = known[digest]
            if row is None:
                let_in[digest] = plan.facts, plan.lifetime
            elif _is_open(row, plan.facts.user):
                until = plan.lifetime.expires_at
                if plan.is_new:  # or somebody else has just written it
                    until = min(until, as_milliseconds(row.expires_at))
                facts = plan.facts._replace(handle=row.pk.hex, row_expires_at=until)
                let_in[digest] = facts, plan.lifetime._replace(expires_at=until)
        return let_in

    def _facts_since(self, facts: Facts, person: Any, row: UserSession | None, now: int) -> Facts:
        """
        Return the facts of a session that moves. When its user has last proved who they are is not
        known, unless it was here before: that proof is none, and the longest lifetime begins now.
        """
        policy = policy_of(person, current_request.get())
        proved = row and row.authenticated_at
        began = proved or (row and row.adopted_at)
        facts = facts.proved(policy, self.client, as_milliseconds(began) if began else now)
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
        actor = actor_in(old.data)
        last_login = getattr(person, "last_login", None)
        known = [old.seen_at, old.signed_in_by, last_login and as_milliseconds(last_login)]
        by = min(at for at in [*known, now] if at)
        seen_at = now if self._is_used else min(old.seen_at or now, now)
        client = self.client if self._is_used else None
        if client is None:
            client = Client(address_in(old.address or ""), old.user_agent[:USER_AGENT_LENGTH])
        return UserSession(
            pk=uuid7(by * 1_000_000),
            user=person,
            digest=digest,
            started_at=as_datetime(by),
            adopted_at=as_datetime(now),
            last_seen_at=as_datetime(seen_at),
            ip=client.recorded_address,
            user_agent=client.user_agent,
            client_hints=client.hints,
            networks=networks_of(client.recorded_address),
            counts=actor is None,
            support=actor is not None,
            **lifetime.as_columns(),
        )

    def _leave_open(self, engine: Engine, moves: Sequence[Move]) -> None:
        """Remove sessions from where they were. What was written there meanwhile comes along."""
        try:
            keys = {old.key: key for key, old in moves}
            for old in engine.remove_all([old for _, old in moves]):
                self._leave_written(engine, keys[old.key], old)
        except StoreUnavailable:
            pass  # which is in the log; adoptsessions removes what is left there

    def _leave_written(self, engine: Engine, key: SessionKey, old: OldSession) -> None:
        """Do so with a session that was written since."""
        for _ in range(WRITES):
            if (newer := engine.read(old.key)) is None:
                return
            if not self._catch_up(key, (NO_FACTS, old.data), (NO_FACTS, newer.data)):
                return
            if engine.remove(newer):
                return
            old = newer


def _user_in(data: Data) -> str | None:
    """Return the primary key of the user, None for a visitor, or "" for what can be no key."""
    try:
        user = user_in(data)
        return None if user is None else storable_key(user)
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


def _goes_on(row: UserSession, user: str | None, old: OldSession, now: int) -> bool:
    """Tell whether the session of a row may come back, with this user."""
    # If it has expired by its row, but was saved elsewhere since: there it was in use.
    was_used = (old.seen_at or 0) > as_milliseconds(row.last_seen_at)
    return _is_open(row, user) and (as_milliseconds(row.expires_at) > now or was_used)


def _is_open(row: UserSession, user: str | None) -> bool:
    return row.ended_at is None and str(row.user_id) == user


def _write_lifetimes(plans: Sequence[Plan]) -> None:
    """
    Have the rows of sessions that were elsewhere say again when these expire here, unless somebody
    has written a row since.
    """
    for plan in plans:
        row = cast("UserSession", plan.row)
        found = rows().filter(pk=row.pk, ended_at=None, expires_at=row.expires_at)
        found.update(**plan.lifetime.as_columns())
