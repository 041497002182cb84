"""What holds for every page: see table.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from django_sessionkit import urls
from tests.browser.table import PAGES

# WCAG 2.2 AA, and what axe calls good practice.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
COMPUTER, TELEPHONE = (1280, 900), (390, 844)
# A window of 1280 pixels at 400 %, as WCAG has it under "reflow".
NARROWEST = (320, 640)
LOOKS: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "light": (COMPUTER, {"color_scheme": "light"}),
    "dark": (COMPUTER, {"color_scheme": "dark"}),
    "forced colours": (COMPUTER, {"color_scheme": "dark", "forced_colors": "active"}),
    "200 %": ((640, 450), {"color_scheme": "light"}),
    "telephone": (TELEPHONE, {"color_scheme": "dark"}),
    "narrowest": (NARROWEST, {"color_scheme": "light"}),
}


def look_at(page: Page, look: str) -> None:
    (width, height), media = LOOKS[look]
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(**{"forced_colors": "none", **media})


def found_by_axe(page: Page, look: str = "") -> list[str]:
    options: dict[str, Any] = {"runOnly": RULES, "resultTypes": ["violations"]}
    if look == "forced colours":  # the reader's, in place of those that axe can see
        options["rules"] = {"color-contrast": {"enabled": False}}
    results = Axe().run(page, options=options).response
    return [
        f"{violation['id']}: {node['html']} {node['failureSummary']}"
        for violation in results["violations"]
        for node in violation["nodes"]
    ]


def wider_than_the_window(page: Page) -> list[str]:
    """Return what reaches beyond the edge of the window, on either side."""
    found: list[str] = page.evaluate(
        """() => {
            const width = document.documentElement.clientWidth;
            const out = document.documentElement.scrollWidth > width ? ["the page"] : [];
            for (const element of document.body.querySelectorAll("*")) {
                const box = element.getBoundingClientRect();
                if (box.width && (box.right > width + 1 || box.left < -1))
                    out.push(element.outerHTML.slice(0, 200));
            }
            return out;
        }"""
    )
    return found


def test_every_page_is_in_the_table():
    assert {pattern.name for pattern in urls.urlpatterns} == {
        row.url for row in PAGES.values() if row.url
    }


def test_axe_finds_nothing_however_it_is_looked_at(reach: Callable[..., Page]):
    page = reach()
    assert page.locator("h1").count() == 1
    for look in LOOKS:
        look_at(page, look)
        assert found_by_axe(page, look) == [], look
        assert wider_than_the_window(page) == [], look
