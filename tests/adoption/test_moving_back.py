"""
The way back: with one of Django's engines again, a session that only ours has moves there when it
is used. And nobody is signed out who meets processes of both kinds.
"""

from datetime import timedelta

import pytest
from django.contrib.auth import SESSION_KEY
from django.utils import timezone

from django_sessionkit.backends.exchanging import new_mark, unmarked
from django_sessionkit.backends.sealing import digest_of, version_of
from django_sessionkit.models import EndReason, UserSession
from tests import interleaving, moving, store
from tests.browsers import cart, put
from tests.moving import HERE, RETURNING, generation, is_there, restarted, session_in
from tests.people import is_still_in, key_of, only_row
from tests.store import SessionStore

DAY = 24 * 60 * 60

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=[*moving.OF_DJANGO, moving.ON_REDIS])
def there(request):
    """The engine that the site goes back to."""
    return request.param


def before(engine):
    """A process of the generation with Django's engine, before or after that of ours."""
    return generation(engine, (HERE,), RETURNING)


def after(engine):
    """A process of the generation with our engine."""
    return generation(HERE, (engine,))


@pytest.fixture
def shopper_here(shopper):
    return shopper()


def test_nobody_is_signed_out_when_a_site_goes_back(shopper_here, there):
    key = key_of(shopper_here)
    with before(there):
        browser = restarted(shopper_here)
        assert is_still_in(browser)
        assert cart(browser) == "teapot"
        put(browser, cart="kettle")
    assert (key_of(browser) == key) is (there != moving.COOKIES)
    assert not store.payloads()
    # The app has gone.
    with generation(there):
        browser = restarted(browser)
        assert is_still_in(browser)
        assert cart(browser) == "kettle"


def test_session_that_is_idle_by_our_policy_alone_goes_on_after_both_moves(shopper, policy, there):
    """The other engine knows no policy, and does not tell of what it does."""
    if there == moving.COOKIES:
        return
    policy(idle=3600)
    browser = shopper()
    with before(there):
        browser = restarted(browser)
        assert is_still_in(browser)
    assert only_row().expires_at > timezone.now() + timedelta(days=1)
    assert only_row().idle_at is None
    with store.later(2 * 3600):
        with before(there):
            assert is_still_in(restarted(browser))
        with after(there):
            assert is_still_in(restarted(browser))
            assert only_row().expires_at < timezone.now() + timedelta(hours=2)
    with store.later(4 * 3600), after(there):
        assert not is_still_in(restarted(browser))


def test_session_that_was_saved_there_goes_on_after_its_row_has_expired(shopper_here):
    with before(moving.DATABASE):
        browser = restarted(shopper_here)
        assert is_still_in(browser)
        with store.later(10 * DAY):
            put(browser, cart="kettle")
    with store.later(15 * DAY), after(moving.DATABASE):
        assert only_row().expires_at < timezone.now()
        assert cart(restarted(browser)) == "kettle"
        assert is_still_in(restarted(browser))
        assert only_row().expires_at > timezone.now()


def test_session_that_comes_back_just_in_time_lives_as_long_as_any(shopper_here):
    with before(moving.DATABASE):
        browser = restarted(shopper_here)
        assert is_still_in(browser)
        left = (only_row().expires_at - timezone.now()).total_seconds()
        with store.later(10 * DAY):
            put(browser, cart="kettle")
    with store.later(left - 30), after(moving.DATABASE):
        browser = restarted(browser)
        put(browser, cart="pan")
        assert only_row().expires_at > timezone.now() + timedelta(days=1)
    with store.later(left + 30), after(moving.DATABASE):
        assert is_still_in(restarted(browser))


def test_copy_of_a_session_that_has_expired_here_stays_out(shopper_here, monkeypatch):
    """Its engine could not remove it, and it was not used there since."""
    with before(moving.DATABASE):
        browser = restarted(shopper_here)
        assert is_still_in(browser)
    copy = session_in(moving.DATABASE, key_of(browser)).load()
    with after(moving.DATABASE):
        assert is_still_in(restarted(browser))
        UserSession.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        store.wipe()
        left = session_in(moving.DATABASE, key_of(browser))
        left._session_cache = copy
        with store.later(-DAY):
            left.save(must_create=True)
        assert not is_still_in(restarted(browser))


def test_cart_of_a_visitor_goes_back(browse, there):
    browser = browse()
    put(browser, cart="teapot")
    with before(there):
        browser = restarted(browser)
        assert cart(browser) == "teapot"
    assert not store.payloads()


@pytest.fixture(params=[moving.DATABASE, moving.CACHE, moving.CACHED_DATABASE, moving.FILES])
def other(request):
    """An engine whose processes serve beside ours for a while."""
    return request.param


def test_two_generations_serve_one_browser_in_turn(shopper_here, other):
    row = only_row()
    for number in range(3):
        with before(other):
            browser = restarted(shopper_here)
            assert is_still_in(browser)
            put(browser, **{f"old{number}": "yes"})
        with after(other):
            browser = restarted(shopper_here)
            assert is_still_in(browser)
            put(browser, **{f"new{number}": "yes"})
    with after(other):
        session = SessionStore(key_of(browser))
        assert session["cart"] == "teapot"
        assert all(session[f"{kind}{number}"] for kind in ("old", "new") for number in range(3))
    # What is known of the sign-in stays known.
    assert only_row().pk == row.pk
    assert only_row().authenticated_at == row.authenticated_at
    assert session.authenticated_at == row.authenticated_at
    assert only_row().adopted_at is None


def test_sign_out_with_a_process_of_ours_holds_with_those_of_django(shopper_here, other):
    key = key_of(shopper_here)
    with before(other):
        assert is_still_in(restarted(shopper_here))
        assert is_there(other, key)
    with after(other):
        # The one that has it in its hands when another process takes the session back.
        session = SessionStore(key)
        assert session[SESSION_KEY]
        with before(other):
            assert is_still_in(restarted(shopper_here))
        session.flush()
        assert not is_there(other, key)
    with before(other):
        assert not is_still_in(restarted(shopper_here))


def test_sign_out_with_a_process_of_django_holds_with_ours(shopper_here, other):
    key = key_of(shopper_here)
    with before(other):
        restarted(shopper_here).post("/logout/")
    assert only_row().end_reason == EndReason.LOGOUT
    shopper_here.cookies["sessionid"] = key
    with after(other):
        assert not is_still_in(restarted(shopper_here))


def test_session_that_was_ended_does_not_go_back(shopper_here, other, store_down):
    with pytest.raises(Exception, match="did not answer"):
        UserSession.objects.revoke()
    with before(other):
        assert not is_still_in(restarted(shopper_here))


def test_save_of_a_request_that_was_under_way_is_not_lost(browse, other, drive):
    """Both kinds of processes have loaded the session, and it moves before they save."""
    with before(other):
        browser = browse()
        put(browser, cart="teapot")
    key = key_of(browser)
    with after(other):
        assert cart(restarted(browser)) == "teapot"
        with before(other):
            theirs = moving.session_of(browser)
            drive(theirs, "get", "cart")
        ours = SessionStore(key)
        drive(ours, "get", "cart")  # takes it back here
        ours["ours"] = "yes"
        with before(other):
            theirs["theirs"] = "yes"
            drive(theirs, "save")  # takes it back there
        drive(ours, "save")  # and here again
        assert SessionStore(key).load() == {"cart": "teapot", "ours": "yes", "theirs": "yes"}
        assert not is_there(other, key)


def test_store_that_is_down_is_no_sign_out(shopper_here, other, monkeypatch):
    with before(other):
        browser = restarted(shopper_here)
        with monkeypatch.context() as patch:
            store.take_down(patch, "read")
            answer = browser.get(f"/{browser.a}whoami/")
            assert answer.status_code == 503
            assert "sessionid" not in answer.cookies
        assert is_still_in(browser)


def test_made_up_key_is_a_stranger(browse, other):
    with before(other):
        browser = browse()
        for key in ("a" * 32, "A" * 32, "short"):
            browser.cookies["sessionid"] = key
            assert not is_still_in(browser)
        assert session_in(other, "a" * 32).load() == {}


@pytest.mark.parametrize("writes", [True, False])
def test_process_that_comes_late_with_the_way_back_loses_nothing(browse, monkeypatch, writes):
    """It took so long that another process of ours has gone on, and one of Django's as well."""
    with after(moving.DATABASE):
        browser = browse()
        put(browser, cart="teapot")
    key = key_of(browser)
    digest = digest_of(key)

    def others_go_on():
        stored = SessionStore.read(digest)
        SessionStore.replace(digest, unmarked(stored.payload), None, version_of(stored.payload))
        if writes:
            theirs = session_in(moving.DATABASE, key)
            theirs["theirs"] = "yes"
            theirs.save()

    interleaving.before(monkeypatch, SessionStore, "take", others_go_on)
    engine = type(session_in(moving.DATABASE, key))
    assert SessionStore(key).return_to(engine) is None
    expected = {"cart": "teapot", **({"theirs": "yes"} if writes else {})}
    assert SessionStore(key).load() == expected
    assert not is_there(moving.DATABASE, key)


def test_process_that_comes_late_with_the_way_back_leaves_it_to_one_that_is_on_it(
    browse, monkeypatch
):
    with after(moving.DATABASE):
        browser = browse()
        put(browser, cart="teapot")
    key = key_of(browser)

    def mark(mark_of, payload_of):
        stored = SessionStore.read(digest_of(key))
        payload = mark_of + payload_of(stored.payload)
        assert SessionStore.replace(digest_of(key), payload, None, version_of(stored.payload))

    def others_go_on():
        mark(b"", unmarked)
        theirs = session_in(moving.DATABASE, key)
        theirs["theirs"] = "yes"
        theirs.save()
        # This process looks what there is now, and then another one moves the session.
        interleaving.after(monkeypatch, SessionStore, "read", lambda: mark(new_mark(), bytes))

    interleaving.before(monkeypatch, SessionStore, "take", others_go_on)
    engine = type(session_in(moving.DATABASE, key))
    assert SessionStore(key).return_to(engine) is None
    assert session_in(moving.DATABASE, key).load() == {"cart": "teapot", "theirs": "yes"}
