"""Each way to save a session: created, saved, given a new key, deleted, flushed, unlocked."""

from contextlib import suppress

from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import CreateError, UpdateError

from django_sessionkit import clock, limits, registry
from django_sessionkit.accounts import has_hash_of_former_secret, user_in
from django_sessionkit.backends import lifetimes
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.records import NO_FACTS, Data, Found, Record
from django_sessionkit.backends.renewing import Renewing
from django_sessionkit.backends.sealing import SessionKey
from django_sessionkit.backends.writing import Writing
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import TooManySessions
from django_sessionkit.models import EndReason
from django_sessionkit.visit.interruptions import Locked, Missing


class Saving(Writing, Renewing):
    # The operations of Django's contract.

    def _exists(self, key: SessionKey | None) -> Flow[bool]:
        if key is None:
            return False
        if key.digest in (yield self.peek, [key.digest]):
            return True
        return bool(conf.SESSIONKIT_ADOPT_FROM and (yield self._exists_elsewhere, key))

    def _create(self, early: bool = False) -> Flow[None]:
        data = self._data_without_loading()
        self._refuse_while_locked(data)
        self.is_beside = self.is_beside or self._is_unopened
        self._forget()
        # The view goes on. If it replaces another user's session in order to act as this user, it
        # may note that only afterwards.
        self._decides_later = early and self._flushed is not None and self.client is not None
        # Random keys are never equal by chance: if one is taken, the random source repeats itself.
        for _ in range(3):
            with suppress(CreateError):
                yield from self._insert(self._new_key(), data)
                self.modified = self.is_new = True
                return
        raise CreateError("Every new session key was taken.")

    def _save(self, must_create: bool) -> Flow[None]:
        key = self._key
        if key is None:
            yield from self._create()
        elif must_create:
            yield from self._insert(key, self._data_without_loading())
        else:
            try:
                record = yield from self._what_is_replaced(key)
            except UpdateError:
                if not self._is_unopened:
                    raise
                # Another server may be able to open it: what this one has to write goes elsewhere.
                if self._session_cache:
                    yield from self._create()
                return
            facts = record.facts
            is_another = facts.user != user_in(self._session_cache, facts.user)
            # Whoever signs out, or in as another user, without logout() or login() gets a new key
            # all the same: the old one belongs to a row that ends now. So does a visitor who signs
            # in: somebody else may have put the old key into their browser.
            if is_another and (facts.handle or self._has_key_of_request()):
                yield from self._write(record, self._new_key(), facts)
                # Whatever middleware there is gives the new key.
                self.modified = self.has_new_key = True
            else:
                yield from self._write(record, record.key, facts)

    def _cycle(self, proved: bool = False) -> Flow[None]:
        """
        Give the session a new key. The old key is dead when this returns; the row follows.

        A session that was ended meanwhile does not come back: UpdateError. The session of a visitor
        who is not signed in may be gone for any reason: its contents get a new one.
        """
        key = self._key
        if key is None:
            if proved and self.interruption:
                raise UpdateError("The session has ended, or is locked: see unlock().")
            # login() begins with this. If the session is locked, the save after login() makes
            # another one and ends this.
            if self._locked_key is None:
                yield from self._create()
            return
        try:
            record = yield from self._what_is_replaced(key)
            facts = record.facts
            if not proved and (yield from self._renew_for_new_secret(record)):
                return
            if proved and facts.handle:
                record = record._replace(touched_at=0)
                facts = yield from self._authenticated(facts)
            if facts.keyed_at is not None:
                facts = facts._replace(keyed_at=clock.now())
            yield from self._write(record, self._new_key(), facts)
            self.modified = True
        except TooManySessions:
            raise
        except UpdateError:
            if proved or self._facts.handle:
                raise
            yield from self._create()

    def _renew_for_new_secret(self, record: Record) -> Flow[bool]:
        """
        Tell whether it is because of a new SECRET_KEY that Django's get_user() changes the key.
        Nobody has asked for that: the key is renewed, so that requests under way keep their
        session. A key that is new already, or that the visitor would not get, stays.
        """
        facts, auth_hash = record.facts, self._session_cache.get(HASH_SESSION_KEY)
        if not (settings.SECRET_KEY_FALLBACKS and facts.handle and auth_hash):
            return False
        if not (yield has_hash_of_former_secret, facts.user, auth_hash):
            return False
        if not (self.background or self._came_by or facts.previous):
            yield from self._renew(record.key, clock.now())
        self.modified = True
        return True

    def _delete(self, given: SessionKey | None) -> Flow[None]:
        is_own = given in (None, self._session_key)
        known = is_own and self._record is not None
        key = given or self._key or self._locked_key
        if key is None:
            return
        digests, facts = [key.digest], self._facts
        if not known and not (is_own and self._is_unopened):
            found = yield from self._resolve(key)
            facts = found.record.facts if isinstance(found, Found) else NO_FACTS
            digests += [found.record.digest] if isinstance(found, Found) else []
        # First, so that whoever is told that the store is down can try again.
        yield self.remove, digests
        if conf.SESSIONKIT_ADOPT_FROM:
            yield self._forget_elsewhere, key
        if facts.handle:
            yield registry.mark_ended, facts.handle, EndReason.LOGOUT
            # Afterwards: until the row was marked, a parallel request may have given it a new key.
            if left := set((yield registry.digests_of, facts.handle)) - set(digests):
                yield self.remove, left
            if facts.by_header:
                yield registry.end_children, facts.handle
        elif not known:
            yield registry.sign_out, key.digest

    def _flush(self) -> Flow[None]:
        yield from self._delete(None)
        self._flushed = self._facts if self._facts.handle else None
        self.clear()
        self._forget()
        self._unlocked()
        self._session_key = None

    def _unlock(self, full: bool) -> Flow[None]:
        if not self.is_loaded():
            self._session_cache = yield from self._load()
        lock = self.interruption
        if not isinstance(lock, Locked):
            raise UpdateError("The session is not locked.")
        if lock.limit is not None and not (yield limits.admit, lock.handle, lock.limit):
            raise TooManySessions(lock.limit)
        self._session_key = self._locked_key
        self._session_cache = yield from self._load(resuming=True)
        record = self._record
        if record is None:
            raise UpdateError("The session has ended.")
        waited = record.facts.pending is not None
        facts = record.facts._replace(pending=None)
        if full:
            facts = yield from self._authenticated(facts)
        elif not waited:  # to make room proves nothing
            facts = facts._replace(authenticated_at=clock.now())
        if full or not waited:
            facts = facts.rebound(self.client)
        yield from self._write(record._replace(touched_at=0), self._new_key(), facts)
        self.modified = True

    # The dictionary, before it is written.

    def _data_without_loading(self) -> Data:
        """Return the dictionary as save() and create() of a new session find it."""
        self.accessed = True
        if not self.is_loaded():
            self._session_cache = {}
        return self._session_cache

    def _what_is_replaced(self, key: SessionKey) -> Flow[Record]:
        """
        Know the dictionary, and what is stored under its key, before writing over that. Raises
        UpdateError if nothing is.
        """
        self.accessed = True
        if not self.is_loaded():
            self._session_cache = yield from self._load()
        elif self._record is None and not self._is_unopened:
            # Somebody set the dictionary without reading what is stored, as clear() does.
            if self.client is None:
                self._join()
            found = yield from self._resolve(key)
            if not isinstance(found, Found):
                raise self._ended(found)
            record = found.record
            if self._is_over(record, clock.now()):
                raise self._ended(Missing(record.digest))
            if lock := lifetimes.lock_at(record.facts, record.touched_at, clock.now()):
                self._lock_up(lock, record, found.data)
                self._refuse_while_locked({})
            self._session_key = record.key
            self._note_the_way(found)
            self._record = record._replace(expiry=None)
            self._replaces_all = True
        if self._record is None:
            self._refuse_while_locked({})
            raise UpdateError("The session has ended.")
        return self._record

    def _refuse_while_locked(self, data: Data) -> None:
        if self._locked_key and SESSION_KEY not in data:
            raise UpdateError("The session is locked.")
