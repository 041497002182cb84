"""Settings: their defaults, that a change of one is noticed, and that nothing else reads them."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

import django_sessionkit
from django_sessionkit.checks import VALUES, check_settings
from django_sessionkit.conf import Settings, conf

pytestmark = pytest.mark.once

DEFAULTS: dict[str, Any] = {
    "SESSIONKIT_TOUCH_INTERVAL": 60,
    "SESSIONKIT_ACTIVITY": "direct",
    "SESSIONKIT_TRUSTED_PROXIES": 0,
    "SESSIONKIT_RETENTION": 2_592_000,
    "SESSIONKIT_ADDRESSES": "whole",
    "SESSIONKIT_ADDRESS_RETENTION": None,
    "SESSIONKIT_REDIS_PREFIX": "sessionkit:",
    "SESSIONKIT_MEMORY_LIMIT": 10_000,
    "SESSIONKIT_POLICY": "django_sessionkit.policy.default",
    "SESSIONKIT_VISITOR_AGE": None,
    "SESSIONKIT_REAUTHENTICATION_URL": "",
    "SESSIONKIT_BACKGROUND": (),
    "SESSIONKIT_DEVICE_COOKIE": "sessionkit_device",
    "SESSIONKIT_ADOPT_FROM": (),
    "SESSIONKIT_NOTICES": (),
    "SESSIONKIT_SITE_URL": "",
    "SESSIONKIT_TOKEN_AGE": 300,
    "SESSIONKIT_TOKEN_ISSUER": "",
    "SESSIONKIT_TOKEN_AUDIENCE": "",
    "SESSIONKIT_TOKEN_CLAIMS": "",
    "SESSIONKIT_TOKEN_ALGORITHM": "ES256",
}


def test_these_are_all_the_settings():
    assert [name for name in vars(Settings) if not name.startswith("__")] == list(DEFAULTS)


@pytest.fixture(autouse=True)
def own_keys(settings: Any) -> None:
    """Take back what every other test begins with: a prefix of its own for Redis."""
    if hasattr(settings, "SESSIONKIT_REDIS_PREFIX"):
        del settings.SESSIONKIT_REDIS_PREFIX


@pytest.mark.parametrize("name", DEFAULTS)
def test_setting_has_a_default(name: str):
    assert getattr(conf, name) == DEFAULTS[name]
    assert type(getattr(conf, name)) is type(DEFAULTS[name])


@pytest.mark.parametrize("name", DEFAULTS)
def test_change_of_a_setting_is_noticed(name: str):
    with override_settings(**{name: 7}):
        assert getattr(conf, name) == 7
        with override_settings(**{name: 8}):
            assert getattr(conf, name) == 8
        assert getattr(conf, name) == 7
    assert getattr(conf, name) == DEFAULTS[name]


@pytest.mark.parametrize("name", DEFAULTS)
def test_setting_can_not_be_set_on_conf(name: str):
    with pytest.raises(AttributeError):
        setattr(conf, name, 7)


@pytest.mark.parametrize("name", DEFAULTS)
def test_setting_says_what_it_is_and_has_a_check(name: str):
    assert vars(Settings)[name].__doc__
    assert name in VALUES


def test_defaults_pass_the_checks():
    assert check_settings() == []


def test_nothing_but_conf_reads_the_settings():
    reads = re.compile(
        r"""settings\.SESSIONKIT_|(getattr\(\s*settings\s*,|_value\()\s*f?["']SESSIONKIT_"""
    )
    package = Path(django_sessionkit.__file__).parent
    found = {path.name for path in package.rglob("*.py") if reads.search(path.read_text())}
    assert found == {"conf.py"}
