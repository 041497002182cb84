"""
session.js in a real Chromium: nobody is signed out by surprise. Where time matters, the clock of
the server and that of the pages are moved together.
"""

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth import get_user_model, login
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.template import RequestContext, Template
from django.urls import include, path
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from django_sessionkit.models import EndReason, UserSession
from tests import store
from tests.browser import chromium, site

pytestmark = pytest.mark.site(__name__)

PAGE = """<!doctype html>{{% load sessionkit %}}<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Letter</title>{tag}
<main><h1>Hello {{{{ user }}}}</h1><form method="post">{{% csrf_token %}}
<label>Letter <textarea name="letter"></textarea></label><button>Send</button></form></main></html>
"""
TAGS = {
    "": "{% session_script %}",
    "quiet": "{% session_script heartbeat=False %}",
    "early": "{% session_script warn=300 %}",
}
# What the site has received.
LETTERS: list[str] = []


@login_required
def letter(request: HttpRequest) -> HttpResponse:
    """A page on which somebody writes for a long time."""
    if request.method == "POST":
        LETTERS.append(f"{request.user}: {request.POST['letter']}")
    page = PAGE.format(tag=TAGS[request.GET.get("tag", "")])
    return HttpResponse(Template(page).render(RequestContext(request)))


def refused(request: HttpRequest, reason: str) -> HttpResponse:
    return HttpResponse("Forbidden", status=403)


def enter(request: HttpRequest, name: str) -> HttpResponse:
    """Sign somebody in, in a tab that nobody looks at."""
    get_token(request)
    login(request, get_user_model().objects.get(username=name))
    return HttpResponse("welcome")


urlpatterns = [
    path("letter/", letter),
    path("enter/<name>/", enter),
    path("login/", LoginView.as_view(template_name="form.html"), name="login"),
    path("favicon.ico", lambda request: HttpResponse(status=204)),
    path("account/sessions/", include("django_sessionkit.urls")),
]


@pytest.fixture
def address(transactional_db: None, settings: Any, own_site: None) -> Iterator[str]:
    """The address of a site that serves these URLs under a strict policy, from this process."""
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = ["tests.browser.site.StrictPolicy", *settings.MIDDLEWARE]
    settings.CSRF_FAILURE_VIEW = f"{__name__}.refused"  # Django's page has a style inline
    (engine,) = settings.TEMPLATES
    settings.TEMPLATES = [{**engine, "DIRS": [site.TEMPLATES]}]
    LETTERS.clear()
    with chromium.served() as address:
        yield address


class Reader:
    """Alice, in a browser of her own, with the clock of her tabs and that of the server."""

    def __init__(self, context: BrowserContext, address: str, clock: store.Clock) -> None:
        self.context, self.address, self.clock = context, address, clock
        self.asked: list[str] = []  # how the script has asked
        self.pending: list[Any] = []
        self.troubles: list[str] = []
        context.clock.install(time=store.NOON)
        context.clock.pause_at(store.NOON)  # from now on, it goes only when it is told to
        context.on("request", self._heard)
        context.on("requestfinished", self._done)
        context.on("requestfailed", self._done)
        context.on("weberror", lambda error: self.troubles.append(str(error.error)))
        context.on("console", lambda said: self.troubles.append(said.text))

    def _heard(self, request: Any) -> None:
        if "/status/" in request.url:
            self.asked.append(request.method)
            self.pending.append(request)

    def _done(self, request: Any) -> None:
        if request in self.pending:
            self.pending.remove(request)

    def enter(self, name: str = "alice") -> None:
        """Sign in without a tab."""
        assert self.context.request.get(f"{self.address}/enter/{name}/").ok

    def open(self, query: str = "") -> Page:
        tab = self.context.new_page()
        tab.goto(f"{self.address}/letter/{query}")
        return tab

    def wait(self, seconds: int) -> None:
        """Let time pass, for the server and in every tab, and let the tabs hear their answers."""
        while seconds > 0:
            step = min(seconds, 15)
            self.clock.move(seconds=step)
            self.context.clock.run_for(1000 * step)
            self.settle()
            seconds -= step

    def settle(self) -> None:
        """Wait until every tab has heard what it has asked."""
        tab = self.context.pages[0]
        while self.pending:
            tab.wait_for_timeout(10)
        tab.evaluate("0")

    def look(self, tab: Page) -> None:
        """Come back to a tab, and let all of them ask, and ask again."""
        tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        for _ in range(4):
            self.settle()
            self.wait(1)

    def sleep(self, seconds: int) -> None:
        """Close the laptop: no timer runs, and wake up."""
        self.clock.move(seconds=seconds)
        self.context.clock.fast_forward(1000 * seconds)


@pytest.fixture
def reader(
    browser: Browser, address: str, alice: User, clock: store.Clock
) -> Iterator[Callable[..., Reader]]:
    """A function that gives Alice a browser, in which she is signed in."""
    readers: list[Reader] = []

    def reader(**options: Any) -> Reader:
        context = browser.new_context(locale="en-GB", **options)
        context.set_default_timeout(chromium.TIMEOUT)
        readers.append(Reader(context, address, clock))
        readers[-1].enter()
        return readers[-1]

    yield reader
    for each in readers:
        each.context.close()
    assert not [said for each in readers for said in each.troubles if "Failed to load" not in said]


def dialog(tab: Page) -> Locator:
    return tab.get_by_role("alertdialog")


WARNING, FAREWELL = "Are you still there?", "You are signed out"


def is_asked(tab: Page) -> None:
    expect(dialog(tab)).to_have_accessible_name(WARNING)


# Before a session runs out.


def test_every_tab_warns_two_minutes_before_and_one_answer_is_enough(reader, policy):
    policy(idle=600)
    alice = reader()
    tabs = [alice.open(), alice.open()]
    alice.wait(470)
    for tab in tabs:
        expect(dialog(tab)).to_have_count(0)
    assert not alice.asked  # what the page has said is enough until then
    alice.wait(15)
    for tab in tabs:
        is_asked(tab)
        expect(dialog(tab)).to_contain_text("2 minutes")
        expect(tab.get_by_role("button", name="Stay signed in")).to_be_focused()
    tabs[0].get_by_role("button", name="Stay signed in").click()
    for tab in tabs:
        expect(dialog(tab)).to_have_count(0)
    alice.wait(470)
    for tab in tabs:
        expect(dialog(tab)).to_have_count(0)
    assert UserSession.objects.active().count() == 1


def test_minutes_are_counted_down(reader, policy):
    policy(idle=600)
    alice = reader()
    tab = alice.open()
    for seconds, left in ((485, "2 minutes"), (45, "1 minute"), (20, "less than a minute")):
        alice.wait(seconds)
        expect(dialog(tab).locator("[data-left]")).to_have_text(left)
    assert tab.locator("[data-left]").first.get_attribute("aria-live") == "polite"


def test_who_presses_escape_is_there(reader, policy):
    policy(idle=600)
    alice = reader()
    tab = alice.open()
    alice.wait(485)
    is_asked(tab)
    tab.keyboard.press("Escape")
    expect(dialog(tab)).to_have_count(0)
    alice.wait(400)
    expect(dialog(tab)).to_have_count(0)
    assert UserSession.objects.active().exists()


def test_who_does_not_answer_is_told_the_end_and_loses_no_letter(reader, policy):
    policy(idle=600)
    alice = reader()
    tabs = [alice.open("?tag=quiet"), alice.open("?tag=quiet")]
    tabs[0].get_by_label("Letter").fill("Dear Bob")
    alice.wait(485)
    for tab in tabs:
        is_asked(tab)
    alice.wait(150)
    for tab in tabs:
        expect(dialog(tab)).to_have_accessible_name(FAREWELL)
        expect(dialog(tab)).to_contain_text("because you were inactive for a while")
    link = dialog(tabs[0]).get_by_role("link", name="Sign in again")
    expect(link).to_have_attribute("href", re.compile(r"/login/\?next=%2Fletter%2F%3Ftag%3Dquiet$"))
    # In another tab, she signs in again. The letter can be sent then.
    alice.enter()
    alice.look(tabs[0])
    for tab in tabs:
        expect(dialog(tab)).to_have_count(0)
    assert tabs[0].get_by_label("Letter").input_value() == "Dear Bob"
    tabs[0].get_by_role("button", name="Send").click()
    tabs[0].wait_for_load_state()
    assert LETTERS == ["alice: Dear Bob"]


def test_sign_in_again_leads_back(reader, policy):
    policy(idle=600)
    alice = reader()
    tab = alice.open()
    UserSession.objects.revoke()
    alice.look(tab)
    with alice.context.expect_page() as opened:
        dialog(tab).get_by_role("link", name="Sign in again").click()
    there = opened.value
    there.get_by_label("Username").fill("alice")
    there.get_by_label("Password").fill("secret")
    there.get_by_label("Password").press("Enter")
    expect(there.get_by_role("heading", name="Hello alice")).to_be_visible()


def test_farewell_can_be_closed_and_is_told_once(reader, policy):
    alice = reader()
    tab = alice.open()
    UserSession.objects.revoke()
    alice.look(tab)
    expect(dialog(tab)).to_have_accessible_name(FAREWELL)
    tab.keyboard.press("Escape")
    expect(dialog(tab)).to_have_count(0)
    asked = len(alice.asked)
    alice.look(tab)
    assert len(alice.asked) > asked
    expect(dialog(tab)).to_have_count(0)
    # The next page still says why.
    tab.reload()
    expect(tab).to_have_url(re.compile("/login/"))
    expect(tab.locator("body")).to_contain_text("signed out from another device")


def test_sign_out_in_the_warning_signs_out(reader, policy):
    policy(idle=600)
    alice = reader()
    tab = alice.open()
    alice.wait(485)
    dialog(tab).get_by_role("button", name="Sign out").click()
    expect(tab).to_have_url(re.compile("/login/"))
    assert UserSession.objects.get().end_reason == EndReason.LOGOUT


def test_longest_lifetime_is_announced_with_the_way_to_begin_another(reader, policy):
    policy(absolute=900)
    alice = reader()
    tab = alice.open()
    alice.wait(785)
    expect(dialog(tab)).to_have_accessible_name("You will be signed out soon")
    expect(dialog(tab)).to_contain_text("2 minutes")
    with alice.context.expect_page() as opened:
        dialog(tab).get_by_role("link", name="Enter your password").click()
    there = opened.value
    there.get_by_label("Password").fill("secret")
    there.get_by_label("Password").press("Enter")
    expect(there.get_by_role("heading", name="Hello alice")).to_be_visible()
    alice.look(tab)
    expect(dialog(tab)).to_have_count(0)


def test_who_says_not_now_is_not_asked_again(reader, policy):
    policy(absolute=900)
    alice = reader()
    tab = alice.open()
    alice.wait(785)
    dialog(tab).get_by_role("button", name="Not now").click()
    alice.wait(60)
    expect(dialog(tab)).to_have_count(0)
    alice.wait(90)
    expect(dialog(tab)).to_have_accessible_name(FAREWELL)


def test_session_that_locks_is_announced_and_unlocked_in_another_tab(reader, policy):
    policy(idle=600, lock=True)
    alice = reader()
    tab = alice.open()
    alice.wait(485)
    expect(dialog(tab)).to_contain_text("asked for your password soon")
    alice.wait(150)
    expect(dialog(tab)).to_have_accessible_name("We need to know that it is you")
    with alice.context.expect_page() as opened:
        dialog(tab).get_by_role("link", name="Go on").click()
    there = opened.value
    there.get_by_label("Password").fill("secret")
    there.get_by_label("Password").press("Enter")
    expect(there.get_by_role("heading", name="Hello alice")).to_be_visible()
    alice.look(tab)
    expect(dialog(tab)).to_have_count(0)


def test_site_says_how_long_before(reader, policy):
    policy(idle=900)
    alice = reader()
    tab = alice.open("?tag=early")
    alice.wait(605)
    is_asked(tab)
    expect(dialog(tab)).to_contain_text("5 minutes")


def test_session_that_is_short_warns_half_way(reader, policy):
    policy(idle=60)
    alice = reader()
    tab = alice.open()
    alice.wait(20)
    expect(dialog(tab)).to_have_count(0)
    alice.wait(15)
    is_asked(tab)


# When it has ended.


def test_end_elsewhere_is_told_in_every_tab_when_one_looks(reader):
    alice = reader()
    tabs = [alice.open(), alice.open()]
    UserSession.objects.revoke(EndReason.REVOKED_BY_STAFF)
    alice.look(tabs[0])
    for tab in tabs:
        expect(dialog(tab)).to_have_accessible_name(FAREWELL)
        expect(dialog(tab)).to_contain_text("by the staff of this site")


def test_another_account_is_told_and_sends_no_letter(reader, bob):
    alice = reader()
    tab = alice.open()
    alice.enter("bob")
    alice.look(tab)
    expect(dialog(tab)).to_have_accessible_name("Another account is signed in")
    tab.get_by_role("button", name="Close").click()
    tab.get_by_label("Letter").fill("from Alice")
    tab.get_by_role("button", name="Send").click()
    expect(tab.locator("body")).to_contain_text("Forbidden")
    assert LETTERS == []


def test_sign_in_that_is_under_way_is_no_end(reader):
    """One answer alone signs nobody out: another tab may just be signing in."""
    alice = reader()
    tab = alice.open()
    UserSession.objects.revoke()
    tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    alice.settle()
    alice.enter()
    asked = len(alice.asked)
    alice.wait(2)
    assert len(alice.asked) == asked + 1
    expect(dialog(tab)).to_have_count(0)


# Who is active.


def test_typing_keeps_the_session(reader, policy):
    policy(idle=600)
    alice = reader()
    tab, other = alice.open(), alice.open()
    for _ in range(4):
        alice.wait(300)
        tab.get_by_label("Letter").press("x")
        alice.wait(1)
        alice.wait(1)
        expect(dialog(other)).to_have_count(0)
    assert UserSession.objects.active().exists()
    assert tab.get_by_label("Letter").input_value() == "xxxx"


def test_heartbeats_are_not_more_often_than_activity_is_written(reader, policy):
    policy(idle=600)
    alice = reader()
    tab = alice.open()
    for _ in range(12):
        tab.get_by_label("Letter").press("x")
        alice.wait(10)
    assert 1 <= alice.asked.count("POST") <= 2


def test_leaving_the_page_alone_keeps_nothing(reader, policy):
    policy(idle=600)
    alice = reader()
    tab = alice.open()
    tab.evaluate("""document.dispatchEvent(new Event('keydown'));
                 document.dispatchEvent(new Event('pointerdown'))""")
    alice.wait(300)
    assert "POST" not in alice.asked
    alice.wait(185)
    is_asked(tab)


def test_quiet_page_sends_no_heartbeats(reader, policy):
    policy(idle=600)
    alice = reader()
    tab = alice.open("?tag=quiet")
    alice.wait(300)
    tab.get_by_label("Letter").press("x")
    alice.wait(60)
    assert not alice.asked


# What only looks like the end.


@pytest.mark.parametrize("how", ["offline", "503", "a page", "nonsense"])
def test_site_that_does_not_answer_has_signed_nobody_out(reader, policy, how):
    policy(idle=600)
    alice = reader()
    tab = alice.open()
    if how == "offline":
        alice.context.set_offline(True)
    else:
        answers = {
            "503": {"status": 503, "json": {"detail": "later"}},
            "a page": {"status": 200, "content_type": "text/html", "body": "<h1>Welcome</h1>"},
            "nonsense": {"status": 200, "json": []},
        }
        alice.context.route("**/status/**", lambda route: route.fulfill(**answers[how]))
    for _ in range(10):
        alice.wait(100)
    expect(dialog(tab)).to_have_count(0)
    alice.context.unroute_all()
    alice.context.set_offline(False)
    alice.look(tab)
    expect(dialog(tab)).to_have_accessible_name(FAREWELL)


def test_warning_says_that_the_site_does_not_answer(reader, policy):
    policy(idle=600)
    alice = reader()
    tab = alice.open()
    alice.wait(485)
    is_asked(tab)
    alice.context.set_offline(True)
    tab.get_by_role("button", name="Stay signed in").click()
    expect(dialog(tab)).to_contain_text("We cannot reach this site right now")
    alice.wait(200)
    is_asked(tab)


def test_laptop_that_wakes_up_asks_before_it_says_a_word(reader, policy):
    policy(idle=3600)
    alice = reader()
    tab = alice.open()
    alice.sleep(1800)
    alice.settle()
    assert alice.asked == ["GET"]
    expect(dialog(tab)).to_have_count(0)
    alice.sleep(1800)
    for _ in range(3):
        alice.settle()
        alice.wait(1)
    expect(dialog(tab)).to_have_accessible_name(FAREWELL)


def test_clock_that_jumps_signs_nobody_out(reader, policy):
    policy(idle=600)
    alice = reader()
    tab = alice.open()
    for at in ("2050-01-01T00:00:00", "2001-01-01T00:00:00"):
        alice.context.clock.set_system_time(at)
        alice.wait(60)
        expect(dialog(tab)).to_have_count(0)
    alice.wait(370)
    is_asked(tab)


# How it looks.


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_dialogs_have_no_faults(reader, policy, scheme, width):
    policy(idle=600)
    alice = reader(color_scheme=scheme, viewport={"width": width, "height": 640})
    tab = alice.open()
    alice.wait(485)
    is_asked(tab)
    picture(tab, f"warning-{scheme}-{width}")
    assert faults(alice, tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    alice.wait(150)
    expect(dialog(tab)).to_have_accessible_name(FAREWELL)
    picture(tab, f"farewell-{scheme}-{width}")
    assert faults(alice, tab) == []


def faults(reader: Reader, tab: Page) -> list[str]:
    """Return what axe finds. It needs a clock that goes."""
    reader.context.clock.resume()
    found = [violation["id"] for violation in Axe().run(tab).response["violations"]]
    reader.context.clock.pause_at(tab.evaluate("Date.now()") / 1000 + 1)
    return found


def picture(tab: Page, name: str) -> None:
    """Keep a picture in the folder PICTURES, for people who want to look at it."""
    if folder := os.environ.get("PICTURES"):
        tab.screenshot(path=f"{folder}/{name}.png")
