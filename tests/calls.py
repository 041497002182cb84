"""Views that do to a session what a test says, and what else tests of lifetimes have in common."""

from typing import Any

from django.contrib.auth import SESSION_KEY
from django.http import HttpResponse
from django.urls import path

from tests.pages import PROVE
from tests.store import SessionStore
from tests.urls import urlpatterns as site

# What a request says that is none of the user's.
BACKGROUND = {"x-background-request": "1"}

CALL: list[Any] = []


def call(request):
    """Does to the session what the test says, as a view does that has looked at it before."""
    request.session.get("cart")
    return call_blindly(request)


async def acall(request):
    await request.session.aget("cart")
    return await acall_blindly(request)


def call_blindly(request):
    name, *args = CALL
    getattr(request.session, name)(*args)
    return HttpResponse("done")


async def acall_blindly(request):
    name, *args = CALL
    await getattr(request.session, f"a{name}")(*args)
    return HttpResponse("done")


def overwrite(request):
    """Does away with what was there, without a look at it."""
    request.session.clear()
    request.session["cart"] = "kettle"
    return HttpResponse("done")


async def aoverwrite(request):
    return overwrite(request)


urlpatterns = [
    *site,
    path("call/", call),
    path("acall/", acall),
    path("call_blindly/", call_blindly),
    path("acall_blindly/", acall_blindly),
    path("overwrite/", overwrite),
    path("aoverwrite/", aoverwrite),
]


def use(browser, name, *args):
    """Have the view do something to the session of a browser, and return its answer."""
    CALL[:] = name, *args
    response = browser.get(f"/{browser.a}call/")
    assert response.content == b"done"
    return response


def hand_made(user):
    """Return the session of a sign-in that nobody has done by login(), and without a request."""
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session.save()
    return session


def leads_to_the_lock(response, back=""):
    """Tell whether an answer leads to the page that opens a session again, and leaves the key."""
    return response.headers["Location"] == f"{PROVE}{back}" and "sessionid" not in response.cookies


def prove_and_go_on(browser):
    """Send the password where a locked session asks for it, to read on."""
    return browser.post(PROVE, {"password": "secret", "next": "/read/"})
