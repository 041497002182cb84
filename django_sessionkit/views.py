"""
The user's pages: the list of devices that are signed in to their account, with the ways to name
them and to sign them out.
"""

import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.mixins import LoginRequiredMixin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import NoReverseMatch, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.views.decorators.vary import vary_on_headers
from django.views.generic import DetailView, FormView, ListView
from django.views.generic.detail import SingleObjectMixin

from django_sessionkit import answers
from django_sessionkit.accounts import policy_of
from django_sessionkit.conf import conf
from django_sessionkit.decorators import GUARDS
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.forms import LabelForm
from django_sessionkit.grouping import (
    SignedInDevice,
    count_devices,
    of_device,
    with_its_browser,
)
from django_sessionkit.history import how_it_ended, with_enders
from django_sessionkit.mixins import RecentAuthenticationMixin
from django_sessionkit.models import UserSession, UserSessionQuerySet
from django_sessionkit.own_sessions import (
    end,
    for_its_user,
    handle_of,
    own_sessions,
    renamable,
    rename,
)
from django_sessionkit.paging import (
    Page,
    asked_device,
    devices_of,
    ended_of,
    inactive,
    kept_in,
    page_of,
    query_of,
)
from django_sessionkit.visit.redirects import sign_in_url

if TYPE_CHECKING:
    from django.contrib.auth.models import User


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
        return handle_of(self.request)

    def handle_no_permission(self) -> HttpResponseRedirect:
        if self.login_url is None and sign_in_url() is None:
            raise PermissionDenied
        return super().handle_no_permission()

    def own_sessions(self) -> UserSessionQuerySet:
        return own_sessions(self.request, self.user)

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

    def say(self, ended: int | None, done: str, nothing: str) -> None:
        """Leave a message about what end() has returned: what was done, or that there was nothing
        to do. Where the store did not answer, end() has left one."""
        if ended:
            messages.success(self.request, done, fail_silently=True)
        elif ended == 0:
            messages.info(self.request, nothing, fail_silently=True)

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
            return end(self.request, sessions)
        except StoreUnavailable:
            seconds = conf.SESSIONKIT_TOUCH_INTERVAL
            text = ngettext(
                "Signed out, but it may take up to %(seconds)d second to take effect.",
                "Signed out, but it may take up to %(seconds)d seconds to take effect.",
                seconds,
            )
            messages.warning(self.request, text % {"seconds": seconds}, fail_silently=True)
            return None


def wants_fragment(request: HttpRequest) -> bool:
    """
    Tell whether a script asks for what is inside a page, to put it into another: by HTMX, or by
    fetch() with the header X-Requested-With. A link that HTMX has boosted, and its way back in the
    history, take the page.
    """
    headers = request.headers
    if headers.get("HX-Request") == "true":
        return "true" not in (headers.get("HX-Boosted"), headers.get("HX-History-Restore-Request"))
    return bool(headers.get("X-Requested-With") == "fetch")


FRAGMENT_HEADERS = ("HX-Request", "HX-Boosted", "HX-History-Restore-Request", "X-Requested-With")


@method_decorator(vary_on_headers(*FRAGMENT_HEADERS), name="dispatch")
class SessionListView(OwnSessionsMixin, ListView):  # type: ignore[type-arg]
    """
    The devices that are signed in to the user's account, and the sessions that have ended lately.
    With ``?inactive=1``, the devices that were not used for long; with ``?device=``, the sign-ins
    of one device.
    """

    page: Page
    device: UserSession | None = None

    def get_template_names(self) -> list[str]:
        name = "_session_list" if wants_fragment(self.request) else "session_list"
        return [f"django_sessionkit/{name}.html"]

    def get_queryset(self) -> list[UserSession]:  # type: ignore[override]
        asked, sessions = self.request.GET, self.own_sessions()
        if pk := asked_device(asked):
            self.device = get_object_or_404(sessions, pk=pk)
            self.page = page_of(of_device(sessions, self.device), self.handle, asked)
            for_its_user([self.device])
        else:
            self.page = devices_of(sessions, self.handle, asked)
        return for_its_user(self.page.sessions)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        policy = policy_of(self.user, self.request)
        return super().get_context_data(
            devices=self.page.devices or [SignedInDevice([each], 1) for each in self.page.sessions],
            device=self.device,
            is_inactive="inactive" in kept_in(self.request.GET),
            session_page=self.page,
            other_count=self.page.other_count,
            inactive_count=self.page.inactive_count,
            limit=policy.limit,
            on_limit=policy.on_limit,
            counted=self.page.counted,
            has_several=any(each.count > 1 for each in self.page.devices),
            has_no_room=policy.limit is not None and self.page.counted >= policy.limit - 1,
            ended_page=self.ended_page(),
            **kwargs,
        )

    def ended_page(self) -> Page | None:
        """Return the sessions that have ended, or None where they are not shown."""
        if self.page.here:
            return None
        page = ended_of(with_enders(self.own_sessions()), self.request.GET)
        for session in for_its_user(page.sessions):
            session.how_it_ended = how_it_ended(session)  # type: ignore[attr-defined]
        return page


class SessionRenameView(
    OwnSessionsMixin,
    SingleObjectMixin,  # type: ignore[type-arg]
    FormView,  # type: ignore[type-arg]
):
    """Name the device of a session. All of its sessions, ended ones included, get the name."""

    template_name = "django_sessionkit/session_rename.html"
    form_class = LabelForm
    http_method_names = ("get", "post", "head", "options")  # a FormView takes PUT for POST
    object: UserSession

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.user.is_authenticated:
            self.object = self.get_object()
        return super().dispatch(request, *args, **kwargs)

    def get_queryset(self) -> UserSessionQuerySet:
        return renamable(self.own_sessions())

    def get_initial(self) -> dict[str, Any]:
        return {"label": self.object.label}

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(page_query=query_of(self.request.GET), **kwargs)

    def form_valid(self, form: Any) -> HttpResponse:
        rename(self.get_queryset(), self.object, form.cleaned_data["label"])
        text = gettext("This device is called %(device)s now.") % {"device": self.object.name}
        messages.success(self.request, text, fail_silently=True)
        return self.to_list()


class SessionEndDeviceView(
    OwnSessionsMixin,
    RecentAuthenticationMixin,
    DetailView,  # type: ignore[type-arg]
):
    """
    End all sessions of a device but the current one: GET asks, POST ends them. This takes a recent
    proof of identity.
    """

    keeps_form = False
    template_name = "django_sessionkit/session_confirm_end_device.html"
    object: UserSession

    def get_queryset(self) -> UserSessionQuerySet:
        return self.own_sessions()

    def is_here(self) -> bool:
        """Tell whether it is the device in use."""
        current = self.own_sessions().filter(pk__in=[self.handle])
        return of_device(current, self.object).exists()

    def sessions(self) -> UserSessionQuerySet:
        sessions = of_device(self.own_sessions(), self.object)
        return sessions.filter(ended_at=None).other_than(self.request)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        count = page_of(self.sessions(), self.handle, {}).other_count
        is_here = self.is_here()
        for_its_user([self.object])
        if is_here and count:
            heading = gettext("Sign out the other sign-ins of this device?")
        elif is_here:
            heading = gettext("This device has no other sign-in")
        elif not count:
            heading = gettext("%(device)s was signed out already")
        else:
            heading = gettext("Sign out %(device)s?")
        return super().get_context_data(
            heading=heading % {"device": self.object.name},
            count=count,
            is_here=is_here,
            page_query=query_of(self.request.GET),
            **kwargs,
        )

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        self.object = self.get_object()
        is_here = self.is_here()
        ended = self.end(self.sessions())
        for_its_user([self.object])
        names = {"device": self.object.name}
        done = gettext("%(device)s was signed out.") % names
        nothing = gettext("%(device)s was signed out already.") % names
        if is_here:
            done = gettext("The other sign-ins of this device were signed out.")
            nothing = gettext("This device has no other sign-in.")
        elif not self.object.support:
            done = self.with_advice(done, gettext("Did you not recognise it?"))
        self.say(ended, done, nothing)
        return self.to_list()


class SessionEndInactiveView(
    OwnSessionsMixin,
    RecentAuthenticationMixin,
    ListView,  # type: ignore[type-arg]
):
    """
    End the sessions of all devices that were not used for long: GET asks, POST ends them. This
    takes a recent proof of identity.
    """

    keeps_form = False
    template_name = "django_sessionkit/session_confirm_end_inactive.html"
    page: Page

    def get_queryset(self) -> list[UserSession]:  # type: ignore[override]
        self.page = devices_of(self.own_sessions(), self.handle, {"inactive": "1"})
        return for_its_user(self.page.sessions)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        count = self.page.inactive_count
        return super().get_context_data(
            devices=self.page.devices,
            count=count,
            more=count - len(self.page.devices),
            **kwargs,
        )

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        ended = self.end(inactive(self.own_sessions()))
        done = gettext("The devices that were not used for 90 days were signed out.")
        self.say(ended, done, gettext("There was no such device any more."))
        return redirect("django_sessionkit:session_list")


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
        done = gettext("%(device)s was signed out.") % names
        if not session.support:
            done = self.with_advice(done, gettext("Did you not recognise it?"))
        self.say(ended, done, gettext("%(device)s was signed out already.") % names)
        return self.to_list()

    def disown(self, session: UserSession) -> HttpResponse:
        """
        End a session that its user does not recognise, and what else is signed in to their account
        in the same browser, if that is not the one which they use now. Then lead them to a new
        password. In that order: until then, whoever has the session may be faster.
        """
        handles = with_its_browser(self.own_sessions(), session)
        if self.handle in handles:
            handles = {session.pk}
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


class SessionEndOthersView(
    OwnSessionsMixin,
    RecentAuthenticationMixin,
    ListView,  # type: ignore[type-arg]
):
    """
    End every session but the current one, on all pages: GET asks, POST ends them. This takes a
    recent proof of identity, too.
    """

    template_name = "django_sessionkit/session_confirm_end_others.html"
    keeps_form = False
    page: Page

    def get_queryset(self) -> list[UserSession]:  # type: ignore[override]
        # With the current session, for other sign-ins of its browser are no other device. The first
        # page tells enough: all of them end.
        self.page = devices_of(self.own_sessions(), self.handle, {})
        return for_its_user([row for row in self.page.sessions if row.pk != self.handle])

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        devices = [device for device in self.page.devices if not device.is_current]
        count = self.page.other_count
        return super().get_context_data(
            devices=devices, other_count=count, more_count=count - len(devices), **kwargs
        )

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        count = count_devices(self.own_sessions().active()) - bool(self.handle)
        # End all of them, also the expired and lost sessions that the list leaves out.
        ended = self.end(self.own_sessions().other_than(request))
        done = gettext("The other sign-ins of this device were signed out.")
        if count:
            text = ngettext(
                "%(count)d other device was signed out.",
                "%(count)d other devices were signed out.",
                count,
            )
            question = ngettext(
                "Did you not recognise it?", "Did you not recognise one of them?", count
            )
            done = self.with_advice(text % {"count": count}, question)
        self.say(ended, done, gettext("No other device was signed in."))
        return redirect("django_sessionkit:session_list")
