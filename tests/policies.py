"""What SESSIONKIT_POLICY names in a test: see the fixture ``policy``."""

from typing import Any

from django_sessionkit.policy import Policy

chosen = Policy()


def of_everybody(user: Any, request: Any = None) -> Policy:
    return chosen
