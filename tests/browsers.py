"""Browsers, on either of Django's handlers, and what they say that they want."""

from typing import Any

from asgiref.sync import async_to_sync
from django.test import AsyncClient, Client

PAGE = {"accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
SCRIPT = {"accept": "application/json"}


class Browser(Client):
    """On the WSGI handler. The views in tests/urls.py that are sync have plain names."""

    a = ""


class AsgiBrowser(AsyncClient):
    """On the ASGI handler, without the await. Async views have names that begin with an "a"."""

    a = "a"

    def __init__(self, headers: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.usual = headers or {}  # the parameter of Django's gets lost

    def get(self, *args: Any, headers: Any = (), **kwargs: Any) -> Any:
        headers = {**self.usual, **dict(headers)}
        return async_to_sync(super().get)(*args, headers=headers, **kwargs)

    def post(self, *args: Any, headers: Any = (), **kwargs: Any) -> Any:
        headers = {**self.usual, **dict(headers)}
        return async_to_sync(super().post)(*args, headers=headers, **kwargs)


BROWSERS = {"wsgi": Browser, "asgi": AsgiBrowser}
