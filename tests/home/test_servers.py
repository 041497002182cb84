"""
The example project under the web servers that sites use, with PostgreSQL and Redis: sign in, see
both devices, end one; a store that is down; a visitor who goes away.
"""

import secrets
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from tests import servers
from tests.own_browser import OwnBrowser
from tests.people import FIREFOX, IPHONE
from tests.projects import run_python
from tests.redis_servers import DURABLE, Server, wait_for
from tests.servers import HOST, PROJECT

pytestmark = pytest.mark.postgresql

WSGI, ASGI = "tests.home.loaded:wsgi", "tests.home.loaded:asgi"
GUNICORN = ["-m", "gunicorn", "--preload", "--workers", "2", "--bind", f"{HOST}:{{port}}"]
GRANIAN = ["-m", "granian", "--workers", "2", "--host", HOST, "--port", "{port}"]

# Servers that load the application before they fork.
FORKING = {
    "gunicorn, sync": [*GUNICORN, WSGI],
    "gunicorn, gthread": [*GUNICORN, "--worker-class", "gthread", "--threads", "2", WSGI],
    "uwsgi": [
        *["-c", "import pyuwsgi; pyuwsgi.run()", "--http-socket", f"{HOST}:{{port}}"],
        *["--add-header", "Connection: close"],  # which it does, and does not say
        *["--master", "--processes", "2", "--threads", "2", "--die-on-term", "--need-app"],
        *["--module", WSGI],
    ],
}
ASYNC = {
    "uvicorn": ["-m", "uvicorn", "--host", HOST, "--port", "{port}", ASGI],
    "daphne": ["-m", "daphne", "--bind", HOST, "--port", "{port}", ASGI],
    "granian, asgi": [*GRANIAN, "--interface", "asgi", ASGI],
}
SERVERS = {**FORKING, "granian, wsgi": [*GRANIAN, "--interface", "wsgi", WSGI], **ASYNC}


@pytest.fixture(scope="module")
def prepared():
    """The environment of a shop with its users, and what makes its stores fail."""
    with (
        servers.own_database(servers.postgresql()) as url,
        Server(*DURABLE, of_brand="valkey") as redis,
    ):
        env = {
            "DATABASE_URL": url,
            "DJANGO_SETTINGS_MODULE": "tests.home.served_settings",
            "REDIS_URL": f"redis://{HOST}:{redis.port}/0",
            "SESSIONKIT_REDIS_PREFIX": f"test:{secrets.token_hex(8)}:",
        }
        run_python(PROJECT, "manage.py", "demo", "--prepare", env=env)
        yield env, redis


@pytest.fixture
def serve(request, prepared, log, tmp_path):
    """Serve the shop, and yield a function that opens a browser on a device."""
    env, redis = prepared
    env = {**env, "STORE": request.param, "FOLDER": str(tmp_path)}
    OwnBrowser.keys.clear()

    @contextmanager
    def serve(name):
        with servers.serve(SERVERS[name], log, env) as site, ExitStack() as browsers:
            yield lambda agent=FIREFOX: browsers.enter_context(OwnBrowser(site, agent))
        said = log.read_text(errors="replace")
        assert not [key for key in OwnBrowser.keys if key in said]

    serve.store, serve.database, serve.redis = request.param, env["DATABASE_URL"], redis
    return serve


@contextmanager
def database_down(url):
    """Nobody gets a connection to this database, and those that are open are closed."""
    name = urlsplit(url).path[1:]
    allow = SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
    with psycopg.connect(servers.postgresql(), autocommit=True) as server:
        server.execute(allow.format(Identifier(name), SQL("false")))
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        try:
            yield
        finally:
            server.execute(allow.format(Identifier(name), SQL("true")))


@contextmanager
def redis_down(server):
    server.kill()
    try:
        yield
    finally:
        server.start()


# On Redis, the rows are in PostgreSQL: such a server uses both. One of either kind uses only that.
@pytest.mark.parametrize(
    ("serve", "name"),
    [*(("redis", name) for name in SERVERS), ("db", "gunicorn, gthread"), ("db", "uvicorn")],
    indirect=["serve"],
)
def test_alice_is_at_home_under_every_server(serve, name, tmp_path, log):
    with serve(name) as browse:
        laptop, phone = browse(), browse(IPHONE)
        ends_a_session(laptop, phone)
        if name in ASYNC:
            goes_away(laptop, tmp_path)
        if name in FORKING:
            is_answered_over_connections_of_the_worker(laptop, phone, tmp_path, name)
        waits_for_the_store(serve, laptop)
    assert "was never" not in log.read_text()  # awaited, retrieved


def ends_a_session(laptop, phone):
    for device in (laptop, phone):
        device.sign_in("alice")
        assert device.get("/account/").url.path == "/account/"
    page = laptop.get("/account/sessions/")
    assert "Safari on iOS" in page.text
    assert "Firefox on Linux" in page.text
    laptop.submit(laptop.follow(page, "Sign out: Safari on iOS"))
    assert "signed out from another device" in phone.get("/account/").text


def waits_for_the_store(serve, laptop):
    down = redis_down(serve.redis) if serve.store == "redis" else database_down(serve.database)
    with down:
        answer = laptop.get("/account/")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert "sessionid" in laptop.cookies
    wait_for(lambda: laptop.get("/account/").status_code == 200)


def goes_away(laptop, folder):
    """Alice leaves a page before it has come, which is about to change her session."""
    site = laptop.base_url
    with closing(socket.create_connection((site.host, site.port))) as line:
        cookie = laptop.cookies["sessionid"]
        request = f"GET /ahold/ HTTP/1.1\r\nHost: {HOST}\r\nCookie: sessionid={cookie}\r\n\r\n"
        line.sendall(request.encode())
        wait_for((folder / "began").exists)
    (folder / "go").touch()
    wait_for((folder / "over").exists)
    assert laptop.get("/note/").text in ("changed", "nothing")
    assert laptop.get("/account/").url.path == "/account/"


def is_answered_over_connections_of_the_worker(laptop, phone, folder, name):
    """The process that has loaded the site opens no connection to the database for us."""
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(laptop.get, "/hold/", timeout=60)
        wait_for((folder / "began").exists)
        answers = [phone.get("/where/").json()]
        (folder / "go").touch()
        answers.append(held.result().json())
    at_loading, here = answers[0]["at_loading"], [answer["here"] for answer in answers]
    assert at_loading["database"] is False
    for worker in here:
        assert worker["pid"] != at_loading["pid"]
        assert worker["redis"] is None or worker["redis"] != at_loading["redis"]
    one, other = here
    assert one["database"] != other["database"]
    if name == "gunicorn, sync":  # a worker that is busy answers nobody else
        assert one["pid"] != other["pid"]
        assert one["redis"] != other["redis"]
