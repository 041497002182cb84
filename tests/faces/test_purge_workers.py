"""
The purge by real workers of Celery and their beat, with a real Redis as the broker: they are killed
in the middle, get a message twice, and lose their broker.
"""

import os
import re
import signal
import uuid
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from django_sessionkit import tasks
from django_sessionkit.models import EndReason, PurgeRun, UserSession
from tests.many import handles, many
from tests.redis_servers import FORGETFUL, Server, wait_for
from tests.store import SessionStore
from tests.workers import a_worker, celery_app, write_settings

pytestmark = pytest.mark.django_db(transaction=True)

# A site whose beat does not wait for an hour. Its receiver notes every session that it hears of. It
# gets stuck when a file says so, until that file is gone.
SITE = """
import time
from pathlib import Path
from celery import Celery
from django_sessionkit.schedule import sessionkit_schedule

FOLDER = Path({folder!r})
app = Celery("site", broker={broker!r})
app.conf.update(
    broker_transport_options={{"visibility_timeout": 1}},
    worker_prefetch_multiplier=1,
    beat_schedule={{**sessionkit_schedule()}},
)
hourly = app.conf.beat_schedule["django_sessionkit.purge"]
app.conf.beat_schedule["soon"] = {{**hourly, "schedule": 0.2}}
app.autodiscover_tasks()

@app.on_after_finalize.connect
def listen(**kwargs):
    from django_sessionkit.signals import sessions_ended
    sessions_ended.connect(note, weak=False)

def note(handles, reason, **kwargs):
    with (FOLDER / "told").open("a") as told:
        told.writelines(f"{{handle}} {{reason}}\\n" for handle in handles)
    if (FOLDER / "is-to-be-stuck").exists():
        (FOLDER / "is-to-be-stuck").rename(FOLDER / "is-stuck")
        while (FOLDER / "is-stuck").exists():
            time.sleep(0.01)
"""


@pytest.fixture
def broker() -> Iterator[Server]:
    with Server(*FORGETFUL, of_brand="redis") as broker:
        yield broker


@pytest.fixture
def site(tmp_path: Path, broker: Server) -> Path:
    """The folder of a site."""
    (tmp_path / "site_celery.py").write_text(SITE.format(folder=str(tmp_path), broker=broker.url))
    write_settings(tmp_path)
    return tmp_path


def worker_of(site: Path, *arguments: str, name: str = "first") -> Any:
    return a_worker(site, *arguments, name=name, DJANGO_SETTINGS_MODULE="site_settings")


def with_beat(site: Path) -> Any:
    return worker_of(site, "--beat", "--schedule", str(site / "schedule"))


def long_ended(user: User) -> UserSession:
    """Enter a session that ended years ago, and return its row."""
    at = timezone.now() - timedelta(days=1000)
    (row,) = many(1, user, last_seen_at=at, expires_at=at, ended_at=at)
    return row


def overdue(user: User, number: int) -> list[UserSession]:
    """Enter sessions that have expired since a purge has last looked, and return their rows."""
    at = timezone.now() - timedelta(days=1)
    rows = many(number, user, last_seen_at=at - timedelta(days=14), expires_at=at)
    SessionStore.remove([row.digest for row in rows])
    return rows


def is_gone(row: UserSession) -> bool:
    return not UserSession.objects.filter(pk=row.pk).exists()


def are_closed(rows: list[UserSession]) -> bool:
    closed = UserSession.objects.filter(end_reason=EndReason.EXPIRED).exclude(ended_at=None)
    return closed.count() == len(rows)


def told(site: Path) -> list[uuid.UUID]:
    lines = (site / "told").read_text().splitlines()
    return [uuid.UUID(line.split()[0]) for line in lines]


def has_done(log: Path) -> bool:
    """Tell whether a worker has finished the task."""
    return re.search(r"Task django_sessionkit\.purge\S+ succeeded", log.read_text()) is not None


def send(broker: Server) -> None:
    """Give the workers a message, as beat does."""
    with celery_app(broker.url):
        tasks.purge.delay()


@pytest.mark.once
def test_beat_has_the_sessions_purged(alice: User, site: Path):
    row = long_ended(alice)
    with with_beat(site) as worker:
        wait_for(lambda: is_gone(row))
    assert "Task django_sessionkit.purge" in worker.log.read_text()


def test_worker_that_is_killed_loses_nothing(alice: User, site: Path, broker: Server):
    rows = overdue(alice, 500)
    send(broker)
    (site / "is-to-be-stuck").touch()
    with worker_of(site) as worker:
        wait_for((site / "is-stuck").exists)
        # What it has just closed is announced, and the rest is to be done.
        os.killpg(worker.process.pid, signal.SIGKILL)  # and the process of its pool
        worker.process.wait()
    assert 0 < len(told(site)) < len(rows)
    assert not are_closed(rows)
    # A minute later.
    assert PurgeRun.objects.update(claimed_until=timezone.now()) == 1
    with worker_of(site, name="second") as second:
        wait_for(lambda: are_closed(rows))
    log = second.log.read_text()
    assert sorted(told(site)) == sorted(handles(rows)), log


@pytest.mark.once
def test_message_that_comes_twice_leaves_the_work_to_the_first(
    alice: User, site: Path, broker: Server
):
    rows = overdue(alice, 150)
    (site / "is-to-be-stuck").touch()
    with worker_of(site) as first:
        send(broker)
        wait_for((site / "is-stuck").exists)
        with worker_of(site, name="second") as second:
            send(broker)
            wait_for(partial(has_done, second.log))
            assert not has_done(first.log)
            (site / "is-stuck").unlink()
            wait_for(partial(has_done, first.log))
    assert are_closed(rows)
    assert sorted(told(site)) == sorted(handles(rows))
    assert PurgeRun.objects.count() == 1


@pytest.mark.once
def test_purge_comes_again_after_the_broker_was_away(alice: User, site: Path, broker: Server):
    """A broker that has lost all its messages: beat sends others."""
    row = long_ended(alice)
    with with_beat(site):
        wait_for(lambda: is_gone(row))
        broker.kill()
        broker.start()
        for _ in range(2):  # whatever the worker has had before is done with the first
            row = long_ended(alice)
            wait_for(partial(is_gone, row))
