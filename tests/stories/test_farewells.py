"""
What people read who were signed out elsewhere, and how it helps whoever was robbed: from which
device, when, and what to do.
"""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import timezone

from django_sessionkit import registry
from django_sessionkit.models import EndReason, UserSession
from tests import desk, store
from tests.browsers import SCRIPT, view
from tests.pages import LIMIT, LIST, OTHERS, words
from tests.people import (
    CHROME,
    FIREFOX,
    IPHONE,
    end_url,
    handle,
    is_in,
    row_of,
    sign_in,
)
from tests.policies import LOCK
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

PLAIN = (
    "You were signed out from another device. If that was not you, sign in and change your"
    " password."
)


def change_password(request):
    user = User.objects.get(pk=request.user.pk)
    user.set_password("better")
    user.save()
    return HttpResponse("changed")


urlpatterns = [*site, path("change_password/", change_password)]


@pytest.fixture
def owner(signed_in, clock):
    """The telephone of Alice."""
    return signed_in(**{"user-agent": IPHONE})


@pytest.fixture
def thief(owner, signed_in):
    """Somebody who knows her password."""
    return signed_in(**{"user-agent": FIREFOX})


def farewell(browser):
    """Return what the sign-in page says to a browser that is signed out, with its level."""
    response = browser.get("/private/")
    assert response.headers["Location"] == "/login/?next=/private/"
    (message,) = browser.get("/login/").context["messages"]
    return f"{message.level_tag}: {message}".replace("\xa0", " ")


# From which device.


@pytest.mark.parametrize("url", [OTHERS, ""], ids=["all others", "one"])
@pytest.mark.standard("ASVS-7.4.1")
def test_whoever_was_robbed_reads_which_device_signed_them_out_and_what_to_do(
    owner, thief, clock, url
):
    row, ended_from = row_of(owner), handle(thief)
    assert thief.post(url or end_url(owner)).headers["Location"] == LIST
    clock.move(seconds=12 * 60 + 34)
    assert farewell(owner) == (
        "warning: You were signed out from another device (Firefox on Linux, 12 minutes ago). If"
        " that was not you, sign in and change your password."
    )
    row.refresh_from_db()
    assert (row.end_reason, row.ended_from) == (EndReason.REVOKED, ended_from)


@pytest.mark.parametrize(
    ("seconds", "when"), [(0, "just now"), (59, "just now"), (60, "1 minute ago")]
)
def test_what_has_just_happened_is_said_so(owner, thief, clock, seconds, when):
    thief.post(OTHERS)
    clock.move(seconds=seconds)
    assert f"(Firefox on Linux, {when})" in farewell(owner)


def test_a_device_goes_by_the_name_that_its_user_has_given_it(owner, thief):
    UserSession.objects.filter(pk=handle(thief)).update(label="Work <laptop>")
    thief.post(OTHERS)
    response = owner.get("/private/")
    assert "(Work &lt;laptop&gt;, just now)" in owner.get(response.headers["Location"]).text


def test_whose_session_made_room_for_another_reads_which(owner, signed_in, policy):
    policy(limit=1)
    ended = row_of(owner)
    tablet = signed_in(**{"user-agent": CHROME})
    ended.refresh_from_db()
    assert (ended.end_reason, ended.ended_from) == (EndReason.LIMIT, handle(tablet))
    assert farewell(owner) == (
        "warning: You were signed out here to make room for another device (Chrome on Windows,"
        " just now). If you did not sign in there, change your password."
    )


def test_whose_session_was_chosen_to_make_room_reads_for_which(owner, signed_in, policy):
    policy(limit=1, on_limit="ask")
    ended = row_of(owner)
    tablet = signed_in(**{"user-agent": CHROME})
    assert tablet.post(LIMIT, {"session": [str(ended.pk)]}).status_code == 302
    ended.refresh_from_db()
    assert (ended.end_reason, ended.ended_from) == (EndReason.LIMIT, row_of(tablet).pk)
    assert "(Chrome on Windows, just now)" in farewell(owner)


def test_whoever_has_lost_their_password_to_somebody_reads_on_which_device(owner, thief):
    ended = row_of(owner)
    assert thief.get("/change_password/").content == b"changed"
    ended.refresh_from_db()
    assert (ended.end_reason, ended.ended_from) == (EndReason.PASSWORD_CHANGE, handle(thief))
    assert farewell(owner) == (
        "warning: You were signed out because your password was changed (Firefox on Linux, just"
        " now). If that was not you, reset your password."
    )


def test_a_password_that_is_changed_without_a_session_names_no_device(owner, alice):
    alice.set_password("better")
    alice.save()
    text = "You were signed out because your password was changed. If that was not you, reset your"
    assert text in farewell(owner)


def by_code(owner, thief):
    UserSession.objects.filter(pk=handle(owner)).revoke()


def by_somebody_else(owner, thief):
    bob = sign_in(User.objects.create_user("bob", password="secret"), CHROME)
    UserSession.objects.filter(pk=handle(owner)).revoke(ended_from=handle(bob))


def by_staff_who_act_as_the_user(owner, thief):
    UserSession.objects.filter(pk=handle(thief)).update(support=True)
    UserSession.objects.filter(pk=handle(owner)).revoke(ended_from=handle(thief))


def by_a_device_that_was_purged(owner, thief):
    thief.post(OTHERS)
    UserSession.objects.filter(pk=handle(thief)).delete()


@pytest.mark.parametrize(
    "end", [by_code, by_somebody_else, by_staff_who_act_as_the_user, by_a_device_that_was_purged]
)
def test_nobody_reads_of_a_device_that_is_not_known_or_not_theirs(owner, thief, end):
    end(owner, thief)
    assert farewell(owner) == f"warning: {PLAIN}"


def test_a_farewell_without_the_device_is_better_than_none(owner, thief, monkeypatch):
    def fail(*args):
        raise OperationalError("no route to host")

    thief.post(OTHERS)
    monkeypatch.setattr(registry, "row_of", fail)
    assert farewell(owner) == f"warning: {PLAIN}"


def test_staff_end_sessions_from_one_of_theirs(owner, root):
    staff = sign_in(root, CHROME)
    ended = row_of(owner)
    desk.end(staff, desk.delete_url(owner))
    ended.refresh_from_db()
    assert (ended.end_reason, ended.ended_from) == (EndReason.REVOKED_BY_STAFF, handle(staff))
    assert farewell(owner) == "warning: You were signed out by the staff of this site."


# What it costs.


def queries(browser, url, headers=None):
    with CaptureQueriesContext(connection) as captured:
        browser.get(url, headers=headers or {})
    return len(captured)


@pytest.mark.parametrize(
    ("url", "headers", "more"),
    [
        ("/private/", {}, 1),  # the sign-in page
        ("/forbidden/", {}, 1),
        ("/whoami/", {}, 1),  # the next page
        ("/private/", SCRIPT, 1),  # JSON
        ("/private/", {**SCRIPT, "sec-fetch-mode": "cors"}, 1),  # JSON, and the next page
        ("/forbidden/", SCRIPT, 0),  # the reason alone, in a header
        ("/whoami/", SCRIPT, 0),
    ],
)
def test_only_who_is_told_of_the_device_has_it_looked_up(
    owner, thief, signed_in, url, headers, more
):
    others = [signed_in(**{"user-agent": IPHONE}) for _ in range(2)]
    rows = UserSession.objects.filter(pk__in=[handle(other) for other in others])
    rows.revoke(ended_from=handle(thief))
    rows.filter(pk=rows.first().pk).update(ended_from=None)
    plain, told = sorted(others, key=lambda other: row_of(other).ended_from is not None)
    assert queries(told, url, headers) - queries(plain, url, headers) == more


def test_the_mark_and_where_it_was_made_are_one_statement(owner, thief, drive):
    UserSession.objects.filter(pk=handle(thief)).update(
        expires_at=timezone.now() - timedelta(seconds=1)
    )
    here = UserSession.objects.get(pk=handle(owner)).pk
    with CaptureQueriesContext(connection) as captured:
        assert drive(UserSession.objects.all(), "revoke", ended_from=here) == 1
    marks = [each["sql"] for each in captured if each["sql"].startswith("UPDATE")]
    marks = [sql for sql in marks if "usersession" in sql]
    assert len(marks) == 2
    # Nobody has ended what has run out.
    found = UserSession.objects.values_list("end_reason", "ended_from")
    assert {*found} == {(EndReason.REVOKED, here), (EndReason.EXPIRED, None)}


# How loud it is.


@pytest.mark.parametrize("reason", EndReason)
def test_a_farewell_is_a_warning_unless_the_visitor_could_expect_it(owner, clock, reason):
    UserSession.objects.revoke(reason)
    clock.move(seconds=61)
    expected = ("logout", "replaced", "idle", "expired")
    assert farewell(owner).startswith("info: " if reason in expected else "warning: ")


@pytest.mark.parametrize("path", ["here", "limit", "reauthenticate"])
def test_whoever_signs_out_on_a_page_of_ours_reads_that_it_worked(
    owner, signed_in, policy, clock, path
):
    if path == "here":
        answer = owner.post(end_url(owner))
    elif path == "limit":
        policy(limit=1, on_limit="ask")
        owner = signed_in()
        answer = owner.post(LIMIT, {"sign_out": "1"})
    else:
        policy(**LOCK)
        owner = signed_in()
        clock.move(seconds=600)
        answer = owner.post("/account/sessions/reauthenticate/", {"sign_out": "1"})
    page = owner.get(answer.headers["Location"])
    (message,) = page.context["messages"]
    assert (str(message), message.level_tag) == ("You have signed out.", "success")
    assert not is_in(owner)


# Pages that lead on.


def take_down(monkeypatch):
    store.take_down(
        monkeypatch, *(("read", "aread") if store.SessionStore.native_async else ("read",))
    )


@pytest.mark.parametrize(
    ("method", "referer", "link"),
    [
        ("get", "", '<a class="sessionkit-button" href="/private/?page=2">Try again</a>'),
        ("get", "http://testserver/", 'href="/private/?page=2">Try again</a>'),
        ("post", "http://testserver/form/", 'href="http://testserver/form/">Back to the page</a>'),
        ("post", "https://evil.example/", ""),
        ("post", "", ""),
    ],
)
def test_the_page_of_a_store_that_does_not_answer_leads_back(
    signed_in, monkeypatch, method, referer, link
):
    browser = signed_in()
    with monkeypatch.context() as outage:
        take_down(outage)
        page = getattr(browser, method)("/private/?page=2", headers={"referer": referer})
    assert page.status_code == 503
    assert "We cannot look up your sign-in right now. You are still signed in." in words(page)
    assert link in page.text
    assert ("<a " in page.text) == bool(link)
    if link and method == "get":
        assert browser.get("/private/?page=2").content == b"alice"


def test_the_page_of_a_form_that_was_not_saved_leads_back_to_the_form(signed_in):
    browser = signed_in()
    headers = {"referer": "http://testserver/read/"}
    page = browser.post("/cycle_elsewhere/", headers=headers)
    assert page.status_code == 409
    assert "what you did here was not saved" in words(page)
    assert 'href="http://testserver/read/">Back to the page</a>' in page.text


# Public pages.


@pytest.mark.parametrize("lock", ["idle", "limit"])
def test_a_public_page_is_there_also_while_its_visitor_is_locked_out(
    signed_in, policy, clock, lock
):
    policy(**(LOCK if lock == "idle" else {"limit": 1, "on_limit": "ask"}))
    browser = signed_in()
    if lock == "idle":
        clock.move(seconds=600)
    else:
        browser = signed_in()
    for url, seen in (("/", b"home"), (view(browser, "whoami"), b"AnonymousUser")):
        response = browser.get(url)
        assert (response.status_code, response.content) == (200, seen)
    assert browser.get("/private/").headers["Location"].startswith("/account/sessions/")
