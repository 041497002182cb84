"""The list of devices: what belongs together, what a user calls it, and what has become of it."""

import re
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.db.models.signals import post_init
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import escape

from django_sessionkit import models, paging
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.grouping import NEWEST, SHOWN
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.paging import SIZE
from tests import store
from tests.pages import LIST, PROVE, Strict, fields_of, press, said, words
from tests.people import (
    CHROME,
    CHROME_ON_LINUX,
    FIREFOX,
    FIREFOX_ON_WINDOWS,
    IPHONE,
    NEW_FIREFOX,
    handle,
    is_in,
    row_of,
    sign_in,
)
from tests.plans import plan_of
from tests.store import SessionStore

pytestmark = pytest.mark.django_db

INACTIVE, END_INACTIVE = f"{LIST}?inactive=1", f"{LIST}inactive/end/"
NOBODYS = str(uuid.UUID(int=0))
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def give(user: User, count: int = 1, stored: int | None = None, **fields: Any) -> list[UserSession]:
    """Sign a user in so many times, by default in one browser, one hour after the other. Return the
    rows, the last active first. The store has the first ``stored`` of them, or all."""
    now = timezone.now()
    known = {"user_agent": CHROME, "ip": "198.51.100.7", "browser": uuid.uuid4(), **fields}
    seen = known.pop("last_seen_at", now - HOUR)
    rows = []
    for number in range(count):
        times = {"started_at": seen - HOUR * (number + 1), "last_seen_at": seen - HOUR * number}
        rows.append(
            UserSession(
                user=user,
                digest=digest_of(uuid.uuid4().hex),
                **{**times, "expires_at": now + 14 * DAY, **known},
            )
        )
    UserSession.objects.bulk_create(rows)
    for row in rows[:stored]:
        assert SessionStore.insert(row.digest, b"sealed", store.now(), store.now() + 10**9)
    return rows


def pks(rows: list[UserSession]) -> list[uuid.UUID]:
    return [row.pk for row in rows]


def shown(page: Any) -> list[list[uuid.UUID]]:
    """Return the handles of the sessions of each device on a page."""
    return [pks(device.sessions) for device in page.context["devices"]]


def devices(page: Any) -> list[str]:
    """Return the devices on a page as they are read."""
    text = page.text.partition('<ul class="sessionkit-list"')[2]
    headings = re.findall(r"<h2>(.*?)</h2>", text.partition("</ul>")[0], re.DOTALL)
    return [" ".join(re.sub("<[^>]*>", " ", each).split()) for each in headings]


def history(page: Any) -> list[str]:
    """Return what a page says of the sessions that have ended."""
    items = page.text.partition('id="sessionkit-ended"')[2].partition("</ul>")[0].split("<li>")[1:]
    return [" ".join(re.sub("<[^>]*>", " ", each).split()) for each in items]


def titles(page: Any) -> list[str]:
    """Return the title of a page, and its heading."""
    return [
        " ".join(found.split())
        for found in re.findall(r"<(?:title|h1)>(.*?)</(?:title|h1)>", page.text, re.DOTALL)
    ]


def hrefs(page: Any, text: str = "") -> list[str]:
    """Return where the links with this text lead."""
    links = re.findall(r'<a [^>]*href="([^"]+)"[^>]*>(.*?)</a>', page.text, re.DOTALL)
    return [url for url, label in links if text in " ".join(label.split())]


def end_device(session: UserSession) -> str:
    return f"{LIST}{session.pk}/device/end/"


def name_url(session: UserSession) -> str:
    return f"{LIST}{session.pk}/name/"


# Devices, not rows.


def test_sign_ins_of_one_browser_are_one_device_that_opens(laptop: Client, alice: User):
    rows = give(alice, 3)
    (phone,) = give(alice, user_agent=IPHONE, last_seen_at=timezone.now() - 3 * HOUR)
    page = laptop.get(LIST)
    assert shown(page) == [[handle(laptop)], pks(rows), [phone.pk]]
    assert devices(page) == [
        "Firefox on Linux This device",
        "Chrome on Windows (3 sign-ins)",
        "Safari on iOS",
    ]
    # Without a script.
    (opens, *_more) = Strict(page.text).all("details")
    assert "open" not in opens
    inside = page.text.partition("<details")[2].partition("</details>")[0]
    for row in rows:
        assert f'href="{LIST}{row.pk}/end/"' in inside
    assert hrefs(page, "Sign out this device") == [end_device(rows[0])]


def test_this_device_comes_first_then_the_last_active_one(laptop: Client, alice: User):
    now = timezone.now()
    old = give(alice, 2, last_seen_at=now - 2 * DAY)
    (new,) = give(alice, user_agent=IPHONE, last_seen_at=now - 2 * HOUR)
    UserSession.objects.filter(pk=handle(laptop)).update(last_seen_at=now - 5 * DAY)
    assert shown(laptop.get(LIST)) == [[handle(laptop)], [new.pk], pks(old)]
    # A device is as active as the last active of its sessions.
    UserSession.objects.filter(pk=old[1].pk).update(last_seen_at=now - HOUR)
    assert shown(laptop.get(LIST)) == [[handle(laptop)], [old[1].pk, old[0].pk], [new.pk]]


@pytest.mark.standard("ASVS-7.5.2")
def test_signing_out_a_device_ends_all_its_sign_ins(laptop: Client, alice: User, bob: User):
    rows = give(alice, 3)
    (phone,) = give(alice, user_agent=IPHONE)
    (theirs,) = give(bob, browser=rows[0].browser)
    asked = laptop.get(end_device(rows[1]))
    assert titles(asked) == ["Sign out Chrome on Windows?"] * 2
    assert "3 sign-ins end at once." in words(asked)
    assert "The device has to sign in again" in words(asked)
    assert not UserSession.objects.ended().exists()
    answer = press(laptop, end_device(rows[1]))
    assert (answer.status_code, answer["Location"]) == (302, LIST)
    assert said(answer)[0].startswith("Chrome on Windows was signed out.")
    ended = UserSession.objects.ended()
    assert set(pks(list(ended))) == set(pks(rows))
    assert {(row.end_reason, row.ended_by) for row in ended} == {(EndReason.REVOKED, alice)}
    assert shown(laptop.get(LIST)) == [[handle(laptop)], [phone.pk]]
    assert UserSession.objects.active().filter(pk=theirs.pk).exists()
    assert not set(store.payloads()) & {row.digest for row in rows}

    # Once more, from another tab.
    asked = laptop.get(end_device(rows[1]))
    assert titles(asked) == ["Chrome on Windows was signed out already"] * 2
    assert "<form" not in asked.text
    form = {"csrfmiddlewaretoken": laptop.cookies["csrftoken"].value}
    answer = laptop.post(end_device(rows[1]), form)
    assert (answer.status_code, answer["Location"]) == (302, LIST)
    assert said(answer)[-1] == "Chrome on Windows was signed out already."


def test_one_sign_in_of_several_is_signed_out(laptop: Client, alice: User):
    rows = give(alice, 3)
    assert press(laptop, f"{LIST}{rows[1].pk}/end/").status_code == 302
    assert shown(laptop.get(LIST)) == [[handle(laptop)], [rows[0].pk, rows[2].pk]]


def test_other_sign_ins_of_this_browser_can_go_without_this_one(laptop: Client, alice: User):
    here = row_of(laptop)
    UserSession.objects.filter(pk=here.pk).update(browser=uuid.uuid4())
    here.refresh_from_db()
    rows = give(alice, 2, browser=here.browser, user_agent=FIREFOX)
    page = laptop.get(LIST)
    assert shown(page) == [[here.pk, *pks(rows)]]
    assert devices(page) == ["Firefox on Linux (3 sign-ins) This device"]
    assert hrefs(page, "Sign out all other devices") == []  # there are none
    (url,) = hrefs(page, "Sign out all but the one you use now")
    asked = laptop.get(url)
    assert titles(asked) == ["Sign out the other sign-ins of this device?"] * 2
    assert "2 sign-ins end at once. What was not saved there is lost. You stay" in words(asked)
    form = {"csrfmiddlewaretoken": laptop.cookies["csrftoken"].value}
    for text in (
        "The other sign-ins of this device were signed out.",
        "This device has no other sign-in.",
    ):
        answer = laptop.post(url, form)
        assert (answer.status_code, said(answer)[-1]) == (302, text)
        assert is_in(laptop)
        assert shown(laptop.get(LIST)) == [[here.pk]]
    asked = laptop.get(url)
    assert titles(asked) == ["This device has no other sign-in"] * 2
    assert "<form" not in asked.text


def test_without_a_cookie_the_same_browser_and_system_in_one_network_are_one_device(
    laptop: Client, alice: User
):
    now = timezone.now()

    def unknown(user_agent: str, ip: str | None, hours: int) -> UserSession:
        at = now - HOUR * hours
        fields: dict[str, Any] = {"user_agent": user_agent, "ip": ip, "last_seen_at": at}
        return give(alice, browser=None, **fields)[0]

    one = unknown(CHROME, "198.51.100.7", 1)
    elsewhere = unknown(CHROME, "203.0.113.7", 2)
    linux = unknown(CHROME_ON_LINUX, "198.51.100.7", 3)
    old = unknown(CHROME.replace("156", "155"), "198.51.100.99", 4)
    nowhere = unknown(CHROME, None, 5), unknown(CHROME.replace("156", "155"), None, 6)
    (known,) = give(alice, last_seen_at=now - 7 * HOUR)
    page = laptop.get(LIST)
    assert shown(page)[1:] == [
        [one.pk, old.pk],
        [elsewhere.pk],
        [linux.pk],
        pks(list(nowhere)),
        [known.pk],
    ]
    assert devices(page)[1] == "Chrome on Windows (2 sign-ins)"
    assert page.context["other_count"] == 5
    for session, ended in [(one, {one.pk, old.pk}), (nowhere[1], set(pks(list(nowhere))))]:
        press(laptop, end_device(session))
        assert set(pks(list(UserSession.objects.ended()))) == ended
        UserSession.objects.update(ended_at=None, end_reason="")


def test_support_is_a_device_by_itself_of_which_nothing_is_told(laptop: Client, alice: User):
    here = row_of(laptop)
    browser = uuid.uuid4()
    UserSession.objects.filter(pk=here.pk).update(browser=browser)
    staff: dict[str, Any] = {
        "ip": "203.0.113.9",
        "user_agent": IPHONE,
        "client_hints": 'Model="Secret"',
    }
    told: dict[str, Any] = {
        "novelty": "place",
        "label": "Desk of Mallory",
        "backend": "django_auth_ldap.backend.LDAPBackend",
    }
    rows = give(alice, 2, browser=browser, support=True, counts=False, **staff, **told)
    page = laptop.get(LIST)
    assert shown(page) == [[here.pk], [rows[0].pk], [rows[1].pk]]
    assert devices(page)[1:] == ["Support access"] * 2
    assert words(page).count("Somebody from support can use your account, to help you.") == 2
    for row in rows:
        pages = [page, laptop.get(end_device(row)), laptop.get(f"{LIST}?device={row.pk.hex}")]
        for each in pages:
            assert "Support access" in each.text
            for secret in (
                "203.0.113.9",
                "Safari",
                "Secret",
                "Mallory",
                "Unusual",
                "of your organisation",
            ):
                assert secret not in each.text
        assert name_url(row) not in page.text
        assert laptop.get(name_url(row)).status_code == 404
    # Although it came from the same browser.
    press(laptop, name_url(here), label="Mine")
    assert list(UserSession.objects.filter(label="Mine")) == [here]
    title, heading = titles(laptop.get(end_device(here)))
    assert heading == "This device has no other sign-in"
    assert title.endswith(heading)  # after the first message
    press(laptop, end_device(rows[0]))
    assert pks(list(UserSession.objects.ended())) == [rows[0].pk]
    assert history(laptop.get(LIST))[0].startswith("Support access Signed out from")
    assert "203.0.113.9" not in laptop.get(LIST).text


def test_the_session_in_use_is_shown_however_many_of_its_browser_were_used_since(
    laptop: Client, alice: User
):
    here = row_of(laptop)
    rows = give(alice, SHOWN + 5)
    long_ago = timezone.now() - DAY
    UserSession.objects.filter(pk=here.pk).update(browser=rows[0].browser, last_seen_at=long_ago)
    page = laptop.get(LIST)
    assert shown(page) == [[here.pk, *pks(rows[:SHOWN])]]
    assert devices(page) == [f"Firefox on Linux ({SHOWN + 6} sign-ins) This device"]


def test_a_device_with_many_sign_ins_has_pages_of_its_own(laptop: Client, alice: User):
    rows = give(alice, 30)
    (phone,) = give(alice, user_agent=IPHONE)
    page = laptop.get(LIST)
    assert [len(each) for each in shown(page)] == [1, 1, SHOWN]
    assert devices(page)[2] == "Chrome on Windows (30 sign-ins)"
    assert page.context["other_count"] == 2
    (url,) = hrefs(page, "Show all 30 sign-ins")
    first = laptop.get(url)
    assert titles(first) == ["Sign-ins of Chrome on Windows"] * 2
    assert [pk for (pk,) in shown(first)] == pks(rows[:SIZE])
    assert hrefs(first, "Sign out this device") == [end_device(rows[0])]
    assert hrefs(first, "Show all devices") == [LIST]
    assert hrefs(first, "Rename") == []
    (onward,) = hrefs(first, "Next page")
    second = laptop.get(onward.replace("&amp;", "&"))
    assert [pk for (pk,) in shown(second)] == pks(rows[SIZE:])
    assert (
        laptop.get(hrefs(second, "Previous page")[0].replace("&amp;", "&")).text.count(
            "<h2><bdi>Chrome"
        )
        == SIZE
    )
    # Who ends one of them comes back to this page.
    (end,) = [href for href in hrefs(second) if f"{rows[-1].pk}/end/" in href]
    answer = press(laptop, end.replace("&amp;", "&"))
    assert answer["Location"] == onward.replace("&amp;", "&")
    assert phone.pk not in [pk for (pk,) in shown(laptop.get(answer["Location"]))]


def test_a_device_with_older_sign_ins_is_on_one_page_only(laptop: Client, alice: User):
    now = timezone.now()
    rows = []
    for number in range(30):
        rows.append(give(alice, 2, last_seen_at=now - HOUR * number))
        UserSession.objects.filter(pk=rows[-1][1].pk).update(last_seen_at=now - DAY * 3)
    first = laptop.get(LIST)
    assert shown(first) == [[handle(laptop)], *map(pks, rows[:24])]
    second = laptop.get(hrefs(first, "Next page")[0])
    assert shown(second) == [pks(each) for each in rows[24:]]
    assert second.context["other_count"] == 30
    back = hrefs(second, "Previous page")[0]
    assert shown(laptop.get(back)) == shown(first)


@pytest.mark.standard("ASVS-8.2.2")
def test_the_devices_of_others_are_nobodys(laptop: Client, bob: User):
    (theirs,) = give(bob, label="Secret")
    form = {"csrfmiddlewaretoken": laptop.cookies["csrftoken"].value, "label": "x"}
    for url in (f"{LIST}?device={theirs.pk.hex}", name_url(theirs), end_device(theirs)):
        nobodys = url.replace(theirs.pk.hex, "0" * 32).replace(
            str(theirs.pk), str(uuid.UUID(int=0))
        )
        assert [laptop.get(each).status_code for each in (url, nobodys)] == [404, 404]
        if url != f"{LIST}?device={theirs.pk.hex}":
            assert [laptop.post(each, form).status_code for each in (url, nobodys)] == [404, 404]
    theirs.refresh_from_db()
    assert (theirs.label, theirs.ended_at) == ("Secret", None)
    for garbage in ("x", "0" * 31, f"{'0' * 32}\n", "\0"):
        assert laptop.get(LIST, {"device": garbage}).status_code == 200


def test_a_device_is_listed_as_long_as_the_store_has_one_of_its_sign_ins(
    laptop: Client, alice: User
):
    rows = give(alice, SHOWN + 5)
    SessionStore.remove([row.digest for row in rows[: SHOWN + 3]])
    page = laptop.get(LIST)
    assert shown(page) == [[handle(laptop)], pks(rows[-2:])]
    assert devices(page)[1] == "Chrome on Windows (2 sign-ins)"


def test_sign_ins_that_the_store_has_lost_do_not_count(laptop: Client, alice: User):
    rows, gone = give(alice, 3), give(alice, 2, user_agent=IPHONE)
    SessionStore.remove([rows[0].digest, *(row.digest for row in gone)])
    page = laptop.get(LIST)
    assert shown(page) == [[handle(laptop)], pks(rows[1:])]
    assert devices(page)[1] == "Chrome on Windows (2 sign-ins)"
    assert page.context["other_count"] == 1


@pytest.mark.parametrize("url", ["device", "inactive"])
@pytest.mark.standard("ASVS-7.5.2")
def test_ending_several_takes_a_recent_proof(
    laptop: Client, alice: User, policy: Callable[..., None], url: str
):
    policy(recent=60)
    laptop = sign_in(alice)
    rows = give(alice, 2, last_seen_at=timezone.now() - 100 * DAY)
    end = end_device(rows[0]) if url == "device" else END_INACTIVE
    form = {"csrfmiddlewaretoken": laptop.cookies["csrftoken"].value}
    with time_machine.travel(timezone.now() + HOUR, tick=False):
        assert laptop.get(end)["Location"].startswith(PROVE)
        assert laptop.post(end, form).status_code in (302, 403)
        assert not UserSession.objects.exclude(ended_at=None).exists()
        laptop.post(PROVE, {**fields_of(laptop.get(PROVE)), "password": "secret"})
        assert press(laptop, end)["Location"] == LIST
    assert UserSession.objects.exclude(ended_at=None).count() == 2


def test_when_the_store_does_not_answer_the_device_is_told_to_go_later(
    laptop: Client, alice: User, monkeypatch: pytest.MonkeyPatch
):
    rows = give(alice, 2, last_seen_at=timezone.now() - 100 * DAY)
    others = give(alice, 2, last_seen_at=timezone.now() - 100 * DAY)
    store.take_down(monkeypatch, "remove")
    for url in (end_device(rows[0]), END_INACTIVE):
        answer = press(laptop, url)
        assert answer.status_code == 302
        assert "may take up to 60 seconds" in said(answer)[-1]
    assert UserSession.objects.exclude(ended_at=None).count() == len([*rows, *others])


# What a row says.


def test_badges_say_what_is_new(laptop: Client, alice: User):
    now = timezone.now()
    UserSession.objects.filter(pk=handle(laptop)).update(novelty="device")
    give(alice, user_agent=IPHONE, novelty="device", started_at=now - 13 * DAY)
    give(alice, novelty="place", last_seen_at=now - 2 * HOUR)
    give(alice, user_agent=CHROME_ON_LINUX, novelty="device", started_at=now - 15 * DAY,
         last_seen_at=now - 3 * HOUR)  # fmt: skip
    assert devices(laptop.get(LIST)) == [
        "Firefox on Linux This device",
        "Safari on iOS New",
        "Chrome on Windows Unusual place",
        "Chrome on Linux",
    ]


def test_badges_say_what_waits(laptop: Client, alice: User):
    now = timezone.now()
    give(alice, idle_at=now - HOUR)
    give(alice, user_agent=IPHONE, waits=True, counts=False, last_seen_at=now - 2 * HOUR)
    page = laptop.get(LIST)
    assert devices(page)[1:] == [
        "Chrome on Windows Locked: waits for your password",
        "Safari on iOS Waits until another device is signed out",
    ]


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(seconds=50), "Active now"),
        (timedelta(seconds=100), "1 minute ago"),
        (timedelta(hours=3, minutes=5), "3 hours ago"),
        (13 * DAY, "1 week ago"),
        (15 * DAY, "Not used for 2 weeks"),
        (100 * DAY, "Not used for 3 months"),
        (400 * DAY, "Not used for 1 year"),
    ],
)
def test_how_long_a_device_was_not_used(laptop: Client, alice: User, ago: timedelta, text: str):
    (row,) = give(alice, last_seen_at=timezone.now() - ago - timedelta(seconds=1))
    page = laptop.get(LIST)
    assert f"Last active {text}" in words(page)
    exact = timezone.localtime(row.last_seen_at)
    assert f'<time datetime="{exact.isoformat(timespec="seconds")}">' in page.text


def test_html_takes_every_time(laptop: Client, alice: User):
    rows = give(alice, 2)
    UserSession.objects.filter(pk=rows[1].pk).revoke()
    times = [str(each["datetime"]) for each in Strict(laptop.get(LIST).text).all("time")]
    assert len(times) == 5
    for each in times:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?[+-]\d\d:\d\d", each)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"remembered": True}, "Stays signed in until %(day)s "),
        ({"remembered": False}, "Stays signed in until the browser is closed, or %(day)s "),
        ({"user_agent": "curl/8.5"}, "Stays signed in until %(day)s "),
        ({"remembered": True, "soon": True}, "Stays signed in until %(time)s "),
    ],
)
def test_how_long_a_device_stays_signed_in(
    laptop: Client, alice: User, fields: dict[str, Any], text: str
):
    at = timezone.localtime(timezone.now() + (DAY if fields.pop("soon", False) else 20 * DAY))
    give(alice, expires_at=at, **fields)
    known = {"day": date_format(at), "time": date_format(at, "DATETIME_FORMAT")}
    assert (text % known).strip() in words(laptop.get(LIST))


@pytest.mark.parametrize(
    ("backend", "text"),
    [
        ("django.contrib.auth.backends.ModelBackend", "with a password"),
        ("django_auth_ldap.backend.LDAPBackend", "with the password of your organisation"),
        ("djangosaml2.backends.Saml2Backend", "through your organisation"),
        ("social_core.backends.google.GoogleOAuth2", "with Google"),
        ("social_core.backends.azuread_tenant.AzureADTenantOAuth2", "with Microsoft"),
        ("allauth.account.auth_backends.AuthenticationBackend", ""),
        ("shop.auth.Ours", ""),
        ("", ""),
    ],
)
def test_how_somebody_signed_in(laptop: Client, alice: User, backend: str, text: str):
    give(alice, backend=backend)
    # Django leaves out the minutes of a full hour, and says "noon" and "midnight".
    hour = r"(?:[\d:]+ [ap]\.m\.|noon|midnight)"
    found = re.findall(rf"Signed in \S+ \d+, \d+, {hour} ?(.*?) ?Stays", words(laptop.get(LIST)))
    assert found[1] == text


def test_the_place_comes_before_the_address(
    laptop: Client, alice: User, monkeypatch: pytest.MonkeyPatch
):
    places = {"192.0.2.1": "Berlin, Germany"}
    monkeypatch.setattr(models, "place_of", lambda address: places.get(address, ""))
    (row,) = give(alice)
    text = words(laptop.get(LIST))
    assert "Where near Berlin, Germany (estimated) Internet address (IP): 192.0.2.1 Last" in text
    assert "Where Internet address (IP): 198.51.100.7 Last" in text
    UserSession.objects.filter(pk=row.pk).revoke()
    places["198.51.100.7"] = "Bonn, Germany"
    assert history(laptop.get(LIST))[0].startswith("Chrome on Windows · near Bonn, Germany")


def test_no_two_links_of_a_page_sound_the_same(laptop: Client, alice: User):
    now = timezone.now()
    for number in range(3):
        give(alice, last_seen_at=now - HOUR * number)
    give(alice, 3, user_agent=IPHONE)
    UserSession.objects.filter(pk__in=pks(give(alice, 30))).revoke()
    page = laptop.get(LIST)
    links = re.findall(r'<a [^>]*href="([^"]+)"[^>]*>(.*?)</a>', page.text, re.DOTALL)
    names: dict[str, set[str]] = {}
    for url, label in links:
        names.setdefault(" ".join(re.sub("<[^>]*>", "", label).split()), set()).add(url)
    assert len(names) > 12
    assert {name: urls for name, urls in names.items() if len(urls) > 1} == {}


# Names.


def test_a_user_names_a_device(laptop: Client, alice: User, bob: User):
    rows = give(alice, 3)
    UserSession.objects.filter(pk=rows[2].pk).revoke()
    (phone,) = give(alice, user_agent=IPHONE)
    (theirs,) = give(bob, browser=rows[0].browser)
    page = laptop.get(LIST)
    url = name_url(rows[0])
    assert url in hrefs(page, "Rename")
    asked = laptop.get(url)
    assert titles(asked) == ["Name for Chrome on Windows", "What do you call this device?"]
    assert "Without a name, it is called Chrome on Windows." in words(asked)
    assert 'maxlength="64"' in asked.text
    for _ in range(2):  # a double click
        answer = press(laptop, url, label="Work laptop")
        assert (answer.status_code, answer["Location"]) == (302, LIST)
        assert said(answer)[-1] == "This device is called Work laptop now."
    page = laptop.get(LIST)
    assert "Work laptop (2 sign-ins)" in devices(page)
    assert "Device Chrome" in words(page)  # whatever it is called
    assert history(page)[0].startswith("Work laptop ")
    assert 'value="Work laptop"' in laptop.get(url).text
    labels = UserSession.objects.exclude(label="").values_list("pk", flat=True)
    assert set(labels) == set(pks(rows))
    assert titles(laptop.get(end_device(rows[0]))) == ["Sign out Work laptop?"] * 2

    assert said(press(laptop, url, label=" "))[-1] == "This device is called Chrome on Windows now."
    assert "Chrome on Windows (2 sign-ins)" in devices(laptop.get(LIST))
    assert not UserSession.objects.exclude(label="").exists()
    assert {phone.pk, theirs.pk} <= set(UserSession.objects.values_list("pk", flat=True))


def test_who_names_a_device_of_a_later_page_comes_back_to_it(laptop: Client, alice: User):
    for number in range(SIZE):
        (last,) = give(alice, last_seen_at=timezone.now() - HOUR * (number + 1))
    (url,) = hrefs(laptop.get(LIST), "Next page")
    (rename,) = hrefs(laptop.get(url), "Rename")
    assert f'href="{url}">Cancel' in laptop.get(rename).text
    assert press(laptop, rename, label="Tablet")["Location"] == url
    assert devices(laptop.get(url)) == ["Tablet"]
    last.refresh_from_db()
    assert last.label == "Tablet"


def test_a_device_without_a_cookie_has_a_name_too(laptop: Client, alice: User):
    rows = give(alice, 2, browser=None, user_agent=NEW_FIREFOX, ip="192.0.2.200")
    UserSession.objects.filter(pk=handle(laptop)).update(browser=None)
    press(laptop, name_url(rows[0]), label="Work laptop")
    assert devices(laptop.get(LIST)) == ["Work laptop (3 sign-ins) This device"]


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("  Work\t laptop\r\n", "Work laptop"),
        ("a\0b\x1bc\u202ed\u2066e", "abcde"),
        ("\u202e", ""),
        ("\u200d \u200c", ""),
        ("\u3164 \u2800\u115f\u0301", ""),
        ("\u0301e", "\u0301e"),
        ("\u200f\u0645\u06cc\u200c\u062e\u0648", "\u0645\u06cc\u200c\u062e\u0648"),
        ("\U0001f469\u200d\U0001f4bb", "\U0001f469\u200d\U0001f4bb"),
        ("<b>&amp;", "<b>&amp;"),
        ("x" * 64, "x" * 64),
    ],
)  # fmt: skip
@pytest.mark.standard("ASVS-3.2.2")
def test_a_name_is_text_on_one_line(laptop: Client, alice: User, typed: str, name: str):
    (row,) = give(alice)
    assert press(laptop, name_url(row), label=typed).status_code == 302
    row.refresh_from_db()
    assert row.label == name
    page = laptop.get(LIST)
    assert f"<bdi>{escape(name) or 'Chrome on Windows'}</bdi>" in page.text
    assert "<b>" not in page.text


def test_a_name_that_is_too_long_is_refused(laptop: Client, alice: User):
    (row,) = give(alice, label="Before")
    answer = press(laptop, name_url(row), label="x" * 65)
    assert answer.status_code == 200
    assert "at most 64 characters" in words(answer)
    assert "x" * 65 in answer.text
    row.refresh_from_db()
    assert row.label == "Before"


@pytest.mark.standard("ASVS-3.5.1", "ASVS-3.5.3")
def test_nobody_else_names_a_device(laptop: Client, alice: User):
    (row,) = give(alice)
    url = name_url(row)
    assert laptop.post(url, {"label": "x"}).status_code == 403
    headers = {"X-CSRFToken": laptop.cookies["csrftoken"].value}
    for method in ("put", "patch", "delete"):
        assert getattr(laptop, method)(url, headers=headers).status_code == 405
    for answer in (Client().get(url), Client().post(url)):
        assert (answer.status_code, answer["Location"]) == (302, f"/login/?next={url}")
    row.refresh_from_db()
    assert row.label == ""


# What has ended.


@pytest.mark.parametrize("reason", [each for each in EndReason if each != EndReason.REVOKED])
def test_what_has_ended_says_why(laptop: Client, alice: User, reason: EndReason):
    (row,) = give(alice, ended_at=timezone.now() - 2 * HOUR, end_reason=reason)
    page = laptop.get(LIST)
    (told,) = history(page)
    assert told.startswith("Chrome on Windows ")
    assert " 2 hours ago · " in told
    why = told.removeprefix("Chrome on Windows ").partition(" 2 hours ago")[0]
    assert why.endswith(".")
    assert reason not in why
    assert str(row.pk) not in page.text
    (item,) = Strict(page.text).all("details")
    assert "open" not in item
    assert "<summary>Recently signed out</summary>" in page.text


@pytest.mark.parametrize("reason", ["", "of_a_newer_version"])
def test_what_has_ended_for_a_reason_that_nobody_knows_is_shown(
    laptop: Client, alice: User, reason: str
):
    """Code of the site may mark rows, and a newer version answers beside this one for a while."""
    give(alice, ended_at=timezone.now() - HOUR, end_reason=reason)
    (told,) = history(laptop.get(LIST))
    assert "Signed out by this site." in told


def test_what_has_ended_says_who_ended_it(laptop: Client, alice: User, root: User):
    now = timezone.now()
    (here,) = UserSession.objects.all()
    (named,) = give(alice, label="Work laptop")
    (support,) = give(alice, support=True, user_agent=FIREFOX_ON_WINDOWS)
    (theirs,) = give(root, user_agent=FIREFOX_ON_WINDOWS)
    ends: list[tuple[dict[str, Any], str]] = [
        ({"ended_by": alice, "ended_from": here.pk}, "Signed out from Firefox on Linux."),
        ({"ended_by": alice, "ended_from": named.pk}, "Signed out from Work laptop."),
        ({"ended_by": alice, "ended_from": support.pk}, "Signed out by support."),
        ({"ended_by": root, "ended_from": support.pk}, "Signed out by support."),
        ({"ended_by": root, "ended_from": theirs.pk}, "Signed out by support."),
        ({"ended_by": alice, "ended_from": uuid.uuid4()}, "Signed out from another device."),
        ({"ended_by": alice, "ended_from": theirs.pk}, "Signed out from another device."),
        ({"ended_by": alice}, "Signed out from another device."),
        ({"ended_by": None}, "Signed out by this site."),
        ({"ended_by": alice, "reported_at": now}, "You did not recognise it."),
    ]
    for number, (fields, _text) in enumerate(ends):
        at = now - timedelta(minutes=number)
        give(alice, user_agent=IPHONE, ended_at=at, end_reason=EndReason.REVOKED, **fields)
    told = history(laptop.get(LIST))
    assert [each.removeprefix("Safari on iOS ").split(". ")[0] + "." for each in told] == [
        text for _fields, text in ends
    ]


def test_what_ended_long_ago_or_is_of_others_is_not_shown(laptop: Client, alice: User, bob: User):
    assert "Recently signed out" not in words(laptop.get(LIST))
    ended: dict[str, Any] = {"end_reason": EndReason.LOGOUT}
    give(alice, ended_at=timezone.now() - 31 * DAY, **ended)
    give(bob, ended_at=timezone.now() - HOUR, **ended)
    assert "Recently signed out" not in words(laptop.get(LIST))
    give(alice, ended_at=timezone.now() - 29 * DAY, **ended)
    assert len(history(laptop.get(LIST))) == 1


def test_what_has_ended_has_pages(laptop: Client, alice: User):
    now = timezone.now()
    for number in range(60):
        at = now - timedelta(minutes=number + 1)
        give(alice, ip=f"198.51.100.{number}", label=f"Device {number}.", ended_at=at,
             end_reason=EndReason.LOGOUT)  # fmt: skip
    page = laptop.get(LIST)
    pages = [page]
    while onward := hrefs(pages[-1], "Next page"):
        assert len(pages) < 5
        assert onward[0].endswith("#sessionkit-ended")
        pages.append(laptop.get(onward[0].partition("#")[0]))
        assert 'id="sessionkit-ended" open' in pages[-1].text
        assert shown(pages[-1]) == [[handle(laptop)]]
    found = [re.findall(r"Device (\d+)\.", " ".join(history(each))) for each in pages]
    assert found == [[*map(str, each)] for each in (range(25), range(25, 50), range(50, 60))]
    (nav,) = Strict(page.text).all("nav")
    assert nav["aria-label"] == "Pages of what was signed out"
    back = laptop.get(hrefs(pages[2], "Previous page")[0].partition("#")[0])
    assert history(back) == history(pages[1])
    back = laptop.get(hrefs(pages[1], "Previous page")[0].partition("#")[0])
    assert history(back) == history(page)


# What was not used for long.


def test_devices_that_were_not_used_for_long_can_go_at_once(laptop: Client, alice: User):
    long_ago = timezone.now() - 91 * DAY
    used = give(alice, 2)
    UserSession.objects.filter(pk=used[1].pk).update(last_seen_at=long_ago)  # in the same browser
    UserSession.objects.filter(pk=handle(laptop)).update(last_seen_at=long_ago)
    (nearly,) = give(alice, user_agent=IPHONE, last_seen_at=timezone.now() - 89 * DAY)
    assert "90 days" not in words(laptop.get(LIST))
    unused = give(alice, 2, last_seen_at=long_ago)
    page = laptop.get(LIST)
    assert hrefs(page, "1 device was not used for 90 days") == [INACTIVE]
    unused += give(alice, user_agent=CHROME_ON_LINUX, last_seen_at=long_ago - DAY)
    page = laptop.get(LIST)
    assert hrefs(page, "2 devices were not used for 90 days") == [INACTIVE]
    page = laptop.get(INACTIVE)
    assert titles(page) == ["Devices that were not used for 90 days"] * 2
    assert shown(page) == [pks(unused[:2]), pks(unused[2:])]
    assert hrefs(page, "Show all devices") == [LIST]
    assert hrefs(page, "Sign out the 2 devices not used for 90 days") == [END_INACTIVE]
    asked = laptop.get(END_INACTIVE)
    assert "Sign out the 2 devices that were not used for 90 days?" in words(asked)
    assert shown(asked) == shown(page)
    answer = press(laptop, END_INACTIVE)
    assert (answer.status_code, answer["Location"]) == (302, LIST)
    assert said(answer) == ["The devices that were not used for 90 days were signed out."]
    assert set(pks(list(UserSession.objects.exclude(ended_at=None)))) == set(pks(unused))
    assert shown(laptop.get(LIST)) == [[handle(laptop)], pks(used), [nearly.pk]]

    form = {"csrfmiddlewaretoken": laptop.cookies["csrftoken"].value}
    assert said(laptop.post(END_INACTIVE, form))[-1] == "There was no such device any more."
    assert titles(laptop.get(END_INACTIVE))[1] == "No device was unused for 90 days"
    assert "There is no such device." in words(laptop.get(INACTIVE))


def test_many_devices_that_were_not_used_have_pages(laptop: Client, alice: User):
    for number in range(30):
        give(alice, last_seen_at=timezone.now() - 91 * DAY - HOUR * number)
    page = laptop.get(INACTIVE)
    assert len(shown(page)) == SIZE
    (onward,) = hrefs(page, "Next page")
    assert "inactive=1" in onward
    assert len(shown(laptop.get(onward.replace("&amp;", "&")))) == 5
    (end, *_more) = [href for href in hrefs(page) if "/end/?" in href]
    assert press(laptop, end)["Location"] == INACTIVE
    assert "And 4 more." in words(laptop.get(END_INACTIVE))


def test_nobody_is_in_two_minds_whether_a_device_was_used_meanwhile(laptop: Client, alice: User):
    long_ago = timezone.now() - 91 * DAY
    rows = [*give(alice, last_seen_at=long_ago), *give(alice, last_seen_at=long_ago)]
    asked = laptop.get(END_INACTIVE)
    UserSession.objects.filter(pk=rows[0].pk).update(last_seen_at=timezone.now())
    form = {"csrfmiddlewaretoken": laptop.cookies["csrftoken"].value}
    assert "the 2 devices" in words(asked)
    laptop.post(END_INACTIVE, form)
    assert pks(list(UserSession.objects.exclude(ended_at=None))) == [rows[1].pk]


def test_of_very_many_sign_ins_those_that_were_not_used_go_as_well(
    laptop: Client, alice: User, monkeypatch: pytest.MonkeyPatch
):
    unused = give(alice, 3, last_seen_at=timezone.now() - 91 * DAY)
    (unknown,) = give(alice, browser=None, last_seen_at=timezone.now() - 91 * DAY)
    used = give(alice, 5)
    monkeypatch.setattr(paging, "NEWEST", 5)
    assert hrefs(laptop.get(LIST), "Devices that were not used for 90 days") == [INACTIVE]
    page = laptop.get(INACTIVE)
    # None of those that are listed. But there are others.
    assert shown(page) == []
    assert "There is no such device." not in words(page)
    assert "Only the 5 newest sign-ins are listed." in words(page)
    (url,) = hrefs(page, "Sign out devices that were not used for 90 days")
    asked = laptop.get(url)
    assert titles(asked) == ["Sign out devices that were not used for 90 days"] * 2
    assert "Only the 5 newest sign-ins are listed." in words(asked)
    assert said(press(laptop, url)) == [
        "The devices that were not used for 90 days were signed out."
    ]
    left = UserSession.objects.filter(ended_at=None)
    assert set(pks(list(left))) == {handle(laptop), *pks(used)}
    assert unknown.pk not in pks(list(left))
    assert {row.pk for row in UserSession.objects.ended()} == {unknown.pk, *pks(unused)}


# How many there may be.


def test_all_others_can_go_from_the_top_of_a_long_list(laptop: Client, alice: User):
    assert hrefs(laptop.get(LIST), "Sign out all other devices") == []
    for number, links in [(4, 1), (1, 2)]:
        for _ in range(number):
            give(alice)
        urls = hrefs(laptop.get(LIST), "Sign out all other devices")
        assert urls == [f"{LIST}others/end/"] * links


def test_all_others_are_as_many_before_as_after(laptop: Client, alice: User):
    url = f"{LIST}others/end/"
    phone = give(alice, 3, user_agent=IPHONE)
    give(alice, browser=row_of(laptop).browser)
    assert "Sign out all other devices (1)" in words(laptop.get(LIST))
    asked = laptop.get(url)
    assert titles(asked) == ["Sign out the other device?"] * 2
    assert shown(asked) == [pks(phone)]
    assert devices(asked) == ["Safari on iOS (3 sign-ins)"]
    assert said(press(laptop, url))[0].startswith("1 other device was signed out. Did you not")
    assert UserSession.objects.ended().count() == 4

    (again,) = give(alice, browser=row_of(laptop).browser)
    form = fields_of(asked, "Sign out the other device")
    assert said(laptop.post(url, form))[-1] == "The other sign-ins of this device were signed out."
    again.refresh_from_db()
    assert again.end_reason == EndReason.REVOKED


@pytest.mark.parametrize(
    ("on_limit", "text"),
    [
        ("end_oldest", "the next sign-in signs out the device that signed in first."),
        ("end_idlest", "the next sign-in signs out the device that was not used for the longest"),
        ("refuse", "you cannot sign in on another device before you sign one out."),
        ("ask", "the next sign-in asks you which device to sign out."),
    ],
)
def test_who_is_near_the_limit_is_told_what_comes_next(
    alice: User, policy: Callable[..., None], on_limit: str, text: str
):
    policy(limit=3, on_limit=on_limit)
    laptop = sign_in(alice)
    for count in (1, 2, 3):
        page = words(laptop.get(LIST))
        assert (
            f"Every browser counts as one device, also on the same computer. {count} of 3" in page
        )
        assert ("When all are in use" in page) == (count > 1)
        assert (f"When all are in use, {text}" in page) == (count > 1)
        assert "each sign-in counts" not in page
        give(alice)
    policy(limit=10)
    assert "When all are in use" not in words(laptop.get(LIST))
    give(alice, 2)
    text = words(laptop.get(LIST))
    assert "6 of 10 in use. Where a browser is signed in more than once, each sign-in" in text
    policy()
    assert "in use" not in words(laptop.get(LIST))


# For scripts of the site.


@pytest.mark.parametrize(
    ("headers", "is_fragment"),
    [
        ({}, False),
        ({"HX-Request": "true"}, True),
        ({"HX-Request": "true", "HX-Boosted": "true"}, False),
        ({"HX-Request": "true", "HX-History-Restore-Request": "true"}, False),
        ({"X-Requested-With": "fetch"}, True),
        ({"X-Requested-With": "XMLHttpRequest"}, False),
    ],
)
def test_a_script_gets_what_is_inside_the_page(
    laptop: Client, alice: User, headers: dict[str, str], is_fragment: bool
):
    for number in range(SIZE):
        give(alice, last_seen_at=timezone.now() - HOUR * number)
    whole = laptop.get(LIST)
    page = laptop.get(LIST, headers=headers)
    assert page.status_code == 200
    assert ("<html" not in page.text) == is_fragment
    assert page.text.strip() in whole.text
    assert page.text.strip().startswith('<div class="sessionkit"') == is_fragment
    vary = {each.strip() for each in page["Vary"].split(",")}
    names = {"HX-Request", "HX-Boosted", "HX-History-Restore-Request", "X-Requested-With"}
    assert names <= vary
    # It may be inside of any page.
    assert all(href.startswith("/") for href in hrefs(page))


# What it costs.


def test_a_list_reads_the_newest_sign_ins_however_many_there_are(laptop: Client, alice: User):
    made = 0

    def note(**kwargs: object) -> None:
        nonlocal made
        made += 1

    request = count_of(laptop, "/whoami/")
    trips = [request + 3, request + 2, request + 2]
    for count in (20, 4 * NEWEST):
        give(alice, count, stored=0, last_seen_at=timezone.now() - 100 * DAY)
        costs = []
        post_init.connect(note, sender=UserSession)
        for url in (LIST, INACTIVE, END_INACTIVE):
            made, read = 0, rows_read()
            costs.append(count_of(laptop, url))
            assert made <= NEWEST + 5
            # For each, MariaDB also looks whether an epoch has ended it.
            assert rows_read() - read <= 2 * NEWEST + 100
        post_init.disconnect(note, sender=UserSession)
        assert costs == trips
        # The current session is an older sign-in than all of those: one more round trip gets it.
        trips = [each + 1 for each in trips]


def rows_read() -> int:
    """Return how many rows MariaDB has read until now to answer this connection, or 0 where the
    database does not tell."""
    if connection.vendor != "mysql":
        return 0
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        return sum(int(number) for name, number in cursor.fetchall() if "_rnd" not in name)


@pytest.mark.parametrize("url", [LIST, f"{LIST}?ended_after=1764322344123456-{'f' * 32}", INACTIVE])
def test_no_page_has_to_sort_what_it_does_not_show(laptop: Client, alice: User, url: str):
    """The rows that a statement asks for lie beside each other in an index, in their order."""
    give(alice, 60)
    give(alice, 60, ended_at=timezone.now() - HOUR, end_reason=EndReason.LOGOUT)
    with CaptureQueriesContext(connection) as queries:
        assert laptop.get(url).status_code == 200
    asked = [each["sql"] for each in queries if f"FROM {quoted(UserSession)}" in each["sql"]]
    assert len(asked) == 1 if url == INACTIVE else 2
    for sql in asked:
        assert " LIMIT " in sql
        assert " OVER " not in sql
        assert not re.search("sort|temp b-tree", plan_of(sql), re.IGNORECASE)


def quoted(model: type[UserSession]) -> str:
    return connection.ops.quote_name(model._meta.db_table)


def count_of(device: Client, url: str) -> int:
    asked: list[str] = []
    redis = store.counted(asked) if store.ON_REDIS else nullcontext()
    with CaptureQueriesContext(connection) as queries, redis:
        assert device.get(url).status_code == 200
    return len(queries) + len(asked)
