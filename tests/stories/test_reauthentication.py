"""
Proving again who one is: for what takes a recent proof, and to open a session that is locked.
Told as stories of people with browsers.
"""

import re
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest
from django.conf import settings
from django.contrib.auth import authenticate, login
from django.contrib.auth.backends import BaseBackend, RemoteUserBackend
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_login_failed
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.backends.signed_cookies import SessionStore as ForeignSession
from django.core.exceptions import PermissionDenied
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.signals import got_request_exception
from django.http import HttpRequest, HttpResponse
from django.template.base import Template
from django.test import Client, RequestFactory, override_settings
from django.urls import include, path
from django.utils import translation
from django.views.debug import ExceptionReporter
from django.views.decorators.debug import sensitive_variables

from django_sessionkit import gates, proofs
from django_sessionkit.decorators import recent_authentication_required
from django_sessionkit.gates import ReauthenticateView
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.proofs import LONGEST
from tests import store
from tests.browsers import PAGE, SCRIPT
from tests.pages import LIST, OTHERS, PROVE, Strict, contrast, fields_of, said, style_sheet, words
from tests.people import (
    CHROME,
    FIREFOX,
    IPHONE,
    end_url,
    handle,
    is_in,
    key_of,
    row_of,
    same,
    sign_in,
)
from tests.policies import IDLE
from tests.store import travel
from tests.urls import urlpatterns as site

if TYPE_CHECKING:
    from django.test.client import _MonkeyPatchedWSGIResponse as Response

pytestmark = [pytest.mark.django_db, pytest.mark.transports("cookie", "header")]

SECRET = "secret"
# What somebody types, and what is in a form that they have sent before. Far from the functions that
# raise errors: reports have the lines around those, too.
TYPED, SENT = "correct horse", "battery staple"
LATER = timedelta(minutes=6)  # than the five minutes that the views of the tests ask for
VIEWS = ["/pay/", "/apay/", "/pay/class/", "/apay/class/"]


def act_as(request: HttpRequest, name: str) -> HttpResponse:
    """As django-hijack does it."""
    staff = request.user.pk
    login(request, User.objects.get(username=name), settings.AUTHENTICATION_BACKENDS[0])
    request.session["hijack_history"] = [str(staff)]
    return HttpResponse(f"as {name}")


# A site that has a page of its own to prove who one is, made of ours.
urlpatterns = [
    *site,
    path("prove/", lambda request: HttpResponse(f"a key, {request.user}?"), name="prove"),
    path("act_as/<str:name>/", act_as),
    path("prove/ours/", ReauthenticateView.as_view(), name="prove_with_ours"),
]


@pytest.fixture
def stale(laptop: Client) -> Iterator[Client]:
    """The laptop, when its sign-in is no recent proof any more."""
    with travel(LATER):
        yield laptop


def prove(device: Client, page: "Response", password: str = SECRET) -> "Response":
    """Fill in the password where a page asks for it."""
    return device.post(PROVE, {**fields_of(page), "password": password})


def send(device: Client, url: str, fields: dict[str, Any], **more: Any) -> "Response":
    """Send a form to a view of the tests, as a browser does."""
    csrf = {"csrfmiddlewaretoken": device.cookies["csrftoken"].value}
    return device.post(url, {**csrf, **fields}, **more)


# What takes a recent proof.


@pytest.mark.parametrize("url", VIEWS)
def test_who_has_just_signed_in_is_asked_nothing(laptop: Client, url: str):
    assert laptop.get(url).status_code == 200
    assert send(laptop, url, {"amount": "5"}).json()["paid"]["amount"] == ["5"]


@pytest.mark.parametrize("url", VIEWS)
@pytest.mark.standard("ASVS-7.2.4", "ASVS-7.5.1", "ASVS-7.5.3", "NIST-REAUTH-1")
def test_whose_proof_is_too_old_is_asked_for_another_and_comes_back(stale: Client, url: str):
    signed_in_at, old_key = row_of(stale).started_at, key_of(stale)
    answer = stale.get(f"{url}?to=bob")
    assert answer.status_code == 302
    assert answer["Location"] == f"{PROVE}?next={url}%3Fto%3Dbob"

    page = stale.get(answer["Location"])
    assert page.status_code == 200
    assert "Please confirm that it is you" in words(page)
    assert "Signed in as alice." in words(page)
    assert stale.get(url).status_code == 302

    answer = prove(stale, page)
    assert (answer.status_code, answer["Location"]) == (302, f"{url}?to=bob")
    assert stale.get(answer["Location"]).status_code == 200
    proved_at = row_of(stale).authenticated_at
    assert proved_at
    assert proved_at - signed_in_at >= LATER
    assert key_of(stale) != old_key
    stale.cookies["sessionid"] = old_key
    assert not is_in(stale)


@pytest.mark.parametrize("is_read", [False, True])
def test_a_proof_for_a_session_that_has_ended_is_refused(
    laptop: Client, drive: Callable[..., Any], is_read: bool
):
    """A new session of nobody would take its place, and look as if all were well."""
    session = store.SessionStore(key_of(laptop))
    if is_read:
        session.ensure_loaded()
    UserSession.objects.revoke()
    with pytest.raises(UpdateError, match="ended"):
        drive(session, "reauthenticate")
    assert store.payloads() == {}


@pytest.mark.standard("ASVS-7.5.1", "ASVS-16.3.1")
def test_a_wrong_password_changes_nothing(stale: Client):
    failures: list[Any] = []

    def failed(credentials: dict[str, str], request: HttpRequest, **kwargs: Any) -> None:
        failures.append((credentials["username"], request.path))

    before = row_of(stale), key_of(stale)
    page = stale.get(f"{PROVE}?next=/pay/")
    user_login_failed.connect(failed)
    try:
        for password in ("wrong", " secret", ""):
            page = prove(stale, page, password)
            assert page.status_code == 200
            assert key_of(stale) == before[1]
    finally:
        user_login_failed.disconnect(failed)
    assert failures == [("alice", PROVE)] * 2
    assert "This field is required." in words(page)
    page = prove(stale, page, "wrong")
    assert "That is not the password of this account." in words(page)
    assert row_of(stale).authenticated_at == before[0].authenticated_at
    assert stale.get("/pay/").status_code == 302
    assert prove(stale, page)["Location"] == "/pay/"


def test_the_page_is_made_for_password_managers_and_screen_readers(stale: Client):
    page = prove(stale, stale.get(PROVE), "wrong")
    inputs = {str(each["name"]): each for each in Strict(page.text).all("input")}
    password, username = inputs["password"], inputs["username"]
    assert (password["type"], password["autocomplete"]) == ("password", "current-password")
    assert "autofocus" in password
    assert "value" not in password
    assert (username["value"], username["autocomplete"]) == ("alice", "username")
    assert "hidden" in username
    assert f'<label for="{password["id"]}">' in page.text
    assert password["aria-invalid"] == "true"
    assert f'id="{password["aria-describedby"]}"' in page.text


@pytest.mark.parametrize("url", VIEWS)
def test_a_stranger_is_sent_to_the_sign_in_page(url: str):
    for answer in (Client().get(url), Client().post(url), Client().get(url, headers=SCRIPT)):
        assert (answer.status_code, answer["Location"]) == (302, f"/login/?next={url}")


@pytest.mark.parametrize("url", VIEWS)
def test_a_user_who_is_not_there_any_more_is_a_stranger(laptop: Client, url: str):
    User.objects.all()._raw_delete("default")
    assert laptop.get(url)["Location"] == f"/login/?next={url}"


@pytest.mark.parametrize("url", VIEWS)
@override_settings(ROOT_URLCONF=__name__)
def test_staff_who_act_as_a_user_and_are_not_there_any_more_sign_in_again(alice: User, url: str):
    """Whose password would be asked for? That of the user is none of theirs."""
    staff = User.objects.create_superuser("bob", password=SECRET)
    browser = sign_in(staff)
    browser.get("/act_as/alice/")
    with travel(LATER):
        assert browser.get(url)["Location"] == f"{PROVE}?next={url}"
        User.objects.filter(pk=staff.pk)._raw_delete("default")
        assert browser.get(url)["Location"] == f"/login/?next={url}"


@pytest.mark.parametrize("url", VIEWS)
def test_a_script_is_told_where_to_send_its_user(stale: Client, url: str):
    for answer in (
        stale.get(url, headers=SCRIPT),
        send(stale, url, {"amount": "5"}, headers={"sec-fetch-mode": "cors"}),
    ):
        assert answer.status_code == 401
        assert answer.json() == {
            "detail": "Please confirm that it is you.",
            "reason": "reauthentication_required",
            "url": PROVE,
        }
        assert answer["WWW-Authenticate"] == (  # as RFC 9470 has it
            'Bearer error="insufficient_user_authentication", '
            'error_description="More recent authentication is required", max_age="300"'
        )
        assert "no-store" in answer["Cache-Control"]
    assert stale.get(url, headers={"sec-fetch-mode": "navigate"})["Location"].startswith(PROVE)


@pytest.mark.parametrize("recent", [60, 7200])
def test_without_an_age_it_is_that_of_the_policy(
    alice: User, policy: Callable[..., None], recent: int
):
    policy(recent=recent)
    laptop = sign_in(alice)
    for seconds, status in [(recent - 5, 200), (recent + 5, 302)]:
        with travel(timedelta(seconds=seconds)):
            assert laptop.get("/pay/by_policy/").status_code == status


def test_an_age_that_nobody_can_reach_is_an_error(laptop: Client):
    for max_age in (0, -60):
        with pytest.raises(ValueError, match=f"at least 1 second, not {max_age}"):
            recent_authentication_required(max_age=max_age)
    with pytest.raises(ValueError, match="at least 1 second, not 0"):
        laptop.get("/pay/never/")


@pytest.mark.standard("ASVS-16.5.3")
def test_a_session_of_another_engine_proves_nothing(alice: User):
    request = RequestFactory().get("/pay/", headers=PAGE)
    request.user, request.session = alice, ForeignSession()
    view = recent_authentication_required()(lambda request: HttpResponse("paid"))
    assert view(request)["Location"] == f"{PROVE}?next=/pay/"
    # It could not note a proof: signing in is all there is.
    request.path = PROVE
    assert ReauthenticateView.as_view()(request)["Location"].startswith("/login/")


def test_who_is_known_by_other_means_than_the_session_signs_in():
    MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.always_alice"]  # noqa: N806
    User.objects.create_user("alice")
    with override_settings(MIDDLEWARE=MIDDLEWARE):
        robot = Client(headers=PAGE)
        answer = robot.get("/pay/")
        assert answer["Location"] == "/login/?next=/pay/"
        User.objects.update(password="x")
        answer = robot.get(f"{PROVE}?next=/pay/")
        assert answer["Location"] == "/login/?next=/pay/"


def always_alice(get_response: Callable[[HttpRequest], HttpResponse]) -> Any:
    def middleware(request: HttpRequest) -> HttpResponse:
        request.user = User.objects.get(username="alice")
        return get_response(request)

    return middleware


# A form that was sent.


@pytest.mark.parametrize("url", VIEWS)
@pytest.mark.standard("ASVS-7.5.1", "ASVS-7.5.3")
def test_a_form_that_was_filled_in_is_kept_and_sent_when_its_user_says_so(stale: Client, url: str):
    form = {"amount": "5", "to": ["bob", "eve"], "note": 'Für "Tee"\r\n& <Kuchen>', "empty": ""}
    page = send(stale, f"{url}?from=cart", form)
    assert page.status_code == 403
    assert "Please confirm that it is you" in words(page)
    assert "What you have sent is kept." in words(page)
    assert "no-store" in page["Cache-Control"]
    assert page["X-Frame-Options"] == "DENY"

    page = prove(stale, page, "wrong")
    assert "That is not the password" in words(page)
    assert "What you have sent is kept." in words(page)
    page = prove(stale, page)
    assert page.status_code == 200
    assert "Go on with what you were doing?" in words(page)
    assert "nothing has been done with it yet" in words(page)
    (asked,) = Strict(page.text).all("form")
    assert (asked["action"], asked["method"]) == (f"{url}?from=cart", "post")
    fields = [
        (str(each["name"]), str(each["value"]))
        for each in Strict(page.text).all("input")
        if each["type"] == "hidden"
    ]
    assert [name for name, _value in fields].count("csrfmiddlewaretoken") == 1
    sent = [(name, value) for name, value in fields if name != "csrfmiddlewaretoken"]
    names = ["amount", "to", "to", "note", "empty"]
    assert [name for name, _value in sent] == names

    body: dict[str, Any] = {}
    for name, value in fields:
        body.setdefault(name, []).append(value)
    answer = stale.post(str(asked["action"]), body)
    assert answer.json()["query"] == {"from": "cart"}
    assert {k: v for k, v in answer.json()["paid"].items() if not k.startswith("csrf")} == {
        "amount": ["5"],
        "to": ["bob", "eve"],
        "note": [form["note"]],
        "empty": [""],
    }


def test_a_form_without_fields_is_kept_too(stale: Client):
    page = prove(stale, send(stale, "/pay/", {}))
    assert "Go on with what you were doing?" in words(page)
    assert set(fields_of(page)) == {"csrfmiddlewaretoken"}


def test_who_cancels_is_led_back_to_the_form(stale: Client):
    headers = {"referer": "http://testserver/cart/?page=2"}
    page = prove(stale, send(stale, "/pay/", {"amount": "5"}, headers=headers))
    assert ">Cancel</a>" in page.text
    assert 'href="http://testserver/cart/?page=2"' in page.text


def test_a_password_that_was_sent_is_shown_nowhere(stale: Client):
    page = send(stale, "/pay/", {"new_password": "hunter2"})
    for _ in range(2):
        assert "hunter2" not in words(page)
        shown = [each for each in Strict(page.text).all("input") if each["type"] != "hidden"]
        assert "hunter2" not in str(shown)
        page = prove(stale, page)
    # Nor do error reports have it.
    hidden = page.wsgi_request.sensitive_post_parameters  # type: ignore[attr-defined]
    assert set(hidden) == {"password", "fields"}


FILE = SimpleUploadedFile("photo.jpg", b"JPEG")


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ({"photo": FILE}, "files cannot be kept"),
        ({"note": "x" * LONGEST}, "too long to be kept"),
    ],
    ids=["files", "long"],
)
def test_what_cannot_be_kept_is_said_and_the_form_comes_again(
    stale: Client, form: dict[str, Any], text: str
):
    page = send(stale, "/pay/", form, headers={"referer": "http://testserver/cart/"})
    assert page.status_code == 403
    for _ in range(2):
        assert text in words(page)
        assert "Afterwards you come back to the form" in words(page)
        assert not {"to", "fields"} & set(fields_of(page))
        page = prove(stale, page, "wrong")
    answer = prove(stale, page)
    assert (answer.status_code, answer["Location"]) == (302, "http://testserver/cart/")


def test_what_is_just_short_enough_is_kept(stale: Client):
    page = send(stale, "/pay/", {"note": "x" * (LONGEST - len("note="))})
    assert len(fields_of(page)["fields"]) == LONGEST


def test_what_is_no_form_is_not_kept(stale: Client):
    headers = {"X-CSRFToken": stale.cookies["csrftoken"].value}
    plain = stale.post("/pay/", "amount=5", content_type="text/plain", headers=headers)
    put = stale.put("/pay/", "amount=5", headers=headers)
    for page in (plain, put):
        assert page.status_code == 403
        assert "What you have sent was not done." in words(page)
        assert prove(stale, page)["Location"] == "/pay/"


@pytest.mark.parametrize("referer", ["https://evil.example/form", "javascript:alert(1)", "//evil"])
def test_who_comes_from_elsewhere_is_not_led_back_there(stale: Client, referer: str):
    headers = {**PAGE, "user-agent": FIREFOX}
    relaxed = Client(headers=headers, REMOTE_ADDR="192.0.2.1")
    relaxed.cookies = stale.cookies
    page = relaxed.post("/pay/", {"photo": FILE}, headers={"referer": referer})
    assert fields_of(page)["next"] == "/pay/"


@pytest.mark.parametrize(
    "middleware",
    [settings.MIDDLEWARE, [name for name in settings.MIDDLEWARE if "Csrf" not in name]],
    ids=["with the middleware", "on a site without it"],
)
@pytest.mark.standard("ASVS-3.5.1", "NIST-SB-10", "WSTG-SESS-05")
def test_a_forged_form_is_not_carried_to_a_page_with_a_good_token(
    stale: Client, middleware: list[str]
):
    with override_settings(MIDDLEWARE=middleware):
        device = same(stale)
        for url in ("/pay/", "/pay/exempt/"):
            answer = device.post(url, {"amount": "5"}, headers={"origin": "https://evil.example"})
            assert answer.status_code == 403
            assert "CSRF verification failed" in answer.text
            assert "fields" not in answer.text
        page = device.get(PROVE)
        form = fields_of(page)
        del form["csrfmiddlewaretoken"]
        before = key_of(device)
        for more in ({"to": "/pay/", "fields": "amount=5"}, {"sign_out": "1"}):
            assert device.post(PROVE, {**form, "password": "secret", **more}).status_code == 403
        assert key_of(device) == before


# Where it leads.


@pytest.mark.parametrize(
    "evil",
    ["https://evil.example/", "//evil.example", "javascript:alert(1)", "/\\evil.example", ""],
)
@pytest.mark.standard("ASVS-3.7.2")
def test_nobody_is_led_to_another_site(stale: Client, evil: str):
    page = stale.get(PROVE, {"next": evil})
    assert fields_of(page)["next"] == "/"
    for fields in ({"next": evil}, {"next": "/pay/", "to": evil, "fields": "a=b"}):
        answer = stale.post(PROVE, {**fields_of(page), "password": "secret", **fields})
        page = stale.get(PROVE)
        assert answer.status_code == 302
        assert answer["Location"] in ("/", "/pay/")


@pytest.mark.standard("NIST-SB-9")
def test_nobody_is_led_from_https_to_http(laptop: Client):
    page = laptop.get(PROVE, {"next": "http://testserver/pay/"}, secure=True)
    assert fields_of(page)["next"] == "/"
    page = laptop.get(PROVE, {"next": "https://testserver/pay/"}, secure=True)
    assert fields_of(page)["next"] == "https://testserver/pay/"


def test_a_stranger_has_nothing_to_prove():
    for answer in (Client().get(f"{PROVE}?next=/pay/"), Client().post(PROVE, {"next": "/pay/"})):
        assert (answer.status_code, answer["Location"]) == (302, "/login/?next=/pay/")


def test_who_is_somebody_else_signs_out(stale: Client):
    page = stale.get(f"{PROVE}?next=/pay/")
    fields = fields_of(page, "Sign out, or sign in as somebody else")
    answer = stale.post(PROVE, {**fields, "sign_out": "1"})
    assert (answer.status_code, answer["Location"]) == (302, "/login/?next=/pay/")
    assert not is_in(stale)
    assert UserSession.objects.get().end_reason == EndReason.LOGOUT


@pytest.mark.standard("ASVS-3.4.6", "ASVS-14.3.2")
def test_pages_are_neither_cached_nor_framed(stale: Client):
    alone = [name for name in settings.MIDDLEWARE if "XFrame" not in name]
    with override_settings(MIDDLEWARE=alone):
        device = same(stale)
        sent = send(device, "/pay/", {})
        pages = [device.get(PROVE), sent, Client().get(PROVE)]
        # The second time, no cookie is sent, which would see to it.
        pages += [send(device, "/pay/", {}), prove(device, sent)]
    for page in pages:
        assert "no-store" in page["Cache-Control"]
        assert page["X-Frame-Options"] == "DENY"


# Who proves it otherwise.


def test_who_has_no_password_signs_in_again(stale: Client, alice: User):
    User.objects.update(password="!")
    device = Client(headers={**PAGE, "user-agent": FIREFOX})
    device.force_login(User.objects.get())
    with travel(LATER):
        for url in ("/pay/", f"{PROVE}?next=/pay/"):
            assert device.get(url)["Location"] == "/login/?next=/pay/"
        page = device.post("/pay/", {"amount": "5"})
        assert page.status_code == 403
        assert "What you have sent was not done." in words(page)
        assert 'href="/login/?next=/pay/">Continue</a>' in page.text
        assert "<form" not in page.text
        assert device.get("/pay/", headers=SCRIPT).json()["url"] == "/login/"
        # Signing in again is a proof.
        device.force_login(User.objects.get())
        assert device.get("/pay/").status_code == 200


@pytest.mark.parametrize(
    ("setting", "leads_to"),
    [
        ("prove", "/prove/?next=/pay/"),
        ("/prove/?with=key", "/prove/?with=key&next=/pay/"),
        ("https://id.example/prove", "https://id.example/prove?next=http%3A//testserver/pay/"),
    ],
)
def test_a_site_has_a_page_of_its_own_for_that(stale: Client, setting: str, leads_to: str):
    with override_settings(ROOT_URLCONF=__name__, SESSIONKIT_REAUTHENTICATION_URL=setting):
        assert stale.get("/pay/")["Location"] == leads_to
        page = send(stale, "/pay/", {"amount": "5"})
        (link,) = [each for each in Strict(page.text).all("a") if each["href"] == leads_to]
        assert link["class"] == "sessionkit-button sessionkit-main"
        # Ours, where a password would do, is no way round it.
        assert stale.get(f"{PROVE}?next=/pay/")["Location"] == leads_to
        fields = {**fields_of_any(stale), "password": "secret", "next": "/pay/"}
        assert stale.post(PROVE, fields)["Location"] == leads_to
    assert stale.get("/pay/").status_code == 302


def test_a_site_with_a_page_of_its_own_can_do_without_ours(stale: Client):
    without: Any = tuple(each for each in site if "sessions/" not in str(each))
    with override_settings(ROOT_URLCONF=without, SESSIONKIT_REAUTHENTICATION_URL="/prove/"):
        assert stale.get("/pay/")["Location"] == "/prove/?next=/pay/"
        page = send(stale, "/pay/", {"amount": "5"})
        assert page.status_code == 403
        assert 'href="/prove/?next=/pay/"' in page.text


def test_the_page_may_be_below_a_path_with_letters_of_any_language(stale: Client):
    elsewhere: Any = (
        path("geräte für Ärzte/", include("django_sessionkit.urls")),
        *(each for each in site if "sessions/" not in str(each)),
    )
    with override_settings(ROOT_URLCONF=elsewhere):
        asked = stale.get("/pay/")["Location"]
        assert asked == "/ger%C3%A4te%20f%C3%BCr%20%C3%84rzte/reauthenticate/?next=/pay/"
        page = stale.get(asked)
        assert page.status_code == 200
        answer = stale.post(asked, {**fields_of(page), "password": "secret"})
        assert answer["Location"] == "/pay/"
        assert stale.get("/pay/").status_code == 200


def fields_of_any(device: Client) -> dict[str, str]:
    return {"csrfmiddlewaretoken": device.cookies["csrftoken"].value}


def test_that_page_can_be_made_of_ours(stale: Client):
    name = "prove_with_ours"
    with override_settings(ROOT_URLCONF=__name__, SESSIONKIT_REAUTHENTICATION_URL=name):
        page = stale.get(stale.get("/pay/")["Location"])
        (form, _sign_out) = Strict(page.text).all("form")
        assert form["action"] == "/prove/ours/"
        answer = stale.post("/prove/ours/", {**fields_of(page), "password": "secret"})
        assert answer["Location"] == "/pay/"
        assert stale.get("/pay/").status_code == 200


class Slow(BaseBackend):
    """Refuses for a while who has tried too often."""

    def authenticate(self, request: Any, **credentials: Any) -> None:
        raise PermissionDenied


class Anybody(RemoteUserBackend):
    """Takes whoever comes for bob."""

    def authenticate(self, request: Any, **credentials: Any) -> User:  # type: ignore[override]
        return User.objects.get(username="bob")


@pytest.mark.parametrize("backend", ["Slow", "Anybody"])
@pytest.mark.standard("ASVS-16.5.3")
def test_backends_of_the_site_are_asked_and_only_the_same_user_is_taken(
    stale: Client, bob: User, backend: str
):
    page = stale.get(PROVE)
    backends = [f"{__name__}.{backend}", *settings.AUTHENTICATION_BACKENDS]
    with override_settings(AUTHENTICATION_BACKENDS=backends):
        assert authenticate(username="alice", password="secret") in (None, bob)
        page = prove(stale, page)
    assert page.status_code == 200
    assert "That is not the password of this account." in words(page)
    assert stale.get("/pay/").status_code == 302


# What goes wrong on the way.


class Broken(BaseBackend):
    """Cannot reach the directory with the passwords."""

    @sensitive_variables()
    def authenticate(self, request: Any, **credentials: Any) -> None:
        raise RuntimeError("out of order")


@pytest.fixture
def reports() -> Iterator[list[str]]:
    """The error reports that Django mails to the administrators."""
    sent: list[str] = []

    def report(request: HttpRequest, **kwargs: Any) -> None:
        reporter = ExceptionReporter(request, *sys.exc_info())
        sent.append(reporter.get_traceback_html() + reporter.get_traceback_text())

    got_request_exception.connect(report)
    yield sent
    got_request_exception.disconnect(report)


def fail(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("out of order")


def broken_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    backends = [f"{__name__}.Broken", *settings.AUTHENTICATION_BACKENDS]
    monkeypatch.setattr(settings, "AUTHENTICATION_BACKENDS", backends)


def broken_template(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_once(template: Template, context: Any) -> None:
        monkeypatch.undo()  # there is a page that says so, too
        raise RuntimeError("out of order")

    monkeypatch.setattr(Template, "render", fail_once)


def broken_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.SessionStore, "reauthenticate", fail)


def broken_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "QueryDict", fail)


@pytest.mark.parametrize("is_right", [True, False])
@pytest.mark.parametrize(
    "broken", [broken_backend, broken_template, broken_session, broken_redirect]
)
@pytest.mark.standard("ASVS-16.2.5")
def test_no_error_report_shows_the_password_or_the_form(
    alice: User,
    reports: list[str],
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[pytest.MonkeyPatch], None],
    is_right: bool,
):
    alice.set_password(TYPED if is_right else "another")
    alice.save()
    laptop = sign_in(alice, password=TYPED if is_right else "another")
    with travel(LATER):
        page = send(laptop, "/pay/", {"new_password": SENT})
        laptop.raise_request_exception = False
        broken(monkeypatch)
        answer = prove(laptop, page, TYPED)
    # A wrong password gets no further than the form.
    if not is_right and broken in (broken_session, broken_redirect):
        assert answer.status_code == 200
        assert not reports
        return
    (report,) = reports
    assert "out of order" in report
    assert TYPED not in report
    assert SENT not in report.replace("+", " ")


@pytest.mark.parametrize("step", ["render", "urlencode", "local_url"])
@pytest.mark.standard("ASVS-16.2.5")
def test_no_error_report_shows_a_form_that_has_to_wait_for_a_proof(
    stale: Client, reports: list[str], monkeypatch: pytest.MonkeyPatch, step: str
):
    stale.raise_request_exception = False
    stale.get("/pay/")
    stale.get(PROVE)
    if step == "render":
        broken_template(monkeypatch)
    else:
        monkeypatch.setattr(proofs, step, fail)
    assert send(stale, "/pay/", {"new_password": SENT}).status_code == 500
    (report,) = reports
    assert "out of order" in report
    assert SENT not in report.replace("+", " ")


# The kit's own pages.


@pytest.mark.standard("ASVS-7.5.2")
def test_ending_a_session_takes_a_recent_proof(alice: User):
    laptop, phone = sign_in(alice, FIREFOX), sign_in(alice, IPHONE)
    end = end_url(phone)
    with travel(timedelta(hours=2)):
        assert laptop.get(LIST).status_code == 200
        for url in (end, OTHERS):
            answer = laptop.get(url)
            assert answer["Location"] == f"{PROVE}?next={url}"
            # The page comes back and asks: nobody has to say twice that they mean it.
            answer = send(laptop, url, {})
            assert (answer.status_code, answer["Location"]) == (302, f"{PROVE}?next={url}")
        page = laptop.get(answer["Location"])
        assert "What you have sent" not in words(page)
        assert is_in(phone)
        answer = prove(laptop, page)
        assert answer["Location"] == OTHERS
        page = laptop.get(OTHERS)
        assert "Sign out the other device?" in words(page)
        assert is_in(phone)
        assert laptop.post(OTHERS, fields_of(page))["Location"] == LIST
        assert not is_in(phone)


def test_signing_out_takes_no_proof(laptop: Client):
    with travel(timedelta(hours=2)):
        url = end_url(laptop)
        assert "Sign out of this device?" in words(laptop.get(url))
        assert send(laptop, url, {})["Location"] == "/login/"
        assert not is_in(laptop)


# A session that is locked.

TOO_LONG = timedelta(minutes=11)


@pytest.mark.standard("NIST-2.2.3", "NIST-SB-4", "ASVS-7.2.4")
def test_a_locked_session_goes_on_where_it_was(alice: User, policy: Callable[..., None]):
    policy(**IDLE)
    laptop, phone = sign_in(alice, FIREFOX), sign_in(alice, IPHONE)
    send(laptop, "/write/", {"cart": "teapot"})
    the_same, old_key = handle(laptop), key_of(laptop)
    with travel(TOO_LONG):
        answer = laptop.get("/private/?page=2")
        assert answer["Location"] == f"{PROVE}?next=%2Fprivate%2F%3Fpage%3D2"
        page = laptop.get(answer["Location"])
        assert "Are you still there?" in words(page)
        assert "you go on where you were" in words(page)
        assert "Signed in as alice." in words(page)
        assert key_of(laptop) == old_key

        page = prove(laptop, page, "wrong")
        assert page.status_code == 200
        assert "Are you still there?" in words(page)
        assert laptop.get("/private/")["Location"].startswith(PROVE)
        answer = prove(laptop, page)
        assert (answer.status_code, answer["Location"]) == (302, "/private/?page=2")
        assert laptop.get(answer["Location"]).text == "alice"
        assert laptop.get("/read/").json()["cart"] == "teapot"
        assert handle(laptop) == the_same
        assert key_of(laptop) != old_key
        assert laptop.get("/pay/").status_code == 200  # it is a recent proof
        assert "Safari on iOS Locked" in words(laptop.get(LIST))
        assert words(laptop.get(LIST)).count("Locked") == 1
        laptop.cookies["sessionid"] = old_key
        assert not is_in(laptop)
    assert is_in(phone)


@pytest.mark.parametrize("stranger", [CHROME, IPHONE, ""])
@pytest.mark.standard("NIST-2.2.3")
def test_a_locked_session_is_not_opened_on_another_device(
    alice: User, policy: Callable[..., None], stranger: str
):
    policy(**IDLE)
    laptop = sign_in(alice)
    thief = Client(headers={"user-agent": stranger})
    thief.cookies["sessionid"] = key_of(laptop)
    with travel(TOO_LONG):
        answer = thief.get(f"{PROVE}?next=/read/")
        assert (answer.status_code, answer["Location"]) == (302, "/login/?next=/read/")
        assert said(answer) == ["You were signed out because you were inactive for a while."]
        assert answer.cookies["sessionid"]["max-age"] == 0
        assert UserSession.objects.get().end_reason == EndReason.IDLE
        assert laptop.get("/private/")["Location"].startswith("/login/")


def test_a_newer_version_of_the_browser_is_the_same_device(
    alice: User, policy: Callable[..., None]
):
    policy(**IDLE)
    laptop = sign_in(alice)
    laptop.defaults["HTTP_USER_AGENT"] = FIREFOX.replace("150", "151")
    with travel(TOO_LONG):
        prove(laptop, laptop.get(PROVE))
        assert is_in(laptop)


def test_a_locked_session_that_was_ended_is_not_opened(alice: User, policy: Callable[..., None]):
    policy(**IDLE)
    laptop = sign_in(alice)
    with travel(TOO_LONG):
        page = laptop.get(f"{PROVE}?next=/pay/")
        # The store has lost its removal.
        UserSession.objects.update(ended_at=UserSession.objects.get().started_at)
        answer = prove(laptop, page)
        assert answer["Location"] == "/login/?next=/pay/"
        assert not is_in(laptop)


def test_who_signs_out_of_a_locked_session_is_out(alice: User, policy: Callable[..., None]):
    policy(**IDLE)
    laptop = sign_in(alice)
    with travel(TOO_LONG):
        page = laptop.get(PROVE)
        fields = fields_of(page, "Sign out, or sign in as somebody else")
        answer = laptop.post(PROVE, {**fields, "sign_out": "1"})
        assert answer["Location"] == "/login/?next=/"
        assert answer.cookies["sessionid"]["max-age"] == 0
        assert UserSession.objects.get().end_reason == EndReason.LOGOUT


def test_what_was_sent_is_kept_also_if_the_session_locks_meanwhile(
    alice: User, policy: Callable[..., None]
):
    policy(**IDLE)
    laptop = sign_in(alice)
    with travel(timedelta(minutes=9)):
        page = send(laptop, "/pay/", {"amount": "5"})
        assert page.status_code == 403
    with travel(timedelta(minutes=25)):
        page = prove(laptop, page)
        assert "Go on with what you were doing?" in words(page)
        assert laptop.post("/pay/", fields_of(page)).json()["paid"]["amount"] == ["5"]


@pytest.mark.standard("ASVS-8.2.4")
def test_a_session_that_moved_is_asked_for_its_password(alice: User, policy: Callable[..., None]):
    policy(bind=("browser", "system"), on_change="ask")
    laptop = sign_in(alice)
    send(laptop, "/write/", {"cart": "teapot"})
    laptop.defaults["HTTP_USER_AGENT"] = CHROME
    answer = laptop.get("/private/")
    assert answer["Location"] == f"{PROVE}?next=%2Fprivate%2F"
    page = laptop.get(answer["Location"])
    assert "Is it still you?" in words(page)
    assert prove(laptop, page)["Location"] == "/private/"
    assert laptop.get("/read/").json()["cart"] == "teapot"


def test_who_has_no_password_opens_a_locked_session_where_the_site_says(
    alice: User, policy: Callable[..., None]
):
    policy(**IDLE)
    laptop = sign_in(alice)
    with travel(TOO_LONG):
        with override_settings(ROOT_URLCONF=__name__, SESSIONKIT_REAUTHENTICATION_URL="prove"):
            assert laptop.get(f"{PROVE}?next=/pay/")["Location"] == "/prove/?next=/pay/"
            assert laptop.get("/prove/").text == "a key, AnonymousUser?"
        elsewhere: Any = (
            path("schlüssel/", lambda request: HttpResponse(f"a key, {request.user}?")),
            *site,
        )
        quoted = "/schl%C3%BCssel/"
        with override_settings(ROOT_URLCONF=elsewhere, SESSIONKIT_REAUTHENTICATION_URL=quoted):
            assert laptop.get("/schlüssel/").text == "a key, AnonymousUser?"
        User.objects.update(password="!")
        assert laptop.get(f"{PROVE}?next=/pay/")["Location"] == "/login/?next=/pay/"


def test_sites_where_every_page_asks_for_a_sign_in_have_locks_too(
    alice: User, policy: Callable[..., None]
):
    policy(**IDLE, limit=1, on_limit="ask")
    everywhere = "django.contrib.auth.middleware.LoginRequiredMiddleware"
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, everywhere]):
        laptop, phone = sign_in(alice), sign_in(alice, IPHONE)
        page = phone.get("/whoami/", follow=True)
        assert "You are signed in on too many devices" in words(page)
        with travel(TOO_LONG):
            page = laptop.get("/whoami/", follow=True)
            assert prove(laptop, page)["Location"] == "/whoami/"
            assert is_in(laptop)


@override_settings(CSRF_USE_SESSIONS=True)
@pytest.mark.standard("NIST-SB-10")
def test_all_of_it_works_with_csrf_tokens_in_the_session(alice: User, policy: Callable[..., None]):
    policy(**IDLE)
    laptop = Client(enforce_csrf_checks=True, headers={**PAGE, "user-agent": FIREFOX})
    page = laptop.get("/login/")
    (csrf,) = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    form = {"csrfmiddlewaretoken": csrf, "username": "alice", "password": "secret"}
    assert laptop.post("/login/", form).status_code == 302
    (csrf,) = re.findall(r'value="(\w+)"', laptop.get("/pay/").text)
    with travel(LATER):
        page = laptop.post("/pay/", {"csrfmiddlewaretoken": csrf, "amount": "5"})
        page = prove(laptop, page)
        assert laptop.post("/pay/", fields_of(page)).json()["paid"]["amount"] == ["5"]
    with travel(LATER + TOO_LONG):
        page = laptop.get(f"{PROVE}?next=/whoami/")
        assert "Are you still there?" in words(page)
        assert prove(laptop, page)["Location"] == "/whoami/"
        assert is_in(laptop)


def test_staff_see_that_a_session_is_locked(alice: User, policy: Callable[..., None]):
    staff = sign_in(User.objects.create_superuser("staff", password="secret"), CHROME)
    policy(**IDLE)
    laptop = sign_in(alice)
    of_alice = f"/admin/django_sessionkit/usersession/{handle(laptop)}/change/"
    with travel(TOO_LONG):
        page = staff.get(of_alice)
        assert re.search(r"State:\s+Locked", re.sub(r"<[^>]*>", "", page.text))
        assert "Locked" in staff.get("/admin/django_sessionkit/usersession/").text
    policy(idle=600)
    other = sign_in(alice, IPHONE)
    of_alice = f"/admin/django_sessionkit/usersession/{handle(other)}/change/"
    with travel(TOO_LONG):
        page = staff.get(of_alice)
        assert re.search(r"State:\s+Ended: Inactive", re.sub(r"<[^>]*>", "", page.text))


# What is no activity.


@pytest.mark.parametrize("url", ["/poll/", "/apoll/"])
@pytest.mark.standard("ASVS-7.3.1")
def test_a_page_that_polls_does_not_keep_its_session_alive(
    alice: User, policy: Callable[..., None], url: str
):
    policy(idle=600)
    laptop = sign_in(alice)
    send(laptop, "/write/", {"news": "tea"})
    for minutes in (3, 6, 9):
        with travel(timedelta(minutes=minutes)):
            assert laptop.get(url).text == "tea"
    with travel(TOO_LONG):
        assert not is_in(laptop)


# How it is written.


def pages(laptop: Client, alice: User, policy: Callable[..., None]) -> Iterator["Response"]:
    with travel(LATER):
        yield laptop.get(PROVE)
        yield prove(laptop, laptop.get(PROVE), "wrong")
        yield send(laptop, "/pay/", {"photo": FILE})
        yield send(laptop, "/pay/", {"note": "x" * LONGEST})
        sent = send(laptop, "/pay/", {"amount": "5"})
        yield sent
        with override_settings(SESSIONKIT_REAUTHENTICATION_URL="/prove/"):
            yield send(laptop, "/pay/", {"amount": "5"})
        yield prove(laptop, sent)
    policy(**IDLE)
    laptop = sign_in(alice)
    with travel(TOO_LONG):
        yield laptop.get(PROVE)


@pytest.mark.standard("ASVS-3.4.3")
def test_pages_need_neither_scripts_nor_inline_styles(
    laptop: Client, alice: User, policy: Callable[..., None]
):
    for response in pages(laptop, alice, policy):
        page = Strict(response.text)
        headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        assert headings[:1] == [1]
        assert headings.count(1) == 1
        assert {form["method"] for form in page.all("form")} <= {"post"}
        assert len(page.all("main")) == 1
        ids = [str(each["id"]) for _tag, each in page.tags if "id" in each]
        assert len(ids) == len(set(ids))


@pytest.mark.standard("ASVS-3.3.4", "ASVS-14.2.1", "WSTG-SESS-04")
def test_no_page_tells_what_could_be_used_as_a_session(
    laptop: Client, alice: User, policy: Callable[..., None]
):
    for response in pages(laptop, alice, policy):
        secrets = [*UserSession.objects.values_list("digest", flat=True), key_of(laptop)]
        assert not [secret for secret in secrets if secret in response.text]
        assert "password" not in dict(parse_qsl(response.wsgi_request.META["QUERY_STRING"]))


@pytest.mark.standard("ASVS-3.2.2")
def test_what_was_sent_can_not_write_into_the_page(stale: Client):
    evil = '"><script>alert(1)</script>'
    page = send(stale, "/pay/?a=" + evil, {evil: evil}, headers={"referer": f"/pay/{evil}"})
    for _ in range(2):
        assert "<script" not in page.text
        page = prove(stale, page)
    page = stale.get(PROVE, {"next": f"/{evil}"})
    assert "<script" not in page.text


def test_pages_speak_german(laptop: Client, alice: User, policy: Callable[..., None]):
    with translation.override("de"):
        texts = [words(page) for page in pages(laptop, alice, policy)]
    assert "Bitte bestätigen Sie, dass Sie es sind" in texts[0]
    assert "Angemeldet als alice." in texts[0]
    assert "Das ist nicht das Passwort dieses Kontos." in texts[1]
    assert "Weitermachen, wo Sie waren?" in texts[-2]
    assert "Sind Sie noch da?" in texts[-1]
    english = re.compile(r"\b(you|the|please|what|your)\b", re.IGNORECASE)
    assert not [text for text in texts if english.search(text)]


def test_errors_can_be_told_apart_in_light_and_in_dark():
    css = style_sheet()
    pairs = dict(re.findall(r"--sessionkit-([\w-]+): light-dark\((#\w+, #\w+)\);", css))
    for bad, paper in zip(pairs["bad"].split(", "), pairs["paper"].split(", "), strict=True):
        assert contrast(bad, paper) >= 4.5  # WCAG 2.2, 1.4.3
