"""When the key of a session changes, and in which steps."""

from django_sessionkit import registry
from tests import store
from tests.people import is_in, key_of
from tests.store import SessionStore, later

# Seconds: renew_after and renew_grace of the policy, and when a session that begins now gets a new
# key.
AFTER, GRACE = 600, 60
DUE = AFTER + 1

REUSED = b"an old copy of your sign-in was used"

# The steps of a request, as (owner, name) of what it calls in the store and the registry.
STEPS = {
    "read": (SessionStore, "read"),
    "verify": (registry, "may_go_on"),
    "note": (registry, "touch"),
    "touch": (SessionStore, "touch"),
    "begin": (SessionStore, "atomic"),
    "insert": (SessionStore, "insert"),
    "replace": (SessionStore, "replace"),
    "follow": (registry, "rekey"),
    "move": (SessionStore, "move"),
    "remove": (SessionStore, "remove"),
}
# The steps of a request that renews a key, between which other requests can act. On the database
# engine, the steps after "begin" are one transaction.
OPEN_STEPS = ["read", "verify", "note", "touch", "begin"]
OPEN_STEPS += ["insert", "replace", "follow"] if store.APART else []
WRITES = ["note", "touch", "insert", "replace", "follow"]


def renewed(browser, after=DUE):
    """Let the key of a browser change, and return the old key."""
    old = key_of(browser)
    with later(after):
        assert is_in(browser)
    assert key_of(browser) != old
    return old


def seen(browser, after=DUE + 9):
    """Let a browser use its new key for the first time."""
    with later(after):
        assert is_in(browser)
