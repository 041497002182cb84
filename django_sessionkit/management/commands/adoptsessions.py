from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_sessionkit.conf import conf
from django_sessionkit.management.commands.clearsessions import Report, may_be_run_again
from django_sessionkit.models import get_session_store
from django_sessionkit.storage import Storage

LEFT = {
    "visitors": "Left {:,} sessions of visitors who are not signed in.",
    "refused": "Left {:,} sessions that have ended, or whose users would not be let in.",
    "unreadable": "Left {:,} sessions that are empty or cannot be read.",
}


class Command(BaseCommand):
    help = (
        "Move the sessions of the engines in SESSIONKIT_ADOPT_FROM to SESSION_ENGINE, in small "
        "parts that block nobody. Sessions that are in use move by themselves."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("engine", nargs="*", help="only from these engines")
        parser.add_argument("--dry-run", action="store_true", help="count only, move nothing")
        parser.add_argument(
            "--signed-in-only", action="store_true", help="leave the sessions of visitors"
        )

    def handle(
        self,
        *args: Any,
        engine: list[str],
        verbosity: int,
        dry_run: bool,
        signed_in_only: bool,
        **options: Any,
    ) -> None:
        named = list(conf.SESSIONKIT_ADOPT_FROM)
        if unknown := [path for path in engine if path not in named]:
            raise CommandError(f"SESSIONKIT_ADOPT_FROM does not name {unknown[0]}.")
        if not named:
            raise CommandError("SESSIONKIT_ADOPT_FROM names no engine to move sessions from.")
        store: Any = get_session_store()
        if not issubclass(store, Storage):
            raise CommandError("SESSION_ENGINE is no engine of django-sessionkit.")
        for path in engine or named:
            verb = "Counting" if dry_run else "Moving"
            report = Report(self.stdout, f"{verb} the sessions of {path}.") if verbosity else None
            with may_be_run_again(report):
                counts = store.adopt_all(path, signed_in_only, dry_run, report)
            if report:
                self.sum_up(counts, dry_run)
                report.sum_up()

    def sum_up(self, counts: "Counter[str] | None", dry_run: bool) -> None:
        if counts is None:
            self.stdout.write("It cannot list its sessions: each moves when it is used.")
            return
        verb = "Would move" if dry_run else "Moved"
        self.stdout.write(f"{verb} {counts['moved']:,} sessions.")
        for name, text in LEFT.items():
            if counts[name]:
                self.stdout.write(text.format(counts[name]))
