"""
What ``make demo`` does besides serving the shop: it knows a store by name, and starts one, with a
worker that purges.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import redis

from example_project.management.commands.demo import PASSWORD
from tests import servers
from tests.own_browser import OwnBrowser
from tests.people import FIREFOX
from tests.redis_servers import wait_for

pytestmark = pytest.mark.once

ON_THE_DATABASE = {"STORE": "db"}
ON_A_REDIS = {"STORE": "redis", "REDIS_URL": ""}
GLANCE = "/admin/django_sessionkit/usersession/glance/"


@pytest.fixture
def demo(example_database: str, log: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the demo in an environment, with its output in the log."""
    with ExitStack() as started:

        def start(**env: str) -> subprocess.Popen[bytes]:
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [
                        sys.executable,
                        "manage.py",
                        "demo",
                        "--worker",
                        "--port",
                        str(servers.free_port()),
                    ],
                    cwd=servers.PROJECT,
                    env={
                        **os.environ,
                        "DATABASE_URL": example_database,
                        "DJANGO_SETTINGS_MODULE": "example_project.settings",
                        "PYTHONUNBUFFERED": "1",
                        "TMPDIR": str(log.parent),  # what it leaves when it is killed
                        **env,
                    },
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            started.enter_context(process)
            started.callback(process.kill)
            return process

        yield start


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"STORE": "valkey"}, "There is no STORE=valkey: choose db or redis."),
        (
            {"STORE": "redis", "REDIS_URL": "redis://shop:sencha@127.0.0.1:1/0"},
            "No Redis at redis://127.0.0.1:1/0: .*refused.*",
        ),
        ({"STORE": "redis", "REDIS_URL": "127.0.0.1"}, "No Redis at 127.0.0.1: .*redis://.*"),
    ],
    ids=["unknown", "down", "no-url"],
)
def test_a_store_that_is_not_there_is_one_line(
    demo: Callable[..., subprocess.Popen[bytes]], log: Path, env: dict[str, str], says: str
):
    assert demo(**env).wait(60) == 1
    assert re.fullmatch(f"CommandError: {says}\n", log.read_text()), log.read_text()


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_redis_of_the_demo_stops_with_it(
    demo: Callable[..., subprocess.Popen[bytes]], log: Path, by: signal.Signals
):
    # Tests that a shell has started in the background ignore it, and so would the demo.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    shop = demo(**ON_A_REDIS)
    assert servers._came_up(shop, lambda: "Quit the server" in log.read_text()), log.read_text()
    (line,) = re.findall(r"^  Sessions +(.*)$", log.read_text(), re.MULTILINE)
    found = re.fullmatch(r"(Redis|Valkey) [\d.]+ at (\S+), which stops with the shop", line)
    assert found, line

    with redis.Redis.from_url(found[2], socket_timeout=60) as client:
        server = client.info("server")
        assert server.get("server_name", "redis") == found[1].lower()
        wait_for(lambda: len(workers_of(shop)) == 2)
        workers = workers_of(shop)
        shop.send_signal(by)
        with pytest.raises(redis.ConnectionError):
            client.blpop("nothing", timeout=60)  # it hangs up
    wait_for(lambda: not any(b"celery" in command_of(worker) for worker in workers))


def has_purged(office: OwnBrowser) -> bool:
    return "The last purge ran" in office.get(GLANCE).text


def workers_of(shop: subprocess.Popen[bytes]) -> list[str]:
    """Return the processes of Celery that the shop has started."""
    children = Path(f"/proc/{shop.pid}/task/{shop.pid}/children").read_text().split()
    return [child for child in children if b"celery" in command_of(child)]


def command_of(pid: str) -> bytes:
    """Return the command line of a process, or nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_another_store_signs_everybody_out(example_database: str, log: Path):
    OwnBrowser.keys.clear()
    with ExitStack() as browsers:
        alice = browsers.enter_context(OwnBrowser("", FIREFOX))
        with servers.serve_example(example_database, log, ON_THE_DATABASE) as alice.base_url:
            assert alice.sign_in("alice").url.path == "/account/"
        for env in (ON_A_REDIS, ON_THE_DATABASE):
            shop = servers.serve_example(example_database, log, env, worker=True)
            with shop as alice.base_url:
                page = alice.get("/account/")
                assert page.url.path == "/account/sign-in/"
                assert "You were signed out." in page.text
                assert alice.sign_in("alice").url.path == "/account/"

                office = browsers.enter_context(OwnBrowser(alice.base_url, FIREFOX))
                page = office.get("/admin/login/")
                office.submit(page, username="staff", password=PASSWORD)
                page = office.get("/admin/django_sessionkit/usersession/?q=alice")
                assert "Lost by the session store" in page.text
                # The worker beside the shop purges.
                wait_for(partial(has_purged, office))
    assert not re.search(r"Traceback|\" 5\d\d ", log.read_text())
