"""Activity that waits in the store to be carried to the rows: see ``Storage.buffers``."""

import uuid
from typing import Any, cast

from django.test import override_settings

from django_sessionkit import clock
from django_sessionkit.backends.sealing import version_of
from django_sessionkit.storage import Seen, Waiting
from django_sessionkit.testing.contract import HOUR, SECOND, Contract, new_payload


class ActivityContract(Contract):
    """
    The verbs of an engine whose ``buffers`` is true. For ``django.test.TestCase``::

        class ActivityTests(ActivityContract, TestCase):
            engine = "shop.sessions"
    """

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(override_settings(SESSIONKIT_ACTIVITY="buffered"))

    def used(self, at: int | None = None, **kwargs: Any) -> Seen:
        """Return an activity of a session that has just been stored, and that it waits."""
        digest, payload = self.stored()
        seen = self.activity(digest, payload, clock.now() if at is None else at, **kwargs)
        self.assertIs(self.verb("touch_later", seen), True)
        return seen

    def activity(self, digest: str, payload: bytes, at: int, idle: bool = True) -> Seen:
        idle_at = at + HOUR if idle else None
        return Seen(digest, uuid.uuid4(), at, at + HOUR, idle_at, version_of(payload))

    def waiting(self, digest: str) -> Waiting | None:
        """Return the activity of a session that waits, as the only one of its part."""
        everything = [part for parts in self.store.waiting() for part in parts]
        found = [(part, seen) for part in everything for seen in part.seen if seen.digest == digest]
        return found[0][0]._replace(seen=[seen for _part, seen in found]) if found else None

    def waits(self, seen: Seen) -> Waiting:
        """Check that this activity waits, and return it as waiting() does."""
        part = self.waiting(seen.digest)
        self.assertEqual(part and part.seen, [seen])
        return cast("Waiting", part)

    # What waits.

    def test_activity_is_written_and_waits(self) -> None:
        for idle in (True, False):
            seen = self.used(idle=idle)
            self.assertEqual(self.verb("read", seen.digest).touched_at, seen.at)
            before = clock.now()
            part = self.waits(seen)
            self.assertTrue(before - SECOND <= part.read_at <= clock.now() + SECOND)
            # Whoever reads it may be killed: it goes on waiting.
            self.waits(seen)
            self.store.note_flushed(part)

    def test_the_last_activity_waits_in_place_of_the_one_before(self) -> None:
        seen = self.used()
        later = seen._replace(at=seen.at + SECOND, expires_at=seen.expires_at + SECOND)
        self.assertIs(self.verb("touch_later", later), True)
        self.store.note_flushed(self.waits(later))

    def test_activity_of_no_session_does_not_wait(self) -> None:
        now = clock.now()
        unknown = self.activity(self.new_digest(), new_payload(), now)
        digest, _payload = self.stored()
        other = self.activity(digest, new_payload(), now - SECOND)
        before = self.verb("read", digest)
        for seen in (unknown, other):
            self.assertIs(self.verb("touch_later", seen), False)
            self.assertIsNone(self.waiting(seen.digest))
        self.assertEqual(self.verb("read", digest)[:2], before[:2])

    def test_activity_with_an_expiry_that_is_over_leaves_no_session(self) -> None:
        digest, payload = self.stored()
        seen = self.activity(digest, payload, clock.now() - 2 * HOUR)
        self.verb("touch_later", seen)
        self.assertIsNone(self.verb("read", digest))

    # What was carried.

    def test_what_was_carried_waits_no_more(self) -> None:
        seen = self.used()
        part = self.waits(seen)
        self.store.note_flushed(part)
        found = self.verb("read", seen.digest)
        self.assertEqual((found.touched_at, found.flushed_at), (seen.at, part.read_at))
        self.assertIsNone(self.waiting(seen.digest))

    def test_a_part_where_nothing_waits_has_been_flushed(self) -> None:
        digest, _payload = self.stored()
        before = clock.now()
        self.assertIsNone(self.waiting(digest))
        self.assertGreaterEqual(self.verb("read", digest).flushed_at, before - SECOND)

    def test_what_is_newer_than_what_was_carried_waits(self) -> None:
        seen = self.used()
        part = self.waits(seen)
        later = seen._replace(at=seen.at + SECOND)
        self.assertIs(self.verb("touch_later", later), True)
        self.store.note_flushed(part)
        self.store.note_flushed(self.waits(later))

    def test_what_is_left_goes_on_waiting(self) -> None:
        seen = self.used()
        self.store.note_flushed(self.waits(seen), left=[seen])
        self.store.note_flushed(self.waits(seen))

    def test_a_part_that_asks_was_never_flushed(self) -> None:
        seen = self.used()
        self.store.note_flushed(self.waits(seen))
        again = seen._replace(at=seen.at + SECOND)
        self.assertIs(self.verb("touch_later", again), True)
        self.store.note_flushed(self.waits(again), asks=True)
        self.assertEqual(self.verb("read", seen.digest).flushed_at, 0)

    def test_last_seen_is_the_last_activity(self) -> None:
        seen, (digest, _payload) = self.used(), self.stored()
        unknown = self.new_digest()
        found = self.store.last_seen([seen.digest, digest, unknown])
        self.assertEqual(found[seen.digest], seen.at)
        self.assertEqual(found.keys(), {seen.digest, digest})
        self.assertEqual(self.store.last_seen([]), {})
        self.store.note_flushed(self.waits(seen))
