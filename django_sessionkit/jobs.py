"""The task for Django's Tasks, from Django 6.0 on. Only imported where a site has set these up."""

import uuid

from django.tasks import task

from django_sessionkit.mails import deliver


@task
def notify(kind: str, handle: str) -> None:
    """Tell a user by mail."""
    deliver(kind, uuid.UUID(handle))
