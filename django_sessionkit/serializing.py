"""
JSON, as Django's serializer of sessions writes and reads it, in less time; and other serializers.

orjson reads JSON in a third of the time where it is installed. It differs from Django's serializer
on some JSON: the writer, who has the time, looks whether what is written is plain, and keeps the
answer with it. What is not plain, and what another serializer has written, that one reads.
"""

from collections.abc import Callable
from json import JSONDecoder, JSONEncoder
from typing import Any, Protocol

from django.core.signing import JSONSerializer

# json.dumps() makes an encoder for every call that does not ask for the defaults.
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

# orjson makes a float of an integer beyond 64 bits, without a word. Such a number has 19 digits.
TOO_LONG = b"0" * 19
DIGITS = bytes.maketrans(b"123456789", b"000000000")


class Serializer(Protocol):
    """What SESSION_SERIALIZER names."""

    def dumps(self, obj: Any) -> bytes: ...

    def loads(self, data: bytes) -> Any: ...


def dump(dictionary: dict[str, Any], serializer: type[Serializer]) -> tuple[bytes, bool]:
    """
    Return what the serializer makes of the dictionary, and whether that is plain JSON.

    Raises what the serializer raises for a value that it cannot express: TypeError, for JSON.
    """
    if serializer is not JSONSerializer:  # not a subclass either: it may do anything
        return serializer().dumps(dictionary), False
    body = _encode(dictionary).encode("ascii")
    return body, is_plain(body)


def load(body: bytes, plain: bool, serializer: type[Serializer]) -> Any:
    """
    Return what the serializer makes of the bytes. ``plain`` is what ``dump()`` said of them.

    Raises what the serializer raises: the site may have changed SESSION_SERIALIZER since.
    """
    if plain and serializer is JSONSerializer:
        try:
            return load_facts(body)
        except ValueError:
            pass  # NaN, infinity, half of a surrogate pair, a thousand levels: orjson refuses them
    return serializer().loads(body)


def is_plain(body: bytes) -> bool:
    """
    Tell whether orjson, if it reads this output of Django's serializer at all, reads the same.
    """
    return TOO_LONG not in body.translate(DIGITS)
