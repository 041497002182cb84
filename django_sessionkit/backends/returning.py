"""A session moves back to another engine, one of Django's: see leaving.py."""

from collections.abc import Callable

from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError

from django_sessionkit import registry
from django_sessionkit.backends.loading import Loading
from django_sessionkit.backends.sealing import version_of


class Returning(Loading):
    def return_to(self, engine: Callable[[str], SessionBase]) -> SessionBase | None:
        """
        Move this session to another engine, and return it as that engine has it. Return None if it
        is not here, has ended, or is locked. Its row stays as it is, for the session may come back.

        Raises StoreUnavailable.
        """
        data = self.load()
        record, key = self._record, self._key
        if record is None or key is None:
            return None
        handle = record.facts.handle
        if handle and not self.call(registry.is_open, handle):
            return None
        there = engine(str(key))
        there._session_cache = data  # type: ignore[attr-defined]
        try:
            there.save(must_create=True)
        except CreateError:
            return engine(str(key))  # another request has just moved it
        # What was written here meanwhile comes along.
        while not self.call(self.take, key.digest, version_of(record.payload)):
            newer = type(self)(key)
            there._session_cache = newer.load()  # type: ignore[attr-defined]
            if newer._record is None or newer._key != key:
                break
            record = newer._record
            try:
                there.save()
            except UpdateError:
                break  # it was signed out there
        return there
