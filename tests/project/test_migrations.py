import os
import subprocess
import sys
from collections import Counter
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

import django_sessionkit
from tests.servers import PROJECT

pytestmark = pytest.mark.once

NAMES = sorted(
    path.stem for path in Path(django_sessionkit.__file__).parent.glob("migrations/[0-9]*.py")
)


@pytest.mark.django_db
def test_models_and_migrations_agree():
    call_command("makemigrations", check=True, dry_run=True, stdout=StringIO())


@pytest.mark.parametrize("field", ["AutoField", "BigAutoField"])
def test_default_auto_field_of_a_site_asks_for_no_migration(field, tmp_path):
    settings = f"from tests.settings import *\nDEFAULT_AUTO_FIELD = 'django.db.models.{field}'\n"
    (tmp_path / "site_settings.py").write_text(settings)
    command = "makemigrations --check --dry-run --settings site_settings django_sessionkit"
    done = subprocess.run(
        [sys.executable, "-m", "django", *command.split()],
        env={**os.environ, "PYTHONPATH": f"{PROJECT}:{tmp_path}"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "No changes detected in app 'django_sessionkit'\n", done.stderr
    assert done.returncode == 0


def test_no_two_migrations_have_the_same_number():
    numbers = Counter(name.split("_")[0] for name in NAMES)
    assert set(numbers.values()) == {1}


def test_migrations_are_named_by_hand():
    assert not [name for name in NAMES if "_auto_" in name]
