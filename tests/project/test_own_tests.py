"""
A project's own tests pass unchanged with the kit. ``tests/newspaper`` is that project: it tests its
sessions in all the ways that Django documents, and that are common for browsers.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.projects import run_python
from tests.servers import PROJECT

NEWSPAPER = {"PYTHONPATH": str(PROJECT), "DJANGO_SETTINGS_MODULE": "newspaper.settings"}
DJANGO_TEST = ("-m", "django", "test", "--verbosity=0")
PARALLEL = (*DJANGO_TEST, "--parallel=2")
PYTEST = ("-m", "pytest", "-q", "-p", "no:randomly", "newspaper/tests.py")


@pytest.fixture
def newspaper(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PROJECT / "tests" / "newspaper", tmp_path / "newspaper"))


def run_tests(newspaper: Path, *command: str, **env: str) -> None:
    run_python(newspaper, *command, env=os.environ | NEWSPAPER | env)


@pytest.mark.once
@pytest.mark.parametrize(
    ("command", "engine"),
    [
        (DJANGO_TEST, ""),  # Django's: the tests are right
        (DJANGO_TEST, "db"),
        (PARALLEL, "db"),
        ((*PYTEST, "--numprocesses=2"), "db"),
    ],
)
def test_a_project_tests_itself(newspaper: Path, command: tuple[str, ...], engine: str) -> None:
    run_tests(newspaper, *command, KIT=engine)


@pytest.mark.redis
@pytest.mark.parametrize("command", [DJANGO_TEST, PARALLEL])
def test_a_project_with_redis_tests_itself(
    newspaper: Path, command: tuple[str, ...], settings: Any
) -> None:
    store = settings.CACHES["sessions"]["LOCATION"]
    run_tests(newspaper, *command, "--exclude-tag=clock", KIT="redis", STORE=store)
