"""The operations in which all contenders take turns, and the bars for this project."""

import random
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from benchmarks.contenders import (
    DRIVER,
    ENGINE,
    KIT_DB,
    KIT_DERIVED,
    KIT_PREPARED,
    KIT_REDIS,
    SESSIONS,
    WITH_ALLAUTH,
    Contender,
)
from benchmarks.processes import Process
from benchmarks.report import Bar, Rounds

Bars = dict[Contender, list[Bar]]


class Contest(NamedTuple):
    title: str
    operation: str
    takes_part: Callable[[Contender], bool]
    bars: Bars = {}
    args: tuple[int, ...] = ()
    but_for: str = ""  # an operation whose time is subtracted, in every round

    def time(self, process: Process, seconds: float) -> float:
        took: float = process.do("time", self.operation, seconds, *self.args)
        if self.but_for:
            took -= process.do("time", self.but_for, seconds)
        return took


def stores(contender: Contender) -> bool:
    """Leave out engines that store just as another contender: Django's, and ours for Redis."""
    return contender not in (WITH_ALLAUTH, KIT_DERIVED)


def is_engine(contender: Contender) -> bool:
    return bool(contender.engine) and stores(contender)


def serves(contender: Contender) -> bool:
    return bool(contender.engine) and contender != KIT_DERIVED


def lists(contender: Contender) -> bool:
    """Leave out Django's engines, which do not know the users of sessions."""
    return contender.app != SESSIONS and contender != KIT_DERIVED


# What one session costs, outside of a request. Create, cycle and delete use the session of a
# visitor, which takes one statement or command. Sign-in and sign-out show what the registry costs.
OPERATIONS = [
    Contest(
        "Load",
        "load",
        stores,
        {
            KIT_DB: [Bar(2.0, DRIVER), Bar(0.40, ENGINE)],
            KIT_PREPARED: [Bar(1.6, DRIVER), Bar(0.32, ENGINE)],
            KIT_REDIS: [Bar(1.35, DRIVER), Bar(1.10, ENGINE)],
        },
    ),
    Contest(
        "Save",
        "save",
        stores,
        {
            KIT_DB: [Bar(1.6, DRIVER), Bar(0.45, ENGINE)],
            KIT_REDIS: [Bar(1.5, DRIVER), Bar(0.65, ENGINE)],
        },
    ),
    Contest(
        "Create",
        "create",
        stores,
        {
            KIT_DB: [Bar(1.6, DRIVER), Bar(0.35, ENGINE)],
            KIT_REDIS: [Bar(1.5, DRIVER), Bar(0.50, ENGINE)],
        },
    ),
    Contest(
        "Change the key",
        "cycle",
        stores,
        {
            KIT_DB: [Bar(2.5, DRIVER), Bar(0.2, ENGINE)],
            KIT_REDIS: [Bar(2.0, DRIVER), Bar(0.35, ENGINE)],
        },
    ),
    Contest(
        "Delete",
        "delete",
        stores,
        {
            KIT_DB: [Bar(1.6, DRIVER), Bar(0.35, ENGINE)],
            KIT_REDIS: [Bar(1.3, DRIVER), Bar(1.1, ENGINE)],
        },
    ),
    Contest("Sign in", "sign_in", is_engine),
    Contest("Sign out", "sign_out", is_engine),
]

# What sessions add to a signed-in GET: the time of the same GET without sessions is subtracted.
REQUESTS = [
    Contest(
        "A GET that reads who it is",
        "read",
        serves,
        {KIT_DB: [Bar(0.70, ENGINE)], KIT_REDIS: [Bar(1.0, ENGINE)]},
        but_for="none",
    ),
    Contest(
        "A GET that also writes",
        "write",
        serves,
        {KIT_DB: [Bar(0.60, ENGINE)], KIT_REDIS: [Bar(0.85, ENGINE)]},
        but_for="none",
    ),
]

# The bars compare with the drivers. To end: UPDATE and DELETE, or UPDATE and DEL on Redis.
# To list: SELECT, and a pipeline on Redis.
REGISTRY = [
    Contest(
        f"{title} {number:,} sessions",
        operation,
        lists,
        {KIT_DB: [Bar(limit, DRIVER)], KIT_REDIS: [Bar(limit, DRIVER)]},
        (number,),
    )
    for title, operation, number, limit in [
        ("List a user's", "list", 5, 3.5),
        ("List a user's", "list", 1000, 2.5),
        ("End all but one of a user's", "revoke", 5, 3.0),
        ("End all but one of a user's", "revoke", 1000, 2.0),
    ]
]


T = TypeVar("T")


def take_turns(everybody: Iterable[T], rounds: int, time: Callable[[T], float]) -> list[Rounds]:
    """Time everybody once in every round, in a random order. The first round only warms up."""
    everybody = list(everybody)
    figures: list[Rounds] = [[] for _ in everybody]
    for _ in range(rounds + 1):
        for number in random.sample(range(len(everybody)), len(everybody)):
            figures[number].append(time(everybody[number]))
    return [own[1:] for own in figures]
