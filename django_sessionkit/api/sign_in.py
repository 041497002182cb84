"""
An app signs in by a password, and gets a session key for its header. A site that asks for more than
a password writes a view of its own, with headers.sign_in(): so these URLs are apart.
"""

from typing import Any

from django.contrib.auth import authenticate
from django.utils.translation import gettext
from django.views.decorators.debug import sensitive_variables
from rest_framework.request import Request
from rest_framework.response import Response

from django_sessionkit.api import serializers
from django_sessionkit.api.base import SessionKitView
from django_sessionkit.api.handling import WrongPassword
from django_sessionkit.api.schema import BODY, operation
from django_sessionkit.api.throttling import PerAddress, PerUsername
from django_sessionkit.headers import app_of, device_name, sign_in
from django_sessionkit.visit.interruptions import Lock


class SignInView(SessionKitView):
    authentication_classes: Any = ()  # a stranger, whatever the cookies are: the answer sets none
    permission_classes = ()
    throttle_classes = (PerUsername, PerAddress)

    @operation(
        "sign_in",
        {200: serializers.SignedInSerializer},
        BODY,
        {403: "The password is wrong, or the user may have no more sessions."},
        {429: "Too many passwords were tried."},
        request=serializers.SignInSerializer,
        description="Sign in an app, which keeps the key and sends it with every request.",
    )
    @sensitive_variables()
    def post(self, request: Request) -> Response:
        sent = self.sent(serializers.SignInSerializer)
        site_request = request._request
        credentials = {"username": sent["username"], "password": sent["password"]}
        user = authenticate(site_request, **credentials)
        if user is None:
            raise WrongPassword(gettext("That is not the user name and password of an account."))
        key = sign_in(site_request, user, app=app_of(**sent.get("app", {})))
        session: Any = site_request.session
        return Response(
            {
                "key": key,
                "device": device_name(site_request),
                "locked": Lock.LIMIT.value if session.waits_for_room else None,
            }
        )
