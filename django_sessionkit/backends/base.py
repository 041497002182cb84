"""
Django's session contract, over the storage verbs that an engine implements (storage.py), and what
this kit adds to the contract.

A session has three moments, each in a module of its own: it is loaded (loading.py), saved
(saving.py, by writing.py), and, at the end of a request, touched (touching.py) and given a new key
when that is due (renewing.py). Their operations are flows (flows.py), which are written once. Here
they are driven, sync and async.
"""

import uuid
from asyncio import shield
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import UpdateError
from django.utils import timezone

from django_sessionkit import clock
from django_sessionkit.backends import lifetimes
from django_sessionkit.backends.flows import Flow, arun, run
from django_sessionkit.backends.handing_over import HandingOver, HandOver
from django_sessionkit.backends.records import NO_FACTS
from django_sessionkit.backends.returning import Returning
from django_sessionkit.backends.saving import Saving
from django_sessionkit.backends.sealing import as_key
from django_sessionkit.backends.touching import Touching
from django_sessionkit.clock import as_datetime
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.pace import Progress
from django_sessionkit.policy import Policy
from django_sessionkit.purging import purge
from django_sessionkit.storage import no_answer
from django_sessionkit.visit.interruptions import Locked, NoAnswer

# Where set_expiry() keeps what it was given.
EXPIRY = "_session_expiry"

T = TypeVar("T")


class SessionStore(Saving, Touching, Returning, HandingOver):
    # What this kit adds.

    @property
    def handle(self) -> uuid.UUID | None:
        """The id of this session's UserSession, or None for a visitor who is not signed in."""
        self.ensure_loaded()
        return self._facts.row if self._facts.handle else None

    @property
    def locked(self) -> Locked | None:
        """
        What the session is locked for, or None. A locked session reads as that of a stranger, and
        is not written.
        """
        self.ensure_loaded()
        return self.interruption if isinstance(self.interruption, Locked) else None

    @property
    def authenticated_at(self) -> datetime | None:
        """When the user last proved who they are in this session, or None for a visitor."""
        self.ensure_loaded()
        at = self._facts.authenticated_at
        return as_datetime(at) if at else None

    @property
    def proof_age(self) -> float | None:
        """
        How many seconds ago the user last proved who they are, or None for a visitor. Unlike the
        date above, this knows both hours when the clocks of a site without USE_TZ repeat one.
        """
        self.ensure_loaded()
        at = self._facts.authenticated_at
        return (clock.now() - at) / 1000 if at else None

    @property
    def person(self) -> str | None:
        """
        The primary key, as text, of whoever is behind this session, or None for a visitor: mostly
        its user, or else the staff who act as its user, by django-hijack or django-loginas.
        """
        self.ensure_loaded()
        return self._facts.person

    @property
    def policy(self) -> Policy:
        """What still matters of the user's Policy after the sign-in. See Policy.facts()."""
        self.ensure_loaded()
        return Policy.of(self._facts.policy)

    @property
    def time_left(self) -> lifetimes.TimeLeft | None:
        """For how much longer the session goes on, or None for one that is not stored."""
        self.ensure_loaded()
        if self._record is None:
            return None
        now = clock.now()
        active_at = self._record.touched_at or now
        age = self.get_session_cookie_age()
        expiry = self._session_cache.get(EXPIRY)
        return lifetimes.time_left(self._facts, active_at, now, expiry, age)

    # The same for async code, which must not wait for the store as the properties do. Once the
    # session is loaded, the properties do not wait either.

    async def ahandle(self) -> uuid.UUID | None:
        """See handle."""
        await self._aensure_loaded()
        return self.handle

    async def alocked(self) -> Locked | None:
        """See locked."""
        await self._aensure_loaded()
        return self.locked

    async def aauthenticated_at(self) -> datetime | None:
        """See authenticated_at."""
        await self._aensure_loaded()
        return self.authenticated_at

    async def aproof_age(self) -> float | None:
        """See proof_age."""
        await self._aensure_loaded()
        return self.proof_age

    async def atime_left(self) -> lifetimes.TimeLeft | None:
        """See time_left."""
        await self._aensure_loaded()
        return self.time_left

    async def apolicy(self) -> Policy:
        """See policy."""
        await self._aensure_loaded()
        return self.policy

    async def _aensure_loaded(self) -> None:
        await self.aget("")

    def reauthenticate(self) -> None:
        """
        Note that the user has just proved again who they are. The session gets a new key (ASVS
        7.2.4), both clocks, of idleness and of the longest lifetime, begin anew (NIST SP 800-63B-4
        §5.2), and the policy is asked again.

        Raises UpdateError if the session has ended or is locked, and StoreUnavailable.
        """
        self._run(self._cycle(proved=True))

    async def areauthenticate(self) -> None:
        """See reauthenticate()."""
        await shield(self._arun(self._cycle(proved=True)))

    def unlock(self, full: bool = False) -> None:
        """
        Resume a locked session, under a new key and with all that it held. The user has just done
        what the session was locked for: proved who they are, or made room. A proof of identity is
        ``full`` if it is as good as signing in: only a full one begins the longest lifetime anew
        (NIST SP 800-63B-4 §2.2.3).

        Raises UpdateError if the session has ended or is not locked, TooManySessions if there is
        still no room, and StoreUnavailable.
        """
        self._run(self._unlock(full))

    async def aunlock(self, full: bool = False) -> None:
        """See unlock()."""
        await shield(self._arun(self._unlock(full)))

    # What hands a session of an app over to a web view: see handover.py.

    def issue_code(self, to: str) -> str:
        return self._run(self._issue_code(to))

    async def aissue_code(self, to: str) -> str:
        return await self._arun(self._issue_code(to))

    def read_code(self, code: str) -> HandOver | None:
        return self._run(self._read_code(code))

    def take_code(self, hand_over: HandOver) -> bool:
        return self._run(self._take_code(hand_over))

    # What the middleware asks.

    def has_good_cookie(self) -> bool:
        """
        Tell whether the browser has the right cookie. With Policy.renew_after a key is never sent
        again: an answer that arrives late would overwrite the next key.
        """
        record = self._record
        return (
            record is not None
            and record.facts.keyed_at is not None
            and self.session_key == self._given_key
            and self._session_cache.get("_session_expiry") == record.expiry
        )

    @property
    def withholds_key(self) -> bool:
        """
        Whether the session has another key than the request came with, and the visitor does not get
        it: a former key has led here, and nobody is there (background), or the new key has reached
        the browser already. Somebody who copied the former key would get every later key as well.
        Neither is the key of a session sent again that does not open here: nobody knows its age.
        """
        if self._is_unopened:
            return True
        return self.session_key == self._led_to and (self.background or self._is_delivered)

    @property
    def has_other_key(self) -> bool:
        """Whether the session has another key than the request came with."""
        return self._session_key not in (None, self._given_key)

    def note_key_given(self) -> None:
        """Note that the visitor has the key that the session has now: no answer has to give it."""
        self._given_key = self._session_key
        self.has_new_key, self.has_given_key = False, True

    @property
    def kept_key(self) -> str | None:
        """The key of the session that stays where a sign-in is refused: of this one, or of the
        locked one in whose place the visitor was to sign in."""
        return self._key or self._locked_key

    @property
    def waits_for_room(self) -> int | None:
        """
        The limit of a user who has signed in by this request, and has to choose first which other
        session to end. None for everybody else.
        """
        return self._facts.pending if self._has_to_wait else None

    @property
    def is_known(self) -> bool:
        """Whether what is stored under the key has been read, or written."""
        return self._record is not None

    def is_settled(self) -> bool:
        """
        Tell whether nothing is left to do at the end of a request but to save what was modified:
        no activity is to be written, and the visitor is to be told nothing.
        """
        is_due = self._activity_is_due and not self.background
        is_unread = self.modified and not self.is_loaded()
        is_uncertain = self._may_be_rolled_back or self._facts.previous
        return not (is_due or is_unread or self.interruption or is_uncertain)

    def finish(self, answered: bool) -> None:
        """
        Write the activity of a request, at its end and outside of the view's transaction, and give
        the session a new key if it is time for one. ``answered``: the visitor is going to get it.

        A store that does not answer now spoils no answer: the session stays due.
        """
        before = self.interruption
        try:
            if self._may_be_rolled_back:
                self._run(self._look_after_row())
            self._run(self._finish(answered))
        except StoreUnavailable:
            self.interruption = before
        except UpdateError:
            pass  # ended meanwhile: the next request is told, or the next write

    # Django's contract.

    def load(self) -> dict[str, Any]:
        return run(self._unloaded()._load(), self._ask)

    async def aload(self) -> dict[str, Any]:
        return await self._arun(self._unloaded()._load())

    def _unloaded(self) -> "SessionStore":
        # A session that is loaded already is read into a new one: unsaved changes stay as they are.
        return type(self)(self.session_key) if hasattr(self, "_session_cache") else self

    def exists(self, session_key: str | None) -> bool:
        session_key = as_key(session_key)
        return self._run(self._exists(session_key))

    async def aexists(self, session_key: str | None) -> bool:
        session_key = as_key(session_key)
        return await self._arun(self._exists(session_key))

    def create(self) -> None:
        self._run(self._create(early=True))

    async def acreate(self) -> None:
        await self._arun(self._create(early=True))

    def save(self, must_create: bool = False) -> None:
        self._run(self._save(must_create))

    async def asave(self, must_create: bool = False) -> None:
        await self._arun(self._save(must_create))

    def delete(self, session_key: str | None = None) -> None:
        session_key = as_key(session_key)
        self._run(self._delete(session_key))

    async def adelete(self, session_key: str | None = None) -> None:
        session_key = as_key(session_key)
        await self._arun(self._delete(session_key))

    def cycle_key(self) -> None:
        self._run(self._cycle())

    # A visitor who goes away in the middle cancels the request. A new key reaches both the row and
    # the store, or none of them.
    async def acycle_key(self) -> None:
        await shield(self._arun(self._cycle()))

    def clear(self) -> None:
        super().clear()
        self._replaces_all = True

    def flush(self) -> None:
        self._run(self._flush())

    async def aflush(self) -> None:
        await self._arun(self._flush())

    def get_expiry_age(self, **kwargs: Any) -> int:
        return self._capped(super().get_expiry_age(**kwargs), kwargs)

    async def aget_expiry_age(self, **kwargs: Any) -> int:
        return self._capped(await super().aget_expiry_age(**kwargs), kwargs)

    def get_expiry_date(self, **kwargs: Any) -> datetime:
        return self._capped_date(super().get_expiry_date(**kwargs), kwargs)

    async def aget_expiry_date(self, **kwargs: Any) -> datetime:
        return self._capped_date(await super().aget_expiry_date(**kwargs), kwargs)

    def _capped(self, age: int, asked: dict[str, Any]) -> int:
        now = clock.now()
        age -= self._less_for_visitors(asked)
        # Rounded up: what a view has just asked for is what the cookie says.
        age = min(age, max(0, -((now - self._ends_at(now, asked)) // 1000)))
        return max(age, -now // 1000)  # after 1970, as in Activity.plan()

    def _capped_date(self, date: datetime, asked: dict[str, Any]) -> datetime:
        end = self._ends_at(clock.now(), asked)
        at = datetime.fromtimestamp(end / 1000, UTC)
        at = at if timezone.is_aware(date) else timezone.make_naive(at)
        return min(date - timedelta(seconds=self._less_for_visitors(asked)), at)

    def _less_for_visitors(self, asked: dict[str, Any]) -> int:
        """Return how many seconds before SESSION_COOKIE_AGE the session of a visitor ends."""
        expiry = asked["expiry"] if "expiry" in asked else self._session_cache.get(EXPIRY)
        if expiry or not self.is_loaded() or SESSION_KEY in self._session_cache:
            return 0
        age = self.get_session_cookie_age()
        return age - lifetimes.default_age(NO_FACTS, age)

    def _ends_at(self, now: int, asked: dict[str, Any]) -> int:
        known = asked if "expiry" in asked else {"expiry": self._session_cache.get(EXPIRY)}
        age = self.get_session_cookie_age()
        return lifetimes.ends_at(self._facts, now, known["expiry"], age)

    @classmethod
    def clear_expired(cls, progress: Progress | None = None) -> None:
        """
        Remove what has expired, in small parts: ten million rows take minutes, and nobody is held
        up. Raises StoreUnavailable. See purging.purge().
        """
        purge(progress, store=cls)

    # The two drivers. The questions of these flows are calls: a function, then its arguments.

    def _run(self, flow: Flow[T]) -> T:
        return run(flow, self._ask)

    async def _arun(self, flow: Flow[T]) -> T:
        if self.native_async:
            return await arun(flow, self._aask)
        return await sync_to_async(self._run)(flow)

    def _ask(self, question: tuple[Any, ...]) -> Any:
        try:
            return question[0](*question[1:])
        except self.unavailable as error:
            raise self._no_answer(error) from error

    async def _aask(self, question: tuple[Any, ...]) -> Any:
        """Call the async twin of a verb; all other calls are to the registry, and take a thread."""
        function, *args = question
        try:
            if getattr(function, "__self__", None) is type(self):
                return await getattr(self, f"a{function.__name__}")(*args)
            return await sync_to_async(function)(*args)
        except self.unavailable as error:
            raise self._no_answer(error) from error

    def _no_answer(self, error: Exception) -> StoreUnavailable:
        self.interruption = NoAnswer()
        return no_answer(error)
