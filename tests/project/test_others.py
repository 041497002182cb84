"""``make test-others`` finds what differs, and docs/compatibility.md says what is known."""

import io
import re
import tarfile

import pytest

from tests.documents import make, read_document, section
from tests.others.__main__ import ENGINES, Place, compare, report
from tests.others.suites import SUITES, Suite

pytestmark = pytest.mark.once

SETTINGS = """
SECRET_KEY = "of the suite"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
ROOT_URLCONF = "shop.urls"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
"""

URLS = """
from django.http import HttpResponse
from django.urls import path


def cart(request):
    request.session["tea"] = request.session.get("tea", 0) + 1
    return HttpResponse(request.session["tea"])


urlpatterns = [path("", cart)]
"""

TESTS = """
from django.contrib.sessions.models import Session
from django.test import TestCase


class Cart(TestCase):
    def test_is_kept(self):
        assert [self.client.get("/").text for _ in "12"] == ["1", "2"]

    def test_is_in_a_table_of_django(self):
        self.client.get("/")
        assert Session.objects.exists()

    def test_fails_with_both(self):
        assert not self.client.get("/")
"""

IN_A_TABLE = "shop/tests.py::Cart::test_is_in_a_table_of_django"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, suite):
    """A folder with the sdist of a small package, under the name of one that is pinned."""
    folder = tmp_path_factory.mktemp("others")
    sdist = Place(folder).sdist(suite)
    sdist.parent.mkdir()
    files = {"__init__": "", "settings": SETTINGS, "urls": URLS, "tests": TESTS}
    with tarfile.open(sdist, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"{sdist.name.removesuffix('.tar.gz')}/shop/{name}.py")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return folder


@pytest.fixture(scope="module")
def suite():
    return Suite("django-loginas", "shop.settings", ["shop/tests.py"], at_least=2)


@pytest.fixture(scope="module")
def runs(folder, suite):
    """How the suite ends with Django's sessions, and with ours."""
    place = Place(folder)
    place.download([suite])  # which is there
    place.unpack([suite])
    return [place.run(suite, engine) for engine in ENGINES]


def test_a_test_that_differs_is_found_and_printed(suite, runs, capsys):
    assert not report(suite, *runs)
    said = capsys.readouterr().out
    assert f"{IN_A_TABLE}\n    passed with Django's sessions, failed with ours\n" in said
    assert said.count("with Django's sessions") == 1
    assert f"{suite.pin}: 2 passed, 1 failed, 0 skipped with Django's; 1 passed with ours" in said


def test_a_difference_that_is_known_is_none(suite, runs, capsys):
    assert report(suite._replace(differences={"a table": [IN_A_TABLE]}), *runs)
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "why"),
    [("test_is_kept", "does not differ any more"), ("test_of_old", "is not a test any more")],
)
def test_a_known_difference_that_is_gone_is_to_be_taken_out(suite, runs, capsys, name, why):
    gone = f"shop/tests.py::Cart::{name}"
    assert not report(suite._replace(differences={"a table": [IN_A_TABLE, gone]}), *runs)
    assert f"{gone}\n    {why}" in capsys.readouterr().out


def test_a_suite_that_shrinks_is_not_well(suite, runs, capsys):
    assert not report(suite._replace(at_least=3), *runs)
    assert "only 2 tests pass with Django's sessions" in capsys.readouterr().out


def test_a_suite_without_sessions_of_ours_shows_nothing(suite, runs, capsys):
    django, _ = runs
    assert not report(suite, django, django)
    assert "no session was made with ours" in capsys.readouterr().out


def test_a_suite_that_runs_nothing_fails_the_command(folder, suite, capsys):
    assert not compare([suite._replace(tests=["shop/nothing.py"])], folder)
    said = capsys.readouterr().out
    assert "only 0 tests pass with Django's sessions" in said
    assert "file or directory not found: shop/nothing.py" in said
    assert "0 suites as with Django's sessions, 1 not" in said


# What is known.


def test_every_difference_is_in_the_documents_with_its_reason():
    rows = re.findall(
        r"^\| ([\w-]+) \| (.+) \| (.+) \|$",
        section("docs/compatibility.md", "Their own test suites"),
        re.MULTILINE,
    )
    documented = {
        (package, test): reason
        for package, tests, reason in rows
        for test in re.findall(r"`(.+?)`", tests)
    }
    known = {
        (suite.name, test.rpartition("/")[2].replace(".py", "")): reason
        for suite in SUITES
        for reason, tests in suite.differences.items()
        for test in tests
    }
    assert documented == known


def test_every_suite_is_named_in_the_documents():
    text = section("docs/compatibility.md", "Their own test suites")
    for suite in SUITES:
        name, version = suite.pin.split("==")
        assert re.search(rf"\b{name} {re.escape(version)}\b", text.replace("\n", " ")), suite.pin


def test_ci_runs_the_suites_of_other_packages():
    command = make("test-others", "OTHERS_ARGS=wagtail")
    assert "tests.others wagtail\n" in command
    assert "--requirement tests/others/requirements.txt" in command
    assert "run: make test-others\n" in read_document(".github/workflows/ci.yml")
    run = read_document(".ci/run")
    assert "test-all ALSO=test-others " in run
    (some,) = re.findall(r'^others="(.+)"$', run, re.MULTILINE)
    assert 'OTHERS_ARGS="$others"' in run
    assert {*some.split()} < {suite.name for suite in SUITES}
