"""
What a visitor is told when something comes between a request and its session: why they were signed
out, that the session is locked, that the store does not answer.

A view's answer stands, unless it has refused a stranger. Then a page is redirected, to where the
visitor can do something about it. A script is told by a header, and gets JSON where the view would
have sent it to a page.
"""

from contextlib import suppress
from datetime import timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urljoin, urlsplit

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import REDIRECT_FIELD_NAME, SESSION_KEY
from django.contrib.messages.storage import default_storage
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_sessionkit import registry, tallies
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.farewells import FAREWELLS, farewell_of, level_of
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.problems import NAMESPACE, tells_problems
from django_sessionkit.refusals import (
    is_known,
    is_open_while_locked,
    is_redirect,
    redirects_somewhere,
    refuses,
)
from django_sessionkit.telling import Notice, in_place_of, leave_messages, tell
from django_sessionkit.visit import cookies
from django_sessionkit.visit.client import SAFE_METHODS, is_of_app, is_of_browser, is_page
from django_sessionkit.visit.interruptions import (
    Lock,
    Locked,
    Missing,
    NoAnswer,
    OverLimit,
    Unopened,
)
from django_sessionkit.visit.redirects import local_url, sign_in_url, way_back, with_way_back

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise

# Seconds after which a visitor may try again when the store did not answer.
RETRY_AFTER = 5
# For this long after a sign-in or sign-out has ended a session, its browser may have got the cookie
# of the next one, which a late answer must not delete. Whoever signs in afresh, instead of
# unlocking a session, signs out of that session.
JUST_NOW = timedelta(minutes=1)
BY_A_SIGN_IN = (EndReason.REPLACED, EndReason.LOGOUT)

# The headers that tell a script why it is a stranger: an EndReason, or a Lock.
ENDED, LOCKED = "Session-Ended", "Session-Locked"
# What a session is locked for: the page that unlocks it, and what a script is told.
LOCKS: dict[Lock, tuple[str, "_StrPromise"]] = {
    Lock.IDLE: (
        "reauthenticate",
        gettext_lazy("This session is locked. Please confirm it is you."),
    ),
    Lock.MOVED: (
        "reauthenticate",
        gettext_lazy("This session is locked. Please confirm it is you."),
    ),
    Lock.LIMIT: (
        "session_limit",
        gettext_lazy("You are signed in on too many devices. Please choose which to sign out."),
    ),
}

# What to tell.


def is_locked_out(session: Any) -> bool:
    """Tell whether the session is locked, and nobody has signed in instead."""
    return isinstance(session.interruption, Locked) and SESSION_KEY not in session


def accompany(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """
    Tell a visitor whose session has ended, or is locked, along with the view's answer. Another
    answer takes its place only where the view has refused a stranger.

    Raises StoreUnavailable if a view has refused somebody, and nobody can say why.
    """
    session: Any = request.session
    interruption = session.interruption
    if is_locked_out(session):
        return _accompany_locked(request, response, interruption)
    if isinstance(interruption, Missing) and SESSION_KEY not in session:
        return _accompany_missing(request, response, interruption)
    return response


def interrupted(request: HttpRequest, response: HttpResponse | None = None) -> HttpResponse:
    """
    Answer for a session that went away while the request was under way, and could not be written.
    ``response`` is what the view has answered; without one, it has raised an exception. Raises
    StoreUnavailable.
    """
    session: Any = request.session
    row = None
    match session.interruption:
        case OverLimit(limit):
            tallies.count_request(tallies.REFUSED)
            return _refuse(request, limit)
        case Locked() as lock:
            return lead_to_unlock(request, lock)
        case NoAnswer():
            return unavailable(request)
        case Missing(digest):
            row = session.call(registry.row_of_missing, digest)
    request.session = type(session)()
    if row:
        return _tell_of_end(request, response, row)
    if (session.is_new or session.is_rolled_back) and response is not None:
        # The transaction of the view was rolled back, and its new session or key with that.
        with suppress(AttributeError):  # a site has another beginning
            cast("Any", request).sessionkit.browser = None  # nobody has signed in with it
        cookies.spare(request)
        cookies.vary_by_visitor(request, response)
        return response
    if session.is_known or isinstance(session.interruption, Unopened):
        # A parallel request, a sign-in in another tab say, has given the session a new key, and its
        # answer has the new cookie.
        cookies.spare(request)
    elif response is not None:
        # The view has replaced a session without reading it that was not there any more, and would
        # do so on every request with this cookie: what it has written goes into a new one.
        request.session.update(session.items())
        return response
    can_go_on = session.is_known and request.method in ("GET", "HEAD")
    again = request.get_full_path() if can_go_on else None
    title = _("Please go back and try again")
    text = _("You signed in or out in another tab meanwhile, so what you did here was not saved.")
    return tell(request, Notice(409, title, text, again, may_try_again=True, code="conflict"))


def unavailable(request: HttpRequest) -> HttpResponse:
    """Answer for a store that did not. Nobody is signed out: the cookie is left alone."""
    title = _("Please try again in a moment")
    text = _("We cannot look up your sign-in right now. You are still signed in.")
    notice = Notice(503, title, text, may_try_again=True, code="store_unavailable")
    response = tell(request, notice)
    response.headers["Retry-After"] = str(RETRY_AFTER)
    return response


def ask_for_room(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """
    Lead somebody who has just signed in, and has to choose first which device to sign out, to the
    page for that, if the view redirects them. The page that they were to get would take them for a
    stranger, and need not say why. A script gets the view's answer, and a header tells it.
    """
    session: Any = request.session
    if not is_page(request):
        response.headers[LOCKED] = Lock.LIMIT.value
    elif is_redirect(response):
        to = urljoin(request.get_full_path(), response.headers["Location"])
        notice = _notice_of_lock(Lock.LIMIT, session.waits_for_room, local_url(request, to))
        response = in_place_of(request, response, tell(request, notice))
    return response


# Sessions that have ended.


def _accompany_missing(
    request: HttpRequest, response: HttpResponse, missing: Missing
) -> HttpResponse:
    session: Any = request.session
    try:
        row = session.call(registry.row_of_missing, missing.digest)
    except StoreUnavailable:
        if refuses(request, response):
            raise
        row = None  # the next request is told
    if row is None:
        # A parallel request may just have given the session a new key: to delete the cookie could
        # hit the new one.
        cookies.spare(request)
        return response
    return _tell_of_end(request, response, row)


def _tell_of_end(
    request: HttpRequest, response: HttpResponse | None, row: UserSession
) -> HttpResponse:
    """Tell why the session of this row has ended, along with the answer, if there is one."""
    reason = row.end_reason or str(EndReason.LOST)
    # A script that learns the reason from the header needs no more.
    farewell = cache(partial(farewell_of, request, row))
    refused = response is None or refuses(request, response)
    if stays := _may_have_new_cookie(row):
        cookies.spare(request)
    if is_page(request):
        # While the cookie stays, the same request would be refused, and redirected, again.
        if response is None or (refused and not (stays or redirects_somewhere(response))):
            answer = tell(request, _notice_of_end(request, reason, farewell()))
            return answer if response is None else in_place_of(request, response, answer)
    else:
        # A client that does not say what it accepts is a test's: that gets the redirect it expects.
        accepts = bool(request.META.get("HTTP_ACCEPT") or is_of_app(request))
        if response is None or (refused and _says_nothing(request, response, accepts)):
            more = {"reason": reason}
            notice = Notice(401, _("Signed out"), farewell(), extra=more, code="ended")
            answer = tell(request, notice)
            response = answer if response is None else in_place_of(request, response, answer)
        response.headers[ENDED] = reason
    # A script of a page takes the dead cookie away from that page, which would hear of nothing.
    if is_of_browser(request) and (refused or not stays):
        leave_messages(request, response, (level_of(reason), farewell(), ""))
    cookies.keep_from_caches(request, response)
    return response


def _may_have_new_cookie(row: UserSession) -> bool:
    """Tell whether a parallel request may just have given this browser another session."""
    if row.end_reason not in BY_A_SIGN_IN or row.ended_at is None:
        return False
    return timezone.now() - row.ended_at < JUST_NOW


def _notice_of_end(request: HttpRequest, reason: str, text: str) -> Notice:
    to = sign_in_url()
    if to is not None and request.method in ("GET", "HEAD"):
        # Another host learns no more than the path: the query may hold a secret.
        is_ours = urlsplit(to).netloc in ("", request.get_host())
        back = request.get_full_path() if is_ours else request.path
        to = with_way_back(request, to, back).url
    return Notice(401, _("Signed out"), text, to, True, level=level_of(reason))


# Sessions that are locked, and sign-ins that are over the limit.


def _accompany_locked(request: HttpRequest, response: HttpResponse, lock: Locked) -> HttpResponse:
    if not is_open_while_locked(request):
        if _is_lost(request, response):
            return lead_to_unlock(request, lock)
        if refuses(request, response) and (is_page(request) or _says_nothing(request, response)):
            return in_place_of(request, response, lead_to_unlock(request, lock))
    if is_page(request):
        patch_vary_headers(response, ("Cookie",))
    else:
        response.headers[LOCKED] = lock.reason.value
        cookies.keep_from_caches(request, response)
    return response


def _is_lost(request: HttpRequest, response: HttpResponse) -> bool:
    """
    Tell whether the visitor has sent something that was to be kept in the session. Nobody misses
    what a request that only asks for something leaves there, such as the page last looked at.
    """
    if request.method in SAFE_METHODS or is_known(request):
        return False
    return request.session.modified and response.status_code < 500


def lead_to_unlock(request: HttpRequest, lock: Locked) -> HttpResponse:
    """Send a page to the URL that unlocks the session; give a script that URL as JSON."""
    # A form that was sent is not kept: back to its page. The page that unlocks looks where that is.
    is_get = request.method in ("GET", "HEAD")
    back = request.get_full_path() if is_get else request.headers.get("Referer")
    if tells_problems(request):
        notice = _problem_of_lock(lock.reason)
    else:
        notice = _notice_of_lock(lock.reason, lock.limit, back)
    response = tell(request, notice)
    if not is_page(request):
        response.headers[LOCKED] = lock.reason.value
    return response


def _notice_of_lock(lock: Lock, limit: int | None, back: str | None) -> Notice:
    page, text = LOCKS[lock]
    reason = "limit" if lock == Lock.LIMIT else "locked"
    url: str | None
    try:
        url = reverse(f"django_sessionkit:{page}")
    except NoReverseMatch:  # a site without our pages
        if limit is not None:  # to sign in once more would make no room
            return Notice(403, _("Not signed in"), _over_limit(limit), extra={"reason": reason})
        url = sign_in_url()  # signing in ends the locked session
    if url is None:
        return Notice(401, _("Locked"), str(text), extra={"reason": reason})
    if back and (back := way_back(back)):
        url = f"{url}?{urlencode({REDIRECT_FIELD_NAME: back})}"
    return Notice(401, _("Locked"), str(text), url, extra={"reason": reason, "url": url})


def _problem_of_lock(lock: Lock) -> Notice:
    page, text = LOCKS[lock]
    more = {"reason": lock.value, "url": reverse(f"{NAMESPACE}:{page}")}
    return Notice(401, _("Locked"), str(text), extra=more, code="locked")


def _refuse(request: HttpRequest, limit: int) -> HttpResponse:
    """Answer for a sign-in that the limit does not allow. The session that there was is kept."""
    before: Any = request.session
    if before.is_beside:
        cookies.spare(request)
    session = type(before)(None if before.is_beside else before.kept_key)
    request.session = session
    session.ensure_loaded()
    # Send the cookie again: another request may have changed the key meanwhile.
    session.has_new_key = not before.withholds_key
    if isinstance(session.interruption, Missing):
        cookies.spare(request)
    # Without messages, the sign-in page would come again and again without a word. And one that
    # asks for nothing, because another site knows the visitor, would try again and again.
    to = None
    if hasattr(request, "_messages"):
        to = None if request.method in SAFE_METHODS else sign_in_url()
        # What the view has said of its sign-in is not so.
        request._messages = default_storage(request)
    more = {"reason": str(EndReason.LIMIT)}
    title, text = _("Not signed in"), _over_limit(limit)
    notice = Notice(403, title, text, to, True, more, may_try_again=True, code="limit")
    return tell(request, notice)


def _over_limit(limit: int) -> str:
    return ngettext(
        "You are already signed in on %(limit)d device, and more are not allowed. Sign out"
        " there first.",
        "You are already signed in on %(limit)d devices, and more are not allowed. Sign out"
        " on one of them first.",
        limit,
    ) % {"limit": limit}


def _says_nothing(request: HttpRequest, response: HttpResponse, accepts: bool = True) -> bool:
    """
    Tell whether a script that was refused gets an answer of ours in place of the view's: of a
    redirect to a page, and of a problem that only says that nobody is signed in.
    """
    if tells_problems(request):
        return response.status_code == 401
    return accepts and is_redirect(response)


# What somebody gets who signs out.


def say_signed_out(request: HttpRequest) -> None:
    messages.success(request, str(FAREWELLS[EndReason.LOGOUT]), fail_silently=True)


def signed_out(request: HttpRequest) -> HttpResponse:
    """Return what somebody gets who has signed out on one of these pages."""
    if url := settings.LOGOUT_REDIRECT_URL or sign_in_url():
        say_signed_out(request)
        return redirect(url)
    text = str(FAREWELLS[EndReason.LOGOUT])
    return tell(request, Notice(200, _("Signed out"), text))
