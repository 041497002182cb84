"""How a page is looked at, and what is wrong with it."""

from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

# WCAG 2.2 AA, and what axe calls good practice.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# The size of the window, and what the reader has chosen. A computer's window of 1280 pixels has
# half as many at 200 %, and at 400 % a quarter, as WCAG has it under "reflow".
LOOKS: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "computer, light": ((1280, 900), {"color_scheme": "light"}),
    "telephone, dark": ((390, 844), {"color_scheme": "dark"}),
    "200 %, forced colours": ((640, 450), {"color_scheme": "dark", "forced_colors": "active"}),
    "400 %, right to left": ((320, 225), {"color_scheme": "light"}),
}


def look_at(page: Page, look: str) -> None:
    (width, height), media = LOOKS[look]
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(**{"forced_colors": "none", **media})
    if "right to left" in look:
        page.evaluate("document.documentElement.dir = 'rtl'")


def found_by_axe(page: Page, look: str = "", within: str = "html") -> list[str]:
    """Return what axe finds on a page, or within what a selector names."""
    # "preload" fetches style sheets and puts them into the page, which a strict policy forbids.
    options: dict[str, Any] = {"runOnly": RULES, "resultTypes": ["violations"], "preload": False}
    if "forced colours" in look:  # the reader's, in place of those that axe can see
        options["rules"] = {"color-contrast": {"enabled": False}}
    results = Axe().run(page, context=within, options=options).response
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


def what_a_policy_could_forbid(page: Page) -> list[str]:
    """Return what is inline, or from elsewhere. The policy of the site refuses what is used."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll("*")].filter(each =>
            each.matches("style, [style], script:not([src]), iframe, object, base")
            || each.getAttributeNames().some(name => name.startsWith("on"))
        ).map(each => each.outerHTML)"""
    )
    return found


def out_of_reach_of_the_keyboard(page: Page) -> list[str]:
    """Return what the Tab key does not lead to, or where one does not see that it is there."""
    left: list[str] = page.evaluate(
        """() => [...document.querySelectorAll(
            "a[href], button, input:not([type=hidden]), select, textarea, summary"
        )].filter(each => each.checkVisibility()).map(each => each.outerHTML)"""
    )
    for _ in range(len(left) + 2):  # a page may begin in the middle, and Tab leaves it once
        page.keyboard.press("Tab")
        place, seen = page.evaluate(
            """() => {
                const place = document.activeElement, style = getComputedStyle(place);
                const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
                return [place.outerHTML, seen];
            }"""
        )
        if place in left and seen:
            left.remove(place)
    return left
