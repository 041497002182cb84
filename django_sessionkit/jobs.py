"""The tasks for Django's Tasks, from Django 6.0 on. Only imported where a site has set these up."""

import uuid
from datetime import timedelta

from django.tasks import task
from django.utils import timezone

from django_sessionkit import activity, endings
from django_sessionkit.mails import deliver


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
    wait = endings.carry_on(ending)
    if wait == 0:
        end.enqueue(ending)
    elif wait and end.get_backend().supports_defer:  # else the purge looks after it
        end.using(run_after=timezone.now() + timedelta(seconds=wait)).enqueue(ending)
