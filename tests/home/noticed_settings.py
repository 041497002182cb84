"""The example project with notices, and a mail server that takes its time."""

import django

from tests.home.served_settings import *  # noqa: F403

ROOT_URLCONF = "tests.home.noticed"
SESSIONKIT_NOTICES = ["old_key"]
SESSIONKIT_SITE_URL = "https://shop.example"
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "tests.home.noticed.SlowBackend"}}
else:
    EMAIL_BACKEND = "tests.home.noticed.SlowBackend"
