"""The schedule for Celery's beat."""

import platform
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.beat import ScheduleEntry

from django_sessionkit.schedule import sessionkit_schedule
from tests.projects import run_python
from tests.servers import PROJECT

pytestmark = pytest.mark.once

PURGE, CARRY = "django_sessionkit.purge", "django_sessionkit.carry_activity"
START = datetime(2040, 3, 1, 12, 0, tzinfo=UTC)


def minute_of(**chosen: Any) -> int:
    (minute,) = sessionkit_schedule(**chosen)[PURGE]["schedule"].minute
    return int(minute)


def runs_of(restarts: timedelta) -> list[datetime]:
    """Return when beat purges within a day, if it is started again and again and keeps no file."""
    now, runs = START, []
    schedule = sessionkit_schedule(minute=17)[PURGE]["schedule"]
    schedule.nowfun = lambda: now
    last_run = now
    while now < START + timedelta(days=1):
        now += timedelta(seconds=30)
        if (now - START) % restarts == timedelta():
            last_run = now
        if schedule.is_due(last_run).is_due:
            runs.append(now)
            last_run = now
    return runs


@pytest.mark.parametrize("minutes", [25, 10_000], ids=["often", "never"])
def test_beat_purges_every_hour_however_often_it_is_started(minutes: int):
    runs = runs_of(timedelta(minutes=minutes))
    assert [run.hour for run in runs] == [*range(12, 24), *range(12)]
    assert {run.minute for run in runs} == {17}


def test_message_that_no_worker_takes_is_gone_when_the_next_one_comes():
    (entry,) = sessionkit_schedule().values()
    assert entry["options"] == {"expires": 3600}
    assert ScheduleEntry(name=PURGE, **entry).task == PURGE


def test_sites_purge_at_different_times_and_each_keeps_its_own(monkeypatch: pytest.MonkeyPatch):
    minutes = set()
    for number in range(600):
        monkeypatch.setattr(platform, "node", lambda number=number: f"web-{number}")
        assert minute_of() == minute_of()
        minutes.add(minute_of())
    assert minutes == set(range(60))


def test_two_sites_of_one_machine_differ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    minutes = set()
    for name in range(40):
        monkeypatch.setenv("DJANGO_SETTINGS_MODULE", f"site{name}.settings")
        minutes.add(minute_of())
    assert len(minutes) > 10
    here = minute_of()
    monkeypatch.chdir(tmp_path)
    folders = {minute_of(), here}
    for name in range(20):
        (tmp_path / str(name)).mkdir()
        monkeypatch.chdir(tmp_path / str(name))
        folders.add(minute_of())
    assert len(folders) > 5


def test_minute_can_be_chosen():
    assert [minute_of(minute=minute) for minute in (0, 59)] == [0, 59]
    for minute in (-1, 60):
        with pytest.raises(ValueError, match=str(minute)):
            sessionkit_schedule(minute=minute)


def test_activity_that_waits_is_carried_every_few_seconds():
    purge, carry = sessionkit_schedule(activity="buffered").items()
    assert purge[0] == PURGE
    assert carry == (CARRY, {"task": CARRY, "schedule": 15, "options": {"expires": 15}})
    assert [*sessionkit_schedule(activity="direct")] == [PURGE]
    with pytest.raises(ValueError, match="'bufered'"):
        sessionkit_schedule(activity="bufered")


def test_without_celery_it_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "celery.schedules", None)
    assert sessionkit_schedule()[PURGE]["schedule"] == 3600


def test_settings_can_have_it_without_celery_and_before_there_are_settings(tmp_path: Path):
    (tmp_path / "process.py").write_text(
        f"""
import sys

sys.path.insert(0, {str(PROJECT)!r})
sys.modules["celery"] = None
from django_sessionkit.schedule import sessionkit_schedule

print(sessionkit_schedule()[{PURGE!r}]["schedule"], "django.conf" in sys.modules)
"""
    )
    assert run_python(tmp_path, "process.py", env={}) == "3600 False\n"
