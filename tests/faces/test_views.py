"""The user's page, told as stories of people with several devices."""

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.auth.views import PasswordChangeView
from django.db import connection
from django.template.loader import render_to_string
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import path, reverse
from django.utils import timezone, translation

from django_sessionkit.models import EndReason, UserSession
from tests import store
from tests.pages import LIST, OTHERS, Strict, contrast, press, said, style_sheet, token, words
from tests.people import CHROME, FIREFOX, IPHONE, end_url, handle, is_in, same, sign_in
from tests.servers import PROJECT
from tests.urls import urlpatterns as site

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.django_db

# A site that has a page to change the password, by the name that Django gives it.
urlpatterns = [*site, path("password/", PasswordChangeView.as_view(), name="password_change")]


# What is on the page.


@pytest.mark.standard("ASVS-7.5.2", "WSTG-SESS-11")
def test_list_says_what_is_signed_in_where_and_since_when(alice: User):
    laptop = sign_in(alice, FIREFOX, "192.0.2.1")
    sign_in(alice, IPHONE, "2001:db8::1")
    page = laptop.get(LIST)
    assert page.status_code == 200
    assert "Firefox on Linux" in words(page)
    assert "192.0.2.1" in words(page)
    assert "Safari on iOS" in words(page)
    assert "2001:db8::1" in words(page)
    for session in page.context["object_list"]:
        assert f'<time datetime="{timezone.localtime(session.started_at).isoformat()[:19]}' in (
            page.text
        )
        assert page.text.count(f'href="/account/sessions/{session.pk}/end/"') == 1


def test_current_device_comes_first_then_the_newest(alice: User):
    old, current, new = sign_in(alice, CHROME), sign_in(alice, FIREFOX), sign_in(alice, IPHONE)
    page = current.get(LIST)
    rows = page.context["object_list"]
    assert [row.pk for row in rows] == [handle(current), handle(new), handle(old)]
    assert [bool(row.is_current) for row in rows] == [True, False, False]
    assert "Firefox on Linux This device" in words(page)
    assert words(page).count("This device") == 1


def test_list_says_when_a_device_was_last_active(alice: User):
    laptop, phone = sign_in(alice, FIREFOX), sign_in(alice, IPHONE)
    assert words(laptop.get(LIST)).count("Active now") == 2
    seen = datetime(2026, 1, 31, 13, 37, tzinfo=UTC)
    UserSession.objects.filter(pk=handle(phone)).update(
        last_seen_at=timezone.now() - timedelta(hours=3, minutes=5, seconds=10)
    )
    text = words(laptop.get(LIST))
    assert text.count("Active now") == 1
    assert "Last active 3 hours ago" in text
    UserSession.objects.filter(pk=handle(phone)).update(last_seen_at=seen)
    with timezone.override("Asia/Tokyo"), translation.override("en"):
        page = laptop.get(LIST)
    assert '<time datetime="2026-01-31T22:37:00+09:00">' in page.text
    # On touch screens and by keyboard, nobody sees a title.
    assert "Jan. 31, 2026, 10:37 p.m." in words(page)
    assert "the time zone Asia/Tokyo" in words(page)


@override_settings(SESSIONKIT_TOUCH_INTERVAL=600)
def test_active_now_lasts_as_long_as_nothing_newer_can_be_known(alice: User):
    laptop, phone = sign_in(alice, FIREFOX), sign_in(alice, IPHONE)
    rows = UserSession.objects.filter(pk=handle(phone))
    rows.update(last_seen_at=timezone.now() - timedelta(seconds=590))
    assert words(laptop.get(LIST)).count("Active now") == 2
    rows.update(last_seen_at=timezone.now() - timedelta(seconds=610))
    assert words(laptop.get(LIST)).count("Active now") == 1


def test_the_device_that_asks_is_active_whenever_it_was_last_written_down(alice: User):
    laptop = sign_in(alice)
    UserSession.objects.update(last_seen_at=timezone.now() - timedelta(minutes=59))
    assert "Active now" in words(laptop.get(LIST))


def test_device_of_which_nothing_is_known_is_listed_too(alice: User):
    sign_in(alice, user_agent="", address="")
    page = sign_in(alice).get(LIST)
    assert "Unknown device" in words(page)
    assert words(page).count("Internet address (IP)") == 1  # of the other device


def test_only_what_is_alive_is_listed(alice: User, bob: User):
    laptop, phone, lost = sign_in(alice), sign_in(alice, IPHONE), sign_in(alice, CHROME)
    sign_in(bob)
    UserSession.objects.filter(pk=handle(phone)).revoke()
    digest = UserSession.objects.get(pk=handle(lost)).digest
    store.SessionStore.remove([digest])
    assert [row.pk for row in laptop.get(LIST).context["object_list"]] == [handle(laptop)]


def test_list_takes_two_queries_and_one_for_what_has_ended_however_many_devices(alice: User):
    laptop = sign_in(alice)

    def queries(url: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert laptop.get(url).status_code == 200
        return len(captured)

    request_user = queries("/whoami/")
    assert queries(LIST) - request_user <= 3
    for number in range(20):
        sign_in(alice, IPHONE, f"192.0.{number}.1")
    assert len(laptop.get(LIST).context["object_list"]) == 21
    assert queries(LIST) - request_user <= 3
    assert queries(OTHERS) - request_user <= 2


def test_help_for_what_one_does_not_recognise_leads_to_the_password(alice: User):
    laptop = sign_in(alice)
    page = laptop.get(LIST)
    assert "then change your password" in words(page)
    assert "Change your password" not in words(page)  # this site has no page for it
    with override_settings(ROOT_URLCONF=__name__):
        assert '<a href="/password/">Change your password</a>' in laptop.get(LIST).text


# Ending one.


@pytest.mark.standard("ASVS-7.5.2")
def test_signing_out_a_stolen_telephone(alice: User):
    laptop, phone = sign_in(alice, FIREFOX), sign_in(alice, IPHONE)
    url = end_url(phone)
    assert f'href="{url}"' in laptop.get(LIST).text
    asked = words(laptop.get(url))
    assert "Sign out Safari on iOS?" in asked
    assert "has to sign in again, even if it was told to remember you" in asked
    assert "change your password" in asked
    assert is_in(phone)

    response = press(laptop, url)
    assert (response.status_code, response["Location"]) == (302, LIST)
    assert "Safari on iOS was signed out." in words(laptop.get(LIST))
    assert not is_in(phone)
    assert is_in(laptop)
    assert url not in laptop.get(LIST).text
    row = UserSession.objects.get(pk=uuid.UUID(url.split("/")[-3]))
    assert (row.end_reason, row.ended_by) == (EndReason.REVOKED, alice)


def test_ending_what_has_ended_is_no_error(alice: User):
    laptop, phone = sign_in(alice, FIREFOX), sign_in(alice, IPHONE)
    url = end_url(phone)
    form = token(laptop.get(url))
    first, second = (laptop.post(url, form) for _ in range(2))
    assert second.status_code == 302
    assert second["Location"] == first["Location"] == LIST
    assert said(second)[-1] == "Safari on iOS was signed out already."
    assert is_in(laptop)

    page = laptop.get(url)
    assert page.status_code == 200
    assert "Safari on iOS was signed out already" in words(page)
    assert "<form" not in page.text
    assert f'href="{LIST}"' in page.text


@pytest.mark.standard("NIST-SB-8.2")
def test_ending_the_current_one_is_signing_out(alice: User):
    laptop, phone = sign_in(alice, FIREFOX), sign_in(alice, IPHONE)
    url = end_url(laptop)
    asked = words(laptop.get(url))
    assert "Sign out of this device?" in asked
    assert "You will have to sign in again here" in asked
    response = press(laptop, url)
    assert (response.status_code, response["Location"]) == (302, "/login/")
    assert response.cookies["sessionid"]["max-age"] == 0
    assert not is_in(laptop)
    assert is_in(phone)
    row = UserSession.objects.get(pk=uuid.UUID(url.split("/")[-3]))
    assert row.end_reason == EndReason.LOGOUT


@override_settings(LOGOUT_REDIRECT_URL="home")
def test_signing_out_leads_to_where_the_site_says(alice: User):
    laptop = sign_in(alice)
    assert press(laptop, end_url(laptop))["Location"] == "/"


# Ending the others.


@pytest.mark.standard("ASVS-7.5.2", "WSTG-SESS-11")
def test_signing_out_everywhere_else(alice: User, bob: User):
    laptop, phone, tablet = sign_in(alice), sign_in(alice, IPHONE), sign_in(alice, CHROME)
    stranger = sign_in(bob)
    page = laptop.get(LIST)
    assert f'href="{OTHERS}"' in page.text
    assert "Sign out all other devices (2)" in words(page)

    asked = laptop.get(OTHERS)
    assert [row.pk for row in asked.context["object_list"]] == [handle(tablet), handle(phone)]
    assert "Safari on iOS" in words(asked)
    assert "This device stays signed in." in words(asked)
    assert "Sign out all other devices (2)" in words(asked)
    assert is_in(phone)

    response = press(laptop, OTHERS)
    assert (response.status_code, response["Location"]) == (302, LIST)
    page = laptop.get(LIST)
    assert "2 other devices were signed out." in words(page)
    assert "Sign out all other devices" not in words(page)
    assert OTHERS not in page.text
    assert is_in(laptop)
    assert is_in(stranger, bob)
    assert not is_in(phone)
    assert not is_in(tablet)
    reasons = UserSession.objects.ended().values_list("end_reason", "ended_by")
    assert list(reasons) == [(EndReason.REVOKED, alice.pk)] * 2


def test_signing_out_one_other_is_said_in_the_singular(alice: User):
    laptop, _phone = sign_in(alice), sign_in(alice, IPHONE)
    assert said(press(laptop, OTHERS)) == [
        "1 other device was signed out. Did you not recognise it? Change your password."
    ]


def test_signing_out_everywhere_else_twice_is_no_error(alice: User):
    laptop, _phone = sign_in(alice), sign_in(alice, IPHONE)
    form = token(laptop.get(OTHERS))
    laptop.post(OTHERS, form)
    second = laptop.post(OTHERS, form)
    assert (second.status_code, second["Location"]) == (302, LIST)
    assert said(second)[-1] == "No other device was signed in."
    assert is_in(laptop)

    page = laptop.get(OTHERS)
    assert "No other device is signed in" in words(page)
    assert "<form" not in page.text


def test_others_that_the_list_leaves_out_are_ended_too(alice: User):
    # The row's expiry is written once per interval: the store may still have the session.
    laptop, phone = sign_in(alice), sign_in(alice, IPHONE)
    url = OTHERS
    sign_in(alice, CHROME)
    UserSession.objects.filter(pk=handle(phone)).update(expires_at=timezone.now())
    press(laptop, url)
    assert not is_in(phone)


# What must not happen.


@pytest.mark.standard("ASVS-8.2.2", "ASVS-11.5.1")
def test_stranger_can_not_tell_a_handle_from_none(alice: User, bob: User):
    phone, stranger = sign_in(alice, IPHONE), sign_in(bob)
    theirs, nobodys = end_url(phone), f"/account/sessions/{uuid.uuid4()}/end/"
    form = token(stranger.get(end_url(stranger)))
    for method, data in [("get", {}), ("head", {}), ("post", form)]:
        answers = [getattr(stranger, method)(url, data) for url in (theirs, nobodys)]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].content == answers[1].content
        assert dict(answers[0].headers) == dict(answers[1].headers)
    assert is_in(phone)
    assert not UserSession.objects.ended().exists()


@pytest.mark.standard("ASVS-8.2.2")
def test_what_is_no_handle_is_not_found(alice: User):
    laptop = sign_in(alice)
    key = laptop.cookies["sessionid"].value
    digest = UserSession.objects.get().digest
    for name in ("1", key, digest, f"{handle(laptop)}'", "..%2f"):
        assert laptop.get(f"/account/sessions/{name}/end/").status_code == 404


def urls_of(device: Client, *others: Client) -> list[str]:
    return [LIST, OTHERS, end_url(device), *map(end_url, others)]


@pytest.mark.standard("ASVS-3.5.3")
def test_reading_changes_nothing(alice: User):
    laptop, phone = sign_in(alice), sign_in(alice, IPHONE)
    before = list(UserSession.objects.values()), store.payloads()
    for url in urls_of(laptop, phone):
        assert laptop.get(url).status_code == 200
        head = laptop.head(url)
        assert (head.status_code, head.content) == (200, b"")
        assert laptop.get(url, headers={"sec-purpose": "prefetch;prerender"}).status_code == 200
    assert (list(UserSession.objects.values()), store.payloads()) == before


@pytest.mark.standard("ASVS-3.5.3")
def test_other_methods_are_refused(alice: User):
    laptop, phone = sign_in(alice), sign_in(alice, IPHONE)
    headers = {"X-CSRFToken": laptop.cookies["csrftoken"].value}
    for url in urls_of(laptop, phone):
        for method in ("put", "patch", "delete"):
            answer = getattr(laptop, method)(url, headers=headers)
            assert (url, method, answer.status_code) == (url, method, 405)
        assert laptop.trace(url).status_code == 405
    assert laptop.post(LIST, headers=headers).status_code == 405
    assert not UserSession.objects.ended().exists()


@pytest.mark.parametrize(
    "middleware",
    [settings.MIDDLEWARE, [name for name in settings.MIDDLEWARE if "Csrf" not in name]],
    ids=["with the middleware", "on a site without it"],
)
@pytest.mark.standard("ASVS-3.5.1", "NIST-SB-10", "WSTG-SESS-05")
def test_forged_requests_end_nothing(alice: User, bob: User, middleware: list[str]):
    laptop, phone = sign_in(alice), sign_in(alice, IPHONE)
    theirs = sign_in(bob).cookies["csrftoken"].value
    urls = [OTHERS, end_url(laptop), end_url(phone)]
    with override_settings(MIDDLEWARE=middleware):
        laptop = same(laptop)
        for url in urls:
            assert laptop.post(url).status_code == 403
            assert laptop.post(url, {"csrfmiddlewaretoken": theirs}).status_code == 403
            form = token(laptop.get(end_url(phone)))
            foreign = laptop.post(url, form, headers={"origin": "https://evil.example"})
            assert foreign.status_code == 403
            plain = laptop.post(url, urlencode(form), content_type="text/plain")
            assert plain.status_code == 403
    assert not UserSession.objects.ended().exists()


def test_pages_ask_visitors_to_sign_in(alice: User):
    urls = urls_of(sign_in(alice))
    for url in urls:
        for answer in (Client().get(url), Client().post(url)):
            assert (answer.status_code, answer["Location"]) == (302, f"/login/?next={url}")


@pytest.mark.standard("ASVS-3.4.6", "ASVS-14.3.2")
def test_pages_are_not_cached_and_not_framed(alice: User):
    laptop, phone = sign_in(alice), sign_in(alice, IPHONE)
    alone = [name for name in settings.MIDDLEWARE if "XFrame" not in name]
    with override_settings(MIDDLEWARE=alone):
        laptop = same(laptop)
        answers = [laptop.get(url) for url in urls_of(laptop, phone)]
        answers += [press(laptop, OTHERS), Client().get(LIST)]
    for answer in answers:
        assert "no-store" in answer["Cache-Control"]
        assert "private" in answer["Cache-Control"]
        assert answer["X-Frame-Options"] == "DENY"


@pytest.mark.standard("ASVS-3.3.4", "ASVS-14.2.1", "WSTG-SESS-04")
def test_no_page_tells_what_could_be_used_as_a_session(alice: User):
    laptop, phone = sign_in(alice), sign_in(alice, IPHONE)
    secrets = [device.cookies["sessionid"].value for device in (laptop, phone)]
    secrets += UserSession.objects.values_list("digest", flat=True)
    answers = [laptop.get(url) for url in urls_of(laptop, phone)]
    answers += [press(laptop, end_url(phone)), laptop.get(LIST), laptop.get(end_url(laptop))]
    assert len(secrets) == 4
    for answer in answers:
        for secret in secrets:
            assert secret not in answer.text
            assert secret not in str(answer.headers)
            assert not any(secret in message for message in said(answer))


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        '"><svg onload=alert(1)>',
        "{{ request.session }}{% now 'Y' %}",
        "<script>bot/1 CFNetwork/1 Darwin/23",
        "\0\x1b[31m\u202e\r\nSet-Cookie: a=b<b>",
        "=cmd|' /C calc'!A0",
    ],
)
@pytest.mark.standard("ASVS-3.2.2")
def test_user_agent_can_not_write_into_the_page(alice: User, hostile: str):
    laptop = sign_in(alice)
    phone = sign_in(alice, hostile)
    stored = UserSession.objects.get(pk=handle(phone)).user_agent
    shown = laptop.get(end_url(phone)).context["object"].user_agent
    assert shown == stored != ""
    texts = [laptop.get(url).text for url in urls_of(phone)]
    press(laptop, end_url(phone))
    texts.append(laptop.get(LIST).text)
    for text in texts:
        assert "<script" not in text
        assert "<svg onload" not in text
        assert "<b>" not in text
        assert not re.search("[\0\x1b\u202e]", text)
    assert (stored in texts[2]) == (not re.search("[<>\"'&]", stored))


# When something is not there.


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (60, "Signed out, but it may take up to 60 seconds to take effect."),
        (1, "Signed out, but it may take up to 1 second to take effect."),
    ],
)
def test_user_is_told_when_the_store_did_not_answer(
    alice: User, monkeypatch: pytest.MonkeyPatch, interval: int, text: str
):
    laptop, phone, _tablet = sign_in(alice), sign_in(alice, IPHONE), sign_in(alice, CHROME)
    store.take_down(monkeypatch, "remove")
    with override_settings(SESSIONKIT_TOUCH_INTERVAL=interval):
        for ended, url in [(1, end_url(phone)), (2, OTHERS)]:
            response = press(laptop, url)
            assert (response.status_code, response["Location"]) == (302, LIST)
            assert said(response)[-1] == text
            assert UserSession.objects.exclude(ended_at=None).count() == ended
            assert text in words(laptop.get(LIST))
    assert {handle(laptop)} == {row.pk for row in UserSession.objects.active()}


def test_pages_work_without_the_messages_framework(alice: User, monkeypatch: pytest.MonkeyPatch):
    bare: dict[str, Any] = {
        "INSTALLED_APPS": [
            name
            for name in settings.INSTALLED_APPS
            if "messages" not in name and "admin" not in name
        ],
        "MIDDLEWARE": [name for name in settings.MIDDLEWARE if "essage" not in name],
        "TEMPLATES": [{"BACKEND": settings.TEMPLATES[0]["BACKEND"], "APP_DIRS": True}],
    }
    laptop, phone, tablet = sign_in(alice), sign_in(alice, IPHONE), sign_in(alice, CHROME)
    watch = sign_in(alice, "watch")
    with override_settings(**bare):
        laptop = same(laptop)
        assert laptop.get(LIST).status_code == 200
        url = end_url(phone)
        form = token(laptop.get(url))
        with monkeypatch.context() as outage:
            store.take_down(outage, "remove")
            assert laptop.post(end_url(watch), form)["Location"] == LIST
        for _ in range(2):
            assert laptop.post(url, form)["Location"] == LIST
            assert laptop.post(OTHERS, form)["Location"] == LIST
    assert not is_in(phone)
    assert not is_in(tablet)


SITE_BASE = """
<title>{% block title %}{% endblock %} - shop</title>
<p>Hello {{ user }}</p>{% block content %}{% endblock %}
"""


def test_a_site_gives_the_pages_its_own_look(alice: User):
    laptop, phone = sign_in(alice), sign_in(alice, IPHONE)
    loaders = [
        ("django.template.loaders.locmem.Loader", {"django_sessionkit/_base.html": SITE_BASE}),
        "django.template.loaders.app_directories.Loader",
    ]
    templates: dict[str, Any] = settings.TEMPLATES[0]
    options = {**templates["OPTIONS"], "loaders": loaders}
    with override_settings(TEMPLATES=[{**templates, "APP_DIRS": False, "OPTIONS": options}]):
        for url in urls_of(laptop, phone):
            page = laptop.get(url)
            assert "<p>Hello alice</p>" in page.text
            assert re.search("<title>.+ - shop</title>", page.text)
            assert '<div class="sessionkit">' in page.text
        # Rendered without a request, which a site's page may not be able to do without.
        assert "Hello" not in answer()


# The answers of the middleware, which are made without a request.


def answer(**context: Any) -> str:
    context = {"title": "Please try again", "text": "We can't reach it.", **context}
    return render_to_string("django_sessionkit/answer.html", context)


def test_answer_stands_alone():
    assert words(answer()) == "Please try again We can&#x27;t reach it."
    assert "<title>Please try again</title>" in answer()
    assert "<a " not in answer()
    link = {"href": "/a?b=1&c=2", "label": "Sign in"}
    assert 'href="/a?b=1&amp;c=2">Sign in</a>' in answer(link=link)


@pytest.mark.standard("ASVS-3.2.2")
def test_answer_is_escaped():
    assert "<b>" not in answer(title="<b>", text="<b>", link={"href": '"><b>', "label": "<b>"})


# How it is written.


@pytest.mark.standard("ASVS-3.4.3")
def test_pages_need_neither_scripts_nor_inline_styles(alice: User):
    laptop, phone = sign_in(alice), sign_in(alice, IPHONE)
    sign_in(alice, CHROME)
    texts = [laptop.get(url).text for url in urls_of(laptop, phone)]
    press(laptop, end_url(phone))
    press(laptop, OTHERS)
    texts += [laptop.get(url).text for url in (LIST, OTHERS)]
    texts += [answer(), answer(link={"href": "/", "label": "Home"})]
    for text in texts:
        page = Strict(text)
        (sheet,) = page.all("link")
        assert sheet == {"rel": "stylesheet", "href": "/static/django_sessionkit/sessions.css"}
        (root,) = page.all("html")
        assert root["lang"] == "en-us"
        headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        assert headings[0] == 1
        assert headings.count(1) == 1
        assert len(page.all("main")) == 1
        assert {form["method"] for form in page.all("form")} <= {"post"}
        assert all(form.get("action") is None for form in page.all("form"))


def test_links_say_what_they_do_out_of_context(alice: User):
    laptop, _phone = sign_in(alice, FIREFOX), sign_in(alice, IPHONE, "2001:db8::1")
    page = words(laptop.get(LIST))
    assert "Sign out: Firefox on Linux, 192.0.2.1" in page
    assert "Sign out: Safari on iOS, 2001:db8::1" in page


@pytest.fixture
def in_german() -> Iterator[None]:
    with translation.override("de"), timezone.override("Europe/Berlin"):
        yield


def test_pages_speak_the_language_of_the_reader(alice: User, in_german: None):
    laptop, phone = sign_in(alice), sign_in(alice, IPHONE)
    UserSession.objects.filter(pk=handle(phone)).update(
        started_at=datetime(2026, 1, 31, 13, 37, tzinfo=UTC)
    )
    page = laptop.get(LIST)
    assert '<html class="sessionkit-page" lang="de">' in page.text
    assert "Firefox unter Linux Dieses Gerät" in words(page)
    assert "31. Januar 2026 14:37" in words(page)
    assert "Zeitzone Europe/Berlin" in words(page)
    assert "Alle anderen Geräte abmelden (1)" in words(page)
    assert said(press(laptop, OTHERS))[0].startswith("1 anderes Gerät wurde abgemeldet.")


def test_style_sheet_does_no_harm_in_a_sites_page():
    css = re.sub(r"@[^{]*\{", "", style_sheet())
    selectors = re.findall(r"([^{}]+)\{[^}]*\}", css)
    assert len(selectors) > 20
    for selector in ",".join(selectors).split(","):
        assert re.match(r"\s*\.sessionkit[-\w]*(\s|::|$)", selector), selector
    # Runs in either direction.
    assert not re.search(r"\b(left|right)\b|(?<!min-)\bwidth\b", css)


def test_colours_can_be_told_apart_in_light_and_in_dark():
    css = style_sheet()
    pairs = dict(re.findall(r"--sessionkit-([\w-]+): light-dark\((#\w+, #\w+)\);", css))
    light, dark = ({name: pair.split(", ")[i] for name, pair in pairs.items()} for i in (0, 1))
    assert light == dict(re.findall(r"--sessionkit-([\w-]+): (#\w+);", css))
    for theme in (light, dark):
        for text in ("ink", "quiet", "accent", "good"):
            assert contrast(theme[text], theme["paper"]) >= 4.5  # WCAG 2.2, 1.4.3
        assert contrast(theme["on-accent"], theme["accent"]) >= 4.5


def test_colours_that_a_site_can_set_are_documented():
    known = re.findall(r"(--sessionkit-[\w-]+):", style_sheet())
    document = (PROJECT / "docs" / "templates.md").read_text()
    assert set(known) == set(re.findall(r"`(--sessionkit-[\w-]+)`", document))


def test_urls_have_names():
    pk = uuid.uuid4()
    assert reverse("django_sessionkit:session_list") == LIST
    assert reverse("django_sessionkit:session_end_others") == OTHERS
    assert reverse("django_sessionkit:session_end", args=[pk]) == f"/account/sessions/{pk}/end/"
