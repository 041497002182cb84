"""What holds for every page: see table.py."""

from collections.abc import Callable

from playwright.sync_api import Page

from django_sessionkit import urls
from tests.browser.looking import (
    LOOKS,
    found_by_axe,
    look_at,
    out_of_reach_of_the_keyboard,
    what_a_policy_could_forbid,
    wider_than_the_window,
)
from tests.browser.table import NO_PAGES, PAGES


def test_every_page_is_in_the_table():
    assert {pattern.name for pattern in urls.urlpatterns} - NO_PAGES == {
        row.url for row in PAGES.values() if row.url
    }


def test_every_page_is_for_everybody(reach: Callable[..., Page]):
    page = reach()
    assert page.locator("h1").count() == 1
    assert what_a_policy_could_forbid(page) == []
    assert out_of_reach_of_the_keyboard(page) == []
    for look in LOOKS:
        look_at(page, look)
        assert found_by_axe(page, look) == [], look
        assert wider_than_the_window(page) == [], look


def test_what_is_wrong_with_a_page_is_found(open_device: Callable[..., Page], troubles: list[str]):
    page = open_device()
    page.goto("/login/")
    page.evaluate(
        """document.querySelector(".sessionkit").insertAdjacentHTML("beforeend",
            "<img src='/favicon.ico'><hr width='9999'><a href='/' tabindex='-1'></a>"
            + "<button onclick='0'>Go</button><i style='color: red'></i><style></style>")"""
    )
    assert len(what_a_policy_could_forbid(page)) == 3
    assert out_of_reach_of_the_keyboard(page) == ['<a href="/" tabindex="-1"></a>']
    assert {found.partition(":")[0] for found in found_by_axe(page)} == {"image-alt", "link-name"}
    assert wider_than_the_window(page)[0] == "the page"
    troubles.clear()  # the policy has refused the inline style
