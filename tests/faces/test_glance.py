"""Sessions at a glance, told as stories of staff who want to know how their site is."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.db.models import QuerySet
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import timezone, translation

from django_sessionkit import tallies
from django_sessionkit.admin import UserSessionAdmin
from django_sessionkit.backends import db
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.models import EndReason, PurgeRun, Tally, UserSession
from django_sessionkit.staff import figures
from django_sessionkit.staff.pictures import HEIGHT, LENGTH, by_day, meters
from django_sessionkit.storage import NodeStatus
from tests import store
from tests.pages import words
from tests.people import CHROME, IPHONE, handle, key_of, post_sign_in, sign_in, who
from tests.store import DAY, SessionStore
from tests.urls import urlpatterns as site_of_the_tests

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

CHANGELIST = "/admin/django_sessionkit/usersession/"
GLANCE = f"{CHANGELIST}glance/"

staff_site = admin.AdminSite(name="staff")
staff_site.register(UserSession, UserSessionAdmin)
urlpatterns = [*site_of_the_tests, path("staff/", staff_site.urls)]


def said(page: Any) -> str:
    """Return the text of a page, without what is in the tables of the figures by day."""
    assert page.status_code == 200
    html = re.sub(r"<details>.*?</details>", "", page.text, flags=re.DOTALL)
    return words(re.sub(r"<title>.*?</title>", "", html), " ")


def pictures(page: Any, heading: str) -> list[str]:
    """Return the titles of the pictures under a heading."""
    part = page.text.partition(f'id="glance-{heading}"')[2].partition("</section>")[0]
    return re.findall(r'role="img"><title>([^<]*)</title>', part)


def by_day_in(page: Any, heading: str) -> list[str]:
    """Return the figures of the 30 days of a heading, from its first table."""
    part = page.text.partition(f'id="glance-{heading}"')[2].partition("</section>")[0]
    table = part.partition("<details>")[2].partition("</table>")[0]
    return re.findall(r'<td class="glance-number">([^<]*)</td>', table)


def staff(*names: str) -> User:
    user = User.objects.create_user("support", password="secret", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    return user


# The page.


def test_staff_see_how_many_sessions_there_are_and_what_has_become_of_others(alice, bob, root):
    desk, _phone, pc = sign_in(root), sign_in(alice, IPHONE), sign_in(alice, CHROME)
    sign_in(bob, IPHONE)
    UserSession.objects.filter(pk=handle(pc)).revoke(EndReason.LIMIT)
    SessionStore.clear_expired()
    page = desk.get(GLANCE)
    text = said(page)
    assert "Active sessions 3 Sign-ins today 4 Ended today 1 Last purge" in text
    assert "Device type Sessions Phone 2 Computer 1" in text
    assert re.search(
        r"User Sessions (alice|bob|root) 1 (alice|bob|root) 1 (alice|bob|root) 1", text
    )
    assert "Reason By day Total Too many devices 1 " in text
    assert "An old session key was used 0 Browser or network changed 0 Too many devices 1" in text
    assert "and deleted 0 rows. Rows of ended sessions that wait for the next purge: 0" in text
    (title,) = pictures(page, "sign-ins")
    assert title.startswith("Sign-ins by day, from ")
    assert title.endswith(": 4 at most")
    assert by_day_in(page, "sign-ins") == [*["0"] * 29, "4"]
    assert by_day_in(page, "active") == [*["-"] * 29, "3"]
    assert by_day_in(page, "endings") == [*["0"] * 29, "1"]


def test_a_site_without_sessions_and_without_a_purge_has_empty_pictures(root):
    desk = sign_in(root)
    page = desk.get(GLANCE)
    text = said(page)
    assert "Last purge never" in text
    assert "No session has ended." in text
    assert "No purge has finished yet." in text
    # Nobody has counted the days before this one: that is not the same as 0.
    assert by_day_in(page, "sign-ins") == [*["-"] * 29, "1"]
    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies"):
        UserSession.objects.all().delete()
        client = Client()
        client.force_login(root)
        text = said(client.get(GLANCE))
    assert text.count("No session is active.") == 2
    assert "SESSION_ENGINE names no store of django-sessionkit." in text


def test_figures_of_30_days_stay_though_their_rows_have_gone(clock, alice, root):
    sign_in(alice)
    SessionStore.clear_expired()
    User.objects.filter(pk=alice.pk).delete()
    UserSession.objects.all().delete()
    clock.move(seconds=10 * DAY)
    SessionStore.clear_expired()
    clock.move(seconds=DAY)
    desk = sign_in(root)
    page = desk.get(GLANCE)
    assert by_day_in(page, "sign-ins")[18:] == ["1", *["0"] * 10, "1"]
    assert by_day_in(page, "active")[18:] == ["1", *["-"] * 9, "0", "1"]


def test_of_more_sessions_than_anybody_waits_for_the_purge_has_the_number(
    clock, alice, bob, root, monkeypatch
):
    for user in (alice, alice, bob):
        sign_in(user, IPHONE)
    desk = sign_in(root)
    monkeypatch.setattr(figures, "NEWEST", 2)
    text = said(desk.get(GLANCE))
    assert "Active sessions 2 of the 2 newest: the purge counts them all" in text
    assert text.count("Of the 2 newest sessions.") == 2
    SessionStore.clear_expired()
    page = desk.get(GLANCE)
    assert "Active sessions 4 as the purge counted them, " in said(page)
    assert "Device type Sessions Phone 3 Computer 1" in said(page)
    assert said(page).count("Of the 2 newest sessions.") == 1  # of the users
    assert by_day_in(page, "active")[-1] == "4"
    # That of long ago is no figure of today.
    PurgeRun.objects.update(finished_at=timezone.now() - timedelta(days=31))
    assert "Active sessions 2 of the 2 newest" in said(desk.get(GLANCE))


def test_users_with_most_sessions_come_first_and_what_has_expired_does_not_count(
    alice, bob, root, monkeypatch
):
    desk = sign_in(root)
    for user in (alice, bob, bob, bob):
        sign_in(user, IPHONE)
    last, *_others = UserSession.objects.filter(user=bob)
    UserSession.objects.filter(pk=last.pk).update(expires_at=timezone.now())
    assert "User Sessions bob 2 " in said(desk.get(GLANCE))
    assert "Phone 3 Computer 1" in said(desk.get(GLANCE))
    monkeypatch.setattr(figures, "PEOPLE", 1)
    assert "User Sessions bob 2 Stores" in said(desk.get(GLANCE))


def test_of_more_sign_ins_than_anybody_waits_for_the_purge_has_the_number(alice, root, monkeypatch):
    desk = sign_in(root)
    for _ in range(3):
        sign_in(alice)
    monkeypatch.setattr(figures, "LIMIT", 2)
    assert "Sign-ins today 2 " in said(desk.get(GLANCE))
    SessionStore.clear_expired()
    assert "Sign-ins today 4 " in said(desk.get(GLANCE))


def test_backlog_of_the_purge_and_a_purge_that_has_not_finished(alice, root):
    desk = sign_in(root)
    for _ in range(2):
        sign_in(alice)
    UserSession.objects.filter(user=alice).revoke()
    old = timezone.now() - timedelta(days=31)
    UserSession.objects.filter(user=alice).update(ended_at=old)
    PurgeRun.objects.create(started_at=timezone.now())
    text = said(desk.get(GLANCE))
    assert "wait for the next purge: 2" in text
    assert "and has not finished" in text


def test_security_events_by_day(alice, root):
    desk = sign_in(root)
    Tally.objects.create(day=tallies.today(), name="ended.reused", value=1234)
    text = said(desk.get(GLANCE))
    assert text.count("An old session key was used 1,234") == 2  # among all reasons, too
    assert "Browser or network changed 0" in text


def counted() -> dict[str, int]:
    """Return the figures of today that requests have counted."""
    return dict(Tally.objects.filter(day=tallies.today()).values_list("name", "value"))


@pytest.mark.django_db(transaction=True)
@pytest.mark.transports("cookie", "header")
def test_requests_that_do_not_get_their_session_are_counted(browse, alice, root, policy):
    policy(limit=1, on_limit="refuse")
    phone = browse()
    post_sign_in(phone)
    assert counted() == {}
    for _ in range(3):
        post_sign_in(browse())
    assert counted() == {"request.refused": 3}
    store.tamper(digest_of(key_of(phone)), b"of another server, or of somebody who can write here")
    assert [who(phone), who(phone)] == ["", ""]
    assert counted() == {"request.refused": 3, "request.unopened": 2}
    text = said(sign_in(root).get(GLANCE))
    assert "Sign-ins that the limit refused 3" in text
    assert "Requests whose stored session did not open 2" in text
    SessionStore.clear_expired()  # the purge leaves them alone
    assert counted()["request.refused"] == 3


def test_requests_in_a_transaction_count_nothing(alice, policy):
    policy(limit=1, on_limit="refuse")
    sign_in(alice)
    assert post_sign_in(Client(raise_request_exception=False)).status_code == 403
    assert counted() == {}


@pytest.mark.django_db(transaction=True)
def test_of_two_requests_that_are_the_first_of_a_day_both_are_counted(monkeypatch):
    bulk_create = QuerySet.bulk_create

    def second(rows: Any, *args: Any, **kwargs: Any) -> Any:
        monkeypatch.undo()
        tallies.count_request(tallies.REFUSED)  # the other one
        return bulk_create(rows, *args, **kwargs)

    monkeypatch.setattr(QuerySet, "bulk_create", second)
    tallies.count_request(tallies.REFUSED)
    assert counted() == {"request.refused": 2}


@pytest.mark.django_db(transaction=True)
def test_a_figure_is_not_worth_an_answer(alice, policy, monkeypatch, caplog):
    policy(limit=1, on_limit="refuse")
    sign_in(alice)
    with monkeypatch.context() as patch:
        patch.setattr(Tally._meta, "db_table", "not_there")
        assert post_sign_in(Client(raise_request_exception=False)).status_code == 403
    assert "A request was not counted: " in caplog.text
    assert counted() == {}


# Who sees what.


def test_who_may_view_or_end_sessions_sees_the_page_and_names_only_who_may_see_users(alice):
    sign_in(alice)
    user = staff("view_usersession")
    desk = sign_in(user)
    text = said(desk.get(GLANCE))
    assert "alice" not in text
    assert f"User Sessions {alice.pk} 1 {user.pk} 1" in text
    user.user_permissions.set(Permission.objects.filter(codename="end_usersession"))
    assert "At a glance" in said(desk.get(CHANGELIST))
    assert desk.get(GLANCE).status_code == 200
    user.user_permissions.add(*Permission.objects.filter(codename="view_user"))
    page = desk.get(GLANCE)
    assert f'<a href="{CHANGELIST}?users={alice.pk}">alice</a>' in page.text


def test_other_staff_and_strangers_do_not_see_it(alice, client):
    assert sign_in(staff("view_user")).get(GLANCE).status_code == 403
    assert sign_in(alice).get(GLANCE).status_code == 302
    assert client.get(GLANCE).status_code == 302


def test_links_are_those_of_the_admin_site_that_one_is_on(root):
    desk = sign_in(root)
    page = desk.get("/staff/django_sessionkit/usersession/glance/")
    assert f'href="/staff/django_sessionkit/usersession/?users={root.pk}"' in page.text
    assert '"/admin/' not in page.text
    link = '<a href="/staff/django_sessionkit/usersession/glance/">At a glance</a>'
    assert link in desk.get("/staff/django_sessionkit/usersession/").text


def test_no_digest_is_on_the_page(root):
    desk = sign_in(root)
    row = UserSession.objects.get()
    page = desk.get(GLANCE).text
    assert row.digest not in page
    assert desk.cookies["sessionid"].value not in page


# What it costs.


@pytest.mark.parametrize("names_users", [True, False])
def test_page_takes_as_many_queries_however_many_sessions(alice, bob, names_users):
    permissions = ["view_usersession", "view_user"] if names_users else ["view_usersession"]
    desk = sign_in(staff(*permissions))
    SessionStore.clear_expired()
    desk.get(GLANCE)
    counts = set()
    for user in (alice, bob, alice):
        sign_in(user, IPHONE)
        with CaptureQueriesContext(connection) as queries:
            assert desk.get(GLANCE).status_code == 200
        asked = [each["sql"] for each in queries if "usersession" in each["sql"]]
        assert len(asked) == 5, asked  # the newest, device types, users, today, the backlog
        asked = [each["sql"] for each in queries if "tally" in each["sql"]]
        assert len(asked) == 1
        asked = [each["sql"] for each in queries if "purgerun" in each["sql"]]
        assert len(asked) == 2
        counts.add(len(queries))
    assert len(counts) == 1, counts


# The stores.


def test_state_of_the_store(root):
    desk = sign_in(root)
    text = said(desk.get(GLANCE)).partition("Stores Store")[2]
    assert re.search(r"django_sessionkit\.backends\.\w+ Answers in [\d.,]+ ms", text)
    if store.ON_REDIS:
        assert re.search(r" (Redis|Valkey) \d+\.\S+ (none|RDB|AOF|-)\S* \w+ Purge", text)
    elif not store.IN_MEMORY:
        assert re.search(r" (PostgreSQL|SQLite|MariaDB) \d+\.", text)


def test_a_store_that_does_not_answer_is_said_to_be_down(root, monkeypatch):
    desk = sign_in(root)
    status = NodeStatus(None, "10.0.0.1:6379")
    monkeypatch.setattr(SessionStore, "status", classmethod(lambda cls: [status]))
    assert "10.0.0.1:6379 Does not answer - - - - - -" in said(desk.get(GLANCE))


@pytest.mark.once
def test_a_database_that_does_not_answer_for_the_sessions_costs_the_page_nothing_else(
    root, monkeypatch
):
    desk = sign_in(root)
    store.take_down(monkeypatch, "peek")
    text = said(desk.get(GLANCE))
    assert "backends.db Does not answer - - - - - - Purge" in text
    assert "Sign-ins today 1" in text


@pytest.mark.once
def test_of_another_database_less_is_known(root, monkeypatch):
    desk = sign_in(root)
    monkeypatch.setattr(db, "EXTENT", {})
    assert re.search(
        r"Answers in [\d.]+ ms - - - SQLite 3\.[\d.]+ - - Purge", said(desk.get(GLANCE))
    )


def test_a_store_that_sessions_are_moving_from_is_there_too(root, settings):
    settings.SESSIONKIT_ADOPT_FROM = ["django_sessionkit.backends.memory"]
    text = said(sign_in(root).get(GLANCE))
    assert "django_sessionkit.backends.memory Answers in" in text


def test_other_facts_of_a_server(root, monkeypatch):
    desk = sign_in(root)
    facts = [
        NodeStatus(0.00123, "a", 1234567, 2048, 0, "Redis 8.2", "AOF", "noeviction"),
        NodeStatus(0.00123, "b", limit=4096),
    ]
    monkeypatch.setattr(SessionStore, "status", classmethod(lambda cls: facts))
    text = said(desk.get(GLANCE)).replace("\xa0", " ")
    assert "Answers in 1.23 ms 1,234,567 2.0 KB no limit Redis 8.2 AOF noeviction" in text
    assert "b Answers in 1.23 ms - - 4.0 KB - - -" in text


# Pictures.


def test_bars_say_how_much_and_what_was_not_counted_has_none():
    days = tallies.days_until(datetime(2040, 3, 1, tzinfo=UTC).date(), 4)
    picture = by_day("Sign-ins", days, {days[0]: 1000, days[1]: 1, days[3]: 0})
    assert picture.title == "Sign-ins by day, from February 27 to March 1: 1,000 at most"
    assert [text for _day, text in picture.days] == ["1,000", "1", "", "0"]
    assert (picture.most, picture.total, picture.width) == ("1,000", "1,001", 40)
    high, low = picture.bars
    assert (high.x, high.y, high.height, high.text) == (0, 0, HEIGHT, "February 27: 1,000")
    assert (low.x, low.y, low.height) == (10, HEIGHT - 1, 1)  # little, but to be seen
    assert by_day("Sign-ins", days, {}).bars == []


def test_meters_are_as_long_as_their_numbers_are_large():
    found = meters([("a", 50, ""), ("b", 25, "/b/"), ("c", 0, "")])
    assert [meter.length for meter in found] == [LENGTH, LENGTH // 2, 0]
    assert meters([]) == []


@pytest.mark.parametrize("language", ["de", "ar"])
def test_numbers_are_those_of_the_language_and_positions_are_numbers(root, language, settings):
    settings.USE_THOUSAND_SEPARATOR = True
    settings.LANGUAGE_CODE = language
    Tally.objects.create(day=tallies.today(), name="ended.reused", value=1234)
    Tally.objects.create(day=tallies.today(), name="sign_ins", value=987654)
    page = sign_in(root).get(GLANCE)
    if language == "de":
        assert "987.654" in page.text
    assert re.findall(r'<svg class="glance-days" viewBox="([^"]*)"', page.text)[0] == "0 0 300 60"
    rectangles = " ".join(re.findall(r"<rect ([^>]*)>", page.text))
    positions = re.findall(r'="([^"]*)"', rectangles)
    assert positions
    assert all(position.isdecimal() for position in positions), positions
    assert (' dir="rtl"' in page.text) is (language == "ar")
    translation.deactivate()
