"""The documents of the project, the code in them, and the commands that make runs."""

import os
import re
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.servers import PROJECT

DOCUMENTS = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "example_project/README.md",
    *(str(path.relative_to(PROJECT)) for path in sorted(PROJECT.glob("docs/*.md"))),
]


class Block(NamedTuple):
    """A block of code in a document. ``line`` is the number of its first line."""

    document: str
    line: int
    language: str
    text: str


def read_document(document: str) -> str:
    return (PROJECT / document).read_text()


def blocks_of(document: str) -> Iterator[Block]:
    text = read_document(document)
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(document, text[: found.start()].count("\n") + 2, found[1], found[2])


BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]
# tests/engines/test_redis_docs.py runs the examples with settings of Redis.
# tests/packages/test_documents.py runs those with other packages.
ELSEWHERE = ("README.md", "docs/compatibility.md")
CODE = [block for block in BLOCKS if block.language == "python" and block.document not in ELSEWHERE]
# tests/home/test_tenants.py runs the example with tenants.
TENANTS = [block for block in CODE if "tenant" in block.text]
EXAMPLES = [block for block in CODE if block not in TENANTS]
SETTINGS = [block for block in EXAMPLES if re.search(r"^[A-Z_]+ = ", block.text, re.MULTILINE)]


def prose_of(document: str) -> str:
    return re.sub(r"^```.*?^```$", "", read_document(document), flags=re.MULTILINE | re.DOTALL)


def section(document: str, heading: str) -> str:
    """Return the text under a heading, up to the next heading."""
    below = rf"^## {re.escape(heading)}\n(.*?)(?=^#|\Z)"
    found = re.search(below, read_document(document), re.MULTILINE | re.DOTALL)
    assert found, f"{document} has no heading {heading!r}"
    return found[1]


def first_column(table: str) -> list[str]:
    """Return the names in backticks in the first column of the tables in a text."""
    cells = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def run_block(block: Block, folder: Path, **names: Any) -> dict[str, Any]:
    (folder / "block.py").write_text(block.text)
    return runpy.run_path(str(folder / "block.py"), names)


def make(*arguments: str) -> str:
    """Return the commands that make would run."""
    not_ours = ("MAKE", "MFLAGS", "PYTEST_ARGS", "STORE")
    environment = {name: v for name, v in os.environ.items() if not name.startswith(not_ours)}
    return subprocess.run(
        ["make", "--dry-run", "--always-make", *arguments],
        cwd=PROJECT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
