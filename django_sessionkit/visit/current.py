"""
The request that is being answered, for code that is not given a request, such as receivers of
signals. The middleware sets it. Outside of a request, in a script or a task, nothing is current.
"""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import ref

from django.core.signals import request_finished, request_started
from django.dispatch import receiver

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.sessions.backends.base import SessionBase
    from django.http import HttpRequest

current_request: ContextVar["HttpRequest | None"] = ContextVar("current_request", default=None)

# Django's session middleware does not set current_request. For sites with that middleware: the
# first session that the request has loaded and that is still in use. None outside of a request, and
# where our middleware has the session.
loaded_session: ContextVar["Callable[[], SessionBase | None] | None"] = ContextVar(
    "loaded_session", default=None
)


def visit_of(session: "SessionBase") -> Any:
    """Return the Visit of the current request, or None if this is not the session on it."""
    request: Any = current_request.get()
    if request is None or getattr(request, "session", None) is not session:
        return None
    return getattr(request, "sessionkit", None)


# How many requests an ASGI server has under way in this process. Django sends request_started in a
# context that is not the request's, so there loaded_session cannot tell whether there is a request.
_asgi_requests = 0


def note_loaded(session: "SessionBase") -> None:
    """Note that a session was loaded, for which no middleware has said where it comes from."""
    known = loaded_session.get()
    if _asgi_requests if known is None else known() is None:
        loaded_session.set(ref(session))


def is_loaded_session(session: "SessionBase") -> bool:
    """
    Tell whether a session is the one that the current request has loaded, on a site with Django's
    middleware. On ASGI nobody can tell it from the session of a web socket, say: False.
    """
    known = loaded_session.get()
    return known is not None and not _asgi_requests and known() is session


def is_in_request() -> bool:
    """
    Tell whether a request is being answered here, so that request_finished is still to come. On
    ASGI: whether this process answers any.
    """
    return (current_request.get() or loaded_session.get()) is not None or _asgi_requests > 0


def _nothing_yet() -> None:
    """What loaded_session is while a request has loaded no session."""


@receiver(request_started, dispatch_uid="django_sessionkit.started")
def _begin(**kwargs: Any) -> None:
    global _asgi_requests
    if "scope" in kwargs:
        _asgi_requests += 1
    current_request.set(None)  # a request that was cut off has left it
    loaded_session.set(_nothing_yet)


@receiver(request_finished, dispatch_uid="django_sessionkit.finished")
def _end(**kwargs: Any) -> None:
    global _asgi_requests
    _asgi_requests = max(0, _asgi_requests - 1)
    current_request.set(None)
    loaded_session.set(None)
