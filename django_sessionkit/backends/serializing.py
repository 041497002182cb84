"""
From the dictionary of a session to bytes and back: by JSON, as Django's serializer of sessions
reads and writes it, but in less time; or by another serializer.

If orjson is installed, it reads JSON in a third of the time. On some JSON, orjson differs from
Django's serializer. So the writer checks whether the JSON is plain, which means that both read the
same, and stores the answer with it. SESSION_SERIALIZER reads everything that is not plain.
"""

from collections.abc import Callable
from json import JSONDecoder, JSONEncoder
from typing import Any, Protocol

from django.core.signing import JSONSerializer

# Made once. json.dumps() with options makes a new encoder for every call.
_encode = JSONEncoder(separators=(",", ":")).encode
_decode = JSONDecoder().raw_decode


def dump_facts_without_orjson(facts: Any) -> bytes:
    return _encode(facts).encode("ascii")


def load_facts_without_orjson(data: bytes) -> Any:
    return _decode(data.decode())[0]


# Compact JSON and back, for what this package itself writes: text, and integers of 64 bits. Names
# and not functions that call these: they have no Python frame.
dump_facts: Callable[[Any], bytes]
load_facts: Callable[[bytes], Any]
try:
    from orjson import dumps as dump_facts
    from orjson import loads as load_facts
except ImportError:
    dump_facts, load_facts = dump_facts_without_orjson, load_facts_without_orjson

# orjson silently makes a float of an integer beyond 64 bits. Such a number has 19 digits or more.
TOO_LONG = b"0" * 19
DIGITS = bytes.maketrans(b"123456789", b"000000000")


class Serializer(Protocol):
    """The class that SESSION_SERIALIZER names."""

    def dumps(self, obj: Any) -> bytes: ...

    def loads(self, data: bytes) -> Any: ...


def dump(dictionary: dict[str, Any], serializer: type[Serializer]) -> tuple[bytes, bool]:
    """
    Return the dictionary as bytes, and whether these bytes are plain JSON.

    Raises what the serializer raises for a value that it cannot express. For JSON, that is
    TypeError.
    """
    if serializer is not JSONSerializer:  # a subclass does not count: it may do anything
        return serializer().dumps(dictionary), False
    body = _encode(dictionary).encode("ascii")
    return body, is_plain(body)


def load(body: bytes, plain: bool, serializer: type[Serializer]) -> Any:
    """
    Return the dictionary of these bytes. ``plain`` is what ``dump()`` returned with them.

    Raises what the serializer raises for bytes that it cannot read: the site may have changed
    SESSION_SERIALIZER since they were written.
    """
    if plain and serializer is JSONSerializer:
        try:
            return load_facts(body)
        except ValueError:
            pass  # orjson refuses NaN, infinity, half of a surrogate pair, a thousand levels
    return serializer().loads(body)


def is_plain(body: bytes) -> bool:
    """
    Tell whether orjson reads the same from this output of Django's serializer as Django's
    serializer does, if orjson reads it at all.
    """
    return TOO_LONG not in body.translate(DIGITS)
