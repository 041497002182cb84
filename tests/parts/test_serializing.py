"""What a dictionary is written and read as: with orjson and without it, the same as Django does."""

import importlib.util
import sys
from unittest import mock

import pytest
from django.core.signing import JSONSerializer
from hypothesis import example, given
from hypothesis import strategies as st

from django_sessionkit.backends import serializing
from django_sessionkit.backends.serializing import dump, dump_facts, is_plain, load, load_facts

pytestmark = pytest.mark.once

DJANGO = JSONSerializer()
# Numbers on which readers of JSON differ, or could.
NUMBERS = [
    *[10**18 - 1, 10**18, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64, 10**25],
    *[0.1, -0.0, 1e16, 1e22, 5e-324, 1.7976931348623157e308, 0.00012345678901234567],
    *[float("nan"), float("inf"), float("-inf")],
]
TEXTS = st.text(st.characters(exclude_categories=()))  # with halves of surrogate pairs
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.sampled_from(NUMBERS),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(TEXTS, values, max_size=4),
    max_leaves=10,
)
NAMES = TEXTS | st.integers() | st.booleans() | st.none()
DICTIONARIES = st.dictionaries(NAMES, VALUES, max_size=4)
# What is close to JSON, and some of it is.
NEARLY_JSON = st.text('0123456789.eE+-[]{},:" \\u\n\tdaNnIfitylrs') | st.text(
    "019.eE-", max_size=40
)


def outcome(function, *args):
    """Return what came of it. Texts tell 1 from 1.0, 0.0 from -0.0, and NaN from nothing."""
    try:
        return repr(function(*args))
    except ValueError:
        return "ValueError"


def without_orjson():
    return mock.patch.multiple(
        serializing,
        dump_facts=serializing.dump_facts_without_orjson,
        load_facts=serializing.load_facts_without_orjson,
    )


@given(DICTIONARIES)
def test_a_dictionary_is_written_and_read_as_by_django(dictionary):
    body, plain = dump(dictionary, JSONSerializer)
    assert body == DJANGO.dumps(dictionary)
    read = outcome(DJANGO.loads, body)
    assert outcome(load, body, plain, JSONSerializer) == read
    with without_orjson():
        assert outcome(load, body, plain, JSONSerializer) == read


@given(NEARLY_JSON)
@example("-0")
@example("1e400")
@example("9" * 18)
@example("-" + "9" * 18 + "." + "9" * 18 + "e-18")
def test_orjson_reads_plain_json_as_django_does_or_not_at_all(text):
    body = text.encode()
    if is_plain(body):
        assert outcome(load, body, True, JSONSerializer) == outcome(DJANGO.loads, body)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_is_read_as_by_django(number):
    body, plain = dump({"n": [number, str(number)]}, JSONSerializer)
    assert outcome(load, body, plain, JSONSerializer) == outcome(DJANGO.loads, body)


@pytest.mark.parametrize("levels", [100, 1023, 1024, 1025, 1500])
def test_deep_values_are_read(levels):
    """orjson refuses what is deeper than 1,024 levels."""
    value = []
    for _ in range(levels - 2):
        value = [value]
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        body, plain = dump({"deep": value}, JSONSerializer)
        assert dump(load(body, plain, JSONSerializer), JSONSerializer)[0] == body
    finally:
        sys.setrecursionlimit(limit)


def test_large_integers_are_not_for_orjson():
    assert dump({"n": 10**18 - 1}, JSONSerializer)[1]
    assert not dump({"n": 2**64}, JSONSerializer)[1]


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes"])
def test_what_json_cannot_express_is_an_error(value):
    with pytest.raises(TypeError):
        dump({"value": value}, JSONSerializer)


class Reversed:
    """Somebody else's serializer."""

    def dumps(self, obj):
        return DJANGO.dumps(obj)[::-1]

    def loads(self, data):
        return DJANGO.loads(data[::-1])


class Excited(JSONSerializer):
    def loads(self, data):
        return {name: f"{value}!" for name, value in super().loads(data).items()}


def test_another_serializer_does_all_of_it():
    body, plain = dump({"a": "b"}, Reversed)
    assert (body, plain) == (b'}"b":"a"{', False)
    assert load(body, plain, Reversed) == {"a": "b"}


def test_a_serializer_that_was_derived_from_djangos_does_all_of_it():
    body, plain = dump({"a": "b"}, Excited)
    assert not plain
    assert load(body, plain, Excited) == {"a": "b!"}


def test_a_serializer_that_was_changed_reads_what_the_former_one_wrote():
    body, plain = dump({"a": "b"}, JSONSerializer)
    assert load(body, plain, Excited) == {"a": "b!"}


def test_facts_are_read_as_they_were_written():
    facts = ["é", None, 2**53, {"idle": 60, "lock": True, "limit": None}]
    # A process with orjson and a process without read what the other has written.
    writers = dump_facts, serializing.dump_facts_without_orjson
    for read in (load_facts, serializing.load_facts_without_orjson):
        assert [read(write(facts)) for write in writers] == [facts, facts]


def test_orjson_need_not_be_there():
    spec = importlib.util.spec_from_file_location("without_orjson", serializing.__file__)
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {"orjson": None}):
        spec.loader.exec_module(module)
    assert module.load_facts is module.load_facts_without_orjson
    assert module.dump_facts is module.dump_facts_without_orjson
    assert module.load(b'{"a":1}', True, JSONSerializer) == {"a": 1}
