"""What ``manage.py sessions`` lists, shows and ends, what it asks, and what it says."""

import io
import json
import re
import shlex
import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_sessionkit import endings, ranges, reach
from django_sessionkit.management import facts as facts_module
from django_sessionkit.management.commands import clearsessions, sessions
from django_sessionkit.models import Ending, EndReason, UserSession, uuid7
from django_sessionkit.reach import Preview
from django_sessionkit.selection import Selection
from django_sessionkit.signals import sessions_ended
from tests import store
from tests.documents import blocks_of, section
from tests.many import many, stored
from tests.people import CHROME, FIREFOX, IPHONE, is_in, key_of, row_of, sign_in

pytestmark = pytest.mark.django_db

once = pytest.mark.once
WHY = ("--reason", "ticket 4711")
NOT_ASKED = (*WHY, "--no-input")


def run(*arguments, verbosity=1):
    """Return what the command says."""
    out = io.StringIO()
    call_command("sessions", *map(str, arguments), stdout=out, verbosity=verbosity)
    return out.getvalue()


def refused(*arguments):
    """Return the exit code, and what the command says of it."""
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    return caught.value.returncode, str(caught.value)


def facts(*arguments):
    return [json.loads(line) for line in run(*arguments, "--json").splitlines()]


def handles(*arguments):
    return [uuid.UUID(each["handle"]) for each in facts("list", *arguments)]


@pytest.fixture
def answers(monkeypatch):
    """A function that says what somebody types, and returns the questions."""

    def answers(*typed):
        left, asked = list(typed), []

        def answer(question):
            asked.append(question)
            if not left:
                raise EOFError
            return left.pop(0)

        monkeypatch.setattr("builtins.input", answer)
        return asked

    return answers


@pytest.fixture
def parts(monkeypatch):
    """Parts so small that a few sessions are many of them, and two slices that end after one."""
    slices, work = iter([0, 0]), endings.work
    monkeypatch.setattr(endings, "work", lambda ending, most: work(ending, next(slices, most)))
    monkeypatch.setattr(ranges, "ROWS", 2)
    monkeypatch.setattr(clearsessions, "ON_TERMINAL", 0)


# Which sessions.


def test_filters(alice, bob, root, settings):
    laptop = row_of(sign_in(alice, FIREFOX, "192.0.2.1"))
    phone = row_of(sign_in(alice, IPHONE, "198.51.100.7"))
    theirs = row_of(sign_in(bob, CHROME, "192.0.2.77"))
    admins = row_of(sign_in(root, FIREFOX, "203.0.113.9"))
    old = timezone.now() - timedelta(days=31)
    rows = UserSession.objects.filter(pk=theirs.pk)
    rows.update(id=uuid7(int(old.timestamp() * 10**9)), last_seen_at=old, novelty="device")
    theirs = rows.model.objects.get(digest=theirs.digest)
    UserSession.objects.filter(pk=phone.pk).revoke(EndReason.LOGOUT)
    for arguments, expected in [
        (["--all"], [admins, phone, laptop, theirs]),
        (["--user", "alice"], [phone, laptop]),
        (["--user", alice.pk], [phone, laptop]),
        (["--ip", "192.0.2.1"], [laptop]),
        (["--network", "192.0.2.0/24"], [laptop, theirs]),
        (["--network", "192.0.2.0/24", "--user", "bob"], [theirs]),
        (["--older-than", "30d"], [theirs]),
        (["--older-than", "4w"], [theirs]),
        (["--inactive-for", "1h"], [theirs]),
        (["--device", phone.pk], [phone]),
        (["--device", laptop.browser], [laptop]),
        (["--device-type", "mobile"], [phone]),
        (["--staff"], [admins]),
        (["--transport", "cookie", "--user", "bob"], [theirs]),
        (["--new"], [theirs]),
        (["--search", "ali"], [phone, laptop]),
        (["--search", "bob@example.org"], [theirs]),
        (["--search", "192.0.2.1", "--user", "alice"], [laptop]),
        (["--search", "192.0.2.1", "--ip", "192.0.2.1"], [laptop]),
        (["--state", "active", "--user", "alice"], [laptop]),
        (["--all", "--state", "ended"], [phone]),
        (["--reason", "logout"], [phone]),
        (["--all", "--limit", 2], [admins, phone]),
    ]:
        assert handles(*arguments) == [row.pk for row in expected], arguments


def test_name_that_is_the_key_of_another_user(alice, bob):
    namesake = User.objects.create_user(str(alice.pk), password="secret")
    browser = sign_in(namesake)
    sign_in(alice)
    assert handles("--user", alice.pk) == [row_of(browser).pk]


@once
def test_user_names_that_are_numbers(alice, monkeypatch):
    monkeypatch.setattr(User, "USERNAME_FIELD", "id")
    assert refused("list", "--user", "alice") == (sessions.USAGE, "“alice” is no user.")


def test_nothing_matches(alice):
    assert refused("list", "--user", alice.pk) == (1, "No session matches.")
    assert refused("end", "--user", "alice", *WHY) == (1, "No active session matches.")
    assert refused("end", "--user", "alice", "--dry-run") == (1, "No active session matches.")
    assert refused("show", uuid7()) == (1, "No session has this handle.")
    assert refused("endings") == (1, "No ending is unfinished.")


@once
@pytest.mark.parametrize("verb", ["list", "end"])
def test_no_filter_is_never_everything(laptop, verb):
    more = NOT_ASKED if verb == "end" else ()
    assert refused(verb, *more) == (sessions.USAGE, sessions.WHICH)
    for option in ("--user", "--network", "--search"):
        assert "there is no text" in refused(verb, *more, "--staff", option, "")[1]
    assert is_in(laptop)


@once
def test_reason_is_a_text(laptop):
    for reason, said in [("", "no text"), (" ", "no text"), ("\udcff", "no UTF-8")]:
        assert said in refused("end", "--all", *NOT_ASKED, "--reason", reason)[1]
    assert is_in(laptop)


@once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--all", "--staff"], "--all is every session: leave out the filters."),
        (["list", "--all", "--limit", "0"], "--limit is 1 at least."),
        (["list", "--user", "carol"], "“carol” is no user."),
        (["list", "--network", "192.0.2"], "“192.0.2” is no address or network"),
        (["list", "--search", "x" * 1001], "Search for a shorter text."),
        (["list", "--ip", "192.0.2.1", "--search", "192.0.2.2"], "Search for one thing at a time."),
        (["list", "--older-than", "99999d"], "is no time"),
        (["end", "--all"], 'Say why, by --reason "ticket 4711".'),
        (["end", "--all", "--reason", "x" * 256, "--no-input"], "at most 255 characters"),
        (["end", "--all", *WHY, "--json"], "With --json, add --no-input or --dry-run."),
        (["end", "--resume", "1", "--dry-run"], "--resume goes on with one ending"),
        (["end", "--resume", "1", "--user", "alice"], "--resume goes on with one ending"),
        (["end", "--resume", "1", "--all"], "--resume goes on with one ending"),
        (["end", "--new", "--now", *WHY], "--now goes with one of --all, --staff and --user"),
        (["end", "--user", "alice", "--staff", "--now", *WHY], "--now goes with one of"),
    ],
)
def test_usage(laptop, arguments, message):
    code, said = refused(*arguments)
    assert message in said
    assert code == sessions.USAGE
    assert is_in(laptop)


@once
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["show"],
        ["show", "nonsense"],
        ["list", "--ip", "192.0.2.0/24"],
        ["list", "--ip", "192.0.2.1", "--network", "192.0.2.0/24"],
        ["list", "--older-than", "30"],
        ["list", "--older-than", "٣d"],
        ["list", "--inactive-for", "999999999w"],
        ["list", "--device", "nonsense"],
        ["list", "--device-type", "toaster"],
        ["list", "--user", "\udcff"],
        ["list", "--search", "a\0b"],
        ["end", "--user", ""],
        ["end", "--state", "active"],
    ],
)
def test_shell_is_told_of_wrong_usage(arguments, capsys):
    command = sessions.Command()
    command._called_from_command_line = True
    with pytest.raises(SystemExit) as caught:
        command.create_parser("manage.py", "sessions").parse_args(arguments)
    assert caught.value.code == sessions.USAGE
    assert capsys.readouterr().err.startswith("usage: manage.py sessions")


# What it says.


def test_table_fits_a_terminal(alice, clock):
    browser = sign_in(alice, IPHONE, "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff")
    long = User.objects.create_user("x" * 150, password="secret")
    sign_in(long, FIREFOX, "192.0.2.1")
    clock.move(seconds=3 * 60 * 60)
    head, *lines = run("list", "--all").splitlines()
    mine, theirs = sorted(lines, key=lambda line: "x…" in line)  # the clock stood still
    assert head.split() == ["SESSION", "USER", "STATE", "ACTIVE", "ADDRESS", "DEVICE"]
    assert max(map(len, [head, *lines])) <= facts_module.WIDTH
    assert mine.split()[:5] == [str(row_of(browser).pk), "alice", "active", "3h", "ago"]
    assert "x…" in theirs
    assert theirs.split()[-3:-1] == ["Firefox", "on"]


@once
@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0s ago"), (59, "59s ago"), (60, "1m ago"), (86_400, "1d ago")]
)
def test_how_long_ago(alice, clock, seconds, said):
    sign_in(alice)
    clock.move(seconds=seconds)
    assert said in run("list", "--all")


@once
def test_browser_can_not_write_to_the_terminal(alice):
    row = row_of(sign_in(alice))
    User.objects.filter(pk=alice.pk).update(username="al\x1b[31mice\n")
    UserSession.objects.filter(pk=row.pk).update(label="\x1b]0;x\x07")
    for said in (run("list", "--all"), run("show", row.pk), run("list", "--all", "--json")):
        assert "\x1b" not in said
        assert "\x07" not in said
    assert "al?[31mice?" in run("list", "--all")
    assert facts("list", "--all")[0]["user_name"] == "al\x1b[31mice\n"


def test_there_are_more(alice, capsys):
    for _ in range(3):
        sign_in(alice)
    run("list", "--user", "alice", "--limit", 3)
    assert capsys.readouterr().err == ""
    assert len(run("list", "--user", "alice", "--limit", 2).splitlines()) == 3
    assert capsys.readouterr().err == "There are more than 2. See them by --limit.\n"


def test_all_that_is_known_of_a_session(alice, laptop):
    row = row_of(laptop)
    (said,) = facts("show", row.pk)
    assert said["handle"] == str(row.pk)
    assert (said["user"], said["user_name"]) == (str(alice.pk), "alice")
    assert (said["state"], said["reason"], said["stored"]) == ("active", "", True)
    assert said["address"] == "192.0.2.1"
    assert said["browser"] == str(row.browser)
    assert said["started_at"].endswith("+00:00")
    assert said["ended_at"] is said["ended_by"] is None
    lines = {line[:17].strip(): line[18:] for line in run("show", row.pk).splitlines()}
    assert set(lines) == set(said)
    assert lines["user_name"] == "alice"
    assert lines["stored"] == "True"
    assert lines["device"] == "Firefox on Linux"
    (listed,) = facts("list", "--all")
    assert listed == {name: value for name, value in said.items() if name != "stored"}


def test_session_that_has_ended(alice, bob, laptop):
    row = row_of(laptop)
    UserSession.objects.filter(pk=row.pk).revoke(by=bob, ended_from=row.pk, note="ticket 4711")
    (said,) = facts("show", row.pk)
    assert (said["state"], said["reason"], said["stored"]) == ("ended", "revoked", False)
    assert (said["ended_by"], said["ended_from"]) == (str(bob.pk), str(row.pk))
    assert said["note"] == "ticket 4711"
    assert " revoked " in run("list", "--all")


def test_session_that_has_expired_or_is_locked(alice, policy, clock):
    policy(idle=60, lock=True)
    row = row_of(sign_in(alice))
    clock.move(seconds=61)
    assert facts("show", row.pk)[0]["state"] == "locked"
    clock.move(seconds=14 * 24 * 3600)
    (said,) = facts("show", row.pk)
    assert (said["state"], said["reason"]) == ("ended", "expired")


def test_store_that_does_not_answer(laptop, monkeypatch, capsys):
    row = row_of(laptop)
    store.take_down(monkeypatch, "peek")
    assert facts("show", row.pk)[0]["stored"] is None
    assert "did not answer" in capsys.readouterr().err


def test_user_who_is_not_there_any_more(alice, laptop):
    User.objects.filter(pk=alice.pk)._raw_delete("default")
    assert facts("list", "--user", alice.pk)[0]["user_name"] == ""
    assert run("list", "--all").splitlines()[1].split()[1] == str(alice.pk)
    assert refused("end", "--user", alice.pk, "--now", *NOT_ASKED) == (1, "There is no such user.")


@pytest.mark.parametrize("use_tz", [True, False])
def test_times_are_in_utc(alice, clock, settings, use_tz):
    settings.USE_TZ, settings.TIME_ZONE = use_tz, "America/Chicago"
    sign_in(alice)
    assert facts("list", "--all")[0]["started_at"] == "2040-03-01T18:00:00+00:00"


def test_no_secret_is_said(alice):
    browser = sign_in(alice)
    row = row_of(browser)
    said = "".join(
        run(*arguments)
        for verb in (["list", "--all"], ["show", row.pk])
        for arguments in (verb, [*verb, "--json"])
    )
    assert key_of(browser) not in said
    assert row.digest not in said
    assert str(row.pk) in said


# To end them.


def test_one_session_ends_without_a_question(laptop, answers, ended):
    asked = answers()
    row = row_of(laptop)
    said = run("end", "--device", row.pk, *WHY)
    assert said.endswith("Ended 1 session.\n")
    assert asked == []
    assert not is_in(laptop)
    row.refresh_from_db()
    assert (row.end_reason, row.ended_by, row.end_note) == ("revoked_by_staff", None, "ticket 4711")
    assert ended == [({row.pk}, "revoked_by_staff", None)]


def test_question_before_more_than_one(alice, root, answers):
    browsers = [sign_in(alice), sign_in(alice), sign_in(root)]
    asked = answers("", "n", "nonsense")
    for _ in range(3):
        assert refused("end", "--all", *WHY) == (1, "Nothing was ended.")
    assert refused("end", "--all", *WHY)[0] == 1  # nobody answers
    assert asked == ["End them? [y/N] "] * 4
    assert not Ending.objects.exists()
    assert is_in(browsers[0])
    answers("Yes ")
    said = run("end", "--all", *WHY)
    assert said.startswith("This ends 3 sessions of 2 users. Staff among them: root.\n")
    assert said.endswith("Ended 3 sessions.\n")
    assert not any(is_in(browser, name) for browser in browsers for name in ("alice", "root"))


def test_number_is_typed_before_something_large(alice, answers, monkeypatch):
    browsers = [sign_in(alice) for _ in range(3)]
    monkeypatch.setattr(endings, "BACKGROUND", 2)
    asked = answers("y", "2")
    for _ in range(2):
        assert refused("end", "--user", "alice", *WHY) == (1, "Nothing was ended.")
    assert asked == ["To end them, type 3: "] * 2
    answers("3")
    run("end", "--user", "alice", *WHY)
    assert not any(is_in(browser) for browser in browsers)


@pytest.mark.parametrize("number", [0, 1])
def test_what_was_not_counted_is_asked_about(alice, answers, monkeypatch, number):
    """No index leads to these, and there may be any number of them."""
    old = many(4, alice)
    many(3, alice, transport="header")
    old += many(number, alice)
    monkeypatch.setattr(reach, "NEWEST", 3)
    asked = answers("y", str(number))
    assert refused("end", "--transport", "cookie", *WHY) == (1, "Nothing was ended.")
    run("end", "--transport", "cookie", *WHY)
    assert asked == [f"To end them, type {number}: "] * 2
    assert not stored(old)


def test_dry_run_ends_nothing(alice, root):
    browsers = [sign_in(alice), sign_in(alice), sign_in(root)]
    said = run("end", "--all", "--dry-run")
    assert said == "Would end 3 sessions of 2 users. Staff among them: root.\n"
    assert run("end", "--device", row_of(browsers[0]).pk, "--dry-run") == (
        "Would end 1 session of 1 user.\n"
    )
    assert facts("end", "--all", "--dry-run") == [
        {"count": 3, "is_more": False, "users": 2, "staff": ["root"], "staff_count": 1}
    ]
    assert is_in(browsers[0])
    assert not Ending.objects.exists()


@once
def test_very_many_are_said_in_short():
    many = {"count": 100_000, "is_more": True, "users": 3201, "has_own": False, "superusers": 0}
    found = Preview(**many, staff=["a\x1b", "b"], staff_count=5, sample=[])
    assert sessions.in_words(found) == (
        "more than 100,000 sessions of 3,201 users. Staff among them: a?, b, and 3 more."
    )


def test_what_was_ended_in_json(alice, bob, parts):
    for _ in range(5):
        sign_in(alice)
    stays = sign_in(bob)
    (said,) = facts("end", "--user", "alice", *NOT_ASKED)
    assert (said["scope"], said["ended"], said["reason"]) == ("filter", 5, "ticket 4711")
    assert said["filters"] == {"users": str(alice.pk)}
    assert said["by"] is None
    assert said["finished_at"]
    assert is_in(stays, bob)


def test_progress(alice, parts):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for _ in range(5):
        sign_in(alice)
    out = Terminal()
    call_command("sessions", "end", "--all", *NOT_ASKED, stdout=out)
    assert "Ending sessions. This is the ending" in out.getvalue()
    assert " 40 %" in out.getvalue()
    assert out.getvalue().endswith("Ended 5 sessions.\n")
    sign_in(alice)
    assert run("end", "--all", *NOT_ASKED, verbosity=0) == ""


def test_stopped_and_resumed(alice, parts, monkeypatch, ended):
    browsers = [sign_in(alice) for _ in range(5)]

    def stop(**kwargs):
        raise KeyboardInterrupt

    waited = []

    def wait(seconds):  # as long as the claim of who was stopped lasts
        waited.append(seconds)
        Ending.objects.update(claimed_until=timezone.now() - timedelta(seconds=1))

    monkeypatch.setattr(sessions.time, "sleep", wait)
    sessions_ended.connect(stop)
    code, said = refused("end", "--all", *NOT_ASKED)
    sessions_ended.disconnect(stop)
    (ending,) = Ending.objects.all()
    assert code == sessions.STOPPED
    assert said == f"Stopped. To go on: manage.py sessions end --resume {ending.pk}"
    assert any(is_in(browser) for browser in browsers)
    (unfinished,) = facts("endings")
    assert (unfinished["ending"], unfinished["finished_at"]) == (ending.pk, None)
    head, line = run("endings").splitlines()
    assert head.split() == ["ENDING", "BEGUN", "SESSIONS", "ENDED", "REASON"]
    assert line.split()[0] == str(ending.pk)
    assert "ticket 4711" in line
    for more in (["--dry-run"], ["--all"], ["--user", "alice"], ["--now"]):
        refusal = refused("end", "--resume", ending.pk, *more)
        assert refusal == (sessions.USAGE, sessions.RESUMES)
    assert any(is_in(browser) for browser in browsers)
    assert run("end", "--resume", ending.pk).endswith("Ended 5 sessions.\n")
    assert waited == [sessions.SLICE]
    assert not any(is_in(browser) for browser in browsers)
    assert sum(len(each[0]) for each in ended) == 5
    assert refused("end", "--resume", ending.pk)[0] == 1
    assert refused("endings")[0] == 1


@once
def test_stopped_at_the_question(alice, laptop, monkeypatch):
    def stop(question):
        raise KeyboardInterrupt

    sign_in(alice)
    monkeypatch.setattr("builtins.input", stop)
    assert refused("end", "--all", *WHY) == (sessions.STOPPED, "Stopped.")
    assert is_in(laptop)


def test_superusers_and_apps_are_not_left_out(root, alice):
    browser = sign_in(root)
    run("end", "--staff", *NOT_ASKED)
    assert not is_in(browser, root)


# The switch.


def test_switch_for_everybody(alice, bob, root, answers):
    browsers = {sign_in(user): user for user in (alice, bob, root)}
    asked = answers("n")
    assert refused("end", "--all", "--now", *WHY) == (1, "Nothing was ended.")
    assert asked == ["End them? [y/N] "]
    assert run("end", "--all", "--now", *NOT_ASKED).endswith("Ended 3 sessions.\n")
    (ending,) = Ending.objects.all()
    assert (ending.scope, ending.by, ending.note) == ("everybody", None, "ticket 4711")
    assert ending.before is not None
    assert not any(is_in(browser, user) for browser, user in browsers.items())


def test_switch_for_one_user_is_asked_for(alice, bob, answers):
    mine, theirs = sign_in(alice), sign_in(bob)
    asked = answers("y")
    run("end", "--user", "alice", "--now", *WHY)
    assert len(asked) == 1
    (ending,) = Ending.objects.all()
    assert (ending.scope, json.loads(ending.users)) == ("user", [str(alice.pk)])
    assert not is_in(mine)
    assert is_in(theirs, bob)


def test_switch_for_staff(alice, root):
    mine, theirs = sign_in(alice), sign_in(root)
    run("end", "--staff", "--now", *NOT_ASKED)
    assert Ending.objects.get().scope == "staff"
    assert is_in(mine)
    assert not is_in(theirs, root)


def test_switch_from_a_time(alice, clock):
    old = sign_in(alice)
    clock.move(seconds=3600)
    new = sign_in(alice)
    clock.move(seconds=60)
    run("end", "--all", "--now", "--older-than", "30m", *NOT_ASKED)
    assert not is_in(old)
    assert is_in(new)


def test_switch_is_for_what_no_row_tells_of_too(alice):
    run("end", "--all", "--now", *NOT_ASKED)
    assert Ending.objects.get().scope == "everybody"


# The docs.


@once
def test_commands_of_the_docs(alice, root, answers):
    for _ in range(2):
        row = row_of(sign_in(alice, address="203.0.113.7"))
    handle = "01990f5c-7a2b-7c3d-9e4f-5a6b7c8d9e0f"
    UserSession.objects.filter(pk=row.pk).update(id=handle)
    sign_in(root)
    selection = Selection(users=(str(root.pk),))
    ending = endings.begin(selection, by=None, note="ticket 4711", ended_from=None)
    Ending.objects.filter(pk=ending.pk).update(id=12)
    blocks = [block for block in blocks_of("docs/operations.md") if block.language == "sh"]
    lines = [line for block in blocks for line in block.text.splitlines() if " sessions " in line]
    asked = answers("y", "y")
    said = [run(*shlex.split(line)[3:]) for line in lines]
    assert len(said) == 9
    assert len(asked) == 2  # "ticket 4711" and "stolen backup"
    assert handle in said[0]
    assert said[4].endswith("Ended 2 sessions.\n")
    assert said[6].endswith("Ended 0 sessions.\n")  # begin() leaves superusers out
    assert json.loads(said[8])["user_name"] == "root"


def test_filters_of_the_docs():
    rows = re.findall(
        r"^\| (`--.+?) \|", section("docs/operations.md", "Sessions from the shell"), re.MULTILINE
    )
    told = {option for row in rows for option in re.findall(r"`(--[\w-]+)", row)}
    parser = sessions.Command().create_parser("manage.py", "sessions")
    (verbs,) = parser._subparsers._group_actions
    (listed,) = [verbs.choices["list"]]
    known = {name for action in listed._actions for name in action.option_strings}
    assert told == known - {"-h", "--help", "--json", "--limit"}
