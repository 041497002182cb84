"""An app opens a web view: what Chromium makes of the URL with the code."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from django_sessionkit.models import UserSession
from tests.apps import App
from tests.pages import LIST


@pytest.fixture
def app(address: str, alice: User) -> App:
    """An app in which Alice has signed in."""
    app = App()
    app.sign_in(name="Shop", system="Android", label="Alice's telephone")
    return app


def url_of(app: App) -> str:
    return f"{LIST}hand-over/{app.code('/')}/"


def follow(page: Page, url: str) -> None:
    """Follow a link to this URL."""
    page.evaluate("url => { location.href = url }", url)


def test_a_web_view_is_signed_in_with_its_first_load(app: App, open_device: Callable[..., Page]):
    web_view = open_device()
    web_view.goto(url_of(app))
    expect(web_view.get_by_role("heading", level=1)).to_have_text("Hello alice")
    assert "hand-over" not in web_view.url
    assert web_view.evaluate("document.referrer") == ""
    assert web_view.evaluate("history.length") <= 2  # the empty page, and this one
    (cookie,) = [each for each in web_view.context.cookies() if each["name"] == "sessionid"]
    assert cookie["httpOnly"]
    web_view.get_by_role("link", name="Your devices").click()
    expect(web_view.locator(".sessionkit-current")).to_contain_text("Alice's telephone")
    expect(web_view.locator(".sessionkit-current")).to_contain_text("2 sign-ins")
    UserSession.objects.filter(transport="header").revoke()
    web_view.goto("/")
    expect(web_view.locator("body")).to_contain_text("because the app that opened this page")


def test_a_browser_that_a_link_has_led_there_asks(app: App, open_device: Callable[..., Page]):
    page = open_device()
    page.goto("/login/")
    follow(page, url_of(app))
    expect(page.get_by_role("heading", level=1)).to_have_text("Go on as alice?")
    page.get_by_role("button", name="Go on as alice").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Hello alice")


def test_somebody_else_is_asked(app: App, bob: User, open_device: Callable[..., Page]):
    page = open_device()
    page.goto("/login/")
    page.fill("[name=username]", "bob")
    page.fill("[name=password]", "secret")
    page.click("button")
    expect(page.get_by_role("heading", level=1)).to_have_text("Hello bob")
    page.goto(url_of(app))
    expect(page.locator("main")).to_contain_text("You are signed in here as bob.")
    page.get_by_role("button", name="Go on as alice").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Hello alice")
