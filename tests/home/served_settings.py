"""The example project, with views that look behind the web server."""

import json
import os

from example_project.settings import *  # noqa: F403

DEBUG = False
ROOT_URLCONF = "tests.home.served"
# Without the limit of the shop: tests share its users.
SESSIONKIT_POLICY = "django_sessionkit.policy.default"
# A connection is kept, as on most sites: by a worker, for its own requests.
DATABASES["default"]["CONN_MAX_AGE"] = 60  # noqa: F405
DATABASES["default"]["OPTIONS"] = json.loads(os.environ.get("DATABASE_OPTIONS", "{}"))  # noqa: F405
# A prefix of its own in Redis, because the server may hold other data.
SESSIONKIT_REDIS_PREFIX = os.environ.get("SESSIONKIT_REDIS_PREFIX", "sessionkit:")
