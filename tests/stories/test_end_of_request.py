"""The end of a request, where activity is written."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.db.models import F
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext
from django.urls import path

from django_sessionkit import registry
from django_sessionkit.models import StoredSession, UserSession
from tests import store
from tests.apps import Keeping
from tests.browsers import browse_as
from tests.calls import leads_to_the_lock
from tests.calls import urlpatterns as site_with_calls
from tests.interleaving import HOLDS_ROWS, be_impatient, elsewhere
from tests.people import is_still_in, key_of, only_row
from tests.store import SessionStore

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.isolation,
    pytest.mark.site(__name__),
    pytest.mark.transports("cookie", "header"),
]


SEEN: list[Any] = []


def fail_after_reading(request):
    request.session.get("cart")
    User.objects.update(first_name="Alice")
    raise RuntimeError("out of order")


def hold(request):
    """Reads the session in its transaction, and has a look from outside."""
    with CaptureQueriesContext(connection) as queries:
        request.session.get("cart")
    SEEN.append([query["sql"].partition(" ")[0] for query in queries])
    if HOLDS_ROWS:
        elsewhere(change_everything)
    return HttpResponse("done")


def change_everything():
    be_impatient()
    UserSession.objects.update(ip="192.0.2.200")
    StoredSession.objects.update(touched_at=F("touched_at"))


urlpatterns = [
    *site_with_calls,
    path("fail_after_reading/", fail_after_reading),
    path("hold/", hold),
]


@pytest.mark.django_db(transaction=True)
def test_a_view_that_is_rolled_back_was_activity_all_the_same(
    atomic_requests, signed_in, policy, clock
):
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=599)
    assert browser.get("/fail_after_reading/").status_code == 500
    assert User.objects.get().first_name == ""
    assert only_row().last_seen_at == datetime.now(UTC)
    clock.move(seconds=599)
    assert browser.get("/whoami/").content == b"alice"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("rules", "seconds"), [({}, 100), ({"idle": 600}, 400)])
def test_no_view_holds_a_lock_on_its_session(
    atomic_requests, signed_in, policy, clock, rules, seconds
):
    policy(**rules)
    browser = signed_in()
    clock.move(seconds=seconds)
    SEEN.clear()
    assert browser.get("/hold/").content == b"done"
    selects = ["SELECT"] if store.APART else ["SELECT", "SELECT"]
    assert [selects] == SEEN
    assert only_row().last_seen_at == datetime.now(UTC)


def no_route(*args):
    raise OperationalError("no route to host")


@pytest.mark.parametrize(
    "owner",
    [SessionStore, registry],
)
@pytest.mark.parametrize("seconds", [200, 500])
@pytest.mark.standard("ASVS-16.5.2")
def test_a_store_that_fails_at_the_end_spoils_no_answer(
    signed_in, policy, clock, monkeypatch, caplog, seconds, owner
):
    policy(idle=600)
    browser = signed_in()
    browser.post(f"/{browser.a}write/", {"cart": "teapot"})
    before = only_row().last_seen_at
    clock.move(seconds=seconds)
    with monkeypatch.context() as down:
        down.setattr(owner, "touch", no_route)
        response = browser.get(f"/{browser.a}read/")
        assert response.json() == {"cart": "teapot"}
        assert "sessionid" not in response.cookies
    assert "did not answer: no route to host" in caplog.text
    # The row is written first: it may say later than the store, never earlier.
    written = seconds if owner is SessionStore else 0
    assert only_row().last_seen_at == before + timedelta(seconds=written)
    # The session stays due.
    clock.move(seconds=1)
    assert browser.get(f"/{browser.a}read/").json() == {"cart": "teapot"}
    assert only_row().last_seen_at == before + timedelta(seconds=seconds + 1)
    clock.move(seconds=599)
    assert is_still_in(browser)


def test_what_a_view_writes_is_kept_when_only_the_activity_is_not(signed_in, clock, monkeypatch):
    browser = signed_in()
    clock.move(seconds=300)
    with monkeypatch.context() as down:
        down.setattr(SessionStore, "touch", staticmethod(no_route))
        assert browser.post(f"/{browser.a}write/", {"cart": "teapot"}).content == b"written"
    assert browser.get(f"/{browser.a}read/").json() == {"cart": "teapot"}


@pytest.mark.parametrize("lock", [False, True])
def test_what_is_answered_in_time_was_activity(signed_in, policy, clock, lock):
    policy(idle=600, lock=lock)
    browser = signed_in()
    clock.move(seconds=570)
    WAITING[:] = [clock]
    assert browser.get(f"/{browser.a}wait/").content == b"at last"  # 20 seconds later
    clock.move(seconds=599)
    assert is_still_in(browser)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("way", ["wait", "wait_and_save", "wait_and_write"])
@pytest.mark.parametrize("lock", [False, True])
@pytest.mark.standard("ASVS-7.3.1", "NIST-SB-8")
def test_what_was_locked_or_over_while_a_request_was_under_way_is_not_signed_in_again(
    signed_in, policy, clock, lock, way
):
    """The request begins in time, and is answered when everybody else is told to prove it."""
    policy(idle=3, lock=lock)
    browser = signed_in()
    other = browse_as(browser, key_of(browser))
    clock.move(seconds=1.5)
    seen = []
    WAITING[:] = [clock, lambda: seen.append(other.get("/private/"))]
    response = browser.get(f"/{browser.a}{way}/")
    refused = 401 if isinstance(browser, Keeping) else 302
    # A view that saves to a session that is over fails.
    assert response.status_code == (refused if way == "wait_and_save" and not lock else 200)
    if lock:
        assert [leads_to_the_lock(each, "?next=%2Fprivate%2F") for each in seen] == [True]
        assert leads_to_the_lock(other.get("/private/"), "?next=%2Fprivate%2F")
        assert only_row().is_locked
    else:
        assert [each.status_code for each in seen] == [refused]
        assert not is_still_in(browser)


WAITING: list[Any] = []


def wait(request):
    request.session.get("cart")
    clock, *others = WAITING
    clock.move(seconds=20)
    for other in others:
        elsewhere(other)
    return HttpResponse("at last")


async def await_a_long_answer(request):
    await request.session.aget("cart")
    await sync_to_async(wait)(request)
    return HttpResponse("at last")


def wait_and_write(request):
    wait(request)
    request.session["cart"] = "kettle"
    return HttpResponse("at last")


async def await_and_write(request):
    await await_a_long_answer(request)
    request.session["cart"] = "kettle"
    return HttpResponse("at last")


def wait_and_save(request):
    wait_and_write(request)
    request.session.save()
    return HttpResponse("at last")


async def await_and_save(request):
    await await_and_write(request)
    await request.session.asave()
    return HttpResponse("at last")


urlpatterns += [
    path("wait/", wait),
    path("await/", await_a_long_answer),
    path("wait_and_write/", wait_and_write),
    path("await_and_write/", await_and_write),
    path("wait_and_save/", wait_and_save),
    path("await_and_save/", await_and_save),
]
