"""To which browser, system and network a session is bound, and what of them has changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_sessionkit.backends import binding
from django_sessionkit.backends.binding import FAMILY, HIDDEN
from django_sessionkit.backends.facts import Facts
from django_sessionkit.visit.client import Client
from tests.facts import ELSEWHERE, HOME, TRAITS
from tests.people import CHROME_ON_LINUX, FIREFOX, FIREFOX_ON_WINDOWS, IPHONE, NEW_FIREFOX

pytestmark = pytest.mark.once

BOUND = {"browser": "Firefox", "system": "Linux", "network": "192.0.2.0/24"}
BOTH = BOUND | {"network": "192.0.2.0/24 2001:db8::/48"}

CLIENTS = st.none() | st.builds(
    Client,
    st.sampled_from([None, HOME, ELSEWHERE, "2001:db8::7"]),
    st.sampled_from(["", "curious", FIREFOX, CHROME_ON_LINUX, FIREFOX_ON_WINDOWS, IPHONE]),
)


@pytest.mark.parametrize(
    ("bound", "client", "changed"),
    [
        (None, Client(ELSEWHERE, IPHONE), []),
        (BOUND, Client(HOME, FIREFOX), []),
        (BOUND, Client(HOME, NEW_FIREFOX), []),
        (BOUND, Client("192.0.2.250", FIREFOX), []),
        (BOUND, Client(HOME, CHROME_ON_LINUX), ["browser"]),
        (BOUND, Client(HOME, FIREFOX_ON_WINDOWS), ["system"]),
        (BOUND, Client(ELSEWHERE, FIREFOX), ["network"]),
        (BOUND, Client("2001:db8::7", FIREFOX), [FAMILY]),
        (BOTH, Client("2001:db8::7", FIREFOX), []),
        (BOTH, Client(HOME, FIREFOX), []),
        (BOTH, Client("2001:db8:1::7", FIREFOX), ["network"]),
        (BOTH, Client(ELSEWHERE, FIREFOX), ["network"]),
        (BOUND, Client(ELSEWHERE, IPHONE), ["browser", "system", "network"]),
        # What is not known now.
        (BOUND, None, []),
        (BOUND, Client(None, FIREFOX), []),
        (BOUND, Client(HOME, ""), ["browser", "system"]),
        (BOUND | {"browser": HIDDEN, "system": HIDDEN}, Client(HOME, ""), []),
        (BOUND | {"browser": HIDDEN}, Client(HOME, FIREFOX), ["browser"]),
        (BOUND, Client(None, IPHONE), ["browser", "system"]),
        # What was not known then.
        (dict.fromkeys(BOUND, ""), Client(HOME, FIREFOX), []),
        (BOUND | {"system": ""}, Client(HOME, IPHONE), ["browser"]),
        # What the policy does not name.
        ({"network": "192.0.2.0/24"}, Client(HOME, IPHONE), []),
        ({"system": "Linux"}, Client(ELSEWHERE, IPHONE), ["system"]),
    ],
)
def test_what_was_known_then_and_is_another_now_has_changed(
    bound: dict[str, str] | None, client: Client | None, changed: list[str]
):
    assert binding.changed(bound, client) == changed


@pytest.mark.parametrize(
    ("bound", "client", "bound_to", "rebound"),
    [
        (None, Client(HOME, FIREFOX), None, None),
        (
            BOUND,
            Client(ELSEWHERE, FIREFOX),
            BOUND | {"network": "198.51.100.0/24"},
            BOUND | {"network": "198.51.100.0/24"},
        ),
        (BOUND, Client(None, FIREFOX), BOUND, BOUND | {"network": ""}),
        (BOUND, None, BOUND, dict.fromkeys(BOUND, "")),
        (dict.fromkeys(BOUND, ""), Client(HOME, FIREFOX), BOUND, BOUND),
        ({"system": ""}, Client(HOME, FIREFOX), {"system": "Linux"}, {"system": "Linux"}),
        ({"system": "Linux"}, Client(HOME, ""), {"system": HIDDEN}, {"system": ""}),
        ({"system": HIDDEN}, Client(HOME, ""), {"system": HIDDEN}, {"system": ""}),
        ({"system": ""}, Client(HOME, ""), {"system": ""}, {"system": ""}),
        (BOUND, Client("2001:db8::7", FIREFOX), BOTH, BOUND | {"network": "2001:db8::/48"}),
        (
            BOTH,
            Client(ELSEWHERE, FIREFOX),
            BOUND | {"network": "198.51.100.0/24 2001:db8::/48"},
            BOUND | {"network": "198.51.100.0/24"},
        ),
    ],
)
def test_only_a_proof_of_identity_forgets_what_is_not_known_any_more(
    bound: dict[str, str] | None,
    client: Client | None,
    bound_to: dict[str, str] | None,
    rebound: dict[str, str] | None,
):
    assert binding.bound_to(bound, client) == bound_to
    facts = Facts(user="7", bound=bound)
    assert facts.rebound(client) == facts._replace(bound=rebound)


def test_session_that_is_where_it_was_is_bound_to_the_same():
    for client in (None, Client(None, FIREFOX), Client("192.0.2.8", NEW_FIREFOX)):
        assert binding.bound_to(BOUND, client) is BOUND
    free = Facts(user="7")
    assert binding.bound_to(free.bound, Client(HOME, IPHONE)) is None
    assert free.rebound(Client(HOME, IPHONE)) is free


def test_what_a_later_version_is_bound_to_is_left_to_that():
    bound = {"browser": "Firefox", "colour": "green"}
    elsewhere = Client(ELSEWHERE, CHROME_ON_LINUX)
    assert binding.changed(bound, elsewhere) == ["browser"]
    assert binding.bound_to(bound, elsewhere) == {"browser": "Chrome", "colour": "green"}
    assert binding.bound_to(bound, Client(HOME, FIREFOX)) is bound
    assert Facts(bound=bound).rebound(elsewhere).bound == {"browser": "Chrome"}


@given(st.none() | TRAITS, CLIENTS)
def test_session_has_not_moved_from_the_client_to_which_it_is_bound(
    bound: dict[str, str] | None, client: Client | None
):
    facts, known = Facts(bound=bound), bound or {}
    changed = binding.changed(bound, client)
    assert set(changed) <= {name for name in known if known[name]} | {FAMILY}
    assert binding.changed(bound, None) == []
    for after in (binding.bound_to(bound, client), facts.rebound(client).bound):
        assert binding.changed(after, client) == []
        assert set(after or {}) == set(known)
    assert binding.changed(facts.rebound(None).bound, client) == []
