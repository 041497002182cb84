"""Ways round the lock, the longest lifetime, the limit and the proof of identity, that are shut."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.base import UpdateError
from django.db.models.signals import post_save
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.test import Client
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from django_sessionkit.models import EndReason, UserSession
from tests.pages import LIMIT, fields_of
from tests.people import CHROME, FIREFOX, IPHONE, is_in, sign_in
from tests.store import travel
from tests.urls import urlpatterns as site

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site(__name__),
    pytest.mark.transports("cookie", "header"),
]


@csrf_exempt
def token(request: HttpRequest) -> HttpResponse:
    """Gives a token to whoever has a password, and says so by Django's signal, as some packages."""
    user = authenticate(request, username="bob", password=request.POST["password"])
    user_logged_in.send(sender=User, request=request, user=user)
    return HttpResponse("token")


def prove(request: HttpRequest) -> HttpResponse:
    """A page of the site's own that asks who somebody is, and is content with the answer."""
    session: Any = request.session
    if session.locked:
        session.unlock()
    else:
        session.reauthenticate()
    return HttpResponseRedirect("/whoami/")


def prove_nothing(request: HttpRequest) -> HttpResponse:
    session: Any = request.session
    session.get("")
    session.reauthenticate()
    return HttpResponse("proved")


urlpatterns = [
    *site,
    path("token/", token),
    path("prove/", prove, name="prove"),
    path("prove/nothing/", prove_nothing),
]


@pytest.mark.standard("ASVS-7.3.2", "ASVS-7.5.1", "NIST-REAUTH-3")
def test_the_password_of_somebody_else_is_no_proof(alice: User, policy: Callable[..., None]):
    policy(absolute=3600, recent=60)
    User.objects.create_user("bob", password="theirs")
    thief = sign_in(alice)
    row = UserSession.objects.get()
    with travel(timedelta(minutes=50)):
        assert thief.post("/token/", {"password": "theirs"}).content == b"token"
        assert is_in(thief)
    assert UserSession.objects.get().authenticated_at == row.authenticated_at
    with travel(timedelta(minutes=61)):
        assert not is_in(thief)


@pytest.mark.standard("ASVS-7.1.2")
def test_a_page_of_the_site_lets_nobody_in_for_whom_there_is_no_room(
    alice: User, policy: Callable[..., None], settings: Any
):
    settings.SESSIONKIT_REAUTHENTICATION_URL = "prove"
    policy(limit=1, on_limit="ask")
    sign_in(alice, FIREFOX)
    phone = sign_in(alice, IPHONE)
    assert phone.get("/prove/").headers["Location"].startswith(LIMIT)
    assert not is_in(phone)
    UserSession.objects.filter(counts=True).revoke()
    assert phone.get("/prove/").headers["Location"] == "/whoami/"
    assert is_in(phone)


@pytest.mark.standard("ASVS-7.3.1")
def test_who_makes_room_proves_nothing(alice: User, policy: Callable[..., None]):
    policy(limit=1, on_limit="ask", bind=("browser",), on_change="end")
    sign_in(alice, FIREFOX)
    waiting = sign_in(alice, FIREFOX)
    thief = Client(headers={"user-agent": CHROME})
    thief.cookies = waiting.cookies
    page = thief.get(LIMIT)
    chosen = [
        str(pk) for pk in UserSession.objects.filter(counts=True).values_list("pk", flat=True)
    ]
    thief.post(LIMIT, {**fields_of(page), "session": chosen})
    assert not is_in(thief)
    assert UserSession.objects.first().end_reason == EndReason.MOVED  # type: ignore[union-attr]


@pytest.mark.standard("ASVS-7.3.1")
def test_who_waits_for_room_is_idle_as_well(alice: User, policy: Callable[..., None]):
    policy(limit=1, on_limit="ask", idle=60, lock=True)
    sign_in(alice, FIREFOX)
    waiting = sign_in(alice, IPHONE)
    with travel(timedelta(seconds=59)):
        assert waiting.get(LIMIT).status_code == 200
    with travel(timedelta(seconds=61)):
        assert waiting.get(LIMIT).status_code == 302


@pytest.mark.parametrize("visitor", ["signed in", "stranger"])
@pytest.mark.parametrize("wanted", ["foo", "//evil.example.com/", "home", "javascript:alert(1)"])
@pytest.mark.standard("ASVS-3.7.2")
def test_the_page_of_the_limit_leads_nowhere_else(alice: User, visitor: str, wanted: str):
    client = sign_in(alice) if visitor == "signed in" else Client()
    response = client.get(LIMIT, {"next": wanted})
    assert response.status_code == 302
    assert "example.com" not in response.headers["Location"]
    assert "script" not in response.headers["Location"]


@pytest.mark.standard("ASVS-3.3.4")
def test_what_is_known_of_a_lock_is_not_the_key(alice: User, policy: Callable[..., None]):
    policy(idle=600, lock=True)
    browser = sign_in(alice)
    with travel(timedelta(minutes=20)):
        session: Any = browser.session
        assert session.locked.reason == "idle"
        key = browser.cookies["sessionid"].value
        assert key not in [*map(str, session.locked)]


def test_a_lock_is_not_passed_over(alice: User, policy: Callable[..., None], settings: Any):
    """Else its user would be asked for a proof again and again."""
    settings.SESSIONKIT_REAUTHENTICATION_URL = "prove"
    policy(idle=600, lock=True)
    browser = sign_in(alice)
    with travel(timedelta(minutes=20)):
        with pytest.raises(UpdateError, match="locked"):
            browser.session.reauthenticate()  # type: ignore[attr-defined]
        assert browser.get("/prove/nothing/").headers["Location"].startswith("/account/")
        assert not is_in(browser)


def test_a_session_is_locked_where_the_site_has_not_our_pages(
    alice: User, policy: Callable[..., None], settings: Any
):
    """Its user signs in anew."""
    policy(idle=600, lock=True)
    browser = sign_in(alice)
    settings.ROOT_URLCONF = tuple(
        url for url in site if getattr(url, "app_name", "") != "django_sessionkit"
    )
    with travel(timedelta(minutes=20)):
        assert browser.get("/private/").headers["Location"] == "/login/?next=%2Fprivate%2F"


@pytest.fixture
def saved_again() -> Iterator[None]:
    """A receiver of the site's that comes before the kit's, and saves the user once more."""

    def save_again(instance: User, **kwargs: Any) -> None:
        if not hasattr(instance, "again"):
            instance.again = True  # type: ignore[attr-defined]
            instance.save()

    receivers = post_save.receivers
    post_save.receivers = []
    post_save.connect(save_again, sender=User)
    post_save.receivers += receivers
    post_save.sender_receivers_cache.clear()
    yield
    post_save.receivers = receivers
    post_save.sender_receivers_cache.clear()


@pytest.mark.usefixtures("saved_again")
@pytest.mark.standard("ASVS-7.4.3")
def test_a_new_password_ends_sessions_also_where_the_user_is_saved_twice(alice: User):
    sign_in(alice)
    del alice.again  # type: ignore[attr-defined]
    alice.set_password("new")
    alice.save()
    assert UserSession.objects.get().end_reason == EndReason.PASSWORD_CHANGE
