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
from django.test import Client
from drf_spectacular.management.commands.spectacular import Command
from schemathesis import GenerationMode

from django_sessionkit.api import sign_in_urls
from django_sessionkit.api import urls as api
from django_sessionkit.models import UserSession
from tests.people import sign_in
from tests.programs import call
from tests.projects import run_python
from tests.servers import PROJECT

pytestmark = [pytest.mark.django_db, pytest.mark.once]


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
    "sign_in": True,
    "hand_over": True,
    "token": False,
}
SCHEMES = ["sessionCookie", "sessionKey"]


def test_the_document_has_every_view_with_the_session_and_its_problems(document: Any):
    assert len(document["paths"]) == len(api.urlpatterns + sign_in_urls.urlpatterns)
    found = [each for path in document["paths"].values() for each in path.values()]
    assert {operation["operationId"] for operation in found} == set(OPERATIONS)
    for operation in found:
        is_for_all = operation["operationId"] == "sign_in"
        takes: list[Any] = [] if is_for_all else [{scheme: []} for scheme in SCHEMES]
        assert operation.get("security", []) == takes
        assert operation["description"]
        problems = {k: v for k, v in operation["responses"].items() if k >= "400"}
        assert set(problems) >= {"401", "406", "503"}
        for answer in problems.values():
            assert set(answer["content"]) == {"application/problem+json"}
    schemes = document["components"]["securitySchemes"]
    cookie, key = schemes["sessionCookie"], schemes["sessionKey"]
    assert (cookie["type"], cookie["in"], cookie["name"]) == ("apiKey", "cookie", "sessionid")
    assert (key["type"], key["scheme"]) == ("http", "bearer")


def proof_of(scheme: str, user: User) -> dict[str, Any]:
    """Sign in, and return what a client then sends with every request."""
    if scheme == "sessionKey":
        credentials = {"username": user.get_username(), "password": "secret"}
        key = call(Client(), "POST", "sign-in/", credentials).json()["key"]
        return {"headers": {"Authorization": f"Bearer {key}"}}
    device = sign_in(user)
    cookies = {name: device.cookies[name].value for name in ("sessionid", "csrftoken")}
    return {"cookies": cookies, "headers": {"X-CSRFToken": cookies["csrftoken"]}}


@pytest.fixture
def operations(document: Any, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that returns the operation of a name, as a document with one scheme has it."""
    # As Django's own test client does it: the connection is the test's.
    monkeypatch.setattr(connection, "close_if_unusable_or_obsolete", lambda: None)
    settings.ALLOWED_HOSTS = ["localhost", "testserver"]
    settings.SESSIONKIT_SITE_URL = "https://shop.example"
    call_command("tokenkeys", "--make", verbosity=0)

    def operation(name: str, security: list[Any]) -> Any:
        for path in document["paths"].values():
            for each in path.values():
                each["security"] = security
        openapi = schemathesis.openapi.from_dict(document)
        openapi.app = WSGIHandler()
        return openapi.find_operation_by_id(name)

    return operation


LIMITS = hypothesis.settings(max_examples=10, derandomize=True)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_the_document_allows_is_taken(operations: Any, name: str, scheme: str, alice: User):
    security: list[Any] = [] if name == "sign_in" else [{scheme: []}]
    cases = operations(name, security).as_strategy(generation_mode=GenerationMode.POSITIVE)

    @hypothesis.given(case=cases)
    @LIMITS
    def holds(case: Any) -> None:
        cache.clear()
        case.call_and_validate(**proof_of(scheme, alice))

    holds()


@pytest.mark.parametrize("name", [name for name in OPERATIONS if OPERATIONS[name]])
def test_what_the_document_forbids_is_refused(operations: Any, name: str, alice: User):
    # Without a scheme, or what is wrong may be the proof, which is replaced.
    cases = operations(name, []).as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @hypothesis.given(case=cases)
    @hypothesis.settings(LIMITS, max_examples=40)
    def holds(case: Any) -> None:
        cache.clear()
        proof = proof_of("sessionCookie", alice)
        if "id" in case.path_parameters:
            case.path_parameters["id"] = str(UserSession.objects.latest("pk").pk)
        case.call_and_validate(**proof)

    holds()


def test_the_example_shop_has_the_document():
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "example_project.settings"}
    printed = run_python(PROJECT, "manage.py", "spectacular", "--fail-on-warn", env=env)
    assert "/api/v1/sessions/current/:" in printed
