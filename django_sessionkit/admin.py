"""
The pages for staff: the sessions of every user, and the ways to end them. Staff can neither add nor
edit a session. Where Django's admin deletes, this admin ends: the row stays, as history.

``UserSessionsAdminMixin`` puts their sessions into the project's user admin, and
``UserSessionInline`` into one that should not have the mixin.
"""

from contextlib import suppress
from ipaddress import ip_address
from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import display_for_value
from django.contrib.admin.views.main import ERROR_FLAG
from django.contrib.auth import get_permission_codename, get_user_model
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import DataError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_sessionkit.models import UserSession, UserSessionQuerySet
from django_sessionkit.staff.pages import EndingPages
from django_sessionkit.staff.permissions import may_end_sessions, may_view_users
from django_sessionkit.staff.users import UserSessionInline, UserSessionsAdminMixin

__all__ = ["UserSessionAdmin", "UserSessionInline", "UserSessionsAdminMixin"]


class UserFilter(admin.SimpleListFilter):
    """
    Shows whose sessions the list has been filtered for, by the link on a user's page. Offers no
    choice of users: there may be millions.
    """

    title = _("user")
    parameter_name = "user"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        value = self.value()
        if value is None:
            return []
        name = value
        if may_view_users(request):  # staff who may not could try keys, and learn all names
            with suppress(ObjectDoesNotExist, ValueError, ValidationError, OverflowError):
                name = str(get_user_model()._base_manager.get(pk=value))
        return [(value, name)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        try:
            # By "pk": with "user" alone, SQLite raises an error for a number that is too large.
            return queryset.filter(user__pk=self.value())
        except (ValueError, ValidationError) as error:
            raise IncorrectLookupParameters(error) from error


class StateFilter(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("active", _("Active")), ("ended", _("Ended"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        sessions = cast("UserSessionQuerySet", queryset)
        match self.value():
            case "active":
                return sessions.active()
            case "ended":
                return sessions.ended()
        return sessions


@admin.register(UserSession)
class UserSessionAdmin(EndingPages):
    """
    Whoever may view or end sessions sees these pages. Ending sessions takes the permission
    ``django_sessionkit.end_usersession``, and to end those of superusers takes a superuser.
    """

    list_display = ["user", "device", "state", "ip", "signed_in", "last_seen_at"]
    list_display_links = ["device"]
    list_filter = [UserFilter, StateFilter, "end_reason", "started_at", "last_seen_at"]
    search_help_text = _("A user, or a whole address.")
    # Newest first, by the primary key. On ten million rows, sorting by another column, or counting
    # all rows, takes longer than anybody waits for a page.
    ordering = ["-pk"]
    sortable_by = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    # The method of EndingPages, which ends sessions, replaces Django's action, which deletes.
    actions = ["delete_selected"]
    # The digest, the name of a session in the store, is left out: staff do not need to see it.
    readonly_fields = [
        "user",
        "device",
        "state",
        "address",
        "user_agent",
        "support",
        "signed_in",
        "authenticated_at",
        "last_seen_at",
        "idle_at",
        "expires_at",
        "ended_at",
        "ended_by",
        "end_note",
        "id",
    ]
    fields = (*readonly_fields,)

    # What staff see.

    @admin.display(description=_("device"))
    def device(self, session: UserSession) -> str:
        return str(session.device)

    @admin.display(description=_("state"))
    def state(self, session: UserSession) -> str:
        if session.ended_at:
            reason = session.get_end_reason_display()
        elif session.expires_at <= timezone.now():
            reason = str(session.expiry_reason.label)
        else:
            return gettext("Locked") if session.is_locked else gettext("Active")
        return gettext("Ended: %(reason)s") % {"reason": reason}

    @admin.display(description=_("address"))
    def address(self, session: UserSession) -> str:
        address = session.address or self.get_empty_value_display()
        if not session.place:
            return address
        return f"{address}, " + gettext("near %(place)s (estimated)") % {"place": session.place}

    @admin.display(description=_("signed in"))
    def signed_in(self, session: UserSession) -> str:
        time = display_for_value(session.started_at, "")
        return gettext("before %(time)s") % {"time": time} if session.adopted_at else time

    def get_queryset(self, request: HttpRequest) -> QuerySet[UserSession]:
        return super().get_queryset(request).select_related("user")

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        """
        Return the names of the user's fields to search: user name and, for staff who may see users,
        e-mail, if there is any.
        """
        user = get_user_model()
        names = {user.USERNAME_FIELD}
        if may_view_users(request):
            names.add(user.get_email_field_name())
        return [f.name for f in user._meta.fields if f.name in names and not f.is_relation]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[UserSession], bool]:
        """
        Search for an IP address, or else for users, and return their sessions.

        On ten million sessions this takes 1 to 6 seconds. Django's own search, which joins the
        columns of both tables by OR, takes 36 seconds.
        """
        if not search_term:
            return queryset, False
        with suppress(ValueError):
            return queryset.filter(ip=str(ip_address(search_term.strip()))), False
        people = get_user_model()._base_manager.all()
        users, _may_have_duplicates = super().get_search_results(request, people, search_term)
        return queryset.filter(user__in=users), False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        # Refuse filters by the digest in the URL. With ``digest__startswith``, staff could find out
        # a digest letter by letter.
        return not lookup.startswith("digest") and super().lookup_allowed(lookup, value, request)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().changelist_view(request, extra_context)
        except (OverflowError, ValueError, DataError):
            # The URL asks for a number, a date or an address that no column can hold. Do as Django
            # does with other filters that make no sense.
            if not request.GET or ERROR_FLAG in request.GET:
                raise
            return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")

    # Who may do what.

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_view_permission(request, obj) or may_end_sessions(request)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """
        Tell whether the request's user may delete users. A row is deleted together with its user,
        and never alone. Before Django's admin deletes a user, it asks this method about their rows.
        """
        users = get_user_model()._meta
        return request.user.has_perm(
            f"{users.app_label}.{get_permission_codename('delete', users)}"
        )
