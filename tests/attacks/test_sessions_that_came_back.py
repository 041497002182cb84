"""
Published attacks on other systems, tried on this one: a session that has ended is used all the
same. docs/security.md has the list.
"""

import threading
from contextlib import suppress

import pytest
from django.db import connection

from django_sessionkit import registry
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import UserSession
from tests import desk, store
from tests.accounts import alive, changed, disabled, listed
from tests.browsers import browse_as, put, read
from tests.interleaving import after, before, elsewhere, together
from tests.pages import press
from tests.people import IPHONE, handle, is_in, key_of, post_sign_in, sign_in, who
from tests.renewals import AFTER, DUE, OPEN_STEPS, STEPS
from tests.store import DAY, HOUR, SessionStore, later

pytestmark = [pytest.mark.django_db, pytest.mark.site("tests.calls")]

ADMIN = "/admin/django_sessionkit/usersession/"
# What others see of a sign-in that is under way: first nothing, then its row. In one transaction
# with its session the row is not seen before that, and SQLite has nobody else write meanwhile.
MOMENTS = [before, after] if store.ON_REDIS or connection.vendor != "sqlite" else [before]
# The steps of a request that writes its activity, and of one that also gives the session a new key.
REFRESHES = [(False, step) for step in ("read", "verify", "note", "touch")]
REFRESHES += [(True, step) for step in OPEN_STEPS]


@pytest.fixture
def meanwhile(monkeypatch):
    """Have somebody else act, in a request of their own, just before or after a step."""

    def meanwhile(when, owner, step, act):
        return when(monkeypatch, owner, step, lambda: elsewhere(act))

    return meanwhile


def revokes(browser):
    assert UserSession.objects.revoke() == 1


def signs_out(browser):
    assert browse_as(browser, key_of(browser)).post("/logout/").status_code == 302


# A request under way writes a session that was destroyed: @fastify/session.


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("ends", [revokes, signs_out])
@pytest.mark.parametrize(("when", "step"), [(after, "read"), (before, "replace")])
@pytest.mark.parametrize("saves_always", [False, True])
@pytest.mark.standard("ASVS-7.4.1", "ASVS-15.4.2", "WSTG-SESS-06")
def test_cve_2026_117499_request_under_way_does_not_bring_back_what_was_destroyed(
    shopper, meanwhile, settings, ends, when, step, saves_always
):
    settings.SESSION_SAVE_EVERY_REQUEST = saves_always
    browser = shopper()
    key = key_of(browser)
    pending = meanwhile(when, SessionStore, step, lambda: ends(browser))
    put(browser, theme="dark")
    assert not pending
    assert not store.payloads()
    assert who(browse_as(browser, key)) != "alice"
    assert who(browser) != "alice"
    assert alive() == set()


# The list of a user's sessions says another thing than the store: better-auth.


@pytest.mark.django_db(transaction=True)
@pytest.mark.standard("ASVS-7.4.5", "ASVS-7.5.2", "ASVS-15.4.2")
def test_cve_2026_134321_sign_ins_at_the_same_moment_are_all_listed_and_all_end(
    alice, browse, monkeypatch
):
    everybody = threading.Barrier(8)
    enter = registry.enter

    def all_at_once(*args):
        everybody.wait(30)
        return enter(*args)

    browsers = [browse() for _ in range(8)]
    with monkeypatch.context() as patch:
        patch.setattr(registry, "enter", all_at_once)
        together(*[lambda browser=browser: post_sign_in(browser) for browser in browsers])
    assert all(is_in(browser) for browser in browsers)
    assert len(listed(browsers[0])) == len(store.payloads()) == 8
    current = SessionStore(key_of(browsers[0]))
    assert UserSession.objects.other_than(current).revoke() == 7
    assert [is_in(browser) for browser in browsers] == [True] + [False] * 7


def test_cve_2026_134321_session_that_is_not_on_the_list_goes_no_further(signed_in):
    """Somebody has deleted the row, so that nobody can see or end the session."""
    browser = signed_in()
    UserSession.objects.all().delete()
    with later(conf.SESSIONKIT_TOUCH_INTERVAL):
        assert not is_in(browser)
    assert not store.payloads()


@pytest.mark.standard("ASVS-7.4.1", "ASVS-7.4.5")
def test_cve_2026_134321_nobody_remembers_that_a_session_was_good(signed_in):
    """Neither a cookie, nor a process that has just seen the session."""
    browser = signed_in()
    assert is_in(browser)
    UserSession.objects.revoke()
    assert not is_in(browse_as(browser, key_of(browser)))


@pytest.mark.usefixtures("store_down")
@pytest.mark.standard("ASVS-7.4.1", "ASVS-7.4.5")
def test_cve_2026_134321_session_whose_removal_was_lost_lives_for_one_interval(signed_in):
    browser = signed_in()
    with suppress(StoreUnavailable):
        UserSession.objects.revoke()
    assert len(store.payloads()) == 1
    with later(conf.SESSIONKIT_TOUCH_INTERVAL):
        assert browser.get("/private/").status_code == 503  # the store still does not remove it


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("renewing", "step"), REFRESHES)
@pytest.mark.standard("ASVS-7.4.1", "ASVS-15.4.2")
def test_cve_2026_134321_refresh_under_way_does_not_undo_a_revocation(
    shopper, policy, meanwhile, renewing, step
):
    """By a later expiry, or by a new key."""
    policy(renew_after=AFTER if renewing else None)
    browser = shopper()
    old = key_of(browser)
    with later(DUE):
        pending = meanwhile(before, *STEPS[step], lambda: revokes(browser))
        read(browser)
        assert not pending
        for key in {old, key_of(browser)} - {""}:
            assert not is_in(browse_as(browser, key))
    assert alive() == set()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.standard("ASVS-7.4.5", "ASVS-15.4.2")
def test_cve_2026_134321_sign_in_under_way_over_the_end_of_all_is_not_hidden(
    signed_in, browse, meanwhile, moment
):
    """Either it has ended with the others, or it came after them, and is on the list."""
    signed_in()
    browser = browse()
    pending = meanwhile(moment, registry, "enter", UserSession.objects.revoke)
    post_sign_in(browser)
    assert not pending
    has_ended = moment is after and store.ON_REDIS
    assert (is_in(browser), len(alive())) == ((False, 0) if has_ended else (True, 1))
    UserSession.objects.revoke()
    assert not is_in(browser)
    assert not store.payloads()


# Who signs in while the password is reset: Wasp.


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", [changed, disabled])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.standard("ASVS-7.4.2", "ASVS-7.4.3", "ASVS-15.4.2")
def test_wasp_4696_sign_in_under_way_with_the_old_password_does_not_outlive_it(
    alice, browse, meanwhile, moment, change
):
    thief = browse()
    pending = meanwhile(moment, registry, "enter", lambda: change(alice))
    post_sign_in(thief)
    assert not pending
    assert not is_in(thief)
    with later(HOUR):
        assert not is_in(thief)
    assert alive() == set()


@pytest.mark.usefixtures("store_down")
@pytest.mark.standard("ASVS-7.4.3")
def test_wasp_4696_reset_that_fails_half_way_still_ends_what_the_old_password_began(
    signed_in, alice
):
    """The password is saved, and the store does not remove the sessions."""
    browser = signed_in()
    changed(alice)
    assert len(store.payloads()) == 1
    assert browser.get("/private/").status_code == 503  # the store still does not remove it


# Sessions end only when somebody clears them up: web.py.


@pytest.mark.parametrize("rules", [{"idle": 600}, {"absolute": 600}, {}])
@pytest.mark.standard("ASVS-7.3.1", "ASVS-7.3.2")
def test_cve_2026_79313_session_expires_although_nothing_clears_it_up(
    signed_in, policy, clock, settings, rules
):
    settings.SESSION_COOKIE_AGE = 600 if rules == {} else DAY
    policy(**{"absolute": 30 * DAY, **rules})
    browser = signed_in()
    digest = UserSession.objects.get().digest
    if rules:  # the store would keep it for longer; otherwise it is for the store to say
        assert SessionStore.touch(digest, store.now(), store.now() + 2000 * DAY)
    clock.move(seconds=599)
    assert SessionStore(key_of(browser)).handle
    clock.move(seconds=1)
    if rules or not store.ON_REDIS:
        assert digest in store.payloads()
    assert not is_in(browser)


# Staff delete a session in the admin, and it goes on: authentik.


@pytest.mark.parametrize("how", ["page", "action", "user"])
@pytest.mark.standard("ASVS-7.4.5")
def test_cve_2025_29928_what_staff_delete_is_over(alice, bob, root, how):
    staff, phone, other = sign_in(root), sign_in(alice, IPHONE), sign_in(bob)
    key = key_of(phone)
    match how:
        case "page":
            desk.end(staff, desk.delete_url(phone))
        case "action":
            desk.answer(staff, desk.choose(staff, "delete_selected", handle(phone)))
        case "user":
            press(staff, f"/admin/auth/user/{alice.pk}/delete/", post="yes")
    assert not SessionStore().exists(key)
    assert not is_in(phone)
    assert is_in(other, bob)
    assert is_in(staff, root)
