from sessionkit_sites.base import *

INSTALLED_APPS += ["mozilla_django_oidc"]
AUTHENTICATION_BACKENDS = ["mozilla_django_oidc.auth.OIDCAuthenticationBackend"]
ROOT_URLCONF = "sessionkit_sites.oidc_urls"
LOGIN_REDIRECT_URL = "/"
OIDC_OP_AUTHORIZATION_ENDPOINT = "https://provider.example/authorize"
OIDC_OP_TOKEN_ENDPOINT = "https://provider.example/token"
OIDC_OP_USER_ENDPOINT = "https://provider.example/user"
OIDC_RP_CLIENT_ID = "client"
OIDC_RP_CLIENT_SECRET = "secret"
OIDC_USERNAME_ALGO = None
