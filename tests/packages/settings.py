"""The site of the tests, with packages that do something with sessions."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS, MIDDLEWARE

ROOT_URLCONF = "tests.packages.urls"
LOGIN_REDIRECT_URL = "/"

INSTALLED_APPS = [
    *INSTALLED_APPS,
    "allauth",
    "allauth.account",
    "allauth.headless",
    "allauth.usersessions",
    "axes",
    "django.contrib.humanize",
    "django_cas_ng",
    "hijack",
    "impersonate",
    "knox",
    "loginas",
    "mozilla_django_oidc",
    "oauth2_provider",
    "rest_framework_simplejwt.token_blacklist",
]

MIDDLEWARE = [
    *MIDDLEWARE,
    "allauth.account.middleware.AccountMiddleware",
    "allauth.usersessions.middleware.UserSessionsMiddleware",
    "hijack.middleware.HijackUserMiddleware",
    "impersonate.middleware.ImpersonateMiddleware",
    "axes.middleware.AxesMiddleware",
]

AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
    "django_cas_ng.backends.CASBackend",
    "mozilla_django_oidc.auth.OIDCAuthenticationBackend",
]

USERSESSIONS_TRACK_ACTIVITY = True
HEADLESS_ENABLED = True

LOGINAS_LOGOUT_REDIRECT_URL = "/"
IMPERSONATE = {"REDIRECT_URL": "/", "REQUIRE_SUPERUSER": True}

# A test that is about axes turns it on.
AXES_ENABLED = False

# The tests have a server of their own for these two, and say where it is.
CAS_SERVER_URL = "http://127.0.0.1/cas/"
CAS_VERSION = "3"
OIDC_RP_CLIENT_ID = "shop"
OIDC_RP_CLIENT_SECRET = "of the tests, and long enough for SHA-256"
OIDC_RP_SIGN_ALGO = "HS256"
OIDC_OP_AUTHORIZATION_ENDPOINT = "http://127.0.0.1/authorize"
OIDC_OP_TOKEN_ENDPOINT = "http://127.0.0.1/token"
OIDC_OP_USER_ENDPOINT = "http://127.0.0.1/userinfo"
