"""The page that asks which device is to go, when somebody signs in on one too many."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client, override_settings
from django.utils import translation

from django_sessionkit import limits
from django_sessionkit.models import EndReason, UserSession
from tests.pages import LIMIT, LIST, Strict, fields_of, words
from tests.people import CHROME, FIREFOX, IPHONE, handle, is_in, key_of, sign_in
from tests.policies import IDLE
from tests.store import take_down, travel

if TYPE_CHECKING:
    from django.test.client import _MonkeyPatchedWSGIResponse as Response

pytestmark = pytest.mark.django_db

ASK = {"limit": 2, "on_limit": "ask"}


@pytest.fixture
def alice(policy: Callable[..., None]) -> User:
    """Somebody who may be signed in on two devices."""
    policy(**ASK)
    return User.objects.create_user("alice", password="secret")


@pytest.fixture
def phone(laptop: Client, alice: User) -> Client:
    return sign_in(alice, IPHONE, "2001:db8::1")


@pytest.fixture
def tablet(phone: Client, alice: User) -> Client:
    """One too many."""
    return sign_in(alice, CHROME)


def choose(device: Client, page: "Response", *sessions: object, **more: str) -> "Response":
    """Tick these, and press the button."""
    return device.post(LIMIT, {**fields_of(page), "session": [*map(str, sessions)], **more})


def row_with(user_agent: str) -> UserSession:
    return UserSession.objects.get(user_agent=user_agent)


@pytest.mark.standard("ASVS-7.1.2", "WSTG-SESS-11")
def test_who_signs_in_on_one_device_too_many_chooses_which_is_to_go(
    laptop: Client, phone: Client, tablet: Client
):
    assert tablet.get("/whoami/").text == "AnonymousUser"
    answer = tablet.get("/private/")
    assert answer["Location"] == f"{LIMIT}?next=%2Fprivate%2F"
    page = tablet.get(answer["Location"])
    assert page.status_code == 200
    text = words(page)
    assert "You are signed in on too many devices" in text
    assert "Your account can be signed in on 2 devices at a time." in text
    assert "To go on here, choose the device to sign out." in text
    assert "Signed in as alice." in text
    # Whichever was last active comes last, and the one that waits does not come at all.
    assert [row.pk for row in page.context["object_list"]] == [handle(laptop), handle(phone)]
    assert text.index("Firefox on Linux") < text.index("Safari on iOS") < text.index("2001:db8::1")
    boxes = [each for each in Strict(page.text).all("input") if each["type"] == "checkbox"]
    assert [each["value"] for each in boxes] == [str(handle(laptop)), str(handle(phone))]
    assert all(f'<label for="{each["id"]}">' in page.text for each in boxes)

    waiting = key_of(tablet)
    answer = choose(tablet, page, handle(phone))
    assert (answer.status_code, answer["Location"]) == (302, "/private/")
    assert tablet.get("/private/").text == "alice"
    assert key_of(tablet) != waiting
    assert is_in(laptop)
    answer = phone.get("/private/", follow=True)
    told = "to make room for another device (Chrome on Windows, just now). If you did not sign in"
    assert told in answer.text
    ended = row_with(IPHONE)
    assert (ended.end_reason, ended.ended_by) == (EndReason.LIMIT, row_with(CHROME).user)
    assert UserSession.objects.active().filter(counts=True).count() == 2


def test_what_is_chosen_has_to_be_enough(
    alice: User, laptop: Client, phone: Client, tablet: Client, policy: Callable[..., None]
):
    page = tablet.get(LIMIT)
    assert "<title>You are signed in on too many devices</title>" in page.text
    page = choose(tablet, page)
    assert page.status_code == 200
    assert "Choose at least one device." in words(page)
    fieldsets = Strict(page.text).all("fieldset")
    assert [each["aria-describedby"] for each in fieldsets] == ["sessionkit-error"]
    assert not UserSession.objects.ended().exists()

    # The limit was lowered.
    policy(limit=1, on_limit="ask")
    tablet = sign_in(alice, CHROME)
    page = tablet.get(LIMIT)
    assert "Your account can be signed in on 1 device at a time." in words(page)
    assert "choose at least 2 devices to sign out" in words(page)
    page = choose(tablet, page, handle(phone))
    assert "Choose at least 2 devices." in words(page)
    assert page.text.count(" checked>") == 1
    assert not UserSession.objects.ended().exists()
    assert choose(tablet, page, handle(phone), handle(laptop)).status_code == 302
    assert tablet.get("/whoami/").text == "alice"
    assert not is_in(laptop)
    assert not is_in(phone)


@pytest.mark.standard("ASVS-8.2.2")
def test_nobody_chooses_what_is_somebody_elses(laptop: Client, phone: Client, tablet: Client):
    bob = User.objects.create_user("bob", password="secret")
    stranger = sign_in(bob)
    page = tablet.get(LIMIT)
    own = UserSession.objects.get(user_agent=CHROME).pk  # the one that waits
    for sessions in ([handle(stranger)], [uuid4()], [own], ["garbage"], [""]):
        assert "Choose at least one device." in words(choose(tablet, page, *sessions))
    assert not UserSession.objects.ended().exists()
    choose(tablet, page, handle(stranger), handle(phone))
    assert is_in(stranger, bob)
    assert not is_in(phone)


def test_who_would_rather_not_signs_out(laptop: Client, phone: Client, tablet: Client):
    page = tablet.get(LIMIT)
    answer = choose(tablet, page, handle(phone), sign_out="1")
    assert (answer.status_code, answer["Location"]) == (302, "/login/")
    assert answer.cookies["sessionid"]["max-age"] == 0
    assert row_with(CHROME).end_reason == EndReason.LOGOUT
    assert is_in(phone)
    with override_settings(LOGOUT_REDIRECT_URL="home"):
        tablet = sign_in(row_with(CHROME).user, CHROME)
        assert choose(tablet, tablet.get(LIMIT), sign_out="1")["Location"] == "/"


@pytest.mark.parametrize("out", [[IPHONE], [IPHONE, FIREFOX]], ids=["one", "both"])
def test_there_is_room_when_another_device_has_signed_out(
    laptop: Client, tablet: Client, out: list[str]
):
    UserSession.objects.filter(user_agent__in=out).revoke()
    page = tablet.get(f"{LIMIT}?next=/read/")
    assert "There is room for this device now" in words(page)
    assert "<title>There is room for this device now</title>" in page.text
    assert "choose" not in words(page)
    assert choose(tablet, page)["Location"] == "/read/"
    assert is_in(tablet)
    assert is_in(laptop) == (FIREFOX not in out)


def test_whoever_was_faster_has_the_room(
    alice: User, laptop: Client, phone: Client, tablet: Client
):
    page = tablet.get(LIMIT)
    admit = limits.admit

    def admit_after_somebody_else(*args: Any) -> bool:
        sign_in(alice, "faster")
        return admit(*args)

    with mock.patch.object(limits, "admit", admit_after_somebody_else):
        page = choose(tablet, page, handle(phone))
    assert page.status_code == 200
    assert "Another device has signed in meanwhile." in words(page)
    assert [row.user_agent for row in page.context["object_list"]] == [FIREFOX, "faster"]
    assert choose(tablet, page, handle(laptop)).status_code == 302
    assert is_in(tablet)


@pytest.mark.standard("ASVS-16.5.3")
def test_nobody_comes_in_while_the_store_does_not_answer(
    phone: Client, tablet: Client, monkeypatch: pytest.MonkeyPatch
):
    page = tablet.get(LIMIT)
    the_one = handle(phone)
    with monkeypatch.context() as outage:
        take_down(outage, "remove")
        assert choose(tablet, page, the_one).status_code == 503
    assert tablet.get("/private/")["Location"].startswith(LIMIT)
    UserSession.objects.filter(pk=the_one).revoke()
    assert choose(tablet, tablet.get(LIMIT)).status_code == 302
    assert is_in(tablet)


def test_who_waits_for_too_long_signs_in_again(tablet: Client):
    page = tablet.get(f"{LIMIT}?next=/read/")
    with travel(timedelta(hours=1)):
        assert choose(tablet, page)["Location"] == "/read/"
        answer = tablet.get("/private/", follow=True)
        assert answer.redirect_chain == [("/login/?next=/private/", 302)]
        assert "Your sign-in has expired." in answer.text


def test_who_was_signed_out_while_waiting_signs_in_again(tablet: Client):
    page = tablet.get(f"{LIMIT}?next=/read/")
    # The store has lost its removal.
    UserSession.objects.filter(user_agent=CHROME).update(ended_at=row_with(CHROME).started_at)
    answer = choose(tablet, page)
    assert answer["Location"] == "/login/?next=/read/"
    assert answer.cookies["sessionid"]["max-age"] == 0
    assert not is_in(tablet)


def test_each_page_leads_to_the_one_that_is_due(
    alice: User, laptop: Client, tablet: Client, policy: Callable[..., None]
):
    prove = LIMIT.replace("limit", "reauthenticate")
    assert laptop.get(f"{LIMIT}?next=/read/")["Location"] == "/read/"
    assert Client().get(LIMIT)["Location"] == "/"
    assert tablet.get(f"{prove}?next=/read/")["Location"] == f"{LIMIT}?next=/read/"
    policy(**IDLE)
    laptop = sign_in(alice)
    with travel(timedelta(minutes=11)):
        assert laptop.get(f"{LIMIT}?next=/read/")["Location"] == "/read/"
        assert laptop.get("/private/")["Location"].startswith(prove)


@pytest.mark.standard("ASVS-3.7.2")
def test_nobody_is_led_to_another_site(phone: Client, tablet: Client):
    page = tablet.get(LIMIT, {"next": "https://evil.example/"})
    assert choose(tablet, page, handle(phone))["Location"] == "/"


@pytest.mark.standard("ASVS-3.4.6", "ASVS-3.5.1", "ASVS-14.3.2", "NIST-SB-10", "WSTG-SESS-05")
def test_the_page_is_neither_cached_nor_framed_nor_forged(phone: Client, tablet: Client):
    page = tablet.get(LIMIT)
    assert "no-store" in page["Cache-Control"]
    assert page["X-Frame-Options"] == "DENY"
    forged = tablet.post(LIMIT, {"session": [str(handle(phone))]})
    assert forged.status_code == 403
    assert is_in(phone)


@pytest.mark.standard("ASVS-3.4.3", "ASVS-3.3.4")
def test_the_page_needs_no_script_and_has_no_secret(phone: Client, tablet: Client):
    texts = [tablet.get(LIMIT).text, choose(tablet, tablet.get(LIMIT)).text]
    UserSession.objects.filter(pk=handle(phone)).revoke()
    texts.append(tablet.get(LIMIT).text)
    secrets = [*UserSession.objects.values_list("digest", flat=True), key_of(phone), key_of(tablet)]
    for text in texts:
        page = Strict(text)
        headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        assert headings[0] == 1
        assert {form["method"] for form in page.all("form")} == {"post"}
        assert not [secret for secret in secrets if secret in text]


@pytest.mark.standard("ASVS-3.2.2")
def test_a_user_agent_can_not_write_into_the_page(alice: User, laptop: Client):
    sign_in(alice, '"><script>bot/1')
    page = sign_in(alice, CHROME).get(LIMIT)
    assert "bot" in page.text
    assert "<script" not in page.text


def test_the_page_speaks_german(phone: Client, tablet: Client):
    with translation.override("de"):
        text = words(choose(tablet, tablet.get(LIMIT)))
    assert "Sie sind auf zu vielen Geräten angemeldet" in text
    assert "auf 2 Geräten gleichzeitig" in text
    assert "Wählen Sie mindestens ein Gerät aus." in text
    assert not re.search(r"\b(you|the|please|what|your)\b", text, re.IGNORECASE)


# The list of devices.


def test_list_says_how_many_devices_there_may_be(
    alice: User, laptop: Client, policy: Callable[..., None]
):
    assert "1 of 2 in use." in words(laptop.get(LIST))
    phone = sign_in(alice, IPHONE)
    assert "Waits until another device is signed out" not in words(phone.get(LIST))
    tablet = sign_in(alice, CHROME)
    page = phone.get(LIST)
    assert "2 of 2 in use." in words(page)
    assert len(page.context["object_list"]) == 3
    assert "Chrome on Windows Waits until another device is signed out" in words(page)
    assert words(page).count("Waits until another device is signed out") == 1
    choose(tablet, tablet.get(LIMIT), handle(laptop))
    assert "Waits until another device is signed out" not in words(phone.get(LIST))
    sign_in(alice, FIREFOX)  # waits
    policy(limit=1)
    assert "2 of 1 in use." in words(phone.get(LIST))
    policy()
    assert " of " not in words(phone.get(LIST)).partition("Firefox")[0]
