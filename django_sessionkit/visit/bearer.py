"""
The session key in a header, for clients without cookies: read from a request, and given with the
answer where the key has changed. It is the twin of the session cookie (cookies.py).

A request with such a header is that header's: its cookies count for nothing. A browser never sends
the header by itself, so nobody can forge such a request from another site, and it needs no CSRF
token.
"""

import re
from typing import Any, Protocol

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers
from django.views.decorators.debug import sensitive_variables

from django_sessionkit.visit import cookies

# What stands before the session key, so that scanners of source code and logs find a key that has
# got there.
PREFIX = "sk_"
# The header of a request (RFC 6750 §2.1). Every other bearer is somebody else's. The case of the
# scheme does not matter (RFC 9110 §11.1), that of the key does.
AUTHORIZATION = re.compile(rf"(?i:bearer) +{PREFIX}([a-z0-9]{{32}})", re.ASCII)
# The header of an answer that gives a new key.
NEW_KEY = "Session-Key"


class Session(Protocol):
    """What this module needs to know of a session, at the end of a request."""

    has_given_key: bool

    @property
    def withholds_key(self) -> bool: ...
    @property
    def has_other_key(self) -> bool: ...
    @property
    def accessed(self) -> bool: ...
    @property
    def session_key(self) -> str | None: ...
    def is_empty(self) -> bool: ...


@sensitive_variables()
def read(request: HttpRequest) -> str | None:
    """
    Return the session key in the header of a request, or None if there is no such header. What is
    malformed, or there twice, is no such header.
    """
    value = request.META.get("HTTP_AUTHORIZATION") or ""
    # Most requests have none.
    found = AUTHORIZATION.fullmatch(value) if value else None
    return found[1] if found else None


def is_in(request: HttpRequest) -> bool:
    """Tell whether a request has such a header."""
    return read(request) is not None


def text_of(session: Session) -> str:
    """Return the session key as its client sends it: with the prefix."""
    return f"{PREFIX}{session.session_key}"


def finish(request: HttpRequest, session: Session, response: HttpResponse) -> None:
    """Give the client the new key of its session, if the key has changed."""
    if session.accessed:
        patch_vary_headers(response, ("Authorization",))
    is_good = response.status_code < 500 and not session.is_empty()
    gives_key = is_good and session.has_other_key and not session.withholds_key
    if gives_key:
        response.headers[NEW_KEY] = text_of(session)
    if gives_key or session.has_given_key:
        cookies.keep_from_caches(request, response)


def spare_csrf(request: Any) -> None:
    """
    Have Django's CSRF middleware let this request pass. Django's test client says so by the same
    attribute.
    """
    request._dont_enforce_csrf_checks = True


def drop_csrf_cookie(response: HttpResponse) -> None:
    """
    Take back the cookie that Django's CSRF middleware has set, because of a form in the answer or
    of login(), and that the answer varies by cookies.
    """
    if response.cookies.pop(settings.CSRF_COOKIE_NAME, None) is not None:
        names = [name.strip() for name in response.headers.get("Vary", "").split(",")]
        del response.headers["Vary"]
        if others := [name for name in names if name.lower() != "cookie"]:
            patch_vary_headers(response, others)
