import ipaddress
import json
import re
import time
import uuid
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import router
from django.db.models import QuerySet
from django.utils import timezone

from django_sessionkit import endings
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.management.commands.clearsessions import Report
from django_sessionkit.management.facts import (
    UNITS,
    Facts,
    count,
    ending_in_brief,
    facts_of_ending,
    facts_of_sessions,
    in_brief,
    in_words,
    plain,
    table,
)
from django_sessionkit.models import (
    DeviceType,
    Ending,
    EndReason,
    Transport,
    UserSession,
    still_stored,
)
from django_sessionkit.reach import Preview, preview
from django_sessionkit.selection import STATES, Selection, search

# Exit codes, beside 0 for what was done.
REFUSED, USAGE, STOPPED = 1, 2, 130
# The command says how far it is after so many seconds of work.
SLICE = 1.0
FILTERS = (
    *("user", "network", "older_than", "inactive_for", "device", "device_type", "staff"),
    *("transport", "new", "search", "state", "end_reason"),
)
WHICH = "Say which sessions, by --user, --network or --older-than for example, or say --all."
RESUMES = "--resume goes on with one ending: leave out the filters, --all, --now and --dry-run."
# What --now takes, one of them.
SWITCHES = {"all": Ending.Scope.EVERYBODY, "staff": Ending.Scope.STAFF, "user": Ending.Scope.USER}


class Command(BaseCommand):
    help = "List the sessions of users, show all that is known of one, or end sessions."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        which, with_json = CommandParser(add_help=False), CommandParser(add_help=False)
        _add_filters(which)
        with_json.add_argument(
            "--json", action="store_true", help="one JSON object in each line, in place of a table"
        )

        of_list = verbs.add_parser(
            "list", parents=[which, with_json], help="list sessions, the newest first"
        )
        of_list.add_argument("--state", choices=STATES)
        of_list.add_argument(
            "--reason", dest="end_reason", choices=EndReason.values, help="why they have ended"
        )
        of_list.add_argument("--limit", type=int, default=100, help="so many at most (100)")

        of_show = verbs.add_parser(
            "show", parents=[with_json], help="show all that is known of a session"
        )
        of_show.add_argument("handle", type=uuid.UUID)

        of_end = verbs.add_parser("end", parents=[which, with_json], help="end active sessions")
        of_end.add_argument(
            "--reason", type=_text, metavar="TEXT", help='for your colleagues: "ticket 4711"'
        )
        of_end.add_argument("--dry-run", action="store_true", help="count only, end nothing")
        of_end.add_argument("--no-input", action="store_true", help="do not ask")
        of_end.add_argument(
            "--now",
            action="store_true",
            help="with --all, --staff or --user: all sessions from before stop within seconds, then"
            " they are removed",
        )
        of_end.add_argument("--resume", type=int, metavar="ENDING", help="go on with an ending")

        verbs.add_parser("endings", parents=[with_json], help="list endings that are not finished")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        verbs = {
            "list": self.handle_list,
            "show": self.handle_show,
            "end": self.handle_end,
            "endings": self.handle_endings,
        }
        try:
            verbs[verb](options)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages), returncode=USAGE) from None
        except KeyboardInterrupt:
            raise CommandError("Stopped.", returncode=STOPPED) from None

    # What there is.

    def handle_list(self, options: Facts) -> None:
        selection, limit = _selection(options), options["limit"]
        if limit < 1:
            raise CommandError("--limit is 1 at least.", returncode=USAGE)
        rows = [*selection.rows().order_by("-pk")[: limit + 1]]
        if not rows:
            raise CommandError("No session matches.", returncode=REFUSED)
        self._print(facts_of_sessions(rows[:limit]), options, in_brief)
        if len(rows) > limit:
            self.stderr.write(f"There are more than {limit:,}. See them by --limit.")

    def handle_show(self, options: Facts) -> None:
        rows = [*UserSession.objects.primary().filter(pk=options["handle"])]
        if not rows:
            raise CommandError("No session has this handle.", returncode=REFUSED)
        (facts,) = facts_of_sessions(rows)
        facts["stored"] = None
        try:
            facts["stored"] = bool(still_stored(rows))
        except StoreUnavailable as error:
            self.stderr.write(str(error))
        if options["json"]:
            self._print([facts], options)
        else:
            for name, value in facts.items():
                self.stdout.write(f"{name:17} {plain(value)}")

    def handle_endings(self, options: Facts) -> None:
        unfinished = _endings().filter(finished_at=None).order_by("pk")
        if not unfinished:
            raise CommandError("No ending is unfinished.", returncode=REFUSED)
        self._print([facts_of_ending(ending) for ending in unfinished], options, ending_in_brief)

    def _print(
        self,
        found: Sequence[Facts],
        options: Facts,
        brief: Callable[[Facts], Facts] = dict,
    ) -> None:
        if options["json"]:
            lines = [json.dumps(facts) for facts in found]
        else:
            lines = [*table([brief(facts) for facts in found])]
        for line in lines:
            self.stdout.write(line)

    # To end it.

    def handle_end(self, options: Facts) -> None:
        asks = not (options["no_input"] or options["dry_run"])
        if options["resume"] is not None:
            if _given(options) or any(options[name] for name in ("all", "now", "dry_run")):
                raise CommandError(RESUMES, returncode=USAGE)
            self._work(_unfinished(options["resume"]), options)
            return
        if asks and options["json"]:
            raise CommandError("With --json, add --no-input or --dry-run.", returncode=USAGE)
        if not (options["reason"] or options["dry_run"]):
            raise CommandError('Say why, by --reason "ticket 4711".', returncode=USAGE)
        scope = _scope_of(options) if options["now"] else None
        selection = _selection(options)
        found = preview(selection, by=None, own=None)
        if not (found.has_any or scope):
            raise CommandError("No active session matches.", returncode=REFUSED)
        if options["dry_run"]:
            self._preview(found, options)
            return
        if asks and (found.count > 1 or found.is_more or scope):
            self._ask(found)
        self._work(_begun(selection, scope, options), options)

    def _preview(self, found: Preview, options: Facts) -> None:
        if options["json"]:
            names = "count", "is_more", "users", "staff", "staff_count"
            self._print([{name: getattr(found, name) for name in names}], options)
        else:
            self.stdout.write(f"Would end {in_words(found)}")

    def _ask(self, found: Preview) -> None:
        self.stdout.write(f"This ends {in_words(found)}")
        question, yes = "End them? [y/N] ", ["y", "yes"]
        if endings.are_many(found):
            question, yes = f"To end them, type {found.count}: ", [str(found.count)]
        try:
            answer = input(question)
        except EOFError:
            raise CommandError(
                "Nobody answers, so nothing was ended. To be asked nothing, add --no-input.",
                returncode=REFUSED,
            ) from None
        if answer.strip().lower() not in yes:
            raise CommandError("Nothing was ended.", returncode=REFUSED)

    def _work(self, ending: Ending, options: Facts) -> None:
        report = None
        if options["verbosity"] and not options["json"]:
            report = Report(self.stdout, f"Ending sessions. This is the ending {ending.pk}.")
        with _can_be_resumed(ending, report):
            while not endings.work(ending, SLICE):
                if ending.claimed_until:  # somebody else works at it, or was killed
                    time.sleep(SLICE)
                if report:
                    report(ending.looked_at, max(ending.looked_at, ending.total or 0, 1))
        if options["json"]:
            self._print([facts_of_ending(ending)], options)
        elif report:
            self.stdout.write(f"Ended {count(ending.ended, 'session')}.")


@contextmanager
def _can_be_resumed(ending: Ending, report: Report | None) -> Iterator[None]:
    """Say so if somebody stops the command."""
    try:
        yield
    except KeyboardInterrupt:
        raise CommandError(
            f"Stopped. To go on: manage.py sessions end --resume {ending.pk}", returncode=STOPPED
        ) from None
    finally:
        if report:
            report.end_line()


# Which sessions.


def _add_filters(parser: CommandParser) -> None:
    parser.add_argument("--all", action="store_true", help="all sessions")
    parser.add_argument(
        "--user", type=_text, metavar="NAME", help="the whole name of a user, or the key"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--ip", dest="network", type=_address, metavar="ADDRESS")
    where.add_argument("--network", type=_text, metavar="NETWORK", help="192.0.2.0/24, say")
    parser.add_argument(
        "--older-than", type=_ago, metavar="TIME", help="signed in that long ago: 30d, 12h or 15m"
    )
    parser.add_argument(
        "--inactive-for", type=_ago, metavar="TIME", help="not active for that long"
    )
    parser.add_argument(
        "--device",
        type=uuid.UUID,
        metavar="ID",
        help="of the browser with this identifier, or the one session with this handle",
    )
    parser.add_argument("--device-type", choices=DeviceType.values)
    parser.add_argument("--staff", action="store_true", help="of staff and superusers")
    parser.add_argument("--transport", choices=Transport.values)
    parser.add_argument("--new", action="store_true", help="from a new device or an unusual place")
    parser.add_argument(
        "--search",
        type=_text,
        metavar="TEXT",
        help="a part of user names or e-mail addresses, an address, ...",
    )


def _text(text: str) -> str:
    """Return the text. Where a script has an empty variable, it must not ask for all sessions."""
    if not text.strip():
        raise ArgumentTypeError("there is no text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ArgumentTypeError("this is no UTF-8") from None
    if "\0" in text:
        raise ArgumentTypeError("a NUL is in the text")
    return text


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no address; a network goes with --network") from None


def _ago(text: str) -> datetime:
    """Return the moment that is as long ago as this says: "30d" is 30 days."""
    found = re.fullmatch(r"(\d{1,9})([wdhms])", text, re.ASCII)
    if not found:
        raise ArgumentTypeError(f"{text!r} is no time, such as 30d, 12h or 15m")
    try:
        return timezone.now() - timedelta(seconds=int(found[1]) * UNITS[found[2]])
    except OverflowError:
        raise ArgumentTypeError(f"{text!r} is too long ago") from None


def _given(options: Mapping[str, Any]) -> list[str]:
    return [name for name in FILTERS if options.get(name)]


def _selection(options: Facts) -> Selection:
    """
    Return the sessions that the options ask for. Raises CommandError where they ask for none, and
    ValidationError for what makes no sense.
    """
    given = _given(options)
    if not (given or options["all"]):
        raise CommandError(WHICH, returncode=USAGE)
    if options["all"] and set(given) - {"older_than", "state", "end_reason"}:
        raise CommandError("--all is every session: leave out the filters.", returncode=USAGE)
    words = {
        "users": options["user"] and Selection.of_user(_key_of(options["user"])).as_text()["users"],
        "network": options["network"],
        "started_before": options["older_than"] and options["older_than"].isoformat(),
        "seen_before": options["inactive_for"] and options["inactive_for"].isoformat(),
        "device_type": options["device_type"],
        "staff": options["staff"] and "1",
        "transport": options["transport"],
        "new": options["new"] and "1",
        "state": options.get("state"),
        "reason": options.get("end_reason"),
    }
    asked = {name: text for name, text in words.items() if text}
    for text in (options["search"], options["device"] and str(options["device"])):
        for name, word in search(text or "", by_email=True).items():
            if asked.setdefault(name, word) != word:
                raise CommandError("Search for one thing at a time.", returncode=USAGE)
    return Selection.parse(asked)


def _key_of(text: str) -> str:
    """Return the primary key of the user who has this name or else this key, as text."""
    named = None
    with suppress(ValueError):  # where user names are numbers
        named = _users().filter(**{get_user_model().USERNAME_FIELD: text}).first()
    if named:
        return str(named.pk)
    (key,) = Selection.parse({"users": quote(text, safe="")}).users or ()
    return key


def _scope_of(options: Facts) -> Ending.Scope:
    given = [name for name in ("all", *_given(options)) if options[name] and name != "older_than"]
    if len(given) != 1 or given[0] not in SWITCHES:
        raise CommandError(
            "--now goes with one of --all, --staff and --user, and with --older-than.",
            returncode=USAGE,
        )
    return SWITCHES[given[0]]


def _begun(selection: Selection, scope: Ending.Scope | None, options: Facts) -> Ending:
    note = options["reason"]
    if scope is None:
        return endings.begin(
            selection,
            by=None,
            note=note,
            ended_from=None,
            spares_own=False,
            spares_superusers=False,
        )
    user = _users().filter(pk__in=selection.users or ()).first()
    if scope == Ending.Scope.USER and user is None:
        raise CommandError("There is no such user.", returncode=REFUSED)
    before = options["older_than"]
    return endings.throw(
        scope, by=None, note=note, ended_from=None, user=user, before=before, spares_own=False
    )


def _users() -> QuerySet[Any]:
    return get_user_model()._base_manager.using(router.db_for_write(UserSession))


def _endings() -> QuerySet[Ending]:
    return Ending._base_manager.using(router.db_for_write(Ending))


def _unfinished(number: int) -> Ending:
    ending = _endings().filter(pk=number, finished_at=None).first()
    if ending is None:
        raise CommandError(
            f"No ending {number} is unfinished. See: manage.py sessions endings", returncode=REFUSED
        )
    return ending
