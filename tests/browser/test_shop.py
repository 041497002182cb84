"""The example shop gives the pages its own looks, and they are for everybody there, too."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from example_project.management.commands.demo import PASSWORD
from tests import servers
from tests.browser.looking import LOOKS, found_by_axe, look_at, wider_than_the_window
from tests.pages import LIST
from tests.people import FIREFOX, IPHONE


@pytest.fixture
def address(example_database: str, log: Path) -> Iterator[str]:
    """The address of the shop, as ``make demo`` serves it."""
    with servers.serve_example(example_database, log) as address:
        yield address


def sign_in(page: Page) -> None:
    page.goto(f"/account/sign-in/?next={LIST}")
    page.fill("[name=username]", "alice")
    page.fill("[name=password]", PASSWORD)
    page.press("[name=password]", "Enter")


def test_the_pages_in_the_shop_are_for_everybody(open_device: Callable[..., Page]):
    def is_for_everybody(page: Page) -> None:
        for look in LOOKS:
            look_at(page, look)
            assert found_by_axe(page, look) == [], look
            assert wider_than_the_window(page) == [], look

    laptop, phone = open_device(user_agent=FIREFOX), open_device(user_agent=IPHONE, locale="de")
    sign_in(laptop)
    sign_in(phone)
    expect(phone.locator("html")).to_have_attribute("lang", "de")
    expect(phone.locator("div.sessionkit")).not_to_have_attribute("lang", "en")
    is_for_everybody(phone)
    laptop.goto(LIST)
    laptop.locator(f'li:not(.sessionkit-current) a[href^="{LIST}"]').first.click()
    is_for_everybody(laptop)
    laptop.locator(".sessionkit-main:visible").click()
    (said,) = laptop.locator(".messages .success").all_inner_texts()
    assert laptop.title().startswith(said)
    is_for_everybody(laptop)
    phone.goto("/account/")
    assert phone.locator(".messages .warning").count() == 1
    is_for_everybody(phone)
