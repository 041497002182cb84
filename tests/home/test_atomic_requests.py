"""
ATOMIC_REQUESTS: every view is in a transaction. What a session has read and written by then shares
the fate of the view on the database engine. Redis has no such transaction.
"""

from typing import Any

import pytest
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from django_sessionkit.models import EndReason, UserSession
from tests import store
from tests.browsers import PAGE, Browser, cart, put, read
from tests.people import is_in, only_row, post_sign_in, row_of, who
from tests.urls import urlpatterns as site

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.site(__name__),
    pytest.mark.usefixtures("atomic_requests"),
]


def sign_in_and_roll_back(request):
    """Signs in, and leaves the save to the middleware, which is outside of the transaction."""
    login(request, User.objects.get(), "django.contrib.auth.backends.ModelBackend")
    transaction.set_rollback(True)
    return HttpResponse("not now", status=409)


def sign_in_save_and_roll_back(request):
    login(request, User.objects.get(), "django.contrib.auth.backends.ModelBackend")
    request.session.save()
    assert UserSession.objects.exists()
    transaction.set_rollback(True)
    return HttpResponse("not now", status=409)


def sign_in_save_and_fail(request):
    sign_in_save_and_roll_back(request)
    raise RuntimeError("out of order")


def prove_and_roll_back(request):
    """Gives the session a new key, and its row, but the row follows only for a moment."""
    request.session.reauthenticate()
    return roll_back(request)


def save_and_fail(request):
    request.session["cart"] = "kettle"
    request.session.save()
    raise RuntimeError("out of order")


def save_and_roll_back(request):
    request.session["cart"] = "kettle"
    request.session.save()
    transaction.set_rollback(True)
    return HttpResponse("not now", status=409)


def roll_back(request):
    """Changes the session, but leaves the save to the middleware, which is outside."""
    request.session["cart"] = "kettle"
    transaction.set_rollback(True)
    return HttpResponse("not now", status=409)


def revoke_and_fail(request):
    UserSession.objects.revoke()
    raise RuntimeError("out of order")


def revoke_on_commit_and_fail(request):
    transaction.on_commit(UserSession.objects.revoke)
    raise RuntimeError("out of order")


VIEWS = [
    sign_in_and_roll_back,
    sign_in_save_and_roll_back,
    sign_in_save_and_fail,
    prove_and_roll_back,
    save_and_fail,
    save_and_roll_back,
    roll_back,
    revoke_and_fail,
    revoke_on_commit_and_fail,
]
urlpatterns = [*site, *(path(f"{view.__name__}/", csrf_exempt(view)) for view in VIEWS)]


@pytest.fixture
def browser() -> Any:
    return Browser(raise_request_exception=False, headers=PAGE)


@pytest.fixture
def in_shop(browser: Any, alice: User) -> Any:
    """The same, in which Alice has signed in and put something into her cart."""
    post_sign_in(browser)
    put(browser, cart="teapot")
    return browser


def test_signing_in_and_out_is_committed(browser, alice):
    assert post_sign_in(browser).status_code == 302
    assert is_in(browser)
    browser.post("/logout/")
    assert who(browser) == ""
    assert only_row().end_reason == EndReason.LOGOUT


@pytest.mark.parametrize("view", ["sign_in_save_and_roll_back", "sign_in_save_and_fail"])
@pytest.mark.parametrize("before", [{}, {"cart": "teapot"}])
def test_sign_in_that_is_rolled_back_signs_nobody_in(browser, alice, view, before):
    """On Redis, too, where the session stays and only its row is rolled back."""
    if before:
        put(browser, **before)
    answer = browser.post(f"/{view}/")
    assert answer.status_code == 500 or answer.content == b"not now"
    assert store.APART or "sessionkit_device" not in answer.cookies
    assert who(browser) == ""
    assert not UserSession.objects.exists()
    if view.endswith("back"):
        assert read(browser).json() == before


def test_sign_in_that_the_middleware_saves_after_a_rollback(browser, alice):
    """As with Django's engines: the new session is rolled back with the view, but not in Redis."""
    put(browser, cart="teapot")
    assert browser.post("/sign_in_and_roll_back/").content == b"not now"
    assert is_in(browser) is store.APART
    assert UserSession.objects.count() == store.APART
    assert cart(browser) == "teapot"


def test_new_key_whose_row_is_rolled_back_signs_nobody_out(clock, in_shop):
    assert in_shop.post("/prove_and_roll_back/").content == b"not now"
    for _ in range(2):
        assert is_in(in_shop)
        assert row_of(in_shop).end_reason == ""
        clock.move(seconds=100)  # the registry is asked
    assert len(UserSession.objects.all().alive()) == 1


@pytest.mark.parametrize("view", ["save_and_fail", "save_and_roll_back"])
def test_view_that_saved_and_failed(in_shop, view):
    """What was saved in the transaction shares its fate, but not in Redis."""
    in_shop.post(f"/{view}/")
    assert is_in(in_shop)
    assert cart(in_shop) == ("kettle" if store.APART else "teapot")


def test_change_that_the_middleware_saves_is_kept(in_shop):
    """As with Django's engines: the middleware saves outside of the view's transaction."""
    in_shop.post("/roll_back/")
    assert cart(in_shop) == "kettle"


def test_revocation_that_is_rolled_back(in_shop):
    in_shop.post("/revoke_and_fail/")
    # The marks are rolled back. On the database, so is the removal.
    assert [row.end_reason for row in UserSession.objects.all()] == [""]
    assert is_in(in_shop) is not store.APART


def test_revocation_on_commit_is_not_done_if_there_is_none(in_shop):
    in_shop.post("/revoke_on_commit_and_fail/")
    assert is_in(in_shop)
