import shutil
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, OutputWrapper

from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import get_session_store

# Seconds between two looks at how far it is: on a terminal, and in a log.
ON_TERMINAL, IN_LOG = 0.1, 5


class Command(BaseCommand):
    """
    Django's command of that name, which works as well: this one shows how far it is. Which of the
    two runs is decided by who comes first in INSTALLED_APPS.
    """

    help = "Remove expired sessions, in small parts that hold nobody up."

    def handle(self, *args: Any, verbosity: int, **options: Any) -> None:
        report = Report(self.stdout) if verbosity else None
        try:
            get_session_store().clear_expired(report)
        except StoreUnavailable as error:
            raise CommandError(f"{error} Expired sessions are left: run this again later.") from error
        except KeyboardInterrupt:
            raise CommandError("Stopped. What is done is done: run this again to go on.") from None
        finally:
            if report:
                report.finish()


class Report:
    """How far a purge is: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, stdout: OutputWrapper) -> None:
        self.stdout = stdout
        self.drawing = stdout.isatty()
        self.started = self.shown = time.monotonic()
        self.parts = self.tables = self.done = self.total = 0
        if not self.drawing:
            self.write("Removing expired sessions", "\n")

    def __call__(self, done: int, total: int) -> None:
        if done <= self.done:  # the next table
            self.show()
...
