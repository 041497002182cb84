"""The session cookie: read from a request, and set or deleted with the answer."""

import logging
import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.utils.http import http_date
from django.views.decorators.debug import sensitive_variables

from django_sessionkit.visit.client import is_of_app

security_logger = logging.getLogger("django.security.SuspiciousSession")

# The session keys that Django's engines and ours issue: 32 lower case letters and digits.
SESSION_KEY_PATTERN = re.compile(r"[a-z0-9]{32}", re.ASCII)


# What a cache in front of a site goes by instead of Cache-Control (RFC 9213, and before it).
OF_CACHES = ("CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "Surrogate-Control")


class Session(Protocol):
    """What this module needs to know of a session, at the end of a request."""

    slid: bool
    has_new_key: bool

    @property
    def withholds_key(self) -> bool: ...
    @property
    def accessed(self) -> bool: ...
    @property
    def session_key(self) -> str | None: ...
    def is_empty(self) -> bool: ...
    def has_good_cookie(self) -> bool: ...
    def get_expire_at_browser_close(self) -> bool: ...
    def get_expiry_age(self) -> int: ...


@sensitive_variables()
def read(request: HttpRequest, takes: Callable[[str], bool] | None = None) -> str | None:
    """
    Return the session key of a request. Return None if the cookie is missing or malformed, or if it
    is there with two values, so that nobody can tell which value the site has set. What is no key,
    but ``takes`` is true for, is returned, too.

    This function reads the header as it came (RFC 6265bis §5.6.3). Django's parser strips any
    Unicode white space around names and unquotes octal escapes, so a page of a sibling domain could
    pass its own cookie off as one with the prefix __Host-. Without such a cookie in the header, the
    one counts that code of the site has put into ``request.COOKIES``.
    """
    name = settings.SESSION_COOKIE_NAME
    found = values(request, name)
    if len(found) > 1:
        spare(request)  # deleting the cookie could delete the good one
        security_logger.warning(
            "A request came with %d session cookies, and none was used", len(found)
        )
        return None
    key = found.pop() if found else _set_by_code(request, name)
    is_good = SESSION_KEY_PATTERN.fullmatch(key) or (takes and takes(key))
    return key if is_good else None


def values(request: HttpRequest, name: str) -> set[str]:
    """Return the values that a request has for the cookie of this name, as they came."""
    header = request.META.get("HTTP_COOKIE", "")
    return {value.strip(" \t") for value in _pairs(name).findall(header)}


@lru_cache(maxsize=8)
def _pairs(name: str) -> re.Pattern[str]:
    """Return the pattern that finds the values of a cookie, in linear time."""
    return re.compile(rf"(?:^|;)[ \t]*{re.escape(name)}[ \t]*(?:=([^;]*))?(?=;|\Z)")


def _set_by_code(request: HttpRequest, name: str) -> str:
    """Return the cookie that a middleware or a test has put into request.COOKIES, or ""."""
    # Django fills this dictionary when somebody first asks for it.
    cookies: dict[str, str] = vars(request).get("COOKIES", {})
    if name not in cookies:
        return ""
    parser: Any = getattr(type(request), "COOKIES", None)
    came = parser.func(request).get(name) if parser else None
    return "" if cookies[name] == came else str(cookies[name])


def spare(request: HttpRequest) -> None:
    """Keep finish() from deleting the cookie, although the session is empty."""
    request.COOKIES.pop(settings.SESSION_COOKIE_NAME, None)


def finish(request: HttpRequest, session: Session, response: HttpResponse, saved: bool) -> None:
    """
    Set the cookie of a session that was saved, prolong it, or delete the cookie of an empty
    session. ``saved`` tells whether this request has saved the session.
    """
    name, slides = settings.SESSION_COOKIE_NAME, session.slid or session.has_new_key
    if session.is_empty():
        if name in request.COOKIES:
            response.delete_cookie(
                name,
                path=settings.SESSION_COOKIE_PATH,
                domain=settings.SESSION_COOKIE_DOMAIN,
                samesite=settings.SESSION_COOKIE_SAMESITE,
            )
    elif (
        response.status_code < 500
        and (slides or (saved and not session.has_good_cookie()))
        and not session.withholds_key
    ):
        give(session, response, saved)
    # No variable holds the cookie: error reports show variables.
    sets_cookie = name in response.cookies
    if sets_cookie or session.accessed:
        patch_vary_headers(response, ("Cookie",))
    if sets_cookie:
        keep_from_caches(request, response)
        if name.startswith(("__Http-", "__Host-Http-")):
            # Browsers refuse to delete the cookie without the attributes that the prefix demands.
            # Django's delete_cookie() lacks some of them for these prefixes.
            response.cookies[name]["httponly"] = response.cookies[name]["secure"] = True


def keep_from_caches(request: HttpRequest, response: HttpResponse) -> None:
    """
    Keep an answer that is for this visitor alone, as one with a session key is, out of every cache
    on the way, whatever the view has told one (ASVS 14.3.2).
    """
    vary_by_visitor(request, response)
    patch_cache_control(response, no_store=True, private=True)
    for header in OF_CACHES:
        del response.headers[header]


def vary_by_visitor(request: HttpRequest, response: HttpResponse) -> None:
    """Say by which header of a request a cache can tell whose answer this is."""
    patch_vary_headers(response, ("Authorization" if is_of_app(request) else "Cookie",))


def give(session: Session, response: HttpResponse, saved: bool) -> None:
    """Set the cookie with the session key, for as long as the session lives."""
    at_close = session.get_expire_at_browser_close()
    if at_close and not (session.has_new_key or saved):
        return  # a cookie that ends with the browser has no date to prolong
    age = None if at_close else session.get_expiry_age()
    response.set_cookie(
        settings.SESSION_COOKIE_NAME,
        session.session_key or "",  # not as a plain text, which error reports show
        max_age=age,
        expires=None if age is None else http_date(time.time() + age),
        domain=settings.SESSION_COOKIE_DOMAIN,
        path=settings.SESSION_COOKIE_PATH,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=settings.SESSION_COOKIE_HTTPONLY,
        samesite=settings.SESSION_COOKIE_SAMESITE,
    )
