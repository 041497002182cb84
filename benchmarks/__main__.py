"""
Measures this project, its peers and the bare drivers, in turns, on a PostgreSQL and a Redis of
their own: ``make bench``, or, in under three minutes, ``make bench QUICK=1``. The command fails if
this project misses a bar. docs/performance.md says what is measured, and how.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from benchmarks import activity, bearer, concurrency, purge, sealing, shop
from benchmarks.contenders import (
    CONTENDERS,
    KIT_DB,
    KIT_PREPARED,
    KIT_REDIS,
    Contender,
    Servers,
)
from benchmarks.contests import OPERATIONS, REGISTRY, REQUESTS, Contest, serves, take_turns
from benchmarks.machine import Cores, describe
from benchmarks.picture import draw
from benchmarks.processes import Process
from benchmarks.report import Rounds, Table, compare
from tests import servers


class Size(NamedTuple):
    rounds: int
    seconds: float  # for each contender in each round
    rows: list[int]  # numbers of sessions in the tables
    polling: tuple[int, int, int]  # sessions, seconds, touches
    visitors: list[int]  # numbers of visitors who are in the shop at once
    purged: int  # sessions in the tables of the purge, half of them expired


PICTURE = "![What an operation takes, in microseconds](performance.svg)\n"
DOCUMENT, HEADING = servers.PROJECT / "docs" / "performance.md", "## Figures\n\n"

QUICK = Size(5, 0.03, [100_000], (100, 61, 1_000), [10], purge.QUICK)
FULL = Size(21, 0.1, [10_000, 100_000, 1_000_000], (1_000, 61, 50_000), [1, 10, 50], purge.FULL)


class Bench:
    def __init__(self, size: Size, place: Servers, cores: Cores) -> None:
        self.size, self.place, self.cores = size, place, cores
        everybody = [Process(contender, place) for contender in CONTENDERS]
        problems = {process.contender: process.problem() for process in everybody}
        self.absent = {contender: problem for contender, problem in problems.items() if problem}
        self.processes = {p.contender: p for p in everybody if p.contender not in self.absent}
        for process in self.processes.values():
            process.do("prepare")

    def fill(self, rows: int) -> None:
        """Put so many sessions into all tables. Of contenders that share tables, one does it."""
        shared = {c.app.name if c.engine else c.name: c for c in reversed(self.processes)}
        for contender in shared.values():
            self.processes[contender].do("fill", rows)

    def rounds(
        self, takes_part: Callable[[Contender], bool], time: Callable[[Process], float]
    ) -> dict[Contender, Rounds]:
        everybody = [p for contender, p in self.processes.items() if takes_part(contender)]
        figures = take_turns(everybody, self.size.rounds, time)
        return {p.contender: own for p, own in zip(everybody, figures, strict=True)}

    def hold(self, contest: Contest) -> Table:
        rounds = self.rounds(contest.takes_part, lambda p: contest.time(p, self.size.seconds))
        absent = {c: problem for c, problem in self.absent.items() if contest.takes_part(c)}
        return compare(contest.title, rounds, contest.bars, self.cores.apart, absent)


# The parts, in an order in which the tables only grow.


def last_activity(bench: Bench) -> Iterator[Table]:
    sessions, seconds, touches = bench.size.polling
    yield bench.processes[KIT_DB].call(activity.measure, sessions, seconds, touches)
    # The Redis engine writes only one of the two tables, in the same way: a tenth is enough.
    yield bench.processes[KIT_REDIS].call(activity.measure, sessions, seconds, touches // 10)


def growth(bench: Bench) -> Iterator[Table]:
    table = Table("As the tables grow, µs", ["", *[f"{n:,} sessions" for n in bench.size.rows]])
    lines: dict[str, list[str]] = {}
    for rows in bench.size.rows:
        bench.fill(rows)
        for contest in (*OPERATIONS[:2], REGISTRY[0]):
            for name, took, *_ in bench.hold(contest).rows:
                lines.setdefault(f"{contest.title}: {name}", []).append(took)
    table.rows = [[label, *line] for label, line in lines.items()]
    yield table


def operations(bench: Bench) -> Iterator[Table]:
    bench.fill(bench.size.rows[-1])
    yield from map(bench.hold, OPERATIONS)


def requests(bench: Bench) -> Iterator[Table]:
    bench.fill(bench.size.rows[-1])
    yield from map(bench.hold, REQUESTS)


def registry(bench: Bench) -> Iterator[Table]:
    bench.fill(bench.size.rows[-1])
    yield from map(bench.hold, REGISTRY)


def payloads(bench: Bench) -> Iterator[Table]:
    yield bench.processes[KIT_DB].call(sealing.measure, bench.size.rounds, bench.size.seconds)


def async_views(bench: Bench) -> Iterator[Table]:
    def rounds(view: str) -> dict[Contender, Rounds]:
        seconds = 5 * bench.size.seconds
        return bench.rounds(
            lambda c: c in concurrency.CONTENDERS,
            lambda p: p.call(concurrency.measure, view, seconds),
        )

    yield concurrency.table_of({"reading": rounds("aread"), "writing": rounds("awrite")})


def account_page(bench: Bench) -> Iterator[Table]:
    contenders = [c for c in bench.processes if serves(c) and c != KIT_PREPARED]
    keys = [bench.processes[c].call(attrgetter("keys")) for c in contenders]
    seconds = max(1.0, 10 * bench.size.seconds)
    with ExitStack() as stack:
        with bench.cores.on(bench.cores.all):
            ports = [stack.enter_context(shop.serve(c, bench.place)) for c in contenders]
        sites = list(zip(ports, keys, strict=True))
        figures = {
            visitors: take_turns(
                [(*site, visitors, seconds) for site in sites],
                max(2, bench.size.rounds // 3),
                lambda site: shop.ask(*site),
            )
            for visitors in bench.size.visitors
        }
    yield shop.table_of(contenders, figures)


def apps_with_tokens(bench: Bench) -> Iterator[Table]:
    names = [name for name, site in bearer.SITES.items() if site.contender in bench.processes]
    seconds = max(1.0, 10 * bench.size.seconds)
    with ExitStack() as stack:
        sites = []
        for name in names:
            site = bearer.SITES[name]
            keys = bench.processes[site.contender].call(attrgetter("keys"))
            tokens = bearer.tokens_of(name, bench.place, keys)
            with bench.cores.on(bench.cores.all):
                port = stack.enter_context(bearer.serve(name, bench.place))
            sites.append((port, site.page, tokens, bearer.APPS_AT_ONCE, seconds))
        rounds = take_turns(
            sites,
            max(2, bench.size.rounds // 3),
            lambda site: asyncio.run(shop.ask_ourselves(*site)),
        )
    yield bearer.table_of(dict(zip(names, rounds, strict=True)))


def purges(bench: Bench) -> Iterator[Table]:
    yield from purge.tables(bench.size.purged, bench.cores)


PARTS: dict[str, Callable[[Bench], Iterator[Table]]] = {
    "activity": last_activity,
    "growth": growth,
    "operations": operations,
    "requests": requests,
    "registry": registry,
    "payloads": payloads,
    "async": async_views,
    "shop": account_page,
    "bearer": apps_with_tokens,
    "purge": purges,
}
IN_PICTURE = [contest.title for contest in (*OPERATIONS[:5], REQUESTS[0])]
IN_QUICK = [name for name in PARTS if name != "growth"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="take under three minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the figures, as SVG")
    parser.add_argument("--write", action="store_true", help="put the figures in the documents")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no {', '.join(unknown)}")
    size, parts = (QUICK, IN_QUICK) if options.quick else (FULL, list(PARTS))
    parts = [part for part in PARTS if part in (options.parts or parts)]

    begun = time.monotonic()
    about, tables = run(size, parts)
    missed = [verdict for table in tables for verdict in table.verdicts if verdict.missed]
    for verdict in missed:
        say(f"Missed: {verdict.what}: {verdict.found:.2f}, not {verdict.bar}")
    say(f"{len(missed)} bars missed, in {(time.monotonic() - begun) / 60:.1f} minutes.")
    if options.json:
        results = {"about": about, "tables": [asdict(table) for table in tables]}
        options.json.write_text(json.dumps(results, indent=1))
    figures = {table.title: table.figures for table in tables if table.title in IN_PICTURE}
    if options.picture:
        draw(figures, options.picture)
    if options.write:
        DOCUMENT.write_text(written(DOCUMENT.read_text(), about, tables))
        if figures.keys() >= {*IN_PICTURE}:
            draw(figures, DOCUMENT.with_suffix(".svg"))
    return 1 if missed else 0


def written(document: str, about: str, tables: list[Table]) -> str:
    """Return the document with these tables. Tables of parts that were not measured stay."""
    before, rest = document.split(HEADING, 1)
    end = rest.index("\n## ")
    sections = {text.partition("\n")[0]: text for text in rest[:end].split("### ")[1:]}
    for table in tables:
        title, text = table.title, str(table).removeprefix("### ")
        sections[title] = f"{text}\n"
    figures = "".join(f"### {text}" for text in sections.values()).rstrip("\n")
    return f"{before}{HEADING}{about}\n{PICTURE}\n{figures}\n{rest[end:]}"


def run(size: Size, parts: list[str]) -> tuple[str, list[Table]]:
    """Measure these parts. Return a line about the machine, and the tables."""
    cores, tables = Cores(), []
    with ExitStack() as stack:
        with cores.on(cores.servers):
            postgresql, redis = servers.postgresql(durable=True), servers.redis("redis")
        databases = {
            name: stack.enter_context(servers.own_database(postgresql))
            for name in {contender.app.name for contender in CONTENDERS}
        }
        place = Servers(databases, redis)
        about = f"{describe(place)}; {cores}. {size.rounds} rounds, {size.rows[-1]:,} sessions.\n"
        say(about)
        bench = Bench(size, place, cores)
        for part in parts:
            for table in PARTS[part](bench):
                say(str(table))
                tables.append(table)
    return about, tables


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
