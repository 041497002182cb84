"""
The pages for staff: the sessions of every user, and the ways to end them. Staff can neither add nor
edit a session. Where Django's admin deletes, this admin ends: the row stays, as history.

``UserSessionsAdminMixin`` adds links to these pages to the project's user admin.
"""

from typing import Any, ClassVar, cast

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import flatten_fieldsets, unquote
from django.contrib.auth import get_permission_codename, get_user_model, logout
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from django_sessionkit.accounts import acting_user
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, UserSession, UserSessionQuerySet
from django_sessionkit.staff.changelist import SessionList
from django_sessionkit.staff.columns import SessionColumns
from django_sessionkit.staff.permissions import may_end_sessions
from django_sessionkit.staff.sights import look_at

# How many entries of the admin's log are written at a time.
ENTRIES = 500


def current_handle(request: HttpRequest) -> Any:
    return getattr(request.session, "handle", None)


def end_sessions(request: HttpRequest, sessions: UserSessionQuerySet) -> None:
    """
    End these sessions on behalf of the request's user, log that, and leave a message about it. If
    the current session is among them, sign its user out.
    """
    staff = acting_user(cast("Any", request.user), request.session)
    handles = list(sessions.filter(ended_at=None).values_list("pk", flat=True))
    ended = None
    try:
        ended = sessions.revoke(EndReason.REVOKED_BY_STAFF, staff, current_handle(request))
    except StoreUnavailable:
        seconds = conf.SESSIONKIT_TOUCH_INTERVAL
        text = ngettext(
            "The session store did not answer. The ended sessions stop working within"
            " %(seconds)d second.",
            "The session store did not answer. The ended sessions stop working within"
            " %(seconds)d seconds.",
            seconds,
        )
        messages.warning(request, text % {"seconds": seconds})
    if ended:
        text = ngettext("%(count)d session was ended.", "%(count)d sessions were ended.", ended)
        messages.success(request, text % {"count": ended})
    elif ended == 0:
        messages.info(request, gettext("There was no active session to end."))
    for start in range(0, len(handles), ENTRIES):
        # Log what this user has ended: other staff may have ended some of the sessions meanwhile.
        LogEntry.objects.log_actions(
            user_id=staff.pk,
            queryset=UserSession.objects.primary()
            .filter(pk__in=handles[start : start + ENTRIES], ended_by=staff)
            .select_related("user"),
            action_flag=CHANGE,
            change_message=gettext("Ended."),
        )
    if ended is not None and current_handle(request) in handles:
        logout(request)


@admin.register(UserSession)
class UserSessionAdmin(SessionColumns):
    """
    Whoever may view or end sessions sees these pages. Ending sessions takes the permission
    ``django_sessionkit.end_usersession``. That permission knows no ranks: staff who have it can end
    the sessions of superusers.
    """

    list_display = [
        "user_link",
        "device",
        "kind",
        "state_line",
        "address_line",
        "signed_in",
        "last_active",
        "end_link",
    ]
    list_display_links = ["device"]
    # Newest first, by the primary key. On ten million rows, sorting by another column, or counting
    # all rows, takes longer than anybody waits for a page.
    ordering = ["-pk"]
    sortable_by = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    # The method below, which ends sessions, replaces Django's action of this name, which deletes.
    actions = ["delete_selected"]
    # The digest, the name of a session in the store, is left out: staff do not need to see it.
    readonly_fields = [
        "user_link",
        "device",
        "kind",
        "label",
        "state",
        "end_note",
        "address",
        "user_agent",
        "novelty",
        "reported_at",
        "browser_link",
        "support",
        "signed_in",
        "proved_at",
        "last_seen_at",
        "unused_at",
        "expires_at",
        "ended_at",
        "ended_by",
        "id",
    ]
    fields = (*readonly_fields,)

    class Media:
        css: ClassVar = {"all": ["django_sessionkit/admin.css"]}

    # What staff see.

    def get_queryset(self, request: HttpRequest) -> QuerySet[UserSession]:
        return super().get_queryset(request).select_related("user", "ended_by")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[SessionList]:
        return SessionList

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> UserSession | None:
        session = super().get_object(request, object_id, from_field)
        if session:
            look_at(request, [session])
        return session

    # Who may do what.

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_view_permission(request, obj) or may_end_sessions(request)

    def has_end_permission(self, request: HttpRequest) -> bool:
        return may_end_sessions(request)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """
        Tell whether the request's user may delete users. A row is deleted together with its user,
        and never alone. Before Django's admin deletes a user, it asks this method about their rows.
        """
        users = get_user_model()._meta
        return request.user.has_perm(
            f"{users.app_label}.{get_permission_codename('delete', users)}"
        )

    # Ending.

    @admin.action(permissions=["end"], description=_("End selected sessions"))
    def delete_selected(self, request: HttpRequest, queryset: UserSessionQuerySet) -> None:
        self.delete_queryset(request, queryset)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        end_sessions(request, cast("UserSessionQuerySet", queryset))

    def delete_model(self, request: HttpRequest, obj: UserSession) -> None:
        self.delete_queryset(request, UserSession.objects.filter(pk=obj.pk))

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
        if request.method == "POST":
            self.delete_model(request, session)
            return self.response_post_save_change(request, session)
        context = {
            **self.admin_site.each_context(request),
            "title": gettext("End this session?"),
            "opts": self.opts,
            "original": session,
            "is_current": session.pk == current_handle(request),
            "has_view_permission": True,
            "preserved_filters": self.get_preserved_filters(request),
            **(extra_context or {}),
        }
        return self.render_delete_form(request, context)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["show_delete"] = False
        context["show_end"] = (
            self.has_end_permission(request) and context["original"].ended_at is None
        )
        return super().render_change_form(request, context, *args, **kwargs)


class UserSessionsAdminMixin(admin.ModelAdmin):  # type: ignore[type-arg]
    """
    Adds links to a user's sessions to the admin of any user model, in the list and on the user's
    page. Also adds an action that ends all sessions of the selected users::

        @admin.register(User)
        class MyUserAdmin(UserSessionsAdminMixin, UserAdmin): ...
    """

    def __init__(self, model: type[Model], admin_site: admin.AdminSite) -> None:
        super().__init__(model, admin_site)
        # Added here, because a subclass with ``actions`` of its own would replace a class
        # attribute. ``actions = None`` means that there are no actions at all.
        if self.actions is not None:
            self.actions = [*self.actions, "end_all_sessions"]

    def has_view_sessions_permission(self, request: HttpRequest) -> bool:
        site = self.admin_site
        return site.is_registered(UserSession) and site.get_model_admin(
            UserSession
        ).has_view_permission(request)

    def has_end_sessions_permission(self, request: HttpRequest) -> bool:
        return may_end_sessions(request)

    @admin.action(
        permissions=["end_sessions"],
        description=_("End all sessions of the selected %(verbose_name_plural)s"),
    )
    def end_all_sessions(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        end_sessions(request, UserSession.objects.filter(user__in=queryset))

    @admin.display(description=_("sessions"))
    def sessions_link(self, user: Model) -> str:
        url = reverse(
            "admin:django_sessionkit_usersession_changelist", current_app=self.admin_site.name
        )
        return format_html(
            '<a href="{}?{}" aria-label="{}">{}</a>',
            url,
            urlencode({"users": user.pk}),
            gettext("Sessions of %(user)s") % {"user": user},
            gettext("Sessions"),
        )

    def get_list_display(self, request: HttpRequest) -> Any:
        columns = super().get_list_display(request)
        if self.has_view_sessions_permission(request):
            return [*columns, "sessions_link"]
        return columns

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        if obj and self.has_view_sessions_permission(request):
            return [*fields, "sessions_link"]
        return fields

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        # An admin without ``fields`` and ``fieldsets`` shows every read-only field already.
        if (
            obj
            and self.has_view_sessions_permission(request)
            and "sessions_link" not in flatten_fieldsets(fieldsets)
        ):
            return [*fieldsets, (gettext("Sessions"), {"fields": ["sessions_link"]})]
        return fieldsets
