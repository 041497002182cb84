"""An engine whose store does not answer."""

from contextlib import AbstractContextManager
from typing import Any

from django_sessionkit import clock
from django_sessionkit.backends.sealing import version_of
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.testing.contract import HOUR, Contract, new_payload


class OutageContract(Contract):
    """
    An engine whose store does not answer. For ``django.test.TestCase``. An engine whose store
    cannot be down needs none of this.
    """

    def outage(self) -> AbstractContextManager[object]:
        """Return a context in which the store does not answer."""
        raise NotImplementedError("Define outage(): see OutageContract.")

    def test_every_verb_says_that_nobody_answers(self) -> None:
        digest, payload, now = self.new_digest(), new_payload(), clock.now()
        version, until = version_of(payload), now + HOUR
        self.verb("insert", digest, payload, now, until)
        calls: list[tuple[Any, ...]] = [
            ("read", digest),
            ("insert", digest, payload, now, until),
            ("replace", digest, payload, None, version),
            ("replace", digest, payload, until, version),
            ("move", digest, self.new_digest(), payload, now, until, version),
            ("touch", digest, now, until),
            ("touch", digest, now, until, version),
            ("remove", [digest]),
            ("peek", [digest]),
        ]
        with self.outage():
            for call in calls:
                with self.subTest(call[0]), self.assertRaises(self.store.unavailable):
                    self.verb(*call)
        self.assertEqual(self.verb("read", digest)[:2], (payload, now))

    def test_status_says_that_nobody_answers(self) -> None:
        with self.outage(), self.assertLogs("django_sessionkit", "ERROR"):
            self.assertIn(None, [status.latency for status in self.store.status()])

    def test_a_session_says_that_the_store_is_down(self) -> None:
        session = self.store()
        session["cart"] = ["teapot"]
        self.call(session, "save")
        self.addCleanup(session.delete)
        later = self.store(session.session_key)
        with self.outage(), self.assertLogs("django_sessionkit", "ERROR"):
            for owner, name in [(later, "load"), (session, "save"), (self.store(), "create")]:
                with self.subTest(name), self.assertRaises(StoreUnavailable):
                    self.call(owner, name)
        self.assertEqual(self.call(later, "load"), {"cart": ["teapot"]})
