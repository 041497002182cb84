"""What several of the stories begin with."""

import pytest

from django_sessionkit.models import UserSession
from django_sessionkit.signals import session_key_reused
from tests import interleaving
from tests.browsers import put
from tests.policies import LOCK
from tests.renewals import AFTER, GRACE, STEPS, renewed

# Sessions that are locked.


@pytest.fixture
def lockable(signed_in, policy, clock):
    """Alice, with something in her cart, under a policy that locks her session when it is idle."""
    policy(**LOCK)
    browser = signed_in()
    put(browser, cart="teapot")
    return browser


@pytest.fixture
def locked(lockable, clock):
    """The same, ten minutes later."""
    clock.move(seconds=600)
    return lockable


# Keys that change by themselves.


@pytest.fixture
def keys_change(policy):
    """Have the keys of sessions change after ten minutes; old ones are good for another minute."""
    policy(renew_after=AFTER, renew_grace=GRACE)


@pytest.fixture
def generations(shopper, policy):
    """A browser that has had three keys before, all within their grace, and those."""
    policy(renew_after=60, renew_grace=3600)
    browser = shopper()
    return browser, [renewed(browser, after=70 * number) for number in (1, 2, 3)]


@pytest.fixture
def reused():
    """What session_key_reused says: (handle, client) each time."""
    heard = []

    def listen(sender, handle, client, **kwargs):
        assert sender is UserSession
        heard.append((handle, client))

    session_key_reused.connect(listen)
    yield heard
    session_key_reused.disconnect(listen)


@pytest.fixture
def at(monkeypatch):
    """Do something just before the next time that a step is done, or just after it."""

    def at(step, act, after=False):
        interleave = interleaving.after if after else interleaving.before
        return interleave(monkeypatch, *STEPS[step], act)

    return at
