"""
What a visitor is told when something comes between a request and its session: why they were signed
out, that the session is locked, that the store does not answer. A page is redirected or gets a
page, a script gets JSON.
"""

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from django.contrib import messages
from django.contrib.auth import REDIRECT_FIELD_NAME, SESSION_KEY
from django.contrib.messages.storage import default_storage
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
    QueryDict,
)
from django.shortcuts import resolve_url
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, Resolver404, resolve, reverse
from django.utils.cache import add_never_cache_headers, patch_vary_headers
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_sessionkit import registry
from django_sessionkit.conf import conf
from django_sessionkit.models import EndReason
from django_sessionkit.visit import cookies
from django_sessionkit.visit.client import is_page
from django_sessionkit.visit.interruptions import Lock, Locked, Missing, NoAnswer, OverLimit
from django_sessionkit.visit.redirects import (
    leads_somewhere,
    login_url,
    path_of,
    sign_in_url,
    way_back,
    with_way_back,
)

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise

# Seconds after which a visitor may try again when the store did not answer.
RETRY_AFTER = 5

# What a visitor reads whose session has ended, by the reason.
FAREWELLS: dict[str, "_StrPromise"] = {
    EndReason.LOGOUT: gettext_lazy("You have signed out."),
    EndReason.REVOKED: gettext_lazy(
        "You were signed out: this session was ended from another device."
    ),
    EndReason.REVOKED_BY_STAFF: gettext_lazy("You were signed out by the staff of this site."),
    EndReason.IDLE: gettext_lazy("You were signed out because you were inactive for a while."),
    EndReason.EXPIRED: gettext_lazy("Your session has expired."),
    EndReason.LIMIT: gettext_lazy("You were signed out because you signed in on too many devices."),
    EndReason.PASSWORD_CHANGE: gettext_lazy(
        "You were signed out because your password was changed."
    ),
    EndReason.ACCOUNT_DISABLED: gettext_lazy(
        "You were signed out because your account was disabled."
    ),
    EndReason.REPLACED: gettext_lazy("You were signed out because another account signed in here."),
    EndReason.LOST: gettext_lazy("You were signed out."),
    EndReason.REUSED: gettext_lazy(
        "You were signed out because an old copy of this session was used. If that was not you,"
        " change your password."
    ),
    EndReason.MOVED: gettext_lazy(
        "You were signed out because this session was used with another browser or network."
    ),
    EndReason.PRIVILEGE_CHANGE: gettext_lazy(
        "You were signed out because what you may do here was changed."
    ),
}

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
# Names of views that answer while a session is locked.
OPEN_VIEWS = {"reauthenticate", "session_limit", "logout", "jsi18n", "javascript-catalog"}


class Notice(NamedTuple):
    """What a visitor is told."""

    status: int
    title: str
    text: str
    # Where a page is redirected to, in place of this status. None: a page says the text itself.
    to: str | None = None
    says_next: bool = False  # the page that follows says the text
    extra: dict[str, str] = {}  # what a script is told besides


# What to tell.


def is_locked_out(session: Any) -> bool:
    """Tell whether the session is locked, and nobody has signed in instead."""
    return isinstance(session.interruption, Locked) and SESSION_KEY not in session


def instead_of(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Return what the visitor is told instead of the view's answer, or that answer."""
    session: Any = request.session
    interruption = session.interruption
    if is_locked_out(session):
        if not (_is_known(request) or _is_open_while_locked(request)):
            return _tell_of_lock(request, interruption)
        # Such a session is not written, and its cookie stays.
        cookies.spare(request)
        patch_vary_headers(response, ("Cookie",))
    elif isinstance(interruption, Missing) and SESSION_KEY not in session:
        row = session.call(registry.row_of_missing, interruption.digest)
        if row and _is_farewell_due(request, response):
            farewell = tell(request, _signed_out(request, row.end_reason, response))
            # What the view has set is not ours to drop: the state of a sign-in elsewhere, say.
            for name, cookie in response.cookies.items():
                farewell.cookies.setdefault(name, cookie)
            return farewell
        if not (row and _is_sign_in_page(request)):
            # Without a row, a parallel request may just have given the session a new key: to delete
            # the cookie could hit the new one. With a row, the next page has to say why.
            cookies.spare(request)
    return response


def interrupted(request: HttpRequest) -> HttpResponse:
    """Answer for a session that went away while the request was under way, and could not be
    written. Raises StoreUnavailable."""
    session: Any = request.session
    row = None
    match session.interruption:
        case OverLimit(limit):
            return _refuse(request, limit)
        case Locked() as lock:
            return _tell_of_lock(request, lock)
        case NoAnswer():
            return unavailable(request)
        case Missing(digest):
            row = session.call(registry.row_of_missing, digest)
    request.session = type(session)()
    if row:
        return tell(request, _signed_out(request, row.end_reason))
    if session.is_known:
        # A parallel request, a sign-in in another tab say, has given the session a new key, and its
        # answer has the new cookie.
        cookies.spare(request)
    # Otherwise the view replaced the session without reading it, and would do so on every request
    # with this cookie: delete the cookie.
    again = request.get_full_path() if request.method in ("GET", "HEAD") else None
    text = _("You signed in or out in another tab meanwhile, so your session was not saved.")
    return tell(request, Notice(409, _("Please go back and try again"), text, to=again))


def not_saved(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """
    Answer for a session that could not be saved when its view had answered. Raises
    StoreUnavailable.
    """
    session: Any = request.session
    if session.is_new and isinstance(session.interruption, Missing):
        row = session.call(registry.row_of_missing, session.interruption.digest)
        if row is None:
            # The transaction of the view was rolled back, and its new session with that.
            request.session = type(session)()
            cookies.spare(request)
            return response
    return interrupted(request)


def unavailable(request: HttpRequest) -> HttpResponse:
    """Answer for a store that did not. Nobody is signed out: the cookie is left alone."""
    title = _("Please try again in a moment")
    text = _("We cannot reach your session right now. You are still signed in.")
    response = tell(request, Notice(503, title, text))
    response.headers["Retry-After"] = str(RETRY_AFTER)
    return response


def _signed_out(
    request: HttpRequest, reason: str, instead_of: HttpResponse | None = None
) -> Notice:
    text = str(FAREWELLS.get(reason, FAREWELLS[EndReason.LOST]))
    to, wanted = sign_in_url(), str(getattr(instead_of, "url", ""))
    says_next = to is not None
    if _is_sign_in(request, wanted):  # the view knows its own sign-in page
        to = wanted if leads_somewhere(wanted) else to
        says_next = to is not None
    elif to is not None and request.method == "GET":
        # Another host learns no more than the path: the query may hold a secret.
        is_ours = urlsplit(to).netloc in ("", request.get_host())
        back = request.get_full_path() if is_ours else request.path
        to = with_way_back(request, to, back).url
    return Notice(401, _("Signed out"), text, to, says_next, {"reason": reason})


def _refuse(request: HttpRequest, limit: int) -> HttpResponse:
    """Answer for a sign-in that the limit does not allow. The session that there was is kept."""
    before: Any = request.session
    session = type(before)(before.session_key)
    request.session = session
    session.ensure_loaded()
    # Send the cookie again: another request may have changed the key meanwhile.
    session.has_new_key = not before.withholds_key
    if isinstance(session.interruption, Missing):
        cookies.spare(request)
    text = ngettext(
        "You are already signed in on %(limit)d device, and more are not allowed. Sign out"
        " there first.",
        "You are already signed in on %(limit)d devices, and more are not allowed. Sign out"
        " on one of them first.",
        limit,
    ) % {"limit": limit}
    more = {"reason": str(EndReason.LIMIT)}
    return tell(request, Notice(403, _("Not signed in"), text, sign_in_url(), True, more))


def _tell_of_lock(request: HttpRequest, lock: Locked) -> HttpResponse:
    """Send a page to the URL that unlocks the session; give a script that URL as JSON."""
    cookies.spare(request)
    page, text = LOCKS[lock.reason]
    try:
        url = reverse(f"django_sessionkit:{page}")
    except NoReverseMatch:  # a site without our pages: signing in ends the locked session
        url = sign_in_url() or "/"
    # A form that was sent is not kept: back to its page. The page that unlocks looks where that is.
    is_get = request.method in ("GET", "HEAD")
    back = request.get_full_path() if is_get else request.headers.get("Referer")
    if back and (back := way_back(back)):
        url = f"{url}?{urlencode({REDIRECT_FIELD_NAME: back})}"
    reason = "limit" if lock.reason == Lock.LIMIT else "locked"
    more = {"reason": reason, "url": url}
    response = tell(request, Notice(401, _("Locked"), str(text), url, extra=more))
    patch_vary_headers(response, ("Cookie",))
    return response


def _is_farewell_due(request: HttpRequest, response: HttpResponse) -> bool:
    """
    Tell whether a notice takes the place of this answer: of a refusal (401, 403, a redirect to the
    sign-in page) and of a page that was only shown (GET, 200). Other answers stay: a POST took
    effect, and a redirect may hold a secret. So does the answer to a user who is signed in by other
    means.
    """
    to = str(getattr(response, "url", ""))
    refused = response.status_code in (401, 403) or _is_sign_in(request, to)
    shown = request.method in ("GET", "HEAD") and response.status_code == 200
    return (refused or shown) and not _is_known(request) and not _is_sign_in_page(request)


def _is_known(request: HttpRequest) -> bool:
    return bool(getattr(getattr(request, "user", None), "is_authenticated", False))


def _is_sign_in(request: HttpRequest, url: str) -> bool:
    """
    Tell whether a redirect leads to a sign-in page: that of LOGIN_URL, one that is named "login",
    as the admin's is, or any page that is to lead back to where the visitor is.
    """
    if not url:
        return False
    host, parts, own = request.get_host(), urlsplit(url), login_url()
    there = (parts.netloc or host, path_of(url))
    if own is not None and there == (urlsplit(own).netloc or host, path_of(own)):
        return True
    back = QueryDict(parts.query).get(REDIRECT_FIELD_NAME, "")
    here = request.get_full_path()
    if back in (here, request.build_absolute_uri(here)):
        return True
    try:
        return (parts.netloc or host) == host and resolve(path_of(url)).url_name == "login"
    except Resolver404:
        return False


def _is_sign_in_page(request: HttpRequest) -> bool:
    # By its name, too: the admin has a page of its own.
    name = request.resolver_match and request.resolver_match.url_name
    return name == "login" or request.path == path_of(sign_in_url() or "")


def _is_open_while_locked(request: HttpRequest) -> bool:
    """Tell the pages that unlock a session, or lead to another one, from all others."""
    name = request.resolver_match and request.resolver_match.url_name
    if name in OPEN_VIEWS or _is_sign_in_page(request):
        return True
    own = conf.SESSIONKIT_REAUTHENTICATION_URL
    path = path_of(resolve_url(own)).rstrip("/") if own else ""
    # With what is below it: the site's own way to prove an identity may take more than one page.
    return path != "" and f"{request.path}/".startswith(f"{path}/")


# How to tell it.


def tell(request: HttpRequest, notice: Notice) -> HttpResponse:
    """Return the answer: a redirect or a page for a person, JSON for a script."""
    response: HttpResponse
    if not is_page(request):
        if notice.status == 401:
            cookies.spare(request)  # a page that the script belongs to is to be told itself
        answer = {"detail": notice.text, **notice.extra}
        response = JsonResponse(answer, status=notice.status)
    elif notice.to is not None:
        response = HttpResponseRedirect(notice.to)
        if notice.says_next:
            _say_on_next_page(request, response, notice.text)
    else:
        # Without the request, whose session a context processor would read.
        context = {"title": notice.title, "text": notice.text}
        page = render_to_string("django_sessionkit/answer.html", context)
        response = HttpResponse(page, status=notice.status)
    add_never_cache_headers(response)
    return response


def _say_on_next_page(request: HttpRequest, response: HttpResponse, text: str) -> None:
    if hasattr(request, "_messages"):
        # MessageMiddleware has had its turn with the answer that this one replaces.
        storage = default_storage(request)
        storage.add(messages.WARNING, text)
        storage.update(response)
