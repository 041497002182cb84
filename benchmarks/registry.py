"""The sessions of users in the tables of each app: filling, listing a user's, ending the others."""

from hashlib import sha256
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import psycopg
import redis
from django.contrib.auth import get_user_model
from django.db import connection
from django.db.models import AutoField, Model
from django.utils import timezone

from benchmarks.contenders import (
    ALLAUTH,
    KIT,
    ON_REDIS,
    QSESSIONS,
    SESSIONS,
    USER_SESSIONS,
    Contender,
    Servers,
)

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0"
# SQL for values of row number n. Handles begin with the time, so they sort by n.
DIGEST = "encode(sha256(n::text::bytea), 'hex')"
HANDLE = "(lpad(to_hex(1700000000000 + n), 12, '0') || '70008' || lpad(to_hex(n), 15, '0'))::uuid"
SESSION_KEY = f"left({DIGEST}, 32)"
SERIES = {
    "postgresql": "generate_series({}, {}) AS n",
    "mysql": "(SELECT seq AS n FROM seq_{}_to_{}) AS numbers",  # of MariaDB
}
CLIENT = {"ip": "'203.0.113.7'", "user_agent": f"'{FIREFOX}'"}
ALIVE = {"ended_at": "NULL", "end_reason": "''"}


def digest_of(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


def redis_key(digest: str) -> str:
    """Return the key of a session of the kit in Redis, whose digest begins with a hash tag."""
    return f"sessionkit:{{{digest[:3]}}}{digest[3:]}"


def handle_of(number: int) -> UUID:
    return UUID(f"{1_700_000_000_000 + number:012x}70008{number:015x}")


class Registry:
    """
    The sessions of one contender. The user with N sessions has the id ``base`` + N. revoke() leaves
    the first of their sessions alone. All rows are copies of a row that the engine has made.
    """

    def __init__(self, contender: Contender, servers: Servers, base: int) -> None:
        self.contender, self.servers, self.base = contender, servers, base
        self.filled = 0
        self.digests: dict[int, list[str]] = {}

    # Each app has its own.

    def copy(self, numbers: range, user: str) -> None:
        """Make sessions with these numbers, for a user. ``user`` is SQL; n is the number in it."""
        raise NotImplementedError

    def forget(self, number: int) -> None:
        raise NotImplementedError

    def list(self, number: int) -> list[Any]:
        raise NotImplementedError

    def revoke(self, number: int) -> None:
        raise NotImplementedError

    # All apps have in common.

    def fill(self, rows: int) -> None:
        """Fill the tables up to so many sessions, of users who have five each."""
        new, first = rows - self.filled, self.base + 10_000_000 + self.filled
        if new > 0:
            users = range(first, first + new // 5)
            add_users(users)
            self.copy(range(first, first + new), f"{first} + n % {len(users)}")
            self.filled = rows
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
            cursor.execute("CHECKPOINT")

    def have(self, number: int) -> None:
        """Make the user with so many sessions, unless there is one."""
        if number not in self.digests:
            self.digests[number] = [digest_of(n) for n in self.numbers(number)]
            add_users(range(self.user(number), self.user(number) + 1))
            self.copy(self.numbers(number), str(self.user(number)))

    def renew(self, number: int) -> None:
        self.forget(number)
        self.copy(self.numbers(number), str(self.user(number)))

    def user(self, number: int) -> int:
        return self.base + number

    def numbers(self, number: int) -> range:
        first = self.base + 10 * number
        return range(first, first + number)

    def session_key(self, number: int) -> str:
        """Return the key of the first session."""
        return self.digests[number][0][:32]


class Kit(Registry):
    def __init__(self, contender: Contender, servers: Servers, base: int) -> None:
        super().__init__(contender, servers, base)
        from django_sessionkit.models import StoredSession, UserSession

        self.rows, self.stored = UserSession, StoredSession
        self.redis = redis.Redis.from_url(servers.redis)

    def copy(self, numbers: range, user: str) -> None:
        copy_row(self.rows, numbers, id=HANDLE, digest=DIGEST, user_id=user, **CLIENT, **ALIVE)
        if self.contender.store != ON_REDIS:
            copy_row(self.stored, numbers, digest=DIGEST)
        else:
            keys = [redis_key(digest_of(number)) for number in numbers]
            self.redis.mset(dict.fromkeys(keys, b"\0" * 400))

    def forget(self, number: int) -> None:
        delete(self.rows, "user_id", [self.user(number)])
        delete(self.stored, "digest", self.digests[number])

    def list(self, number: int) -> list[Any]:
        return self.rows.objects.filter(user=self.user(number)).alive()

    def revoke(self, number: int) -> None:
        current: Any = SimpleNamespace(handle=handle_of(self.numbers(number)[0]))
        self.rows.objects.filter(user=self.user(number)).other_than(current).revoke()


class Bare(Kit):
    """The same rows, with the least statements that can do the work."""

    def __init__(self, contender: Contender, servers: Servers, base: int) -> None:
        super().__init__(contender, servers, base)
        url = servers.databases[contender.app.name]
        self.cursor = psycopg.connect(url, autocommit=True, prepare_threshold=0).cursor()

    def list(self, number: int) -> list[Any]:
        self.cursor.execute(
            "SELECT * FROM django_sessionkit_usersession"
            " WHERE user_id = %s AND ended_at IS NULL AND expires_at > now() ORDER BY id DESC",
            [self.user(number)],
        )
        rows = self.cursor.fetchall()
        if self.contender.store == ON_REDIS:
            pipeline = self.redis.pipeline(transaction=False)
            for digest in self.digests[number]:
                pipeline.exists(redis_key(digest))
            pipeline.execute()
        return rows

    def revoke(self, number: int) -> None:
        self.cursor.execute(
            "UPDATE django_sessionkit_usersession SET ended_at = now(), end_reason = 'revoked'"
            " WHERE user_id = %s AND ended_at IS NULL AND id <> %s",
            [self.user(number), handle_of(self.numbers(number)[0])],
        )
        others = self.digests[number][1:]
        if self.contender.store == ON_REDIS:
            self.redis.delete(*map(redis_key, others))
        else:
            statement = "DELETE FROM django_sessionkit_storedsession WHERE digest = ANY(%s)"
            self.cursor.execute(statement, [others])


class Sessions(Registry):
    """The table django_session, which does not know the users of sessions."""

    def __init__(self, contender: Contender, servers: Servers, base: int) -> None:
        super().__init__(contender, servers, base)
        from django.contrib.sessions.models import Session

        self.sessions = Session

    def copy(self, numbers: range, user: str) -> None:
        copy_row(self.sessions, numbers, session_key=SESSION_KEY)


class OneTable(Registry):
    """django-user-sessions and django-qsessions: one table, with a column for the user."""

    def __init__(self, contender: Contender, servers: Servers, base: int) -> None:
        super().__init__(contender, servers, base)
        self.sessions = import_module(f"{contender.app.name}.models").Session

    def copy(self, numbers: range, user: str) -> None:
        copy_row(self.sessions, numbers, session_key=SESSION_KEY, user_id=user, **CLIENT)

    def forget(self, number: int) -> None:
        delete(self.sessions, "user_id", [self.user(number)])

    def list(self, number: int) -> list[Any]:
        user = self.user(number)
        return list(self.sessions.objects.filter(user=user, expire_date__gt=timezone.now()))

    def revoke(self, number: int) -> None:
        sessions = self.sessions.objects.filter(user=self.user(number))
        sessions.exclude(session_key=self.session_key(number)).delete()


class Allauth(Sessions):
    def __init__(self, contender: Contender, servers: Servers, base: int) -> None:
        super().__init__(contender, servers, base)
        self.rows = import_module("allauth.usersessions.models").UserSession
        self.flows = import_module("allauth.usersessions.internal.flows.sessions")
        self.context = import_module("allauth.core.context")

    def copy(self, numbers: range, user: str) -> None:
        super().copy(numbers, user)
        copy_row(self.rows, numbers, session_key=SESSION_KEY, user_id=user, **CLIENT)

    def forget(self, number: int) -> None:
        delete(self.rows, "user_id", [self.user(number)])
        delete(self.sessions, "session_key", [digest[:32] for digest in self.digests[number]])

    def list(self, number: int) -> list[Any]:
        return list(self.rows.objects.purge_and_list(get_user_model()(pk=self.user(number))))

    def revoke(self, number: int) -> None:
        session = SimpleNamespace(session_key=self.session_key(number))
        request = SimpleNamespace(session=session)
        with self.context.request_context(request):
            self.flows.end_other_sessions(request, get_user_model()(pk=self.user(number)))


def registry_of(contender: Contender, servers: Servers, base: int) -> Registry:
    kinds = {USER_SESSIONS: OneTable, QSESSIONS: OneTable, ALLAUTH: Allauth, SESSIONS: Sessions}
    kind = kinds[contender.app] if contender.app != KIT else Kit if contender.engine else Bare
    return kind(contender, servers, base)


def add_users(numbers: range) -> None:
    copy_row(get_user_model(), numbers, id="n", username="'user ' || n")


def copy_row(model: type[Model], numbers: range, **columns: str) -> None:
    """Copy a row of a table for each number n, with these columns in SQL, which may contain n."""
    fields = model._meta.local_concrete_fields
    names = [str(f.column) for f in fields if f.column in columns or not isinstance(f, AutoField)]
    values = [columns.get(name, f"template.{name}") for name in names]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {model._meta.db_table} ({', '.join(names)}) SELECT {', '.join(values)}"  # noqa: S608
            f" FROM (SELECT * FROM {model._meta.db_table} LIMIT 1) AS template,"
            f" {SERIES[connection.vendor].format(numbers.start, numbers.stop - 1)}"
        )


def delete(model: type[Model], column: str, values: list[Any]) -> None:
    with connection.cursor() as cursor:
        table = model._meta.db_table
        cursor.execute(f"DELETE FROM {table} WHERE {column} = ANY(%s)", [values])  # noqa: S608
