"""
Counts the Python frames of an engine before and after its driver. Unlike a time, a count does not
depend on what else the machine does. This takes some seconds, on servers of its own::

    .venv/bin/python -m benchmarks.frames

"Before" is from ``load()`` or ``save()`` to the first call of the driver. "After" is from the
driver's last answer to the return. Frames of the driver are not counted. A generator counts as a
frame each time it goes on. Functions in C do not count.
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

# The functions of the drivers that every statement or command goes through.
DRIVERS: set[CodeType] = {
    psycopg.Cursor.execute.__code__,
    redis.Redis.execute_command.__code__,
    redis.client.Pipeline.execute.__code__,
}
CONTENDERS = [KIT_DB, DJANGO_DB, KIT_REDIS, DJANGO_CACHE]


class Frames(NamedTuple):
    before: int
    between: int  # between calls of the driver
    after: int


class Counter:
    """Counts frames, with a separate count after each call of the driver."""

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
    """Return the frames of one call. Raises ValueError if the driver was not called."""
    counter = Counter()
    sys.setprofile(counter)
    try:
        function()
    finally:
        sys.setprofile(None)
    return counter.frames()


def measure(driver: "Engine") -> dict[str, Frames]:
    """Count frames in the process of a contender, of a second session: the first fills caches."""
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
