"""From the database engine to the one on Redis, and from that to the other: as it is sealed."""

from importlib import import_module

import pytest
from django.contrib.auth import SESSION_KEY
from django.db import transaction

from django_sessionkit.backends import adopting
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, UserSession
from tests.browsers import cart, put, view
from tests.interleaving import before, together
from tests.moving import BETWEEN, all_at_once, generation, restarted
from tests.people import is_still_in, key_of, only_row, post_sign_in
from tests.policies import LOCK
from tests.store import HOUR, later

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.redis]


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Whoever waits for another process, which a test keeps from going on, does not wait long."""
    monkeypatch.setattr(adopting, "PAUSE", 0)


@pytest.fixture(params=BETWEEN, ids=["to Redis", "to the database"])
def engines(request):
    return request.param


@pytest.fixture
def there(engines):
    """The class of the engine that the site has had before."""
    return import_module(engines[0]).SessionStore


@pytest.fixture
def here(engines):
    """The class of the engine that it has now."""
    return import_module(engines[1]).SessionStore


@pytest.fixture
def shopper_there(shopper, engines):
    """Alice, signed in and with something in her cart, before the site moves."""
    with generation(engines[0]):
        browser = shopper()
    return restarted(browser)


@pytest.fixture
def visitor_there(browse, engines):
    with generation(engines[0]):
        browser = browse()
        put(browser, cart="teapot")
    return restarted(browser)


@pytest.fixture
def moved(engines):
    """The site has moved."""
    with generation(engines[1], (engines[0],)):
        yield


def test_session_moves_as_it_is_sealed(shopper_there, there, here, moved):
    key, row = key_of(shopper_there), only_row()
    before_that = there.read(digest_of(key))
    assert is_still_in(shopper_there)
    assert cart(shopper_there) == "teapot"
    assert key_of(shopper_there) == key
    assert here.read(digest_of(key)).payload == before_that.payload
    assert there.read(digest_of(key)) is None
    after_that = only_row()
    assert (after_that.pk, after_that.started_at) == (row.pk, row.started_at)
    assert after_that.authenticated_at == row.authenticated_at
    assert after_that.adopted_at is None


def test_cart_of_a_visitor_moves(visitor_there, there, moved):
    assert cart(visitor_there) == "teapot"
    assert there.read(digest_of(key_of(visitor_there))) is None


def test_session_has_as_much_time_as_before(visitor_there, here, moved, drive):
    session = here(key_of(visitor_there))
    drive(session, "load")
    with later(14 * 24 * HOUR - 60):
        assert here(key_of(visitor_there)).load() == {"cart": "teapot"}
    with later(14 * 24 * HOUR + 60):
        assert here(key_of(visitor_there)).load() == {}


def test_age_that_the_site_has_asked_for_moves_along(visitor_there, engines, there, here):
    with generation(engines[0]):
        session = there(key_of(visitor_there))
        session.set_expiry(300)
        session.save()
    with generation(engines[1], (engines[0],)):
        assert here(key_of(visitor_there)).get_expiry_age() == 300
        with later(301):
            assert here(key_of(visitor_there)).load() == {}


def test_devices_that_have_not_moved_yet_are_listed_and_can_be_ended(
    shopper_there, browse, moved, there
):
    phone = browse()
    post_sign_in(phone)
    assert UserSession.objects.count() == 2
    assert len(UserSession.objects.alive()) == 2
    assert "Sign out all other devices (1)" in phone.get("/account/sessions/").text
    other = UserSession.objects.filter(digest=digest_of(key_of(shopper_there)))
    assert other.revoke() == 1
    assert there.read(digest_of(key_of(shopper_there))) is None
    assert not is_still_in(shopper_there)


def test_device_that_was_ended_does_not_move(shopper_there, moved, monkeypatch, there, here):
    """The old store does not answer when it is ended, and has the session afterwards."""
    with monkeypatch.context() as patch:
        patch.setattr(there, "remove", classmethod(lambda cls, digests: None))
        UserSession.objects.revoke()
    digest = digest_of(key_of(shopper_there))
    assert there.read(digest)
    assert not is_still_in(shopper_there)
    assert there.read(digest) is None
    assert here.read(digest) is None


def test_purge_knows_what_has_not_moved_yet(shopper_there, moved, here):
    with later(HOUR):
        here.clear_expired()
        assert only_row().ended_at is None
        assert is_still_in(shopper_there)


def test_session_that_was_locked_for_idleness_moves_locked(
    signed_in, engines, policy, there, clock
):
    policy(**LOCK)
    with generation(engines[0]):
        browser = signed_in()
        put(browser, cart="teapot")
    clock.move(seconds=600)
    with generation(engines[1], (engines[0],)):
        browser = restarted(browser)
        assert not is_still_in(browser)
        assert only_row().ended_at is None
        browser.post("/account/sessions/reauthenticate/", {"password": "secret"})
        assert cart(browser) == "teapot"


def test_former_key_leads_to_a_session_that_has_moved(signed_in, engines, policy, browse):
    policy(renew_after=60, renew_grace=HOUR)
    with generation(engines[0]):
        browser = signed_in()
        put(browser, cart="teapot")
        former = key_of(browser)
        with later(70):
            assert is_still_in(browser)
        assert key_of(browser) != former
    with generation(engines[1], (engines[0],)), later(80):
        late = restarted(browser)
        late.cookies["sessionid"] = former
        assert cart(late) == "teapot"
        assert only_row().ended_at is None


def test_twenty_requests_at_once_move_a_session_once(shopper_there, there, here, moved):
    key = key_of(shopper_there)

    def use(mine):
        assert mine["cart"] == "teapot"

    all_at_once(20, here, key, use)
    assert there.read(digest_of(key)) is None
    assert here.read(digest_of(key))
    assert only_row().ended_at is None


# Processes with either engine serve side by side: each takes from the other.


@pytest.fixture
def side_by_side(engines):
    """Each process has one of the engines, and takes sessions from the other one."""
    with generation(engines[1], engines):
        yield


def test_writes_of_two_kinds_of_processes_are_all_kept(
    visitor_there, there, here, side_by_side, drive
):
    key = key_of(visitor_there)
    theirs, ours = there(key), here(key)
    drive(theirs, "get", "cart")
    drive(ours, "get", "cart")  # takes it
    for number in range(3):
        theirs[f"old{number}"] = ours[f"new{number}"] = number
        drive(theirs, "save")
        drive(ours, "save")
    stored = here(key).load()
    assert len(stored) == 7
    assert there.read(digest_of(key)) is None


def test_write_of_another_process_while_a_session_moves_comes_along(
    shopper_there, there, here, side_by_side, monkeypatch
):
    key = key_of(shopper_there)

    theirs = there(key)
    theirs["language"] = "de"
    left = before(monkeypatch, there, "take", theirs.save)
    assert here(key).get("cart") == "teapot"
    assert not left
    stored = here(key).load()
    assert (stored["cart"], stored["language"]) == ("teapot", "de")
    assert stored[SESSION_KEY]
    assert there.read(digest_of(key)) is None
    assert only_row().ended_at is None


@pytest.mark.parametrize("step", ["insert", "take"])
def test_nobody_reads_what_is_old_while_a_session_moves(
    visitor_there, there, here, side_by_side, monkeypatch, step
):
    """What was saved there, a moment ago, is what one reads here, and the other way round."""
    key = key_of(visitor_there)
    seen = []

    def write_and_read():
        theirs = there(key)
        theirs["cart"] = "kettle"
        theirs.save()
        seen.append(here(key)["cart"])
        seen.append(there(key)["cart"])

    left = before(monkeypatch, here if step == "insert" else there, step, write_and_read)
    assert here(key)["cart"] == "kettle"
    assert not left
    assert seen == ["kettle", "kettle"]
    assert here(key).load() == {"cart": "kettle"}
    assert there.read(digest_of(key)) is None


@pytest.mark.parametrize("step", ["insert", "take"])
def test_process_that_is_killed_while_it_moves_a_session(
    shopper_there, there, here, moved, monkeypatch, step
):
    def kill():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        before(patch, here if step == "insert" else there, step, kill)
        with pytest.raises(KeyboardInterrupt):
            here(key_of(shopper_there)).load()
    assert is_still_in(shopper_there)
    assert cart(shopper_there) == "teapot"
    assert only_row().ended_at is None


def test_process_of_the_old_engine_goes_on_with_what_nobody_moves(
    shopper_there, there, here, engines, monkeypatch
):
    """A process that was to move the session is killed, and the site goes back at once."""
    key = key_of(shopper_there)
    with monkeypatch.context() as patch, generation(engines[1], (engines[0],)):
        patch.setattr(here, "insert", None)
        with pytest.raises(TypeError):
            here(key).load()
    with generation(engines[0], (engines[1],)):
        theirs = there(key)
        theirs["cart"] = "kettle"
        theirs.save()
        assert cart(restarted(shopper_there)) == "kettle"


def test_process_that_takes_too_long_loses_nothing(visitor_there, there, here, moved, monkeypatch):
    """The old processes do not know the new store: after a while they go on with what is theirs."""
    key = key_of(visitor_there)

    def write():
        theirs = there(key)
        theirs["theirs"] = "yes"
        theirs.save()

    def write_in_both():
        write()
        ours = here(key)
        ours["ours"] = "yes"
        ours.save()

    for act, expected in [(write, {"theirs"}), (write_in_both, {"theirs", "ours"})]:
        with monkeypatch.context() as patch:
            left = before(patch, there, "take", act)
            here(key).load()
            assert not left
        stored = here(key).load()
        assert stored["cart"] == "teapot"
        assert expected <= stored.keys()
        assert there.read(digest_of(key)) is None
        with generation(there.__module__, (here.__module__,)):
            there(key).load()  # back to where it was


def test_sign_out_with_one_is_one_with_the_other(shopper_there, there, here, side_by_side, drive):
    key = key_of(shopper_there)
    theirs, ours = there(key), here(key)
    drive(theirs, "load")
    drive(ours, "load")
    drive(theirs, "flush")
    assert drive(ours, "load") == {}
    assert there(key).load() == here(key).load() == {}
    assert only_row().end_reason == EndReason.LOGOUT


def test_two_users_of_one_session_who_move_it_to_and_fro(visitor_there, there, here, side_by_side):
    key = key_of(visitor_there)

    def count(store, name):
        for number in range(1, 21):
            mine = store(key)
            assert mine["cart"] == "teapot"
            mine[name] = mine.get(name, 0) + 1
            assert mine[name] == number
            mine.save()

    together(lambda: count(there, "old"), lambda: count(here, "new"))
    assert here(key).load() == {"cart": "teapot", "old": 20, "new": 20}


# What goes wrong.


def test_old_store_that_is_down_signs_nobody_out(shopper_there, there, moved, monkeypatch, browse):
    other = browse()
    post_sign_in(other)
    with monkeypatch.context() as patch:

        def fail(*args):
            raise there.unavailable[0]("no route to host")

        patch.setattr(there, "read", staticmethod(fail))
        assert shopper_there.get(view(shopper_there, "whoami")).status_code == 503
        assert is_still_in(other)
    assert is_still_in(shopper_there)


def test_session_of_another_secret_key_stays_where_it_is(shopper_there, there, moved, settings):
    key = key_of(shopper_there)
    settings.SECRET_KEY, right = "another", settings.SECRET_KEY
    assert not is_still_in(shopper_there)
    assert there.read(digest_of(key))
    assert only_row().ended_at is None
    settings.SECRET_KEY = right
    shopper_there.cookies["sessionid"] = key
    assert is_still_in(shopper_there)


def test_view_whose_transaction_is_rolled_back_signs_nobody_out(shopper_there, here, moved):
    with transaction.atomic():
        assert here(key_of(shopper_there))["cart"] == "teapot"
        transaction.set_rollback(True)
    with later(61):
        assert is_still_in(shopper_there)
    assert only_row().ended_at is None


def test_store_that_is_down_does_not_keep_the_other_from_ending_a_session(
    shopper_there, moved, monkeypatch, there, here
):
    def fail(digests):
        raise here.unavailable[0]("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(here, "remove", staticmethod(fail))
        with pytest.raises(StoreUnavailable):
            UserSession.objects.revoke()
    assert only_row().end_reason == EndReason.REVOKED
    assert there.read(digest_of(key_of(shopper_there))) is None
