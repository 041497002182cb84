"""
A visitor is asked for a recent proof of identity: whose, where, and how they come back; and what a
proof does to the session.
"""

from contextlib import suppress
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.contrib.auth import HASH_SESSION_KEY
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render, resolve_url
from django.urls import NoReverseMatch, reverse
from django.utils.cache import add_never_cache_headers
from django.utils.http import urlencode
from django.utils.translation import gettext
from django.views.decorators.cache import never_cache
from django.views.decorators.clickjacking import xframe_options_deny
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from django_sessionkit import problems
from django_sessionkit.accounts import key_of, person_in, user_in
from django_sessionkit.conf import conf
from django_sessionkit.forms import Hidden, PasswordForm
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.policy import Policy
from django_sessionkit.problems import PAGES
from django_sessionkit.visit.client import is_page
from django_sessionkit.visit.devices import device_of
from django_sessionkit.visit.interruptions import Lock, Locked
from django_sessionkit.visit.redirects import local_url, sign_in_url, to_sign_in, with_way_back

# What a script is told, and by what header (RFC 9470 §3).
REQUIRED = "reauthentication_required"
CHALLENGE = (
    'Bearer error="insufficient_user_authentication", '
    'error_description="More recent authentication is required", max_age="{}"'
)
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
    if not is_page(request):
        return _ask_script(request, person, _oldest(request, max_age))
    url = proof_url(person)
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
    return bool(age <= _oldest(request, max_age))


def _oldest(request: HttpRequest, max_age: int | None) -> int:
    """Return the age of a proof, in seconds, that just does."""
    session: Any = request.session
    if max_age is not None:
        return max_age
    # A session of another engine has no policy.
    recent: int = getattr(session, "policy", Policy()).recent
    return recent


def _ask_script(request: HttpRequest, person: AbstractBaseUser, max_age: int) -> HttpResponse:
    """Tell a script what age of a proof would do, and where its user can give one."""
    detail = gettext("Please confirm that it is you.")
    if problems.tells_problems(request):
        url = proof_url(person, problems.NAMESPACE)
        response = problems.answer(401, REQUIRED, detail, url=url, max_age=max_age)
    else:
        answer = {"detail": detail, "reason": REQUIRED, "url": proof_url(person)}
        response = JsonResponse(answer, status=401)
    response.headers["WWW-Authenticate"] = CHALLENGE.format(max_age)
    add_never_cache_headers(response)
    return response


def is_asked_by_us(user: AbstractBaseUser) -> bool:
    """Tell whether our page asks for the proof: a site may have one, and some have no password."""
    return not conf.SESSIONKIT_REAUTHENTICATION_URL and user.has_usable_password()


def proof_url(user: AbstractBaseUser, namespace: str = PAGES) -> str:
    """
    Return the URL where a user proves who they are: the page for that or, with the namespace of the
    JSON API, what a program sends the password to. Raises PermissionDenied if there is none: the
    user has no password, and the site has no sign-in page.
    """
    if is_asked_by_us(user):
        with suppress(NoReverseMatch):  # a site without that page: signing in again is a proof
            return reverse(f"{namespace}:reauthenticate")
    if conf.SESSIONKIT_REAUTHENTICATION_URL:
        return resolve_url(conf.SESSIONKIT_REAUTHENTICATION_URL)
    if (url := sign_in_url()) is None:
        raise PermissionDenied
    return url


# Who proves who they are, and what that does.


def row_of_locked(locked: Locked) -> UserSession | None:
    """Return the row of a locked session, with its user, or None if it has ended."""
    rows = UserSession.objects.primary().active().select_related("user")
    return rows.filter(pk=locked.handle).first()


def account_to_prove(request: HttpRequest) -> AbstractBaseUser | EndReason | None:
    """
    Return the user who has to prove who they are: whoever is behind the session, also while the
    request is another user's. Return None if there is no such user, or the reason for which this
    has just ended the session, because a proof must not resume it.
    """
    session: Any = request.session
    locked: Locked | None = getattr(session, "locked", None)
    if locked is None:
        is_known = getattr(session, "handle", None) and request.user.is_authenticated
        return person_in(session, cast("AbstractBaseUser", request.user)) if is_known else None
    row = row_of_locked(locked)
    if row and (
        locked.reason != Lock.IDLE
        # By the user agents: the browser sends its client hints with some requests only.
        or device_of(row.user_agent).is_like(device_of(session.client.user_agent))
    ):
        return person_in(locked, cast("AbstractBaseUser", row.user))
    # NIST SP 800-63B-4 §2.2.3 lets a password resume a session on the same device. On another
    # device, the cookie is a copy: end the session.
    UserSession.objects.filter(pk=locked.handle).revoke(EndReason.IDLE)
    session.flush()
    return EndReason.IDLE


def note_proof(session: Any, person: AbstractBaseUser) -> None:
    """
    Note that this person has just given their password: that unlocks a locked session. Raises
    UpdateError if the session has ended meanwhile, and StoreUnavailable.
    """
    if session.locked:
        session.unlock()
    else:
        session.reauthenticate()
    if user_in(session) == key_of(person):
        # Checking the password may have upgraded its hash.
        session[HASH_SESSION_KEY] = person.get_session_auth_hash()


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
