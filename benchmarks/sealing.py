"""What a payload costs without a store: sealed here, and signed by Django."""

import json
from collections.abc import Callable
from statistics import median
from timeit import Timer
from typing import Any, NamedTuple

from django.contrib.sessions.backends.base import VALID_KEY_CHARS
from django.core import signing
from django.utils.crypto import get_random_string

from benchmarks.drivers import CART, Driver, cart_of
from benchmarks.report import Ratio, Rounds, Table, Verdict
from django_sessionkit.sealing import digest_of, new_session_key, seal, unseal

FACTS = {"handle": "0" * 32, "user": "1", "authenticated_at": 10**12, "until": 10**12}


class Pair(NamedTuple):
    what: str
    limit: float | None
    ours: Callable[[], object]
    django: Callable[[], object]


class Ready:
    """A serializer that has already done its work."""

    def __init__(self, contents: object) -> None:
        self.data, self.contents = json.dumps(contents, separators=(",", ":")).encode(), contents

    def dumps(self, obj: object) -> bytes:
        return self.data

    def loads(self, data: bytes) -> Any:
        return self.contents


def pairs_of(kilobytes: float) -> list[Pair]:
    contents = {"cart": cart_of(round(kilobytes * 1024 / len(json.dumps(CART)) * len(CART)))}
    with_json, without = signing.JSONSerializer(), Ready((FACTS, contents))
    large = kilobytes > 10
    return [
        *both_ways(f"{kilobytes} KB", contents, with_json, None if large else 1),
        *both_ways(f"{kilobytes} KB, JSON apart", contents, without, 1 / 3 if large else None),
    ]


def both_ways(of: str, contents: Any, serializer: Any, limit: float | None) -> list[Pair]:
    key, pair = new_session_key(), (FACTS, contents)
    options: Any = {"salt": "of sessions", "serializer": lambda: serializer}

    def ours() -> bytes:
        return seal(pair, key, digest_of(key), serializer)

    def django() -> str:
        return signing.dumps(contents, compress=True, **options)

    sealed, signed = ours(), django()
    return [
        Pair(f"Seal {of}", limit, ours, django),
        Pair(
            f"Open {of}",
            limit,
            lambda: unseal(sealed, key, digest_of(key), serializer),
            lambda: signing.loads(signed, **options),
        ),
    ]


def measure(driver: Driver, rounds: int, seconds: float) -> Table:
    table = Table(
        "Sealing a payload, beside Django's signing of it",
        ["", "µs", "Django µs", "to Django", "bar"],
        notes=["With the digest of the session key. Django's is `signing.dumps()` and `loads()`."],
    )
    pairs = [pair for kilobytes in (0.5, 4, 50) for pair in pairs_of(kilobytes)]
    pairs.append(Pair("A new session key", 0.1, new_session_key, new_key_of_django))
    for pair in pairs:
        ours, django = alternate(pair, rounds, seconds)
        ratio = Ratio.of(ours, django)
        times = [f"{median(figures) * 1e6:,.1f}" for figures in (ours, django)]
        verdict = (
            Verdict(f"{pair.what} to Django", pair.limit, ratio.middle) if pair.limit else None
        )
        table.rows.append([pair.what, *times, str(ratio), str(verdict or "")])
        table.verdicts += [verdict] if verdict else []
        table.figures[pair.what] = ours, django
    return table


def new_key_of_django() -> str:
    return get_random_string(32, VALID_KEY_CHARS)


def alternate(pair: Pair, rounds: int, seconds: float) -> tuple[Rounds, Rounds]:
    timers = Timer(pair.ours), Timer(pair.django)
    number = max(1, int(seconds / 4 / max(timer.timeit(1) for timer in timers)))
    figures = [[timer.timeit(number) / number for timer in timers] for _ in range(rounds)]
    return [ours for ours, _ in figures], [django for _, django in figures]
