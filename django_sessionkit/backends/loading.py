"""A session is read: its dictionary, or what is left of that to whoever may not have it."""

from collections.abc import Callable
from typing import cast

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.backends.base import UpdateError
from django.middleware.csrf import CSRF_SESSION_KEY

from django_sessionkit import clock
from django_sessionkit.backends import lifetimes
from django_sessionkit.backends.checking import Again, Checking, Verdict
from django_sessionkit.backends.facts import Facts
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.plans import Activity
from django_sessionkit.backends.records import NO_FACTS, Data, Found, Record
from django_sessionkit.backends.sealing import SessionKey, as_key, new_session_key
from django_sessionkit.visit.client import Visit
from django_sessionkit.visit.current import is_loaded_session, note_loaded, visit_of
from django_sessionkit.visit.interruptions import (
    Interruption,
    Lock,
    Locked,
    Missing,
    NoAnswer,
    Unopened,
)

# How many new keys are drawn at most until the session of one can be stored. If two nodes of three
# are down, all of them fall to these in one case of 190,000.
TRIES = 30


class Loading(Checking):
    _session_cache: Data  # Django's: the dictionary that the view holds, once it is loaded
    # The receiver of user_logged_in sets this, to spare a query.
    signing_in: AbstractBaseUser | None = None

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(as_key(session_key))
        # What the middleware asks afterwards.
        self.interruption = None
        self.slid = False  # the expiry has slid, so the cookie's should too
        self.has_new_key = False  # the session has another key than the cookie
        self._given_key = self._session_key
        self.has_given_key = False  # the view's answer has the key in it
        self.is_new = False  # this request has made the session: no cookie has led to it
        self.is_rolled_back = False  # what this request has written of the session is gone
        self.is_beside = False  # the cookie has led to another one, which does not open here
        self._locked_key: SessionKey | None = None
        self._flushed: Facts | None = None  # of the session of a user that was flushed
        # This request has opened the row, and nobody has noted so far that they act as its user.
        self._is_entered = False
        self._decides_later = False  # whether the session counts towards the limit
        # The handle of the row that this request has opened, and what is new, until that is told.
        self._to_announce: tuple[str, str] | None = None
        self._forget()

    def _forget(self) -> None:
        self._record: Record | None = None
        # Set by clear(): the next save replaces the stored dictionary instead of merging into it.
        self._replaces_all = False
        self._has_to_wait = False  # this request has signed in, and there was no room
        self._activity_is_due = False
        # The registry was not asked before the view saw the session: that was loaded before it was
        # put on the request, or its activity may wait in the store.
        self._is_unchecked = False
        self._privileges_changed = False
        self._came_by: str | None = None  # the digest of the former key that has led here
        self._led_to: SessionKey | None = None  # the key that it has led to
        self._is_delivered = False  # the browser has used the key after that former key
        # Somebody's transaction, which is still open, has a new key of the session, or a new row.
        self._may_be_rolled_back = False

    @property
    def _key(self) -> SessionKey | None:
        return as_key(self._session_key)

    @property
    def _facts(self) -> Facts:
        return NO_FACTS if self._record is None else self._record.facts

    def _has_key_of_request(self) -> bool:
        """Tell whether a request has come with the key that the session still has."""
        if self._session_key != self._given_key:
            return False
        return self.client is not None or visit_of(self) is not None or is_loaded_session(self)

    @property
    def _is_unopened(self) -> bool:
        """Whether what is stored under the key does not open here."""
        return self._record is None and isinstance(self.interruption, Unopened)

    def _keep(self, facts: Facts) -> None:
        """Know these facts from now on. They are stored when the session is saved next."""
        self._record = cast("Record", self._record)._replace(facts=facts)

    def is_loaded(self) -> bool:
        """Tell whether the dictionary is there: read, or set by somebody who did not read it."""
        return hasattr(self, "_session_cache")

    def ensure_loaded(self) -> None:
        """Read the session, if nobody has yet. Raises StoreUnavailable."""
        self.get("")

    def _new_key(self, new: Callable[[], SessionKey] | None = None) -> SessionKey:
        """Return a new key, and one whose session can be stored now if there is any."""
        for _ in range(TRIES):
            key = (new or new_session_key)()
            if self.is_within_reach(key.digest):
                break
        return key

    # Reading.

    def join(self, visit: Visit) -> None:
        """Take part in a request, as the session that the middleware has put on it does."""
        self.client, self.background = visit.client, self.background or visit.background
        record = self._record
        if record is not None and record.touched_at:  # loaded before anybody knew of the request
            is_due = self._is_due(record, clock.now(), self.get_session_cookie_age())
            self._activity_is_due = self._is_unchecked = is_due

    def _join(self) -> None:
        """See whether somebody else, a package say, has put this session on the request."""
        if (visit := visit_of(self)) is not None:
            self.join(visit)
            visit.others.append(self)
        else:
            note_loaded(self)

    def _load(self, resuming: bool = False) -> Flow[Data]:
        self._forget()
        if self.client is None:
            self._join()
        if self._locked_key is not None:
            self._unlocked()
        key = self._key
        if key is None:
            return {}
        found = yield from self._resolve(key)
        if not isinstance(found, Found):
            return self._load_nothing(found)
        record, data = found.record, found.data
        facts, touched_at, now = record.facts, record.touched_at, clock.now()
        cookie_age = self.get_session_cookie_age()
        is_over = lifetimes.is_over(facts, touched_at, now, record.expiry, cookie_age)
        verdict: Verdict = Missing(record.digest) if is_over else None
        verdict = verdict or (None if resuming else lifetimes.lock_at(facts, touched_at, now))
        if verdict is None and self.client is not None:
            self._activity_is_due = self._is_due(record, now, cookie_age)
            if facts.handle and (self._activity_is_due or facts.bound):
                verdict = yield from self._check(record, data, resuming, not resuming)
        if isinstance(verdict, Facts):
            record = record._replace(facts=verdict)
        elif verdict is not None:
            return (yield from self._load_no_further(verdict, record, data, resuming))
        self._record = record
        self.has_new_key = found.came_by is not None
        if record.key is not key:
            self._session_key = record.key
            self._note_the_way(found)
        return data

    def _note_the_way(self, found: Found) -> None:
        """Note which former key has led to a session, if one has."""
        self._came_by = found.came_by
        if found.came_by is not None:
            self._led_to, self._is_delivered = found.record.key, found.is_delivered

    def _load_nothing(self, instead: Missing | Unopened | None) -> Data:
        self._forget()
        if instead:
            self._interrupted_by(instead)
        if not isinstance(instead, Unopened):  # whose key stays, as its cookie does
            self._session_key = None
        return {}

    def _load_no_further(
        self, verdict: Missing | Lock | Again, record: Record, data: Data, resuming: bool
    ) -> Flow[Data]:
        if isinstance(verdict, Again):
            return (yield from self._load(resuming))
        if isinstance(verdict, Missing):
            if self._is_over(record, clock.now()):
                # The store has kept it: its clock is behind, or somebody else has put it there.
                yield self.remove, [record.digest]
            return self._load_nothing(verdict)
        return self._lock_up(verdict, record, data)

    # What comes between a request and its session.

    def _interrupted_by(self, interruption: Interruption) -> None:
        # A store that did not answer once leaves it open who is asking, whatever it says later.
        if not isinstance(self.interruption, NoAnswer):
            self.interruption = interruption

    def _ended(self, instead: Missing | Unopened | None) -> UpdateError:
        """Return what to raise where a session that is to be written has ended."""
        if instead:
            self._interrupted_by(instead)
        return UpdateError("The session has ended.")

    def _lock_up(self, reason: Lock, record: Record, data: Data) -> Data:
        """Keep a session from whoever holds its cookie; return what is left to them."""
        self._forget()
        facts = record.facts
        self._interrupted_by(
            Locked(reason, facts.row, cast("str", facts.user), facts.pending, facts.person)
        )
        self._locked_key, self._session_key = record.key, None
        # The page that unlocks it has a form.
        return {name: data[name] for name in [CSRF_SESSION_KEY] if name in data}

    def _unlocked(self) -> None:
        self._locked_key = None
        if isinstance(self.interruption, Locked):
            self.interruption = None

    # What loading, saving and finishing share.

    def _activity(self, stored_at: int = 0) -> Activity:
        """Return what counts as activity now, where the last one was stored then."""
        if self.client is None and (visit := visit_of(self)) is not None:
            self.join(visit)  # it is new
        return Activity(
            now=clock.now(),
            cookie_age=self.get_session_cookie_age(),
            stored_at=stored_at,
            expiry=None if self._record is None else self._record.expiry,
            in_request=self.client is not None,
            background=self.background,
            due=self._activity_is_due,
        )

    def _is_now_stored(self, key: SessionKey, payload: bytes, facts: Facts, data: Data) -> None:
        """Know what was written. A new key is the visitor's activity, and nobody's former one."""
        touched_at, expiry, flushed_at, before = 0, None, 0, self._record
        if before is not None:
            touched_at, expiry, flushed_at = before.touched_at, before.expiry, before.flushed_at
        if key != self._session_key:
            self._activity_is_due, self._came_by, touched_at = False, None, 0
            self._session_key = key
        self._record = Record(key, payload, facts, touched_at, expiry, flushed_at)
        if self._session_cache is data:  # otherwise clear() was called meanwhile
            self._replaces_all = False
