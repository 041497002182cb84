import shutil
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, OutputWrapper

from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import get_session_store

# Seconds between two signs of life, on a terminal and in a log.
ON_TERMINAL, IN_LOG = 0.1, 5


class Command(BaseCommand):
    """
    Django's command of this name does the same with our engines, but says nothing meanwhile. Which
    of the two is run is a matter of INSTALLED_APPS: that of the app that comes first.
    """

    help = "Remove expired sessions, in small parts that hold nobody up."

    def handle(self, *args: Any, verbosity: int, **options: Any) -> None:
        report = Report(self.stdout) if verbosity else None
        try:
            get_session_store().clear_expired(report)
        except StoreUnavailable as error:
            raise CommandError(f"{error} Nothing is lost: run this again later.") from error
        except KeyboardInterrupt:
            raise CommandError("Stopped. Run this again to go on.", returncode=130) from None
        finally:
            if report:
                report.end_line()
        if report:
            report.sum_up()


class Report:
    """How far a purge is: a bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, stdout: OutputWrapper) -> None:
        self.stdout = stdout
        self.on_terminal = stdout.isatty()
        self.in_line = False
        self.parts = 0
        self.started = self.shown = time.monotonic()
        self.stdout.write("Removing expired sessions.")

    def __call__(self, done: int, total: int) -> None:
        """Take note of a part that is done. They are counted from 1 again in the next table."""
        self.parts += 1
        now = time.monotonic()
        if self.on_terminal:
            if done == 1:
                self.end_line()
            if done == total or now >= self.shown + ON_TERMINAL:
                self.shown, self.in_line = now, True
                width = max(shutil.get_terminal_size().columns - 10, 10)
                bar = "#" * (width * done // total)
                self.stdout.write(f"\r[{bar:{width}}] {100 * done // total:3} %", ending="")
        elif now >= self.shown + IN_LOG:
            self.shown = now
            self.stdout.write(f"Part {done:,} of {total:,}.")
        self.stdout.flush()

    def end_line(self) -> None:
        if self.in_line:
            self.stdout.write()
            self.in_line = False

    def sum_up(self) -> None:
        seconds = round(time.monotonic() - self.started)
        self.stdout.write(f"Done: {self.parts:,} parts in {seconds:,} seconds.")
