"""
Other engines, for as long as SESSIONKIT_ADOPT_FROM names them: how their sessions are found,
listed and removed. How a session moves from there is in backends/adopting.py.

An engine is asked through Django's contract for sessions, but for two kinds of which more is known:
engines that keep sessions in a table, as Django's, django-user-sessions and django-qsessions do,
and Django's signed cookies.
"""

import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

from django.conf import settings
from django.contrib.sessions.backends import signed_cookies
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import FieldDoesNotExist
from django.db import models, router
from django.utils import timezone

from django_sessionkit import ranges
from django_sessionkit.clock import as_datetime, as_milliseconds
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.storage import Storage
from django_sessionkit.visit.cookies import SESSION_KEY_PATTERN

logger = logging.getLogger("django_sessionkit")

# A signed cookie: what it holds, a time stamp and a signature, all of them safe in a URL.
SIGNED_COOKIE = re.compile(r"\.?[\w-]{1,4000}:[\w-]{1,20}:[\w-]{1,100}", re.ASCII)
# A part of several sessions has so many bytes at most: what is written together has to fit into a
# packet of MariaDB, of 16 MiB or what the site has set.
LARGEST = 1024 * 1024
EXPIRY = "_session_expiry"
# What django-qsessions keeps in the dictionary as well as in columns begins with this.
OF_QSESSIONS = "_qsessions_"

T = TypeVar("T")


class OldSession(NamedTuple):
    """A session as another engine has it. Moments are milliseconds since the epoch."""

    key: str
    data: dict[str, Any]
    version: Any = None  # by which the engine tells whether the session was written since
    expires_at: int | None = None  # None: the engine does not say
    seen_at: int | None = None  # when the session was certainly in use
    signed_in_by: int | None = None  # when its user had certainly signed in
    address: str | None = None
    user_agent: str = ""


class Engine:
    """An engine of which nothing is known but Django's contract."""

    keeps_key = True  # whether a session that moves from here keeps its key

    def __init__(self, path: str, store: Callable[..., SessionBase]) -> None:
        self.path, self.store = path, store

    def read(self, key: str) -> OldSession | None:
        """
        Return the session with this key, or None if there is none, or nothing in it. An unknown key
        costs one look-up. Raises StoreUnavailable.
        """
        return self._call(self._read, key)

    def exists(self, key: str) -> bool:
        """Tell whether there is a session with this key. Raises StoreUnavailable."""
        return self._call(self._exists, key)

    def remove(self, old: OldSession) -> bool:
        """
        Remove a session. Return False, and leave it, if it was written since it was read. Only a
        table looks and removes in one step. Raises StoreUnavailable.
        """
        return self._call(self._remove, old)

    def remove_all(self, olds: Sequence[OldSession]) -> list[OldSession]:
        """Remove sessions, and return those for which remove() returns False."""
        return self._call(self._remove_all, olds)

    def forget(self, key: str) -> None:
        """Remove a session, whatever is in it. Raises StoreUnavailable."""
        self._call(self._forget, key)

    def _call(self, function: Callable[..., T], *args: Any) -> T:
        try:
            return function(*args)
        except Exception as error:  # whatever its driver raises
            # Without the text, which may have the session key in it.
            logger.error("%s did not answer: %s", self.path, type(error).__name__)
        raise StoreUnavailable(f"{self.path} did not answer.")

    def _exists(self, key: str) -> bool:
        return bool(SESSION_KEY_PATTERN.fullmatch(key) and self.store(key).exists(key))

    def _read(self, key: str) -> OldSession | None:
        if not self._exists(key):
            return None
        store = self.store(key)
        if data := _sound(store.load()):
            text = self._serialized(data)
            return None if text is None else OldSession(key, data, text)
        # load() of most engines takes an error for a session with nothing in it; this raises it.
        self._exists(key)
        if store.session_key not in (None, key):
            store.delete()  # some make a new one in place of one that has expired
        return None

    def _serialized(self, data: dict[str, Any]) -> bytes | None:
        """Return this, or None if SESSION_SERIALIZER cannot say it: caches keep any object."""
        try:
            text: bytes = self.store().serializer().dumps(data)
        except Exception as error:  # whatever the serializer raises
            logger.error("A session cannot move from %s: %s", self.path, error)
            return None
        return text

    def _remove(self, old: OldSession) -> bool:
        newer = self._read(old.key)
        # A serializer that encrypts writes the same contents in another way each time.
        if newer is not None and newer.version != old.version and newer.data != old.data:
            return False
        self._forget(old.key)
        return True

    def _remove_all(self, olds: Sequence[OldSession]) -> list[OldSession]:
        return [old for old in olds if not self._remove(old)]

    def _forget(self, key: str) -> None:
        self.store(key).delete(key)


class SignedCookies(Engine):
    """Django's signed cookies: the session is in the cookie, and the cookie is the browser's."""

    keeps_key = False

    def _exists(self, key: str) -> bool:
        return self._read(key) is not None

    def _read(self, key: str) -> OldSession | None:
        data = _sound(self.store(key).load()) if SIGNED_COOKIE.fullmatch(key) else {}
        return OldSession(key, data) if data else None

    def _forget(self, key: str) -> None:
        pass


class Table(Engine):
    """An engine that keeps sessions in a table, with the columns of Django's at least."""

    def __init__(
        self, path: str, store: Callable[..., SessionBase], model: type[models.Model]
    ) -> None:
        super().__init__(path, store)
        self.model = model

    def parts(self) -> Iterator[list[OldSession | None]]:
        """
        Yield all sessions that have not expired, in small parts; in place of each that cannot be
        read, or whose key no cookie can have here, None. Raises StoreUnavailable.
        """
        last = ""
        while rows := self._call(self._part, last):
            last = rows[-1].session_key
            part: list[OldSession | None] = []
            size = 0
            for row in rows:
                size += len(row.session_data)
                if part and size > LARGEST:
                    yield part
                    part, size = [], len(row.session_data)
                is_key = SESSION_KEY_PATTERN.fullmatch(row.session_key)
                part.append(self._opened(row) if is_key else None)
            yield part

    def count(self) -> int:
        return self._call(self._alive().count)

    def _rows(self) -> "models.QuerySet[Any]":
        return self.model._base_manager.using(router.db_for_write(self.model))

    def _alive(self) -> "models.QuerySet[Any]":
        return self._rows().filter(expire_date__gt=timezone.now())

    def _part(self, after: str) -> list[Any]:
        rows = self._alive().filter(session_key__gt=after)
        return list(rows.order_by("session_key")[: ranges.ROWS])

    def _exists(self, key: str) -> bool:
        return self._alive().filter(session_key=key).exists()

    def _read(self, key: str) -> OldSession | None:
        row = self._alive().filter(session_key=key).first()
        return self._opened(row) if row else None

    def _opened(self, row: Any) -> OldSession | None:
        data = _sound(self.store().decode(row.session_data))
        if not data:  # it cannot be read, or is empty
            return None
        data = {name: data[name] for name in data if not str(name).startswith(OF_QSESSIONS)}
        # django-user-sessions and django-qsessions say when; otherwise it was last saved then.
        seen = getattr(row, "last_activity", None) or getattr(row, "updated_at", None)
        seen_at = as_milliseconds(seen) if seen else _saved_at(row.expire_date, data)
        began = getattr(row, "created_at", None) or seen
        return OldSession(
            row.session_key,
            data,
            row.session_data,
            as_milliseconds(row.expire_date),
            seen_at,
            as_milliseconds(began) if began else seen_at,
            getattr(row, "ip", None),
            getattr(row, "user_agent", None) or "",
        )

    def _remove(self, old: OldSession) -> bool:
        return not self._remove_all([old])

    def _remove_all(self, olds: Sequence[OldSession]) -> list[OldSession]:
        keys = [old.key for old in olds]
        # One statement for all: a row whose text is one of those that were read is as it was read.
        # And delete(), for a site may have rows that belong to these, and receivers.
        unchanged = [old.version for old in olds]
        self._rows().filter(session_key__in=keys, session_data__in=unchanged).delete()
        left = {*self._rows().filter(session_key__in=keys).values_list("session_key", flat=True)}
        for key in keys:
            if key not in left:
                self._forget_in_cache(key)
        return [old for old in olds if old.key in left]

    def _forget(self, key: str) -> None:
        self._rows().filter(session_key=key).delete()
        self._forget_in_cache(key)

    def _forget_in_cache(self, key: str) -> None:
        if hasattr(self.store, "cache_key_prefix"):  # of cached_db
            self.store(key).delete(key)


def _saved_at(expires: datetime, data: dict[str, Any]) -> int | None:
    """
    Return when a session was saved that expires then. Return None for an expiry that is a date, and
    where the age makes no sense: the site may have changed SESSION_COOKIE_AGE since.
    """
    age = data.get(EXPIRY) or settings.SESSION_COOKIE_AGE
    if not isinstance(age, int):
        return None
    try:
        # By the date, not by milliseconds: Django has added the age to a date.
        saved_at = as_milliseconds(expires - timedelta(seconds=age))
    except (ValueError, OverflowError):
        return None
    return saved_at if saved_at > 0 else None


def _sound(data: Any) -> dict[str, Any]:
    """
    Return the contents of a session, with a date of expiry as USE_TZ wants it now, and without an
    expiry that nobody can read. Django does not look at it before the session is written.
    """
    if not isinstance(data, dict):
        return {}
    expiry = given = data.get(EXPIRY)
    try:
        if expiry is None or (isinstance(expiry, (int, float)) and math.isfinite(expiry)):
            return data
        if isinstance(expiry, str):
            expiry = datetime.fromisoformat(expiry)
        if isinstance(expiry, datetime):
            if timezone.is_aware(expiry) == settings.USE_TZ:
                return data
            moment = as_datetime(as_milliseconds(expiry))
            return {**data, EXPIRY: moment.isoformat() if isinstance(given, str) else moment}
    except (ValueError, OverflowError):
        pass
    return {name: value for name, value in data.items() if name != EXPIRY}


# The engines that the settings name.


def engines() -> list[Engine | type[Storage]]:
    """
    Return the engines of SESSIONKIT_ADOPT_FROM. One of this package is its ``SessionStore`` class.
    """
    return [engine_of(path) for path in conf.SESSIONKIT_ADOPT_FROM]


@cache
def engine_of(path: str) -> Engine | type[Storage]:
    """Return the engine with this path, as SESSION_ENGINE names it."""
    module = import_module(path)
    store = module.SessionStore
    if issubclass(store, Storage):
        ours: type[Storage] = store
        return ours
    if issubclass(store, signed_cookies.SessionStore):
        return SignedCookies(path, store)
    model = model_of(module)
    return Engine(path, store) if model is None else Table(path, store, model)


def model_of(module: Any) -> type[models.Model] | None:
    """
    Return the model of an engine that keeps sessions in a table. Raises RuntimeError if its app is
    not installed.
    """
    model: Any
    if get_model_class := getattr(module.SessionStore, "get_model_class", None):
        model = get_model_class()
    else:
        model = getattr(module, "Session", None)  # of django-user-sessions
    try:
        for name in ("session_key", "session_data", "expire_date"):
            model._meta.get_field(name)
    except (AttributeError, FieldDoesNotExist):
        return None
    found: type[models.Model] = model
    return found


def may_be_signed(value: str) -> bool:
    """Tell whether a cookie that is no session key may hold a session that is to move."""
    if not (conf.SESSIONKIT_ADOPT_FROM and SIGNED_COOKIE.fullmatch(value)):
        return False
    return any(isinstance(engine, SignedCookies) for engine in engines())
