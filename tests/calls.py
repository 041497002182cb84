"""Views that call the method of a session that a test names, and other help for lifetimes."""

from typing import Any

from django.contrib.auth import SESSION_KEY
from django.http import HttpResponse
from django.urls import path

from tests.browsers import sets_no_cookie
from tests.pages import PROVE
from tests.store import SessionStore
from tests.urls import urlpatterns as site

# The header of a background request, which is not the user's doing.
BACKGROUND = {"x-background-request": "1"}

# The name of the method that the views call, and its arguments.
CALL: list[Any] = []


def call(request):
    """Reads the session, then calls the method that the test names."""
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
    """Replaces what the session holds, without reading it."""
    request.session.clear()
    request.session["cart"] = "kettle"
    return HttpResponse("done")


async def aoverwrite(request):
    return overwrite(request)


def count(request):
    """Writes into the session, although it is only asked for something."""
    request.session.update(request.GET.dict())
    return HttpResponse("counted")


async def acount(request):
    await request.session.aupdate(request.GET.dict())
    return HttpResponse("counted")


urlpatterns = [
    *site,
    path("call/", call),
    path("acall/", acall),
    path("call_blindly/", call_blindly),
    path("acall_blindly/", acall_blindly),
    path("overwrite/", overwrite),
    path("aoverwrite/", aoverwrite),
    path("count/", count),
    path("acount/", acount),
]


def use(browser, name, *args):
    """Have a view call this method of the session of a browser. Return the answer."""
    CALL[:] = name, *args
    response = browser.get(f"/{browser.a}call/")
    assert response.content == b"done"
    return response


def hand_made(user):
    """Return the session of a sign-in without login() and without a request."""
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session.save()
    return session


def leads_to_the_lock(response, back=""):
    """Tell whether an answer leads to the page that unlocks a session, and gives no key."""
    to = response.json()["url"] if response.status_code == 401 else response.headers["Location"]
    return to == f"{PROVE}{back}" and sets_no_cookie(response)


def prove_and_go_on(browser):
    """Send the password that a locked session asks for, with the view ``read`` as the next page."""
    return browser.post(PROVE, {"password": "secret", "next": "/read/"})
