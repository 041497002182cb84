"""The purge, as a task for Celery, which finds this module by ``autodiscover_tasks()``."""

from celery import shared_task

from django_sessionkit.models import get_session_store


@shared_task(name="django_sessionkit.purge", ignore_result=True)  # type: ignore[untyped-decorator]
def purge() -> None:
    """Remove expired sessions. The site's beat schedule says when."""
    get_session_store().clear_expired()
