"""Every sentence of the package is there in every language, and compiled."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import polib
import pytest
from django.utils.translation.template import templatize

import django_sessionkit

FOLDER = Path(django_sessionkit.__file__).parent
LANGUAGES = ["ar", "de", "es", "fr", "ja", "pt_BR", "tr", "zh_Hans"]

# How a sentence is marked: what it is called, and how many forms it has in English.
FORMS = {
    "_": 1,
    "gettext": 1,
    "gettext_lazy": 1,
    "gettext_noop": 1,
    "ngettext": 2,
    "ngettext_lazy": 2,
}
# In templatize()'s answer, for it is no Python: a call, with one text or two.
TEXT = r"""u?('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
CALL = re.compile(rf"(?<![\w.])_?(n?gettext|_)\({TEXT}(?:\s*,\s*{TEXT})?")
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|%%")
TAG = re.compile(r"</?\w+[^>]*>")

Sentence = tuple[str, str]  # the plural is "" where there is none


def in_modules() -> Iterator[Sentence]:
    for module in FOLDER.glob("**/*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            match node:
                case ast.Call(func=ast.Name(name), args=[ast.Constant(str(text)), *rest]):
                    if forms := FORMS.get(name):
                        plural = rest[0].value if forms == 2 else ""  # type: ignore[attr-defined]
                        yield text, plural


def in_templates() -> Iterator[Sentence]:
    templates = [path for path in FOLDER.glob("templates/**/*") if path.is_file()]
    for template in templates:
        for name, text, plural in CALL.findall(templatize(template.read_text())):
            texts = [ast.literal_eval(each) for each in (text, plural) if each]
            yield texts[0], texts[1] if name == "ngettext" else ""


@pytest.fixture(scope="module")
def sentences() -> set[Sentence]:
    found = {*in_modules(), *in_templates()}
    assert len(found) > 150
    # gettext has one entry for a text, be it with a plural or without.
    return found - {(text, "") for text, plural in found if plural}


def catalogue(language: str) -> polib.POFile:
    return polib.pofile(str(FOLDER / "locale" / language / "LC_MESSAGES" / "django.po"))


def forms_of(entry: polib.POEntry) -> list[str]:
    plurals = entry.msgstr_plural
    return [plurals[number] for number in sorted(plurals)] if plurals else [entry.msgstr]


def test_there_is_a_catalogue_for_each_language_and_no_other():
    assert sorted(path.name for path in (FOLDER / "locale").iterdir()) == LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_is_translated(language: str, sentences: set[Sentence]):
    entries = catalogue(language)
    assert {(entry.msgid, entry.msgid_plural) for entry in entries} == sentences
    assert not [entry.msgid for entry in entries if entry.fuzzy]
    assert not entries.obsolete_entries()
    assert not [entry.msgid for entry in entries if not all(forms_of(entry))]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_has_the_same_placeholders_and_tags(language: str):
    for entry in catalogue(language):
        wanted = set(PLACEHOLDER.findall(entry.msgid + entry.msgid_plural))
        for form in forms_of(entry):
            found = set(PLACEHOLDER.findall(form))
            # "One device" need not say 1, and Arabic has words for none, one and two.
            assert found == wanted or (entry.msgid_plural and found <= wanted), form
            assert TAG.findall(form) == TAG.findall(entry.msgid), form


@pytest.mark.parametrize("language", LANGUAGES)
def test_there_are_as_many_forms_as_the_language_has(language: str):
    entries = catalogue(language)
    (forms,) = map(int, re.findall(r"nplurals=(\d)", entries.metadata["Plural-Forms"]))
    assert {len(entry.msgstr_plural) for entry in entries if entry.msgid_plural} <= {forms}


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_compiled_is_what_is_written(language: str):
    compiled = polib.mofile(str(FOLDER / "locale" / language / "LC_MESSAGES" / "django.mo"))
    written = {entry.msgid: forms_of(entry) for entry in catalogue(language)}
    assert {entry.msgid: forms_of(entry) for entry in compiled} == written
