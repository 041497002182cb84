"""Staff end a session, or those that they have ticked in the list, and say why."""

import re
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_sessionkit.admin import UserSessionAdmin
from django_sessionkit.models import EndReason, UserSession
from tests import store
from tests.desk import (
    CHANGELIST,
    END_SHOWN,
    FAREWELL,
    OWN_FAREWELL,
    SAME_PASSWORD,
    SAME_PASSWORDS,
    WHY,
    answer,
    as_read,
    choose,
    delete_url,
    end,
    log_entries,
    messages_of,
    page_of,
    post,
    unescape,
)
from tests.people import CHROME, IPHONE, handle, is_in, is_out, row_of, sign_in

pytestmark = [pytest.mark.django_db, pytest.mark.site("tests.admin_sites")]


def ended_by_staff() -> Any:
    return UserSession.objects.filter(end_reason=EndReason.REVOKED_BY_STAFF)


# One.


@pytest.mark.standard("ASVS-7.4.5")
def test_ending_the_session_of_somebody_who_has_lost_a_telephone(alice, root, caplog):
    desk, phone, pc = sign_in(root), sign_in(alice, IPHONE), sign_in(alice, CHROME)
    url, page_url, ended = delete_url(phone), page_of(phone), handle(phone)
    asked = desk.get(url)
    assert "End this session?" in as_read(asked)
    assert "Whoever uses it has to sign in again." in as_read(asked)
    assert "User: alice Device: Safari on iOS Address: 192.0.2.1" in as_read(asked)
    assert "signs you out" not in as_read(asked)
    assert "elete" not in as_read(asked)
    assert f'<a role="button" href="{page_url}" class="button cancel-link">' in asked.text
    breadcrumbs = asked.text.partition('class="breadcrumbs"')[2].partition("<h1")[0]
    assert f'<a href="{CHANGELIST}">Sessions</a>' in breadcrumbs.partition("<nav")[0]
    assert is_in(phone)

    response = end(desk, url)
    assert (response.status_code, response["Location"]) == (302, CHANGELIST)
    page = desk.get(CHANGELIST)
    said = "The session of alice on Safari on iOS was ended."
    assert messages_of(page) == [("success", f"{said} {SAME_PASSWORD}")]
    assert f'of <a href="/admin/auth/user/{alice.pk}/change/">alice</a> on' in page.text
    assert is_in(pc)
    assert is_in(desk, root)
    said_to_user = phone.get("/private/")
    assert (said_to_user.status_code, said_to_user["Location"]) == (302, "/login/?next=/private/")
    farewell = as_read(phone.get("/login/"))
    assert FAREWELL in farewell
    assert WHY not in farewell
    assert not is_in(phone)

    session = UserSession.objects.get(pk=ended)
    assert session.digest not in store.payloads()
    assert (session.end_reason, session.ended_by) == (EndReason.REVOKED_BY_STAFF, root)
    assert (session.end_note, session.ended_from) == (WHY, handle(desk))
    page = desk.get(page_url)
    assert "Ended by: root" in as_read(page)
    assert f"Note: {WHY}" in as_read(page)
    assert "End this session" not in as_read(page)
    assert log_entries() == [("root", "alice: Safari on iOS", f"Ended: {WHY}")]
    assert f"Ended: {WHY}" in as_read(desk.get(f"{CHANGELIST}{ended}/history/"))
    (line,) = [r.getMessage() for r in caplog.records if r.name == "django_sessionkit.audit"]
    assert line == f'authz_admin:{root.pk},sessions_ended sessions={ended} reason="{WHY}"'
    index = as_read(desk.get("/admin/"))
    assert "alice: Safari on iOS" in index
    assert "eleted" not in index


@pytest.mark.parametrize("note", ["", "   ", "\x00", "\u202e", "x" * 256])
def test_it_takes_a_reason(alice, root, note):
    desk, phone = sign_in(root), sign_in(alice)
    page = end(desk, delete_url(phone), note=note)
    assert page.status_code == 200
    assert page.context["title"] == "End this session?"
    assert "<title>Error: End this session?" in page.text
    assert "Please correct the error below." in as_read(page)
    assert re.search(r'<input[^>]*name="note"[^>]*aria-invalid="true"', page.text)
    assert is_in(phone)


def test_the_reason_is_one_line(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    ended = handle(phone)
    end(desk, delete_url(phone), note="ticket 4711\r\nINFO all is well\u202e <b>")
    note = UserSession.objects.get(pk=ended).end_note
    assert note == "ticket 4711 INFO all is well <b>"
    assert "<b>" not in desk.get(f"{CHANGELIST}{ended}/change/").text.partition("Note:")[2]


def test_ending_leads_back_to_the_list_as_it_was(alice, root):
    desk, phone = sign_in(root), sign_in(alice, IPHONE)
    page = desk.get(f"{CHANGELIST}?state=active&q=ali").text
    (row_url,) = re.findall(rf'href="({page_of(phone)}[^"]*)"', page)
    (url,) = re.findall(rf'href="({delete_url(phone)}[^"]*)"', desk.get(unescape(row_url)).text)
    assert row_url in desk.get(unescape(url)).text
    assert end(desk, unescape(url))["Location"] == f"{CHANGELIST}?state=active&q=ali"


def test_ending_from_the_page_of_the_user_leads_back_to_that(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    response = end(desk, f"{delete_url(phone)}?back=user")
    assert response["Location"] == f"/admin/auth/user/{alice.pk}/change/"
    # Where that is in another admin site, the list has to do.
    url = delete_url(sign_in(alice)).replace("admin", "sessions", 1)
    response = end(desk, f"{url}?back=user")
    assert response["Location"] == CHANGELIST.replace("admin", "sessions", 1)


@pytest.mark.parametrize("site", ["admin", "sessions"])
def test_message_has_no_link_to_a_page_that_one_may_not_see(alice, root, staff, site):
    desk = sign_in(root if site == "sessions" else staff("end_usersession"))
    url = delete_url(sign_in(alice, IPHONE)).replace("admin", site, 1)
    page = desk.get(end(desk, url)["Location"])
    ((_, said),) = messages_of(page)
    assert said.startswith("The session of alice on Safari on iOS was ended.")
    assert "The session of alice on" in page.text


def test_ending_what_has_ended_is_no_error(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    url = delete_url(phone)
    end(desk, url)
    page = desk.get(url)
    assert "This session has already ended." in as_read(page)
    assert "Are you sure" not in as_read(page)
    assert f'<a href="{url.replace("delete", "change")}">Back to the session</a>' in page.text
    post(desk, url)
    assert messages_of(desk.get(CHANGELIST))[-1] == ("info", "There was no active session to end.")
    assert len(log_entries()) == 1


def test_ending_a_session_that_there_is_not_is_not_found(root):
    desk = sign_in(root)
    for name in (uuid.uuid4(), "nonsense"):
        assert desk.get(f"{CHANGELIST}{name}/delete/").status_code == 404


@pytest.mark.standard("ASVS-3.5.1", "ASVS-3.5.3")
def test_ending_takes_a_request_of_ones_own(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    assert desk.post(delete_url(phone), {"note": WHY}).status_code == 403
    assert desk.head(delete_url(phone)).status_code == 200
    assert is_in(phone)


def test_ending_ones_own_session_is_signing_out(root):
    desk = sign_in(root)
    other = sign_in(root)
    url, ended = delete_url(desk), handle(desk)
    assert "This is the session that you are using now. Ending it signs you out." in as_read(
        desk.get(url)
    )
    assert "using now" not in as_read(desk.get(delete_url(other)))
    response = end(desk, url)
    assert (response.status_code, response["Location"]) == (302, "/admin/")
    assert response.cookies["sessionid"]["max-age"] == 0
    page = desk.get("/admin/", follow=True)
    assert page.redirect_chain == [("/admin/login/?next=/admin/", 302)]
    assert messages_of(page) == [("success", OWN_FAREWELL)]
    assert UserSession.objects.get(pk=ended).end_reason == EndReason.REVOKED_BY_STAFF
    assert is_in(other, root)


# Several.


def test_ending_selected_sessions(alice, bob, root):
    desk, phone, pc, tablet = sign_in(root), sign_in(alice), sign_in(bob, CHROME), sign_in(bob)
    _, _, actions = desk.get(CHANGELIST).text.partition('<select name="action"')
    assert re.findall(r'<option value="(\w+)">([^<]*)', actions.partition("</select>")[0]) == [
        ("delete_selected", "End selected sessions")
    ]
    asked = choose(desk, "delete_selected", row_of(phone), row_of(pc))
    assert asked.context["title"] == "End 2 sessions of 2 people?"
    assert "using now" not in as_read(asked)
    assert "Leave my own session out" not in as_read(asked)
    assert is_in(phone)
    response = answer(desk, asked)
    assert (response.status_code, response["Location"]) == (302, CHANGELIST)
    page = desk.get(CHANGELIST)
    ((level, said),) = messages_of(page)
    assert level == "success"
    assert said == f"2 sessions of bob, alice were ended. {SAME_PASSWORDS}"
    assert f'<a href="/admin/auth/user/{bob.pk}/change/">bob</a>' in page.text
    assert is_out(phone, FAREWELL)
    assert is_out(pc, FAREWELL)
    assert is_in(tablet, bob)
    assert is_in(desk, root)
    assert UserSession.objects.count() == 4
    ended = UserSession.objects.ended().values_list("end_reason", "ended_by", "end_note")
    assert list(ended) == [(EndReason.REVOKED_BY_STAFF, root.pk, WHY)] * 2
    assert sorted(log_entries()) == [
        ("root", "alice: Firefox on Linux", f"Ended: {WHY}"),
        ("root", "bob: Chrome on Windows", f"Ended: {WHY}"),
    ]


def test_question_says_whose_sessions_end_what_has_ended_and_that_ones_own_is_among_them(
    alice, bob, root
):
    desk, phone, pc, gone = sign_in(root), sign_in(alice), sign_in(bob), sign_in(bob)
    rows = [row_of(device) for device in (desk, phone, pc, gone)]
    UserSession.objects.filter(pk=handle(gone)).revoke()
    asked = choose(desk, "delete_selected", *rows)
    assert asked.context["title"] == "End 3 sessions of 3 people?"
    assert "bob, alice, root 1 of the 4 selected has ended already." in as_read(asked)
    assert "One is the session that you are using now." in as_read(asked)
    assert re.search(r'<input type="checkbox" name="spares_own"[^>]* checked', asked.text)

    # Left out, unless one says so.
    answer(desk, asked)
    assert is_in(desk, root)
    assert is_out(phone, FAREWELL)
    assert is_out(pc, FAREWELL)


def test_ending_ones_own_among_others_is_signing_out(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    asked = choose(desk, "delete_selected", row_of(phone), row_of(desk))
    response = answer(desk, asked, spares_own=None)
    assert response.cookies["sessionid"]["max-age"] == 0
    page = desk.get(response["Location"], follow=True)
    assert page.redirect_chain == [(f"/admin/login/?next={CHANGELIST}", 302)]
    others = ("success", "1 other session was ended.")
    assert messages_of(page) == [("success", OWN_FAREWELL), others]
    assert is_out(phone, FAREWELL)


def test_question_that_is_left_without_a_reason_is_asked_again(alice, bob, root):
    desk, phone, pc = sign_in(root), sign_in(alice), sign_in(bob)
    asked = choose(desk, "delete_selected", row_of(phone), row_of(pc))
    again = answer(desk, asked, note="")
    assert again.context["title"] == asked.context["title"]
    assert "This field is required." in as_read(again)
    assert is_in(phone)
    assert answer(desk, again).status_code == 302
    assert is_out(phone, FAREWELL)


def test_there_is_nothing_to_ask_about_what_has_ended(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    row = row_of(phone)
    UserSession.objects.filter(pk=row.pk).revoke()
    asked = choose(desk, "delete_selected", row)
    assert asked.context["title"] == "There is no session to end"
    assert "1 of the 1 selected has ended already. Back to the list" in as_read(asked)
    assert 'name="note"' not in asked.text


def test_the_list_was_left_filtered_and_is_so_again(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    url = f"{CHANGELIST}?state=active&q=ali"
    response = answer(desk, choose(desk, "delete_selected", row_of(phone), url=url))
    assert response["Location"] == url


def test_all_that_the_list_shows_is_another_question(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    url = f"{CHANGELIST}?state=active"
    response = choose(desk, "delete_selected", row_of(phone), url=url, select_across="1")
    assert response["Location"] == f"{END_SHOWN}?state=active"
    assert is_in(phone)


def test_many_people_are_not_all_named(root):
    desk = sign_in(root)
    people = [User.objects.create_user(f"user{number}", password="secret") for number in range(23)]
    rows = [row_of(sign_in(user)) for user in people]
    asked = choose(desk, "delete_selected", *rows)
    assert asked.context["title"] == "End 23 sessions of 23 people?"
    assert "user3 and 3 others" in as_read(asked)
    answer(desk, asked)
    assert "and 3 others were ended." in messages_of(desk.get(CHANGELIST))[0][1]


def test_ending_takes_as_many_queries_however_many_sessions(alice, root):
    desk = sign_in(root)

    def queries(number: int) -> tuple[int, int]:
        rows = [row_of(sign_in(alice)) for _ in range(number)]
        with CaptureQueriesContext(connection) as asking:
            asked = choose(desk, "delete_selected", *rows)
        with CaptureQueriesContext(connection) as ending:
            assert answer(desk, asked).status_code == 302
        return len(asking), len(ending)

    queries(1)  # the first of a process looks the content type up
    assert queries(2) == queries(20)


def test_log_has_what_one_did_oneself(alice, bob, root, monkeypatch):
    # Somebody else ends one of them between the question which there are and the answer.
    desk, phone, pc = sign_in(root), sign_in(alice), sign_in(alice, CHROME)
    revoke = UserSession.objects.all().revoke.__func__

    def slowly(sessions, *args, **kwargs):
        monkeypatch.undo()
        UserSession.objects.filter(pk=handle(pc)).revoke(by=bob)
        return revoke(sessions, *args, **kwargs)

    asked = choose(desk, "delete_selected", row_of(phone), row_of(pc))
    monkeypatch.setattr(type(UserSession.objects.all()), "revoke", slowly)
    answer(desk, asked)
    assert log_entries() == [("root", "alice: Firefox on Linux", f"Ended: {WHY}")]
    said = "The session of alice on Firefox on Linux was ended."
    assert messages_of(desk.get(CHANGELIST)) == [("success", f"{said} {SAME_PASSWORD}")]


# The store does not answer.


def test_store_that_does_not_answer_is_said_and_ends_nothing_less(alice, root, store_down):
    desk, phone, pc = sign_in(root), sign_in(alice, IPHONE), sign_in(alice)
    with override_settings(SESSIONKIT_TOUCH_INTERVAL=90):
        assert end(desk, delete_url(phone)).status_code == 302
        said = "The ended sessions stop working within 90 seconds."
        warning, done = messages_of(desk.get(CHANGELIST))
        assert warning == ("warning", f"The session store did not answer. {said}")
        assert done[1].startswith("The session of alice on Safari on iOS was ended.")
    with override_settings(SESSIONKIT_TOUCH_INTERVAL=1):
        asked = choose(desk, "delete_selected", row_of(pc))
        assert answer(desk, asked).status_code == 302
        assert messages_of(desk.get(CHANGELIST))[0][1].endswith("stop working within 1 second.")
    assert ended_by_staff().count() == 2
    assert len(log_entries()) == 2


def test_ones_own_session_is_ended_by_the_next_touch_when_the_store_is_down(root, store_down):
    desk = sign_in(root)
    assert end(desk, delete_url(desk))["Location"] == CHANGELIST
    assert messages_of(desk.get(CHANGELIST))[0][0] == "warning"


# A statement that the server breaks off.
BREAK_OFF = {
    "postgresql": "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(1)",
    "mysql": "KILL QUERY connection_id()",
}


@pytest.mark.django_db(transaction=True)
def test_what_is_marked_stays_marked_when_the_database_breaks_off_the_rest(
    alice, root, monkeypatch
):
    """On PostgreSQL, a statement that is broken off takes a whole transaction with it."""

    def remove(digests: Any) -> None:
        if connection.vendor == "sqlite":
            raise OperationalError("database is locked")
        with connection.cursor() as cursor:
            cursor.execute(BREAK_OFF[connection.vendor])

    desk, phone = sign_in(root), sign_in(alice)
    monkeypatch.setattr(store.SessionStore, "remove", remove)
    end(desk, delete_url(phone))
    connection.close()
    monkeypatch.undo()
    assert UserSession.objects.get(user=alice).end_reason == EndReason.REVOKED_BY_STAFF
    assert len(log_entries()) == 1


# Rank.


@pytest.mark.parametrize("actions", [(), ["export"], ["delete_selected"], None])
def test_an_admin_with_actions_of_its_own_ends_and_does_not_delete(alice, staff, rf, actions):
    class Exporting(UserSessionAdmin):
        def export(self, request, queryset):
            raise NotImplementedError

    own = type("Own", (Exporting,), {"actions": actions})(UserSession, admin.site)
    request = rf.get("/")
    request.user = staff("view_usersession", "delete_user")
    assert "delete_selected" not in own.get_actions(request)
    request.user = staff("end_usersession")
    found = own.get_actions(request).get("delete_selected")
    if isinstance(found, tuple):  # until Django 6.1
        found = SimpleNamespace(func=found[0])
    assert (found and found.func) is (None if actions is None else UserSessionAdmin.delete_selected)


@pytest.mark.standard("ASVS-8.2.2")
def test_staff_do_not_end_the_session_of_a_superuser(alice, root, staff):
    desk, master = sign_in(staff("end_usersession")), sign_in(root)
    url = delete_url(master)
    asked = desk.get(url)
    assert "This is the session of a superuser. Only superusers can end it." in as_read(asked)
    assert 'name="note"' not in asked.text
    assert "End this session" not in desk.get(page_of(master)).text
    assert post(desk, url).status_code == 403
    assert is_in(master, root)

    # Another superuser does.
    other = User.objects.create_superuser("admin", password="secret")
    end(sign_in(other), url)
    assert is_out(master, FAREWELL)


@pytest.mark.standard("ASVS-8.2.2")
def test_superusers_are_left_out_of_those_that_staff_have_selected(alice, root, staff):
    desk, master, phone = sign_in(staff("end_usersession")), sign_in(root), sign_in(alice)
    asked = choose(desk, "delete_selected", row_of(master), row_of(phone))
    assert asked.context["title"] == "End 1 session of 1 person?"
    left_out = "1 session of a superuser is left out, because you are none."
    assert f"alice {left_out}" in as_read(asked)
    answer(desk, asked)
    assert is_out(phone, FAREWELL)
    assert is_in(master, root)
    # Nor is a user who is made a superuser between the question and the answer.
    tablet = sign_in(alice)
    asked = choose(desk, "delete_selected", row_of(tablet))
    User.objects.filter(pk=alice.pk).update(is_superuser=True)
    answer(desk, asked)
    assert is_in(tablet)


def test_staff_who_act_as_a_superuser_are_none(alice, root, staff, monkeypatch):
    desk, master = sign_in(root), sign_in(root, IPHONE)
    acting = staff("end_usersession")
    monkeypatch.setattr("django_sessionkit.staff.rank.acting_user", lambda *args: acting)
    assert "Only superusers can end it." in as_read(desk.get(delete_url(master)))


def test_staff_who_may_not_see_addresses_see_the_network(alice, staff):
    phone = sign_in(alice)
    some, all_of_it = staff("end_usersession"), staff("end_usersession", "view_address_usersession")
    assert "Address: 192.0.2.0/24" in as_read(sign_in(some).get(delete_url(phone)))
    assert "Address: 192.0.2.1" in as_read(sign_in(all_of_it).get(delete_url(phone)))
