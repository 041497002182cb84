"""A session is read, and it is decided whether it may go on."""

import logging
from functools import partial
from typing import cast

from django.contrib.auth import HASH_SESSION_KEY
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.backends.base import UpdateError
from django.middleware.csrf import CSRF_SESSION_KEY

from django_sessionkit import clock, registry
from django_sessionkit.backends.facts import Activity, Facts
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.former_keys import FormerKeys
from django_sessionkit.backends.records import (
    NO_FACTS,
    Data,
    Found,
    Record,
    merge,
    opened,
)
from django_sessionkit.backends.sealing import SessionKey
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.policy import Policy
from django_sessionkit.signals import session_moved
from django_sessionkit.visit.client import Visit
from django_sessionkit.visit.current import note_loaded, visit_of
from django_sessionkit.visit.interruptions import Interruption, Lock, Locked, Missing, NoAnswer

security_logger = logging.getLogger("django.security.SuspiciousSession")


class Again:
    """A parallel request has changed the session meanwhile: load it again."""


# What a check finds: None or new facts for a session that goes on, or what is in its way.
Verdict = Facts | Missing | Lock | Again | None


class Loading(FormerKeys):
    # This request is no activity of its user's: see decorators.py.
    background = False
    # The receiver of user_logged_in sets this, to spare a query.
    signing_in: AbstractBaseUser | None = None

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key and SessionKey(session_key))
        # What the middleware asks afterwards.
        self.interruption: Interruption | None = None
        self.slid = False  # the expiry has slid, so the cookie's should too
        self.has_new_key = False  # the session has another key than the cookie
        self._given_key = self._session_key
        self._locked_key: SessionKey | None = None
        self._flushed: str | None = None  # the handle of a session that was flushed
        self._forget()

    def _forget(self) -> None:
        self._record: Record | None = None
        # Set by clear(): the next save replaces the stored dictionary instead of merging into it.
        self._replaces_all = False
        self._activity_is_due = False
        self._is_unchecked = False  # the registry was not asked before the view saw the session
        self._privileges_changed = False
        self._came_by: str | None = None  # the digest of the former key that has led here

    @property
    def _key(self) -> SessionKey | None:
        key = self._session_key
        return key if key is None or isinstance(key, SessionKey) else SessionKey(key)

    @property
    def _facts(self) -> Facts:
        return NO_FACTS if self._record is None else self._record.facts

    def _keep(self, facts: Facts) -> None:
        """Know these facts from now on. They are stored when the session is saved next."""
        self._record = cast("Record", self._record)._replace(facts=facts)

    def is_loaded(self) -> bool:
        """Tell whether the dictionary is there: read, or set by somebody who did not read it."""
        return hasattr(self, "_session_cache")

    def ensure_loaded(self) -> None:
        """Read the session, if nobody has yet. Raises StoreUnavailable."""
        self.get("")

    # Reading.

    def join(self, visit: Visit) -> None:
        """Take part in a request, as the session that the middleware has put on it does."""
        self.client, self.background = visit.client, self.background or visit.background
        record = self._record
        if record is not None and record.touched_at:  # loaded before anybody knew of the request
            self._activity_is_due = self._is_unchecked = self._is_due(record, clock.now())

    def _join(self) -> None:
        """See whether somebody else, a package say, has put this session on the request."""
        if (visit := visit_of(self)) is not None:
            self.join(visit)
            visit.others.append(self)
        else:
            note_loaded(self)

    def _is_due(self, record: Record, now: int) -> bool:
        interval = record.facts.touch_interval(record.expiry, self.get_session_cookie_age())
        return abs(now - record.touched_at) >= interval

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
        record, data, came_by = found
        facts, touched_at, now = record.facts, record.touched_at, clock.now()
        is_over = facts.is_over(touched_at, now)
        verdict: Verdict = Missing(record.digest) if is_over else None
        verdict = verdict or (None if resuming else facts.lock_at(touched_at, now))
        if verdict is None and self.client is not None:
            self._activity_is_due = self._is_due(record, now)
            if facts.handle and (self._activity_is_due or facts.bound):
                verdict = yield from self._check(record, data, resuming)
        if isinstance(verdict, Facts):
            record = record._replace(facts=verdict)
        elif verdict is not None:
            return (yield from self._load_no_further(verdict, record, data, resuming))
        self._record, self._came_by = record, came_by
        self.has_new_key = came_by is not None
        if record.key is not key:
            self._session_key = record.key
        return data

    def _load_nothing(self, missing: Missing | None) -> Data:
        self._forget()
        self._session_key = None
        if missing:
            self._interrupted_by(missing)
        return {}

    def _load_no_further(
        self, verdict: Missing | Lock | Again, record: Record, data: Data, resuming: bool
    ) -> Flow[Data]:
        if isinstance(verdict, Again):
            return (yield from self._load(resuming))
        if isinstance(verdict, Missing):
            if record.facts.is_over(record.touched_at, clock.now()):
                # The store has kept it: its clock is behind, or somebody else has put it there.
                yield self.remove, [record.digest]
            return self._load_nothing(verdict)
        return self._lock_up(verdict, record, data)

    def _check(self, record: Record, data: Data, resuming: bool) -> Flow[Verdict]:
        """
        Ask the registry before the view sees the session, if its activity is due: a session that
        was ended goes no further, whatever the store says (a lost removal, a failover, a restored
        backup). Look whether the session is where it is bound to be.
        """
        facts, digest = record.facts, record.digest
        if self._activity_is_due:
            # A proof of identity may just have made the hash of the password a stronger one.
            auth_hash = "" if resuming else data.get(HASH_SESSION_KEY, "")
            row = yield registry.may_go_on, facts.handle, facts.may_have(digest), auth_hash
            if row is None:
                again = yield self.read, digest
                if again is not None and again.payload != record.payload:
                    return Again()
                yield self.remove, [digest]
                return Missing(digest)
            self._privileges_changed = row.renew
        if resuming or not facts.bound:
            return None
        if changed := facts.changed(self.client):
            handle, names = facts.row, ", ".join(changed)
            security_logger.warning("Session %s is used with another %s", handle, names)
            send = partial(session_moved.send_robust, UserSession, handle=handle)
            yield (partial(send, changed=changed, client=self.client),)
            match Policy.of(facts.policy).on_change:
                case "ask":
                    return Lock.MOVED
                case "end":
                    yield UserSession.objects.filter(pk=handle).revoke, EndReason.MOVED
                    return Missing(digest)
        # For a session that was signed in by code, without a client, this is the first time.
        bound = facts.bound_to(self.client)
        if bound is facts:
            return None
        self.modified = True
        return bound

    # What comes between a request and its session.

    def _interrupted_by(self, interruption: Interruption) -> None:
        # A store that did not answer once leaves it open who is asking, whatever it says later.
        if not isinstance(self.interruption, NoAnswer):
            self.interruption = interruption

    def _ended(self, missing: Missing | None) -> UpdateError:
        """Return what to raise where a session that is to be written has ended."""
        if missing:
            self._interrupted_by(missing)
        return UpdateError("The session has ended.")

    def _lock_up(self, reason: Lock, record: Record, data: Data) -> Data:
        """Keep a session from whoever holds its cookie; return what is left to them."""
        self._forget()
        facts = record.facts
        self._interrupted_by(Locked(reason, facts.row, cast("str", facts.user), facts.pending))
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

    def _merged(
        self, key: SessionKey, base: Record, facts: Facts, data: Data
    ) -> Flow[tuple[Record, Facts, Data]]:
        """
        Return what another request has written since ``base``, under this key or a new one, and
        our facts and dictionary merged into that. Raises UpdateError if the session has ended.
        """
        found = yield from self._resolve(key)
        if not isinstance(found, Found):
            raise self._ended(found)
        theirs = found.record
        # It was opened once before.
        was_facts, was = cast("tuple[Facts, Data]", opened(base.payload, base.key, self.serializer))
        if not self._replaces_all:
            # As the serializer says it, and as the others were read.
            mine = self.serializer().loads(self.serializer().dumps(data))
            data = merge(was, mine, found.data)
        self.has_new_key = self.has_new_key or theirs.key != key
        return theirs, facts.merged(was_facts, theirs.facts), data

    def _is_now_stored(self, key: SessionKey, payload: bytes, facts: Facts, data: Data) -> None:
        """Know what was written. A new key is the visitor's activity, and nobody's former one."""
        touched_at, expiry, before = 0, None, self._record
        if before is not None:
            touched_at, expiry = before.touched_at, before.expiry
        if key != self._session_key:
            self._activity_is_due, self._came_by, touched_at = False, None, 0
            self._session_key = key
        self._session_cache = data
        self._record = Record(key, payload, facts, touched_at, expiry)
        self._replaces_all = False
