"""Alice and her devices, with JavaScript and without."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from django_sessionkit.models import UserSession
from tests.pages import LIST
from tests.people import CHROME_ON_LINUX, IPHONE
from tests.policies import LOCK


@pytest.fixture(params=[True, False], ids=["script", "no-script"])
def device(
    request: pytest.FixtureRequest, open_device: Callable[..., Page], alice: User, clock: Any
) -> Callable[..., Page]:
    """A function that opens a device, with or without JavaScript, on which Alice signs in."""

    def device(user_agent: str, **options: Any) -> Page:
        page = open_device(user_agent=user_agent, java_script_enabled=request.param, **options)
        sign_in(page)
        return page

    return device


@pytest.fixture
def laptop(device: Callable[..., Page]) -> Page:
    return device(CHROME_ON_LINUX)


@pytest.fixture
def phone(laptop: Page, device: Callable[..., Page]) -> Page:
    return device(IPHONE, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)


def sign_in(page: Page) -> None:
    page.goto("/login/")
    page.fill("[name=username]", "alice")
    page.fill("[name=password]", "secret")
    page.click("button")


def prove(page: Page) -> None:
    """Enter the password where the kit asks for it."""
    page.fill("[name=password]", "secret")
    main(page)


def main(page: Page) -> None:
    """Press the main button."""
    page.locator(".sessionkit-main:visible").click()


def way_to_end(page: Page, user_agent: str) -> Any:
    """Return the link in the list that leads to the end of this device's session."""
    handle = UserSession.objects.active().get(user_agent=user_agent).pk
    return page.locator(f'a[href*="/{handle}/end/"]')


def test_a_telephone_that_was_lost(laptop: Page, phone: Page, clock: Any):
    # Both are listed on both.
    for page, here in [(laptop, "Chrome on Linux"), (phone, "Safari on iOS")]:
        expect(page.get_by_role("heading", level=1)).to_have_text("Hello alice")
        page.get_by_role("link", name="Your devices").click()
        text = page.inner_text("main")
        assert "Chrome on Linux" in text
        assert "Safari on iOS" in text
        assert here in page.inner_text(".sessionkit-current")

    # It takes the password to end another, some time after the sign-in.
    clock.move(hours=2)
    way_to_end(laptop, IPHONE).click()
    prove(laptop)
    expect(laptop.get_by_role("heading", level=1)).to_contain_text("Safari on iOS")
    main(laptop)
    expect(laptop).to_have_url(re.compile(f"{LIST}$"))
    (said,) = laptop.locator(".sessionkit-messages .sessionkit-success").all_inner_texts()
    assert "Safari on iOS was signed out" in said
    assert laptop.title().startswith(said)  # a screen reader reads it first
    assert "Safari on iOS" not in laptop.inner_text(".sessionkit-list")

    # The telephone reads why, and can sign in again.
    phone.reload()
    expect(phone).to_have_url(re.compile("/login/"))
    assert "You were signed out" in phone.inner_text(".sessionkit-messages .sessionkit-warning")
    sign_in(phone)
    expect(phone.get_by_role("heading", level=1)).to_have_text("Hello alice")
    expect(phone.locator(".sessionkit-messages")).to_have_count(0)


def test_one_device_too_many(
    policy: Callable[..., None], laptop: Page, phone: Page, device: Callable[..., Page]
):
    policy(limit=2, on_limit="ask")
    tablet = device("Mozilla/5.0 (iPad; CPU OS 18_7 like Mac OS X) AppleWebKit/605.1.15 Safari/604")
    expect(tablet).to_have_url(re.compile("/limit/"))
    assert UserSession.objects.active().filter(counts=True).count() == 2
    tablet.locator("label", has_text="Safari on iOS").click()
    main(tablet)
    expect(tablet.get_by_role("heading", level=1)).to_have_text("Hello alice")
    phone.reload()
    expect(phone).to_have_url(re.compile("/login/"))
    assert "You were signed out" in phone.inner_text(".sessionkit-messages")
    laptop.reload()
    expect(laptop.get_by_role("heading", level=1)).to_have_text("Hello alice")


def test_a_device_left_alone_is_locked_and_opens_where_it_was(
    policy: Callable[..., None], device: Callable[..., Page], clock: Any
):
    policy(**LOCK)
    laptop = device(CHROME_ON_LINUX)
    laptop.goto(LIST)
    clock.move(seconds=601)
    laptop.reload()
    assert "Chrome on Linux" not in laptop.inner_text("main")
    prove(laptop)
    expect(laptop).to_have_url(re.compile(f"{LIST}$"))
    assert "Chrome on Linux" in laptop.inner_text("main")


def test_a_form_is_kept_while_its_sender_enters_the_password(laptop: Page, clock: Any):
    laptop.goto("/transfer/")
    laptop.fill("[name=amount]", "20")
    clock.move(minutes=6)
    main(laptop)
    prove(laptop)
    main(laptop)
    assert "20 euros are sent." in laptop.inner_text("main")


def test_signing_out_here_by_the_keyboard_alone(open_device: Callable[..., Page], alice: User):
    laptop = open_device()
    laptop.goto("/login/")
    # A page is loaded before Chromium moves the focus to its field.
    expect(laptop.locator("[name=username]")).to_be_focused()
    type_in(laptop, "alice", "Tab", "secret", "Enter")
    expect(laptop.get_by_role("heading", level=1)).to_have_text("Hello alice")
    type_in(laptop, "Tab", "Enter")
    laptop.wait_for_url(re.compile(f"{LIST}$"))
    ends = way_to_end(laptop, CHROME_ON_LINUX)
    for _ in range(20):
        laptop.keyboard.press("Tab")
        if ends.evaluate("element => element === document.activeElement"):
            break
    type_in(laptop, "Enter")
    laptop.wait_for_url(re.compile("/end/"))
    type_in(laptop, "Tab", "Enter")
    expect(laptop).to_have_url(re.compile("/login/"))
    assert not UserSession.objects.active().exists()


def type_in(page: Page, *texts: str) -> None:
    for text in texts:
        if text in ("Tab", "Enter"):
            page.keyboard.press(text)
        else:
            page.keyboard.type(text)
