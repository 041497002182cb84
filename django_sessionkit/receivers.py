"""
The few things that only a signal can tell. Everything else is done by the engine, whichever way a
session comes to be written.
"""

from typing import Any

from django.contrib.auth.signals import user_logged_in
from django.dispatch import receiver


@receiver(user_logged_in, dispatch_uid="django_sessionkit.reauthenticated")
def reauthenticated(request: Any = None, **kwargs: Any) -> None:
    """
    Give the session a new key when its own user signs in again (ASVS 7.2.4). Django's login() does
    that for everybody else: a session that has a row by now is one that it left alone.
    """
    session: Any = getattr(request, "session", None)
    if getattr(session, "handle", None):
        session.reauthenticate()
