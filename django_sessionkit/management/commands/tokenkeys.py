from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from django_sessionkit import signing_keys
from django_sessionkit.clock import as_milliseconds
from django_sessionkit.models import SigningKey
from django_sessionkit.signing_keys import HOW_TO_MAKE_ONE

LOST = "does not open with this SECRET_KEY, nor with SECRET_KEY_FALLBACKS"


class Command(BaseCommand):
    help = (
        "List the keys that sign tokens; make the first one; publish the next one; or retire one "
        "that was stolen. Without an option, only list them."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        only_one = parser.add_mutually_exclusive_group()
        only_one.add_argument(
            "--make", action="store_true", help="make the first key, if there is none"
        )
        only_one.add_argument(
            "--rotate",
            action="store_true",
            help="publish the next key. It signs some minutes later, when all services know it",
        )
        only_one.add_argument(
            "--retire", metavar="KID", help="retire a key that was stolen, at once"
        )

    def handle(
        self, *args: Any, make: bool, rotate: bool, retire: str | None, **options: Any
    ) -> None:
        if make and not signing_keys.make():
            self.stdout.write("There is a key already, so none was made.")
        if rotate and not signing_keys.rotate():
            self.stdout.write("The next key waits already, so none was made.")
        if retire is not None and not signing_keys.retire(retire):
            raise CommandError(f"No key {retire!r} verifies tokens.")
        keys = list(SigningKey.objects.primary().order_by("number"))
        now = timezone.now()
        usable = [key for key in keys if _verifies(key, now) and signing_keys.opens(key)]
        current = [key for key in usable if key.signs_from <= now]
        for key in keys:
            is_lost = _verifies(key, now) and key not in usable
            state = LOST if is_lost else _state(key, now, signs=key in current[-1:])
            self.stdout.write(f"{key.kid}  {key.algorithm:5}  {state}")
        if not usable:
            self.stdout.write(HOW_TO_MAKE_ONE)


def _verifies(key: SigningKey, now: datetime) -> bool:
    return key.verifies_until is None or key.verifies_until > now


def _state(key: SigningKey, now: datetime, signs: bool) -> str:
    """Say what a key does now. The one that signs is the newest whose time has come."""
    until = f"until {_moment(key.verifies_until)}" if key.verifies_until else ""
    if not _verifies(key, now):
        return f"verified {until}"
    if key.signs_from > now:
        return f"signs from {_moment(key.signs_from)}"
    return ("signs, and verifies " if signs else "verifies ") + until if until else "signs"


def _moment(value: datetime) -> str:
    at = datetime.fromtimestamp(as_milliseconds(value) / 1000, UTC)
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
