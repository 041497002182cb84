"""Sessions that a package puts on the request: by a header, or made anew from a key."""

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib import auth
from django.contrib.auth.models import User
from django.http import HttpResponse, JsonResponse
from django.urls import path

from django_sessionkit.models import EndReason, UserSession
from tests.browsers import SCRIPT
from tests.calls import BACKGROUND
from tests.people import FIREFOX, is_still_in, key_of, only_row, row_of
from tests.store import SessionStore
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]


@contextmanager
def by_header(request):
    """As allauth does: the session of a header, for as long as the view runs."""
    before = request.session
    request.session = SessionStore(request.headers["X-Session-Token"])
    try:
        yield
        if request.session.modified:
            request.session.save()
    finally:
        request.session = before


def api(request):
    with by_header(request):
        return JsonResponse({"user": auth.get_user(request).username})


async def aapi(request):
    with by_header(request):
        return JsonResponse({"user": (await auth.aget_user(request)).username})


def put_on(request):
    """As a middleware or a package does, before or after it reads the session."""
    session = SessionStore(request.headers["X-Session-Token"])
    if "early" in request.GET:
        session.get("cart")
    request.session = session
    return HttpResponse(auth.get_user(request).username)


async def aput_on(request):
    session = SessionStore(request.headers["X-Session-Token"])
    if "early" in request.GET:
        await session.aget("cart")
    request.session = session
    return HttpResponse((await auth.aget_user(request)).username)


def sign_in_anew(request):
    """As mozilla-django-oidc does."""
    request.session = request.session.__class__(request.session.session_key)
    auth.login(request, User.objects.get())
    return HttpResponse("done")


async def asign_in_anew(request):
    request.session = request.session.__class__(request.session.session_key)
    await auth.alogin(request, await User.objects.aget())
    return HttpResponse("done")


LISTED: list[str] = []


def look(request):
    request.session.get("cart")
    return HttpResponse(SessionStore(LISTED[0]).get("cart"))


async def alook(request):
    await request.session.aget("cart")
    return HttpResponse(await SessionStore(LISTED[0]).aget("cart"))


urlpatterns = [
    *site,
    path("look/", look),
    path("alook/", alook),
    path("api/", api),
    path("aapi/", aapi),
    path("put_on/", put_on),
    path("aput_on/", aput_on),
    path("anew/", sign_in_anew),
    path("aanew/", asign_in_anew),
]
WAYS = ["api/", "put_on/", "put_on/?early"]


def ask(browser, way, key, **headers):
    return browser.get(f"/{browser.a}{way}", headers={"x-session-token": key, **headers})


@pytest.mark.parametrize("way", WAYS)
def test_a_session_that_comes_by_a_header_does_not_go_idle_while_it_is_used(
    browse, signed_in, policy, clock, way
):
    policy(idle=600)
    key, app = key_of(signed_in()), browse(**{"user-agent": FIREFOX})
    for _ in range(5):
        clock.move(seconds=400)
        assert b"alice" in ask(app, way, key).content
    row = only_row()
    assert row.last_seen_at == datetime.now(UTC)
    assert (row.user_agent, row.ip) == (FIREFOX, "127.0.0.1")
    clock.move(seconds=600)
    assert b"alice" not in ask(app, way, key).content


@pytest.mark.parametrize("way", WAYS)
def test_a_session_that_comes_by_a_header_has_background_requests(
    browse, signed_in, policy, clock, way
):
    policy(idle=600)
    key, app = key_of(signed_in()), browse()
    clock.move(seconds=400)
    assert b"alice" in ask(app, way, key, **BACKGROUND).content
    clock.move(seconds=200)
    assert b"alice" not in ask(app, way, key).content


@pytest.mark.parametrize("way", WAYS)
def test_a_session_that_comes_by_a_header_and_whose_removal_was_lost_is_refused(
    browse, signed_in, clock, way
):
    key, app = key_of(signed_in()), browse()
    UserSession.objects.update(ended_at=datetime.now(UTC), end_reason=EndReason.REVOKED)
    clock.move(seconds=100)
    ask(app, way, key, **SCRIPT)  # where the package reads it early, this one is answered
    assert not SessionStore().exists(key)
    assert b"alice" not in ask(app, way, key).content


def test_a_session_that_comes_by_a_header_keeps_its_key(browse, signed_in, policy, clock):
    """Whoever put it on the request would not notice another one."""
    policy(renew_after=60)
    key, app = key_of(signed_in()), browse()
    clock.move(seconds=100)
    assert b"alice" in ask(app, "api/", key).content
    clock.move(seconds=100)
    assert b"alice" in ask(app, "api/", key).content


def test_a_session_that_is_made_anew_from_its_key_has_a_device(browse, alice, clock):
    browser = browse(**{"user-agent": FIREFOX})
    assert browser.get(f"/{browser.a}anew/").content == b"done"
    assert (row_of(browser).user_agent, row_of(browser).ip) == (FIREFOX, "127.0.0.1")
    clock.move(seconds=100)
    assert is_still_in(browser)
    assert row_of(browser).last_seen_at == datetime.now(UTC)


def test_a_session_that_a_view_only_looks_at_is_not_touched(signed_in, clock):
    """allauth lists the devices of a user so."""
    browser, other = signed_in(), signed_in()
    clock.move(seconds=100)
    LISTED[:] = [key_of(other)]
    browser.get(f"/{browser.a}look/")
    row = UserSession.objects.exclude(pk=row_of(browser).pk).get()
    assert row.last_seen_at == datetime.now(UTC) - timedelta(seconds=100)
