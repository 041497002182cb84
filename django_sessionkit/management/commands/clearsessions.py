import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError, OutputWrapper

from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.purging import Purged, purge

# Seconds between two reports of progress, on a terminal and in a log.
ON_TERMINAL, IN_LOG = 0.1, 5


class Command(BaseCommand):
    """
    The same as Django's command of this name, but this command reports its progress. Django runs
    the command of the app that comes first in INSTALLED_APPS.
    """

    help = "Remove expired sessions, in small parts that block nobody."

    def handle(self, *args: Any, verbosity: int, **options: Any) -> None:
        report = Report(self.stdout, "Removing expired sessions.") if verbosity else None
        self.purge(report)

    def purge(self, report: "Report | None", **how: Any) -> Purged:
        """Purge, and say what was done. ``how`` is for purging.purge()."""
        with may_be_run_again(report):
            purged = purge(report, **how)
        if report:
            report.sum_up()
            for name, number in sorted(purged.figures.items()):
                if number:
                    self.stdout.write(f"  {name:30} {number:>14,}")
        return purged


@contextmanager
def may_be_run_again(report: "Report | None") -> Iterator[None]:
    """Say so if the store does not answer, or if somebody stops the command."""
    try:
        yield
    except StoreUnavailable as error:
        raise CommandError(f"{error} Nothing is lost: run this again later.") from error
    except KeyboardInterrupt:
        raise CommandError("Stopped. Run this again to go on.", returncode=130) from None
    finally:
        if report:
            report.end_line()


class Report:
    """Reports how far a command is: by a bar on a terminal, or by a line every few seconds."""

    def __init__(self, stdout: OutputWrapper, text: str) -> None:
        self.stdout = stdout
        self.on_terminal = stdout.isatty()
        self.in_line = False
        self.parts = 0
        self.started = self.shown = time.monotonic()
        self.stdout.write(text)

    def __call__(self, done: int, total: int) -> None:
        """Report that so many parts of a table are done. The next table begins again at 1."""
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
