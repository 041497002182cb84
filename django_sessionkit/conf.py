"""
The only reader of ``SESSIONKIT_*``. A value is kept until Django says that a setting has changed,
as ``override_settings`` does: every request asks for some values, and Django takes 2 µs to find out
that a site has left a setting out.
"""

from collections.abc import Sequence

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.functional import cached_property


class Settings:
    """
    The settings of the kit, with their defaults. ``checks.py`` says so when a value makes no sense.
    """

    @cached_property
    def SESSIONKIT_TOUCH_INTERVAL(self) -> int:
        """Seconds between two writes of a session's last activity, and so the longest that an
        ended session can outlive a store that lost its removal."""
        return getattr(settings, "SESSIONKIT_TOUCH_INTERVAL", 60)

    @cached_property
    def SESSIONKIT_TRUSTED_PROXIES(self) -> int:
        """How many proxies of yours append to X-Forwarded-For. 0 trusts none: REMOTE_ADDR."""
        return getattr(settings, "SESSIONKIT_TRUSTED_PROXIES", 0)

    @cached_property
    def SESSIONKIT_RETENTION(self) -> int:
        """Seconds that the row of an ended session stays, as history and as a tombstone."""
        return getattr(settings, "SESSIONKIT_RETENTION", 30 * 24 * 60 * 60)

    @cached_property
    def SESSIONKIT_REDIS_PREFIX(self) -> str:
        """What the keys of sessions in Redis begin with."""
        return getattr(settings, "SESSIONKIT_REDIS_PREFIX", "sessionkit:")

    @cached_property
    def SESSIONKIT_POLICY(self) -> str:
        """The dotted path of a callable (user, request or None) that returns a Policy: how long
        the sessions of this user live, and how many there may be. See policy.py."""
        return getattr(settings, "SESSIONKIT_POLICY", "django_sessionkit.policy.default")

    @cached_property
    def SESSIONKIT_REAUTHENTICATION_URL(self) -> str:
        """The URL, or its name, of the site's own page that asks again who somebody is. It is sent
        ?next=. "" is ours, which asks for the password."""
        return getattr(settings, "SESSIONKIT_REAUTHENTICATION_URL", "")

    @cached_property
    def SESSIONKIT_BACKGROUND(self) -> Sequence[str]:
        """What the paths of requests begin with that are no activity: "/poll/", for one."""
        return getattr(settings, "SESSIONKIT_BACKGROUND", ())

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} is read from Django's settings: set it there.")


conf = Settings()


def _forget(**kwargs: object) -> None:
    vars(conf).clear()


setting_changed.connect(_forget)
