"""Users are told by mail what happens to their account."""

import logging
import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.db import transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import path
from django.utils import timezone, translation

from django_sessionkit import notices
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.signals import (
    Notice,
    notice_due,
    session_key_reused,
    session_started,
)
from tests import desk
from tests.browsers import BROWSERS, PAGE, browse_as
from tests.pages import OTHERS, press
from tests.people import (
    CHROME,
    FIREFOX,
    IPHONE,
    end_url,
    handle,
    is_in,
    key_of,
    post_sign_in,
    sign_in,
)
from tests.renewals import AFTER, DUE, GRACE, renewed, seen
from tests.store import later
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.site(__name__)]

sent_in_request: list[int] = []


def novel(request: Any) -> HttpResponse:
    """What a sign-in on a new device does, and how many mails are out before the answer."""
    is_novel(request.session.handle)
    sent_in_request.append(len(mail.outbox))
    return HttpResponse("novel")


def novel_and_fail(request: Any) -> HttpResponse:
    with transaction.atomic():
        is_novel(request.session.handle)
        transaction.set_rollback(True)
    return HttpResponse("rolled back")


urlpatterns = [*site, path("novel/", novel), path("novel_and_fail/", novel_and_fail)]


@pytest.fixture(autouse=True)
def every_notice(settings: Any) -> None:
    settings.SESSIONKIT_NOTICES = [kind.value for kind in Notice]
    settings.SESSIONKIT_SITE_URL = "https://shop.example"
    sent_in_request.clear()


def is_novel(session: uuid.UUID, novelty: str = "device") -> None:
    UserSession.objects.filter(pk=session).update(novelty=novelty)
    session_started.send_robust(UserSession, handle=session, novelty=novelty)


def only_mail() -> Any:
    (message,) = mail.outbox
    return message


def html_of(message: Any) -> str:
    ((content, kind),) = message.alternatives
    assert kind == "text/html"
    return str(content)


def row_of_handle(session: uuid.UUID) -> UserSession:
    return UserSession.objects.get(pk=session)


def link_in(message: Any) -> str:
    """Return the path of the link that says "this was not me"."""
    (link,) = re.findall(r"https://shop\.example(/account/sessions/report/\S+)", message.body)
    assert f'href="https://shop.example{link}"' in html_of(message)
    return str(link)


# What is told.


@pytest.mark.parametrize("kind", BROWSERS)
@pytest.mark.standard("ASVS-6.3.5")
def test_who_signs_in_on_a_new_device_is_told_after_the_answer(alice: User, kind: str):
    browser: Any = BROWSERS[kind](headers=PAGE | {"user-agent": IPHONE})
    post_sign_in(browser, REMOTE_ADDR="203.0.113.7")
    browser.get("/novel/", headers={"user-agent": IPHONE})
    assert sent_in_request == [0]
    message = only_mail()
    assert message.to == ["alice@example.org"]
    assert message.subject == "New sign-in to your account (shop.example)"
    assert message.extra_headers == {"Auto-Submitted": "auto-generated"}
    for words in (message.body, html_of(message)):
        assert "Safari on iOS" in words
        assert "alice" in words
        assert "https://shop.example/account/sessions/" in words
        assert key_of(browser) not in words
    assert link_in(message)


def test_nobody_is_told_what_was_rolled_back(alice: User):
    sign_in(alice).get("/novel_and_fail/")
    assert mail.outbox == []


@pytest.mark.parametrize("novelty", ["", "place"])
def test_nothing_is_told_of_a_sign_in_on_a_known_device(alice: User, novelty: str):
    is_novel(handle(sign_in(alice)), novelty)
    assert mail.outbox == []


def test_who_has_no_address_is_not_told(alice: User):
    User.objects.update(email="")
    is_novel(handle(sign_in(alice)))
    assert mail.outbox == []


def test_site_without_notices_sends_none(alice: User, settings: Any):
    settings.SESSIONKIT_NOTICES = ()
    laptop, phone = sign_in(alice), sign_in(alice, IPHONE)
    is_novel(handle(phone))
    session_key_reused.send(UserSession, handle=handle(phone), client=None)
    press(laptop, OTHERS)
    UserSession.objects.revoke(EndReason.REVOKED_BY_STAFF)
    assert mail.outbox == []


def test_who_signs_out_others_is_told_once_with_their_number(alice: User):
    laptop, *others = [sign_in(alice, agent) for agent in (FIREFOX, IPHONE, CHROME)]
    press(laptop, OTHERS)
    assert not any(is_in(each) for each in others)
    message = only_mail()
    assert message.subject == "2 devices were signed out of your account (shop.example)"


def test_sign_ins_of_one_browser_are_one_device_in_a_mail_too(alice: User):
    laptop, *phone = [sign_in(alice, agent) for agent in (FIREFOX, IPHONE, IPHONE)]
    browser = uuid.uuid4()
    UserSession.objects.filter(pk__in=map(handle, phone)).update(browser=browser)
    press(laptop, OTHERS)
    assert only_mail().subject == "1 device was signed out of your account (shop.example)"


def test_who_signs_out_one_after_the_other_is_told_once_an_hour(alice: User):
    laptop, phone, tablet, old = [
        sign_in(alice, agent) for agent in (FIREFOX, IPHONE, CHROME, CHROME)
    ]
    for device in (phone, tablet):
        press(laptop, end_url(device))
    assert only_mail().subject == "1 device was signed out of your account (shop.example)"
    an_hour_ago = timezone.now() - timedelta(minutes=61)
    UserSession.objects.exclude(ended_at=None).update(ended_at=an_hour_ago)
    press(laptop, end_url(old))
    assert len(mail.outbox) == 2


def test_what_a_thief_ends_is_told_though_its_user_has_just_ended_something(alice: User):
    laptop, phone, thief = [sign_in(alice, agent) for agent in (FIREFOX, IPHONE, CHROME)]
    ended(laptop, phone)
    ended(thief, laptop)
    assert len(mail.outbox) == 2
    of_thief = mail.outbox[1]
    assert "Chrome on Windows" in of_thief.body
    assert "It was done on the device below" in of_thief.body
    press(Client(), link_in(of_thief))
    assert not is_in(thief)


def ended(by: Client, device: Client) -> None:
    """What a page does that ends a device from another one."""
    row = UserSession.objects.filter(pk=handle(device))
    actor = handle(by)
    with transaction.atomic():
        row.revoke(by=User.objects.get(username="alice"))
        UserSession.objects.filter(pk=row.get().pk).update(ended_from=actor)


def test_who_is_signed_out_by_staff_is_told_by_whom_but_not_their_name(alice: User, root: User):
    phone = sign_in(alice, IPHONE)
    desk.end(sign_in(root), desk.delete_url(phone))
    assert not is_in(phone)
    message = only_mail()
    assert message.subject == "Our staff signed you out (shop.example)"
    assert "The staff of shop.example signed out 1 device of yours." in message.body
    assert "Safari on iOS" in message.body
    assert "root" not in message.body + html_of(message).partition("</head>")[2]
    assert "/report/" not in message.body + html_of(message)


def test_code_that_ends_sessions_for_somebody_else_is_staff(alice: User, bob: User, root: User):
    for user in (alice, alice, bob):
        sign_in(user)
    UserSession.objects.revoke(by=root)
    assert sorted(message.to[0] for message in mail.outbox) == [
        "alice@example.org",
        "bob@example.org",
    ]
    assert any("signed out 2 devices of yours" in str(message.body) for message in mail.outbox)


@pytest.mark.parametrize("reason", [reason for reason in EndReason if "revoked" not in reason])
def test_what_nobody_has_done_is_not_told(alice: User, reason: EndReason):
    sign_in(alice)
    UserSession.objects.revoke(reason, by=alice)
    assert mail.outbox == []


def test_code_that_ends_sessions_for_their_user_names_no_device(alice: User):
    sign_in(alice)
    UserSession.objects.revoke(by=alice)
    message = only_mail()
    assert message.subject == "1 device was signed out of your account (shop.example)"
    assert "Somebody who is signed in as you did that." in message.body
    assert "/report/" not in message.body


def test_code_that_says_not_who_ends_a_session_tells_nobody(laptop: Client):
    UserSession.objects.revoke()
    assert mail.outbox == []


def test_only_what_the_site_asked_for_is_told(alice: User, root: User, settings: Any):
    settings.SESSIONKIT_NOTICES = ["ended_by_staff"]
    laptop, phone = sign_in(alice), sign_in(alice, IPHONE)
    is_novel(handle(phone))
    session_key_reused.send(UserSession, handle=handle(phone), client=None)
    press(laptop, OTHERS)
    assert mail.outbox == []
    UserSession.objects.revoke(EndReason.REVOKED_BY_STAFF, by=root)
    assert len(mail.outbox) == 1


@pytest.mark.parametrize("on_reuse", ["end", "report"])
def test_who_has_an_old_key_used_is_told_once(
    signed_in: Callable[..., Any], policy: Any, on_reuse: str
):
    policy(renew_after=AFTER, renew_grace=GRACE, on_reuse=on_reuse)
    phone = signed_in()
    copied = browse_as(phone, renewed(phone))
    seen(phone)
    with later(DUE + GRACE + 100):
        for _ in range(3):
            is_in(copied)
        message = only_mail()
        assert message.subject == "Somebody may be using your account (shop.example)"
        assert ("the device was signed out" in message.body) == (on_reuse == "end")
        assert is_in(phone) == (on_reuse != "end")
        press(Client(), link_in(message))
        assert not is_in(phone)


@pytest.mark.parametrize("kind", [Notice.NEW_DEVICE, Notice.OLD_KEY])
def test_nobody_is_told_of_the_device_of_staff_who_act_as_them(alice: User, kind: Notice):
    session = handle(sign_in(alice))
    UserSession.objects.update(support=True)
    notices.note(kind, session)
    assert mail.outbox == []


def test_place_and_address_are_told_as_far_as_they_are_known(alice: User):
    session = handle(sign_in(alice, address="203.0.113.7"))
    with mock.patch.object(UserSession, "place", "Berlin, Germany"):
        is_novel(session)
    assert "Place: near Berlin, Germany (estimated)" in mail.outbox[0].body
    assert "Internet address (IP): 203.0.113.7" in mail.outbox[0].body
    UserSession.objects.update(ip=None)
    is_novel(session)
    assert "Place" not in mail.outbox[1].body
    assert "address" not in mail.outbox[1].body


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Chicago"])
def test_time_is_that_of_the_site_and_not_of_the_request(alice: User, settings: Any, zone: str):
    session = handle(sign_in(alice))
    UserSession.objects.update(started_at="2030-01-02T12:34:00+00:00")
    settings.TIME_ZONE = zone
    with timezone.override("Asia/Tokyo"):
        is_novel(session)
    hour = {"Europe/Berlin": "1:34", "America/Chicago": "6:34"}[zone]
    assert f"Time: Jan. 2, 2030, {hour} " in mail.outbox[0].body
    assert f"({zone})" in mail.outbox[0].body


def test_time_is_told_on_a_site_without_time_zones(alice: User, settings: Any):
    session = handle(sign_in(alice))
    settings.USE_TZ = False
    at = timezone.now()
    UserSession.objects.update(started_at=at)
    is_novel(session)
    assert f", {at.year}, " in mail.outbox[0].body


# In which language.


def test_mail_is_in_the_language_of_the_sign_in(alice: User):
    with translation.override("de"):
        session = handle(sign_in(alice))
    assert row_of_handle(session).language == "de"
    is_novel(session)
    assert 'lang="de"' in html_of(only_mail())


def test_thief_does_not_choose_the_language_of_the_mail(alice: User):
    with translation.override("de"):
        sign_in(alice)
    with translation.override("ja"):
        thief = handle(sign_in(alice, CHROME))
    UserSession.objects.filter(pk=thief).update(browser=uuid.uuid4())
    is_novel(thief)
    assert 'lang="de"' in html_of(only_mail())


def test_second_sign_in_of_a_thief_does_not_choose_the_language_either(alice: User):
    browser = uuid.uuid4()
    with translation.override("de"):
        sign_in(alice)
    with translation.override("ja"):
        thieves = [handle(sign_in(alice, CHROME)) for _ in range(2)]
    UserSession.objects.filter(pk__in=thieves).update(browser=browser)
    is_novel(thieves[1])
    assert 'lang="de"' in html_of(only_mail())


def test_staff_do_not_choose_the_language_of_the_mail(alice: User, root: User):
    with translation.override("de"):
        sign_in(alice)
    with translation.override("ja"):
        UserSession.objects.revoke(EndReason.REVOKED_BY_STAFF, by=root)
    assert 'lang="de"' in html_of(only_mail())


def test_staff_who_acted_as_the_user_do_not_choose_it_either(alice: User):
    with translation.override("de"):
        laptop = sign_in(alice)
    with translation.override("ja"):
        support = handle(sign_in(alice, CHROME))
    UserSession.objects.filter(pk=support).update(support=True)
    press(laptop, OTHERS)
    assert 'lang="de"' in html_of(only_mail())


def test_mail_is_in_the_language_of_the_site_if_nothing_is_known(alice: User, settings: Any):
    settings.LANGUAGE_CODE = "fr"
    session = handle(sign_in(alice))
    UserSession.objects.update(language="")
    is_novel(session)
    assert 'lang="fr"' in html_of(only_mail())


# Hostile text.

HOSTILE = '<b onclick="x">\u202egnp.\u05d0</b>'


def test_name_of_a_user_does_no_harm_in_a_mail(alice: User):
    User.objects.update(username=HOSTILE)
    session = UserSession.objects.create(
        user=alice,
        digest="0" * 64,
        started_at=timezone.now(),
        last_seen_at=timezone.now(),
        expires_at=timezone.now() + timedelta(days=1),
        label="Call 0900 123456",
    )
    is_novel(session.pk)
    message = only_mail()
    assert "<b onclick" not in html_of(message)
    assert "<bdi>&lt;b onclick" in html_of(message)
    assert f"Account: \u2068{HOSTILE}\u2069\n" in message.body
    assert "0900" not in message.body + html_of(message)
    message.message().as_bytes()


@pytest.mark.parametrize(
    ("user_agent", "hints"),
    [
        ("Call 0900 123456/1 (iPhone)", {}),
        (CHROME, {"sec-ch-ua": '"Call 0900 123456"; v="1"'}),
        (CHROME, {"sec-ch-ua": '"Chrome"; v="1"', "sec-ch-ua-platform": '"Call 0900 123456"'}),
    ],
)
def test_thief_says_nothing_in_a_mail(alice: User, user_agent: str, hints: dict[str, str]):
    thief = Client(headers={**PAGE, "user-agent": user_agent, **hints})
    post_sign_in(thief)
    is_novel(handle(thief))
    message = only_mail()
    assert "Device: " in message.body
    assert "0900" not in message.body + html_of(message)


def test_values_stand_for_themselves_among_arabic_words(alice: User):
    with translation.override("ar"):
        is_novel(handle(sign_in(alice)))
    assert "\u2068alice\u2069\n" in only_mail().body
    assert '<html lang="ar" dir="rtl">' in html_of(only_mail())


def test_address_of_the_link_is_not_from_the_host_header(alice: User, settings: Any):
    settings.ALLOWED_HOSTS = ["*"]
    browser = sign_in(alice)
    browser.get("/novel/", headers={"host": "evil.example", "x-forwarded-host": "evil.example"})
    assert "evil" not in only_mail().message().as_string() + html_of(only_mail())
    assert link_in(only_mail())


# How many.


def test_thief_who_signs_in_a_hundred_times_does_not_fill_the_mailbox(alice: User):
    session = row_of_handle(handle(sign_in(alice)))
    rows = [
        UserSession(
            user=alice,
            digest=f"{number:064}",
            started_at=timezone.now(),
            last_seen_at=timezone.now(),
            expires_at=session.expires_at,
        )
        for number in range(100)
    ]
    UserSession.objects.bulk_create(rows)
    for row in rows:
        is_novel(row.pk)
    assert len(mail.outbox) == 5
    # An hour later, there is news again.
    UserSession.objects.update(started_at=timezone.now() - timedelta(minutes=61))
    is_novel(handle(sign_in(alice, CHROME)))
    assert len(mail.outbox) == 6


# Other ways than a mail.


@pytest.fixture
def listen() -> Any:
    receivers: list[Any] = []

    def listen(receiver: Callable[..., Any]) -> None:
        receivers.append(receiver)
        notice_due.connect(receiver, weak=False)

    yield listen
    for receiver in receivers:
        notice_due.disconnect(receiver)


@pytest.mark.parametrize("answer", [True, None, "sent", 1])
def test_site_can_tell_its_users_in_another_way(alice: User, listen: Any, answer: Any):
    heard: list[Any] = []

    def text_message(**arguments: Any) -> Any:
        heard.append(arguments)
        return answer

    listen(text_message)
    session = handle(sign_in(alice))
    is_novel(session)
    ((arguments),) = heard
    del arguments["signal"]
    assert arguments == {
        "sender": UserSession,
        "kind": "new_device",
        "handle": session,
        "user": alice,
    }
    assert len(mail.outbox) == (0 if answer is True else 1)


def test_receiver_that_fails_keeps_no_mail_back(
    alice: User, listen: Any, caplog: pytest.LogCaptureFixture
):
    def fail(**arguments: Any) -> None:
        raise RuntimeError

    listen(fail)
    is_novel(handle(sign_in(alice)))
    assert len(mail.outbox) == 1


# What fails.


def test_mail_server_that_is_down_spoils_no_sign_in(
    alice: User, settings: Any, caplog: pytest.LogCaptureFixture
):
    browser = sign_in(alice)
    refused = OSError("550 alice@example.org is unknown")
    with mock.patch("django.core.mail.backends.locmem.EmailBackend.send_messages") as send:
        send.side_effect = refused
        assert browser.get("/novel/").content == b"novel"
    assert is_in(browser)
    (record,) = [each for each in caplog.records if each.name == "django_sessionkit"]
    said_in_log = logging.Formatter().format(record)
    assert f"The notice new_device of session {handle(browser)} was not sent" in said_in_log
    assert "OSError" in said_in_log
    assert "alice" not in said_in_log


def test_template_that_is_broken_spoils_no_sign_in(alice: User, caplog: pytest.LogCaptureFixture):
    browser = sign_in(alice)
    with mock.patch("django_sessionkit.mails.render_to_string", side_effect=ZeroDivisionError):
        assert browser.get("/novel/").content == b"novel"
    (record,) = [each for each in caplog.records if each.name == "django_sessionkit"]
    assert "ZeroDivisionError" in logging.Formatter().format(record)


def test_session_that_was_purged_meanwhile_is_not_told(alice: User):
    session = handle(sign_in(alice))
    UserSession.objects.all().delete()
    notices.hand_on("new_device", session)
    assert mail.outbox == []


def test_end_that_has_not_come_is_not_told(alice: User):
    """A worker sees a row as it is now."""
    notices.hand_on("others_ended", handle(sign_in(alice)))
    assert mail.outbox == []
