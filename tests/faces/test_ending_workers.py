"""
Endings in the background: by a worker of Celery on a real Redis, which is killed in the middle, by
Django's Tasks, and on a site that has neither.
"""

import json
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from celery import Celery
from django.contrib.auth.models import User
from django.db import OperationalError, transaction
from django.db.models import F
from django.test import Client

from django_sessionkit import endings, ranges, tasks
from django_sessionkit.models import Ending, EndReason, UserSession
from django_sessionkit.selection import Selection
from django_sessionkit.staff import progress
from tests.desk import ENDINGS
from tests.many import handles, many, stored
from tests.people import is_in, sign_in
from tests.redis_servers import Server, wait_for
from tests.store import IN_MEMORY, Clock
from tests.workers import a_worker, celery_app, write_settings

pytestmark = pytest.mark.django_db(transaction=True)

DUMMY = "django.tasks.backends.dummy.DummyBackend"


@pytest.fixture
def app() -> Iterator[Celery]:
    with celery_app() as app:
        yield app


@pytest.fixture
def in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "ROWS", 5)
    monkeypatch.setattr(endings, "SLICE", 0)


def ending_of(user: User, **more: Any) -> Ending:
    selection = Selection(users=(str(user.pk),))
    return endings.begin(selection, by=None, note="Ticket 4711", ended_from=None, **more)


# What is handed on.


def test_message_holds_the_number_of_the_ending(app: Celery, alice: User):
    ending = ending_of(alice)
    with app.connection_for_write() as broker:
        queue = broker.SimpleQueue("celery")
        assert endings.send(ending)
        message = queue.get(timeout=5)
        queue.close()
    args, kwargs, _ = json.loads(message.body)
    assert message.headers["task"] == "django_sessionkit.end"
    assert (args, kwargs) == ([ending.pk], {})


def test_worker_that_is_sent_for_in_a_transaction_comes_after_it(app: Celery, alice: User):
    with mock.patch.object(tasks.end, "delay") as delay:
        with transaction.atomic():
            ending = ending_of(alice)
            assert endings.send(ending)
            assert not delay.called
        delay.assert_called_once_with(ending.pk)


def test_broker_that_is_down_leaves_the_work_to_who_shows_the_progress(
    app: Celery, alice: User, caplog: pytest.LogCaptureFixture
):
    browser = sign_in(alice)
    ending = ending_of(alice)
    with mock.patch.object(tasks.end, "delay", side_effect=OSError("amqp://alice:secret@broker")):
        assert not endings.send(ending)
    text = f"No worker was given the ending {ending.pk}: OSError"
    assert text in [each.getMessage() for each in caplog.records]
    assert "secret" not in caplog.text
    assert endings.work(ending, 2)
    assert not is_in(browser)


def test_site_without_a_worker_says_so(alice: User, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "celery", None)
    assert not endings.send(ending_of(alice))


def test_task_that_runs_at_once_does_all_of_it(app: Celery, alice: User, in_small_parts: None):
    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    rows = many(12, alice)
    assert endings.send(ending_of(alice))
    assert not stored(rows)
    other = ending_of(alice)
    assert endings._claim(other)
    assert endings.send(other)  # somebody else does it, and this one does not try for ever


def test_task_sends_itself_on(app: Celery, alice: User, in_small_parts: None):
    rows = many(12, alice)
    ending = ending_of(alice)
    with mock.patch.object(tasks.end, "apply_async") as again:
        for _ in range(4):
            tasks.end(ending.pk)
        assert again.call_args_list == [mock.call([ending.pk], countdown=0)] * 3
        assert not stored(rows)
        # Somebody else, who may have been killed, has it.
        other = ending_of(alice)
        assert endings._claim(other)
        tasks.end(other.pk)
        again.assert_called_with([other.pk], countdown=30)


def test_task_comes_again_after_the_database_was_away(app: Celery, alice: User):
    app.conf.update(task_always_eager=True)
    with mock.patch.object(endings, "carry_on", side_effect=[OperationalError, None]) as work:
        assert tasks.end.delay(4711).successful()
    assert work.call_count == 2


# Django's Tasks.


class Task:
    """What stands in for a task of Django's Tasks before Django 6.0."""

    def __init__(self, function: Any) -> None:
        self.call = function
        self.sent: list[Any] = []
        self.defers = True

    def enqueue(self, *args: Any) -> None:
        self.sent.append(args)

    def using(self, run_after: Any) -> Any:
        return SimpleNamespace(enqueue=lambda *args: self.sent.append((*args, run_after)))

    def get_backend(self) -> Any:
        return SimpleNamespace(supports_defer=self.defers)


class RealTask:
    """A task of Django's Tasks, from Django 6.0 on, as the stand-in shows it."""

    def __init__(self, task: Any) -> None:
        self.call, self.backend = task.call, task.get_backend()

    @property
    def sent(self) -> list[Any]:
        results = self.backend.results
        return [(*each.args, *filter(None, [each.task.run_after])) for each in results]

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "defers":
            self.backend.supports_defer = value
        super().__setattr__(name, value)


@pytest.fixture
def job(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The task "end" on a site that has set up a worker of Django's Tasks."""
    settings.TASKS = {"default": {"BACKEND": DUMMY}}
    if find_spec("django.tasks"):
        return RealTask(import_module("django_sessionkit.jobs").end)
    module: Any = ModuleType("django.tasks")
    module.__spec__ = ModuleSpec("django.tasks", None)
    module.task = Task
    monkeypatch.setitem(sys.modules, "django.tasks", module)
    monkeypatch.delitem(sys.modules, "django_sessionkit.jobs", raising=False)
    return import_module("django_sessionkit.jobs").end


def test_djangos_tasks_end_sessions_in_slices(job: Any, alice: User, in_small_parts: None):
    rows = many(12, alice)
    ending = ending_of(alice)
    assert endings.send(ending)
    for done in range(4):
        assert job.sent == [(ending.pk,)] * (done + 1)
        job.call(*job.sent[done])
    assert len(job.sent) == 4
    assert not stored(rows)


def test_djangos_tasks_come_later_where_somebody_else_works(job: Any, alice: User):
    ending = ending_of(alice)
    assert endings._claim(ending)
    job.call(ending.pk)
    ((argument, after),) = job.sent
    assert argument == ending.pk
    assert ending.claimed_until
    assert abs(after - ending.claimed_until) < timedelta(seconds=10)
    job.defers = False
    job.call(ending.pk)
    assert len(job.sent) == 1


# The page that shows the progress.


def looked_at(desk: Client, ending: Ending) -> int:
    """Look at the page of an ending. Return how many sessions have ended by then."""
    assert desk.get(f"{ENDINGS}{ending.pk}/").status_code == 200
    ending.refresh_from_db()
    return ending.ended


@pytest.fixture
def desk(root: User, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Of a superuser, on whose site a look at the page ends five sessions, if it ends any."""
    monkeypatch.setattr(progress, "SLICE", 0)
    return sign_in(root)


@pytest.mark.site("tests.admin_sites")
def test_page_leaves_the_work_to_a_worker(
    clock: Clock, job: Any, alice: User, desk: Client, in_small_parts: None
):
    many(30, alice)
    ending = ending_of(alice)
    assert endings.send(ending)
    clock.move(seconds=14)
    assert looked_at(desk, ending) == 0
    job.call(ending.pk)
    clock.move(seconds=14)
    assert looked_at(desk, ending) == 5
    # The worker has other things to do for too long, or was stopped.
    clock.move(seconds=2)
    assert looked_at(desk, ending) == 10
    assert looked_at(desk, ending) == 15
    # It comes when the page is at work, and is to come again after half a minute: then it is free.
    with mock.patch.object(endings, "_write", side_effect=meanwhile(endings._write, job, ending)):
        assert looked_at(desk, ending) == 20
    clock.move(seconds=44)
    assert looked_at(desk, ending) == 20
    job.call(ending.pk)
    assert looked_at(desk, ending) == 25


def meanwhile(write: Any, job: Any, ending: Ending) -> Any:
    """Write to the row of an ending. Before the second time, a worker comes."""
    calls: list[Any] = []

    def wrapper(*args: Any, **columns: Any) -> bool:
        calls.append(columns)
        if len(calls) == 2:
            job.call(ending.pk)
        return bool(write(*args, **columns))

    return wrapper


@pytest.mark.site("tests.admin_sites")
def test_page_does_the_work_where_the_broker_is_down(
    app: Celery, alice: User, desk: Client, in_small_parts: None
):
    many(12, alice)
    ending = ending_of(alice)
    with mock.patch.object(tasks.end, "delay", side_effect=OSError):
        assert not endings.send(ending)
    assert looked_at(desk, ending) == 5


# A worker that is killed.

# A site whose receiver notes every session that it hears of, and gets stuck when a file says so.
SITE = """
import json, os, time
from pathlib import Path
from celery import Celery

FOLDER = Path({folder!r})
app = Celery("site", broker={broker!r})
app.conf.update(
    broker_transport_options={{"visibility_timeout": 1}},
    worker_prefetch_multiplier=1,
)
app.autodiscover_tasks()

@app.on_after_finalize.connect
def listen(**kwargs):
    from django_sessionkit import endings
    from django_sessionkit.signals import sessions_ended
    endings.BATCH = 1e9  # each batch is twice as large as the one before, however slow this is
    sessions_ended.connect(note, weak=False)

def note(handles, reason, **kwargs):
    with (FOLDER / "told").open("a") as told:
        told.writelines(f"{{handle}} {{reason}}\\n" for handle in handles)
    batches = len((FOLDER / "told").read_text().splitlines()) // 500
    if batches == 3 and not (FOLDER / "stuck").exists():
        (FOLDER / "stuck").touch()
        while True:
            time.sleep(1)
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """The folder of a site, whose broker is a Redis of its own."""
    with Server(of_brand="redis") as broker:
        text = SITE.format(folder=str(tmp_path), broker=broker.url)
        (tmp_path / "site_celery.py").write_text(text)
        write_settings(tmp_path)
        (tmp_path / "broker").write_text(broker.url)
        yield tmp_path


def worker_of(site: Path, name: str) -> Any:
    return a_worker(site, name=name, DJANGO_SETTINGS_MODULE="site_settings")


def test_worker_that_is_killed_loses_nothing_and_ends_nothing_twice(
    alice: User, bob: User, site: Path
):
    rows, others = many(4000, alice), many(3, bob)
    laptop, other = sign_in(alice), sign_in(bob)
    ending = ending_of(alice)
    with celery_app((site / "broker").read_text()):
        assert endings.send(ending)
    with worker_of(site, "first") as worker:
        wait_for((site / "stuck").exists)
        # Its second batch is marked, and the row of the ending does not know of it.
        os.killpg(worker.process.pid, signal.SIGKILL)  # and the process of its pool
        worker.process.wait()
    ending.refresh_from_db()
    assert ending.ended == 500
    assert UserSession.objects.exclude(ended_at=None).count() == 1500
    assert ending.claimed_until
    # Half a minute later.
    halfway = timedelta(seconds=31)
    Ending.objects.update(claimed_until=F("claimed_until") - halfway)
    UserSession.objects.exclude(ended_at=None).update(ended_at=F("ended_at") - halfway)
    with worker_of(site, "second") as second:
        wait_for(lambda: Ending.objects.get().finished_at)
    log = second.log.read_text()
    ending.refresh_from_db()
    assert (ending.ended, ending.looked_at, ending.total) == (4001, 4001, 4001), log
    if not IN_MEMORY:  # a worker has a memory of its own
        assert not stored(rows)
        assert not is_in(laptop)
    assert len(stored(others)) == 3
    assert is_in(other, "bob")
    told = [line.split() for line in (site / "told").read_text().splitlines()]
    ended = UserSession.objects.filter(user=alice)
    assert sorted(uuid.UUID(handle) for handle, _ in told) == sorted(
        ended.values_list("pk", flat=True)
    )
    assert {reason for _, reason in told} == {EndReason.REVOKED_BY_STAFF}
    assert handles(rows) <= {uuid.UUID(handle) for handle, _ in told}
    assert not ended.exclude(end_reason=EndReason.REVOKED_BY_STAFF, end_note="Ticket 4711").exists()


def test_two_workers_end_each_session_once(alice: User, site: Path):
    (site / "stuck").touch()
    rows = many(4000, alice)
    ending = ending_of(alice)
    with celery_app((site / "broker").read_text()):
        assert endings.send(ending)
        assert endings.send(ending)  # somebody has pressed the button twice
    with worker_of(site, "first"), worker_of(site, "second"):
        wait_for(lambda: Ending.objects.get().finished_at)
    ending.refresh_from_db()
    assert (ending.ended, ending.looked_at) == (4000, 4000)
    told = [uuid.UUID(line.split()[0]) for line in (site / "told").read_text().splitlines()]
    assert sorted(told) == sorted(handles(rows))
    assert IN_MEMORY or not stored(rows)
