"""
The pages for staff: the sessions of every user, and the ways to end them. Staff can neither add nor
edit a session. Where Django's admin deletes, this admin ends: the row stays, as history.

``UserSessionsAdminMixin`` adds links to these pages to the project's user admin.
"""

from contextlib import suppress
from ipaddress import ip_address
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import display_for_value, flatten_fieldsets, unquote
from django.contrib.admin.views.main import ERROR_FLAG
from django.contrib.auth import get_permission_codename, get_user_model, logout
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied, ValidationError
from django.db import DataError
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from django_sessionkit.accounts import acting_user
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, UserSession, UserSessionQuerySet
from django_sessionkit.staff import glance

# How many entries of the admin's log are written at a time.
ENTRIES = 500


def may_end_sessions(request: HttpRequest) -> bool:
    return request.user.has_perm("django_sessionkit.end_usersession")


def may_view_users(request: HttpRequest) -> bool:
    users = get_user_model()._meta
    codes = [get_permission_codename(action, users) for action in ("view", "change")]
    return any(request.user.has_perm(f"{users.app_label}.{code}") for code in codes)


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
class UserSessionAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """
    Whoever may view or end sessions sees these pages. Ending sessions takes the permission
    ``django_sessionkit.end_usersession``. That permission knows no ranks: staff who have it can end
    the sessions of superusers.
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
    # The method below, which ends sessions, replaces Django's action of this name, which deletes.
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

    # Sessions at a glance.

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.glance_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_glance"
        return [path("glance/", view, name=name), *super().get_urls()]

    def glance_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return glance.page(request, self, may_view_users(request))

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
            urlencode({"user": user.pk}),
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
