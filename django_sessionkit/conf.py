"""
The only module that reads ``SESSIONKIT_*``.

A value is kept until Django says that a setting has changed, as ``override_settings`` does. Every
request asks for several values, and Django takes 2 µs to find out that a site has not set one.
"""

from collections.abc import Sequence

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.functional import cached_property


class Settings:
    """The settings of the kit, with their defaults. ``checks.py`` reports senseless values."""

    @cached_property
    def SESSIONKIT_TOUCH_INTERVAL(self) -> int:
        """Seconds between two writes of a session's last activity. If the store loses the removal
        of an ended session, that session still works for so many seconds at most."""
        return getattr(settings, "SESSIONKIT_TOUCH_INTERVAL", 60)

    @cached_property
    def SESSIONKIT_ACTIVITY(self) -> str:
        """Where the last activity of a session is written: "direct" into the store and the row, or
        "buffered" into the store alone, from where a task carries it to the rows. See activity.py.
        """
        return getattr(settings, "SESSIONKIT_ACTIVITY", "direct")

    @cached_property
    def SESSIONKIT_TRUSTED_PROXIES(self) -> int:
        """The number of your proxies that append to X-Forwarded-For. 0: use REMOTE_ADDR."""
        return getattr(settings, "SESSIONKIT_TRUSTED_PROXIES", 0)

    @cached_property
    def SESSIONKIT_RETENTION(self) -> int:
        """Seconds for which the row of an ended session stays: as history, and to refuse the
        session if the store brings it back."""
        return getattr(settings, "SESSIONKIT_RETENTION", 30 * 24 * 60 * 60)

    @cached_property
    def SESSIONKIT_ADDRESSES(self) -> str:
        """What the rows of sessions have of an IP address: "whole", "truncated" to the network (24
        bits of IPv4, 48 of IPv6), or "none"."""
        return getattr(settings, "SESSIONKIT_ADDRESSES", "whole")

    @cached_property
    def SESSIONKIT_ADDRESS_RETENTION(self) -> int | None:
        """Seconds after the last activity of a session for which its row has its address. None: for
        as long as there is the row."""
        return getattr(settings, "SESSIONKIT_ADDRESS_RETENTION", None)

    @cached_property
    def SESSIONKIT_REDIS_PREFIX(self) -> str:
        """The prefix of the keys of sessions in Redis."""
        return getattr(settings, "SESSIONKIT_REDIS_PREFIX", "sessionkit:")

    @cached_property
    def SESSIONKIT_MEMORY_LIMIT(self) -> int:
        """How many sessions the memory engine keeps. One more removes the one that was written
        longest ago."""
        return getattr(settings, "SESSIONKIT_MEMORY_LIMIT", 10_000)

    @cached_property
    def SESSIONKIT_POLICY(self) -> str:
        """The dotted path of a function (user, request) that returns the Policy of a user. Outside
        of a request, the request is None. See policy.py."""
        return getattr(settings, "SESSIONKIT_POLICY", "django_sessionkit.policy.default")

    @cached_property
    def SESSIONKIT_VISITOR_AGE(self) -> int | None:
        """Seconds without activity after which the session of a visitor who is not signed in ends,
        unless set_expiry() says otherwise. None: SESSION_COOKIE_AGE."""
        return getattr(settings, "SESSIONKIT_VISITOR_AGE", None)

    @cached_property
    def SESSIONKIT_REAUTHENTICATION_URL(self) -> str:
        """The URL, or the name of the URL, of the site's own page that asks for a proof of
        identity. The page gets ``?next=``. With "", our page asks for the password."""
        return getattr(settings, "SESSIONKIT_REAUTHENTICATION_URL", "")

    @cached_property
    def SESSIONKIT_BACKGROUND(self) -> Sequence[str]:
        """The beginnings of the paths of background requests, such as "/poll/". These requests do
        not count as activity."""
        return getattr(settings, "SESSIONKIT_BACKGROUND", ())

    @cached_property
    def SESSIONKIT_DEVICE_COOKIE(self) -> str | None:
        """The name of the cookie by which a browser is known when somebody signs in with it again.
        With None or "", there is none. See visit/browsers.py."""
        return getattr(settings, "SESSIONKIT_DEVICE_COOKIE", "sessionkit_device")

    @cached_property
    def SESSIONKIT_ADOPT_FROM(self) -> Sequence[str]:
        """The engines that sessions move from, when they are used next. They are named as in
        SESSION_ENGINE, and asked in this order for what SESSION_ENGINE does not have."""
        return getattr(settings, "SESSIONKIT_ADOPT_FROM", ())

    @cached_property
    def SESSIONKIT_NOTICES(self) -> Sequence[str]:
        """What users are told of by mail: some of the values of Notice, in signals.py."""
        return getattr(settings, "SESSIONKIT_NOTICES", ())

    @cached_property
    def SESSIONKIT_SITE_URL(self) -> str:
        """Where the site is, such as "https://shop.example". Links in mails begin with it."""
        return getattr(settings, "SESSIONKIT_SITE_URL", "")

    @cached_property
    def SESSIONKIT_TOKEN_AGE(self) -> int:
        """Seconds for which a token is valid. It is never valid for longer than its session."""
        return getattr(settings, "SESSIONKIT_TOKEN_AGE", 300)

    @cached_property
    def SESSIONKIT_TOKEN_ISSUER(self) -> str:
        """Who issues tokens: the claim "iss". With "", it is SESSIONKIT_SITE_URL."""
        return getattr(settings, "SESSIONKIT_TOKEN_ISSUER", "")

    @cached_property
    def SESSIONKIT_TOKEN_AUDIENCE(self) -> str:
        """Whom tokens are for: the claim "aud". With "", they are for the site that issues them."""
        return getattr(settings, "SESSIONKIT_TOKEN_AUDIENCE", "")

    @cached_property
    def SESSIONKIT_TOKEN_CLAIMS(self) -> str:
        """The dotted path of a function (user, session) that returns a dictionary with more claims
        for a token. With "", there are none. See tokens.py."""
        return getattr(settings, "SESSIONKIT_TOKEN_CLAIMS", "")

    @cached_property
    def SESSIONKIT_TOKEN_ALGORITHM(self) -> str:
        """What the next key signs tokens by: "ES256", "EdDSA", or "HS256", whose only key never
        leaves the site: nobody else can verify its tokens."""
        return getattr(settings, "SESSIONKIT_TOKEN_ALGORITHM", "ES256")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} is read from Django's settings: set it there.")


conf = Settings()


def _forget(**kwargs: object) -> None:
    vars(conf).clear()


setting_changed.connect(_forget)
