"""
A process for each contender, because a process can have only one set of Django settings. The main
process asks the others over pipes, so that contenders can take turns.
"""

import multiprocessing
import traceback
from collections.abc import Callable
from operator import methodcaller
from typing import Any, Concatenate, ParamSpec, TypeVar

from benchmarks.contenders import Contender, Servers

P = ParamSpec("P")
T = TypeVar("T")

SECRET_KEY = "of the benchmarks, which is as long as one that Django has made"  # noqa: S105


class Process:
    def __init__(self, contender: Contender, servers: Servers) -> None:
        self.contender = contender
        self.pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        context.Process(target=_serve, args=[theirs, contender, servers], daemon=True).start()
        theirs.close()

    def problem(self) -> str:
        """Wait until the process is up. Return why the contender cannot take part, or ""."""
        problem: str = self.pipe.recv()
        return problem

    def do(self, method: str, *args: Any) -> Any:
        """Call this method of the contender's driver, in its process, and return the result."""
        return self.call(methodcaller(method, *args))

    def call(self, function: Callable[Concatenate[Any, P], T], *args: P.args, **kw: P.kwargs) -> T:
        """
        Call a function in the process of the contender, with the driver as its first argument.
        Return the result. Raises RuntimeError, with the traceback, if the function fails.
        """
        self.pipe.send((function, args, kw))
        answer, problem = self.pipe.recv()
        if problem:
            raise RuntimeError(f"{self.contender.name}: {problem}")
        result: T = answer
        return result


def _serve(pipe: Any, contender: Contender, servers: Servers) -> None:
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY=SECRET_KEY,
        ALLOWED_HOSTS=["*"],
        USE_TZ=True,
        ROOT_URLCONF="benchmarks.urls",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        **contender.settings_on(servers),
    )
    try:
        django.setup()
        from benchmarks.drivers import driver_of

        driver = driver_of(contender, servers)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
        return
    pipe.send("")
    while True:
        try:
            function, args, kwargs = pipe.recv()
        except EOFError:  # the benchmark is over
            return
        try:
            pipe.send((function(driver, *args, **kwargs), ""))
        except Exception:
            pipe.send((None, traceback.format_exc()))
