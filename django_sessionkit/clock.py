"""Time as stores and facts count it: milliseconds since the epoch, which no time zone can bend."""

import time
from datetime import UTC, datetime
from typing import NamedTuple

from django.conf import settings
from django.utils import timezone

# The last moment that a date can be.
END_OF_TIME = 253_402_214_400_000


def now() -> int:
    """Return the present time, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def as_datetime(milliseconds: int) -> datetime:
    """Return milliseconds since the epoch as a datetime, aware or naive as USE_TZ says."""
    value = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return value if settings.USE_TZ else timezone.make_naive(value)


def as_milliseconds(value: datetime) -> int:
    """Return a datetime, aware or naive as USE_TZ says, as milliseconds since the epoch."""
    return int(
        (value if timezone.is_aware(value) else timezone.make_aware(value)).timestamp() * 1000
    )


class Lifetime(NamedTuple):
    """Until when a session lives, in milliseconds since the epoch."""

    expires_at: int
    # When the session goes idle: it ends then or, by Policy.lock, is locked. None: it never does.
    idle_at: int | None = None

    def as_columns(self) -> dict[str, datetime | None]:
        """Return the values of the two columns of UserSession."""
        idle_at = None if self.idle_at is None else as_datetime(self.idle_at)
        return {"expires_at": as_datetime(self.expires_at), "idle_at": idle_at}
