"""
Logic that is written once and driven twice, sync and async.

A flow is a generator. It yields each question to somebody who can wait (a call to make, a command
to send), is sent the answer, and returns its own result. An error of the answer is raised where the
flow has asked, so that the flow can catch it and leaves its transactions.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")
Flow = Generator[Any, Any, T]


def run(flow: Flow[T], ask: Callable[[Any], Any]) -> T:
    """Return the result of a flow whose questions ``ask`` answers."""
    try:
        question = next(flow)
        while True:
            try:
                answer = ask(question)
            except Exception as error:
                question = flow.throw(error)
            else:
                question = flow.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def arun(flow: Flow[T], ask: Callable[[Any], Awaitable[Any]]) -> T:
    """See run()."""
    try:
        question = next(flow)
        while True:
            try:
                answer = await ask(question)
            except Exception as error:
                question = flow.throw(error)
            else:
                question = flow.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result
