"""What another request has written, put into the dictionary of a session."""

import copy
import json
from typing import Any

import pytest
from django.core.signing import JSONSerializer
from hypothesis import example, given
from hypothesis import strategies as st

from django_sessionkit.backends.merging import follow, put, same, shared_in, stored_name

pytestmark = pytest.mark.once


def said(value: Any) -> Any:
    return json.loads(json.dumps(value))


def text(value: Any) -> str:
    """Tell 1 from True, and NaN from nothing."""
    return json.dumps(value, sort_keys=True)


def merge(base: Any, mine: Any, theirs: Any) -> Any:
    """Return what becomes of a copy of ``mine``."""
    session = copy.deepcopy(mine)
    put(copy.deepcopy(theirs), session, base, JSONSerializer)
    return session


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "merged"),
    [
        pytest.param({}, {}, {}, {}, id="nothing"),
        pytest.param({"a": 1}, {"a": 1}, {"a": 1}, {"a": 1}, id="nobody changed anything"),
        pytest.param({"a": 1}, {"a": 1}, {"a": 2}, {"a": 2}, id="they changed it"),
        pytest.param({"a": 1}, {"a": 2}, {"a": 1}, {"a": 2}, id="I changed it"),
        pytest.param({"a": 1}, {"a": 2}, {"a": 3}, {"a": 2}, id="both changed it"),
        pytest.param({}, {"a": 1}, {"b": 2}, {"a": 1, "b": 2}, id="both added something"),
        pytest.param({}, {"a": 1}, {"a": 2}, {"a": 1}, id="both added the same"),
        pytest.param({}, {"a": None}, {}, {"a": None}, id="I added None"),
        pytest.param({"a": None}, {}, {"a": None}, {}, id="I removed None"),
        pytest.param({"a": 1}, {}, {"a": 1}, {}, id="I removed it"),
        pytest.param({"a": 1}, {"a": 1}, {}, {}, id="they removed it"),
        pytest.param({"a": 1}, {}, {}, {}, id="both removed it"),
        pytest.param({"a": 1}, {}, {"a": 2}, {}, id="I removed what they changed"),
        pytest.param({"a": 1}, {"a": 2}, {}, {"a": 2}, id="I changed what they removed"),
        pytest.param(
            {"cart": ["teapot"]},
            {"cart": ["teapot", "cup"]},
            {"cart": ["teapot"], "news": 1},
            {"cart": ["teapot", "cup"], "news": 1},
            id="I changed something deep inside",
        ),
        pytest.param(
            {"cart": {"teapot": {"price": [5]}}},
            {"cart": {"teapot": {"price": [6]}}},
            {"cart": {"teapot": {"price": [5]}, "cup": {}}},
            {"cart": {"teapot": {"price": [6]}}},
            id="a value is one, however deep the changes are",
        ),
        pytest.param(
            {"cart": {"teapot": [5]}},
            {"cart": {"teapot": [5]}},
            {"cart": {}},
            {"cart": {}},
            id="an equal value is no change",
        ),
    ],
)
def test_dictionaries_are_merged_by_key(base: Any, mine: Any, theirs: Any, merged: Any):
    assert merge(base, mine, theirs) == merged


# Few names and few values, so that they meet.
VALUES = st.sampled_from([None, 2, 3, "a", [2], [3], {"a": [2]}, {"a": [3]}])
FEW = st.dictionaries(st.sampled_from("abc"), VALUES)
MISSING = object()


@given(FEW, FEW, FEW)
def test_own_changes_win_and_everything_else_follows_the_others(
    base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]
):
    merged = merge(base, mine, theirs)
    for name in "abc":
        is_changed = mine.get(name, MISSING) != base.get(name, MISSING)
        follows = mine if is_changed else theirs
        assert merged.get(name, MISSING) == follows.get(name, MISSING)
    assert merged.keys() <= set("abc")


@given(FEW, FEW)
def test_what_one_alone_has_changed_is_what_comes_out(
    base: dict[str, Any], changed: dict[str, Any]
):
    assert merge(base, copy.deepcopy(base), changed) == changed
    assert merge(base, changed, copy.deepcopy(base)) == changed
    assert merge(base, changed, copy.deepcopy(changed)) == changed


@given(FEW, FEW, FEW)
def test_two_who_changed_different_keys_have_both_changed_them(
    base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]
):
    mine = {f"my {name}": value for name, value in mine.items()} | base
    theirs = {f"their {name}": value for name, value in theirs.items()} | base
    assert merge(base, mine, theirs) == merge(base, theirs, mine) == mine | theirs


# In place.

# Names and values as a view may have them, and JSON says them otherwise.
KEYS = st.sampled_from(["a", "b", "1", 1, None, True, 2.5])
LEAVES = st.sampled_from([None, True, False, 0, 1, 1.0, "a", float("nan")])
OWN = st.recursive(
    LEAVES,
    lambda values: (
        st.lists(values, max_size=3)
        | st.lists(values, max_size=3).map(tuple)
        | st.dictionaries(KEYS, values, max_size=3)
    ),
    max_leaves=8,
)
JSON = OWN.map(said)


@given(OWN, JSON)
@example({1: "a"}, {"1": "b", "2": "c"})
@example((1, (2, [3])), [1, [2, [4]]])
@example({1: "a", "1": "b"}, {"1": "c"})
@example([[1], [2]], [[2], [1]])
def test_a_value_that_follows_says_what_is_stored_and_keeps_its_type(own: Any, theirs: Any):
    before = said(own)
    followed = follow(own, before, theirs, shared_in({"own": own}))
    assert text(said(followed)) == text(theirs)
    if type(before) is type(theirs) or text(before) == text(theirs):
        assert type(followed) is type(own) or not isinstance(own, list | dict | tuple)


@given(OWN)
def test_a_value_that_nobody_has_changed_is_left_alone(own: Any):
    before = repr(own)
    assert follow(own, said(own), said(own), set()) is own
    assert repr(own) == before


FULL = st.dictionaries(KEYS, OWN, max_size=4)


@given(FULL, FULL, FULL)
def test_whatever_types_a_view_uses_the_same_is_stored(base: Any, mine: Any, theirs: Any):
    base, theirs = said(base), said(theirs)
    before, session = said(mine), copy.deepcopy(mine)
    put(copy.deepcopy(theirs), session, base, JSONSerializer)
    expected = {}
    for name in [*base, *before, *theirs]:
        was, own = base.get(name, MISSING), before.get(name, MISSING)
        changed = (was is MISSING) != (own is MISSING) or (
            was is not MISSING and text(was) != text(own)
        )
        value = own if changed else theirs.get(name, MISSING)
        if value is not MISSING:
            expected[name] = value
    assert text(said(session)) == text(expected)


def test_items_stay_the_same_wherever_they_go():
    teapot, cup, kettle = {"id": 1}, {"id": 2}, {"id": 3}
    cart = [teapot, cup, kettle]
    follow(cart, said(cart), [{"id": 2}, {"id": 3}], set())
    assert [id(item) for item in cart] == [id(cup), id(kettle)]
    follow(cart, said(cart), [{"id": 3}, {"id": 2}], set())
    assert [id(item) for item in cart] == [id(kettle), id(cup)]
    follow(cart, said(cart), [{"id": 0}, {"id": 3}, {"id": 2}], set())
    assert [id(item) for item in cart[1:]] == [id(kettle), id(cup)]
    follow(cart, said(cart), [{"id": 0}, {"id": 3, "count": 5}, {"id": 2}], set())
    assert cart[1] is kettle
    assert kettle == {"id": 3, "count": 5}


@pytest.mark.parametrize("wrap", [list, tuple], ids=["lists", "tuples"])
def test_a_value_that_stands_in_two_places_follows_in_one_of_them_only(wrap: Any):
    shared = ["teapot"]
    session = {"cart": shared, "ordered": wrap([shared])}
    put({"cart": ["cup"], "ordered": [["teapot"]]}, session, said(session), JSONSerializer)
    assert session == {"cart": ["cup"], "ordered": wrap([["teapot"]])}
    assert session["ordered"][0] is shared


class Private(JSONSerializer):
    """A serializer that leaves something out, and adds something."""

    def dumps(self, obj: Any) -> bytes:
        kept = {name: value for name, value in obj.items() if not name.startswith("_")}
        return super().dumps({**kept, "version": 1})


def test_what_a_serializer_leaves_out_or_adds_is_not_merged():
    kept = object()
    session = {"cart": [], "_kept": kept}
    put({"version": 1, "cart": ["cup"]}, session, {"version": 1, "cart": []}, Private)
    assert session == {"cart": ["cup"], "_kept": kept}


def test_what_another_type_has_taken_the_place_of_is_replaced():
    class Money:
        pass

    own = Money()
    assert follow(own, {"amount": 1}, {"amount": 2}, set()) == {"amount": 2}
    assert follow([1], [1], {"a": 1}, set()) == {"a": 1}


def test_names_are_what_json_makes_of_them():
    stored = {"1": 0, "null": 0, "true": 0, "2.5": 0, "a": 0}
    assert [stored_name(key, stored) for key in (1, None, True, 2.5, "a")] == list(stored)
    assert stored_name((1, 2), {}) == (1, 2)
    assert stored_name(1, {1: 0}) == 1


@pytest.mark.parametrize(
    ("one", "other", "are"),
    [
        (1, 1, True),
        (1, True, False),
        (1, 1.0, False),
        (float("nan"), float("nan"), True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": 1}, {"b": 1}, False),
        ([1, [0]], [1, [False]], False),
        ([1], [1, 2], False),
    ],
)
def test_values_are_the_same_if_they_are_stored_as_the_same(one: Any, other: Any, are: bool):
    assert same(one, other) is are
