"""
The operations, timed in the process of a contender. An operation is a generator. The code before
its first ``yield`` prepares, the code after the first is timed, and the code after the second, if
any, checks the result and tidies up.
"""

from collections.abc import Iterator
from functools import partial
from io import BytesIO
from secrets import choice, randbits, token_bytes, token_hex
from statistics import median
from time import monotonic, perf_counter, time
from typing import Any

import psycopg
import redis
from django.conf import settings
from django.contrib import auth
from django.contrib.auth.signals import user_logged_in
from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import WSGIRequest
from django.core.management import call_command
from django.http import HttpResponse
from django.test import override_settings
from django.utils.module_loading import import_string

from benchmarks.contenders import CONTENDERS, PSYCOPG, Contender, Servers
from benchmarks.registry import FIREFOX, registry_of

STORED = 400  # bytes: about what half a kilobyte of JSON takes in the stores
TWO_WEEKS = 14 * 24 * 60 * 60  # seconds
# The number of sessions that take turns, so that the row is not always the same.
SESSIONS = 100
# Seconds for which no activity is due: less than the touch interval.
FRESH_FOR = 30

Operation = Iterator[None]


def cart_of(number: int) -> list[dict[str, Any]]:
    """Return a cart with different lines: the same line again would be too easy to compress."""
    return [
        {"product": f"SKU-{n * 7919 % 100_000:05}", "price": f"{n * 37 % 90 + 9}.90", "quantity": 1}
        for n in range(number)
    ]


# Together with what Django keeps of a sign-in, this is half a kilobyte of JSON.
CART = cart_of(5)


class Driver:
    def __init__(self, contender: Contender, servers: Servers) -> None:
        self.contender = contender
        self.servers = servers
        # The ids of this contender's users and sessions begin here: it may share its tables.
        self.base = (CONTENDERS.index(contender) + 1) * 100_000_000

    def prepare(self) -> None:
        call_command("migrate", verbosity=0)
        self.registry = registry_of(self.contender, self.servers, self.base)

    def fill(self, rows: int) -> None:
        """Fill the tables up to so many sessions, five of each user."""
        self.registry.fill(rows)

    def freshen(self) -> None:
        """Do now what is due once a minute, so that it is not timed."""

    def time(self, operation: str, seconds: float, *args: Any) -> float:
        """Repeat an operation for so many seconds. Return the median of its times, in seconds."""
        self.freshen()
        times: list[float] = []
        end = perf_counter() + seconds
        while not times or perf_counter() < end:
            run = getattr(self, operation)(*args)
            next(run)
            start = perf_counter()
            next(run, None)
            times.append(perf_counter() - start)
            next(run, None)
        return median(times)

    def list(self, number: int) -> Operation:
        self.registry.have(number)
        yield
        found = self.registry.list(number)
        yield
        expect(len(found), number)

    def revoke(self, number: int) -> Operation:
        self.registry.have(number)
        yield
        self.registry.revoke(number)
        yield
        expect(len(self.registry.list(number)), 1)
        self.registry.renew(number)


class Engine(Driver):
    """Any session engine, called by Django's own interface."""

    def prepare(self) -> None:
        super().prepare()
        # This receiver writes to the user's row, whatever the engine.
        user_logged_in.disconnect(dispatch_uid="update_last_login")
        user = auth.get_user_model()
        self.user, _created = user.objects.get_or_create(username=self.contender.name)
        self.middleware = import_string(settings.MIDDLEWARE[0])(lambda request: HttpResponse())
        self.keys = [self.signed_in().session_key for _ in range(SESSIONS)]
        self.fresh_at = float("-inf")
        self.bare, self.handler = BaseHandler(), BaseHandler()
        with override_settings(MIDDLEWARE=[]):
            self.bare.load_middleware()
        self.handler.load_middleware()

    def request(self, view: str, key: str = "") -> Any:
        """Return a request with its session, as the middleware of the engine makes one."""
        request = WSGIRequest(self.environ(view, key))
        self.middleware.process_request(request)
        return request

    def visitor(self) -> Any:
        session = self.request("none").session
        session["cart"] = CART
        session["visitor"] = token_hex(48)
        return session

    def signed_in(self) -> Any:
        session = self.request("none").session
        session["cart"] = CART
        session[auth.SESSION_KEY] = str(self.user.pk)
        session[auth.BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        session[auth.HASH_SESSION_KEY] = self.user.get_session_auth_hash()
        session.create()
        return session

    def freshen(self) -> None:
        if monotonic() - self.fresh_at > FRESH_FOR:
            with override_settings(SESSIONKIT_TOUCH_INTERVAL=0):  # so that it is due
                for key in self.keys:
                    self.handler.get_response(WSGIRequest(self.environ("write", key)))
            self.sessions = [self.request("none", key).session for key in self.keys]
            for session in self.sessions:
                session.get("cart")
            self.fresh_at = monotonic()

    # One session, outside of a request.

    def load(self) -> Operation:
        session = self.request("none", choice(self.keys)).session
        yield
        cart = session["cart"]
        yield
        expect(len(cart), len(CART))

    def save(self) -> Operation:
        session = choice(self.sessions)
        session["number"] = randbits(32)
        yield
        session.save()

    def create(self) -> Operation:
        session = self.visitor()
        yield
        session.create()
        yield
        session.delete()

    def cycle(self) -> Operation:
        session = self.visitor()
        session.create()
        yield
        session.cycle_key()
        yield
        session.delete()

    def delete(self) -> Operation:
        session = self.visitor()
        session.create()
        yield
        session.delete()

    def sign_in(self) -> Operation:
        request = self.request("none")
        request.session = self.visitor()
        request.session.create()
        yield
        auth.login(request, self.user, "django.contrib.auth.backends.ModelBackend")
        request.session.save()
        yield
        request.session.delete()

    def sign_out(self) -> Operation:
        request = self.request("none")
        request.session, request.user = self.signed_in(), self.user
        yield
        auth.logout(request)

    # A signed-in GET of a trivial view.

    def none(self) -> Operation:
        return self.get("none", self.bare, "nobody")

    def read(self) -> Operation:
        return self.get("read", self.handler, self.user.get_username())

    def write(self) -> Operation:
        return self.get("write", self.handler, self.user.get_username())

    def get(self, view: str, handler: BaseHandler, answer: str) -> Operation:
        request = WSGIRequest(self.environ(view, choice(self.keys)))
        yield
        response: Any = handler.get_response(request)
        yield
        expect(response.content, answer.encode())

    def environ(self, view: str, key: str) -> dict[str, Any]:
        return {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": f"/{view}/",
            "SERVER_NAME": "testserver",
            "SERVER_PORT": "80",
            "REMOTE_ADDR": "203.0.113.7",
            "HTTP_USER_AGENT": FIREFOX,
            "HTTP_COOKIE": f"{settings.SESSION_COOKIE_NAME}={key}",
            "wsgi.input": BytesIO(),
        }


class Psycopg(Driver):
    """Prepared statements by primary key, in autocommit."""

    def prepare(self) -> None:
        super().prepare()
        self.connection = psycopg.connect(self.servers.databases["sessionkit"], autocommit=True)
        self.execute = partial(self.connection.cursor().execute, prepare=True)
        self.execute(
            "CREATE TABLE bare"
            " (id text PRIMARY KEY, payload bytea, touched_at bigint, expires_at bigint)"
        )
        self.keys = [self.inserted() for _ in range(SESSIONS)]

    def fill(self, rows: int) -> None:
        self.execute("TRUNCATE bare")
        self.execute(
            "INSERT INTO bare SELECT encode(sha256(n::text::bytea), 'hex'), %s, %s, %s"
            " FROM generate_series(1, %s) AS n",
            [token_bytes(STORED), 0, 0, rows],
        )
        self.execute("VACUUM ANALYZE bare")
        self.keys = [self.inserted() for _ in range(SESSIONS)]

    def row(self) -> tuple[str, bytes, int, int]:
        now = int(time() * 1000)
        return token_hex(32), token_bytes(STORED), now, now + TWO_WEEKS * 1000

    def inserted(self) -> str:
        row = self.row()
        self.execute("INSERT INTO bare VALUES (%s, %s, %s, %s)", row)
        return row[0]

    def load(self) -> Operation:
        key = choice(self.keys)
        yield
        self.execute("SELECT payload, touched_at FROM bare WHERE id = %s", [key]).fetchone()

    def save(self) -> Operation:
        _key, payload, _now, expires_at = self.row()
        key = choice(self.keys)
        yield
        self.execute(
            "UPDATE bare SET payload = %s, expires_at = %s WHERE id = %s",
            [payload, expires_at, key],
        )

    def create(self) -> Operation:
        row = self.row()
        yield
        self.execute("INSERT INTO bare VALUES (%s, %s, %s, %s)", row)
        yield
        self.execute("DELETE FROM bare WHERE id = %s", [row[0]])

    # A new key takes one UPDATE, too.
    cycle = save

    def delete(self) -> Operation:
        key = self.inserted()
        yield
        self.execute("DELETE FROM bare WHERE id = %s", [key])


class RedisPy(Driver):
    """Commands of a client with hiredis."""

    def prepare(self) -> None:
        super().prepare()
        self.client = redis.Redis.from_url(self.servers.redis)
        self.keys = [self.set_one() for _ in range(SESSIONS)]

    def fill(self, rows: int) -> None:
        for start in range(self.client.dbsize(), rows, 1000):
            pipeline = self.client.pipeline(transaction=False)
            for number in range(start, start + 1000):
                pipeline.set(f"{number:064}", token_bytes(STORED), ex=TWO_WEEKS)
            pipeline.execute()

    def set_one(self) -> str:
        key = token_hex(32)
        self.client.set(key, token_bytes(STORED), ex=TWO_WEEKS)
        return key

    def load(self) -> Operation:
        key = choice(self.keys)
        yield
        self.client.get(key)

    def save(self) -> Operation:
        key, payload = choice(self.keys), token_bytes(STORED)
        yield
        self.client.set(key, payload, ex=TWO_WEEKS)

    def create(self) -> Operation:
        key, payload = token_hex(32), token_bytes(STORED)
        yield
        self.client.set(key, payload, ex=TWO_WEEKS)
        yield
        self.client.delete(key)

    cycle = save

    def delete(self) -> Operation:
        key = self.set_one()
        yield
        self.client.delete(key)


def driver_of(contender: Contender, servers: Servers) -> Driver:
    kind = Engine if contender.engine else Psycopg if contender == PSYCOPG else RedisPy
    return kind(contender, servers)


def expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise RuntimeError(f"{found!r} instead of {wanted!r}")
