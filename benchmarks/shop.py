"""
Requests per second of the account page of the example shop, under a real server. Each contender has
a server of its own, with two workers.

The client is wrk, if that is installed, or else a small client of our own.
"""

import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from statistics import median

from benchmarks.contenders import ENGINE, Contender, Servers
from benchmarks.report import Ratio, Rounds, Table
from tests.servers import HOST, PROJECT, free_port

PAGE = "/account/"
WORKERS = 2

# For wrk: each request is from another visitor.
SCRIPT = """
local keys, number = {%s}, 0
function request()
    number = number %% #keys + 1
    return wrk.format(nil, nil, {["Cookie"] = "sessionid=" .. keys[number]})
end
"""


def serve(contender: Contender, servers: Servers) -> contextlib.AbstractContextManager[int]:
    """Serve the shop, and yield the port."""
    port = free_port()
    command = [sys.executable, "-m", "granian", "--interface", "wsgi", "--workers", str(WORKERS)]
    # Few threads: all contenders are up at once, and each thread has a database connection.
    command += ["--blocking-threads", "2", "--no-ws", "--log-level", "error"]
    command += ["--host", HOST, "--port", str(port), "example_project.wsgi:application"]
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "benchmarks.shop_settings",
        "BENCHMARKS_CONTENDER": contender.name,
        "BENCHMARKS_SERVERS": json.dumps(servers),
    }
    return running(contender.name, command, environment, port)


@contextlib.contextmanager
def running(name: str, command: list[str], environment: dict[str, str], port: int) -> Iterator[int]:
    """Run a web server until it is not needed any more, and yield its port once it answers."""
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            while not answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{name}: {log.read().decode()[-3000:]}")
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()


def table_of(contenders: list[Contender], figures: dict[int, list[Rounds]]) -> Table:
    """Return a table of the requests per second, by the number of visitors at once."""
    client = "wrk" if shutil.which("wrk") else "a small client in Python"
    table = Table(
        f"The shop's account page, requests/s, under granian with {WORKERS} workers",
        ["", *[f"{visitors} at once" for visitors in figures], "to Django's engine"],
        notes=[f"Asked by {client}, on the same machine."],
    )
    for number, contender in enumerate(contenders):
        own = [rounds[number] for rounds in figures.values()]
        django = [*figures.values()][-1][contenders.index(ENGINE[contender.store])]
        rates = [f"{1 / median(rounds):,.0f}" for rounds in own]
        table.rows.append([contender.name, *rates, str(Ratio.of(django, own[-1]))])
        table.figures[contender.name] = own
    return table


def answers(port: int) -> bool:
    with (
        contextlib.suppress(OSError, http.client.HTTPException),
        contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=10)) as connection,
    ):
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    return False


def ask(port: int, keys: list[str], concurrent: int, seconds: float) -> float:
    """Return the seconds per request: the time of all requests, divided by their number."""
    if shutil.which("wrk"):
        return ask_with_wrk(port, keys, concurrent, seconds)
    visitors = [f"Cookie: sessionid={key}" for key in keys]
    return asyncio.run(ask_ourselves(port, PAGE, visitors, concurrent, seconds))


def ask_with_wrk(port: int, keys: list[str], concurrent: int, seconds: float) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % ", ".join(f'"{key}"' for key in keys))
        script.flush()
        command = ["wrk", "--threads", "1", "--connections", str(concurrent)]
        command += ["--duration", f"{round(seconds)}s", "--script", script.name]
        said = subprocess.check_output([*command, f"http://{HOST}:{port}{PAGE}"], text=True)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if rate is None or "Non-2xx" in said:
        raise RuntimeError(said)
    return 1 / float(rate[1])


async def ask_ourselves(
    port: int, page: str, headers: list[str], concurrent: int, seconds: float
) -> float:
    """
    Return the seconds per request for this page, by visitors who send these headers: one each.
    """
    done, start = 0, time.perf_counter()

    async def visitor(header: str) -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection(HOST, port)
        request = f"GET {page} HTTP/1.1\r\nHost: {HOST}\r\n{header}\r\n\r\n"
        while time.perf_counter() < start + seconds:
            writer.write(request.encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            if not head.startswith(b"HTTP/1.1 200 ") or length is None:
                raise RuntimeError(head.decode())
            await reader.readexactly(int(length[1]))
            done += 1
        writer.close()

    await asyncio.gather(*map(visitor, islice(cycle(headers), concurrent)))
    return (time.perf_counter() - start) / done
