"""
One run of the tests is a leg: all tests on one store. SESSIONKIT_TEST_DATABASE is "sqlite" (the
default), "postgresql" or "mariadb". SESSIONKIT_TEST_ENGINE is "db" (the default), "memory", "redis"
or "valkey". If a server is missing, the run fails: no test is skipped.
"""

import os
import platform
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django
import hypothesis
import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.core.cache import caches
from django.core.signals import setting_changed
from django.db import connection, connections
from django.test import Client, TransactionTestCase
from hypothesis.configuration import set_hypothesis_home_dir

from django_sessionkit import signing_keys
from django_sessionkit.policy import Policy
from django_sessionkit.signals import sessions_ended
from tests import conformance, flushing, people, policies, servers, store
from tests.apps import CLIENTS, Keeping
from tests.browsers import PAGE, put
from tests.pages import LIMIT
from tests.tokens import AUDIENCE, ISSUER

# Hypothesis keeps no examples from run to run, and a test may be slow on a busy machine. In CI, it
# tries the same examples each time.
hypothesis.settings.register_profile(
    "tests", database=None, deadline=None, derandomize="CI" in os.environ
)
hypothesis.settings.load_profile("tests")
set_hypothesis_home_dir(servers.PROJECT / ".cache" / "hypothesis")


def keep_contexts_small(*, setting: str, **kwargs: object) -> None:
    """
    Have a change of CACHES leave nothing in the context. Django leaves a variable there each time,
    and asgiref copies all of them whenever it goes from one thread to another: after hundreds of
    tests on other servers, an async request would take ten times as long.
    """
    if setting == "CACHES":
        caches._connections = threading.local()  # type: ignore[attr-defined]


setting_changed.connect(keep_contexts_small)

TransactionTestCase._fixture_teardown = flushing.empty_tables  # type: ignore[attr-defined]

# The packages have a leg of their own, with settings of their own: see the Makefile.
collect_ignore = [] if settings.SETTINGS_MODULE == "tests.packages.settings" else ["packages"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "chromium: in a real browser; CI has one")
    config.addinivalue_line("markers", "once: the store makes no difference, SQLite is enough")
    config.addinivalue_line("markers", "postgresql: about PostgreSQL, in the leg that is on it")
    config.addinivalue_line("markers", "isolation: on MariaDB, under both of its usual levels")
    config.addinivalue_line("markers", "pgbouncer: needs one; CI has one")
    config.addinivalue_line("markers", "redis: about Redis, in the legs that are on it")
    config.addinivalue_line("markers", "site(module): what answers, in place of tests.urls")
    config.addinivalue_line(
        "markers", "transports(*names): told of browsers ('cookie'), of apps ('header')"
    )
    config.addinivalue_line("markers", "standard(*requirements): shows them, see conformance.py")
    # Variables of the developer's shell for the kit or the demo must not reach the tests.
    for name in [name for name in os.environ if name.startswith(("SESSIONKIT_", "DATABASE_URL"))]:
        del os.environ[name]


def pytest_report_header() -> str:
    database = f"SQLite {sqlite3.sqlite_version}"
    if connection.vendor != "sqlite":
        with servers.connected(servers.SERVERS[connection.vendor]()) as cursor:
            cursor.execute("SELECT version()")  # "10.11.18-MariaDB", "PostgreSQL 15.18 on x86_64"
            database = cursor.fetchone()[0].partition(" on ")[0]
    if settings.SESSION_ENGINE.endswith(".redis"):
        from django_sessionkit.backends.redis_clients import sync_client

        server = sync_client().info("server")
        brand = server.get("server_name", "redis")
        database += f" and {brand} {server.get(f'{brand}_version')}"
    elif store.APART:
        database += " and memory"
    header = f"Python {platform.python_version()}, Django {django.__version__}, {database}"
    if not has_pgbouncer():
        header += "\nNo PgBouncer, so CI runs its tests: apt-get install pgbouncer"
    if not has_chromium():
        header += "\nNo Chromium, so CI runs its tests: apt-get install chromium, or set CHROMIUM"
    return header


def has_pgbouncer() -> bool:
    """Tell whether the tests of PgBouncer run: where there is one, and in CI, which needs one."""
    return "CI" in os.environ or servers.pgbouncer_program() is not None


def has_chromium() -> bool:
    """Tell whether the tests in Chromium run: where there is one, and in CI, which needs one."""
    return "CI" in os.environ or servers.chromium_program() is not None


def left_out(vendor: str, engine: str) -> set[str]:
    """Return the marks of the tests that this leg does not run, because other legs do."""
    elsewhere = set() if engine == "redis" else {"redis"}
    if vendor != "postgresql":
        elsewhere.add("postgresql")
    if (vendor, engine) != ("sqlite", "db"):
        elsewhere.add("once")
    return elsewhere


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        conformance.shown_by(item)  # raises an error for a requirement that does not exist
    elsewhere = left_out(connection.vendor, settings.SESSION_ENGINE.rpartition(".")[2])
    if not has_pgbouncer():
        elsewhere.add("pgbouncer")
    if not has_chromium():
        elsewhere.add("chromium")
    deselected = [item for item in items if any(map(item.get_closest_marker, elsewhere))]
    items[:] = [item for item in items if item not in deselected]
    config.hook.pytest_deselected(items=deselected)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if connection.vendor == "mysql" and metafunc.definition.get_closest_marker("isolation"):
        levels = ["read committed", "repeatable read"]
        metafunc.parametrize("isolation", levels, indirect=True, scope="module")
    if "client_kind" in metafunc.fixturenames:
        kinds = client_kinds(metafunc.definition)
        metafunc.parametrize("client_kind", kinds.values(), ids=kinds, indirect=True)


def client_kinds(story: pytest.Item) -> dict[str, Any]:
    """
    Return the clients that a story is told of: browsers, unless its mark says otherwise. Of apps it
    is told on SQLite and, by one of the handlers, on Redis, with the rows on SQLite: more legs show
    nothing more of them. Stories are told by ASGI alone on PostgreSQL, by WSGI alone on MariaDB,
    and by both on SQLite and Redis.
    """
    marker = story.get_closest_marker("transports")
    told_of = set(marker.args) if marker else {"cookie"}
    if connection.vendor != "sqlite" or store.IN_MEMORY:
        told_of.discard("header")
    kinds = {
        name: kind
        for transport, kinds in CLIENTS.items()
        if transport in told_of
        for name, kind in kinds.items()
    }
    elsewhere = {"postgresql": "wsgi", "mysql": "asgi"}.get(connection.vendor)
    if store.ON_REDIS:
        elsewhere = "app-asgi"
    return {name: kind for name, kind in kinds.items() if name != elsewhere}


@pytest.fixture(scope="module", autouse=True)
def isolation(request: pytest.FixtureRequest) -> Iterator[None]:
    """The isolation level of every connection. Django's default on MySQL is "read committed"."""
    level = getattr(request, "param", None)  # of tests with the mark
    if level is None:
        yield
        return
    request.getfixturevalue("django_db_setup")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(connections.settings["default"]["OPTIONS"], "isolation_level", level)
        connection.close()
        yield
    connection.close()


@pytest.fixture(autouse=True)
def own_keys(settings: Any) -> Iterator[None]:
    """Give every test a prefix of its own in Redis, because the server may hold other data."""
    settings.SESSIONKIT_REDIS_PREFIX = f"test:{secrets.token_hex(8)}:"
    yield
    if store.APART:  # else it is taken back with the test's transaction
        store.wipe()


@pytest.fixture(autouse=True)
def own_site(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Use the URLs of the module in ``pytest.mark.site(__name__)``. This is faster than the marker
    ``urls`` of pytest-django, which makes all resolvers anew for every test.
    """
    if marker := request.node.get_closest_marker("site"):
        monkeypatch.setattr(settings, "ROOT_URLCONF", marker.args[0])


@pytest.fixture
def client_kind(request: pytest.FixtureRequest) -> Any:
    """The class of the clients of a story, on either handler: see client_kinds()."""
    return request.param


@pytest.fixture
def browse(client_kind: Any) -> Callable[..., Any]:
    """A function that opens a browser for pages, on either handler."""

    def browse(**headers: str) -> Any:
        return client_kind(raise_request_exception=False, headers=PAGE | headers)

    return browse


@pytest.fixture(params=["sync", "async"])
def drive(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """
    A function that calls a method of a session, sync or async: ``drive(session, "cycle_key")``. So
    every test covers both.
    """
    if request.param == "sync":
        return lambda session, name, *args, **kwargs: getattr(session, name)(*args, **kwargs)
    return lambda session, name, *args, **kwargs: async_to_sync(getattr(session, f"a{name}"))(
        *args, **kwargs
    )


# People.


@pytest.fixture
def alice(db: None) -> User:
    return User.objects.create_user("alice", "alice@example.org", "secret")


@pytest.fixture
def bob(db: None) -> User:
    return User.objects.create_user("bob", "bob@example.org", "secret")


@pytest.fixture
def root(db: None) -> User:
    """A superuser."""
    return User.objects.create_superuser("root", password="secret")


@pytest.fixture
def staff(db: None) -> Callable[..., User]:
    """A function that creates a member of staff with these permissions."""

    def create(*names: str) -> User:
        user = User.objects.create_user("-".join(["staff", *names]), password="secret")
        user.is_staff = True
        user.save()
        user.user_permissions.set(Permission.objects.filter(codename__in=names))
        assert user.user_permissions.count() == len(names)
        return user

    return create


@pytest.fixture
def laptop(alice: User) -> Client:
    """A browser in which Alice has signed in by the form."""
    return people.sign_in(alice)


@pytest.fixture
def signed_in(browse: Callable[..., Any], alice: User) -> Callable[..., Any]:
    """
    A function that signs Alice in, in a new browser on either handler. ``browse()`` opens the
    browser, with the same arguments.
    """

    def signed_in(*args: Any, **headers: str) -> Any:
        browser = browse(*args, **headers)
        # In "ask" of Policy.on_limit, one too many is led to the choice.
        answer = people.post_sign_in(browser)
        if isinstance(browser, Keeping):
            assert answer.status_code == 200
            return browser
        assert answer.headers["Location"] in ("/", f"{LIMIT}?next=%2F")
        return browser

    return signed_in


@pytest.fixture
def shopper(signed_in: Callable[..., Any]) -> Callable[..., Any]:
    """A function that signs Alice in, in a new browser, and puts something into her cart."""

    def shopper(*args: Any, **headers: str) -> Any:
        browser = signed_in(*args, **headers)
        put(browser, cart="teapot")
        return browser

    return shopper


# The site and its surroundings.


@pytest.fixture
def ended() -> Iterator[list[Any]]:
    """The signals sessions_ended that were sent: a list of (handles, reason, by)."""
    heard: list[Any] = []

    def listen(handles: Any, reason: Any, by: Any, **kwargs: Any) -> None:
        assert len(set(handles)) == len(handles)
        heard.append((set(handles), reason, by))

    sessions_ended.connect(listen)
    yield heard
    sessions_ended.disconnect(listen)


@pytest.fixture
def store_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store does not answer when sessions are to be removed."""
    store.take_down(monkeypatch, "remove")


@pytest.fixture
def clock() -> Iterator[store.Clock]:
    """A clock that stands still until a test moves it: ``clock.move(seconds=60)``."""
    clock = store.Clock(store.NOON)
    yield clock
    clock.stop()


@pytest.fixture(autouse=True)
def no_keys_kept() -> Iterator[None]:
    """Forget the keys of tokens, as a process of its own would."""
    yield
    signing_keys.forget()


@pytest.fixture
def tokens(db: None, settings: Any) -> None:
    """The site issues tokens: see tests/tokens.py, and name that in the mark ``site``."""
    settings.SESSIONKIT_TOKEN_ISSUER, settings.SESSIONKIT_TOKEN_AUDIENCE = ISSUER, AUDIENCE
    signing_keys.make()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The path of a file for the log of a server."""
    return tmp_path / "log"


@pytest.fixture
def policy(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that gives all users who sign in from now on a Policy with these fields."""
    settings.SESSIONKIT_POLICY = "tests.policies.of_everybody"

    def choose(**fields: Any) -> None:
        monkeypatch.setattr(policies, "chosen", Policy(**fields))

    return choose


@pytest.fixture
def atomic_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The site answers every request in a transaction."""
    database = connections.settings["default"]
    monkeypatch.setitem(database, "ATOMIC_REQUESTS", True)
    if connection.vendor == "sqlite":
        # As Django's documentation has it: a transaction that reads first can not write then.
        monkeypatch.setitem(database["OPTIONS"], "transaction_mode", "IMMEDIATE")


@pytest.fixture
def example_database(tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database for ``servers.serve_example()``, on this leg's database."""
    if connection.vendor == "sqlite":
        yield f"sqlite:///{tmp_path}/example.sqlite3"
        return
    with servers.own_database(servers.SERVERS[connection.vendor]()) as url:
        yield url
