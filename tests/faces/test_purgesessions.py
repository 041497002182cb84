"""The command "purgesessions": how fast it is, and what it says. test_purge.py has the purge."""

import io
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_sessionkit import purging, ranges
from django_sessionkit.management.commands import clearsessions
from django_sessionkit.models import PurgeRun, UserSession
from django_sessionkit.purging import Purged
from django_sessionkit.signals import purge_finished
from tests.many import many
from tests.store import Clock, take_down

pytestmark = pytest.mark.django_db


def run(*arguments: str, **options: Any) -> str:
    stdout = io.StringIO()
    call_command("purgesessions", *arguments, stdout=stdout, **options)
    return stdout.getvalue()


@pytest.fixture
def old(alice: User) -> list[UserSession]:
    """The rows of three sessions that ended years ago."""
    at = timezone.now() - timedelta(days=1000)
    return many(3, alice, last_seen_at=at, expires_at=at, ended_at=at)


def test_it_says_what_it_has_done(old: list[UserSession]):
    first, last, *figures = run().splitlines()
    assert first == "Removing expired sessions."
    assert last.startswith("Done: ")
    assert ["deleted", "3"] in [line.split() for line in figures]
    assert not UserSession.objects.exists()
    assert len(run().splitlines()) == 2  # there is nothing to do, and nothing to say of that


def test_a_dry_run_counts_and_changes_nothing(old: list[UserSession]):
    said = run("--dry-run")
    assert said.startswith("Counting expired sessions.\n")
    assert ["deleted", "3"] in [line.split() for line in said.splitlines()]
    assert UserSession.objects.count() == 3


def test_a_program_reads_json(old: list[UserSession]):
    facts = json.loads(run("--json"))
    assert facts["figures"]["deleted"] == 3
    assert facts["seconds"] >= 0
    assert (facts["finished"], facts["dry_run"]) == (True, False)
    assert set(facts) == {"finished", "dry_run", "seconds", "figures"}


def test_it_says_nothing_if_it_is_told_so(old: list[UserSession]):
    assert run(verbosity=0) == ""
    assert not UserSession.objects.exists()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How the purge was asked for. It never finishes."""
    seen: list[dict[str, Any]] = []

    def purge(report: Any, **how: Any) -> Purged:
        seen.append(how)
        return Purged({"deleted": 1200}, finished=False)

    monkeypatch.setattr(clearsessions, "purge", purge)
    return seen


@pytest.mark.once
def test_it_stops_when_its_time_is_over_and_says_so(asked: list[dict[str, Any]]):
    said = run("--seconds", "0.5").splitlines()
    assert asked == [{"seconds": 0.5, "dry_run": False}]
    assert said[-1] == "There is more to do. Run this again to go on."
    assert said[-2].split() == ["deleted", "1,200"]
    assert json.loads(run("--json"))["finished"] is False
    assert run(verbosity=0) == ""


@pytest.mark.once
def test_count_that_has_too_little_time_says_so(asked: list[dict[str, Any]]):
    """The next one does not go on: this one has noted nothing."""
    said = run("--dry-run", "--seconds", "0.5").splitlines()
    assert said[-1] == "Not all was counted: the time was too short."


@pytest.mark.once
def test_it_rests_unless_it_is_told_not_to(asked: list[dict[str, Any]]):
    run()
    run("--full-speed")
    assert [how.get("duty", "the default") for how in asked] == ["the default", 1]


@pytest.mark.once
@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_a_time_that_makes_no_sense_is_refused(text: str):
    with pytest.raises(CommandError, match="is no number of seconds above 0"):
        run("--seconds", text)


def test_store_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch):
    take_down(monkeypatch, "remove_expired")
    with pytest.raises(CommandError, match="did not answer") as failed:
        run("--json")
    assert failed.value.returncode == 1


@pytest.mark.once
def test_command_that_is_stopped_can_be_run_again(monkeypatch: pytest.MonkeyPatch):
    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(clearsessions, "purge", stop)
    with pytest.raises(CommandError, match="Stopped") as stopped:
        run("--json")
    assert stopped.value.returncode == 130


@pytest.mark.once
def test_engine_of_django_is_not_for_this_command(settings: Any):
    """Its sessions would go in a dry run, too."""
    Session.objects.create(session_key="old", expire_date=timezone.now() - timedelta(days=1))
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.db"
    with pytest.raises(CommandError, match="none of ours"):
        run("--dry-run")
    assert Session.objects.count() == 1


# The signal.


@pytest.fixture
def heard() -> Iterator[list[dict[str, Any]]]:
    """The signals purge_finished that were sent."""
    signals: list[dict[str, Any]] = []

    def listen(sender: Any, signal: Any, **facts: Any) -> None:
        assert sender is PurgeRun
        signals.append(facts)

    purge_finished.connect(listen)
    yield signals
    purge_finished.disconnect(listen)


def test_signal_has_the_figures_of_a_purge(
    old: list[UserSession], heard: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    run("--dry-run", verbosity=0)
    with monkeypatch.context() as down:
        take_down(down, "remove_expired")
        with pytest.raises(CommandError):
            run(verbosity=0)
    assert heard == []
    done = purging.purge()
    (facts,) = heard
    assert facts["figures"] == done.figures
    assert facts["figures"]["deleted"] == 3
    assert facts["seconds"] >= 0
    assert set(facts) == {"figures", "seconds"}


def test_signal_is_sent_once_for_a_purge_that_took_several_runs(
    alice: User, heard: list[dict[str, Any]], clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ranges, "ROWS", 5)
    monkeypatch.setattr(ranges, "BLOCKS", 1)
    at = timezone.now() - timedelta(days=1000)
    many(23, alice, last_seen_at=at, expires_at=at, ended_at=at, user_agent="M" * 512)
    runs = 1
    while not purging.purge(seconds=1e-9).finished:
        assert heard == []
        clock.move(seconds=10)
        runs += 1
    assert runs > 2
    (facts,) = heard
    assert facts["figures"]["deleted"] == 23
    assert facts["seconds"] == 10 * (runs - 1)
