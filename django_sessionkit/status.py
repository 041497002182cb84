"""
What a page asks about its session: for how much longer it goes on, or why it does not. The script
of the template tag ``session_script`` asks, and people may write a script of their own.
"""

from typing import Any

from django.contrib.auth import SESSION_KEY
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.urls import reverse
from django.utils import timezone, translation
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_http_methods

from django_sessionkit import answers
from django_sessionkit.conf import conf
from django_sessionkit.farewells import FAREWELLS, farewell_of
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.visit import cookies
from django_sessionkit.visit.interruptions import Lock, Locked, Missing, Unopened
from django_sessionkit.visit.redirects import sign_in_url


@login_not_required
@require_http_methods(["GET", "HEAD", "POST"])
@csrf_protect
def session_status(request: HttpRequest) -> HttpResponse:
    """
    GET: answer with JSON, and do not count as activity. POST: count as activity, which keeps the
    session from going idle; the answer is empty. Neither takes the cookie of an ended session away,
    or says the farewell that the next page says: a page that asks in the background must not hear
    of it in place of its reader.

    Raises StoreUnavailable.
    """
    session: Any = request.session
    response: HttpResponse
    if request.method == "POST":
        session.get("")  # a session that nobody reads is not used
        response = HttpResponse(status=204)
    else:
        session.background = True
        session.get("")
        if isinstance(getattr(session, "interruption", None), Unopened):
            return answers.unavailable(request)  # another server may know the visitor
        with translation.override(_language(request)):
            response = JsonResponse(_status(request))
    if _missing(session):
        cookies.spare(request)
        request.session = type(session)()
    cookies.keep_from_caches(request, response)
    return response


def _language(request: HttpRequest) -> str | None:
    """Return the language of the page that asks, which its URL may have chosen."""
    try:
        return translation.get_supported_language_variant(request.GET.get("language", ""))
    except LookupError:
        return translation.get_language()


def _missing(session: Any) -> Missing | None:
    """Return why the session of a cookie is not there, unless somebody has signed in instead."""
    interruption = getattr(session, "interruption", None)
    is_missing = isinstance(interruption, Missing) and SESSION_KEY not in session
    return interruption if is_missing else None


def _status(request: HttpRequest) -> dict[str, Any]:
    session: Any = request.session
    if SESSION_KEY in session:
        return {**status_of(session), "csrf": get_token(request)}
    interruption = getattr(session, "interruption", None)
    if isinstance(interruption, Locked):
        return _locked(interruption)
    if row := _row_of_ended(_missing(session)):
        return _gone("ended", row.end_reason, farewell_of(request, row))
    return _gone("anonymous")


def status_of(session: Any) -> dict[str, Any]:
    """
    Return what there is to say of a session that is signed in. Times are seconds from now: the
    clocks of browsers are wrong. ``reason`` and ``detail`` are those of its end if it goes idle.
    """
    handle, left = getattr(session, "handle", None), getattr(session, "time_left", None)
    reason, detail = EndReason.EXPIRED.value, FAREWELLS[EndReason.EXPIRED]
    if left and left.is_idle:
        reason, detail = EndReason.IDLE.value, FAREWELLS[EndReason.IDLE]
    if left and left.locks:
        reason, detail = "locked", answers.LOCKS[Lock.IDLE][1]
    return {
        "state": "active",
        "expires_in": left and _whole(left.expires_in),
        "idle_in": left and _whole(left.idle_in),
        "idle_after": left and left.idle_after,
        "every": left.every if left else conf.SESSIONKIT_TOUCH_INTERVAL,
        "reason": reason,
        "detail": str(detail),
        "user": str(session[SESSION_KEY]),
        "url": reverse("django_sessionkit:reauthenticate"),
        "sign_out": handle and reverse("django_sessionkit:session_end", args=[handle]),
    }


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def _locked(locked: Locked) -> dict[str, Any]:
    page, detail = answers.LOCKS[locked.reason]
    return {
        "state": "locked",
        "reason": locked.reason.value,
        "detail": str(detail),
        "url": reverse(f"django_sessionkit:{page}"),
    }


def _gone(state: str, reason: str = "", detail: str = "") -> dict[str, Any]:
    return {"state": state, "reason": reason, "detail": detail, "url": sign_in_url()}


def _row_of_ended(missing: Missing | None) -> UserSession | None:
    """
    Return the row of a session that has ended, as far as the row says. Unlike the next page, this
    marks nothing: whether the store has lost the session is not for a request in the background to
    say.
    """
    row = missing and UserSession.objects.primary().filter(digest=missing.digest).first()
    if row is None or (row.ended_at is None and row.expires_at > timezone.now()):
        return None
    row.end_reason = row.end_reason or row.expiry_reason.value
    return row
