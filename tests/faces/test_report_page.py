"""The page behind the link in a mail: "this was not me"."""

import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.auth.views import PasswordResetView
from django.core import mail, signing
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path

from django_sessionkit.links import SALT, report_link
from django_sessionkit.models import EndReason, UserSession
from tests.browsers import BROWSERS, PAGE
from tests.pages import Strict, press, token, words
from tests.people import CHROME, FIREFOX, IPHONE, handle, is_in, row_of, sign_in
from tests.store import DAY, Clock, payloads
from tests.urls import urlpatterns as site

pytestmark = pytest.mark.django_db


class WithReset:
    """A site whose users can reset their password."""

    urlpatterns = [*site, path("reset/", PasswordResetView.as_view(), name="password_reset")]


class WithChange:
    urlpatterns = [*site, path("change/", PasswordResetView.as_view(), name="password_change")]


def link_to(device: Client) -> str:
    return report_link(handle(device))


def same_browser(*devices: Client) -> None:
    """Note that these are sign-ins in one browser."""
    rows = UserSession.objects.filter(pk__in=[handle(device) for device in devices])
    rows.update(browser=uuid.uuid4())


def state() -> Any:
    """Return all that is stored."""
    return list(UserSession.objects.order_by("pk").values()), payloads()


def test_thief_is_signed_out_and_nobody_else(alice: User, bob: User):
    laptop, phone, thief, again = [
        sign_in(alice, agent) for agent in (FIREFOX, IPHONE, CHROME, CHROME)
    ]
    of_bob = sign_in(bob, CHROME)
    same_browser(thief, again, of_bob)
    stranger = Client(enforce_csrf_checks=True, headers=PAGE)
    link = link_to(thief)
    page = stranger.get(link)
    assert "Was this not you?" in words(page)
    assert "Chrome on Windows" in words(page)
    answer = press(stranger, link)
    assert (answer.status_code, answer.headers["Location"]) == (302, link)
    assert not is_in(thief)
    assert not is_in(again)
    assert is_in(laptop)
    assert is_in(phone)
    assert is_in(of_bob, "bob")
    reported = UserSession.objects.exclude(reported_at=None)
    assert {row.end_reason for row in reported} == {EndReason.REVOKED}
    assert {row.ended_by for row in reported} == {alice}
    assert reported.count() == 2
    assert "This device is signed out" in words(stranger.get(link))


def test_what_the_browser_did_later_is_reported_too(alice: User):
    """Or it would be taken for one that the user knows, at the next sign-in."""
    before, reported, later = [sign_in(alice, CHROME) for _ in range(3)]
    same_browser(before, reported, later)
    link, rows = link_to(reported), [row_of(each).pk for each in (before, reported, later)]
    UserSession.objects.revoke(EndReason.LOGOUT)
    press(Client(), link)
    known = [UserSession.objects.get(pk=pk).reported_at for pk in rows]
    assert [at is not None for at in known] == [False, True, True]


def test_session_of_an_unknown_browser_ends_alone(alice: User):
    laptop, thief = sign_in(alice), sign_in(alice, CHROME)
    UserSession.objects.update(browser=None)
    press(Client(), link_to(thief))
    assert is_in(laptop)
    assert not is_in(thief)


def test_scanners_change_nothing(alice: User):
    thief = sign_in(alice, CHROME)
    link, before, scanner = link_to(thief), state(), Client()
    for _ in range(100):
        assert scanner.get(link).status_code == 200
        assert scanner.head(link).status_code == 200
    for method in ("OPTIONS", "PUT", "DELETE", "PATCH"):
        scanner.generic(method, link)
    assert state() == before
    assert "Was this not you?" in words(scanner.get(link))


def test_form_of_another_site_changes_nothing(alice: User):
    thief = sign_in(alice, CHROME)
    answer = Client(enforce_csrf_checks=True).post(link_to(thief))
    assert answer.status_code == 403
    assert is_in(thief)


def test_link_works_once(alice: User):
    thief = sign_in(alice, CHROME)
    link, stranger = link_to(thief), Client()
    page = stranger.get(link)
    stranger.post(link, token(page))
    before = state()
    assert stranger.post(link, token(page)).status_code == 302  # pressed twice
    assert state() == before
    assert "<form" not in stranger.get(link).text


def test_link_works_for_a_day(alice: User, clock: Clock):
    link = link_to(sign_in(alice, CHROME))
    clock.move(seconds=DAY)
    assert Client().get(link).status_code == 200
    clock.move(seconds=1)
    before = state()
    for answer in (Client().get(link), Client().post(link)):
        assert answer.status_code == 404
        assert "This link does not work any more" in words(answer)
    assert state() == before


@pytest.mark.parametrize(
    "forge",
    [
        lambda link: link[:-2] + "AA/",
        lambda link: link.rpartition("report/")[0] + "report/x/",
        lambda link: link.rpartition("report/")[0] + "report/" + "x" * 5000 + "/",
        lambda link: link.rpartition("report/")[0] + f"report/{signing.dumps('x')}/",
        lambda link: link.rpartition("report/")[0] + f"report/{uuid.uuid4()}/",
    ],
    ids=["signature", "short", "long", "salt", "handle"],
)
def test_forged_link_does_nothing(alice: User, forge: Any):
    link, before = link_to(sign_in(alice, CHROME)), state()
    assert Client().post(forge(link)).status_code == 404
    assert state() == before


def test_link_of_a_session_that_was_purged_does_nothing(alice: User):
    link = link_to(sign_in(alice, CHROME))
    UserSession.objects.all().delete()
    assert Client().get(link).status_code == 404


def test_link_does_not_survive_a_new_secret_key_that_knows_not_the_old_one(
    alice: User, settings: Any
):
    link = link_to(sign_in(alice, CHROME))
    settings.SECRET_KEY, former = "new", settings.SECRET_KEY
    assert Client().get(link).status_code == 404
    settings.SECRET_KEY_FALLBACKS = [former]
    assert Client().get(link).status_code == 200


def test_link_holds_nothing_but_the_handle(alice: User):
    thief = sign_in(alice, CHROME)
    (held,) = [link_to(thief).rstrip("/").rpartition("/")[2]]
    assert signing.loads(held, salt=SALT) == handle(thief).hex


def test_session_that_has_ended_can_still_be_reported(alice: User):
    thief = sign_in(alice, CHROME)
    link = link_to(thief)
    UserSession.objects.revoke(EndReason.LOGOUT)
    ended = row_of(thief)
    page = Client().get(link)
    assert "This device was signed out already." in words(page)
    press(Client(), link)
    row = row_of(thief)
    assert row.reported_at
    assert (row.end_reason, row.ended_at) == (ended.end_reason, ended.ended_at)
    assert "Choose a new one now" in words(Client().get(link))


@pytest.mark.parametrize(
    ("urls", "to"), [(WithReset, "/reset/"), (WithChange, "/change/"), (None, None)]
)
def test_page_leads_to_the_password(alice: User, settings: Any, urls: Any, to: str | None):
    if urls:
        settings.ROOT_URLCONF = tuple(urls.urlpatterns)
    link = link_to(sign_in(alice, CHROME))
    press(Client(), link)
    page = Client().get(link)
    links = [link["href"] for link in Strict(page.text).all("a")]
    assert links == ([to] if to else [])
    assert "Choose a new one now" in words(page)


def test_user_is_signed_out_in_the_row_if_the_store_does_not_answer(alice: User, store_down: None):
    thief = sign_in(alice, CHROME)
    answer = press(Client(), link_to(thief))
    assert answer.status_code == 302
    row = row_of(thief)
    assert row.ended_at
    assert row.reported_at


def test_page_is_kept_from_caches_frames_and_other_sites(alice: User):
    link = link_to(sign_in(alice, CHROME))
    for url in (link, link.replace("report/", "report/x")):
        headers = Client().get(url).headers
        assert "no-store" in headers["Cache-Control"]
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["X-Robots-Tag"] == "noindex"


@pytest.mark.parametrize("state", ["new", "ended", "reported", "forged"])
def test_page_is_strict_html_with_one_heading(alice: User, state: str):
    thief = sign_in(alice, CHROME)
    link = link_to(thief) if state != "forged" else "/account/sessions/report/x/"
    if state == "ended":
        UserSession.objects.revoke()
    if state == "reported":
        press(Client(), link)
    page = Client().get(link)
    strict = Strict(page.text)
    assert len(strict.all("h1")) == 1
    heading = page.text.partition("<h1>")[2].partition("</h1>")[0]
    assert heading in page.text.partition("<title>")[2].partition("</title>")[0]


def test_page_costs_one_query(alice: User):
    link = link_to(sign_in(alice, CHROME))
    with CaptureQueriesContext(connection) as queries:
        Client().get(link)
    assert len(queries) == 1


@pytest.mark.parametrize("use_sessions", [False, True])
def test_visitor_whose_own_session_is_locked_can_report(
    alice: User, policy: Any, clock: Clock, settings: Any, use_sessions: bool
):
    settings.CSRF_USE_SESSIONS = use_sessions
    policy(idle=60, lock=True)
    laptop, thief = sign_in(alice), sign_in(alice, CHROME)
    link = link_to(thief)
    clock.move(seconds=600)
    page = laptop.get(link)
    assert "Was this not you?" in words(page)
    laptop.post(link, token(page))
    assert row_of(thief).reported_at


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", BROWSERS)
def test_who_reports_is_not_told_of_it_by_another_mail(alice: User, settings: Any, kind: str):
    settings.SESSIONKIT_NOTICES = ["others_ended", "ended_by_staff"]
    settings.SESSIONKIT_SITE_URL = "https://shop.example"
    thief = sign_in(alice, CHROME)
    browser: Any = BROWSERS[kind](headers=PAGE)
    link = link_to(thief).removeprefix("https://shop.example")
    assert browser.post(link).status_code == 302
    assert row_of(thief).ended_at
    assert mail.outbox == []
