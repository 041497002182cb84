"""The verbs of an engine, one at a time."""

import secrets
import time
from collections.abc import Callable

from django_sessionkit import clock
from django_sessionkit.backends.base import SessionStore
from django_sessionkit.backends.sealing import version_of
from django_sessionkit.ranges import ROWS
from django_sessionkit.storage import NodeStatus, Stored
from django_sessionkit.testing.contract import HOUR, SECOND, Contract, new_payload

# How soon a session expires: the next where that was too soon for a busy machine.
SHORT = (SECOND // 5, SECOND, 5 * SECOND)


class StorageContract(Contract):
    """
    The verbs of an engine, one at a time. For ``django.test.TestCase``::

        class StorageTests(StorageContract, TestCase):
            engine = "shop.sessions"

            def spoil(self, digest): ...
    """

    def spoil(self, digest: str) -> None:
        """
        Store something under a digest that your engine cannot have written, in place of what is
        there: for example an empty payload, or a value of another type.
        """
        raise NotImplementedError("Define spoil(digest): see StorageContract.")

    def assert_unknown(self, digest: str, payload: bytes) -> None:
        """Check that for no verb there is a session, as the one that had this payload."""
        now = clock.now()
        new, version = self.new_digest(), version_of(payload)
        self.assertIsNone(self.verb("read", digest))
        self.assertEqual(self.verb("peek", [digest]), set())
        for expires_at in (None, now + HOUR):
            self.assertIs(self.verb("replace", digest, new_payload(), expires_at, version), False)
        move = digest, new, new_payload(), now, now + HOUR, version
        self.assertIs(self.verb("move", *move), False)
        self.assertIs(self.verb("touch", digest, now, now + HOUR), False)
        self.assertIs(self.verb("touch", digest, now, now + HOUR, version), False)
        # And that none of these verbs has made one.
        self.assertIsNone(self.verb("read", digest))
        self.assertEqual(self.verb("peek", [digest, new]), set())

    # Insert and read.

    def test_what_is_inserted_is_read(self) -> None:
        digest, payload, now = self.new_digest(), new_payload(), clock.now()
        self.assertIs(self.verb("insert", digest, payload, now - 5, now + HOUR), True)
        found = self.verb("read", digest)
        self.assertIsInstance(found, Stored)
        self.assertIs(type(found.payload), bytes)
        self.assertIs(type(found.touched_at), int)
        self.assertIs(type(found.epoch), int)
        self.assertEqual(found[:2], (payload, now - 5))

    def test_a_payload_is_any_bytes(self) -> None:
        now = clock.now()
        for payload in (bytes(range(256)), bytes(12), b"\r\n" * 10, new_payload(64 * 1024)):
            digest = self.new_digest()
            self.assertIs(self.verb("insert", digest, payload, now, now + HOUR), True)
            self.assertEqual(self.verb("read", digest)[:2], (payload, now))

    def test_an_unknown_digest_is_no_error_for_any_verb(self) -> None:
        self.assert_unknown(self.new_digest(), new_payload())

    def test_a_digest_that_is_taken_is_refused(self) -> None:
        digest, payload = self.stored()
        before, now = self.verb("read", digest), clock.now()
        for expires_at in (now + HOUR, now - HOUR):
            self.assertIs(self.verb("insert", digest, new_payload(), now + 5, expires_at), False)
        self.assertEqual(self.verb("read", digest), before)
        self.assertEqual(before.payload, payload)

    # Replace.

    def test_replace_leaves_the_last_activity_alone(self) -> None:
        for expires_in in (None, HOUR):
            digest, payload = self.stored()
            touched_at = self.verb("read", digest).touched_at
            new, version = new_payload(), version_of(payload)
            expires_at = None if expires_in is None else clock.now() + expires_in
            self.assertIs(self.verb("replace", digest, new, expires_at, version), True)
            self.assertEqual(self.verb("read", digest)[:2], (new, touched_at))

    def test_replace_refuses_another_version(self) -> None:
        digest, payload = self.stored()
        new, other = new_payload(), new_payload()
        self.assertIs(self.verb("replace", digest, new, None, version_of(payload)), True)
        for expected in (version_of(payload), version_of(other)):
            for expires_at in (None, clock.now() + HOUR, clock.now() - HOUR):
                self.assertIs(self.verb("replace", digest, other, expires_at, expected), False)
        self.assertEqual(self.verb("read", digest).payload, new)

    def test_replace_moves_the_expiry_either_way(self) -> None:
        digest, payload = self.stored(expires_in=HOUR)
        new = new_payload()
        at = clock.now() - SECOND
        self.assertIs(self.verb("replace", digest, new, at, version_of(payload)), True)
        self.assert_unknown(digest, new)

    # Move.

    def test_move_leaves_nothing_under_the_old_digest(self) -> None:
        old, payload = self.stored()
        new, moved, now = self.new_digest(), new_payload(), clock.now() + 5
        args = old, new, moved, now, now + HOUR, version_of(payload)
        self.assertIs(self.verb("move", *args), True)
        self.assertEqual(self.verb("read", new)[:2], (moved, now))
        self.assert_unknown(old, payload)
        self.assert_unknown(old, moved)
        self.assertIs(self.verb("insert", old, new_payload(), now, now + HOUR), True)

    def test_move_refuses_another_version(self) -> None:
        old, payload = self.stored()
        before, new, now = self.verb("read", old), self.new_digest(), clock.now()
        args = old, new, new_payload(), now, now + HOUR, version_of(new_payload())
        self.assertIs(self.verb("move", *args), False)
        self.assertEqual(self.verb("read", old), before)
        self.assert_unknown(new, payload)

    def test_move_with_an_expiry_that_is_over_leaves_nothing(self) -> None:
        old, payload = self.stored()
        new, moved, now = self.new_digest(), new_payload(), clock.now()
        self.verb("move", old, new, moved, now, now - SECOND, version_of(payload))
        self.assert_unknown(old, payload)
        self.assert_unknown(new, moved)

    # Touch.

    def test_touch_leaves_the_payload_alone(self) -> None:
        digest, payload = self.stored()
        for expected in ((), (None,), (version_of(payload),)):
            at = self.verb("read", digest).touched_at + 5
            self.assertIs(self.verb("touch", digest, at, clock.now() + HOUR, *expected), True)
            self.assertEqual(self.verb("read", digest)[:2], (payload, at))

    def test_touch_refuses_another_version_if_one_is_expected(self) -> None:
        digest, _payload = self.stored()
        before, now = self.verb("read", digest), clock.now()
        for expires_at in (now + HOUR, now - HOUR):
            touch = digest, now + 5, expires_at, version_of(new_payload())
            self.assertIs(self.verb("touch", *touch), False)
        self.assertEqual(self.verb("read", digest), before)

    def test_touch_moves_the_expiry_either_way(self) -> None:
        digest, payload = self.stored(expires_in=HOUR)
        now = clock.now()
        self.assertIs(self.verb("touch", digest, now, now - SECOND), True)
        self.assert_unknown(digest, payload)

    # Remove and peek.

    def test_what_is_removed_is_unknown(self) -> None:
        digest, payload = self.stored()
        other, _ = self.stored()
        self.assertIsNone(self.verb("remove", [digest, self.new_digest()]))
        self.assert_unknown(digest, payload)
        self.assertIsNotNone(self.verb("read", other))

    def test_nothing_is_asked_about_nothing(self) -> None:
        self.verb("remove", [])
        self.assertEqual(self.verb("peek", []), set())

    def test_peek_finds_what_is_there(self) -> None:
        digests = {self.stored()[0] for _ in range(3)}
        over, _ = self.stored(expires_in=-SECOND)
        for kind in (list, set, tuple):
            asked = kind([*digests, over, self.new_digest()])
            self.assertEqual(self.verb("peek", asked), digests)

    def test_many_at_once(self) -> None:
        """A purge and revoke() ask about that many at once."""
        there = [self.stored()[0] for _ in range(3)]
        many = [there[0], *(secrets.token_hex(32) for _ in range(ROWS)), *there[1:]]
        self.assertEqual(self.verb("peek", many), set(there))
        self.verb("remove", many)
        self.assertEqual(self.verb("peek", many), set())

    # Epochs.

    def test_read_says_which_epoch_was_noted_last(self) -> None:
        digest, payload = self.stored()
        before = self.verb("read", digest)
        self.addCleanup(self.store.note_epoch, before.epoch)
        # The last one is the smaller one: no number is better than another.
        for number in (clock.now() * 1000, 1):
            self.store.note_epoch(number)
            if self.verb("read", digest).epoch == before.epoch:
                return  # note_epoch() was left out
            self.assertEqual(self.verb("read", digest), before._replace(epoch=number))
        new, now = self.new_digest(), clock.now()
        args = digest, new, payload, now, now + HOUR, version_of(payload)
        self.assertIs(self.verb("move", *args), True)
        self.assertEqual(self.verb("read", new), Stored(payload, now, 1))

    def test_the_purge_leaves_the_epoch(self) -> None:
        digest, _payload = self.stored()
        before = self.verb("read", digest)
        self.addCleanup(self.store.note_epoch, before.epoch)
        self.store.note_epoch(before.epoch + 1)
        noted = self.verb("read", digest)
        self.store.clear_expired()
        self.assertEqual(self.verb("read", digest), noted)
        parts = self.store.scan()
        found = [] if parts is None else [each.digest for part in parts[1] for each in part]
        self.assertTrue(all(len(each) == 64 for each in found))

    # How it is.

    def test_status_says_that_it_answers(self) -> None:
        self.stored()
        for status in self.store.status():
            self.assertIsInstance(status, NodeStatus)
            self.assertIsNotNone(status.latency)

    # Time.

    def test_what_has_expired_is_unknown(self) -> None:
        digest, payload = self.stored(expires_in=-SECOND)
        self.assert_unknown(digest, payload)

    def test_sessions_expire_by_themselves(self) -> None:
        digest, payload = self.stored(expires_in=SECOND // 5)
        self.wait_for(lambda: self.verb("read", digest) is None)
        self.assert_unknown(digest, payload)

    def test_replace_keeps_the_expiry_unless_there_is_another(self) -> None:
        digest, new = "", b""

        def is_in_time(expires_in: int) -> bool:
            nonlocal digest, new
            digest, payload = self.stored(expires_in)
            new = new_payload()
            return self.verb("replace", digest, new, None, version_of(payload)) is True

        self.assertTrue(any(map(is_in_time, SHORT)))
        self.wait_for(lambda: self.verb("read", digest) is None)
        self.assert_unknown(digest, new)

    def test_what_is_touched_or_replaced_in_time_lives_on(self) -> None:
        digests, over = [""], 0

        def is_in_time(expires_in: int) -> bool:
            nonlocal digests, over
            (touched, _), (replaced, payload) = self.stored(expires_in), self.stored(expires_in)
            digests, over, until = [touched, replaced], clock.now() + expires_in, clock.now() + HOUR
            replace = replaced, new_payload(), until, version_of(payload)
            return all((self.verb("touch", touched, over, until), self.verb("replace", *replace)))

        self.assertTrue(any(map(is_in_time, SHORT)))
        self.wait_for(lambda: clock.now() > over + SECOND // 10)
        self.assertEqual(self.verb("peek", digests), set(digests))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            self.assertLess(time.monotonic(), deadline, "It does not expire.")
            time.sleep(0.01)

    def test_the_purge_leaves_what_has_not_expired(self) -> None:
        digest, payload = self.stored()
        over, _ = self.stored(expires_in=-SECOND)
        heard: list[tuple[int, int]] = []
        self.store.clear_expired(lambda done, of: heard.append((done, of)))
        self.assertTrue(all(0 < done <= of for done, of in heard))
        self.assertEqual(self.verb("read", digest).payload, payload)
        # Whether that is gone is not asked: a store may forget what has expired in its own time.
        self.assertIsNone(self.verb("read", over))

    # What somebody else has written.

    def test_what_is_malformed_is_in_nobodys_way(self) -> None:
        digest, payload = self.stored()
        self.spoil(digest)
        now = clock.now()
        for expected in (version_of(payload), version_of(new_payload())):
            self.assertIs(self.verb("replace", digest, payload, None, expected), False)
            move = digest, self.new_digest(), payload, now, now + HOUR, expected
            self.assertIs(self.verb("move", *move), False)
            self.assertIs(self.verb("touch", digest, now, now + HOUR, expected), False)
        found = self.verb("read", digest)
        self.assertFalse(found and found.payload == payload)
        self.verb("touch", digest, now, now + HOUR)
        self.assertLessEqual(self.verb("peek", [digest]), {digest})
        self.verb("remove", [digest])
        self.assertIs(self.verb("insert", digest, payload, now, now + HOUR), True)
        self.assertEqual(self.verb("read", digest)[:2], (payload, now))

    def test_errors_are_declared(self) -> None:
        """Sessions are in a database, too: that of the registry may be down."""
        self.assertLessEqual(set(SessionStore.unavailable), set(self.store.unavailable))
