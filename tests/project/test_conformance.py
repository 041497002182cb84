"""The list of what standards ask for: that it is whole, and that docs/conformance.md says it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conformance
from tests.conformance import KIT, LEGS, REQUIREMENTS, SITE
from tests.documents import make, section
from tests.servers import PROJECT

pytestmark = pytest.mark.once

TEST_OF_SOMEBODY = """
import pytest

@pytest.mark.standard("ASVS-7.2.3", "ASVS-7.2.4")
def test_that_holds():
    pass

@pytest.mark.standard("ASVS-7.2.4")
@pytest.mark.parametrize("number", [1, 2])
def test_that_does_not(number):
    assert number == 1

def test_of_something_else():
    raise NotImplementedError
"""


def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=PROJECT, capture_output=True, text=True
    )


def test_every_requirement_has_its_tests_and_the_document_says_which():
    done = python("tests.conformance")
    assert (done.stderr, done.returncode) == ("", 0)
    listed = re.findall(
        r"^(\S+) \(.*\): SQLite \S+, PostgreSQL \S+, MariaDB", done.stdout, re.MULTILINE
    )
    assert listed == list(REQUIREMENTS)


def test_what_is_missing_is_named():
    *bare, stale = conformance.faults({})
    claimed = [name for name, requirement in REQUIREMENTS.items() if requirement.whose != SITE]
    assert [fault.split()[0] for fault in bare] == claimed
    assert all(fault.endswith("on SQLite, PostgreSQL, MariaDB, Redis.") for fault in bare)
    assert stale.endswith("type: make conformance CONFORMANCE_ARGS=--write")
    assert "-m tests.conformance --write" in make("conformance", "CONFORMANCE_ARGS=--write")


def test_page_on_security_names_what_is_the_sites():
    yours = set(
        re.findall(r"\b7\.\d\.\d\b", section("docs/security.md", "What the standards ask for"))
    )
    chapter_7 = [name for name in REQUIREMENTS if name.startswith("ASVS-7.")]
    assert yours == {name[5:] for name in chapter_7 if REQUIREMENTS[name].whose != KIT}


def test_one_store_is_not_all_stores():
    shown = {"ASVS-7.4.1": {"tests/test_x.py::test_y": {"SQLite", "PostgreSQL"}}}
    assert "ASVS-7.4.1 (the kit's): no test shows it on MariaDB, Redis." in conformance.faults(
        shown
    )
    assert re.search(
        r"^\| \[ASVS-7.4.1\].* \| 1 \| 1 \|( - \|){2}$", conformance.document(shown), re.MULTILINE
    )
    # What the store makes no difference to is shown on SQLite.
    once = {"ASVS-7.4.1": {"tests/test_x.py::test_y": {"SQLite"}}}
    assert not [fault for fault in conformance.faults(once) if "ASVS-7.4.1 " in fault]
    assert re.search(
        r"^\| \[ASVS-7.4.1\].* \| 1 \|( once \|){3}$", conformance.document(once), re.MULTILINE
    )


def test_every_chapter_is_whole():
    """One is easily left out."""
    sections = {1: 3, 2: 4, 3: 2, 4: 5, 5: 3, 6: 2}  # of ASVS 7, and how many each has
    wanted = [f"ASVS-7.{part}.{n + 1}" for part, last in sections.items() for n in range(last)]
    wanted += [f"WSTG-SESS-{n + 1:02}" for n in range(11)]
    wanted += [f"NIST-SB-{n + 1}" for n in range(10)]
    wanted += [f"NIST-REAUTH-{n + 1}" for n in range(5)]
    assert set(wanted) <= set(REQUIREMENTS)
    assert sum(map(len, conformance.CATALOGUE.values())) == len(REQUIREMENTS)


@pytest.mark.parametrize("mark", ["standard('ASVS-7.2.99')", "standard()", "standard"])
def test_mark_of_what_there_is_not_is_an_error(mark: str, tmp_path: Path):
    text = f"import pytest\n\n@pytest.mark.{mark}\ndef test_something():\n    pass\n"
    (tmp_path / "test_of_somebody.py").write_text(text)
    done = pytest_of(tmp_path, "pytest", "--collect-only")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    named = "('ASVS-7.2.99',)" if "99" in mark else "()"
    assert f"tests/conformance.py, not {named}" in done.stderr
    assert "test_of_somebody.py::test_something" in done.stderr


def pytest_of(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """Let pytest have the tests of a folder as if they were among ours."""
    (folder / "conftest.py").write_text("from tests.conftest import *\n")
    return python(*command, "-c", "setup.cfg", str(folder))


def test_run_says_of_each_requirement_whether_it_holds(tmp_path: Path):
    (tmp_path / "test_of_somebody.py").write_text(TEST_OF_SOMEBODY)
    done = pytest_of(tmp_path, "tests.conformance", "--run")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    said = dict(re.findall(r"^(ASVS-7\S+) +(.+)$", done.stdout, re.MULTILINE))
    assert said["ASVS-7.2.3"] == "passed: 1"
    assert re.fullmatch(r"FAILED: \S*test_that_does_not\[2\]", said["ASVS-7.2.4"])
    assert said["ASVS-7.2.1"] == "no test on this leg"
    assert "NotImplementedError" not in done.stdout


def test_legs_are_those_that_make_runs():
    assert {f"={name.lower()}" for name in LEGS} <= set(
        re.findall(r"=\w+", make("test", "MARIADB=yes"))
    )
