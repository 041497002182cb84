"""How long the sessions of the shop live, and how many there may be."""

from django.contrib.auth.base_user import AbstractBaseUser
from django.http import HttpRequest

from django_sessionkit.policy import DAY, MINUTE, STAFF, Policy

CUSTOMER = Policy(
    # After 15 minutes without activity, a session is locked. The password opens it again, with the
    # cart as it was.
    idle=15 * MINUTE,
    lock=True,
    absolute=30 * DAY,
    limit=3,
    on_limit="ask",
    recent=5 * MINUTE,
)


def policy(user: AbstractBaseUser, request: HttpRequest | None = None) -> Policy:
    return STAFF if getattr(user, "is_staff", False) else CUSTOMER
