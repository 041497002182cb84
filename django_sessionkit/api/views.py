"""The sessions of the user: to see, to name and to end."""

import uuid
from typing import Any

from django.contrib.auth import logout
from django.http.response import HttpResponseBase
from django.middleware.csrf import get_token
from django.shortcuts import get_object_or_404
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from django_sessionkit.api import serializers
from django_sessionkit.api.base import HasSession, SessionKitView
from django_sessionkit.api.cursors import asked_in, link
from django_sessionkit.api.schema import BODY, CURSOR, FORBIDDEN, operation
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.history import how_it_ended, with_enders
from django_sessionkit.models import UserSession, UserSessionQuerySet
from django_sessionkit.own_sessions import end, for_its_user, handle_of, renamable, rename
from django_sessionkit.paging import ENDED_SIDES, Page, ended_of, page_of
from django_sessionkit.visit.client import is_of_app

NOT_FOUND = {404: "The user has no such session."}
NO_PAGE = {404: "There is no such page."}
DELAYED = {202: serializers.DelayedSerializer}


def shown(session: UserSession) -> Any:
    """Return the JSON of a session."""
    return serializers.SessionSerializer(*for_its_user([session])).data


def turned(request: Request, page: Page) -> dict[str, Any]:
    """Return the JSON of a page, but for what is on it."""
    return {"next": link(request, page.next), "previous": link(request, page.previous)}


class SessionsView(SessionKitView):
    @operation(
        "sessions_list",
        {200: serializers.SessionPageSerializer},
        NO_PAGE,
        parameters=[CURSOR],
        description="The sessions of the user: the current one first, then the last active.",
    )
    def get(self, request: Request) -> Response:
        page = page_of(self.own_sessions(), handle_of(request._request), asked_in(request))
        results = serializers.SessionSerializer(for_its_user(page.sessions), many=True).data
        answer = {**turned(request, page), "results": results, "other_count": page.other_count}
        return Response(answer)


class HistoryView(SessionKitView):
    @operation(
        "sessions_history",
        {200: serializers.EndedSessionPageSerializer},
        NO_PAGE,
        parameters=[CURSOR],
        description="The sessions that ended within the last 30 days, the last one first.",
    )
    def get(self, request: Request) -> Response:
        page = ended_of(with_enders(self.own_sessions()), asked_in(request, ENDED_SIDES))
        for session in for_its_user(page.sessions):
            session.how_it_ended = how_it_ended(session)  # type: ignore[attr-defined]
        results = serializers.EndedSessionSerializer(page.sessions, many=True).data
        return Response({**turned(request, page), "results": results})


class CurrentSessionView(SessionKitView):
    def get_permissions(self) -> list[BasePermission]:
        return [HasSession() if self.request.method == "DELETE" else IsAuthenticated()]

    @operation(
        "sessions_current",
        {200: serializers.CurrentSessionSerializer},
        NOT_FOUND,
        description="The session of this request, and the CSRF token for it.",
    )
    def get(self, request: Request) -> Response:
        session = get_object_or_404(self.own_sessions(), pk=handle_of(request._request))
        token = None if is_of_app(request._request) else get_token(request._request)
        return Response({**shown(session), "csrf_token": token})

    @operation(
        "sessions_sign_out",
        {204: None},
        FORBIDDEN,
        description="Sign out, also where the session is locked.",
    )
    def delete(self, request: Request) -> Response:
        logout(request._request)
        return Response(status=204)


class SessionView(SessionKitView):
    @operation(
        "sessions_end",
        {204: None, **DELAYED},
        NOT_FOUND,
        FORBIDDEN,
        description="End a session. The current one: sign out. Others take a recent proof.",
    )
    def delete(self, request: Request, pk: uuid.UUID) -> HttpResponseBase:
        if pk == handle_of(request._request):
            logout(request._request)
            return Response(status=204)
        if asked := self.asked_for_proof(request):
            return asked
        get_object_or_404(self.own_sessions(), pk=pk)
        ended = ended_by(request, self.own_sessions().filter(pk=pk))
        return delayed() if ended is None else Response(status=204)

    @operation(
        "sessions_rename",
        {200: serializers.SessionSerializer},
        BODY,
        NOT_FOUND,
        FORBIDDEN,
        request=serializers.LabelSerializer,
        description="Name the device of a session, for all of its sessions. An empty name is none.",
    )
    def patch(self, request: Request, pk: uuid.UUID) -> Response:
        sessions = renamable(self.own_sessions())
        session = get_object_or_404(sessions, pk=pk)
        sent = self.sent(serializers.LabelSerializer)
        if "label" in sent:
            rename(sessions, session, sent["label"])
        return Response(shown(session))


class EndOthersView(SessionKitView):
    @operation(
        "sessions_end_others",
        {200: serializers.EndedSerializer, **DELAYED},
        FORBIDDEN,
        request=None,
        description="End all sessions but the current one. This takes a recent proof.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        if asked := self.asked_for_proof(request):
            return asked
        ended = ended_by(request, self.own_sessions().other_than(request._request))
        return delayed() if ended is None else Response({"ended": ended})


def ended_by(request: Request, sessions: UserSessionQuerySet) -> int | None:
    """End these sessions, and return how many were active, or None if the store does not answer."""
    try:
        return end(request._request, sessions)
    except StoreUnavailable:
        return None


def delayed() -> Response:
    return Response({"within": conf.SESSIONKIT_TOUCH_INTERVAL}, status=202)
