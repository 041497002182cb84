"""
What a program is told that went wrong: problem details (RFC 9457). Views that say so, as those of
the JSON API do, answer with these and never with a page.
"""

from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, JsonResponse

# The namespaces of the URLs of the pages, and of the JSON API. A URL that both have has one name.
PAGES, NAMESPACE = "django_sessionkit", "django_sessionkit_api"

MEDIA_TYPE = "application/problem+json"
# What goes with every 401 (RFC 9110 §15.5.2). Browsers ask nobody for a password because of it.
CHALLENGE = "Bearer"


def tells_problems(request: HttpRequest) -> bool:
    """Tell whether the view of a request has the class attribute ``tells_problems``."""
    match = getattr(request, "resolver_match", None)
    view = getattr(getattr(match, "func", None), "view_class", None)
    return bool(getattr(view, "tells_problems", False))


def problem(status: int, code: str, detail: str, **more: Any) -> dict[str, Any]:
    """
    Return the JSON of a problem. ``code`` is stable, and says more than the status does; ``detail``
    is for people, in their language. The type "about:blank" makes the title that of the status.
    """
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        **more,
    }


def answer(status: int, code: str, detail: str, **more: Any) -> JsonResponse:
    """Return the answer with a problem."""
    data = problem(status, code, detail, **more)
    headers = {"WWW-Authenticate": CHALLENGE} if status == HTTPStatus.UNAUTHORIZED else {}
    return JsonResponse(data, status=status, content_type=MEDIA_TYPE, headers=headers)
