"""Many async requests at once in one process: with an async engine, and a sync one in threads."""

import asyncio
from collections.abc import Mapping
from io import BytesIO
from time import perf_counter
from typing import Any

from asgiref.sync import ThreadSensitiveContext
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.test import override_settings

from benchmarks.contenders import DJANGO_CACHE, KIT_DERIVED, KIT_REDIS, Contender
from benchmarks.drivers import Engine, expect
from benchmarks.report import Ratio, Rounds, Table, Verdict

CONTENDERS = [KIT_REDIS, KIT_DERIVED, DJANGO_CACHE]
CONCURRENT = 50


def measure(driver: Engine, view: str, seconds: float) -> float:
    """Return the seconds per request: the time of all requests, divided by their number."""
    driver.freshen()
    handler = BaseHandler()
    # Only the session middleware: Django runs some others in threads, which would be measured, too.
    with override_settings(MIDDLEWARE=settings.MIDDLEWARE[:1]):
        handler.load_middleware(is_async=True)
    return asyncio.run(visit(driver, handler, view, seconds))


async def visit(driver: Engine, handler: BaseHandler, view: str, seconds: float) -> float:
    done = 0

    async def visitor(key: str, until: float) -> None:
        nonlocal done
        while perf_counter() < until or not done:  # at least one request, even on a busy machine
            async with ThreadSensitiveContext():  # as ASGIHandler does
                request = ASGIRequest(scope(view, key), BytesIO())
                response: Any = await handler.get_response_async(request)
            expect(response.content, str(driver.user.pk).encode())
            done += 1

    everybody = driver.keys[:CONCURRENT]
    await asyncio.gather(*[visitor(key, perf_counter() + 0.1) for key in everybody])  # connects
    done, start = 0, perf_counter()
    await asyncio.gather(*[visitor(key, start + seconds) for key in everybody])
    return (perf_counter() - start) / done


def scope(view: str, key: str) -> dict[str, Any]:
    cookie = f"{settings.SESSION_COOKIE_NAME}={key}"
    return {
        "type": "http",
        "method": "GET",
        "path": f"/{view}/",
        "query_string": b"",
        "headers": [(b"host", b"testserver"), (b"cookie", cookie.encode())],
        "client": ("203.0.113.7", 50000),
    }


def table_of(figures: Mapping[str, Mapping[Contender, Rounds]]) -> Table:
    """Return a table of the requests answered per second, by view and contender."""
    table = Table(
        f"Async views on Redis, {CONCURRENT} requests at once",
        ["", "requests/s", "to in threads", "bar"],
    )
    for what, rounds in figures.items():
        for contender, own in rounds.items():
            ratio = Ratio.of(rounds[KIT_DERIVED], own)  # a ratio of rates, so times are swapped
            verdicts = []
            if contender == KIT_REDIS:
                name = f"{what}: {contender.name} to {KIT_DERIVED.name}"
                verdicts = [Verdict(name, 1.5, ratio.middle, at_least=True)]
            rate = f"{len(own) / sum(own):,.0f}"
            label = f"{contender.name}, {what}"
            table.rows.append([label, rate, str(ratio), ", ".join(map(str, verdicts))])
            table.verdicts += verdicts
            table.figures[label] = own
    return table
