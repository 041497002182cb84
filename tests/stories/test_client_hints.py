"""
What a browser says of itself beside its user agent: Chromium tells more, where a page of the site
has asked for it, and the list then says "Windows 11" and "Pixel 9".
"""

import pytest
from django.http import HttpResponse
from django.test import Client as DjangoClient
from django.urls import path

from django_sessionkit.decorators import ACCEPT_CH, ask_for_client_hints
from django_sessionkit.models import UserSession
from tests.browsers import view
from tests.people import CHROME, FIREFOX, is_still_in, only_row, post_sign_in
from tests.policies import LOCK
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

BRANDS = '"Google Chrome";v="156", "Chromium";v="156", "Not;A=Brand";v="8"'
ALWAYS = {"sec-ch-ua": BRANDS, "sec-ch-ua-platform": '"Windows"', "sec-ch-ua-mobile": "?0"}
ASKED = {
    "sec-ch-ua-full-version-list": '"Google Chrome";v="156.0.8078.60", "Chromium";v="156.0"',
    "sec-ch-ua-platform-version": '"15.0.0"',
    "sec-ch-ua-model": '""',
    "sec-ch-ua-form-factors": '"Desktop"',
}
BRAVE = ALWAYS | {"sec-ch-ua": '"Brave";v="156", "Chromium";v="156"'}


@ask_for_client_hints
def asks(request):
    return HttpResponse()


@ask_for_client_hints
async def aasks(request):
    return HttpResponse(headers={"Accept-CH": "Sec-CH-Prefers-Color-Scheme"})


urlpatterns = [*site, path("asks/", asks), path("aasks/", aasks)]


def test_page_of_devices_asks_and_the_next_activity_tells(browse, alice, clock):
    browser = browse(**{"user-agent": CHROME}, **ALWAYS)
    post_sign_in(browser)
    assert only_row().device.details == "Chrome 156"
    page = browser.get("/account/sessions/")
    assert page.headers["Accept-CH"] == ACCEPT_CH
    assert set(ACCEPT_CH.lower().split(", ")) == set(ASKED)
    clock.move(minutes=2)
    assert browser.get(view(browser, "whoami"), headers=ASKED).content == b"alice"
    assert only_row().device.details == "Chrome 156, Windows 11"
    assert str(only_row().device) == "Chrome on Windows"


def test_sign_in_page_that_asks_is_told_with_the_sign_in(browse, alice):
    post_sign_in(browse(**{"user-agent": CHROME}, **ALWAYS, **ASKED))
    assert only_row().device.details == "Chrome 156, Windows 11"


def test_what_a_row_knows_stays_when_the_browser_has_been_restarted(browse, alice, clock):
    browser = browse(**{"user-agent": CHROME}, **ALWAYS)
    post_sign_in(browser, headers=ASKED)
    clock.move(minutes=2)
    assert is_still_in(browser)
    row = only_row()
    assert row.device.details == "Chrome 156, Windows 11"
    assert row.last_seen_at > row.started_at


def test_row_without_hints_takes_those_that_are_always_sent(browse, alice, clock):
    browser = browse(**{"user-agent": CHROME})  # by HTTP, where browsers send none
    post_sign_in(browser)
    assert str(only_row().device) == "Chrome on Windows"
    clock.move(minutes=2)
    browser.get(view(browser, "whoami"), headers=BRAVE)
    assert str(only_row().device) == "Brave on Windows"


@pytest.mark.parametrize("hints", [{}, BRAVE], ids=["none", "others"])
def test_hints_of_another_user_agent_do_not_stay(browse, alice, clock, hints):
    browser = browse(**{"user-agent": CHROME})
    post_sign_in(browser, headers=ALWAYS | ASKED)
    clock.move(minutes=2)
    newer = CHROME.replace("156", "157")
    browser.get(view(browser, "whoami"), headers={"user-agent": newer, **hints})
    row = only_row()
    assert row.user_agent == newer
    assert row.device.details == ("Brave 156" if hints else "Chrome 157")


def test_browser_that_sends_no_hints_has_none(browse, alice, clock):
    browser = browse(**{"user-agent": FIREFOX})
    post_sign_in(browser)
    clock.move(minutes=2)
    assert is_still_in(browser)
    assert only_row().client_hints == ""


def test_view_can_ask_for_them_beside_what_the_site_asks_for(browse):
    browser = browse()
    asked = browser.get(view(browser, "asks")).headers["Accept-CH"]
    more = "Sec-CH-Prefers-Color-Scheme, " if browser.a else ""
    assert asked == more + ACCEPT_CH


def test_hints_of_staff_who_act_as_a_user_are_not_told(alice, laptop):
    UserSession.objects.update(support=True, user_agent=CHROME, client_hints='Model="Pixel 9"')
    page = laptop.get("/account/sessions/")
    (session,) = page.context["object_list"]
    assert (session.user_agent, session.client_hints, session.device.details) == ("", "", "")
    assert b"Pixel" not in page.content


def test_locked_session_is_resumed_whatever_the_browser_hints_at(alice, policy, clock):
    """It sends the hints on HTTPS only, and this site answers on both."""
    policy(**LOCK)
    browser = DjangoClient(headers={"user-agent": CHROME, "accept": "text/html"})
    post_sign_in(browser, headers=BRAVE)
    clock.move(seconds=600)
    page = browser.get("/private/", follow=True)
    assert page.redirect_chain[0][0].startswith("/account/sessions/reauthenticate/")
    assert page.status_code == 200
    assert only_row().ended_at is None
