"""Something between two steps: what other requests do there is arranged, and not left to chance."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection

from tests.store import SessionStore

Act = Callable[[], Any]


def before(monkeypatch: pytest.MonkeyPatch, owner: type, step: str, act: Act) -> list[Act]:
    """Do something just before the next time that a step is done, a method of the store or of the
    registry. Return what is left to do: an empty list, when it has been done."""
    original = getattr(owner, step)
    left = [act]

    def interleaved(*args: Any, **kwargs: Any) -> Any:
        if left:
            left.pop()()
        return original(*args, **kwargs)

    _replace(monkeypatch, owner, step, interleaved)
    return left


def after(monkeypatch: pytest.MonkeyPatch, owner: type, step: str, act: Act) -> list[Act]:
    """Do something just after the next time that a step is done, as before() does it before."""
    original = getattr(owner, step)
    left = [act]

    def interleaved(*args: Any, **kwargs: Any) -> Any:
        answer = original(*args, **kwargs)
        if left:
            left.pop()()
        return answer

    _replace(monkeypatch, owner, step, interleaved)
    return left


def _replace(monkeypatch: pytest.MonkeyPatch, owner: type, step: str, by: Callable[..., Any]):
    # The steps of a store are static or class methods; getattr() has bound them.
    monkeypatch.setattr(owner, step, staticmethod(by) if owner is SessionStore else by)


@contextmanager
def before_statement(first_words: str, act: Act) -> Iterator[None]:
    """Do something just before the first SQL statement that begins with these words."""
    left = [act]

    def look(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if left and sql.startswith(first_words):
            left.pop()()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(look):
        yield
    assert not left, f"there was no {first_words}"


def together(*actors: Act) -> None:
    """Run the actors in threads, each with a connection of its own; raise what the first of them
    raises."""
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
    """Return what a function returns in another thread, with a connection of its own."""

    def run() -> Any:
        try:
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(60)
