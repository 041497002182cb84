from collections.abc import Callable
from typing import Any

import pytest

from tests.store import SessionStore


@pytest.fixture
def stored(drive: Callable[..., Any]) -> Any:
    """A session that is stored."""
    session = SessionStore()
    session.update({"cart": ["teapot"], "language": "en"})
    drive(session, "save")
    return session


@pytest.fixture
def own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test does to the lines to Redis is no matter of the next."""
    from tests.redis_servers import fresh_lines

    fresh_lines(monkeypatch)
