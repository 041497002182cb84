"""
How many Python frames an engine takes around what its driver does: a count, which no other work of
the machine disturbs. In some seconds, on servers of its own::

    .venv/bin/python -m benchmarks.frames

Before: from ``load()`` or ``save()`` to the driver's first call. After: from the driver's last
answer to the return. The frames of the driver itself are not counted. A generator that goes on
counts as a frame, and functions in C do not.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from types import CodeType, FrameType
from typing import TYPE_CHECKING, NamedTuple

import psycopg
import redis

from benchmarks.contenders import DJANGO_CACHE, DJANGO_DB, KIT_DB, KIT_REDIS, Servers
from benchmarks.processes import Process
from tests import servers

if TYPE_CHECKING:
    from benchmarks.drivers import Engine

# What a statement or command goes through, whoever asks for it.
DRIVERS: set[CodeType] = {
    psycopg.Cursor.execute.__code__,
    redis.Redis.execute_command.__code__,
    redis.client.Pipeline.execute.__code__,
}
CONTENDERS = [KIT_DB, DJANGO_DB, KIT_REDIS, DJANGO_CACHE]


class Frames(NamedTuple):
    before: int
    between: int  # two calls of the driver
    after: int


class Counter:
    """Counts frames, apart by the calls of the driver that lie between them."""

    def __init__(self) -> None:
        self.counts = [0]
        self.inside: FrameType | None = None  # the driver's own frame

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if event == "call" and self.inside is None:
            if frame.f_code in DRIVERS:
                self.inside = frame
                self.counts.append(0)
            else:
                self.counts[-1] += 1
        elif event == "return" and frame is self.inside:
            self.inside = None

    def frames(self) -> Frames:
        before, *between, after = self.counts
        return Frames(before, sum(between), after)


def count(function: Callable[[], object]) -> Frames:
    """Return the frames of one call. Raises ValueError where the driver was not called."""
    counter = Counter()
    sys.setprofile(counter)
    try:
        function()
    finally:
        sys.setprofile(None)
    return counter.frames()


def measure(driver: "Engine") -> dict[str, Frames]:
    """Count in the process of a contender, for the second session: the first one fills caches."""
    driver.freshen()
    for key in driver.keys[:2]:
        loading = driver.request("none", key).session
        load = count(loading.load)
        saving = driver.request("none", key).session
        saving["number"] = 1
        save = count(saving.save)
    return {"load": load, "save": save}


def main() -> None:
    postgresql, store = servers.postgresql(), servers.redis("redis")
    with ExitStack() as stack:
        databases = {
            name: stack.enter_context(servers.own_database(postgresql))
            for name in {contender.app.name for contender in CONTENDERS}
        }
        print(f"{'':32}" + "".join(f"{name:>8}" for name in Frames._fields))  # noqa: T201
        for contender in CONTENDERS:
            process = Process(contender, Servers(databases, store))
            if problem := process.problem():
                raise RuntimeError(f"{contender.name}: {problem}")
            process.do("prepare")
            for what, frames in process.call(measure).items():
                label = f"{contender.name}, {what}"
                print(f"{label:32}" + "".join(f"{number:8}" for number in frames))  # noqa: T201


if __name__ == "__main__":
    main()
