"""Why a request does not get its session: missing, unopened, locked, over the limit, no answer."""

import uuid
from enum import StrEnum
from typing import NamedTuple


class Missing(NamedTuple):
    """The session was never there, or has ended meanwhile."""

    digest: str


class Unopened:
    """
    The session is there, but does not open here: another server has sealed it with a SECRET_KEY
    that is not known here, or somebody has written over it. The visitor is a stranger to this
    server. Another one may know them, so nothing ends by that: no row, and no cookie.
    """


class Lock(StrEnum):
    """What a session is locked for."""

    IDLE = "idle"
    MOVED = "moved"
    LIMIT = "limit"


class Locked(NamedTuple):
    """The session is there, but not for whoever holds its cookie."""

    # "idle" and "moved" ask for a proof of identity, "limit" for other sessions to be ended.
    reason: Lock
    handle: uuid.UUID
    user: str
    limit: int | None
    person: str | None = None  # whose proof of identity opens it: mostly its user


class OverLimit(NamedTuple):
    """A sign-in was refused, by Policy.limit with on_limit="refuse"."""

    limit: int


class NoAnswer:
    """The store did not answer: nobody knows whether the session is there."""


Interruption = Missing | Unopened | Locked | OverLimit | NoAnswer
