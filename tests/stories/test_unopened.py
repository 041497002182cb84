"""
A session that does not open: a server does not know the SECRET_KEY of another one, as in the middle
of a deployment, or somebody has written over it. To this server, its visitor is a stranger. To the
others, nothing has happened.
"""

from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path

from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.models import EndReason, UserSession
from tests import store
from tests.apps import Keeping
from tests.browsers import (
    browse_as,
    cart,
    deletes_the_cookie,
    given,
    put,
    read,
    sets_no_cookie,
    view,
)
from tests.people import is_in, key_of, only_row, post_sign_in, told
from tests.store import SessionStore, later, travel
from tests.urls import urlpatterns as site

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site(__name__),
    pytest.mark.transports("cookie", "header"),
]

DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"


def sign_out_by_hand(request):
    request.session.flush()
    return HttpResponse("signed out")


async def asign_out_by_hand(request):
    await request.session.aflush()
    return HttpResponse("signed out")


def prove(request):
    request.session.reauthenticate()
    return HttpResponse("proved")


async def aprove(request):
    await request.session.areauthenticate()
    return HttpResponse("proved")


def overwrite(request):
    """Replaces what the session holds, without reading it."""
    request.session.clear()
    request.session["cart"] = "kettle"
    return HttpResponse("written")


async def aoverwrite(request):
    return overwrite(request)


urlpatterns = [
    *site,
    path("sign_out/", sign_out_by_hand),
    path("asign_out/", asign_out_by_hand),
    path("prove/", prove),
    path("aprove/", aprove),
    path("overwrite/", overwrite),
    path("aoverwrite/", aoverwrite),
]


@contextmanager
def secret_key_of_the_other_server():
    with override_settings(SECRET_KEY="of the other server"):
        yield


@contextmanager
def written_over():
    """Somebody has written over everything in the store, until they put it back."""
    payloads = store.payloads()
    for digest in payloads:
        store.tamper(digest, b"somebody was here")
    yield
    for digest in payloads.keys() & store.payloads().keys():
        store.tamper(digest, payloads[digest])


@pytest.fixture(params=[secret_key_of_the_other_server, written_over], ids=["secret", "garbage"])
def closed(request):
    """A context in which the sessions that there are do not open."""
    return request.param


def is_untouched(row):
    """Tell whether nothing has happened to the row of a session, and it is alive."""
    return vars_of(UserSession.objects.get(pk=row.pk)) == vars_of(row) and row.ended_at is None


def vars_of(row):
    return {name: value for name, value in vars(row).items() if name != "_state"}


@pytest.mark.standard("ASVS-7.2.1", "ASVS-16.3.3")
@pytest.mark.parametrize("seconds", [0, 61], ids=["fresh", "due"])
def test_a_stranger_for_one_request_and_nothing_ends(shopper, closed, ended, caplog, seconds):
    browser = shopper()
    row, payloads = only_row(), store.payloads()
    with later(seconds):
        for name in ("whoami", "read"):
            with closed():
                caplog.clear()
                response = browser.get(view(browser, name))
            assert response.content in (b"AnonymousUser", b"{}")
            assert sets_no_cookie(response)
            (record,) = caplog.records
            assert record.name == "django.security.SuspiciousSession"
            assert key_of(browser) not in record.getMessage()
            assert is_untouched(row)
            assert store.payloads() == payloads
        assert is_in(browser)
        assert cart(browser) == "teapot"
    assert ended == []


def test_a_page_that_refuses_strangers_refuses_as_usual(shopper, closed):
    browser = shopper()
    with closed():
        for path_, status in [("/forbidden/", 403), ("/account/sessions/", 302)]:
            response = browser.get(path_)
            assert response.status_code == status
            assert sets_no_cookie(response)
            assert "Session-Ended" not in response.headers
    assert is_in(browser)


def test_a_server_that_saves_every_session_replaces_none(shopper, closed, settings):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    browser = shopper()
    key, payloads = key_of(browser), store.payloads()
    with closed():
        response = read(browser)
        assert response.json() == {}
        assert sets_no_cookie(response)  # nobody knows here for how long
        assert key_of(browser) == key
    assert store.payloads() == payloads
    assert is_in(browser)


@pytest.mark.parametrize("save_every", [False, True])
@pytest.mark.transports("cookie")
def test_the_same_with_the_middleware_of_django(shopper, closed, settings, save_every):
    settings.SESSION_SAVE_EVERY_REQUEST = save_every
    settings.MIDDLEWARE = [
        DJANGOS if name.endswith("SessionMiddleware") else name for name in settings.MIDDLEWARE
    ]
    browser = shopper()
    row, key = only_row(), key_of(browser)
    with closed():
        assert read(browser).json() == {}
        assert key_of(browser) == key
        assert is_untouched(row)
    assert is_in(browser)


def test_a_purge_and_the_lists_leave_it_alone(shopper, closed, alice):
    shopper()
    row = only_row()
    with closed(), travel(timedelta(hours=2)):
        SessionStore.clear_expired()
        assert [each.pk for each in alice.sessionkit_sessions.alive()] == [row.pk]
        assert is_untouched(row)


@pytest.mark.parametrize("writing", ["write", "overwrite"])
@pytest.mark.transports("cookie")
def test_what_a_stranger_writes_goes_into_a_session_of_its_own(shopper, closed, writing):
    browser = shopper()
    copy = browse_as(browser, key_of(browser))
    row, payloads = only_row(), store.payloads()
    with closed():
        if writing == "write":
            response = put(browser, cart="kettle")
        else:
            response = browser.get(view(browser, "overwrite"))
        assert response.content == b"written"
        assert given(response) not in (None, key_of(copy))
        assert cart(browser) == "kettle"
        assert is_untouched(row)
    assert payloads.items() <= store.payloads().items()
    assert is_in(copy)
    assert cart(copy) == "teapot"


def test_signing_in_makes_another_session_and_ends_none(shopper, closed, ended):
    browser = shopper()
    copy = browse_as(browser, key_of(browser))
    row = only_row()
    with closed():
        post_sign_in(browser)
        assert key_of(browser) != key_of(copy)
        assert is_in(browser)
        assert UserSession.objects.active().count() == 2
        assert is_untouched(row)
    assert is_in(copy)
    assert ended == []


@pytest.mark.transports("cookie")
def test_a_sign_in_that_the_limit_refuses_costs_nothing(shopper, closed, policy):
    policy(limit=1, on_limit="refuse")
    browser = shopper()
    row = only_row()
    with closed():
        response = post_sign_in(browser)
        assert response.status_code == 302
        assert sets_no_cookie(response)
        assert is_untouched(row)
    assert is_in(browser)


def test_whoever_signs_out_is_signed_out_everywhere(shopper, closed):
    browser = shopper()
    copy = browse_as(browser, key_of(browser))
    with secret_key_of_the_other_server():
        response = browser.get(view(browser, "sign_out"))
    assert response.content == b"signed out"
    assert isinstance(browser, Keeping) or deletes_the_cookie(response)
    assert only_row().end_reason == EndReason.LOGOUT
    assert not is_in(copy)


def test_a_proof_of_identity_of_a_stranger_is_refused_and_ends_nothing(shopper, closed):
    browser = shopper()
    row = only_row()
    with closed():
        response = browser.get(view(browser, "prove"))
        assert response.status_code == 409  # and not the same page again and again
        assert sets_no_cookie(response)
        assert is_untouched(row)
    assert is_in(browser)


def test_written_over_while_a_request_is_under_way(shopper, at):
    browser = shopper()
    row, before = only_row(), store.payloads()
    ((digest, payload),) = before.items()
    pending = at("replace", lambda: store.tamper(digest, b"somebody was here"))
    response = put(browser, cart="kettle")
    assert not pending
    assert response.status_code == 409
    assert sets_no_cookie(response)
    assert is_untouched(row)
    store.tamper(digest, payload)
    assert is_in(browser)
    assert cart(browser) == "teapot"


def test_a_trace_that_leads_to_what_does_not_open_ends_nothing(shopper, policy, reused):
    """The session has got a new key, and a new SECRET_KEY with that, from another server."""
    policy(renew_after=60, renew_grace=3600)
    browser = shopper()
    old = browse_as(browser, key_of(browser))
    with later(61):
        assert is_in(browser)
        digest = digest_of(key_of(browser))
        payload = store.payloads()[digest]
        store.tamper(digest, b"somebody was here")
        assert not is_in(old)
        assert key_of(old) != key_of(browser)
        assert only_row().ended_at is None
        store.tamper(digest, payload)
        assert is_in(old)
    assert not reused


def test_once_it_is_ended_its_visitor_is_told(shopper, closed):
    browser = shopper()
    with closed():
        assert not is_in(browser)
        assert UserSession.objects.revoke(EndReason.LOST) == 1
        assert told(browser) == EndReason.LOST


# A new SECRET_KEY, as docs/operations.md says: server by server.

OLD = {"SECRET_KEY": "old", "SECRET_KEY_FALLBACKS": []}
OLD_BEFORE_NEW = {"SECRET_KEY": "old", "SECRET_KEY_FALLBACKS": ["new"]}
NEW_BEFORE_OLD = {"SECRET_KEY": "new", "SECRET_KEY_FALLBACKS": ["old"]}


@pytest.mark.parametrize(
    ("some", "others"), [(OLD, OLD_BEFORE_NEW), (OLD_BEFORE_NEW, NEW_BEFORE_OLD)]
)
def test_nobody_notices_a_new_secret_key_that_comes_server_by_server(
    browse, alice: User, some, others
):
    browser = browse()
    with override_settings(**some):
        assert post_sign_in(browser).status_code in (200, 302)
    for number in range(6):
        with override_settings(**(others if number % 2 else some)), later(100 * number):
            assert is_in(browser)
            assert put(browser, cart=str(number)).content == b"written"
            assert cart(browser) == str(number)
    assert UserSession.objects.count() == 1
    assert only_row().ended_at is None


def test_a_session_that_was_signed_in_by_hand_is_a_row_that_stays(alice: User, closed, drive):
    session = SessionStore()
    session[SESSION_KEY] = str(alice.pk)
    drive(session, "save")
    row = only_row()
    with closed():
        assert drive(SessionStore(session.session_key), "get", SESSION_KEY) is None
    assert is_untouched(row)
