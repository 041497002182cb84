from sessionkit_sites.base import *

INSTALLED_APPS += ["django_cas_ng"]
AUTHENTICATION_BACKENDS = ["django_cas_ng.backends.CASBackend"]
ROOT_URLCONF = "sessionkit_sites.cas_ng_urls"
CAS_SERVER_URL = "http://www.example.com/cas/"
