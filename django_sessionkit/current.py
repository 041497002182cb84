"""
The request that is being answered, for those to whom nobody hands it. The middleware sets it.
"""

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.http import HttpRequest

current_request: ContextVar["HttpRequest | None"] = ContextVar("current_request", default=None)
