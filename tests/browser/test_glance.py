"""Sessions at a glance, as a browser shows it under a strict policy for content."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.urls import path
from playwright.sync_api import Page

from django_sessionkit import tallies
from django_sessionkit.models import EndReason, Tally, UserSession
from tests.browser import site
from tests.browser.looking import LOOKS, found_by_axe, look_at, what_a_policy_could_forbid
from tests.people import IPHONE, sign_in
from tests.store import SessionStore

urlpatterns = [*site.urlpatterns, path("admin/", admin.site.urls)]

GLANCE = "/admin/django_sessionkit/usersession/glance/"
CONTENT = ".glance-page"


@pytest.fixture
def page(open_device: Callable[..., Page], settings: Any, alice: User, root: User) -> Page:
    """The page, with the figures of a month."""
    settings.ROOT_URLCONF = __name__
    for _ in range(2):
        sign_in(alice, IPHONE)
    row, *_others = UserSession.objects.all()
    UserSession.objects.filter(pk=row.pk).revoke(EndReason.REUSED)
    SessionStore.clear_expired()
    for number, day in enumerate(tallies.days_until(tallies.today())[:-1]):
        if number != 9:
            Tally.objects.update_or_create(
                day=day, name="active.mobile", defaults={"value": 900 + 20 * number}
            )
    page = open_device()
    page.goto(f"/login/?next={GLANCE}")
    page.fill("[name=username]", "root")
    page.fill("[name=password]", "secret")
    page.press("[name=password]", "Enter")
    page.wait_for_selector(CONTENT)
    return page


def test_page_is_for_everybody(page: Page, troubles: list[str]):
    for summary in page.locator("summary").all():
        summary.click()
    assert [found for found in what_a_policy_could_forbid(page) if "glance" in found] == []
    for look in LOOKS:
        look_at(page, look)
        # The admin lets links change their colour slowly.
        page.evaluate("Promise.all(document.getAnimations().map(each => each.finished))")
        assert troubles == []
        assert found_by_axe(page, look, CONTENT) == [], look
        # To read the admin's style sheets, axe puts them into the page, which the policy forbids.
        troubles.clear()
        # What is too wide for a telephone, the table of the stores, scrolls by itself.
        assert page.evaluate(
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        ), look


def test_time_runs_in_the_direction_of_the_language(page: Page):
    def first_bar() -> float:
        box = page.locator(".glance-days rect").first.bounding_box()
        assert box
        return box["x"]

    middle = 640
    page.set_viewport_size({"width": 2 * middle, "height": 900})
    left = first_bar()
    page.evaluate("document.documentElement.dir = 'rtl'")
    assert left < middle < first_bar()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_bars_stand_out_against_the_page(page: Page, scheme: Any):
    page.emulate_media(color_scheme=scheme)
    contrast = page.evaluate(
        """() => {
            const light = colour => {
                const parts = colour.match(/[0-9.]+/g).slice(0, 3).map(each => each / 255)
                    .map(each => each <= .03928 ? each / 12.92 : ((each + .055) / 1.055) ** 2.4);
                return .2126 * parts[0] + .7152 * parts[1] + .0722 * parts[2];
            };
            const bar = getComputedStyle(document.querySelector(".glance-days rect")).fill;
            const body = getComputedStyle(document.body).backgroundColor;
            const [dark, bright] = [light(bar), light(body)].sort((a, b) => a - b);
            return (bright + .05) / (dark + .05);
        }"""
    )
    assert contrast > 3  # WCAG 1.4.11
