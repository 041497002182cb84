"""The switch, by which staff end the sessions of many at once: see epochs.py."""

import json
import uuid
from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from django_sessionkit import epochs
from django_sessionkit.models import Ending


def ending(
    users: Collection[User] | None = None,
    before: datetime | None = None,
    spared: uuid.UUID | None = None,
    **fields: Any,
) -> Ending:
    """Write the row that ends the sessions of these users, or of everybody."""
    now = timezone.now()
    scope = Ending.Scope.EVERYBODY if users is None else Ending.Scope.STAFF
    return Ending.objects.create(
        scope=scope,
        users=json.dumps([str(user.pk) for user in users or ()]),
        before=before or now,
        created_at=now,
        ended_from=spared,
        last=uuid.uuid4(),
        **fields,
    )


def throw(*args: Any, **kwargs: Any) -> Ending:
    """Throw the switch."""
    thrown = ending(*args, **kwargs)
    epochs.note(thrown)
    return thrown
