"""
The tables of the benchmark of the purge: filled, copied, and used in processes of their own. Row n
has expired if n is even: what goes and what stays are side by side.
"""
# ruff: noqa: S608 (the statements are put together from constants)

import multiprocessing
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

import dj_database_url
import django
from django.conf import settings
from django.db import connection

from benchmarks import registry
from benchmarks.registry import FIREFOX, copy_row
from tests import servers

T = TypeVar("T")

KIT, DJANGO, QSESSIONS = "kit", "django", "qsessions"
PAYLOAD = 400  # bytes
DAY = 24 * 3600 * 1000  # milliseconds


# Processes of their own: with one database, and with memory that nobody else has used.


def apart(url: str, function: Callable[..., T], *args: Any) -> T:
    """Return what a function returns in a process of its own, on this database."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=configure, initargs=(url,)) as pool:
        return pool.submit(function, *args).result()


def configure(url: str) -> None:
    database = dj_database_url.parse(url, conn_max_age=None)
    peers = ["qsessions"] if find_spec("qsessions") else []
    settings.configure(
        SECRET_KEY=secrets.token_hex(),
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django_sessionkit",
            *peers,
        ],
        SESSION_ENGINE="django_sessionkit.backends.db",
        DATABASES={"default": database},
    )
    django.setup()


# The tables.


def fill(what: str, rows: int) -> None:
    """Make the tables, and write the sessions of one contender."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    {KIT: fill_kit, DJANGO: fill_django, QSESSIONS: fill_qsessions}[what](rows)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            for table in connection.introspection.table_names():
                cursor.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
            cursor.execute("SELECT pg_stat_force_next_flush()")
            cursor.execute("VACUUM (ANALYZE)")
            cursor.execute("CHECKPOINT")


def fill_kit(rows: int) -> None:
    from django.contrib.auth.models import User
    from django.utils import timezone

    from django_sessionkit.models import StoredSession, UserSession

    numbers, now, ms = range(1, rows + 1), timezone.now(), int(time.time() * 1000)
    expired, alive = now - timedelta(days=1), now + timedelta(days=10)
    last = now - timedelta(days=2)
    user = User.objects.create(username="template")
    fields = {"started_at": last, "last_seen_at": last, "expires_at": alive}
    row = UserSession.objects.create(
        user=user, digest=secrets.token_hex(32), ip="203.0.113.7", user_agent=FIREFOX, **fields
    )
    stored = StoredSession.objects.create(
        digest=secrets.token_hex(32), payload=bytes(PAYLOAD), touched_at=ms - DAY, expires_at=ms
    )
    users = max(rows // 5, 1)
    copy_row(User, range(user.pk + 1, user.pk + users + 1), id="n", username="concat('user ', n)")
    copy_row(
        StoredSession,
        numbers,
        digest=DIGEST[connection.vendor],
        expires_at=expiry(ms - DAY, ms + DAY),
    )
    copy_row(
        UserSession,
        numbers,
        id=HANDLE[connection.vendor],
        digest=DIGEST[connection.vendor],
        user_id=f"{user.pk + 1} + n % {users}",
        expires_at=expiry(expired, alive),
    )
    row.delete()
    stored.delete()


def fill_django(rows: int) -> None:
    from django.contrib.sessions.models import Session

    fill_old(Session, rows)


def fill_qsessions(rows: int) -> None:
    fill_old(import_module("qsessions.models").Session, rows)


def fill_old(model: Any, rows: int) -> None:
    from django.utils import timezone

    now = timezone.now()
    expired, alive = now - timedelta(days=1), now + timedelta(days=10)
    row = model.objects.create(
        session_key="template", session_data="x" * PAYLOAD, expire_date=alive
    )
    key = f"substr({DIGEST[connection.vendor]}, 1, 32)"
    copy_row(model, range(1, rows + 1), session_key=key, expire_date=expiry(expired, alive))
    row.delete()


DIGEST = {
    "postgresql": registry.DIGEST,
    "mysql": "sha2(n, 256)",
}
HANDLE = {
    "postgresql": registry.HANDLE,
    "mysql": "concat(insert(lpad(hex(1700000000000 + n), 12, '0'), 9, 0, '-'), '-7000-8000-',"
    " lpad(hex(n), 12, '0'))",
}


def expiry(expired: Any, alive: Any) -> str:
    """Return SQL for when the session of row n expires: on a day, or then."""
    moments, before = [str(moment) for moment in (expired, alive)], f"n % {DAY // 1000} * 1000"
    if not isinstance(expired, int):
        adapted = map(connection.ops.adapt_datetimefield_value, (expired, alive))
        kind = "timestamptz" if connection.vendor == "postgresql" else "datetime(6)"
        moments = [f"cast('{moment}' AS {kind})" for moment in adapted]
        before = {
            "postgresql": f"n % {DAY // 1000} * interval '1 second'",
            "mysql": f"INTERVAL n % {DAY // 1000} SECOND",
        }[connection.vendor]
    return f"CASE WHEN n % 2 = 0 THEN {moments[0]} - {before} ELSE {moments[1]} END"


# Copies: every contender begins with the same tables.


@contextmanager
def filled(server: str, what: str, rows: int) -> Iterator[str]:
    with servers.own_database(server) as url:
        apart(url, fill, what, rows)
        yield url


@contextmanager
def copy_of(server: str, url: str) -> Iterator[str]:
    """Copy a database, yield the URL of the copy, and drop that."""
    name, original = f"sessionkit_{secrets.token_hex(8)}", url.rpartition("/")[2]
    with servers.connected(server) as cursor:
        if server.startswith("postgresql"):
            cursor.execute("SHOW server_version_num")
            by_file = " STRATEGY FILE_COPY" if int(cursor.fetchone()[0]) >= 150_000 else ""
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE {original}{by_file}")
        else:
            cursor.execute(f"CREATE DATABASE {name}")
            cursor.execute(f"SHOW TABLES FROM {original}")
            for (table,) in cursor.fetchall():
                cursor.execute(f"CREATE TABLE {name}.{table} LIKE {original}.{table}")
                cursor.execute(f"INSERT INTO {name}.{table} SELECT * FROM {original}.{table}")
        try:
            yield servers.with_name(server, name)
        finally:
            force = " WITH (FORCE)" if server.startswith("postgresql") else ""
            cursor.execute(f"DROP DATABASE {name}{force}")
