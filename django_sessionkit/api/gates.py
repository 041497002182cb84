"""
What comes between a user and what they want: a proof of identity, and room for one more session.
Both answer while the session is locked.
"""

from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.http.response import HttpResponseBase
from django.utils.translation import gettext
from django.views.decorators.debug import sensitive_variables
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from django_sessionkit import answers
from django_sessionkit.api import serializers
from django_sessionkit.api.base import HasSession, SessionKitView
from django_sessionkit.api.cursors import asked_in, link
from django_sessionkit.api.handling import (
    ChooseMore,
    Ended,
    NothingToChoose,
    ProofElsewhere,
    WrongPassword,
)
from django_sessionkit.api.schema import BODY, CURSOR, operation
from django_sessionkit.api.throttling import PerAccount, PerAddress
from django_sessionkit.exceptions import TooManySessions
from django_sessionkit.farewells import FAREWELLS
from django_sessionkit.forms import PasswordForm
from django_sessionkit.models import EndReason
from django_sessionkit.own_sessions import for_its_user
from django_sessionkit.proofs import (
    account_to_prove,
    is_asked_by_us,
    note_proof,
    proof_url,
    row_of_locked,
)
from django_sessionkit.room import Choice, asked_for
from django_sessionkit.visit.interruptions import Lock


def lock_of(request: Request) -> Any:
    return getattr(request._request.session, "locked", None)


class ReauthenticateView(SessionKitView):
    permission_classes = (HasSession,)
    throttle_classes = (PerAccount, PerAddress)

    @operation(
        "reauthenticate",
        {204: None},
        BODY,
        {403: "The password is wrong, or not what proves it; or the CSRF token is."},
        {429: "Too many passwords were tried."},
        request=serializers.PasswordSerializer,
        description="Prove who one is by the password. This unlocks a locked session, too.",
    )
    @sensitive_variables()
    def post(self, request: Request) -> HttpResponseBase:
        locked = lock_of(request)
        if locked and locked.reason == Lock.LIMIT:
            return answers.lead_to_unlock(request._request, locked)
        account = self.account(request)
        password = self.sent(serializers.PasswordSerializer)["password"]
        form = PasswordForm(request._request, account, {"password": password})
        if not form.is_valid():
            raise WrongPassword(str(form.errors["password"][0]))
        note_proof(request._request.session, form.user)
        return Response(status=204)

    def account(self, request: Request) -> AbstractBaseUser:
        account = account_to_prove(request._request)
        if isinstance(account, EndReason):
            raise Ended(str(FAREWELLS[account]), reason=account.value)
        if account is None:
            raise NotAuthenticated
        if not is_asked_by_us(account):
            detail = gettext("Please confirm that it is you on the page for that.")
            raise ProofElsewhere(detail, url=proof_url(account))
        return account


class LimitView(SessionKitView):
    permission_classes = (HasSession,)

    @operation(
        "limit",
        {200: serializers.LimitSerializer},
        {404: "The user has nothing to choose, or there is no such page."},
        parameters=[CURSOR],
        description="The sessions of a user with one too many, who chooses which are to end.",
    )
    def get(self, request: Request) -> HttpResponseBase:
        choice = self.choice(request)
        if not isinstance(choice, Choice):
            return choice
        page = choice.page(asked_in(request))
        results = serializers.SessionSerializer(for_its_user(page.sessions), many=True).data
        return Response(
            {
                "next": link(request, page.next),
                "previous": link(request, page.previous),
                "results": results,
                "other_count": page.other_count,
                "limit": choice.limit,
                "needed": choice.needed(page),
            }
        )

    @operation(
        "limit_choose",
        {204: None},
        BODY,
        {403: "The CSRF token is missing or wrong."},
        {404: "The user has nothing to choose, or there is no such page."},
        {409: "More sessions have to end."},
        request=serializers.ChoiceSerializer,
        parameters=[CURSOR],
        description="End the sessions that the user has chosen, and go on with this one.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        choice = self.choice(request)
        if not isinstance(choice, Choice):
            return choice
        sent = self.sent(serializers.ChoiceSerializer)
        ending = None if sent.get("all") else choice.alive(sent.get("sessions", []))
        needed = choice.needed(choice.page(asked_in(request)))
        if ending is not None and len(ending) < needed:
            raise ChooseMore(asked_for(needed), needed=needed)
        choice.end(ending)
        try:
            request._request.session.unlock()
        except TooManySessions:
            detail = gettext("These devices were signed out. Please choose more.")
            raise ChooseMore(detail, needed=1) from None
        return Response(status=204)

    def choice(self, request: Request) -> Choice | HttpResponseBase:
        """Return the choice that a user has, or the answer to somebody who has none."""
        locked = lock_of(request)
        if locked is None:
            raise NothingToChoose(gettext("There is nothing to choose."))
        if locked.reason != Lock.LIMIT:
            return answers.lead_to_unlock(request._request, locked)
        row = row_of_locked(locked)
        if row is None:
            request._request.session.flush()
            raise NotAuthenticated
        return Choice(row, locked.limit)
