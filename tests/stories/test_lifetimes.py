"""How long sessions live: without activity, and at the longest; and what their cookies say of it.
Told as stories of people with browsers."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import aupdate_session_auth_hash, update_session_auth_hash
from django.http import HttpResponse
from django.urls import path

from django_sessionkit.models import EndReason, UserSession
from tests import store
from tests.browsers import SCRIPT, browse_as, read
from tests.calls import hand_made, use
from tests.calls import urlpatterns as site_with_calls
from tests.people import is_still_in, key_of, only_row, post_sign_in, told
from tests.store import DAY, HOUR, MINUTE, NOON, SessionStore, round_trips

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site(__name__),
    pytest.mark.transports("cookie", "header"),
]


TEN_YEARS = 10 * 365 * DAY


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


def test_what_is_written_before_activity_is_due_counts_like_what_is_read(signed_in, policy, clock):
    """Otherwise the session would outlive what its row says, or every save would cost two."""
    policy(idle=600)
    browser, other = signed_in(), signed_in()
    clock.move(seconds=59)
    for each in (browser, other):
        each.post(f"/{browser.a}write/", {"cart": "teapot"})
    clock.move(seconds=540)
    assert is_still_in(browser)
    clock.move(seconds=1)
    assert not is_still_in(other)


@pytest.mark.standard("ASVS-7.3.1")
@pytest.mark.transports("cookie")
def test_who_was_inactive_reads_that(signed_in, policy, clock):
    """And no purge has to run for it."""
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=600)
    assert not UserSession.objects.active().exists()
    response = browser.get(f"/{browser.a}private/")
    assert response.headers["Location"] == f"/login/?next=/{browser.a}private/"
    assert response.cookies["sessionid"]["max-age"] == 0
    assert "because you were inactive for a while" in browser.get("/login/").text
    assert (only_row().end_reason, only_row().ended_at) == (EndReason.IDLE, datetime.now(UTC))


@pytest.mark.transports("cookie")
def test_a_script_is_told_so_too(signed_in, policy, clock):
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=600)
    key = key_of(browser)
    assert told(browser) == "idle"
    # Once, if it keeps the cookies that it is given.
    assert "Session-Ended" not in read(browser, **SCRIPT).headers
    assert told(browse_as(browser, key)) == "idle"


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


@pytest.mark.transports("cookie")
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


urlpatterns = [
    *site_with_calls,
    path("password/", change_password),
    path("apassword/", achange_password),
]


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
@pytest.mark.transports("cookie")
def test_who_was_there_for_too_long_reads_that(signed_in, policy, clock):
    policy(absolute=600)
    browser = signed_in()
    clock.move(seconds=600)
    response = browser.get(f"/{browser.a}private/")
    assert response.headers["Location"] == f"/login/?next=/{browser.a}private/"
    assert "Your sign-in has expired." in browser.get("/login/").text


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
@pytest.mark.transports("cookie")
def test_the_cookie_lasts_no_longer_than_its_session(signed_in, policy, clock, rules, age):
    policy(**rules)
    browser = signed_in()
    cookie = browser.cookies["sessionid"]
    assert cookie["max-age"] == age
    expires = datetime.now(UTC) + timedelta(seconds=age)
    assert cookie["expires"] == expires.strftime("%a, %d %b %Y %H:%M:%S GMT")


@pytest.mark.transports("cookie")
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
