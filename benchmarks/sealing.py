"""
What a payload costs without a store: sealing, compared with Django's signing. Both are timed in a
loop, and after a wait for a server. After a wait, as in a request, the processor's caches hold
other data.
"""

import json
import socket
from collections.abc import Callable
from statistics import median
from time import perf_counter
from timeit import Timer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from django.contrib.sessions.backends.base import VALID_KEY_CHARS
from django.core import signing
from django.utils.crypto import get_random_string

from benchmarks.drivers import CART, Driver, cart_of
from benchmarks.report import Ratio, Rounds, Table, Verdict
from django_sessionkit.backends.sealing import SessionKey, new_session_key, seal, unseal
from django_sessionkit.backends.serializing import dump, dump_facts, load, load_facts

FACTS = {"handle": "0" * 32, "user": "1", "authenticated_at": 10**12, "until": 10**12}
# Bytes. This is more than the caches of a core can hold.
OTHER_THINGS = bytes(4 * 2**20)
# The least number of waits in a round, so that there is a median.
WAITS = 5


class Pair(NamedTuple):
    what: str
    limit: float | None
    # What the engine does before it asks the store. In the loop, this is timed as well. Otherwise,
    # it comes before the wait.
    before: Callable[[], SessionKey]
    ours: Callable[[SessionKey], object]
    django: Callable[[], object]


class Ready:
    """A serializer that has done its work beforehand, so that its time does not count."""

    def __init__(self, contents: object) -> None:
        self.data, self.contents = json.dumps(contents, separators=(",", ":")).encode(), contents

    def dumps(self, obj: object) -> bytes:
        return self.data

    def loads(self, data: bytes) -> Any:
        return self.contents


class Server:
    """A Redis, asked only for PONG."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self.line = socket.create_connection((place.hostname, place.port))

    def wait(self) -> None:
        """Wait for an answer, and fill the processor's caches with other data."""
        bytearray(OTHER_THINGS)
        self.line.sendall(b"PING\r\n")
        self.line.recv(64)


def pairs_of(kilobytes: float) -> list[Pair]:
    contents = {"cart": cart_of(round(kilobytes * 1024 / len(json.dumps(CART)) * len(CART)))}
    large = kilobytes > 10
    return [
        *with_json(f"{kilobytes} KB", contents, None if large else 1),
        *json_apart(f"{kilobytes} KB, JSON apart", contents, 1 / 3 if large else None),
    ]


def with_json(of: str, contents: dict[str, Any], limit: float | None) -> list[Pair]:
    def ours(key: SessionKey) -> bytes:
        body, plain = dump(contents, signing.JSONSerializer)
        return seal(dump_facts(FACTS), body, key, plain)

    def opened(key: SessionKey) -> object:
        found = unseal(payload, key)
        assert found  # noqa: S101
        facts, body, plain = found
        return load_facts(facts), load(body, plain, signing.JSONSerializer)

    before = preparing(str(new_session_key()))
    payload = ours(before())
    return both_ways(of, limit, before, ours, opened, contents, signing.JSONSerializer)


def json_apart(of: str, contents: dict[str, Any], limit: float | None) -> list[Pair]:
    facts, (body, plain) = dump_facts(FACTS), dump(contents, signing.JSONSerializer)
    before = preparing(str(new_session_key()))
    payload = seal(facts, body, before(), plain)
    return both_ways(
        of,
        limit,
        before,
        lambda key: seal(facts, body, key, plain),
        lambda key: unseal(payload, key),
        contents,
        lambda: Ready(contents),
    )


def preparing(session_key: str) -> Callable[[], SessionKey]:
    def before() -> SessionKey:
        key = SessionKey(session_key)
        key.prepare()
        return key

    return before


def both_ways(
    of: str,
    limit: float | None,
    before: Callable[[], SessionKey],
    sealing: Callable[[SessionKey], object],
    opening: Callable[[SessionKey], object],
    contents: dict[str, Any],
    serializer: Callable[[], Any],
) -> list[Pair]:
    options: Any = {"salt": "of sessions", "serializer": serializer}
    signed = signing.dumps(contents, compress=True, **options)

    def sign() -> object:
        return signing.dumps(contents, compress=True, **options)

    return [
        Pair(f"Seal {of}", limit, before, sealing, sign),
        Pair(f"Open {of}", limit, before, opening, lambda: signing.loads(signed, **options)),
    ]


def measure(driver: Driver, rounds: int, seconds: float) -> Table:
    note = (
        "In a loop, with all that it takes; after a wait, without what the engine makes before it"
        " asks the store. Django's is `signing.dumps()` and `loads()`. The bar is that of the loop."
    )
    columns = ["", "µs", "Django µs", "to Django", "after a wait, µs", "Django µs", "to Django"]
    title = "Sealing a payload, beside Django's signing of it"
    table = Table(title, [*columns, "bar"], notes=[note])
    server = Server(driver.servers.redis)
    pairs = [pair for kilobytes in (0.5, 4, 50) for pair in pairs_of(kilobytes)]
    nothing = new_session_key()
    pairs.append(
        Pair(
            "A new session key",
            0.1,
            lambda: nothing,
            lambda key: new_session_key(),
            lambda: get_random_string(32, VALID_KEY_CHARS),
        )
    )
    for pair in pairs:
        in_loop = alternate(pair, rounds, seconds)
        after_wait = alternate_after(server.wait, pair, rounds, seconds)
        row, ratios = [pair.what], []
        for figures in (in_loop, after_wait):
            ratios.append(Ratio.of(*figures))
            row += [*[f"{median(own) * 1e6:,.1f}" for own in figures], str(ratios[-1])]
        verdicts = []
        if pair.limit:
            verdicts = [Verdict(f"{pair.what} to Django", pair.limit, ratios[0].middle)]
        table.rows.append([*row, ", ".join(map(str, verdicts))])
        table.verdicts += verdicts
        table.figures[pair.what] = in_loop, after_wait
    return table


def alternate(pair: Pair, rounds: int, seconds: float) -> tuple[Rounds, Rounds]:
    """Return the times of both, ours and Django's, in a loop: seconds, by round."""
    timers = Timer(lambda: pair.ours(pair.before())), Timer(pair.django)
    number = max(1, int(seconds / 4 / max(timer.timeit(1) for timer in timers)))
    figures = [[timer.timeit(number) / number for timer in timers] for _ in range(rounds)]
    return [ours for ours, _ in figures], [django for _, django in figures]


def alternate_after(
    wait: Callable[[], None], pair: Pair, rounds: int, seconds: float
) -> tuple[Rounds, Rounds]:
    """Return the times of both, once after each wait: seconds, the median of each round."""

    def ours() -> float:
        key = pair.before()
        wait()
        start = perf_counter()
        pair.ours(key)
        return perf_counter() - start

    def django() -> float:
        wait()
        start = perf_counter()
        pair.django()
        return perf_counter() - start

    figures: list[tuple[float, float]] = []
    for _ in range(rounds):
        times: list[tuple[float, float]] = []
        end = perf_counter() + seconds
        while len(times) < WAITS or perf_counter() < end:
            times.append((ours(), django()))
        own, others = zip(*times, strict=True)
        figures.append((median(own), median(others)))
    return [ours for ours, _ in figures], [django for _, django in figures]
