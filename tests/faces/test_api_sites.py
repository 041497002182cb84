"""Sites with settings of their own for REST framework: the API is the same on all of them."""

from pathlib import Path

import pytest

from tests.projects import run_python
from tests.servers import PROJECT

pytestmark = pytest.mark.once

# Neither REST framework nor drf-spectacular is in INSTALLED_APPS, and every default is another.
SITE = """
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="of a test",
    ALLOWED_HOSTS=["testserver"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    TIME_ZONE="America/Chicago",
    SESSION_ENGINE="django_sessionkit.backends.db",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django_sessionkit",
    ],
    MIDDLEWARE=[
        "django_sessionkit.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.BasicAuthentication"],
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.StaticHTMLRenderer"],
        "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.FileUploadParser"],
        "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.UserRateThrottle"],
        "DEFAULT_THROTTLE_RATES": {"user": "1/day"},
        "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.AcceptHeaderVersioning",
        "ALLOWED_VERSIONS": ["9"],
        "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.LimitOffsetPagination",
        "EXCEPTION_HANDLER": "nowhere.to.be.found",
        "NON_FIELD_ERRORS_KEY": "everything",
        "DATETIME_FORMAT": "%d.%m.%Y",
        "URL_FORMAT_OVERRIDE": "cursor",
        "UNAUTHENTICATED_USER": None,
        "COMPACT_JSON": False,
        "UNICODE_JSON": False,
        "STRICT_JSON": False,
    },
)
django.setup()

from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.test.utils import setup_test_environment
from django.urls import include, path

urlpatterns = [path("", include("django_sessionkit.api.urls"))]

setup_test_environment()
call_command("migrate", verbosity=0)
stranger = Client().get("/v1/sessions/")
assert stranger.status_code == 401, stranger
assert stranger.json()["code"] == "not_authenticated"
assert stranger["Content-Type"] == "application/problem+json"
assert Client().post("/v1/reauthenticate/").status_code == 401

alice = User.objects.create_user("alice", password="secret")
client = Client()
client.force_login(alice)
for _ in range(2):
    answer = client.get("/v1/sessions/")
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json"), answer
    (mine,) = answer.json()["results"]
    assert mine["started_at"].endswith("Z") and "T" in mine["started_at"]
kind = "application/json"
where = f"/v1/sessions/{mine['id']}/"
answer = client.patch(where, {"label": "Büro"}, content_type=kind)
assert answer.status_code == 200 and '"label":"Büro"' in answer.content.decode(), answer.content
answer = client.patch(where, [1], content_type=kind)
assert [each["pointer"] for each in answer.json()["errors"]] == ["#"], answer.content
answer = client.patch(where, '{"label": NaN}', content_type=kind)
assert (answer.status_code, answer.json()["code"]) == (400, "parse_error"), answer
answer = client.post("/v1/reauthenticate/", {"password": "secret"}, content_type=kind)
assert answer.status_code == 204, answer
# The site has no page that a web view could load.
assert client.post("/v1/hand-over/", {}, content_type=kind).json()["code"] == "not_found"
assert client.get("/v1/sessions/", {"cursor": "xml"}).json()["code"] == "invalid_cursor"
"""


def test_the_defaults_of_a_site_are_for_its_own_views(tmp_path: Path):
    (tmp_path / "project.py").write_text(SITE)
    run_python(tmp_path, "project.py", env={"PYTHONPATH": str(PROJECT)})
