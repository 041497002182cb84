"""
The user's pages: the list of devices that are signed in to their account, with the ways to sign
them out.
"""

import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.mixins import LoginRequiredMixin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import NoReverseMatch, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.views.generic import DetailView, ListView

from django_sessionkit import answers
from django_sessionkit.accounts import acting_user, policy_of
from django_sessionkit.conf import conf
from django_sessionkit.decorators import GUARDS
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.mixins import RecentAuthenticationMixin
from django_sessionkit.models import UserSession, UserSessionQuerySet
from django_sessionkit.paging import Page, page_of, query_of, with_activity
from django_sessionkit.visit.redirects import (
    sign_in_url,
)

if TYPE_CHECKING:
    from django.contrib.auth.models import User


def for_its_user(sessions: list[UserSession]) -> list[UserSession]:
    """
    Return these rows as their user may see them: where staff act as the user is none of the user's
    business. Do not save these rows.
    """
    for session in sessions:
        if session.support:
            session.ip, session.user_agent, session.client_hints = None, "", ""
    return sessions


@method_decorator(GUARDS, name="dispatch")
class OwnSessionsMixin(LoginRequiredMixin):
    """
    Limits a view to the sessions of the request's user. The handle of another user is a 404.
    """

    request: HttpRequest

    @property
    def user(self) -> "User":
        return cast("User", self.request.user)  # whatever the site's user model is

    @property
    def handle(self) -> uuid.UUID | None:
        return getattr(self.request.session, "handle", None)

    def handle_no_permission(self) -> HttpResponseRedirect:
        if self.login_url is None and sign_in_url() is None:
            raise PermissionDenied
        return super().handle_no_permission()

    def own_sessions(self) -> UserSessionQuerySet:
        return with_activity(UserSession.objects.primary().filter(user=self.user), self.handle)

    @property
    def password_change_url(self) -> str:
        """
        Where the user changes their password, on a site whose page for that has the name which it
        has in Django. "" if there is none, or no password.
        """
        with suppress(NoReverseMatch):
            return reverse("password_change") if self.user.has_usable_password() else ""
        return ""

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context_data(  # type: ignore[misc]
            has_password=self.user.has_usable_password(),
            password_change_url=self.password_change_url,
            **kwargs,
        )
        return context

    def with_advice(self, text: str, question: str) -> str:
        """Return a text with a question about what was signed out, and what to do about that."""
        if not self.user.has_usable_password():
            return text
        change, url = gettext("Change your password."), self.password_change_url
        if not url:
            return f"{text} {question} {change}"
        return format_html('{} {} <a href="{}">{}</a>', text, question, url, change)

    def to_list(self) -> HttpResponse:
        """Redirect to the page of the list that the visitor came from."""
        url = reverse("django_sessionkit:session_list")
        return HttpResponseRedirect(f"{url}{query_of(self.request.GET)}")

    def end(self, sessions: UserSessionQuerySet) -> int | None:
        """
        End these sessions, and return how many were active. If the store does not answer, leave a
        message for the user and return None.
        """
        try:
            by = acting_user(self.user, self.request.session)
            return sessions.revoke(by=by, ended_from=self.handle)
        except StoreUnavailable:
            seconds = conf.SESSIONKIT_TOUCH_INTERVAL
            text = ngettext(
                "Signed out, but it may take up to %(seconds)d second to take effect.",
                "Signed out, but it may take up to %(seconds)d seconds to take effect.",
                seconds,
            )
            messages.warning(self.request, text % {"seconds": seconds}, fail_silently=True)
            return None


class OwnSessionPageMixin(OwnSessionsMixin):
    """For a ListView: one page of the sessions of the request's user, or the first."""

    has_pages = True
    page: Page

    def get_queryset(self) -> list[UserSession]:
        asked: Mapping[str, str] = self.request.GET if self.has_pages else {}
        self.page = page_of(self.own_sessions(), self.handle, asked)
        return for_its_user(self.page.sessions)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        page = {"session_page": self.page, "other_count": self.page.other_count}
        return super().get_context_data(**page, **kwargs)


class SessionListView(OwnSessionPageMixin, ListView):  # type: ignore[misc, type-arg]
    """The devices that are signed in to the user's account."""

    template_name = "django_sessionkit/session_list.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        limit = policy_of(self.user, self.request).limit
        return super().get_context_data(limit=limit, counted=self.page.counted, **kwargs)


class SessionEndView(
    OwnSessionsMixin,
    RecentAuthenticationMixin,
    DetailView,  # type: ignore[type-arg]
):
    """
    End one session: GET asks, POST ends it. Ending the current session signs its user out. Ending
    another session takes a recent proof of identity (ASVS 7.5.2): a thief who has only a cookie
    must not shut its owner out. A user who does not recognise a session ends it with whatever else
    its browser has, and then changes their password.
    """

    template_name = "django_sessionkit/session_confirm_end.html"
    keeps_form = False

    def needs_recent_authentication(self) -> bool:
        return bool(self.kwargs["pk"] != self.handle)

    def get_queryset(self) -> UserSessionQuerySet:
        return self.own_sessions()

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(page_query=query_of(self.request.GET), **kwargs)

    def get_object(self, queryset: Any = None) -> UserSession:
        (session,) = for_its_user([super().get_object(queryset)])
        return session

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        session = self.get_object()
        if session.pk == self.handle:
            logout(request)
            return answers.signed_out(request)
        if "unrecognised" in request.POST:
            return self.disown(session)
        ended = self.end(self.get_queryset().filter(pk=session.pk))
        names = {"device": session.name}
        if ended:
            text = gettext("%(device)s was signed out.") % names
            if not session.support:
                text = self.with_advice(text, gettext("Did you not recognise it?"))
            messages.success(request, text, fail_silently=True)
        elif ended == 0:
            text = gettext("%(device)s was signed out already.") % names
            messages.info(request, text, fail_silently=True)
        return self.to_list()

    def disown(self, session: UserSession) -> HttpResponse:
        """
        End a session that its user does not recognise, and what else is signed in to their account
        in the same browser, if that is not the one which they use now. Then lead them to a new
        password. In that order: until then, whoever has the session may be faster.
        """
        handles = {session.pk}
        if session.browser:
            same = self.own_sessions().filter(browser=session.browser, ended_at=None)
            found = {*same.values_list("pk", flat=True)}
            handles |= found if self.handle not in found else set()
        sessions = self.own_sessions().filter(pk__in=handles)
        sessions.report()
        self.end(sessions)
        text = gettext(
            "%(device)s was signed out. Now change your password: somebody else may know it."
        )
        if not self.user.has_usable_password():
            text = gettext(
                "%(device)s was signed out. Now secure the account that you sign in with: somebody"
                " else may have access to it."
            )
        messages.warning(self.request, text % {"device": session.name}, fail_silently=True)
        url = self.password_change_url
        return HttpResponseRedirect(url) if url else self.to_list()


class SessionEndOthersView(  # type: ignore[misc]
    OwnSessionPageMixin,
    RecentAuthenticationMixin,
    ListView,  # type: ignore[type-arg]
):
    """
    End every session but the current one, on all pages: GET asks, POST ends them. This takes a
    recent proof of identity, too.
    """

    template_name = "django_sessionkit/session_confirm_end_others.html"
    keeps_form = False
    has_pages = False  # the first tells enough: all of them end

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        more_count = self.page.other_count - len(self.page.sessions)
        return super().get_context_data(more_count=more_count, **kwargs)

    def own_sessions(self) -> UserSessionQuerySet:
        return super().own_sessions().other_than(self.request)

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        # End all of them, also the expired and lost sessions that the list leaves out.
        ended = self.end(self.own_sessions())
        if ended:
            text = ngettext(
                "%(count)d other device was signed out.",
                "%(count)d other devices were signed out.",
                ended,
            )
            question = ngettext(
                "Did you not recognise it?", "Did you not recognise one of them?", ended
            )
            text = self.with_advice(text % {"count": ended}, question)
            messages.success(request, text, fail_silently=True)
        elif ended == 0:
            text = gettext("No other device was signed in.")
            messages.info(request, text, fail_silently=True)
        return redirect("django_sessionkit:session_list")
