"""The example project, with a log that says all: every statement, with its parameters."""

from example_project.settings import *  # noqa: F403

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "DEBUG"},
    "loggers": {"django": {"level": "DEBUG"}},
}
