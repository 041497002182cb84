"""What SESSIONKIT_POLICY names in a test: see the fixture ``policy``."""

from typing import Any

from django_sessionkit.policy import Policy

chosen = Policy()

# Fields of a policy that locks sessions, and the time without activity after which it does.
IDLE = {"idle": 600, "absolute": 86400, "lock": True}


def of_everybody(user: Any, request: Any = None) -> Policy:
    return chosen
