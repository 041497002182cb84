"""What the kit knows of a session, asked by async code that has not loaded the session yet."""

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.http import HttpRequest, JsonResponse
from django.test import AsyncClient
from django.urls import path

from django_sessionkit.models import UserSession, get_session_store
from tests.browsers import AsgiBrowser
from tests.people import handle
from tests.policies import IDLE
from tests.store import later
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.site(__name__)]


async def about(request: HttpRequest) -> JsonResponse:
    """Answers with what nobody has loaded before."""
    session: Any = request.session
    return JsonResponse({"handle": await session.ahandle()})


urlpatterns = [*site, path("about/", about)]


def test_async_test_of_a_site_asks_for_the_session_of_its_client(alice: User):
    async def test() -> None:
        client: Any = AsyncClient()
        await client.aforce_login(alice)
        row = await UserSession.objects.aget()
        assert await (await client.asession()).ahandle() == row.pk
        assert await (await client.asession()).aauthenticated_at() == row.authenticated_at
        assert 0 <= await (await client.asession()).aproof_age() < 60
        left = await (await client.asession()).atime_left()
        assert left.idle_in <= 14 * 24 * 60 * 60 < left.expires_in
        assert (await (await client.asession()).apolicy()).absolute == 30 * 24 * 60 * 60
        assert await (await client.asession()).alocked() is None

    async_to_sync(test)()


def test_of_a_visitor_there_is_nothing_to_know():
    async def test() -> None:
        session: Any = await AsyncClient().asession()
        assert await session.ahandle() is None
        assert await session.aauthenticated_at() is None
        assert await session.aproof_age() is None
        assert (await session.atime_left()).expires_in is None
        assert await session.alocked() is None

    async_to_sync(test)()


def test_async_code_learns_why_a_session_is_locked(alice: User, policy: Callable[..., None]):
    async def test() -> None:
        client: Any = AsyncClient()
        await client.aforce_login(alice)
        row = await UserSession.objects.aget()
        with later(11 * 60):
            session = await client.asession()
            locked = await session.alocked()
            assert (locked.reason, locked.handle) == ("idle", row.pk)
            assert await session.ahandle() is None

    policy(**IDLE)
    async_to_sync(test)()


def test_async_view_asks_before_anybody_has_loaded_the_session(alice: User):
    browser: Any = AsgiBrowser()
    browser.force_login(alice)
    assert browser.get("/about/").json() == {"handle": str(handle(browser))}


def test_a_session_that_is_not_stored_has_no_time_left():
    session: Any = get_session_store()()
    assert session.time_left is None
