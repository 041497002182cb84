"""
Runs the test suites of other packages, once with Django's sessions and once with ours, and compares
them test by test: ``make test-others``, or, for some, ``make test-others OTHERS_ARGS="wagtail"``.
The command fails if a test differs that is not in the table of docs/compatibility.md, and if one
in there does not differ any more.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.others.suites import SUITES, Suite

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
ENGINES = "django", "ours"
# Instead of theirs, and of the project's own.
PYTEST = """
[pytest]
django_find_project = false
asyncio_default_fixture_loop_scope = function
python_files = test*.py *_tests.py
"""
TIMEOUT = 20 * 60  # seconds for one run of a suite
AT_ONCE = (os.cpu_count() or 1) + 1  # one waits, by time.sleep()


class Run(NamedTuple):
    """How one run of a suite ended."""

    outcomes: dict[str, str]
    said: dict[str, str]
    sessions: int
    seconds: float
    output: str

    def count(self, outcome: str) -> int:
        return list(self.outcomes.values()).count(outcome)


class Place:
    """A folder with the sdists, and with a copy of each suite for each engine: they write files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sdists, self.path = folder / "sdists", folder / "path"

    def download(self, suites: Sequence[Suite]) -> None:
        """Download the sdists that are not there yet."""
        self.sdists.mkdir(parents=True, exist_ok=True)
        if missing := [suite.pin for suite in suites if not self.sdist(suite).exists()]:
            options = ["--no-deps", "--no-binary=:all:", "--no-build-isolation"]
            pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check"]
            subprocess.run([*pip, "download", *options, "-d", self.sdists, *missing], check=True)

    def sdist(self, suite: Suite) -> Path:
        name, version = suite.pin.split("==")
        return self.sdists / f"{name.replace('-', '_')}-{version}.tar.gz"

    def unpack(self, suites: Sequence[Suite]) -> None:
        for folder in (self.path, *map(self.folder.joinpath, ENGINES)):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        for suite in suites:
            for engine in ENGINES:
                with tarfile.open(self.sdist(suite)) as archive:
                    archive.extractall(self.folder / engine, filter="data")
        # Not the project itself: many suites are a package of the name "tests", as ours is.
        (self.path / "django_sessionkit").symlink_to(PROJECT / "django_sessionkit")
        (self.path / "sessionkit_observer.py").symlink_to(HERE / "observer.py")
        (self.path / "sessionkit_sites").symlink_to(HERE / "sites")
        (self.path / "pytest.ini").write_text(PYTEST)

    def run(self, suite: Suite, engine: str) -> Run:
        suite_folder = self.folder / engine / self.sdist(suite).name.removesuffix(".tar.gz")
        found = self.folder / engine / f"{suite.name}.json"
        path = [self.path, *(suite_folder / part for part in suite.path)]
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SESSIONKIT_OTHERS_ENGINE": engine,
            "SESSIONKIT_OTHERS_OUTCOMES": str(found),
        }
        for name in ("DJANGO_SETTINGS_MODULE", "PYTEST_ADDOPTS"):
            env.pop(name, None)
        if suite.settings:
            env["DJANGO_SETTINGS_MODULE"] = suite.settings
        ini, plugins = f"{self.path}/pytest.ini", ["-psessionkit_observer", "-pno:cacheprovider"]
        pytest = [sys.executable, "-m", "pytest", "-c", ini, *plugins]
        begun = time.monotonic()
        try:
            output = subprocess.run(
                [*pytest, "--rootdir=.", "-q", "--disable-warnings", *suite.options, *suite.tests],
                cwd=suite_folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIMEOUT,
                check=False,
            ).stdout
        except subprocess.TimeoutExpired as error:
            output = str(error)
        known = json.loads(found.read_text()) if found.exists() else {}
        outcomes = known.get("outcomes", {}), known.get("said", {}), known.get("sessions", 0)
        return Run(*outcomes, time.monotonic() - begun, output)


def problems_of(suite: Suite, django: Run, ours: Run) -> Iterator[str]:
    """Say what is not as it should be."""
    for run, whose, at_least in (django, "Django's", suite.at_least), (ours, "our", 1):
        if (passed := run.count("passed")) < at_least:
            yield f"only {passed} tests pass with {whose} sessions:\n{run.output[-2000:]}"
            return
    if not ours.sessions:
        yield "no session was made with ours"
    for name in sorted({*django.outcomes, *ours.outcomes}):
        theirs, own = (run.outcomes.get(name, "missing") for run in (django, ours))
        if (theirs != own) and name not in suite.known:
            said = ours.said.get(name) or django.said.get(name, "")
            yield f"{name}\n    {theirs} with Django's sessions, {own} with ours\n{said}"
        if (theirs == own) and name in suite.known:
            yield f"{name}\n    does not differ any more: take it out of tests/others/suites.py"
    for name in suite.known:
        if name not in django.outcomes:
            yield f"{name}\n    is not a test any more: take it out of tests/others/suites.py"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def report(suite: Suite, django: Run, ours: Run) -> bool:
    """Print what became of a suite, and tell whether all is well."""
    problems = list(problems_of(suite, django, ours))
    say(
        f"{suite.pin}: {django.count('passed')} passed, {django.count('failed')} failed,"
        f" {django.count('skipped')} skipped with Django's;"
        f" {ours.count('passed')} passed with ours, which made {ours.sessions} sessions;"
        f" {len(suite.known)} known to differ"
        f" ({django.seconds:.0f} s and {ours.seconds:.0f} s)"
    )
    for problem in problems:
        say(f"  {problem}")
    return not problems


def compare(suites: Sequence[Suite], folder: Path, at_once: int = AT_ONCE) -> bool:
    """
    Run the suites with both, ``at_once`` runs at a time, report on each, and tell whether all is
    well.
    """
    place = Place(folder)
    place.download(suites)
    place.unpack(suites)
    with ThreadPoolExecutor(at_once) as pool:
        runs: list[tuple[Suite, list[Future[Run]]]] = [
            (suite, [pool.submit(place.run, suite, engine) for engine in ENGINES])
            for suite in suites
        ]
        well = [report(suite, *(run.result() for run in both)) for suite, both in runs]
    say(f"{well.count(True)} suites as with Django's sessions, {well.count(False)} not")
    return all(well)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make test-others", description=__doc__)
    choices = [suite.name for suite in SUITES]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(choices)}")
    parser.add_argument(
        "-j", "--at-once", type=int, default=AT_ONCE, metavar="N", help="runs at a time"
    )
    arguments = parser.parse_args()
    names = arguments.names
    if unknown := set(names) - set(choices):
        parser.error(f"no suite is named {', '.join(sorted(unknown))}")
    chosen = [suite for suite in SUITES if not names or suite.name in names]
    well = compare(chosen, PROJECT / ".cache" / "others", arguments.at_once)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
