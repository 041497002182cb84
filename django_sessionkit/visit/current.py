"""
The request that is being answered, for code that is not given a request, such as receivers of
signals. The middleware sets it.
"""

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.sessions.backends.base import SessionBase
    from django.http import HttpRequest

current_request: ContextVar["HttpRequest | None"] = ContextVar("current_request", default=None)

# Django's session middleware does not set current_request. For sites with that middleware: the
# session that was loaded last, or None if it is no longer in use.
loaded_session: ContextVar["Callable[[], SessionBase | None]"] = ContextVar(
    "loaded_session", default=lambda: None
)
