"""Cursors: opaque names of the pages of paging.py."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from urllib.parse import parse_qsl

from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from django_sessionkit.paging import SIDES, asked_position


class InvalidCursor(NotFound):
    default_code = "invalid_cursor"
    default_detail = _("There is no such page.")


def asked_in(request: Request, sides: tuple[str, str] = SIDES) -> dict[str, str]:
    """
    Return the parameters of the page that the cursor of a request names. Raises InvalidCursor.
    """
    cursor = request.query_params.get("cursor", "")
    if not cursor:
        return {}
    try:
        asked = dict(parse_qsl(urlsafe_b64decode(cursor.encode()).decode()))
    except ValueError:
        raise InvalidCursor from None
    if asked_position(asked, sides) is None:
        raise InvalidCursor
    return asked


def link(request: Request, query: str) -> str | None:
    """Return the URL of the page with a query string of paging.Page, or None for ""."""
    if not query:
        return None
    cursor = urlsafe_b64encode(query.removeprefix("?").encode()).decode()
    url: str = request.build_absolute_uri(f"{request.path}?cursor={cursor}")
    return url
