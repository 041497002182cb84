"""Users with more devices than one page shows."""

import re
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.template import Context
from django.test import Client, RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from django_sessionkit import paging
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.paging import SIZE, Position, asked_position
from django_sessionkit.templatetags import sessionkit
from tests import store
from tests.pages import LIMIT, LIST, OTHERS, Strict, fields_of, press, said, words
from tests.people import IPHONE, handle, is_in, sign_in
from tests.store import SessionStore

pytestmark = pytest.mark.django_db


def give_devices(user: User, count: int) -> list[uuid.UUID]:
    """Sign a user in on so many devices, one minute after the other. Return the handles, the last
    active first."""
    now = timezone.now()
    rows = []
    for number in range(count):
        seen = now - timedelta(minutes=2 + number)
        rows.append(
            UserSession(
                user=user,
                digest=digest_of(uuid.uuid4().hex),
                started_at=seen,
                authenticated_at=seen,
                last_seen_at=seen,
                expires_at=now + timedelta(days=14),
                ip=f"2001:db8::{number:x}",
                browser=uuid.uuid4(),
                user_agent=IPHONE,
            )
        )
    UserSession.objects.bulk_create(rows)
    for row in rows:
        # A list does not open what the store has.
        assert SessionStore.insert(row.digest, b"sealed", store.now(), store.now() + 10**9)
    return [row.pk for row in rows]


@pytest.fixture
def others(alice: User) -> list[uuid.UUID]:
    """The handles of 60 other devices of Alice, the last active first."""
    return give_devices(alice, 60)


@pytest.fixture
def laptop(others: list[uuid.UUID], alice: User) -> Client:
    return sign_in(alice)


def shown(page: Any) -> list[uuid.UUID]:
    return [row.pk for row in page.context["object_list"]]


def link(page: Any, rel: str) -> Any:
    """Return the URL of the page after this one ("next"), or before it ("prev"), or None."""
    links = [each for each in Strict(page.text).all("a") if each.get("rel") == rel]
    urls = [str(each["href"]) for each in links if "?ended_" not in str(each["href"])]
    assert len(urls) < 2
    return urljoin(page.request["PATH_INFO"], urls[0]) if urls else None


def turn(device: Client, page: Any, rel: str = "next") -> Any:
    """Follow the link to another page."""
    url = link(page, rel)
    assert url
    answer = device.get(url)
    assert answer.status_code == 200
    return answer


def all_pages(device: Client, url: str) -> list[list[uuid.UUID]]:
    page = device.get(url)
    pages = [shown(page)]
    while link(page, "next"):
        assert len(pages) < 10
        page = turn(device, page)
        pages.append(shown(page))
    return pages


def test_the_device_in_use_comes_first_then_the_last_active(laptop: Client, others: Any):
    here = handle(laptop)
    pages = all_pages(laptop, LIST)
    assert pages == [[here, *others[:24]], others[24:49], others[49:]]
    # Also if it was not active for longer than others.
    UserSession.objects.filter(pk=here).update(last_seen_at=timezone.now() - timedelta(days=1))
    assert all_pages(laptop, LIST) == pages


def test_a_page_that_is_full_leads_to_no_empty_one(alice: User):
    others = give_devices(alice, SIZE - 1)
    laptop = sign_in(alice)
    page = laptop.get(LIST)
    assert shown(page) == [handle(laptop), *others]
    assert "<nav" not in page.text
    give_devices(alice, 1)
    page = turn(laptop, laptop.get(LIST))
    assert len(shown(page)) == 1
    assert link(page, "next") is None


def test_turning_back_leads_to_the_same_pages(laptop: Client, others: Any):
    first = laptop.get(LIST)
    second = turn(laptop, first)
    third = turn(laptop, second)
    assert link(first, "prev") is None
    assert shown(turn(laptop, third, "prev")) == shown(second)
    back = turn(laptop, turn(laptop, third, "prev"), "prev")
    assert shown(back) == shown(first)
    assert link(back, "prev") is None
    assert shown(turn(laptop, back)) == shown(second)


def test_nobody_misses_a_device_because_others_end_meanwhile(laptop: Client, others: Any):
    first = laptop.get(LIST)
    UserSession.objects.filter(pk__in=others[5:20]).revoke()
    second = turn(laptop, first)
    assert shown(second) == others[24:49]
    # Neither if it is the one that was the last on the page.
    UserSession.objects.filter(pk__in=[*others[30:40], others[48]]).revoke()
    third = turn(laptop, second)
    assert shown(third) == others[49:]
    # What is left before it is the first page now.
    left = [*others[:5], *others[20:30], *others[40:48]]
    assert shown(turn(laptop, third, "prev")) == [handle(laptop), *left, others[49]]


def test_a_device_that_is_used_meanwhile_is_on_the_first_page(laptop: Client, others: Any):
    first = laptop.get(LIST)
    UserSession.objects.filter(pk=others[30]).update(last_seen_at=timezone.now())
    assert others[30] not in shown(turn(laptop, first))
    assert shown(laptop.get(LIST))[1] == others[30]


def test_devices_that_were_active_at_the_same_moment_are_all_shown(laptop: Client, others: Any):
    UserSession.objects.filter(pk__in=others).update(last_seen_at=timezone.now())
    pages = all_pages(laptop, LIST)
    assert [len(page) for page in pages] == [25, 25, 11]
    assert {pk for page in pages for pk in page} == {handle(laptop), *others}


def test_who_signs_a_device_out_comes_back_to_its_page(laptop: Client, others: Any):
    second = turn(laptop, laptop.get(LIST))
    url = link(laptop.get(LIST), "next")
    hrefs = [str(each["href"]) for each in Strict(second.text).all("a")]
    (end,) = [href for href in hrefs if f"{others[30]}/end/" in href]
    asked = laptop.get(end)
    assert f'<a class="sessionkit-button" href="{url}">Cancel</a>' in asked.text
    answer = press(laptop, end)
    assert (answer.status_code, answer["Location"]) == (302, url)
    assert said(answer)[0].startswith("Safari on iOS was signed out.")
    assert shown(laptop.get(answer["Location"])) == [*others[24:30], *others[31:50]]
    # And from a page on which it has ended already.
    assert f'href="{url}">Back to your devices' in laptop.get(end).text


@pytest.mark.standard("ASVS-7.5.2", "WSTG-SESS-11")
def test_signing_out_all_others_ends_those_of_all_pages(laptop: Client, alice: User, others: Any):
    assert "Sign out all other devices (60)" in words(laptop.get(LIST))
    second = str(link(laptop.get(LIST), "next")).partition("?")[2]
    for url in (OTHERS, f"{OTHERS}?{second}"):
        page = laptop.get(url)
        assert shown(page) == others[:24]
        assert all_pages(laptop, url) == [others[:24]]
        asked = words(page)
        assert "And 36 more." in asked
        assert "All other devices are signed out at once" in asked
        assert "Sign out all other devices (60)" in asked
    assert said(press(laptop, OTHERS)) == [
        "60 other devices were signed out. Did you not recognise one of them? Change your password."
    ]
    assert not UserSession.objects.active().exclude(pk=handle(laptop)).exists()
    assert is_in(laptop, alice)


# Of very many sign-ins, a program's as a rule, the newest are listed.

ONLY = "Only the 30 newest sign-ins are listed."


@pytest.fixture
def newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "NEWEST", 30)
    monkeypatch.setattr(sessionkit, "NEWEST", 30)


@pytest.mark.standard("ASVS-7.5.2")
def test_of_very_many_sign_ins_the_newest_are_listed_and_all_end(
    laptop: Client, alice: User, others: list[uuid.UUID], newest: None
):
    last = others[31:]  # who signed in last was not active last
    assert all_pages(laptop, LIST) == [[handle(laptop), *last[:24]], last[24:]]
    for page in (laptop.get(LIST), turn(laptop, laptop.get(LIST))):
        assert ONLY in words(page)
        assert "Sign out all other devices" in words(page)
        assert "all other devices (" not in words(page)
    asked = laptop.get(OTHERS)
    assert shown(asked) == last[:24]
    assert ONLY in words(asked)
    assert "other devices (" not in words(asked)
    assert "other devices?" not in words(asked)
    assert said(press(laptop, OTHERS))[0].startswith("60 other devices were signed out.")
    assert not UserSession.objects.active().exclude(pk=handle(laptop)).exists()
    assert is_in(laptop, alice)
    assert ONLY not in words(laptop.get(LIST))


def test_the_device_in_use_is_listed_however_many_have_signed_in_since(alice: User, newest: None):
    laptop = sign_in(alice)
    others = give_devices(alice, 29)
    assert shown(laptop.get(LIST)) == [handle(laptop), *others[:24]]
    assert ONLY not in words(laptop.get(LIST))
    give_devices(alice, 31)
    page = laptop.get(LIST)
    assert shown(page)[0] == handle(laptop)
    assert not set(shown(page)) & set(others)
    assert page.context["other_count"] == 30
    assert ONLY in words(page)


def test_when_the_store_has_lost_the_newest_the_older_ones_can_still_go(
    laptop: Client, alice: User, others: list[uuid.UUID], newest: None
):
    lost = UserSession.objects.filter(pk__in=others[31:])
    store.SessionStore.remove([row.digest for row in lost])
    page = laptop.get(LIST)
    assert shown(page) == [handle(laptop)]
    assert "Sign out all other devices" in words(page)
    assert "Sign out all other devices" in words(laptop.get(OTHERS))
    press(laptop, OTHERS)
    assert not UserSession.objects.active().exclude(pk=handle(laptop)).exists()


def test_a_device_with_very_many_sign_ins_ends_as_a_whole(
    laptop: Client, alice: User, others: list[uuid.UUID], newest: None
):
    UserSession.objects.filter(pk__in=others[:40]).update(browser=uuid.uuid4())
    url = f"{LIST}?device={others[0].hex}"
    pages = all_pages(laptop, url)
    assert [pk for page in pages for pk in page] == others[10:40]
    assert ONLY in words(laptop.get(url))
    end = f"{LIST}{others[0]}/device/end/"
    assert "40 sign-ins end at once." in words(laptop.get(end))
    press(laptop, end)
    assert {row.pk for row in UserSession.objects.ended()} == set(others[:40])


def test_of_very_many_sign_ins_the_newest_are_counted_on_pages_of_the_site(
    laptop: Client, others: list[uuid.UUID], newest: None
):
    request = RequestFactory().get("/")
    request.session = SimpleNamespace(handle=handle(laptop))  # type: ignore[assignment]
    with CaptureQueriesContext(connection) as queries:
        assert sessionkit.device_count(Context({"request": request})) == 30
    assert "LIMIT 30" in queries[0]["sql"]


# What it costs.


def test_a_page_takes_as_many_round_trips_however_many_devices(laptop: Client, alice: User):
    """Two for a list, as always. The first page also has what has ended, for one more."""
    trips: dict[int, set[int]] = {}
    for count in (0, 100):
        give_devices(alice, count)
        first = laptop.get(LIST)
        second = link(first, "next")
        third = link(laptop.get(second), "next")
        for number, url in enumerate([LIST, second, third, f"{third}".replace("after", "before")]):
            trips.setdefault(number, set()).add(count_of(laptop, url))
    request = count_of(laptop, "/whoami/")
    assert trips == {0: {request + 3}, 1: {request + 2}, 2: {request + 2}, 3: {request + 2}}
    # The first page again, but not by its own URL.
    assert count_of(laptop, f"{second}".replace("after", "before")) == request + 3


def count_of(device: Client, url: Any) -> int:
    asked: list[str] = []
    redis = store.counted(asked) if store.ON_REDIS else nullcontext()
    with CaptureQueriesContext(connection) as queries, redis:
        assert device.get(url).status_code == 200
    return len(queries) + len(asked)


def test_the_answer_does_not_grow_with_the_number(laptop: Client, alice: User):
    few = len(laptop.get(LIST).text)
    give_devices(alice, 300)
    assert abs(len(laptop.get(LIST).text) - few) < 100


def test_no_more_than_the_newest_are_looked_up_in_the_store(
    laptop: Client, others: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(paging, "NEWEST", 30)
    looked: list[int] = []
    peek = SessionStore.peek

    def count(digests: Any) -> Any:
        looked.append(len(digests))
        return peek(digests)

    monkeypatch.setattr(SessionStore, "peek", count)
    all_pages(laptop, LIST)
    assert looked == [30, 30]


# What is not as it should be.


@pytest.mark.parametrize(
    "position",
    [
        "",
        "2",
        "x",
        "-",
        "1764322344123456",
        "1764322344123456-",
        "1764322344123456-0",
        f"1764322344123456-{'g' * 32}",
        f"{'9' * 18}-{'0' * 32}",
        f"-1-{'0' * 32}",
        f"\N{ARABIC-INDIC DIGIT ONE}-{'0' * 32}",
        f"1764322344123456-{'0' * 32}\n",
        "' OR 1=1 --",
        "\0",
    ],
)
def test_what_is_no_position_is_the_first_page(laptop: Client, others: Any, position: str):
    for side in ("after", "before"):
        page = laptop.get(LIST, {side: position})
        assert page.status_code == 200
        assert shown(page)[0] == handle(laptop)
        assert link(page, "prev") is None


@pytest.mark.parametrize("microseconds", [0, 10**17 - 1])
def test_positions_at_the_ends_of_time_are_pages_too(
    laptop: Client, others: Any, microseconds: int
):
    position = f"{microseconds}-{'f' * 32}"
    after, before = (laptop.get(LIST, {side: position}) for side in ("after", "before"))
    if microseconds:
        assert shown(after) == others[:25]
        assert shown(before) == [handle(laptop), *others[:24]]
    else:
        assert shown(after) == []
        assert "The devices on this page have signed out meanwhile." in words(after)
        assert shown(before) == others[35:]
        assert shown(turn(laptop, after, "prev")) == others[35:]


@pytest.mark.standard("ASVS-8.2.2")
def test_a_position_shows_nobody_elses_devices(laptop: Client, others: Any, bob: User):
    stranger = sign_in(bob)
    url = link(laptop.get(LIST), "next")
    assert shown(stranger.get(url)) == []
    assert str(others[24]) not in stranger.get(url).text


def test_devices_that_the_store_has_lost_are_on_no_page(laptop: Client, others: Any):
    lost = UserSession.objects.filter(pk__in=others[20:45])
    store.SessionStore.remove([row.digest for row in lost])
    left = [*others[:20], *others[45:]]
    assert all_pages(laptop, LIST) == [[handle(laptop), *left[:24]], left[24:]]
    assert "Sign out all other devices (35)" in words(laptop.get(LIST))


def test_a_position_is_as_exact_as_the_database():
    at = datetime(2026, 11, 28, 9, 30, 0, 123456, tzinfo=UTC)
    row = UserSession(last_seen_at=at)
    position = Position.of(row)
    assert asked_position({"after": str(position)}) == ("after", position)
    assert f"'ended_at', {at!r}" in str(position.rows("after"))
    # A database begins there: no page costs more than the one before it.
    assert f"('ended_at__lte', {at!r})" in str(position.rows("after"))
    assert f"('ended_at__gte', {at!r})" in str(position.rows("before"))


@override_settings(USE_TZ=False)
def test_a_position_is_in_local_time_where_the_database_is():
    with timezone.override("America/Chicago"):
        row = UserSession(last_seen_at=datetime(2026, 11, 28, 9, 30, 0, 123456))  # noqa: DTZ001
        position = Position.of(row)
        assert position.microseconds == 1795879800123456
        assert f"'ended_at', {row.last_seen_at!r}" in str(position.rows("before"))


# For readers.


def test_the_way_to_other_pages_is_named_for_screen_readers(laptop: Client, others: Any):
    page = turn(laptop, laptop.get(LIST))
    (nav,) = Strict(page.text).all("nav")
    assert nav["aria-label"] == "Pages"
    assert re.findall(r'rel="(\w+)"[^>]*>([^<]+)</a>', page.text) == [
        ("prev", "Previous page"),
        ("next", "Next page"),
    ]


def test_pages_speak_german(laptop: Client, others: Any):
    with translation.override("de"):
        text = words(turn(laptop, laptop.get(LIST)))
        asked = words(laptop.get(OTHERS))
    assert "Vorige Seite Nächste Seite" in text
    assert "Alle anderen Geräte werden sofort abgemeldet" in asked


# The page that asks which device is to go.


@pytest.fixture
def waiting(
    alice: User, others: list[uuid.UUID], policy: Callable[..., None]
) -> Callable[[int], Client]:
    """A function that lowers the limit, and signs Alice in on one more device, which waits."""

    def waiting(limit: int) -> Client:
        policy(limit=limit, on_limit="ask")
        return sign_in(alice)

    return waiting


def choose(device: Client, page: Any, *sessions: uuid.UUID, **more: str) -> Any:
    """Tick these devices on a page, and press the button."""
    fields = {**fields_of(page), "session": [*map(str, sessions)], **more}
    url = f"{page.request['PATH_INFO']}?{page.request.get('QUERY_STRING', '')}"
    return device.post(url, fields)


def test_a_long_list_to_choose_from_has_pages(waiting: Any, others: Any):
    tablet = waiting(60)
    page = tablet.get(f"{LIMIT}?next=/read/%3Fa%3D1%26b%3D2")
    assert "To go on here, choose the device to sign out." in words(page)
    assert "Sign out what you choose on this page" in words(page)
    assert shown(page) == others[:25]
    second = turn(tablet, page)
    assert shown(second) == others[25:50]
    second = turn(tablet, turn(tablet, second, "prev"))
    answer = choose(tablet, second, others[40])
    assert (answer.status_code, answer["Location"]) == (302, "/read/?a=1&b=2")
    assert is_in(tablet)
    (ended,) = UserSession.objects.ended()
    assert (ended.pk, ended.end_reason) == (others[40], EndReason.LIMIT)


def test_a_long_list_is_worked_off_page_by_page(waiting: Any, others: Any):
    tablet = waiting(30)
    page = tablet.get(LIMIT)
    assert "choose at least 31 devices to sign out" in words(page)
    page = choose(tablet, page)
    assert "Choose at least one device." in words(page)
    assert not UserSession.objects.ended().exists()
    page = choose(tablet, page, *others[:20])
    assert page.status_code == 200
    assert "These devices were signed out. Please choose more." in words(page)
    assert "choose at least 11 devices to sign out" in words(page)
    assert UserSession.objects.ended().count() == 20
    assert choose(tablet, turn(tablet, page), *others[45:56]).status_code == 302
    assert is_in(tablet)


def test_what_was_used_since_it_was_chosen_goes_all_the_same(waiting: Any, others: Any):
    tablet = waiting(60)
    second = turn(tablet, tablet.get(LIMIT))
    UserSession.objects.filter(pk=others[40]).update(last_seen_at=timezone.now())
    assert choose(tablet, second, others[40]).status_code == 302
    assert is_in(tablet)
    assert UserSession.objects.ended().get().pk == others[40]


def test_all_of_a_long_list_can_go_at_once(waiting: Any, others: Any, alice: User):
    tablet = waiting(2)
    page = tablet.get(LIMIT)
    assert "Sign out all other devices (60)" in words(page)
    assert choose(tablet, page, all="1").status_code == 302
    assert is_in(tablet)
    assert UserSession.objects.filter(end_reason=EndReason.LIMIT, ended_by=alice).count() == 60


def test_of_very_many_as_many_are_to_go_as_are_too_many(waiting: Any, others: Any, newest: None):
    tablet = waiting(40)
    page = tablet.get(LIMIT)
    assert "choose at least 21 devices to sign out" in words(page)
    assert ONLY in words(page)
    assert "Sign out all other devices (60)" in words(page)
    assert shown(page) == others[30:55]
    assert "Please choose more." in words(choose(tablet, page, *others[30:50]))
    page = tablet.get(LIMIT)
    assert "choose the device to sign out" in words(page)
    assert choose(tablet, page, others[50]).status_code == 302
    assert is_in(tablet)


def test_what_the_store_has_lost_need_not_be_chosen(waiting: Any, others: Any):
    tablet = waiting(2)
    lost = UserSession.objects.filter(pk__in=others[2:])
    store.SessionStore.remove([row.digest for row in lost])
    page = tablet.get(LIMIT)
    assert "To go on here, choose the device to sign out." in words(page)
    assert shown(page) == [others[1], others[0]]
    assert choose(tablet, page, others[0]).status_code == 302
    assert is_in(tablet)
