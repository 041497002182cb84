"""A browser is known when somebody signs in with it again, by a cookie that opens nothing."""

import uuid
from datetime import date, timedelta
from types import SimpleNamespace

import pytest
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.core.signing import Signer
from django.db import connection, transaction
from django.db.models.signals import post_init
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import timezone

from django_sessionkit import registry
from django_sessionkit.models import UserSession
from django_sessionkit.signals import session_started
from django_sessionkit.visit import browsers
from tests.browsers import PAGE, put, view
from tests.people import (
    CHROME,
    FIREFOX,
    IPHONE,
    NEW_FIREFOX,
    is_in,
    only_row,
    post_sign_in,
    row_of,
)
from tests.store import SessionStore
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

DEVICE = "sessionkit_device"
ELSEWHERE = "203.0.113.9"
TABLE = UserSession._meta.db_table
MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"


def twice(request):
    """Signs two users in, one after the other."""
    for user in User.objects.order_by("username"):
        login(request, user, MODEL_BACKEND)
    return HttpResponse("signed in")


def until_the_browser_is_closed(request):
    login(request, User.objects.get(), MODEL_BACKEND)
    request.session.set_expiry(0)
    return HttpResponse("signed in")


def out_of_order(request):
    """Signs a user in, and then fails."""
    login(request, User.objects.get(), MODEL_BACKEND)
    request.session.save()
    return HttpResponse("out of order", status=500)


def saved_and_cached(request):
    """Signs a user in, and wants everybody to have the answer."""
    login(request, User.objects.get(), MODEL_BACKEND)
    request.session.save()
    return HttpResponse("signed in", headers={"Cache-Control": "public, max-age=600"})


def in_and_out(request):
    """Signs a user in, and out again: no session is left."""
    login(request, User.objects.get(), MODEL_BACKEND)
    request.session.save()
    logout(request)
    return HttpResponse("signed out", headers={"Cache-Control": "public, max-age=600"})


urlpatterns = [
    *site,
    path("in_and_out/", in_and_out),
    path("twice/", twice),
    path("until_the_browser_is_closed/", until_the_browser_is_closed),
    path("out_of_order/", out_of_order),
    path("saved_and_cached/", saved_and_cached),
]


def device_cookie(browser):
    """Return the value of the device cookie of a browser, or None."""
    return getattr(browser.cookies.get(DEVICE), "value", None)


def named(cookie):
    """Return the browser that a cookie names."""
    return uuid.UUID(Signer(salt=browsers.SALT).unsign(cookie))


def newest_row():
    return UserSession.objects.first()


def clear_cookies(browser):
    browser.cookies.clear()


@pytest.fixture
def signs_in(browse, alice):
    """A function that signs Alice in with a browser, a new one if none is given, from somewhere."""

    def signs_in(browser=None, address="192.0.2.1", user_agent=FIREFOX, name="alice"):
        browser = browser or browse()
        headers = {**PAGE, "user-agent": user_agent, "x-forwarded-for": address}
        answer = post_sign_in(browser, name, headers=headers)
        assert answer.status_code == 302
        return browser

    return signs_in


@pytest.fixture(autouse=True)
def behind_a_proxy(settings):
    """Where a request comes from is in a header, which both handlers have."""
    settings.SESSIONKIT_TRUSTED_PROXIES = 1


# The cookie.


def test_sign_in_names_the_browser_with_a_cookie_that_stays(browse, alice, settings):
    settings.SESSION_COOKIE_SECURE = True
    settings.SESSION_COOKIE_PATH = "/login/"
    settings.SESSION_COOKIE_DOMAIN = "testserver"
    answer = post_sign_in(browse())
    cookie = answer.cookies[DEVICE]
    assert only_row().browser == named(cookie.value)
    assert (cookie["httponly"], cookie["secure"], cookie["samesite"]) == (True, True, "Lax")
    assert (cookie["path"], cookie["domain"]) == ("/login/", "testserver")
    assert cookie["max-age"] == 2 * 365 * 24 * 60 * 60


def test_nothing_but_a_sign_in_sets_the_cookie(browse, alice):
    visitor = browse()
    for page in ("", "read", "whoami"):
        assert DEVICE not in visitor.get(view(visitor, page) if page else "/").cookies
    assert DEVICE not in put(visitor, cart="teapot").cookies
    assert DEVICE not in post_sign_in(visitor, password="wrong").cookies
    post_sign_in(visitor)
    given = device_cookie(visitor)
    assert given
    for page in ("read", "whoami"):
        assert DEVICE not in visitor.get(view(visitor, page)).cookies
    assert DEVICE not in put(visitor, cart="kettle").cookies
    assert DEVICE not in visitor.post("/logout/").cookies
    assert device_cookie(visitor) == given


def test_request_that_signs_nobody_in_does_not_read_the_cookie(signs_in, monkeypatch):
    browser = signs_in()
    monkeypatch.setattr(browsers, "read", None)
    monkeypatch.setattr(browsers, "browser_of", None)
    put(browser, cart="teapot")
    assert is_in(browser)
    assert browser.post("/logout/").status_code == 302


def test_browser_keeps_its_name_across_sign_ins_and_its_users_share_it(signs_in, bob):
    browser = signs_in()
    names = [row_of(browser).browser]
    for name in ("alice", "bob", "alice"):
        browser.post("/logout/")
        signs_in(browser, name=name)
        names.append(row_of(browser).browser)
    assert len(set(names)) == 1
    assert row_of(signs_in()).browser not in names


def test_two_users_who_sign_in_by_one_request_have_the_same_browser(alice, bob):
    browser = Client(headers=PAGE)
    browser.get("/twice/")
    found = set(UserSession.objects.values_list("browser", flat=True))
    assert found == {named(device_cookie(browser))}


def test_cookie_is_good_with_a_former_secret_key_and_signed_with_the_new_one(signs_in, settings):
    browser = signs_in()
    name, before = row_of(browser).browser, device_cookie(browser)
    browser.post("/logout/")
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another", [settings.SECRET_KEY]
    signs_in(browser)
    assert row_of(browser).browser == name
    assert device_cookie(browser) != before


FORGED = {
    "made up": f"{uuid.UUID(int=1).hex}:{'a' * 43}",
    "unsigned": uuid.UUID(int=1).hex,
    "another salt": Signer(salt="other").sign(uuid.UUID(int=1).hex),
    "no UUID": Signer(salt=browsers.SALT).sign("admin"),
    "oversized": f"{uuid.UUID(int=1).hex}:{'a' * 20_000}",
    "empty": "",
    "not ASCII": "\xe9" * 76,
    "quoted": '"' + Signer(salt=browsers.SALT).sign(uuid.UUID(int=1).hex) + '"',
}


@pytest.mark.parametrize("value", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("send", ["alone", "first", "last"])
def test_forged_cookie_is_none_and_hides_none(alice, value, send):
    """A site on the domain above may set one of the same name: both come, in either order."""
    good = Signer(salt=browsers.SALT).sign(uuid.UUID(int=7).hex)
    pairs = {"alone": [value], "first": [value, good], "last": [good, value]}[send]
    header = "; ".join(f"{DEVICE}={pair}" for pair in pairs)
    answer = post_sign_in(Client(), HTTP_COOKIE=header)
    assert answer.status_code == 302
    assert only_row().browser == named(answer.cookies[DEVICE].value)
    assert only_row().browser.int != 1
    assert (only_row().browser.int == 7) is (send != "alone")


def test_two_cookies_are_none(alice):
    one, other = (Signer(salt=browsers.SALT).sign(uuid.UUID(int=n).hex) for n in (1, 7))
    post_sign_in(Client(), HTTP_COOKIE=f"{DEVICE}={one}; {DEVICE}={other}")
    assert only_row().browser.int not in (1, 7)


def test_cookie_of_another_browser_opens_nothing(signs_in, browse):
    """It authenticates nobody."""
    browser, thief = signs_in(), browse()
    thief.cookies[DEVICE] = device_cookie(browser)
    assert not is_in(thief)
    assert DEVICE not in post_sign_in(thief, password="wrong").cookies


@pytest.mark.usefixtures("old_account")
@pytest.mark.parametrize("off", [None, ""])
def test_site_can_switch_it_off(signs_in, settings, off):
    settings.SESSIONKIT_DEVICE_COOKIE = off
    browser = signs_in()
    assert {*browser.cookies} == {"sessionid", "csrftoken"}
    browser.post("/logout/")
    signs_in(browser)
    assert {row.browser for row in UserSession.objects.all()} == {None}
    assert newest_row().novelty == ""  # the same browser, in the same network
    signs_in(address=ELSEWHERE)
    assert newest_row().novelty == "device"


def test_site_can_give_it_another_name(signs_in, settings):
    settings.SESSIONKIT_DEVICE_COOKIE = "__Host-browser"
    browser = signs_in()
    assert row_of(browser).browser == named(browser.cookies["__Host-browser"].value)


def test_sign_in_that_failed_later_gives_no_cookie(alice):
    answer = Client(raise_request_exception=False).get("/out_of_order/")
    assert answer.status_code == 500
    assert not {DEVICE, "sessionid"} & {*answer.cookies}


@pytest.mark.parametrize("page", ["/saved_and_cached/", "/in_and_out/"])
def test_no_cache_keeps_the_cookie(alice, page):
    answer = Client().get(page)
    assert DEVICE in answer.cookies
    assert "Cookie" in answer.headers["Vary"]
    assert "no-store" in answer.headers["Cache-Control"]
    assert "public" not in answer.headers["Cache-Control"]


def test_refused_sign_in_gives_no_cookie(signs_in, browse, policy):
    policy(limit=1, on_limit="refuse")
    signs_in()
    assert DEVICE not in post_sign_in(browse()).cookies


@pytest.mark.parametrize("handler", [Client], ids=["wsgi"])
def test_djangos_middleware_knows_no_browser(alice, settings, handler):
    ours = "django_sessionkit.middleware.SessionMiddleware"
    settings.MIDDLEWARE = [
        each.replace(ours, "django.contrib.sessions.middleware.SessionMiddleware")
        for each in settings.MIDDLEWARE
    ]
    browser = handler()
    assert DEVICE not in post_sign_in(browser).cookies
    assert (only_row().browser, only_row().novelty) == (None, "")


# What is new.


def novelties():
    """Return what was new at each sign-in, the first one first."""
    return [*UserSession.objects.order_by("pk").values_list("novelty", flat=True)]


@pytest.fixture
def old_account(alice):
    """Alice has had her account for a year."""
    User.objects.update(date_joined=timezone.now() - timedelta(days=365))


@pytest.mark.usefixtures("old_account")
def test_only_a_browser_that_was_not_seen_before_is_new(signs_in):
    laptop, telephone = signs_in(), signs_in(user_agent=IPHONE)
    assert novelties() == ["", "device"]
    for browser in (laptop, telephone):
        browser.post("/logout/")
    signs_in(laptop, ELSEWHERE, NEW_FIREFOX)  # on a journey, after an update
    signs_in(telephone, "2001:db8::1", IPHONE)
    assert novelties() == ["", "device", "", ""]
    clear_cookies(laptop)
    signs_in(laptop, "192.0.77.1")
    assert novelties()[-1] == ""
    signs_in(user_agent=CHROME)  # a thief, in the same network
    signs_in(address="198.51.100.4")  # and one elsewhere, with a browser of the same name
    assert novelties()[-2:] == ["device", "device"]


@pytest.mark.usefixtures("old_account")
def test_browser_of_another_user_is_new_to_this_one(signs_in, bob):
    User.objects.update(date_joined=timezone.now() - timedelta(days=365))
    signs_in(name="bob")
    browser = signs_in()
    browser.post("/logout/")
    signs_in(browser, ELSEWHERE, CHROME, name="bob")
    assert newest_row().novelty == "device"


@pytest.mark.usefixtures("old_account")
def test_networks_of_a_session_are_remembered(signs_in, clock):
    browser = signs_in()
    for step, address in enumerate(["203.0.113.1", "203.0.200.1", "2001:db8::1", "192.0.9.9"], 1):
        clock.move(seconds=100)
        browser.get(view(browser, "whoami"), headers={"x-forwarded-for": address})
        assert row_of(browser).ip == address, step
    assert row_of(browser).networks == "2001:db8::/32,203.0.0.0/16,192.0.0.0/16,"
    clear_cookies(browser)
    signs_in(browser, "203.0.1.1")
    assert newest_row().novelty == ""
    for number in range(30):  # as many as there is room for, the latest ones
        clock.move(seconds=100)
        browser.get(view(browser, "whoami"), headers={"x-forwarded-for": f"100.{number}.0.1"})
    assert newest_row().networks.startswith("100.29.0.0/16,100.28.0.0/16,")
    assert len(newest_row().networks) == 255


@pytest.mark.parametrize("joined", [0, 59])
def test_nothing_is_new_in_the_first_minute_of_an_account(signs_in, alice, joined):
    User.objects.update(date_joined=timezone.now() - timedelta(seconds=joined))
    signs_in()
    User.objects.update(date_joined=timezone.now() - timedelta(seconds=joined))
    signs_in(address=ELSEWHERE)
    assert novelties() == ["", ""]


@pytest.mark.parametrize(
    "joined",
    [
        None,
        date(2020, 1, 1),
        timezone.now().replace(tzinfo=None),
        timezone.now() - timedelta(seconds=62),
        timezone.now() + timedelta(hours=9),
    ],
    ids=["unknown", "a date", "naive", "long ago", "made up"],
)
def test_user_model_may_say_anything_of_when_the_account_was_opened(signs_in, monkeypatch, joined):
    monkeypatch.setattr(registry, "user_of", lambda key: SimpleNamespace(date_joined=joined))
    signs_in()
    signs_in(address=ELSEWHERE)
    assert novelties() == ["", "device"]


@pytest.mark.usefixtures("old_account")
def test_code_without_a_request_is_no_new_device(signs_in, alice):
    signs_in()
    Client().force_login(alice)
    assert (newest_row().novelty, newest_row().browser) == ("", None)


@pytest.mark.usefixtures("old_account")
def test_browser_that_its_user_did_not_recognise_is_new_again(signs_in):
    browser = signs_in()
    UserSession.objects.update(reported_at=timezone.now())
    browser.post("/logout/")
    signs_in(browser)
    assert newest_row().novelty == "device"


@pytest.mark.usefixtures("old_account")
def test_country_that_is_new_is_an_unusual_place(signs_in, monkeypatch):
    countries = {"192.0.2.1": "DE", ELSEWHERE: "FR"}
    monkeypatch.setattr("django_sessionkit.novelty.country_of", lambda ip: countries.get(ip, ""))
    browser = signs_in()
    for address, expected in [(ELSEWHERE, "place"), (ELSEWHERE, ""), ("192.0.2.1", "")]:
        browser.post("/logout/")
        signs_in(browser, address)
        assert newest_row().novelty == expected


@pytest.mark.usefixtures("old_account")
def test_program_that_signs_in_all_the_time_hides_no_browser(signs_in, alice):
    """Not all its rows are read, but those of the browser are among those that are."""
    browser = signs_in()
    row, now = row_of(browser), timezone.now()
    UserSession.objects.bulk_create(
        UserSession(
            user=alice,
            digest=f"{number:064}",
            started_at=now,
            last_seen_at=now + timedelta(seconds=number + 1),
            expires_at=now,
            user_agent="curl/8.14",
            networks="100.64.0.0/16,",
        )
        for number in range(3 * registry.ENOUGH)
    )
    UserSession.objects.filter(pk=row.pk).update(label="Work laptop")
    browser.post("/logout/")
    read = []

    def note(instance, **kwargs):
        read.append(instance.pk)

    post_init.connect(note, sender=UserSession)
    try:
        signs_in(browser, ELSEWHERE, CHROME)
    finally:
        post_init.disconnect(note, sender=UserSession)
    assert row_of(browser).novelty == ""
    assert row_of(browser).label == "Work laptop"
    assert len(read) < 2 * registry.ENOUGH


# What else the row of a sign-in says.


def test_name_that_the_user_has_given_the_browser_is_kept(signs_in, bob):
    browser = signs_in()
    UserSession.objects.update(label="Work laptop")
    signs_in(address=ELSEWHERE)  # another browser
    assert newest_row().label == ""
    for name, label in [("alice", "Work laptop"), ("bob", ""), ("alice", "Work laptop")]:
        browser.post("/logout/")
        signs_in(browser, name=name)
        assert newest_row().label == label
    UserSession.objects.filter(pk=newest_row().pk).update(label="Old laptop")
    browser.post("/logout/")
    signs_in(browser)
    assert newest_row().label == "Old laptop"


def test_sign_in_method_and_whether_it_outlives_the_browser(signs_in, settings):
    browser = signs_in()
    assert (row_of(browser).backend, row_of(browser).remembered) == (MODEL_BACKEND, True)
    Client().get("/until_the_browser_is_closed/")
    assert newest_row().remembered is False
    settings.SESSION_EXPIRE_AT_BROWSER_CLOSE = True
    assert row_of(signs_in()).remembered is False


@pytest.mark.parametrize("backend", [None, 7, "x" * 300])
def test_session_that_was_made_by_hand_may_say_anything_of_its_method(alice, backend):
    session = SessionStore()
    session["_auth_user_id"] = str(alice.pk)
    if backend is not None:
        session["_auth_user_backend"] = backend
    session.save()
    assert only_row().backend == str(backend or "")[:255]


# What it costs.


@pytest.mark.usefixtures("old_account")
def test_sign_in_costs_one_query_more_and_what_is_new_two(signs_in, alice):
    def asked(*args, sign_in=signs_in):
        with CaptureQueriesContext(connection) as queries:
            browser = sign_in(*args)
        rows = [
            query["sql"] for query in queries if "django_sessionkit_usersession" in query["sql"]
        ]
        return browser, [sql.split()[0] for sql in rows]

    browser, first = asked()
    browser.post("/logout/")
    again = asked(browser)[1]
    new = asked(None, ELSEWHERE)[1]
    # Written, compared, and looked at once more, after the session was stored.
    assert first == again == ["INSERT", "SELECT", "SELECT"]
    assert new == ["INSERT", "SELECT", "UPDATE", "SELECT"]
    by_code = asked(alice, sign_in=Client().force_login)[1]
    assert by_code == ["INSERT", "SELECT"]  # nobody knows from where


# The signal.


@pytest.fixture
def started():
    """The signals session_started that were sent: a list of (handle, novelty)."""
    heard = []

    def listen(sender, handle, novelty, **kwargs):
        assert sender is UserSession
        assert UserSession.objects.get(pk=handle).novelty == novelty
        assert SessionStore.call(SessionStore.peek, [UserSession.objects.get(pk=handle).digest])
        heard.append((handle, novelty))

    session_started.connect(listen)
    yield heard
    session_started.disconnect(listen)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("old_account")
def test_each_sign_in_is_announced_once_its_session_is_stored(signs_in, started):
    browser = signs_in()
    assert started == [(row_of(browser).pk, "")]
    put(browser, cart="teapot")
    post_sign_in(browser)  # a proof of identity, in the same session
    other = signs_in(address=ELSEWHERE)
    assert started[1:] == [(row_of(other).pk, "device")]


@pytest.mark.django_db(transaction=True)
def test_sign_in_that_is_rolled_back_is_not_announced(alice, started):
    for is_kept in (False, True):
        session = SessionStore()
        session["_auth_user_id"] = str(alice.pk)
        with transaction.atomic():
            session.save()
            assert started == []
            transaction.set_rollback(not is_kept)
    assert started == [(session.handle, "")]


@pytest.mark.django_db(transaction=True)
def test_sign_in_whose_session_the_store_does_not_take_is_not_announced(
    alice, started, monkeypatch, drive
):
    def fail(*args):
        raise SessionStore.unavailable[0] if SessionStore.unavailable else OSError

    for verb in ("insert", "ainsert"):
        monkeypatch.setattr(SessionStore, verb, staticmethod(fail), raising=False)
    session = SessionStore()
    session["_auth_user_id"] = str(alice.pk)
    with pytest.raises(Exception):  # noqa: B017, PT011
        drive(session, "save")
    assert started == []
    assert not UserSession.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_receiver_that_fails_keeps_nobody_out(signs_in, started, caplog):
    def fail(**kwargs):
        raise RuntimeError("no mail today")

    session_started.connect(fail)
    try:
        assert is_in(signs_in())
    finally:
        session_started.disconnect(fail)
    assert len(started) == 1
    assert "no mail today" in caplog.text
