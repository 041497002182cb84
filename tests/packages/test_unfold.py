"""
The pages for staff in an admin with the looks of django-unfold. That has templates of its own for
Django's admin, so its site is one by itself, in a process of its own.
"""

import subprocess
import sys

import pytest

from tests.servers import PROJECT


@pytest.mark.once
def test_staff_find_and_end_sessions_under_unfold():
    arguments = ["-q", "--ds=tests.packages.unfold_settings", "tests/packages/unfold_stories.py"]
    command = [sys.executable, "-m", "pytest", *arguments]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
