"""
What a browser sees: the cookie in and out, and what a visitor is told.
"""

import asyncio
from contextlib import suppress
from datetime import timedelta
from functools import partial

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings as django_settings
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.sessions.backends.base import UpdateError
from django.db import OperationalError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.test import RequestFactory
from django.urls import path as route
from django.utils import timezone

from django_sessionkit import answers as kit_answers
from django_sessionkit import middleware, registry, telling
from django_sessionkit.backends import base
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.exceptions import StoreUnavailable, TooManySessions
from django_sessionkit.middleware import SessionMiddleware
from django_sessionkit.models import EndReason, UserSession
from tests import store
from tests.browsers import PAGE, SCRIPT, AsgiBrowser, Browser, deletes_the_cookie, sets_no_cookie
from tests.interleaving import before
from tests.people import key_of, post_sign_in, told
from tests.store import SessionStore, round_trips, travel
from tests.urls import urlpatterns as site

pytestmark = pytest.mark.django_db


@pytest.fixture
def visitor(browse):
    browser = browse()
    browser.post("/write/", {"cart": "teapot"})
    assert browser.get("/read/").json() == {"cart": "teapot"}
    return browser


# The cookie.


@pytest.mark.parametrize("write", ["/write/", "/awrite/"])
@pytest.mark.standard("ASVS-3.3.2", "ASVS-3.3.4", "ASVS-3.3.5", "ASVS-14.3.2", "NIST-5.1.1")
@pytest.mark.standard("NIST-SB-1", "NIST-SB-8.5", "WSTG-SESS-02", "WSTG-SESS-04")
def test_a_session_comes_with_a_cookie_that_no_cache_keeps(browse, write):
    browser = browse()
    response = browser.post(write, {"cart": "teapot"})
    cookie = response.cookies["sessionid"]
    assert len(cookie.value) == 32
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
    assert "no-store" in response.headers["Cache-Control"]
    assert "private" in response.headers["Cache-Control"]
    assert "Cookie" in response.headers["Vary"]
    for read in ("/read/", "/aread/"):
        assert browser.get(read).json() == {"cart": "teapot"}


@pytest.mark.standard("ASVS-7.6.2")
def test_a_visitor_who_leaves_the_session_alone_gets_no_cookie(browse):
    with round_trips(0):
        for path in ("/", "/read/", "/whoami/"):
            response = browse().get(path)
            assert sets_no_cookie(response)
            assert "Cache-Control" not in response.headers


def test_a_page_that_leaves_the_session_alone_costs_nothing(visitor):
    with round_trips(0):
        visitor.get("/")


def test_a_page_that_reads_the_session_costs_one_statement(visitor):
    with round_trips(1):
        visitor.get("/read/")


@pytest.mark.standard("ASVS-14.3.2", "NIST-SB-8.5", "WSTG-SESS-04")
def test_what_the_view_says_about_caching_is_kept_but_for_no_store():
    def view(request):
        request.session["cart"] = []
        return HttpResponse(headers={"Cache-Control": "public, max-age=600"})

    response = SessionMiddleware(view)(RequestFactory().get("/"))
    assert set(response.headers["Cache-Control"].split(", ")) == {
        "private",
        "no-store",
        "max-age=600",
    }


@pytest.mark.parametrize(
    "cookie",
    [
        "sessionid=",
        "sessionid",
        "sessionid=short",
        "sessionid=" + "a" * 31,
        "sessionid=" + "a" * 33,
        "sessionid=" + "a" * 41,
        "sessionid=" + "A" * 32,
        "sessionid=" + "a" * 31 + "\u0430",
        "sessionid=" + "a" * 31 + "٣",
        "sessionid=" + "a" * 32 + "\n",
        "sessionid=" + "x" * 100_000,
        'sessionid="' + "a" * 32 + '"',
        r'sessionid="\000aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"',
        r'sessionid="\015\012aaaaaaaaaaaaaaaaaaaaaaaaaaaaa"',
        "sessionid=\udcff" + "a" * 31,
        "=sessionid=" + "a" * 32,
        '$Version=1; sessionid="' + "a" * 32 + '"; $Path=/',
        "sessionid=../../../../../../../../etc/passwd",
        ";;;=;sessionid==;",
    ],
)
@pytest.mark.standard("ASVS-2.4.1", "NIST-SB-2", "WSTG-SESS-01")
def test_a_malformed_cookie_is_a_visitor_and_reaches_no_store(cookie):
    # As a server hands it over: bytes read as Latin-1.
    cookie = cookie.encode("utf-8", "surrogateescape").decode("latin-1")
    browser = Browser()
    with round_trips(0):
        response = browser.get("/whoami/", HTTP_COOKIE=cookie)
    assert response.content == b"AnonymousUser"
    response = browser.post("/write/", {"cart": "teapot"}, HTTP_COOKIE=cookie)
    assert response.status_code == 200
    assert len(response.cookies["sessionid"].value) == 32
    assert len(store.payloads()) == 1


@pytest.mark.standard("ASVS-7.2.1", "NIST-SB-2", "WSTG-SESS-01", "WSTG-SESS-03")
def test_a_key_that_was_never_issued_is_a_visitor(browse):
    browser = browse()
    browser.cookies["sessionid"] = "a" * 32
    response = browser.get("/whoami/")
    assert response.content == b"AnonymousUser"
    # For all that is known it was given another one a moment ago, by a parallel request.
    assert sets_no_cookie(response)
    response = browser.post("/write/", {"cart": "teapot"})
    assert response.cookies["sessionid"].value != "a" * 32


SPACES = ["\u2000", "\u00a0", "\u0085", "\u3000", "\x0b", "\x0c", "\x1c", "\u2028"]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("order", ["{good}; {evil}", "{evil}; {good}"])
@pytest.mark.standard("ASVS-3.3.3", "WSTG-SESS-03")
def test_a_sibling_domain_cannot_pass_its_cookie_off_as_ours(settings, visitor, space, order):
    settings.SESSION_COOKIE_NAME = "__Host-sid"
    good = key_of(visitor)
    rogue = SessionStore()
    rogue["cart"] = "rogue"
    rogue.save()
    evil = f"{space}__Host-sid={rogue.session_key}"
    header = order.format(good=f"__Host-sid={good}", evil=evil)
    header = header.encode().decode("latin-1")
    response = Browser().get("/read/", HTTP_COOKIE=header)
    assert response.json() == {"cart": "teapot"}


def test_a_parallel_request_with_the_old_key_does_not_delete_the_new_one(visitor):
    old = key_of(visitor)
    SessionStore(old).cycle_key()
    assert sets_no_cookie(visitor.get("/read/"))


def test_the_same_cookie_twice_is_one(visitor):
    header = f"sessionid={key_of(visitor)}; sessionid={key_of(visitor)}"
    assert Browser().get("/read/", HTTP_COOKIE=header).json() == {"cart": "teapot"}


@pytest.mark.standard("ASVS-3.3.3", "ASVS-16.2.5", "ASVS-16.3.3", "WSTG-SESS-03")
def test_two_session_cookies_are_none(visitor, caplog):
    rogue = SessionStore()
    rogue.save()
    good = key_of(visitor)
    for header in (
        f"sessionid={good}; sessionid={rogue.session_key}",
        f"sessionid={rogue.session_key}; theme=dark;\tsessionid={good} ",
    ):
        caplog.clear()
        response = Browser().get("/read/", HTTP_COOKIE=header)
        assert response.json() == {}
        assert sets_no_cookie(response)  # a deletion could hit the good one
        (record,) = caplog.records
        assert record.name == "django.security.SuspiciousSession"
        assert good not in caplog.text


def test_white_space_that_the_standard_knows_is_no_obstacle(visitor):
    header = f"theme=dark;\t sessionid={key_of(visitor)} \t; other=1"
    assert Browser().get("/read/", HTTP_COOKIE=header).json() == {"cart": "teapot"}


@pytest.mark.parametrize("attack", ["", "{space}sessionid={evil}"])
def test_a_cookie_that_code_puts_on_the_request_counts(visitor, attack):
    # As middlewares do that take the key of a session from a header.
    header = attack.format(space="\u2000", evil="a" * 32).encode().decode("latin-1")
    request = RequestFactory().get("/", HTTP_COOKIE=header)
    request.COOKIES["sessionid"] = key_of(visitor)
    SessionMiddleware(lambda request: HttpResponse()).process_request(request)
    assert request.session["cart"] == "teapot"


@pytest.mark.parametrize("looked_at", [False, True])
@pytest.mark.standard("ASVS-3.3.3")
def test_what_django_reads_into_a_header_is_not_put_there_by_code(visitor, looked_at):
    header = f"\u2000sessionid={key_of(visitor)}".encode().decode("latin-1")
    request = RequestFactory().get("/", HTTP_COOKIE=header)
    if looked_at:
        assert request.COOKIES["sessionid"] == key_of(visitor)
    SessionMiddleware(lambda request: HttpResponse()).process_request(request)
    assert request.session.is_empty()


def test_the_header_counts_where_it_has_a_session_cookie(visitor):
    request = RequestFactory().get("/", HTTP_COOKIE=f"sessionid={key_of(visitor)}")
    request.COOKIES["sessionid"] = "a" * 32
    SessionMiddleware(lambda request: HttpResponse()).process_request(request)
    assert request.session["cart"] == "teapot"


def test_a_request_that_somebody_has_made_by_hand_has_the_cookies_they_gave_it(visitor):
    request = HttpRequest()
    request.COOKIES["sessionid"] = key_of(visitor)
    SessionMiddleware(lambda request: HttpResponse()).process_request(request)
    assert request.session["cart"] == "teapot"


@pytest.mark.parametrize(
    "headers",
    [
        {"REMOTE_ADDR": None},
        {"HTTP_USER_AGENT": None, "HTTP_SEC_PURPOSE": None},
    ],
)
def test_a_server_that_says_none_for_what_is_not_there_is_understood(headers):
    request = RequestFactory().get("/")
    request.META.update(headers)
    response = SessionMiddleware(lambda request: HttpResponse("fine"))(request)
    assert response.content == b"fine"


@pytest.mark.parametrize("accept", ["text/html;a*=foo'x'%41", 'a/b;";;;' * 7000])
def test_an_ended_session_with_a_hostile_accept_header_is_just_told(signed_in, accept):
    browser = signed_in()
    UserSession.objects.revoke()
    response = browser.get("/private/", headers={"accept": accept})
    assert response.status_code == (302 if "html" in accept else 401)


@pytest.mark.parametrize(
    ("url", "back"),
    [
        ("/forbidden/?q=" + "&" * 900, "/forbidden/%3Fq%3D" + "%26" * 900),
        ("/forbidden/?q=" + "&" * 8000, "/forbidden/"),
        ("/forbidden/?q=" + "x" * 60_000, "/forbidden/"),
    ],
)
def test_the_way_back_is_no_longer_than_a_redirect_may_be(signed_in, url, back):
    browser = signed_in()
    UserSession.objects.revoke()
    assert browser.get(url).headers["Location"] == f"/login/?next={back}"


@pytest.mark.parametrize(
    ("name", "httponly"), [("__Http-sid", True), ("__Host-Http-sid", True), ("__Host-sid", "")]
)
@pytest.mark.standard("ASVS-3.3.3", "WSTG-SESS-02")
def test_the_deletion_of_a_cookie_with_a_prefix_is_one_that_browsers_take(
    settings, browse, name, httponly
):
    settings.SESSION_COOKIE_NAME = name
    settings.SESSION_COOKIE_SECURE = True
    browser = browse()
    browser.cookies[name] = "malformed"
    cookie = browser.get("/whoami/").cookies[name]
    assert cookie["max-age"] == 0
    assert cookie["secure"] is True
    assert cookie["path"] == "/"
    assert cookie["httponly"] == httponly


@pytest.mark.standard("ASVS-16.5.3")
def test_nothing_is_saved_when_the_server_fails(visitor):
    visitor.get("/fail/")
    assert visitor.get("/read/").json() == {"cart": "teapot"}


# In a thread is what has to wait for the database.


@pytest.mark.parametrize("path", ["/", "/aread/", "/awrite/"])
def test_an_async_request_takes_no_thread_of_the_middleware(alice, path, monkeypatch):
    browser = AsgiBrowser()
    browser.post("/login/", {"username": "alice", "password": "secret"})
    taken = []

    def counting(function, **kwargs):
        taken.append(function.__name__)
        return sync_to_async(function, **kwargs)

    for module in (middleware, base):
        monkeypatch.setattr(module, "sync_to_async", counting)
    response = browser.post(path, {"cart": "teapot"})
    assert response.status_code == 200
    assert sets_no_cookie(response) is (path != "/awrite/")
    steps = {"/": 0, "/aread/": 1, "/awrite/": 2}[path]
    assert taken == ([] if SessionStore.native_async else ["_run"] * steps)
    with travel(timedelta(seconds=61)):
        browser.get(path, headers={"X-Background-Request": "1"})
        assert "process_response" not in taken
        browser.post(path, {"cart": "kettle"})
    # What is due once a minute is written in one.
    assert ("process_response" in taken) is (path != "/")


# Activity.


@pytest.mark.standard("NIST-5.1.1", "WSTG-SESS-02")
def test_the_cookie_slides_with_the_session(visitor):
    with travel(timedelta(seconds=30)):
        assert sets_no_cookie(visitor.get("/read/"))
    with travel(timedelta(days=10), tick=False) as clock:
        response = visitor.get("/read/")
        cookie = response.cookies["sessionid"]
        assert cookie["max-age"] == django_settings.SESSION_COOKIE_AGE
        assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
        assert "no-store" in response.headers["Cache-Control"]
        assert sets_no_cookie(visitor.get("/read/"))
        clock.shift(timedelta(days=10))
        assert visitor.get("/read/").json() == {"cart": "teapot"}


def test_a_cookie_that_goes_with_the_browser_is_not_made_to_last(browse, settings):
    settings.SESSION_EXPIRE_AT_BROWSER_CLOSE = True
    visitor = browse()
    cookie = visitor.post(f"/{visitor.a}write/", {"cart": "teapot"}).cookies["sessionid"]
    assert (cookie["max-age"], cookie["expires"]) == ("", "")
    assert visitor.get(f"/{visitor.a}read/").json() == {"cart": "teapot"}
    with travel(timedelta(hours=1)):
        assert sets_no_cookie(visitor.get(f"/{visitor.a}read/"))


def test_a_touch_of_a_session_that_the_view_then_saves_sets_one_cookie(visitor):
    with travel(timedelta(hours=1)):
        response = visitor.post("/write/", {"theme": "dark"})
    assert response.cookies["sessionid"].value == key_of(visitor)


def test_where_a_session_was_last_seen(signed_in):
    browser = signed_in()
    with travel(timedelta(hours=1)):
        browser.get("/whoami/")
    row = UserSession.objects.get()
    assert row.ip == "127.0.0.1"
    assert row.last_seen_at - row.started_at > timedelta(minutes=59)


# Sessions that were ended.


@pytest.mark.standard("ASVS-7.4.1")
def test_a_session_that_was_ended_is_told_so_on_the_sign_in_page(signed_in):
    browser = signed_in()
    UserSession.objects.revoke()
    response = browser.get("/private/?page=2")
    assert response.status_code == 302
    assert response.headers["Location"] == "/login/?next=/private/%3Fpage%3D2"
    assert "no-store" in response.headers["Cache-Control"]
    assert deletes_the_cookie(response)
    page = browser.get(response.headers["Location"])
    assert b"signed out from another device" in page.content
    # Once.
    assert b"ended" not in browser.get("/login/").content
    assert browser.get("/whoami/").content == b"AnonymousUser"


@pytest.mark.standard("ASVS-7.2.1", "ASVS-7.4.1", "NIST-SB-8.2", "WSTG-SESS-06")
def test_nobody_can_use_the_cookie_of_somebody_who_has_signed_out(signed_in, browse):
    browser, thief = signed_in(), browse()
    thief.cookies["sessionid"] = key_of(browser)
    assert thief.get("/whoami/").content == b"alice"
    browser.post("/logout/")
    assert thief.get("/whoami/").content != b"alice"


def test_a_form_that_is_sent_from_an_ended_session_leads_to_the_sign_in_page(signed_in):
    browser = signed_in()
    UserSession.objects.revoke(EndReason.REVOKED_BY_STAFF)
    response = browser.post("/account/sessions/others/end/")
    assert response.headers["Location"].startswith("/login/?next=")
    assert deletes_the_cookie(response)
    assert b"signed out by the staff" in browser.get("/login/").content


def test_what_a_view_has_done_for_a_stranger_stays_done(signed_in):
    browser = signed_in()
    UserSession.objects.revoke()
    response = browser.post("/write/", {"cart": "teapot"})
    assert response.content == b"written"
    assert browser.get("/read/").json() == {"cart": "teapot"}
    assert b"signed out from another device" in browser.get("/login/").content
    browser = signed_in()
    UserSession.objects.revoke()
    response = browser.get("/secret_in_a_redirect/")
    assert response.headers["Location"] == "/reset/set-password/"
    assert deletes_the_cookie(response)
    assert b"signed out from another device" in browser.get("/login/").content


def test_who_is_known_by_other_means_is_known(signed_in):
    browser = signed_in()
    UserSession.objects.revoke()
    for headers in (PAGE, SCRIPT):
        response = browser.get("/known_by_token/", headers=headers)
        assert response.content == b"alice"


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_view_that_refuses_without_a_redirect_is_told_so(signed_in, method):
    browser = signed_in()
    UserSession.objects.revoke()
    response = getattr(browser, method)("/forbidden/")
    assert response.headers["Location"].startswith("/login/")


@pytest.mark.parametrize(
    "headers",
    [
        SCRIPT,
        {"accept": "*/*", "sec-fetch-mode": "cors"},
        {"accept": "application/json, text/html;q=0.5"},
    ],
)
def test_a_script_is_not_sent_to_the_sign_in_page(signed_in, headers):
    browser = signed_in()
    UserSession.objects.revoke()
    response = browser.get("/private/", headers=headers)
    assert response.status_code == 401
    assert response.json() == {
        "detail": (
            "You were signed out from another device. If that was not you, sign in and change your"
            " password."
        ),
        "reason": "revoked",
    }
    assert response.headers["Session-Ended"] == "revoked"
    assert deletes_the_cookie(response)
    # It may be a script of a page, and the page is to be told as well.
    is_of_a_page = "sec-fetch-mode" in headers
    assert (b"signed out from another device" in browser.get("/login/").content) is is_of_a_page


def test_a_page_that_leaves_the_session_alone_does_not_notice(signed_in):
    browser = signed_in()
    UserSession.objects.revoke()
    assert browser.get("/").content == b"home"


@pytest.mark.parametrize("reason", EndReason.values)
def test_there_is_a_word_for_every_reason(signed_in, reason):
    browser = signed_in()
    UserSession.objects.revoke(reason)
    response = browser.get("/private/", headers=SCRIPT)
    assert response.json()["detail"].startswith(("You ", "Your sign-in"))
    assert response.headers["Session-Ended"] == reason


def test_the_sign_in_page_does_not_send_to_itself(signed_in):
    browser = signed_in()
    UserSession.objects.revoke()
    response = browser.get("/login/")
    assert response.status_code == 200
    assert deletes_the_cookie(response)


@pytest.mark.parametrize("setting", ["/schlüssel/", "keys", "/schl%C3%BCssel/"])
def test_a_sign_in_page_with_letters_of_any_language_is_known(alice, settings, setting):
    browser = Browser(headers=PAGE)  # AsyncClient garbles such paths
    post_sign_in(browser)
    settings.ROOT_URLCONF = (
        route("schlüssel/", read_and_ask, name="keys"),
        route("plain/", plain_redirect),
        *site,
    )
    settings.LOGIN_URL = setting
    UserSession.objects.revoke()
    # It does not send to itself, and a redirect to it is a refusal.
    assert browser.get("/schlüssel/").content == b"the password, please"
    response = browser.get("/plain/")
    assert response.headers["Location"] == "/schl%C3%BCssel/"
    assert deletes_the_cookie(response)


def read_and_ask(request):
    request.session.get("cart")
    return HttpResponse("the password, please")


def plain_redirect(request):
    request.session.get("cart")
    return HttpResponseRedirect("/schlüssel/")


def test_a_view_that_knows_its_own_sign_in_page_has_its_way(signed_in):
    browser = signed_in()
    UserSession.objects.revoke()
    response = browser.get("/admin/")
    assert response.headers["Location"] == "/admin/login/?next=/admin/"
    assert deletes_the_cookie(response)
    assert b"signed out from another device" in browser.get("/login/").content


def test_the_sign_in_page_of_the_admin_does_not_send_elsewhere(signed_in):
    browser = signed_in()
    UserSession.objects.revoke()
    assert browser.get("/admin/login/").status_code == 200


@pytest.mark.parametrize("kind", [PAGE, SCRIPT])
def test_a_redirect_that_has_a_next_of_its_own_is_no_refusal(answers, signed_in, kind):
    """The next step of a wizard: what the view has done stays done."""
    headers = {**kind, "cookie": f"sessionid={key_of(signed_in())}"}
    UserSession.objects.revoke()

    def act(request):
        assert request.session.get("cart") is None
        return HttpResponseRedirect("/wizard/?next=2")

    response = answers(act, RequestFactory().post("/wizard/?next=1", headers=headers))
    assert (response.status_code, response.headers["Location"]) == (302, "/wizard/?next=2")


SIGN_IN_PAGES = ["/login/", "/login/?next=/elsewhere/", "/admin/login/", "/x/?next=/a/"]


@pytest.mark.parametrize("to", SIGN_IN_PAGES)
def test_a_redirect_to_a_sign_in_page_is_a_refusal(answers, signed_in, to):
    headers = {**SCRIPT, "cookie": f"sessionid={key_of(signed_in())}"}
    UserSession.objects.revoke()

    def act(request):
        assert request.session.get("cart") is None
        return HttpResponseRedirect(to)

    response = answers(act, RequestFactory().get("/a/", headers=headers))
    assert response.status_code == 401


def test_cookies_of_a_view_survive_the_farewell(answers, signed_in):
    """The state of a sign-in at another site, without which that fails."""
    headers = {**PAGE, "cookie": f"sessionid={key_of(signed_in())}"}
    UserSession.objects.revoke()

    def act(request):
        assert request.session.get("cart") is None
        response = HttpResponseRedirect("/login/?next=/a/")
        response.set_cookie("oidc_state", "abc", httponly=True)
        return response

    response = answers(act, RequestFactory().get("/a/", headers=headers))
    assert response.headers["Location"] == "/login/?next=/a/"
    assert response.cookies["oidc_state"].value == "abc"
    assert response.cookies["oidc_state"]["httponly"]
    assert deletes_the_cookie(response)


@pytest.mark.parametrize("header", ["CDN-Cache-Control", "Surrogate-Control"])
@pytest.mark.standard("ASVS-14.3.2")
def test_no_cache_in_front_of_the_site_is_told_to_keep_a_cookie(answers, header):
    def act(request):
        request.session["cart"] = "teapot"
        return HttpResponse("done", headers={header: "max-age=600", "Cache-Control": "public"})

    response = answers(act, RequestFactory().get("/"))
    assert "sessionid" in response.cookies
    assert header not in response.headers
    assert "no-store" in response.headers["Cache-Control"]


def test_another_host_does_not_learn_the_query(signed_in, settings):
    browser = signed_in()
    settings.LOGIN_URL = "https://sso.example/sign-in"
    UserSession.objects.revoke()
    location = browser.get("/forbidden/?token=secret").headers["Location"]
    assert location == "https://sso.example/sign-in?next=http%3A//testserver/forbidden/"


@pytest.mark.parametrize("kind", [PAGE, SCRIPT])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_new_session_that_was_rolled_back_changes_no_answer(answers, kind, method):
    """With ATOMIC_REQUESTS, by a handler of exceptions. In Redis, the session stays."""

    def act(request):
        with transaction.atomic():
            request.session["cart"] = "teapot"
            request.session.create()
            transaction.set_rollback(True)
        return HttpResponse("not here", status=404)

    response = answers(act, getattr(RequestFactory(), method)("/", headers=kind))
    assert (response.status_code, response.content) == (404, b"not here")
    assert ("sessionid" in response.cookies) is store.APART
    assert response.headers["Vary"] == "Cookie"


def test_signing_in_with_the_cookie_of_an_ended_session_just_works(signed_in):
    browser = signed_in()
    old = key_of(browser)
    UserSession.objects.revoke()
    response = browser.post("/login/", {"username": "alice", "password": "secret"})
    assert response.headers["Location"] == "/"
    assert key_of(browser) != old
    assert browser.get("/whoami/").content == b"alice"


def test_a_site_without_messages_is_told_as_well(signed_in, browse, settings):
    cookies = signed_in().cookies
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "messages" not in name]
    browser = browse()  # one that knows of no messages
    browser.cookies = cookies
    UserSession.objects.revoke()
    response = browser.get("/forbidden/")
    assert response.headers["Location"] == "/login/?next=/forbidden/"
    assert "messages" not in response.cookies


@pytest.mark.parametrize("meanwhile", [False, True])
def test_messages_that_are_kept_in_the_session_arrive(signed_in, settings, meanwhile):
    settings.MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
    browser = signed_in()
    if meanwhile:
        assert browser.get("/end_here/").content == b"written"
    else:
        UserSession.objects.revoke()
        assert browser.get("/read/").json() == {}
    assert b"signed out from another device" in browser.get("/login/").content


@pytest.mark.standard("ASVS-7.2.1", "ASVS-7.4.1", "NIST-SB-4", "WSTG-SESS-07")
def test_an_expired_session_is_told_so(signed_in):
    browser = signed_in()
    with travel(timedelta(days=15)):
        browser.cookies["sessionid"]["expires"] = browser.cookies["sessionid"]["max-age"] = ""
        detail = browser.get("/private/", headers=SCRIPT).json()
    assert detail == {"detail": "Your sign-in has expired.", "reason": "expired"}
    assert UserSession.objects.get().end_reason == EndReason.EXPIRED


def test_a_session_that_its_store_has_lost_is_shown_as_ended(signed_in):
    browser = signed_in()
    store.wipe()
    assert told(browser) == "lost"
    row = UserSession.objects.get()
    assert row.end_reason == EndReason.LOST
    assert row.ended_at


def test_what_the_touch_refuses_is_told_so(signed_in):
    browser = signed_in()
    UserSession.objects.update(ended_at=timezone.now(), end_reason=EndReason.REVOKED)
    with travel(timedelta(seconds=61)):
        assert told(browser) == "revoked"
    assert not store.payloads()


@pytest.mark.standard("ASVS-7.4.1")
def test_a_request_whose_session_is_ended_meanwhile_is_told_so(signed_in):
    """Not a 500, and not Django's bare 400."""
    browser = signed_in()
    response = browser.get("/end_here_and_save/", headers=SCRIPT)
    assert response.status_code == 401
    assert response.json()["reason"] == response.headers["Session-Ended"] == "revoked"
    assert deletes_the_cookie(response)
    assert not store.payloads()
    browser = signed_in()
    response = browser.get("/end_here_and_save/")
    assert response.headers["Location"].startswith("/login/?next=")
    assert deletes_the_cookie(response)
    assert b"signed out from another device" in browser.get(response.headers["Location"]).content


def test_a_row_without_a_reason_has_a_word_too(signed_in):
    browser = signed_in()
    UserSession.objects.revoke()
    UserSession.objects.update(end_reason="")
    response = browser.get("/private/", headers=SCRIPT)
    assert response.json() == {"detail": "You were signed out.", "reason": "lost"}


def test_a_site_without_a_sign_in_page_says_so_itself(signed_in, settings):
    settings.LOGIN_URL = "nowhere"
    browser = signed_in()
    UserSession.objects.revoke()
    response = browser.get("/forbidden/")
    assert response.status_code == 401
    assert b"signed out from another device" in response.content
    assert "messages" not in response.cookies
    assert deletes_the_cookie(response)


def test_a_sign_in_page_elsewhere_knows_the_way_back(signed_in, settings):
    browser = signed_in()
    settings.LOGIN_URL = "https://sso.example/sign-in?service=shop"
    UserSession.objects.revoke()
    location = browser.get("/forbidden/").headers["Location"]
    back = "http%3A//testserver/forbidden/"
    assert location == f"https://sso.example/sign-in?service=shop&next={back}"


def test_a_session_that_ends_on_a_site_that_saves_every_request_is_told_so(signed_in, settings):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    browser = signed_in()
    UserSession.objects.revoke()
    response = browser.get("/")
    assert response.content == b"home"
    assert deletes_the_cookie(response)
    assert b"signed out from another device" in browser.get("/login/").content
    assert not store.payloads()


def test_a_session_of_its_own_that_a_view_cannot_save_is_its_own_affair(visitor):
    assert visitor.get("/own_session/").status_code == 500


def test_a_request_that_another_tab_overtakes_leaves_the_new_cookie_alone(visitor):
    response = visitor.get("/cycle_elsewhere/?a=1")
    assert response.status_code == 302
    assert response.headers["Location"] == "/cycle_elsewhere/?a=1"
    assert sets_no_cookie(response)


def test_a_form_that_another_tab_overtakes_is_not_sent_again_by_itself(visitor):
    response = visitor.post("/cycle_elsewhere/")
    assert response.status_code == 409
    assert b"what you did here was not saved" in response.content
    assert sets_no_cookie(response)
    response = visitor.get("/read/")
    assert response.json() == {}


def test_a_script_that_another_tab_overtakes_is_409(visitor):
    response = visitor.get("/cycle_elsewhere/", headers=SCRIPT)
    assert response.status_code == 409
    assert "another tab" in response.json()["detail"]


# A store that does not answer.


@pytest.fixture
def down(monkeypatch):
    yield partial(store.take_down, monkeypatch)
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("path", "verb"),
    [("/whoami/", "read"), ("/read/", "read"), ("/aread/", "read"), ("/fail/", "replace")],
)
@pytest.mark.standard("ASVS-16.5.2")
def test_a_store_that_is_down_is_503_and_logs_nobody_out(signed_in, down, path, verb, monkeypatch):
    browser = signed_in()
    key = key_of(browser)
    down(verb)
    if path == "/fail/":
        response = browser.post("/write/", {"cart": "teapot"})
    else:
        response = browser.get(path)
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert "no-store" in response.headers["Cache-Control"]
    assert b"still signed in" in response.content
    assert sets_no_cookie(response)
    assert browser.get("/").content == b"home"
    monkeypatch.undo()
    assert key_of(browser) == key
    assert browser.get("/whoami/").content == b"alice"


def test_a_store_that_is_down_is_503_for_a_script(signed_in, down):
    browser = signed_in()
    down("read")
    response = browser.get("/whoami/", headers=SCRIPT)
    assert response.status_code == 503
    assert "still signed in" in response.json()["detail"]


@pytest.mark.standard("ASVS-16.5.3")
def test_a_view_that_makes_do_without_the_session_is_503_too(visitor, down):
    """A template swallows exceptions, and shows "Sign in" to somebody who is."""
    down("read")

    def view(request):
        with suppress(StoreUnavailable):
            request.session.get("cart")
        return HttpResponse("Hello, stranger")

    async def aview(request):
        with suppress(StoreUnavailable):
            await request.session.aget("cart")
        return HttpResponse("Hello, stranger")

    request = RequestFactory().get("/", headers={"cookie": f"sessionid={key_of(visitor)}"})
    assert SessionMiddleware(view)(request).status_code == 503
    assert async_to_sync(SessionMiddleware(aview))(request).status_code == 503


def test_a_registry_that_is_down_is_503(signed_in, monkeypatch):
    browser = signed_in()
    UserSession.objects.revoke()

    def fail(*args):
        raise OperationalError("no route to host")

    monkeypatch.setattr("django_sessionkit.registry.row_of_missing", fail)
    assert browser.get("/private/").status_code == 503
    for url in ("/end_here/", "/end_here_and_save/"):
        monkeypatch.undo()
        browser = signed_in()
        monkeypatch.setattr("django_sessionkit.registry.row_of_missing", fail)
        assert browser.get(url).status_code == 503


# Beside others.


def test_a_view_that_takes_the_session_away_gets_its_way(answers):
    def act(request):
        del request.session
        return HttpResponse("done")

    assert answers(act, RequestFactory().get("/")).content == b"done"


# What views do without a look at the session that the cookie names, which may be gone.


@pytest.fixture(params=["sync", "async"])
def answers(request):
    """Have a view answer a request, with its session."""

    def answers(act, request, middleware=SessionMiddleware):
        return middleware(act)(request)

    def async_answers(act, request, middleware=SessionMiddleware):
        return async_to_sync(middleware(sync_to_async(act)))(request)

    return answers if request.param == "sync" else async_answers


def mark(request):
    request.session.modified = True
    return HttpResponse("done")


def begin_anew(request):
    request.session.clear()
    request.session["cart"] = "kettle"
    return HttpResponse("done")


@pytest.mark.parametrize("act", [mark, begin_anew])
def test_who_comes_with_the_cookie_of_a_session_that_is_gone_gets_somewhere(answers, act):
    """Not to the same page again and again."""
    headers = {**PAGE, "cookie": "sessionid=abcdefghijklmnopqrstuvwxyz234567"}
    response = answers(act, RequestFactory().get("/", headers=headers))
    if act is begin_anew:  # also where the cookie is one that the answer cannot delete
        key = response.cookies["sessionid"].value
        assert SessionStore(key).load() == {"cart": "kettle"}
    assert response.content == b"done"


@pytest.mark.parametrize("kind", [PAGE, SCRIPT])
def test_who_cannot_begin_anew_is_not_led_to_the_same_page_again(kind, alice):
    """A view that does not leave the save to the middleware."""
    request = RequestFactory().get("/", headers={**kind, "cookie": f"sessionid={'a' * 32}"})
    middleware = SessionMiddleware(begin_anew)
    middleware.process_request(request)
    begin_anew(request)
    with pytest.raises(UpdateError) as raised:
        request.session.save()
    response = middleware.process_exception(request, raised.value)
    assert response is not None
    assert response.status_code == 409
    assert deletes_the_cookie(middleware.process_response(request, response))


def test_who_is_refused_while_another_tab_changes_the_key_keeps_that(
    answers, visitor, alice, monkeypatch
):
    def act(request):
        request.session.clear()
        request.session[SESSION_KEY] = str(alice.pk)
        return HttpResponse("done")

    def refuse(*args):
        raise TooManySessions(1)

    before(monkeypatch, kit_answers, "_refuse", SessionStore(key_of(visitor)).cycle_key)
    monkeypatch.setattr(registry, "enter", refuse)
    headers = {**PAGE, "cookie": f"sessionid={key_of(visitor)}"}
    response = answers(act, RequestFactory().get("/", headers=headers))
    assert response.status_code == 403
    assert sets_no_cookie(response)


def test_a_middleware_of_a_site_is_asked(answers):
    class Own(SessionMiddleware):
        def process_response(self, request, response):
            response = super().process_response(request, response)
            response.headers["X-Own"] = str(get_user_model().objects.count())  # blocks
            return response

    class Closed(SessionMiddleware):
        def process_request(self, request):
            return super().process_request(request) or HttpResponse("closed")

    response = answers(begin_anew, RequestFactory().get("/"), Own)
    assert response.headers["X-Own"] == "0"
    assert response.cookies["sessionid"].value
    assert answers(begin_anew, RequestFactory().get("/"), Closed).content == b"closed"


def test_the_page_that_says_that_a_store_is_down_may_wait(visitor, down, monkeypatch):
    """A site has one of its own, with a tag that asks the database, say."""
    down("areplace" if SessionStore.native_async else "replace")

    def render(*args):
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return "down"

    monkeypatch.setattr(telling, "render_to_string", render)
    headers = {**PAGE, "cookie": f"sessionid={key_of(visitor)}"}

    async def view(request):
        await request.session.aset("cart", "kettle")
        return HttpResponse("done")

    response = async_to_sync(SessionMiddleware(view))(RequestFactory().get("/", headers=headers))
    assert (response.status_code, response.content) == (503, b"down")


def test_a_session_of_another_engine_is_left_to_its_own():
    from django.contrib.sessions.backends.signed_cookies import SessionStore as Other

    def view(request):
        request.session = Other()
        request.session["cart"] = []
        return HttpResponse()

    response = SessionMiddleware(view)(RequestFactory().get("/"))
    assert response.cookies["sessionid"].value


def test_the_engine_works_with_the_middleware_of_django(settings, alice, browse):
    settings.MIDDLEWARE = [
        name.replace("django_sessionkit.middleware", "django.contrib.sessions.middleware")
        for name in settings.MIDDLEWARE
    ]
    browser = browse()
    browser.post("/write/", {"cart": "teapot"})
    browser.post("/login/", {"username": "alice", "password": "secret"})
    assert browser.get("/whoami/").content == b"alice"
    assert browser.get("/read/").json() == {"cart": "teapot"}
    assert UserSession.objects.active().get().digest == digest_of(key_of(browser))
    UserSession.objects.revoke()
    assert browser.get("/whoami/").content == b"AnonymousUser"
