"""An app opens a web view in which its user is signed in, by a code that works once."""

from datetime import timedelta

import pytest
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.base import UpdateError
from django.http import HttpResponse, JsonResponse
from django.test import Client
from django.urls import path, reverse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from django_sessionkit.backends import handing_over
from django_sessionkit.backends.sealing import HandOverCode, digest_of
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.handover import issue
from django_sessionkit.headers import sign_in
from django_sessionkit.models import EndReason, UserSession
from tests import calls, interleaving, policies, store
from tests.apps import APPS
from tests.browsers import BROWSERS, PAGE, given, put, read, sets_no_cookie, view
from tests.pages import LIST, Strict, token, words
from tests.people import CHROME, FIREFOX, IPHONE, is_in, is_told, key_of, post_sign_in, row_of
from tests.renewals import AFTER, DUE, GRACE
from tests.store import SessionStore, later, payloads, round_trips
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

PHONE = {"name": "Shop", "system": "Android", "model": "Pixel 8", "label": "Alice's telephone"}
# What a browser says of a URL that an app has opened, and of one that a page has led it to.
OPENED, LED = {"sec-fetch-site": "none"}, {"sec-fetch-site": "cross-site"}


def act(request):
    """Has staff act as Alice, as packages for that do."""
    login(request, User.objects.get(username="alice"), "django.contrib.auth.backends.ModelBackend")
    request.session["hijack_history"] = [str(User.objects.get(username="root").pk)]
    request.META.pop("CSRF_COOKIE_NEEDS_UPDATE", None)  # apps take no cookie
    return HttpResponse()


@csrf_exempt
def sign_in_and_issue(request):
    """Signs Alice in by an app, and asks for a code in the same request."""
    alice = User.objects.get(username="alice")
    sign_in(request, alice, "django.contrib.auth.backends.ModelBackend")
    try:
        return JsonResponse({"code": issue(request)})
    except UpdateError as error:
        return JsonResponse({"error": str(error)})


urlpatterns = [
    *site,
    path("act/", act),
    path("app/sign-in-and-issue/", sign_in_and_issue),
]


@pytest.fixture(params=BROWSERS)
def kind(request):
    return request.param


@pytest.fixture
def opened(kind):
    """A function that opens an app, on either handler."""

    def opened(**headers):
        return APPS[kind](raise_request_exception=False, headers=headers)

    return opened


@pytest.fixture
def app(opened, alice):
    """An app in which Alice has signed in."""
    return signed_in_app(opened)


@pytest.fixture
def web_view(kind):
    """A function that opens a web view: a browser, on the same handler."""

    def web_view(**headers):
        headers = PAGE | {"user-agent": CHROME} | OPENED | headers
        return BROWSERS[kind](raise_request_exception=False, headers=headers)

    return web_view


def signed_in_app(opened, **fields):
    app = opened(**{"user-agent": "okhttp/4.12.0"})
    assert app.sign_in(**{**PHONE, **fields}).status_code == 200
    return app


def url_of(code):
    return reverse("django_sessionkit:session_hand_over", args=[code])


def load(browser, code, **headers):
    """Load the URL with a code, and return the answer."""
    return browser.get(url_of(code), headers=headers)


def hand_over(app, browser, to="/whoami/"):
    """Sign a web view in, and return the answer."""
    answer = load(browser, app.code(to))
    assert answer.status_code == 302
    return answer


def is_gone(answer):
    """Tell whether a code has opened nothing."""
    return answer.status_code == 410 and sets_no_cookie(answer)


def app_row(app):
    return UserSession.objects.get(digest=digest_of(app.key.removeprefix("sk_")))


# What comes of it.


def test_a_web_view_is_signed_in_and_shows_the_page(app, web_view):
    browser = web_view()
    answer = hand_over(app, browser, "/private/?from=app#end")
    assert answer.headers["Location"] == "/private/?from=app#end"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Robots-Tag"] == "noindex"
    assert "no-store" in answer.headers["Cache-Control"]
    assert is_in(browser)
    put(browser, cart="teapot")
    assert read(browser).json() == {"cart": "teapot"}
    assert app.get(view(app, "whoami")).content == b"alice"


def test_the_session_is_one_of_its_own_on_the_same_device(app, web_view):
    browser = web_view()
    answer = hand_over(app, browser)
    assert set(answer.cookies) == {"sessionid", "csrftoken"}  # no device cookie
    child, parent = row_of(browser), app_row(app)
    assert key_of(browser) != app.key.removeprefix("sk_")
    assert (child.transport, child.parent, child.backend) == ("cookie", parent.pk, parent.backend)
    assert child.browser == parent.browser
    assert child.label == "Alice's telephone"
    assert str(child.device) == "Shop on Android"
    assert child.user_agent == CHROME
    assert (child.novelty, child.counts, child.support) == ("", False, False)


def test_the_device_stays_what_the_app_says_although_the_web_view_says_more(app, web_view):
    browser = web_view()
    hand_over(app, browser)
    said = {
        "sec-ch-ua": '"Chromium";v="156"',
        "sec-ch-ua-platform": '"Windows"',
        "sec-ch-ua-platform-version": '"15.0.0"',
    }
    with later(120):
        assert browser.get("/whoami/", headers=said).content == b"alice"
    assert str(row_of(browser).device) == "Shop on Android"


def test_the_page_of_devices_shows_one_device(app, web_view):
    browser = web_view()
    hand_over(app, browser)
    page = words(browser.get(LIST), " ")
    assert page.count("Alice's telephone ( 2 sign-ins )") == 1 or "2 sign-ins" in page
    assert "opened by an app" in page
    assert "in an app" in page
    assert browser.get(LIST).context["devices"][0].count == 2
    assert len(browser.get(LIST).context["devices"]) == 1


def test_a_device_that_is_new_is_new_once(opened, web_view, alice, settings):
    """The web view is no new device, also where no cookie names devices."""
    settings.SESSIONKIT_DEVICE_COOKIE = None
    User.objects.update(date_joined=timezone.now() - timedelta(days=1))
    post_sign_in(web_view(**{"user-agent": FIREFOX}))
    app = opened(**{"user-agent": "okhttp/4.12.0"})
    app.sign_in()
    browser = web_view(**{"user-agent": IPHONE})
    hand_over(app, browser)
    assert app_row(app).novelty == "device"
    assert row_of(browser).novelty == ""


@pytest.mark.parametrize(
    "to", ["", "https://example.com/", "//example.com/", "javascript:alert(1)", "/" + "a" * 2000]
)
def test_a_page_elsewhere_is_not_led_to(app, web_view, settings, to):
    settings.LOGIN_REDIRECT_URL = "/read/"
    assert hand_over(app, web_view(), to).headers["Location"] == "/read/"


def test_a_path_of_2000_characters_is_led_to(app, web_view):
    to = "/" + "a" * 1999
    assert hand_over(app, web_view(), to).headers["Location"] == to


def test_a_site_where_everybody_has_to_sign_in(app, web_view, settings):
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]
    browser = web_view()
    assert is_gone(load(browser, "made-up"))
    hand_over(app, browser)
    assert is_in(browser)


def test_every_request_in_a_transaction(app, web_view, atomic_requests):
    browser = web_view()
    # Django has no transactions for async views.
    code = app.get("/app/hand-over/").json()["code"]
    assert load(browser, code).status_code == 302
    assert is_in(browser)
    assert is_gone(load(web_view(), code))


def test_what_a_visitor_had_stays(app, web_view):
    browser = web_view()
    put(browser, cart="teapot")
    visitor = key_of(browser)
    hand_over(app, browser)
    assert read(browser).json() == {"cart": "teapot"}
    assert key_of(browser) != visitor


# The code.


def test_a_code_works_once(app, web_view):
    code = app.code()
    assert given(load(web_view(), code))
    answer = load(web_view(), code)
    assert is_gone(answer)
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "no-store" in answer.headers["Cache-Control"]
    assert "This link does not work any more" in words(answer)
    assert 'href="/login/"' in answer.text
    assert code not in answer.text
    Strict(answer.text)
    assert UserSession.objects.count() == 2


def test_a_site_without_a_sign_in_page_leads_nowhere(web_view, db, settings):
    settings.LOGIN_URL = "nowhere"
    answer = load(web_view(), "made-up")
    assert is_gone(answer)
    assert "<a" not in answer.text


def test_a_code_that_somebody_else_uses_just_now(app, web_view, monkeypatch):
    code, first, second = app.code(), web_view(), web_view()
    left = interleaving.before(monkeypatch, SessionStore, "take", lambda: load(first, code))
    assert is_gone(load(second, code))
    assert not left
    assert is_in(first)


@pytest.mark.parametrize("code", ["a" * 32, "a", "é", "\0", "a" * 5000])
def test_a_code_that_nobody_has_issued_opens_nothing(web_view, db, code):
    assert is_gone(load(web_view(), code))


def test_a_code_is_good_for_a_minute(clock, app, web_view):
    first, second = app.code(), app.code()
    clock.move(seconds=59)
    assert load(web_view(), first).status_code == 302
    clock.move(seconds=1)
    assert is_gone(load(web_view(), second))


def test_a_store_whose_clock_is_behind_keeps_no_code_good(clock, app, web_view):
    code = app.code()
    stored = SessionStore.read(HandOverCode(code).digest)
    SessionStore.remove([HandOverCode(code).digest])
    clock.move(seconds=60)
    SessionStore.insert(HandOverCode(code).digest, stored.payload, *2 * [store.now() + 60_000])
    assert is_gone(load(web_view(), code))


def test_head_uses_no_code_up(app, web_view):
    code = app.code()
    for ask in (Client().head, Client().options, Client().put):
        assert ask(url_of(code)).status_code == 405
    assert load(web_view(), code).status_code == 302


def test_a_code_is_no_session_key(app, opened, web_view):
    code = app.code()
    browser = web_view()
    browser.cookies["sessionid"] = code
    assert not is_in(browser)
    stranger = opened()
    stranger.key = f"sk_{code}"
    assert stranger.get(view(stranger, "whoami")).content == b"AnonymousUser"
    for text in (code, f"\udcff{code}", f"ÿ{code}"):
        assert SessionStore(text).load() == {}
    assert load(web_view(), code).status_code == 302  # nobody has used it up


@pytest.mark.parametrize("whose", ["own", "made up"])
def test_what_has_a_session_key_in_a_header_is_no_web_view(app, web_view, whose):
    url = url_of(app.code())
    key = app.key if whose == "own" else f"sk_{'a' * 32}"
    answer = web_view().get(url, headers={"authorization": f"Bearer {key}"})
    assert is_gone(answer)
    assert "Session-Key" not in answer
    assert UserSession.objects.count() == 1
    assert web_view().get(url).status_code == 302  # the code is as good as it was


def test_a_session_key_is_no_code(app, web_view):
    browser = web_view()
    hand_over(app, browser)
    assert is_gone(load(web_view(), key_of(browser)))
    assert is_gone(load(web_view(), app.key.removeprefix("sk_")))
    assert is_in(browser)


def test_a_payload_under_another_digest_opens_as_nothing(app, web_view):
    """Somebody who can write to the store puts one in the place of the other."""
    code = app.code()
    payload = SessionStore.read(HandOverCode(code).digest).payload
    now = store.now()
    SessionStore.insert(digest_of(code), payload, now, now + 60_000)
    browser = web_view()
    browser.cookies["sessionid"] = code
    assert not is_in(browser)
    session = payloads()[digest_of(app.key.removeprefix("sk_"))]
    other = "b" * 32
    SessionStore.insert(HandOverCode(other).digest, session, now, now + 60_000)
    assert is_gone(load(web_view(), other))


def test_a_copy_of_the_store_and_the_registry_has_no_code(app, web_view):
    code = app.code("/private/secret/")
    copy = payloads()
    assert HandOverCode(code).digest in copy
    for digest, payload in copy.items():
        for secret in (code, "alice", "secret", "ModelBackend"):
            assert secret.encode() not in payload
            assert secret not in digest
        # Not even with SECRET_KEY, which this process has.
        for browser in (web_view(), web_view()):
            assert is_gone(load(browser, digest))
            assert is_gone(load(browser, digest[:32]))
    assert UserSession.objects.count() == 1  # no row, until it is used


def test_a_code_is_in_no_log(app, web_view, caplog):
    caplog.set_level("DEBUG", "django_sessionkit")
    caplog.set_level("DEBUG", "django.security")
    code = app.code()
    load(web_view(), code)
    load(web_view(), code)
    lines = [each for each in caplog.records if not each.name.startswith("django.request")]
    assert code not in "".join(each.getMessage() for each in lines)


def test_error_reports_do_not_show_a_code():
    assert "a" * 32 not in repr(HandOverCode("a" * 32))


# Who gets one.


def test_a_browser_gets_no_code(web_view, alice):
    browser = web_view()
    post_sign_in(browser)
    session = SessionStore(key_of(browser))
    with pytest.raises(ValueError, match="Only the session of an app"):
        issue(session)


def test_a_stranger_gets_no_code(db, drive):
    with pytest.raises(ValueError, match="Only the session of an app"):
        drive(SessionStore(), "issue_code", "")


def test_what_a_code_costs(app):
    session = again_of(app)
    assert session.handle
    with round_trips(2):  # whether the app is still signed in, and what the code leads to
        issue(session)


def test_the_session_alone_is_enough(app, web_view):
    code = issue(again_of(app), "/read/")
    assert load(web_view(), code).headers["Location"] == "/read/"


def again_of(app):
    return SessionStore(app.key.removeprefix("sk_"))


def test_an_app_that_was_signed_out_gets_no_code(app):
    loaded = again_of(app)
    assert loaded.handle
    UserSession.objects.revoke()
    with pytest.raises(UpdateError, match="has ended"):
        issue(loaded)
    answer = app.get(f"/app/{app.a}hand-over/")
    assert answer.status_code == 401
    assert answer.json()["reason"] == "revoked"


def test_an_app_that_is_locked_gets_no_code(clock, opened, alice, policy):
    policy(**policies.LOCK)
    app = signed_in_app(opened)
    clock.move(seconds=600)
    answer = app.get(f"/app/{app.a}hand-over/")
    assert answer.status_code == 401
    assert answer.json()["reason"] == "locked"


def test_an_app_that_waits_for_room_gets_no_code(app, opened, policy):
    policy(limit=1, on_limit="ask")
    again = opened()
    again.sign_in()
    assert again.get(f"/app/{again.a}hand-over/").json()["reason"] == "limit"
    # Nor does the request that signs in.
    assert "locked" in opened().post("/app/sign-in-and-issue/").json()["error"]


def test_the_request_that_signs_in_gets_a_code(opened, web_view, alice):
    code = opened().post("/app/sign-in-and-issue/").json()["code"]
    assert load(web_view(), code).status_code == 302


def test_staff_who_act_as_the_user_get_no_code(opened, alice, root):
    """The new session would be one of the user, and not of the staff."""
    app = opened()
    app.sign_in(username="root")
    assert app.get("/act/").status_code == 200
    assert app.get(view(app, "whoami")).content == b"alice"
    with pytest.raises(ValueError, match="Staff"):
        issue(again_of(app))


# Somebody is signed in there already.


def test_the_same_user_goes_on_with_their_session(app, web_view):
    browser = web_view()
    post_sign_in(browser)
    key = key_of(browser)
    code = app.code("/read/")
    answer = load(browser, code, **LED)
    assert answer.headers["Location"] == "/read/"
    assert sets_no_cookie(answer)
    assert key_of(browser) == key
    assert UserSession.objects.count() == 2
    assert is_gone(load(web_view(), code))


@pytest.fixture
def of_bob(web_view, bob):
    """A browser in which Bob is signed in, with something in his cart."""
    browser = web_view()
    post_sign_in(browser, "bob")
    put(browser, cart="teapot")
    return browser


def test_another_user_is_asked_first(app, of_bob, ended):
    code = app.code()
    page = load(of_bob, code)
    assert page.status_code == 200
    assert sets_no_cookie(page)
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert "no-store" in page.headers["Cache-Control"]
    assert page.headers["X-Frame-Options"] == "DENY"
    assert "Go on as alice?" in words(page)
    assert "You are signed in here as bob." in words(page)
    Strict(page.text)
    assert is_in(of_bob, "bob")
    answer = of_bob.post(url_of(code), token(page))
    assert answer.status_code == 302
    assert is_in(of_bob)
    assert read(of_bob).json() == {}
    assert UserSession.objects.get(user__username="bob").end_reason == EndReason.REPLACED
    assert row_of(of_bob).parent == app_row(app).pk


def test_a_browser_that_a_page_has_led_here_is_asked_first(app, web_view):
    """Otherwise somebody could have others go on in the wrong account."""
    browser, code = web_view(), app.code()
    for led in ("cross-site", "same-site", "same-origin"):
        page = load(browser, code, **{"sec-fetch-site": led})
        assert page.status_code == 200
        assert "Go on as alice?" in words(page)
        assert "You are signed in here" not in words(page)
        assert not is_in(browser)
    assert browser.post(url_of(code), token(page)).status_code == 302
    assert is_in(browser)


def test_an_old_browser_says_nothing_of_that(app, kind):
    browser = BROWSERS[kind](headers=PAGE)
    hand_over(app, browser)
    assert is_in(browser)


def test_nobody_else_can_send_the_form(app, kind, of_bob):
    code = app.code()
    browser = BROWSERS[kind](enforce_csrf_checks=True, headers=PAGE)
    browser.cookies = of_bob.cookies
    assert browser.post(url_of(code), {}).status_code == 403
    assert is_in(of_bob, "bob")
    page = load(browser, code)
    assert browser.post(url_of(code), token(page)).status_code == 302
    assert is_in(browser)


def test_the_form_is_sent_too_late(clock, app, of_bob):
    code = app.code()
    page = load(of_bob, code)
    clock.move(seconds=60)
    assert is_gone(of_bob.post(url_of(code), token(page)))
    assert is_in(of_bob, "bob")


def test_staff_who_act_as_this_user_are_asked_first(app, web_view, alice, root):
    """They would have a session of the user otherwise, and the user would not see that."""
    browser = web_view()
    post_sign_in(browser, "root")
    browser.get("/act/")
    put(browser, cart="of staff")
    assert is_in(browser)
    code = app.code()
    page = load(browser, code)
    assert "You are signed in here as root." in words(page)
    proved = app_row(app).authenticated_at
    assert browser.post(url_of(code), token(page)).status_code == 302
    child = row_of(browser)
    assert (child.support, child.parent) == (False, app_row(app).pk)
    assert child.authenticated_at == proved
    assert read(browser).json() == {}


def test_staff_who_act_as_a_user_go_on_in_their_own_account(opened, web_view, alice, root):
    app = opened()
    app.sign_in(username="root")
    browser = web_view()
    post_sign_in(browser, "root")
    browser.get("/act/")
    assert is_in(browser)
    hand_over(app, browser)
    assert is_in(browser, "root")
    assert row_of(browser).parent == app_row(app).pk


def test_a_locked_session_of_another_user_is_asked_first(clock, app, of_bob, policy):
    policy(**policies.LOCK)
    of_bob.post("/logout/")
    post_sign_in(of_bob, "bob")  # under this policy
    clock.move(seconds=600)
    app.sign_in(**PHONE)
    code = app.code()
    page = load(of_bob, code)
    assert "You are signed in here as bob." in words(page)
    assert of_bob.post(url_of(code), token(page)).status_code == 302
    assert is_in(of_bob)


def test_a_locked_session_of_the_same_user_ends(clock, opened, web_view, alice, policy):
    policy(**policies.LOCK)
    browser = web_view()
    post_sign_in(browser)
    locked = row_of(browser).pk
    clock.move(seconds=600)
    app = signed_in_app(opened)
    hand_over(app, browser)
    assert is_in(browser)
    assert row_of(browser).parent == app_row(app).pk
    assert UserSession.objects.get(pk=locked).end_reason == EndReason.LOGOUT


# Before it is used.


@pytest.mark.parametrize("where", ["registry", "app"])
def test_an_app_that_has_ended_opens_nothing(app, web_view, where):
    code = app.code()
    if where == "app":
        app.post("/logout/")
    else:
        UserSession.objects.revoke()
    assert is_gone(load(web_view(), code))
    assert UserSession.objects.count() == 1


def test_an_app_that_has_expired_opens_nothing(clock, opened, web_view, alice, policy):
    policy(absolute=30)
    app = signed_in_app(opened)
    code = app.code()
    clock.move(seconds=30)
    assert is_gone(load(web_view(), code))


def test_an_app_that_ends_just_now_opens_nothing(app, web_view, monkeypatch):
    """Whoever ends it looks for its children before the new one is there."""
    browser, code = web_view(), app.code()
    end = UserSession.objects.filter(pk=app_row(app).pk).revoke
    left = interleaving.before(monkeypatch, handing_over.registry, "enter", end)
    answer = load(browser, code)
    assert not left
    assert answer.status_code == 410
    assert not is_in(browser)
    child = UserSession.objects.get(transport="cookie")
    assert child.end_reason == EndReason.PARENT
    assert child.digest not in payloads()


def test_a_password_that_was_changed_in_between(app, web_view, alice):
    code = app.code()
    # Without a signal, as SQL would: otherwise the session of the app ends.
    alice.set_password("other")
    User.objects.filter(pk=alice.pk).update(password=alice.password)
    assert is_gone(load(web_view(), code))


def test_a_user_who_was_disabled_in_between(app, web_view, alice):
    code = app.code()
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert is_gone(load(web_view(), code))


def test_a_user_who_was_deleted_in_between(app, web_view, alice):
    code = app.code()
    User.objects.filter(pk=alice.pk)._raw_delete("default")
    assert is_gone(load(web_view(), code))


@pytest.mark.parametrize(
    ("rules", "opens"),
    [
        ({"bind": ("network",), "on_change": "ask"}, False),
        ({"bind": ("network",), "on_change": "end"}, False),
        ({"bind": ("network",), "on_change": "report"}, True),
        ({"bind": ("browser", "system"), "on_change": "end"}, True),
        ({}, True),
    ],
)
def test_a_code_of_a_session_that_is_bound_to_a_network(
    opened, web_view, alice, policy, settings, rules, opens
):
    policy(**rules)
    settings.SESSIONKIT_TRUSTED_PROXIES = 1
    app = opened(**{"user-agent": IPHONE, "x-forwarded-for": "192.0.2.1"})
    app.sign_in()
    code = app.code()
    answer = load(web_view(**{"x-forwarded-for": "198.51.100.1"}), code)
    assert answer.status_code == (302 if opens else 410)
    assert load(web_view(**{"x-forwarded-for": "192.0.2.9"}), app.code()).status_code == 302


def test_the_new_session_is_bound_to_the_web_view(opened, web_view, alice, policy):
    policy(bind=("browser",), on_change="end")
    app = opened(**{"user-agent": IPHONE})
    app.sign_in()
    browser = web_view()
    hand_over(app, browser)
    assert is_in(browser)
    copied = BROWSERS["wsgi"](headers=PAGE | {"user-agent": IPHONE})
    copied.cookies["sessionid"] = key_of(browser)
    assert not is_in(copied)


# Afterwards.


def test_the_proof_of_identity_is_that_of_the_app(clock, app, web_view):
    proved = app_row(app).authenticated_at
    clock.move(seconds=301)
    browser = web_view()
    hand_over(app, browser)
    assert row_of(browser).authenticated_at == proved
    assert browser.get("/pay/").status_code == 302  # asks for the password


def test_it_ends_with_the_longest_lifetime_of_the_app(clock, opened, web_view, alice, policy):
    policy(absolute=600)
    app = signed_in_app(opened)
    clock.move(seconds=500)
    policy(absolute=6000)  # as a policy may be that asks whether it is an app
    browser = web_view()
    hand_over(app, browser)
    clock.move(seconds=99)
    assert is_in(browser)
    clock.move(seconds=1)
    assert not is_in(browser)


def test_it_ends_with_its_own_longest_lifetime(clock, opened, web_view, alice, policy):
    app = signed_in_app(opened)
    policy(absolute=600)
    browser = web_view()
    clock.move(seconds=500)
    hand_over(app, browser)
    clock.move(seconds=100)
    assert not is_in(browser)
    assert app.get(view(app, "whoami")).content == b"alice"


def test_it_ends_when_the_app_has_expired(clock, opened, web_view, alice, policy):
    policy(idle=600)
    app = signed_in_app(opened)
    browser = web_view()
    clock.move(seconds=500)
    hand_over(app, browser)
    clock.move(seconds=300)
    assert is_in(browser)  # which keeps this session from being idle, but not that of the app
    clock.move(seconds=301)
    assert not is_in(browser)
    assert row_of_child().end_reason == EndReason.PARENT


def row_of_child():
    return UserSession.objects.exclude(parent=None).get()


WAYS = {
    "revoke": lambda app, alice: UserSession.objects.filter(pk=app_row(app).pk).revoke(),
    "logout": lambda app, alice: app.post("/logout/"),
    "another user": lambda app, alice: app.sign_in(username="bob"),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_ends_at_once_with_the_app(app, web_view, alice, bob, ended, way):
    browser = web_view()
    hand_over(app, browser)
    child = row_of(browser)
    ended.clear()
    WAYS[way](app, alice)
    assert child.digest not in payloads()
    assert ({child.pk}, EndReason.PARENT) in [each[:2] for each in ended]
    assert is_told(browser, b"because the app that opened this page was signed out")


def test_the_page_of_devices_ends_both(app, web_view, signed_in_elsewhere):
    browser = web_view()
    hand_over(app, browser)
    child = row_of(browser)
    url = f"{LIST}{app_row(app).pk}/end/"
    assert signed_in_elsewhere.post(url).status_code == 302
    assert child.digest not in payloads()
    assert "Ended with the app that opened it" not in words(signed_in_elsewhere.get(LIST))


@pytest.fixture
def signed_in_elsewhere(web_view, app):
    browser = web_view()
    post_sign_in(browser)
    return browser


def test_to_sign_out_of_the_web_view_leaves_the_app(app, web_view):
    browser = web_view()
    hand_over(app, browser)
    browser.post("/logout/")
    assert not is_in(browser)
    assert app.get(view(app, "whoami")).content == b"alice"


def test_a_new_password_ends_both(app, web_view, alice):
    browser = web_view()
    hand_over(app, browser)
    alice.set_password("other")
    alice.save()
    assert not is_in(browser)
    assert {row.end_reason for row in UserSession.objects.all()} == {EndReason.PASSWORD_CHANGE}


@pytest.mark.parametrize("on_limit", ["end_oldest", "end_idlest", "refuse", "ask"])
def test_the_limit_does_not_count_it(opened, web_view, alice, policy, of_bob, on_limit):
    policy(limit=1, on_limit=on_limit)
    app = signed_in_app(opened)
    hand_over(app, web_view())
    code = app.code()
    page = load(of_bob, code)  # where a sign-in takes the place of another user's session
    assert of_bob.post(url_of(code), token(page)).status_code == 302
    assert is_in(of_bob)
    put(of_bob, cart="kettle")
    assert app.get(view(app, "whoami")).content == b"alice"
    assert UserSession.objects.active().filter(user=alice, counts=True).count() == 1
    assert UserSession.objects.active().filter(user=alice).count() == 3


def test_the_limit_does_not_count_it_either_if_a_receiver_makes_it(
    opened, web_view, alice, policy, of_bob
):
    """As some packages do when somebody signs in: it is decided later then whether it counts."""

    def create(request, **kwargs):
        request.session.create()

    policy(limit=1)
    app = signed_in_app(opened)
    code = app.code()
    page = load(of_bob, code)
    user_logged_in.connect(create)
    try:
        assert of_bob.post(url_of(code), token(page)).status_code == 302
    finally:
        user_logged_in.disconnect(create)
    assert is_in(of_bob)
    assert app.get(view(app, "whoami")).content == b"alice"
    assert not row_of(of_bob).counts


def test_its_key_changes_as_that_of_any_cookie(opened, web_view, alice, policy):
    policy(renew_after=AFTER, renew_grace=GRACE)
    app = signed_in_app(opened, renews="no")
    browser = web_view()
    hand_over(app, browser)
    old = key_of(browser)
    with later(DUE):
        assert is_in(browser)
        assert key_of(browser) != old
        assert app.get(view(app, "whoami")).content == b"alice"


def test_a_proof_in_the_web_view_is_its_own(clock, app, web_view, monkeypatch):
    browser = web_view()
    hand_over(app, browser)
    parent = row_of(browser).parent
    before = app_row(app).authenticated_at
    clock.move(seconds=400)
    monkeypatch.setattr("django.conf.settings.ROOT_URLCONF", "tests.calls")
    calls.use(browser, "reauthenticate")
    child = row_of(browser)
    assert child.parent == parent
    assert app_row(app).authenticated_at == before < child.authenticated_at


def test_a_store_that_is_down_is_not_a_code_that_has_gone(app, web_view, monkeypatch):
    browser, code = web_view(), app.code()
    with monkeypatch.context() as patch:
        store.take_down(patch, "read")
        assert load(browser, code).status_code == 503
    assert load(browser, code).status_code == 302


def test_a_store_that_is_down_keeps_neither_the_app_nor_its_web_view(app, web_view, store_down):
    hand_over(app, web_view())
    with pytest.raises(StoreUnavailable):
        UserSession.objects.filter(transport="header").revoke()
    assert {row.end_reason for row in UserSession.objects.all()} == {"revoked", "parent"}


def test_an_app_whose_row_is_gone_has_no_web_view_to_end(app, web_view):
    hand_over(app, web_view())
    session = SessionStore(app.key.removeprefix("sk_"))
    session.get("")
    UserSession.objects.filter(transport="header").delete()
    session.delete()
    assert not SessionStore().exists(app.key.removeprefix("sk_"))
