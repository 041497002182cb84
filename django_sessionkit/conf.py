"""
The only reader of ``SESSIONKIT_*``. Nothing is cached, so ``override_settings`` just works.
"""

from django.conf import settings


class Settings:
    """
    The settings of the kit, with their defaults. ``checks.py`` says so when a value makes no sense.
    """

    @property
    def SESSIONKIT_TOUCH_INTERVAL(self) -> int:
        """Seconds between two writes of a session's last activity, and so the longest that an
        ended session can outlive a store that lost its removal."""
        return getattr(settings, "SESSIONKIT_TOUCH_INTERVAL", 60)

    @property
    def SESSIONKIT_TRUSTED_PROXIES(self) -> int:
        """How many proxies of yours append to X-Forwarded-For. 0 trusts none: REMOTE_ADDR."""
        return getattr(settings, "SESSIONKIT_TRUSTED_PROXIES", 0)

    @property
    def SESSIONKIT_RETENTION(self) -> int:
        """Seconds that the row of an ended session stays, as history and as a tombstone."""
        return getattr(settings, "SESSIONKIT_RETENTION", 30 * 24 * 60 * 60)

    @property
    def SESSIONKIT_REDIS_PREFIX(self) -> str:
        """What the keys of sessions in Redis begin with."""
        return getattr(settings, "SESSIONKIT_REDIS_PREFIX", "sessionkit:")


conf = Settings()
