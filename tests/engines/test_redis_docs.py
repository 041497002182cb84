"""What docs/redis.md shows is done, with servers that are as it says."""

import ast
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.test import override_settings

from django_sessionkit.backends import redis
from tests.certificates import Authority
from tests.documents import SETTINGS, Block, blocks_of
from tests.redis_servers import FORGETFUL, Proxy, Server, cluster, sentinels
from tests.store import works

pytestmark = [pytest.mark.redis, pytest.mark.django_db]

WAYS = [block for block in SETTINGS if "CACHES = " in block.text]
(CONFIGURATION, RIGHTS) = [b.text for b in blocks_of("docs/redis.md") if b.language == "text"]


@contextmanager
def as_it_says(cache: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """Run what a cache is about, and yield the cache with the addresses that it has here."""
    options = cache["OPTIONS"]
    password = options.get("PASSWORD")
    scheme, _, place = cache["LOCATION"].partition("://")
    with ExitStack() as running:
        if "SENTINELS" in options:
            topology = running.enter_context(sentinels())
            assert {**options, **topology.options, "SENTINELS": options["SENTINELS"]} == options
            options = {**options, "SENTINELS": topology.options["SENTINELS"]}
            location = topology.location.replace("/0", "/1")
        elif "CONNECTION_FACTORY" in options:
            topology = running.enter_context(cluster())
            assert {**options, **topology.options} == options
            location = topology.location
        elif scheme == "unix":
            server = running.enter_context(Server(*FORGETFUL, "--unixsocket", "socket"))
            location = f"unix://{server.folder}/socket?{place.partition('?')[2]}"
        else:
            server = running.enter_context(Server(*FORGETFUL, password=password))
            location = server.url.replace("/0", "/1")
            if scheme == "rediss":
                authority = Authority(folder / "authority")
                tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                tls.load_cert_chain(*authority.issue("server"))
                location = running.enter_context(Proxy(server, tls)).url.replace("/0", "/1")
                (name,) = options["CONNECTION_POOL_KWARGS"]
                trust = {name: str(authority.certificate)}
                options = {**options, "CONNECTION_POOL_KWARGS": trust}
        yield {**cache, "LOCATION": location, "OPTIONS": options}


@contextmanager
def configured(**names: Any) -> Iterator[None]:
    with override_settings(**{"SESSION_CACHE_ALIAS": "sessions", **names}):
        yield
        if client := getattr(caches["sessions"], "client", None):
            client.do_close_clients()


def caches_at(url: str) -> dict[str, Any]:
    cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url}
    return {"default": cache, "sessions": cache}


@pytest.mark.parametrize("block", WAYS, ids=lambda block: f"{block.document}:{block.line}")
def test_way_to_connect(drive: Callable[..., Any], block: Block, tmp_path: Path):
    names = {
        ast.unparse(statement.targets[0]): ast.literal_eval(statement.value)
        for statement in ast.parse(block.text).body
        if isinstance(statement, ast.Assign)
    }
    with as_it_says(names["CACHES"]["sessions"], tmp_path) as cache:
        names["CACHES"]["sessions"] = cache
        with configured(**names):
            assert not list(redis.SessionStore.check(ask=True))
            works(drive)


def test_all_ways_are_there():
    assert len(WAYS) == 6


def test_configuration_evicts_nothing():
    options = [word for line in CONFIGURATION.splitlines() for word in f"--{line}".split()]
    with Server(*options) as server, configured(CACHES=caches_at(server.url)):
        assert not list(redis.SessionStore.check(ask=True))
        assert server.client.info("persistence")["aof_enabled"]
        server.client.config_set("maxmemory-policy", "volatile-lru")
        ((name, _values),) = redis.SessionStore.check(ask=True)
        assert name == "W009"


def test_rights_are_enough(drive: Callable[..., Any], settings: Any):
    settings.SESSIONKIT_REDIS_PREFIX = "sessionkit:"
    found = re.search(r"SETUSER (\w+) on >(\w+) ", RIGHTS)
    assert found
    with Server(*FORGETFUL) as server:
        server.client.execute_command(*RIGHTS.split())
        url = server.url.replace("//", f"//{found[1]}:{found[2]}@").replace("/0", "/1")
        with configured(CACHES=caches_at(url)):
            assert not list(redis.SessionStore.check(ask=True))
            works(drive)
        refused = {entry["object"] for entry in server.client.acl_log()}
        assert refused <= {"client|setinfo", "client"}  # redis-py introduces itself
