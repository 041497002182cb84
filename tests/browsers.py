"""Browsers, on either of Django's handlers, and the Accept headers of pages and scripts."""

from typing import Any

from asgiref.sync import async_to_sync
from django.test import AsyncClient, Client

PAGE = {"accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
SCRIPT = {"accept": "application/json"}


class Browser(Client):
    """A browser on the WSGI handler. In tests/urls.py, sync views have plain names."""

    a = ""


class AsgiBrowser(AsyncClient):
    """
    A browser on the ASGI handler, with sync methods. In tests/urls.py, the names of async views
    begin with "a".
    """

    a = "a"

    def __init__(self, headers: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.usual = headers or {}  # Django's AsyncClient loses this parameter

    def get(self, *args: Any, headers: Any = (), **kwargs: Any) -> Any:
        headers = {**self.usual, **dict(headers)}
        return async_to_sync(super().get)(*args, headers=headers, **kwargs)

    def post(self, *args: Any, headers: Any = (), **kwargs: Any) -> Any:
        headers = {**self.usual, **dict(headers)}
        return async_to_sync(super().post)(*args, headers=headers, **kwargs)


BROWSERS = {"wsgi": Browser, "asgi": AsgiBrowser}


def view(browser: Any, name: str) -> str:
    """Return the URL of the view of this name: the async one on the ASGI handler."""
    return f"/{browser.a}{name}/"


def read(browser: Any, **headers: str) -> Any:
    """Have a view read the session, and return its answer."""
    return browser.get(view(browser, "read"), headers=headers)


def put(browser: Any, **fields: str) -> Any:
    """Have a view write fields into the session, and return its answer."""
    return browser.post(view(browser, "write"), fields)


def deletes_the_cookie(response: Any) -> bool:
    return bool(response.cookies["sessionid"]["max-age"] == 0)


def sets_no_cookie(response: Any) -> bool:
    """Tell whether an answer gives its visitor no session key: by no cookie, and by no header."""
    return given(response) is None


def cart(browser: Any) -> Any:
    """Return what is in the cart of a browser."""
    return read(browser).json().get("cart")


def browse_as(browser: Any, key: str) -> Any:
    """Open another browser of the same kind, which has copied a session key."""
    other = type(browser)(raise_request_exception=False, headers=PAGE)
    other.cookies["sessionid"] = key
    return other


def given(response: Any) -> str | None:
    """
    Return the session key in the cookie of an answer, or in the header that gives a key to an app.
    Return None if there is neither.
    """
    cookie = response.cookies.get("sessionid")
    if cookie is None and (key := response.headers.get("Session-Key")):
        return str(key).removeprefix("sk_")
    return None if cookie is None else str(cookie.value)
