"""The tasks for Django's Tasks, from Django 6.0 on. Only imported where a site has set these up."""

import uuid
from datetime import timedelta
from typing import Any

from django.tasks import task
from django.utils import timezone

from django_sessionkit import activity, endings, purging
from django_sessionkit.mails import deliver
from django_sessionkit.workers import AT_ONCE, backend_of


@task
def purge(begun: int = 0) -> None:
    """
    Remove expired sessions for some seconds, then come again until all is done. Django's Tasks have
    no schedule: something else has to say when that begins. ``begun`` is for this task alone.
    """
    if backend_of() == AT_ONCE:  # then to come again would be to call itself
        purging.take_turn(begun, None)
    elif (turn := purging.take_turn(begun)) is not None:
        _send(purge, turn.begun, turn.wait)


@task
def notify(kind: str, handle: str) -> None:
    """Tell a user by mail."""
    deliver(kind, uuid.UUID(handle))


@task
def carry_activity() -> None:
    """Carry activity to the rows, with SESSIONKIT_ACTIVITY = "buffered"."""
    activity.carry()


@task
def end(ending: int) -> None:
    """
    End sessions for some seconds, then come again until all is done. ``ending`` is the number of
    the row of Ending, which says everything.
    """
    if (wait := endings.carry_on(ending)) is not None:
        _send(end, ending, wait)


def _send(task: Any, number: int, wait: float) -> None:
    """Have a task come again, after so many seconds where the backend can wait."""
    if not wait:
        task.enqueue(number)
    elif task.get_backend().supports_defer:  # else the next purge looks after it
        task.using(run_after=timezone.now() + timedelta(seconds=wait)).enqueue(number)
