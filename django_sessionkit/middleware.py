"""
The cookie in and out, what is known about the client, and what a visitor is told when a session
was ended or its store does not answer.
"""

import logging
import re
import time
from asyncio import shield
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import REDIRECT_FIELD_NAME, SESSION_KEY
from django.contrib.auth.views import redirect_to_login
from django.contrib.messages.storage import default_storage
from django.contrib.sessions import middleware
from django.contrib.sessions.backends.base import UpdateError
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
)
from django.shortcuts import resolve_url
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse
from django.utils.cache import add_never_cache_headers, patch_cache_control, patch_vary_headers
from django.utils.functional import cached_property
from django.utils.http import http_date, urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_sessionkit import registry
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.interruptions import Locked, Missing, NoAnswer, OverLimit
from django_sessionkit.models import EndReason
from django_sessionkit.visit.client import client_of, is_page
from django_sessionkit.visit.current import current_request

if TYPE_CHECKING:
    from django_sessionkit.backends.base import SessionStore

logger = logging.getLogger("django.security.SuspiciousSession")

# What Django's engines and this kit's have issued: 32 lower case letters and digits.
SESSION_KEY_PATTERN = re.compile(r"[a-z0-9]{32}", re.ASCII)
# Seconds after which a visitor may try again when the store did not answer.
RETRY_AFTER = 5

FAREWELLS: dict[str, Any] = {
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
LOCKS: dict[str, tuple[str, Any]] = {
    "idle": ("reauthenticate", gettext_lazy("This session is locked. Please confirm it is you.")),
    "moved": ("reauthenticate", gettext_lazy("This session is locked. Please confirm it is you.")),
    "limit": (
        "session_limit",
        gettext_lazy("You are signed in on too many devices. Please choose which to sign out."),
    ),
}
# Names of views that answer while a session is locked.
OPEN_VIEWS = {"reauthenticate", "session_limit", "logout", "jsi18n", "javascript-catalog"}


class SessionMiddleware(middleware.SessionMiddleware):
    """
    Use in place of Django's, at the same place in MIDDLEWARE.
    """

    def process_request(self, request: HttpRequest) -> None:
        session = request.session = cast(
            "SessionStore", self.SessionStore(self.read_cookie(request))
        )
        session.client = client_of(request, conf.SESSIONKIT_TRUSTED_PROXIES)
        session.background = is_background(request)
        current_request.set(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        session: Any = getattr(request, "session", None)
        interruption = getattr(session, "interruption", None)
        if isinstance(exception, UpdateError) and interruption:
            try:
                return self.interrupted(request)
            except StoreUnavailable as error:
                exception = error
        return self.unavailable(request) if isinstance(exception, StoreUnavailable) else None

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        try:
            if not isinstance(getattr(request, "session", None), self.SessionStore):
                return super().process_response(request, response)  # a view's or a test's own
            return self.respond(request, response)
        except StoreUnavailable:
            return self.unavailable(request)
        finally:
            current_request.set(None)

    def respond(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        session = cast("SessionStore", request.session)
        if isinstance(session.interruption, NoAnswer):
            # Whatever the view made of it, it did not know who was asking.
            return self.unavailable(request)
        if (session.modified or settings.SESSION_SAVE_EVERY_REQUEST) and session.session_key:
            session.ensure_loaded()  # else the save would be the first to miss it
        interruption = session.interruption
        if isinstance(interruption, Locked) and SESSION_KEY not in session:
            return self.locked(request, response)
        if isinstance(interruption, Missing) and SESSION_KEY not in session:
            row = session.call(registry.row_of_missing, interruption.digest)
            if row and is_farewell_due(request, response):
                response = self.signed_out(request, row.end_reason, response)
            elif not (row and is_sign_in_page(request)):
                # Without a row, a parallel request may just have given it a new key: to delete
                # the cookie could hit the new one. With one, the next page has to say why.
                self.leave_cookie(request)
        session.finish(answered=response.status_code < 500)
        try:
            return self.settle(request, response)
        except UpdateError:
            return self.not_saved(request)

    async def __acall__(self, request: HttpRequest) -> HttpResponse:
        """
        The same without a thread, which costs more than the session does, where nothing but a save
        is left to do.
        """
        if self.is_overridden:
            return cast("HttpResponse", await super().__acall__(request))
        self.process_request(request)
        response: HttpResponse = await self.get_response(request)  # type: ignore[misc]
        session: Any = getattr(request, "session", None)
        ours = isinstance(session, self.SessionStore)
        if not ours or settings.SESSION_SAVE_EVERY_REQUEST or not session.is_settled():
            return await sync_to_async(self.process_response)(request, response)
        try:
            if to_be_saved := is_to_be_saved(session, response):
                # A visitor who goes away cancels the request, but not half of what is written.
                await shield(session.asave())
            return self.finish_cookie(request, response, to_be_saved)
        except UpdateError:
            return await sync_to_async(self.not_saved)(request)
        except StoreUnavailable:
            return await sync_to_async(self.unavailable)(request)
        finally:
            current_request.set(None)

    @cached_property
    def is_overridden(self) -> bool:
        """Whether a site has a subclass that wants to be asked, and may block."""
        names = "process_request", "process_response", "respond", "settle"
        return any(getattr(type(self), name) != getattr(SessionMiddleware, name) for name in names)

    def settle(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        session = cast("SessionStore", request.session)
        if to_be_saved := is_to_be_saved(session, response):
            session.save()
        return self.finish_cookie(request, response, to_be_saved)

    def not_saved(self, request: HttpRequest) -> HttpResponse:
        """Answer for a session that was ended while the request was under way, and its cookie."""
        session = cast("SessionStore", request.session)
        try:
            response = self.interrupted(request)
            # What a visitor is told may be kept in the session that takes its place.
            locked = isinstance(session.interruption, Locked)
            return response if locked else self.settle(request, response)
        except StoreUnavailable:
            return self.unavailable(request)

    def leave_cookie(self, request: HttpRequest) -> None:
        """Keep the cookie of a session that is empty from being deleted."""
        request.COOKIES.pop(settings.SESSION_COOKIE_NAME, None)

    def read_cookie(self, request: HttpRequest) -> str | None:
        """
        Return the session key of the request, or None for a cookie that is not ours: malformed,
        or there with two values, so that nobody can tell which one the site has set.

        The header is read as it came (RFC 6265bis §5.6.3). Django's parser strips any Unicode
        white space around names and unquotes octal escapes, so that a page of a sibling domain can
        pass its own cookie off as one with the prefix __Host-.
        """
        name = settings.SESSION_COOKIE_NAME
        found: set[str] = set()
        for pair in request.META.get("HTTP_COOKIE", "").split(";"):
            key, _equals, value = pair.partition("=")
            if key.strip(" \t") == name:
                found.add(value.strip(" \t"))
        if len(found) > 1:
            self.leave_cookie(request)  # to delete one of them could hit the good one
            logger.warning("A request came with %d session cookies, and none was used", len(found))
            return None
        key = next(iter(found), "")
        return key if SESSION_KEY_PATTERN.fullmatch(key) else None

    def finish_cookie(
        self, request: HttpRequest, response: HttpResponse, saved: bool
    ) -> HttpResponse:
        """Give the visitor the cookie of what was saved, or slide it, or take it away."""
        session, name = cast("SessionStore", request.session), settings.SESSION_COOKIE_NAME
        slid = session.slid or session.has_new_key
        if session.is_empty():
            if name in request.COOKIES:
                response.delete_cookie(
                    name,
                    path=settings.SESSION_COOKIE_PATH,
                    domain=settings.SESSION_COOKIE_DOMAIN,
                    samesite=settings.SESSION_COOKIE_SAMESITE,
                )
        elif response.status_code < 500 and (slid or (saved and not session.has_good_cookie())):
            self.give_cookie(session, response, saved)
        cookie = response.cookies.get(name)
        if cookie or session.accessed:
            patch_vary_headers(response, ("Cookie",))
        if cookie:
            # ASVS 14.3.2: no cache on the way keeps a session key.
            patch_cache_control(response, no_store=True, private=True)
            if name.startswith(("__Http-", "__Host-Http-")):
                # A browser takes only such a deletion; Django's lacks what the prefix demands.
                cookie["httponly"] = cookie["secure"] = True
        return response

    def give_cookie(self, session: "SessionStore", response: HttpResponse, saved: bool) -> None:
        """Give the visitor the key, for as long as the session lives."""
        at_close = session.get_expire_at_browser_close()
        if at_close and not (session.has_new_key or saved):
            return  # one that the browser forgets needs no new date
        age = None if at_close else session.get_expiry_age()
        response.set_cookie(
            settings.SESSION_COOKIE_NAME,
            str(session.session_key),
            max_age=age,
            expires=None if age is None else http_date(time.time() + age),
            domain=settings.SESSION_COOKIE_DOMAIN,
            path=settings.SESSION_COOKIE_PATH,
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=settings.SESSION_COOKIE_HTTPONLY,
            samesite=settings.SESSION_COOKIE_SAMESITE,
        )

    # What a visitor is told.

    def interrupted(self, request: HttpRequest) -> HttpResponse:
        """Answer for a session that went away while the request was under way."""
        session = cast("SessionStore", request.session)
        interruption = session.interruption
        if isinstance(interruption, OverLimit):
            return self.refused(request, interruption.limit)
        if isinstance(interruption, Locked):
            return self.locked(request)
        digest = interruption.digest if isinstance(interruption, Missing) else ""
        row = session.call(registry.row_of_missing, digest)
        request.session = self.SessionStore()
        if row:
            return self.signed_out(request, row.end_reason)
        if session.is_known:
            # A concurrent request, signing in in another tab say, has given it a new key, and its
            # answer has the new cookie.
            self.leave_cookie(request)
        # Else it was overwritten unread, and would be again: to begin anew, the cookie has to go.
        if request.method in ("GET", "HEAD") and is_page(request):
            return HttpResponseRedirect(request.get_full_path())
        return answer(
            request,
            409,
            _("Please go back and try again"),
            _("You signed in or out in another tab meanwhile, so your session was not saved."),
        )

    def signed_out(
        self, request: HttpRequest, reason: str, instead_of: HttpResponse | None = None
    ) -> HttpResponse:
        """Answer for a session that was ended: the sign-in page, or 401 for an API's caller."""
        text = str(FAREWELLS.get(reason, FAREWELLS[EndReason.LOST]))
        url, wanted = sign_in_url(), str(getattr(instead_of, "url", ""))
        if not is_page(request):
            self.leave_cookie(request)  # a script of a page, say, which is to be told itself
            return answer(request, 401, _("Signed out"), text, reason=reason)
        if url is None:
            return answer(request, 401, _("Signed out"), text)
        if is_sign_in(wanted):  # the view knows its own sign-in page
            response = HttpResponseRedirect(wanted)
        elif request.method == "GET":
            elsewhere = urlsplit(url).netloc not in ("", request.get_host())
            back = request.build_absolute_uri() if elsewhere else request.get_full_path()
            response = redirect_to_login(back, url)
        else:
            response = HttpResponseRedirect(url)
        return self.redirect(request, response, text)

    def refused(self, request: HttpRequest, limit: int) -> HttpResponse:
        """Answer for a sign-in that the limit does not allow. What a visitor has is kept."""
        session: Any = self.SessionStore(request.session.session_key)
        request.session = session
        session.ensure_loaded()
        session.has_new_key = True  # its key may be new
        if isinstance(session.interruption, Missing):
            self.leave_cookie(request)
        text = ngettext(
            "You are already signed in on %(limit)d device, and more are not allowed. Sign out"
            " there first.",
            "You are already signed in on %(limit)d devices, and more are not allowed. Sign out"
            " on one of them first.",
            limit,
        ) % {"limit": limit}
        url = sign_in_url()
        if url is None or not is_page(request):
            return answer(request, 403, _("Not signed in"), text, reason=EndReason.LIMIT)
        return self.redirect(request, HttpResponseRedirect(url), text)

    def locked(self, request: HttpRequest, instead_of: HttpResponse | None = None) -> HttpResponse:
        """
        Answer for a session that waits to be unlocked: nothing but the page that does so does. It
        is not written meanwhile, and its cookie stays.
        """
        self.leave_cookie(request)
        lock = cast("Locked", cast("SessionStore", request.session).interruption)
        known = getattr(getattr(request, "user", None), "is_authenticated", False)
        if instead_of and (known or is_open_while_locked(request)):
            response = instead_of
        else:
            page, text = LOCKS[lock.reason]
            try:
                url = reverse(f"django_sessionkit:{page}")
            except NoReverseMatch:  # a site without our pages: signing in ends this one
                url = sign_in_url() or "/"
            # What was sent is not kept: back to the form. The page looks at where that leads.
            is_get = request.method in ("GET", "HEAD")
            back = request.get_full_path() if is_get else request.headers.get("Referer")
            if back:
                url = f"{url}?{urlencode({REDIRECT_FIELD_NAME: back})}"
            if is_page(request):
                response = HttpResponseRedirect(url)
                add_never_cache_headers(response)
            else:
                reason = "limit" if lock.reason == "limit" else "locked"
                response = answer(request, 401, _("Locked"), str(text), reason=reason, url=url)
        patch_vary_headers(response, ("Cookie",))
        return response

    def redirect(self, request: HttpRequest, response: HttpResponse, text: str) -> HttpResponse:
        """Let the page that follows say ``text``."""
        if hasattr(request, "_messages"):
            # MessageMiddleware has had its turn with the answer that this one replaces.
            storage = default_storage(request)
            storage.add(messages.WARNING, text)
            storage.update(response)
        add_never_cache_headers(response)
        return response

    def unavailable(self, request: HttpRequest) -> HttpResponse:
        """Answer for a store that did not. Nobody is logged out: the cookie is left alone."""
        response = answer(
            request,
            503,
            _("Please try again in a moment"),
            _("We cannot reach your session right now. You are still signed in."),
        )
        response.headers["Retry-After"] = str(RETRY_AFTER)
        return response


def is_to_be_saved(session: "SessionStore", response: HttpResponse) -> bool:
    """Tell what Django's middleware tells: what a view that failed has done is not kept."""
    wanted = session.modified or settings.SESSION_SAVE_EVERY_REQUEST
    return wanted and not session.is_empty() and response.status_code < 500


def is_farewell_due(request: HttpRequest, response: HttpResponse) -> bool:
    """
    Tell whether a visitor whose session was ended is told so instead of this answer: where the view
    has refused a stranger, and where it has only shown a page to one. What was done is not taken
    back, nor a redirect that has a secret in it; and who is known by other means is known.
    """
    refused = response.status_code in (401, 403) or is_sign_in(str(getattr(response, "url", "")))
    shown = request.method in ("GET", "HEAD") and response.status_code == 200
    known = getattr(getattr(request, "user", None), "is_authenticated", False)
    return (refused or shown) and not known and not is_sign_in_page(request)


def is_sign_in(url: str) -> bool:
    return f"{REDIRECT_FIELD_NAME}=" in url or (url != "" and url == sign_in_url())


def is_sign_in_page(request: HttpRequest) -> bool:
    # By its name, too: the admin has a page of its own.
    name = request.resolver_match and request.resolver_match.url_name
    return name == "login" or request.path == urlsplit(sign_in_url() or "").path


def sign_in_url() -> str | None:
    try:
        return resolve_url(settings.LOGIN_URL)
    except NoReverseMatch:
        return None


def is_open_while_locked(request: HttpRequest) -> bool:
    """Tell the pages that unlock a session, or lead to another one, from all others."""
    name = request.resolver_match and request.resolver_match.url_name
    if name in OPEN_VIEWS or is_sign_in_page(request):
        return True
    own = conf.SESSIONKIT_REAUTHENTICATION_URL
    path = urlsplit(resolve_url(own)).path.rstrip("/") if own else ""
    # With what is below it: it may take more than one page.
    return path != "" and f"{request.path}/".startswith(f"{path}/")


def is_background(request: HttpRequest) -> bool:
    """Tell whether a request says, or its path does, that nobody is there: ASVS 7.3.1."""
    headers = request.META  # request.headers goes through all of them, for every request
    return (
        "prefetch" in headers.get("HTTP_SEC_PURPOSE", "")
        or headers.get("HTTP_X_BACKGROUND_REQUEST") == "1"
        or request.path.startswith(tuple(conf.SESSIONKIT_BACKGROUND))
    )


def answer(request: HttpRequest, status: int, title: str, text: str, **more: str) -> HttpResponse:
    """Return a page, or JSON for an API's caller. It is made without the request's session."""
    response: HttpResponse
    if is_page(request):
        context = {"title": title, "text": text}
        page = render_to_string("django_sessionkit/answer.html", context)
        response = HttpResponse(page, status=status)
    else:
        response = JsonResponse({"detail": text, **more}, status=status)
    add_never_cache_headers(response)
    return response
