"""The staff's pages, told as stories of staff who look at sessions and end them."""

import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, Permission, User
from django.db import OperationalError, connection
from django.test import Client, RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import path

from django_sessionkit import admin as sessionkit_admin
from django_sessionkit.admin import UserSessionAdmin, UserSessionsAdminMixin
from django_sessionkit.models import EndReason, UserSession
from tests import store
from tests.pages import press, token, words
from tests.people import CHROME, IPHONE, handle, is_in, is_out, row_of, sign_in, who
from tests.projects import run_project
from tests.urls import urlpatterns as site_of_the_tests

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

CHANGELIST = "/admin/django_sessionkit/usersession/"
FAREWELL = "You were signed out by the staff of this site."


# A second admin site, by whose name its links must go, with the user admin of a project.


class MyUserAdmin(UserSessionsAdminMixin, UserAdmin):  # type: ignore[type-arg]
    actions = ["congratulate"]

    def congratulate(self, request, queryset):
        raise NotImplementedError


class GroupAdmin(UserSessionsAdminMixin):
    """Nobody's sessions, but an admin without fields, fieldsets and actions."""

    actions = None


staff_site = admin.AdminSite(name="staff")
staff_site.register(User, MyUserAdmin)
staff_site.register(UserSession, UserSessionAdmin)
bare_site = admin.AdminSite(name="bare")
bare_site.register(User, MyUserAdmin)

urlpatterns = [
    *site_of_the_tests,
    path("staff/", staff_site.urls),
    path("bare/", bare_site.urls),
]


@pytest.fixture
def staff() -> Callable[..., User]:
    """Create a member of staff with these permissions."""

    def create(*names: str) -> User:
        user = User.objects.create_user("-".join(["staff", *names]), password="secret")
        user.is_staff = True
        user.save()
        user.user_permissions.set(Permission.objects.filter(codename__in=names))
        assert user.user_permissions.count() == len(names)
        return user

    return create


def post(device: Client, url: str) -> Any:
    """Post to a page that has no form, or none for this device to see."""
    return device.post(url, {**token(device.get("/login/")), "post": "yes"})


def act(device: Client, action: str, *rows: Any, url: str = CHANGELIST, **fields: Any) -> Any:
    """Tick rows of a list, and let the action have them."""
    ticked = [str(getattr(row, "pk", row)) for row in rows]
    return press(device, url, action=action, _selected_action=ticked, **fields)


def as_read(page: Any) -> str:
    """Return the text of a page; what stands in two cells are two words."""
    return words(page, " ")


def page_of(device: Client) -> str:
    return f"{CHANGELIST}{handle(device)}/change/"


def delete_url(device: Client) -> str:
    return f"{CHANGELIST}{handle(device)}/delete/"


def rows_on(page: Any) -> list[uuid.UUID]:
    assert page.status_code == 200
    return [session.pk for session in page.context["cl"].result_list]


def unescape(url: str) -> str:
    return url.replace("&amp;", "&")


def messages_of(page: Any) -> list[tuple[str, str]]:
    return [(message.level_tag, str(message)) for message in page.context["messages"]]


def log_entries() -> list[tuple[str, str, str]]:
    return [
        (str(entry.user), str(entry.object_repr), entry.get_change_message())
        for entry in LogEntry.objects.order_by("pk")
    ]


# One session.


@pytest.mark.standard("ASVS-3.2.2")
def test_page_of_a_session_says_what_is_known_and_lets_nobody_change_it(alice, root):
    desk, phone = sign_in(root), sign_in(alice, f"{IPHONE} <script>alert(1)</script>")
    page = desk.get(page_of(phone))
    text = as_read(page)
    for fact in (
        f"Handle: {handle(phone)}",
        "User: alice",
        "Device: Safari on iOS",
        "Address: 192.0.2.1",
        "User agent: Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X)",
        "Signed in: ",
        "Password last entered: ",
        "Last active: ",
        "Expires: ",
        "State: Active",
        "Ended: -",
        "Ended by: -",
    ):
        assert fact in text
    assert "<script>alert" not in page.text
    fields = re.findall(
        r"<(?:input|select|textarea)[^>]*>", page.text.partition("usersession_form")[2]
    )
    assert [field for field in fields if "csrfmiddlewaretoken" not in field] == []
    assert (
        f'<a role="button" href="{delete_url(phone)}" class="deletelink">End this session</a>'
        in page.text
    )
    assert "Delete" not in text
    assert press(desk, page_of(phone), user=root.pk).status_code == 403
    assert desk.get(f"{CHANGELIST}add/").status_code == 403


def test_device_that_nothing_is_known_of_has_its_pages_too(alice, root):
    desk, phone = sign_in(root), sign_in(alice, user_agent="", address="")
    for url in (CHANGELIST, page_of(phone), delete_url(phone)):
        assert "Unknown device" in as_read(desk.get(url))
    for url in (page_of(phone), delete_url(phone)):
        assert "Address: -" in as_read(desk.get(url))


def test_page_of_a_session_says_roughly_where_it_is_if_that_is_known(alice, root, monkeypatch):
    monkeypatch.setattr("django_sessionkit.models.place_of", {"192.0.2.1": "Berlin <DE>"}.get)
    desk, phone = sign_in(root), sign_in(alice)
    where = "Address: 192.0.2.1 , near Berlin &lt;DE&gt; (estimated)"
    assert where in as_read(desk.get(page_of(phone)))


def test_popup_has_no_button(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    assert "End this session" not in desk.get(f"{page_of(phone)}?_popup=1").text


# Ending one.


@pytest.mark.standard("ASVS-7.4.5")
def test_ending_the_session_of_somebody_who_has_lost_a_telephone(alice, root):
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

    response = press(desk, url)
    assert (response.status_code, response["Location"]) == (302, CHANGELIST)
    assert messages_of(desk.get(CHANGELIST)) == [("success", "1 session was ended.")]
    assert is_in(pc)
    assert is_in(desk, root)
    answer = phone.get("/private/")
    assert (answer.status_code, answer["Location"]) == (302, "/login/?next=/private/")
    assert FAREWELL in as_read(phone.get("/login/"))
    assert not is_in(phone)

    session = UserSession.objects.get(pk=ended)
    assert session.digest not in store.payloads()
    assert (session.end_reason, session.ended_by) == (EndReason.REVOKED_BY_STAFF, root)
    page = desk.get(page_url)
    assert "State: Ended by staff (root)" in as_read(page)
    assert "Ended by: root" in as_read(page)
    assert "End this session" not in as_read(page)
    assert log_entries() == [("root", "alice: Safari on iOS", "Ended.")]
    assert "Ended." in as_read(desk.get(f"{CHANGELIST}{ended}/history/"))
    index = as_read(desk.get("/admin/"))
    assert "alice: Safari on iOS" in index
    assert "eleted" not in index


def test_ending_leads_back_to_the_list_as_it_was(alice, root):
    desk, phone = sign_in(root), sign_in(alice, IPHONE)
    page = desk.get(f"{CHANGELIST}?state=active&q=ali").text
    (row_url,) = re.findall(rf'href="({page_of(phone)}[^"]*)"', page)
    (url,) = re.findall(rf'href="({delete_url(phone)}[^"]*)"', desk.get(unescape(row_url)).text)
    assert row_url in desk.get(unescape(url)).text
    assert press(desk, unescape(url))["Location"] == f"{CHANGELIST}?state=active&q=ali"


def test_ending_what_has_ended_is_no_error(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    url = delete_url(phone)
    press(desk, url)
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
    assert desk.post(delete_url(phone)).status_code == 403
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
    response = press(desk, url)
    assert (response.status_code, response["Location"]) == (302, "/admin/")
    assert response.cookies["sessionid"]["max-age"] == 0
    page = desk.get("/admin/", follow=True)
    assert page.redirect_chain == [("/admin/login/?next=/admin/", 302)]
    assert messages_of(page) == [("success", "1 session was ended.")]
    assert UserSession.objects.get(pk=ended).end_reason == EndReason.REVOKED_BY_STAFF
    assert is_in(other, root)


# Ending several.


def test_ending_selected_sessions(alice, bob, root):
    desk, phone, pc, tablet = sign_in(root), sign_in(alice), sign_in(bob, CHROME), sign_in(bob)
    page = desk.get(CHANGELIST)
    actions = page.text.partition('name="action"')[2]
    assert re.findall(r'<option value="(\w+)">([^<]*)', actions) == [
        ("delete_selected", "End selected sessions")
    ]
    response = act(desk, "delete_selected", row_of(phone), row_of(pc))
    assert (response.status_code, response["Location"]) == (302, CHANGELIST)
    assert messages_of(desk.get(CHANGELIST)) == [("success", "2 sessions were ended.")]
    assert is_out(phone, FAREWELL)
    assert is_out(pc, FAREWELL)
    assert is_in(tablet, bob)
    assert is_in(desk, root)
    assert UserSession.objects.count() == 4
    ended = UserSession.objects.ended().values_list("end_reason", "ended_by")
    assert list(ended) == [(EndReason.REVOKED_BY_STAFF, root.pk)] * 2
    assert sorted(log_entries()) == [
        ("root", "alice: Firefox on Linux", "Ended."),
        ("root", "bob: Chrome on Windows", "Ended."),
    ]


@pytest.mark.standard("ASVS-7.4.5")
def test_ending_all_that_a_filter_lets_through(alice, bob, root, monkeypatch):
    monkeypatch.setattr(sessionkit_admin, "ENTRIES", 2)
    desk, others = sign_in(root), [sign_in(user) for user in (alice, bob) * 3]
    ended = UserSession.objects.filter(pk=handle(others.pop()))
    ended.revoke()
    url = f"{CHANGELIST}?state=active&users={alice.pk}"
    response = act(desk, "delete_selected", row_of(others[0]), url=url, select_across="1")
    assert response["Location"] == url
    assert messages_of(desk.get(CHANGELIST)) == [("success", "3 sessions were ended.")]
    assert [who(other) for other in others] == ["", "bob", "", "bob", ""]
    assert len(log_entries()) == 3
    assert ended.get().end_reason == EndReason.REVOKED


def test_ending_takes_as_many_queries_however_many_sessions(alice, root):
    desk = sign_in(root)

    def queries(number: int) -> int:
        rows = [row_of(sign_in(alice)) for _ in range(number)]
        with CaptureQueriesContext(connection) as captured:
            assert act(desk, "delete_selected", *rows).status_code == 302
        return len(captured)

    queries(1)  # the first of a process looks the content type up
    assert queries(2) == queries(20)


def test_ending_ones_own_among_others_is_signing_out(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    response = act(desk, "delete_selected", row_of(phone), row_of(desk))
    assert response.cookies["sessionid"]["max-age"] == 0
    page = desk.get(response["Location"], follow=True)
    assert page.redirect_chain == [(f"/admin/login/?next={CHANGELIST}", 302)]
    assert messages_of(page) == [("success", "2 sessions were ended.")]
    assert is_out(phone, FAREWELL)


def test_log_has_what_one_did_oneself(alice, bob, root, monkeypatch):
    # Somebody else ends one of them between the question which there are and the answer.
    desk, phone, pc = sign_in(root), sign_in(alice), sign_in(alice, CHROME)
    revoke = UserSession.objects.all().revoke.__func__

    def slowly(sessions, *args, **kwargs):
        monkeypatch.undo()
        UserSession.objects.filter(pk=handle(pc)).revoke(by=bob)
        return revoke(sessions, *args, **kwargs)

    rows = row_of(phone), row_of(pc)
    monkeypatch.setattr(type(UserSession.objects.all()), "revoke", slowly)
    act(desk, "delete_selected", *rows)
    assert log_entries() == [("root", "alice: Firefox on Linux", "Ended.")]


# The store does not answer.


def test_store_that_does_not_answer_is_said_and_ends_nothing_less(alice, root, store_down):
    desk, phone, pc = sign_in(root), sign_in(alice, IPHONE), sign_in(alice)
    with override_settings(SESSIONKIT_TOUCH_INTERVAL=90):
        assert press(desk, delete_url(phone)).status_code == 302
        said = "The ended sessions stop working within 90 seconds."
        (message,) = messages_of(desk.get(CHANGELIST))
        assert message == ("warning", f"The session store did not answer. {said}")
    with override_settings(SESSIONKIT_TOUCH_INTERVAL=1):
        assert act(desk, "delete_selected", row_of(pc)).status_code == 302
        assert messages_of(desk.get(CHANGELIST))[0][1].endswith("stop working within 1 second.")
    assert UserSession.objects.filter(end_reason=EndReason.REVOKED_BY_STAFF).count() == 2
    assert len(log_entries()) == 2


def test_ones_own_session_is_ended_by_the_next_touch_when_the_store_is_down(root, store_down):
    desk = sign_in(root)
    assert press(desk, delete_url(desk))["Location"] == CHANGELIST
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
    press(desk, delete_url(phone))
    connection.close()
    monkeypatch.undo()
    assert UserSession.objects.get(user=alice).end_reason == EndReason.REVOKED_BY_STAFF
    assert len(log_entries()) == 1


# Who may do what.


def test_who_may_only_see(alice, staff):
    desk, phone = sign_in(staff("view_usersession")), sign_in(alice)
    assert handle(phone) in rows_on(desk.get(CHANGELIST))
    assert "End selected sessions" not in desk.get(CHANGELIST).text
    page = desk.get(page_of(phone))
    assert page.status_code == 200
    assert "End this session" not in page.text
    assert desk.get(delete_url(phone)).status_code == 403
    assert post(desk, delete_url(phone)).status_code == 403
    act(desk, "delete_selected", row_of(phone))
    assert is_in(phone)


@pytest.mark.standard("ASVS-7.4.5")
def test_who_may_end_may_see_even_superusers(alice, root, staff):
    desk, phone, master = sign_in(staff("end_usersession")), sign_in(alice), sign_in(root)
    assert "Sessions" in as_read(desk.get("/admin/"))
    assert len(rows_on(desk.get(CHANGELIST))) == 3
    assert "End this session" in desk.get(page_of(phone)).text
    press(desk, delete_url(phone))
    act(desk, "delete_selected", row_of(master))
    assert is_out(phone, FAREWELL)
    assert is_out(master, FAREWELL)


@pytest.mark.parametrize("permission", [None, "delete_user"])
@pytest.mark.standard("ASVS-8.2.2")
def test_other_staff_see_nothing_and_end_nothing(alice, staff, permission):
    desk, phone = sign_in(staff(*[permission] if permission else [])), sign_in(alice)
    for url in (
        CHANGELIST,
        page_of(phone),
        delete_url(phone),
        f"{CHANGELIST}{handle(phone)}/history/",
    ):
        assert desk.get(url).status_code == 403
        assert post(desk, url).status_code == 403
    assert "Sessions" not in as_read(desk.get("/admin/"))
    assert is_in(phone)


def test_visitors_who_are_not_staff_are_asked_to_sign_in(alice, bob):
    phone, pc = sign_in(alice), sign_in(bob)
    for url in (CHANGELIST, page_of(phone), delete_url(phone)):
        answer = pc.get(url)
        assert (answer.status_code, answer["Location"]) == (302, f"/admin/login/?next={url}")
        assert post(pc, url).status_code == 302
    assert is_in(phone)


# Deleting a user.


@pytest.mark.standard("ASVS-7.4.2")
def test_who_may_delete_users_may_delete_those_with_sessions(alice, bob, staff):
    desk, phone, pc = sign_in(staff("view_user", "delete_user")), sign_in(alice), sign_in(bob)
    ended = sign_in(alice)
    UserSession.objects.filter(pk=handle(ended)).revoke()
    for site in ("admin", "staff"):
        page = desk.get(f"/{site}/auth/user/{alice.pk}/delete/")
        assert "Are you sure you want to delete the user" in as_read(page)
    assert press(desk, f"/admin/auth/user/{alice.pk}/delete/", post="yes").status_code == 302
    assert not UserSession.objects.filter(user_id=alice.pk).exists()
    assert phone.get("/whoami/").text == "AnonymousUser"

    response = act(desk, "delete_selected", bob, url="/admin/auth/user/", post="yes")
    assert response.status_code == 302
    assert not UserSession.objects.filter(user_id=bob.pk).exists()
    assert pc.get("/whoami/").text == "AnonymousUser"


def test_who_may_end_sessions_may_not_therefore_delete_users(alice, staff):
    desk = sign_in(staff("view_user", "end_usersession"))
    sign_in(alice)
    assert post(desk, f"/admin/auth/user/{alice.pk}/delete/").status_code == 403
    request = RequestFactory().get("/")
    request.user = User.objects.get(pk=alice.pk)
    assert not admin.site.get_model_admin(UserSession).has_delete_permission(request)


# From a user to their sessions.


def test_from_a_user_to_their_sessions(alice, bob, root):
    desk, phone, _ = sign_in(root), sign_in(alice), sign_in(bob)
    url = f"/staff/django_sessionkit/usersession/?users={alice.pk}"
    link = f'<a href="{url}" aria-label="Sessions of alice">Sessions</a>'
    users = desk.get("/staff/auth/user/")
    assert link in users.text
    assert "Username Email address First name Last name Staff status Sessions" in as_read(users)
    page = desk.get(f"/staff/auth/user/{alice.pk}/change/")
    assert link in page.text
    assert re.search(r"<h2[^>]*>Sessions</h2>", page.text)
    assert "Important dates" in as_read(page)
    assert rows_on(desk.get(url)) == [handle(phone)]
    assert "Sessions" not in as_read(desk.get("/staff/auth/user/add/")).partition("Username:")[2]


def test_user_can_still_be_edited(alice, root):
    desk = sign_in(root)
    fields = {"username": "alicia", "date_joined_0": "2026-01-31", "date_joined_1": "13:37"}
    url = f"/staff/auth/user/{alice.pk}/change/"
    assert press(desk, url, **fields)["Location"] == "/staff/auth/user/"
    alice.refresh_from_db()
    assert alice.username == "alicia"


@pytest.mark.standard("ASVS-7.4.5")
def test_ending_all_sessions_of_users(alice, bob, root):
    desk, phone, pc, tablet = sign_in(root), sign_in(alice), sign_in(alice), sign_in(bob)
    page = desk.get("/staff/auth/user/")
    assert re.findall(r'<option value="(\w+)">([^<]*)', page.text) == [
        ("delete_selected", "Delete selected users"),
        ("congratulate", "Congratulate"),
        ("end_all_sessions", "End all sessions of the selected users"),
    ]
    url = "/staff/auth/user/"
    assert act(desk, "end_all_sessions", alice, url=url).status_code == 302
    assert messages_of(desk.get(url)) == [("success", "2 sessions were ended.")]
    assert is_out(phone, FAREWELL)
    assert is_out(pc, FAREWELL)
    assert is_in(tablet, bob)
    assert is_in(desk, root)
    assert log_entries() == [("root", "alice: Firefox on Linux", "Ended.")] * 2
    act(desk, "end_all_sessions", alice, url=url)
    assert messages_of(desk.get(url)) == [("info", "There was no active session to end.")]

    fields = {"url": f"{url}?q=b", "select_across": "1"}
    act(desk, "end_all_sessions", bob, **fields)
    assert is_out(tablet, FAREWELL)


def test_users_without_the_way_to_their_sessions(alice, staff):
    sign_in(alice)
    for number, (permissions, link, action) in enumerate(
        [
            (["view_user"], False, False),
            (["view_user", "view_usersession"], True, False),
            (["view_user", "end_usersession"], True, True),
        ]
    ):
        user = staff(*permissions)
        User.objects.filter(pk=user.pk).update(username=f"staff{number}")
        user.refresh_from_db()
        desk = sign_in(user)
        for url in ("/staff/auth/user/", f"/staff/auth/user/{alice.pk}/change/"):
            page = desk.get(url)
            assert page.status_code == 200
            assert ("Sessions of alice" in page.text) is link
        users = desk.get("/staff/auth/user/").text
        assert ("End all sessions of the selected users" in users) is action
        assert "Congratulate" in users


def test_site_that_has_no_page_of_sessions_has_no_links_to_it(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    for url in ("/bare/auth/user/", f"/bare/auth/user/{alice.pk}/change/"):
        assert "Sessions of alice" not in desk.get(url).text
    act(desk, "end_all_sessions", alice, url="/bare/auth/user/")
    assert is_out(phone, FAREWELL)


def test_admin_without_fields_and_actions(root, rf):
    group = Group.objects.create(name="editors")
    request = rf.get("/")
    request.user = root
    groups = GroupAdmin(Group, staff_site)
    ((name, options),) = groups.get_fieldsets(request, group)
    assert (name, options["fields"]) == (None, ["name", "permissions", "sessions_link"])
    assert groups.get_actions(request) == {}
    assert MyUserAdmin(User, staff_site).get_actions(rf.get("/?_popup=1")) == {}


# A project's own users.

PEOPLE = """
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models


class Person(AbstractBaseUser, PermissionsMixin):
    id = models.UUIDField(primary_key=True)
    telephone = models.CharField(max_length=20, unique=True)
    is_staff = True
    USERNAME_FIELD = "telephone"
    objects = BaseUserManager()
"""

SITE = """
import uuid

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="of a test",
    ALLOWED_HOSTS=["testserver"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    AUTH_USER_MODEL="people.Person",
    SESSION_ENGINE="django_sessionkit.backends.db",
    INSTALLED_APPS=[
        "people",
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.staticfiles",
        "django_sessionkit",
    ],
    MIDDLEWARE=[
        "django_sessionkit.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ],
            },
        }
    ],
    STATIC_URL="static/",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}},
)
django.setup()

from django.contrib import admin
from django.core.management import call_command
from django.test import Client
from django.test.utils import setup_test_environment
from django.urls import path

from django_sessionkit.admin import UserSessionsAdminMixin
from django_sessionkit.models import UserSession
from people.models import Person


@admin.register(Person)
class PersonAdmin(UserSessionsAdminMixin):
    pass


urlpatterns = [path("admin/", admin.site.urls)]

setup_test_environment()
call_command("check")
call_command("migrate", run_syncdb=True, verbosity=0)
people = []
for number in ("0123456", "0987654"):
    person = Person(pk=uuid.uuid4(), telephone=number, is_superuser=True)
    person.save()
    device = Client(headers={"accept": "text/html"})
    device.force_login(person)
    people.append((person, device))
(ann, desk), (ben, phone) = people

sessions = "/admin/django_sessionkit/usersession/"
page = desk.get(sessions, {"q": "987"})
(found,) = page.context["cl"].result_list
assert found.user == ben, page.content

link = f'<a href="{sessions}?users={ben.pk}" aria-label="Sessions of 0987654">Sessions</a>'
assert link in desk.get("/admin/people/person/").text
page = desk.get(f"/admin/people/person/{ben.pk}/change/")
assert page.text.count(link) == 1, page.content
page = desk.get(f"{sessions}?users={ben.pk}")
(found,) = page.context["cl"].result_list
assert found.user == ben, page.content
page = desk.get(f"{sessions}?users=nonsense")
assert "“nonsense” is no user." in page.text, page.content

fields = {"action": "end_all_sessions", "_selected_action": [str(ben.pk)]}
desk.post("/admin/people/person/", fields)
assert UserSession.objects.get(user=ben).end_reason == "revoked_by_staff"
assert phone.get(sessions).status_code == 302
page = desk.get(f"/admin/people/person/{ben.pk}/delete/")
assert "Are you sure" in page.text, page.content
"""


@pytest.mark.once
def test_users_of_a_model_without_e_mail(tmp_path: Path):
    run_project(tmp_path, PEOPLE, SITE)


# What must not be seen.


@pytest.mark.standard("ASVS-3.3.4", "ASVS-14.2.1", "ASVS-16.2.5")
def test_neither_digests_nor_session_keys_are_on_any_page_in_the_log_or_in_a_url(alice, bob, root):
    desk, phone, pc = sign_in(root), sign_in(alice, IPHONE), sign_in(bob)
    devices = [desk, phone, pc]
    keys = [device.cookies["sessionid"].value for device in devices]
    secrets = [*keys, *UserSession.objects.values_list("digest", flat=True)]
    users = [f"/{site}/auth/user/" for site in ("admin", "staff")]
    urls = [
        "/admin/",
        "/admin/django_sessionkit/",
        CHANGELIST,
        f"{CHANGELIST}?state=active",
        *users,
    ]
    for device in devices:
        urls += [page_of(device), delete_url(device), f"{CHANGELIST}{handle(device)}/history/"]
    for user in (alice, bob, root):
        urls += [f"{url}{user.pk}/{name}/" for url in users for name in ("change", "delete")]

    def look() -> None:
        for url in urls:
            page = desk.get(url)
            assert page.status_code == 200
            seen = "\n".join([page.text, *map(str, page.headers.items()), *map(str, log_entries())])
            assert "digest" not in seen
            assert [secret for secret in secrets if secret in seen] == []
        assert [secret for secret in secrets for url in urls if secret in url] == []

    look()
    response = act(desk, "delete_selected", row_of(phone), row_of(pc))
    assert [secret for secret in secrets if secret in str(response.headers)] == []
    assert len(log_entries()) == 2
    look()


@pytest.mark.parametrize("lookup", ["digest", "digest__startswith", "_to_field", "o", "q"])
def test_digests_can_not_be_found_out_by_trying(root, lookup):
    desk = sign_in(root)
    digest = UserSession.objects.get().digest
    right, wrong = {"_to_field": ("digest", "signature")}.get(lookup, (digest, digest[::-1]))
    pages = [desk.get(CHANGELIST, {lookup: value}) for value in (right, wrong)]
    assert [page.status_code for page in pages] == [400 if lookup == "_to_field" else 200] * 2
    if lookup != "_to_field":
        assert rows_on(pages[0]) == rows_on(pages[1]) == ([handle(desk)] if lookup == "o" else [])
