"""The tasks for Celery, which finds this module by ``autodiscover_tasks()``."""

import math
import uuid
from typing import Any

from celery import current_app, shared_task
from django.db import InterfaceError, OperationalError

from django_sessionkit import activity, endings, purging
from django_sessionkit.mails import deliver


@shared_task(  # type: ignore[untyped-decorator]
    name="django_sessionkit.purge",
    ignore_result=True,
    bind=True,
    # The message of a worker that is killed comes again. One that comes twice does no harm.
    acks_late=True,
    reject_on_worker_lost=True,
)
def purge(self: Any, begun: int = 0) -> None:
    """
    Remove expired sessions for some seconds, then come again until all is done. The site's beat
    says when that begins: see schedule.py. ``begun`` is for this task alone.
    """
    if self.request.is_eager:  # then to come again would be to call itself
        purging.take_turn(begun, None)
    elif (turn := purging.take_turn(begun)) is not None:
        purge.apply_async([turn.begun], countdown=turn.wait, expires=purging.LONGEST)


@shared_task(name="django_sessionkit.carry_activity", ignore_result=True)  # type: ignore[untyped-decorator]
def carry_activity() -> None:
    """Carry activity to the rows, with SESSIONKIT_ACTIVITY = "buffered"."""
    activity.carry()


@shared_task(  # type: ignore[untyped-decorator]
    name="django_sessionkit.notify",
    ignore_result=True,
    bind=True,
    max_retries=5,
    default_retry_delay=60,  # seconds
)
def notify(self: Any, kind: str, handle: str) -> None:
    """Tell a user by mail. If the mail server does not take it, try again some minutes later."""
    if not deliver(kind, uuid.UUID(handle)):
        raise self.retry()


@shared_task(  # type: ignore[untyped-decorator]
    name="django_sessionkit.end",
    ignore_result=True,
    bind=True,
    # The message of a worker that is killed comes again. One that comes twice does no harm.
    acks_late=True,
    reject_on_worker_lost=True,
    autoretry_for=(OperationalError, InterfaceError),
    max_retries=100,
    default_retry_delay=30,  # seconds
)
def end(self: Any, ending: int) -> None:
    """
    End sessions for some seconds, then come again until all is done. ``ending`` is the number of
    the row of Ending, which says everything.
    """
    if self.request.is_eager:  # then to come again would be to call itself
        endings.carry_on(ending, math.inf)
    elif (wait := endings.carry_on(ending)) is not None:
        end.apply_async([ending], countdown=wait)


def has_broker() -> bool:
    """Tell whether the site has an app of Celery that can send a task."""
    return bool(current_app.conf.broker_write_url or current_app.conf.task_always_eager)
