"""
fetch.js in a real Chromium, under a strict policy for content: a page of one script asks for the
password where that is needed, and goes on with what its reader wanted.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.template import RequestContext, Template
from django.test import Client
from django.urls import include, path
from django.views.decorators.csrf import ensure_csrf_cookie
from playwright.sync_api import Browser, Page, Route, expect

from django_sessionkit.models import UserSession
from tests.browser import chromium, site
from tests.browser.looking import found_by_axe
from tests.people import IPHONE, sign_in
from tests.policies import IDLE

pytestmark = pytest.mark.site(__name__)

PAGE = """<!doctype html>{% load static %}<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>App</title>
<link rel="stylesheet" href="{% static 'django_sessionkit/sessions.css' %}">
<main><h1>App</h1><button id="end">Sign out all others</button> <button id="list">List</button>
<output></output></main>
<script type="module" src="/app.js"></script></html>"""
SCRIPT = """
import { createFetch } from "{{ fetch }}";
const options = new URLSearchParams(location.search).has("callback")
  ? { askForPassword: async (message) => prompt(message) }
  : { username: "alice", words: { confirm: "Go on" } };
const send = createFetch({ reauthenticate: "/api/v1/reauthenticate/", ...options });
const output = document.querySelector("output");
async function show(...asked) {
  const answers = await Promise.all(asked.map(([url, init]) => send(url, init)));
  output.textContent = answers.map((each) => each.status).join(" ");
}
const end = ["/api/v1/sessions/end-others/", { method: "POST" }];
const pay = ["/transfer/", { method: "POST", body: new URLSearchParams({ amount: "5" }) }];
document.getElementById("end").onclick = () => show(end, pay);
document.getElementById("list").onclick = () => show(["/api/v1/sessions/", {}]);
"""


@login_required
@ensure_csrf_cookie
def app(request: HttpRequest) -> HttpResponse:
    return HttpResponse(Template(PAGE).render(RequestContext(request)))


def script(request: HttpRequest) -> HttpResponse:
    text = SCRIPT.replace("{{ fetch }}", "/static/django_sessionkit/fetch.js")
    return HttpResponse(text, content_type="text/javascript")


urlpatterns = [
    path("app/", app),
    path("app.js", script),
    path("api/", include("django_sessionkit.api.urls")),
    *site.urlpatterns,
]


@pytest.fixture
def address(transactional_db: None, settings: Any, own_site: None) -> Iterator[str]:
    """The address of a site that serves these URLs under a strict policy, from this process."""
    settings.MIDDLEWARE = ["tests.browser.site.StrictPolicy", *settings.MIDDLEWARE]
    (engine,) = settings.TEMPLATES
    settings.TEMPLATES = [{**engine, "DIRS": [site.TEMPLATES]}]
    cache.clear()
    with chromium.served() as address:
        yield address


@pytest.fixture
def open_app(browser: Browser, address: str, alice: User) -> Iterator[Callable[..., Page]]:
    """A function that opens the app, in a browser in which Alice signs in."""
    troubles: list[str] = []
    with browser.new_context(base_url=address, locale="en-GB") as context:
        context.set_default_timeout(chromium.TIMEOUT)
        context.on("weberror", lambda error: troubles.append(str(error.error)))
        context.on("console", lambda said: troubles.append(said.text))

        def open_app(query: str = "") -> Page:
            page = context.new_page()
            page.goto(f"/login/?next=/app/{query}")
            page.fill("[name=username]", "alice")
            page.fill("[name=password]", "secret")
            page.click("button")
            page.wait_for_url(f"**/app/{query}")  # with its script
            return page

        yield open_app
    assert not [said for said in troubles if "Failed to load resource" not in said]


def is_out(device: Client) -> bool:
    return device.get("/").status_code == 302


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).click()


def test_who_has_just_signed_in_is_asked_nothing(open_app, alice: User):
    page, phone = open_app(), sign_in(alice, IPHONE)
    press(page, "Sign out all others")
    expect(page.locator("output")).to_have_text("200 200")
    assert is_out(phone)
    assert "5 euros are sent" in page.request.get("/").text()


def test_who_has_signed_in_long_ago_is_asked_once_and_goes_on(open_app, alice: User, clock: Any):
    page, phone = open_app(), sign_in(alice, IPHONE)
    clock.move(hours=2)
    press(page, "Sign out all others")
    dialog = page.get_by_role("dialog")  # of two requests at the same time, one
    expect(dialog).to_have_accessible_name("We need to know that it is you")
    expect(dialog.get_by_label("Password")).to_be_focused()
    expect(dialog.locator("[autocomplete=username]")).to_have_value("alice")
    assert not found_by_axe(page)
    dialog.get_by_label("Password").fill("wrong")
    press(page, "Go on")
    expect(dialog.get_by_role("alert")).to_have_text("That is not the password of this account.")
    assert UserSession.objects.active().count() == 2
    dialog.get_by_label("Password").fill("secret")
    page.keyboard.press("Enter")
    expect(page.locator("output")).to_have_text("200 200")
    expect(dialog).to_have_count(0)
    assert is_out(phone)
    assert "5 euros are sent" in page.request.get("/").text()


@pytest.mark.parametrize("by", ["button", "Escape"])
def test_who_gives_no_password_gets_the_answer_that_asks_for_it(
    open_app, alice: User, clock: Any, by: str
):
    page, phone = open_app(), sign_in(alice, IPHONE)
    late: list[Route] = []
    page.route("**/transfer/", lambda route: late.append(route), times=1)
    clock.move(hours=2)
    press(page, "Sign out all others")
    expect(page.get_by_role("dialog")).to_be_visible()
    if by == "Escape":
        page.keyboard.press("Escape")
    else:
        press(page, "Cancel")
    expect(page.get_by_role("dialog")).to_have_count(0)
    late[0].continue_()  # one of the two requests is answered only now, and does not ask again
    expect(page.locator("output")).to_have_text("401 401")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert UserSession.objects.active().count() == 2
    press(page, "Sign out all others")  # and may think better of it
    expect(page.get_by_role("dialog")).to_have_count(1)
    assert phone.cookies


def test_a_page_asks_in_its_own_way(open_app, clock: Any):
    page, asked = open_app("?callback"), []

    def answer(dialog: Any) -> None:
        asked.append(dialog.message)
        dialog.accept("secret" if len(asked) == 2 else "wrong")

    page.on("dialog", answer)
    clock.move(hours=2)
    press(page, "Sign out all others")
    expect(page.locator("output")).to_have_text("200 200")
    assert asked == ["", "That is not the password of this account."]


def test_a_locked_session_is_opened_on_the_page(open_app, policy: Any, clock: Any):
    policy(**IDLE)
    page = open_app()
    clock.move(minutes=11)
    press(page, "List")
    page.get_by_label("Password").fill("secret")
    press(page, "Go on")
    expect(page.locator("output")).to_have_text("200")


def test_whose_session_has_ended_is_not_asked(open_app, clock: Any):
    page = open_app()
    UserSession.objects.revoke()
    press(page, "List")
    expect(page.locator("output")).to_have_text("401")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_who_is_signed_out_while_the_password_is_asked_for_is_asked_no_more(open_app, clock: Any):
    page = open_app()
    clock.move(hours=2)
    press(page, "Sign out all others")
    page.get_by_label("Password").fill("secret")
    UserSession.objects.revoke()
    press(page, "Go on")
    expect(page.locator("output")).to_have_text("401 401")
    expect(page.get_by_role("dialog")).to_have_count(0)
