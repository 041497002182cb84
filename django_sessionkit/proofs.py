"""A visitor is asked for a recent proof of identity: where, and how they come back."""

from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render, resolve_url
from django.urls import reverse
from django.utils.cache import add_never_cache_headers
from django.utils.http import urlencode
from django.utils.translation import gettext
from django.views.decorators.cache import never_cache
from django.views.decorators.clickjacking import xframe_options_deny
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from django_sessionkit.accounts import person_in
from django_sessionkit.conf import conf
from django_sessionkit.forms import Hidden, PasswordForm
from django_sessionkit.visit.client import is_page
from django_sessionkit.visit.redirects import local_url, sign_in_url, to_sign_in, with_way_back

# As many characters of a form that was sent are carried along.
LONGEST = 100_000
# The ways in which a browser sends a form that can be carried: all but text/plain.
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


def check_max_age(max_age: int | None) -> None:
    """Raise ValueError for an age under 1: even a new proof would be too old, for ever."""
    if max_age is not None and max_age < 1:
        raise ValueError(f"The age of a recent proof is at least 1 second, not {max_age!r}.")


def ask_for_proof(
    request: HttpRequest, max_age: int | None, keeps_form: bool = True
) -> HttpResponse | None:
    """
    Return what asks for a proof of identity, or None where there is one that is at most ``max_age``
    seconds old; without an age, as old as the policy of the session allows. A form that was sent is
    kept for afterwards, or else its user comes back to the page. Raises PermissionDenied if there
    is no page to ask on.
    """
    check_max_age(max_age)
    if not request.user.is_authenticated:
        return to_sign_in(request, request.get_full_path())
    if _is_recent(request, max_age):
        return None
    person = person_in(request.session, request.user)
    if person is None:
        return to_sign_in(request, request.get_full_path())
    url = proof_url(person)
    if not is_page(request):
        answer = {
            "detail": gettext("Please confirm that it is you."),
            "reason": "reauthentication_required",
            "url": url,
        }
        response = JsonResponse(answer, status=401)
        add_never_cache_headers(response)
        return response
    if request.method in ("GET", "HEAD") or not keeps_form:
        return with_way_back(request, url, request.get_full_path())
    return _ask_in_place(request, person, url)


async def aask_for_proof(
    request: HttpRequest, max_age: int | None, keeps_form: bool = True
) -> HttpResponse | None:
    """See ask_for_proof()."""
    check_max_age(max_age)
    user = await request.auser()  # loads the session, too
    if user.is_authenticated and _is_recent(request, max_age):
        return None
    return await sync_to_async(ask_for_proof)(request, max_age, keeps_form)


def _is_recent(request: HttpRequest, max_age: int | None) -> bool:
    session: Any = request.session
    # A session of another engine does not know: that is no proof.
    if (age := getattr(session, "proof_age", None)) is None:
        return False
    return bool(age <= (session.policy.recent if max_age is None else max_age))


def is_asked_by_us(user: AbstractBaseUser) -> bool:
    """Tell whether our page asks for the proof: a site may have one, and some have no password."""
    return not conf.SESSIONKIT_REAUTHENTICATION_URL and user.has_usable_password()


def proof_url(user: AbstractBaseUser) -> str:
    """
    Return the URL of the page where a user proves who they are. Raises PermissionDenied if there is
    none: the user has no password, and the site has no sign-in page.
    """
    if is_asked_by_us(user):
        return reverse("django_sessionkit:reauthenticate")
    if conf.SESSIONKIT_REAUTHENTICATION_URL:
        return resolve_url(conf.SESSIONKIT_REAUTHENTICATION_URL)
    if (url := sign_in_url()) is None:
        raise PermissionDenied
    return url


# A form that was sent to a page which asks for a proof first.


@sensitive_variables()
def posted_by(request: HttpRequest) -> dict[str, str]:
    """
    Return the path ``to`` which a form was sent and its ``fields``, for the sender to send it
    again, or the ``obstacle`` to that.
    """
    if request.method != "POST" or request.content_type not in FORMS:
        return {"obstacle": "kind"}
    if request.FILES:
        return {"obstacle": "files"}
    # The token is this visitor's, and the page that sends the fields again has its own.
    fields = [field for field in request.POST.lists() if field[0] != "csrfmiddlewaretoken"]
    text = urlencode(fields, doseq=True)
    if len(text) > LONGEST:
        return {"obstacle": "length"}
    return {"to": request.get_full_path(), "fields": Hidden(text)}


# The token is looked at here, whatever the view does about it. Otherwise somebody else's form could
# be sent again from a page of ours, which has a good token.
@sensitive_post_parameters()
@never_cache
@csrf_protect
@xframe_options_deny
def _ask_in_place(request: HttpRequest, user: AbstractBaseUser, url: str) -> HttpResponse:
    # To the page with the form: the path to which the form was sent need not be a page.
    back = local_url(request, request.headers.get("Referer", "")) or request.get_full_path()
    context: dict[str, Any] = {"account": user, "next": back}
    if is_asked_by_us(user):
        context |= {"form": PasswordForm(request, user), "here": url, **posted_by(request)}
    else:
        context |= {"elsewhere": with_way_back(request, url, back).url, "obstacle": "elsewhere"}
    return render(request, "django_sessionkit/reauthenticate.html", context, status=403)
