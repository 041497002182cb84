"""What the OpenAPI document says of the API, beyond what its views show."""

from typing import Any

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema

from django_sessionkit.api import serializers
from django_sessionkit.problems import MEDIA_TYPE


class SessionKey(OpenApiAuthenticationExtension):
    """The two ways in which a session key travels. Either will do."""

    target_class = "django_sessionkit.api.authentication.SessionAuthentication"
    name = ["sessionCookie", "sessionKey"]

    def get_security_definition(self, auto_schema: AutoSchema) -> list[dict[str, str]]:
        cookie = "Methods that change something take the CSRF token in X-CSRFToken, too."
        return [
            {
                "type": "apiKey",
                "in": "cookie",
                "name": settings.SESSION_COOKIE_NAME,
                "description": cookie,
            },
            {"type": "http", "scheme": "bearer", "description": "The key that an app has got."},
        ]

    def get_security_requirement(self, auto_schema: AutoSchema) -> Any:
        return [{name: []} for name in self.name]


CURSOR = OpenApiParameter("cursor", str, description="Names a page: from `next` or `previous`.")

# What every view may answer with.
ALWAYS = {
    401: "Nobody is signed in, the session has ended or is locked, or a proof is too old.",
    406: "The client does not accept JSON.",
    503: "The store of the sessions does not answer.",
}
BODY = {400: "The JSON is not as it should be.", 415: "The body is no JSON."}
FORBIDDEN = {403: "The CSRF token is missing or wrong."}


def operation(name: str, responses: dict[int, Any], *others: dict[int, str], **more: Any) -> Any:
    """Describe a method of a view, with the problems that it may answer with besides."""
    problems = {status: text for each in (ALWAYS, *others) for status, text in each.items()}
    told: dict[Any, Any] = dict(responses)
    for status in sorted(problems):
        problem = OpenApiResponse(serializers.ProblemSerializer, problems[status])
        told[status, MEDIA_TYPE] = problem
    describe: Any = extend_schema(operation_id=name, responses=told, tags=["sessions"], **more)

    def decorate(method: Any) -> Any:
        method.kwargs = {"schema": AutoSchema}  # whatever DEFAULT_SCHEMA_CLASS of the site is
        return describe(method)

    return decorate
