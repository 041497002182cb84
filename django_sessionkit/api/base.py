"""
What the views of the API have in common. They say themselves what REST framework else takes from
the settings of the site: these are for the site's own views.
"""

from io import BytesIO
from types import SimpleNamespace
from typing import Any

from django.http.response import HttpResponseBase
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from drf_spectacular.openapi import AutoSchema
from rest_framework.exceptions import ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import JSONParser
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from django_sessionkit.api.authentication import SessionAuthentication
from django_sessionkit.api.handling import handle
from django_sessionkit.models import UserSessionQuerySet
from django_sessionkit.own_sessions import own_sessions
from django_sessionkit.proofs import ask_for_proof


class HasSession(BasePermission):
    """For whoever has a session, be it locked."""

    def has_permission(self, request: Request, view: Any) -> bool:
        is_known = getattr(request.user, "is_authenticated", False)  # the site may have None
        return bool(is_known or getattr(request._request.session, "locked", None))


class Parser(JSONParser):
    strict = True

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        """
        Return the JSON of a request. It is UTF-8 (RFC 8259 §8.1), whatever the request says, and
        no longer than DATA_UPLOAD_MAX_MEMORY_SIZE: REST framework would read all that comes.
        """
        try:
            body = BytesIO(parser_context["request"].body)
            return super().parse(body, media_type, {**parser_context, "encoding": "utf-8"})
        except RecursionError:
            raise ParseError from None


class Renderer(JSONRenderer):
    strict = compact = True
    ensure_ascii = False


class ByAcceptAlone(DefaultContentNegotiation):
    settings = SimpleNamespace(URL_FORMAT_OVERRIDE=None)


@method_decorator(never_cache, name="dispatch")
class SessionKitView(APIView):
    tells_problems = True
    http_method_names = ("get", "head", "post", "patch", "delete")
    authentication_classes = (SessionAuthentication,)
    permission_classes: Any = (IsAuthenticated,)
    throttle_classes: Any = ()
    renderer_classes = (Renderer,)
    parser_classes = (Parser,)
    content_negotiation_class = ByAcceptAlone
    metadata_class = versioning_class = None
    schema = AutoSchema()

    def get_exception_handler(self) -> Any:
        return handle

    def own_sessions(self) -> UserSessionQuerySet:
        return own_sessions(self.request._request, self.request.user)

    def sent(self, serializer: Any) -> dict[str, Any]:
        """Return what was sent. Raises ValidationError for JSON that is not as it should be."""
        found = serializer(data=self.request.data)
        found.is_valid(raise_exception=True)
        data: dict[str, Any] = found.validated_data
        return data

    def asked_for_proof(self, request: Request) -> HttpResponseBase | None:
        """Return what asks for a recent proof of identity, or None where there is one."""
        return ask_for_proof(request._request, None)
