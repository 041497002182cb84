import contextlib
import socket
from typing import Any

from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

HOST = "127.0.0.1"
PASSWORD = "oolong-lane"  # noqa: S105


class Command(BaseCommand):
    help = "Prepare the example shop, with its users, and serve it on this machine."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="default: 8000")
        parser.add_argument("--prepare", action="store_true", help="prepare, but do not serve")

    def handle(self, *args: Any, port: int, prepare: bool, **options: Any) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            if not prepare:
                self.check_port(port)
            self.prepare(port)
            if not prepare:
                # "Insecure" means: style sheets and pictures are served with DEBUG off too.
                call_command(
                    "runserver", f"{HOST}:{port}", use_reloader=False, insecure_serving=True
                )

    def check_port(self, port: int) -> None:
        try:
            socket.create_server((HOST, port)).close()
        except (OSError, OverflowError):
            raise CommandError(f"Port {port} is not free. Choose another with --port.") from None

    def prepare(self, port: int) -> None:
        call_command("migrate", verbosity=0)
        for name in ("alice", "bob"):
            if not User.objects.filter(username=name).exists():
                User.objects.create_user(name, password=PASSWORD)
        if not User.objects.filter(username="staff").exists():
            User.objects.create_superuser("staff", password=PASSWORD)
        site = f"http://{HOST}:{port}"
        self.stdout.write(
            f"""
  Shop          {site}/
  Your devices  {site}/account/sessions/
  Admin         {site}/admin/

  Sign in as    alice, bob (shoppers) or staff (admin)
  Password      {PASSWORD}
"""
        )
        self.stdout.flush()
