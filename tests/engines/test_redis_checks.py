import pytest

from django_sessionkit.backends.redis import SessionStore
from django_sessionkit.checks import check_settings
from tests.redis_servers import FORGETFUL, Server, fresh_lines, sessions_in
from tests.servers import HOST, free_port

pytestmark = [pytest.mark.redis, pytest.mark.django_db]


def found():
    return [message.id for message in check_settings(databases=["default"])]


def test_a_redis_that_evicts_sessions_is_found_when_it_is_asked():
    with Server(*FORGETFUL) as server, sessions_in(server.url):
        server.client.config_set("maxmemory-policy", "allkeys-lru")
        assert check_settings() == []  # asks nobody
        assert found() == ["sessionkit.W009"]
        server.client.config_set("maxmemory-policy", "noeviction")
        assert found() == []
        server.kill()
        assert found() == ["sessionkit.W013"]
        assert check_settings() == []


def only_status():
    (status,) = SessionStore.status()
    return status


def test_staff_see_how_a_redis_is(monkeypatch):
    fresh_lines(monkeypatch)
    with Server(*FORGETFUL) as server, sessions_in(server.url):
        session = SessionStore()
        session["cart"] = ["teapot"]
        session.save()
        status = only_status()
        assert (status.sessions, status.limit, status.eviction) == (1, 0, "noeviction")
        assert status.size > 100_000
        assert status.version.partition(" ")[0] in ("Redis", "Valkey")
        assert status.persistence == "none"
        server.client.config_set("appendonly", "yes")
        server.client.config_set("save", "3600 1")
        server.client.config_set("maxmemory", 100_000_000)
        server.client.config_set("maxmemory-policy", "allkeys-lru")
        status = only_status()
        assert (status.persistence, status.limit) == ("AOF, RDB", 100_000_000)
        assert status.eviction == "allkeys-lru"
        # A service in the cloud refuses CONFIG.
        server.client.config_set("appendonly", "no")
        server.client.execute_command("ACL SETUSER default -config")
        assert only_status().persistence == ""
        server.client.execute_command("ACL SETUSER default -info")
        assert only_status().latency is None
        server.kill()
        assert only_status() == (None, "", None, None, None, "", "", "")


def test_staff_see_that_no_node_of_a_cluster_answers():
    factory = "django_sessionkit.backends.redis_clients.ClusterConnectionFactory"
    with sessions_in(f"redis://{HOST}:{free_port()}", CONNECTION_FACTORY=factory):
        assert only_status().latency is None
