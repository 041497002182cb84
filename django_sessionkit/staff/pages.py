"""The URLs of the other pages for staff, and the links to them on the list."""

from collections.abc import Callable
from functools import partial
from typing import Any

from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext

from django_sessionkit.decorators import background_request
from django_sessionkit.staff.ending import EndingAdmin
from django_sessionkit.staff.glance import glance_view
from django_sessionkit.staff.permissions import may_end_sessions
from django_sessionkit.staff.progress import ending_view, endings_view
from django_sessionkit.staff.rank import may_throw_switch
from django_sessionkit.staff.shown import end_shown_view, is_a_part
from django_sessionkit.staff.switch import switch_view

# How the names of the URLs begin.
NAME = "django_sessionkit_usersession_"


class SessionPages(EndingAdmin):
    """The admin of sessions, with its other pages."""

    def get_urls(self) -> list[URLPattern]:
        def page(view: Callable[..., Any]) -> Callable[..., Any]:
            # Not in a transaction: others have to see at once what has begun, and what has ended.
            return non_atomic_requests(self.admin_site.admin_view(partial(view, self)))

        return [
            path("glance/", page(glance_view), name=f"{NAME}glance"),
            path("end/", page(end_shown_view), name=f"{NAME}end_shown"),
            path("switch/", page(switch_view), name=f"{NAME}switch"),
            path("endings/", page(endings_view), name=f"{NAME}endings"),
            # The page comes anew by itself, which is no activity of its reader.
            path(
                "endings/<int:number>/",
                background_request(page(ending_view)),
                name=f"{NAME}ending",
            ),
            *super().get_urls(),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = super().changelist_view(request, extra_context)
        context = getattr(response, "context_data", None) or {}
        if "cl" in context:
            context["session_tools"] = self._links(request, context["cl"])
        return response

    def _links(self, request: HttpRequest, shown: Any) -> list[tuple[str, str]]:
        """Return the URLs and texts of the links on the list, for what this request may do."""
        may_end, may_throw = may_end_sessions(request), may_throw_switch(request)
        links = [(self._url("glance"), gettext("At a glance"))]
        by_filter = self.may_end_by_filter(request)
        if by_filter and not shown.problem and is_a_part(shown.selection):
            text = gettext("End all sessions that this list shows")
            links.append((f"{self._url('end_shown')}?{request.GET.urlencode()}", text))
        if may_throw:
            links.append((self._url("switch"), gettext("End every session")))
        if may_end or may_throw:
            links.append((self._url("endings"), gettext("Recent endings")))
        return links

    def _url(self, name: str) -> str:
        return reverse(f"admin:{NAME}{name}", current_app=self.admin_site.name)
