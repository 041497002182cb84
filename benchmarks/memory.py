"""
Measures the memory of a Redis with 100,000 signed-in sessions: of this project, and of Django's
cache engine on django-redis. This takes some minutes, on a server of its own. With BRAND=valkey,
the server is a Valkey::

    .venv/bin/python -m benchmarks.memory [NUMBER]

The command fails if the sessions of this project take more than the bar.
"""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import django
from django.conf import settings

from tests import servers

# Bytes per session. Other versions of servers need other amounts, and are not judged.
BARS = {"redis 6.2": 480, "valkey 9.1": 430}


def contents(user: int) -> dict[str, object]:
    """Return the contents of a session, 0.5 KB: what Django keeps of a sign-in, and a cart."""
    cart = [
        {"product": f"SKU-{secrets.randbelow(10**5):05}", "quantity": 1 + secrets.randbelow(9)}
        for _ in range(8)
    ]
    return {
        "_auth_user_id": str(user),
        "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
        "_auth_user_hash": secrets.token_hex(32),
        "cart": cart,
    }


def main(number: int) -> int:
    """Measure this number of sessions. Return the exit status: 1 if the bar is missed."""
    settings.configure(
        SECRET_KEY=secrets.token_hex(),
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django_sessionkit",
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        CACHES={
            "default": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": servers.redis(os.environ.get("BRAND", "redis")),
            }
        },
    )
    django.setup()
    from django.contrib.sessions.backends.cache import SessionStore as DjangoStore
    from django.core.management import call_command

    from django_sessionkit.backends import redis, redis_clients

    call_command("migrate", verbosity=0)
    client = redis_clients.sync_client()

    used = 0.0

    @contextmanager
    def measured(name: str) -> Iterator[None]:
        nonlocal used
        client.execute_command("FLUSHALL", "SYNC")
        before = client.info("memory")["used_memory"]
        yield
        used = (client.info("memory")["used_memory"] - before) / number
        print(f"{name:34} {used:5.0f} bytes a session")  # noqa: T201

    def fill(store: type[DjangoStore]) -> None:
        for user in range(number):
            session = store()
            session.update(contents(user))
            session.create()

    server = client.info("server")
    brand = server.get("server_name", "redis")
    program = f"{brand} {server[f'{brand}_version']}"
    print(f"{number:,} sessions on {program}")  # noqa: T201
    with measured("Django's cache engine, django-redis"):
        fill(DjangoStore)
    with measured("django_sessionkit.backends.redis"):
        fill(redis.SessionStore)  # type: ignore[arg-type]
    bar = BARS.get(program.rpartition(".")[0])
    if bar is None:
        return 0
    print(f"The bar of {bar} bytes is {'met' if used <= bar else 'missed'}.")  # noqa: T201
    return int(used > bar)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
