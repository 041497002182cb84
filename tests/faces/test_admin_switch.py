"""The switch: every session of everybody, of all staff, of one user."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from django_sessionkit import endings
from django_sessionkit.models import Ending, EndReason, UserSession
from tests import store
from tests.desk import (
    ENDINGS,
    FAREWELL,
    OWN_FAREWELL,
    SWITCH,
    WHY,
    as_read,
    log_entries,
    messages_of,
    post,
)
from tests.pages import PROVE, press
from tests.people import handle, is_in, is_out, sign_in, who

pytestmark = [pytest.mark.django_db, pytest.mark.site("tests.admin_sites")]

SENTENCE = "END ALL SESSIONS"


@pytest.fixture
def crowd(alice: User, bob: User) -> list[Client]:
    return [sign_in(alice), sign_in(bob)]


def throw(desk: Client, scope: str = "everybody", **fields: Any) -> Any:
    """Fill the form in, and send it."""
    usual = {"scope": scope, "note": WHY, "spares_own": "on", "typed": SENTENCE}
    answers = {name: value for name, value in {**usual, **fields}.items() if value is not None}
    return press(desk, SWITCH, **answers)


def errors_of(page: Any) -> dict[str, list[str]]:
    assert page.status_code == 200
    assert "<title>Error:" in page.text
    return dict(page.context["form"].errors)


@pytest.mark.standard("ASVS-7.4.5", "ASVS-7.5.3")
def test_every_session_of_everybody(crowd, root, bob):
    desk, other = sign_in(root), sign_in(root)
    asked = desk.get(SWITCH)
    assert asked.context["title"] == "End every session"
    assert f"To confirm: Type “{SENTENCE}”." in as_read(asked)
    assert re.search(r'<input type="checkbox" name="spares_own"[^>]* checked', asked.text)
    response = throw(desk)
    ending = Ending.objects.get()
    assert (ending.scope, ending.by, ending.note) == ("everybody", root, WHY)
    assert (ending.ended_from, ending.spares_own) == (handle(desk), True)
    assert log_entries() == [("root", str(ending), f"Ended: {WHY}")]
    assert response["Location"] == f"{ENDINGS}{ending.pk}/"
    page = desk.get(response["Location"])
    assert page.context["title"] == "Finished: 3 sessions ended"
    assert "What ends All sessions of everybody From before" in as_read(page)
    assert is_in(desk, root)
    assert [is_out(device, FAREWELL) for device in (*crowd, other)] == [True] * 3


def test_it_is_in_effect_while_a_worker_cleans_up_and_the_page_says_so(
    crowd, root, monkeypatch, django_capture_on_commit_callbacks
):
    sent: list[Ending] = []
    monkeypatch.setattr(endings, "send", lambda ending: bool(sent.append(ending)) or True)
    monkeypatch.setattr(endings, "work", lambda *args: False)
    desk = sign_in(root)
    with django_capture_on_commit_callbacks(execute=True):
        response = throw(desk)
    page = desk.get(response["Location"])
    assert sent == [Ending.objects.get()]
    text = as_read(page)
    assert re.search(r"In effect since .*?m\.: no session from before goes on\.", text)
    assert "Cleaning up: 0 %" in text
    assert "Progress" not in text
    assert [is_out(device, FAREWELL) for device in crowd] == [True, True]
    assert is_in(desk, root)


def test_every_session_of_all_staff(crowd, root, staff, bob):
    desk, helper = sign_in(root), sign_in(staff("view_user"))
    throw(desk, "staff")
    desk.get(f"{ENDINGS}{Ending.objects.get().pk}/")
    assert is_out(helper, FAREWELL)
    assert [is_in(crowd[0]), is_in(crowd[1], bob)] == [True, True]


def test_every_session_of_one_user(crowd, root, bob):
    desk = sign_in(root)
    page = desk.get(throw(desk, "user", user=" bob ")["Location"])
    assert "All sessions of a user User: bob" in as_read(page)
    assert is_out(crowd[1], FAREWELL)
    assert is_in(crowd[0])


def test_every_session_from_before_a_time(crowd, alice, root):
    desk = sign_in(root)
    UserSession.objects.filter(user=alice).update(
        authenticated_at=timezone.now() - timedelta(days=2)
    )
    assert "The time zone is America/Chicago." in as_read(desk.get(SWITCH))
    before = timezone.localtime() - timedelta(days=1)
    page = desk.get(throw(desk, before=f"{before:%Y-%m-%dT%H:%M}")["Location"])
    assert Ending.objects.get().before == before.replace(second=0, microsecond=0)
    assert page.context["title"] == "Finished: 1 session ended"
    assert is_out(crowd[0], FAREWELL)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"note": ""}, {"note": ["This field is required."]}),
        ({"typed": "end"}, {"typed": [f"This is not “{SENTENCE}”."]}),
        ({"typed": ""}, {"typed": ["This field is required."]}),
        ({"scope": None}, {"scope": ["This field is required."]}),
        ({"scope": "filter"}, None),
        ({"scope": "user"}, {"user": ["There is no user of this name."]}),
        ({"scope": "user", "user": "carol"}, {"user": ["There is no user of this name."]}),
        ({"user": "bob"}, {"user": ["Leave this empty, or choose the sessions of one user."]}),
        ({"before": "2099-01-01T00:00"}, {"before": ["This is in the future."]}),
        ({"before": "nonsense"}, {"before": ["Enter a valid date/time."]}),
    ],
)
def test_what_is_missing_or_makes_no_sense_ends_nothing(crowd, root, fields, wrong):
    desk = sign_in(root)
    errors = errors_of(throw(desk, **fields))
    assert errors == wrong if wrong else list(errors) == ["scope"]
    assert not Ending.objects.exists()
    assert is_in(crowd[0])


def test_names_of_users_that_are_numbers(crowd, root, bob, monkeypatch):
    desk = sign_in(root)
    monkeypatch.setattr(User, "USERNAME_FIELD", "id")
    assert errors_of(throw(desk, "user", user="bob")) == {
        "user": ["There is no user of this name."]
    }
    assert throw(desk, "user", user=str(bob.pk)).status_code == 302


def test_time_that_no_database_can_hold(crowd, root, settings):
    settings.TIME_ZONE = "Asia/Tokyo"
    errors = errors_of(throw(sign_in(root), before="0001-01-01T00:00"))
    assert errors == {"before": ["Enter a valid date/time."]}


@pytest.mark.parametrize("scope", ["everybody", "staff", "user"])
def test_ones_own_session_too_if_one_says_so(root, scope):
    desk = sign_in(root)
    own = handle(desk)
    name = {"user": "root"} if scope == "user" else {}
    response = throw(desk, scope, spares_own=None, **name)
    assert response.cookies["sessionid"]["max-age"] == 0
    page = desk.get(response["Location"], follow=True)
    assert page.redirect_chain == [(f"/admin/login/?next={response['Location']}", 302)]
    assert messages_of(page) == [("success", OWN_FAREWELL)]
    row = UserSession.objects.get(pk=own)
    assert (row.end_reason, row.end_note) == (EndReason.REVOKED_BY_STAFF, WHY)


def test_ones_own_session_goes_on_if_the_switch_is_about_others(crowd, root):
    desk = sign_in(root)
    throw(desk, "user", user="bob", spares_own=None)
    assert is_in(desk, root)
    # Or from before a time at which oneself was not signed in.
    throw(desk, before="2026-01-01T00:00", spares_own=None)
    assert is_in(desk, root)


def test_a_form_that_is_sent_twice_throws_it_once(crowd, root, bob):
    desk = sign_in(root)
    asked = re.search(r'name="asked" value="([^"]*)"', desk.get(SWITCH).text)
    assert asked
    for scope, name in (("user", "bob"), ("user", "alice"), ("staff", ""), ("everybody", "")):
        first = throw(desk, scope, asked=asked[1], user=name)
        assert throw(desk, scope, asked=asked[1], user=name)["Location"] == first["Location"]
    assert Ending.objects.count() == 4


def test_who_goes_back_and_asks_for_more_throws_it_again(crowd, root, alice):
    desk = sign_in(root)
    asked = re.search(r'name="asked" value="([^"]*)"', desk.get(SWITCH).text)
    assert asked
    throw(desk, asked=asked[1], before="2026-01-01T00:00")
    assert is_in(crowd[0], alice)
    desk.get(throw(desk, asked=asked[1])["Location"])
    assert is_out(crowd[0], FAREWELL)
    throw(desk, asked=asked[1], spares_own=None)
    assert is_out(desk, OWN_FAREWELL)
    assert Ending.objects.count() == 3


# Who may.


@pytest.mark.standard("ASVS-7.5.3")
def test_it_takes_a_recent_proof_of_identity(crowd, root, clock, policy):
    policy(recent=60)
    desk = sign_in(root)
    clock.move(seconds=61)
    response = desk.get(SWITCH)
    assert response["Location"].partition("?")[0] == PROVE
    # A form that was sent is kept.
    form = {"scope": "everybody", "note": WHY, "typed": SENTENCE, "spares_own": "on"}
    asked = post(desk, SWITCH, **form)
    assert asked.status_code == 403
    assert not Ending.objects.exists()
    assert press(desk, response["Location"], password="secret")["Location"] == SWITCH
    throw(desk)
    assert Ending.objects.exists()


def test_staff_without_a_password_prove_who_they_are_elsewhere(root, clock, policy, settings):
    policy(recent=60)
    settings.SESSIONKIT_REAUTHENTICATION_URL = "/sso/"
    desk = sign_in(root)
    clock.move(seconds=61)
    assert desk.get(SWITCH)["Location"].startswith("/sso/?next=")


@pytest.mark.standard("ASVS-8.2.2")
def test_it_is_a_permission_of_its_own(crowd, alice, staff, root):
    ender = sign_in(staff("view_usersession", "end_usersession"))
    assert ender.get(SWITCH).status_code == 403
    assert post(ender, SWITCH, scope="everybody", typed=SENTENCE).status_code == 403
    assert crowd[0].get(SWITCH).status_code == 302
    assert not Ending.objects.exists()

    # It ends the sessions of superusers with all others, but not theirs alone.
    desk, master = sign_in(staff("end_every_usersession")), sign_in(root)
    only = "Only superusers end the sessions of a superuser."
    assert errors_of(throw(desk, "user", user="root")) == {"user": [only]}
    desk.get(throw(desk)["Location"])
    assert is_out(master, FAREWELL)
    assert who(crowd[0]) == ""


def test_page_takes_few_queries(crowd, root):
    desk = sign_in(root)
    with store.round_trips(2):  # the session, the user
        desk.get(SWITCH)
