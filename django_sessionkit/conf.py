"""
The only reader of ``SESSIONKIT_*``. Kept until Django says that one has changed, as
``override_settings`` does: every request asks for some, and to miss one costs Django 2 µs.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from django.conf import settings
from django.core.signals import setting_changed

T = TypeVar("T")


class Settings:
    """
    The settings of the kit, with their defaults. ``checks.py`` says so when a value makes no sense.
    """

    @property
    def SESSIONKIT_TOUCH_INTERVAL(self) -> int:
        """Seconds between two writes of a session's last activity, and so the longest that an
        ended session can outlive a store that lost its removal."""
        return _value("SESSIONKIT_TOUCH_INTERVAL", 60)

    @property
    def SESSIONKIT_TRUSTED_PROXIES(self) -> int:
        """How many proxies of yours append to X-Forwarded-For. 0 trusts none: REMOTE_ADDR."""
        return _value("SESSIONKIT_TRUSTED_PROXIES", 0)

    @property
    def SESSIONKIT_RETENTION(self) -> int:
        """Seconds that the row of an ended session stays, as history and as a tombstone."""
        return _value("SESSIONKIT_RETENTION", 30 * 24 * 60 * 60)

    @property
    def SESSIONKIT_REDIS_PREFIX(self) -> str:
        """What the keys of sessions in Redis begin with."""
        return _value("SESSIONKIT_REDIS_PREFIX", "sessionkit:")

    @property
    def SESSIONKIT_POLICY(self) -> str:
        """The dotted path of a callable (user, request or None) that returns a Policy: how long
        the sessions of this user live, and how many there may be. See policy.py."""
        return _value("SESSIONKIT_POLICY", "django_sessionkit.policy.default")

    @property
    def SESSIONKIT_REAUTHENTICATION_URL(self) -> str:
        """The URL, or its name, of the site's own page that asks again who somebody is. It is sent
        ?next=. "" is ours, which asks for the password."""
        return _value("SESSIONKIT_REAUTHENTICATION_URL", "")

    @property
    def SESSIONKIT_BACKGROUND(self) -> Sequence[str]:
        """What the paths of requests begin with that are no activity: "/poll/", for one."""
        return _value("SESSIONKIT_BACKGROUND", ())


# What was read, by name.
_known: dict[str, Any] = {}


def _value(name: str, default: T) -> T:
    value: T | None = _known.get(name)
    if value is None:
        value = _known[name] = getattr(settings, name, default)
    return value


def _forget(**kwargs: object) -> None:
    _known.clear()


setting_changed.connect(_forget)
conf = Settings()
