"""The end of a request: its activity is written, in the store and in the row."""

from typing import cast

from django_sessionkit import clock, registry
from django_sessionkit.backends import lifetimes
from django_sessionkit.backends.facts import Facts
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.records import Record
from django_sessionkit.backends.renewing import Renewing
from django_sessionkit.backends.sealing import SessionKey, version_of
from django_sessionkit.conf import conf
from django_sessionkit.storage import Seen


class Touching(Renewing):
    def _finish(self, answered: bool) -> Flow[None]:
        """
        Write the activity, and give the session a new key if it is time for one. ``answered``: the
        visitor is going to get the cookie.
        """
        record = self._record
        key, came_by = self._key, self._came_by
        if record is None or key is None:
            return
        # A key that this request has given the session has not reached the browser yet.
        is_unseen = record.facts.previous is not None and key == self._given_key
        is_due = self._activity_is_due and not self.background
        if not (is_unseen or is_due):
            return
        now = clock.now()
        if is_due:
            self._activity_is_due = False
            touched_at = record.touched_at
            if self._is_over(record, now) or lifetimes.lock_at(record.facts, touched_at, now):
                return
            is_buffered = conf.SESSIONKIT_ACTIVITY == "buffered"
            if not (is_buffered and (yield from self._put_aside(record, now))):
                checked = yield from self._is_checked(record)
                if not (checked and (yield from self._touch(key, now))):
                    return
        if is_unseen:
            yield from self._new_key_arrived(self._record or record, key, now)
        if not is_due:
            return
        if answered and not came_by and self._wants_new_key(now):
            # A request that came by a former key does not: another request has changed the key.
            renew = self._renew_for_privileges if self._privileges_changed else self._renew
            yield from renew(key, now)
        else:
            self.slid = True

    def _put_aside(self, record: Record, now: int) -> Flow[bool]:
        """
        Write the activity into the store alone, from where a task carries it to the row, if that
        can wait. Otherwise return False, and change nothing: the session has an activity to write
        that cannot, or it was ended or changed by another request meanwhile.
        """
        facts, data = record.facts, self._session_cache
        # An expiry that the view has set goes into the row first.
        is_plain = self._came_by is None and data.get("_session_expiry") == record.expiry
        if not (self._is_unchecked and is_plain and self._can_wait(record, now)):
            return False
        lifetime = self._lifetime(facts, data, now)
        seen = Seen(record.digest, facts.row, now, *lifetime, version_of(record.payload))
        return bool((yield self.touch_later, seen))

    def _is_checked(self, record: Record) -> Flow[bool]:
        """
        Tell whether the registry has let the session go on. A session that was loaded before it was
        put on the request is only looked at now: the next request is told.
        """
        if not (self._is_unchecked and record.facts.handle):
            return True
        self._is_unchecked = False
        self._activity_is_due = True
        verdict = yield from self._check(record, self._session_cache, resuming=False)
        self._activity_is_due = False
        return verdict is None or isinstance(verdict, Facts)

    def _touch(self, key: SessionKey, now: int) -> Flow[bool]:
        """
        Write the activity. Return False if the session was ended or given a new key meanwhile, or
        if its time was over before the view was done: the next request is told. Return False, too,
        if another transaction holds the session or its row: it stays due.
        """
        record = cast("Record", self._record)
        facts = record.facts
        lifetime = self._lifetime(facts, self._session_cache, now)
        if facts.handle:
            # First, because the store must never say later than the row, which also knows whether
            # the session has ended, and whether this is still the key.
            row = facts.handle, facts.may_have(key.digest), now, lifetime, self.client
            if not (yield registry.touch, *row):
                return False
        # Under another version may lie a trace: of two tabs, the other one has the new key. If it
        # is only another request's save, that one writes the activity.
        expected = version_of(record.payload) if facts.handle else None
        if not (yield self.touch, key.digest, now, lifetime.expires_at, expected):
            return False
        if self._came_by and facts.previous:  # the former key is still all that the visitor has
            yield self.touch, self._came_by, now, lifetime.expires_at
        if facts.handle:
            facts = facts._replace(row_expires_at=lifetime.expires_at)
            known = self._with_client(facts, self.client)
            if known is not facts:
                facts, self.modified = known, True
            by_clock = facts.with_clock_set(now, 1000 * conf.SESSIONKIT_TOUCH_INTERVAL)
            self._keep(by_clock)
            if by_clock is not facts:
                self.modified = True
        return True
