import json
import time
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from django_sessionkit.management.commands import clearsessions
from django_sessionkit.management.commands.clearsessions import Report, may_be_run_again
from django_sessionkit.models import get_session_store
from django_sessionkit.old_tables import old_tables, purge_old_tables
from django_sessionkit.purging import Purged
from django_sessionkit.storage import Storage

NO_OLD_TABLE = (
    "There is no table of sessions from before: SESSIONKIT_ADOPT_FROM names no engine that has "
    "one, and django.contrib.sessions is not installed, or its table is not there."
)
UNCOUNTED = "Not all was counted: the time was too short."
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
            "--old-table",
            action="store_true",
            help="in the table that the site had before it moved here, and not in ours",
        )
        parser.add_argument(
            "--json", action="store_true", help="print one JSON object, and no progress"
        )

    def handle(self, *args: Any, verbosity: int, **options: Any) -> None:
        work, what = self._work(options["old_table"])
        is_dry, as_json, began = options["dry_run"], options["json"], time.monotonic()
        report = None
        if verbosity and not as_json:
            text = "Counting" if is_dry else "Removing"
            report = Report(self.stdout, f"{text} expired sessions{what}.")
        duty = {"duty": 1.0} if options["full_speed"] else {}
        purged = self.purge(report, work, seconds=options["seconds"], dry_run=is_dry, **duty)
        if as_json:
            seconds = round(time.monotonic() - began, 3)
            said = {"dry_run": is_dry, "finished": purged.finished, "seconds": seconds}
            self.stdout.write(json.dumps({**said, "figures": dict(purged.figures)}))
        elif report and not purged.finished:
            self.stdout.write(
                UNCOUNTED if is_dry else "There is more to do. Run this again to go on."
            )

    def _work(self, is_old: bool) -> tuple[Callable[..., Purged] | None, str]:
        """
        Return what is to be called in place of purging.purge(), if anything is, and in words, where
        it removes sessions.
        """
        if is_old:
            with may_be_run_again(None):
                tables = [model._meta.db_table for model in old_tables()]
            if not tables:
                raise CommandError(NO_OLD_TABLE)
            return purge_old_tables, f" of {', '.join(tables)}"
        store: Any = get_session_store()
        if not issubclass(store, Storage):
            raise CommandError(FOREIGN.format(engine=settings.SESSION_ENGINE))
        return None, ""


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds
