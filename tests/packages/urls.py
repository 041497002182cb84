"""The site of the tests, with the pages of the packages."""

from django.urls import include, path

from tests.urls import urlpatterns as site

urlpatterns = [
    *site,
    path("accounts/sessions/", include("allauth.usersessions.urls")),
    path("accounts/", include("allauth.account.urls")),
    path("_allauth/", include("allauth.headless.urls")),
    path("hijack/", include("hijack.urls")),
    path("impersonate/", include("impersonate.urls")),
    path("loginas/", include("loginas.urls")),
    path("oidc/", include("mozilla_django_oidc.urls")),
    path("oauth/", include("oauth2_provider.urls")),
]
