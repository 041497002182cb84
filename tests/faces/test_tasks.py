"""
The purge and the notices as tasks of Celery, whose broker is memory or a folder, and as tasks of
Django's Tasks. test_purge_workers.py has the workers that purge.
"""

import json
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
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
from django.core import mail
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from django_sessionkit import notices, purging, tasks
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, PurgeRun, UserSession
from django_sessionkit.purging import Purged
from django_sessionkit.schedule import sessionkit_schedule
from django_sessionkit.signals import Notice
from django_sessionkit.workers import AT_ONCE
from tests import buffered
from tests.people import IPHONE, handle, is_in, sign_in
from tests.settings import CELERY_BEAT_SCHEDULE
from tests.store import Clock, take_down
from tests.workers import a_worker, celery_app

TASK = "django_sessionkit.purge"

# A site's celery.py.
SITE = """
from celery import Celery

app = Celery("site")
app.conf.update(
    broker_url="filesystem://",
    broker_transport_options={{
        "data_folder_in": {folder!r}, "data_folder_out": {folder!r}, "control_folder": {folder!r}
    }},
)
app.autodiscover_tasks()
"""


@pytest.fixture
def app() -> Iterator[Celery]:
    with celery_app() as app:
        app.conf.beat_schedule = CELERY_BEAT_SCHEDULE
        yield app


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


@pytest.mark.once
def test_a_sites_autodiscover_tasks_finds_it(app: Celery):
    assert TASK in app.tasks
    assert {entry["task"] for entry in CELERY_BEAT_SCHEDULE.values()} == {TASK}
    assert app.tasks[TASK].ignore_result


@pytest.mark.django_db
def test_task_purges(app: Celery, old: UserSession):
    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    assert tasks.purge.delay().get() is None
    assert not UserSession.objects.filter(pk=old.pk).exists()


@pytest.mark.once
@pytest.mark.django_db
def test_task_fails_when_the_store_does_not_answer(app: Celery, monkeypatch: pytest.MonkeyPatch):
    take_down(monkeypatch, "remove_expired")
    assert isinstance(tasks.purge.apply().result, StoreUnavailable)


@pytest.fixture
def unfinished(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """There is always more to purge. The seconds that each run was given."""
    given: list[float | None] = []

    def purge(*, seconds: float | None) -> Purged:
        given.append(seconds)
        return Purged({}, finished=seconds is None)

    monkeypatch.setattr(purging, "purge", purge)
    return given


@pytest.mark.once
def test_task_sends_itself_on_for_an_hour(
    app: Celery, clock: Clock, db: None, unfinished: list[Any]
):
    begun, message = int(timezone.now().timestamp()), None
    with mock.patch.object(tasks.purge, "apply_async") as send:
        tasks.purge()
        for minute in range(60):
            assert send.call_args_list == [mock.call([begun], countdown=0, expires=3600)] * (
                minute + 1
            )
            clock.move(seconds=59)
            (message,) = send.call_args.args[0]
            tasks.purge(message)
        clock.move(seconds=60)
        tasks.purge(message)
        assert send.call_count == 61  # the schedule has sent another one by now
    assert set(unfinished) == {20}


def claim(**until: float) -> None:
    """Have a worker purge that has its run to itself for so long, and perhaps was killed."""
    now = timezone.now()
    PurgeRun.objects.create(started_at=now, goes_on=True, claimed_until=now + timedelta(**until))


@pytest.mark.once
def test_task_does_not_wait_for_a_worker_whose_clock_was_years_ahead(
    app: Celery, clock: Clock, db: None
):
    claim(days=3650)
    with mock.patch.object(tasks.purge, "apply_async") as send:
        tasks.purge()
    assert PurgeRun.objects.exclude(finished_at=None).exists()
    assert not send.called


@pytest.mark.once
def test_task_waits_while_another_worker_is_at_it(app: Celery, clock: Clock, db: None):
    """So a message that comes twice does not have two runs begin anew again and again."""
    claim(seconds=-1)
    claim(seconds=70)
    claim(seconds=50)
    begun = int(timezone.now().timestamp())
    with mock.patch.object(tasks.purge, "apply_async") as send:
        tasks.purge()
        send.assert_called_once_with([begun], countdown=70, expires=3600)
        assert not PurgeRun.objects.exclude(finished_at=None).exists()
        clock.move(seconds=71)
        tasks.purge(begun)
        assert send.call_count == 1
    assert PurgeRun.objects.exclude(finished_at=None).count() == 1


@pytest.mark.once
def test_djangos_tasks_wait_while_another_worker_is_at_it(queue: Any, clock: Clock, db: None):
    job = import_module("django_sessionkit.jobs").purge
    claim(seconds=70)
    job.call()
    (result,) = queue.results
    assert result.args == [int(timezone.now().timestamp())]
    assert result.task.run_after == timezone.now() + timedelta(seconds=70)


@pytest.mark.once
def test_task_that_has_finished_sends_nothing(app: Celery, db: None):
    with mock.patch.object(tasks.purge, "apply_async") as send:
        tasks.purge()
    assert not send.called


@pytest.mark.once
@given(begun=st.integers(), now=st.integers(1_000_000_000, 4_000_000_000))
def test_message_that_somebody_has_made_up_is_one_run_or_is_followed_by_an_hour_of_them(
    begun: int, now: int
):
    with (
        mock.patch.object(purging, "purge", return_value=Purged({}, finished=False)),
        mock.patch.object(purging, "_seconds_of_others", return_value=0.0),
        mock.patch.object(purging, "time", SimpleNamespace(time=lambda: now)),
    ):
        turn = purging.take_turn(begun)
    if begun == 0 or now - 3600 < begun <= now:
        assert turn == (begun or now, 0)
    else:
        assert turn is None


@pytest.mark.once
def test_task_that_runs_at_once_does_all_of_it(app: Celery, unfinished: list[Any]):
    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    tasks.purge.delay()
    assert unfinished == [None]


@pytest.mark.once
def test_messages_hold_nothing_but_a_number(app: Celery, db: None, unfinished: list[Any]):
    """What lies on a broker is read by others than us."""
    with app.connection_for_write() as broker:
        queue = broker.SimpleQueue("celery")
        tasks.purge.delay()
        first = queue.get(timeout=5)
        tasks.purge()
        second = queue.get(timeout=5)
        queue.close()
    args, kwargs, _ = json.loads(first.body)
    assert (args, kwargs) == ([], {})
    ((begun,), kwargs, _) = json.loads(second.body)
    assert abs(begun - time.time()) < 60
    assert kwargs == {}
    assert second.headers["expires"]


@pytest.mark.once
def test_message_of_a_notice_holds_its_kind_and_a_handle(app: Celery, notices_wanted: None):
    session = uuid.uuid4()
    with app.connection_for_write() as broker:
        queue = broker.SimpleQueue("celery")
        notices.hand_on("new_device", session)
        message = queue.get(timeout=5)
        queue.close()
    args, kwargs, _ = json.loads(message.body)
    assert message.headers["task"] == "django_sessionkit.notify"
    assert (args, kwargs) == (["new_device", session.hex], {})


@pytest.fixture
def notices_wanted(settings: Any) -> None:
    settings.SESSIONKIT_NOTICES = [kind.value for kind in Notice]
    settings.SESSIONKIT_SITE_URL = "https://shop.example"


@pytest.mark.django_db(transaction=True)
def test_task_sends_the_mail_of_a_notice(app: Celery, notices_wanted: None, alice: User):
    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    phone = sign_in(alice, IPHONE)
    UserSession.objects.revoke(EndReason.REVOKED_BY_STAFF)
    (message,) = mail.outbox
    assert "Our staff signed you out" in message.subject
    assert not is_in(phone)


@pytest.mark.django_db(transaction=True)
def test_task_tries_again_when_the_mail_server_does_not_answer(
    app: Celery, notices_wanted: None, alice: User
):
    app.conf.update(task_always_eager=True)
    session = handle(sign_in(alice))
    with mock.patch("django.core.mail.backends.locmem.EmailBackend.send_messages") as send:
        send.side_effect = [OSError, OSError, 1]
        result = tasks.notify.delay("new_device", session.hex)
        assert send.call_count == 3
        assert result.successful()
        send.side_effect = OSError("alice@example.org")
        result = tasks.notify.delay("new_device", session.hex)
    assert send.call_count == 3 + 6
    assert "alice" not in str(result.result) + str(result.traceback)


@pytest.mark.django_db(transaction=True)
def test_mail_is_sent_without_a_broker_that_is_down(
    app: Celery, notices_wanted: None, alice: User, caplog: pytest.LogCaptureFixture
):
    app.conf.broker_url = "amqp://alice:secret@127.0.0.1:1//"
    app.conf.broker_transport_options = {"max_retries": 1}
    session = handle(sign_in(alice))
    with mock.patch.object(tasks.notify, "apply_async", side_effect=OSError("amqp://secret")):
        notices.hand_on("new_device", session)
    assert len(mail.outbox) == 1
    (text,) = [each.getMessage() for each in caplog.records if each.name == "django_sessionkit"]
    assert text == f"No worker was given the notice new_device of session {session}: OSError"


@pytest.mark.django_db(transaction=True)
def test_site_that_has_celery_but_no_broker_sends_the_mail_itself(
    notices_wanted: None, alice: User, caplog: pytest.LogCaptureFixture
):
    app = Celery("site", set_as_current=True)
    assert not tasks.has_broker()
    notices.hand_on("new_device", handle(sign_in(alice)))
    app.close()
    assert len(mail.outbox) == 1
    assert not [each for each in caplog.records if each.name == "django_sessionkit"]


@pytest.mark.django_db(transaction=True)
def test_site_without_celery_sends_the_mail_itself(
    app: Celery, notices_wanted: None, alice: User, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "celery", None)
    notices.hand_on("new_device", handle(sign_in(alice)))
    assert len(mail.outbox) == 1


# Django's Tasks.


class Queue:
    """What stands in for django.tasks before Django 6.0: it keeps what is put into a queue."""

    def __init__(self) -> None:
        self.results: list[Any] = []

    def task(self, function: Any) -> Any:
        def enqueue(*args: Any, run_after: Any = None) -> None:
            task = SimpleNamespace(run_after=run_after)
            self.results.append(SimpleNamespace(args=list(args), task=task))

        return SimpleNamespace(
            call=function,
            enqueue=enqueue,
            using=lambda **how: SimpleNamespace(enqueue=partial(enqueue, **how)),
            get_backend=lambda: SimpleNamespace(supports_defer=True),
        )


@pytest.fixture
def queue(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The queue of Django's Tasks, on a site that has set up a worker. Its task is .notify."""
    dummy = "django.tasks.backends.dummy.DummyBackend"
    settings.TASKS = {"default": {"BACKEND": dummy}}
    if find_spec("django.tasks"):
        from django.tasks import default_task_backend

        return default_task_backend
    stand_in = Queue()
    module: Any = ModuleType("django.tasks")
    module.__spec__ = ModuleSpec("django.tasks", None)
    module.task = stand_in.task
    monkeypatch.setitem(sys.modules, "django.tasks", module)
    monkeypatch.delitem(sys.modules, "django_sessionkit.jobs", raising=False)
    return stand_in


@pytest.mark.django_db(transaction=True)
def test_notice_goes_through_djangos_tasks(notices_wanted: None, queue: Any, alice: User):
    session = handle(sign_in(alice, IPHONE))
    notices.hand_on("new_device", session)
    assert mail.outbox == []
    (result,) = queue.results
    assert result.args == ["new_device", session.hex]
    jobs = import_module("django_sessionkit.jobs")
    jobs.notify.call(*result.args)
    assert len(mail.outbox) == 1


@pytest.mark.django_db
def test_activity_is_carried_by_djangos_tasks(queue: Any, alice: User):
    with buffered.site():
        buffered.waiting_sessions(alice, 3)
        import_module("django_sessionkit.jobs").carry_activity.call()
        assert buffered.count_waiting() == 0


@pytest.mark.once
def test_djangos_tasks_purge_in_slices(queue: Any, db: None, unfinished: list[Any]):
    job = import_module("django_sessionkit.jobs").purge
    job.call()
    (result,) = queue.results
    assert abs(result.args[0] - time.time()) < 60
    job.call(*result.args)
    assert [each.args for each in queue.results] == [result.args] * 2
    job.call(int(time.time()) - 3600)  # the schedule has sent another one by now
    assert len(queue.results) == 2
    assert unfinished == [20] * 3


@pytest.mark.once
def test_djangos_tasks_purge_all_of_it_on_a_site_without_a_worker(
    queue: Any, unfinished: list[Any], settings: Any
):
    settings.TASKS = {"default": {"BACKEND": AT_ONCE}}
    import_module("django_sessionkit.jobs").purge.call()
    assert unfinished == [None]


@pytest.mark.django_db(transaction=True)
def test_celery_goes_before_djangos_tasks(
    app: Celery, notices_wanted: None, queue: Any, alice: User
):
    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    notices.hand_on("new_device", handle(sign_in(alice)))
    assert list(queue.results) == []
    assert len(mail.outbox) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "found",
    [
        {},
        {"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}},
        {"mails": {"BACKEND": "django.tasks.backends.dummy.DummyBackend"}},
    ],
)
def test_site_without_a_worker_sends_the_mail_itself(
    notices_wanted: None, queue: Any, alice: User, settings: Any, found: Any
):
    settings.TASKS = found
    notices.hand_on("new_device", handle(sign_in(alice)))
    assert len(mail.outbox) == 1


# A worker.

OF_A_WORKER = """
import django
from example_project.settings import *

BACKEND, FOLDER = "django.core.mail.backends.filebased.EmailBackend", {folder!r}
if django.VERSION >= (6, 1):
    MAILERS = {{"default": {{"BACKEND": BACKEND, "OPTIONS": {{"file_path": FOLDER}}}}}}
else:
    EMAIL_BACKEND, EMAIL_FILE_PATH = BACKEND, FOLDER
SESSIONKIT_SITE_URL = "https://shop.example"
"""


@pytest.mark.django_db(transaction=True)
def test_worker_process_sends_the_mail(alice: User, tmp_path: Path):
    folder, mails = tmp_path / "broker", tmp_path / "mails"
    folder.mkdir()
    session = handle(sign_in(alice, IPHONE))
    (tmp_path / "site_celery.py").write_text(SITE.format(folder=str(folder)))
    (tmp_path / "site_settings.py").write_text(OF_A_WORKER.format(folder=str(mails)))
    site = Celery("site", broker="filesystem://", set_as_current=False)
    folders = dict.fromkeys(["data_folder_in", "data_folder_out", "control_folder"], str(folder))
    site.conf.broker_transport_options = folders
    site.send_task("django_sessionkit.notify", ["new_device", session.hex])
    site.close()
    with a_worker(tmp_path, DJANGO_SETTINGS_MODULE="site_settings") as worker:
        deadline = time.monotonic() + 60
        while not list(mails.glob("*")) and time.monotonic() < deadline:
            time.sleep(0.05)
    (sent,) = mails.glob("*")
    assert "To: alice@example.org" in sent.read_text()
    assert "https://shop.example/account/sessions/report/" in sent.read_text()
    assert "alice@example.org" not in worker.log.read_text()


def test_beat_carries_activity_where_that_waits():
    assert sessionkit_schedule().keys() == {TASK}
    schedule = sessionkit_schedule(activity="buffered")
    assert schedule["django_sessionkit.carry_activity"]["task"] == tasks.carry_activity.name
    assert schedule.keys() == {TASK, "django_sessionkit.carry_activity"}
