"""The example project, with a log that says all: every statement, with its parameters."""

import os

from example_project.settings import *  # noqa: F403

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "DEBUG"},
    "loggers": {"django": {"level": "DEBUG"}},
}

# In Redis it has keys of its own: the server may be somebody's.
SESSIONKIT_REDIS_PREFIX = os.environ.get("SESSIONKIT_REDIS_PREFIX", "sessionkit:")
