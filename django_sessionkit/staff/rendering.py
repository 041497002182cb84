"""How the pages of the staff that Django's admin does not have are made, with its frame."""

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.template.response import TemplateResponse

from django_sessionkit.models import UserSession


def render(
    site: AdminSite, request: HttpRequest, name: str, title: str, **context: Any
) -> TemplateResponse:
    """Return the page of this template, which extends _page.html."""
    frame = {
        **site.each_context(request),
        "title": title,
        "original": title,  # what the breadcrumbs end with
        "opts": UserSession._meta,
        "has_view_permission": True,
    }
    request.current_app = site.name
    return TemplateResponse(
        request, f"admin/django_sessionkit/usersession/{name}.html", {**frame, **context}
    )
