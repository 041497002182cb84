"""
A view that signs a visitor in by hand: it writes into the session what login() writes, and does not
call login(). Somebody else may have put the key of the session into the visitor's browser, so that
key is worth nothing from then on.
"""

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.urls import path

from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.models import UserSession
from tests import store
from tests.browsers import browse_as, cart, given, put, read, view
from tests.people import is_in, key_of, only_row, post_sign_in
from tests.store import SessionStore
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"


def signed_in():
    """Return what login() would write into the session of Alice."""
    alice = User.objects.get(username="alice")
    return {
        SESSION_KEY: str(alice.pk),
        BACKEND_SESSION_KEY: "django.contrib.auth.backends.ModelBackend",
        HASH_SESSION_KEY: alice.get_session_auth_hash(),
    }


def by_hand(request):
    request.session.update(signed_in())
    return HttpResponse("signed in")


def by_hand_and_save(request):
    by_hand(request)
    request.session.save()
    return HttpResponse("signed in")


def by_hand_and_done(request):
    """Keeps the middleware from saving once more."""
    by_hand_and_save(request)
    request.session.modified = False
    return HttpResponse("signed in")


def by_hand_unread(request):
    """Does not read what the session holds."""
    request.session.clear()
    return by_hand(request)


def by_hand_in_two_steps(request):
    """Saves twice, and goes on in the session that it has."""
    by_hand_and_save(request)
    key = request.session.session_key
    request.session["cart"] = "kettle"
    request.session.save()
    assert request.session.session_key == key
    return HttpResponse("signed in")


def by_hand_elsewhere(request):
    """A package has put another object of the same session on the request."""
    request.session = SessionStore(request.session.session_key)
    return by_hand(request)


def by_hand_put_on_late(request):
    """A package has read the session before it has put it on the request."""
    session = SessionStore(request.session.session_key)
    session.get("cart")
    request.session = session
    return by_hand_and_save(request)


async def aby_hand(request):
    await request.session.aupdate(await sync_to_async(signed_in)())
    return HttpResponse("signed in")


async def aby_hand_and_save(request):
    await aby_hand(request)
    await request.session.asave()
    request.session.modified = False
    return HttpResponse("signed in")


VIEWS = {
    "by_hand": by_hand,
    "by_hand_and_save": by_hand_and_save,
    "by_hand_unread": by_hand_unread,
    "by_hand_in_two_steps": by_hand_in_two_steps,
    "by_hand_elsewhere": by_hand_elsewhere,
}
OUR_VIEWS = {
    **VIEWS,
    "by_hand_and_done": by_hand_and_done,
    "by_hand_put_on_late": by_hand_put_on_late,
}
ASYNC_VIEWS = {"aby_hand": aby_hand, "aby_hand_and_save": aby_hand_and_save}

urlpatterns = [*site]
urlpatterns += [path(f"{name}/", each) for name, each in {**OUR_VIEWS, **ASYNC_VIEWS}.items()]


@pytest.mark.standard("ASVS-7.2.4", "WSTG-SESS-03")
@pytest.mark.parametrize("name", [*OUR_VIEWS, *ASYNC_VIEWS])
def test_a_key_that_somebody_has_planted_is_worth_nothing(browse, alice, name):
    browser = browse()
    put(browser, cart="teapot")
    thief = browse_as(browser, key_of(browser))
    response = browser.get(f"/{name}/")
    assert response.content == b"signed in"
    assert given(response) not in (None, key_of(thief))
    assert is_in(browser)
    assert read(thief).json() == {}
    assert not is_in(thief)
    assert list(store.payloads()) == [digest_of(key_of(browser))] == [only_row().digest]
    if name in ("by_hand", "by_hand_and_save", "aby_hand", "aby_hand_and_save"):
        assert cart(browser) == "teapot"


@pytest.mark.parametrize("name", VIEWS)
def test_the_same_with_the_middleware_of_django(settings, alice, name):
    settings.MIDDLEWARE = [
        DJANGOS if each.endswith("SessionMiddleware") else each for each in settings.MIDDLEWARE
    ]
    browser = Client()
    browser.post("/write/", {"cart": "teapot"})
    thief = Client()
    thief.cookies["sessionid"] = key_of(browser)
    response = browser.get(f"/{name}/")
    assert given(response) not in (None, key_of(thief))
    assert browser.get("/whoami/").content == b"alice"
    assert thief.get("/whoami/").content == b"AnonymousUser"


def test_a_visitor_without_a_session_gets_one_key(browse, alice):
    browser = browse()
    response = browser.get(view(browser, "by_hand"))
    assert given(response) == key_of(browser)
    assert is_in(browser)
    assert list(store.payloads()) == [digest_of(key_of(browser))]


def test_login_changes_the_key_once(browse, alice):
    browser = browse()
    put(browser, cart="teapot")
    old = key_of(browser)
    moves = []
    move = SessionStore.move
    with pytest.MonkeyPatch.context() as patch:
        for verb in ("move", "amove") if SessionStore.native_async else ("move",):
            original = getattr(SessionStore, verb)
            patch.setattr(
                SessionStore,
                verb,
                staticmethod(lambda *args, original=original: moves.append(1) or original(*args)),
            )
        assert post_sign_in(browser).status_code == 302
    assert moves == [1]
    assert SessionStore.move == move
    assert key_of(browser) != old
    assert is_in(browser)


# Without a request nobody could give the browser a new key.


def test_a_session_that_a_test_fills_keeps_its_key(alice):
    client = Client()
    client.post("/write/", {"cart": "teapot"})
    key, session = key_of(client), client.session
    session.update(signed_in())
    session.save()
    assert session.session_key == key
    assert client.get("/whoami/").content == b"alice"
    assert client.get("/read/").json() == {"cart": "teapot"}


def test_a_session_that_a_script_fills_keeps_its_key(alice, drive):
    session = SessionStore()
    session["cart"] = "teapot"
    drive(session, "save")
    again = SessionStore(session.session_key)
    drive(again, "update", signed_in())
    drive(again, "save")
    assert again.session_key == session.session_key
    assert UserSession.objects.get().digest == digest_of(session.session_key)
