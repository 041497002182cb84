"""The workers that a site has set up: by Celery, or by Django's Tasks. Both are optional."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from django.conf import settings

# The backend of Django's Tasks that a site has if it sets up none: it does everything at once.
AT_ONCE = "django.tasks.backends.immediate.ImmediateBackend"


def enqueue_of(name: str) -> Callable[..., Any] | None:
    """
    Return the function that gives a worker the task of this name, which tasks.py and jobs.py have.
    Its arguments are those of the task. Return None if the site has no worker for us.
    """
    if find_spec("celery"):
        celery = import_module("django_sessionkit.tasks")
        if celery.has_broker():
            return getattr(celery, name).delay  # type: ignore[no-any-return]
    # A site can have a package for older versions of Django, which knows this setting, too.
    if backend_of() != AT_ONCE and find_spec("django.tasks"):
        jobs = import_module("django_sessionkit.jobs")
        return getattr(jobs, name).enqueue  # type: ignore[no-any-return]
    return None


def backend_of() -> str:
    """Return the dotted path of the backend that Django's Tasks are given to."""
    tasks: dict[str, Any] = getattr(settings, "TASKS", {})
    backend: str = tasks.get("default", {}).get("BACKEND", AT_ONCE)
    return backend
