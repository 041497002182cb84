"""
Django's own tests of sessions, of the Django that is installed, run against the kit.

They come from Django's source distribution, the wheel has no tests. What pip downloads is kept in
.cache, so that this needs a package index once for every version of Django.
"""

import importlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import TestCase, mock

import django
import pytest
from django.contrib.sessions.backends.db import SessionStore as DjangoSessionStore
from django.test import override_settings

from django_sessionkit.backends.db import SessionStore
from django_sessionkit.middleware import SessionMiddleware
from django_sessionkit.models import StoredSession
from tests.servers import PROJECT


def download(folder: Path) -> None:
    """Put Django's tests/sessions_tests/tests.py into a folder."""
    with tempfile.TemporaryDirectory() as downloads:
        pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "download"]
        source = ["--no-deps", "--no-binary", "django", f"django=={django.__version__}"]
        subprocess.run([*pip, *source, "--dest", downloads], check=True)
        folder.mkdir(parents=True, exist_ok=True)
        (archive,) = Path(downloads).iterdir()
        with tarfile.open(archive) as tar:
            member = f"{archive.name.removesuffix('.tar.gz')}/tests/sessions_tests/tests.py"
            tests = tar.extractfile(member)
            assert tests
            (folder / "tests.py").write_bytes(tests.read())


def load() -> ModuleType:
    folder = PROJECT / ".cache" / f"django-{django.__version__}-sessions_tests"
    if not (folder / "tests.py").exists():
        download(folder)
    package = ModuleType("sessions_tests")
    package.__path__ = [str(folder)]
    # In place of Django's example of a custom model, whose table only Django's own runner makes.
    models = ModuleType("sessions_tests.models")
    vars(models).update(SessionStore=DjangoSessionStore)
    sys.modules.update({"sessions_tests": package, "sessions_tests.models": models})
    return importlib.import_module("sessions_tests.tests")


suite: Any = load()

# Why a test of Django's cannot hold for us. The tests below are left out, and only these.
BY_COOKIE = "looks a row up by the value of the cookie, which is in no table of ours"
ANSWERED = "wants Django's bare 400 for a session that ended meanwhile; ours answers with a page"
CANNOT_HOLD = {
    "EngineTests": {
        "test_session_str": BY_COOKIE,
        "test_session_get_decoded": BY_COOKIE,
        "test_sessionmanager_save": BY_COOKIE,
    },
    "MiddlewareTests": {
        "test_empty_session_saved": BY_COOKIE,
        "test_session_update_error_redirect": ANSWERED,
    },
}


def leave_out(tests: type[TestCase]) -> type[TestCase]:
    for name in CANNOT_HOLD[tests.__name__]:
        assert name in dir(tests), f"Django has no {name} any more: take it out of CANNOT_HOLD"
        setattr(tests, name, None)  # unittest's way to not inherit a test
    return tests


@leave_out
class EngineTests(suite.DatabaseSessionTests):
    backend = SessionStore
    session_engine = "django_sessionkit.backends.db"
    model = StoredSession


@leave_out
class MiddlewareTests(suite.SessionMiddlewareTests):
    @pytest.fixture(autouse=True)
    def ours(self):
        with mock.patch.multiple(
            suite, SessionMiddleware=SessionMiddleware, DatabaseSession=SessionStore
        ):
            yield

    # Ours deletes the cookie with the attributes that it was set with; Django's forgets this one.
    plainly = override_settings(SESSION_COOKIE_HTTPONLY=False)
    test_session_delete_on_end = plainly(suite.SessionMiddlewareTests.test_session_delete_on_end)
    test_session_delete_on_end_with_custom_domain_and_path = plainly(
        suite.SessionMiddlewareTests.test_session_delete_on_end_with_custom_domain_and_path
    )


def test_the_whole_contract_is_tested():
    contract = [name for name in dir(suite.SessionTestsMixin) if name.startswith("test_")]
    assert len(contract) == 65 if django.VERSION < (6, 0) else len(contract) >= 65
    assert all(callable(getattr(EngineTests, name)) for name in contract)
