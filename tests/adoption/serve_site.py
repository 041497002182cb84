"""Serves the shop of site.py in a process of its own, as one generation of the site."""

import os
import sys
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import django
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application

from tests.servers import HOST

VISITORS = [f"user{number}" for number in range(100)]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 100


class Silent(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def main(port: int) -> None:
    django.setup()
    if os.environ.get("SITE_IS_NEW"):
        from django.contrib.auth.models import User

        call_command("migrate", verbosity=0)
        User.objects.bulk_create([User(username=name) for name in VISITORS])
    make_server(HOST, port, get_wsgi_application(), Server, Silent).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
