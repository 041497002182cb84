"""The machine: its cores, and the versions of the programs on it."""

import contextlib
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psycopg
import redis

from benchmarks.contenders import Servers

PACKAGES = [
    *["Django", "psycopg", "redis", "hiredis", "django-redis", "cryptography"],
    *["django-user-sessions", "django-qsessions", "django-allauth", "django-rest-knox", "granian"],
]


class Cores:
    """
    One core for the clients and one for the servers, if the machine has two. Otherwise the time of
    a round trip doubles, or does not, as the scheduler moves them.
    """

    def __init__(self) -> None:
        can_choose = hasattr(os, "sched_setaffinity")
        self.all = sorted(os.sched_getaffinity(0)) if can_choose else []
        # The first and the last core: neighbours may be two halves of one core.
        self.clients, self.servers = self.all[:1], self.all[-1:]
        given = {"TEST_DATABASE_URL", "TEST_REDIS_URL"} & os.environ.keys()
        self.apart = len(self.all) > 1 and not given

    @contextlib.contextmanager
    def on(self, cores: list[int]) -> Iterator[None]:
        """Run the block on these cores, so that processes start there. Go on as a client."""
        if self.apart:
            os.sched_setaffinity(0, cores)
        yield
        if self.apart:
            os.sched_setaffinity(0, self.clients)

    def __str__(self) -> str:
        if self.apart:
            return "clients on one core, servers on another one"
        return "clients and servers where the system puts them: bars to the drivers are not judged"


def describe(place: Servers) -> str:
    with psycopg.connect(place.databases["sessionkit"]) as connection:
        postgresql = connection.info.parameter_status("server_version") or ""
    server = redis.Redis.from_url(place.redis).info("server")
    brand = server.get("server_name", "redis")
    programs = {
        "Python": platform.python_version(),
        "PostgreSQL": postgresql.partition(" ")[0],
        brand.capitalize(): server[f"{brand}_version"],
    }
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            programs["redis-py" if package == "redis" else package] = version(package)
    versions = ", ".join(f"{name} {number}" for name, number in programs.items())
    return f"{processor()}, {os.cpu_count()} cores, {platform.system()}; {versions}"


def processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
