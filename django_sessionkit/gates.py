"""
The pages that come between a visitor and the page they want: the one that asks for the password
again, and the one that asks which device to sign out, when there are too many.
"""

import uuid
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import REDIRECT_FIELD_NAME, logout
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import render, resolve_url
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.generic import FormView, TemplateView

from django_sessionkit import answers
from django_sessionkit.decorators import GUARDS
from django_sessionkit.exceptions import TooManySessions
from django_sessionkit.farewells import FAREWELLS
from django_sessionkit.forms import Hidden, PasswordForm
from django_sessionkit.models import EndReason
from django_sessionkit.paging import Page
from django_sessionkit.proofs import account_to_prove, note_proof, proof_url, row_of_locked
from django_sessionkit.room import Choice, asked_for
from django_sessionkit.visit.redirects import (
    local_url,
    path_of,
    to_sign_in,
    with_way_back,
)

# While a session is locked, nobody is signed in. Django's LoginRequiredMiddleware must let the
# pages pass that open it.
GUARDS_OF_LOCKED = [login_not_required, *GUARDS]


def handles_in(texts: list[str]) -> list[uuid.UUID]:
    """Return the handles among these texts."""
    handles = []
    for text in texts:
        with suppress(ValueError):
            handles.append(uuid.UUID(text))
    return handles


class BackMixin:
    """
    A page that comes between a visitor and the page they want, and leads to that page afterwards.
    """

    request: HttpRequest

    @property
    def back(self) -> str:
        name = REDIRECT_FIELD_NAME
        asked = self.request.POST.get(name) or self.request.GET.get(name, "")
        return local_url(self.request, asked) or resolve_url(settings.LOGIN_REDIRECT_URL)

    @property
    def session(self) -> Any:
        return self.request.session

    @property
    def locked(self) -> Any:
        return getattr(self.session, "locked", None)

    def to_sign_in(self) -> HttpResponse:
        return to_sign_in(self.request, self.back)


# "fields" is a form that was sent to another page. It can hold a password, too.
@method_decorator(
    [*GUARDS_OF_LOCKED, sensitive_post_parameters("password", "fields")], name="dispatch"
)
class ReauthenticateView(BackMixin, FormView):  # type: ignore[type-arg]
    """
    Ask for the password of the session's user, because the session is locked or because a view
    takes a recent proof of identity. If the user had sent a form to that view, this view then
    offers to send the form again.
    """

    template_name = "django_sessionkit/reauthenticate.html"
    form_class = PasswordForm
    account: AbstractBaseUser

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if self.locked and self.locked.reason == "limit":
            return with_way_back(request, reverse("django_sessionkit:session_limit"), self.back)
        account = account_to_prove(request)
        if account is None:
            return self.to_sign_in()
        if isinstance(account, EndReason):
            messages.info(request, str(FAREWELLS[account]), fail_silently=True)
            return self.to_sign_in()
        url = proof_url(account)
        if path_of(url) != request.path:
            return with_way_back(request, url, self.back)
        if "sign_out" in request.POST:
            logout(request)
            answers.say_signed_out(request)
            return self.to_sign_in()
        self.account = account
        return super().dispatch(request, *args, **kwargs)

    def get_form_kwargs(self) -> dict[str, Any]:
        return {"request": self.request, "user": self.account, **super().get_form_kwargs()}

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        posted, names = self.request.POST, ("to", "fields", "obstacle")
        carried = {name: Hidden(posted.get(name, "")) for name in names}
        return super().get_context_data(
            account=self.account,
            reason=self.locked.reason if self.locked else "",
            here=self.request.path,
            next=self.back,
            **carried,
            **kwargs,
        )

    @sensitive_variables()
    def form_valid(self, form: Any) -> HttpResponse:
        note_proof(self.session, form.user)
        to = local_url(self.request, self.request.POST.get("to", ""))
        if not to:
            return HttpResponseRedirect(self.back)
        fields = QueryDict(self.request.POST.get("fields", ""), encoding="utf-8")
        hidden = [(name, [Hidden(value) for value in values]) for name, values in fields.lists()]
        context = {"to": to, "fields": hidden, "next": self.back}
        return render(self.request, "django_sessionkit/reauthenticate_send.html", context)


@method_decorator(GUARDS_OF_LOCKED, name="dispatch")
class SessionLimitView(BackMixin, TemplateView):
    """
    Ask a user who has signed in on one device too many which of the other devices to sign out.
    Until then, their session is locked.
    """

    template_name = "django_sessionkit/session_limit.html"
    choice: Choice

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not self.locked or self.locked.reason != "limit":
            return HttpResponseRedirect(self.back)
        row = row_of_locked(self.locked)
        if row is None:
            self.session.flush()
            return self.to_sign_in()
        if "sign_out" in request.POST:
            logout(request)
            return answers.signed_out(request)
        self.choice = Choice(row, self.locked.limit)
        return super().dispatch(request, *args, **kwargs)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        choice = self.choice
        page = choice.page(self.request.GET)
        # The idlest first, which is missed least. Of several pages, the last active are the first.
        sessions = page.sessions[::-1] if page.is_whole else page.sessions
        context |= {"object_list": sessions, "session_page": page, "next": self.back}
        context |= {"limit": choice.limit, "surplus": choice.surplus(page)}
        context |= {"other_count": page.other_count, "account": choice.row.user}
        return context

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        context = self.get_context_data()
        page: Page = context["session_page"]
        ending = None
        if "all" not in request.POST:
            ending = self.choice.alive(handles_in(request.POST.getlist("session")))
            needed = self.choice.needed(page)
            if len(ending) < needed:
                context |= {"chosen": ending, "error": asked_for(needed)}
                return self.render_to_response(context)
        self.choice.end(ending)
        try:
            self.session.unlock()
        except TooManySessions:
            error = gettext("Another device has signed in meanwhile.")
            if not page.is_whole:
                error = gettext("These devices were signed out. Please choose more.")
            return self.render_to_response(self.get_context_data(error=error))
        return HttpResponseRedirect(self.back)
