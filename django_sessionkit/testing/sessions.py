"""Whole sessions, as Django's views and this package use them."""

import os
import secrets
from datetime import timedelta
from typing import Any

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.backends.base import CreateError, UpdateError

from django_sessionkit import clock
from django_sessionkit.backends.base import SessionStore
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.testing.contract import HOUR, Contract
from django_sessionkit.visit.client import Client
from django_sessionkit.visit.interruptions import Missing


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
