"""The verbs of an engine, many at a time."""

import asyncio
import threading
from collections.abc import Awaitable
from typing import Any

from asgiref.sync import async_to_sync
from django.db import connections

from django_sessionkit import clock
from django_sessionkit.backends.sealing import version_of
from django_sessionkit.testing.contract import HOUR, Contract, new_payload

# How many threads or tasks do something at the same time.
CROWD = 8


class RaceContract(Contract):
    """
    The verbs of an engine, many at a time. Whoever comes first, the outcome is one of those that
    are right. For ``django.test.TransactionTestCase``, because threads do not see what a
    ``TestCase`` has not committed.
    """

    def together(self, *calls: tuple[Any, ...]) -> list[Any]:
        """Call verbs at the same moment, and return their answers."""
        if self.asynchronous:
            return async_to_sync(self._gather)([self._coroutine(*call) for call in calls])
        start, answers = threading.Barrier(len(calls)), [None] * len(calls)

        def act(place: int, call: tuple[Any, ...]) -> None:
            try:
                start.wait(30)
                answers[place] = self.verb(*call)
            finally:
                connections.close_all()

        threads = [threading.Thread(target=act, args=each) for each in enumerate(calls)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            self.assertFalse(thread.is_alive(), "The verbs wait for each other.")
        return answers

    async def _gather(self, calls: list[Awaitable[Any]]) -> list[Any]:
        return await asyncio.gather(*calls)

    def test_of_many_that_insert_one_does(self) -> None:
        digest, now = self.new_digest(), clock.now()
        payloads = [new_payload() for _ in range(CROWD)]
        answers = self.together(*[("insert", digest, each, now, now + HOUR) for each in payloads])
        self.assertEqual(sorted(answers), [False] * (CROWD - 1) + [True])
        self.assertEqual(self.verb("read", digest).payload, payloads[answers.index(True)])

    def test_of_many_that_replace_one_version_one_does(self) -> None:
        digest, payload = self.stored()
        payloads, version = [new_payload() for _ in range(CROWD)], version_of(payload)
        answers = self.together(*[("replace", digest, each, None, version) for each in payloads])
        self.assertEqual(sorted(answers), [False] * (CROWD - 1) + [True])
        self.assertEqual(self.verb("read", digest).payload, payloads[answers.index(True)])

    def test_of_many_that_move_one_session_one_does(self) -> None:
        old, payload = self.stored()
        new, now = [self.new_digest() for _ in range(CROWD)], clock.now()
        rest = payload, now, now + HOUR, version_of(payload)
        answers = self.together(*[("move", old, each, *rest) for each in new])
        self.assertEqual(sorted(answers), [False] * (CROWD - 1) + [True])
        self.assertEqual(self.verb("peek", [old, *new]), {new[answers.index(True)]})

    def test_nobody_brings_back_what_is_removed(self) -> None:
        for _ in range(20):
            digest, payload = self.stored()
            new, now, version = self.new_digest(), clock.now(), version_of(payload)
            until = now + HOUR
            self.together(
                ("remove", [digest]),
                ("replace", digest, new_payload(), None, version),
                ("replace", digest, new_payload(), until, version),
                ("touch", digest, now, until),
                ("touch", digest, now, until, version),
            )
            self.assertEqual(self.verb("peek", [digest, new]), set())

    def test_a_touch_takes_back_no_write(self) -> None:
        for _ in range(20):
            digest, payload = self.stored()
            new, now = new_payload(), clock.now()
            _touched, replaced, *_ = self.together(
                ("touch", digest, now, now + HOUR),
                ("replace", digest, new, None, version_of(payload)),
                ("touch", digest, now + 1, now + HOUR),
            )
            self.assertIs(replaced, True)
            self.assertEqual(self.verb("read", digest).payload, new)

    def test_a_session_that_moves_is_in_one_place(self) -> None:
        for _ in range(20):
            old, payload = self.stored()
            new, now, version = self.new_digest(), clock.now(), version_of(payload)
            until = now + HOUR
            moved, *_ = self.together(
                ("move", old, new, new_payload(), now, until, version),
                ("touch", old, now, until),
                ("touch", old, now, until, version),
                ("replace", old, new_payload(), None, version),
            )
            self.assertEqual(self.verb("peek", [old, new]), {new if moved else old})
