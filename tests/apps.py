"""Apps: clients that keep the session key themselves, and send it in a header."""

from http.cookies import SimpleCookie
from typing import Any

from asgiref.sync import async_to_sync
from django.test import AsyncClient, Client

from tests.browsers import BROWSERS

SIGN_IN, ASIGN_IN = "/app/sign-in/", "/app/asign-in/"


class Pocket(SimpleCookie):
    """
    Where an app keeps the session key: under the name of the cookie, so that a story is the same
    for browsers and apps. An app sends no cookies, and keeps none.
    """

    def values(self) -> Any:
        return ()

    def update(self, *args: Any, **kwargs: Any) -> None:
        pass


def check_for_cookies(answer: Any) -> None:
    """Check that an answer to an app has no cookies, and is that of its header for every cache."""
    assert not answer.cookies, answer.cookies
    assert "Cookie" not in answer.headers.get("Vary", "")


class Keeping:
    """
    What an app does with the session key: it keeps the key, sends it, and takes the next one. It
    checks of every answer that the key is nowhere else in it.
    """

    cookies: Any  # a Pocket
    device: str = ""
    usual: dict[str, str]

    @property
    def key(self) -> str:
        """The key as the app was given it, or ""."""
        kept = self.cookies.get("sessionid")
        return f"sk_{kept.value}" if kept is not None and kept.value else ""

    @key.setter
    def key(self, key: str) -> None:
        self.cookies["sessionid"] = key.removeprefix("sk_")

    def sent(self, headers: Any) -> dict[str, str]:
        bearer = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return {**self.usual, **bearer, **dict(headers)}

    def took(self, answer: Any) -> Any:
        if given := answer.headers.get("Session-Key"):
            assert "no-store" in answer.headers["Cache-Control"]
            self.key = given
        if self.key:  # otherwise nobody can tell that it is an app
            others = [value for name, value in answer.headers.items() if name != "Session-Key"]
            assert self.cookies["sessionid"].value not in answer.text + repr(others)
            check_for_cookies(answer)
        return answer

    def sign_in(self, **fields: Any) -> Any:
        """Sign in, as Alice if nobody else is named. Return the answer."""
        fields = {"username": "alice", "password": "secret", **fields}
        answer: Any = self.post(self.sign_in_url, fields)  # type: ignore[attr-defined]
        if answer.status_code == 200:
            self.key, self.device = answer.json()["key"], answer.json()["device"]
            assert "no-store" in answer.headers["Cache-Control"]
            check_for_cookies(answer)
        return answer

    def code(self, to: str = "/whoami/") -> str:
        """Return a code for a web view that is to show this page."""
        answer: Any = self.get(f"/app/{self.a}hand-over/", {"next": to})  # type: ignore[attr-defined]
        assert answer.status_code == 200
        code: str = answer.json()["code"]
        return code


class App(Keeping, Client):
    """An app that talks to the WSGI handler."""

    a = ""
    sign_in_url = SIGN_IN

    def __init__(self, headers: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(enforce_csrf_checks=True, **kwargs)
        self.cookies, self.usual = Pocket(), headers or {}

    def get(self, *args: Any, headers: Any = (), **kwargs: Any) -> Any:
        return self.took(super().get(*args, headers=self.sent(headers), **kwargs))

    def post(self, *args: Any, headers: Any = (), **kwargs: Any) -> Any:
        return self.took(super().post(*args, headers=self.sent(headers), **kwargs))


class AsgiApp(Keeping, AsyncClient):
    """An app that talks to the ASGI handler, with sync methods."""

    a = "a"
    sign_in_url = ASIGN_IN

    def __init__(self, headers: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(enforce_csrf_checks=True, **kwargs)
        self.cookies, self.usual = Pocket(), headers or {}

    def get(self, *args: Any, headers: Any = (), **kwargs: Any) -> Any:
        answer = async_to_sync(super().get)(*args, headers=self.sent(headers), **kwargs)
        return self.took(answer)

    def post(self, *args: Any, headers: Any = (), **kwargs: Any) -> Any:
        answer = async_to_sync(super().post)(*args, headers=self.sent(headers), **kwargs)
        return self.took(answer)


APPS = {"wsgi": App, "asgi": AsgiApp}
# By how their session key travels, the clients of stories that are told of all.
CLIENTS: dict[str, dict[str, Any]] = {
    "cookie": dict(BROWSERS),
    "header": {f"app-{handler}": app for handler, app in APPS.items()},
}
