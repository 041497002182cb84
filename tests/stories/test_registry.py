"""
Every signed-in session is a row, however the sign-in came about, and one verb ends it.
"""

import uuid
from datetime import timedelta

import pytest
from django.conf import settings
from django.contrib import auth
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.core.exceptions import ValidationError
from django.db import DatabaseError, OperationalError, connection, transaction
from django.http import HttpRequest
from django.test import Client as Browser
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_sessionkit import models, ranges, registry
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, UserSession, uuid7
from django_sessionkit.signals import sessions_ended
from django_sessionkit.visit.client import Client
from django_sessionkit.visit.current import current_request
from django_sessionkit.visit.interruptions import NoAnswer
from tests import store
from tests.interleaving import before, elsewhere
from tests.people import FIREFOX, key_of, post_sign_in
from tests.store import SessionStore, again, round_trips, travel

pytestmark = [pytest.mark.django_db, pytest.mark.transports("cookie", "header")]


@pytest.fixture
def log_in(drive):
    """Sign in on a session, by login() or by alogin(), and save as the middleware does."""

    def log_in(user, session=None, **headers):
        request = RequestFactory(headers=headers).get("/")
        request.session = SessionStore() if session is None else session
        drive(auth, "login", request, user)
        drive(request.session, "save")
        return request

    return log_in


# A row for every sign-in.


def test_a_visitor_has_no_row(drive):
    session = SessionStore()
    session["cart"] = ["teapot"]
    drive(session, "save")
    assert session.handle is None
    assert not UserSession.objects.exists()


@pytest.mark.standard("ASVS-16.3.1")
def test_a_sign_in_is_a_row(alice, log_in):
    before = timezone.now() - timedelta(milliseconds=1)  # the clock of the rows ticks so
    request = log_in(alice)
    row = UserSession.objects.get()
    assert row.user == alice
    assert row.id == request.session.handle
    assert row.digest == digest_of(request.session.session_key)
    assert before <= row.started_at == row.authenticated_at == row.last_seen_at <= timezone.now()
    age = row.expires_at - row.started_at
    assert (
        timedelta(0) <= age - timedelta(seconds=settings.SESSION_COOKIE_AGE) < timedelta(seconds=1)
    )
    assert row.ended_at is None
    assert list(alice.sessionkit_sessions.active()) == [row]


@pytest.mark.standard("ASVS-7.2.4", "NIST-SB-3", "NIST-SB-6", "NIST-SB-8", "WSTG-SESS-03")
def test_a_cart_is_carried_over_the_sign_in(alice, log_in):
    visitor = SessionStore()
    visitor["cart"] = ["teapot"]
    visitor.save()
    old = visitor.session_key
    request = log_in(alice, SessionStore(old))
    assert again(request.session)["cart"] == ["teapot"]
    assert not SessionStore().exists(old)
    assert UserSession.objects.count() == 1


def test_force_login_makes_a_row_of_an_unknown_device(alice):
    browser = Browser()
    browser.force_login(alice)
    row = UserSession.objects.get()
    assert (row.user, row.ip, row.user_agent) == (alice, None, "")
    assert str(row) == "alice: Unknown device"


def test_signing_in_through_the_site_knows_the_device(alice):
    browser = Browser(headers={"user-agent": FIREFOX}, REMOTE_ADDR="192.0.2.7")
    browser.post("/login/", {"username": "alice", "password": "secret"})
    row = UserSession.objects.get()
    assert (row.ip, row.user_agent, str(row.device)) == ("192.0.2.7", FIREFOX, "Firefox on Linux")


def test_a_dictionary_that_somebody_filled_by_hand_is_a_sign_in_too(alice, drive):
    session = SessionStore()
    session[auth.SESSION_KEY] = str(alice.pk)
    drive(session, "create")
    assert UserSession.objects.get().user == alice


def test_a_sign_in_whose_key_is_cycled_before_it_is_saved_has_a_row(alice, drive):
    session = SessionStore()
    session["cart"] = []
    session.save()
    session[auth.SESSION_KEY] = str(alice.pk)
    drive(session, "cycle_key")
    assert UserSession.objects.get().digest == digest_of(session.session_key)


def test_a_sign_in_under_a_key_that_is_taken_leaves_no_row(alice, drive):
    visitor = SessionStore()
    visitor.save()
    session = SessionStore(visitor.session_key)
    session[auth.SESSION_KEY] = str(alice.pk)
    with pytest.raises(CreateError):
        drive(session, "save", must_create=True)
    assert not UserSession.objects.exists()


def test_a_sign_in_on_a_session_that_is_gone_leaves_no_row(alice, drive):
    session = SessionStore()
    session.save()
    session[auth.SESSION_KEY] = str(alice.pk)
    SessionStore.remove([digest_of(session.session_key)])
    with pytest.raises(UpdateError):
        drive(session, "save")
    assert not UserSession.objects.exists()


def test_handles_are_uuids_of_version_7_in_order_of_time():
    first = uuid7()
    with travel(timedelta(seconds=1)):
        second = uuid7()
    assert (first.version, first.variant) == (7, uuid.RFC_4122)
    assert first < second
    assert len({uuid7() for _ in range(1000)}) == 1000


# The row follows its session.


def test_a_new_key_keeps_the_row(alice, log_in, drive):
    request = log_in(alice)
    row = UserSession.objects.get()
    drive(request.session, "cycle_key")
    followed = UserSession.objects.get()
    assert followed.id == row.id == again(request.session).handle
    assert followed.digest == digest_of(request.session.session_key) != row.digest
    assert followed.started_at == row.started_at
    assert followed.authenticated_at == row.authenticated_at


@pytest.mark.standard("ASVS-7.2.4")
def test_a_password_change_keeps_the_row(alice, log_in, drive):
    async def auser():
        return alice

    request = log_in(alice)
    request.user, request.auser = alice, auser
    row = UserSession.objects.get()
    old = request.session.session_key
    current_request.set(request)  # as the middleware does
    alice.set_password("new")
    alice.save()
    drive(auth, "update_session_auth_hash", request, alice)
    drive(request.session, "save")
    assert UserSession.objects.get().id == row.id
    assert request.session.session_key != old
    request.session = again(request.session)
    assert auth.get_user(request) == alice
    current_request.set(None)


@pytest.mark.standard("ASVS-7.2.2", "ASVS-7.2.4", "NIST-SB-6", "NIST-SB-8")
def test_signing_in_again_gives_a_new_key_to_the_same_row(alice, log_in):
    """ASVS 7.2.4; Django's login() keeps the key."""
    request = log_in(alice)
    old = request.session.session_key
    with travel(timedelta(hours=1)):
        request = log_in(alice, again(request.session))
    row = UserSession.objects.get()
    assert request.session.session_key != old
    assert not SessionStore().exists(old)
    assert row.id == request.session.handle
    assert row.authenticated_at - row.started_at > timedelta(minutes=59)


def test_signing_in_again_costs_one_new_key_only_when_it_is_the_same_session(alice, log_in):
    request = log_in(alice)
    assert UserSession.objects.count() == 1
    assert len(store.payloads()) == 1
    assert again(request.session).handle == request.session.handle


def test_others_may_send_the_signal_of_a_sign_in_without_a_session(alice):
    user_logged_in.send(User, request=None, user=alice)
    user_logged_in.send(User, request=HttpRequest(), user=alice)
    user_logged_in.send(User, user=alice)


def test_another_user_on_the_same_device_is_another_row(alice, bob, log_in):
    first = log_in(alice)
    hers = first.session.handle
    second = log_in(bob, again(first.session))
    row = UserSession.objects.get(pk=hers)
    assert row.end_reason == EndReason.REPLACED
    assert row.ended_at
    assert second.session.handle != hers
    assert list(UserSession.objects.active()) == [UserSession.objects.get(user=bob)]
    assert again(second.session).get(auth.SESSION_KEY) == str(bob.pk)


@pytest.mark.parametrize("kind", [int, str])
def test_a_user_whose_key_was_written_as_a_number_by_hand_is_the_same(
    alice, log_in, drive, ended, kind
):
    session = SessionStore()
    session[auth.SESSION_KEY] = kind(alice.pk)
    session[auth.HASH_SESSION_KEY] = alice.get_session_auth_hash()
    drive(session, "save")
    handle, first_key = session.handle, session.session_key
    session = again(session)
    session[auth.SESSION_KEY] = kind(alice.pk)
    drive(session, "save")
    drive(session, "cycle_key")
    for _ in range(2):
        log_in(alice, session)
        assert session.handle == handle
    assert session.session_key != first_key
    assert not ended
    assert UserSession.objects.get().user == alice


def test_what_is_no_key_of_a_user_is_nobody(drive):
    session = SessionStore()
    session[auth.SESSION_KEY] = "nonsense"
    with pytest.raises(ValidationError):  # as Django's get_user() says
        drive(session, "save")
    assert not UserSession.objects.exists()


def test_a_user_who_is_exchanged_by_hand_is_another_row(alice, bob, log_in, drive):
    request = log_in(alice)
    request.session[auth.SESSION_KEY] = str(bob.pk)
    old = request.session.session_key
    drive(request.session, "save")
    assert UserSession.objects.get(user=alice).end_reason == EndReason.REPLACED
    assert UserSession.objects.active().get().user == bob
    assert not SessionStore().exists(old)
    assert again(request.session).get(auth.SESSION_KEY) == str(bob.pk)


def test_a_user_who_is_removed_by_hand_has_signed_out(alice, log_in, drive):
    request = log_in(alice)
    request.session.clear()
    request.session["cart"] = ["teapot"]
    old = request.session.session_key
    drive(request.session, "save")
    assert UserSession.objects.get().end_reason == EndReason.LOGOUT
    assert not SessionStore().exists(old)
    assert again(request.session).handle is None
    assert again(request.session)["cart"] == ["teapot"]


@pytest.mark.standard("ASVS-7.4.1", "ASVS-16.3.1", "NIST-SB-8.2", "WSTG-SESS-06")
def test_signing_out_ends_the_row_and_keeps_it(alice, log_in, drive, ended):
    request = log_in(alice)
    handle = request.session.handle
    request.user = alice
    request.session = again(request.session)
    drive(auth, "logout", request)
    row = UserSession.objects.get()
    assert row.end_reason == EndReason.LOGOUT
    assert ended == [({handle}, EndReason.LOGOUT, None)]
    assert not store.payloads()
    assert request.session.handle is None


def test_deleting_a_session_by_its_key_ends_its_row(alice, log_in, drive):
    request = log_in(alice)
    drive(SessionStore(), "delete", request.session.session_key)
    assert UserSession.objects.get().end_reason == EndReason.LOGOUT


def test_remember_me_is_known_to_the_row(alice, log_in, drive, policy):
    policy()  # that of the default ends every session after 30 days
    request = log_in(alice)
    request.session.set_expiry(365 * 24 * 3600)
    drive(request.session, "save")
    assert UserSession.objects.get().expires_at > timezone.now() + timedelta(days=364)
    with round_trips(1):  # and costs nothing after that
        request.session["cart"] = []
        drive(request.session, "save")


def test_a_session_that_lives_by_its_saves_is_listed_as_long_as_it_lives(
    alice, log_in, drive, policy
):
    """Behind Django's middleware, or on a web socket, nobody touches it."""
    policy()
    request = log_in(alice)
    for days in (10, 20, 30):
        with travel(timedelta(days=days)):
            session = again(request.session)
            session["day"] = days
            with round_trips(2 if store.APART else 4):
                drive(session, "save")
            assert [row.pk for row in UserSession.objects.alive()] == [request.session.handle]
            session["day"] += 1
            with round_trips(1):
                drive(session, "save")
    row = UserSession.objects.get()
    assert row.last_seen_at == row.started_at  # who knows who that was


# Activity.


def touch(request, drive, client, trips=4, **later):
    """Use the session as a request does: it is looked at first, and the activity written last."""
    with travel(timedelta(**later)):
        session = again(request.session)
        session.client = client
        with round_trips(trips):
            data = dict(drive(session, "items"))
            session.finish(answered=True)
    return session, data


def test_activity_is_seen_on_the_row(alice, log_in, drive):
    request = log_in(alice)
    touch(request, drive, Client("192.0.2.9", FIREFOX), hours=1)
    row = UserSession.objects.get()
    assert row.last_seen_at - row.started_at > timedelta(minutes=59)
    assert row.expires_at - row.started_at > timedelta(
        seconds=settings.SESSION_COOKIE_AGE, minutes=59
    )
    assert (row.ip, row.user_agent) == ("192.0.2.9", FIREFOX)


def test_what_is_not_known_leaves_what_is_known_alone(alice, log_in, drive):
    request = log_in(alice)
    touch(request, drive, Client("192.0.2.9", FIREFOX), hours=1)
    touch(request, drive, Client(None, ""), hours=2)
    row = UserSession.objects.get()
    assert (row.ip, row.user_agent) == ("192.0.2.9", FIREFOX)


def test_a_use_without_a_request_erases_nothing(alice, log_in, drive):
    request = log_in(alice)
    touch(request, drive, Client("192.0.2.9", FIREFOX), hours=1)
    session = again(request.session)
    session["cart"] = []
    drive(session, "save")
    drive(session, "cycle_key")
    row = UserSession.objects.active().get()
    assert (row.user, row.ip, row.user_agent) == (alice, "192.0.2.9", FIREFOX)


@pytest.mark.parametrize("how", ["marked", "row deleted", "key changed"])
@pytest.mark.standard("ASVS-7.4.1", "ASVS-16.5.2")
def test_the_touch_refuses_what_the_store_brings_back(alice, log_in, drive, how):
    """A lost removal, a failover, a restored backup: the row knows better."""
    request = log_in(alice)
    if how == "marked":
        UserSession.objects.update(ended_at=timezone.now(), end_reason=EndReason.REVOKED)
    elif how == "row deleted":
        UserSession.objects.all().delete()
    else:
        UserSession.objects.update(digest="0" * 64)
    trips = 5 if how == "key changed" else 6
    session, data = touch(request, drive, Client(None, ""), trips=trips, seconds=61)
    assert data == {}
    assert session.interruption.digest == digest_of(request.session.session_key)
    # A row with another key: somebody may just be moving the session.
    assert bool(store.payloads()) is (how == "key changed")


# One verb ends sessions.


def test_revoke_ends_what_it_is_asked_to(alice, bob, log_in, ended):
    here, there = log_in(alice), log_in(alice)
    other = log_in(bob)
    count = alice.sessionkit_sessions.other_than(here).revoke(by=alice)
    assert count == 1
    row = UserSession.objects.get(pk=there.session.handle)
    assert (row.end_reason, row.ended_by) == (EndReason.REVOKED, alice)
    assert ended == [({row.pk}, EndReason.REVOKED, alice)]
    assert again(there.session).load() == {}
    assert again(here.session).get(auth.SESSION_KEY)
    assert again(other.session).get(auth.SESSION_KEY)


def test_revoke_by_staff_says_so(alice, bob, log_in):
    log_in(alice)
    UserSession.objects.filter(user=alice).revoke(EndReason.REVOKED_BY_STAFF, by=bob)
    row = UserSession.objects.get()
    assert (row.end_reason, row.ended_by) == (EndReason.REVOKED_BY_STAFF, bob)


def test_revoke_has_an_async_twin(alice, log_in, drive):
    log_in(alice)
    assert drive(UserSession.objects.all(), "revoke") == 1
    assert not UserSession.objects.active().exists()


def test_ending_an_ended_one_changes_nothing(alice, log_in, ended):
    log_in(alice)
    UserSession.objects.revoke(EndReason.REVOKED)
    assert UserSession.objects.revoke(EndReason.REVOKED_BY_STAFF) == 0
    assert UserSession.objects.get().end_reason == EndReason.REVOKED
    assert len(ended) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.standard("ASVS-7.4.5")
def test_revoke_works_in_batches(alice, monkeypatch, ended):
    monkeypatch.setattr(ranges, "ROWS", 2)
    for _ in range(5):
        Browser().force_login(alice)
    with round_trips(1 + 3 * 3):
        assert UserSession.objects.revoke() == 5
    assert [len(handles) for handles, _, _ in ended] == [2, 2, 1]
    assert not store.payloads()


def test_who_is_found_with_an_old_password_and_has_a_new_one_and_key_by_then_stays(
    alice, log_in, monkeypatch
):
    """A due request of another tab looks at the row while the password is changed."""
    session = log_in(alice).session
    digest = digest_of(session.session_key)

    def is_verified(user, auth_hash):
        session.cycle_key()
        return False

    monkeypatch.setattr(registry, "has_password_of", is_verified)
    user = str(alice.pk)
    known = [digest], "an old one", user, user, session._facts.authenticated_at
    assert registry.may_go_on(session.handle.hex, *known) is None
    assert UserSession.objects.get().ended_at is None


def test_what_it_costs_to_sign_out(alice, log_in, drive):
    session = log_in(alice).session
    with round_trips(3):  # the session, its row, and whether that had a new key by then
        drive(session, "flush")


def test_revoke_names_a_row_once_in_a_statement(alice, log_in):
    """Of two lists of 500 keys PostgreSQL thinks that to read the whole table is cheaper."""
    handle = log_in(alice).session.handle
    with CaptureQueriesContext(connection) as queries:
        UserSession.objects.revoke()
    # SQLite has a UUID without hyphens.
    named = [query["sql"].replace("-", "").count(handle.hex) for query in queries]
    assert max(named) == 1


def test_a_listener_that_fails_does_not_keep_a_session_alive(alice, log_in, caplog):
    def fail(**kwargs):
        raise RuntimeError("out of order")

    log_in(alice), log_in(alice)
    sessions_ended.connect(fail)
    try:
        assert UserSession.objects.revoke() == 2
    finally:
        sessions_ended.disconnect(fail)
    assert "out of order" in caplog.text
    assert not store.payloads()


def test_other_than_takes_a_session_too_and_a_stranger_excludes_nobody(alice, log_in):
    here, there = log_in(alice), log_in(alice)
    rows = UserSession.objects
    assert [row.pk for row in rows.other_than(here.session)] == [there.session.handle]
    assert rows.other_than(SessionStore()).count() == 2
    assert rows.other_than(HttpRequest()).count() == 2


def test_what_has_expired_is_not_counted_as_ended_by_somebody(alice, log_in, ended):
    live, expired = (log_in(alice).session.handle for _ in range(2))
    UserSession.objects.filter(pk=expired).update(expires_at=timezone.now())
    assert UserSession.objects.revoke(by=alice) == 1
    assert ended == [
        ({live}, EndReason.REVOKED, alice),
        ({expired}, EndReason.EXPIRED, None),
    ]
    assert not store.payloads()


def test_a_reason_is_one_of_those_that_there_are(alice, log_in):
    log_in(alice)
    with pytest.raises(ValueError, match="suspicious"):
        UserSession.objects.revoke("suspicious")
    assert UserSession.objects.active().exists()


def test_nobody_is_told_twice(alice, log_in, ended, monkeypatch):
    log_in(alice)
    end = models.UserSessionQuerySet._mark

    def somebody_is_faster(self, *args, **kwargs):
        UserSession.objects.update(ended_at=timezone.now(), end_reason=EndReason.LOGOUT)
        return end(self, *args, **kwargs)

    monkeypatch.setattr(models.UserSessionQuerySet, "_mark", somebody_is_faster)
    assert UserSession.objects.revoke() == 0
    assert ended == []
    assert UserSession.objects.get().end_reason == EndReason.LOGOUT


def test_active_and_ended_are_two_halves(alice, log_in):
    live, revoked, expired = (log_in(alice).session.handle for _ in range(3))
    UserSession.objects.filter(pk=revoked).revoke()
    UserSession.objects.filter(pk=expired).update(expires_at=timezone.now())
    assert [row.pk for row in UserSession.objects.active()] == [live]
    assert {row.pk for row in UserSession.objects.ended()} == {revoked, expired}


def test_alive_asks_the_store_and_takes_two_statements(alice, log_in):
    requests = [log_in(alice) for _ in range(20)]
    SessionStore.remove([digest_of(requests[0].session.session_key)])
    with round_trips(2):
        alive = alice.sessionkit_sessions.alive()
    assert [row.pk for row in alive] == [r.session.handle for r in reversed(requests[1:])]
    UserSession.objects.revoke()
    with round_trips(1):
        assert alice.sessionkit_sessions.alive() == []


def test_a_row_without_its_user_has_a_name_all_the_same(alice, log_in):
    log_in(alice)
    User.objects.filter(pk=alice.pk)._raw_delete("default")
    assert str(UserSession.objects.get()) == f"{alice.pk}: Unknown device"


@pytest.mark.standard("NIST-SESSM-1")
def test_a_user_takes_the_rows_along(alice, log_in):
    log_in(alice)
    alice.delete()
    assert not UserSession.objects.exists()


def test_staff_can_leave_without_the_history_leaving(alice, bob, log_in):
    log_in(alice)
    UserSession.objects.revoke(by=bob)
    bob.delete()
    assert UserSession.objects.get().ended_by is None


# A store that is down.


@pytest.mark.standard("ASVS-7.4.1", "ASVS-16.5.2")
def test_revoke_marks_every_row_and_says_so_when_the_store_is_down(
    alice, log_in, store_down, monkeypatch, ended
):
    monkeypatch.setattr(ranges, "ROWS", 1)
    first, second = log_in(alice), log_in(alice)
    with pytest.raises(StoreUnavailable):
        UserSession.objects.revoke()
    assert UserSession.objects.filter(ended_at=None).count() == 0
    assert len(ended) == 2
    monkeypatch.undo()
    # Nothing that was ended lives on for longer than an interval.
    for request in (first, second):
        with travel(timedelta(seconds=61)):
            session = again(request.session)
            session.client = Client(None, "")
            assert session.load() == {}


def test_a_failing_removal_leaves_the_marks_of_a_transaction_alone(alice, log_in, monkeypatch):
    """With ATOMIC_REQUESTS, say: the answer of the view commits."""

    def fail(*args):
        connection.cursor().execute("DELETE FROM nowhere")

    log_in(alice)
    monkeypatch.setattr(SessionStore, "unavailable", (DatabaseError,))
    monkeypatch.setattr(SessionStore, "remove", staticmethod(fail))
    with transaction.atomic():
        with pytest.raises(StoreUnavailable):
            UserSession.objects.revoke()
        assert UserSession.objects.get().ended_at
    assert UserSession.objects.get().ended_at


@pytest.mark.standard("ASVS-16.2.5", "ASVS-16.5.3")
def test_an_error_of_the_store_is_no_empty_session(alice, log_in, drive, monkeypatch, caplog):
    request = log_in(alice)

    def fail(*args):
        raise OperationalError(
            "Command # 1 (SET payload) of pipeline caused error: no route to host"
        )

    monkeypatch.setattr(SessionStore, "read", staticmethod(fail))
    session = again(request.session)
    with pytest.raises(StoreUnavailable):
        drive(session, "load")
    assert isinstance(session.interruption, NoAnswer)
    assert session.session_key == request.session.session_key
    assert "did not answer: no route to host" in caplog.text
    assert "payload" not in caplog.text
    assert request.session.session_key not in caplog.text


# Deterministic races: what happens between two steps of an operation.


@pytest.mark.django_db(transaction=True)
@pytest.mark.standard("ASVS-7.4.1", "ASVS-15.4.2")
def test_revoked_before_a_new_key_is_written(alice, log_in, drive, monkeypatch):
    request = log_in(alice)
    rekey = registry.rekey

    def revoked_first(*args):
        # In a connection of its own: a new key may be written in a transaction.
        elsewhere(UserSession.objects.revoke)
        return rekey(*args)

    monkeypatch.setattr(registry, "rekey", revoked_first)
    with pytest.raises(UpdateError):
        drive(request.session, "cycle_key")
    assert not store.payloads()


def test_marked_while_a_new_key_is_written(alice, log_in, drive, monkeypatch):
    """The revocation has looked for the new key before it was there."""
    request = log_in(alice)
    before(monkeypatch, SessionStore, "move", mark_as_ended)
    with pytest.raises(UpdateError):
        drive(request.session, "cycle_key")
    # What the revocation does next, should it not have done that yet.
    SessionStore.remove(list(UserSession.objects.values_list("digest", flat=True)))
    assert not store.payloads()


def test_the_old_key_does_not_lead_to_the_row_while_a_new_one_is_written(
    alice, log_in, drive, monkeypatch
):
    """A request with the old key, between the move of the key and the end of its operation."""
    request = log_in(alice)
    old = digest_of(request.session.session_key)
    move = SessionStore.move

    def missed(*args):
        moved = move(*args)
        assert registry.row_of_missing(old) is None
        return moved

    monkeypatch.setattr(SessionStore, "move", staticmethod(missed))
    drive(request.session, "cycle_key")
    assert UserSession.objects.active().get().pk == request.session.handle


def test_a_new_key_while_a_revocation_is_under_way_is_found(alice, log_in, monkeypatch):
    request = log_in(alice)
    end = models.UserSessionQuerySet._mark

    def cycled_first(self, handles, *args, **kwargs):
        if handles:
            again(request.session).cycle_key()
        return end(self, handles, *args, **kwargs)

    monkeypatch.setattr(models.UserSessionQuerySet, "_mark", cycled_first)
    UserSession.objects.revoke()
    assert not store.payloads()


def mark_as_ended():
    """The first half of a revocation."""
    UserSession.objects.update(ended_at=timezone.now(), end_reason=EndReason.REVOKED)


@pytest.mark.parametrize("verb", ["insert", "replace"])
def test_marked_while_a_sign_in_is_written(alice, drive, monkeypatch, verb):
    """The revocation has looked for the session before it was there."""
    session = SessionStore()
    if verb == "replace":
        session.save()
    session[auth.SESSION_KEY] = str(alice.pk)
    before(monkeypatch, SessionStore, verb, mark_as_ended)
    with pytest.raises(UpdateError):
        drive(session, "save")
    SessionStore.remove(list(UserSession.objects.values_list("digest", flat=True)))
    assert not [d for d in store.payloads() if UserSession.objects.filter(digest=d).exists()]


@pytest.mark.parametrize("failure", ["store", "value"])
@pytest.mark.standard("ASVS-16.5.3")
def test_a_new_key_that_cannot_be_written_leaves_the_session_as_it_was(
    alice, log_in, drive, monkeypatch, failure
):
    request = log_in(alice)
    session = again(request.session)
    session.get("")

    def fail(*args):
        raise OperationalError("no route to host")

    if failure == "store":
        monkeypatch.setattr(SessionStore, "move", staticmethod(fail))
    else:
        session["cart"] = object()
    with pytest.raises(StoreUnavailable if failure == "store" else TypeError):
        drive(session, "cycle_key")
    monkeypatch.undo()
    touched, data = touch(request, drive, Client(None, ""), seconds=61)
    assert data[auth.SESSION_KEY] == str(alice.pk)
    assert touched.handle == request.session.handle


@pytest.mark.parametrize("failure", ["store", "value"])
@pytest.mark.standard("ASVS-16.5.3")
def test_a_sign_in_that_cannot_be_written_leaves_no_row(alice, drive, monkeypatch, failure):
    def fail(*args):
        raise OperationalError("no route to host")

    session = SessionStore()
    session[auth.SESSION_KEY] = str(alice.pk)
    if failure == "store":
        monkeypatch.setattr(SessionStore, "insert", staticmethod(fail))
    else:
        session["cart"] = object()
    with pytest.raises(StoreUnavailable if failure == "store" else TypeError):
        drive(session, "save")
    assert not UserSession.objects.exists()


def test_revoked_between_the_load_and_the_save(alice, log_in, drive):
    request = log_in(alice)
    session = again(request.session)
    session["cart"] = []
    UserSession.objects.revoke()
    with pytest.raises(UpdateError):
        drive(session, "save")
    assert not store.payloads()


@pytest.mark.standard("ASVS-7.4.1", "ASVS-15.4.2")
def test_revoked_just_before_the_save_is_written(alice, log_in, drive, monkeypatch):
    request = log_in(alice)
    request.session["cart"] = []
    before(monkeypatch, SessionStore, "replace", UserSession.objects.revoke)
    with pytest.raises(UpdateError):
        drive(request.session, "save")
    assert not store.payloads()


def test_another_tab_signs_out_by_hand(alice, log_in, drive):
    request = log_in(alice)
    mine, theirs = again(request.session), again(request.session)
    mine.get("cart"), theirs.get("cart")
    theirs.clear()
    theirs.save()
    mine["cart"] = ["teapot"]
    with pytest.raises(UpdateError):
        drive(mine, "save")
    assert theirs.session_key != request.session.session_key
    assert SessionStore(theirs.session_key).load() == {}


def test_request_between_row_and_store_does_not_end_a_session_that_gets_a_new_key(
    browse, alice, clock, monkeypatch
):
    """In Redis, a request sees the row with the new key, and the session still under the old."""
    browser = browse()
    post_sign_in(browser)
    clock.move(seconds=100)
    session = SessionStore(key_of(browser))
    session["cart"] = "teapot"
    pending = before(monkeypatch, SessionStore, "move", lambda: browser.get("/whoami/"))
    session.cycle_key()
    assert not pending
    browser.cookies["sessionid"] = session.session_key
    assert browser.get("/whoami/").content == b"alice"
    assert SessionStore(session.session_key)["cart"] == "teapot"


def test_session_whose_row_somebody_holds_may_just_be_getting_a_new_key(browse, alice, monkeypatch):
    browser = browse()
    post_sign_in(browser)
    key = key_of(browser)
    store.wipe()
    monkeypatch.setattr(registry, "_end_if_free", lambda *args: None)
    response = browser.get("/private/")
    assert "You were signed out" not in browser.get("/login/").text
    assert "sessionid" not in response.cookies
    assert key_of(browser) == key


def test_who_comes_too_late_is_told_so_even_while_somebody_holds_the_row(
    alice, log_in, monkeypatch
):
    log_in(alice)
    UserSession.objects.update(expires_at=timezone.now() - timedelta(days=1), idle_at=None)
    monkeypatch.setattr(registry, "_end_if_free", lambda handle, reason: None)
    row = registry.row_of_missing(UserSession.objects.get().digest)
    assert (row.ended_at, row.end_reason) == (None, EndReason.EXPIRED)
