"""
Every page that people may see, and the way to it. What holds for all of them is tested on each row:
that axe finds nothing, that it fits on a telephone, that it can be used without a mouse.

A new page takes a row here. ``url`` is its name in django_sessionkit.urls.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Page

from django_sessionkit.links import report_link
from django_sessionkit.models import UserSession
from tests import people, store
from tests.apps import App
from tests.pages import LIST, OTHERS, press
from tests.people import CHROME, FIREFOX, IPHONE

INACTIVE = f"{LIST}inactive/end/"

# A name as long as programs send it, and without a place to break it.
LONG = "Mozilla/5.0 (compatible; " + 200 * "x" + "/1.0)"


@dataclass
class Visit:
    """A device that is brought to a page, and what the way there takes."""

    open_device: Callable[..., Page]
    alice: User
    policy: Callable[..., None]
    clock: store.Clock
    monkeypatch: pytest.MonkeyPatch
    page: Page = None  # type: ignore[assignment] # until open()

    def open(self, **options: Any) -> None:
        self.page = self.open_device(**options)

    def sign_in(self, to: str = "/") -> None:
        """Sign in on the device, by the form, which leads to this page."""
        self.page.goto(f"/login/?next={to}")
        self.page.fill("[name=username]", "alice")
        self.page.fill("[name=password]", "secret")
        self.page.press("[name=password]", "Enter")
        self.page.wait_for_load_state()

    def sign_in_elsewhere(self, *user_agents: str) -> list[Client]:
        """Sign in on other devices."""
        return [people.sign_in(self.alice, user_agent) for user_agent in user_agents]

    def press(self, index: int = 0) -> None:
        """Press a main button, or follow a link that looks like one."""
        self.page.locator(".sessionkit-main:visible").nth(index).click()
        self.page.wait_for_load_state()


class Row(NamedTuple):
    url: str
    reach: Callable[[Visit], None]


def list_of(*others: str) -> Callable[[Visit], None]:
    def reach(visit: Visit) -> None:
        visit.sign_in_elsewhere(*others)
        visit.sign_in(LIST)

    return reach


def ending(path: Callable[[Any], str]) -> Callable[[Visit], None]:
    """Return the way to the page that asks whether to end what ``path`` says of a device."""

    def reach(visit: Visit) -> None:
        (phone,) = visit.sign_in_elsewhere(IPHONE)
        visit.sign_in(path(phone))

    return reach


def end_this(visit: Visit) -> None:
    visit.sign_in(LIST)
    visit.page.locator(".sessionkit-current a.sessionkit-button").click()


def end_again(visit: Visit) -> None:
    (phone,) = visit.sign_in_elsewhere(IPHONE)
    url = people.end_url(phone)
    visit.sign_in(url)
    visit.press()
    visit.page.goto(url)


def list_with_a_message(visit: Visit) -> None:
    (phone, _computer) = visit.sign_in_elsewhere(IPHONE, CHROME)
    visit.sign_in(people.end_url(phone))
    visit.press()


def list_with_history(visit: Visit) -> None:
    (_phone, computer) = visit.sign_in_elsewhere(IPHONE, CHROME)
    UserSession.objects.filter(pk=people.handle(computer)).revoke()
    visit.sign_in(LIST)
    for summary in visit.page.locator("summary").all():
        summary.click()


def device_of_several(visit: Visit) -> Client:
    """Sign in on a telephone three times, and return it."""
    phones = visit.sign_in_elsewhere(IPHONE, IPHONE, IPHONE)
    UserSession.objects.update(browser=uuid.uuid4())
    return phones[0]


def list_with_several(visit: Visit) -> None:
    device_of_several(visit)
    visit.sign_in(LIST)
    for summary in visit.page.locator("summary").all():
        summary.click()


def list_of_one_device(visit: Visit) -> None:
    phone = device_of_several(visit)
    visit.sign_in(f"{LIST}?device={people.handle(phone).hex}")


def end_device(visit: Visit) -> None:
    phone = device_of_several(visit)
    visit.sign_in(f"{LIST}{people.handle(phone)}/device/end/")


def not_used_for_long(visit: Visit) -> None:
    visit.policy(idle=365 * 86400, absolute=365 * 86400)
    visit.sign_in_elsewhere(IPHONE)
    UserSession.objects.update(last_seen_at=timezone.now() - timedelta(days=100))


def list_of_inactive(visit: Visit) -> None:
    not_used_for_long(visit)
    visit.sign_in(f"{LIST}?inactive=1")


def end_inactive(visit: Visit) -> None:
    not_used_for_long(visit)
    visit.sign_in(INACTIVE)


def rename(visit: Visit) -> None:
    (phone,) = visit.sign_in_elsewhere(IPHONE)
    visit.sign_in(f"{LIST}{people.handle(phone)}/name/")


def rename_and_fail(visit: Visit) -> None:
    rename(visit)
    visit.page.evaluate("document.querySelector('[name=label]').removeAttribute('maxlength')")
    visit.page.fill("[name=label]", 65 * "x")
    visit.press()


def report(visit: Visit) -> None:
    (phone,) = visit.sign_in_elsewhere(IPHONE)
    visit.page.goto(report_link(people.handle(phone)))


def reported(visit: Visit) -> None:
    report(visit)
    visit.press()


def report_too_late(visit: Visit) -> None:
    visit.page.goto(f"{LIST}report/over/")


def hand_over(visit: Visit) -> None:
    """Be led to the page to which an app has handed somebody else over."""
    app = App()
    app.sign_in()
    url = f"{LIST}hand-over/{app.code()}/"
    visit.page.goto("/login/")
    visit.page.evaluate("url => { location.href = url }", url)
    visit.page.wait_for_url(f"**{url}")


def hand_over_too_late(visit: Visit) -> None:
    visit.page.goto(f"{LIST}hand-over/over/")


def prove(visit: Visit) -> None:
    visit.sign_in_elsewhere(IPHONE)
    visit.sign_in()
    visit.clock.move(hours=2)
    visit.page.goto(OTHERS)


def prove_and_fail(visit: Visit) -> None:
    prove(visit)
    visit.page.fill("[name=password]", "wrong")
    visit.press()


def prove_to_send(visit: Visit) -> None:
    visit.sign_in("/transfer/")
    visit.page.fill("[name=amount]", "20")
    visit.clock.move(minutes=6)
    visit.press()


def send(visit: Visit) -> None:
    prove_to_send(visit)
    visit.page.fill("[name=password]", "secret")
    visit.press()


def locked(visit: Visit) -> None:
    visit.policy(idle=600, absolute=86400, lock=True)
    visit.sign_in()
    visit.clock.move(seconds=601)
    visit.page.goto("/")


def limit(visit: Visit) -> None:
    visit.policy(limit=2, on_limit="ask")
    visit.sign_in_elsewhere(IPHONE, CHROME)
    visit.sign_in()


def limit_not_met(visit: Visit) -> None:
    limit(visit)
    visit.press()


def farewell(visit: Visit) -> None:
    visit.sign_in()
    (phone,) = visit.sign_in_elsewhere(IPHONE)
    press(phone, OTHERS)
    visit.page.goto("/")


def overtaken(visit: Visit) -> None:
    visit.sign_in()
    visit.page.get_by_role("button", name="Be overtaken").click()


def store_down(visit: Visit) -> None:
    visit.sign_in()
    store.take_down(visit.monkeypatch, "read")
    visit.page.goto("/")


PAGES = {
    "list": Row("session_list", list_of(FIREFOX, IPHONE, "curl/8.5", LONG)),
    "list-of-one": Row("session_list", list_of()),
    "list-of-61": Row("session_list", list_of(*(60 * [IPHONE]))),
    "list-with-a-message": Row("session_list", list_with_a_message),
    "end": Row("session_end", ending(people.end_url)),
    "end-this": Row("session_end", end_this),
    "end-again": Row("session_end", end_again),
    "end-others": Row("session_end_others", ending(lambda phone: OTHERS)),
    "end-others-none": Row("session_end_others", lambda visit: visit.sign_in(OTHERS)),
    "list-with-history": Row("session_list", list_with_history),
    "list-with-several": Row("session_list", list_with_several),
    "list-of-one-device": Row("session_list", list_of_one_device),
    "list-of-inactive": Row("session_list", list_of_inactive),
    "end-device": Row("session_end_device", end_device),
    "end-inactive": Row("session_end_inactive", end_inactive),
    "end-inactive-none": Row("session_end_inactive", lambda visit: visit.sign_in(INACTIVE)),
    "rename": Row("session_rename", rename),
    "rename-and-fail": Row("session_rename", rename_and_fail),
    "report": Row("session_report", report),
    "reported": Row("session_report", reported),
    "report-too-late": Row("session_report", report_too_late),
    "prove": Row("reauthenticate", prove),
    "prove-and-fail": Row("reauthenticate", prove_and_fail),
    "prove-to-send": Row("reauthenticate", prove_to_send),
    "send": Row("reauthenticate", send),
    "locked": Row("reauthenticate", locked),
    "limit": Row("session_limit", limit),
    "limit-not-met": Row("session_limit", limit_not_met),
    "hand-over": Row("session_hand_over", hand_over),
    "hand-over-too-late": Row("session_hand_over", hand_over_too_late),
    # Without a URL of their own.
    "farewell": Row("", farewell),
    "overtaken": Row("", overtaken),
    "store-down": Row("", store_down),
}

# What scripts ask, and people never see.
NO_PAGES = {"session_status"}
