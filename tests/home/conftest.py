from collections.abc import Iterator

import pytest

from tests import servers


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The URL of an empty database on PostgreSQL."""
    with servers.own_database(servers.postgresql()) as url:
        yield url
