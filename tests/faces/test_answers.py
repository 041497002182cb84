"""
What a visitor is told: by the view's answer, or in place of it. The table of docs/how-it-works.md,
"What a visitor is told", in full.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product
from typing import Any, NamedTuple

import pytest
from asgiref.sync import async_to_sync
from django.contrib import messages
from django.contrib.auth import alogin, login
from django.contrib.auth.models import User
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.middleware.csrf import get_token
from django.shortcuts import render
from django.test import AsyncClient, Client
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from django_sessionkit import registry
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, UserSession
from tests import store
from tests.browsers import PAGE, SCRIPT, Browser, deletes_the_cookie, sets_no_cookie
from tests.pages import LIMIT, PROVE, words
from tests.people import CREDENTIALS, key_of, post_sign_in
from tests.policies import LOCK
from tests.store import SessionStore
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

REVOKED = (
    "You were signed out from another device. If that was not you, sign in and change your"
    " password."
)

# What a view answers: its status, and where it leads.
ANSWERS: dict[str, tuple[int, str]] = {
    "200": (200, ""),
    "204": (204, ""),
    "302-elsewhere": (302, "/wizard/?next=2"),
    "302-to-sign-in": (302, "/login/?next=/there/"),
    "401": (401, ""),
    "403": (403, ""),
    "404": (404, ""),
    "500": (500, ""),
}
OTHERS = ["200", "204", "302-elsewhere", "404", "500"]
REFUSALS = ["401", "403"]
METHODS = ["GET", "HEAD", "POST"]

TOLD = ["Session-Ended", "Session-Locked"]
CDN = "CDN-Cache-Control"

OF_ITS_CONTENT = ["Content-Language", "Content-Disposition", "Content-Encoding", "Last-Modified"]
OF_ITS_CONTENT += ["Content-Digest", "Repr-Digest", "Content-Location"]

# The type of all that a view answers here, and nobody else.
OF_THE_VIEW = "text/x-view"


def views_answer(name: str) -> HttpResponse:
    status, to = ANSWERS[name]
    headers = {"Location": to} if to else {}
    response = HttpResponse("seen", content_type=OF_THE_VIEW, status=status, headers=headers)
    response.headers["ETag"] = '"seen"'
    response.headers["X-Of-The-View"] = "kept"
    for name in OF_ITS_CONTENT:
        response.headers[name] = "of the view"
    response.set_cookie("theme", "dark")
    response.headers["Cache-Control"] = "public, max-age=600"
    response.headers[CDN] = "max-age=600"
    return response


def look(request: HttpRequest, name: str) -> HttpResponse:
    with suppress(StoreUnavailable):  # as a template does
        assert not request.user.is_authenticated
    return views_answer(name)


async def alook(request: HttpRequest, name: str) -> HttpResponse:
    with suppress(StoreUnavailable):
        assert not (await request.auser()).is_authenticated
    return views_answer(name)


def enter(request: HttpRequest, name: str) -> HttpResponse:
    login(request, User.objects.get(username="alice"))
    return views_answer(name)


async def aenter(request: HttpRequest, name: str) -> HttpResponse:
    await alogin(request, await User.objects.aget(username="alice"))
    return views_answer(name)


def overtake(request: HttpRequest, name: str) -> HttpResponse:
    request.session["cart"] = []
    SessionStore(request.session.session_key).cycle_key()
    return views_answer(name)


async def aovertake(request: HttpRequest, name: str) -> HttpResponse:
    await request.session.aset("cart", [])
    await SessionStore(request.session.session_key).acycle_key()
    return views_answer(name)


def anywhere(request: HttpRequest) -> HttpResponse:
    assert not request.user.is_authenticated
    return HttpResponse(status=302, headers={"Location": request.headers["X-To"]})


urlpatterns = [
    path("anywhere/", anywhere),
    *[
        path(f"{view.__name__}/<name>/", csrf_exempt(view))
        for view in (look, alook, enter, aenter, overtake, aovertake)
    ],
    *site,
]

# Who asks: the headers of their requests.
PEOPLE = {
    "browser": {**PAGE, "sec-fetch-mode": "navigate"},
    "old browser": PAGE,
}
SCRIPTS = {
    "JSON": SCRIPT,
    "anything": {"accept": "*/*"},
    "no Accept": {},
}
SCRIPTS_OF_PAGES = {
    "fetch": {"accept": "application/json", "sec-fetch-mode": "cors"},
    "HTMX": {"accept": "text/html, */*", "sec-fetch-mode": "cors", "hx-request": "true"},
    "image": {"accept": "image/avif,*/*;q=0.8", "sec-fetch-mode": "no-cors"},
}
EVERYBODY = {**PEOPLE, **SCRIPTS, **SCRIPTS_OF_PAGES}

# What comes of it.
VIEW = "the view's answer"
SIGN_IN = "the sign-in page"
PASSWORD = "the page for the password"
ITSELF = "the same page again"

# For each state: the view that shows it, and what comes of the answers of the view, for a page and
# for a script.
TABLE: dict[str, tuple[str, dict[tuple[str, ...], tuple[str, str]]]] = {
    "ended": (
        "look",
        {
            ("302-to-sign-in",): (VIEW, "401 JSON"),
            (*REFUSALS,): (SIGN_IN, VIEW),
            (*OTHERS,): (VIEW, VIEW),
        },
    ),
    "locked": (
        "look",
        {
            ("302-to-sign-in",): (PASSWORD, "401 JSON"),
            (*REFUSALS,): (PASSWORD, VIEW),
            (*OTHERS,): (VIEW, VIEW),
        },
    ),
    # Not what a view has done that has failed.
    "over the limit": ("enter", {("500",): (VIEW, VIEW), (): (SIGN_IN, "403 JSON")}),
    "key changed": ("overtake", {("500",): (VIEW, VIEW), (): (ITSELF, "409 JSON")}),
    "store down": ("look", {(): ("503 page", "503 JSON")}),
}
# How a script is told of each.
HEADERS = {"ended": "Session-Ended: revoked", "locked": "Session-Locked: idle"}


class Answer(NamedTuple):
    outcome: str
    header: str
    message: bool
    cookie: str  # "stays", "goes" or "new"
    is_private: bool
    keeps_what_the_view_has_set: bool


def wanted(state: str, answer: str, method: str, kind: str) -> Answer:
    rows, is_person = TABLE[state][1], kind in PEOPLE
    page, script = next(rows[names] for names in rows if answer in names or not names)
    outcome = page if is_person else script
    if (state, answer, kind) == ("ended", "302-to-sign-in", "no Accept"):
        outcome = VIEW  # as a project's own tests expect, whose clients say nothing
    if outcome == ITSELF and method == "POST":
        outcome = "409 page"
    if state == "over the limit" and outcome == SIGN_IN and method != "POST":
        outcome = "403 page"
    is_told = state in HEADERS
    return Answer(
        outcome,
        header="" if is_person else HEADERS.get(state, ""),
        message=outcome == SIGN_IN or (state == "ended" and kind not in SCRIPTS),
        cookie={"ended": "goes", "over the limit": "stays" if outcome == VIEW else "new"}.get(
            state, "stays"
        ),
        is_private=outcome != VIEW or (is_told and not (state == "locked" and is_person)),
        keeps_what_the_view_has_set=outcome == VIEW or is_told,
    )


def seen(response: Any, url: str, answer: str) -> Answer:
    headers = [f"{name}: {response.headers[name]}" for name in TOLD if name in response.headers]
    cookie = "stays" if sets_no_cookie(response) else "new"
    return Answer(
        outcome_of(response, url, answer),
        header=", ".join(headers),
        message="messages" in response.cookies,
        cookie="goes" if cookie == "new" and deletes_the_cookie(response) else cookie,
        is_private=is_kept_from_caches(response),
        keeps_what_the_view_has_set={"theme"} <= {*response.cookies}
        and "X-Of-The-View" in response.headers,
    )


def outcome_of(response: Any, url: str, answer: str) -> str:
    """Say in a word what an answer is."""
    kind, to = response.headers["Content-Type"], response.headers.get("Location", "")
    if kind == OF_THE_VIEW:
        # There are no words to HEAD, or with 204.
        is_whole = (response.status_code, to) == ANSWERS[answer]
        return VIEW if is_whole and response.content in (b"seen", b"") else "a part of it"
    if {*OF_ITS_CONTENT, "ETag", "Content-Length"} & {*response.headers}:
        return "another answer, with headers of the view's content"
    places = {"/login/": SIGN_IN, PROVE: PASSWORD, url.partition("?")[0]: ITSELF}
    if response.status_code == 302:
        place = to.partition("?")[0]
        return places.get(place, str(place))
    assert not to
    kinds = {"application/json": "JSON", "text/html; charset=utf-8": "page"}
    return f"{response.status_code} {kinds[kind]}"


def is_kept_from_caches(response: Any) -> bool:
    words = response.headers["Cache-Control"].split(", ")
    kept = {"no-store", "private"} <= {*words} and "public" not in words
    return kept and "Cookie" in response.headers["Vary"] and CDN not in response.headers


class Asking:
    """Sends requests with the cookie of one session, whatever becomes of the cookie."""

    def __init__(self, asgi: bool) -> None:
        self.a = "a" if asgi else ""
        # A browser that takes part in CSRF would change what is looked at here.
        self.client: Any = (AsyncClient if asgi else Client)(raise_request_exception=False)
        self.key: Callable[[], str]

    def __call__(self, method: str, url: str, headers: dict[str, str]) -> Any:
        self.client.cookies.clear()
        self.client.cookies["sessionid"] = self.key()
        if not self.a:
            return self.client.generic(method, url, headers=headers)

        async def send() -> Any:
            return await self.client.generic(method, url, headers=headers)

        return async_to_sync(send)()


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Asking:
    return Asking(request.param == "async")


@pytest.fixture
def state(
    ask: Asking,
    alice: User,
    policy: Callable[..., None],
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[str], None]]:
    """A function that lets the session of the visitor get into a state."""

    def get_into(name: str) -> None:
        policy(**(LOCK if name == "locked" else {"limit": 1, "on_limit": "refuse"}))
        browser = Browser(headers=PAGE)
        post_sign_in(browser)
        key = key_of(browser)
        if name == "ended":
            UserSession.objects.revoke()
        elif name == "locked":
            clock.move(seconds=600)
        elif name in ("over the limit", "key changed"):
            ask.key = visitors_key
            return
        elif name == "store down":
            verbs = ("read", "aread") if SessionStore.native_async else ("read",)
            store.take_down(monkeypatch, *verbs)
        ask.key = lambda: key

    yield get_into
    monkeypatch.undo()


def visitors_key() -> str:
    session = SessionStore()
    session["theme"] = "dark"
    session.save()
    return str(session.session_key)


@pytest.mark.once  # answers are decided above the store
@pytest.mark.parametrize("name", TABLE)
@pytest.mark.standard("ASVS-7.4.1", "ASVS-14.3.2", "ASVS-16.5.2", "ASVS-16.5.3")
def test_a_view_has_its_say_unless_it_refuses_a_stranger(
    ask: Asking, state: Callable[[str], None], name: str
):
    state(name)
    view, _rows = TABLE[name]
    answers: dict[tuple[str, str, str], tuple[Answer, Answer]] = {}
    for case in product(METHODS, ANSWERS, EVERYBODY):
        method, answer, kind = case
        url = f"/{ask.a}{view}/{answer}/?page=2"
        response = ask(method, url, EVERYBODY[kind])
        answers[case] = seen(response, url, answer), wanted(name, answer, method, kind)
    wrong = {case: pair for case, pair in answers.items() if pair[0] != pair[1]}
    assert not wrong


# A session that has ended.


@pytest.fixture
def ended(browse: Callable[..., Any], alice: User) -> Any:
    """A browser whose session somebody has ended."""
    browser = browse()
    post_sign_in(browser)
    UserSession.objects.revoke()
    return browser


@pytest.mark.parametrize("kind", EVERYBODY)
@pytest.mark.parametrize("view", ["private", "whoami", "forbidden"])
def test_it_is_told_once_and_never_in_a_circle(ended: Any, kind: str, view: str):
    headers, cookies = EVERYBODY[kind], ended.cookies
    ended = type(ended)()  # without headers of its own
    ended.cookies = cookies
    response = ended.get(f"/{view}/", headers=headers)
    assert deletes_the_cookie(response)
    assert ("Session-Ended" in response.headers) == (kind not in PEOPLE)
    pages = []
    if response.status_code == 302:
        response = ended.get(response.headers["Location"], headers=headers)
        assert response.status_code == 200
        pages.append(response.text)
    pages += [ended.get("/login/", headers=PAGE).text for _ in range(2)]
    assert sum(page.count(REVOKED) for page in pages) == (kind not in SCRIPTS)
    response = ended.get(f"/{view}/", headers=headers)
    assert "Session-Ended" not in response.headers
    assert "messages" not in response.cookies
    # What the view says to every stranger.
    assert response.status_code == {"whoami": 200, "private": 302, "forbidden": 403}[view]


def test_a_public_page_stays_and_the_next_page_with_messages_gives_the_reason(ended: Any):
    response = ended.get(f"/{ended.a}whoami/")
    assert response.content == b"AnonymousUser"
    assert deletes_the_cookie(response)
    assert ended.get("/").content == b"home"
    assert REVOKED in ended.get("/login/").text
    assert REVOKED not in ended.get("/login/").text


def with_messages(request: HttpRequest) -> HttpResponse:
    """Says something of its own, beside whoever is asking."""
    messages.success(request, f"Thank you, {request.user}.")
    return HttpResponse("done")


def shows_messages(request: HttpRequest) -> HttpResponse:
    request.session.get("cart")
    return render(request, "admin/login.html")


def shows_messages_and_refuses(request: HttpRequest) -> HttpResponse:
    response = shows_messages(request)
    response.status_code = 403
    return response


urlpatterns += [
    path("with_messages/", with_messages),
    path("shows_messages/", shows_messages),
    path("shows_messages_and_refuses/", shows_messages_and_refuses),
]

STORAGES = ["cookie.CookieStorage", "fallback.FallbackStorage", "session.SessionStorage"]


@pytest.mark.parametrize("storage", STORAGES)
def test_the_messages_of_the_view_are_shown_beside_ours(ended: Any, settings: Any, storage: str):
    settings.MESSAGE_STORAGE = f"django.contrib.messages.storage.{storage}"
    assert ended.get("/with_messages/").content == b"done"
    page = ended.get("/login/")
    assert page.text.index("Thank you, AnonymousUser.") < page.text.index(REVOKED)
    assert REVOKED not in ended.get("/login/").text


@pytest.mark.parametrize("storage", STORAGES[:2])
@pytest.mark.parametrize("page", ["shows_messages", "shows_messages_and_refuses"])
def test_a_page_that_shows_other_messages_loses_none(
    ended: Any, settings: Any, storage: str, page: str
):
    settings.MESSAGE_STORAGE = f"django.contrib.messages.storage.{storage}"
    dead = key_of(ended)
    del ended.cookies["sessionid"]
    ended.get("/with_messages/")
    ended.cookies["sessionid"] = dead
    shown = ended.get(f"/{page}/")
    if page == "shows_messages":
        assert "Thank you" in shown.text
    assert shown.cookies["messages"]["max-age"] == ""  # 0 is what a browser deletes
    then = ended.get("/login/")
    assert REVOKED in then.text
    # It was not shown where the sign-in page has taken the place of the view's.
    assert ("Thank you" in then.text) == (page == "shows_messages_and_refuses")


def test_a_site_without_messages_says_nothing_and_works(
    ended: Any, browse: Callable[..., Any], settings: Any
):
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "messages" not in name]
    browser, dead = browse(), key_of(ended)
    for page, status in (("whoami", 200), ("private", 302), ("forbidden", 302)):
        browser.cookies["sessionid"] = dead
        response = browser.get(f"/{page}/")
        assert response.status_code == status
        assert deletes_the_cookie(response)
        assert "messages" not in response.cookies


def test_a_sign_in_page_that_refuses_is_not_led_to_itself(ended: Any, settings: Any):
    """Too many attempts, say, or a form whose CSRF token was in the session."""
    settings.LOGIN_URL = "/forbidden/"
    for method in ("post", "get"):
        response = getattr(ended, method)("/forbidden/")
        assert response.status_code == 403
        assert deletes_the_cookie(response)


# Other packages' views.


def api(request: HttpRequest) -> HttpResponse:
    """Knows its user by a bearer token, as django-oauth-toolkit's protected_resource does."""
    request.session.get("cart")
    if request.headers.get("Authorization") != "Bearer of-alice":
        return HttpResponse(status=401, headers={"WWW-Authenticate": "Bearer"})
    request.user = User.objects.get(username="alice")
    if "what" in request.GET:
        return HttpResponse(f"not for {request.user}", status=403)
    return JsonResponse({"user": str(request.user)})


def csrf_token(request: HttpRequest) -> HttpResponse:
    """Gives an app its CSRF token, and says who is signed in."""
    return JsonResponse({"token": get_token(request), "user": str(request.user)})


def headless(request: HttpRequest) -> HttpResponse:
    """Tells an app how to sign in, as allauth's headless API does."""
    if request.user.is_authenticated:
        return JsonResponse({"status": 200})
    flows = {"flows": [{"id": "login"}]}
    return JsonResponse(
        {"status": 401, "data": flows, "meta": {"is_authenticated": False}}, status=401
    )


urlpatterns += [
    path("api/", api),
    path("csrf_token/", csrf_token),
    path("headless/", headless),
]


def test_what_a_user_who_is_known_by_a_token_may_not_do_is_for_the_view_to_say(ended: Any):
    for headers in (PAGE, SCRIPT):
        headers = {**headers, "authorization": "Bearer of-alice"}
        response = ended.get("/api/?what=secret", headers=headers)
        assert (response.status_code, response.content) == (403, b"not for alice")


@pytest.mark.parametrize("kind", EVERYBODY)
def test_a_token_counts_beside_the_cookie_of_an_ended_session(ended: Any, kind: str):
    headers = {"accept": ""} | EVERYBODY[kind] | {"authorization": "Bearer of-alice"}
    for _ in range(2):
        response = ended.get("/api/", headers=headers)
        assert (response.status_code, response.json()) == (200, {"user": "alice"})


def test_a_token_that_is_wrong_is_refused_in_the_words_of_the_view(ended: Any):
    response = ended.get("/api/", headers={"accept": "*/*", "authorization": "Bearer of-mallory"})
    assert (response.status_code, response.content) == (401, b"")
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_an_app_gets_its_csrf_token_and_can_sign_in_again(ended: Any):
    ended.handler.enforce_csrf_checks = True
    response = ended.get("/csrf_token/", headers=SCRIPT)
    assert response.status_code == 200
    assert response.headers["Session-Ended"] == "revoked"
    answer = response.json()
    assert answer["user"] == "AnonymousUser"
    headers = {**SCRIPT, "x-csrftoken": answer["token"]}
    assert ended.post("/login/", CREDENTIALS, headers=headers).status_code == 302
    assert ended.get("/headless/", headers=SCRIPT).json() == {"status": 200}


def test_a_refusal_keeps_what_it_says_to_an_app(ended: Any):
    response = ended.get("/headless/", headers=SCRIPT)
    assert response.status_code == 401
    assert response.json()["meta"] == {"is_authenticated": False}
    assert response.json()["data"] == {"flows": [{"id": "login"}]}
    assert response.headers["Session-Ended"] == "revoked"


# A parallel request of the same browser.


def test_the_cookie_that_another_tab_has_just_got_is_not_taken_away(
    signed_in: Callable[..., Any], bob: User, clock: Any
):
    browser = signed_in()
    dead = key_of(browser)
    post_sign_in(browser, "bob")
    assert UserSession.objects.get(end_reason=EndReason.REPLACED)
    new = key_of(browser)

    def late(page: str, **headers: str) -> Any:
        """Answer a request that was sent before Bob has signed in."""
        browser.cookies["sessionid"] = dead
        response = browser.get(f"/{page}/", headers=headers)
        browser.cookies["sessionid"] = new
        assert is_kept_from_caches(response)
        return response

    for page, status in (("whoami", 200), ("private", 302), ("forbidden", 403)):
        response = late(page)
        assert response.status_code == status
        assert sets_no_cookie(response)
        # Who is led away is told why, and the others know what they have just done.
        assert ("messages" in response.cookies) == (page != "whoami")
        response = late(page, **SCRIPT)
        assert response.status_code == (401 if status == 302 else status)
        assert response.headers["Session-Ended"] == "replaced"
        assert sets_no_cookie(response)
    clock.move(seconds=59)
    assert sets_no_cookie(late("whoami"))
    clock.move(seconds=1)
    assert deletes_the_cookie(late("whoami"))


def test_the_cookie_of_who_has_signed_in_rather_than_unlock_is_not_taken_away(locked: Any):
    dead = key_of(locked)
    assert post_sign_in(locked).headers["Location"] == "/"
    new = key_of(locked)
    locked.cookies["sessionid"] = dead  # a script of the page asks for news
    response = locked.get("/whoami/", headers=SCRIPT)
    assert (response.content, sets_no_cookie(response)) == (b"AnonymousUser", True)
    locked.cookies["sessionid"] = new
    assert locked.get("/private/").content == b"alice"


def no_answer(*args: Any) -> None:
    raise OperationalError("no route to host")


def test_the_row_that_cannot_be_asked_for_overrules_no_view_that_did_not_refuse(
    ended: Any, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as outage:
        outage.setattr(registry, "row_of_missing", no_answer)
        response = ended.get("/whoami/")
        assert response.content == b"AnonymousUser"
        assert sets_no_cookie(response)
        assert ended.get("/private/").status_code == 503
        assert ended.get("/forbidden/").status_code == 503
    assert ended.get("/whoami/", headers=SCRIPT).headers["Session-Ended"] == "revoked"


def save_what_has_ended(request: HttpRequest) -> HttpResponse:
    """A session that is ended between its load and its save."""
    request.session["cart"] = []
    UserSession.objects.revoke()
    return HttpResponse(f"for {request.user}")


urlpatterns += [path("save_what_has_ended/", save_what_has_ended)]


@pytest.mark.parametrize("headers", [PAGE, SCRIPT])
@pytest.mark.parametrize("method", ["get", "post"])
def test_what_was_answered_to_a_session_that_ended_meanwhile_stands(
    signed_in: Callable[..., Any], headers: dict[str, str], method: str
):
    browser = signed_in()
    browser.handler.enforce_csrf_checks = False
    response = getattr(browser, method)("/save_what_has_ended/", headers=headers)
    assert response.content == b"for alice"
    assert response.headers.get("Session-Ended") == ("revoked" if headers == SCRIPT else None)
    assert deletes_the_cookie(response)
    assert is_kept_from_caches(response)
    assert not store.payloads()
    assert (REVOKED in browser.get("/login/").text) == (headers == PAGE)


# A session that is locked.


@pytest.fixture
def locked(browse: Callable[..., Any], alice: User, policy: Callable[..., None], clock: Any) -> Any:
    policy(**LOCK)
    browser = browse()
    post_sign_in(browser)
    clock.move(seconds=600)
    return browser


def test_public_pages_are_public_while_a_session_is_locked(locked: Any):
    for _ in range(2):
        response = locked.get(f"/{locked.a}whoami/")
        assert response.content == b"AnonymousUser"
        assert sets_no_cookie(response)
        assert "Cookie" in response.headers["Vary"]
    assert locked.get(f"/{locked.a}private/?page=2").headers["Location"] == (
        f"{PROVE}?next=%2F{locked.a}private%2F%3Fpage%3D2"
    )


def count_visits(request: HttpRequest) -> HttpResponse:
    """Writes into the session, whatever the request is for."""
    if request.headers.get("Authorization"):
        request.user = User.objects.get(username="alice")
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(f"visit {request.session['visits']} of {request.user}")


urlpatterns += [path("count_visits/", csrf_exempt(count_visits))]


def test_what_a_page_counts_while_a_session_is_locked_is_not_missed(locked: Any):
    for _ in range(2):
        assert locked.get("/count_visits/").content == b"visit 1 of AnonymousUser"


def test_who_is_known_by_a_token_is_not_led_away_while_a_session_is_locked(locked: Any):
    response = locked.post("/count_visits/", headers={"authorization": "Bearer of-alice"})
    assert response.content == b"visit 1 of alice"
    assert sets_no_cookie(response)


def test_what_is_sent_to_a_locked_session_is_not_lost_without_a_word(locked: Any):
    write = f"/{locked.a}write/"
    assert locked.get("/shows_messages/").status_code == 200
    response = locked.post(write, {"cart": "kettle"}, headers={"referer": "/shop/"})
    assert response.headers["Location"] == f"{PROVE}?next=%2Fshop%2F"
    response = locked.post(write, {"cart": "kettle"}, headers=SCRIPT)
    assert response.status_code == 401
    assert response.json()["url"] == PROVE
    assert response.headers["Session-Locked"] == "idle"


# A sign-in that waits for room.


def welcome(request: HttpRequest) -> HttpResponse:
    """Signs in and says so, without a redirect."""
    login(request, User.objects.get(username="alice"))
    return HttpResponse("welcome")


def sign_in_and_go(request: HttpRequest) -> HttpResponse:
    """Signs in, and redirects as it is told, with a cookie of its own."""
    login(request, User.objects.get(username="alice"))
    messages.success(request, "Welcome.")
    response = HttpResponseRedirect(request.GET["to"])
    response.status_code = int(request.GET.get("status", 302))
    response.set_cookie("theme", "dark")
    return response


async def asign_in_and_go(request: HttpRequest) -> HttpResponse:
    await alogin(request, await User.objects.aget(username="alice"))
    messages.success(request, "Welcome.")
    response = HttpResponseRedirect(request.GET["to"])
    response.status_code = int(request.GET.get("status", 302))
    response.set_cookie("theme", "dark")
    return response


urlpatterns += [
    path("welcome/", welcome),
    path("sign_in_and_go/", sign_in_and_go),
    path("asign_in_and_go/", asign_in_and_go),
]


WITHOUT_OUR_PAGES = tuple(
    each for each in urlpatterns if getattr(each, "app_name", "") != "django_sessionkit"
)


@pytest.fixture
def full(alice: User, policy: Callable[..., None]) -> Any:
    """The only browser in which Alice may be signed in."""
    policy(limit=1, on_limit="ask")
    browser = Browser(headers=PAGE)
    post_sign_in(browser)
    return browser


@pytest.mark.parametrize(
    ("to", "back"),
    [
        ("/read/?page=2", "?next=%2Fread%2F%3Fpage%3D2"),
        ("../read/", "?next=%2Fread%2F"),
        ("http://testserver/read/", "?next=http%3A%2F%2Ftestserver%2Fread%2F"),
        ("https://elsewhere.example/", ""),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307])
def test_a_page_that_signs_in_leads_to_the_choice_and_then_where_it_wanted(
    full: Any, browse: Callable[..., Any], to: str, back: str, status: int
):
    browser = browse()
    response = browser.get(f"/{browser.a}sign_in_and_go/", {"to": to, "status": status})
    assert (response.status_code, response.headers["Location"]) == (302, f"{LIMIT}{back}")
    assert response.cookies["theme"].value == "dark"
    assert len(response.cookies["sessionid"].value) == 32
    assert is_kept_from_caches(response)
    page = browser.get(response.headers["Location"])
    assert "You are signed in on too many devices" in words(page)
    UserSession.objects.filter(counts=True).revoke()
    answer = browser.post(response.headers["Location"], {"next": page.context["next"]})
    assert answer.headers["Location"] == page.context["next"]
    assert browser.get("/private/").content == b"alice"


def test_messages_of_a_sign_in_that_waits_are_not_lost(full: Any, browse: Callable[..., Any]):
    browser = browse()
    response = browser.get(f"/{browser.a}sign_in_and_go/", {"to": "/"})
    assert "Welcome." in browser.get(response.headers["Location"]).text


def test_messages_of_a_sign_in_that_is_refused_are_not_so(
    full: Any, browse: Callable[..., Any], policy: Callable[..., None]
):
    policy(limit=1, on_limit="refuse")
    browser = browse()
    browser.get("/with_messages/")  # said before, and still to be shown
    response = browser.get(f"/{browser.a}sign_in_and_go/", {"to": "/"})
    assert response.status_code == 403
    assert "You are already signed in on 1 device" in response.text
    page = browser.get("/login/").text
    assert "Thank you, AnonymousUser." in page
    assert "Welcome." not in page


def test_a_script_that_signs_in_is_told_that_it_has_to_wait(full: Any, browse: Callable[..., Any]):
    browser = browse()
    response = browser.get("/welcome/", headers=SCRIPT)
    assert response.content == b"welcome"
    assert response.headers["Session-Locked"] == "limit"
    assert is_kept_from_caches(response)
    response = browser.get("/forbidden/", headers=SCRIPT)
    assert (response.status_code, response.headers["Session-Locked"]) == (403, "limit")
    response = browser.get("/private/", headers=SCRIPT)
    assert response.status_code == 401
    assert (response.json()["reason"], response.headers["Session-Locked"]) == ("limit", "limit")
    to = {"to": "/whoami/"}
    response = browse().get(f"/{browser.a}sign_in_and_go/", to, headers=SCRIPT)
    assert response.headers["Location"] == "/whoami/"
    assert response.headers["Session-Locked"] == "limit"


def test_a_page_that_signs_in_without_a_redirect_has_its_say(full: Any, browse: Callable[..., Any]):
    browser = browse()
    assert browser.get("/welcome/").content == b"welcome"
    assert browser.get("/whoami/").content == b"AnonymousUser"
    assert browser.get("/private/").headers["Location"] == f"{LIMIT}?next=%2Fprivate%2F"


def test_on_a_site_without_the_page_nobody_signs_in_again_and_again(
    full: Any, browse: Callable[..., Any], settings: Any, policy: Callable[..., None]
):
    settings.ROOT_URLCONF = WITHOUT_OUR_PAGES
    browser = browse()
    for response in (post_sign_in(browser), browser.get("/private/"), browser.get("/forbidden/")):
        assert response.status_code == 403
        assert "You are already signed in on 1 device" in words(response)
    assert browser.get("/private/", headers=SCRIPT).json()["reason"] == "limit"
    assert browser.get("/whoami/").content == b"AnonymousUser"
    assert browser.get("/login/").status_code == 200
    full.post("/logout/")
    assert post_sign_in(browser).headers["Location"] == "/"
    assert browser.get("/private/").content == b"alice"
    assert not UserSession.objects.active().filter(counts=False)


@pytest.mark.parametrize("login_url", ["login", "nowhere"])
def test_on_a_site_without_our_pages_a_lock_leads_to_the_sign_in_page_or_nowhere(
    locked: Any, settings: Any, login_url: str
):
    settings.ROOT_URLCONF = WITHOUT_OUR_PAGES
    settings.LOGIN_URL = login_url
    response = locked.get("/forbidden/")
    if login_url == "login":
        assert response.headers["Location"] == "/login/?next=%2Fforbidden%2F"
    else:
        assert response.status_code == 401
        assert "This session is locked" in words(response)
        assert "url" not in locked.post("/write/", {"a": "b"}, headers=SCRIPT).json()


def test_who_is_refused_on_a_site_without_messages_reads_why(
    full: Any, browse: Callable[..., Any], settings: Any, policy: Callable[..., None]
):
    policy(limit=1, on_limit="refuse")
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "messages" not in name]
    response = post_sign_in(browse())
    assert response.status_code == 403
    assert "You are already signed in on 1 device" in words(response)


@pytest.mark.parametrize("to", ["http://[x/", "/elsewhere/?" + 1001 * "a&", ""])
def test_wherever_a_view_leads_it_stands(browse: Callable[..., Any], alice: User, to: str):
    browser = browse()
    post_sign_in(browser)
    UserSession.objects.revoke()
    response = browser.get("/anywhere/", headers={"x-to": to})
    assert (response.status_code, response.headers["Location"]) == (302, to)
    assert deletes_the_cookie(response)
