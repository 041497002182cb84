"""
The page that the link in a mail leads to: "this was not me". It needs no sign-in, for a user whose
account was taken over may have none.
"""

from contextlib import suppress
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.utils.decorators import method_decorator
from django.views.generic import TemplateView

from django_sessionkit.decorators import GUARDS
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.grouping import with_its_browser
from django_sessionkit.links import password_url, reported
from django_sessionkit.models import UserSession
from django_sessionkit.paging import with_activity


@method_decorator([login_not_required, *GUARDS], name="dispatch")
class ReportView(TemplateView):
    """
    GET asks, POST ends the session in the link and every other session of that user in the same
    browser. GET changes nothing, for programs that look for viruses follow the links in mails. A
    link works once, and for a day.
    """

    template_name = "django_sessionkit/session_report.html"
    row: UserSession | None

    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().setup(request, *args, **kwargs)
        handle = reported(kwargs["token"])
        rows = with_activity(UserSession.objects.primary().select_related("user"), None)
        self.row = rows.filter(pk=handle).first() if handle else None

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = super().dispatch(request, *args, **kwargs)
        # The link must not reach other sites. Not "no-referrer": the form would come without its
        # origin then, and Django refuses it.
        response.headers["Referrer-Policy"] = "same-origin"
        response.headers["X-Robots-Tag"] = "noindex"
        return response

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(session=self.row, password_url=password_url(), **kwargs)

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        status = 404 if self.row is None else 200
        return self.render_to_response(self.get_context_data(), status=status)

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if self.row is None:
            return self.get(request)
        if self.row.reported_at is None:
            end_as_reported(self.row)
        return HttpResponseRedirect(request.path)


def end_as_reported(row: UserSession) -> None:
    """End this session, which its user does not recognise, and what else its browser has."""
    rows = UserSession.objects.primary().filter(user=row.user_id)
    sessions = rows.filter(pk__in=with_its_browser(rows, row))
    # All or nothing, or the link would not work again after a failure in between.
    with transaction.atomic(rows.db):
        sessions.report()
        # The rows are marked even if the store does not answer. Then the next use of each session
        # ends it.
        with suppress(StoreUnavailable):
            sessions.revoke(by=row.user)
