"""Functions for SESSIONKIT_POLICY in tests: see the fixture ``policy``."""

from typing import Any

from django_sessionkit.policy import Policy

chosen = Policy()

# The fields of policies that lock sessions after ten minutes, and end them after a day or an hour.
IDLE = {"idle": 600, "absolute": 86400, "lock": True}
LOCK = {"idle": 600, "absolute": 3600, "lock": True}


def of_everybody(user: Any, request: Any = None) -> Policy:
    return chosen


def ends(user: Any, request: Any = None) -> Policy:
    """Return a policy that ends the sessions of users whose permissions change."""
    return Policy(on_privilege_change="end")


def renews(user: Any, request: Any = None) -> Policy:
    """Return a policy under which the session key changes every ten minutes."""
    return Policy(renew_after=600, renew_grace=60)
