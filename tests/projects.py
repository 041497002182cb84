"""Other projects that use the kit, each in its own folder and process."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tests.servers import PROJECT


def run_python(
    folder: Path,
    *arguments: str,
    python: Path | str = sys.executable,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run Python in a folder, with warnings as errors. Return what it prints."""
    done = subprocess.run(
        [python, "-W", "error", *arguments],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def run_project(
    folder: Path,
    models: str,
    site: str,
    env: Mapping[str, str] = MappingProxyType({}),
    app: str = "people",
) -> None:
    """Run the script ``site`` of a project that has an app of this name with these models."""
    (folder / app).mkdir()
    (folder / app / "__init__.py").touch()
    (folder / app / "models.py").write_text(models)
    (folder / "project.py").write_text(site)
    run_python(folder, "project.py", env={"PYTHONPATH": str(PROJECT), **env})
