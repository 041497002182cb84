"""
A session moves back to another engine, one of Django's: see leaving.py. It is marked here first, as
one that moves between engines of this package (exchanging.py): nobody uses it in two places.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from django.contrib.sessions.backends.base import CreateError, SessionBase
from django.db import connections

from django_sessionkit import registry
from django_sessionkit.backends.exchanging import after_commit, is_moving, new_mark, rows
from django_sessionkit.backends.loading import Loading
from django_sessionkit.backends.sealing import version_of
from django_sessionkit.clock import as_milliseconds
from django_sessionkit.exceptions import StoreUnavailable


class Returning(Loading):
    def return_to(self, engine: Callable[[str], SessionBase]) -> SessionBase | None:
        """
        Move this session to another engine, and return it as that engine has it. Return None if it
        is not here, has ended, is locked, or was written meanwhile. Its row stays, for the session
        may come back. It says no more when the session goes idle, but when it expires there.

        Raises StoreUnavailable.
        """
        data = self.load()
        record, key, mark = self._record, self._key, new_mark()
        if record is None or key is None:
            return None
        handle = record.facts.handle
        if handle and not self.call(registry.is_open, handle):
            return None
        replace = partial(self.call, self.replace, key.digest)
        if not replace(mark + record.payload, None, version_of(record.payload)):
            return None  # somebody else has just written or moved it: look again
        there = engine(str(key))
        there._session_cache = data  # type: ignore[attr-defined]
        try:
            there.save(must_create=True)
        except Exception as error:
            replace(record.payload, None, mark)
            if isinstance(error, CreateError):
                return engine(str(key))  # it is on its way here, in the transaction of a view
            raise
        if connections[rows().db].in_atomic_block:
            after_commit(self._leave_for, key.digest, mark)
        elif not self.call(self.take, key.digest, mark):
            # It was ended here, or this took so long that others have gone on, here and there.
            stored = self.call(self.read, key.digest)
            if stored and is_moving(stored.payload):
                return None
            newer = engine(str(key)).load() if stored else {}
            was, became = (record.facts, data), (record.facts, newer)
            if newer in ({}, data) or self.call(self._catch_up, key, was, became):
                there.delete()
            return None
        self._keep_row(handle, there)
        return there

    def _keep_row(self, handle: str | None, there: SessionBase) -> None:
        if handle:
            until = as_milliseconds(there.get_expiry_date())
            self.call(after_commit, registry.keep_open, handle, until)

    def _leave_for(self, digest: str, mark: bytes) -> None:
        with suppress(StoreUnavailable):  # which is in the log; whoever finds the mark goes on
            self.call(self.take, digest, mark)

    def may_return(self, missed: int) -> bool:
        """
        Tell whether to look again for a session that was neither here nor there so many times: it
        may be on its way. Raises StoreUnavailable.
        """
        key = self._key
        return key is not None and self.call(self._is_elsewhere, key.digest, missed)
