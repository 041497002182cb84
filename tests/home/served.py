"""The URLs of the example project, and views that look behind its web server."""

import asyncio
import os
import time
from pathlib import Path

from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from example_project.urls import urlpatterns as shop
from tests.home import loaded

# Where the tests and the views leave files for each other.
FOLDER = Path(os.environ.get("FOLDER", "."))


def where(request: HttpRequest) -> HttpResponse:
    """Tells who answers, and by which connections."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (database,) = cursor.fetchone()
    here = {"pid": os.getpid(), "database": database, "redis": loaded.redis_client()}
    return JsonResponse({"at_loading": loaded.at_loading, "here": here})


def hold(request: HttpRequest) -> HttpResponse:
    """Begins, and tells where it is when somebody lets it go on."""
    (FOLDER / "began").touch()
    deadline = time.monotonic() + 60
    while not (FOLDER / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return where(request)


async def ahold(request: HttpRequest) -> HttpResponse:
    """Begins, and changes its session and the key of that when somebody lets it go on."""
    await request.session.aget("cart")
    (FOLDER / "began").touch()
    try:
        deadline = time.monotonic() + 60
        # An event cannot come from the test, which is another process.
        while not (FOLDER / "go").exists() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await request.session.aset("note", "changed")
        await request.session.asave()
        return HttpResponse("done")
    finally:
        (FOLDER / "over").touch()


def note(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.session.get("note", "nothing"))


urlpatterns = [
    *shop,
    path("where/", where),
    path("hold/", hold),
    path("ahold/", ahold),
    path("note/", note),
]
