"""What a user gets from the package index, in an environment with nothing else."""

import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.projects import run_python
from tests.servers import PROJECT

pytestmark = pytest.mark.once

# A user's whole project, from the system checks to the page with the user's sessions.
SITE = """
import importlib.util

for optional in (
    *("redis", "django_redis", "celery", "ua_parser", "orjson", "pytest"),
    *("rest_framework", "drf_spectacular", "jwt", "ninja", "opentelemetry"),
):
    assert importlib.util.find_spec(optional) is None, optional

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="of a test",
    ALLOWED_HOSTS=["testserver"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    SESSION_ENGINE="django_sessionkit.backends.db",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.staticfiles",
        "django_sessionkit",
    ],
    MIDDLEWARE=[
        "django_sessionkit.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    STATIC_URL="static/",
    SILENCED_SYSTEM_CHECKS=["sessionkit.W014"],  # this site shows no messages
    LOGIN_URL="https://sso.example/",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}},
)
django.setup()

from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
import django_sessionkit.backends.memory
import django_sessionkit.testing.sessions
from django.core.management import call_command
from django.test import Client
from django.test.utils import setup_test_environment
from django.urls import include, path

urlpatterns = [
    path("account/sessions/", include("django_sessionkit.urls")),
    path("", include("django_sessionkit.token_urls")),
]

setup_test_environment()
settings.SILENCED_SYSTEM_CHECKS += ["sessionkit.E018", "sessionkit.E020"]  # nor has it tokens
call_command("check", fail_level="WARNING")
call_command("migrate", verbosity=0)
call_command("tokenkeys", make=True)
client = Client(headers={"user-agent": "Mozilla/5.0"})
client.force_login(User.objects.create_user("alice"))
page = client.get("/account/sessions/")
assert page.status_code == 200, page
assert len(page.context["object_list"]) == 1, page.content
assert len(client.get("/.well-known/jwks.json").json()["keys"]) == 1
assert finders.find("django_sessionkit/sessions.css")
"""


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, cwd=PROJECT)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", ".", "--no-deps", "--wheel-dir", folder)
    (wheel,) = folder.iterdir()
    return wheel


def test_wheel_has_every_file_of_the_package_and_nothing_else(wheel: Path):
    ours = (path for path in PROJECT.glob("django_sessionkit/**/*") if path.is_file())
    expected = {str(path.relative_to(PROJECT)) for path in ours if path.suffix != ".pyc"}
    with ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == expected
    assert {path.split("/")[1] for path in found} >= {
        "locale", "migrations", "py.typed", "static", "templates",
    }  # fmt: skip


def test_works_with_django_and_cryptography_alone(wheel: Path, tmp_path: Path):
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    pip("--python", python, "install", wheel)
    (tmp_path / "project.py").write_text(SITE)
    run_python(tmp_path, "project.py", python=python)
