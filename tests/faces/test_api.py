"""The JSON API: what a program sees of the sessions of its user, and does with them."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client, override_settings
from django.utils import timezone
from rest_framework.test import APIRequestFactory

from django_sessionkit.api.views import SessionsView
from django_sessionkit.models import EndReason, UserSession
from tests.browsers import SCRIPT
from tests.faces.test_paging import give_devices
from tests.people import CHROME, FIREFOX, IPHONE, handle, is_in, row_of, sign_in
from tests.programs import API, call, problem
from tests.store import HOUR, later, round_trips, take_down

pytestmark = pytest.mark.django_db

ENDPOINTS = [
    ("GET", "sessions/"),
    ("GET", "sessions/current/"),
    ("DELETE", "sessions/current/"),
    ("GET", "sessions/history/"),
    ("DELETE", f"sessions/{UUID(int=1)}/"),
    ("PATCH", f"sessions/{UUID(int=1)}/"),
    ("POST", "sessions/end-others/"),
    ("POST", "reauthenticate/"),
    ("GET", "limit/"),
    ("POST", "limit/"),
]


def moment(value: Any) -> str:
    at: datetime = value
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


# To see.


def test_a_program_sees_the_sessions_of_its_user_and_the_current_one_first(
    signed_in: Callable[..., Any],
):
    phone = signed_in(**{"user-agent": IPHONE})
    laptop = signed_in(**{"user-agent": FIREFOX})
    call(laptop, "PATCH", f"sessions/{handle(laptop)}/", {"label": "Work"})
    answer = call(phone, "GET", "sessions/")
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/json"
    assert "no-store" in answer["Cache-Control"]
    listed = answer.json()
    assert (listed["next"], listed["previous"], listed["other_count"]) == (None, None, 1)
    mine, other = listed["results"]
    row = row_of(phone)
    assert mine == {
        "id": str(handle(phone)),
        "name": "Safari on iOS",
        "label": "",
        "details": "Safari 26, iPhone",
        "kind": "mobile",
        "place": "",
        "address": "127.0.0.1",
        "started_at": moment(row.started_at),
        "adopted_at": None,
        "last_active": moment(row.last_seen_at),
        "expires_at": moment(row.expires_at),
        "is_current": True,
        "is_new": False,
        "sign_in_method": "with a password",
        "transport": "cookie",
        "support": False,
    }
    assert (other["name"], other["label"], other["is_current"]) == ("Work", "Work", False)
    assert other["id"] == str(handle(laptop))


def test_what_was_new_at_a_sign_in_is_new_for_two_weeks(alice: User, laptop: Client):
    sign_in(alice, IPHONE)
    UserSession.objects.update(novelty="device")  # the current one is not called so
    for days, new in ((13, [False, True]), (15, [False, False])):
        UserSession.objects.update(started_at=timezone.now() - timedelta(days=days))
        listed = call(laptop, "GET", "sessions/").json()["results"]
        assert [each["is_new"] for each in listed] == new


def test_the_current_session_comes_with_the_csrf_token(laptop: Client):
    answer = call(laptop, "GET", "sessions/current/")
    current = answer.json()
    assert (current["id"], current["is_current"]) == (str(handle(laptop)), True)
    headers = {"x-csrftoken": current["csrf_token"]}
    answer = laptop.post(f"{API}sessions/end-others/", headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"ended": 0})


@override_settings(USE_TZ=False)
def test_times_are_in_utc_whatever_the_site_has(laptop: Client):
    assert call(laptop, "GET", "sessions/current/").json()["started_at"].endswith("Z")


def test_the_list_takes_two_round_trips_however_many_sessions(alice: User, laptop: Client):
    call(laptop, "GET", "sessions/")  # writes the activity, perhaps
    for count in (0, 20):
        give_devices(alice, count)
        with round_trips(4):  # the session, its user, the rows, and the store
            answer = call(laptop, "GET", "sessions/")
        assert len(answer.json()["results"]) == count + 1
    with round_trips(3):
        call(laptop, "GET", "sessions/history/")
    with round_trips(3):
        call(laptop, "GET", "sessions/current/")


def pages(device: Client, way: str, url: str) -> list[list[str]]:
    """Return what is on all pages from this one on."""
    found, to = [], url
    while to:
        answer = call(device, "GET", to).json()
        found.append([each["id"] for each in answer["results"]])
        to = answer[way]
    return found


def test_a_long_list_has_pages_and_the_way_back(alice: User):
    others = list(map(str, give_devices(alice, 60)))
    laptop = sign_in(alice)
    mine = str(handle(laptop))
    found = pages(laptop, "next", "sessions/")
    assert found == [[mine, *others[:24]], others[24:49], others[49:]]
    first = call(laptop, "GET", "sessions/").json()
    assert (first["previous"], first["other_count"]) == (None, 60)
    second = call(laptop, "GET", first["next"]).json()
    assert second["next"].startswith(f"http://testserver{API}sessions/?cursor=")
    assert pages(laptop, "previous", second["next"]) == found[::-1]


@pytest.mark.parametrize("where", ["sessions/", "sessions/history/"])
def test_what_is_no_cursor_is_not_found(laptop: Client, where: str):
    def named(query: str) -> str:
        return base64.urlsafe_b64encode(query.encode()).decode()

    for cursor in ("1", "é", named("after=1"), named("\0"), "_w==", named("elsewhere=1")):
        problem(call(laptop, "GET", f"{where}?cursor={cursor}"), 404, "invalid_cursor")
    assert call(laptop, "GET", f"{where}?cursor=").status_code == 200


def test_history_tells_what_has_ended_and_how(alice: User, laptop: Client):
    phone, tablet = sign_in(alice, IPHONE), sign_in(alice, CHROME)
    call(laptop, "DELETE", f"sessions/{handle(phone)}/")
    call(tablet, "DELETE", f"sessions/{handle(tablet)}/")
    history = call(laptop, "GET", "sessions/history/").json()
    assert (history["next"], history["previous"]) == (None, None)
    last, first = history["results"]
    row = UserSession.objects.get(user_agent=IPHONE)
    assert first == {
        "id": str(row.pk),
        "name": "Safari on iOS",
        "details": "Safari 26, iPhone",
        "kind": "mobile",
        "place": "",
        "started_at": moment(row.started_at),
        "ended_at": moment(row.ended_at),
        "reason": "revoked",
        "how_it_ended": "Signed out from Firefox on Linux.",
        "support": False,
    }
    assert (last["reason"], last["how_it_ended"]) == ("logout", "You signed out there.")


def test_a_long_history_has_pages(alice: User):
    handles = give_devices(alice, 30)
    UserSession.objects.revoke()
    laptop = sign_in(alice)
    first, second = pages(laptop, "next", "sessions/history/")
    assert (len(first), len(second)) == (25, 5)
    assert {*first, *second} == set(map(str, handles))


def test_sessions_of_staff_tell_nothing_of_staff(alice: User, laptop: Client):
    sign_in(alice, IPHONE, "203.0.113.7")
    rows = UserSession.objects.filter(user_agent=IPHONE)
    rows.update(support=True, label="Desk 5", novelty="device")
    _mine, support = call(laptop, "GET", "sessions/").json()["results"]
    assert (support["name"], support["support"]) == ("Support access", True)
    assert (support["kind"], support["expires_at"], support["is_new"]) == ("other", None, False)
    for name in ("label", "details", "place", "address", "sign_in_method"):
        assert support[name] == ""
    problem(call(laptop, "PATCH", f"sessions/{support['id']}/", {"label": "x"}), 404, "not_found")
    assert call(laptop, "DELETE", f"sessions/{support['id']}/").status_code == 204
    (support,) = call(laptop, "GET", "sessions/history/").json()["results"]
    assert (support["name"], support["kind"], support["details"]) == ("Support access", "other", "")


# To name.


def test_a_name_is_for_all_sessions_of_the_device(alice: User, laptop: Client):
    sign_in(alice, FIREFOX)
    UserSession.objects.update(browser=None)  # by its looks, it is the same
    there = f"sessions/{handle(laptop)}/"
    answer = call(laptop, "PATCH", there, {"label": " Work\0  laptop\u202e"})
    assert (answer.status_code, answer.json()["name"]) == (200, "Work laptop")
    assert set(UserSession.objects.values_list("label", flat=True)) == {"Work laptop"}
    assert call(laptop, "PATCH", there, {}).json()["label"] == "Work laptop"
    assert call(laptop, "PATCH", there, {"label": ""}).json()["name"] == "Firefox on Linux"


@pytest.mark.parametrize(
    ("sent", "pointer", "code"),
    [
        ({"label": "x" * 65}, "#/label", "max_length"),
        ({"label": 5}, "#/label", "invalid"),
        ({"label": None}, "#/label", "null"),
        ({"label": "\ud800"}, "#/label", "surrogate_characters_not_allowed"),
        ([], "#", "invalid"),
    ],
)
def test_a_name_that_is_none_is_a_problem_with_its_place(
    laptop: Client, sent: Any, pointer: str, code: str
):
    answer = call(laptop, "PATCH", f"sessions/{handle(laptop)}/", sent)
    (error,) = problem(answer, 400, "invalid")["errors"]
    assert (error["pointer"], error["code"]) == (pointer, code)
    assert error["detail"]


# To end.


def test_who_ends_a_session_ends_it_at_once_and_the_other_is_told(
    signed_in: Callable[..., Any],
):
    laptop, phone = signed_in(), signed_in(**{"user-agent": IPHONE})
    there = f"sessions/{handle(phone)}/"
    answer = call(laptop, "DELETE", there)
    assert (answer.status_code, answer.content) == (204, b"")
    ended = UserSession.objects.get(user_agent=IPHONE)
    assert (ended.end_reason, ended.ended_from) == (EndReason.REVOKED, handle(laptop))
    assert ended.ended_by == row_of(laptop).user
    # Once more is no mistake: whoever asks for it has it.
    assert call(laptop, "DELETE", there).status_code == 204

    answer = call(phone, "GET", "sessions/")
    told = problem(answer, 401, "ended")
    assert answer["Session-Ended"] == told["reason"] == "revoked"
    assert told["detail"].startswith("You were signed out from another device")
    assert answer.cookies["sessionid"]["max-age"] == 0
    assert is_in(laptop)


def test_who_ends_the_current_session_signs_out(signed_in: Callable[..., Any]):
    for where in ("current", None):
        laptop = signed_in()
        mine = handle(laptop)
        with later(2 * HOUR):  # this takes no recent proof
            answer = call(laptop, "DELETE", f"sessions/{where or mine}/")
            assert answer.status_code == 204
            assert answer.cookies["sessionid"]["max-age"] == 0
            problem(call(laptop, "GET", "sessions/"), 401, "not_authenticated")
        assert UserSession.objects.get(pk=mine).end_reason == EndReason.LOGOUT


def test_sessions_of_others_are_not_found(bob: User, laptop: Client):
    stranger = sign_in(bob)
    for each in (handle(stranger), uuid4()):
        problem(call(laptop, "DELETE", f"sessions/{each}/"), 404, "not_found")
        problem(call(laptop, "PATCH", f"sessions/{each}/", {"label": "x"}), 404, "not_found")
    assert is_in(stranger, bob)
    assert row_of(stranger).label == ""


def test_who_ends_all_others_stays(signed_in: Callable[..., Any], bob: User):
    laptop, phone, tablet = signed_in(), signed_in(), signed_in()
    stranger = sign_in(bob)
    answer = call(laptop, "POST", "sessions/end-others/")
    assert (answer.status_code, answer.json()) == (200, {"ended": 2})
    assert [is_in(each) for each in (laptop, phone, tablet)] == [True, False, False]
    assert is_in(stranger, bob)


@pytest.mark.usefixtures("store_down")
def test_where_the_store_does_not_answer_the_program_is_told_how_long_it_takes(
    alice: User, laptop: Client
):
    phone = sign_in(alice, IPHONE)
    for method, where in (
        ("DELETE", f"sessions/{handle(phone)}/"),
        ("POST", "sessions/end-others/"),
    ):
        sign_in(alice, CHROME)
        answer = call(laptop, method, where)
        assert (answer.status_code, answer.json()) == (202, {"within": 60})
    assert UserSession.objects.ended().count() == 3


# Those who are not signed in.


@pytest.mark.parametrize(("method", "where"), ENDPOINTS)
def test_a_stranger_is_told_so(browse: Callable[..., Any], method: str, where: str):
    problem(call(browse(), method, where), 401, "not_authenticated")
    # Whatever the Accept header: nobody looks at a page.
    answer = call(browse(), method, where, accept="text/html, */*; q=.2")
    problem(answer, 401, "not_authenticated")


@pytest.mark.parametrize(("method", "where"), ENDPOINTS)
def test_whose_session_has_ended_is_told_why(
    browse: Callable[..., Any], signed_in: Callable[..., Any], method: str, where: str
):
    browser = signed_in()
    UserSession.objects.revoke(EndReason.REVOKED_BY_STAFF)
    answer = call(browser, method, where, sec_fetch_mode="navigate")
    said = problem(answer, 401, "ended")
    assert answer["Session-Ended"] == said["reason"] == "revoked_by_staff"
    assert said["detail"] == "You were signed out by the staff of this site."


def test_a_user_who_was_disabled_is_a_stranger(alice: User, laptop: Client):
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert call(laptop, "GET", "sessions/").status_code == 401


def test_a_user_who_was_disabled_and_whom_the_site_lets_in_is_let_in(
    alice: User, laptop: Client, settings: Any
):
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.AllowAllUsersModelBackend"]
    laptop.force_login(alice)
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert call(laptop, "GET", "sessions/").status_code == 200


def test_a_request_that_no_middleware_has_seen_is_that_of_a_stranger():
    request = APIRequestFactory().get("/")
    assert SessionsView.as_view()(request).status_code == 401


def test_a_store_that_does_not_answer_is_a_problem_that_passes(
    signed_in: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    laptop = signed_in()
    for verbs in (("peek",), ("read", "aread", "replace", "touch")):
        take_down(monkeypatch, *(verb for verb in verbs if hasattr(type(laptop.session), verb)))
        answer = call(laptop, "GET", "sessions/")
        problem(answer, 503, "store_unavailable")
        assert answer["Retry-After"] == "5"
        assert "sessionid" not in answer.cookies


# Forged requests.


def test_what_changes_something_takes_the_csrf_token(alice: User, laptop: Client):
    phone = sign_in(alice, IPHONE)
    for method, where in ENDPOINTS:
        if method != "GET":
            told = problem(call(laptop, method, where, token=False), 403, "csrf_failed")
            assert told["detail"] == "CSRF Failed: CSRF token missing."
    call(laptop, "GET", "sessions/", token=False)
    assert is_in(phone)
    assert is_in(laptop)


# What a client does wrong.


@pytest.mark.parametrize("method", ["PUT", "OPTIONS", "TRACE", "POST"])
def test_a_method_that_is_not_there(laptop: Client, method: str):
    answer = call(laptop, method, "sessions/")
    problem(answer, 405, "method_not_allowed")
    assert answer["Allow"] == "GET, HEAD"


def test_a_client_that_takes_no_json(laptop: Client):
    problem(call(laptop, "GET", "sessions/", accept="text/html"), 406, "not_acceptable")


@pytest.mark.parametrize(
    ("kind", "body", "status", "code"),
    [
        ("text/plain", "label", 415, "unsupported_media_type"),
        ("application/x-www-form-urlencoded", "label=x", 415, "unsupported_media_type"),
        ("application/json", "{", 400, "parse_error"),
        ("application/json", '{"label": NaN}', 400, "parse_error"),
        ("application/json", "[" * 100_000, 400, "parse_error"),
        ("application/json", '{"label": "' + "x" * 3_000_000 + '"}', 400, "parse_error"),
    ],
    ids=["text", "form", "half", "nan", "deep", "long"],
)
def test_a_body_that_is_no_json(laptop: Client, kind: str, body: str, status: int, code: str):
    headers = SCRIPT | {"x-csrftoken": laptop.cookies["csrftoken"].value}
    where = f"{API}sessions/{handle(laptop)}/"
    answer = laptop.patch(where, body, content_type=kind, headers=headers)
    problem(answer, status, code)


def test_json_is_utf_8_whatever_the_request_says(laptop: Client):
    headers = SCRIPT | {"x-csrftoken": laptop.cookies["csrftoken"].value}
    where, body = f"{API}sessions/{handle(laptop)}/", '{"label": "Büro"}'.encode()
    for charset in ("utf-8", "latin-1", "utf-16", "zlib"):
        kind = f"application/json; charset={charset}"
        answer = laptop.generic("PATCH", where, body, content_type=kind, headers=headers)
        assert answer.json()["name"] == "Büro"
