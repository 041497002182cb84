"""A stand-in: the log of what staff end comes with another branch."""

import uuid
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.utils.translation import gettext

from django_sessionkit.models import UserSession

# How many entries of the admin's log are written at a time.
ENTRIES = 500


def log_ended(staff_pk: Any, handles: list[uuid.UUID], note: str) -> None:
    """Log what this user has ended: other staff may have ended some of the sessions meanwhile."""
    message = gettext("Ended: %(note)s") % {"note": note} if note else gettext("Ended.")
    for start in range(0, len(handles), ENTRIES):
        rows = UserSession.objects.primary().filter(pk__in=handles[start : start + ENTRIES])
        LogEntry.objects.log_actions(
            user_id=staff_pk,
            queryset=rows.filter(ended_by=staff_pk).select_related("user"),
            action_flag=CHANGE,
            change_message=message,
        )
