"""
Epochs: staff end the sessions of everybody, of all staff or of one user, and that takes effect at
once, however many there are. A row of Ending has a moment. A session whose user has last proved who
they are at that moment, or before, does not go on. The rows and payloads are cleaned up behind.

Nobody asks the registry for that on every request. A store has a number, which it returns with each
session. When that is not the number of before, a process reads the few rows of Ending, once. A
process that takes a session for one that has ended asks the registry before it says so, for what it
knows may be of a transaction that was rolled back.

A store that has no number, or has lost it (a flush, a failover, a new SESSION_ENGINE), says nothing
of an epoch. Then the write of activity, which asks the registry anyway, finds it, and tells the
store again.

The moment is of the clock of one server, and the proof of another's. Nothing is added to the moment
for that: whoever can prove who they are a second before it can do so a second after it. And whoever
signs in again at once would be signed out once more.
"""

import json
import secrets
import uuid
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import connections, router, transaction
from django.db.models import Count, Exists, Max, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce
from django.utils import timezone

from django_sessionkit.clock import as_datetime, as_milliseconds
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import Ending, get_session_stores

SCOPES = [Ending.Scope.EVERYBODY, Ending.Scope.STAFF, Ending.Scope.USER]
# A transaction that is older than this has been rolled back by its server.
OLD = timedelta(hours=1)
# So many numbers are of the same millisecond.
SPREAD = 1_000_000
# A process knows so many numbers and users of epochs at most. A site has one number, and one more
# for each of its tenants; what a process has learned for a number before is of no use any more. The
# last number is known in any case.
KEPT = 100_000
# So many epochs of single users does a process learn, the newest ones, and those that are not
# worked off: with each one that is thrown, a request reads them. What the stores still have of the
# sessions that the others have ended is found by the write of activity.
NEWEST = 5_000


class Epoch(NamedTuple):
    moment: int  # in milliseconds
    spared: uuid.UUID | None  # the handle of the session that goes on

    def ends(self, authenticated_at: int, handle: uuid.UUID | None) -> bool:
        if authenticated_at > self.moment:
            return False
        return self.spared is None or handle != self.spared


class Epochs(NamedTuple):
    """What a process knows of the epochs."""

    of_everybody: list[Epoch]
    of_users: dict[str, list[Epoch]]  # by their primary keys, as text

    def ends(
        self, user: str | None, person: str | None, authenticated_at: int, handle: uuid.UUID | None
    ) -> bool:
        """
        Tell whether a session does not go on. ``user`` is its user, and ``person`` whoever is
        behind it, staff who act as the user say. ``authenticated_at`` is 0 for a session that was
        adopted, where nobody knows of a proof: it does not go on.
        """
        epochs = [self.of_everybody, *(self.of_users.get(who or "", []) for who in (user, person))]
        return any(epoch.ends(authenticated_at, handle) for some in epochs for epoch in some)


# By the number that a store has. Whatever happens (two who throw the switch at the same moment, a
# rollback, another tenant), another number means that this process reads the rows anew.
_known: dict[int, Epochs] = {}


def note(ending: Ending) -> None:
    """
    Tell every store of a new epoch, once its row is committed. If a store does not answer, which is
    logged, its sessions end with their next write of activity.
    """
    while True:
        there = _extent()
        number = _new_number(ending)
        # Also those of SESSIONKIT_ADOPT_FROM: other processes may still serve with them.
        for store in get_session_stores():
            with suppress(StoreUnavailable):
                store.call(store.note_epoch, number)
        # A store of several servers gets a number bit by bit. Somebody may have learned it from one
        # of them before another epoch began, and then got it once more, in place of the other's.
        if _extent() == there:
            return


def note_again() -> None:
    """
    Tell every store of the newest epoch: one of them has lost it. In the transaction of a view, do
    so afterwards: until it is over, everybody else would wait who tells the store.
    """
    transaction.on_commit(_note_newest, using=router.db_for_write(Ending), robust=True)


def _note_newest() -> None:
    if (newest := _endings().order_by("-created_at").first()) is not None:
        note(newest)


def known(number: int) -> Epochs | None:
    """Return what this process has learned since a store has this number, if it has."""
    return _known.get(number)


def learn(number: int) -> Epochs:
    """Read the epochs, because a store has a number that this process did not know."""
    endings = list(_to_learn())
    everybody: list[Epoch] = []
    of_users: dict[str, list[Epoch]] = {}
    for ending in endings:
        epoch = _epoch_of(ending)
        if ending.scope == Ending.Scope.EVERYBODY:
            everybody.append(epoch)
        else:
            for user in _users_of(ending):
                of_users.setdefault(user, []).append(epoch)
    everybody = _telling(everybody)
    epochs = Epochs(everybody, {user: _telling(some) for user, some in of_users.items()})
    if number // SPREAD in map(_time_of, endings) or not _may_be_hidden(number):
        _known[number] = epochs
        _forget_first()
    return epochs


def _forget_first() -> None:
    """Forget what was learned first, if that is too much. Other threads may do so, too."""
    numbers = list(_known.items())
    size = sum(1 + len(epochs.of_users) for _, epochs in numbers)
    for number, epochs in numbers[:-1]:
        if size <= KEPT:
            break
        size -= 1 + len(epochs.of_users)
        _known.pop(number, None)


def forget(number: int) -> None:
    """Forget what the registry does not confirm."""
    _known.pop(number, None)


def ending_of(
    user: str | None, person: str | None, authenticated_at: int, handle: uuid.UUID
) -> Ending | None:
    """Return what has ended a session, by the registry; see Epochs.ends()."""
    users = {who for who in (user, person) if who}
    rows = _endings().filter(_is_about(users), before__gte=as_datetime(authenticated_at))
    for ending in rows.select_related("by").order_by("id"):
        if not _epoch_of(ending).ends(authenticated_at, handle):
            continue
        # A database may not tell "a" from "A".
        if ending.scope == Ending.Scope.EVERYBODY or users & {*_users_of(ending)}:
            return ending
    return None


def over(users: Iterable[str | None], at: datetime | Combinable | None = None) -> Exists:
    """
    Return the condition for rows of UserSession, all of them of one of these users, whose sessions
    an epoch has ended, whether their rows are marked or not. ``at`` is when the user has last
    proved who they are, in place of what the rows say.
    """
    at = at or Coalesce(OuterRef("authenticated_at"), Value(as_datetime(0)))
    endings = _endings().filter(_is_about({who for who in users if who}), before__gte=at)
    return Exists(endings.exclude(spares_own=True, ended_from=OuterRef("pk")))


def unfinished() -> "QuerySet[Ending]":
    """Return those of whose sessions not all rows are marked yet."""
    return _endings().filter(finished_at=None)


def _endings() -> "QuerySet[Ending]":
    endings = Ending.objects.using(router.db_for_write(Ending))
    return endings.filter(scope__in=SCOPES).exclude(before=None)


def _to_learn() -> "QuerySet[Ending]":
    users = _endings().filter(scope=Ending.Scope.USER).order_by("-pk")
    last = Coalesce(Subquery(users.values("pk")[NEWEST : NEWEST + 1]), Value(0))
    is_needed = ~Q(scope=Ending.Scope.USER) | Q(finished_at=None) | Q(pk__gt=last)
    return _endings().filter(is_needed)


def _is_about(users: Iterable[str]) -> Q:
    # The column is a list of texts, as JSON: so a quotation mark is before and after each.
    alternatives = [Q(users__contains=json.dumps(user)) for user in sorted(users)]
    return Q.create([Q(scope=Ending.Scope.EVERYBODY), *alternatives], Q.OR)


def _extent() -> dict[str, Any]:
    """Return what is not the same any more when there is another epoch."""
    return _endings().aggregate(Count("pk"), Max("pk"))


def _new_number(ending: Ending) -> int:
    """
    Return a number that nobody has learned yet: the time of an ending, and a random rest. Not its
    primary key: a rollback, a flush and another tenant have that once more.
    """
    return _time_of(ending) * SPREAD + secrets.randbelow(SPREAD)


def _time_of(ending: Ending) -> int:
    at: Any = ending.created_at
    return as_milliseconds(at)


def _users_of(ending: Ending) -> list[str]:
    users: list[str] = json.loads(ending.users) if ending.users else []
    return users


def _epoch_of(ending: Ending) -> Epoch:
    before: Any = ending.before
    return Epoch(as_milliseconds(before), ending.ended_from if ending.spares_own else None)


def _telling(epochs: list[Epoch]) -> list[Epoch]:
    """
    Return those that tell of every session whether one of them ends it: the last one and, for the
    session that this one spares, the last one that does not.
    """
    epochs = sorted(epochs, key=lambda epoch: epoch.moment, reverse=True)
    others = [epoch for epoch in epochs if epoch.spared != epochs[0].spared]
    return epochs[:1] if not epochs or epochs[0].spared is None else [epochs[0], *others[:1]]


def _may_be_hidden(number: int) -> bool:
    """
    Tell whether the row for a number may be there although it was not found: a transaction that
    began before shows what there was then (MySQL, and SQLite with WAL), and the store of another
    server shows more.
    """
    is_new = as_datetime(number // SPREAD) > timezone.now() - OLD
    return is_new and connections[router.db_for_write(Ending)].in_atomic_block
