"""
Our texts say which language they are in, where that is not the reader's (WCAG 2.2, 3.1.2): with
that, a screen reader pronounces them right, and a browser writes them in their direction.
"""

import gettext
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.template.loader import render_to_string
from django.utils import translation

import django_sessionkit
from django_sessionkit.templatetags.sessionkit_language import SAMPLE, sessionkit_language

PACKAGE = Path(django_sessionkit.__file__).parent
LANGUAGES = [
    translation.to_language(path.parent.parent.name)
    for path in PACKAGE.glob("locale/*/LC_MESSAGES/django.mo")
]
# Languages that Django knows, and we do not.
WELSH, PERSIAN = "cy", "fa"


def marked_for(reader: str | None) -> str:
    """Return the attributes for this reader. None: Django translates nothing."""
    with translation.override(reader):
        return sessionkit_language()


@pytest.mark.parametrize("reader", ["en", "en-gb", "de-at", *LANGUAGES])
def test_texts_in_the_language_of_the_reader_say_nothing(reader: str):
    assert marked_for(reader) == ""


@pytest.mark.parametrize("reader", [WELSH, PERSIAN, None])
def test_texts_without_a_translation_are_english(reader: str | None):
    assert marked_for(reader) == ' lang="en" dir="ltr"'


def test_texts_without_a_translation_are_in_the_language_of_the_site(settings: Any):
    settings.LANGUAGE_CODE = "de"
    settings.LOCALE_PATHS = []  # Django forgets what it has read
    assert marked_for(PERSIAN) == ' lang="de" dir="ltr"'
    assert marked_for("en") == ""


@pytest.fixture
def translated(tmp_path: Path, settings: Any) -> Callable[[str], None]:
    """A function that gives the site a translation of its own into a language."""

    def translated(language: str) -> None:
        folder = tmp_path / language / "LC_MESSAGES"
        folder.mkdir(parents=True)
        pair = SAMPLE.encode(), b"translated"
        at = 28 + 16  # the header, and two tables with one length and one offset each
        table = struct.pack("<4I", len(pair[0]), at, len(pair[1]), at + len(pair[0]) + 1)
        header = struct.pack("<7I", gettext.GNUTranslations.LE_MAGIC, 0, 1, 28, 36, 0, 0)
        (folder / "django.mo").write_bytes(header + table + b"".join(x + b"\0" for x in pair))
        settings.LOCALE_PATHS = [tmp_path]

    return translated


def test_texts_that_the_site_has_translated_are_in_that_language(
    translated: Callable[[str], None], settings: Any
):
    translated(PERSIAN)
    assert marked_for(PERSIAN) == ""
    settings.LANGUAGE_CODE = PERSIAN
    settings.LOCALE_PATHS = list(settings.LOCALE_PATHS)  # Django forgets what it has read
    assert marked_for(WELSH) == f' lang="{PERSIAN}" dir="rtl"'


@pytest.mark.parametrize(
    "template", [path.name for path in PACKAGE.glob("templates/django_sessionkit/[!_]*.html")]
)
def test_every_template_says_it(template: str):
    source = (PACKAGE / "templates" / "django_sessionkit" / template).read_text()
    assert source.count('<div class="sessionkit"{% sessionkit_language %}>') == source.count(
        'class="sessionkit"'
    )


def page_for(reader: str, template: str) -> str:
    with translation.override(reader):
        return render_to_string(f"django_sessionkit/{template}", {"title": "No", "text": "Now."})


@pytest.mark.parametrize("template", ["answer.html", "session_confirm_end_others.html"])
def test_a_page_of_ours_is_wholly_in_one_language(translated: Callable[[str], None], template: str):
    page = page_for(PERSIAN, template)
    assert '<html class="sessionkit-page" lang="en" dir="ltr">' in page
    assert '<div class="sessionkit" lang="en" dir="ltr">' in page
    translated(PERSIAN)
    page = page_for(PERSIAN, template)
    assert '<html class="sessionkit-page" lang="fa" dir="rtl">' in page
    assert '<div class="sessionkit">' in page
