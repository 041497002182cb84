"""
Staff end all sessions of a selection, many or few: the question, the page that shows how far it is,
and the list of what was ended together.
"""

import re
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_sessionkit import endings, reach, selection
from django_sessionkit.admin import UserSessionAdmin
from django_sessionkit.models import Ending, EndReason, UserSession, uuid7
from django_sessionkit.staff import progress
from tests import store
from tests.desk import (
    CHANGELIST,
    END_SHOWN,
    ENDINGS,
    FAREWELL,
    OWN_FAREWELL,
    SAME_PASSWORDS,
    WHY,
    answer,
    as_read,
    choose,
    log_entries,
    messages_of,
    post,
    rows_on,
)
from tests.many import many, stored
from tests.pages import fields_of
from tests.people import CHROME, IPHONE, handle, is_in, is_out, sign_in

pytestmark = [pytest.mark.django_db, pytest.mark.site("tests.admin_sites")]

NETWORK = f"{END_SHOWN}?network=203.0.113.0/24"
HANDLE = "01920000-0000-7000-8000-000000000000"  # of no session


@pytest.fixture
def burglars(alice: User, bob: User) -> list[Client]:
    """Sessions from one network, of two people."""
    return [
        sign_in(alice, address="203.0.113.7"),
        sign_in(bob, IPHONE, "203.0.113.8"),
        sign_in(bob, CHROME, "203.0.113.9"),
    ]


def refreshes(page: Any) -> bool:
    return '<meta http-equiv="refresh" content="3">' in page.text


def bar_of(page: Any) -> str:
    (bar,) = re.findall(r"<progress[^>]*>", page.text)
    return str(bar)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one session is many, and only workers do any work."""
    monkeypatch.setattr(endings, "BACKGROUND", 1)
    monkeypatch.setattr(endings, "work", lambda *args: False)


# The question.


@pytest.mark.standard("ASVS-7.4.5")
def test_ending_all_sessions_from_a_network(burglars, alice, bob, root):
    desk, home = sign_in(root), sign_in(alice)
    asked = desk.get(NETWORK)
    assert asked.context["title"] == "End 3 sessions of 2 people?"
    text = as_read(asked)
    assert "Address or network: 203.0.113.0/24 State: Active" in text
    assert "bob: Safari on iOS, 203.0.113.8, last active" in text
    assert "using now" not in text
    assert "staff" not in text.partition("End 3 sessions")[2]
    assert "To confirm" not in text
    assert [is_in(burglars[0]), is_in(burglars[1], bob)] == [True, True]

    response = answer(desk, asked)
    ending = Ending.objects.get()
    assert (response.status_code, response["Location"]) == (302, f"{ENDINGS}{ending.pk}/")
    page = desk.get(response["Location"])
    assert page.context["title"] == "Finished: 3 sessions ended"
    text = as_read(page)
    assert SAME_PASSWORDS in text
    assert "Sessions ended 3" in text
    assert "What ends Sessions of a filter Address or network: 203.0.113.0/24" in text
    assert f"Left out the session of who has begun this Reason {WHY} By root Begun" in text
    assert not refreshes(page)
    assert [is_out(device, FAREWELL) for device in burglars] == [True] * 3
    assert is_in(home)
    assert is_in(desk, root)
    row = UserSession.objects.filter(ip="203.0.113.7").get()
    assert (row.end_reason, row.ended_by, row.end_note) == (
        EndReason.REVOKED_BY_STAFF,
        root,
        WHY,
    )
    together, *each = log_entries()
    assert together == ("root", str(ending), f"Ended: {WHY}")
    assert {said for _, _, said in each} == {f"Ended: {WHY}"}
    assert len(each) == 3
    assert f"Ended: {WHY}" in as_read(desk.get(f"{CHANGELIST}{row.pk}/history/"))
    assert desk.get(NETWORK).context["title"] == "There is no session to end"
    assert f'<a href="{CHANGELIST}">Back to the list</a>' in desk.get(NETWORK).text


def test_question_is_about_what_the_list_shows(burglars, bob, root):
    desk, _ = sign_in(root), sign_in(bob)
    for query in (
        "q=bob",
        "q=bob 203.0.113.8",
        "users={bob.pk}&network=203.0.113.0/24",
        "q=nobody",
    ):
        query = query.format(bob=bob)
        shown = rows_on(desk.get(f"{CHANGELIST}?{query}"))
        asked = desk.get(f"{END_SHOWN}?{query}").context["preview"]
        assert {row.pk for row in asked.sample} == set(shown)


def test_question_says_who_is_staff_and_that_ones_own_is_among_them(burglars, root, staff):
    desk = sign_in(root, address="203.0.113.1")
    sign_in(staff("view_user"), address="203.0.113.2")
    asked = desk.get(NETWORK)
    text = as_read(asked)
    assert "2 of these people are staff:" in text
    assert "staff-view_user" in text.partition("are staff:")[2]
    assert "One is the session that you are using now." in text
    answer(desk, asked)
    assert is_in(desk, root)
    assert is_out(burglars[0], FAREWELL)


def test_name_of_staff_is_escaped_once(root):
    with_markup = User.objects.create_user("<b>o'brien", password="secret", is_staff=True)
    sign_in(with_markup, address="203.0.113.7")
    page = sign_in(root).get(NETWORK)
    assert "1 of these people is staff: &lt;b&gt;o&#x27;brien." in page.text


def test_ones_own_session_goes_too_if_one_says_so(burglars, root):
    desk = sign_in(root, address="203.0.113.1")
    own = handle(desk)
    response = answer(desk, desk.get(NETWORK), spares_own=None)
    assert response.cookies["sessionid"]["max-age"] == 0
    page = desk.get(response["Location"], follow=True)
    assert page.redirect_chain == [(f"/admin/login/?next={response['Location']}", 302)]
    assert messages_of(page) == [("success", OWN_FAREWELL)]
    assert UserSession.objects.get(pk=own).end_reason == EndReason.REVOKED_BY_STAFF
    again = sign_in(root)
    assert "Left out - Reason" in as_read(again.get(response["Location"]))


def test_ones_own_session_goes_at_once_also_if_the_others_take_long(burglars, root, slow):
    desk = sign_in(root, address="203.0.113.1")
    own = handle(desk)
    asked = desk.get(NETWORK)
    answer(desk, asked, spares_own=None, typed="4")
    row = UserSession.objects.get(pk=own)
    assert (row.end_reason, row.end_note) == (EndReason.REVOKED_BY_STAFF, WHY)
    assert log_entries()[-1] == ("root", "root: Firefox on Linux", f"Ended: {WHY}")
    assert is_in(burglars[0])


def test_ones_own_session_stays_when_the_store_does_not_answer(root, store_down, slow):
    desk = sign_in(root, address="203.0.113.1")
    sign_in(root, address="203.0.113.1")
    response = answer(desk, desk.get(NETWORK), spares_own=None, typed="2")
    page = desk.get(response["Location"])
    assert messages_of(page)[0][1].startswith("The session store did not answer.")


@pytest.mark.standard("ASVS-8.2.2")
def test_superusers_are_left_out_by_other_staff(burglars, root, staff):
    desk, master = sign_in(staff("end_usersession")), sign_in(root, address="203.0.113.1")
    asked = desk.get(NETWORK)
    assert asked.context["title"] == "End 3 sessions of 2 people?"
    left_out = "1 session of a superuser is left out, because you are none."
    assert left_out in as_read(asked)
    page = desk.get(answer(desk, asked)["Location"])
    assert "Left out the session of who has begun this, superusers Reason" in as_read(page)
    assert is_out(burglars[0], FAREWELL)
    assert is_in(master, root)


def test_superusers_whom_no_column_tells_are_left_out_too(burglars, root, staff, monkeypatch):
    monkeypatch.setattr(selection, "_has", lambda name: False)  # is_superuser is a property, say
    intruder, some = sign_in(root, address="203.0.113.1"), sign_in(staff("end_usersession"))
    page = some.get(answer(some, some.get(NETWORK))["Location"])
    assert page.context["title"] == "Finished: 3 sessions ended"
    assert is_in(intruder, root)


def test_a_superuser_who_acts_as_other_staff_is_none(burglars, root, staff, monkeypatch):
    acting = User.objects.create_superuser("admin", password="secret")
    monkeypatch.setattr("django_sessionkit.staff.rank.acting_user", lambda *args: acting)
    desk, master = sign_in(staff("end_usersession")), sign_in(root, address="203.0.113.1")
    asked = desk.get(NETWORK)
    assert asked.context["title"] == "End 3 sessions of 2 people?"
    answer(desk, asked)
    assert Ending.objects.get().by == acting
    assert is_in(master, root)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "Choose a filter first, or else the switch for everybody."),
        ("?state=active", "Choose a filter first, or else the switch for everybody."),
        ("?network=nowhere", "“nowhere” is no address or network"),
    ],
)
def test_what_asks_for_everybody_or_makes_no_sense_leads_back_to_the_list(root, query, said):
    desk = sign_in(root)
    response = desk.get(f"{END_SHOWN}{query}")
    assert response["Location"] == CHANGELIST
    ((level, text),) = messages_of(desk.get(CHANGELIST))
    assert level == "error"
    assert said in text


def test_what_this_database_can_not_find_leads_back_to_the_list(root):
    response = sign_in(root).get(f"{END_SHOWN}?network=2001:db8::/45")
    assert response.status_code == (200 if connection.vendor == "postgresql" else 302)


def test_everybody_can_not_be_slipped_in_by_the_form(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    for asked in ("", "state=active"):
        response = post(desk, END_SHOWN, selection=asked)
        assert response["Location"] == CHANGELIST
    assert is_in(phone)


def test_more_users_than_a_statement_can_have_are_refused(root):
    users = ",".join(map(str, range(1, 300_000)))
    desk = sign_in(root)
    assert post(desk, END_SHOWN, selection=f"users={users}")["Location"] == CHANGELIST
    assert messages_of(desk.get(CHANGELIST)) == [("error", "Search for a shorter text.")]


def test_selection_is_said_in_words(alice, root, staff):
    desk = sign_in(root)
    query = (
        f"users={alice.pk}&handle={HANDLE}&state=ended&reason=limit&device_type=mobile"
        "&transport=header&staff=1&started_after=2026-11-28T03:00%2B00:00"
    )
    text = as_read(desk.get(f"{END_SHOWN}?{query}"))
    assert (
        f"User: alice Handle: {HANDLE} State: Ended Reason: Too many devices Device type: Phone"
        " Transport: Header Staff: Yes Signed in since: Nov. 27, 2026, 9 p.m."
    ) in text
    # Who may not see users could try keys, and learn all names.
    text = as_read(sign_in(staff("end_usersession")).get(f"{END_SHOWN}?{query}"))
    assert f"User: {alice.pk} Handle" in text


def test_selection_without_time_zones(alice, root, settings):
    settings.USE_TZ = False
    moments = list(
        progress.in_words(
            RequestFactory().get(END_SHOWN),
            endings.Selection(seen_before=datetime(2026, 11, 28, 3)),  # noqa: DTZ001
        )
    )
    assert moments == [("Last active before", "Nov. 28, 2026, 3 a.m.")]


def test_staff_who_may_not_see_addresses_end_by_network(burglars, staff):
    some = sign_in(staff("end_usersession"))
    asked = some.get(f"{END_SHOWN}?network=203.0.113.7")
    # An address alone would tell them whether it is one.
    assert asked.context["title"] == "End 3 sessions of 2 people?"
    text = as_read(asked)
    assert "Address or network: 203.0.113.0/24" in text
    assert "203.0.113.7" not in asked.text
    # Nor do they find that out by a form of their own.
    asked = post(some, END_SHOWN, selection="network=203.0.113.7", note="")
    assert asked.context["title"] == "End 3 sessions of 2 people?"


def test_question_takes_as_many_queries_however_many_sessions(alice, root):
    desk = sign_in(root)

    def queries(number: int) -> int:
        for _ in range(number):
            sign_in(alice, address="203.0.113.7")
        with CaptureQueriesContext(connection) as captured:
            asked = desk.get(NETWORK)
        asking = len(captured)
        location = answer(desk, asked)["Location"]
        with store.round_trips(3):  # the session, the user, the ending with who has begun it
            desk.get(location)
        return asking

    queries(1)
    assert queries(2) == queries(20)


# Many.


@pytest.mark.standard("ASVS-7.4.5")
def test_many_take_a_number_to_be_typed_and_end_in_the_background(
    burglars, root, monkeypatch, slow
):
    sent: list[Ending] = []
    monkeypatch.setattr(endings, "send", lambda ending: bool(sent.append(ending)) or True)
    desk = sign_in(root)
    asked = desk.get(NETWORK)
    assert "To confirm: Type “3”." in as_read(asked)
    assert "There are many: they end one after the other" in as_read(asked)
    for typed in ("", "2", "three"):
        again = answer(desk, asked, typed=typed)
        assert again.status_code == 200
        assert "<title>Error:" in again.text
        assert Ending.objects.count() == 0
    assert "This is not “3”." in as_read(again)
    assert f'value="{WHY}"' in again.text
    response = answer(desk, again, typed=" 3 ")
    assert sent == [Ending.objects.get()]
    assert log_entries() == [("root", str(sent[0]), f"Ended: {WHY}")]
    page = desk.get(response["Location"])
    assert page.context["title"] == "Ending sessions: 0 %"
    assert refreshes(page)
    assert is_in(burglars[0])


def test_of_more_than_are_counted_there_are_more_people(burglars, root, monkeypatch):
    desk = sign_in(root)
    monkeypatch.setattr(reach, "LIMIT", 2)
    assert desk.get(NETWORK).context["title"] == "End more than 2 sessions of more than 2 people?"
    monkeypatch.setattr(reach, "LIMIT", 1)
    UserSession.objects.update(user=root)
    assert desk.get(NETWORK).context["title"] == "End more than 1 session of 1 person?"


def test_number_may_change_while_one_types_it(burglars, alice, root, slow):
    desk = sign_in(root)
    asked = desk.get(NETWORK)
    sign_in(alice, address="203.0.113.7")
    assert answer(desk, asked, typed="3").status_code == 302
    # What was few is many now: then it has to be typed.
    asked = desk.get(NETWORK)
    Ending.objects.all().delete()
    for number in ("", "1", "x", "²", "9" * 5000):
        assert answer(desk, asked, number=number, typed="4").status_code == 302
        assert answer(desk, asked, number=number, typed=number).status_code == 200


def test_a_form_that_is_sent_twice_begins_one_ending(burglars, bob, root):
    desk = sign_in(root)
    asked = desk.get(NETWORK)
    first = answer(desk, asked)
    tablet = sign_in(bob, address="203.0.113.8")
    assert answer(desk, asked)["Location"] == first["Location"]
    assert is_in(tablet, bob)
    assert Ending.objects.count() == 1
    # Whoever asks again, for another reason or for others means it.
    asked = desk.get(NETWORK)
    assert answer(desk, asked)["Location"] != first["Location"]
    answer(desk, asked, note="another")
    answer(desk, asked, selection=f"users={bob.pk}&state=active")
    assert Ending.objects.count() == 4


def test_a_form_that_is_sent_again_later_is_meant(burglars, bob, root):
    desk = sign_in(root)
    asked = desk.get(NETWORK)
    at = {"asked": (timezone.now() - timedelta(hours=1)).isoformat()}
    first = answer(desk, asked, **at)
    assert answer(desk, asked, **at)["Location"] == first["Location"]
    Ending.objects.update(created_at=timezone.now() - 2 * progress.AGAIN)
    tablet = sign_in(bob, address="203.0.113.8")
    assert answer(desk, asked, **at)["Location"] != first["Location"]
    assert is_out(tablet, FAREWELL)


def test_who_goes_back_and_ends_ones_own_too_ends_it(burglars, root):
    desk = sign_in(root, address="203.0.113.9")
    asked = desk.get(NETWORK)
    answer(desk, asked)
    assert is_in(desk, root)
    answer(desk, asked, spares_own=None)
    assert is_out(desk, OWN_FAREWELL)


@pytest.mark.parametrize(
    "asked_at",
    [
        *("nonsense", "2026-13-13T00:00:00+00:00", ""),
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-28T03:00:00"),
    ],
)
def test_time_of_the_question_that_somebody_has_made_up(burglars, root, asked_at):
    desk = sign_in(root)
    asked = desk.get(NETWORK)
    assert answer(desk, asked, asked=asked_at).status_code == 302
    assert is_out(burglars[0], FAREWELL)


# The page of an ending.


def test_page_of_an_ending_shows_the_network_to_who_may_not_see_addresses(root, staff, slow):
    other = ending(root, filters='{"network": "203.0.113.7"}')
    page = sign_in(staff("end_usersession")).get(f"{ENDINGS}{other.pk}/")
    assert "Address or network: 203.0.113.0/24" in as_read(page)
    assert "203.0.113.7" not in page.text
    assert "Address or network: 203.0.113.7" in as_read(sign_in(root).get(f"{ENDINGS}{other.pk}/"))


def ending(root: User, **columns: Any) -> Ending:
    usual: dict[str, Any] = {
        "scope": Ending.Scope.FILTER,
        "filters": '{"network": "203.0.113.0/24"}',
        "by": root,
        "note": WHY,
        "created_at": timezone.now(),
        "last": uuid7(),
    }
    return Ending.objects.create(**{**usual, **columns})


def test_page_of_an_ending_shows_how_far_it_is_and_comes_anew(root, slow):
    desk = sign_in(root)
    url = f"{ENDINGS}{ending(root, total=48_112, looked_at=19_300, ended=18_000).pk}/"
    page = desk.get(url)
    assert page.context["title"] == "Ending sessions: 40 %"
    assert 'max="100" value="40"' in bar_of(page)
    text = as_read(page)
    assert "Progress: 40 %" in text
    assert "Sessions ended 18,000 Sessions looked at 19,300 of about 48,112" in text
    assert "You may leave this page, and come back to it." in text
    assert refreshes(page)
    # Whom that disturbs can stop it (WCAG 2.2.1).
    (still,) = re.findall(r'href="([^"]*)">Stop loading this page again<', page.text)
    page = desk.get(f"{url}{still}")
    assert not refreshes(page)
    assert f'<a href="{url}">Load this page again by itself</a>' in page.text


def test_page_of_an_ending_that_nobody_has_counted(root, slow):
    page = sign_in(root).get(f"{ENDINGS}{ending(root, total=None, looked_at=500).pk}/")
    assert page.context["title"] == "Ending sessions"
    assert "value" not in bar_of(page)
    assert "Sessions looked at 500 What" in as_read(page)


def test_what_is_not_finished_is_not_100(root, slow):
    page = sign_in(root).get(f"{ENDINGS}{ending(root, total=10, looked_at=12).pk}/")
    assert page.context["title"] == "Ending sessions: 99 %"


def test_whoever_looks_does_the_work_where_nobody_else_does(burglars, root, monkeypatch):
    seconds: list[float] = []
    work = endings.work
    monkeypatch.setattr(endings, "BACKGROUND", 1)
    monkeypatch.setattr(
        endings, "work", lambda ending, time: seconds.append(time) or work(ending, time)
    )
    desk = sign_in(root)
    url = answer(desk, desk.get(NETWORK), typed="3")["Location"]
    assert desk.head(url).status_code == 200
    assert seconds == []
    page = desk.get(url)
    assert seconds == [2]
    assert page.context["title"] == "Finished: 3 sessions ended"
    desk.get(url)
    assert seconds == [2]
    assert [is_out(device, FAREWELL) for device in burglars] == [True] * 3


def test_looking_at_progress_is_no_activity(root, clock, policy, slow):
    policy(idle=600)
    desk = sign_in(root)
    url = f"{ENDINGS}{ending(root, total=10).pk}/"
    for _ in range(4):
        clock.move(seconds=200)
        page = desk.get(url)
    assert page.status_code == 302


def test_list_of_endings_leads_to_each(root, slow):
    desk = sign_in(root)
    assert "There are none yet." in as_read(desk.get(ENDINGS))
    first = ending(root, total=100, looked_at=50, ended=1234)
    second = ending(root, finished_at=timezone.now(), scope=Ending.Scope.EVERYBODY, by=None)
    third = ending(root, note="")
    page = desk.get(ENDINGS)
    urls = re.findall(rf'href="({ENDINGS}\d+/)"', page.text)
    assert urls == [f"{ENDINGS}{each.pk}/" for each in (third, second, first)]
    text = as_read(page)
    assert f"Sessions of a filter 1,234 50 % root {WHY}" in text
    assert f"All sessions of everybody 0 Finished - {WHY}" in text
    assert "Sessions of a filter 0 - root -" in text
    with store.round_trips(3):  # the session, the user, the endings
        desk.get(ENDINGS)


def test_an_ending_that_there_is_not(root):
    assert sign_in(root).get(f"{ENDINGS}4711/").status_code == 404


# The way there, and who may go it.


def test_links_on_the_list(root, staff):
    def tools(user: User, query: str = "") -> list[str]:
        page = sign_in(user).get(f"{CHANGELIST}{query}")
        tools = page.text.partition('class="object-tools"')[2].partition("</ul>")[0]
        return re.findall(r'href="([^"]*)"', tools)

    glance, switch = f"{CHANGELIST}glance/", f"{CHANGELIST}switch/"
    shown = f"{END_SHOWN}?transport=cookie"
    assert tools(root) == [glance, switch, ENDINGS]
    assert tools(root, "?transport=cookie") == [glance, shown, switch, ENDINGS]
    assert tools(staff("view_user", "view_usersession"), "?transport=cookie") == [glance]
    user, both = staff("view_usersession"), staff("end_usersession", "end_every_usersession")
    assert tools(user) == [glance]
    assert tools(both) == [glance, switch, ENDINGS]
    assert tools(staff("view_usersession", "end_every_usersession")) == [glance, switch, ENDINGS]
    assert tools(staff("end_usersession")) == [glance, ENDINGS]


@pytest.mark.standard("ASVS-8.2.2")
def test_other_staff_end_nothing_and_see_no_ending(burglars, root, staff, slow):
    number = ending(root, total=10).pk
    urls = [NETWORK, ENDINGS, f"{ENDINGS}{number}/"]
    desk = sign_in(staff("view_usersession", "view_user"))
    for url in urls:
        assert desk.get(url).status_code == 403
        assert post(desk, url, selection="network=203.0.113.0/24").status_code == 403
    # Who throws the switch sees how far that is, and ends nothing else.
    desk = sign_in(staff("view_usersession", "end_every_usersession"))
    assert [desk.get(url).status_code for url in urls] == [403, 200, 200]
    assert is_in(burglars[0])
    assert Ending.objects.count() == 1


def test_who_may_see_no_sessions_here_is_asked_about_none(burglars, root, staff, monkeypatch):
    def sees(self: Any, request: Any, obj: Any = None) -> bool:
        return bool(request.user.is_superuser)

    monkeypatch.setattr(UserSessionAdmin, "has_view_permission", sees)
    some, desk = sign_in(staff("end_usersession")), sign_in(root)
    for url in (NETWORK, f"{CHANGELIST}{handle(burglars[0])}/delete/"):
        assert some.get(url).status_code == 403
        assert desk.get(url).status_code == 200


def test_who_is_shown_a_part_of_the_sessions_ends_no_others(burglars, alice, root, monkeypatch):
    """An admin of a site whose get_queryset() leaves out what is not its customers', say."""
    everything = UserSessionAdmin.get_queryset

    def hers(self: Any, request: Any) -> Any:
        return everything(self, request).filter(user=alice)

    monkeypatch.setattr(UserSessionAdmin, "get_queryset", hers)
    desk, selection = sign_in(root), "network=203.0.113.0/24"
    assert END_SHOWN not in desk.get(f"{CHANGELIST}?{selection}").text
    assert desk.get(NETWORK).status_code == 403
    assert post(desk, NETWORK, selection=selection).status_code == 403
    # A form that names others, too.
    asked = choose(desk, "delete_selected", *map(handle, burglars))
    assert asked.context["title"] == "End 1 session of 1 person?"
    answer(desk, asked)
    assert not is_in(burglars[0])
    assert all(is_in(browser, "bob") for browser in burglars[1:])


class Replicated:
    """Reads what this package has from a replica, which does not answer."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "replica" if model in (Ending, UserSession) else None


def test_replica_that_is_behind_makes_no_difference(burglars, root, settings):
    """Staff look at what they have just done, and a worker has just done."""
    desk = sign_in(root)
    settings.DATABASE_ROUTERS = [f"{__name__}.Replicated"]
    asked = desk.get(NETWORK)
    url = answer(desk, asked)["Location"]
    assert desk.get(url).context["title"] == "Finished: 3 sessions ended"
    assert answer(desk, asked)["Location"] == url
    assert WHY in as_read(desk.get(ENDINGS))
    page = desk.get(CHANGELIST, {"state": "all"})
    (row, *_) = rows_on(page)
    assert len(rows_on(page)) == 4
    assert desk.get(f"{CHANGELIST}{row}/change/").status_code == 200


def test_sessions_from_long_ago_are_found_however_many_have_begun_since(
    alice, bob, root, monkeypatch
):
    monkeypatch.setattr(reach, "NEWEST", 5)
    desk, old = sign_in(root), many(4, alice)
    since, _ = timezone.now(), many(10, bob)
    url = f"{END_SHOWN}?{urlencode({'started_before': since.isoformat()})}"
    asked = desk.get(url)
    assert asked.context["title"] == "End more than 5 sessions of more than 2 people?"
    monkeypatch.setattr(reach, "NEWEST", 6)
    asked = desk.get(url)
    assert asked.context["title"] == "End 5 sessions of 2 people?"
    answer(desk, asked)
    assert not stored(old)


def test_what_was_not_counted_is_many(alice, bob, root, monkeypatch):
    """No index leads to these, and those of apps are the newest."""
    monkeypatch.setattr(reach, "NEWEST", 5)
    desk, old = sign_in(root), many(4, alice)
    new, url = many(10, bob, transport="header"), f"{END_SHOWN}?transport=cookie"
    asked = desk.get(url)
    assert asked.context["title"] == "End more than 0 sessions of more than 0 people?"
    assert "One is the session that you are using now." in as_read(asked)
    assert "There are many" in asked.text
    assert "type" in as_read(asked).lower()
    answer(desk, asked)
    assert len(stored(old)) == 4
    page = desk.get(answer(desk, asked, typed="0")["Location"])
    assert page.context["title"] == "Finished: 4 sessions ended"
    assert not stored(old)
    assert len(stored(new)) == 10


def test_form_takes_a_request_of_ones_own(burglars, root):
    desk = sign_in(root)
    fields = fields_of(desk.get(NETWORK), 'name="note"')
    del fields["csrfmiddlewaretoken"]
    assert desk.post(END_SHOWN, {**fields, "note": WHY}).status_code == 403
    assert is_in(burglars[0])
