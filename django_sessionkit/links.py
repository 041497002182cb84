"""
The links in mails. They begin with SESSIONKIT_SITE_URL, and never with the Host header of a
request, which a visitor can choose.
"""

import uuid
from contextlib import suppress
from typing import Any

from django.core import signing
from django.urls import NoReverseMatch, reverse

from django_sessionkit.conf import conf

SALT = "django_sessionkit.links.report"
# Seconds for which somebody can report a session by the link in a mail.
REPORT_AGE = 24 * 60 * 60
# The names of pages that lead to a new password. The first one needs no sign-in.
PASSWORD_PAGES = ("password_reset", "password_change")


def report_link(handle: uuid.UUID) -> str:
    """Return the URL of the page on which a user says that a session is not theirs."""
    return absolute("django_sessionkit:session_report", signing.dumps(handle.hex, salt=SALT))


def reported(token: str) -> uuid.UUID | None:
    """Return the handle in the token of report_link(), or None if that is forged or too old."""
    with suppress(signing.BadSignature):
        return uuid.UUID(signing.loads(token, salt=SALT, max_age=REPORT_AGE))
    return None


def absolute(name: str, *args: Any) -> str:
    """Return the URL of the view with this name, to be opened from elsewhere."""
    return conf.SESSIONKIT_SITE_URL.rstrip("/") + reverse(name, args=args)


def password_url() -> str:
    """Return the path of the site's page that leads to a new password, or "" if there is none."""
    for name in PASSWORD_PAGES:
        with suppress(NoReverseMatch):
            return reverse(name)
    return ""
