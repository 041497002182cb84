from pathlib import Path

from session_security.tests.project.settings import *

FIXTURE_DIRS = [Path(__file__).parent / "fixtures"]
