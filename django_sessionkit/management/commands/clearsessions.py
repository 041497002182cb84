import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, OutputWrapper

from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.purging import Purged, purge

# Seconds between two reports of progress, on a terminal and in a log.
ON_TERMINAL, IN_LOG = 0.1, 5
# The columns that a bar leaves free, and those of "  less than a minute left".
BESIDE_BAR, FOR_ESTIMATE = 10, 25
# After so many seconds a table is taken for a long one, and it is said how long it still takes.
LONG = 10

# Of an engine of somebody else.
UNSUPPORTED = "Session engine '{engine}' doesn't support clearing expired sessions."


class Command(BaseCommand):
    """
    The same as Django's command of this name, but this command reports its progress. Django runs
    the command of the app that comes first in INSTALLED_APPS.
    """

    help = "Remove expired sessions, in small parts that block nobody."

    def handle(self, *args: Any, verbosity: int, **options: Any) -> None:
        report = Report(self.stdout, "Removing expired sessions.") if verbosity else None
        self.purge(report)

    def purge(
        self, report: "Report | None", work: Callable[..., Purged] | None = None, **how: Any
    ) -> Purged:
        """
        Purge, and say what was done. ``how`` is for purging.purge(), or for ``work``, which is
        called in its place.
        """
        with may_be_run_again(report):
            try:
                purged = (work or purge)(report, **how)
            except NotImplementedError:  # in the words of Django's command
                raise CommandError(UNSUPPORTED.format(engine=settings.SESSION_ENGINE)) from None
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
        self.estimate = Estimate()
        self.started = self.shown = time.monotonic()
        self.stdout.write(text)

    def __call__(self, done: int, total: int) -> None:
        """Report that so many parts of a table are done. The next table begins again at 1."""
        self.parts += 1
        now = time.monotonic()
        left = self.estimate.left(done, total, now)
        if self.on_terminal:
            if done == 1:
                self.end_line()
            if done == total or now >= self.shown + ON_TERMINAL:
                self.shown, self.in_line = now, True
                self._draw(done, total, "" if left is None else in_words(left))
        elif now >= self.shown + IN_LOG:
            self.shown = now
            note = "" if left is None else f" {in_words(left).capitalize()}."
            self.stdout.write(f"Part {done:,} of {total:,}.{note}")
        self.stdout.flush()

    def _draw(self, done: int, total: int, note: str) -> None:
        beside = BESIDE_BAR + (FOR_ESTIMATE if self.estimate.is_long else 0)
        width = max(shutil.get_terminal_size().columns - beside, 10)
        bar, percent = "#" * (width * done // total), 100 * done // total
        line = f"[{bar:{width}}] {percent:3} %"
        if self.estimate.is_long:
            line += f"  {note:{FOR_ESTIMATE - 2}}"  # as long as the line that it is written over
        self.stdout.write(f"\r{line}", ending="")

    def end_line(self) -> None:
        if self.in_line:
            self.stdout.write()
            self.in_line = False

    def sum_up(self) -> None:
        seconds = round(time.monotonic() - self.started)
        self.stdout.write(f"Done: {self.parts:,} parts in {seconds:,} seconds.")


class Estimate:
    """
    For how many seconds more a table takes, by the speed so far. Figures that jump to and fro tell
    nobody anything, so the moment of the end stays until it is wrong by a tenth of what is left.
    """

    is_long = False  # somebody waits for this table
    _last = _first = 0
    _began = 0.0
    _end: float | None = None

    def left(self, done: int, total: int, now: float) -> float | None:
        """
        Return the seconds that are left at this moment, or None if that is not worth a word, or
        nobody can tell yet. The next table begins with fewer parts than the last one had.
        """
        if done <= self._last or self._first == 0:
            self._first, self._began, self._end = done, now, None
        self._last = done
        took, parts = now - self._began, done - self._first
        self.is_long = took >= LONG and parts > 0
        if not self.is_long or done >= total:
            return None
        left = took * (total - done) / parts
        if self._end is None or abs(now + left - self._end) > left / 10:
            self._end = now + left
        return max(self._end - now, 0.0)


def in_words(seconds: float) -> str:
    """Return about how long it takes, in words: "about 12 minutes left"."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if minutes < 1:
        return "less than a minute left"
    if minutes == 1:
        return "about a minute left"
    return f"about {minutes} minutes left" if minutes < 100 else f"about {hours} hours left"
