"""An app gets a URL that its web view loads, to be signed in there: see handover.py."""

from django.http import Http404
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext
from django.views.decorators.debug import sensitive_variables
from rest_framework.request import Request
from rest_framework.response import Response

from django_sessionkit.api import serializers
from django_sessionkit.api.base import SessionKitView
from django_sessionkit.api.handling import NotAnApp
from django_sessionkit.api.schema import BODY, operation
from django_sessionkit.handover import issue

NAME = "django_sessionkit:session_hand_over"


class HandOverView(SessionKitView):
    @operation(
        "hand_over",
        {200: serializers.HandedOverSerializer},
        BODY,
        {404: "The site has no page that the web view could load."},
        {403: "The session is not that of an app, or the CSRF token is missing or wrong."},
        request=serializers.HandOverSerializer,
        description="Get the URL that signs a web view in. It works once, for 60 seconds.",
    )
    @sensitive_variables()
    def post(self, request: Request) -> Response:
        try:
            reverse(NAME, args=["-"])
        except NoReverseMatch:  # a site without our pages
            raise Http404 from None
        sent = self.sent(serializers.HandOverSerializer)
        try:
            code = issue(request._request, sent.get("next", ""))
        except ValueError:
            raise NotAnApp(gettext("Only the session of an app can open a web view.")) from None
        url = reverse(NAME, args=[code])
        return Response({"url": request.build_absolute_uri(url)})
