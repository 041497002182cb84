"""The user's page: what is signed in to the account of whoever asks, and the ways to end it."""

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.mixins import LoginRequiredMixin
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.translation import gettext, ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.clickjacking import xframe_options_deny
from django.views.decorators.csrf import csrf_protect
from django.views.generic import DetailView, ListView

from django_sessionkit.conf import conf
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import UserSession, UserSessionQuerySet

if TYPE_CHECKING:
    from django.contrib.auth.models import User


# The last two also where a site has left out the middleware of that name: what is here ends
# sessions, and a page that does must not be framed or forged.
@method_decorator([never_cache, csrf_protect, xframe_options_deny], name="dispatch")
class OwnSessionsMixin(LoginRequiredMixin):
    """
    The sessions of the user who asks, and of nobody else: a stranger's handle is a 404.
    """

    request: HttpRequest

    @property
    def user(self) -> "User":
        return cast("User", self.request.user)  # whatever the site's user model is

    @property
    def handle(self) -> uuid.UUID | None:
        return getattr(self.request.session, "handle", None)

    def own_sessions(self) -> UserSessionQuerySet:
        """
        Return the user's rows, the current one first, then the newest; each with ``is_current``
        and ``is_active_now``.
        """
        current = Q(pk=self.handle)
        # As exact as it gets: activity is written once per interval.
        since = timezone.now() - timedelta(seconds=conf.SESSIONKIT_TOUCH_INTERVAL)
        return (
            UserSession.objects.primary()
            .filter(user=self.user)
            .annotate(is_current=current, is_active_now=current | Q(last_seen_at__gte=since))
            .order_by("-is_current", "-pk")
        )

    def end(self, sessions: UserSessionQuerySet) -> int | None:
        """
        End these sessions, and return how many were alive; None, with a message, if the store
        did not answer.
        """
        try:
            return sessions.revoke(by=self.user)
        except StoreUnavailable:
            seconds = conf.SESSIONKIT_TOUCH_INTERVAL
            text = ngettext(
                "Signed out, but it may take up to %(seconds)d second to take effect.",
                "Signed out, but it may take up to %(seconds)d seconds to take effect.",
                seconds,
            )
            messages.warning(self.request, text % {"seconds": seconds}, fail_silently=True)
            return None


class SessionListView(OwnSessionsMixin, ListView):  # type: ignore[type-arg]
    """The devices that are signed in to the user's account."""

    template_name = "django_sessionkit/session_list.html"

    def get_queryset(self) -> list[UserSession]:  # type: ignore[override]
        return self.own_sessions().alive()

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        context["other_count"] = sum(row.pk != self.handle for row in context["object_list"])
        return context


class SessionEndView(OwnSessionsMixin, DetailView):  # type: ignore[type-arg]
    """End one session: GET asks, POST does it. Ending the current one is signing out."""

    template_name = "django_sessionkit/session_confirm_end.html"

    def get_queryset(self) -> UserSessionQuerySet:
        return self.own_sessions()

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        session = self.get_object()
        if session.pk == self.handle:
            logout(request)
            return redirect(settings.LOGOUT_REDIRECT_URL or settings.LOGIN_URL)
        ended = self.end(self.get_queryset().filter(pk=session.pk))
        names = {"device": session.device}
        if ended:
            text = gettext("%(device)s was signed out.") % names
            messages.success(request, text, fail_silently=True)
        elif ended == 0:
            text = gettext("%(device)s was signed out already.") % names
            messages.info(request, text, fail_silently=True)
        return redirect("django_sessionkit:session_list")


class SessionEndOthersView(OwnSessionsMixin, ListView):  # type: ignore[type-arg]
    """End every session but the current one: GET asks, POST does it."""

    template_name = "django_sessionkit/session_confirm_end_others.html"

    def get_queryset(self) -> list[UserSession]:  # type: ignore[override]
        return self.own_sessions().other_than(self.request).alive()

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        # All of them, the ones that the list leaves out as expired or lost too.
        ended = self.end(self.own_sessions().other_than(request))
        if ended:
            text = ngettext(
                "%(count)d other device was signed out.",
                "%(count)d other devices were signed out.",
                ended,
            )
            messages.success(request, text % {"count": ended}, fail_silently=True)
        elif ended == 0:
            text = gettext("No other device was signed in.")
            messages.info(request, text, fail_silently=True)
        return redirect("django_sessionkit:session_list")
