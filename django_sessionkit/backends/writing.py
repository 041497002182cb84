"""One write of a session, and of its row in the registry, which is kept true to the session."""

from contextlib import AbstractContextManager, nullcontext
from typing import cast

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import CreateError

from django_sessionkit import registry
from django_sessionkit.accounts import user_in
from django_sessionkit.backends.exchanging import after_commit
from django_sessionkit.backends.facts import Facts
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.plans import Plan
from django_sessionkit.backends.records import NO_FACTS, Data, Found, Record, sealed
from django_sessionkit.backends.sealing import SessionKey, version_of
from django_sessionkit.backends.signing_in import SigningIn, with_row
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import TooManySessions
from django_sessionkit.models import EndReason
from django_sessionkit.visit.interruptions import Missing

ONE_STATEMENT: AbstractContextManager[object] = nullcontext()


class Writing(SigningIn):
    def _insert(self, key: SessionKey, data: Data) -> Flow[None]:
        facts = NO_FACTS
        plan = self._activity().plan(facts, data.get("_session_expiry"))
        try:
            with self._transaction(facts, data, plan):
                facts, plan = yield from self._keep_row_true(facts, data, key.digest, plan)
                payload = sealed(facts, data, key, self.serializer)
                moments = plan.active_at, plan.lifetime.expires_at
                if not (yield self.insert, key.digest, payload, *moments):
                    raise CreateError
                yield from self._check_not_revoked(facts, key.digest)
        except Exception:
            yield from self._take_row_back(facts)
            raise
        self._is_now_stored(key, payload, facts, data)
        yield from self._note_transaction(facts.handle is not None)
        yield from self._announce()

    def _write(self, record: Record, new_key: SessionKey, facts: Facts) -> Flow[None]:
        """
        Write the dictionary and ``facts`` in the place of ``record``, under this key or a new one.
        What other requests have written since is merged.
        """
        data, key, moving = self._session_cache, record.key, record.key != new_key
        before = record.facts
        is_same_user = before.user == user_in(data, before.user)
        moves_row = moving and before.handle is not None and is_same_user
        touched_at = record.touched_at
        plan = self._activity(touched_at).plan(facts, data.get("_session_expiry"), moving)
        try:
            with self._transaction(facts, data, plan, moving):
                if moves_row:
                    # Before the key moves: a parallel request that finds the old key gone looks for
                    # the row by the old digest, and would close it as lost.
                    key = yield from self._move_row(key, new_key.digest, facts, plan)
                    facts, plan = with_row(facts, plan)
                while True:
                    facts, plan = yield from self._keep_row_true(
                        facts, data, new_key.digest, plan, moving
                    )
                    payload = sealed(facts, data, new_key, self.serializer)
                    until, expected = plan.without_row, version_of(record.payload)
                    if moving:
                        to = new_key.digest, payload, plan.active_at, until, expected
                        done = yield self.move, key.digest, *to
                    else:
                        done = yield self.replace, key.digest, payload, until, expected
                    if done:
                        break
                    record, facts = yield from self._merged(key, record, facts)
                    data, key = self._session_cache, record.key
                    if not moving:
                        new_key = key
                    expiry = data.get("_session_expiry")
                    plan = self._activity(touched_at).plan(facts, expiry, moving)
                if moves_row or facts.handle != before.handle:
                    yield from self._check_not_revoked(facts, new_key.digest)
        except Exception as error:
            yield from self._take_row_back(facts)
            if self._decides_later and isinstance(error, TooManySessions):
                # create() has let the session in, until it could be decided.
                yield self.remove, [key.digest]
                yield registry.take_back, before.handle
                self._session_key = None
            if moves_row:  # a store that failed, a value that cannot be stored
                plan = self._activity(touched_at).plan(before, data.get("_session_expiry"), moving)
                back = [new_key.digest], key.digest, plan.active_at, plan.lifetime
                yield registry.rekey, before.handle, *back, before.authenticated_at
            raise
        self._is_now_stored(new_key, payload, facts, data)
        is_new = moving or facts.handle != before.handle
        yield from self._note_transaction(is_new, key if moving else None)
        yield from self._announce()

    def _transaction(
        self, facts: Facts, data: Data, plan: Plan, moving: bool = False
    ) -> AbstractContextManager[object]:
        """One statement needs no transaction. Where the row is written too, there are two."""
        user = user_in(data, facts.user)
        writes_row = moving or plan.row_is_behind or self._is_to_be_decided(facts, data)
        if user == facts.user and (user is None or not writes_row):
            return ONE_STATEMENT
        return self.atomic()

    # The row.

    def _keep_row_true(
        self, facts: Facts, data: Data, digest: str, plan: Plan, moving: bool = False
    ) -> Flow[tuple[Facts, Plan]]:
        """
        Keep the registry true to the dictionary that is about to be written. Return the facts to
        write with it, and what else to write. Here, and not in a receiver: every way to sign in
        ends in a save.
        """
        user = user_in(data, facts.user)
        if user == facts.user:
            if self._is_to_be_decided(facts, data):
                facts, plan = yield from self._decide(facts, data, digest)
            if facts.handle and plan.row_is_behind:
                client = None if self.background else self.client
                at = facts.may_have(digest), plan.active_at, plan.lifetime, client
                seen_at = 0
                if conf.SESSIONKIT_ACTIVITY == "buffered" and not (client or moving):
                    stored = yield self.read, digest
                    seen_at = stored.touched_at if stored else 0
                if (yield registry.touch, facts.handle, *at, seen_at):
                    facts, plan = with_row(self._with_client(facts, client), plan)
            return facts, plan
        if facts.handle:
            reason = EndReason.LOGOUT if user is None else EndReason.REPLACED
            yield registry.mark_ended, facts.handle, reason
        if user is None:
            expiry = data.get("_session_expiry")
            return NO_FACTS, self._activity().plan(NO_FACTS, expiry, moving)
        if self._flushed:
            # By login(), which flushes the session of another user. Not a logout after all.
            yield registry.call_replaced, self._flushed.handle
        return (yield from self._open_row(user, data, digest))

    def _move_row(self, key: SessionKey, new: str, facts: Facts, plan: Plan) -> Flow[SessionKey]:
        """Have the row follow to a new key; return the key that the session has until then."""
        row = new, plan.active_at, plan.lifetime, facts.authenticated_at
        while not (yield registry.rekey, facts.handle, facts.may_have(key.digest), *row):
            found = yield from self._resolve(key, again=True)
            if not isinstance(found, Found) or found.record.key == key:
                raise self._ended(Missing(key.digest))
            key = found.record.key  # a parallel request has renewed it
        return key

    def _check_not_revoked(self, facts: Facts, digest: str) -> Flow[None]:
        """
        Look whether a row that was written before its session is still alive. A revocation in
        between has not found the session, for that was not there yet.
        """
        if facts.handle and not (yield registry.is_open, facts.handle, digest):
            yield self.remove, [digest]
            raise self._ended(Missing(digest))

    def _note_transaction(self, matters: bool, former: SessionKey | None = None) -> Flow[None]:
        """
        Note whether a new key or a new row has been written that can be rolled back. Once it
        cannot, nobody is to find what another engine may have kept under the ``former`` key.
        """
        if matters:
            self._may_be_rolled_back = yield (registry.is_in_transaction,)
        if former and conf.SESSIONKIT_ADOPT_FROM:
            yield after_commit, self._forget_copies, former

    def _look_after_row(self) -> Flow[None]:
        """
        Look, after the view's transaction, whether that was rolled back. On a database, the session
        is as it was before the view, under its former key. Redis has kept what the view has
        written, but the row is gone, or has the digest of the former key: then nobody has signed
        in, or the row has to follow again.
        """
        record = cast("Record", self._record)
        facts, key = record.facts, record.key
        self._may_be_rolled_back = False
        digests = (yield registry.digests_of, facts.handle) if facts.handle else []
        if key.digest in digests:
            return
        if (yield self.read, key.digest) is None:
            self.is_rolled_back = True
            raise self._ended(Missing(key.digest))
        if digests:
            plan = self._activity().plan(facts, self._session_cache.get("_session_expiry"), True)
            row = digests, key.digest, plan.active_at, plan.lifetime, facts.authenticated_at
            yield registry.rekey, facts.handle, *row
        elif facts.handle:
            for name in (SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY):
                self._session_cache.pop(name, None)
            self._keep(NO_FACTS)
            yield from self._write(record._replace(facts=NO_FACTS), key, NO_FACTS)
            self.modified = True
