"""
How long sessions live, and what they are locked for: told as stories of people with browsers.
"""

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import (
    SESSION_KEY,
    aupdate_session_auth_hash,
    get_user_model,
    update_session_auth_hash,
)
from django.contrib.sessions.backends.base import UpdateError
from django.db import OperationalError, connection, connections
from django.db.models import F
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext
from django.urls import path

from django_sessionkit.decorators import background_request
from django_sessionkit.models import (
    EndReason,
    StoredSession,
    UserSession,
    UserSessionQuerySet,
)
from django_sessionkit.policy import Policy
from django_sessionkit.sealing import digest_of
from tests import policies, store
from tests.browsers import PAGE, SCRIPT, Browser
from tests.interleaving import elsewhere
from tests.pages import PROVE
from tests.people import CREDENTIALS, is_still_in, key_of, only_row, post_sign_in, told
from tests.store import NOON, SessionStore, round_trips
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

User = get_user_model()
MINUTE, HOUR, DAY = 60, 60 * 60, 24 * 60 * 60
TEN_YEARS = 10 * 365 * DAY


# Views of a project.

CALL: list[Any] = []


def call(request):
    """Does to the session what the test says, as a view does that has looked at it before."""
    request.session.get("cart")
    return call_blindly(request)


async def acall(request):
    await request.session.aget("cart")
    return await acall_blindly(request)


def call_blindly(request):
    name, *args = CALL
    getattr(request.session, name)(*args)
    return HttpResponse("done")


async def acall_blindly(request):
    name, *args = CALL
    await getattr(request.session, f"a{name}")(*args)
    return HttpResponse("done")


def overwrite(request):
    """Does away with what was there, without a look at it."""
    request.session.clear()
    request.session["cart"] = "kettle"
    return HttpResponse("done")


async def aoverwrite(request):
    return overwrite(request)


urlpatterns = [
    *site,
    path("call/", call),
    path("acall/", acall),
    path("call_blindly/", call_blindly),
    path("acall_blindly/", acall_blindly),
    path("overwrite/", overwrite),
    path("aoverwrite/", aoverwrite),
]


def use(browser, name, *args):
    CALL[:] = name, *args
    response = browser.get(f"/{browser.a}call/")
    assert response.content == b"done"
    return response


# Without activity.


@pytest.mark.parametrize(("seconds", "alive"), [(599, True), (600, False), (601, False)])
@pytest.mark.standard("ASVS-7.3.1", "NIST-SB-8.4", "NIST-REAUTH-2", "WSTG-SESS-07")
def test_a_session_ends_after_so_long_without_activity(signed_in, policy, clock, seconds, alive):
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=seconds)
    assert is_still_in(browser) is alive


@pytest.mark.standard("ASVS-7.3.1", "NIST-REAUTH-2", "NIST-REAUTH-3")
def test_to_read_is_activity_and_nothing_needs_to_be_written(signed_in, policy, clock):
    policy(idle=600)
    browser = signed_in()
    before = store.payloads()
    for _ in range(10):
        clock.move(seconds=599)
        assert browser.get(f"/{browser.a}read/").json() == {}
        assert only_row().last_seen_at == datetime.now(UTC)
    assert store.payloads() == before
    clock.move(seconds=600)
    assert not is_still_in(browser)


@pytest.mark.parametrize(
    ("idle", "interval"), [(600, 60), (600, 30), (600, 3600), (100, 60), (DAY, 60)]
)
@pytest.mark.parametrize("pause", [0.3, 0.99, 1, 1.5])
@pytest.mark.standard("ASVS-7.3.1")
def test_how_exact_that_is(signed_in, policy, clock, settings, idle, interval, pause):
    """An interval, or a tenth of a short time: so much too early at most, and never too late."""
    policy(idle=idle)
    settings.SESSIONKIT_TOUCH_INTERVAL = interval
    bound = min(interval, idle / 10)
    early, late = signed_in(), signed_in()
    clock.move(seconds=bound * pause)
    for browser in (early, late):
        browser.get(f"/{browser.a}read/")
    clock.move(seconds=idle - bound)
    assert is_still_in(early)
    clock.move(seconds=bound)
    assert not is_still_in(late)


def test_what_is_written_is_activity_to_the_second(signed_in, policy, clock):
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=59)
    browser.post(f"/{browser.a}write/", {"cart": "teapot"})
    clock.move(seconds=599)
    assert is_still_in(browser)


@pytest.mark.standard("ASVS-7.3.1")
def test_who_was_inactive_reads_that(signed_in, policy, clock):
    """And no purge has to run for it."""
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=600)
    assert not UserSession.objects.active().exists()
    response = browser.get(f"/{browser.a}read/")
    assert response.headers["Location"] == f"/login/?next=/{browser.a}read/"
    assert response.cookies["sessionid"]["max-age"] == 0
    assert "because you were inactive for a while" in browser.get("/login/").text
    assert (only_row().end_reason, only_row().ended_at) == (EndReason.IDLE, datetime.now(UTC))


def test_a_script_is_told_so_too(signed_in, policy, clock):
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=600)
    assert told(browser) == "idle"
    assert told(browser) == "idle"


def test_a_purge_calls_it_by_the_same_name(signed_in, policy, clock):
    policy(idle=600)
    signed_in()
    clock.move(seconds=700)
    SessionStore.clear_expired()
    assert only_row().end_reason == EndReason.IDLE
    assert only_row().ended_at == only_row().started_at + timedelta(seconds=600)


def test_to_end_it_then_changes_nothing_about_why_it_ended(signed_in, policy, clock):
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=700)
    assert UserSession.objects.revoke() == 0
    assert told(browser) == "idle"


@pytest.mark.parametrize(
    ("idle", "cookie_age", "lives", "reason"),
    [(600, 300, 300, "expired"), (300, 600, 300, "idle"), (DAY, HOUR, HOUR, "expired")],
)
@pytest.mark.standard("ASVS-7.3.1")
def test_the_shorter_of_two_times_counts(
    signed_in, policy, clock, settings, idle, cookie_age, lives, reason
):
    settings.SESSION_COOKIE_AGE = cookie_age
    policy(idle=idle)
    browser = signed_in()
    for _ in range(2):
        clock.move(seconds=lives - 1)
        assert is_still_in(browser)
    clock.move(seconds=lives)
    assert told(browser) == reason
    assert only_row().end_reason == reason


@pytest.mark.parametrize(
    ("expiry", "lives", "reason"),
    [
        (100, 100, "expired"),
        (TEN_YEARS, 600, "idle"),
        (0, 600, "idle"),
        (None, 600, "idle"),
        (timedelta(days=3650), 600, "idle"),
    ],
)
@pytest.mark.standard("ASVS-7.3.1")
def test_an_expiry_of_its_own_can_only_shorten_that(
    signed_in, policy, clock, expiry, lives, reason
):
    policy(idle=600)
    browser = signed_in()
    use(browser, "set_expiry", expiry)
    for _ in range(2):
        clock.move(seconds=lives - 1)
        assert is_still_in(browser)
    clock.move(seconds=lives)
    assert told(browser) == reason


@pytest.mark.parametrize("expiry", [timedelta(seconds=900), NOON + timedelta(minutes=15)])
def test_a_date_is_final_however_active_its_user_is(signed_in, policy, clock, expiry):
    policy(idle=600)
    browser = signed_in()
    use(browser, "set_expiry", expiry)
    clock.move(seconds=500)
    assert is_still_in(browser)
    clock.move(seconds=399)
    assert is_still_in(browser)
    clock.move(seconds=1)
    assert told(browser) == "expired"


PAST = [-1, datetime(1970, 1, 1, tzinfo=UTC), datetime.min.replace(tzinfo=UTC)]


@pytest.mark.parametrize("expiry", PAST)
def test_an_expiry_in_the_past_ends_it_there_and_then(signed_in, policy, expiry):
    """And is no error of the store, however long ago it was."""
    policy(idle=600)
    browser = signed_in()
    use(browser, "set_expiry", expiry)
    assert not is_still_in(browser)
    assert only_row().end_reason == EndReason.EXPIRED


def test_who_has_not_signed_in_has_no_policy(browse, policy, clock, settings):
    policy(idle=600, absolute=900)
    browser = browse()
    browser.post(f"/{browser.a}write/", {"cart": "teapot"})
    for _ in range(2):
        clock.move(seconds=settings.SESSION_COOKIE_AGE - 1)
        assert browser.get(f"/{browser.a}read/").json() == {"cart": "teapot"}
    clock.move(seconds=settings.SESSION_COOKIE_AGE)
    assert browser.get(f"/{browser.a}read/").json() == {}


def test_a_page_that_leaves_the_session_alone_is_no_activity(signed_in, policy, clock):
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=300)
    with round_trips(0):
        browser.get("/")
    clock.move(seconds=300)
    assert told(browser) == "idle"


# The longest time.


@pytest.mark.parametrize(("absolute", "every"), [(HOUR, MINUTE), (DAY, HOUR), (30 * DAY, DAY)])
@pytest.mark.standard("ASVS-7.3.2", "NIST-SB-5", "NIST-SB-8.4", "NIST-REAUTH-2")
def test_a_session_ends_however_active_its_user_is(signed_in, policy, clock, absolute, every):
    policy(absolute=absolute)
    browser = signed_in()
    for _ in range(absolute // every - 1):
        clock.move(seconds=every)
        assert browser.get(f"/{browser.a}read/").json() == {}
    clock.move(seconds=every - 1)
    assert is_still_in(browser)
    clock.move(seconds=1)
    assert not UserSession.objects.active().exists()
    assert told(browser) == "expired"
    assert only_row().end_reason == EndReason.EXPIRED


def change_password(request):
    request.user.set_password("better")
    request.user.save()
    update_session_auth_hash(request, request.user)
    return HttpResponse("done")


async def achange_password(request):
    request.user = user = await request.auser()
    user.set_password("better")
    await user.asave()
    await aupdate_session_auth_hash(request, user)
    return HttpResponse("done")


urlpatterns += [path("password/", change_password), path("apassword/", achange_password)]


@pytest.mark.parametrize("lock", [False, True])
@pytest.mark.parametrize(
    "what",
    [
        ("cycle_key",),
        ("set_expiry", TEN_YEARS),
        ("set_expiry", datetime(2050, 1, 1, tzinfo=UTC)),
        ("set_expiry", 0),
        ("save",),
        "/write/",
        "/password/",
        "nothing, and every request is saved",
    ],
)
@pytest.mark.standard("ASVS-7.3.2", "NIST-SB-5", "NIST-SB-8.4")
def test_nothing_but_a_proof_of_identity_prolongs_that(
    signed_in, policy, clock, settings, what, lock
):
    policy(idle=5 * HOUR, absolute=12 * HOUR, lock=lock)
    settings.SESSION_SAVE_EVERY_REQUEST = what == "nothing, and every request is saved"
    browser = signed_in()
    for _ in range(3):
        clock.move(hours=3)
        if isinstance(what, tuple):
            use(browser, *what)
        elif what.startswith("/"):
            browser.post(f"/{browser.a}{what[1:]}", {"cart": "teapot"})
        assert is_still_in(browser)
    clock.move(hours=3, seconds=-1)
    assert is_still_in(browser)
    assert only_row().expires_at == datetime.now(UTC) + timedelta(seconds=1)
    clock.move(seconds=1)
    assert told(browser) == "expired"


@pytest.mark.parametrize("how", ["sign in", "reauthenticate"])
@pytest.mark.standard("ASVS-7.2.4", "NIST-REAUTH-1", "NIST-REAUTH-3")
def test_a_proof_of_identity_begins_both_times_anew(signed_in, policy, clock, how):
    policy(idle=1000, absolute=1500)
    browser = signed_in()
    old, started_at = key_of(browser), only_row().started_at
    clock.move(seconds=999)
    if how == "sign in":
        post_sign_in(browser)
    else:
        use(browser, how)
    assert key_of(browser) != old
    assert (only_row().started_at, only_row().authenticated_at) == (started_at, datetime.now(UTC))
    clock.move(seconds=999)
    assert is_still_in(browser)
    clock.move(seconds=500)
    assert is_still_in(browser)
    clock.move(seconds=1)
    assert told(browser) == "expired"


@pytest.mark.standard("NIST-REAUTH-3")
def test_a_new_policy_holds_from_the_next_proof_on(signed_in, policy, clock):
    policy(idle=1000, absolute=1500)
    browser = signed_in()
    policy(idle=100)
    clock.move(seconds=999)
    assert is_still_in(browser)
    use(browser, "reauthenticate")
    for _ in range(10):  # there is no longest time any more
        clock.move(seconds=99)
        assert is_still_in(browser)
    clock.move(seconds=100)
    assert told(browser) == "idle"


@pytest.mark.standard("ASVS-7.3.2")
def test_who_was_there_for_too_long_reads_that(signed_in, policy, clock):
    policy(absolute=600)
    browser = signed_in()
    clock.move(seconds=600)
    response = browser.get(f"/{browser.a}read/")
    assert response.headers["Location"] == f"/login/?next=/{browser.a}read/"
    assert "Your session has expired." in browser.get("/login/").text


# What the cookie and the session say of it.


@pytest.mark.parametrize(
    ("rules", "age"),
    [
        ({}, 14 * DAY),
        ({"idle": 600}, 600),
        ({"absolute": 600}, 600),
        ({"idle": 900, "absolute": 600 + 900}, 900),
        ({"idle": 600, "lock": True}, 14 * DAY),
        ({"idle": 600, "absolute": HOUR, "lock": True}, HOUR),
    ],
)
@pytest.mark.standard("NIST-5.1.1")
def test_the_cookie_lasts_no_longer_than_its_session(signed_in, policy, clock, rules, age):
    policy(**rules)
    browser = signed_in()
    cookie = browser.cookies["sessionid"]
    assert cookie["max-age"] == age
    expires = datetime.now(UTC) + timedelta(seconds=age)
    assert cookie["expires"] == expires.strftime("%a, %d %b %Y %H:%M:%S GMT")


def test_the_cookie_does_not_slide_beyond_the_longest_time(signed_in, policy, clock):
    policy(idle=600, absolute=1000)
    browser = signed_in()
    clock.move(seconds=300)
    response = browser.get(f"/{browser.a}read/")
    assert response.cookies["sessionid"]["max-age"] == 600
    clock.move(seconds=300)
    response = browser.get(f"/{browser.a}read/")
    assert response.cookies["sessionid"]["max-age"] == 400
    use(browser, "set_expiry", TEN_YEARS)
    assert browser.cookies["sessionid"]["max-age"] == 400


@pytest.mark.parametrize(
    ("rules", "age"),
    [
        ({}, 14 * DAY),
        ({"idle": 600}, 600),
        ({"absolute": 600}, 600),
        ({"idle": 600, "absolute": HOUR, "lock": True}, HOUR),
    ],
)
@pytest.mark.parametrize("aware", [True, False])
def test_what_the_session_says_of_its_expiry(
    alice, policy, clock, settings, drive, rules, age, aware
):
    settings.USE_TZ = aware
    policy(**rules)
    made = hand_made(alice)
    session = SessionStore(made.session_key)
    assert drive(session, "get_expiry_age") == age
    now = datetime.now(UTC) if aware else datetime.now()  # noqa: DTZ005
    session = SessionStore(made.session_key)
    assert drive(session, "get_expiry_date") == now + timedelta(seconds=age)
    session["cart"] = []
    drive(session, "set_expiry", TEN_YEARS)
    assert drive(session, "get_expiry_age") == (age if rules else TEN_YEARS)


def test_a_session_that_is_over_says_so(alice, policy, clock, drive):
    policy(absolute=600)
    session = hand_made(alice)
    clock.move(seconds=700)
    assert drive(session, "get_expiry_age") == 0
    assert drive(session, "get_expiry_date") == datetime.now(UTC) - timedelta(seconds=100)


def hand_made(user):
    """A sign-in that nobody has done by login(), and without a request."""
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session.save()
    return session


# A session that is locked.

LOCK = {"idle": 600, "absolute": HOUR, "lock": True}
SEEN: list[Any] = []


def look(request):
    """Answers, and tells the test what it has seen of its visitor."""
    SEEN.append((str(request.user), request.session.get("cart"), request.session.locked))
    return HttpResponse("seen")


async def alook(request):
    session = request.session
    SEEN.append((str(await request.auser()), await session.aget("cart"), session.locked))
    return HttpResponse("seen")


urlpatterns += [path("look/", look), path("alook/", alook)]


@pytest.fixture
def shopper(signed_in, policy, clock):
    """Alice, with something in her cart, under a policy that locks her session when it is idle."""
    policy(**LOCK)
    browser = signed_in()
    browser.post(f"/{browser.a}write/", {"cart": "teapot"})
    return browser


@pytest.fixture
def locked(shopper, clock):
    """The same, ten minutes later."""
    clock.move(seconds=600)
    return shopper


def leads_to_the_lock(response, back=""):
    return response.headers["Location"] == f"{PROVE}{back}" and "sessionid" not in response.cookies


def prove(browser):
    return browser.post(PROVE, {"password": "secret", "next": "/read/"})


@pytest.mark.parametrize(("seconds", "open_"), [(599, True), (600, False), (601, False)])
@pytest.mark.standard("ASVS-7.3.1", "NIST-2.2.3", "NIST-SB-8.4")
def test_it_is_locked_after_so_long_without_activity(shopper, clock, seconds, open_):
    assert not only_row().is_locked
    clock.move(seconds=seconds)
    assert only_row().is_locked is not open_
    assert is_still_in(shopper) is open_
    assert only_row().ended_at is None
    assert list(UserSession.objects.active()) == [only_row()]


@pytest.mark.standard("NIST-2.2.3")
def test_a_locked_session_keeps_what_it_holds_and_gives_nothing_away(locked):
    before, key = store.payloads(), key_of(locked)
    SEEN.clear()
    response = locked.get(f"/{locked.a}look/?page=2")
    assert leads_to_the_lock(response, f"?next=%2F{locked.a}look%2F%3Fpage%3D2")
    assert "Cookie" in response.headers["Vary"]
    assert "no-store" in response.headers["Cache-Control"]
    ((name, cart, lock),) = SEEN
    assert (name, cart) == ("AnonymousUser", None)
    assert (lock.reason, lock.handle) == ("idle", only_row().pk)
    assert key not in repr(lock)
    assert (store.payloads(), key_of(locked)) == (before, key)


def test_a_script_is_told_that_it_is_locked(locked):
    for _ in range(2):
        response = locked.get(f"/{locked.a}look/", headers=SCRIPT)
        assert response.status_code == 401
        assert response.json() == {
            "detail": "This session is locked. Please confirm it is you.",
            "reason": "locked",
            "url": f"{PROVE}?next=%2F{locked.a}look%2F",
        }
        assert "sessionid" not in response.cookies


@pytest.mark.standard("NIST-2.2.3", "NIST-SB-4", "ASVS-7.2.4")
def test_the_password_opens_it_again(locked, clock):
    old, handle = key_of(locked), only_row().pk
    assert prove(locked).headers["Location"] == "/read/"
    assert key_of(locked) != old
    assert locked.get(f"/{locked.a}read/").json() == {"cart": "teapot"}
    assert (only_row().pk, only_row().authenticated_at) == (handle, datetime.now(UTC))
    assert not only_row().is_locked
    clock.move(seconds=599)
    assert is_still_in(locked)
    clock.move(seconds=600)
    assert not is_still_in(locked)
    assert only_row().is_locked
    locked.cookies["sessionid"] = old
    assert locked.get("/whoami/").content == b"AnonymousUser"


def test_to_look_at_a_locked_session_does_not_open_it(locked, clock):
    for _ in range(3):
        assert leads_to_the_lock(locked.post(f"/{locked.a}look/"))
        clock.move(seconds=100)
    assert only_row().last_seen_at == only_row().started_at


@pytest.mark.parametrize(
    "act",
    [
        *["write", "overwrite", "fail", "save", "create", "cycle_key", "set_expiry"],
        *["clear", "blindly clear"],
    ],
)
def test_nothing_of_what_a_view_does_is_kept_while_it_is_locked(locked, act):
    before = store.payloads()
    act, blindly = act.removeprefix("blindly "), "_blindly" if act.startswith("blindly ") else ""
    if act == "write":
        response = locked.post(f"/{locked.a}write/", {"cart": "kettle"})
    elif act == "overwrite":
        response = locked.post(f"/{locked.a}overwrite/")
    elif act == "fail":
        response = locked.post("/fail/")
    else:
        CALL[:] = (act, 60) if act == "set_expiry" else (act,)
        # To clear() is nothing to wait for: it has no twin.
        a = "" if act == "clear" else locked.a
        response = locked.post(f"/{a}call{blindly}/")
    assert leads_to_the_lock(response)
    assert store.payloads() == before
    prove(locked)
    assert locked.get(f"/{locked.a}read/").json() == {"cart": "teapot"}


def test_what_asks_for_the_lock_first_is_told(locked):
    session = SessionStore(key_of(locked))
    assert session.locked.reason == "idle"


@pytest.mark.parametrize("full", [False, True])
def test_what_opens_it_first_opens_it(locked, full):
    CALL[:] = ["unlock", full]
    assert locked.post(f"/{locked.a}call_blindly/").content == b"done"
    assert locked.get(f"/{locked.a}read/").json() == {"cart": "teapot"}


@pytest.mark.parametrize("csrf_in_session", [False, True])
def test_a_site_that_saves_every_request_leaves_it_alone_too(locked, settings, csrf_in_session):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    settings.CSRF_USE_SESSIONS = csrf_in_session
    before, key = store.payloads(), key_of(locked)
    assert leads_to_the_lock(locked.get("/"), "?next=%2F")
    assert (store.payloads(), key_of(locked)) == (before, key)


@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest.mark.standard("ASVS-7.2.4", "ASVS-7.4.1")
def test_to_sign_in_rather_than_to_unlock_it_ends_it(locked, who):
    User.objects.create_user("bob", password="secret")
    old, handle, key = only_row(), only_row().pk, key_of(locked)
    assert locked.get("/login/").status_code == 200
    assert locked.post("/login/", {**CREDENTIALS, "username": who}).headers["Location"] == "/"
    assert locked.get("/whoami/").content == who.encode()
    assert locked.get(f"/{locked.a}read/").json() == {}
    old.refresh_from_db()
    assert (old.end_reason, old.pk) == (EndReason.LOGOUT, handle)
    assert not SessionStore().exists(key)
    assert UserSession.objects.active().get().user.username == who


def test_a_sign_in_that_fails_leaves_it_locked(locked):
    before = store.payloads()
    response = locked.post("/login/", {**CREDENTIALS, "password": "wrong"})
    assert response.status_code == 200
    assert "sessionid" not in response.cookies
    assert store.payloads() == before


@pytest.mark.parametrize("how", ["/logout/", "flush"])
@pytest.mark.standard("ASVS-7.4.1", "NIST-SB-8.2")
def test_to_sign_out_of_it_ends_it(locked, how):
    response = locked.post(how) if how == "/logout/" else use(locked, how)
    assert response.cookies["sessionid"]["max-age"] == 0
    assert only_row().end_reason == EndReason.LOGOUT
    assert not store.payloads()


@pytest.mark.standard("ASVS-7.3.2", "NIST-2.2.3", "NIST-REAUTH-2")
def test_the_longest_time_ends_it_all_the_same(locked, clock):
    clock.move(seconds=HOUR - 600 - 1)
    assert leads_to_the_lock(locked.post("/whoami/"))
    clock.move(seconds=1)
    assert not only_row().is_locked
    assert told(locked) == "expired"
    assert only_row().end_reason == EndReason.EXPIRED


def test_so_does_the_age_of_cookies(signed_in, policy, clock, settings):
    settings.SESSION_COOKIE_AGE = 900
    policy(**LOCK)
    browser = signed_in()
    clock.move(seconds=899)
    assert leads_to_the_lock(browser.post("/whoami/"))
    clock.move(seconds=1)
    assert told(browser) == "expired"


@pytest.mark.parametrize(("full", "end"), [(False, HOUR), (True, 600 + HOUR)])
@pytest.mark.standard("NIST-2.2.3", "NIST-REAUTH-1", "NIST-REAUTH-3", "ASVS-7.3.2")
def test_a_full_proof_begins_the_longest_time_anew_and_the_password_does_not(
    locked, clock, full, end
):
    use(locked, "unlock", full)
    assert only_row().authenticated_at == datetime.now(UTC)
    for _ in range((end - 600) // 300 - 1):
        clock.move(seconds=300)
        assert locked.get(f"/{locked.a}read/").json() == {"cart": "teapot"}
    clock.move(seconds=299)
    assert is_still_in(locked)
    clock.move(seconds=1)
    assert told(locked) == "expired"


def test_only_a_full_proof_asks_the_policy_again(locked, policy, clock):
    policy(idle=60)
    use(locked, "unlock")
    clock.move(seconds=599)
    assert is_still_in(locked)
    clock.move(seconds=600)
    use(locked, "unlock", True)
    clock.move(seconds=60)
    assert told(locked) == "idle"


@pytest.mark.standard("ASVS-7.4.1", "ASVS-7.4.5")
def test_it_can_be_ended(locked):
    assert UserSession.objects.revoke(EndReason.REVOKED_BY_STAFF) == 1
    assert not only_row().is_locked
    assert not store.payloads()
    assert told(locked) == "revoked_by_staff"


@pytest.mark.parametrize("how", ["revoked", "marked", "lost", "over"])
@pytest.mark.standard("ASVS-7.4.1")
def test_what_is_there_no_more_cannot_be_opened(locked, drive, clock, how):
    session = SessionStore(key_of(locked))
    assert drive(session, "load") == {}
    session = SessionStore(key_of(locked))
    drive(session, "get", "cart")
    assert session.locked
    if how == "revoked":
        UserSession.objects.revoke()
    elif how == "marked":  # and the store has lost the removal
        UserSession.objects.update(ended_at=datetime.now(UTC), end_reason=EndReason.REVOKED)
    elif how == "lost":
        store.wipe()
    else:
        clock.move(hours=1)
    with pytest.raises(UpdateError):
        drive(session, "unlock")
    assert drive(SessionStore(key_of(locked)), "get", "cart") is None


@pytest.mark.standard("ASVS-7.4.1")
def test_who_opens_what_was_ended_is_told_so(locked):
    UserSession.objects.update(ended_at=datetime.now(UTC), end_reason=EndReason.REVOKED)
    CALL[:] = ["unlock"]
    response = locked.get(f"/{locked.a}call/", headers=SCRIPT)
    assert response.json()["reason"] == "revoked"
    assert not store.payloads()


def test_what_is_not_locked_cannot_be_unlocked(shopper, drive):
    session = SessionStore(key_of(shopper))
    with pytest.raises(UpdateError):
        drive(session, "unlock")
    assert drive(session, "get", "cart") == "teapot"


@pytest.mark.standard("NIST-2.2.3")
def test_without_a_request_it_is_locked_as_well(locked, drive):
    """In a shell, on a web socket."""
    session = SessionStore(key_of(locked))
    assert dict(drive(session, "items")) == {}
    assert (session.locked.reason, session.handle) == ("idle", None)
    before = store.payloads()
    session["cart"] = "kettle"
    with pytest.raises(UpdateError):
        drive(session, "save")
    assert store.payloads() == before
    drive(session, "unlock")
    assert session["cart"] == "teapot"
    assert session.session_key != key_of(locked)
    assert SessionStore(session.session_key)["cart"] == "teapot"
    assert not SessionStore().exists(key_of(locked))
    assert not only_row().is_locked


def test_to_save_it_without_a_request_is_no_activity_and_the_row_says_so(
    signed_in, policy, drive, clock
):
    """Nobody knows whether its user was there."""
    policy(idle=600, lock=True)
    browser = signed_in()
    clock.move(seconds=300)
    session = SessionStore(key_of(browser))
    session["cart"] = "kettle"
    drive(session, "save")
    clock.move(seconds=300)
    assert drive(SessionStore(key_of(browser)), "get", "cart") is None
    assert only_row().is_locked


@pytest.mark.parametrize("url", ["/whoami/", "/read/", "/write/"])
@pytest.mark.standard("NIST-2.2.3", "ASVS-16.5.3")
def test_behind_the_middleware_of_django_it_is_closed_and_nobody_opens_it(
    locked, settings, browse, url
):
    settings.MIDDLEWARE = [
        name.replace("django_sessionkit.middleware", "django.contrib.sessions.middleware")
        for name in settings.MIDDLEWARE
    ]
    key, browser = key_of(locked), browse()
    sealed = store.payloads()[digest_of(key)]
    browser.cookies = locked.cookies
    SEEN.clear()
    browser.post(url, {"theme": "dark"})
    browser.cookies["sessionid"] = key
    browser.get("/look/")
    ((name, cart, _),) = SEEN
    assert (name, cart) == ("AnonymousUser", None)
    assert store.payloads()[digest_of(key)] == sealed


@pytest.mark.standard("NIST-SB-10")
def test_forms_work_where_their_tokens_are_in_the_session(browse, alice, policy, clock, settings):
    settings.CSRF_USE_SESSIONS = True
    policy(**LOCK)
    browser = browse()
    browser.handler.enforce_csrf_checks = True

    def send(url, **fields):
        (token,) = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', browser.get(url).text)[
            :1
        ]
        return browser.post(url, {"csrfmiddlewaretoken": token, **fields})

    assert send("/login/", **CREDENTIALS).headers["Location"] == "/"
    clock.move(seconds=600)
    assert leads_to_the_lock(browser.get("/"), "?next=%2F")
    assert send(PROVE, password="secret", next="/read/").headers["Location"] == "/read/"
    assert is_still_in(browser)
    clock.move(seconds=600)
    assert send("/login/", **CREDENTIALS).headers["Location"] == "/"
    assert is_still_in(browser)
    assert UserSession.objects.filter(end_reason=EndReason.LOGOUT).count() == 1


# Requests that are no activity.

WAYS = ["decorator", "path", "script", "prefetch", "prerender", "by hand"]


def by_hand(request):
    request.session.background = True
    return HttpResponse(request.session.get("news"))


async def aby_hand(request):
    request.session.background = True
    return HttpResponse(await request.session.aget("news"))


urlpatterns += [
    path("by_hand/", by_hand),
    path("aby_hand/", aby_hand),
    path("polled/", background_request(call)),
    path("apolled/", background_request(acall)),
]


@pytest.fixture(params=WAYS)
def poll(request, settings):
    """Make a request that says, in one of the ways, that it is none of the user's."""
    urls = {"decorator": "poll", "by hand": "by_hand"}
    headers = {
        "script": {"x-background-request": "1"},
        "prefetch": {"sec-purpose": "prefetch"},
        "prerender": {"sec-purpose": "prefetch;prerender"},
    }.get(request.param, {})
    if request.param == "path":
        settings.SESSIONKIT_BACKGROUND = ["/news/", "/read/", "/aread/"]

    def poll(browser):
        url = f"/{browser.a}{urls.get(request.param, 'read')}/"
        response = browser.get(url, headers=headers)
        assert response.status_code == 200
        return response

    return poll


@pytest.mark.parametrize("csrf_in_session", [False, True], ids=["", "csrf in session"])
@pytest.mark.parametrize("lock", [False, True], ids=["", "lock"])
@pytest.mark.standard("ASVS-7.3.1", "NIST-REAUTH-3")
def test_what_a_page_does_by_itself_keeps_no_session_alive(
    signed_in, policy, clock, poll, settings, lock, csrf_in_session
):
    settings.CSRF_USE_SESSIONS = csrf_in_session  # then the session is read before the view
    policy(idle=600, lock=lock)
    browser = signed_in()
    for _ in range(5):
        clock.move(seconds=100)
        assert "sessionid" not in poll(browser).cookies
    clock.move(seconds=99)
    poll(browser)
    assert only_row().last_seen_at == only_row().started_at
    clock.move(seconds=1)
    assert not is_still_in(browser)


@pytest.mark.parametrize(
    "headers",
    [{"x-background-request": "0"}, {"sec-purpose": "fictitious"}, {"purpose": "prefetch"}],
)
def test_what_only_looks_like_it_is_activity(signed_in, policy, clock, settings, headers):
    settings.SESSIONKIT_BACKGROUND = ["/news/"]
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=500)
    browser.get(f"/{browser.a}read/?to=/news/", headers=headers)
    clock.move(seconds=500)
    assert is_still_in(browser)


BACKGROUND = {"x-background-request": "1"}


@pytest.mark.parametrize("every_request", [False, True])
@pytest.mark.parametrize(
    ("rules", "cookie_age"), [({"idle": 600}, DAY), ({"idle": 600, "lock": True}, DAY), ({}, 600)]
)
@pytest.mark.standard("ASVS-7.3.1")
def test_what_it_writes_is_kept_and_is_no_activity_either(
    signed_in, policy, clock, settings, every_request, rules, cookie_age
):
    settings.SESSION_SAVE_EVERY_REQUEST = every_request
    settings.SESSION_COOKIE_AGE = cookie_age
    policy(**rules)
    browser = signed_in()
    for number in range(5):
        clock.move(seconds=100)
        browser.post(f"/{browser.a}write/", {"news": number}, headers=BACKGROUND)
        assert browser.get(f"/{browser.a}read/", headers=BACKGROUND).json() == {"news": str(number)}
    assert only_row().last_seen_at == only_row().started_at
    clock.move(seconds=100)
    assert not is_still_in(browser)


@pytest.mark.parametrize("lock", [False, True])
@pytest.mark.parametrize(
    "what", [("cycle_key",), ("set_expiry", 900), ("set_expiry", timedelta(days=1))]
)
@pytest.mark.standard("ASVS-7.3.1")
def test_nor_is_whatever_else_it_does(signed_in, policy, clock, what, lock):
    policy(idle=600, lock=lock)
    browser = signed_in()
    clock.move(seconds=500)
    CALL[:] = what
    assert browser.get(f"/{browser.a}polled/").content == b"done"
    assert only_row().last_seen_at == only_row().started_at
    clock.move(seconds=99)
    assert browser.get(f"/{browser.a}poll/").status_code == 200
    assert not only_row().is_locked
    clock.move(seconds=1)
    assert not is_still_in(browser)
    assert only_row().is_locked is lock


def test_nor_does_it_prolong_the_age_of_cookies(signed_in, policy, clock, settings):
    settings.SESSION_COOKIE_AGE = 600
    policy()
    browser = signed_in()
    clock.move(seconds=500)
    CALL[:] = ["cycle_key"]
    browser.get(f"/{browser.a}polled/")
    clock.move(seconds=99)
    assert browser.get(f"/{browser.a}poll/").content == b"no news"
    assert SessionStore().exists(key_of(browser))
    clock.move(seconds=1)
    assert told(browser) == "expired"


@pytest.mark.parametrize("rules", [{}, {"idle": 600}, {"idle": 600, "lock": True}])
def test_it_can_set_an_expiry(signed_in, policy, clock, rules):
    policy(**rules)
    browser = signed_in()
    clock.move(seconds=300)
    CALL[:] = "set_expiry", 100
    browser.get(f"/{browser.a}polled/")
    assert only_row().expires_at == datetime.now(UTC) + timedelta(seconds=100)
    clock.move(seconds=99)
    assert browser.get(f"/{browser.a}poll/").status_code == 200
    clock.move(seconds=1)
    assert told(browser) == "expired"


@pytest.mark.parametrize("how", ["revoked", "marked", "idle", "locked"])
@pytest.mark.standard("ASVS-7.4.1", "ASVS-7.3.1")
def test_it_is_refused_what_others_are_refused(signed_in, policy, clock, how):
    policy(idle=600, lock=how == "locked")
    browser = signed_in()
    if how == "revoked":
        UserSession.objects.revoke()
    elif how == "marked":
        UserSession.objects.update(ended_at=datetime.now(UTC), end_reason=EndReason.REVOKED)
    clock.move(seconds=60 if how == "marked" else 600)
    reason = "revoked" if how == "marked" else how
    for url in ("read", "poll"):
        response = browser.get(f"/{browser.a}{url}/", headers=SCRIPT | BACKGROUND)
        assert (response.status_code, response.json()["reason"]) == (401, reason)


# Clocks.


@pytest.mark.standard("ASVS-7.3.2", "NIST-SB-8.4")
def test_a_clock_that_was_ahead_at_the_sign_in_prolongs_nothing(signed_in, policy, clock):
    policy(absolute=12 * HOUR)
    browser = signed_in()
    clock.move(hours=-5)
    for _ in range(12):
        assert is_still_in(browser)
        clock.move(hours=1, seconds=-1)
        assert is_still_in(browser)
        clock.move(seconds=1)
    assert told(browser) == "expired"


@pytest.mark.parametrize("lock", [False, True])
@pytest.mark.parametrize("back", [30, 300, 5 * HOUR])
@pytest.mark.standard("ASVS-7.3.1", "NIST-SB-8.4")
def test_a_clock_that_steps_back_after_an_activity_does_no_harm(
    signed_in, policy, clock, lock, back
):
    policy(idle=1200, lock=lock)
    browser = signed_in()
    clock.move(seconds=200)
    assert is_still_in(browser)
    clock.move(seconds=-back)
    assert is_still_in(browser)
    clock.move(seconds=1199)
    assert is_still_in(browser)
    # Of a small step nothing is known: it is like activity.
    clock.move(seconds=1200 + (back if back < 60 else 0))
    assert not is_still_in(browser)


def test_a_clock_that_was_ahead_proves_nothing_for_longer(signed_in, policy, clock):
    policy(recent=600)
    browser = signed_in()
    clock.move(hours=-5)
    assert is_still_in(browser)
    clock.move(seconds=600)
    assert browser.get("/pay/by_policy/").status_code == 200
    clock.move(seconds=1)
    assert browser.get("/pay/by_policy/").headers["Location"].startswith(PROVE)


@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("begin", ["2040-03-11T07:30:00+00:00", "2040-11-04T06:30:00+00:00"])
@pytest.mark.parametrize(
    ("rules", "cookie_age"), [({"idle": HOUR}, DAY), ({"absolute": HOUR}, DAY), ({}, HOUR)]
)
def test_an_hour_is_an_hour_when_the_clocks_change(
    signed_in, policy, clock, settings, use_tz, begin, rules, cookie_age
):
    """In Chicago it is half past one then, and the hour of two is left out, or comes again."""
    settings.USE_TZ = use_tz
    settings.SESSION_COOKIE_AGE = cookie_age
    policy(**rules)
    clock.move(seconds=(datetime.fromisoformat(begin) - NOON).total_seconds())
    first, second, third = signed_in(), signed_in(), signed_in()
    clock.move(minutes=59)
    assert is_still_in(first)
    clock.move(minutes=1)
    assert told(second) == ("idle" if "idle" in rules else "expired")
    UserSession.objects.revoke()
    assert key_of(third)
    assert not is_still_in(third)
    assert not SessionStore().exists(key_of(third))


def until(holds):
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.01)


@pytest.mark.parametrize(("rules", "reason"), [({"idle": 1}, "idle"), ({"absolute": 1}, "expired")])
@pytest.mark.standard("ASVS-7.3.1", "ASVS-7.3.2", "WSTG-SESS-07")
def test_the_clocks_of_the_stores_end_them_too(signed_in, policy, rules, reason):
    policy(**rules)
    browser, began = signed_in(), time.monotonic()
    assert SessionStore().exists(key_of(browser))
    until(lambda: not SessionStore().exists(key_of(browser)))
    assert time.monotonic() - began > 0.9
    assert told(browser) == reason


def test_the_clock_of_a_store_does_not_end_what_is_used(signed_in, policy):
    policy(idle=1)
    browser, began = signed_in(), time.monotonic()

    def used_for_longer():
        assert is_still_in(browser)
        return time.monotonic() - began > 1.5

    until(used_for_longer)


# The end of a request, where activity is written.


def fail_after_reading(request):
    request.session.get("cart")
    User.objects.update(first_name="Alice")
    raise RuntimeError("out of order")


def hold(request):
    """Reads the session in its transaction, and has a look from outside."""
    with CaptureQueriesContext(connection) as queries:
        request.session.get("cart")
    SEEN.append([query["sql"].partition(" ")[0] for query in queries])
    if connection.vendor == "postgresql":
        elsewhere(change_everything)
    return HttpResponse("done")


def change_everything():
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '1s'")
    UserSession.objects.update(ip="192.0.2.200")
    StoredSession.objects.update(touched_at=F("touched_at"))


urlpatterns += [path("fail_after_reading/", fail_after_reading), path("hold/", hold)]


@pytest.fixture
def atomic_requests(monkeypatch):
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)


@pytest.mark.django_db(transaction=True)
def test_a_view_that_is_rolled_back_was_activity_all_the_same(
    atomic_requests, signed_in, policy, clock
):
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=599)
    assert browser.get("/fail_after_reading/").status_code == 500
    assert User.objects.get().first_name == ""
    assert only_row().last_seen_at == datetime.now(UTC)
    clock.move(seconds=599)
    assert browser.get("/whoami/").content == b"alice"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("rules", "seconds"), [({}, 100), ({"idle": 600}, 400)])
def test_no_view_holds_a_lock_on_its_session(
    atomic_requests, signed_in, policy, clock, rules, seconds
):
    policy(**rules)
    browser = signed_in()
    clock.move(seconds=seconds)
    SEEN.clear()
    assert browser.get("/hold/").content == b"done"
    selects = ["SELECT"] if store.ON_REDIS else ["SELECT", "SELECT"]
    assert [selects] == SEEN
    assert only_row().last_seen_at == datetime.now(UTC)


def no_route(*args):
    raise OperationalError("no route to host")


@pytest.mark.parametrize(
    ("owner", "later"),
    # The row is behind for an interval, if the store is not.
    [(SessionStore, 1), (UserSessionQuerySet, 60)],
)
@pytest.mark.parametrize("seconds", [200, 500])
@pytest.mark.standard("ASVS-16.5.2")
def test_a_store_that_fails_at_the_end_spoils_no_answer(
    signed_in, policy, clock, monkeypatch, caplog, seconds, owner, later
):
    policy(idle=600)
    browser = signed_in()
    browser.post(f"/{browser.a}write/", {"cart": "teapot"})
    before = only_row().last_seen_at
    clock.move(seconds=seconds)
    with monkeypatch.context() as down:
        down.setattr(owner, "touch", staticmethod(no_route))
        response = browser.get(f"/{browser.a}read/")
        assert response.json() == {"cart": "teapot"}
        assert "sessionid" not in response.cookies
    assert "did not answer: no route to host" in caplog.text
    assert only_row().last_seen_at == before
    # The session stays due.
    clock.move(seconds=later)
    assert browser.get(f"/{browser.a}read/").json() == {"cart": "teapot"}
    assert only_row().last_seen_at == before + timedelta(seconds=seconds + later)
    clock.move(seconds=599)
    assert is_still_in(browser)


def test_what_a_view_writes_is_kept_when_only_the_activity_is_not(signed_in, clock, monkeypatch):
    browser = signed_in()
    clock.move(seconds=300)
    with monkeypatch.context() as down:
        down.setattr(SessionStore, "touch", staticmethod(no_route))
        assert browser.post(f"/{browser.a}write/", {"cart": "teapot"}).content == b"written"
    assert browser.get(f"/{browser.a}read/").json() == {"cart": "teapot"}


@pytest.mark.parametrize(("lock", "asked_at"), [(False, 570), (False, 590), (True, 590)])
def test_what_is_answered_in_time_was_activity(signed_in, policy, clock, lock, asked_at):
    """That is when activity is written. What is only locked then is not lost."""
    policy(idle=600, lock=lock)
    browser = signed_in()
    clock.move(seconds=asked_at)
    WAITING[:] = [clock]
    assert browser.get(f"/{browser.a}wait/").content == b"at last"  # 20 seconds later
    if asked_at == 590 and not lock:
        assert told(browser) == "idle"
    else:
        assert is_still_in(browser)


WAITING: list[Any] = []


def wait(request):
    request.session.get("cart")
    WAITING[0].move(seconds=20)
    return HttpResponse("at last")


async def await_a_long_answer(request):
    await request.session.aget("cart")
    await sync_to_async(WAITING[0].move)(seconds=20)
    return HttpResponse("at last")


urlpatterns += [path("wait/", wait), path("await/", await_a_long_answer)]


# The policy is asked once.

ASKED: list[Any] = []


def asked(user, request=None):
    ASKED.append((user, request and request.path))
    return policies.chosen


@pytest.fixture
def asking(settings, policy):
    """What SESSIONKIT_POLICY was asked: (user, path) each time."""
    policy(idle=600, absolute=HOUR, lock=True)
    settings.SESSIONKIT_POLICY = f"{__name__}.asked"
    ASKED.clear()
    return ASKED


def test_the_policy_is_asked_when_somebody_proves_who_they_are(
    signed_in, asking, alice, clock, settings
):
    browser = signed_in()
    assert asking == [(alice, "/login/")]
    for _ in range(3):
        clock.move(seconds=300)
        browser.get(f"/{browser.a}whoami/")
        browser.post(f"/{browser.a}write/", {"cart": "teapot"})
    use(browser, "cycle_key")
    clock.move(seconds=600)
    browser.get("/whoami/")
    use(browser, "unlock")
    assert asking.pop() == (alice, "/login/")
    assert asking == []
    use(browser, "reauthenticate")
    clock.move(seconds=600)
    use(browser, "unlock", True)
    post_sign_in(browser)
    call_path = f"/{browser.a}call/"
    assert asking == [(alice, call_path), (alice, call_path), (alice, "/login/")]


def test_a_sign_in_by_hand_has_a_policy_too(asking, alice, drive, clock):
    Browser(headers=PAGE).get("/whoami/")  # has nothing to do with it
    session = SessionStore()
    session[SESSION_KEY] = str(alice.pk)
    drive(session, "save")
    assert asking == [(alice, None)]
    clock.move(seconds=600)
    session = SessionStore(session.session_key)
    assert drive(session, "get", SESSION_KEY) is None
    drive(session, "unlock")
    drive(session, "reauthenticate")
    assert asking == [(alice, None)] * 2


def test_a_sign_in_of_somebody_who_is_not_there_has_none(asking, drive):
    session = SessionStore()
    session[SESSION_KEY] = "123456"
    drive(session, "save")
    assert asking == []
    assert session.policy == Policy()


def test_what_a_session_knows_of_its_policy(signed_in, policy, drive):
    rules = {"idle": 600, "absolute": HOUR, "lock": True, "recent": 60, "bind": ("browser",)}
    policy(**rules, limit=3)
    browser = signed_in()
    assert SessionStore(key_of(browser)).policy == Policy(**rules)
    assert SessionStore(key_of(browser)).authenticated_at == only_row().authenticated_at
    assert (SessionStore().policy, SessionStore().authenticated_at) == (Policy(), None)


@pytest.mark.parametrize("answer", [None, {"idle": 600}, Policy])
def test_what_is_no_policy_is_an_error_and_nobody_is_signed_in(
    browse, alice, monkeypatch, settings, answer
):
    settings.SESSIONKIT_POLICY = "tests.policies.of_everybody"
    monkeypatch.setattr(policies, "chosen", answer)
    browser = browse()
    assert post_sign_in(browser).status_code == 500
    assert not UserSession.objects.exists()
    assert browser.get("/whoami/").content == b"AnonymousUser"
    with pytest.raises(TypeError, match=r"of_everybody has to return a Policy, not "):
        hand_made(alice)
    assert not UserSession.objects.exists()


def test_a_proof_without_a_policy_leaves_the_session_as_it_is(signed_in, monkeypatch, settings):
    browser = signed_in()
    settings.SESSIONKIT_POLICY = "tests.policies.of_everybody"
    monkeypatch.setattr(policies, "chosen", None)
    before, old = store.payloads(), only_row()
    CALL[:] = ["reauthenticate"]
    assert browser.get(f"/{browser.a}call/").status_code == 500
    assert store.payloads() == before
    assert only_row().authenticated_at == old.authenticated_at
    assert is_still_in(browser)


def users_fetched(queries):
    return sum('FROM "auth_user"' in query["sql"] for query in queries)


def test_nobody_is_fetched_for_it_who_is_known(browse, alice, policy, clock):
    policy(idle=600)
    browser = browse()
    for _ in range(2):  # in, and in again
        with CaptureQueriesContext(connection) as queries:
            post_sign_in(browser)
        assert users_fetched(queries) == 1  # by Django, to check the password
    with CaptureQueriesContext(connection) as queries:
        hand_made(alice)
    assert users_fetched(queries) == 1


# Presets.


@pytest.mark.parametrize(
    ("name", "idle", "absolute"),
    [("aal1", None, 30 * DAY), ("aal3", 15 * MINUTE, 12 * HOUR), ("staff", HOUR, 12 * HOUR)],
)
@pytest.mark.standard("NIST-2.1.3", "NIST-2.3.3", "NIST-SB-8.4", "NIST-REAUTH-2")
def test_what_the_levels_of_nist_ask_for(signed_in, settings, clock, name, idle, absolute):
    settings.SESSIONKIT_POLICY = f"django_sessionkit.policy.{name}"
    browser, *forgotten = signed_in(), signed_in(), signed_in()
    every = (idle or DAY) // 2
    for number in range(1, absolute // every):
        clock.move(seconds=every - 1)
        assert is_still_in(browser)
        if idle and number == 2:
            assert is_still_in(forgotten[0])
        clock.move(seconds=1)
        if idle and number == 2:
            assert not is_still_in(forgotten[1])
    clock.move(seconds=every - 1)
    assert is_still_in(browser)
    clock.move(seconds=1)
    assert told(browser) == "expired"


@pytest.mark.standard("NIST-2.2.3", "NIST-SB-8.4", "NIST-REAUTH-2")
def test_a_day_at_the_second_level(signed_in, settings, clock):
    settings.SESSIONKIT_POLICY = "django_sessionkit.policy.aal2"
    browser = signed_in()
    for _ in range(11):
        clock.move(seconds=HOUR - 1)
        assert is_still_in(browser)
        clock.move(seconds=HOUR)
        assert not is_still_in(browser)
        assert prove(browser).headers["Location"] == "/read/"
        assert is_still_in(browser)
    clock.move(seconds=HOUR)
    assert not is_still_in(browser)
    prove(browser)
    clock.move(seconds=HOUR + 10)
    assert leads_to_the_lock(browser.post("/whoami/"))
    clock.move(seconds=1)
    assert told(browser) == "expired"


@pytest.mark.parametrize(("is_staff", "lives"), [(True, HOUR), (False, 14 * DAY)])
def test_whoever_says_nothing_has_a_policy_for_staff_and_one_for_others(
    signed_in, alice, clock, is_staff, lives
):
    User.objects.update(is_staff=is_staff)
    browser = signed_in()
    clock.move(seconds=lives - 1)
    assert is_still_in(browser)
    clock.move(seconds=lives)
    assert told(browser) == ("idle" if is_staff else "expired")


# What it costs.


@pytest.mark.parametrize(
    "rules", [{}, {"idle": 600, "absolute": HOUR}, {"idle": 600, "absolute": HOUR, "lock": True}]
)
def test_what_a_policy_costs(signed_in, policy, clock, rules):
    policy(**rules)
    browser = signed_in()
    url = f"/{browser.a}read/"
    clock.move(seconds=50)
    with round_trips(1):
        browser.get(url)
    clock.move(seconds=50)
    with round_trips(2):  # the session and the row
        browser.get(url, headers=BACKGROUND)
    with round_trips(4):  # both are read first, and written last
        browser.get(url)
    with round_trips(1):
        browser.get(url)
    if "lock" in rules:
        clock.move(seconds=600)
        with round_trips(1):
            browser.get(url)


def test_what_it_costs_to_end(signed_in, policy, clock):
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=600)
    with round_trips(4):
        told(browser)
    with round_trips(2):  # the session and the row
        told(browser)


@pytest.mark.parametrize("full", [False, True])
def test_what_it_costs_to_unlock_a_session(locked, drive, full):
    session = SessionStore(key_of(locked))
    with round_trips(1):
        drive(session, "get", "cart")
    # It is read again, and its row looked at when it is there; a full proof needs the user.
    count = 4 if store.ON_REDIS else 6
    with round_trips(count + full):
        drive(session, "unlock", full)


def test_what_it_costs_to_prove_who_one_is(alice, policy, clock, drive):
    policy(idle=600, absolute=HOUR)
    session = SessionStore(hand_made(alice).session_key)
    session.get("cart")
    with round_trips(4 if store.ON_REDIS else 6):
        drive(session, "reauthenticate")


@pytest.mark.parametrize("rules", [{}, {"idle": 600, "absolute": HOUR, "lock": True}])
def test_a_sign_in_costs_the_same_whatever_the_policy(browse, alice, policy, rules):
    policy(**rules)
    browser = browse()
    with CaptureQueriesContext(connection) as queries:
        post_sign_in(browser)
    made = [query["sql"] for query in queries]
    assert len([sql for sql in made if "django_sessionkit_usersession" in sql]) == 2
