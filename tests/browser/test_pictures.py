"""The pictures of the docs: ``make screenshots`` makes all of them, and no other."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.browser.pictures import IMAGES
from tests.documents import DOCUMENTS, read_document
from tests.projects import run_python
from tests.servers import PROJECT

MOST = 150_000  # bytes
NAMES = {path.name for path in IMAGES.iterdir()}


def test_the_command_makes_every_picture(tmp_path: Path):
    command = ["-m", "tests.browser.pictures", "--folder", str(tmp_path)]
    assert run_python(PROJECT, *command, python=sys.executable, env=os.environ) == ""
    made = list(tmp_path.iterdir())
    assert {path.name for path in made} == NAMES
    for path in made:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < MOST, path.name


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_is_small_and_in_a_document(name: str):
    assert (IMAGES / name).stat().st_size < MOST
    shown = [
        text for text in map(read_document, DOCUMENTS) if re.search(rf"!\[.+\]\(.*{name}", text)
    ]
    assert shown


def test_the_readme_shows_two():
    assert len(re.findall(r"!\[.+\]\(docs/images/", read_document("README.md"))) == 2
