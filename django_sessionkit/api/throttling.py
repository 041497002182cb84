"""
How often somebody may try a password, in any session of a user and from any address (ASVS 6.3.1).
Django's default cache counts.
"""

import time
from abc import abstractmethod
from hashlib import sha256
from typing import Any

from django.core.cache import cache
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from django_sessionkit.conf import conf
from django_sessionkit.forms import as_username
from django_sessionkit.visit.client import client_of


class PasswordThrottle(BaseThrottle):
    """
    Counts in windows of time. The counter is one atomic operation of the cache: requests at the
    same time do not slip through, as they do with those of REST framework.
    """

    limit: int  # requests in a window
    period = 10 * 60  # seconds

    @abstractmethod
    def key(self, request: Request) -> str:
        """Return who or what is counted, or "" where nobody knows: that would be everybody."""

    def allow_request(self, request: Request, view: Any) -> bool:
        key = self.key(request)
        if not key:
            return True
        window, self._passed = divmod(time.time(), self.period)
        # JSON may have halves of surrogate pairs, which no serializer has refused yet.
        digest = sha256(key.encode(errors="surrogatepass")).hexdigest()
        name = f"sessionkit:{type(self).__name__}:{digest}:{int(window)}"
        cache.add(name, 0, self.period)
        try:
            return bool(cache.incr(name) <= self.limit)
        except ValueError:  # a cache that keeps nothing, or has no room
            return True

    def wait(self) -> float:
        return self.period - self._passed + 1


class PerAccount(PasswordThrottle):
    limit = 10

    def key(self, request: Request) -> str:
        session = request._request.session
        locked = getattr(session, "locked", None)
        person = getattr(locked or session, "person", None)
        return str(person or (locked.user if locked else request.user.pk))


class PerUsername(PasswordThrottle):
    """For a sign-in: by what is sent, whether there is such a user or not."""

    limit = 10

    def key(self, request: Request) -> str:
        sent = request.data
        return (
            as_username(str(sent.get("username", ""))).casefold() if isinstance(sent, dict) else ""
        )


class PerAddress(PasswordThrottle):
    limit = 100

    def key(self, request: Request) -> str:
        client = client_of(request._request, conf.SESSIONKIT_TRUSTED_PROXIES)
        address = client.address or ""
        # Whoever has an address of IPv6 has more of them than anybody can count.
        return client.network if ":" in address else address
