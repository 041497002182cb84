"""
The contract of an engine, as tests that an engine of your own can inherit. docs/engines.md says
how. The engines of this package pass the same tests.

These classes are mixins for Django's test cases. They know nothing but the verbs in storage.py and
Django's contract of sessions, and remove what they have stored. They move no clock, because a store
has one of its own.
"""

import asyncio
import os
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.db import connections
from django.test import override_settings

from django_sessionkit import clock
from django_sessionkit.backends.base import SessionStore
from django_sessionkit.backends.sealing import digest_of, version_of
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.ranges import ROWS
from django_sessionkit.storage import Stored
from django_sessionkit.visit.client import Client
from django_sessionkit.visit.interruptions import Missing

if TYPE_CHECKING:
    from unittest import TestCase as Mixin
else:
    Mixin = object

SECOND, HOUR = 1000, 60 * 60 * 1000  # in milliseconds
# How soon a session expires: the next where that was too soon for a busy machine.
SHORT = (SECOND // 5, SECOND, 5 * SECOND)
# How many threads or tasks do something at the same time.
CROWD = 8
# The settings with which the contract is tested, whatever a project has set.
SETTINGS: dict[str, Any] = {
    "SESSIONKIT_POLICY": "django_sessionkit.policy.default",
    "SESSIONKIT_TOUCH_INTERVAL": 60,
    "SESSION_COOKIE_AGE": 14 * 24 * 60 * 60,
    "SESSION_SERIALIZER": "django.contrib.sessions.serializers.JSONSerializer",
}


class Contract(Mixin):
    """What the contracts have in common. Inherit from one of them."""

    #: The path of the engine, as in SESSION_ENGINE.
    engine: ClassVar[str]
    #: Whether the async methods are tested. Inherit once more for that.
    asynchronous: ClassVar[bool] = False

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(override_settings(SESSION_ENGINE=self.engine, **SETTINGS))
        self.store: type[SessionStore] = import_module(self.engine).SessionStore

    def verb(self, name: str, *args: Any) -> Any:
        """Call a verb of the engine, as sessions do."""
        if self.asynchronous:
            return async_to_sync(self._coroutine)(name, *args)
        return getattr(self.store, name)(*args)

    async def _coroutine(self, name: str, *args: Any) -> Any:
        if self.store.native_async:
            return await getattr(self.store, f"a{name}")(*args)
        return await sync_to_async(getattr(self.store, name))(*args)

    def call(self, owner: object, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method, of a session for example, or its async twin."""
        if self.asynchronous:
            return async_to_sync(getattr(owner, f"a{name}"))(*args, **kwargs)
        return getattr(owner, name)(*args, **kwargs)

    def new_digest(self) -> str:
        """Return a digest under which nothing is stored. What is, is removed after the test."""
        digest = secrets.token_hex(32)
        self.addCleanup(self.store.remove, [digest])
        return digest


def new_payload(size: int = 100) -> bytes:
    """Return a payload that is as random as those of sessions are."""
    return os.urandom(size)


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

    def stored(self, expires_in: int = HOUR) -> tuple[str, bytes]:
        """Store a session, and return its digest and its payload."""
        digest, payload, now = self.new_digest(), new_payload(), clock.now()
        self.assertIs(self.verb("insert", digest, payload, now, now + expires_in), True)
        return digest, payload

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
        self.assertEqual(found, Stored(payload, now - 5))

    def test_a_payload_is_any_bytes(self) -> None:
        now = clock.now()
        for payload in (bytes(range(256)), bytes(12), b"\r\n" * 10, new_payload(64 * 1024)):
            digest = self.new_digest()
            self.assertIs(self.verb("insert", digest, payload, now, now + HOUR), True)
            self.assertEqual(self.verb("read", digest), Stored(payload, now))

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
            self.assertEqual(self.verb("read", digest), Stored(new, touched_at))

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
        self.assertEqual(self.verb("read", new), Stored(moved, now))
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
            self.assertEqual(self.verb("read", digest), Stored(payload, at))

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
        self.assertEqual(self.verb("read", digest), Stored(payload, now))

    def test_errors_are_declared(self) -> None:
        """Sessions are in a database, too: that of the registry may be down."""
        self.assertLessEqual(set(SessionStore.unavailable), set(self.store.unavailable))


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

    def stored(self) -> tuple[str, bytes]:
        digest, payload, now = self.new_digest(), new_payload(), clock.now()
        self.assertIs(self.verb("insert", digest, payload, now, now + HOUR), True)
        return digest, payload

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
        self.assertEqual(self.verb("read", digest), Stored(payload, now))

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


class SessionContract(Contract):
    """
    Whole sessions, as Django's views and this package use them. For ``django.test.TestCase``.
    """

    def setUp(self) -> None:
        super().setUp()
        self.session = self.new_session(cart=["teapot"], language="en")

    def create_user(self) -> AbstractBaseUser:
        """Return a new user of the project. Override this if your users need more than a name."""
        users = get_user_model()
        manager: Any = users._default_manager
        user: AbstractBaseUser = manager.create_user(
            **{users.USERNAME_FIELD: f"{secrets.token_hex(4)}@example.org"}
        )
        return user

    def new_session(self, **contents: Any) -> SessionStore:
        """Return a session that is stored. It is removed after the test."""
        session = self.store()
        session.update(contents)
        self.call(session, "save")
        self.addCleanup(session.delete)
        return session

    def sign_in(self) -> SessionStore:
        user = self.create_user()
        contents = {
            SESSION_KEY: user._meta.pk.value_to_string(user),
            BACKEND_SESSION_KEY: "django.contrib.auth.backends.ModelBackend",
            HASH_SESSION_KEY: user.get_session_auth_hash(),
        }
        return self.new_session(**contents, cart=["teapot"])

    def again(self, session: SessionStore) -> SessionStore:
        """Return the same session, as another request would load it."""
        return self.store(session.session_key)

    def visit(self, session_key: str | None) -> SessionStore:
        """Return a session, as the middleware puts it on a request."""
        session = self.store(session_key)
        session.client = Client("192.0.2.1", "Firefox")
        return session

    def payload_of(self, session: SessionStore) -> bytes | None:
        stored = self.store.read(digest_of(session.session_key or ""))
        return stored and stored.payload

    def load(self, session: SessionStore) -> Any:
        """Return what another request finds in a session."""
        return self.call(self.again(session), "load")

    # One request after another.

    def test_what_is_saved_is_loaded(self) -> None:
        self.assertEqual(self.load(self.session), {"cart": ["teapot"], "language": "en"})
        self.session["cart"].append("kettle")
        self.call(self.session, "save")
        self.assertEqual(self.load(self.session)["cart"], ["teapot", "kettle"])
        self.assertTrue(self.call(self.store(), "exists", self.session.session_key))

    def test_a_key_that_was_never_issued_is_not_adopted(self) -> None:
        stranger = self.store(secrets.token_hex(16))
        asked = stranger.session_key
        self.assertIsNone(self.call(stranger, "get", "cart"))
        stranger["cart"] = ["kettle"]
        self.call(stranger, "save")
        self.addCleanup(stranger.delete)
        self.assertNotEqual(stranger.session_key, asked)
        self.assertFalse(self.call(self.store(), "exists", asked))

    def test_creating_under_a_key_that_is_taken_is_an_error(self) -> None:
        mine = self.again(self.session)
        mine["cart"] = ["kettle"]
        with self.assertRaises(CreateError):
            self.call(mine, "save", must_create=True)
        self.assertEqual(self.load(self.session)["cart"], ["teapot"])

    def test_a_key_that_is_free_can_be_asked_for(self) -> None:
        session = self.store(secrets.token_hex(16))
        self.call(session, "save", must_create=True)
        self.addCleanup(session.delete)
        self.assertTrue(self.call(self.store(), "exists", session.session_key))

    def test_a_new_key_kills_the_old_one(self) -> None:
        old = self.session.session_key
        self.call(self.session, "cycle_key")
        self.assertNotEqual(self.session.session_key, old)
        self.assertTrue(self.session.modified)
        self.assertFalse(self.call(self.store(), "exists", old))
        self.assertEqual(self.call(self.store(old), "load"), {})
        self.assertEqual(self.load(self.session), {"cart": ["teapot"], "language": "en"})

    def test_a_large_session_is_whole(self) -> None:
        self.session["blob"] = os.urandom(32 * 1024).hex()
        self.call(self.session, "save")
        self.assertEqual(self.load(self.session)["blob"], self.session["blob"])

    # Two requests at the same time.

    def test_changes_of_two_requests_to_different_keys_are_both_kept(self) -> None:
        mine, theirs = self.again(self.session), self.again(self.session)
        self.call(mine, "get", "cart")
        theirs["theme"] = "dark"
        self.call(theirs, "save")
        mine["cart"].append("kettle")  # deep inside
        self.call(mine, "save")
        self.assertEqual(mine["theme"], "dark")
        both = {"cart": ["teapot", "kettle"], "language": "en", "theme": "dark"}
        self.assertEqual(self.load(self.session), both)

    def test_of_two_changes_to_the_same_key_the_last_one_wins(self) -> None:
        mine, theirs = self.again(self.session), self.again(self.session)
        self.call(mine, "get", "cart")
        theirs["language"] = "de"
        self.call(theirs, "save")
        mine["language"] = "fr"
        self.call(mine, "save")
        self.assertEqual(self.load(self.session)["language"], "fr")

    def test_what_a_request_removes_stays_removed(self) -> None:
        mine, theirs = self.again(self.session), self.again(self.session)
        self.call(mine, "get", "cart")
        theirs["theme"] = "dark"
        self.call(theirs, "save")
        del mine["cart"]
        self.call(mine, "save")
        self.assertEqual(self.load(self.session), {"language": "en", "theme": "dark"})

    def test_what_another_request_removed_stays_removed(self) -> None:
        mine, theirs = self.again(self.session), self.again(self.session)
        self.call(mine, "get", "cart")
        del theirs["cart"]
        self.call(theirs, "save")
        mine["theme"] = "dark"
        self.call(mine, "save")
        self.assertEqual(self.load(self.session), {"language": "en", "theme": "dark"})

    def test_a_second_save_is_merged_against_the_first(self) -> None:
        mine, theirs = self.again(self.session), self.again(self.session)
        mine["cart"] = ["mine"]
        self.call(mine, "save")
        theirs["cart"] = ["theirs"]
        self.call(theirs, "save")
        mine["theme"] = "dark"
        self.call(mine, "save")
        self.assertEqual(self.load(self.session)["cart"], ["theirs"])

    def test_clear_means_what_it_says(self) -> None:
        mine, theirs = self.again(self.session), self.again(self.session)
        self.call(mine, "get", "cart")
        theirs["theme"] = "dark"
        self.call(theirs, "save")
        mine.clear()
        mine["fresh"] = True
        self.call(mine, "save")
        self.assertEqual(self.load(self.session), {"fresh": True})

    def test_a_new_key_loses_no_change_of_another_request(self) -> None:
        mine, theirs = self.again(self.session), self.again(self.session)
        self.call(mine, "get", "cart")
        theirs["theme"] = "dark"
        self.call(theirs, "save")
        self.call(mine, "cycle_key")
        self.addCleanup(mine.delete)
        self.assertEqual(self.load(mine)["theme"], "dark")

    # What is gone stays gone.

    def test_a_save_after_the_end_does_not_bring_it_back(self) -> None:
        for is_loaded in (True, False):
            session = self.new_session(cart=["teapot"])
            mine = self.again(session)
            if is_loaded:
                mine["cart"] = ["kettle"]
            self.call(self.again(session), "delete")
            with self.assertRaises(UpdateError):
                self.call(mine, "save")
            self.assertIsInstance(mine.interruption, Missing)
            self.assertIsNone(self.payload_of(session))

    def test_a_visitor_whose_session_is_gone_gets_a_new_one_with_a_new_key(self) -> None:
        mine = self.again(self.session)
        self.call(mine, "get", "cart")
        self.call(self.again(self.session), "delete")
        self.call(mine, "cycle_key")
        self.addCleanup(mine.delete)
        self.assertNotEqual(mine.session_key, self.session.session_key)
        self.assertEqual(self.load(mine)["cart"], ["teapot"])

    def test_flush_leaves_nothing(self) -> None:
        mine = self.again(self.session)
        self.call(mine, "flush")
        self.assertIsNone(mine.session_key)
        self.assertTrue(mine.is_empty())
        self.assertIsNone(self.payload_of(self.session))

    def test_a_session_whose_time_is_over_is_not_there(self) -> None:
        mine = self.again(self.session)
        self.call(mine, "set_expiry", -1)
        self.call(mine, "save")
        self.assertEqual(self.load(self.session), {})
        self.assertFalse(self.call(self.store(), "exists", self.session.session_key))
        self.session["cart"] = ["kettle"]
        with self.assertRaises(UpdateError):
            self.call(self.session, "save")

    # Sessions with a user.

    def test_a_sign_in_is_a_row_whose_session_is_alive(self) -> None:
        session = self.sign_in()
        (row,) = UserSession.objects.alive()
        self.assertEqual(row.pk, session.handle)
        self.assertEqual(row.digest, digest_of(session.session_key or ""))
        self.store.remove([row.digest])
        self.assertEqual(UserSession.objects.alive(), [])

    def test_the_row_follows_to_a_new_key(self) -> None:
        session = self.sign_in()
        self.call(session, "cycle_key")
        (row,) = UserSession.objects.alive()
        self.assertEqual(row.pk, session.handle)
        self.assertEqual(row.digest, digest_of(session.session_key or ""))

    def test_revoke_ends_a_session_at_once(self) -> None:
        session = self.sign_in()
        slow = self.visit(session.session_key)
        slow["cart"] = ["kettle"]
        self.assertEqual(self.call(UserSession.objects.all(), "revoke"), 1)
        self.assertEqual(self.load(session), {})
        with self.assertRaises(UpdateError):
            self.call(slow, "save")
        self.assertIsNone(self.payload_of(session))

    def test_a_session_that_the_store_brings_back_is_refused(self) -> None:
        session = self.sign_in()
        digest, payload = digest_of(session.session_key or ""), self.payload_of(session)
        UserSession.objects.revoke()
        now = clock.now()
        # As a failover, a restored backup or a lost removal would.
        self.assertIs(self.store.insert(digest, payload or b"", now - HOUR, now + HOUR), True)
        self.assertEqual(self.call(self.visit(session.session_key), "load"), {})
        self.assertIsNone(self.payload_of(session))

    def test_a_request_that_reads_keeps_its_session_alive(self) -> None:
        for session in (self.session, self.sign_in()):
            digest, payload = digest_of(session.session_key or ""), self.payload_of(session)
            earlier = clock.now() - HOUR
            self.assertIs(self.store.touch(digest, earlier, clock.now() + HOUR), True)
            visit = self.visit(session.session_key)
            self.assertEqual(self.call(visit, "get", "cart"), ["teapot"])
            visit.finish(answered=True)
            self.assertTrue(visit.slid)
            stored = self.store.read(digest)
            self.assertEqual(stored and stored.payload, payload)
            self.assertGreater(stored.touched_at if stored else 0, earlier)

    def test_a_session_that_is_read_without_a_request_is_not_touched(self) -> None:
        digest, earlier = digest_of(self.session.session_key or ""), clock.now() - HOUR
        self.assertIs(self.store.touch(digest, earlier, clock.now() + HOUR), True)
        self.assertEqual(self.load(self.session)["cart"], ["teapot"])
        stored = self.store.read(digest)
        self.assertEqual(stored and stored.touched_at, earlier)

    def test_a_key_that_changes_by_itself_leads_on_from_the_old_one(self) -> None:
        session = self.sign_in()
        old, earlier = session.session_key, clock.now() - HOUR
        digest = digest_of(old or "")
        self.assertIs(self.store.touch(digest, earlier, clock.now() + HOUR), True)
        UserSession.objects.update(renew=True)  # as when the user's permissions change
        visit = self.visit(old)
        self.assertEqual(self.call(visit, "get", "cart"), ["teapot"])
        visit.finish(answered=True)
        self.addCleanup(visit.delete)
        self.assertTrue(visit.has_new_key)
        self.assertNotEqual(visit.session_key, old)
        for key in (old, visit.session_key):
            self.assertEqual(self.call(self.visit(key), "get", "cart"), ["teapot"])
        UserSession.objects.revoke()
        for key in (old, visit.session_key):
            self.assertIsNone(self.call(self.visit(key), "get", "cart"))

    def test_the_purge_ends_the_rows_of_sessions_that_are_gone(self) -> None:
        gone, here = self.sign_in(), self.sign_in()
        self.store.remove([digest_of(gone.session_key or "")])
        quiet = timedelta(hours=1)
        for row in UserSession.objects.all():
            row.last_seen_at -= quiet
            row.save()
        self.store.clear_expired()
        reasons = dict(UserSession.objects.values_list("pk", "end_reason"))
        self.assertEqual(reasons, {gone.handle: EndReason.LOST, here.handle: ""})
