"""The user admin of a project, with the sessions of its users."""

import re
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import pytest
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import path

from django_sessionkit.admin import UserSessionAdmin, UserSessionInline, UserSessionsAdminMixin
from django_sessionkit.models import UserSession
from django_sessionkit.selection import Selection
from django_sessionkit.staff import users as staff_users
from tests.admin_sites import MyUserAdmin, staff_site
from tests.admin_sites import urlpatterns as admin_sites
from tests.desk import (
    FAREWELL,
    answer,
    as_read,
    choose,
    end,
    messages_of,
)
from tests.pages import press
from tests.people import CHROME, IPHONE, handle, is_in, is_out, sign_in
from tests.projects import run_project

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

USERS = "/staff/auth/user/"


# Admins of projects that differ.


class GroupAdmin(UserSessionsAdminMixin):
    """Nobody's sessions, but an admin without fields, fieldsets and actions."""

    actions = None


class PlainUserAdmin(UserAdmin):  # type: ignore[type-arg]
    """Without the mixin."""

    inlines = [UserSessionInline]


class BothUserAdmin(UserSessionsAdminMixin, PlainUserAdmin):
    pass


def site_with(user_admin: Any, name: str) -> admin.AdminSite:
    site = admin.AdminSite(name=name)
    site.register(User, user_admin)
    site.register(UserSession, UserSessionAdmin)
    return site


plain_site, both_site = site_with(PlainUserAdmin, "plain"), site_with(BothUserAdmin, "both")
urlpatterns = [
    *admin_sites,
    path("plain/", plain_site.urls),
    path("both/", both_site.urls),
]


def user_url(user: User, site: str = "staff") -> str:
    return f"/{site}/auth/user/{user.pk}/change/"


def lines_of(page: Any) -> list[str]:
    """Return the lines of the table of sessions on the page of a user."""
    _, _, rest = page.text.partition('id="sessions"')
    table = rest.partition("<tbody>")[2].partition("</tbody>")[0]
    return [as_read(f"<body>{line}") for line in table.split("</tr>")[:-1]]


# The page of a user.


@pytest.mark.standard("ASVS-7.4.5")
def test_page_of_a_user_has_their_sessions_and_ends_them(alice, bob, root):
    desk, phone, pc, _ = sign_in(root), sign_in(alice, IPHONE), sign_in(alice, CHROME), sign_in(bob)
    UserSession.objects.filter(pk=handle(pc)).revoke()
    page = desk.get(user_url(alice))
    assert '<li><a href="#sessions">1 active session</a></li>' in page.text
    assert page.text.index("#sessions") < page.text.index("historylink")
    first, second = lines_of(page)
    assert first.startswith("Safari on iOS End Active 192.0.2.1")
    assert second.startswith("Chrome on Windows Ended from another device 192.0.2.1")
    assert f"{USERS[:-10]}django_sessionkit/usersession/?users={alice.pk}" in page.text
    (url,) = re.findall(r'href="([^"]*/delete/[^"]*)" aria-label="End Safari on iOS, ', page.text)
    assert url.startswith("/staff/")
    assert end(desk, url)["Location"] == user_url(alice)
    page = desk.get(user_url(alice))
    assert "The session of alice on Safari on iOS was ended." in as_read(page)
    assert "0 active sessions" in page.text
    assert "End all sessions" not in page.text
    assert is_out(phone, FAREWELL)


def test_ending_all_sessions_of_a_user_from_their_page(alice, root):
    desk, phone, pc = sign_in(root), sign_in(alice, IPHONE), sign_in(alice, CHROME)
    page = desk.get(user_url(alice))
    (url,) = re.findall(r'href="([^"]*)">End all sessions<', page.text)
    assert url == f"/staff/django_sessionkit/usersession/end/?users={alice.pk}"
    asked = desk.get(url)
    assert asked.context["title"] == "End 2 sessions of 1 person?"
    assert "User: alice" in as_read(asked)
    response = answer(desk, asked)
    assert response["Location"].startswith("/staff/django_sessionkit/usersession/endings/")
    assert is_out(phone, FAREWELL)
    assert is_out(pc, FAREWELL)


def test_page_of_a_user_shows_the_newest_and_asks_as_much_however_many_there_are(
    alice, root, monkeypatch
):
    desk, _ = sign_in(root), sign_in(alice)
    desk.get(user_url(alice))
    with CaptureQueriesContext(connection) as captured:
        desk.get(user_url(alice))
    before = len(captured)
    for _ in range(12):
        sign_in(alice)
    newest = sign_in(alice, IPHONE)
    monkeypatch.setattr(staff_users, "COUNTED", 12)
    with CaptureQueriesContext(connection) as captured:
        page = desk.get(user_url(alice))
    # Nobody asks for those that have ended where enough have not.
    assert len(captured) == before - 1
    lines = lines_of(page)
    assert len(lines) == 10
    assert str(handle(newest)) in page.text
    assert lines[0].startswith("Safari on iOS")
    assert page.text.count("more than 12 active sessions") == 2


def test_user_can_still_be_edited(alice, root):
    desk, _ = sign_in(root), sign_in(alice)
    fields = {"username": "alicia", "date_joined_0": "2026-01-31", "date_joined_1": "13:37"}
    assert press(desk, user_url(alice), **fields)["Location"] == USERS
    alice.refresh_from_db()
    assert alice.username == "alicia"
    # What a page has posted of the inline does not matter.
    forms = {f"sessionkit_sessions-{name}_FORMS": 7 for name in ("TOTAL", "INITIAL")}
    forms["sessionkit_sessions-0-id"] = UserSession.objects.get(user=alice).pk
    before = list(UserSession.objects.order_by("pk").values())
    assert press(desk, user_url(alice), **fields, **forms)["Location"] == USERS
    after = list(UserSession.objects.order_by("pk").values())
    assert [row["digest"] for row in after] == [row["digest"] for row in before]
    again = press(desk, user_url(alice), **{**fields, "username": ""})
    assert "This field is required." in as_read(again)
    assert len(lines_of(again)) == 1


def test_there_are_no_sessions_of_a_user_who_is_being_added(root):
    page = sign_in(root).get(f"{USERS}add/")
    assert page.status_code == 200
    assert 'id="sessions"' not in page.text


def test_one_line_is_enough_without_the_mixin(alice, root):
    desk, phone = sign_in(root), sign_in(alice, IPHONE)
    page = desk.get(user_url(alice, "plain"))
    assert lines_of(page)[0].startswith("Safari on iOS End Active")
    assert "1 active session All sessions" in as_read(page)
    assert f'"/plain/django_sessionkit/usersession/end/?users={alice.pk}"' in page.text
    assert 'href="#sessions"' not in page.text
    assert desk.get("/plain/auth/user/add/").status_code == 200
    assert len(re.findall('id="sessions"', desk.get(user_url(alice, "both")).text)) == 1
    assert is_in(phone)


def test_page_of_a_superuser_has_no_way_to_end_their_sessions_for_others(root, staff):
    master = sign_in(root)
    desk = sign_in(staff("view_user", "end_usersession"))
    page = desk.get(user_url(root))
    assert lines_of(page)[0].startswith("Firefox on Linux Active 192.0.2.0/24")
    assert "/delete/" not in page.text.partition('id="sessions"')[2]
    assert "End all sessions" not in page.text
    assert is_in(master, root)


def test_template_of_a_project_keeps_its_page(alice, root, monkeypatch):
    desk = sign_in(root)
    monkeypatch.setattr(MyUserAdmin, "change_form_template", "admin/change_form.html")
    assert '<li><a href="#sessions">0 active sessions</a></li>' in desk.get(user_url(alice)).text


# The list of users.


def test_from_a_user_to_their_sessions(alice, bob, root):
    desk, phone, _ = sign_in(root), sign_in(alice), sign_in(bob)
    url = f"/staff/django_sessionkit/usersession/?users={alice.pk}"
    users = desk.get(USERS)
    assert f'<a href="{url}" aria-label="Sessions of alice">Sessions</a>' in users.text
    assert "Username Email address First name Last name Staff status Sessions" in as_read(users)
    (row,) = desk.get(url).context["cl"].result_list
    assert row.pk == handle(phone)


@pytest.mark.standard("ASVS-7.4.5")
def test_ending_all_sessions_of_users(alice, bob, root):
    desk, phone, pc, tablet = sign_in(root), sign_in(alice), sign_in(alice), sign_in(bob)
    page = desk.get(USERS)
    assert re.findall(r'<option value="(\w+)">([^<]*)', page.text) == [
        ("delete_selected", "Delete selected users"),
        ("congratulate", "Congratulate"),
        ("end_all_sessions", "End all sessions of the selected users"),
    ]
    asked = choose(desk, "end_all_sessions", alice, bob, url=USERS)
    assert asked.context["title"] == "End 3 sessions of 2 people?"
    assert is_in(phone)
    # Each site leads to its own pages.
    (url,) = set(re.findall(r'<form method="post" action="([^"]*/end/)"', asked.text))
    assert url == "/staff/django_sessionkit/usersession/end/"
    response = answer(desk, asked, url)
    page = desk.get(response["Location"])
    assert page.context["title"] == "Finished: 3 sessions ended"
    assert [is_out(device, FAREWELL) for device in (phone, pc, tablet)] == [True] * 3
    assert is_in(desk, root)
    asked = choose(desk, "end_all_sessions", alice, url=USERS)
    assert asked.context["title"] == "There is no session to end"


def test_all_users_of_the_list_are_too_many_at_some_number(alice, bob, root, monkeypatch):
    desk, phone = sign_in(root), sign_in(alice)
    asked = choose(desk, "end_all_sessions", bob, url=f"{USERS}?q=ali", select_across="1")
    assert asked.context["title"] == "End 1 session of 1 person?"
    monkeypatch.setattr(staff_users, "USERS", 2)
    response = choose(desk, "end_all_sessions", bob, url=USERS, select_across="1")
    assert response.status_code == 302
    assert messages_of(desk.get(USERS)) == [("error", "Choose at most 2 at a time.")]
    assert is_in(phone)


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
        users, page = desk.get(USERS).text, desk.get(user_url(alice)).text
        assert ("Sessions of alice" in users) is link
        assert ("1 active session" in page) is link
        assert ("End all sessions of the selected users" in users) is action
        assert (">End all sessions<" in page) is action
        assert (">End</a>" in page) is action
        assert "Congratulate" in users


def test_who_is_shown_a_part_of_the_sessions_sees_and_ends_no_others_here(
    alice, bob, root, monkeypatch
):
    """An admin of a site whose get_queryset() leaves out what is not its customers', say."""
    everything = UserSessionAdmin.get_queryset

    def hers(self: Any, request: Any) -> Any:
        return everything(self, request).filter(user=alice)

    desk, phone, pc = sign_in(root), sign_in(alice, IPHONE), sign_in(bob, CHROME)
    monkeypatch.setattr(UserSessionAdmin, "get_queryset", hers)
    assert len(lines_of(desk.get(user_url(alice)))) == 1
    page = desk.get(user_url(bob))
    assert lines_of(page) == []
    assert "0 active sessions" in page.text
    for user in (alice, bob):  # whom nothing keeps from having sessions that are not shown
        assert "End all sessions" not in desk.get(user_url(user)).text
        choose(desk, "end_all_sessions", user, url=USERS)
    assert is_in(phone, "alice")
    assert is_in(pc, "bob")


def test_site_that_has_no_page_of_sessions_has_no_ways_to_it(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    for url in ("/bare/auth/user/", user_url(alice, "bare")):
        page = desk.get(url)
        assert page.status_code == 200
        for way in ("Sessions of alice", "End all sessions", "active session"):
            assert way not in page.text
    choose(desk, "end_all_sessions", alice, url="/bare/auth/user/")
    assert is_in(phone)


def test_keys_of_users_may_be_any_text(root, rf):
    request = rf.get("/")
    request.user, anybody = root, SimpleNamespace(id="50%, b", user_id="50%, b")
    shown = staff_users.SessionsOfUser(staff_site, request, anybody)
    row: Any = SimpleNamespace(user_id="50%, b", user="ann")
    users = MyUserAdmin(User, staff_site)
    links = [users.sessions_link(anybody), UserSessionAdmin(UserSession, staff_site).user_link(row)]
    for link in (shown.list_url, shown.end_all_url, *links):
        query = unescape(link.partition("?")[2].partition('"')[0])
        assert dict(parse_qsl(query))["users"] == Selection(users=("50%, b",)).as_text()["users"]


def test_admin_of_something_else_without_fields_and_actions(root, rf):
    group = Group.objects.create(name="editors")
    request = rf.get("/")
    request.user = root
    groups: Any = GroupAdmin(Group, staff_site)
    assert groups.get_inlines(request, group) == ()
    assert groups.get_actions(request) == {}
    # The keys of groups are not those of users.
    groups = type("Groups", (UserSessionsAdminMixin,), {})(Group, staff_site)
    assert "end_all_sessions" not in groups.get_actions(request)
    assert "sessions_link" not in groups.get_list_display(request)
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


class Employee(Person):
    number = models.AutoField(primary_key=True)
    person = models.OneToOneField(Person, models.CASCADE, parent_link=True)
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
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import path

from django_sessionkit.admin import UserSessionsAdminMixin
from django_sessionkit.models import UserSession
from people.models import Employee, Person


@admin.register(Person, Employee)
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
assert page.text.count(">1 active session<") == 2, page.content
assert f'{sessions}end/?users={ben.pk}"' in page.text, page.content
page = desk.get(f"{sessions}?users={ben.pk}")
(found,) = page.context["cl"].result_list
assert found.user == ben, page.content
page = desk.get(f"{sessions}?users=nonsense")
assert "“nonsense” is no user." in page.text, page.content

fields = {"action": "end_all_sessions", "_selected_action": [str(ben.pk)]}
page = desk.post("/admin/people/person/", fields)
assert page.context["title"] == "End 1 session of 1 person?", page.content
fields = {"selection": f"users={ben.pk}", "post": "yes", "note": "ticket 4711"}
assert desk.post(f"{sessions}end/", fields).status_code == 302
assert UserSession.objects.get(user=ben).end_reason == "revoked_by_staff"
assert phone.get(sessions).status_code == 302
page = desk.get(f"/admin/people/person/{ben.pk}/delete/")
assert "Are you sure" in page.text, page.content

# A child of the user model has a key of its own, by which nobody knows the sessions.
employee = Employee(id=uuid.uuid4(), telephone="0555", number=7)
employee.save()
Client().force_login(Person.objects.get(pk=employee.id))
page = desk.get("/admin/people/employee/7/change/")
assert page.text.count(">1 active session<") == 2, page.content
assert f'{sessions}end/?users={employee.id}"' in page.text, page.content
assert f'<a href="{sessions}?users={employee.id}"' in desk.get("/admin/people/employee/").text
fields = {"action": "end_all_sessions", "_selected_action": ["7"]}
page = desk.post("/admin/people/employee/", fields)
assert page.context["title"] == "End 1 session of 1 person?", page.content
assert "0555" in page.text, page.content

# No column says who is staff, so the switch does not claim to find all of them.
from django.core.exceptions import ValidationError
from django_sessionkit import endings
from django_sessionkit.models import Ending
from django_sessionkit.staff.switch import SwitchForm

try:
    endings.throw(Ending.Scope.STAFF, by=ann, note="", ended_from=None)
except ValidationError as error:
    assert "not a column" in str(error), error
else:
    raise AssertionError("Nobody can find all staff.")
offered = [value for value, _ in SwitchForm(by_superuser=True).fields["scope"].choices]
assert offered == ["everybody", "user"], offered
assert not SwitchForm({"scope": "staff", "note": "x"}, by_superuser=True).is_valid()
"""


@pytest.mark.once
def test_users_of_a_model_without_e_mail(tmp_path: Path):
    run_project(tmp_path, PEOPLE, SITE)
