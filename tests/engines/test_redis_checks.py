import pytest

from django_sessionkit.checks import check_settings
from tests.redis_servers import FORGETFUL, Server, sessions_in

pytestmark = pytest.mark.redis


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
