"""Why a request does not get its session: missing, locked, over the limit, no answer."""

import uuid
from enum import StrEnum
from typing import NamedTuple


class Missing(NamedTuple):
    """The session was never there, or has ended meanwhile."""

    digest: str


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


Interruption = Missing | Locked | OverLimit | NoAnswer
