"""What a former key of a session is still good for, and to whom."""

import pytest
from django.http import HttpResponse
from django.urls import path

from tests.browsers import browse_as, given, put, read, sets_no_cookie, view
from tests.calls import BACKGROUND
from tests.calls import urlpatterns as site_with_calls
from tests.people import is_in, key_of, row_of
from tests.renewals import AFTER, DUE, GRACE, renewed, seen
from tests.store import later

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site(__name__),
    pytest.mark.usefixtures("keys_change"),
]


def save(request):
    request.session["news"] = "1"
    request.session.save()
    return HttpResponse("saved")


async def asave(request):
    await request.session.aset("news", "1")
    await request.session.asave()
    return HttpResponse("saved")


urlpatterns = [*site_with_calls, path("save/", save), path("asave/", asave)]


# A thief who polls.


@pytest.mark.parametrize("how", ["header", "prefetch", "view", "path", "saves", "slides"])
def test_a_thief_who_polls_gets_no_new_key_and_is_noticed(shopper, settings, reused, how):
    browser = shopper()
    thief = browse_as(browser, renewed(browser))
    settings.SESSIONKIT_BACKGROUND = ["/read/", "/aread/"] if how in ("path", "slides") else []
    settings.SESSION_SAVE_EVERY_REQUEST = how == "saves"
    headers = {"prefetch": {"Sec-Purpose": "prefetch"}, "path": {}, "view": {}}
    url = view(thief, "poll" if how == "view" else "read")
    old = key_of(thief)
    for seconds in (DUE + 5, DUE + 70, 2 * DUE + 70):
        with later(seconds):
            response = thief.get(url, headers=headers.get(how, BACKGROUND))
            assert response.status_code == 200
            assert sets_no_cookie(response)
    assert key_of(thief) == old
    assert not reused
    with later(2 * DUE + 80):
        assert is_in(browser)  # and gets another key
    with later(2 * DUE + 90 + GRACE):
        thief.get(url, headers=headers.get(how, BACKGROUND))
        assert len(reused) == 1


def test_a_key_that_changes_while_a_request_in_the_background_writes(shopper, at):
    browser = shopper()
    poll = browse_as(browser, key_of(browser))
    with later(DUE):
        pending = at("replace", lambda: read(browser))
        response = poll.get(f"{view(poll, 'count')}?news=1", headers=BACKGROUND)
        assert not pending
        assert response.status_code == 200
        assert sets_no_cookie(response)
        assert read(browser).json() == {"cart": "teapot", "news": "1"}


@pytest.mark.parametrize("headers", [{}, BACKGROUND], ids=["", "called background"])
def test_a_person_gets_the_key_that_got_lost(shopper, headers):
    """A form is a person's, whatever the request says."""
    browser = shopper()
    lost = browse_as(browser, renewed(browser))
    with later(DUE + 5):
        response = lost.post(view(lost, "write"), {"cart": "kettle"}, headers=headers)
        assert given(response) == key_of(browser)


def test_a_thief_who_sends_forms_is_seen_in_the_row(shopper):
    browser = shopper()
    thief = browse_as(browser, key_of(browser))
    with later(AFTER - 100):
        thief.post(view(thief, "write"), headers=BACKGROUND | {"User-Agent": "thief"})
    assert row_of(browser).user_agent == "thief"


def test_a_key_that_has_reached_the_browser_is_not_given_again(shopper):
    browser = shopper()
    old = renewed(browser)
    seen(browser)
    with later(DUE + 9 + GRACE - 10):
        for tab in (browse_as(browser, old), browse_as(browser, old)):
            assert read(tab).json()["cart"] == "teapot"
            response = put(tab, cart="teapot", more="more")
            assert response.status_code == 200
            assert sets_no_cookie(response)
        assert read(browser).json() == {"cart": "teapot", "more": "more"}


def test_a_new_key_arrives_with_the_request_that_brings_it(shopper, at):
    """Not with one that has written to it, and came with the key before."""
    browser = shopper()
    tab, old = (browse_as(browser, key_of(browser)) for _ in range(2))
    with later(DUE):
        pending = at("replace", lambda: read(browser))
        response = tab.get(view(tab, "save"))
        assert not pending
        assert given(response) == key_of(browser)
    with later(DUE + 2 * GRACE):  # both answers have got lost
        assert given(read(old)) == key_of(browser)
