"""
What the command "sessions" says: facts in JSON for programs, whose names stay, and tables for
people. No digest is among the facts, for it is the name of a session in the store.
"""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db import router
from django.utils import timezone

from django_sessionkit.clock import as_milliseconds
from django_sessionkit.models import Ending, UserSession
from django_sessionkit.reach import Preview

Facts = dict[str, Any]

# In seconds.
UNITS = {"w": 7 * 24 * 3600, "d": 24 * 3600, "h": 3600, "m": 60, "s": 1}
# The lines of a table have so many characters at most.
WIDTH = 100


def facts_of_sessions(rows: Sequence[UserSession]) -> list[Facts]:
    users = get_user_model()._base_manager.using(router.db_for_write(UserSession))
    people = users.in_bulk({row.user_id for row in rows})
    return [_facts(row, people.get(row.user_id)) for row in rows]


def _facts(row: UserSession, user: Any) -> Facts:
    now = timezone.now()
    is_over = row.ended_at is not None or row.expires_at <= now
    reason = row.end_reason if row.ended_at else row.expiry_reason.value if is_over else ""
    return {
        "handle": str(row.pk),
        "user": str(row.user_id),
        "user_name": user.get_username() if user else "",
        "state": "ended" if is_over else "locked" if row.is_locked else "active",
        "reason": reason,
        "note": row.end_note,
        "device": str(row.device),
        "details": row.device.details,
        "device_type": row.device_type,
        "label": row.label,
        "browser": _id(row.browser),
        "address": row.address,
        "place": row.place,
        "new": row.novelty,
        "transport": row.transport,
        "backend": row.backend,
        "remembered": row.remembered,
        "support": row.support,
        "waits": row.waits,
        "opened_by": _id(row.parent),
        "started_at": _moment(row.started_at),
        "authenticated_at": _moment(row.authenticated_at),
        "adopted_at": _moment(row.adopted_at),
        "last_seen_at": _moment(row.last_seen_at),
        "idle_at": _moment(row.idle_at),
        "expires_at": _moment(row.expires_at),
        "ended_at": _moment(row.ended_at),
        "ended_by": None if row.ended_by_id is None else str(row.ended_by_id),
        "ended_from": _id(row.ended_from),
        "reported_at": _moment(row.reported_at),
        "user_agent": row.user_agent,
        "client_hints": row.client_hints,
        "language": row.language,
    }


def facts_of_ending(ending: Ending) -> Facts:
    return {
        "ending": ending.pk,
        "scope": ending.scope,
        "filters": json.loads(ending.filters or "{}"),
        "reason": ending.note,
        "by": None if ending.by_id is None else str(ending.by_id),
        "created_at": _moment(ending.created_at),
        "finished_at": _moment(ending.finished_at),
        "total": ending.total,
        "looked_at": ending.looked_at,
        "ended": ending.ended,
    }


def _id(value: uuid.UUID | None) -> str | None:
    return None if value is None else str(value)


def _moment(value: datetime | None) -> str | None:
    if value is None:
        return None
    return datetime.fromtimestamp(as_milliseconds(value) / 1000, UTC).isoformat(timespec="seconds")


def in_brief(facts: Facts) -> Facts:
    return {
        "session": facts["handle"],
        "user": facts["user_name"] or facts["user"],
        "state": facts["reason"] or facts["state"],
        "active": _since(facts["last_seen_at"]),
        "address": facts["address"],
        "device": facts["device"],
    }


def ending_in_brief(facts: Facts) -> Facts:
    words = [facts["scope"], *(f"{name}={text}" for name, text in facts["filters"].items())]
    return {
        "ending": facts["ending"],
        "begun": _since(facts["created_at"]),
        "sessions": " ".join(words),
        "ended": facts["ended"],
        "reason": facts["reason"],
    }


def _since(moment: str) -> str:
    """Return how long ago this is: "12m ago"."""
    seconds = max(0, int(time.time() - datetime.fromisoformat(moment).timestamp()))
    unit = next((unit for unit in "dhm" if seconds >= UNITS[unit]), "s")
    return f"{seconds // UNITS[unit]}{unit} ago"


def in_words(found: Preview) -> str:
    more = "more than " if found.is_more else ""
    text = f"{more}{count(found.count, 'session')} of {count(found.users, 'user')}."
    if found.staff_count:
        names = [plain(name) for name in found.staff]
        if found.staff_count > len(names):
            names.append(f"and {found.staff_count - len(names):,} more")
        text += f" Staff among them: {', '.join(names)}."
    return text


def count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def table(found: Sequence[Facts]) -> Iterator[str]:
    """Yield lines. If they are too long, the widest columns are cut, but never the first one."""
    lines = [[name.upper() for name in found[0]]]
    lines += [[plain(value) for value in facts.values()] for facts in found]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        widths[widths.index(max(widths[1:]), 1)] -= 1
    for line in lines:
        cells = zip(line, widths, strict=True)
        yield "  ".join(_cut(text, width).ljust(width) for text, width in cells).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def plain(value: Any) -> str:
    """Return a value as text that does nothing to a terminal: browsers, and users, have said it."""
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)
