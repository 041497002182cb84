"""The table in docs/apps.md: what tokens for apps do, ours and others. Each cell is tried."""

import re

import pytest
from allauth.usersessions.models import UserSession as AllauthSession
from django.contrib.sessions.models import Session
from django.urls import include, path
from django.utils.module_loading import import_string
from knox.models import AuthToken
from knox.views import LoginView, LogoutView
from rest_framework.authentication import BasicAuthentication
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken
from rest_framework_simplejwt.views import TokenBlacklistView, TokenObtainPairView

from django_sessionkit.models import StoredSession, UserSession
from tests.browsers import Browser
from tests.documents import section
from tests.packages.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db, pytest.mark.once, pytest.mark.site(__name__)]


class Who(APIView):
    permission_classes = (IsAuthenticated,)

    def get(self, request):
        return Response(request.user.get_username())


class KnoxLogin(LoginView):
    authentication_classes = (BasicAuthentication,)


AUTHENTICATION = {
    "sessionkit": "django_sessionkit.api.authentication.SessionAuthentication",
    "allauth": "allauth.headless.contrib.rest_framework.authentication.XSessionTokenAuthentication",
    "knox": "knox.auth.TokenAuthentication",
    "simplejwt": "rest_framework_simplejwt.authentication.JWTAuthentication",
}


def who(authentication):
    return Who.as_view(authentication_classes=[import_string(authentication)])


urlpatterns = [
    *site,
    *[path(f"who/{name}/", who(each)) for name, each in AUTHENTICATION.items()],
    path("api/", include("django_sessionkit.api.sign_in_urls")),
    path("knox/sign-in/", KnoxLogin.as_view()),
    path("knox/sign-out/", LogoutView.as_view()),
    path("simplejwt/sign-in/", TokenObtainPairView.as_view()),
    path("simplejwt/sign-out/", TokenBlacklistView.as_view()),
]

ALICE = {"username": "alice", "password": "secret"}


class App:
    """An app in which Alice signs in by a package. ``sent`` are the headers with its token."""

    def __init__(self, package, settings):
        self.client = Browser()
        self.package = package
        # Long enough for SHA-256.
        settings.SIMPLE_JWT = {"SIGNING_KEY": "of the tests, and long enough for SHA-256"}
        if package == "allauth":  # on the engine that it is made for
            settings.SESSION_ENGINE = "django.contrib.sessions.backends.db"
        getattr(self, package)()

    def post(self, url, data=None, **more):
        answer = self.client.post(url, data or {}, "application/json", **more)
        assert answer.status_code < 300, answer.content
        return answer.json()

    def sessionkit(self):
        self.token = self.post("/api/v1/sign-in/", ALICE)["key"]
        self.sent = {"authorization": f"Bearer {self.token}"}

    def allauth(self):
        self.token = self.post("/_allauth/app/v1/auth/login", ALICE)["meta"]["session_token"]
        self.sent = {"x-session-token": self.token}

    def knox(self):
        basic = {"authorization": "Basic YWxpY2U6c2VjcmV0"}
        self.token = self.post("/knox/sign-in/", headers=basic)["token"]
        self.sent = {"authorization": f"Token {self.token}"}

    def simplejwt(self):
        pair = self.post("/simplejwt/sign-in/", ALICE)
        self.token, self.refresh = pair["access"], pair["refresh"]
        self.sent = {"authorization": f"Bearer {self.token}"}

    def sign_out(self):
        if self.package == "sessionkit":
            self.client.delete("/api/v1/sessions/current/", headers=self.sent)
        elif self.package == "allauth":
            self.client.delete("/_allauth/app/v1/auth/session", headers=self.sent)
        elif self.package == "knox":
            self.client.post("/knox/sign-out/", headers=self.sent)
        else:
            self.post("/simplejwt/sign-out/", {"refresh": self.refresh})

    def is_in(self):
        answer = self.client.get(f"/who/{self.package}/", headers=self.sent)
        assert answer.status_code in (200, 401, 403)
        return answer.status_code == 200


def signing_out_ends_it(app, alice):
    app.sign_out()
    return not app.is_in()


def new_password_ends_it(app, alice):
    alice.set_password("another")
    alice.save()
    return not app.is_in()


def disabled_account_is_out(app, alice):
    alice.is_active = False
    alice.save()
    return not app.is_in()


def stolen_database_has_no_token(app, alice):
    rows = [row for table in TABLES[app.package] for row in table.objects.values_list()]
    assert rows
    return not any(app.token.removeprefix("sk_") in str(row) for row in rows)


def is_beside_the_browsers(app, alice):
    assert app.is_in()
    browser = Browser()
    browser.force_login(alice, "django.contrib.auth.backends.ModelBackend")
    browser.get("/whoami/")
    if app.package == "allauth":
        return AllauthSession.objects.filter(user=alice).count() == 2
    return UserSession.objects.active().filter(user=alice).count() == 2


TABLES = {
    "sessionkit": [UserSession, StoredSession],
    "allauth": [Session, AllauthSession],
    "knox": [AuthToken],
    "simplejwt": [OutstandingToken],
}
# The rows of the table, and how each is tried.
TRIED = {
    "Signing out ends the token on the server": signing_out_ends_it,
    "A new password ends it": new_password_ends_it,
    "An account that is disabled is out at once": disabled_account_is_out,
    "A stolen database has no token that can be used": stolen_database_has_no_token,
    "The app is in one list with the browsers": is_beside_the_browsers,
}
COLUMNS = ["sessionkit", "allauth", "knox", "simplejwt"]


def said():
    """Return what the table says: the cells of each row, by its first one."""
    table = section("docs/apps.md", "Beside other packages")
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {first: cells for first, *cells in rows[2:]}


@pytest.mark.parametrize("package", COLUMNS)
@pytest.mark.parametrize("row", TRIED)
def test_each_cell_is_tried(row, package, settings, alice):
    app = App(package, settings)
    assert app.is_in()
    (answer,) = re.findall("^(yes|no)", said()[row][COLUMNS.index(package)])
    assert TRIED[row](app, alice) is (answer == "yes")


def test_the_table_has_no_other_rows():
    assert set(said()) == set(TRIED)
