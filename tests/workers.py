"""Celery: the app of a site, its settings, and real workers, which stop with the test."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from celery import Celery, current_app
from django.conf import settings
from django.db import connection

from django_sessionkit.conf import conf
from tests import servers

# A site whose sessions are those of the tests.
SETTINGS = """
from example_project.settings import *

SESSION_ENGINE, SESSIONKIT_REDIS_PREFIX = {engine!r}, {prefix!r}
CACHES = {caches!r}
SESSION_CACHE_ALIAS = "sessions"
if {database!r}:
    DATABASES["default"]["OPTIONS"] = {{"timeout": 60}}
"""


class Worker(NamedTuple):
    process: "subprocess.Popen[bytes]"
    log: Path


def write_settings(folder: Path) -> None:
    """Write site_settings.py, the settings of a site on the stores of the tests."""
    (folder / "site_settings.py").write_text(
        SETTINGS.format(
            engine=settings.SESSION_ENGINE,
            prefix=conf.SESSIONKIT_REDIS_PREFIX,
            caches=settings.CACHES,
            database=connection.vendor == "sqlite",
        )
    )


@contextmanager
def celery_app(broker: str = "memory://") -> Iterator[Celery]:
    """Let the tasks of this process go to this broker."""
    before = current_app._get_current_object()
    app = Celery("site", broker=broker, set_as_current=True)
    app.autodiscover_tasks(["django_sessionkit"], force=True)
    try:
        yield app
    finally:
        app.close()
        before.set_current()
        before.set_default()  # that of other threads


@contextmanager
def a_worker(folder: Path, *arguments: str, name: str = "log", **env: str) -> Iterator[Worker]:
    """
    Run a worker of the site whose site_celery.py is in this folder, on the database of the tests.
    Unless it was killed, it has to stop in order.
    """
    database = connection.settings_dict["NAME"]
    url = f"sqlite:///{database}"
    if connection.vendor != "sqlite":
        url = servers.with_name(servers.SERVERS[connection.vendor](), database)
    command = (
        f"-m celery -A site_celery worker --concurrency=1 --loglevel=INFO --hostname={name}@here"
    )
    log = folder / name
    with log.open("wb") as output:
        process = servers._spawn(
            [sys.executable, *command.split(), *arguments],
            folder,
            log=output.fileno(),
            env={
                **os.environ,
                "PYTHONPATH": f"{servers.PROJECT}:{folder}",
                "DJANGO_SETTINGS_MODULE": "example_project.settings",
                "DATABASE_URL": url,
                **env,
            },
        )
    try:
        yield Worker(process, log)
    finally:
        if is_up := process.poll() is None:
            servers._stop(process)
    assert not is_up or process.returncode == 0, log.read_text()
