import math
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_sessionkit.accounts import policy_of
from django_sessionkit.conf import conf
from django_sessionkit.policy import DAY, HOUR, MINUTE, Policy

WIDTH = 79

# The users about whom the policy is asked, and the flags that they have.
GROUPS: dict[str, tuple[str, ...]] = {
    "ordinary users": (),
    "staff": ("is_staff",),
    "superusers": ("is_staff", "is_superuser"),
}

ON_LIMIT = {
    "end_oldest": "When one more begins, the one that began first is ended, and its user told why.",
    "end_idlest": "When one more begins, the one that has been inactive for longest is ended, and "
    "its user told why.",
    "refuse": "One more is refused, and its user told why.",
    "ask": "When one more begins, its user is asked which to end, and has to wait until then.",
}
ON_REUSE = {
    "end": "ends the session, and is reported",
    "report": "is reported",
}
ON_PRIVILEGE_CHANGE = {
    "renew": "sessions get new keys",
    "end": "sessions end",
    "keep": "sessions stay as they are",
}
ON_CHANGE = {
    "report": "this is reported",
    "ask": "its user has to prove again who they are",
    "end": "the session ends",
}


class Level(NamedTuple):
    """The timeouts of a level of NIST SP 800-63B-4, in seconds."""

    name: str
    section: str
    absolute: int
    demanded: bool  # NIST demands this absolute time; or else, any absolute time, and advises this
    idle: int | None = None  # NIST recommends this time of inactivity
    by_password: bool = True  # a password alone may open a locked session


LEVELS = [
    Level("AAL1", "2.1.3", 30 * DAY, demanded=False),
    Level("AAL2", "2.2.3", 24 * HOUR, demanded=False, idle=HOUR),
    Level("AAL3", "2.3.3", 12 * HOUR, demanded=True, idle=15 * MINUTE, by_password=False),
]


class Command(BaseCommand):
    help = (
        "Print the session policy in words, for those who audit the site: how long sessions live, "
        "how many a user may have, and how that compares with NIST SP 800-63B-4."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        name = get_user_model().USERNAME_FIELD
        parser.add_argument(
            "--user",
            metavar=name.upper(),
            help=f"Print the policy of the user with this {name}, instead of all policies.",
        )

    def handle(self, *args: Any, user: str | None = None, **options: Any) -> None:
        if user is None:
            found = dict(_samples())
        else:
            known = _user(user)
            found = {f"user {known.get_username()}": known}
        groups: dict[Policy, list[str]] = {}
        for name, each in found.items():
            groups.setdefault(_policy_of(each, name), []).append(name)
        paragraphs = list(_introduction(named=user is not None))
        for policy, names in groups.items():
            heading = _list(names)
            paragraphs += [f"{heading[0].upper()}{heading[1:]}\n{'-' * len(heading)}"]
            paragraphs += _describe(policy)
        paragraphs += _conclusion()
        self.stdout.write("\n\n".join(map(_wrapped, paragraphs)))


def _samples() -> Iterator[tuple[str, AbstractBaseUser]]:
    model = get_user_model()
    fields = {field.name for field in model._meta.fields}
    for name, flags in GROUPS.items():
        if fields.issuperset(flags):
            yield name, model(**dict.fromkeys(flags, True))


def _user(name: str) -> AbstractBaseUser:
    model = get_user_model()
    try:
        return model._default_manager.get_by_natural_key(name)
    except (model.DoesNotExist, ValueError):  # ValueError: the field cannot have this value
        raise CommandError(
            f"There is no user {name!r}. Give the {model.USERNAME_FIELD} as it is stored, "
            f"in upper and lower case."
        ) from None


def _policy_of(user: AbstractBaseUser, name: str) -> Policy:
    try:
        return policy_of(user)
    except Exception as error:
        reason = str(error).removesuffix(".")
        hint = "" if user.pk else " Add --user and the name of a stored user."
        raise CommandError(
            f"{conf.SESSIONKIT_POLICY} does not tell the policy of {name}: {reason}.{hint}"
        ) from error


def _introduction(named: bool) -> Iterator[str]:
    path = conf.SESSIONKIT_POLICY
    text = (
        f"The sessions of this site follow SESSIONKIT_POLICY, {path}. It is asked when somebody "
        "signs in or proves again who they are, and when a session gets a new key because groups, "
        "permissions or staff flags have changed. A change of it holds from then on. The times are "
        "kept by the server, whatever a cookie says."
    )
    if not path.startswith("django_sessionkit."):
        text += " Here, it was asked without a request"
        text += "." if named else ", about users who are not stored and are in no group."
    yield text


def _describe(policy: Policy) -> Iterator[str]:
    locked, end = _inactivity(policy)
    yield "Timeouts (ASVS 7.1.1, 7.3.1, 7.3.2). " + " ".join(_timeouts(policy))

    text = "Number of sessions (ASVS 7.1.2). A user may have "
    if policy.limit is None:
        yield f"{text}any number of them at a time."
    else:
        plural = "" if policy.limit == 1 else "s"
        yield f"{text}{policy.limit} session{plural} at a time. {ON_LIMIT[policy.on_limit]}"

    text = "Session keys (ASVS 7.2.4). A sign-in and a proof of identity give a session a new key."
    if policy.renew_after:
        text += f" It gets one {_age(policy.renew_after)} after the last, too."
    if policy.renew_after or policy.on_privilege_change == "renew":
        text += (
            f" A key that was renewed without its user's doing works for {_age(policy.renew_grace)}"
            f" beside the new one. To use it later {ON_REUSE[policy.on_reuse]}."
        )
    yield text

    if policy.bind:
        yield (
            f"Binding. A session is to stay with its {_list(policy.bind)}. If it does not, "
            f"{ON_CHANGE[policy.on_change]}."
        )
    else:
        yield "Binding. A session is not tied to a browser, a system or a network."

    yield (
        "Accounts (ASVS 7.4.2, 7.4.3). When the password is changed or reset, all other sessions "
        "of its user end at once; when the account is disabled or deleted, all do. When groups, "
        f"permissions or staff flags change, {ON_PRIVILEGE_CHANGE[policy.on_privilege_change]}. "
        "If a password is changed or an account is disabled where Django sends no signal, by "
        f"QuerySet.update() or SQL, a session in use ends within "
        f"{_age(_touch_interval(end, locked))}."
    )
    yield (
        "Proof of identity (ASVS 7.5.1, 7.5.2). What asks for a recent one accepts one that is up "
        f"to {_age(policy.recent)} old."
    )
    lines = [f"{level.name} ({level.section}): {_compared(policy, level)}" for level in LEVELS]
    yield "Compared with the timeouts of NIST SP 800-63B-4:\n" + "\n".join(lines)


def _timeouts(policy: Policy) -> Iterator[str]:
    locked, end = _inactivity(policy)
    absolute = _longest(policy)
    ends = absolute is None or end < absolute
    if locked:
        proof = "a proof of identity" if conf.SESSIONKIT_REAUTHENTICATION_URL else "the password"
        yield (
            f"After {_age(locked)} without activity a session is locked: nothing is lost, and "
            f"{proof} opens it again, on the same device."
        )
    whens = []
    if ends:
        source = "" if end == policy.idle else " (SESSION_COOKIE_AGE)"
        whens.append(f"after {_age(end)} without activity{source}")
    if absolute is not None:
        source = "" if absolute == policy.absolute else " (SESSION_COOKIE_AGE)"
        whens.append(
            f"{_age(absolute)}{source} after its user has proved who they are, however active it is"
        )
    yield f"A session ends {', and '.join(whens)}."
    if absolute is None:
        yield "There is no longest time: a session that is in use goes on for ever."
    else:
        yield "Only another proof begins this time anew."
    if policy.extendable:
        yield "An age longer than that, for which a view asks by set_expiry(), is its longest time."
    if policy.idle and not locked and policy.idle > end:
        yield f"The policy would allow {_age(policy.idle)} without activity."
    if ends or locked:
        error = _age(_touch_interval(end, locked))
        yield (
            f"Activity is written down at most once in {error}, so inactivity can be found up to "
            f"{error} early, and never late."
        )
    else:
        yield "Inactivity does not end it earlier."


def _inactivity(policy: Policy) -> tuple[int | None, int]:
    """
    Return the seconds without activity after which a session is locked, or None, and the seconds
    after which it ends.
    """
    age = settings.SESSION_COOKIE_AGE
    if policy.idle is None or policy.idle >= age:
        return None, age
    return (policy.idle, age) if policy.lock else (None, policy.idle)


def _longest(policy: Policy) -> int | None:
    """Return the seconds after a proof of identity at which a session ends, or None."""
    if policy.absolute is None or not policy.extendable:
        return policy.absolute
    return max(policy.absolute, settings.SESSION_COOKIE_AGE)


def _touch_interval(*ages: int | None) -> int:
    """
    Return the seconds between two writes of activity. They are at most a tenth of the shortest age,
    so that short times are measured more finely.
    """
    return math.ceil(min(conf.SESSIONKIT_TOUCH_INTERVAL, min(filter(None, ages)) / 10))


def _compared(policy: Policy, level: Level) -> str:
    locked, end = _inactivity(policy)
    absolute = _longest(policy)
    broken: list[str] = []
    longer: list[str] = []
    if absolute is None:
        broken.append("there is no longest time after a proof of identity, and there has to be one")
    elif absolute > level.absolute:
        verb = "allows" if level.demanded else "recommends"
        deviations = broken if level.demanded else longer
        deviations.append(
            f"{_age(absolute)} after a proof of identity is longer than the "
            f"{_age(level.absolute)} that it {verb}"
        )
    inactivity = min(filter(None, (locked, end, absolute)))
    if level.idle and inactivity > level.idle:
        longer.append(
            f"{_age(inactivity)} without activity is longer than the {_age(level.idle)} that it "
            "recommends"
        )
    if locked and not level.by_password and not conf.SESSIONKIT_REAUTHENTICATION_URL:
        broken.append("a password alone opens a locked session, and it demands every factor")
    if not broken and not longer:
        return "met, unless a view asks for a longer age." if policy.extendable else "met."
    verdict = "not met" if broken else "what it demands is met, what it recommends is not"
    return f"{verdict}: {'; '.join(broken + longer)}."


def _conclusion() -> Iterator[str]:
    if conf.SESSIONKIT_VISITOR_AGE is not None:
        age = min(conf.SESSIONKIT_VISITOR_AGE, settings.SESSION_COOKIE_AGE)
        yield (
            f"The session of a visitor who is not signed in ends after {_age(age)} without "
            f"activity (SESSIONKIT_VISITOR_AGE)."
        )
    text = "For all sessions: requests in the background are no activity"
    if paths := conf.SESSIONKIT_BACKGROUND:
        text += f", such as those whose path begins with {_list(paths)}"
    text += (
        ". A view that calls set_expiry() replaces SESSION_COOKIE_AGE for its session, and nothing "
        "of the policy but what is named above. Browsers "
    )
    if settings.SESSION_EXPIRE_AT_BROWSER_CLOSE:
        text += (
            "are told to forget the session cookie when they are closed "
            "(SESSION_EXPIRE_AT_BROWSER_CLOSE), as NIST SP 800-63B-4, 5.1, recommends."
        )
    else:
        text += (
            "keep the session cookie when they are closed, and NIST SP 800-63B-4, 5.1, recommends "
            "that they do not (SESSION_EXPIRE_AT_BROWSER_CLOSE)."
        )
    yield f"{text} The levels of NIST ask for more than timeouts; that is not looked at here."


def _age(seconds: int) -> str:
    """
    Return an age, in seconds, in words: 5400 is "1 hour and 30 minutes". Below two days, there are
    only hours, because NIST speaks of "24 hours".
    """
    parts = []
    units = {"day": DAY, "hour": HOUR, "minute": MINUTE, "second": 1}
    for name, length in units.items():
        if name == "day" and seconds < 2 * DAY:
            continue
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count} {name}{'' if count == 1 else 's'}")
    return _list(parts)


def _list(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _wrapped(paragraph: str) -> str:
    return "\n".join(
        textwrap.fill(line, WIDTH, break_long_words=False, break_on_hyphens=False)
        for line in paragraph.split("\n")
    )
