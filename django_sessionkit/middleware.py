"""A request gets its session and, with the answer, its cookie; an interrupted one gets told."""

from asyncio import shield
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions import middleware
from django.contrib.sessions.backends.base import UpdateError
from django.http import HttpRequest, HttpResponse
from django.utils.functional import cached_property

from django_sessionkit import answers, tallies
from django_sessionkit.adoption import may_be_signed
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.storage import Storage
from django_sessionkit.visit import bearer, browsers, cookies
from django_sessionkit.visit.client import (
    SAFE_METHODS,
    UNKNOWN_APP,
    Visit,
    client_of,
    is_of_app,
)
from django_sessionkit.visit.current import current_request, loaded_session, visit_of
from django_sessionkit.visit.interruptions import Locked, NoAnswer, Unopened


class SessionMiddleware(middleware.SessionMiddleware):
    """
    Use this in place of Django's, at the same place in MIDDLEWARE. With an engine that is not ours,
    it does what Django's does.
    """

    def process_request(self, request: HttpRequest) -> None:
        if not self.is_our_engine:
            super().process_request(request)
            return
        app = UNKNOWN_APP if bearer.is_in(request) else None
        # No variable holds the key: error reports show variables.
        session: Any = self.SessionStore(
            bearer.read(request) or cookies.read(request, may_be_signed)
        )
        request.session = session
        session.client = client_of(request, conf.SESSIONKIT_TRUSTED_PROXIES)
        session.background = is_background(request)
        visit = Visit(session.client, session.background, app)
        request.sessionkit = visit  # type: ignore[attr-defined]
        if app is not None:
            bearer.spare_csrf(request)
        current_request.set(request)
        loaded_session.set(None)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        session: Any = getattr(request, "session", None)
        if isinstance(exception, UpdateError) and getattr(session, "interruption", None):
            try:
                return answers.interrupted(request)
            except StoreUnavailable as error:
                exception = error
        return answers.unavailable(request) if isinstance(exception, StoreUnavailable) else None

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        if not self.is_our_engine:
            return super().process_response(request, response)
        if is_of_app(request):
            bearer.drop_csrf_cookie(response)
        try:
            touch_others(request)
            if not isinstance(getattr(request, "session", None), self.SessionStore):
                return super().process_response(request, response)  # a view's or a test's own
            session: Any = request.session
            response = self.respond(request, response)
            if isinstance(session.interruption, Unopened):
                tallies.count_request(tallies.UNOPENED)
            return response
        except StoreUnavailable:
            return answers.unavailable(request)
        finally:
            current_request.set(None)

    def respond(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        session: Any = request.session
        if session.client is None and (visit := visit_of(session)):
            session.join(visit)
        if not is_settled(session):
            if isinstance(session.interruption, NoAnswer):
                # Whatever the view made of that, it did not know who was asking.
                return answers.unavailable(request)
            if (session.modified or settings.SESSION_SAVE_EVERY_REQUEST) and session.session_key:
                session.ensure_loaded()  # otherwise the save would be the first to miss it
            response = answers.accompany(request, response)
            if answers.is_locked_out(session):
                return response  # such a session is not written, and its cookie stays
            session.finish(answered=response.status_code < 500)
        try:
            return self.save(request, response)
        except UpdateError:
            return self.not_saved(request, response)

    async def __acall__(self, request: HttpRequest) -> HttpResponse:
        """
        Do the same without a thread, which costs more than the session does, where nothing but a
        save is left to do.
        """
        if self.is_overridden or not self.is_our_engine:
            return cast("HttpResponse", await super().__acall__(request))
        self.process_request(request)
        response: HttpResponse = await self.get_response(request)  # type: ignore[misc]
        session: Any = getattr(request, "session", None)
        if not (isinstance(session, self.SessionStore) and is_settled(session, request)):
            return await sync_to_async(self.process_response)(request, response)
        try:
            if saved := is_to_be_saved(request, response):
                # A visitor who goes away cancels the request, but not half of what is written.
                await shield(session.asave())
            if cast("Any", session).waits_for_room:
                response = await sync_to_async(answers.ask_for_room)(request, response)
            give_key(request, response, saved)
            return response
        except UpdateError:
            return await sync_to_async(self.not_saved)(request, response)
        except StoreUnavailable:
            return await sync_to_async(answers.unavailable)(request)
        finally:
            current_request.set(None)

    @cached_property
    def is_our_engine(self) -> bool:
        """Whether SESSION_ENGINE is one of this kit, or made of one. See sessionkit.E002."""
        return issubclass(self.SessionStore, Storage)

    @cached_property
    def is_overridden(self) -> bool:
        """Whether a site has a subclass that wants to be asked, and may block."""
        names = "process_request", "process_response", "respond", "save"
        return any(getattr(type(self), name) != getattr(SessionMiddleware, name) for name in names)

    def save(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        session: Any = request.session
        if saved := is_to_be_saved(request, response):
            session.save()
        if session.waits_for_room:
            response = answers.ask_for_room(request, response)
        give_key(request, response, saved)
        return response

    def not_saved(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Answer for a session that was ended while the request was under way, and its cookie."""
        session: Any = request.session
        try:
            response = answers.interrupted(request, response)
            if isinstance(session.interruption, Locked) or answers.is_locked_out(request.session):
                return response
            # What a visitor is told may be kept in the session that takes the place of this one.
            return self.save(request, response)
        except StoreUnavailable:
            return answers.unavailable(request)


def is_settled(session: Any, request: Any = None) -> bool:
    """Tell whether nothing is left to do at the end of a request but to save what was modified."""
    if request is not None and (session.client is None or request.sessionkit.others):
        return False  # somebody else has put a session on the request
    return session.is_settled() and not settings.SESSION_SAVE_EVERY_REQUEST


def touch_others(request: Any) -> None:
    """
    Write the activity of sessions that were on the request for a while, as one that allauth finds
    by a header. Whoever has put them there has saved them, and knows what key the visitor has.
    """
    visit: Visit | None = getattr(request, "sessionkit", None)  # None: a site has another beginning
    for session in visit.others if visit else ():
        if session is not getattr(request, "session", None) and not session.is_settled():
            session.finish(answered=False)


def is_to_be_saved(request: HttpRequest, response: HttpResponse) -> bool:
    """
    Tell what Django's middleware tells: what a view that failed has done is not kept. Neither is
    what a stranger to the site leaves, whose header leads nowhere: an app expects a key when it
    signs in, not before.
    """
    session: Any = request.session
    wanted = session.modified or settings.SESSION_SAVE_EVERY_REQUEST
    if not wanted or session.is_empty() or response.status_code >= 500:
        return False
    return not is_of_app(request) or session.session_key is not None or SESSION_KEY in session


def give_key(request: HttpRequest, response: HttpResponse, saved: bool) -> None:
    """Give the visitor the key of the session, where it has changed: by the cookie, or a header."""
    session: Any = request.session
    if is_of_app(request):
        bearer.drop_csrf_cookie(response)
        bearer.finish(request, session, response)
    else:
        cookies.finish(request, session, response, saved)
        browsers.finish(request, response)


def is_background(request: HttpRequest) -> bool:
    """
    Tell whether a request is no activity of its user (ASVS 7.3.1): a header says so, or its path is
    one of SESSIONKIT_BACKGROUND. A request that is to change something is always activity.
    """
    headers = request.META  # request.headers goes through all of them, for every request
    return request.method in SAFE_METHODS and (
        "prefetch" in (headers.get("HTTP_SEC_PURPOSE") or "")
        or headers.get("HTTP_X_BACKGROUND_REQUEST") == "1"
        or request.path.startswith(tuple(conf.SESSIONKIT_BACKGROUND))
    )
