"""The purge as a Celery task: run at once, and by a worker with its beat. The broker is memory, or
a folder."""

import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from celery import Celery, current_app
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from django_sessionkit import tasks
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import UserSession, get_session_store
from tests import servers
from tests.settings import CELERY_BEAT_SCHEDULE

TASK = "django_sessionkit.purge"

# A site's celery.py, whose beat does not wait for an hour.
SITE = """
from celery import Celery

app = Celery("site")
app.conf.update(
    broker_url="filesystem://",
    broker_transport_options={{
        "data_folder_in": {folder!r}, "data_folder_out": {folder!r}, "control_folder": {folder!r}
    }},
    beat_schedule={schedule!r},
)
app.autodiscover_tasks()
"""


@pytest.fixture
def app() -> Iterator[Celery]:
    before = current_app._get_current_object()
    app = Celery("site", broker="memory://", set_as_current=True)
    app.conf.beat_schedule = CELERY_BEAT_SCHEDULE
    app.autodiscover_tasks(["django_sessionkit"], force=True)
    yield app
    app.close()
    before.set_current()
    before.set_default()  # that of other threads


@pytest.fixture
def old() -> UserSession:
    """The row of a session that ended years ago."""
    at = timezone.now() - timedelta(days=1000)
    return UserSession.objects.create(
        user=User.objects.create_user("alice"),
        digest="0" * 64,
        started_at=at,
        authenticated_at=at,
        last_seen_at=at,
        expires_at=at,
        ended_at=at,
    )


def is_gone(row: UserSession, within: float = 0) -> bool:
    deadline = time.monotonic() + within
    while UserSession.objects.filter(pk=row.pk).exists():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.once
def test_a_sites_autodiscover_tasks_finds_it(app: Celery):
    assert TASK in app.tasks
    assert {entry["task"] for entry in CELERY_BEAT_SCHEDULE.values()} == {TASK}
    assert app.tasks[TASK].ignore_result


@pytest.mark.django_db
def test_task_purges(app: Celery, old: UserSession):
    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    assert tasks.purge.delay().get() is None
    assert is_gone(old)


@pytest.mark.once
def test_task_fails_when_the_store_does_not_answer(app: Celery):
    with mock.patch.object(get_session_store(), "clear_expired", side_effect=StoreUnavailable):
        result = tasks.purge.apply()
    assert isinstance(result.result, StoreUnavailable)


@pytest.mark.once
def test_message_holds_no_argument(app: Celery):
    """What lies on a broker is read by others than us."""
    with app.connection_for_write() as broker:
        queue = broker.SimpleQueue("celery")
        tasks.purge.delay()
        message = queue.get(timeout=5)
        queue.close()
    args, kwargs, _ = json.loads(message.body)
    assert (args, kwargs) == ([], {})
    assert (message.headers["argsrepr"], message.headers["kwargsrepr"]) == ("()", "{}")


@pytest.mark.django_db(transaction=True)
def test_beat_of_a_worker_process_purges(old: UserSession, tmp_path: Path):
    name = connection.settings_dict["NAME"]
    url = f"sqlite:///{name}"
    if connection.vendor != "sqlite":
        url = servers.with_name(servers.SERVERS[connection.vendor](), name)
    soon: dict[str, Any] = {**CELERY_BEAT_SCHEDULE["purge sessions"], "schedule": 0.2}
    folder = tmp_path / "broker"
    folder.mkdir()
    (tmp_path / "site_celery.py").write_text(
        SITE.format(folder=str(folder), schedule={"purge sessions": soon})
    )
    command = "-m celery -A site_celery worker --beat --concurrency=1 --loglevel=INFO"
    log = tmp_path / "log"
    with log.open("wb") as output:
        worker = servers._spawn(
            [sys.executable, *command.split(), "--schedule", str(tmp_path / "schedule")],
            tmp_path,
            log=output.fileno(),
            env={
                **os.environ,
                "PYTHONPATH": f"{servers.PROJECT}:{tmp_path}",
                "DJANGO_SETTINGS_MODULE": "example_project.settings",
                "DATABASE_URL": url,
            },
        )
    try:
        gone = is_gone(old, within=60)
    finally:
        servers._stop(worker)
    assert gone, log.read_text()
    assert worker.returncode == 0, log.read_text()
    assert "Task django_sessionkit.purge" in log.read_text()
