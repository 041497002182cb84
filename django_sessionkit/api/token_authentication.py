"""Tokens for the views of Django REST framework."""

from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from django_sessionkit import tokens
from django_sessionkit.exceptions import InvalidToken
from django_sessionkit.tokens import Claims


class TokenAuthentication(BaseAuthentication):
    """
    The user of the token in ``Authorization: Bearer``. ``request.auth`` are the claims. A subclass
    may have another ``audience``, or ask with each request whether the session goes on.
    """

    audience: str | None = None
    check_session = False

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, Claims] | None:
        token = _token_of(request)
        if token is None:
            return None
        options: Any = {"audience": self.audience, "check_session": self.check_session}
        try:
            return tokens.authenticate(token, **options)
        except InvalidToken as error:
            raise AuthenticationFailed from error

    def authenticate_header(self, request: Request) -> str:
        # RFC 6750 §3.1: whoever has sent no token has made no error.
        return "Bearer" if _token_of(request) is None else 'Bearer error="invalid_token"'


def _token_of(request: Request) -> str | None:
    """Return the token of a request. What begins with "sk_" is the key of a session, and none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    is_token = scheme.lower() == "bearer" and not token.startswith("sk_")
    return token if is_token else None
