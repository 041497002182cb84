"""Staff find and end sessions, in an admin with the looks of django-unfold."""

import pytest
from django.contrib.auth.models import User
from django.urls import path
from unfold.sites import UnfoldAdminSite

from django_sessionkit.admin import UserSessionAdmin
from django_sessionkit.models import Ending, UserSession
from tests.admin_sites import MyUserAdmin
from tests.desk import (
    CHANGELIST,
    END_SHOWN,
    ENDINGS,
    FAREWELL,
    SWITCH,
    WHY,
    answer,
    choose,
    delete_url,
    end,
    page_of,
    rows_on,
)
from tests.pages import PROVE, press
from tests.people import handle, is_in, is_out, sign_in
from tests.urls import urlpatterns as site_of_the_tests

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

staff_site = UnfoldAdminSite(name="staff")
staff_site.register(User, MyUserAdmin)
staff_site.register(UserSession, UserSessionAdmin)

urlpatterns = [*site_of_the_tests, path("staff/", staff_site.urls)]

NETWORK = f"{END_SHOWN}?network=192.0.2.0/24"


def test_every_page_is_there(alice, root):
    desk = sign_in(root)
    end(desk, delete_url(sign_in(alice)))
    sign_in(alice)
    answer(desk, desk.get(NETWORK))
    phone = sign_in(alice)
    pages = [
        CHANGELIST,
        f"{CHANGELIST}?state=all&device_type=desktop",
        f"{CHANGELIST}?network=nonsense",
        page_of(phone),
        f"{CHANGELIST}{handle(phone)}/history/",
        delete_url(phone),
        f"{CHANGELIST}glance/",
        NETWORK,
        SWITCH,
        ENDINGS,
        f"{ENDINGS}{Ending.objects.get().pk}/",
        f"/staff/auth/user/{alice.pk}/change/",
        "/staff/auth/user/",
    ]
    for url in pages:
        page = desk.get(url)
        assert page.status_code == 200, url
        assert "unfold/css/styles.css" in page.text, url


def test_list_has_its_search_and_its_filters(alice, bob, root):
    desk, phone = sign_in(root), sign_in(alice)
    other = sign_in(bob)
    page = desk.get(f"{CHANGELIST}?q=alice")
    assert rows_on(page) == [handle(phone)]
    for name in ("q", "state", "reason", "device_type", "seen_before"):
        assert f'name="{name}"' in page.text
    assert delete_url(phone) in page.text
    assert delete_url(other) not in page.text


def test_one_session_ends(alice, root):
    desk, phone, pc = sign_in(root), sign_in(alice), sign_in(alice)
    assert delete_url(phone) in desk.get(page_of(phone)).text
    assert end(desk, delete_url(phone)).status_code == 302
    assert is_out(phone, FAREWELL)
    assert is_in(pc)


def test_the_sessions_that_are_ticked_end(alice, root):
    desk, phone, pc = sign_in(root), sign_in(alice), sign_in(alice)
    asked = choose(desk, "delete_selected", handle(phone))
    assert asked.context["title"] == "End 1 session of 1 person?"
    assert answer(desk, asked).status_code == 302
    assert is_out(phone, FAREWELL)
    assert is_in(pc)


def test_all_sessions_that_the_list_shows_end(alice, root):
    desk, phone = sign_in(root), sign_in(alice, address="203.0.113.7")
    asked = desk.get(f"{END_SHOWN}?network=203.0.113.0/24")
    assert asked.context["title"] == "End 1 session of 1 person?"
    page = desk.get(answer(desk, asked)["Location"])
    assert page.context["title"] == "Finished: 1 session ended"
    assert is_out(phone, FAREWELL)


def test_all_sessions_of_a_user_end(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    page = desk.get(f"/staff/auth/user/{alice.pk}/change/")
    assert str(handle(phone)) in page.text
    asked = choose(desk, "end_all_sessions", alice, url="/staff/auth/user/")
    assert answer(desk, asked, END_SHOWN).status_code == 302
    assert is_out(phone, FAREWELL)


def test_the_switch_is_thrown(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    typed = {"scope": "everybody", "note": WHY, "spares_own": "on", "typed": "END ALL SESSIONS"}
    response = press(desk, SWITCH, **typed)
    assert response["Location"] == f"{ENDINGS}{Ending.objects.get().pk}/"
    assert desk.get(response["Location"]).context["title"] == "Finished: 1 session ended"
    assert is_out(phone, FAREWELL)
    assert is_in(desk, root)


def test_staff_are_asked_for_the_password_first(root, clock, policy):
    policy(recent=60)
    desk = sign_in(root)
    clock.move(seconds=61)
    assert desk.get(SWITCH)["Location"].startswith(PROVE)
