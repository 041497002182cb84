"""Staff end many sessions together: which of them, by whom, what stays, and what is said of it."""

import json
import logging
import os
import pwd
import re
import sys
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.management import call_command
from django.db import connection, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_sessionkit import audit, endings, epochs, ranges, reach
from django_sessionkit.endings import begin, carry_on, throw, work
from django_sessionkit.models import Ending, EndReason, UserSession
from django_sessionkit.purging import purge
from django_sessionkit.reach import preview
from django_sessionkit.selection import Selection
from django_sessionkit.signals import ending_finished, ending_started
from django_sessionkit.staff.log import log_ended, log_ending
from django_sessionkit.staff.switch import SwitchForm
from tests.interleaving import before, elsewhere, together
from tests.many import handles, many, stored
from tests.people import CHROME, IPHONE, handle, is_in, sign_in
from tests.plans import plan_of
from tests.store import Clock, take_down

pytestmark = pytest.mark.django_db(transaction=True)

NOTE = "Ticket 4711: stolen laptops"
DAY = timedelta(days=1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts so small that a few rows are many of them."""
    monkeypatch.setattr(ranges, "ROWS", 5)
    monkeypatch.setattr(reach, "PART", 7)


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Nobody rests in these tests."""
    rest = mock.Mock()
    monkeypatch.setattr("django_sessionkit.endings.time.sleep", rest)
    return rest


@pytest.fixture
def support(db: None) -> User:
    """Somebody of the staff, who is no superuser."""
    return User.objects.create_user("support", password="secret", is_staff=True)


def asked(**words: str) -> Selection:
    return Selection.parse(words)


def ending_of(selection: Selection, by: User | None = None, **more: Any) -> Ending:
    return begin(selection, by=by, note=NOTE, **{"ended_from": None, **more})


def done(ending: Ending) -> Ending:
    assert work(ending, 60)
    return ending


# Which sessions.


def test_sessions_of_a_network_end_and_all_others_go_on(alice: User, support: User, ended: Any):
    stolen, home = sign_in(alice, address="203.0.113.7"), sign_in(alice)
    ending = ending_of(asked(network="203.0.113.0/24"), support, ended_from=handle(home))
    assert is_in(stolen)
    done(ending)
    assert not is_in(stolen)
    assert is_in(home)
    assert (ending.total, ending.looked_at, ending.ended) == (1, 1, 1)
    row = UserSession.objects.get(end_reason=EndReason.REVOKED_BY_STAFF)
    assert (row.ended_by, row.end_note, row.ended_from) == (support, NOTE, handle(home))
    assert ended == [({row.pk}, EndReason.REVOKED_BY_STAFF, support)]


@pytest.mark.parametrize("words", [{"network": "192.0.2.1"}, {"device_type": "desktop"}])
def test_ones_own_session_is_left_out_unless_one_says_so(
    support: User, small: None, words: dict[str, str]
):
    own = sign_in(support)
    others = many(17, support, device_type="desktop")
    done(ending_of(asked(**words), support, ended_from=handle(own)))
    assert is_in(own, "support")
    assert not stored(others)
    done(ending_of(asked(**words), support, ended_from=handle(own), spares_own=False))
    assert not is_in(own, "support")


@pytest.mark.parametrize("words", [{"network": "192.0.2.1"}, {"state": "active"}])
def test_superusers_end_those_of_superusers_and_other_staff_do_not(
    root: User, support: User, words: dict[str, str]
):
    browser = sign_in(root)
    done(ending_of(asked(**words), support))
    assert is_in(browser, "root")
    done(ending_of(asked(**words), support, spares_superusers=False))
    assert is_in(browser, "root")
    done(ending_of(asked(**words), root))
    assert is_in(browser, "root")
    done(ending_of(asked(**words), root, spares_superusers=False))
    assert not is_in(browser, "root")
    other = sign_in(root)
    done(ending_of(asked(**words), spares_superusers=False))  # by a command
    assert not is_in(other, "root")


@pytest.mark.parametrize("words", [{"network": "192.0.2.1"}, {"state": "active"}])
def test_no_statement_looks_at_all_users_to_leave_superusers_out(
    alice: User, support: User, small: None, words: dict[str, str]
):
    """A batch is found among millions of users, and many are found one after the other."""
    many(12, alice)
    ending = ending_of(asked(**words), support)
    with CaptureQueriesContext(connection) as queries:
        done(ending)
    asking = [query["sql"] for query in queries if "is_superuser" in query["sql"]]
    looked = [plan_of(sql) for sql in asking if " LIMIT 21" not in sql]
    assert looked
    for plan in looked:
        assert not re.search(r"Seq Scan on auth_user|SCAN U0|'U0', 'ALL'", plan), plan


@pytest.mark.parametrize("words", [{"network": "192.0.2.1"}, {"state": "active"}])
def test_who_signs_in_after_the_beginning_stays(alice: User, small: None, words: dict[str, str]):
    many(12, alice)
    ending = ending_of(asked(**words))
    late = sign_in(alice)
    done(ending)
    assert is_in(late)
    assert ending.ended == ending.looked_at == ending.total == 12


def test_who_comes_back_while_idle_sessions_end_stays(
    alice: User, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    """Between the moment at which the sessions are found, and the one at which they end."""
    back, idle = sign_in(alice), sign_in(alice, IPHONE)
    clock.move(DAY)
    ending = ending_of(Selection(seen_before=timezone.now() - DAY / 2, users=(str(alice.pk),)))
    left = before(monkeypatch, endings, "rows_again", lambda: is_in(back))
    done(ending)
    assert not left
    assert is_in(back)
    assert not is_in(idle)


@pytest.mark.parametrize("limit", [3, 1000])
def test_a_large_selection_goes_through_the_table(
    alice: User, bob: User, small: None, monkeypatch: pytest.MonkeyPatch, limit: int
):
    """Whether an index leads to few or to many of them."""
    monkeypatch.setattr(reach, "LIMIT", limit)
    rows = [row for _ in range(10) for row in (*many(1, alice), *many(2, bob))]
    ending = ending_of(asked(users=str(alice.pk)))
    with CaptureQueriesContext(connection) as queries:
        done(ending)
    assert any("OFFSET 6" in query["sql"] for query in queries) == (limit == 3)
    assert len(stored(rows)) == 20
    assert ending.ended == 10
    assert ending.looked_at == (30 if limit == 3 else 10)


def test_times_of_the_filter_bound_what_is_looked_at(alice: User, small: None):
    before, between, after = many(9, alice), many(9, alice), many(9, alice)
    of = {name: rows[0].started_at.isoformat() for name, rows in (("from", between), ("to", after))}
    assert before
    words = {"started_after": of["from"], "started_before": of["to"]}
    handles_of = UserSession.objects.filter(pk__in=handles(between))
    inside = Selection.parse(words).rows().count()
    ending = done(ending_of(Selection.parse(words)))
    assert ending.looked_at == ending.ended == inside
    assert inside >= handles_of.filter(ended_at__isnull=False).count() > 0


def test_sessions_that_have_run_out_are_not_counted(alice: User):
    many(3, alice, expires_at=timezone.now() - DAY)
    many(2, alice)
    ending = done(ending_of(asked(users=str(alice.pk))))
    assert (ending.looked_at, ending.ended) == (5, 2)
    assert UserSession.objects.filter(end_reason=EndReason.EXPIRED).count() == 3


@pytest.mark.parametrize(
    ("selection", "note"),
    [
        (Selection(state="asleep"), NOTE),
        (Selection(users=("x",)), NOTE),
        (Selection(), "x" * 256),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    alice: User, selection: Selection, note: str
):
    browser = sign_in(alice)
    with pytest.raises(ValidationError):
        begin(selection, by=None, note=note, ended_from=None)
    assert not Ending.objects.exists()
    assert is_in(browser)


# The switch.


@pytest.mark.parametrize("scope", Ending.Scope)
def test_switch_ends_the_sessions_of(
    scope: Ending.Scope, alice: User, bob: User, support: User, root: User, small: None
):
    browsers = {each.username: sign_in(each) for each in (alice, bob, support, root)}
    rows = many(30, bob)
    if scope == Ending.Scope.FILTER:
        with pytest.raises(ValueError, match="begin"):
            throw(scope, by=root, note=NOTE, ended_from=None)
        return
    with mock.patch.object(epochs, "note") as note:
        ending = throw(scope, by=root, note=NOTE, ended_from=handle(browsers["root"]), user=bob)
    note.assert_called_once_with(ending)
    late = sign_in(bob)
    done(ending)
    ends = {
        Ending.Scope.EVERYBODY: {"alice", "bob", "support"},
        Ending.Scope.STAFF: {"support"},
        Ending.Scope.USER: {"bob"},
    }[scope]
    assert {name for name, browser in browsers.items() if not is_in(browser, name)} == ends
    assert len(stored(rows)) == (0 if "bob" in ends else 30)
    assert is_in(late, "bob")
    assert ending.ended == len(ends) + (30 if "bob" in ends else 0)


def test_switch_for_staff_claims_nothing_where_no_column_says_who_is(
    alice: User, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("django_sessionkit.selection._has", lambda name: name == "is_superuser")
    with pytest.raises(ValidationError, match="not a column"):
        throw(Ending.Scope.STAFF, by=None, note=NOTE, ended_from=None)
    offered: Any = SwitchForm(by_superuser=True).fields["scope"]
    assert [scope for scope, _ in offered.choices] == ["everybody", "user"]
    assert not Ending.objects.exists()


def test_of_a_site_without_staff_the_switch_for_staff_ends_nothing(alice: User):
    browser = sign_in(alice)
    assert done(throw(Ending.Scope.STAFF, by=None, note=NOTE, ended_from=None)).ended == 0
    assert is_in(browser)


def test_switch_spares_who_has_proved_who_they_are_since(alice: User, clock: Clock):
    early = sign_in(alice)
    clock.move(seconds=10)
    moment = timezone.now()
    clock.move(seconds=10)
    late = sign_in(alice, CHROME)
    adopted = many(1, alice, authenticated_at=None)
    done(throw(Ending.Scope.EVERYBODY, by=None, note=NOTE, ended_from=None, before=moment))
    assert not is_in(early)
    assert is_in(late)
    assert not stored(adopted)


def test_switch_takes_no_time_to_come(alice: User):
    with pytest.raises(ValidationError, match="not come yet"):
        throw(
            Ending.Scope.EVERYBODY,
            by=None,
            note=NOTE,
            ended_from=None,
            before=timezone.now() + DAY,
        )


def test_staff_throw_no_superuser_out(root: User, support: User):
    browser = sign_in(root)
    one: Any = {"note": NOTE, "ended_from": None, "user": root}
    with pytest.raises(PermissionDenied):
        throw(Ending.Scope.USER, by=support, **one)
    assert is_in(browser, "root")
    done(throw(Ending.Scope.USER, by=root, **one))
    assert not is_in(browser, "root")
    with pytest.raises(ValueError, match="Whose"):
        throw(Ending.Scope.USER, by=root, note=NOTE, ended_from=None)


def test_switch_that_is_rolled_back_was_not_thrown(alice: User, caplog: Any):
    with mock.patch.object(epochs, "note") as note, transaction.atomic():
        throw(Ending.Scope.EVERYBODY, by=None, note=NOTE, ended_from=None)
        assert not note.called
        transaction.set_rollback(True)
    assert not note.called
    assert not Ending.objects.exists()
    assert "authz_admin" not in caplog.text


# How it goes on.


@pytest.mark.parametrize("words", [{"network": "192.0.2.1"}, {"state": "active"}])
def test_work_goes_on_where_it_has_stopped(
    alice: User, small: None, ended: Any, words: dict[str, str]
):
    rows = many(23, alice)
    ending = ending_of(asked(**words))
    slices = 0
    while not work(ending, 0):
        slices += 1
        assert ending.claimed_until is None
        assert len(stored(rows)) == 23 - ending.ended == 23 - ending.looked_at
    assert slices >= 5
    assert not stored(rows)
    assert ending.ended == 23
    told = [each for batch, *_ in ended for each in batch]
    assert len(told) == len(set(told)) == 23
    assert work(ending, 0)  # there is nothing left to do
    assert len(ended) == len([batch for batch, *_ in ended if batch])


@pytest.mark.parametrize(
    ("target", "batches"), [(1e-9, [5, 2, 1, 1, 1, 1, 1]), (1e9, [5, 7])], ids=["slow", "fast"]
)
def test_who_works_in_the_background_ends_less_at_once_if_that_is_slow_and_rests(
    alice: User,
    small: None,
    no_rest: Any,
    ended: Any,
    monkeypatch: pytest.MonkeyPatch,
    target: float,
    batches: list[int],
):
    monkeypatch.setattr(endings, "BATCH", target)
    many(12, alice)
    done(ending_of(asked(users=str(alice.pk))))
    assert not no_rest.called
    ended.clear()
    many(12, alice)
    assert carry_on(ending_of(asked(users=str(alice.pk))).pk) is None
    # What is ended at once is marked by statements of five rows.
    statements = [min(5, left) for batch in batches for left in range(batch, 0, -5)]
    assert [len(told) for told, *_ in ended] == statements
    assert len(no_rest.call_args_list) == len(batches)
    assert all(0 < call.args[0] <= endings.LONGEST_REST for call in no_rest.call_args_list)


def test_two_who_work_at_once_end_each_session_once(alice: User, small: None, ended: Any):
    rows = many(60, alice)
    number = ending_of(asked(state="active")).pk

    def worker() -> None:
        while (wait := carry_on(number, 0)) is not None:
            assert wait in (0, 30)

    together(worker, worker)
    told = [each for batch, *_ in ended for each in batch]
    assert sorted(told) == sorted(handles(rows))
    ending = Ending.objects.get()
    assert (ending.ended, ending.looked_at) == (60, 60)
    assert ending.finished_at


def test_nobody_goes_back_to_what_another_one_has_done_meanwhile(
    alice: User, small: None, monkeypatch: pytest.MonkeyPatch
):
    many(12, alice)
    ending = ending_of(asked(state="active"))
    # Who has read the row, and has not claimed it yet, stands still for a batch of another one.
    before(monkeypatch, endings, "_write", lambda: elsewhere(lambda: carry_on(ending.pk, 0)))
    while not endings.work(ending, 0):
        pass
    assert (ending.ended, ending.looked_at) == (12, 12)


def test_nobody_takes_what_somebody_works_at(
    alice: User, small: None, monkeypatch: pytest.MonkeyPatch
):
    many(12, alice)
    ending = ending_of(asked(state="active"))
    seen = []

    def look() -> None:
        seen.append(elsewhere(lambda: carry_on(ending.pk)))
        seen.append(elsewhere(lambda: Ending.objects.get().ended))

    before(monkeypatch, endings, "rows_again", look)
    done(ending)
    assert seen == [30, 0]


class Killed(BaseException):
    """What befalls a worker."""


@pytest.mark.parametrize("words", [{"network": "192.0.2.1"}, {"state": "active"}])
@pytest.mark.parametrize("when", ["the row says so", "anything ends"])
def test_after_a_worker_was_killed_the_next_one_ends_the_rest(
    alice: User,
    small: None,
    ended: Any,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    words: dict[str, str],
    when: str,
):
    rows = many(23, alice)
    ending = ending_of(asked(**words))
    work(ending, 0)

    def kill() -> None:
        raise Killed

    if when == "anything ends":
        before(monkeypatch, endings, "rows_again", kill)
    else:
        kill_after_the_batch(monkeypatch)
    with pytest.raises(Killed):
        work(ending, 60)
    assert not work(ending, 60)  # nobody knows yet that the worker was killed
    assert carry_on(ending.pk) == 30
    clock.move(endings.CLAIM)
    done(ending)
    assert not stored(rows)
    assert (ending.ended, ending.looked_at) == (23, 23)
    told = [each for batch, *_ in ended for each in batch]
    assert sorted(told) == sorted(handles(rows))


def kill_after_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    write = endings._write

    def killed(ending: Ending, **columns: Any) -> bool:
        if "done_to" in columns:
            monkeypatch.setattr(endings, "_write", write)
            raise Killed
        return write(ending, **columns)

    monkeypatch.setattr(endings, "_write", killed)


def test_who_has_stood_still_for_too_long_leaves_the_work_to_the_next_one(
    alice: User, small: None, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    many(12, alice)
    ending = ending_of(asked(users=str(alice.pk)))

    def stand_still() -> None:
        clock.move(endings.CLAIM)
        assert elsewhere(lambda: carry_on(ending.pk)) is None

    before(monkeypatch, endings, "rows_again", stand_still)
    assert work(ending, 60)  # for the other one has finished it
    assert (ending.ended, ending.looked_at) == (12, 12)


def test_store_that_does_not_answer_stops_nothing(
    alice: User, small: None, monkeypatch: pytest.MonkeyPatch
):
    browser = sign_in(alice)
    rows = many(12, alice)
    with monkeypatch.context() as patch:
        take_down(patch, "remove")
        ending = done(ending_of(asked(state="active")))
    assert ending.ended == 13
    assert not UserSession.objects.filter(ended_at=None).exists()
    purge()
    assert not stored(rows)
    assert not is_in(browser)


def test_purge_finishes_what_no_worker_looks_after(alice: User, small: None, caplog: Any):
    rows = many(23, alice)
    work(ending_of(asked(state="active")), 0)
    broken = ending_of(asked(state="active"))
    Ending.objects.filter(pk=broken.pk).update(filters='{"state": "asleep"}')
    call_command("clearsessions", verbosity=0)
    assert not stored(rows)
    first, second = Ending.objects.order_by("pk")
    assert (first.ended, second.finished_at) == (23, None)
    assert f"The ending {second.pk} does not go on: ValidationError" in caplog.text


def test_number_that_somebody_has_made_up_does_no_harm(alice: User):
    browser = sign_in(alice)
    assert carry_on(4711) is None
    assert carry_on(10**30) is None
    assert is_in(browser)


def test_ending_by_somebody_whose_account_has_gone_goes_on(alice: User, support: User):
    rows = many(3, alice)
    ending = ending_of(asked(users=str(alice.pk)), support)
    support.delete()
    done(ending)
    assert not stored(rows)


# What is kept.


def test_endings_go_with_the_retention_and_the_newest_epochs_stay(
    alice: User, bob: User, clock: Clock
):
    def thrown(scope: Ending.Scope, **more: Any) -> int:
        ending = throw(scope, by=None, note=NOTE, ended_from=None, **more)
        clock.move(seconds=1)
        return done(ending).pk

    thrown(Ending.Scope.USER, user=alice)
    thrown(Ending.Scope.STAFF)
    everybody = thrown(Ending.Scope.EVERYBODY)
    # This one says less than the one before.
    thrown(Ending.Scope.EVERYBODY, before=timezone.now() - DAY)
    last_month = Ending.objects.latest("pk").pk
    thrown(Ending.Scope.USER, user=alice)
    newest = [
        thrown(Ending.Scope.USER, user=alice),
        thrown(Ending.Scope.USER, user=bob),
        thrown(Ending.Scope.STAFF),
    ]
    done(ending_of(asked(state="active")))
    with override_settings(SESSIONKIT_RETENTION=3600):
        endings.finish_all()
        assert Ending.objects.count() == 9
        unfinished = ending_of(asked(state="active")).pk
        with mock.patch.object(endings, "work"):
            clock.move(seconds=3700)
            endings.finish_all()
    kept = set(Ending.objects.values_list("pk", flat=True))
    assert kept == {everybody, last_month, *newest, unfinished}


# What is said of it.


def test_every_ending_is_in_the_log_in_the_words_of_owasp(
    alice: User, support: User, caplog: pytest.LogCaptureFixture
):
    many(2, alice)
    own = handle(sign_in(support))
    note = 'x"\nauthz_admin:1,forged \u2028'
    ending = begin(asked(users=str(alice.pk)), by=support, note=note, ended_from=own)
    done(ending)
    throw(Ending.Scope.USER, by=None, note="", ended_from=None, user=alice)
    records = [each for each in caplog.records if each.name == "django_sessionkit.audit"]
    said = [each.getMessage() for each in records]
    assert {each.levelno for each in records} == {logging.WARNING}
    words = json.dumps(json.dumps({"users": str(alice.pk)}))
    quoted = json.dumps(note)
    switch = Ending.objects.latest("pk")
    assert switch.before
    who, moment = f"authz_admin:{support.pk}", switch.before.isoformat()
    what = f"ending={ending.pk} scope=filter filter={words} from={own} reason={quoted}"
    runs_it = f"os_user={pwd.getpwuid(os.getuid()).pw_name}"
    whose = f"{runs_it} ending={switch.pk} scope=user users={alice.pk} before={moment}"
    assert said == [
        f"{who},sessions_ending {what}",
        f"{who},sessions_ended ending={ending.pk} ended=2 reason={quoted}",
        f"authz_admin:-,sessions_ending {whose}",
    ]
    assert "\n" not in "".join(said)


@pytest.mark.once
def test_log_has_who_runs_a_command_and_not_who_they_say_they_are(
    alice: User, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def os_user() -> str:
        caplog.clear()
        ending_of(asked(users=str(alice.pk)))
        (said,) = (record.getMessage() for record in caplog.records)
        return str(said.partition("sessions_ending os_user=")[2].partition(" ending=")[0])

    monkeypatch.setenv("LOGNAME", "somebody-else")
    assert os_user() == pwd.getpwuid(os.getuid()).pw_name
    # In a container, which may have no name for the number.
    monkeypatch.setattr(os, "getuid", lambda: 2_000_000_001)
    assert os_user() == "2000000001"
    # Nor is there anything else to ask on Windows.
    monkeypatch.setenv("LOGNAME", "DOMAIN\\Some body\nauthz_admin:1,forged")
    monkeypatch.setitem(sys.modules, "pwd", None)
    assert os_user() == json.dumps("DOMAIN\\Some body\nauthz_admin:1,forged")


def test_site_hears_of_the_beginning_and_of_the_end(alice: User, small: None):
    many(12, alice)
    heard: list[Any] = []

    def listen(signal: Any, ending: Ending, **kwargs: Any) -> None:
        heard.append((signal, ending.pk, ending.ended))
        raise ValueError  # of the site: it keeps nobody

    for each in (ending_started, ending_finished):
        each.connect(listen)
    ending = ending_of(asked(state="active"))
    while not work(ending, 0):
        pass
    assert heard == [(ending_started, ending.pk, 0), (ending_finished, ending.pk, 12)]


def test_rows_that_an_ending_has_ended_can_be_told(alice: User, support: User):
    rows = many(3, alice)
    done(ending_of(asked(handle=str(rows[0].pk)), support))
    ending = done(ending_of(asked(users=str(alice.pk)), support, ended_from=rows[1].pk))
    assert [row.pk for row in reach.ended_rows(ending)] == [rows[2].pk]


def test_log_of_the_admin_has_every_session_or_one_entry_for_many(
    alice: User, bob: User, support: User
):
    rows, others = many(3, alice), many(1, bob)
    UserSession.objects.filter(user=bob).revoke(EndReason.REVOKED_BY_STAFF, bob)
    ending = done(ending_of(asked(users=str(alice.pk)), support))
    log_ended(support.pk, [row.pk for row in (*rows, *others)], NOTE)
    log_ended(support.pk, [rows[0].pk], "")
    log_ending(ending)
    log_ending(ending_of(asked(users=str(alice.pk))))  # of a command: nobody's
    entries = list(LogEntry.objects.order_by("pk"))
    assert {entry.object_id for entry in entries[:3]} == {str(row.pk) for row in rows}
    assert [entry.change_message for entry in entries[2:]] == [
        f"Ended: {NOTE}",
        "Ended.",
        f"Ended: {NOTE}",
    ]
    assert entries[4].get_edited_object() == ending
    assert {entry.user for entry in entries} == {support}


def test_sessions_that_end_without_a_row_of_ending_are_in_the_log_too(
    alice: User, support: User, caplog: pytest.LogCaptureFixture
):
    one, *more = (row.pk for row in many(21, alice))
    audit.ended(support.pk, [one], NOTE)
    audit.ended("a b", [one, *more], "")
    assert [each.getMessage() for each in caplog.records] == [
        f'authz_admin:{support.pk},sessions_ended sessions={one} reason="{NOTE}"',
        'authz_admin:"a b",sessions_ended sessions="21 in all"',
    ]


# Before.


def test_preview_says_whose_sessions_they_are(alice: User, bob: User, support: User, root: User):
    own = sign_in(support)
    many(3, alice)
    many(2, bob, expires_at=timezone.now() - DAY)
    many(4, root)
    shown = preview(asked(network="192.0.2.0/24"), by=support, own=handle(own))
    assert (shown.count, shown.is_more, shown.users) == (4, False, 2)
    assert (shown.staff, shown.staff_count) == (["support"], 1)
    assert shown.has_own
    assert shown.superusers == 4
    assert {row.user for row in shown.sample} == {alice, support}
    shown = preview(asked(network="192.0.2.0/24"), by=root, own=None)
    assert (shown.count, shown.users, shown.superusers, shown.has_own) == (8, 3, 0, False)
    assert shown.staff == ["support", "root"]


@pytest.mark.parametrize("words", [{"network": "192.0.2.1"}, {"state": "active"}])
def test_preview_is_bounded(
    alice: User, root: User, monkeypatch: pytest.MonkeyPatch, words: dict[str, str]
):
    monkeypatch.setattr(reach, "LIMIT", 20)
    monkeypatch.setattr(reach, "NAMES", 2)
    staff = [User.objects.create_user(name, is_staff=True) for name in ("x", "y", "z")]
    for each in (*staff, alice):
        many(8, each)
    many(8, root)
    with CaptureQueriesContext(connection) as queries:
        shown = preview(asked(**words), by=staff[0], own=UserSession.objects.all()[0].pk)
    assert (shown.count, shown.is_more) == (20, True)
    assert (shown.staff, shown.staff_count, shown.superusers) == (["x", "y"], 3, 8)
    assert len(shown.sample) == 10
    # One of them has found the first row above.
    assert len(queries) == 1 + (8 if "state" in words else 7)
    monkeypatch.setattr(reach, "NEWEST", 12)
    monkeypatch.setattr(reach, "LIMIT", 1000)
    shown = preview(asked(**words), by=root, own=None)
    # The newest, where no index leads to them.
    assert (shown.count, shown.is_more) == ((12, True) if "state" in words else (40, False))
