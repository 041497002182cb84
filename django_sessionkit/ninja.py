"""Tokens for the operations of django-ninja: ``NinjaAPI(auth=TokenAuth())``."""

from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest
from ninja.security import HttpBearer

from django_sessionkit import tokens
from django_sessionkit.exceptions import InvalidToken
from django_sessionkit.tokens import Claims


class TokenAuth(HttpBearer):
    """
    The user of the token in ``Authorization: Bearer``, as ``request.user``. ``request.auth`` are
    the claims. A subclass may have another ``audience``, or ask with each request whether the
    session goes on.
    """

    audience: str | None = None
    check_session = False

    def authenticate(self, request: HttpRequest, token: str) -> Claims | None:
        if token.startswith("sk_"):  # the key of a session, which is somebody else's to look at
            return None
        options: Any = {"audience": self.audience, "check_session": self.check_session}
        try:
            user, claims = tokens.authenticate(token, **options)
        except InvalidToken:
            return None
        request.user = user  # type: ignore[assignment]  # of whatever model
        return claims


class AsyncTokenAuth(TokenAuth):
    """The same for operations that are coroutines."""

    async def authenticate(  # type: ignore[override]
        self, request: HttpRequest, token: str
    ) -> Claims | None:
        return await sync_to_async(super().authenticate)(request, token)
