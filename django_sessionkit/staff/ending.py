"""
Staff end a session, or those that they have ticked in the list. Each time a page asks first, and
wants to know why.
"""

import uuid
from typing import Any, cast

from django.contrib import admin
from django.contrib.admin import helpers
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_sessionkit import audit
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, UserSession, UserSessionQuerySet
from django_sessionkit.own_sessions import handle_of
from django_sessionkit.staff import sentences
from django_sessionkit.staff.log import log_ended
from django_sessionkit.staff.permissions import address_of, may_end_sessions
from django_sessionkit.staff.questions import EndForm, EndSeveralForm, context_of
from django_sessionkit.staff.rank import is_spared, person_of
from django_sessionkit.staff.rendering import render

END_SHOWN = "admin:django_sessionkit_usersession_end_shown"


def end_sessions(
    request: HttpRequest, site: admin.AdminSite, sessions: UserSessionQuerySet, note: str
) -> None:
    """
    End these sessions on behalf of the staff behind the request, log that, and leave a message. If
    the current session is among them, sign its user out.
    """
    person, own = person_of(request), handle_of(request)
    handles = list(sessions.filter(ended_at=None).values_list("pk", flat=True))
    rows = UserSession.objects.primary().filter(pk__in=handles)
    is_down = False
    try:
        rows.revoke(EndReason.REVOKED_BY_STAFF, person, own, note)
    except StoreUnavailable:
        is_down = True
    log_ended(person.pk, handles, note)
    # Somebody else may have ended some of them meanwhile.
    mine = rows.filter(ended_by=person.pk, end_reason=EndReason.REVOKED_BY_STAFF)
    ended = list(mine.select_related("user"))
    if ended:
        audit.ended(person.pk, [row.pk for row in ended], note)
    if is_down:
        sentences.say_store_is_down(request)
    if not is_down and own in handles:
        sentences.sign_out(request, len(ended) - 1)
    else:
        sentences.say_ended(request, site, ended)


def end_own(request: HttpRequest, note: str) -> None:
    """End the session of the request itself at once, whatever else an ending has still to do."""
    # Whoever ends their own session has one.
    own, person = cast("uuid.UUID", handle_of(request)), person_of(request)
    rows = UserSession.objects.filter(pk=own)
    try:
        ended = rows.revoke(EndReason.REVOKED_BY_STAFF, person, own, note)
    except StoreUnavailable:
        sentences.say_store_is_down(request)
    else:
        if ended:
            log_ended(person.pk, [own], note)
            audit.ended(person.pk, [own], note)
        sentences.sign_out(request)


class EndingAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """The part of the admin of sessions that ends those that staff name."""

    def __init__(self, model: type[UserSession], admin_site: admin.AdminSite) -> None:
        super().__init__(model, admin_site)
        # Added here: a subclass with ``actions`` of its own would have Django's action of the name,
        # which deletes rows, and leaves their sessions to the next touch.
        if self.actions is not None and "delete_selected" not in self.actions:
            self.actions = [*self.actions, "delete_selected"]

    def has_end_permission(self, request: HttpRequest) -> bool:
        return may_end_sessions(request)

    def may_end_by_filter(self, request: HttpRequest) -> bool:
        """
        Tell whether the request may end all that a filter finds. Not if a subclass leaves sessions
        out in get_queryset(), of other customers say: a filter finds these, too.
        """
        shown = self.get_queryset(request).query
        leaves_out = shown.where or shown.combinator or shown.is_sliced
        return self.has_end_permission(request) and not leaves_out

    # Several.

    # This replaces Django's action of the name, which deletes.
    @admin.action(permissions=["end"], description=_("End selected sessions"))
    def delete_selected(
        self, request: HttpRequest, queryset: QuerySet[UserSession]
    ) -> HttpResponse | None:
        """Ask first. The form of the question posts the action again, with its answers."""
        if request.POST.get("select_across") == "1":  # all that the list shows, on other pages too
            url = reverse(END_SHOWN, current_app=self.admin_site.name)
            return HttpResponseRedirect(f"{url}?{request.GET.urlencode()}")
        # Not ``queryset``: a session that has ended since may not be in the list any more.
        handles = request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)
        rows = UserSession.objects.primary()
        shown = self.get_queryset(request).using(rows.db)
        chosen = list(shown.filter(pk__in=handles).select_related("user"))
        own = handle_of(request)
        active = [row for row in chosen if _is_active(row)]
        ending = [row for row in active if not is_spared(request, row)]
        answers = request.POST if "post" in request.POST else None
        form = EndSeveralForm(answers, has_own=any(row.pk == own for row in ending))
        if form.is_valid():
            rows = rows.filter(pk__in=[row.pk for row in ending])
            if form.leaves_out_own:
                rows = rows.other_than(request)
            end_sessions(request, self.admin_site, rows, form.cleaned_data["note"])
            return None
        return render(
            self.admin_site,
            request,
            "end_selected",
            sentences.question(len(ending), len({row.user_id for row in ending})),
            chosen=chosen,
            ending=ending,
            people=sentences.names_of({row.user_id: row.user for row in ending}.values()),
            facts=_facts(chosen, active, ending, own),
            **context_of(form),
        )

    # One.

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """
        Ask (GET), then end the session (POST).

        This replaces Django's view. Django's view runs in a transaction, where a store that fails
        would undo the mark on the row. It would also warn of deletions that do not happen here.
        """
        if not self.has_end_permission(request):
            raise PermissionDenied
        session = self.get_object(request, unquote(object_id))
        if session is None:
            raise Http404
        if not self.has_view_permission(request, session):
            raise PermissionDenied
        spared = is_spared(request, session)
        if request.method == "POST" and spared:
            raise PermissionDenied
        form = EndForm(request.POST if request.method == "POST" else None)
        if form.is_valid():
            row = UserSession.objects.filter(pk=session.pk)
            end_sessions(request, self.admin_site, row, form.cleaned_data["note"])
            return self._back(request, session)
        context = {
            **self.admin_site.each_context(request),
            **context_of(form),
            "title": gettext("End this session?"),
            "opts": self.opts,
            "original": session,
            "address": address_of(request, session),
            "is_current": session.pk == handle_of(request),
            "is_spared": spared,
            "has_view_permission": True,
            "preserved_filters": self.get_preserved_filters(request),
            **(extra_context or {}),
        }
        return self.render_delete_form(request, context)

    def _back(self, request: HttpRequest, session: UserSession) -> HttpResponse:
        """Lead back to the list or, by ``?back=user``, to the page of the user."""
        model = type(session.user)
        if request.GET.get("back") == "user" and self.admin_site.is_registered(model):
            users = model._meta
            name = f"admin:{users.app_label}_{users.model_name}_change"
            url = reverse(name, args=[session.user_id], current_app=self.admin_site.name)
            return HttpResponseRedirect(url)
        return self.response_post_save_change(request, session)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        session = context["original"]
        context["show_delete"] = False
        context["show_end"] = (
            self.has_end_permission(request)
            and session.ended_at is None
            and not is_spared(request, session)
        )
        return super().render_change_form(request, context, *args, **kwargs)


def _is_active(row: UserSession) -> bool:
    return row.ended_at is None and row.expires_at > timezone.now()


def _facts(
    chosen: list[UserSession], active: list[UserSession], ending: list[UserSession], own: Any
) -> list[str]:
    """Return what there is to know of the sessions that were chosen before they end."""
    facts = []
    if over := len(chosen) - len(active):
        facts.append(sentences.ended_already(over, len(chosen)))
    if spared := len(active) - len(ending):
        facts.append(sentences.superusers_left_out(spared))
    if any(row.pk == own for row in ending):
        facts.append(sentences.one_is_own())
    return facts
