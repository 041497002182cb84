"""The cookie of a session that has ended, beside what answers for itself: a view that did not
refuse stands, and a refusal of its own keeps its words."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.test import Client
from django.urls import path
from django.utils import timezone
from oauth2_provider.decorators import protected_resource
from oauth2_provider.models import get_access_token_model

from django_sessionkit.models import UserSession
from tests.browsers import PAGE, SCRIPT
from tests.packages.urls import urlpatterns as site
from tests.people import who

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]


@protected_resource()
def resource(request):
    assert str(request.user) == "AnonymousUser"  # which looks at the session
    return HttpResponse(request.resource_owner.username)


def csrf_token(request):
    """As an app with a page of its own fetches its token, and who is signed in."""
    return JsonResponse({"token": get_token(request), "user": request.user.get_username()})


urlpatterns = [*site, path("resource/", resource), path("csrf_token/", csrf_token)]


@pytest.fixture
def ended_session(phone):
    """A browser that still has the cookie of a session that was ended."""
    UserSession.objects.revoke()
    return phone


@pytest.mark.parametrize("kind", [PAGE, SCRIPT])
def test_a_valid_token_is_answered_whatever_cookie_comes_with_it(ended_session, bob, kind):
    expires = timezone.now() + timedelta(hours=1)
    token = get_access_token_model().objects.create(
        user=bob, token="of-bob", expires=expires, scope="read write"
    )
    headers = {**kind, "authorization": f"Bearer {token.token}"}
    for _ in range(2):
        answer = ended_session.get("/resource/", headers=headers)
        assert (answer.status_code, answer.content) == (200, b"bob")


def test_an_app_that_fetches_its_csrf_token_signs_in_again(alice: User):
    app = Client(enforce_csrf_checks=True, headers=SCRIPT)

    def sign_in():
        answer = app.get("/csrf_token/")
        assert answer.status_code == 200
        fields = {"username": "alice", "password": "secret"}
        fields["csrfmiddlewaretoken"] = answer.json()["token"]
        assert app.post("/login/", fields).status_code == 302
        assert who(app) == "alice"

    sign_in()
    UserSession.objects.revoke()
    sign_in()


def test_a_script_reads_what_allauth_says_of_a_session_that_has_ended(ended_session):
    answer = ended_session.get("/_allauth/browser/v1/auth/session", headers=SCRIPT)
    assert answer.status_code == 401
    assert answer.json()["meta"] == {"is_authenticated": False}
    assert {"id": "login"} in answer.json()["data"]["flows"]
