from sessionkit_sites.base import *

INSTALLED_APPS += ["impersonate"]
MIDDLEWARE += ["impersonate.middleware.ImpersonateMiddleware"]
ROOT_URLCONF = "impersonate.tests"
LOGIN_REDIRECT_URL = "/"
