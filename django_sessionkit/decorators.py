"""
What a view can say of its requests: that they are no activity, that they take a recent proof of
identity, and that browsers may tell more about themselves.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.cache import never_cache
from django.views.decorators.clickjacking import xframe_options_deny
from django.views.decorators.csrf import csrf_protect

from django_sessionkit.proofs import aask_for_proof, ask_for_proof, check_max_age
from django_sessionkit.visit.client import ASKED

View = TypeVar("View", bound=Callable[..., Any])

# The client hints that name a device: those that browsers do not send of their own accord.
ACCEPT_CH = ", ".join(f"Sec-CH-UA-{name}" for name in ASKED)


def ask_for_client_hints(view: View) -> View:
    """
    Ask browsers to say more about themselves with their next requests: the version of their system,
    say, and the model of a telephone. Chromium does so on HTTPS, until it is closed.
    """
    if iscoroutinefunction(view):

        @wraps(view)
        async def asking(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            return _ask(await view(request, *args, **kwargs))

    else:

        @wraps(view)
        def asking(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            return _ask(view(request, *args, **kwargs))

    return cast("View", asking)


def _ask(response: HttpResponseBase) -> HttpResponseBase:
    asked = response.headers.get("Accept-CH")  # the site may ask for more
    response.headers["Accept-CH"] = f"{asked}, {ACCEPT_CH}" if asked else ACCEPT_CH
    return response


# For pages that end sessions: nobody must be able to forge or frame them. Two of the decorators see
# to that, even on a site without the middleware of that name.
GUARDS = [never_cache, csrf_protect, xframe_options_deny, ask_for_client_hints]


def background_request(view: View) -> View:
    """
    Say that the requests of a view are no activity of a person, because a page makes them by
    itself: to poll, to keep a connection up. They do not keep a session from going idle (ASVS
    7.3.1).
    """
    if iscoroutinefunction(view):

        @wraps(view)
        async def in_background(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            cast("Any", request.session).background = True
            return await view(request, *args, **kwargs)

    else:

        @wraps(view)
        def in_background(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            cast("Any", request.session).background = True
            return view(request, *args, **kwargs)

    return cast("View", in_background)


def recent_authentication_required(max_age: int | None = None) -> Callable[[View], View]:
    """
    Show a view to users who have proved who they are within the last ``max_age`` seconds; without
    an age, within the time that the policy of their session calls recent. Others are asked for a
    proof, and come back (ASVS 7.5.1, 7.5.3).

    Raises ValueError for an age under 1.
    """
    check_max_age(max_age)

    def decorate(view: View) -> View:
        if iscoroutinefunction(view):

            @wraps(view)
            async def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                if asked := await aask_for_proof(request, max_age):
                    return asked
                return await view(request, *args, **kwargs)

        else:

            @wraps(view)
            def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                if asked := ask_for_proof(request, max_age):
                    return asked
                return view(request, *args, **kwargs)

        return cast("View", guarded)

    return decorate
