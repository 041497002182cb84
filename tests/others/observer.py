"""
A pytest plugin inside the suite of another package: it swaps Django's sessions for ours, if the
environment says so, and writes down how each test ended.
"""

import json
import os
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings

OURS = os.environ["SESSIONKIT_OTHERS_ENGINE"] == "ours"
OUTCOMES = Path(os.environ["SESSIONKIT_OTHERS_OUTCOMES"])

APP, ENGINE = "django_sessionkit", "django_sessionkit.backends.db"
MIDDLEWARE = {
    "django.contrib.sessions.middleware.SessionMiddleware": (
        "django_sessionkit.middleware.SessionMiddleware"
    )
}

FAST = ["django.contrib.auth.hashers.MD5PasswordHasher"]

set_up = django.setup
outcomes: dict[str, str] = {}
said: dict[str, str] = {}
sessions = 0


def set_up_for_comparison(*args: Any, **kwargs: Any) -> None:
    """Change the settings, wherever a suite has them from, before Django reads the first one."""
    if not settings.is_overridden("PASSWORD_HASHERS"):  # type: ignore[misc]
        settings.PASSWORD_HASHERS = FAST
    if not OURS or APP in settings.INSTALLED_APPS:
        set_up(*args, **kwargs)
        return
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, APP]
    settings.MIDDLEWARE = [MIDDLEWARE.get(path, path) for path in settings.MIDDLEWARE]
    settings.SESSION_ENGINE = ENGINE
    set_up(*args, **kwargs)
    count_sessions()


def count_sessions() -> None:
    """A suite that never makes a session of ours shows nothing."""
    from django_sessionkit.backends.db import SessionStore  # after the apps

    made = SessionStore.__init__

    def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        global sessions
        sessions += 1
        made(self, *args, **kwargs)

    SessionStore.__init__ = counted  # type: ignore[method-assign]


django.setup = set_up_for_comparison


def note(name: str, outcome: str, report: Any) -> None:
    """Note the worst of the phases of a test, and of its subtests."""
    order = ["passed", "skipped", "failed"]
    outcomes[name] = max(outcome, outcomes.get(name, "passed"), key=order.index)
    if outcome == "failed":
        said[name] = str(report.longrepr)[-2000:]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    note(report.nodeid, report.outcome, report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        note(report.nodeid, "failed", report)


def pytest_sessionfinish() -> None:
    found = {"outcomes": outcomes, "said": said, "sessions": sessions}
    OUTCOMES.write_text(json.dumps(found))
