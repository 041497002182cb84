"""
The contract of an engine, as tests that an engine of your own can inherit. docs/engines.md says
how. The engines of this package pass the same tests.

The classes in this folder are mixins for Django's test cases. They know nothing but the verbs in
storage.py and Django's contract of sessions, and remove what they have stored. They move no clock,
because a store has one of its own.
"""

import os
import secrets
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from asgiref.sync import async_to_sync, sync_to_async
from django.test import override_settings

from django_sessionkit import clock
from django_sessionkit.backends.base import SessionStore

if TYPE_CHECKING:
    from unittest import TestCase as Mixin
else:
    Mixin = object

SECOND, HOUR = 1000, 60 * 60 * 1000  # in milliseconds
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

    def stored(self, expires_in: int = HOUR) -> tuple[str, bytes]:
        """Store a session, and return its digest and its payload."""
        digest, payload, now = self.new_digest(), new_payload(), clock.now()
        self.assertIs(self.verb("insert", digest, payload, now, now + expires_in), True)
        return digest, payload


def new_payload(size: int = 100) -> bytes:
    """Return a payload that is as random as those of sessions are."""
    return os.urandom(size)
