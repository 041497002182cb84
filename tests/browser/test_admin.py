"""The staff's pages in a browser: a stolen session, found and ended, and what everybody can use."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Locator, Page, expect

from django_sessionkit import endings
from django_sessionkit.models import Ending, EndReason, UserSession
from tests import people
from tests.browser.looking import (
    LOOKS,
    found_by_axe,
    look_at,
    what_a_policy_could_forbid,
    wider_than_the_window,
)
from tests.desk import CHANGELIST, END_SHOWN, ENDINGS, SAME_PASSWORD, SWITCH
from tests.people import CHROME, IPHONE

THIEF = "203.0.113.9"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=[True, False], ids=["script", "no-script"])
def desk(request: pytest.FixtureRequest, open_device: Callable[..., Page], root: User) -> Page:
    """A browser in which staff have signed in, with or without JavaScript."""
    page = open_device(java_script_enabled=request.param)
    page.goto(f"/admin/login/?next={CHANGELIST}")
    # A page is loaded before Chromium moves the focus to its field.
    expect(page.locator("[name=username]")).to_be_focused()
    page.keyboard.type("root")
    page.keyboard.press("Tab")
    page.keyboard.type("secret")
    page.keyboard.press("Enter")
    expect(title(page)).to_have_text("Sessions")
    return page


def go_to(page: Page, target: Locator) -> None:
    """Press Tab until the focus is there."""
    for _ in range(60):
        if target.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError("The keyboard does not lead there.")


def fill(page: Page, name: str, text: str) -> None:
    go_to(page, page.locator(f"#content [name={name}]"))
    page.keyboard.type(text)


def title(page: Page) -> Locator:
    return page.get_by_role("heading", level=1)


def messages(page: Page) -> str:
    return page.locator(".messagelist").inner_text()


def is_in(device: Client) -> bool:
    return device.get("/").status_code == 200


def test_a_stolen_session_is_found_and_ended_by_the_keyboard_alone(desk: Page, alice: User):
    phone, stolen = people.sign_in(alice, IPHONE), people.sign_in(alice, CHROME, THIEF)
    desk.reload()
    fill(desk, "q", f"alice {THIEF}")
    desk.keyboard.press("Enter")
    desk.wait_for_url(re.compile("q=alice"))
    go_to(desk, desk.locator("#result_list a.sessionkit-end"))
    desk.keyboard.press("Enter")
    expect(title(desk)).to_have_text("End this session?")
    assert "Chrome on Windows" in desk.inner_text("#content-main")

    # Enter alone is not enough: it takes a reason.
    go_to(desk, desk.locator("#content-main input[type=submit]"))
    desk.keyboard.press("Enter")
    expect(desk.locator(".errornote")).to_be_visible()
    assert desk.title().startswith("Error:")
    note = desk.get_by_label("Reason")
    assert note.get_attribute("aria-invalid") == "true"
    fill(desk, "note", "ticket 4711")
    desk.keyboard.press("Enter")
    desk.wait_for_url(re.compile("q=alice"))
    assert f"of alice on Chrome on Windows was ended. {SAME_PASSWORD}" in messages(desk)
    assert [is_in(stolen), is_in(phone)] == [False, True]

    # The message leads to the user, whose page has the other session.
    go_to(desk, desk.locator(".messagelist a"))
    desk.keyboard.press("Enter")
    go_to(desk, desk.get_by_role("link", name="1 active session"))
    desk.keyboard.press("Enter")
    go_to(desk, desk.get_by_role("button", name="End all sessions"))
    desk.keyboard.press("Enter")
    expect(title(desk)).to_have_text("End 1 session of 1 person?")


def test_ones_own_among_those_of_a_network(desk: Page, alice: User):
    people.sign_in(alice, address="127.0.0.1")
    desk.goto(f"{END_SHOWN}?network=127.0.0.0/24")
    expect(title(desk)).to_have_text("End 2 sessions of 2 people?")
    fill(desk, "note", "ticket 4711")
    go_to(desk, desk.get_by_label("Leave my own session out"))
    desk.keyboard.press("Space")
    desk.keyboard.press("Enter")
    desk.wait_for_url(re.compile("/admin/login/"))
    assert "You have ended the session that you were using. Sign in again." in messages(desk)
    fill(desk, "username", "root")
    fill(desk, "password", "secret")
    desk.keyboard.press("Enter")
    expect(title(desk)).to_have_text("Finished: 2 sessions ended")


def test_the_switch_and_a_page_that_comes_anew_until_all_is_done(
    desk: Page, alice: User, monkeypatch: pytest.MonkeyPatch
):
    phone = people.sign_in(alice)
    work, views = endings.work, 0

    def slowly(ending: Ending, seconds: float) -> bool:
        nonlocal views
        views += 1
        return work(ending, seconds) if views > 2 else False

    monkeypatch.setattr(endings, "work", slowly)
    desk.goto(SWITCH)
    go_to(desk, desk.get_by_label("Every session of everybody"))
    desk.keyboard.press("Space")
    fill(desk, "note", "incident 12")
    fill(desk, "typed", "end all sessions")
    desk.keyboard.press("Enter")
    desk.wait_for_url(re.compile(ENDINGS))
    assert "In effect since" in desk.inner_text("#content-main")
    expect(desk.get_by_role("progressbar")).to_be_visible()
    # Nobody presses anything.
    expect(title(desk)).to_have_text("Finished: 1 session ended")
    assert not is_in(phone)


def test_columns_of_the_list_fit_into_1280_pixels(desk: Page, root: User, alice: User):
    people.sign_in(alice, IPHONE, "2001:db8:1234:5678:9abc:def0:1234:5678")
    ended = UserSession.objects.filter(pk=people.handle(people.sign_in(alice, CHROME, THIEF)))
    ended.revoke(
        EndReason.REVOKED_BY_STAFF, root, note="https://tickets.example.org/" + "4711" * 30
    )
    desk.set_viewport_size({"width": 1280, "height": 900})
    desk.goto(f"{CHANGELIST}?state=all")
    assert "https://tickets" in desk.inner_text("#result_list")
    table = desk.locator("#result_list").bounding_box()
    assert table
    assert table["x"] + table["width"] <= 1280
    assert desk.locator(".results").evaluate("each => each.scrollWidth <= each.clientWidth")


# What holds for each of these pages.


def reach(page: Page, name: str, alice: User) -> None:
    row = UserSession.objects.get(user=alice, ip=THIEF)
    page.goto(
        {
            "one": f"{CHANGELIST}{row.pk}/delete/",
            "selected": f"{CHANGELIST}?state=all",
            "shown": f"{END_SHOWN}?users={alice.pk}",
            "switch": SWITCH,
            "ending": f"{ENDINGS}{Ending.objects.get(finished_at=None).pk}/?still",
            "finished": f"{ENDINGS}{Ending.objects.exclude(finished_at=None).get().pk}/",
            "endings": ENDINGS,
        }[name]
    )
    if name == "selected":
        page.locator("#action-toggle").check()
        page.select_option("[name=action]", "delete_selected")
        page.locator("button[name=index]").click()
    if name in ("one", "selected", "shown", "switch"):  # with errors
        page.locator("#content-main input[type=submit]").click()
        expect(page.locator(".errornote")).to_be_visible()


PAGES = ["one", "selected", "shown", "switch", "ending", "finished", "endings"]


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_for_everybody(
    open_device: Callable[..., Page],
    root: User,
    alice: User,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
):
    people.sign_in(alice, IPHONE)
    people.sign_in(alice, CHROME, THIEF)
    by: dict[str, Any] = {"by": root, "ended_from": None, "note": "a ticket " * 28}
    endings.throw(Ending.Scope.EVERYBODY, before=LONG_AGO, **by)
    assert endings.work(endings.throw(Ending.Scope.STAFF, before=LONG_AGO, **by), 9)
    monkeypatch.setattr(endings, "work", lambda *args: False)
    monkeypatch.setattr(endings, "BACKGROUND", 1)
    page = open_device()
    page.goto("/admin/login/")
    page.fill("[name=username]", "root")
    page.fill("[name=password]", "secret")
    page.press("[name=password]", "Enter")
    page.wait_for_load_state()
    reach(page, name, alice)
    assert title(page).count() == 1
    assert what_a_policy_could_forbid(page) == []
    for look in LOOKS:
        look_at(page, look)
        # The admin's colours change slowly.
        page.evaluate("Promise.all(document.getAnimations().map(each => each.finished))")
        found = found_by_axe(page, look, within="#content-main")
        assert found == [], look
        assert "the page" not in wider_than_the_window(page), look
