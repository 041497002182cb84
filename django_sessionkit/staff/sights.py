"""What staff see of a session beside its row: whether the store still has it, and its links."""

from dataclasses import dataclass
from typing import Any, cast

from django.http import HttpRequest

from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import UserSession, still_stored
from django_sessionkit.staff.permissions import address_of, may_view_addresses

# The newest sessions from an address that are looked at for the number of people behind it.
NEIGHBOURS = 1_000


@dataclass(kw_only=True)
class Sight:
    """What the staff member who asks sees of a session. The attribute ``sight`` of the row."""

    # As much of the address as they may see: an address, a network, or "".
    address: str
    # Whether they see all of it.
    is_whole: bool
    # Whether the store has the session. None: it does not answer.
    is_stored: bool | None
    # In the list: where the session can be ended.
    end_url: str = ""


def sight_of(session: UserSession) -> Sight:
    return cast("Sight", cast("Any", session).sight)


def look_at(request: HttpRequest, sessions: list[UserSession]) -> bool:
    """
    Give the sessions a Sight each, and return whether the store has answered. One round trip, or
    none where all the sessions have ended.
    """
    asked = [session for session in sessions if session.ended_at is None]
    stored: set[str] | None
    try:
        stored = {session.digest for session in still_stored(asked)}
    except StoreUnavailable:
        stored = None
    is_whole = may_view_addresses(request)
    for session in sessions:
        cast("Any", session).sight = Sight(
            address=address_of(request, session),
            is_whole=is_whole,
            is_stored=None if stored is None else session.digest in stored,
        )
    return stored is not None


def neighbours(session: UserSession) -> tuple[int, bool]:
    """
    Return how many other people have used the address of a session, and whether there may be more.
    One round trip, which reads NEIGHBOURS rows at most.
    """
    rows = UserSession.objects.primary().filter(ip=session.ip).order_by("ip", "-pk")
    users = list(rows.values_list("user_id", flat=True)[:NEIGHBOURS])
    return len({user for user in users if user != session.user_id}), len(users) == NEIGHBOURS
