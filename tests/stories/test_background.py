"""Requests that are no activity, because a browser makes them by itself."""

from datetime import UTC, datetime, timedelta

import pytest
from django.http import HttpResponse
from django.urls import path

from django_sessionkit.decorators import background_request
from django_sessionkit.models import EndReason, UserSession
from tests.browsers import SCRIPT
from tests.calls import BACKGROUND, CALL, acall, call
from tests.calls import urlpatterns as site_with_calls
from tests.people import is_still_in, key_of, only_row, told
from tests.store import DAY, SessionStore

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site(__name__),
    pytest.mark.transports("cookie", "header"),
]


WAYS = ["decorator", "path", "script", "prefetch", "prerender", "by hand"]


def by_hand(request):
    request.session.background = True
    return HttpResponse(request.session.get("news"))


async def aby_hand(request):
    request.session.background = True
    return HttpResponse(await request.session.aget("news"))


urlpatterns = [
    *site_with_calls,
    path("by_hand/", by_hand),
    path("aby_hand/", aby_hand),
    path("polled/", background_request(call)),
    path("apolled/", background_request(acall)),
]


@pytest.fixture(params=WAYS)
def poll(request, settings):
    """Make a request that says, in one of the ways, that it is none of the user's."""
    urls = {"decorator": "poll", "by hand": "by_hand"}
    headers = {
        "script": {"x-background-request": "1"},
        "prefetch": {"sec-purpose": "prefetch"},
        "prerender": {"sec-purpose": "prefetch;prerender"},
    }.get(request.param, {})
    if request.param == "path":
        settings.SESSIONKIT_BACKGROUND = ["/news/", "/read/", "/aread/"]

    def poll(browser):
        url = f"/{browser.a}{urls.get(request.param, 'read')}/"
        response = browser.get(url, headers=headers)
        assert response.status_code == 200
        return response

    return poll


@pytest.mark.parametrize("csrf_in_session", [False, True], ids=["", "csrf in session"])
@pytest.mark.parametrize("lock", [False, True], ids=["", "lock"])
@pytest.mark.standard("ASVS-7.3.1", "NIST-REAUTH-3")
def test_what_a_page_does_by_itself_keeps_no_session_alive(
    signed_in, policy, clock, poll, settings, lock, csrf_in_session
):
    settings.CSRF_USE_SESSIONS = csrf_in_session  # then the session is read before the view
    policy(idle=600, lock=lock)
    browser = signed_in()
    for _ in range(5):
        clock.move(seconds=100)
        assert "sessionid" not in poll(browser).cookies
    clock.move(seconds=99)
    poll(browser)
    assert only_row().last_seen_at == only_row().started_at
    clock.move(seconds=1)
    assert not is_still_in(browser)


@pytest.mark.parametrize(
    "headers",
    [{"x-background-request": "0"}, {"sec-purpose": "fictitious"}, {"purpose": "prefetch"}],
)
def test_what_only_looks_like_it_is_activity(signed_in, policy, clock, settings, headers):
    settings.SESSIONKIT_BACKGROUND = ["/news/"]
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=500)
    browser.get(f"/{browser.a}read/?to=/news/", headers=headers)
    clock.move(seconds=500)
    assert is_still_in(browser)


@pytest.mark.parametrize("how", ["script", "prefetch", "path"])
def test_a_form_that_somebody_sends_is_activity_whatever_it_says(
    signed_in, policy, clock, settings, how
):
    headers = {"script": BACKGROUND, "prefetch": {"sec-purpose": "prefetch"}}.get(how, {})
    settings.SESSIONKIT_BACKGROUND = ["/write/", "/awrite/"] if how == "path" else []
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=500)
    browser.post(f"/{browser.a}write/", {"news": "read"}, headers=headers)
    assert only_row().last_seen_at == datetime.now(UTC)
    clock.move(seconds=500)
    assert is_still_in(browser)


@pytest.mark.parametrize("every_request", [False, True])
@pytest.mark.parametrize(
    ("rules", "cookie_age"), [({"idle": 600}, DAY), ({"idle": 600, "lock": True}, DAY), ({}, 600)]
)
@pytest.mark.standard("ASVS-7.3.1")
def test_what_it_writes_is_kept_and_is_no_activity_either(
    signed_in, policy, clock, settings, every_request, rules, cookie_age
):
    settings.SESSION_SAVE_EVERY_REQUEST = every_request
    settings.SESSION_COOKIE_AGE = cookie_age
    policy(**rules)
    browser = signed_in()
    for number in range(5):
        clock.move(seconds=100)
        browser.get(f"/{browser.a}count/?news={number}", headers=BACKGROUND)
        assert browser.get(f"/{browser.a}read/", headers=BACKGROUND).json() == {"news": str(number)}
    assert only_row().last_seen_at == only_row().started_at
    clock.move(seconds=100)
    assert not is_still_in(browser)


@pytest.mark.parametrize("lock", [False, True])
@pytest.mark.parametrize(
    "what", [("cycle_key",), ("set_expiry", 900), ("set_expiry", timedelta(days=1))]
)
@pytest.mark.standard("ASVS-7.3.1")
def test_nor_is_whatever_else_it_does(signed_in, policy, clock, what, lock):
    policy(idle=600, lock=lock)
    browser = signed_in()
    clock.move(seconds=500)
    CALL[:] = what
    assert browser.get(f"/{browser.a}polled/").content == b"done"
    assert only_row().last_seen_at == only_row().started_at
    clock.move(seconds=99)
    assert browser.get(f"/{browser.a}poll/").status_code == 200
    assert not only_row().is_locked
    clock.move(seconds=1)
    assert not is_still_in(browser)
    assert only_row().is_locked is lock


def test_nor_does_it_prolong_the_age_of_cookies(signed_in, policy, clock, settings):
    settings.SESSION_COOKIE_AGE = 600
    policy()
    browser = signed_in()
    clock.move(seconds=500)
    CALL[:] = ["cycle_key"]
    browser.get(f"/{browser.a}polled/")
    clock.move(seconds=99)
    assert browser.get(f"/{browser.a}poll/").content == b"no news"
    assert SessionStore().exists(key_of(browser))
    clock.move(seconds=1)
    assert told(browser) == "expired"


@pytest.mark.parametrize("rules", [{}, {"idle": 600}, {"idle": 600, "lock": True}])
def test_it_can_set_an_expiry(signed_in, policy, clock, rules):
    policy(**rules)
    browser = signed_in()
    clock.move(seconds=300)
    CALL[:] = "set_expiry", 100
    browser.get(f"/{browser.a}polled/")
    assert only_row().expires_at == datetime.now(UTC) + timedelta(seconds=100)
    clock.move(seconds=99)
    assert browser.get(f"/{browser.a}poll/").status_code == 200
    clock.move(seconds=1)
    assert told(browser) == "expired"


@pytest.mark.parametrize("how", ["revoked", "marked", "idle", "locked"])
@pytest.mark.standard("ASVS-7.4.1", "ASVS-7.3.1")
def test_it_is_refused_what_others_are_refused(signed_in, policy, clock, how):
    policy(idle=600, lock=how == "locked")
    browser = signed_in()
    if how == "revoked":
        UserSession.objects.revoke()
    elif how == "marked":
        UserSession.objects.update(ended_at=datetime.now(UTC), end_reason=EndReason.REVOKED)
    clock.move(seconds=60 if how == "marked" else 600)
    header = "Session-Locked" if how == "locked" else "Session-Ended"
    reason = {"marked": "revoked", "locked": "idle"}.get(how, how)
    key = key_of(browser)
    for url, answer in (("read", b"{}"), ("poll", b"no news")):
        browser.cookies["sessionid"] = key
        response = browser.get(f"/{browser.a}{url}/", headers=SCRIPT | BACKGROUND)
        assert (response.content, response.headers[header]) == (answer, reason)
