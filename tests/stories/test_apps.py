"""Apps sign in, use their session, and are told when it has ended: without a cookie."""

import pytest
from django.contrib.auth.models import Group, User
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.http import HttpResponse, JsonResponse
from django.urls import path

from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.headers import sign_in
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.policy import Policy
from django_sessionkit.visit import bearer
from django_sessionkit.visit.client import is_of_app
from tests import calls, store
from tests.apps import APPS, check_for_cookies
from tests.browsers import PAGE, put, read, view
from tests.people import is_still_in, is_told, only_row, row_of
from tests.renewals import AFTER, DUE, GRACE
from tests.store import SessionStore, later, round_trips
from tests.urls import urlpatterns as site

pytestmark = pytest.mark.django_db

BACKEND = "django.contrib.auth.backends.ModelBackend"
PHONE = {
    "name": "Shop",
    "version": "2.3.1",
    "system": "Android",
    "system_version": "14",
    "model": "Pixel 8",
    "label": "Alice's telephone",
}


@pytest.fixture(params=APPS)
def opened(request):
    """A function that opens an app, on either handler."""

    def opened(**headers):
        return APPS[request.param](raise_request_exception=False, headers=headers)

    return opened


@pytest.fixture
def app(opened, alice):
    """An app in which Alice has signed in."""
    app = opened(**{"user-agent": "okhttp/4.12.0"})
    assert app.sign_in(**PHONE).status_code == 200
    return app


def key_of(app):
    return app.key.removeprefix("sk_")


def told(app):
    """Return the reason that an app is told with its answer, after its session has ended."""
    answer = app.get(view(app, "whoami"))
    assert answer.content == b"AnonymousUser"
    return answer.headers["Session-Ended"]


def test_an_app_signs_in_and_is_known_by_its_key(app):
    assert app.key.startswith("sk_")
    assert is_still_in(app)
    put(app, cart="teapot")
    assert read(app).json() == {"cart": "teapot"}
    row = only_row()
    assert row.digest == digest_of(key_of(app))
    assert (row.transport, row.parent, row.remembered) == ("header", None, True)


def test_the_row_has_what_the_app_says_of_itself(app):
    row = only_row()
    assert row.name == "Alice's telephone"
    assert str(row.device) == "Shop on Android"
    assert row.device.details == "Shop 2.3.1, Android 14, Pixel 8"
    assert row.device.kind == "mobile"
    with later(120):
        assert app.get(view(app, "whoami"), headers={"user-agent": "okhttp/5.0"}).status_code == 200
    row = only_row()
    assert row.user_agent == "okhttp/5.0"
    assert str(row.device) == "Shop on Android"


def test_an_app_that_says_nothing_of_itself_is_known_by_its_user_agent(opened, alice):
    opened(**{"user-agent": "curl/8.9"}).sign_in()
    assert str(only_row().device) == "Program: curl"


def test_an_app_that_signs_in_again_is_the_same_device(app, opened):
    again = opened()
    again.sign_in(device=app.device, name="Shop")
    rows = UserSession.objects.all()
    assert len({row.browser for row in rows}) == 1
    assert {row.novelty for row in rows} == {""}
    assert {row.label for row in rows} == {"Alice's telephone"}


@pytest.mark.parametrize("name", ["", "made up", "0" * 32 + ":" + "a" * 43])
def test_a_device_that_no_answer_has_named_is_a_new_one(app, opened, name):
    again = opened()
    again.sign_in(device=name, name="Shop")
    assert len({row.browser for row in UserSession.objects.all()}) == 2
    assert again.device not in ("", name)


def test_without_a_device_cookie_apps_have_no_name_either(app, opened, settings):
    settings.SESSIONKIT_DEVICE_COOKIE = None
    again = opened()
    again.sign_in(device=app.device)
    assert again.device == ""
    assert UserSession.objects.filter(browser=None).count() == 1


def test_an_app_that_is_signed_out_elsewhere_is_told(app):
    assert only_row().end_reason == ""
    UserSession.objects.revoke()
    assert told(app) == EndReason.REVOKED
    answer = app.get(view(app, "private"))
    assert answer.status_code == 401
    assert answer.json()["reason"] == "revoked"


@pytest.mark.parametrize("how", ["revoked", "signed out"])
def test_what_an_app_has_opened_ends_with_it(app, opened, signed_in, how):
    other, opened_by_app, another = opened(), signed_in(), signed_in()
    other.sign_in()
    UserSession.objects.filter(pk=row_of(opened_by_app).pk).update(parent=row_of(app).pk)
    UserSession.objects.filter(pk=row_of(another).pk).update(parent=row_of(other).pk)
    if how == "revoked":
        UserSession.objects.filter(pk=row_of(app).pk).revoke()
    else:
        app.post("/logout/")
    assert is_told(opened_by_app, b"because the app that opened this page was signed out")
    assert is_still_in(another)
    assert is_still_in(other)


@pytest.mark.parametrize("rules", [{"idle": 600}, {"absolute": 600}])
def test_the_policy_holds_for_apps(opened, alice, policy, rules):
    policy(**rules)
    app = opened()
    app.sign_in()
    with later(599):
        assert is_still_in(app)
    with later(1200):
        assert told(app) == ("idle" if "idle" in rules else "expired")


def test_the_key_changes_and_the_app_gets_the_next_one(opened, alice, policy):
    policy(renew_after=AFTER, renew_grace=GRACE)
    app = opened()
    app.sign_in()
    old = app.key
    with later(DUE):
        assert is_still_in(app)
    assert app.key != old
    with later(DUE + 9):
        assert is_still_in(app)
    with later(DUE + 9 + GRACE):
        late = type(app)(raise_request_exception=False)
        late.key = old
        assert told(late) == EndReason.REUSED


def test_an_app_can_decline_other_keys_for_good(opened, alice, policy, settings):
    policy(renew_after=AFTER)
    app = opened()
    app.sign_in(renews="no")
    for times in range(1, 4):
        with later(times * DUE):
            with round_trips(4):  # as for every request that is activity
                answer = read(app)
            assert "Session-Key" not in answer.headers
            assert is_still_in(app)


def test_privileges_that_change_leave_a_declined_key_and_ask_the_policy(opened, alice, policy):
    policy()
    app = opened()
    app.sign_in(renews="no")
    old = app.key
    alice.groups.add(Group.objects.create(name="buyers"))
    policy(absolute=6000)
    with later(120):
        assert is_still_in(app)
    assert app.key == old
    assert not only_row().renew
    assert SessionStore(key_of(app)).policy.absolute == 6000


def test_a_request_with_both_is_that_of_the_header(app, signed_in, bob):
    browser = signed_in()
    put(app, cart="teapot")
    app.usual["cookie"] = f"sessionid={browser.cookies['sessionid'].value}"
    assert read(app).json() == {"cart": "teapot"}
    UserSession.objects.filter(transport="header").revoke()
    assert told(app) == EndReason.REVOKED
    assert is_still_in(browser)


def test_the_session_of_a_cookie_stays_what_it_is_when_an_app_signs_in(signed_in, bob, opened):
    browser, app = signed_in(), opened()
    put(browser, cart="teapot")
    answer = browser.post("/app/sign-in/", {"username": "bob", "password": "secret"})
    assert not answer.cookies
    app.key = answer.json()["key"]
    assert app.get(view(app, "whoami")).content == b"bob"
    assert read(app).json() == {}
    assert is_still_in(browser)
    assert read(browser).json() == {"cart": "teapot"}


MALFORMED = [
    "",
    "Bearer",
    "Bearer sk_",
    "Bearer sk_" + "a" * 31,
    "Bearer sk_" + "a" * 33,
    "Bearer sk_" + "a" * 32 + ", Bearer sk_" + "b" * 32,
    "Bearer sk_" + "A" * 31 + "é",
    "Bearer sk_" + "A" * 32,
    "Bearer SK_" + "a" * 32,
    "Basic sk_" + "a" * 32,
    "Bearer sk_live_" + "a" * 32,
    "Bearer " + "a" * 32,
    "Bearer sk_" + "a" * 100_000,
]


@pytest.mark.parametrize("value", MALFORMED)
def test_what_is_no_such_header_leaves_the_cookie(signed_in, value):
    browser = signed_in()
    assert browser.get(view(browser, "whoami"), headers={"authorization": value}).text == "alice"


@pytest.mark.parametrize("value", MALFORMED)
def test_what_is_no_such_header_is_a_stranger(browse, db, value):
    browser = browse()
    answer = browser.get(view(browser, "whoami"), headers={"authorization": value})
    assert answer.content == b"AnonymousUser"


def test_a_key_that_leads_nowhere_is_a_stranger(opened, db):
    app = opened()
    app.key = "sk_" + "a" * 32
    answer = app.get(view(app, "whoami"))
    assert answer.content == b"AnonymousUser"
    assert "Session-Ended" not in answer.headers


def test_the_scheme_of_the_header_is_in_any_case(app):
    for scheme in ("bearer", "BEARER"):
        headers = {"authorization": f"{scheme} {app.key}"}
        assert app.get(view(app, "whoami"), headers=headers).content == b"alice"


def test_nothing_is_kept_for_a_stranger_with_a_header(opened, db):
    app = opened()
    app.key = "sk_" + "a" * 32
    for _ in range(3):
        answer = put(app, cart="teapot")
        assert answer.content == b"written"
        assert "Session-Key" not in answer.headers
    assert app.key == "sk_" + "a" * 32


def test_a_form_of_an_app_needs_no_csrf_token(app):
    answer = app.post("/forbidden_without_token/", {})
    assert answer.status_code == 404  # and not 403
    assert app.post("/pay/", {"amount": "5"}).status_code != 403


@pytest.mark.parametrize("url", ["/login/", "/pay/"])
def test_a_page_with_a_form_sets_an_app_no_cookie(app, url):
    page = app.get(url)
    assert "csrfmiddlewaretoken" in page.text
    assert not page.cookies
    assert page.headers["Vary"] == "Authorization"


def test_a_sign_in_of_a_site_by_login_alone_sets_an_app_no_cookie(app):
    old = app.key
    answer = app.post("/login/", {"username": "alice", "password": "secret"})
    assert (answer.status_code, dict(answer.cookies)) == (302, {})
    assert app.key != old
    assert is_still_in(app)


@pytest.mark.site("tests.calls")
def test_a_view_that_replaces_all_that_a_session_holds_does_so(app):
    old = app.key
    assert app.post("/overwrite/").content == b"done"
    assert app.get(view(app, "whoami")).content == b"AnonymousUser"
    assert only_row().end_reason == EndReason.LOGOUT
    assert app.key != old
    assert read(app).json() == {"cart": "kettle"}


def test_nobody_who_is_over_the_limit_gets_in(app, opened, policy):
    policy(limit=1, on_limit="refuse")
    again = opened()
    answer = again.sign_in()
    assert answer.status_code == 403
    assert answer.json()["reason"] == "limit"
    assert again.key == ""
    assert UserSession.objects.active().count() == 1


def test_a_sign_in_that_has_to_wait_is_locked(app, opened, policy):
    policy(limit=1, on_limit="ask")
    again = opened()
    answer = again.sign_in()
    assert answer.headers["Session-Locked"] == "limit"
    assert again.get(view(again, "private")).status_code == 401
    assert is_still_in(app)


def test_who_signs_in_again_with_the_key_has_one_session(app):
    old = app.key
    answer = app.sign_in()
    assert answer.status_code == 200
    assert app.key != old
    assert is_still_in(app)
    assert UserSession.objects.count() == 1


@pytest.mark.parametrize("headers", [PAGE, {"sec-fetch-mode": "cors"}])
def test_an_app_may_accept_pages_and_is_told_like_a_program(app, headers):
    UserSession.objects.revoke()
    answer = app.get(view(app, "private"), headers=headers)
    assert answer.status_code == 401
    assert answer.json()["reason"] == "revoked"


@pytest.mark.site("tests.calls")
def test_a_key_that_a_view_changes_is_in_the_answer(app):
    old = app.key
    calls.use(app, "reauthenticate")
    assert app.key not in ("", old)
    assert is_still_in(app)


def test_a_sign_in_takes_the_middleware_of_this_kit(rf, alice):
    with pytest.raises(ImproperlyConfigured, match="SessionMiddleware"):
        sign_in(rf.get("/"), alice)


def reauthenticate_and_fail(request):
    request.session.reauthenticate()
    return HttpResponse("out of order", status=500)


def sign_in_in_vain(request):
    with transaction.atomic():
        key = sign_in(request, User.objects.get(), BACKEND)
        request.session["cart"] = "teapot"
        transaction.set_rollback(True)
    return JsonResponse({"key": key})


urlpatterns = [
    *site,
    path("reauthenticate_and_fail/", reauthenticate_and_fail),
    path("sign_in_in_vain/", sign_in_in_vain),
]


@pytest.mark.site(__name__)
def test_a_key_whose_sign_in_was_rolled_back_opens_nothing(opened, alice):
    app = opened()
    answer = app.get("/sign_in_in_vain/")
    check_for_cookies(answer)
    app.key = answer.json()["key"]
    assert app.get(view(app, "whoami")).content == b"AnonymousUser"
    assert not UserSession.objects.exists()


@pytest.mark.site(__name__)
def test_an_answer_that_failed_gives_no_key(app):
    """What its view has done is not kept, as with the cookie."""
    answer = app.get("/reauthenticate_and_fail/")
    assert answer.status_code == 500
    assert "Session-Key" not in answer.headers


def test_a_store_that_is_down_signs_no_app_out(app, monkeypatch):
    with monkeypatch.context() as patch:
        store.take_down(patch, "read")
        answer = app.get(view(app, "whoami"))
        assert answer.status_code == 503
        assert "Session-Key" not in answer.headers
    assert is_still_in(app)


def test_what_else_an_answer_varies_by_stays_without_its_csrf_cookie():
    answer = HttpResponse(headers={"Vary": "Accept-Language, Cookie"})
    answer.set_cookie("csrftoken", "token")
    bearer.drop_csrf_cookie(answer)
    assert (answer.headers["Vary"], len(answer.cookies)) == ("Accept-Language", 0)


def by_transport(user, request=None):
    """A policy for apps, and another one."""
    return Policy(renew_after=AFTER) if is_of_app(request) else Policy(idle=600)


def test_apps_can_be_under_a_policy_of_their_own(opened, signed_in, settings):
    settings.SESSIONKIT_POLICY = f"{__name__}.by_transport"
    signed_in()
    app = opened()
    app.sign_in()
    policies = {row.transport: row.idle_at is not None for row in UserSession.objects.all()}
    assert policies == {"cookie": True, "header": False}
    with later(DUE):
        assert is_still_in(app)
    assert SessionStore(key_of(app)).policy == Policy(renew_after=AFTER)
