"""A store that says too much: its clock is behind, or somebody writes to it."""

from datetime import UTC, datetime, timedelta

import pytest

from django_sessionkit.backends.sealing import digest_of
from tests import store
from tests.calls import use
from tests.people import is_still_in, key_of, told
from tests.store import DAY, HOUR, SessionStore

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site("tests.calls"),
    pytest.mark.transports("cookie", "header"),
]


def put_back(browser, payload, touched_at):
    """Store a payload again, for a day from now."""
    digest = digest_of(key_of(browser))
    SessionStore.remove([digest])
    assert SessionStore.insert(digest, payload, touched_at, store.now() + 1000 * DAY)


@pytest.mark.parametrize(
    ("rules", "seconds", "touched_again", "reason"),
    [
        # Somebody who has the cookie and can write to the store.
        ({"absolute": HOUR}, HOUR, True, "expired"),
        ({"absolute": HOUR, "idle": 600}, HOUR, True, "idle"),
        ({"absolute": HOUR, "idle": 600, "lock": True}, HOUR, True, "expired"),
        # A store whose clock is behind.
        ({"absolute": HOUR}, HOUR, False, "expired"),
        ({"idle": 600}, 600, False, "idle"),
    ],
)
@pytest.mark.standard("ASVS-7.3.1", "ASVS-7.3.2")
def test_what_is_over_by_its_facts_is_refused_whatever_the_store_says(
    signed_in, policy, clock, rules, seconds, touched_again, reason
):
    policy(**rules)
    browser = signed_in()
    payload, touched_at = store.payloads()[digest_of(key_of(browser))], store.now()
    clock.move(seconds=seconds - 1)
    put_back(browser, payload, touched_at)
    if "lock" not in rules and not ("absolute" in rules and "idle" in rules):
        assert SessionStore(key_of(browser)).handle
    clock.move(seconds=1)
    put_back(browser, payload, store.now() if touched_again else touched_at)
    assert told(browser) == reason
    assert not SessionStore().exists(key_of(browser))


@pytest.mark.parametrize("rules", [{"absolute": HOUR}, {"idle": HOUR}])
def test_what_is_over_by_its_facts_is_not_written_over_unread(signed_in, policy, clock, rules):
    policy(**rules)
    browser = signed_in()
    payload, touched_at = store.payloads()[digest_of(key_of(browser))], store.now()
    clock.move(seconds=HOUR)
    put_back(browser, payload, touched_at)
    browser.get(f"/{browser.a}overwrite/")
    assert not is_still_in(browser)


@pytest.mark.parametrize("moment", [0, 2**63 - 1] + ([] if store.ON_REDIS else [-(2**63)]))
def test_moment_that_no_date_can_be_is_no_error(signed_in, clock, moment):
    """Where a session ends on a date, its moments are dates, too."""
    browser = signed_in()
    use(browser, "set_expiry", datetime.now(UTC) + timedelta(days=3))
    put_back(browser, store.payloads()[digest_of(key_of(browser))], moment)
    clock.move(seconds=100)
    assert is_still_in(browser)
    assert is_still_in(browser)
