"""The key of a session changes, and the answer is lost, or the change breaks off half-way."""

import pytest
from django.db import OperationalError

from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.models import UserSession
from tests import store
from tests.browsers import browse_as, cart, given, put, read, sets_no_cookie, view
from tests.people import is_in, is_told, key_of, row_of
from tests.renewals import AFTER, DUE, GRACE, WRITES, renewed, seen
from tests.store import DAY, later

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("keys_change"),
    pytest.mark.transports("cookie", "header"),
]


# The answer with the new cookie is lost.


def test_an_answer_that_is_lost_costs_nothing(shopper, reused):
    browser = shopper()
    old = renewed(browser)
    new = key_of(browser)
    lost = browse_as(browser, old)
    for seconds in (DUE + 5, DUE + 10 * GRACE, 2 * DUE + 100, DAY, 10 * DAY, 20 * DAY, 30 * DAY):
        with later(seconds):
            lost.cookies["sessionid"] = old
            response = put(lost, day=seconds)
            assert response.status_code == 200
            # Told again, and no second successor.
            assert given(response) == new
            for cookie in response.cookies.values():
                assert 14 * DAY - 60 < cookie["max-age"] <= 14 * DAY
            assert given(read(browse_as(browser, old))) == new
            assert is_in(browse_as(browser, old))
            assert len(store.payloads()) == 2
    with later(30 * DAY + 5):
        assert read(browse_as(browser, new)).json() == {"cart": "teapot", "day": str(30 * DAY)}
    assert UserSession.objects.get().digest == digest_of(new)
    assert not reused


def test_an_answer_that_is_lost_costs_nothing_who_only_reads(shopper):
    browser = shopper()
    old = renewed(browser)
    new = key_of(browser)
    for days in (1, 14, 27, 40):
        with later(days * DAY):
            response = read(browse_as(browser, old))
            assert response.json() == {"cart": "teapot"}
            assert given(response) == new
    assert len(store.payloads()) == 2
    with later(55 * DAY):  # then it is over
        assert not is_in(browse_as(browser, old))
        assert not is_in(browse_as(browser, new))


def test_an_answer_that_is_lost_is_told_again_once_somebody_is_there(shopper):
    browser = shopper()
    old = renewed(browser)
    with later(DUE + 5):
        poll = browse_as(browser, old)
        response = poll.get(view(poll, "read"), headers={"X-Background-Request": "1"})
        assert sets_no_cookie(response)
        assert given(read(poll)) == key_of(browser)


def test_a_failing_answer_does_not_tell_it_again(shopper):
    browser = shopper()
    old = renewed(browser)
    with later(DUE + 5):
        assert sets_no_cookie(browse_as(browser, old).get("/fail/"))


def test_two_answers_that_are_lost(shopper, reused):
    browser = shopper()
    first = renewed(browser)
    second = renewed(browser, after=2 * DUE + 10)  # by its first use
    third = key_of(browser)
    assert len({first, second, third}) == 3
    with later(2 * DUE + 15):
        for key in (first, second):
            response = read(browse_as(browser, key))
            assert response.json() == {"cart": "teapot"}
            assert given(response) == (third if key == second else None)
    with later(2 * DUE + 15 + 2 * GRACE):
        assert is_in(browser)
        # The grace of the second begins, and that of the first is over.
        assert is_in(browse_as(browser, second))
        assert not is_in(browse_as(browser, first))
    assert len(reused) == 1


def test_the_grace_counts_from_the_first_use_of_the_new_key(shopper, reused):
    browser = shopper()
    old = renewed(browser)
    with later(DUE + 50 * GRACE):
        assert is_in(browse_as(browser, old))
    seen(browser, DUE + 50 * GRACE + 5)
    with later(DUE + 51 * GRACE - 10):
        tab = browse_as(browser, old)
        assert cart(tab) == "teapot"
        assert sets_no_cookie(put(tab, theme="dark"))
    assert not reused
    with later(DUE + 51 * GRACE + 10):
        assert read(browser).json() == {"cart": "teapot", "theme": "dark"}
        assert not is_in(browse_as(browser, old))
    assert len(reused) == 1


def test_later_uses_of_the_new_key_do_not_prolong_the_grace(shopper, reused):
    browser = shopper()
    old = renewed(browser)
    for seconds in range(5, GRACE + 30, 10):
        seen(browser, DUE + seconds)
    with later(DUE + GRACE + 30):
        assert not is_in(browse_as(browser, old))
    assert len(reused) == 1


def test_a_use_in_the_background_is_a_use_of_the_new_key(shopper, reused):
    """Else the old one would be good for as long as a page is open that asks for news."""
    browser = shopper()
    old = renewed(browser)
    with later(DUE + 5):
        browser.get(view(browser, "poll"))
    with later(DUE + GRACE + 30):
        assert not is_in(browse_as(browser, old))
    assert len(reused) == 1


# It breaks off half-way.


@pytest.mark.parametrize("visit", [5, 70], ids=["soon", "after an interval"])
@pytest.mark.parametrize("answer", ["arrives", "is lost"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", WRITES)
@pytest.mark.standard("ASVS-16.5.2", "ASVS-16.5.3")
def test_a_renewal_that_breaks_off(shopper, at, reused, step, after, answer, visit):
    """A store is down, or the process is killed; or it is done, and nobody hears of it."""

    def fail():
        raise OperationalError("no route to host")

    browser = shopper()
    old = key_of(browser)
    with later(DUE):
        pending = at(step, fail, after)
        assert cart(browser) == "teapot"
        assert not pending
    if answer == "is lost":
        browser.cookies["sessionid"] = old
    # Then, when the activity is written the next times, and at the next renewal.
    for seconds in (visit, visit + 5, 80, 150, AFTER + 85, AFTER + 90, AFTER + 90 + 2 * GRACE):
        with later(DUE + seconds):
            assert cart(browser) == "teapot"
            assert is_in(browser)
    assert key_of(browser) != old
    assert row_of(browser).ended_at is None
    assert not reused


@pytest.mark.parametrize("step", WRITES)
@pytest.mark.standard("ASVS-7.4.1")
def test_what_broke_off_can_be_ended(shopper, at, step):
    def fail():
        raise OperationalError("no route to host")

    browser = shopper()
    old = key_of(browser)
    with later(DUE):
        at(step, fail, after=True)
        assert is_in(browser)
    with later(DUE + 5):
        assert is_in(browser)
        assert [row.pk for row in UserSession.objects.alive()] == [UserSession.objects.get().pk]
        assert UserSession.objects.revoke() == 1
        assert not is_in(browse_as(browser, old))
    with later(DUE + 66):  # within an interval
        for key in (old, key_of(browser)):
            assert not is_in(browse_as(browser, key))
    assert UserSession.objects.alive() == []


@pytest.mark.parametrize("step", WRITES)
def test_what_the_view_writes_is_kept_when_it_breaks_off(shopper, at, step):
    def fail():
        raise OperationalError("no route to host")

    browser = shopper()
    with later(DUE):
        pending = at(step, fail, after=True)
        assert put(browser, theme="dark").status_code == 200
        assert not pending
        assert read(browser).json() == {"cart": "teapot", "theme": "dark"}


@pytest.mark.redis
@pytest.mark.parametrize("at_what_time", ["before", "when it was new", "when it was seen"])
def test_redis_comes_back_with_what_it_had_before(shopper, reused, at_what_time):
    def copy():
        return {key: (store.client().dump(key), store.client().pttl(key)) for key in keys()}

    def keys():
        return [*store._keys().values()]

    browser = shopper()
    older = copy()
    old = renewed(browser)
    if at_what_time != "before":
        older = copy()
    seen(browser)
    if at_what_time == "when it was seen":
        older = copy()
    with later(DUE + 20):
        put(browser, theme="dark")
    store.client().delete(*keys())
    for key, (value, milliseconds) in older.items():
        store.client().restore(key, milliseconds, value)
    if at_what_time == "before":
        # The new key was lost, and the old one is not what the row says: out, and told so.
        with later(DUE + 80):
            assert is_told(browser, b"You were signed out.")
            assert not is_in(browse_as(browser, old))
        return
    for seconds in (30, 35, 80, 140, AFTER + 90, AFTER + 100):
        with later(DUE + seconds):
            assert cart(browser) == "teapot"
    assert row_of(browser).ended_at is None
    assert not reused
