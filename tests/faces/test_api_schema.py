"""
The OpenAPI document of the JSON API is true: Schemathesis sends what the document allows, and what
it forbids, and compares the answers with it.
"""

import json
import os
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.db import connection
from drf_spectacular.management.commands.spectacular import Command
from schemathesis import GenerationMode

from django_sessionkit.api import urls as api
from tests.people import handle, key_of, sign_in
from tests.projects import run_python
from tests.servers import PROJECT

pytestmark = pytest.mark.django_db


@pytest.fixture
def document(tmp_path: Path) -> Any:
    """The document, which is made without a warning, and is one of OpenAPI."""
    file = tmp_path / "openapi.json"
    options = {"format": "openapi-json", "fail_on_warn": True, "validate": True}
    call_command(Command(), file=str(file), **options)
    return json.loads(file.read_text())


# Operations, and whether they take a body.
OPERATIONS = {
    "sessions_list": False,
    "sessions_current": False,
    "sessions_sign_out": False,
    "sessions_history": False,
    "sessions_end": False,
    "sessions_rename": True,
    "sessions_end_others": False,
    "reauthenticate": True,
    "limit": False,
    "limit_choose": True,
}
ALLOWED = [(name, GenerationMode.POSITIVE) for name in OPERATIONS]
FORBIDDEN = [(name, GenerationMode.NEGATIVE) for name in OPERATIONS if OPERATIONS[name]]


def test_the_document_has_every_view_with_the_session_and_its_problems(document: Any):
    assert len(document["paths"]) == len(api.urlpatterns)
    found = [each for path in document["paths"].values() for each in path.values()]
    assert {operation["operationId"] for operation in found} == set(OPERATIONS)
    for operation in found:
        assert operation["security"] == [{"sessionCookie": []}]
        assert operation["description"]
        problems = {k: v for k, v in operation["responses"].items() if k >= "400"}
        assert set(problems) >= {"401", "406", "503"}
        for answer in problems.values():
            assert set(answer["content"]) == {"application/problem+json"}
    scheme = document["components"]["securitySchemes"]["sessionCookie"]
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "cookie", "sessionid")


@pytest.mark.parametrize(("name", "mode"), [*ALLOWED, *FORBIDDEN])
def test_the_document_is_true(
    document: Any,
    name: str,
    mode: GenerationMode,
    alice: User,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
):
    # As Django's own test client does it: the connection is the test's.
    monkeypatch.setattr(connection, "close_if_unusable_or_obsolete", lambda: None)
    settings.ALLOWED_HOSTS = ["localhost", "testserver"]
    if mode == GenerationMode.NEGATIVE:
        for operations in document["paths"].values():
            for operation in operations.values():
                del operation["security"]  # else what is wrong may be the cookie, which we set
    openapi = schemathesis.openapi.from_dict(document)
    openapi.app = WSGIHandler()
    found = openapi.find_operation_by_id(name)

    @hypothesis.given(case=found.as_strategy(generation_mode=mode))
    @hypothesis.settings(max_examples=20, derandomize=True)
    def holds(case: Any) -> None:
        cache.clear()
        device = sign_in(alice)
        if mode == GenerationMode.NEGATIVE and "id" in case.path_parameters:
            case.path_parameters["id"] = str(handle(device))
        token = device.cookies["csrftoken"].value
        cookies = {"sessionid": key_of(device), "csrftoken": token}
        case.call_and_validate(cookies=cookies, headers={"X-CSRFToken": token})

    holds()


def test_the_example_shop_has_the_document():
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "example_project.settings"}
    printed = run_python(PROJECT, "manage.py", "spectacular", "--fail-on-warn", env=env)
    assert "/api/v1/sessions/current/:" in printed
