"""The list of sessions in the admin, told as stories of staff who look for one."""

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, UserSession, uuid7
from django_sessionkit.staff import seeking
from django_sessionkit.staff.changelist import selection_of
from tests import store
from tests.desk import CHANGELIST, as_read, page_of, rows_on, unescape
from tests.people import CHROME, IPHONE, handle, sign_in

pytestmark = pytest.mark.django_db

START = datetime(2026, 10, 12, 9, 0, tzinfo=UTC)


def rows_of(user: Any, count: int, start: datetime = START, **columns: Any) -> list[UserSession]:
    """Return sessions of a user, each begun a minute after the one before."""
    now = timezone.now()
    rows = []
    for number in range(count):
        at = start + timedelta(minutes=number)
        pk = uuid7(int(at.timestamp()) * 1_000_000_000)
        facts = {"started_at": at, "last_seen_at": at, "expires_at": now + timedelta(days=9)}
        digest = {"digest": pk.hex * 2}
        rows.append(UserSession(pk=pk, user=user, **{**facts, **digest, **columns}))
    return UserSession.objects.bulk_create(rows)


def cells_of(page: Any) -> list[str]:
    """Return the text of each line of the list."""
    (cells,) = re.findall(r"<tbody>(.*)</tbody>", page.text, re.DOTALL)
    lines = [" ".join(re.sub(r"<[^>]*>", " ", line).split()) for line in cells.split("</tr>")]
    return lines[:-1]


def links_of(page: Any) -> dict[str, str]:
    """Return the links under the list, by their text."""
    below = page.text.partition("</form>\n")[2] or page.text
    return {
        text: f"{CHANGELIST}{unescape(url)}"
        for url, text in re.findall(r'<a href="(\?[^"]*)"[^>]*>([^<]+)</a>', below)
    }


def problem_of(page: Any) -> str:
    """Return why the list shows nothing."""
    assert page.status_code == 200
    assert rows_on(page) == []
    text: str = page.context["cl"].problem
    assert text in unescape(page.text)
    return text


# What a line says.


def test_list_says_who_is_signed_in_where_since_when_and_what_has_ended(alice, bob, root):
    desk = sign_in(root)
    phone = sign_in(alice, IPHONE, "2001:db8::1")
    pc, tablet, laptop = (
        sign_in(bob, CHROME, "198.51.100.7"),
        sign_in(bob, IPHONE),
        sign_in(bob),
    )
    UserSession.objects.filter(pk=handle(pc)).revoke(EndReason.LIMIT)
    UserSession.objects.filter(pk=handle(tablet)).update(expires_at=timezone.now())
    UserSession.objects.filter(pk=handle(laptop)).revoke(
        EndReason.REVOKED_BY_STAFF, root, note="ticket <4711>"
    )

    page = desk.get(f"{CHANGELIST}?state=all")
    assert rows_on(page) == [row.pk for row in UserSession.objects.order_by("-started_at")]
    lines = cells_of(page)
    assert len(lines) == 5
    assert lines[0].startswith("bob Firefox on Linux Computer Ended by staff (root) Nov")
    assert "ticket &lt;4711&gt;</div>" in page.text
    assert lines[1].startswith("bob Safari on iOS Phone Ended: Expired 192.0.2.1")
    assert lines[2].startswith("bob Chrome on Windows Computer Ended: Too many devices")
    assert "198.51.100.7" in lines[2]
    assert lines[3].startswith("alice Safari on iOS Phone Active 2001:db8::1")
    assert lines[4].startswith("root Firefox on Linux Computer Active")
    assert f'<a href="{page_of(phone)}?_changelist_filters=state%3Dall">Safari' in page.text
    assert "Add session" not in page.text
    assert "<h1>Sessions</h1>" in page.text


def test_list_tells_of_sessions_that_only_the_row_knows(alice, root):
    desk = sign_in(root)
    rows_of(alice, 1, novelty="place", reported_at=START, transport="header", device_type="mobile")
    (line, _) = cells_of(desk.get(CHANGELIST))[::-1]
    assert line.startswith(
        "alice Unknown device Phone, App Ended: Lost by the session store"
        " Unusual place, Not recognised -"
    )


def test_list_without_an_answer_of_the_store_does_not_pretend_to_know(alice, root, monkeypatch):
    def fail(digests):
        raise StoreUnavailable

    desk, phone = sign_in(root), sign_in(alice)
    ended = UserSession.objects.filter(pk=handle(sign_in(alice)))
    ended.revoke(by=root)
    monkeypatch.setattr("django_sessionkit.staff.sights.still_stored", fail)
    page = desk.get(f"{CHANGELIST}?state=all")
    states = [re.search("Not known|Ended from [^)]*[)]", line)[0] for line in cells_of(page)]
    assert states == ["Ended from another device (by root)", *["Not known"] * 2]
    assert "The session store does not answer." in as_read(page)
    assert "State: Not known" in as_read(desk.get(page_of(phone)))


def test_a_session_that_is_locked_and_one_that_nobody_is_said_to_have_ended(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    now = timezone.now()
    UserSession.objects.filter(pk=handle(phone)).update(idle_at=now - timedelta(seconds=1))
    rows_of(alice, 1, ended_at=now, end_reason=EndReason.REVOKED_BY_STAFF)
    lines = cells_of(desk.get(f"{CHANGELIST}?state=all&users={alice.pk}"))
    assert "Firefox on Linux Computer Locked" in lines[0]
    assert "Ended by staff Nov" in lines[1]


def test_each_line_has_a_link_to_end_the_session(alice, root, staff):
    desk, phone = sign_in(root), sign_in(alice)
    looks_only = sign_in(staff("view_usersession"))
    url = f"{CHANGELIST}?q=alice"
    page = desk.get(url)
    (link,) = re.findall('<a href="([^"]*)" class="sessionkit-end" aria-label="([^"]*)"', page.text)
    back = "?_changelist_filters=q%3Dalice"
    assert link == (
        f"{CHANGELIST}{handle(phone)}/delete/{back}",
        "End the session of alice: Firefox on Linux",
    )
    assert desk.get(link[0]).status_code == 200
    assert "sessionkit-end" not in looks_only.get(url).text
    UserSession.objects.filter(pk=handle(phone)).revoke()
    assert "sessionkit-end" not in desk.get(f"{url}&state=all").text


def test_from_a_line_to_all_sessions_of_its_user_and_from_its_address(alice, bob, root):
    desk, phone, pc = sign_in(root), sign_in(alice), sign_in(bob)
    elsewhere = sign_in(alice, address="198.51.100.7")
    UserSession.objects.filter(pk=handle(pc)).revoke()
    page = desk.get(CHANGELIST)
    by_user, by_address = (
        f"{CHANGELIST}?users={alice.pk}&amp;state=all",
        f"{CHANGELIST}?network=192.0.2.1&amp;state=all",
    )
    assert f'<a href="{by_user}">alice</a>' in page.text
    assert f'<a href="{by_address}">192.0.2.1</a>' in page.text
    sessions = {name: handle(device) for name, device in (("phone", phone), ("desk", desk))}
    assert rows_on(desk.get(unescape(by_user))) == [handle(elsewhere), sessions["phone"]]
    found = rows_on(desk.get(unescape(by_address)))
    assert sorted(found) == sorted(
        row.pk for row in UserSession.objects.exclude(pk=handle(elsewhere))
    )


def test_page_of_a_session_says_who_else_is_at_its_address(alice, bob, root, monkeypatch):
    desk, phone, _again = sign_in(root), sign_in(alice), sign_in(alice)
    assert "also used by 1 other person" in as_read(desk.get(page_of(phone)))
    sign_in(bob)
    assert "also used by 2 other people" in as_read(desk.get(page_of(phone)))
    monkeypatch.setattr("django_sessionkit.staff.sights.NEIGHBOURS", 2)
    assert "also used by at least 1 other person" in as_read(desk.get(page_of(phone)))
    alone = sign_in(bob, address="198.51.100.7")
    assert "also used" not in desk.get(page_of(alone)).text


def test_page_of_a_session_takes_as_many_statements_whoever_else_is_there(alice, bob, root):
    desk, url = sign_in(root), page_of(sign_in(alice))
    for _ in range(2):
        desk.get(url)
        # The session, the user; the row with its users, the store, the people at its address.
        with store.round_trips(5):
            assert desk.get(url).status_code == 200
        sign_in(bob)


def test_page_of_a_session_leads_to_the_others_of_its_browser(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    browser = uuid.uuid4()
    UserSession.objects.filter(pk=handle(phone)).update(browser=None)
    assert "Browser: - " in as_read(desk.get(page_of(phone)))
    UserSession.objects.filter(pk=handle(phone)).update(browser=browser)
    link = f'<a href="{CHANGELIST}?browser={browser}&amp;state=all">'
    assert link in desk.get(page_of(phone)).text
    assert rows_on(desk.get(f"{CHANGELIST}?browser={browser}")) == [handle(phone)]


# Pages.


def test_pages_of_a_long_list_take_as_many_statements_as_the_first(alice, root):
    desk = sign_in(root)
    rows = [row.pk for row in rows_of(alice, 120)][::-1]
    url = f"{CHANGELIST}?users={alice.pk}&state=all"
    trips, seen = [], []
    page = desk.get(url)
    assert "First page" not in page.text
    assert "more than 50 sessions" in as_read(page)
    for place in (50, 100, None):
        seen += rows_on(page)
        if place:
            assert links_of(page)["Older"].endswith(f"after={rows[place - 1].hex}")
            with CaptureQueriesContext(connection) as captured:
                page = desk.get(links_of(page)["Older"])
            trips.append(len(captured))
    assert seen == rows
    assert trips[0] == trips[1]
    assert "Older" not in links_of(page)
    page = desk.get(links_of(page)["Newer"])
    assert rows_on(page) == rows[50:100]
    assert rows_on(desk.get(links_of(page)["Older"])) == rows[100:]
    first = desk.get(links_of(page)["Newer"])
    assert rows_on(first) == rows[:50]
    assert "Newer" not in links_of(first)
    assert rows_on(desk.get(links_of(page)["First page"])) == rows[:50]


def test_list_takes_as_many_statements_however_many_sessions(alice, root):
    desk = sign_in(root)
    is_one = connection.features.supports_slicing_ordering_in_compound
    of_all_reasons = 1 if is_one else len(EndReason)
    for query, count in [
        ("", 5),  # the session, the user; a window, and the sessions in it; the store
        ("state=all", 4),
        (f"users={alice.pk}", 6),  # the handles, and the name
        ("network=192.0.2.0/24", 5),
        ("staff=1", 6),
        ("q=alice", 6),  # who that is
        ("reason=limit", 3),
        ("ended_after=2026-01-01", of_all_reasons + 2),  # the index begins with the reason
        (f"handle={uuid.uuid4()}", 3),
    ]:
        for number in (1, 3):
            rows_of(alice, number, START + timedelta(days=len(query) * 10 + number), ip="192.0.2.9")
            with CaptureQueriesContext(connection) as captured:
                assert desk.get(f"{CHANGELIST}?{query}").status_code == 200
            if store.SessionStore.__module__.endswith(".db"):
                assert len(captured) == count, [each["sql"] for each in captured]


@pytest.mark.parametrize(
    "position", ["before=nonsense", f"after={'g' * 32}", "after=1-1", "p=99999", "before="]
)
def test_a_position_that_is_none_is_the_first_page(root, position):
    desk = sign_in(root)
    assert rows_on(desk.get(f"{CHANGELIST}?{position}")) == [handle(desk)]


def test_what_matches_few_rows_is_looked_for_in_parts_of_the_table(alice, root, monkeypatch):
    monkeypatch.setattr(seeking, "WINDOWS", (2, 5))
    desk = sign_in(root)
    (tablet, *_) = rows_of(alice, 20)
    UserSession.objects.filter(pk=tablet.pk).update(device_type="tablet")
    page, pages = desk.get(f"{CHANGELIST}?device_type=tablet"), 1
    while not rows_on(page):
        assert "No active session matches." not in as_read(page)
        assert "Looked at the sessions since Oct. 12, 2026, " in as_read(page)
        with CaptureQueriesContext(connection) as captured:
            page = desk.get(links_of(page)["Look further back"])
        pages += 1
    assert pages == 3
    assert len([each for each in captured if "usersession" in each["sql"]]) <= 4
    assert rows_on(page) == [tablet.pk]
    assert "Look further back" not in links_of(page)


def test_a_page_from_several_parts_of_the_table_leaves_nothing_out(alice, root, monkeypatch):
    monkeypatch.setattr(seeking, "WINDOWS", (30, 40, 50))
    desk = sign_in(root)
    rows = [row.pk for row in rows_of(alice, 130, novelty="device")][::-1]
    page, seen = desk.get(f"{CHANGELIST}?new=1"), []
    seen += rows_on(page)
    while "Older" in links_of(page):
        page = desk.get(links_of(page)["Older"])
        seen += rows_on(page)
    assert seen == rows
    back = desk.get(links_of(page)["Newer"])
    assert rows_on(back) == rows[50:100]


def test_list_on_a_site_without_time_zones(alice, settings, monkeypatch):
    settings.USE_TZ = False
    monkeypatch.setattr(seeking, "WINDOWS", (1,))
    root = User.objects.create_superuser("root", password="secret")
    desk, ended, pc = sign_in(root), handle(sign_in(alice)), sign_in(alice)
    UserSession.objects.filter(pk=ended).revoke()
    today = timezone.now().date().isoformat()
    page = desk.get(f"{CHANGELIST}?seen_after={today}&transport=cookie")
    assert rows_on(page) == [handle(pc)]
    assert "Looked at the sessions since" in as_read(page)
    assert f'<option value="{today}" selected>Today</option>' in page.text
    page = desk.get(links_of(page)["Look further back"])
    assert rows_on(page) == []
    page = desk.get(links_of(page)["Look further back"])
    assert rows_on(page) == [handle(desk)]
    assert rows_on(desk.get(f"{CHANGELIST}?ended_after={today}")) == [ended]


# What was ended.


def test_what_was_ended_last_comes_first(alice, root):
    desk = sign_in(root)
    now = timezone.now()
    rows = rows_of(alice, 60)
    for number, row in enumerate(rows):  # the newest sign-in ended first, two at a time
        row.ended_at = now - timedelta(hours=number // 2)
        row.end_reason = EndReason.REVOKED_BY_STAFF if number % 3 else EndReason.LIMIT
    UserSession.objects.bulk_update(rows, ["ended_at", "end_reason"])
    order = sorted(rows, key=lambda row: (row.ended_at, row.pk), reverse=True)

    tonight = {"ended_after": (now - timedelta(hours=28)).isoformat()}
    recent = [row.pk for row in order if row.ended_at >= now - timedelta(hours=28)]
    page = desk.get(CHANGELIST, tonight)
    assert "What was ended last comes first." in as_read(page)
    seen = rows_on(page)
    page = desk.get(links_of(page)["Ended earlier"])
    assert seen + rows_on(page) == recent
    assert rows_on(desk.get(links_of(page)["Ended later"])) == recent[:50]

    by_staff = [row.pk for row in order if row.end_reason == EndReason.REVOKED_BY_STAFF]
    for query in ({}, tonight, {"state": "ended"}, tonight | {"state": "ended"}):
        found = rows_on(desk.get(CHANGELIST, {"reason": "revoked_by_staff", **query}))
        assert found == [pk for pk in by_staff if "ended_after" not in query or pk in recent]


def test_what_was_ended_is_looked_for_in_parts_of_the_index(alice, root, monkeypatch):
    monkeypatch.setattr(seeking, "WINDOWS", (2, 5))
    desk = sign_in(root)
    rows = rows_of(alice, 20, end_reason="limit")
    for number, row in enumerate(rows):
        row.ended_at, row.device_type = START - timedelta(hours=number), "mobile"
    rows[-1].device_type = "tablet"
    UserSession.objects.bulk_update(rows, ["ended_at", "device_type"])
    page, pages = desk.get(f"{CHANGELIST}?reason=limit&device_type=tablet"), 1
    while not rows_on(page):
        assert "Looked at the sessions that have ended since Oct. 1" in as_read(page)
        page = desk.get(links_of(page)["Look further back"])
        pages += 1
    assert (pages, rows_on(page)) == (3, [rows[-1].pk])


def test_sessions_that_were_not_used_for_long_are_looked_for_among_old_ones(
    alice, root, monkeypatch
):
    monkeypatch.setattr(seeking, "WINDOWS", (2,))
    desk = sign_in(root)
    old, *_ = rows_of(alice, 1), rows_of(alice, 9, timezone.now() - timedelta(days=2))
    ended = rows_of(alice, 1, START - timedelta(days=1), end_reason="idle", ended_at=START)
    url = f"{CHANGELIST}?seen_before={(START + timedelta(days=1)).date()}"
    assert rows_on(desk.get(url)) == [old[0].pk]
    assert rows_on(desk.get(f"{url}&reason=idle")) == [ended[0].pk]


# What they look for.


@pytest.mark.parametrize(
    "term",
    [
        "ali",
        "alice ice@",
        "ALICE@ex",
        "203.0.113.9",
        " 203.0.113.9 ",
        "203.0.113.0/24",
        "ali 203.0.113.9",
        "203.0.0.0/16 ice",
        "::ffff:203.0.113.9",
    ],
)
def test_search_by_name_e_mail_address_and_network(alice, bob, root, term):
    desk, phone, _ = sign_in(root), sign_in(alice, IPHONE, "203.0.113.9"), sign_in(bob)
    page = desk.get(CHANGELIST, {"q": term})
    assert rows_on(page) == [handle(phone)]
    assert "1 session" in as_read(page)


def test_search_by_handle_and_by_browser(alice, bob, root):
    desk, phone = sign_in(root), sign_in(alice)
    browser = uuid.uuid4()
    UserSession.objects.filter(pk=handle(phone)).update(browser=browser)
    for term in (handle(phone), handle(phone).hex, browser, f"alice {browser}"):
        assert rows_on(desk.get(CHANGELIST, {"q": str(term)})) == [handle(phone)]
    assert rows_on(desk.get(CHANGELIST, {"q": f"bob {handle(phone)}"})) == []
    # A handle names one session, which may have ended.
    ended = handle(phone)
    UserSession.objects.filter(pk=ended).revoke()
    assert rows_on(desk.get(CHANGELIST, {"q": str(ended)})) == [ended]
    assert rows_on(desk.get(CHANGELIST, {"q": str(ended), "state": "active"})) == []


def test_sessions_of_a_browser_are_found_at_once_however_many_others_there_are(
    alice, root, monkeypatch
):
    monkeypatch.setattr(seeking, "WINDOWS", (1, 2))
    desk, browser = sign_in(root), uuid.uuid4()
    old = [row.pk for row in rows_of(alice, 20)[:3]]
    UserSession.objects.filter(pk__in=old).update(browser=browser)
    page = desk.get(CHANGELIST, {"q": str(browser)})
    assert rows_on(page) == old[::-1]
    assert "3 sessions" in as_read(page)
    assert "Look further back" not in links_of(page)


def test_search_by_address_in_any_way_to_write_it(alice, root):
    desk = sign_in(root)
    sign_in(alice, address="110.0.0.1")
    assert rows_on(desk.get(CHANGELIST, {"q": "10.0.0.1"})) == []
    phone = sign_in(alice, address="2001:db8::1")
    for term in ("2001:db8::1", "2001:DB8:0:0::0001", "2001:db8::/32"):
        assert rows_on(desk.get(CHANGELIST, {"q": term})) == [handle(phone)]


def test_search_that_finds_nothing_says_what_can_be_searched(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    page = desk.get(CHANGELIST, {"q": "zelda"})
    assert rows_on(page) == []
    assert "No active session matches." in as_read(page)
    assert "Search for a user name or e-mail address, an address, a network" in as_read(page)
    UserSession.objects.filter(user=alice).revoke()
    page = desk.get(CHANGELIST, {"q": "alice"})
    assert "No active session matches." in as_read(page)
    page = desk.get(links_of(page)["Look among those that have ended, too"])
    assert len(rows_on(page)) == 1
    assert "No session matches." in as_read(desk.get(f"{CHANGELIST}?q=zelda&state=all"))
    assert phone


def test_search_within_a_filter_finds_what_has_both(alice, bob, root):
    desk, phone, pc = sign_in(root), sign_in(alice), sign_in(bob)
    url = f"{CHANGELIST}?users={alice.pk}"
    assert rows_on(desk.get(f"{url}&q=alice")) == [handle(phone)]
    assert rows_on(desk.get(f"{url}&q=bob")) == []
    assert rows_on(desk.get(f"{url},{bob.pk}&q=bob")) == [handle(pc)]
    for query in ("network=192.0.2.1&q=192.0.2.2", "q=192.0.2.1 192.0.2.2"):
        said = "Search for one address and one session at a time."
        assert problem_of(desk.get(f"{CHANGELIST}?{query}")) == said


@pytest.mark.parametrize(
    "question",
    [
        "users=99999999999999999999",
        "users=1,-99999999999999999999",
        f"users={'9' * 400}",
        f"users={'9' * 5000}",
        "users=nobody",
        "users=%00",
        "network=nowhere",
        "network=192.0.2.0/99",
        "network=fe80::1%25eth0",
        "handle=1",
        "browser=g",
        "state=nonsense",
        "reason=nonsense",
        "reason=%00",
        "device_type=toaster",
        "transport=pigeon",
        "staff=true",
        "new=x",
        "started_after=0001-01-01T00:00:00%2b14:00",
        "started_before=9999-12-31T23:59:59-14:00",
        "seen_after=2026-02-30",
        "ended_before=yesterday",
        "q=a%00b",
        f"q={'a' * 1001}",
        "q=192.0.2.1/24/7%00",
        "user__exact=1",
        "digest=0",
        "end_reason__exact=limit",
        "%00=1",
    ],
)
def test_a_question_that_makes_no_sense_is_told_so_and_shows_no_session(root, question):
    desk = sign_in(root)
    page = desk.get(f"{CHANGELIST}?{question}")
    assert problem_of(page)
    assert rows_on(desk.get(f"{CHANGELIST}?e=1")) == [handle(desk)]


@pytest.mark.parametrize(
    "value", ["staff=0", "new=0", "users=,", "q=1/2", "q=%25", f"q={'a ' * 500}"]
)
def test_a_question_that_nothing_has_is_no_error(root, value):
    page = sign_in(root).get(f"{CHANGELIST}?{value}")
    assert not page.context["cl"].problem
    assert page.status_code == 200


# Filters.


def test_list_by_state_reason_and_user(alice, bob, root):
    desk, phone, pc, tablet = sign_in(root), sign_in(alice), sign_in(bob), sign_in(bob)
    limited = handle(pc)
    UserSession.objects.filter(pk=limited).revoke(EndReason.LIMIT)
    UserSession.objects.filter(pk=handle(tablet)).update(expires_at=timezone.now())
    active, ended = [handle(phone), handle(desk)], [handle(tablet), limited]
    assert rows_on(desk.get(CHANGELIST)) == active
    assert rows_on(desk.get(f"{CHANGELIST}?state=active")) == active
    assert rows_on(desk.get(f"{CHANGELIST}?state=ended")) == ended
    assert rows_on(desk.get(f"{CHANGELIST}?state=all")) == [*ended, *active]
    assert rows_on(desk.get(f"{CHANGELIST}?reason=limit")) == [limited]
    assert rows_on(desk.get(f"{CHANGELIST}?users={alice.pk}")) == [handle(phone)]
    assert rows_on(desk.get(f"{CHANGELIST}?users={bob.pk}&state=ended")) == ended
    assert rows_on(desk.get(f"{CHANGELIST}?users={bob.pk}&reason=limit")) == [limited]
    assert rows_on(desk.get(f"{CHANGELIST}?staff=1")) == [handle(desk)]
    both = f"{CHANGELIST}?state=all&users={bob.pk},{root.pk}"
    assert rows_on(desk.get(both)) == [*ended, handle(desk)]
    assert rows_on(desk.get(f"{both}&staff=1")) == [handle(desk)]
    yesterday = (timezone.now() - timedelta(days=1)).isoformat()
    for name in ("started", "seen"):
        assert rows_on(desk.get(CHANGELIST, {f"{name}_after": yesterday})) == active
        assert rows_on(desk.get(CHANGELIST, {f"{name}_before": yesterday})) == []


def test_more_sessions_than_are_put_into_order_are_looked_for_like_others(alice, root, monkeypatch):
    monkeypatch.setattr(seeking, "KEYS", 2)
    monkeypatch.setattr(seeking, "MEMBERS", 2)
    desk = sign_in(root)
    rows = [row.pk for row in rows_of(alice, 3, ip="198.51.100.7")][::-1]
    for query in (f"users={alice.pk}", "network=198.51.100.0/24"):
        assert rows_on(desk.get(f"{CHANGELIST}?{query}")) == rows
    for number in range(2):
        User.objects.create_user(f"staff{number}", is_staff=True)
    assert rows_on(desk.get(f"{CHANGELIST}?staff=1")) == [handle(desk)]


def test_sessions_from_a_large_network_are_looked_up_in_slices(alice, bob, root, monkeypatch):
    monkeypatch.setattr(seeking, "SLICES", (2, 60, 40, 30))
    desk = sign_in(root)
    rows_of(bob, 20, ip="198.51.100.9")
    rows = [row.pk for row in rows_of(alice, 120, START - timedelta(days=9), ip="198.51.100.7")]
    rows.reverse()
    url = f"{CHANGELIST}?network=198.51.100.0/28&users={alice.pk}"
    first = desk.get(url)
    second = desk.get(links_of(first)["Older"])
    last = desk.get(links_of(second)["Older"])
    assert rows_on(first) + rows_on(second) + rows_on(last) == rows
    assert rows_on(desk.get(links_of(last)["Newer"])) == rows[50:100]
    # The same for those that another filter leaves.
    UserSession.objects.filter(pk__in=rows[:100]).update(ended_at=START, end_reason="limit")
    page = desk.get(f"{CHANGELIST}?network=198.51.100.7")
    assert rows_on(page) == rows[100:]
    assert "20 sessions" in as_read(page)
    # More than one statement can have, in the order of their ends: then the index of ends is used.
    for slices in ((200,), (5,)):
        monkeypatch.setattr(seeking, "SLICES", slices)
        page = desk.get(f"{CHANGELIST}?network=198.51.100.7&reason=limit")
        assert rows_on(page) == rows[:50]


def test_filters_are_menus_and_what_links_have_brought_along_can_be_taken_away(alice, root):
    desk, phone = sign_in(root), sign_in(alice)
    words = {
        "users": str(alice.pk),
        "network": "192.0.2.0/24",
        "seen_after": "2026-01-02",
        "started_before": "2099-01-01",
        "device_type": "desktop",
        "transport": "",  # as a form sends what nobody has chosen
    }
    page = desk.get(CHANGELIST, words)
    assert rows_on(page) == [handle(phone)]
    assert '<option value="desktop" selected>Computer</option>' in page.text
    assert '<option value="" selected>Active</option>' in page.text
    assert '<option value="2026-01-02" selected>Jan. 2, 2026, midnight</option>' in page.text
    for chip in ("User: alice", "Address: 192.0.2.0/24", "Signed in before: Jan. 1, 2099"):
        assert chip in as_read(page)
    chips = {chip.name: chip for chip in page.context["cl"].chips}
    assert set(chips) == {"users", "network", "started_before"}
    page = desk.get(f"{CHANGELIST}{chips['users'].without}")
    assert rows_on(page) == [handle(phone), handle(desk)]
    assert "transport" not in chips["users"].without
    assert links_of(page)["Clear all filters"] == f"{CHANGELIST}?"
    assert "Clear all filters" not in desk.get(CHANGELIST).text
    # A filter stays when the next one is chosen.
    assert '<input type="hidden" name="network" value="192.0.2.0/24">' in page.text


def test_a_filter_that_makes_no_sense_is_shown_as_it_came(root):
    page = sign_in(root).get(f"{CHANGELIST}?users=nobody&ended_after=soon&state=all")
    assert "User: nobody" in as_read(page)
    assert '<option value="soon" selected>soon</option>' in page.text
    assert '<option value="all" selected>All</option>' in page.text


def test_a_filter_for_many_users_names_some(alice, bob, root):
    desk = sign_in(root)
    users = ",".join(str(user.pk) for user in (alice, bob, root, root))
    page = desk.get(f"{CHANGELIST}?users={users}")
    assert "User: alice, bob, root and 1 other " in as_read(page)


def test_list_offers_nothing_for_which_the_whole_table_is_sorted_or_counted(alice, root):
    desk = sign_in(root)
    rows_of(alice, 120)
    page = desk.get(f"{CHANGELIST}?state=all")
    for dead in ("?o=", "_facets", "Show all", 'class="question', "results ("):
        assert dead not in page.text
    assert "0 of 50 selected" in page.text


@pytest.mark.postgresql
def test_postgresql_knows_about_how_many_sessions_there_are(alice, root):
    desk = sign_in(root)
    rows_of(alice, 1233)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE django_sessionkit_usersession")
    page = desk.get(f"{CHANGELIST}?state=all")
    assert "about 1,200 sessions" in as_read(page)
    assert "about" not in as_read(desk.get(CHANGELIST))


def test_pages_that_end_sessions_are_told_which_ones_the_list_shows(alice, root, rf):
    sign_in(alice)

    def asked(query: str) -> dict[str, str]:
        request = rf.get(f"/?{query}")
        request.user = root
        return selection_of(request).as_text()

    assert asked("") == {"state": "active"}
    assert asked("state=all") == {}
    assert asked("q=alice&after=7&e=1") == {"state": "active", "users": str(alice.pk)}
    assert asked("q=nobody&state=ended") == {"state": "ended", "users": ","}
    assert asked("reason=limit") == {"reason": "limit"}


# Who sees what.


def test_staff_who_may_not_see_users_learn_no_names_by_their_keys(alice, bob, staff):
    desk, other = (
        sign_in(staff("view_usersession")),
        sign_in(staff("view_usersession", "view_user")),
    )
    phone = sign_in(bob)
    url = f"{CHANGELIST}?users={alice.pk}"
    assert "alice" not in desk.get(url).text
    assert f"User: {alice.pk}" in as_read(desk.get(url))
    assert "User: alice" in as_read(other.get(url))
    # Nor can they find out letter by letter whose e-mail address it is.
    assert rows_on(desk.get(CHANGELIST, {"q": "bob@exam"})) == []
    assert rows_on(other.get(CHANGELIST, {"q": "bob@exam"})) == [handle(phone)]
    assert rows_on(desk.get(CHANGELIST, {"q": "bob"})) == [handle(phone)]
    assert "Search for a user name, an address" in as_read(desk.get(CHANGELIST))


def test_staff_who_may_not_see_addresses_see_networks_and_cannot_try_addresses(alice, bob, staff):
    desk = sign_in(staff("view_usersession"), address="203.0.113.1")
    whole = sign_in(staff("view_usersession", "view_address_usersession"), address="203.0.113.1")
    phone, pc = sign_in(alice, address="198.51.100.7"), sign_in(bob, address="198.51.100.8")
    for url in (f"{CHANGELIST}?users={alice.pk}", page_of(phone)):
        assert "198.51.100.7" not in desk.get(url).text
        assert ">198.51.100.0/24</a>" in desk.get(url).text
        assert ">198.51.100.7</a>" in whole.get(url).text
    both = [handle(pc), handle(phone)]
    for query in ({"q": "198.51.100.7"}, {"network": "198.51.100.6/31"}):
        page = desk.get(CHANGELIST, query)
        assert rows_on(page) == both
        assert len(rows_on(whole.get(CHANGELIST, query))) == 1
    assert "Address: 198.51.100.0/24" in as_read(page)
    assert "198.51.100.6" not in as_read(page)
    UserSession.objects.filter(pk=handle(pc)).update(ip="198.51.100.7")
    assert "also used by" not in desk.get(page_of(phone)).text
    assert "also used by" in whole.get(page_of(phone)).text
    sixth = sign_in(alice, address="2001:db8:1::5")
    assert ">2001:db8:1::/48</a>" in desk.get(page_of(sixth)).text
    assert rows_on(desk.get(CHANGELIST, {"q": "2001:db8:1::9"})) == [handle(sixth)]


def test_rows_whose_user_is_gone_harm_nobody(alice, root):
    # As after a DELETE in SQL: no constraint has kept them together.
    desk, phone = sign_in(root), sign_in(alice)
    url = page_of(phone)
    User.objects.filter(pk=alice.pk)._raw_delete("default")
    assert rows_on(desk.get(CHANGELIST)) == [handle(desk)]
    assert desk.get(url).status_code == 302
