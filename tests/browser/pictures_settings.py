"""The example shop, as it is in the pictures of the docs."""

import os
from typing import Any

from django_sessionkit.policy import DAY, STAFF, Policy
from example_project.settings import *  # noqa: F403

TIME_ZONE = "Europe/London"
GEOIP_PATH = os.environ["GEOIP_PATH"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast
# The devices say where they are. In the shop, nobody stands between it and them.
SESSIONKIT_TRUSTED_PROXIES = 1
# The devices have to be there for longer than the shop's own policy leaves them alone.
SESSIONKIT_POLICY = "tests.browser.pictures_settings.policy"


def policy(user: Any, request: Any = None) -> Policy:
    return STAFF if user.is_staff else Policy(absolute=90 * DAY, limit=4, on_limit="ask")
