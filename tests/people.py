"""People and their browsers: how a test signs a user in, and asks who is signed in."""

import uuid
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.test import Client

from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.models import UserSession
from tests.apps import Keeping
from tests.browsers import PAGE, SCRIPT, view
from tests.pages import press
from tests.store import SessionStore

# User agents.
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0"
NEW_FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:151.2) Gecko/20100101 Firefox/151.2"
FIREFOX_ON_WINDOWS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:150.0) Gecko/20100101 Firefox/150.0"
)
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/156.0.0.0 Safari/537.36"
)
CHROME_ON_LINUX = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/156.0.0.0 Safari/537.36"
)
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/26.1 Mobile/15E148 Safari/604.1"
)


# Signing in.

CREDENTIALS = {"username": "alice", "password": "secret"}


def sign_in(
    user: AbstractBaseUser,
    user_agent: str = FIREFOX,
    address: str = "192.0.2.1",
    password: str = "secret",
) -> Client:
    """
    Sign in as a person does, by the form, with all that protects the form. Return the browser.
    """
    headers = PAGE | {"user-agent": user_agent}
    device = Client(enforce_csrf_checks=True, headers=headers, REMOTE_ADDR=address)
    answer = press(device, "/login/", username=user.get_username(), password=password)
    assert answer.status_code == 302
    return device


def post_sign_in(browser: Any, name: str = "alice", password: str = "secret", **extra: Any) -> Any:
    """
    Send the form of the sign-in page, without opening the page first, or sign in as an app does.
    Return the answer.
    """
    if isinstance(browser, Keeping):
        return browser.sign_in(username=name, password=password)
    return browser.post("/login/", {"username": name, "password": password}, **extra)


def same(device: Client) -> Client:
    """Return a new client for the same browser: a client does not notice a new MIDDLEWARE."""
    defaults: dict[str, Any] = device.defaults
    again = Client(enforce_csrf_checks=True, **defaults)
    again.cookies = device.cookies
    return again


# Who is signed in.


def who(browser: Any) -> str:
    """
    Return the name of the user who is signed in, or "". If the browser is redirected to another
    page than the one to sign in, or an app is told of one, return the path of that.
    """
    response = browser.get("/private/")
    if response.status_code == 302:
        path: str = response.headers["Location"].partition("?")[0]
        return path if path != "/login/" else ""
    if response.status_code == 401:  # a script
        url: str = response.json().get("url", "") if isinstance(browser, Keeping) else ""
        return url.partition("?")[0]
    assert response.status_code == 200
    name: str = response.content.decode()
    return name


def is_in(browser: Any, user: AbstractBaseUser | str = "alice") -> bool:
    """Tell whether this user is signed in."""
    return who(browser) == str(user)


def is_still_in(browser: Any) -> bool:
    """Tell whether Alice is signed in, by the async view on the ASGI handler."""
    return bool(browser.get(view(browser, "whoami")).content == b"alice")


def told(browser: Any) -> str:
    """Return the reason that a script is told with its answer, after its session has ended."""
    response = browser.get(view(browser, "whoami"), headers=SCRIPT)
    assert response.content == b"AnonymousUser"
    reason: str = response.headers["Session-Ended"]
    return reason


def is_out(browser: Any, reason: str) -> bool:
    """Tell whether a browser is signed out, and whether the sign-in page tells the reason once."""
    page = browser.get("/private/", follow=True)
    assert page.redirect_chain == [("/login/?next=/private/", 302)]
    return reason in page.text and who(browser) == ""


def is_told(browser: Any, text: bytes) -> bool:
    """Tell whether the page that a browser is redirected to, or the answer to an app, says this."""
    response = browser.get("/private/")
    if isinstance(browser, Keeping):
        return response.status_code == 401 and text in response.content
    return response.status_code == 302 and text in browser.get(response.headers["Location"]).content


# Their sessions.


def key_of(browser: Any) -> str:
    """Return the session key of a browser."""
    key: str = browser.cookies["sessionid"].value
    return key


def handle(browser: Any) -> uuid.UUID:
    """Return the handle of the session of a browser, from the store."""
    found: uuid.UUID | None = SessionStore(key_of(browser)).handle
    assert found
    return found


def row_of(browser: Any) -> UserSession:
    """Return the row of the session of a browser."""
    return UserSession.objects.get(digest=digest_of(key_of(browser)))


def only_row() -> UserSession:
    """Return the only row of a session."""
    return UserSession.objects.get()


def end_url(device: Client) -> str:
    """Return the URL of the page on which a user ends the session of a browser."""
    return f"/account/sessions/{handle(device)}/end/"
