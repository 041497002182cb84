"""
How fast a purge goes. A statement takes some milliseconds, however fast the database is, then the
purge rests, and after the time that it has, it stops.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

# A statement of a purge is to take so many seconds: it holds others up for no longer.
TARGET = 0.005
# Ranges grow to so many times their first size at most, and shrink to this share of it at least. So
# does what a statement writes.
MOST, LEAST = 64, 10
# A range that takes more steps than this was far too large: the next is so many times smaller.
STEPS = 8

# Called by a purge with the number of parts that are done, and of all parts.
Progress = Callable[[int, int], None]

T = TypeVar("T")


class Size:
    """
    How many rows or blocks a statement handles, so that it takes about TARGET. One slow statement
    means little: something else may have had the processor or the disk.
    """

    def __init__(self, first: int, least: int = 0, target: float = 1.0) -> None:
        self.number = first
        self._least, self._most = max(1, least or first // LEAST), first * MOST
        self.target = target  # in TARGETs
        self._was_slow = False

    def learn(self, seconds: float, handled: int) -> None:
        """Learn how long a statement took that has handled so many."""
        target = TARGET * self.target
        if seconds <= target:
            self._was_slow = False
            if seconds < target * 0.75 and handled >= self.number:
                more = self.number if seconds < target / 2 else self.number // 4
                self.number = min(self._most, self.number + more)
        elif self._was_slow or seconds > 4 * target:
            self.shrink(2)
        else:
            self._was_slow = True

    def shrink(self, times: int) -> None:
        self.number, self._was_slow = max(self._least, self.number // times), False


class Pace:
    """
    How fast a run of the purge goes and for how long, how far it is, and what it has done.

    ``seconds`` and ``duty`` are those of purging.purge(). ``places`` says how far the walks of an
    earlier run have come, which this one carries on. It can be written as JSON.
    """

    def __init__(
        self,
        progress: Progress | None = None,
        *,
        seconds: float | None = None,
        duty: float = 1.0,
        dry_run: bool = False,
        places: dict[str, dict[str, Any]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not 0 < duty <= 1:
            raise ValueError("The share of the time in which a purge works is above 0, up to 1.")
        self.dry_run = dry_run
        self.places = {} if places is None else places
        self.figures: Counter[str] = Counter()
        # Whether time has run out: there is more to do.
        self.is_cut_short = False
        self.progress = progress
        self._clock, self._sleep, self._duty = clock, sleep, duty
        self._until = None if seconds is None else clock() + seconds
        self._has_begun = False
        self._sizes: dict[str, Size] = {}
        self._steps: list[float] = []  # of this part, in seconds
        self._had_more = False  # than one statement may write

    def goes_on(self) -> bool:
        """
        Tell whether there is time for another part. A run that is told otherwise has not finished.
        There always is time for the first part, so that many short runs get to the end.
        """
        if self._has_begun and self._until is not None and self._clock() >= self._until:
            self.is_cut_short = True
        self._has_begun = True
        return not self.is_cut_short

    def time_left(self) -> float | None:
        """Return how many seconds this run still has, or None: all that it needs."""
        return None if self._until is None else max(0.0, self._until - self._clock())

    def size(self, name: str, first: int, least: int = 0, target: float = 1.0) -> Size:
        """
        Return how many rows or blocks a statement of this kind handles: that many at first and so
        many at least, in so many TARGETs.
        """
        return self._sizes.setdefault(name, Size(first, least, target))

    def step(self, size: Size, act: Callable[[int], int]) -> int:
        """
        Call ``act`` with the number that it is to handle at most, and return what it returns: how
        many it has handled. Learn from the time that this took, then rest.
        """
        number = size.number
        handled = self._timed(lambda: act(number))
        self._had_more = self._had_more or handled >= number
        size.learn(self._steps[-1], handled)
        self._rest()
        self._steps[-1] /= size.target
        return handled

    def read(self, act: Callable[[], T]) -> T:
        """
        Return what ``act`` returns, which reads something. Then rest. Nobody has to wait for who
        reads, so this may take twice as long.
        """
        found = self._timed(act)
        self._rest()
        self._steps[-1] /= 2
        return found

    def _timed(self, act: Callable[[], T]) -> T:
        began = self._clock()
        done = act()
        self._steps.append(self._clock() - began)
        return done

    def _rest(self) -> None:
        rest, left = self._steps[-1] * (1 / self._duty - 1), self.time_left()
        # Whoever has no time left is not to keep others waiting.
        if rest := rest if left is None else min(rest, left):
            self._sleep(rest)

    def learn(self, size: Size) -> None:
        """
        Learn how large a part of a table is to be, from the steps since the last call. If not all
        that there was to write did fit into a statement, the part was too large.
        """
        if len(self._steps) > STEPS:
            size.shrink(STEPS)
        elif self._steps:
            least = 1.01 * TARGET if self._had_more else 0.0
            size.learn(max(least, *self._steps), size.number)
        self._steps.clear()
        self._had_more = False
