"""
Staff end the sessions of everybody, of all staff or of one user at once: from the next load on,
though nobody has marked a row or removed a session yet.
"""

import datetime
import random
import uuid
from contextlib import nullcontext

import pytest
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import UpdateError
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.urls import path, reverse
from django.utils import timezone

from django_sessionkit import endings, epochs, limits
from django_sessionkit.backends import facts as facts_of_sessions
from django_sessionkit.backends import records
from django_sessionkit.backends.sealing import SessionKey, new_session_key
from django_sessionkit.clock import as_datetime
from django_sessionkit.exceptions import InvalidToken
from django_sessionkit.models import Ending, EndReason, UserSession, uuid7
from django_sessionkit.room import Choice
from django_sessionkit.storage import StoredFully
from django_sessionkit.tokens import issue, verify
from django_sessionkit.visit.client import Client as Visitor
from tests import store
from tests.apps import App
from tests.browsers import PAGE, SCRIPT, Browser, browse_as, cart, put
from tests.calls import BACKGROUND, acall, call
from tests.interleaving import HOLDS_ROWS, held_open
from tests.pages import LIMIT, LIST
from tests.people import is_in, is_out, key_of, post_sign_in, row_of, told, who
from tests.policies import LOCK
from tests.renewals import renewed
from tests.store import SessionStore, again, later, payloads, round_trips
from tests.switch import ending, throw
from tests.tokens import urlpatterns as site_with_tokens

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

urlpatterns = [*site_with_tokens, path("call/", call), path("acall/", acall)]

BY_STAFF = "You were signed out by the staff of this site."


# It takes effect at once.


@pytest.mark.transports("cookie", "header")
def test_nobody_is_signed_in_any_more(signed_in, ended, root):
    browsers = [signed_in() for _ in range(3)]
    rows = {row.pk for row in UserSession.objects.all()}
    thrown = throw(by=root, note="A stolen backup", spared=uuid.uuid4())
    assert len(payloads()) == 3  # nobody has removed anything
    assert [told(browser) for browser in browsers] == [EndReason.REVOKED_BY_STAFF] * 3
    for row in UserSession.objects.all():
        assert (row.ended_by, row.end_note) == (root, "A stolen backup")
        assert row.ended_from == thrown.ended_from
    assert {handle for handles, _, _ in ended for handle in handles} == rows
    assert {(reason, by) for _, reason, by in ended} == {(EndReason.REVOKED_BY_STAFF, root)}
    assert payloads() == {}


def test_the_sign_in_page_says_why(laptop):
    throw()
    assert is_out(laptop, BY_STAFF)


def test_who_signs_in_again_is_in(signed_in):
    browser = signed_in()
    throw()
    assert who(browser) == ""
    post_sign_in(browser)
    with later(seconds=300):
        assert is_in(browser)


def test_who_proves_again_who_they_are_has_done_so(signed_in, drive):
    """Their request was under way when the switch was thrown."""
    session = SessionStore(key_of(signed_in()))
    assert session[SESSION_KEY]
    throw()
    drive(session, "reauthenticate")
    assert drive(again(session), "get", SESSION_KEY)


def test_a_visitor_who_is_not_signed_in_goes_on(browse):
    browser = browse()
    put(browser, cart="teapot")
    throw()
    assert cart(browser) == "teapot"


@pytest.mark.parametrize("whose", ["alice", "bob"])
def test_the_sessions_of_some_users(whose, alice, bob, browse):
    browsers = {}
    for name in ("alice", "bob"):
        browsers[name] = browse()
        post_sign_in(browsers[name], name)
    throw([User.objects.get(username=whose)])
    for name, browser in browsers.items():
        assert is_in(browser, name) == (name != whose)


def test_nobody_is_a_user_of_a_longer_number(alice, signed_in):
    """The primary key 1 is in 11, but is not that user's."""
    browser = signed_in()
    throw([User(pk=int(f"{alice.pk}1")), User(pk=int(f"1{alice.pk}"))])
    with later(seconds=300):  # by the store, and by the registry
        assert is_in(browser)


def test_sessions_from_before_some_time(signed_in, browse):
    early = signed_in()
    with later(seconds=30):
        late = browse()
        post_sign_in(late)
        between = timezone.now() - datetime.timedelta(seconds=15)
        throw(before=between)
        assert who(early) == ""
        assert is_in(late)


def test_staff_who_act_as_a_user(alice, bob):
    """The session is of both."""
    facts = {"user": str(alice.pk), "person": str(bob.pk), "authenticated_at": 1}
    for users, ends in [([alice], True), ([bob], True), ([], False)]:
        thrown = ending(users)
        assert epochs.learn(0).ends(**facts, handle=uuid.uuid4()) is ends
        assert bool(epochs.ending_of(**facts, handle=uuid.uuid4())) is ends
        thrown.delete()


def test_the_own_session_goes_on_and_the_next_epoch_ends_it(signed_in):
    own, other = signed_in(), signed_in()
    handle = row_of(own).pk
    throw(spared=handle)
    assert is_in(own)
    assert who(other) == ""
    with later(seconds=300):
        assert is_in(own)
    throw(spared=uuid.uuid4())
    assert who(own) == ""


def test_the_own_session_is_not_always_left_out(signed_in):
    browser = signed_in()
    throw(spared=row_of(browser).pk, spares_own=False)
    assert who(browser) == ""


# What it costs.


def test_no_request_takes_longer_for_it(drive, signed_in, clock):
    own = signed_in()

    def trips():
        """Count what the requests of a session take, in which something is written and touched."""
        session = SessionStore(key_of(own))
        session.client = Visitor("192.0.2.1", "Firefox")
        with round_trips(1):
            drive(session, "load")
        session.get("cart")
        session["cart"] = "teapot"
        with round_trips(1):
            drive(session, "save")
        clock.move(seconds=120)
        session = again(session)
        session.client = Visitor("192.0.2.1", "Firefox")
        with round_trips(2):  # the session and the row
            drive(session, "get", "cart")
        with round_trips(2):
            session.finish(answered=True)

    trips()
    throw(spared=row_of(own).pk)
    throw([User(pk=12345)])
    drive(again(SessionStore(key_of(own))), "load")  # now this process knows
    trips()


def test_a_process_learns_of_it_once(drive, signed_in):
    session = SessionStore(key_of(signed_in()))
    throw([User(pk=12345)])
    for count in (2, 1, 1):
        with round_trips(count):
            drive(again(session), "load")


def test_no_process_knows_more_than_so_many(signed_in, monkeypatch):
    monkeypatch.setattr(epochs, "KEPT", 4)
    monkeypatch.setattr(epochs, "_known", {})
    browser = signed_in()
    for _ in range(4):
        throw([User(pk=12345)])
        assert is_in(browser)
    assert len(epochs._known) == 2


def test_what_a_process_knows_does_not_grow_with_the_square_of_the_epochs(monkeypatch):
    """Each that is thrown makes it read all of them anew, and it forgets what it knew before."""
    monkeypatch.setattr(epochs, "KEPT", 50)
    monkeypatch.setattr(epochs, "_known", {})
    for pk in range(30):
        thrown = throw([User(pk=pk)])
        epochs.learn(number := epochs._new_number(thrown))
    assert sum(len(known.of_users) for known in epochs._known.values()) <= 50
    known = epochs.known(number)
    assert known is not None
    assert len(known.of_users) == 30


def test_a_process_learns_no_more_than_the_newest_epochs_of_single_users(monkeypatch):
    """The others are worked off, and the write of activity still finds them."""
    monkeypatch.setattr(epochs, "NEWEST", 2)
    now = timezone.now()
    everybody = ending()
    unfinished = ending([User(pk=1)])
    for pk in (2, 3, 4):
        ending([User(pk=pk)], finished_at=now)
    Ending.objects.exclude(pk=everybody.pk).update(scope=Ending.Scope.USER)
    known = epochs.learn(5)
    assert set(known.of_users) == {"1", "3", "4"}
    assert known.of_everybody
    assert epochs.ending_of("2", None, 0, uuid7()) == everybody
    everybody.delete()
    assert epochs.ending_of("2", None, 0, uuid7()) == Ending.objects.get(pk=unfinished.pk + 1)


# What a process knows.


def test_of_two_at_the_same_moment_the_first_may_be_told_of_last(signed_in, alice):
    """The rows are committed in the other order than they were made."""
    browser = signed_in()
    first, second = ending([alice]), ending([User(pk=12345)])
    Ending.objects.filter(pk=first.pk).update(scope=Ending.Scope.FILTER)  # nobody sees it yet
    epochs.note(second)
    assert is_in(browser)
    Ending.objects.filter(pk=first.pk).update(scope=Ending.Scope.STAFF)
    epochs.note(first)
    assert who(browser) == ""


def test_whoever_tells_a_store_late_hides_no_epoch(
    signed_in, monkeypatch, django_capture_on_commit_callbacks
):
    """Another process knows the number of the first one, which the store gets last."""
    browser = signed_in()
    throw([User(pk=12345)])
    write, late = SessionStore.note_epoch, []

    def meanwhile(number):
        if not late:
            late.append(number)
            write(number)  # to one server of several
            assert is_in(browser)
            throw()
        write(number)

    monkeypatch.setattr(SessionStore, "note_epoch", meanwhile)
    with django_capture_on_commit_callbacks(execute=True):
        epochs.note_again()
    assert who(browser) == ""


def test_one_that_was_rolled_back_ends_nothing(signed_in, clock):
    """As in the tests of a site: the store may still know of it, and so does this process."""
    browser = signed_in()

    with transaction.atomic():
        thrown = throw()
        epochs.learn(number := epochs._new_number(thrown))
        transaction.set_rollback(True)
    SessionStore.note_epoch(number)
    assert is_in(browser)
    assert epochs.known(number) is None
    assert is_in(browser)


def test_a_primary_key_that_is_there_once_more_is_another_ending(signed_in):
    """As after a flush, or that of another tenant; another process has thrown this one."""
    browser = signed_in()
    first = throw([User(pk=12345)])
    assert is_in(browser)
    number = first.pk
    first.delete()
    second = ending(pk=number)
    SessionStore.note_epoch(epochs._new_number(second))
    assert who(browser) == ""


def test_what_a_transaction_does_not_show_yet_is_not_remembered():
    now = int(timezone.now().timestamp() * 1000) * epochs.SPREAD
    with transaction.atomic():
        epochs.learn(now)
        assert epochs.known(now) is None
    hours_ago = now - 7_200_000 * epochs.SPREAD
    assert epochs.learn(hours_ago) == epochs.known(hours_ago) == epochs.Epochs([], {})


@pytest.mark.parametrize(
    ("thrown", "ended"),
    [
        ([(10, None)], {9: "ab", 10: "ab", 11: ""}),
        ([(10, "a")], {10: "b", 11: ""}),
        ([(10, "a"), (5, None)], {5: "ab", 6: "b", 10: "b"}),
        ([(5, "a"), (10, "b")], {5: "ab", 6: "a", 10: "a"}),
        ([(10, "a"), (8, "a"), (5, "b")], {4: "ab", 6: "b", 9: "b"}),
        ([(10, "a"), (10, "b")], {10: "ab"}),
        ([], {0: ""}),
    ],
)
@pytest.mark.parametrize("everybody", [True, False])
def test_several_that_spare_different_sessions(thrown, ended, everybody, alice):
    handles = {"a": uuid.UUID(int=1), "b": uuid.UUID(int=2), None: None}
    for moment, spared in thrown:
        users = None if everybody else [alice]
        ending(users, as_datetime(moment), handles[spared])
    known, user = epochs.learn(0), str(alice.pk)
    for at, expected in ended.items():
        session = user, user, at
        assert "".join(name for name in "ab" if known.ends(*session, handles[name])) == expected
        found = [name for name in "ab" if epochs.ending_of(*session, handles[name])]
        assert "".join(found) == expected


def test_an_adopted_session_whose_proof_nobody_knows_does_not_go_on(alice):
    ending(before=as_datetime(1))
    assert epochs.learn(0).ends(str(alice.pk), str(alice.pk), 0, uuid.uuid4())


def test_an_ending_of_a_filter_is_none():
    ending(users=[]).delete()
    Ending.objects.create(
        scope="filter", created_at=timezone.now(), before=timezone.now(), last=uuid.uuid4()
    )
    assert epochs.learn(0) == epochs.Epochs([], {})


def test_staff_of_whom_there_are_none(alice):
    thrown = ending([])
    Ending.objects.filter(pk=thrown.pk).update(users="")
    assert epochs.learn(0) == epochs.Epochs([], {})


def test_without_time_zones(settings, signed_in):
    settings.USE_TZ = False
    browser = signed_in()
    throw()
    assert who(browser) == ""


# A store that has lost the number.


def test_the_write_of_activity_finds_it_and_tells_the_store(
    signed_in, django_capture_on_commit_callbacks
):
    """Not in the transaction of a view: others would wait for what that has written."""
    one, other = signed_in(), signed_in()
    throw()
    SessionStore.note_epoch(0)
    assert is_in(one)
    assert is_in(other)
    with django_capture_on_commit_callbacks(execute=True), later(seconds=120):
        assert told(one) == EndReason.REVOKED_BY_STAFF
        stored = SessionStore.read(SessionKey(key_of(other)).digest)
        assert stored is not None
        assert stored.epoch == 0
    assert told(other) == EndReason.REVOKED_BY_STAFF


def test_a_store_that_is_down_is_told_by_the_write_of_activity(signed_in, monkeypatch, caplog):
    browser = signed_in()
    with monkeypatch.context() as patch:
        store.take_down(patch, "note_epoch")
        throw()
    assert "The session store did not answer: no route to host" in caplog.text
    assert is_in(browser)
    with later(seconds=120):
        assert who(browser) == ""


def test_an_engine_that_has_none_ends_with_the_write_of_activity(signed_in, monkeypatch):
    monkeypatch.setattr(SessionStore, "note_epoch", lambda number: None)
    browser = signed_in()
    throw()
    with later(seconds=120):
        assert who(browser) == ""


def test_nothing_is_told_again_where_there_was_nothing(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(SessionStore, "note_epoch", None)
        epochs._note_newest()


def test_a_database_that_does_not_tell_a_from_b(signed_in, alice, monkeypatch):
    """What it takes for another user's is looked at once more."""
    browser = signed_in()
    alike = f'"{alice.pk}"'
    monkeypatch.setattr(epochs, "_is_about", lambda users: epochs.Q(users__contains="12345"))
    thrown = throw([User(pk=12345)])
    assert alike not in thrown.users
    with later(seconds=120):
        assert is_in(browser)


# Requests that are under way.


def test_a_save_does_not_revive_it(signed_in, drive):
    session = SessionStore(key_of(signed_in()))
    session["cart"] = "teapot"
    throw()
    drive(session, "save")
    session.finish(answered=True)
    assert drive(again(session), "load") == {}


def test_a_save_that_meets_another_one_is_refused(signed_in, drive):
    mine = SessionStore(key_of(signed_in()))
    theirs = again(mine)
    mine["cart"], theirs["theme"] = "teapot", "dark"
    drive(theirs, "save")
    throw()
    with pytest.raises(UpdateError):
        drive(mine, "save")
    assert payloads() == {}


def test_a_session_that_nobody_has_loaded_is_not_replaced(signed_in, drive):
    session = SessionStore(key_of(signed_in()))
    throw()
    session.clear()
    with pytest.raises(UpdateError):
        drive(session, "save")


def test_a_new_key_does_not_revive_it(signed_in, drive):
    session = SessionStore(key_of(signed_in()))
    assert drive(session, "get", SESSION_KEY)
    throw()
    drive(session, "cycle_key")
    assert drive(again(session), "load") == {}
    assert payloads() == {}


def test_whoever_signs_out_has_been_signed_out(signed_in, drive):
    session = SessionStore(key_of(signed_in()))
    throw()
    drive(session, "flush")
    assert UserSession.objects.get().end_reason == EndReason.REVOKED_BY_STAFF


@pytest.mark.django_db(transaction=True)
def test_nobody_waits_for_whoever_holds_the_row(signed_in):
    browser = signed_in()
    throw()
    # SQLite has no rows that somebody could hold.
    held = held_open(lambda: UserSession.objects.update(label="laptop"))
    with held if HOLDS_ROWS else nullcontext():
        assert who(browser) == ""
        assert (UserSession.objects.get().ended_at is None) is HOLDS_ROWS
    row = UserSession.objects.get()
    assert row.ended_at is None or row.end_reason == EndReason.REVOKED_BY_STAFF


# Other ways to a session.


def test_a_former_key_leads_nowhere(shopper, policy):
    policy(renew_after=60, renew_grace=3600)
    browser = shopper()
    former = renewed(browser, after=70)
    throw()
    with later(seconds=80):
        assert who(browse_as(browser, former)) == ""
    assert who(browser) == ""


def test_a_locked_session_does_not_open(signed_in, policy, clock, drive):
    policy(**LOCK)
    key = key_of(signed_in())
    clock.move(seconds=600)
    session = SessionStore(key)
    assert drive(session, "get", SESSION_KEY) is None
    assert session.locked
    throw()
    with pytest.raises(UpdateError):
        drive(session, "unlock", full=True)
    assert not again(SessionStore(key)).locked


def test_a_request_in_the_background_is_told(laptop):
    throw()
    status = laptop.get("/account/sessions/status/", headers={**SCRIPT, **BACKGROUND}).json()
    assert (status["state"], status["reason"]) == ("ended", EndReason.REVOKED_BY_STAFF)
    assert is_out(laptop, BY_STAFF)


def test_a_code_of_an_app_opens_nothing(alice):
    app = App()
    app.sign_in()
    code = app.code()
    throw()
    url = reverse("django_sessionkit:session_hand_over", args=[code])
    assert Browser(headers=PAGE).get(url).status_code == 410


# Tokens.


@pytest.mark.usefixtures("tokens")
def test_a_token_is_refused_by_one_statement(signed_in):
    session = SessionStore(key_of(signed_in()))
    token = issue(session)
    assert verify(token, check_session=True)
    throw()
    with CaptureQueriesContext(connection) as queries:
        with pytest.raises(InvalidToken, match="session_ended"):
            verify(token, check_session=True)
        assert len(queries) == 1
    with pytest.raises(Exception, match="ended"):  # the request was under way
        issue(session)


# Limits and lists, before the rows are marked.


@pytest.mark.parametrize("mode", ["refuse", "ask", "end_oldest"])
def test_the_limit_locks_nobody_out(signed_in, policy, mode, browse, ended):
    policy(limit=2, on_limit=mode)
    for _ in range(2):
        signed_in()
    throw()
    browser = browse()
    post_sign_in(browser)
    assert is_in(browser)
    assert ended == []


def test_the_page_of_the_choice_offers_none_of_them(signed_in, policy, browse, alice):
    policy(limit=1, on_limit="ask")
    other = row_of(signed_in()).pk
    waiting = browse()
    assert post_sign_in(waiting).headers["Location"].startswith(LIMIT)
    one = UserSession.objects.get(waits=True)
    assert Choice(one, 1).alive([other]) == [other]
    assert not limits.admit(one.pk, 1)
    throw([alice], spared=one.pk)
    assert Choice(one, 1).alive([other]) == []
    assert limits.admit(one.pk, 1)


def test_the_page_of_devices_shows_none_of_them(signed_in):
    other = row_of(signed_in()).pk
    browser = signed_in()

    def page():
        with CaptureQueriesContext(connection) as queries:
            return browser.get(LIST).text, len(queries)

    before, count = page()
    assert str(other) in before
    throw(spared=row_of(browser).pk)
    page()  # this process learns of it
    after, same_count = page()
    assert str(other) not in after
    assert same_count == count


# Ten thousand.

# So many of them come back between two steps of the removal.
PART = 500
# With each engine, there are ten thousand. Where only the database is another one, fewer will do.
CLIENTS = 10_000 if connection.vendor == "sqlite" else 1_000


def ten_thousand(user):
    """Store so many sessions of a user, and return their keys."""
    now, keys = store.now(), [new_session_key() for _ in range(CLIENTS)]
    until = now + store.FORTNIGHT
    data = {
        SESSION_KEY: str(user.pk),
        BACKEND_SESSION_KEY: "django.contrib.auth.backends.ModelBackend",
        HASH_SESSION_KEY: user.get_session_auth_hash(),
    }
    rows, sessions = [], []
    for key in keys:
        rows.append(
            UserSession(
                pk=uuid7(),
                user=user,
                digest=key.digest,
                started_at=as_datetime(now),
                authenticated_at=as_datetime(now),
                last_seen_at=as_datetime(now),
                expires_at=as_datetime(until),
            )
        )
        facts = facts_of_sessions.Facts(rows[-1].pk.hex, str(user.pk), now, until)
        payload = records.sealed(facts, data, key, SessionStore().serializer)
        sessions.append(StoredFully(key.digest, payload, now, until))
    UserSession.objects.bulk_create(rows, batch_size=500)
    for start in range(0, len(sessions), 200):
        SessionStore.insert_all(sessions[start : start + 200])
    return keys


def test_ten_thousand_clients(alice, django_capture_on_commit_callbacks):
    keys = ten_thousand(alice)
    assert all(SessionStore(key).load() for key in keys[::100])
    everybody, why = Ending.Scope.EVERYBODY, {"by": None, "note": "", "ended_from": None}
    with (
        CaptureQueriesContext(connection) as queries,
        django_capture_on_commit_callbacks(execute=True),
    ):
        thrown = endings.throw(everybody, **why)
    assert len(queries) < 10  # however many sessions there are
    digests = [key.digest for key in keys[:500]]
    assert SessionStore.peek(digests) == {*digests}  # nobody has removed anything
    # They come back in any order, while all sessions are removed in that of their handles.
    ended = UserSession.objects.filter(end_reason=EndReason.REVOKED_BY_STAFF)
    asked = random.sample(keys, CLIENTS)
    for start in range(0, CLIENTS, PART):
        assert not [key for key in asked[start : start + PART] if SessionStore(key).load()]
        assert start + PART <= ended.count() <= 2 * (start + PART)
        endings.work(thrown, 0)
    while not endings.work(thrown, 0):
        pass
    assert ended.count() == len(keys)
    assert payloads() == {}
    assert not [key for key in random.sample(keys, PART) if SessionStore(key).load()]
