"""
This project, its peers and the bare drivers, in turns, on a PostgreSQL and a Redis of their own:
``make bench``, or, in under three minutes, ``make bench QUICK=1``. See docs/performance.md.

It fails where a bar is missed.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks import contests
from benchmarks.contenders import (
    ALLAUTH,
    CONTENDERS,
    KIT_DERIVED,
    Contender,
    Process,
    Servers,
)
from benchmarks.drivers import Driver
from benchmarks.report import Table, compare
from tests import servers


class Size(NamedTuple):
    rounds: int
    seconds: float  # of one contender in one round
    rows: list[int]  # sessions in the tables


QUICK = Size(rounds=5, seconds=0.03, rows=[100_000])
FULL = Size(rounds=21, seconds=0.1, rows=[10_000, 100_000, 1_000_000])


class Bench:
    def __init__(self, size: Size, servers: Servers, pinned: bool) -> None:
        self.size, self.pinned = size, pinned
        started = [Process(contender, servers) for contender in CONTENDERS]
        self.absent = {process.contender: process.problem() for process in started}
        self.processes = [p for p in started if not self.absent[p.contender]]
        for process in self.processes:
            process.do("prepare")
    

def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[-1:])
    with ExitStack() as stack:
        pg = servers.postgresql()
        names = {c.app.name for c in CONTENDERS}
        databases = {n: stack.enter_context(servers.own_database(pg)) for n in names}
        place = Servers(databases, servers.redis("redis"))
        os.sched_setaffinity(0, cores[:1])
        bench = Bench(size, place, True)
        for contest in contests.OPERATIONS:
            processes = [p for p in bench.processes if p.contender.app != ALLAUTH and p.contender != KIT_DERIVED and (p.contender.engine or not contest.without_driver)]
            rounds = contests.take_turns(processes, size.rounds, lambda p: p.do("time", contest.operation, size.seconds, *contest.args))
            print(compare(contest.title, rounds, contest.bars, True, {}))


if __name__ == "__main__":
    sys.exit(main())
