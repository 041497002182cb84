"""The benchmarks run, on a machine without the peers as well, and a bar that is missed fails."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import admin, purge
from benchmarks.contenders import DRIVER, ENGINE, KIT_DB, PSYCOPG, WITH_ALLAUTH
from benchmarks.report import Bar, Table, Verdict, compare
from django_sessionkit.selection import PARSERS
from tests.servers import PROJECT

pytestmark = pytest.mark.once

# As much as it takes to do everything once. Two parts need servers that the tests do without, and
# the purge is a program by itself.
EVERYTHING = """
from benchmarks.__main__ import PARTS, Size, run

parts = [part for part in PARTS if part not in ("shop", "bearer", "purge")]
run(Size(2, 0.001, [1000, 2000], (10, 61, 100), [2], 0), parts)
"""


def test_every_operation_is_measured():
    command = [sys.executable, "-W", "error::DeprecationWarning:benchmarks", "-c", EVERYTHING]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    titles = [line for line in done.stdout.splitlines() if line.startswith("### ")]
    contests = [*benchmarks.OPERATIONS, *benchmarks.REQUESTS, *benchmarks.REGISTRY]
    assert {f"### {contest.title}" for contest in contests} < set(titles)
    assert len(titles) == len(contests) + 5  # twice the activity; growth, payloads, async views
    ours = [line for line in done.stdout.splitlines() if line.startswith("| django-sessionkit")]
    assert ours
    assert not [line for line in ours if "cannot be used here" in line]


def test_every_question_of_staff_is_asked(tmp_path: Path):
    """Each finds the same as the bare SQL beside it, or the program fails."""
    document = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.admin", "--rows", "60000", "--ending", "2000"]
    command += ["--rounds", "2", "--json", str(document)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    seen, glance, noticed = json.loads(document.read_text())["tables"]
    asked = [set(each["asked"]) for each in seen["figures"].values()]
    assert set.union(*asked) == {*PARSERS, "q", "after"}
    assert len(asked) == len(seen["rows"]) >= 24
    assert glance["rows"][-1][0] == "all of it"
    assert noticed["title"] == "What others notice while 2,000 sessions end"


def test_figures_of_the_admin_take_the_place_of_those_before():
    document = admin.DOCUMENT.read_text().partition(admin.HEADING)[0]
    document += "" if admin.BEFORE in document else admin.BEFORE
    once = admin.written(
        document, "\nTen million.\n", [Table("The list", ["", "ms"], [["a", "1"]])]
    )
    assert f"\n\n{admin.HEADING}\nTen million.\n\n### The list\n\n|  | ms |\n" in once
    assert once.count(admin.BEFORE) == 1
    twice = admin.written(once, "\nAs many.\n", [Table("The list", ["", "ms"], [["a", "2"]])])
    assert twice == once.replace("Ten million.", "As many.").replace("| a | 1 |", "| a | 2 |")


def test_every_purge_is_measured():
    command = [sys.executable, "-m", "benchmarks.purge", "--rows", "1000"]
    command += ["--on", "PostgreSQL"]  # what is measured on MariaDB is the same, and takes as long
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    on_postgresql, latencies = done.stdout.split("### ")[1:3]
    assert re.findall(r"^\| (\w+) \| [\d.]+ \|", latencies, re.MULTILINE) == [*purge.OPERATIONS]
    cells = r"^\| ([^|]+) \| [\d.]+ \|" + r"[^|]*\|" * 4 + r" (\d+) \|"
    dead = dict(re.findall(cells, on_postgresql, re.MULTILINE))
    # Each has found the half of the sessions that has expired.
    assert dead["one DELETE of stored sessions"] == "500"
    assert dead["django-sessionkit, stored sessions"] == "500"
    assert dead["Django's clearsessions"] == "500"


@pytest.mark.parametrize(
    ("took", "pinned", "outcomes"),
    [
        (1.9, True, ["met", "met"]),
        (2.1, True, ["**missed**", "met"]),
        (2.1, False, ["not judged", "met"]),
        (4.1, False, ["not judged", "**missed**"]),
    ],
)
def test_what_a_bar_says(took: float, pinned: bool, outcomes: list[str]):
    """Without cores of their own, a round trip takes this long or twice as long."""
    django = ENGINE[KIT_DB.store]
    rounds = {PSYCOPG: [1.0, 1.0], KIT_DB: [took, took], django: [8.0, 8.0]}
    bars = {KIT_DB: [Bar(2.0, DRIVER), Bar(0.5, ENGINE)]}
    table = compare("Load", rounds, bars, pinned, {WITH_ALLAUTH: "No module named 'allauth'"})
    assert [str(verdict).split(maxsplit=2)[2] for verdict in table.verdicts] == outcomes
    assert "| Django db, allauth | cannot be used here: No module named 'allauth' |" in str(table)


@pytest.mark.parametrize(("found", "code"), [(1.0, 0), (1.1, 1)])
def test_a_bar_that_is_missed_fails(
    found: float,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    table = Table("Load", ["", "µs"], [["ours", "70"]], verdicts=[Verdict("Load", 1.0, found)])
    document = tmp_path / "performance.md"
    old = "### Load\n\nOld ones.\n\n### Save\n\nOf another run.\n"
    document.write_text(f"Before.\n\n## Figures\n\nAnother machine.\n\n{old}\n## After\n")
    monkeypatch.setattr(benchmarks, "run", lambda size, parts: ("A machine.\n", [table]))
    monkeypatch.setattr(benchmarks, "draw", lambda figures, path: path.write_text("a picture"))
    monkeypatch.setattr(benchmarks, "DOCUMENT", document)
    monkeypatch.setattr(benchmarks, "IN_PICTURE", ["Load"])
    monkeypatch.setattr(sys, "argv", ["benchmarks", "operations", "--write"])
    assert benchmarks.main() == code
    assert ("Missed: Load: 1.10, not ≤ 1" in capsys.readouterr().out) is bool(code)
    written = "A machine.\n\n![What an operation takes, in microseconds](performance.svg)\n\n"
    written += "### Load\n\n|  | µs |\n| --- | ---: |\n| ours | 70 |\n"
    written += "\n### Save\n\nOf another run.\n"
    assert document.read_text() == f"Before.\n\n## Figures\n\n{written}\n## After\n"
    assert (tmp_path / "performance.svg").read_text() == "a picture"
