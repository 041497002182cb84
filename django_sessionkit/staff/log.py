"""What staff have ended, in the log of Django's admin. The log for machines is audit.py."""

import uuid
from collections.abc import Sequence
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.utils.translation import gettext

from django_sessionkit.models import Ending, UserSession

# How many entries are written at a time.
ENTRIES = 500


def log_ended(staff_pk: Any, handles: Sequence[uuid.UUID], note: str) -> None:
    """
    Write an entry for each of the sessions with these handles that the user with this primary key
    has ended: other staff may have ended some of them meanwhile.
    """
    for start in range(0, len(handles), ENTRIES):
        batch = UserSession.objects.primary().filter(pk__in=handles[start : start + ENTRIES])
        LogEntry.objects.log_actions(
            user_id=staff_pk,
            queryset=batch.filter(ended_by=staff_pk).select_related("user"),
            action_flag=CHANGE,
            change_message=_message(note),
        )


def log_ending(ending: Ending) -> None:
    """
    Write one entry for sessions that staff end together, too many for an entry each. Of what a
    command ends there is none: an entry has a user.
    """
    if ending.by_id is not None:
        LogEntry.objects.log_actions(
            user_id=ending.by_id,
            queryset=[ending],
            action_flag=CHANGE,
            change_message=_message(ending.note),
        )


def _message(note: str) -> str:
    return gettext("Ended: %(reason)s") % {"reason": note} if note else gettext("Ended.")
