"""A session as it is stored: opened, and sealed. Pure."""

import logging
from typing import Any, NamedTuple

from django_sessionkit.backends.facts import Facts
from django_sessionkit.backends.sealing import SessionKey, seal, unseal
from django_sessionkit.backends.serializing import Serializer, dump, dump_facts, load, load_facts
from django_sessionkit.clock import END_OF_TIME
from django_sessionkit.storage import Stored
from django_sessionkit.visit.interruptions import Missing, Unopened

security_logger = logging.getLogger("django.security.SuspiciousSession")

Data = dict[str, Any]


class Record(NamedTuple):
    """
    What was read or last written. The dictionary is not in here: the view changes that, and what it
    was can be opened once more where that matters.
    """

    key: SessionKey
    payload: bytes
    facts: Facts
    # The last activity, as it is stored. 0: this request has written the session, so it is now.
    touched_at: int = 0
    expiry: Any = None  # the _session_expiry of the dictionary, as it was read
    flushed_at: int = 0  # see Stored
    # After a merge that is not stored yet: by what the view's changes are told, if not the payload.
    base: Data | None = None

    @property
    def digest(self) -> str:
        return self.key.digest


class Found(NamedTuple):
    """Where a key leads to."""

    record: Record
    data: Data
    came_by: str | None = None  # the digest of the former key that has led there
    is_delivered: bool = False  # the browser has used the key after that former key


# What a key leads to. None: it is a former key that was used too late, and Policy.on_reuse only
# reports that. Such a visitor has an empty session.
Resolved = Found | Missing | Unopened | None


def sealed(facts: Facts, data: Data, key: SessionKey, serializer: type[Serializer]) -> bytes:
    """Return a payload. Raises what the serializer raises for a value that it cannot express."""
    body, plain = dump(data, serializer)
    stored = facts.as_stored()
    return seal(dump_facts(stored) if stored else b"", body, key, plain)


def opened(
    payload: bytes, key: SessionKey, serializer: type[Serializer]
) -> tuple[Facts, Data] | None:
    """Return what a payload holds, or None, with a line in the log, if it does not open."""
    contents, data = unseal(payload, key), None
    if contents is not None:
        stored, body, plain = contents
        try:
            data = load(body, plain, serializer)
        except Exception:  # whatever another SESSION_SERIALIZER raises
            data = None
    if contents is None or not isinstance(data, dict):  # or returns
        security_logger.warning(
            "A stored session does not open, and was ignored: its SECRET_KEY or SESSION_SERIALIZER"
            " is not known here, or somebody has written over it"
        )
        return None
    return Facts.of(load_facts(stored)) if stored else NO_FACTS, data


NO_FACTS = Facts()


def found(stored: Stored, key: SessionKey, serializer: type[Serializer]) -> Found | None:
    """Return what is stored under a key, or None if that does not open."""
    contents = opened(stored.payload, key, serializer)
    if contents is None:
        return None
    facts, data = contents
    expiry = data.get("_session_expiry")
    # The moment is not sealed: somebody may have written one that no date can be.
    touched_at = min(max(stored.touched_at, 1), END_OF_TIME)
    record = Record(key, stored.payload, facts, touched_at, expiry, stored.flushed_at)
    return Found(record, data)
