"""The time at which the key of a session changes, and the steps in which it does."""

from django_sessionkit import registry
from tests import store
from tests.people import is_in, key_of
from tests.store import SessionStore, later

# Seconds: the policy of these tests, and when the key of a session that began now is to change.
AFTER, GRACE = 600, 60
DUE = AFTER + 1

REUSED = b"an old copy of this session was used"

# What a request does to the store and the registry, step by step.
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
# Of a request that renews a key. On the database engine what follows "begin" is a transaction, into
# which nobody can look.
OPEN_STEPS = ["read", "verify", "note", "touch", "begin"]
OPEN_STEPS += ["insert", "replace", "follow"] if store.ON_REDIS else []
WRITES = ["note", "touch", "insert", "replace", "follow"]


def renewed(browser, after=DUE):
    """Let the key of a browser change, and return the key that it had before."""
    old = key_of(browser)
    with later(after):
        assert is_in(browser)
    assert key_of(browser) != old
    return old


def seen(browser, after=DUE + 9):
    """Let a browser come with its new key for the first time."""
    with later(after):
        assert is_in(browser)
