"""A user, and staff who act as that user by one of the packages for that."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache

from tests.packages.support import Support
from tests.people import CHROME, FIREFOX, post_sign_in


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """With ``-k``, a leg may choose no test of this folder."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK


@pytest.fixture(autouse=True)
def no_limits_of_rates() -> None:
    """allauth counts in the cache how often somebody tries to sign in."""
    cache.clear()


@pytest.fixture
def enter(browse: Callable[..., Any], settings: Any) -> Callable[..., Any]:
    """A function that signs somebody in by the form, in a new browser on either handler."""
    settings.SESSIONKIT_TRUSTED_PROXIES = 1

    def enter(name: str, password: str, user_agent: str = FIREFOX, address: str = "") -> Any:
        browser = browse(**{"user-agent": user_agent, "x-forwarded-for": address or "192.0.2.1"})
        answer = post_sign_in(browser, name, password)
        assert answer.status_code in (302, 403)
        return browser

    return enter


@pytest.fixture
def staff(db: None) -> User:
    return User.objects.create_superuser("carol", password="oolong")


@pytest.fixture
def phone(enter: Callable[..., Any], alice: User) -> Any:
    """The browser of a user."""
    return enter("alice", "secret")


@pytest.fixture
def support(enter: Callable[..., Any], staff: User) -> Callable[[str], Support]:
    """A function that signs in staff who act as users by this package."""
    return lambda package: Support(enter("carol", "oolong", CHROME, "198.51.100.7"), package)
