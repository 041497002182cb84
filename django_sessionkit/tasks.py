"""The tasks for Celery, which finds this module by ``autodiscover_tasks()``."""

import uuid
from typing import Any

from celery import current_app, shared_task

from django_sessionkit.mails import deliver
from django_sessionkit.models import get_session_store


@shared_task(name="django_sessionkit.purge", ignore_result=True)  # type: ignore[untyped-decorator]
def purge() -> None:
    """Remove expired sessions. The site's beat schedule says when."""
    get_session_store().clear_expired()


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


def has_broker() -> bool:
    """Tell whether the site has an app of Celery that can send a task."""
    return bool(current_app.conf.broker_write_url or current_app.conf.task_always_eager)
