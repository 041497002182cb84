"""The operations in which all contenders take turns, and what they are held to."""

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from benchmarks.contenders import (
    ALLAUTH,
    DRIVER,
    ENGINE,
    KIT_DB,
    KIT_DERIVED,
    KIT_PREPARED,
    KIT_REDIS,
    SESSIONS,
    Contender,
    Process,
)
from benchmarks.drivers import Driver
from benchmarks.report import Bar, Rounds

Bars = dict[Contender, list[Bar]]


class Contest(NamedTuple):
    title: str
    operation: str
    args: tuple[Any, ...] = ()
    bars: Bars = {}
    without_driver: bool = False


# What one session costs, outside of a request. Of create, cycle and delete a visitor's, for that is
# one statement or command; what it takes to know who is signed in where shows in the last two.
OPERATIONS = [
    Contest(
        "Load",
        "load",
        bars={
            KIT_DB: [Bar(2.0, DRIVER), Bar(0.35, ENGINE)],
            KIT_PREPARED: [Bar(0.2, ENGINE)],
            KIT_REDIS: [Bar(1.25, DRIVER), Bar(1.0, ENGINE)],
        },
    ),
    Contest(
        "Save",
        "save",
        bars={
            KIT_DB: [Bar(1.6, DRIVER), Bar(0.62, ENGINE)],
            KIT_REDIS: [Bar(1.5, DRIVER), Bar(0.65, ENGINE)],
        },
    ),
    Contest(
        "Create",
        "create",
        bars={
            KIT_DB: [Bar(1.6, DRIVER), Bar(0.35, ENGINE)],
            KIT_REDIS: [Bar(1.5, DRIVER), Bar(0.45, ENGINE)],
        },
    ),
    Contest(
        "Change the key",
        "cycle",
        bars={
            KIT_DB: [Bar(2.5, DRIVER), Bar(0.2, ENGINE)],
            KIT_REDIS: [Bar(2.0, DRIVER), Bar(0.35, ENGINE)],
        },
    ),
    Contest(
        "Delete",
        "delete",
        bars={
            KIT_DB: [Bar(1.6, DRIVER), Bar(0.35, ENGINE)],
            KIT_REDIS: [Bar(1.3, DRIVER), Bar(1.1, ENGINE)],
        },
    ),
    Contest("Sign in", "sign_in", without_driver=True),
    Contest("Sign out", "sign_out", without_driver=True),
]

# What sessions add to a signed-in GET: the same view without them is taken off.
REQUESTS = [
    Contest(
        "A GET that reads who it is",
        "read",
        bars={KIT_DB: [Bar(0.65, ENGINE)], KIT_REDIS: [Bar(1.0, ENGINE)]},
        without_driver=True,
    ),
    Contest(
        "A GET that also writes",
        "write",
        bars={KIT_DB: [Bar(0.65, ENGINE)], KIT_REDIS: [Bar(0.85, ENGINE)]},
        without_driver=True,
    ),
]

REGISTRY = [
    Contest(
        f"{title} {number:,} sessions",
        operation,
        (number,),
        {KIT_DB: [Bar(limit, DRIVER)], KIT_REDIS: [Bar(limit, DRIVER)]},
    )
    for title, operation, number, limit in [
        ("List a user's", "list", 5, 3.5),
        ("List a user's", "list", 1000, 2.5),
        ("End all but one of a user's", "revoke", 5, 3.0),
        ("End all but one of a user's", "revoke", 1000, 2.0),
    ]
]


def take_turns(
    processes: Iterable[Process], rounds: int, call: Callable[[Process], float]
) -> dict[Contender, Rounds]:
    """Have everybody do it once in every round, in an order that differs. One is to warm up."""
    everybody = list(processes)
    figures: dict[Contender, Rounds] = {process.contender: [] for process in everybody}
    for warm in [False, *[True] * rounds]:
        for process in random.sample(everybody, len(everybody)):
            figure = call(process)
            if warm:
                figures[process.contender].append(figure)
    return figures
