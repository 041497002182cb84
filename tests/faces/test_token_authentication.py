"""Views of Django REST framework and operations of django-ninja know a user by a token."""

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import AsyncClient
from django.urls import path
from ninja import NinjaAPI
from rest_framework.decorators import api_view, authentication_classes, permission_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response

from django_sessionkit import tokens
from django_sessionkit.api.token_authentication import TokenAuthentication
from django_sessionkit.models import UserSession
from django_sessionkit.ninja import AsyncTokenAuth, TokenAuth
from tests import tokens as site
from tests.people import key_of
from tests.store import SessionStore
from tests.tokens import token_of

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site(__name__),
    pytest.mark.usefixtures("tokens"),
]


def who(request):
    return {"user": request.user.username, "sid": request.auth["sid"]}


# Django REST framework.


class Payments(TokenAuthentication):
    audience = "payments"


class Checked(TokenAuthentication):
    check_session = True


def rest(authentication):
    @api_view()
    @authentication_classes([authentication])
    @permission_classes([IsAuthenticated])
    def view(request):
        return Response(who(request))

    return view


# django-ninja.


class NinjaPayments(TokenAuth):
    audience = "payments"


class NinjaChecked(TokenAuth):
    check_session = True


api = NinjaAPI(urls_namespace="test_token_authentication")


@api.get("plain", auth=TokenAuth())
def plain(request):
    return who(request)


@api.get("payments", auth=NinjaPayments())
def payments(request):
    return who(request)


@api.get("checked", auth=NinjaChecked())
def checked(request):
    return who(request)


@api.get("async", auth=AsyncTokenAuth())
async def in_async(request):
    return who(request)


urlpatterns = [
    *site.urlpatterns,
    path("rest/plain", rest(TokenAuthentication)),
    path("rest/payments", rest(Payments)),
    path("rest/checked", rest(Checked)),
    path("ninja/", api.urls),
]

both = pytest.mark.parametrize("framework", ["rest", "ninja"])


@pytest.fixture
def ask(client, framework):
    """A function that asks a view, with a token or what else is given for one."""

    def ask(view, token=None, scheme="Bearer"):
        headers = {} if token is None else {"authorization": f"{scheme} {token}"}
        return client.get(f"/{framework}/{view}", headers=headers)

    return ask


@both
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_user_of_a_token_is_known(ask, laptop, scheme):
    token = token_of(laptop)
    answer = ask("plain", token, scheme)
    assert answer.json() == {"user": "alice", "sid": tokens.verify(token)["sid"]}
    assert not answer.cookies


@both
@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", "é", "x" * 100_000])
def test_what_is_no_token_is_refused(ask, token):
    assert ask("plain", token).status_code == 401


@both
def test_visitor_is_refused(ask):
    assert ask("plain").status_code == 401
    assert ask("plain", "YWxpY2U6c2VjcmV0", "Basic").status_code == 401


def test_rest_framework_says_what_was_wrong(client, laptop):
    answer = client.get("/rest/plain", headers={"authorization": "Bearer nonsense"})
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert answer.json() == {"detail": "Incorrect authentication credentials."}
    for headers in ({}, {"authorization": "Basic YWxpY2U6c2VjcmV0"}):
        answer = client.get("/rest/plain", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@both
def test_cookie_is_not_looked_at(ask, client, alice):
    client.force_login(alice)
    assert ask("plain").status_code == 401


@both
def test_key_of_a_session_is_left_to_others(ask, laptop, monkeypatch):
    monkeypatch.setattr(tokens, "authenticate", lambda *args, **options: pytest.fail("looked at"))
    assert ask("plain", f"sk_{key_of(laptop)}").status_code == 401


@both
def test_token_is_for_the_audience_of_the_view(ask, laptop):
    token = tokens.issue(SessionStore(key_of(laptop)), audience="payments")
    assert ask("payments", token).status_code == 200
    assert ask("plain", token).status_code == 401
    assert ask("payments", token_of(laptop)).status_code == 401


@both
def test_view_can_ask_whether_the_session_goes_on(ask, laptop):
    token = token_of(laptop)
    assert ask("checked", token).status_code == 200
    UserSession.objects.revoke()
    assert ask("checked", token).status_code == 401
    assert ask("plain", token).status_code == 200


@both
def test_disabled_user_is_refused(ask, laptop):
    token = token_of(laptop)
    User.objects.update(is_active=False)
    assert ask("plain", token).status_code == 401
    assert ask("checked", token).status_code == 401


@both
def test_disabled_user_whom_the_site_lets_in_is_let_in(ask, laptop, settings):
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.AllowAllUsersModelBackend"]
    token = token_of(laptop)
    User.objects.update(is_active=False)
    assert ask("plain", token).status_code == 200


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("good", "status"), [(True, 200), (False, 401)])
def test_operation_that_is_a_coroutine_knows_the_user_too(laptop, good, status):
    token = token_of(laptop) if good else "nonsense"
    ask = async_to_sync(AsyncClient().get)
    answer = ask("/ninja/async", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == status
