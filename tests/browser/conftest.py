from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, expect

from tests.browser import chromium, site
from tests.browser.table import PAGES, Visit
from tests.people import CHROME_ON_LINUX

expect.set_options(timeout=chromium.TIMEOUT)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(site.TEMPLATES.parent):
            # What a browser sees is the same on every store.
            item.add_marker("chromium")
            item.add_marker("once")


# By module, and not once: while it runs, no test of another module could use an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.launched() as browser:
        yield browser


@pytest.fixture
def content_policy(settings: Any) -> None:
    """The site sends a Content-Security-Policy. Some tests have another one."""
    settings.MIDDLEWARE = ["tests.browser.site.StrictPolicy", *settings.MIDDLEWARE]


@pytest.fixture
def address(
    transactional_db: None, settings: Any, content_policy: None, own_site: None
) -> Iterator[str]:
    """The address of the site in site.py."""
    settings.ROOT_URLCONF = "tests.browser.site"
    (engine,) = settings.TEMPLATES
    settings.TEMPLATES = [{**engine, "DIRS": [site.TEMPLATES]}]
    settings.LANGUAGE_CODE = "en"
    after = settings.MIDDLEWARE.index("django_sessionkit.middleware.SessionMiddleware") + 1
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE[:after],
        "django.middleware.locale.LocaleMiddleware",
        *settings.MIDDLEWARE[after:],
    ]
    with chromium.served() as address:
        yield address


@pytest.fixture
def troubles() -> Iterator[list[str]]:
    """
    What has gone wrong on the pages: something that their Content-Security-Policy forbids, an error
    in a script, a file that is missing. In the end, nothing may have.
    """
    troubles: list[str] = []
    yield troubles
    assert not troubles


@pytest.fixture
def open_device(
    browser: Browser, address: str, troubles: list[str]
) -> Iterator[Callable[..., Page]]:
    """
    A function that opens a device of its own, with an empty page. It takes what Playwright's
    ``new_context()`` does.
    """

    def heard(message: ConsoleMessage) -> None:
        # Chromium says there that it has refused what the policy forbids. The answer of a page
        # itself may well be an error.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            troubles.append(message.text)

    def answered(response: Response) -> None:
        if response.status >= 400 and not response.request.is_navigation_request():
            troubles.append(f"{response.status} {response.url}")

    with ExitStack() as devices:

        def open_device(**options: Any) -> Page:
            usual = {"base_url": address, "locale": "en-GB", "user_agent": CHROME_ON_LINUX}
            options = {**usual, **options}
            context = devices.enter_context(browser.new_context(**options))
            context.set_default_timeout(chromium.TIMEOUT)
            context.on("console", heard)
            context.on("weberror", lambda error: troubles.append(str(error.error)))
            context.on("response", answered)
            return context.new_page()

        yield open_device


@pytest.fixture
def visit(
    open_device: Callable[..., Page],
    alice: User,
    policy: Callable[..., None],
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Visit:
    """What the rows of the table need to bring a device to their page."""
    return Visit(open_device, alice, policy, clock, monkeypatch)


@pytest.fixture(params=PAGES)
def reach(request: pytest.FixtureRequest, visit: Visit) -> Callable[..., Page]:
    """
    A function that brings a new device to a page, and returns it. So a test looks at every page of
    the table.
    """

    def reach(**options: Any) -> Page:
        visit.open(**options)
        PAGES[request.param].reach(visit)
        return visit.page

    return reach
