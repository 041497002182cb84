"""
What a view can say of its requests: that they are no activity, and that they take a proof of
identity that is recent.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render, resolve_url
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import add_never_cache_headers
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.utils.translation import gettext
from django.views.decorators.cache import never_cache
from django.views.decorators.clickjacking import xframe_options_deny
from django.views.decorators.csrf import csrf_protect

from django_sessionkit.conf import conf
from django_sessionkit.forms import PasswordForm
from django_sessionkit.visit.client import is_page

# As many characters of a form that was sent are carried along.
LONGEST = 100_000
# What can be carried: the ways in which a browser sends a form, but for text/plain.
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")

View = TypeVar("View", bound=Callable[..., Any])


def background_request(view: View) -> View:
    """
    Say that the requests of a view are no activity of anybody, because a page makes them by itself:
    to poll, to keep a connection up. They do not keep a session from going idle.
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
    Let somebody see a view who is signed in, and has proved who they are within ``max_age``
    seconds; without one, within what the policy of their session calls recent. Others are asked for
    a proof, and come back. ASVS 7.5.1, 7.5.3.
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


def check_max_age(max_age: int | None) -> None:
    # Somebody who comes back with a proof that is too old already would be asked for ever.
    if max_age is not None and max_age < 1:
        raise ValueError(f"The age of a recent proof is at least 1 second, not {max_age!r}.")


def ask_for_proof(request: HttpRequest, max_age: int | None) -> HttpResponse | None:
    """Return what asks for a proof, or None where there is a recent one."""
    check_max_age(max_age)
    if not request.user.is_authenticated:
        return sent(request, resolve_url(settings.LOGIN_URL), request.get_full_path())
    if _is_recent(request, max_age):
        return None
    url = proof_url(request.user)
    if not is_page(request):
        answer = {
            "detail": gettext("Please confirm that it is you."),
            "reason": "reauthentication_required",
            "url": url,
        }
        response = JsonResponse(answer, status=401)
        add_never_cache_headers(response)
        return response
    if request.method in ("GET", "HEAD"):
        return sent(request, url, request.get_full_path())
    return _ask_in_place(request, url)


async def aask_for_proof(request: HttpRequest, max_age: int | None) -> HttpResponse | None:
    """See ask_for_proof()."""
    check_max_age(max_age)
    user = await request.auser()  # loads the session, too
    if user.is_authenticated and _is_recent(request, max_age):
        return None
    return await sync_to_async(ask_for_proof)(request, max_age)


def _is_recent(request: HttpRequest, max_age: int | None) -> bool:
    session: Any = request.session
    # A session of another engine does not know: that is no proof.
    if (proved_at := getattr(session, "authenticated_at", None)) is None:
        return False
    seconds: int = session.policy.recent if max_age is None else max_age
    return bool(timezone.now() - proved_at <= timedelta(seconds=seconds))


def is_asked_by_us(user: AbstractBaseUser) -> bool:
    """Tell whether our page asks for the proof: a site may have one, and some have no password."""
    return not conf.SESSIONKIT_REAUTHENTICATION_URL and user.has_usable_password()


def proof_url(user: AbstractBaseUser) -> str:
    """Return where a user proves who they are."""
    if is_asked_by_us(user):
        return reverse("django_sessionkit:reauthenticate")
    return resolve_url(conf.SESSIONKIT_REAUTHENTICATION_URL or settings.LOGIN_URL)


def sent(request: HttpRequest, url: str, back: str) -> HttpResponseRedirect:
    """Send somebody to a page that brings them back."""
    if urlsplit(url).netloc not in ("", request.get_host()):
        back = request.build_absolute_uri(back)
    return redirect_to_login(back, url)


def local_url(request: HttpRequest, url: str) -> str:
    """Return a URL that somebody has sent if it leads to this site, or else ""."""
    is_local = url_has_allowed_host_and_scheme(
        url, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return url if is_local else ""


# A form that was sent to a page which asks for a proof first.


def posted_by(request: HttpRequest) -> dict[str, str]:
    """
    Return where it was sent ``to`` and its ``fields``, for it to be sent again by whoever did, or
    the ``obstacle`` to that.
    """
    if request.method != "POST" or request.content_type not in FORMS:
        return {"obstacle": "kind"}
    if request.FILES:
        return {"obstacle": "files"}
    # The token is this visitor's, and the page that sends them has its own.
    fields = [field for field in request.POST.lists() if field[0] != "csrfmiddlewaretoken"]
    text = urlencode(fields, doseq=True)
    if len(text) > LONGEST:
        return {"obstacle": "length"}
    return {"to": request.get_full_path(), "fields": text}


# The token is looked at here whatever the view does about it. Else somebody else's form could be
# sent again from a page of ours, which has a good one.
@never_cache
@csrf_protect
@xframe_options_deny
def _ask_in_place(request: HttpRequest, url: str) -> HttpResponse:
    user = cast("AbstractBaseUser", request.user)
    # To the page that has the form: where it was sent to need not be one.
    back = local_url(request, request.headers.get("Referer", "")) or request.get_full_path()
    context: dict[str, Any] = {"account": user, "next": back}
    if is_asked_by_us(user):
        context |= {"form": PasswordForm(request, user), "here": url, **posted_by(request)}
    else:
        context |= {"elsewhere": sent(request, url, back).url, "obstacle": "elsewhere"}
    return render(request, "django_sessionkit/reauthenticate.html", context, status=403)
