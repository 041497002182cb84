"""Sessions by the thousand, with their payloads in the store, and without their users' browsers."""

import secrets
import uuid
from datetime import timedelta
from typing import Any

from django.utils import timezone

from django_sessionkit.models import UserSession
from tests.store import FORTNIGHT, SessionStore, now


def many(count: int, user: Any, **columns: Any) -> list[UserSession]:
    """Enter sessions of a user that were used just now, and return their rows."""
    at = timezone.now()
    shared = {
        "started_at": at,
        "authenticated_at": at,
        "last_seen_at": at,
        "expires_at": at + timedelta(milliseconds=FORTNIGHT),
        "ip": "192.0.2.1",
        **columns,
    }
    rows = [UserSession(user=user, digest=secrets.token_hex(32), **shared) for _ in range(count)]
    UserSession.objects.bulk_create(rows, batch_size=500)
    SessionStore.insert_all([(row.digest, b"\0", now(), now() + FORTNIGHT) for row in rows])
    return rows


def stored(rows: list[UserSession]) -> set[str]:
    """Return the digests of those of these sessions that the store still has."""
    digests = [row.digest for row in rows]
    found: set[str] = set()
    for start in range(0, len(digests), 500):
        found |= SessionStore.peek(digests[start : start + 500])
    return found


def handles(rows: list[UserSession]) -> set[uuid.UUID]:
    return {row.pk for row in rows}
