"""
What staff do, as lines of the log ``django_sessionkit.audit``, in the words of OWASP's Application
Logging Vocabulary: ``authz_admin`` is the activity of privileged users, at the level WARNING. A
line names people by their primary keys and sessions by their handles. Where a command ends
sessions, ``os_user`` is the user of the operating system who runs it.
"""

import getpass
import json
import logging
import os
import re
import uuid
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_sessionkit.models import Ending

logger = logging.getLogger("django_sessionkit.audit")

# So many sessions or users are named in a line at most. Of more, it says the number.
NAMED = 20
# What needs no quotes.
PLAIN = re.compile(r"[\w.,:@+-]+", re.ASCII)


def started(ending: "Ending") -> None:
    """Say that staff have begun an ending, or have thrown the switch."""
    _say(
        ending.by_id,
        "sessions_ending",
        os_user=None if ending.by_id is not None else _os_user(),
        ending=ending.pk,
        scope=ending.scope,
        filter=json.loads(ending.filters or "{}"),
        users=json.loads(ending.users or "[]"),
        before=ending.before and ending.before.isoformat(),
        **{"from": ending.ended_from},
        reason=ending.note,
    )


def finished(ending: "Ending") -> None:
    """Say that all sessions of an ending have ended."""
    _say(ending.by_id, "sessions_ended", ending=ending.pk, ended=ending.ended, reason=ending.note)


def ended(by: Any, handles: Collection[uuid.UUID], note: str) -> None:
    """
    Say that staff have ended sessions without a row of Ending. ``by`` is the primary key of who did
    that, or None.
    """
    _say(by, "sessions_ended", sessions=sorted(handles), reason=note)


def _os_user() -> str:
    """
    Return the user who runs this process, by name or, if the system has no name for that user, by
    number. On Unix, variables of the environment do not count: anybody can set these.
    """
    try:
        import pwd
    except ImportError:  # on Windows
        return getpass.getuser()
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # in a container, say
        return str(number)


def _say(by: Any, event: str, **facts: Any) -> None:
    who = "-" if by is None else _quoted(by)
    said = {name: value for name, value in facts.items() if value not in (None, "", [], {})}
    text = " ".join(f"{name}={_quoted(value)}" for name, value in said.items())
    logger.warning("authz_admin:%s,%s %s", who, event, text)


def _quoted(value: Any) -> str:
    """Return a value as it is, or in quotes if it could be taken for something else, or for the
    next line: staff have typed the reason."""
    if isinstance(value, list):
        value = _list(value)
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text)


def _list(values: Collection[Any]) -> str:
    if len(values) > NAMED:
        return f"{len(values)} in all"
    return ",".join(str(value) for value in values)
