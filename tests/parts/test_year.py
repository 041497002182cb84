"""
How often the answer of novelty.py is wrong: over the simulated years of many people, and for the
thief who comes from elsewhere, at every moment, with the browser and the system of the device.
"""

import re
from functools import cache
from pathlib import Path

import pytest

from django_sessionkit import novelty
from tests import years

pytestmark = pytest.mark.once

SECURITY = Path(__file__).parents[2] / "docs" / "security.md"


@cache
def false_alarms(seed):
    """A year takes a while, and two tests are about the same ones."""
    return years.false_alarms(seed)


def test_year_of_a_person_has_one_false_alarm_at_most_and_no_thief_is_missed():
    found = [*map(false_alarms, range(50))]
    assert max(found) == 1
    assert found.count(1) <= 10


def test_documentation_tells_what_the_simulation_has_found():
    """Of 1,000 years, which take minutes: see tests/years.py."""
    text = " ".join(SECURITY.read_text().split())
    assert re.search(rf"{years.FOUND[0]} had no false alarm, {years.FOUND[1]} had one", text)
    assert sum(years.FOUND) == 1000


@pytest.fixture
def narrow_networks(monkeypatch):
    """Networks of IPv6 are what a customer has, and not what a provider has."""
    novelty.network_of.cache_clear()
    with monkeypatch.context() as patch:
        patch.setitem(novelty.BITS, 6, 64)
        yield
    novelty.network_of.cache_clear()


@pytest.fixture
def no_memory(monkeypatch):
    """A session knows the network of its last activity alone."""
    monkeypatch.setattr(years, "use", use_without_memory)


@pytest.mark.parametrize("simpler", ["narrow_networks", "no_memory"])
def test_simulation_is_no_easy_one(simpler, request):
    """With simpler rules, the same people are told more often of devices that are not new."""
    with_all_rules = sum(map(false_alarms, range(30)))
    request.getfixturevalue(simpler)
    assert sum(years.false_alarms(seed) for seed in range(30)) > 2 * with_all_rules


def use_without_memory(row, now, address):
    row.last_seen_at, row.ip, row.networks = now, address, novelty.networks_of(address)
