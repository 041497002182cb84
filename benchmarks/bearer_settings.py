"""A site for apps, with the tokens of one package: see bearer.py."""

import json
import os
from typing import Any

from benchmarks import processes
from benchmarks.bearer import SITES
from benchmarks.contenders import Servers

SITE = SITES[os.environ["BENCHMARKS_SITE"]]
_servers = Servers(*json.loads(os.environ["BENCHMARKS_SERVERS"]))

globals().update(SITE.contender.settings_on(_servers))
# Each request has a thread of its own, under ASGI: a pool keeps the connections.
DATABASES: dict[str, dict[str, Any]] = globals()["DATABASES"]
DATABASES["default"] |= {"CONN_MAX_AGE": 0, "OPTIONS": {"pool": {"max_size": 20}}}
SECRET_KEY = processes.SECRET_KEY  # the sessions were made with this key
ALLOWED_HOSTS = ["*"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "benchmarks.bearer_urls"
INSTALLED_APPS = [*globals()["INSTALLED_APPS"], *SITE.apps]
MIDDLEWARE = [
    "django.middleware.common.CommonMiddleware",  # says how long an answer is
    *globals()["MIDDLEWARE"],
    *SITE.middleware,
]
