"""
The pages for staff: the sessions of every user, and the ways to end them. Staff can neither add nor
edit a session. Where Django's admin deletes, this admin ends: the row stays, as history.

``UserSessionsAdminMixin`` puts their sessions into the project's user admin, and
``UserSessionInline`` into one that should not have the mixin.
"""

from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.auth import get_permission_codename, get_user_model
from django.db import router
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from django_sessionkit.models import UserSession
from django_sessionkit.staff.changelist import SessionList
from django_sessionkit.staff.columns import SessionColumns
from django_sessionkit.staff.pages import SessionPages
from django_sessionkit.staff.permissions import may_end_sessions
from django_sessionkit.staff.sights import look_at
from django_sessionkit.staff.users import UserSessionInline, UserSessionsAdminMixin

__all__ = ["UserSessionAdmin", "UserSessionInline", "UserSessionsAdminMixin"]


@admin.register(UserSession)
class UserSessionAdmin(SessionPages, SessionColumns):
    """
    Whoever may view or end sessions sees these pages. Ending sessions takes the permission
    ``django_sessionkit.end_usersession``, and to end those of superusers takes a superuser.
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
        # A replica may be behind, and say of a session that was just ended that it was lost.
        rows = super().get_queryset(request).using(router.db_for_write(UserSession))
        return rows.select_related("user", "ended_by")

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

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """
        Tell whether the request's user may delete users. A row is deleted together with its user,
        and never alone. Before Django's admin deletes a user, it asks this method about their rows.
        """
        users = get_user_model()._meta
        return request.user.has_perm(
            f"{users.app_label}.{get_permission_codename('delete', users)}"
        )
