"""A session as it is stored: sealed with its facts, and opened again."""

import logging
import pickle
from typing import Any

import pytest
from django.core.signing import JSONSerializer
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from django_sessionkit.backends import records
from django_sessionkit.backends.facts import KNOWN, Facts
from django_sessionkit.backends.records import (
    NO_FACTS,
    Found,
    Record,
    found,
    opened,
    sealed,
)
from django_sessionkit.backends.sealing import SessionKey, digest_of, new_session_key
from django_sessionkit.storage import Stored

pytestmark = pytest.mark.once

NOW = 1_790_000_000_000
KEY = new_session_key()
CART = {"cart": ["teapot"], "_session_expiry": 600}
FACTS = Facts(
    handle="0192f0c1a2b37c4d8e5f60718293a4b5",
    user="7",
    authenticated_at=NOW,
    row_expires_at=NOW + 5,
    policy={"idle": 600, "bind": ["browser"]},
    bound={"browser": "Firefox"},
)

NAMES = st.text(max_size=5)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | NAMES,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(NAMES, values, max_size=3),
    max_leaves=5,
)
DICTIONARIES = st.dictionaries(NAMES, JSON, max_size=3)
ROWS = st.uuids().map(lambda handle: handle.hex)
ALL_FACTS = st.tuples(
    st.none() | ROWS,
    st.none() | st.text(min_size=1, max_size=5),
    st.integers(0, 2**53),
    st.integers(0, 2**53),
    st.dictionaries(st.sampled_from(["idle", "absolute"]), st.integers(1, 600)),
    st.none() | st.integers(1, 2**53),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | NAMES, max_size=2),
).map(
    lambda known: Facts(
        handle=known[0],
        user=known[1],
        authenticated_at=known[2],
        row_expires_at=known[3],
        policy=known[4],
        deadline=known[5],
        unknown=tuple(known[6]),
    )
)


# Sealed, and opened.


@given(DICTIONARIES, st.just(NO_FACTS) | ALL_FACTS)
def test_session_that_was_sealed_opens_again(data: dict[str, Any], facts: Facts):
    payload = sealed(facts, data, KEY, JSONSerializer)
    # Text tells 1 from 1.0 and True.
    assert repr(opened(payload, SessionKey(KEY), JSONSerializer)) == repr((facts, data))


class Pickled:
    """A serializer that expresses everything, and trusts what it reads."""

    def dumps(self, obj: Any) -> bytes:
        return pickle.dumps(obj)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)  # noqa: S301


def test_serializer_of_the_site_is_given_the_dictionary_alone():
    heard: list[Any] = []

    class Listening(Pickled):
        def dumps(self, obj: Any) -> bytes:
            heard.append(obj)
            return super().dumps(obj)

    data = {"when": NOW, 5: {"set"}}
    payload = sealed(FACTS, data, KEY, Listening)
    assert heard == [data]
    assert opened(payload, KEY, Listening) == (FACTS, data)


def test_session_without_facts_has_the_facts_of_nobody():
    assert opened(sealed(Facts(), CART, KEY, JSONSerializer), KEY, JSONSerializer) == (
        NO_FACTS,
        CART,
    )
    assert Facts() == NO_FACTS


def test_session_without_facts_takes_no_room_for_them():
    given_to_seal = []

    def seal(facts: bytes, body: bytes, key: SessionKey, plain: bool) -> bytes:
        given_to_seal.append((facts, body))
        return b""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "seal", seal)
        sealed(NO_FACTS, {}, KEY, JSONSerializer)
        sealed(Facts(user="7"), {}, KEY, JSONSerializer)
    assert given_to_seal == [(b"", b"{}"), (b'[null,"7"]', b"{}")]


def test_facts_of_a_later_version_come_through():
    later = FACTS._replace(unknown=("new", None, [1]))
    assert len(later.as_stored()) == KNOWN + 3
    payload = sealed(later, CART, KEY, JSONSerializer)
    assert opened(payload, KEY, JSONSerializer) == (later, CART)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes"])
def test_value_that_the_serializer_cannot_express_is_its_error(value: object):
    with pytest.raises(TypeError):
        sealed(FACTS, {"value": value}, KEY, JSONSerializer)


# What does not open.

LINE = (
    "django.security.SuspiciousSession",
    logging.WARNING,
    (
        "A stored session does not open, and was ignored: its SECRET_KEY or SESSION_SERIALIZER is"
        " not known here, or somebody has written over it"
    ),
)


def failing(error: Exception) -> type[Pickled]:
    class Failing(Pickled):
        def loads(self, data: bytes) -> Any:
            raise error

    return Failing


def test_what_opens_leaves_no_line_in_the_log(caplog: pytest.LogCaptureFixture):
    assert opened(sealed(FACTS, CART, KEY, JSONSerializer), KEY, JSONSerializer)
    assert caplog.record_tuples == []


def test_another_key_opens_nothing(caplog: pytest.LogCaptureFixture):
    payload = sealed(FACTS, CART, KEY, JSONSerializer)
    assert opened(payload, new_session_key(), JSONSerializer) is None
    assert caplog.record_tuples == [LINE]


def test_another_secret_key_opens_nothing(caplog: pytest.LogCaptureFixture):
    payload = sealed(FACTS, CART, KEY, JSONSerializer)
    with override_settings(SECRET_KEY="another"):
        assert opened(payload, SessionKey(KEY), JSONSerializer) is None
    assert caplog.record_tuples == [LINE]


@pytest.mark.parametrize("length", [0, 1, 11, 12, 13, 27, 28, 40, -1])
def test_truncated_payload_does_not_open(caplog: pytest.LogCaptureFixture, length: int):
    payload = sealed(FACTS, CART, KEY, JSONSerializer)
    assert opened(payload[:length], KEY, JSONSerializer) is None
    assert caplog.record_tuples == [LINE]


@pytest.mark.parametrize(
    "error", [ValueError("no"), TypeError("no"), EOFError(), RecursionError(), Exception(str(KEY))]
)
def test_payload_that_the_serializer_cannot_read_does_not_open(
    caplog: pytest.LogCaptureFixture, error: Exception
):
    serializer = failing(error)
    payload = sealed(FACTS, CART, KEY, serializer)
    assert opened(payload, KEY, serializer) is None
    assert caplog.record_tuples == [LINE]
    assert caplog.records[0].exc_info is None
    assert KEY not in caplog.text


@pytest.mark.parametrize("loaded", [None, [], "text", 7, [("cart", "teapot")]])
def test_payload_that_the_serializer_reads_as_something_else_does_not_open(
    caplog: pytest.LogCaptureFixture, loaded: Any
):
    class Odd(Pickled):
        def loads(self, data: bytes) -> Any:
            return loaded

    assert opened(sealed(FACTS, CART, KEY, Odd), KEY, Odd) is None
    assert caplog.record_tuples == [LINE]


@pytest.mark.parametrize(
    ("then", "now"), [(Pickled, JSONSerializer), (JSONSerializer, Pickled)], ids=["json", "pickle"]
)
def test_site_that_has_changed_its_serializer_begins_anew(
    caplog: pytest.LogCaptureFixture, then: Any, now: Any
):
    assert opened(sealed(FACTS, CART, KEY, then), KEY, now) is None
    assert caplog.record_tuples == [LINE]


# Found.


def test_what_is_stored_is_found_with_what_was_known_of_it():
    payload = sealed(FACTS, CART, KEY, JSONSerializer)
    here = found(Stored(payload, NOW), KEY, JSONSerializer)
    assert here == Found(Record(KEY, payload, FACTS, NOW, 600), CART)
    assert here is not None
    assert here.came_by is None
    assert here.record.digest == digest_of(KEY)


def test_session_without_an_expiry_of_its_own_has_none():
    payload = sealed(NO_FACTS, {}, KEY, JSONSerializer)
    here = found(Stored(payload, NOW), KEY, JSONSerializer)
    assert here == Found(Record(KEY, payload, NO_FACTS, NOW, None), {})


def test_what_does_not_open_is_not_found(caplog: pytest.LogCaptureFixture):
    assert found(Stored(b"somebody wrote over it", NOW), KEY, JSONSerializer) is None
    assert caplog.record_tuples == [LINE]
