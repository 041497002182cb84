"""
How often the answer of novelty.py is wrong: over the simulated years of many people, and for the
thief who comes from elsewhere, at every moment, with the browser and the system of the device.
"""

import re
from ipaddress import ip_address
from pathlib import Path

import pytest

from django_sessionkit import novelty
from tests import years

pytestmark = pytest.mark.once

SECURITY = Path(__file__).parents[2] / "docs" / "security.md"


def test_year_of_a_person_has_one_false_alarm_at_most_and_no_thief_is_missed():
    found = [years.false_alarms(seed) for seed in range(50)]
    assert max(found) == 1
    assert found.count(1) <= 10


def test_documentation_tells_what_the_simulation_has_found():
    """Of 1,000 years, which take minutes: see tests/years.py."""
    text = " ".join(SECURITY.read_text().split())
    assert re.search(rf"{years.FOUND[0]} had no false alarm, {years.FOUND[1]} had one", text)
    assert sum(years.FOUND) == 1000


@pytest.mark.parametrize("without", ["wide networks", "memory"])
def test_simulation_is_no_easy_one(without, monkeypatch):
    """With simpler rules, the same people are told more often of devices that are not new."""
    with_memory = sum(years.false_alarms(seed) for seed in range(30))
    if without == "memory":  # of more networks than the last one
        monkeypatch.setattr(years, "use", use_without_memory)
    else:

        def narrow(address):
            return novelty.network_of(address) if "." in address else f"{ip_address(address)}/128"

        monkeypatch.setattr(years, "networks_of", lambda address: f"{narrow(address)},")
        monkeypatch.setattr(years, "network_of", narrow)
        monkeypatch.setattr("django_sessionkit.novelty.network_of", narrow)
    assert sum(years.false_alarms(seed) for seed in range(30)) > 3 * with_memory


def use_without_memory(row, now, address):
    row.last_seen_at, row.ip, row.networks = now, address, novelty.networks_of(address)
