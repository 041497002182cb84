"""What a former key of a session is still good for, and to whom."""

import threading
from functools import partial

import pytest
from django.contrib.auth import aget_user, get_user
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from django_sessionkit.accounts import has_hash_of_former_secret
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.models import EndReason, UserSession
from tests import store
from tests.browsers import browse_as, given, put, read, sets_no_cookie, view
from tests.calls import BACKGROUND
from tests.calls import urlpatterns as site_with_calls
from tests.interleaving import together
from tests.people import is_in, is_told, key_of, only_row, post_sign_in, row_of
from tests.renewals import AFTER, DUE, GRACE, REUSED, renewed, seen
from tests.store import HOUR, SessionStore, later, round_trips

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site(__name__),
    pytest.mark.usefixtures("keys_change"),
    pytest.mark.transports("cookie", "header"),
]


def save(request):
    request.session["news"] = "1"
    request.session.save()
    return HttpResponse("saved")


async def asave(request):
    await request.session.aset("news", "1")
    await request.session.asave()
    return HttpResponse("saved")


urlpatterns = [*site_with_calls, path("save/", save), path("asave/", asave)]


# A thief who polls.


@pytest.mark.parametrize("how", ["header", "prefetch", "view", "path", "saves", "slides"])
def test_a_thief_who_polls_gets_no_new_key_and_is_noticed(shopper, settings, reused, how):
    browser = shopper()
    thief = browse_as(browser, renewed(browser))
    settings.SESSIONKIT_BACKGROUND = ["/read/", "/aread/"] if how in ("path", "slides") else []
    settings.SESSION_SAVE_EVERY_REQUEST = how == "saves"
    headers = {"prefetch": {"Sec-Purpose": "prefetch"}, "path": {}, "view": {}}
    url = view(thief, "poll" if how == "view" else "read")
    old = key_of(thief)
    for seconds in (DUE + 5, DUE + 70, 2 * DUE + 70):
        with later(seconds):
            response = thief.get(url, headers=headers.get(how, BACKGROUND))
            assert response.status_code == 200
            assert sets_no_cookie(response)
    assert key_of(thief) == old
    assert not reused
    with later(2 * DUE + 80):
        assert is_in(browser)  # and gets another key
    with later(2 * DUE + 90 + GRACE):
        thief.get(url, headers=headers.get(how, BACKGROUND))
        assert len(reused) == 1


def test_a_key_that_changes_while_a_request_in_the_background_writes(shopper, at):
    browser = shopper()
    poll = browse_as(browser, key_of(browser))
    with later(DUE):
        pending = at("replace", lambda: read(browser))
        response = poll.get(f"{view(poll, 'count')}?news=1", headers=BACKGROUND)
        assert not pending
        assert response.status_code == 200
        assert sets_no_cookie(response)
        assert read(browser).json() == {"cart": "teapot", "news": "1"}


@pytest.mark.parametrize("headers", [{}, BACKGROUND], ids=["", "called background"])
def test_a_person_gets_the_key_that_got_lost(shopper, headers):
    """A form is a person's, whatever the request says."""
    browser = shopper()
    lost = browse_as(browser, renewed(browser))
    with later(DUE + 5):
        response = lost.post(view(lost, "write"), {"cart": "kettle"}, headers=headers)
        assert given(response) == key_of(browser)


def test_a_thief_who_sends_forms_is_seen_in_the_row(shopper):
    browser = shopper()
    thief = browse_as(browser, key_of(browser))
    with later(AFTER - 100):
        thief.post(view(thief, "write"), headers=BACKGROUND | {"User-Agent": "thief"})
    assert row_of(browser).user_agent == "thief"


def test_a_key_that_has_reached_the_browser_is_not_given_again(shopper):
    browser = shopper()
    old = renewed(browser)
    seen(browser)
    with later(DUE + 9 + GRACE - 10):
        for tab in (browse_as(browser, old), browse_as(browser, old)):
            assert read(tab).json()["cart"] == "teapot"
            response = put(tab, cart="teapot", more="more")
            assert response.status_code == 200
            assert sets_no_cookie(response)
        assert read(browser).json() == {"cart": "teapot", "more": "more"}


def test_a_new_key_arrives_with_the_request_that_brings_it(shopper, at):
    """Not with one that has written to it, and came with the key before."""
    browser = shopper()
    tab, old = (browse_as(browser, key_of(browser)) for _ in range(2))
    with later(DUE):
        pending = at("replace", lambda: read(browser))
        response = tab.get(view(tab, "save"))
        assert not pending
        assert given(response) == key_of(browser)
    with later(DUE + 2 * GRACE):  # both answers have got lost
        assert given(read(old)) == key_of(browser)


# Many former keys.


@pytest.fixture
def reads(monkeypatch):
    """The digests that are read from the store."""
    made = []
    for name in ["read", "aread"] if SessionStore.native_async else ["read"]:
        original = getattr(SessionStore, name)

        def note(digest, original=original):
            made.append(digest)
            return original(digest)

        monkeypatch.setattr(SessionStore, name, staticmethod(note))
    return made


def read_for(reads, browser):
    """Have a browser read its session; return the answer, and how many reads that took."""
    reads.clear()
    return read(browser), len(reads)


@pytest.mark.parametrize("on_reuse", ["end", "report"])
def test_the_oldest_of_many_keys_takes_no_more_than_three_reads(
    shopper, policy, reads, reused, on_reuse
):
    policy(renew_after=900, renew_grace=30, on_reuse=on_reuse)
    browser = shopper()
    keys = [renewed(browser, after=910 * number) for number in range(1, 13)]
    with later(3 * HOUR + 910):
        for _ in range(3):
            _response, made = read_for(reads, browse_as(browser, keys[0]))
            assert made <= 3
        assert len(reused) == 1
        assert is_in(browser) is (on_reuse == "report")


def test_a_key_within_a_long_grace_leads_on_for_two_more_keys(generations, reads, reused):
    browser, keys = generations
    with later(220):
        answers = [read_for(reads, browse_as(browser, key)) for key in keys]
        assert [made for _, made in answers] == [3, 3, 2]
        assert [response.json() for response, _ in answers] == [
            {},
            {"cart": "teapot"},
            {"cart": "teapot"},
        ]
        with round_trips(3):
            read(browse_as(browser, keys[0]))
        assert is_in(browser)
    assert not reused


def test_a_former_key_keeps_little_of_its_session(shopper, policy):
    policy(renew_after=AFTER, renew_grace=GRACE, on_reuse="report", idle=HOUR, bind=("network",))
    browser = shopper()
    old = renewed(browser)
    trace = store.payloads()[digest_of(old)]
    assert len(trace) < 140


# A former key comes too late, again and again.


@pytest.fixture
def late(shopper):
    """A function that opens a browser with the former key of Alice's, and Alice's browser."""
    browser = shopper()
    old = renewed(browser)
    seen(browser)
    with later(DUE + 9 + GRACE + 10):
        yield browser, lambda: browse_as(browser, old)


@pytest.fixture
def reports(policy, alice):
    policy(renew_after=AFTER, renew_grace=GRACE, on_reuse="report")


def test_fifty_requests_with_a_former_key_are_reported_once(reports, late, reused, caplog):
    browser, thief = late
    caplog.clear()
    for _ in range(50):
        assert read(thief()).json() == {}
    assert len(reused) == 1
    (record,) = caplog.records
    assert str(row_of(browser).pk) in record.getMessage()
    assert is_in(browser)


def test_two_requests_with_a_former_key_at_once_are_reported_once(reports, late, reused, at):
    _browser, thief = late
    pending = at("replace", lambda: read(thief()))
    assert read(thief()).json() == {}
    assert not pending
    assert len(reused) == 1


def test_fifty_requests_with_a_former_key_end_the_session_once(late, reused, ended, caplog):
    browser, thief = late
    caplog.clear()
    for _ in range(50):
        assert not is_in(thief())
    assert len(reused) == len(ended) == 1
    assert len([line for line in caplog.records if line.name.startswith("django.sec")]) == 1
    assert is_told(browser, REUSED)


def test_the_store_that_is_down_then_costs_no_report(late, reused, at):
    def fail():
        raise OperationalError("no route to host")

    _browser, thief = late
    pending = at("remove", fail)
    assert read(thief()).status_code == 503
    assert not pending
    assert only_row().end_reason == EndReason.REUSED
    assert len(reused) == 1


def test_a_former_key_from_before_a_proof_ends_nothing(generations, reused):
    browser, keys = generations
    with later(220):
        session = SessionStore(key_of(browser))
        session.reauthenticate()
    browser.cookies["sessionid"] = session.session_key
    with later(2 * HOUR):
        for key in keys:
            assert read(browse_as(browser, key)).status_code in (200, 302)
        assert is_in(browser)
    assert not reused
    assert UserSession.objects.get().ended_at is None


# A package that has stored the keys of sessions, and looks at them later.


def listed(request):
    """Answers with the user of each stored key, as a list of a user's sessions does."""
    names = []
    for key in request.GET.getlist("key"):
        stored = HttpRequest()
        stored.session = SessionStore(key)
        names.append(str(get_user(stored)) if SessionStore().exists(key) else "")
    return JsonResponse([str(request.user), *names], safe=False)


async def alisted(request):
    names = []
    for key in request.GET.getlist("key"):
        stored = HttpRequest()
        stored.session = SessionStore(key)
        names.append(str(await aget_user(stored)) if await SessionStore().aexists(key) else "")
    return JsonResponse([str(await request.auser()), *names], safe=False)


urlpatterns += [path("listed/", listed), path("alisted/", alisted)]


@pytest.fixture
def stored(shopper):
    """A browser whose key has changed four times since somebody stored it, and what they stored."""
    browser = shopper()
    return browser, [renewed(browser, after=number * (DUE + 5)) for number in (1, 2, 3, 4)]


def test_the_list_of_a_package_signs_nobody_out(stored, reused, ended, caplog):
    browser, keys = stored
    with later(5 * DUE):
        response = browser.get(view(browser, "listed"), {"key": keys})
        assert response.json() == ["alice"] * 5
        assert is_in(browser)
    assert not reused
    assert not ended
    assert "former key" not in caplog.text


def test_the_list_of_a_package_is_no_use_of_a_new_key(shopper, reused, drive):
    """The answer that had the new key is lost, and its owner comes by the key before."""
    browser = shopper()
    old = renewed(browser)
    with later(DUE + 9):
        for key in (old, key_of(browser)):
            assert drive(SessionStore(key), "get", "cart") == "teapot"
    with later(DUE + 9 + 2 * GRACE):
        assert given(read(browse_as(browser, old))) == key_of(browser)
    assert not reused


@pytest.mark.parametrize("verb", ["delete", "flush"])
def test_who_is_signed_out_by_a_stored_key_is_signed_out(stored, reused, drive, verb):
    browser, keys = stored
    with later(5 * DUE):
        if verb == "delete":
            drive(SessionStore(), "delete", keys[0])
        else:
            drive(SessionStore(keys[0]), "flush")
        assert not is_in(browser)
    assert only_row().end_reason == EndReason.LOGOUT
    assert not reused


def test_who_comes_by_a_stored_key_is_noticed_nevertheless(stored, reused):
    browser, keys = stored
    with later(5 * DUE):
        browser.get(view(browser, "listed"), {"key": keys})
        assert not is_in(browse_as(browser, keys[0]))
        assert len(reused) == 1


# The clock is put back.


def stolen(clock, shopper):
    """Alice's browser, which has just used a new key, and one that has a copy of the key before."""
    browser = shopper()
    old = key_of(browser)
    clock.move(seconds=DUE)
    assert is_in(browser)
    clock.move(seconds=5)
    assert is_in(browser)
    return browser, browse_as(browser, old)


@pytest.mark.parametrize("is_active", [False, True], ids=["", "active"])
def test_a_reuse_is_noticed_although_the_clock_was_put_back(clock, shopper, reused, is_active):
    browser, thief = stolen(clock, shopper)
    clock.move(hours=-1)
    if is_active:
        assert is_in(browser)
    clock.move(minutes=10)
    assert not is_in(thief)
    assert len(reused) == 1


def test_a_reuse_is_noticed_when_the_clock_is_where_it_was(clock, shopper, reused):
    browser, thief = stolen(clock, shopper)
    clock.move(hours=-1)
    assert is_in(browser)
    clock.move(hours=1)
    assert not is_in(thief)
    assert len(reused) == 1


@pytest.mark.parametrize("back", [10, 59])
def test_a_clock_that_is_a_little_behind_is_no_reuse(clock, shopper, reused, back):
    """Another server's, for a request that was under way."""
    _browser, tab = stolen(clock, shopper)
    clock.move(seconds=-back)
    assert is_in(tab)
    assert not reused


# The site has a new SECRET_KEY.


@pytest.fixture
def new_secret(settings, shopper):
    """A browser that has signed in before the site got a new SECRET_KEY."""
    browser = shopper()
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "new"
    return browser


@pytest.mark.django_db(transaction=True)
def test_four_requests_after_a_new_secret_key_are_all_answered(new_secret, reused):
    browser = new_secret
    tabs = [browse_as(browser, key_of(browser)) for _ in range(4)]
    started, answers = threading.Barrier(4), []

    def request(tab):
        started.wait(10)
        answers.append(tab.get(view(tab, "whoami")))

    together(*[partial(request, tab) for tab in tabs])
    assert [(answer.status_code, answer.content) for answer in answers] == [(200, b"alice")] * 4
    assert all(is_in(tab) for tab in tabs)
    assert only_row().ended_at is None
    assert not reused


@pytest.mark.parametrize("step", ["read", "note", "insert", "replace", "follow"])
def test_another_request_after_a_new_secret_key_has_changed_it_already(new_secret, at, step):
    browser = new_secret
    tab = browse_as(browser, key_of(browser))
    pending = at(step, lambda: is_in(browser))
    if store.APART or step in ("read", "note"):  # else both are in one transaction
        assert is_in(tab)
        assert not pending
    assert is_in(browser)
    assert is_in(tab)


def test_a_new_secret_key_takes_a_new_key_and_leaves_a_trace(new_secret, settings, reused):
    browser = new_secret
    old = browse_as(browser, key_of(browser))
    assert is_in(browser)
    assert key_of(browser) != key_of(old)
    lost = browse_as(browser, key_of(old))
    assert given(lost.get("/whoami/")) == key_of(browser)
    settings.SECRET_KEY_FALLBACKS = []  # what the view has written is by the new SECRET_KEY
    assert is_in(browser)
    with later(GRACE + 5):
        assert not is_in(old)
    assert len(reused) == 1


def test_a_request_in_the_background_takes_no_new_key_after_a_new_secret_key(new_secret, settings):
    browser = new_secret
    response = browser.get("/whoami/", headers=BACKGROUND)
    assert response.content == b"alice"
    assert sets_no_cookie(response)
    assert len(store.payloads()) == 1
    settings.SECRET_KEY_FALLBACKS = []
    assert is_in(browser)


def test_a_new_key_that_was_asked_for_kills_the_old_one_after_a_new_secret_key(new_secret, drive):
    browser = new_secret
    old = key_of(browser)
    assert is_in(browser)
    session = SessionStore(key_of(browser))
    drive(session, "cycle_key")
    assert not is_in(browse_as(browser, key_of(browser)))
    assert not is_in(browse_as(browser, old))
    assert is_in(browse_as(browser, session.session_key))


def test_the_list_of_a_package_changes_no_key_twice_after_a_new_secret_key(new_secret):
    """Another browser of Alice's opens the list."""
    phone = new_secret
    laptop = browse_as(phone, "")
    post_sign_in(laptop)
    for _ in range(2):
        response = laptop.get(view(laptop, "listed"), {"key": [key_of(phone)]})
        assert response.json() == ["alice", "alice"]
    assert len(store.payloads()) == 3
    assert is_in(phone)
    assert is_in(laptop)


def test_nobody_asks_for_the_hash_of_a_user_who_is_gone(new_secret):
    assert not has_hash_of_former_secret("0", "hash")
