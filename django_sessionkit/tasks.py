"""For ``autodiscover_tasks()`` of a site that has Celery; beat says when."""

from celery import shared_task

from django_sessionkit.models import get_session_store


@shared_task(name="django_sessionkit.purge", ignore_result=True)  # type: ignore[untyped-decorator]
def purge() -> None:
    get_session_store().clear_expired()
