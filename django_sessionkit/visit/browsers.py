"""
The device cookie. It names a browser, so that the browser is known when somebody signs in with it
again, and all its sessions are shown as those of one device. It authenticates nobody: without it,
or with that of another browser, a visitor can do no less and no more.

The name is a random UUID, signed so that nobody can make one up. The cookie is set with the answer
to a sign-in and nowhere else, and stays when the user signs out.
"""

import re
import uuid
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.core.signing import BadSignature, Signer
from django.http import HttpRequest, HttpResponse

from django_sessionkit.conf import conf
from django_sessionkit.visit import cookies
from django_sessionkit.visit.client import Visit

# Seconds, from the last sign-in: two years.
AGE = 2 * 365 * 24 * 60 * 60
SALT = "django_sessionkit.browser"
# What sign() makes. Nothing else is worth computing a signature.
SIGNED = re.compile(r"[0-9a-f]{32}:[\w-]{43}", re.ASCII)


def browser_of(request: HttpRequest) -> uuid.UUID | None:
    """
    Return which browser somebody signs in with, or which device has the app: a new one if it says
    nothing. Return None on a site without such a cookie.
    """
    if not conf.SESSIONKIT_DEVICE_COOKIE:
        return None
    visit: Visit = request.sessionkit  # type: ignore[attr-defined]
    known = read(request) if visit.app is None else visit.app.device
    return known or uuid.uuid4()


def read(request: HttpRequest) -> uuid.UUID | None:
    """
    Return which browser a request says it comes from. Return None if it has no such cookie that
    this site has signed, or two, so that nobody can tell which of them is the browser's. One that
    another site has set, for its whole domain say, does not count.
    """
    values = cookies.values(request, conf.SESSIONKIT_DEVICE_COOKIE or "")
    found = {browser for value in values if (browser := named_by(value))}
    return found.pop() if len(found) == 1 else None


def named_by(text: str) -> uuid.UUID | None:
    """Return which browser a text names that signed_name() has returned, or None."""
    if SIGNED.fullmatch(text):
        with suppress(BadSignature):
            return uuid.UUID(Signer(salt=SALT).unsign(text))
    return None


def signed_name(browser: uuid.UUID) -> str:
    """Return the name of a browser, signed."""
    return Signer(salt=SALT).sign(browser.hex)


def finish(request: HttpRequest, response: HttpResponse) -> None:
    """Set the cookie with the answer to a request by which somebody has signed in."""
    visit: Visit | None = getattr(request, "sessionkit", None)
    if visit is None or visit.browser is None or response.status_code >= 500:
        return
    name: Any = conf.SESSIONKIT_DEVICE_COOKIE
    response.set_cookie(
        name,
        signed_name(visit.browser),
        max_age=AGE,
        domain=settings.SESSION_COOKIE_DOMAIN,
        path=settings.SESSION_COOKIE_PATH,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
    cookies.keep_from_caches(request, response)
