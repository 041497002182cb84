"""A session gets a token for other services: see tokens.py."""

from django.core.exceptions import ImproperlyConfigured
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from django_sessionkit.api import serializers
from django_sessionkit.api.base import SessionKitView
from django_sessionkit.api.handling import NoTokens
from django_sessionkit.api.schema import FORBIDDEN, operation
from django_sessionkit.exceptions import NoToken
from django_sessionkit.tokens import issue


class TokenView(SessionKitView):
    @operation(
        "token",
        {200: serializers.TokenSerializer},
        FORBIDDEN,
        {404: "The site gives no tokens: it has no key, or no issuer."},
        request=None,
        description="Get a token of the session, for other services. Ask again before it expires.",
    )
    def post(self, request: Request) -> Response:
        try:
            token = issue(request._request.session)
        except NoToken:
            raise NotAuthenticated from None
        except ImproperlyConfigured:  # a site that has PyJWT for something else
            raise NoTokens from None
        return Response({"token": token})
