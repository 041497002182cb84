"""
What a purge does with the registry, part by part: it closes the rows of sessions that have expired,
deletes old ones, and takes addresses from them. In a slice of the table, it also mends what a lost
request, or a change behind Django's back, has left.

A part is looked at by one statement that counts what there is to do. What there is, is done by one
kind of statement each, and nothing is read into Python. But for rows whose sessions are in another
store than the database: that is asked by lists of digests.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Case, CharField, Count, F, Q, Value, When
from django.utils import timezone

from django_sessionkit import ranges
from django_sessionkit.accounts import is_disabled, is_of_none
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import (
    IDLE,
    EndReason,
    UserSession,
    UserSessionQuerySet,
    alive_in_stores,
    announce,
    get_session_stores,
)
from django_sessionkit.pace import Pace
from django_sessionkit.ranges import Writing
from django_sessionkit.signals import sessions_ended

# A run mends so many parts of the table, or this share of them, if that is more. The next run goes
# on there: with one every hour, the whole table is mended once a day.
FEWEST, SHARE = 4, 24
# What "now" is may be so old: then the session that is looked at has a little more time.
STALE = timedelta(seconds=1)

# Does one kind of work in a part of the table.
Act: TypeAlias = Callable[[UserSessionQuerySet, Pace], None]

# The names of the two walks.
TABLE, MENDED = "usersession", "mended"


class Moments(NamedTuple):
    now: datetime
    # Rows that were active after this are skipped: their next touch checks them, and the session of
    # a new one may not be stored yet.
    quiet: datetime
    # What ended before this goes.
    kept_from: datetime
    # What was active before this loses its address, or None: addresses stay.
    addresses_from: datetime | None

    @classmethod
    def of_now(cls) -> "Moments":
        now = timezone.now()
        addresses = conf.SESSIONKIT_ADDRESS_RETENTION
        return cls(
            now,
            now - timedelta(seconds=conf.SESSIONKIT_TOUCH_INTERVAL),
            now - timedelta(seconds=conf.SESSIONKIT_RETENTION),
            None if addresses is None else now - timedelta(seconds=addresses),
        )

    # Conditions for rows.

    @property
    def is_active(self) -> Q:
        return Q(ended_at=None, expires_at__gt=self.now)

    @property
    def is_silent(self) -> Q:
        return Q(ended_at=None, last_seen_at__lte=self.quiet)

    @property
    def has_expired(self) -> Q:
        return self.is_silent & Q(expires_at__lte=self.now)

    @property
    def may_be_lost(self) -> Q:
        return self.is_silent & Q(expires_at__gt=self.now)

    @property
    def is_old(self) -> Q:
        # Without its row, nothing would remove a session that the store may still have.
        return Q(ended_at__lt=self.kept_from, expires_at__lte=F("ended_at"))

    @property
    def has_old_address(self) -> Q:
        return Q(last_seen_at__lt=self.addresses_from) & ~Q(ip=None, networks="")


# Of sessions that were ended: is it certain that no store has them?
IS_UNCONFIRMED, IS_CONFIRMED = Q(expires_at__gt=F("ended_at")), Q(expires_at__lte=F("ended_at"))


def sweep(pace: Pace) -> StoreUnavailable | None:
    """
    Mark the rows ended of sessions that have expired, confirm the removal of sessions that were
    ended, delete the rows of sessions that ended SESSIONKIT_RETENTION seconds ago, and take the
    addresses from rows that were not active for SESSIONKIT_ADDRESS_RETENTION seconds. Count the
    active sessions by device type.

    Return the error, after all that could be done, of a store that has not answered: of several
    servers one may be missing.
    """
    unavailable = question = None
    for part in UserSession.objects.walk(pace, TABLE):
        if question is None or question.is_stale():
            moments = Moments.of_now()
            question, acts = Question(part, moments, _what_to_do(moments)), _acts(moments, part.db)
        there = _look(question, part, pace)
        unavailable = _do(acts, there, part, pace) or unavailable
    return unavailable


def _do(
    acts: dict[str, Act], there: set[str], part: UserSessionQuerySet, pace: Pace
) -> StoreUnavailable | None:
    """
    Do what there is to do in a part of the table, in the order of ``acts``. Return the last error
    of a store that has not answered: that keeps nobody from the rest.
    """
    unavailable = None
    for act in (acts[name] for name in acts if name in there):
        try:
            act(part, pace)
        except StoreUnavailable as error:
            unavailable = error
    return unavailable


class Question:
    """A statement that counts the rows of a part of the table by what these columns say."""

    def __init__(
        self, part: UserSessionQuerySet, moments: Moments, columns: dict[str, Any]
    ) -> None:
        self._moments, self._columns = moments, columns
        self._statement = self._rows(part).statement() if part.blocks else None

    def is_stale(self) -> bool:
        return timezone.now() - self._moments.now >= STALE

    def ask(self, part: UserSessionQuerySet, pace: Pace) -> list[tuple[Any, ...]]:
        """Return the values of the columns, and the number of rows, of each kind of row."""
        if self._statement:
            return pace.read(partial(self._statement.rows, part))
        return pace.read(lambda: list(self._rows(part)))

    def _rows(self, part: UserSessionQuerySet) -> Any:
        rows = part.order_by().values(**self._columns).annotate(number=Count("*"))
        return rows.values_list(*self._columns, "number")


def _what_to_do(moments: Moments) -> dict[str, Any]:
    what = Case(
        When(moments.is_active, then=F("device_type")),
        When(moments.has_expired & IDLE, then=Value("closed.idle")),
        When(moments.has_expired, then=Value("closed.expired")),
        When(IS_UNCONFIRMED, then=Value("confirmed")),
        When(moments.is_old, then=Value("deleted")),
        default=Value("-"),
        output_field=CharField(),
    )
    if moments.addresses_from is None:
        return {"what": what, "is_inactive": Value(0)}
    return {"what": what, "is_inactive": Case(When(moments.has_old_address, then=1), default=0)}


def _look(question: Question, part: UserSessionQuerySet, pace: Pace) -> set[str]:
    """Count what there is in a part of the table, and return what there is to do."""
    there = set()
    for what, is_inactive, number in question.ask(part, pace):
        if is_inactive and what != "deleted":
            there.add("addresses")
            pace.figures["addresses"] += number if pace.dry_run else 0
        if what in ("confirmed", "deleted") and pace.dry_run:
            pace.figures[what] += number
        elif what in ("closed.idle", "closed.expired", "confirmed", "deleted"):
            there.add(what)
        elif what != "-":
            pace.figures[f"active.{what}"] += number
    return there - {"addresses"} if pace.dry_run else there


def _acts(moments: Moments, database: str) -> dict[str, Act]:
    """Return what does it, by what there is to do, in the order in which it is done."""
    expired, at, is_stored = moments.has_expired, F("expires_at"), _is_stored(database)
    has_old_address = moments.has_old_address & ~moments.is_old
    return {
        "closed.idle": Closing(expired & IDLE, EndReason.IDLE, at, is_stored),
        "closed.expired": Closing(expired & ~IDLE, EndReason.EXPIRED, at, is_stored),
        "confirmed": _confirm_removals,
        "deleted": _counted(Writing("deleted", moments.is_old)),
        # With them, the places go.
        "addresses": _counted(Writing("addresses", has_old_address, {"ip": None, "networks": ""})),
    }


def _counted(writing: Writing) -> Act:
    def act(part: UserSessionQuerySet, pace: Pace) -> None:
        pace.figures[writing.kind] += writing.on(part, pace)

    return act


class Closing:
    """Marks the rows ended, of those that the condition is about, whose sessions are not stored."""

    def __init__(self, which: Q, reason: EndReason, at: datetime | F, is_stored: Q | None) -> None:
        self._which, self._reason, self._at, self._is_stored = which, reason, at, is_stored
        # Where the sessions are in the same database.
        self._by_condition = self._writing(which, is_stored)

    def __call__(self, part: UserSessionQuerySet, pace: Pace) -> None:
        if self._is_stored is not None:
            self._close(part, self._by_condition, pace)
            return
        for digests in _digests(part.filter(self._which), pace):
            if gone := set(digests) - pace.read(partial(alive_in_stores, digests)):
                # A session that gets a new key meanwhile has another digest.
                self._close(part, self._writing(self._which & Q(digest__in=gone)), pace)

    def _close(self, part: UserSessionQuerySet, writing: Writing, pace: Pace) -> None:
        if pace.dry_run:
            is_lost = self._reason == EndReason.LOST
            _would_end(writing.kind, writing.rows(part).count(), pace, confirmed=is_lost)
        else:
            pace.figures[writing.kind] += writing.on(part, pace)

    def _writing(self, which: Q, is_stored: Q | None = None) -> Writing:
        return Writing(
            f"closed.{self._reason}",
            which if is_stored is None else which & ~is_stored,
            {"ended_at": self._at, "end_reason": self._reason},
            then=self._tell if sessions_ended.has_listeners(UserSession) else None,
        )

    def _tell(self, handles: list[Any], marked: int) -> None:
        if marked != len(handles):  # somebody else has ended or used some of them meanwhile
            rows = UserSession.objects.primary().filter(pk__in=handles, end_reason=self._reason)
            handles = list(rows.filter(ended_at=self._at).values_list("pk", flat=True))
        announce(handles, self._reason, None)


def _would_end(name: str, number: int, pace: Pace, *, confirmed: bool) -> None:
    """
    Note what a run would end. Of what ends now, and not when it has expired, the run would confirm
    the removal, too.
    """
    pace.figures[name] += number
    if confirmed:
        pace.figures["confirmed"] += number


def _is_stored(database: str) -> Q | None:
    """Return the condition for rows whose sessions are stored, or None: ask the stores."""
    conditions = [store.is_stored(database) for store in get_session_stores()]
    return Q.create(conditions, Q.OR) if conditions and None not in conditions else None


def _digests(rows: UserSessionQuerySet, pace: Pace) -> Iterator[list[str]]:
    """Return the digests of these rows, as many as one question to a store is about."""
    values = rows.order_by().values_list("digest", flat=True)
    found: list[str] = pace.read(lambda: list(values))
    for start in range(0, len(found), ranges.ROWS):
        yield found[start : start + ranges.ROWS]


def _confirm_removals(part: UserSessionQuerySet, pace: Pace) -> None:
    """Remove the sessions that were ended, as far as nobody has confirmed that they are gone."""
    rows = part.filter(IS_UNCONFIRMED)
    for digests in _digests(rows, pace):
        if removed := set(digests) - pace.read(partial(_remove, digests)):
            which = IS_UNCONFIRMED & Q(digest__in=removed)
            at = {"expires_at": F("ended_at")}
            _counted(Writing("confirmed", which, at))(part, pace)


def _remove(digests: list[str]) -> set[str]:
    """
    Remove sessions from all stores, and return those that are still there, because somebody holds
    them. Raises StoreUnavailable, after asking all stores.
    """
    left: set[str] = set()
    unavailable = None
    for store in get_session_stores():
        try:
            left |= store.call(store.remove_free, digests)
        except StoreUnavailable as error:
            unavailable = error
    if unavailable:
        raise unavailable
    return left


# In a slice of the table, from run to run another one.


def next_slice(places: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return where mend() goes on, by what ``pace.places`` was at the end of the run before."""
    seen, mended = places.get(TABLE, {}), places.get(MENDED, {})
    slice_: dict[str, Any] = {"after": mended.get("after")}
    if mended.get("of") and "begin" in mended:
        slice_["begin"] = (mended["begin"] + mended["done"]) % mended["of"]
    units = max(seen.get("of", 0), seen.get("done", 0)) // UserSession.objects.unit()
    return {TABLE: {"units": units}, MENDED: slice_}


def mend(pace: Pace) -> StoreUnavailable | None:
    """
    End the sessions of users who were disabled or deleted behind Django's back
    (``QuerySet.update()``, SQL, ``DB_CASCADE``), mark the rows ended of sessions that the store has
    lost, and remove the sessions that it still has, or has again, of rows that have ended. Return
    what sweep() returns.
    """
    units = pace.places.get(TABLE, {}).get("units", 0)
    unavailable = question = None
    acts: dict[str, Act] = {
        "disabled": _end_disabled,
        "lost": _close_lost,
        "orphans": _remove_orphans,
    }
    for part in UserSession.objects.walk(pace, MENDED, most=max(FEWEST, units // SHARE)):
        if question is None or question.is_stale():
            moments, is_stored = Moments.of_now(), _is_stored(part.db)
            question = Question(part, moments, _what_to_mend(moments, is_stored))
        found = question.ask(part, pace)
        there = {what for what, *_ in found}
        if any(is_disabled for _, is_disabled, _ in found):
            there.add("disabled")
        unavailable = _do(acts, there, part, pace) or unavailable
    return unavailable


def _what_to_mend(moments: Moments, is_stored: Q | None) -> dict[str, Any]:
    """Where another store has to be asked, all rows count that it has to be asked about."""
    lost, orphans = moments.may_be_lost, IS_CONFIRMED
    if is_stored is not None:
        lost, orphans = lost & ~is_stored, orphans & is_stored
    kinds = When(lost, then=Value("lost")), When(orphans, then=Value("orphans"))
    is_disabled = Case(When(Q(ended_at=None) & _is_not_let_in(), then=1), default=0)
    what = Case(*kinds, default=Value("-"), output_field=CharField())
    return {"what": what, "is_disabled": is_disabled}


def _end_disabled(part: UserSessionQuerySet, pace: Pace) -> None:
    """End the sessions of users who were disabled or deleted."""
    if disabled := pace.read(partial(_disabled_users, part.filter(ended_at=None))):
        rows = part.filter(ended_at=None, user__in=disabled)
        if pace.dry_run:
            _would_end("disabled", rows.count(), pace, confirmed=True)
        else:
            pace.figures["disabled"] += rows.revoke(EndReason.ACCOUNT_DISABLED)


def _disabled_users(rows: UserSessionQuerySet) -> set[Any]:
    """Return the users of these rows who may have no session, or are not there any more."""
    found = set(rows.filter(_is_not_let_in()).values_list("user_id", flat=True))
    let_in = get_user_model()._base_manager.filter(pk__in=found) if found else ()
    return found - {user.pk for user in let_in if not is_disabled(user)}


def _is_not_let_in() -> Q:
    """Return the condition for rows whose user is not active, or not there."""
    there = get_user_model()._base_manager.all()
    with suppress(FieldDoesNotExist):  # is_active is True for everybody then
        there.model._meta.get_field("is_active")
        there = there.filter(is_active=True)
    return is_of_none(there)


def _close_lost(part: UserSessionQuerySet, pace: Pace) -> None:
    """Mark the rows ended of sessions that the store does not have any more."""
    if not conf.SESSIONKIT_ADOPT_FROM:  # it may be with a process of another engine
        moments = Moments.of_now()
        is_lost, is_stored = moments.may_be_lost, _is_stored(part.db)
        Closing(is_lost, EndReason.LOST, moments.now, is_stored)(part, pace)


def _remove_orphans(part: UserSessionQuerySet, pace: Pace) -> None:
    """Remove the sessions of rows that have ended, whose removal was confirmed once."""
    rows, is_stored = part.filter(IS_CONFIRMED), _is_stored(part.db)
    if is_stored is not None:
        rows = rows.filter(is_stored)
    for digests in _digests(rows, pace):
        there = digests
        if is_stored is None:
            there = list(pace.read(partial(alive_in_stores, digests)))
        if there:
            left = 0 if pace.dry_run else len(pace.read(partial(_remove, there)))
            pace.figures["orphans"] += len(there) - left
