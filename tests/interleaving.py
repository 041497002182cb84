"""Interleaving: what other requests do between two steps of a request, without chance."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from django_sessionkit.storage import Storage

Act = Callable[[], Any]


def before(monkeypatch: pytest.MonkeyPatch, owner: Any, step: str, act: Act) -> list[Act]:
    """
    Do something just before the next call of a step, which is a method of the store or a function
    of a module. Return a list, which is empty once that has been done.
    """
    original = getattr(owner, step)
    left = [act]

    def interleaved(*args: Any, **kwargs: Any) -> Any:
        if left:
            left.pop()()
        return original(*args, **kwargs)

    _replace(monkeypatch, owner, step, interleaved)
    return left


def after(monkeypatch: pytest.MonkeyPatch, owner: Any, step: str, act: Act) -> list[Act]:
    """Do something just after the next call of a step. Otherwise like before()."""
    original = getattr(owner, step)
    left = [act]

    def interleaved(*args: Any, **kwargs: Any) -> Any:
        answer = original(*args, **kwargs)
        if left:
            left.pop()()
        return answer

    _replace(monkeypatch, owner, step, interleaved)
    return left


def _replace(monkeypatch: pytest.MonkeyPatch, owner: Any, step: str, by: Callable[..., Any]):
    # The steps of a store are static or class methods, which getattr() has bound already.
    is_store = isinstance(owner, type) and issubclass(owner, Storage)
    monkeypatch.setattr(owner, step, staticmethod(by) if is_store else by)


def deadlock() -> None:
    """Fail as a statement does that MySQL ends, for two transactions wait for each other."""
    raise OperationalError(1213, "Deadlock found when trying to get lock")


NO_QUOTES = str.maketrans("", "", '"`')  # of PostgreSQL and SQLite, and of MariaDB


@contextmanager
def before_statement(first_words: str, act: Act, last_words: str = "") -> Iterator[None]:
    """
    Do something just before the first SQL statement that begins with these words, unquoted, and
    ends with those.
    """
    left = [act]

    def look(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if left and sql.translate(NO_QUOTES).startswith(first_words) and sql.endswith(last_words):
            left.pop()()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(look):
        yield
    assert not left, f"there was no {first_words}"


def before_write(first_words: str, act: Act) -> AbstractContextManager[None]:
    """
    Do something at the last moment at which somebody else can, before a purge writes with the first
    statement that begins with these words. On MySQL, it takes the rows before.
    """
    if connection.vendor == "mysql":
        return before_statement("SELECT", act, "FOR UPDATE SKIP LOCKED")
    return before_statement(first_words, act)


def together(*actors: Act) -> None:
    """
    Run the actors in threads, each with a connection of its own. Raises the first exception of any
    actor.
    """
    errors: list[Exception] = []

    def run(actor: Act) -> None:
        try:
            actor()
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[actor]) for actor in actors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "the actors wait for each other"
    if errors:
        raise errors[0]


def elsewhere(act: Act) -> Any:
    """Run a function in another thread, with a connection of its own, and return its result."""

    def run() -> Any:
        try:
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(60)


# Whether a transaction holds the rows that it has written, or, on SQLite, the whole database.
HOLDS_ROWS = connection.vendor != "sqlite"
# Whoever waits for a lock of somebody else fails after a second, and not at the end of the test.
IMPATIENCE = {"postgresql": "SET lock_timeout = '1s'", "mysql": "SET innodb_lock_wait_timeout = 1"}
WAITING = {
    "postgresql": "SELECT count(*) FROM pg_locks WHERE NOT granted"
    " AND pg_backend_pid() = ANY (pg_blocking_pids(pid))",
    "mysql": "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'",
}


def be_impatient() -> None:
    """Let this thread's connection fail soon where it waits for a lock of a row."""
    if HOLDS_ROWS:
        with connection.cursor() as cursor:
            cursor.execute(IMPATIENCE[connection.vendor])


def somebody_waits() -> bool:
    """Tell whether somebody waits for a lock of ours, or, on MariaDB, of anybody."""
    with connection.cursor() as cursor:
        cursor.execute(WAITING[connection.vendor])
        return int(cursor.fetchone()[-1]) > 0


@contextmanager
def held_open(act: Act) -> Iterator[None]:
    """
    Do something in a transaction of somebody else, which is open as long as the block runs. SQLite
    has one writer at a time, who is not held up for the length of a test: it commits at once.
    """
    done, go_on = threading.Event(), threading.Event()

    def job() -> None:
        try:
            with transaction.atomic():
                act()
                if HOLDS_ROWS:
                    done.set()
                    go_on.wait(60)
        finally:
            done.set()
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(job)
        try:
            assert done.wait(60)
            yield
        finally:
            go_on.set()
        running.result(60)
