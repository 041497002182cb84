"""A hundred thousand sessions are being ended, and no page waits for that."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import pytest
from django.db import connection, transaction

from django_sessionkit.models import StoredSession, UserSession
from tests.browsers import BROWSERS, PAGE, cart, put
from tests.people import FIREFOX, handle, is_in, post_sign_in, who

pytestmark = [
    pytest.mark.postgresql,  # SQLite has one writer, for whom everybody waits
    pytest.mark.django_db(transaction=True),
    pytest.mark.site("tests.calls"),
]

MANY = 50_000  # on either side of a session in the middle
STOP = 4711  # the number of the lock at which the revocation stops

# Rows that come right after that of %(after)s, by the time in its id.
ROWS = """
INSERT INTO django_sessionkit_usersession (id, user_id, digest, started_at, authenticated_at,
    last_seen_at, expires_at, user_agent, client_hints, networks, label, language, novelty, backend,
    transport, remembered, counts, waits, support, renew, end_reason, end_note, device_type)
SELECT (substr(%(after)s, 1, 12) || '7fffb' || lpad(to_hex(number), 15, '0'))::uuid, user_id,
    md5(%(after)s || number::text) || md5(number::text || %(after)s), started_at, authenticated_at,
    last_seen_at, expires_at, '', '', '', '', '', '', '', 'cookie', false, true, false, false,
    false, '', '', ''
FROM django_sessionkit_usersession, generate_series(1, %(many)s) AS number
WHERE id = %(after)s::uuid
"""
PAYLOADS = """
INSERT INTO django_sessionkit_storedsession (digest, payload, touched_at, expires_at)
SELECT digest, '\\x00', 0, 9999999999999 FROM django_sessionkit_usersession WHERE user_agent = ''
"""
# Whoever ends the session in the middle waits, with its row and others in hand.
TRIGGER = f"""
CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock({STOP}); RETURN NEW; END $$;
CREATE TRIGGER stop BEFORE UPDATE OF ended_at ON django_sessionkit_usersession FOR EACH ROW
    WHEN (NEW.id = 'HANDLE' AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION stop();
"""


def execute(statement, params=None):
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchone() if cursor.description else None


@pytest.fixture
def impatient():
    """Whoever waits for a lock fails, and does not wait for the end of the test."""
    execute("SET lock_timeout = '1s'")
    yield
    connection.close()


@contextmanager
def under_way(browser, in_transaction):
    """End all sessions, but get stuck at that of this browser as long as the block runs."""

    def revoke():
        try:
            with transaction.atomic() if in_transaction else nullcontext():
                UserSession.objects.revoke()
        finally:
            connection.close()

    execute(TRIGGER.replace("HANDLE", str(handle(browser))))
    execute(f"SELECT pg_advisory_lock({STOP})")
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(revoke)
        try:
            while not job.done() and not is_stuck():
                pass
            assert not job.done()
            yield
            assert not job.done()
        finally:
            execute(f"SELECT pg_advisory_unlock({STOP})")
            job.exception(120)
            execute("DROP TRIGGER stop ON django_sessionkit_usersession; DROP FUNCTION stop")
    job.result()


def is_stuck():
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    return execute(waiting) == (1,)


@pytest.mark.parametrize("in_transaction", [False, True])
@pytest.mark.standard("ASVS-7.4.5")
def test_nobody_waits_while_a_hundred_thousand_sessions_end(
    alice, bob, policy, clock, caplog, impatient, in_transaction
):
    """The newest end first: some have ended, one is being ended, others are to come."""
    policy(absolute=3600)
    people = {place: [] for place in ("to come", "stuck", "ended")}
    for place, browsers in people.items():
        if place != "to come":
            before = handle(people["to come" if place == "stuck" else "stuck"][-1]).hex
            execute(ROWS, {"after": before, "many": MANY})
            clock.move(seconds=1)
        for kind in BROWSERS.values():
            browsers.append(kind(headers=PAGE | {"user-agent": FIREFOX}))
            assert post_sign_in(browsers[-1]).status_code == 302
            put(browsers[-1], cart="teapot")
    execute(PAYLOADS)
    execute("ANALYZE")
    stranger = BROWSERS["wsgi"](headers=PAGE)
    assert UserSession.objects.count() == 2 * MANY + 6
    clock.move(seconds=100)  # their activity is due
    with under_way(people["stuck"][0], in_transaction):
        for browser in people["to come"] + people["stuck"]:
            assert is_in(browser)
            assert cart(browser) == "teapot"
        for browser in people["ended"]:
            # Nobody else knows before the end of a transaction.
            assert is_in(browser) == in_transaction
        for browser in people["to come"]:
            put(browser, cart="kettle")
            assert cart(browser) == "kettle"
        assert post_sign_in(stranger, "bob").status_code == 302
        assert is_in(stranger, "bob")
    assert "did not answer" not in caplog.text
    for browser in [browser for place in people.values() for browser in place]:
        assert who(browser) != "alice"
    assert is_in(stranger, "bob")
    assert UserSession.objects.filter(ended_at=None).count() == 1
    assert StoredSession.objects.count() == 1
