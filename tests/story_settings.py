"""The example project, with a log of everything: every SQL statement, with its parameters."""

import os

from example_project.settings import *  # noqa: F403

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "DEBUG"},
    "loggers": {"django": {"level": "DEBUG"}},
}

# A prefix of its own in Redis, because the server may hold other data.
SESSIONKIT_REDIS_PREFIX = os.environ.get("SESSIONKIT_REDIS_PREFIX", "sessionkit:")

ROOT_URLCONF = "tests.story_urls"
SESSIONKIT_POLICY = os.environ.get("SESSIONKIT_POLICY", "example_project.policy.policy")
