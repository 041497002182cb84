"""What the views of the API answer in place of an exception: problem details (RFC 9457)."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.http import Http404
from django.http.response import HttpResponseBase
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.settings import api_settings

from django_sessionkit import answers
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.problems import MEDIA_TYPE, problem


class Refusal(exceptions.APIException):
    """A problem with members of its own."""

    def __init__(self, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.more = more


class WrongPassword(Refusal):
    status_code = status.HTTP_403_FORBIDDEN
    default_code = "wrong_password"


class ProofElsewhere(Refusal):
    status_code = status.HTTP_403_FORBIDDEN
    default_code = "reauthentication_elsewhere"


class NotAnApp(Refusal):
    status_code = status.HTTP_403_FORBIDDEN
    default_code = "not_an_app"


class ChooseMore(Refusal):
    status_code = status.HTTP_409_CONFLICT
    default_code = "choose_more"


class NothingToChoose(Refusal):
    status_code = status.HTTP_404_NOT_FOUND
    default_code = "nothing_to_choose"


class NoTokens(exceptions.NotFound):
    default_code = "no_tokens"


class Ended(Refusal, exceptions.NotAuthenticated):
    default_code = "ended"


def handle(error: Exception, context: dict[str, Any]) -> HttpResponseBase | None:
    """Return the answer, or None for an exception that is for the site, or our middleware."""
    if isinstance(error, StoreUnavailable):
        return answers.unavailable(context["request"]._request)
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    elif isinstance(error, RequestDataTooBig):
        error = exceptions.ParseError()
    if not isinstance(error, exceptions.APIException):
        return None
    headers = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = str(int(wait))
    if isinstance(error, Ended):
        headers[answers.ENDED] = error.more["reason"]
    code, detail, more = error.default_code, error.detail, getattr(error, "more", {})
    if isinstance(error, exceptions.ValidationError):
        more = {"errors": list(_errors(error.get_full_details(), ""))}
        detail = error.default_detail
    data = problem(error.status_code, code, str(detail), **more)
    return Response(data, status=error.status_code, headers=headers, content_type=MEDIA_TYPE)


def _errors(found: Any, pointer: str) -> Iterator[dict[str, str]]:
    """Yield what is wrong with which value of the JSON, named by a JSON pointer (RFC 6901)."""
    if isinstance(found, Mapping) and set(found) == {"message", "code"}:
        yield {"pointer": f"#{pointer}", "code": found["code"], "detail": str(found["message"])}
        return
    entries = found.items() if isinstance(found, Mapping) else (("", each) for each in found)
    for name, each in entries:
        is_inside = name not in ("", api_settings.NON_FIELD_ERRORS_KEY)
        yield from _errors(each, f"{pointer}/{name}" if is_inside else pointer)
