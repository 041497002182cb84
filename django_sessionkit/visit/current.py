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

# With Django's session middleware nobody sets that. Then the session that was loaded last, if it is
# still in use, is all that can be known.
loaded_session: ContextVar["Callable[[], SessionBase | None]"] = ContextVar(
    "loaded_session", default=lambda: None
)
