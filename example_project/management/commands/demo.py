import atexit
import contextlib
import os
import re
import shutil
import signal
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.core.cache import caches
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

HOST = "127.0.0.1"
PASSWORD = "oolong-lane"  # noqa: S105
# The commands of Celery, and their options. Each is one process, which leaves none behind.
WORKERS = {
    "worker": ["--pool=solo", "--loglevel=INFO", "--without-gossip", "--without-mingle"],
    "beat": ["--schedule={folder}/schedule", "--pidfile="],
}


def stop_at_exit() -> None:
    """Let SIGTERM end this process in order, so that atexit stops what it has started."""
    signal.signal(signal.SIGTERM, lambda *args: sys.exit())


class Command(BaseCommand):
    help = "Prepare the example shop, with its users, and serve it on this machine."
    # runserver runs the checks later, when the address of Redis is known.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="default: 8000")
        parser.add_argument("--prepare", action="store_true", help="prepare, but do not serve")
        parser.add_argument(
            "--worker", action="store_true", help="with STORE=redis, start a worker that purges"
        )

    def handle(
        self, *args: Any, port: int, prepare: bool, worker: bool = False, **options: Any
    ) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            if not prepare:
                self.check_port(port)
            store = self.open_store(serve=not prepare)
            self.prepare(port, store)
            if store and worker and find_spec("celery"):
                self.start_worker(port)
            if not prepare:
                # "Insecure" means that style sheets and pictures are served with DEBUG off, too.
                call_command(
                    "runserver", f"{HOST}:{port}", use_reloader=False, insecure_serving=True
                )

    def check_port(self, port: int) -> None:
        try:
            socket.create_server((HOST, port)).close()
        except (OSError, OverflowError):
            raise CommandError(f"Port {port} is not free. Choose another with --port.") from None

    def open_store(self, serve: bool) -> str:
        """Return a line that says where sessions are kept, or "" if that is the database."""
        store = os.environ.get("STORE") or "db"
        if store not in ("db", "redis"):
            raise CommandError(f"There is no STORE={store}: choose db or redis.")
        if store == "db" or not serve:
            return ""
        sessions = caches.settings["sessions"]
        until = ""
        if not sessions["LOCATION"]:
            sessions["LOCATION"] = self.start_server()
            until = ", which stops with the shop"
        return f"\n  Sessions      {self.name_of_server(sessions['LOCATION'])}{until}\n"

    def start_server(self) -> str:
        """Start a Redis or Valkey that stops with this process, and return its URL."""
        from tests import servers  # every checkout has it

        stop_at_exit()
        os.environ.pop("TEST_REDIS_URL", None)  # the demo does not use the server of the tests
        try:
            return servers.redis("redis" if shutil.which("redis-server") else "valkey")
        except RuntimeError as error:
            raise CommandError(f"{error}\nOr set REDIS_URL to the URL of a server.") from None

    def start_worker(self, port: int) -> None:
        """Start a worker of Celery and its beat, which stop with this process. Say what to see."""
        from tests import servers

        stop_at_exit()
        folder: Path = servers._temporary_folder()
        env = {**os.environ, "REDIS_URL": caches.settings["sessions"]["LOCATION"]}
        for name, options in WORKERS.items():
            with (folder / name).open("wb") as log:
                process = servers._spawn(
                    [sys.executable, "-m", "celery", "-A", "example_project", name]
                    + [option.format(folder=folder) for option in options],
                    servers.PROJECT,
                    log=log.fileno(),
                    env=env,
                    stop=signal.SIGKILL,
                )
            # A worker that is asked to stop waits for messages for some seconds more. One that is
            # killed loses nothing.
            atexit.register(servers._stop, process, signal.SIGKILL)
        self.stdout.write(
            f"""
  Purge         every 5 seconds, by a worker of Celery. See when it ran last at
                http://{HOST}:{port}/admin/django_sessionkit/usersession/glance/
                and what the worker says in {folder / "worker"}
"""
        )
        self.stdout.flush()

    def name_of_server(self, url: str) -> str:
        from redis.exceptions import RedisError

        from django_sessionkit.backends.redis_clients import sync_client

        shown = re.sub("//.*@", "//", url.partition("?")[0])  # without a password
        try:
            server = sync_client().info("server")
        except (RedisError, ValueError) as error:
            raise CommandError(f"No Redis at {shown}: {error}") from None
        brand = server.get("server_name", "redis")
        version = server.get(f"{brand}_version", server["redis_version"])
        return f"{brand.capitalize()} {version} at {shown}"

    def prepare(self, port: int, store: str) -> None:
        call_command("migrate", verbosity=0)
        for name in ("alice", "bob"):
            if not User.objects.filter(username=name).exists():
                User.objects.create_user(name, password=PASSWORD)
        if not User.objects.filter(username="staff").exists():
            User.objects.create_superuser("staff", password=PASSWORD)
        site = f"http://{HOST}:{port}"
        self.stdout.write(
            f"""{store}
  Shop          {site}/
  Your devices  {site}/account/sessions/
  Admin         {site}/admin/

  Sign in as    alice, bob (shoppers) or staff (admin)
  Password      {PASSWORD}
"""
        )
        self.stdout.flush()
