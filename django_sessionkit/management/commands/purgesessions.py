import json
import time
from argparse import ArgumentTypeError
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from django_sessionkit.management.commands import clearsessions
from django_sessionkit.management.commands.clearsessions import Report
from django_sessionkit.models import get_session_store
from django_sessionkit.storage import Storage

# What clearsessions does with an engine of somebody else.
FOREIGN = "SESSION_ENGINE = {engine!r} is none of ours: run manage.py clearsessions."


class Command(clearsessions.Command):
    """The purge, as "clearsessions" runs it, with a choice of how."""

    help = "Remove expired sessions, in small parts that block nobody, and say what was done."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--dry-run", action="store_true", help="count what there is to do, change nothing"
        )
        parser.add_argument(
            "--seconds",
            type=_seconds,
            metavar="N",
            help="stop after so many seconds; the next run goes on",
        )
        parser.add_argument(
            "--full-speed",
            action="store_true",
            help="do not rest: otherwise, the purge leaves half of the time to others",
        )
        parser.add_argument(
            "--json", action="store_true", help="print one JSON object, and no progress"
        )

    def handle(self, *args: Any, verbosity: int, **options: Any) -> None:
        store: Any = get_session_store()
        if not issubclass(store, Storage):
            raise CommandError(FOREIGN.format(engine=settings.SESSION_ENGINE))
        is_dry, as_json, began = options["dry_run"], options["json"], time.monotonic()
        report = None
        if verbosity and not as_json:
            text = "Counting" if is_dry else "Removing"
            report = Report(self.stdout, f"{text} expired sessions.")
        duty = {"duty": 1.0} if options["full_speed"] else {}
        purged = self.purge(report, seconds=options["seconds"], dry_run=is_dry, **duty)
        if as_json:
            seconds = round(time.monotonic() - began, 3)
            said = {"dry_run": is_dry, "finished": purged.finished, "seconds": seconds}
            self.stdout.write(json.dumps({**said, "figures": dict(purged.figures)}))
        elif report and not purged.finished:
            self.stdout.write("There is more to do. Run this again to go on.")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds
