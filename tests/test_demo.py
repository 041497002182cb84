"""What ``make demo`` does besides serving the shop: it chooses a store, and starts one if need be."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import redis

from tests import servers
from tests.test_story import FIREFOX, Browser

pytestmark = pytest.mark.once

ON_REDIS = {"STORE": "redis", "REDIS_URL": ""}


@pytest.fixture
def demo(example_database, tmp_path):
    """Start the demo in an environment, with its output in a file."""
    started = []

    def start(**env):
        (tmp_path / "said").touch()
        with (tmp_path / "said").open("ab") as said:
            demo = subprocess.Popen(
                [sys.executable, "manage.py", "demo", "--port", str(servers.free_port())],
                cwd=servers.PROJECT,
                env={**os.environ, "DATABASE_URL": example_database, "PYTHONUNBUFFERED": "1"} | env,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        started.append(demo)
        return demo

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(happens, what):
    deadline = time.monotonic() + 60
    while not (found := happens()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"STORE": "valkey"}, "There is no STORE=valkey: choose db or redis."),
        (
            {"STORE": "redis", "REDIS_URL": "redis://shop:sencha@127.0.0.1:1/0"},
            "No Redis at redis://127.0.0.1:1/0: Error 111 connecting to 127.0.0.1:1. "
            "Connection refused.",
        ),
        (
            {"STORE": "redis", "REDIS_URL": "127.0.0.1"},
            "No Redis at 127.0.0.1: Redis URL must specify one of the following schemes "
            "(redis://, rediss://, unix://)",
        ),
    ],
    ids=["unknown", "down", "no URL"],
)
def test_store_that_is_not_there_is_one_line(demo, tmp_path, env, said):
    assert demo(**env).wait() == 1
    assert (tmp_path / "said").read_text() == f"CommandError: {said}\n"


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_redis_of_the_demo_stops_with_it(demo, tmp_path, by):
    shop = demo(**ON_REDIS)
    said = tmp_path / "said"
    wait_for(lambda: "Quit the server" in said.read_text(), said.read_text())
    (brand, url) = re.search(
        r"^  Sessions      (Redis|Valkey) [\d.]+ at (\S+), which stops with the shop$",
        said.read_text(),
        re.MULTILINE,
    ).groups()
    with redis.Redis.from_url(url) as client:
        assert client.info("server").get("server_name", "redis") == brand.lower()
        shop.send_signal(by)
        shop.wait()

        def is_down():
            try:
                client.ping()
            except redis.ConnectionError:
                return True

        wait_for(is_down, f"It is still there after {by!r}")


def test_another_store_signs_everybody_out(example_database, tmp_path):
    log = tmp_path / "log"
    Browser.keys.clear()
    with servers.serve_example(example_database, log, {"STORE": "db"}) as site:
        alice = Browser(site, FIREFOX)
        assert alice.sign_in("alice").url.path == "/account/"
    for env in (ON_REDIS, {"STORE": "db"}):
        with servers.serve_example(example_database, log, env) as alice.base_url:
            page = alice.get("/account/")
            assert page.url.path == "/account/sign-in/"
            assert "You were signed out." in page.text
            assert alice.sign_in("alice").url.path == "/account/"
            staff = Browser(alice.base_url, FIREFOX)
            page = staff.get("/admin/login/")
            staff.submit(page, username="staff", password=PASSWORD)
            page = staff.get("/admin/django_sessionkit/usersession/?q=alice")
            assert "Lost by the session store" in page.text
    assert not re.search("Traceback|Error", log.read_text())
