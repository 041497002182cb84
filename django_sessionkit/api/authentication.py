"""For Django REST framework: the user of the request's session. The views of a site can use it."""

from typing import Any

from rest_framework.authentication import CSRFCheck
from rest_framework.authentication import SessionAuthentication as DjangoSession
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from django_sessionkit.accounts import is_disabled
from django_sessionkit.problems import CHALLENGE


class CSRFFailed(PermissionDenied):
    default_code = "csrf_failed"


class SessionAuthentication(DjangoSession):
    """
    Use this in place of REST framework's. A stranger gets 401, not 403, as RFC 9110 §15.5.2 has it.
    A request that a page of another site could forge takes the CSRF token: also where a session is
    locked, and nobody is signed in.
    """

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        django_request = request._request
        # A request of APIRequestFactory has neither.
        user, session = (getattr(django_request, name, None) for name in ("user", "session"))
        is_known = user is not None and user.is_authenticated and not is_disabled(user)
        if is_known or getattr(session, "locked", None):
            self.enforce_csrf(request)
        return (user, None) if is_known else None

    def enforce_csrf(self, request: Request) -> None:
        check = CSRFCheck(lambda request: None)
        check.process_request(request._request)
        # Not REST framework's request: its form is read by a parser, which there may not be.
        if reason := check.process_view(request._request, None, (), {}):
            raise CSRFFailed(f"CSRF Failed: {reason}")

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE
