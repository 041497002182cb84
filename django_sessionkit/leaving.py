"""
The way back: SESSION_ENGINE is one of Django's engines, or is still. A session that only an engine
of this package has, which SESSIONKIT_ADOPT_FROM names, moves to that engine when it is used.
"""

from contextlib import suppress
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.sessions import middleware
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.http import HttpRequest, HttpResponse

from django_sessionkit import answers
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import get_session_stores
from django_sessionkit.visit.cookies import SESSION_KEY_PATTERN

# How often a session is saved that is not where it was a moment ago.
SAVES = 5


class SessionMiddleware(middleware.SessionMiddleware):
    """Use this in place of Django's, at the same place in MIDDLEWARE."""

    def __init__(self, get_response: Any) -> None:
        super().__init__(get_response)
        self.SessionStore = returning(self.SessionStore)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        return answers.unavailable(request) if isinstance(exception, StoreUnavailable) else None

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        try:
            return super().process_response(request, response)
        except StoreUnavailable:
            return answers.unavailable(request)


def returning(engine: type[SessionBase]) -> type[SessionBase]:
    """Return an engine that takes sessions back."""
    # The salt of Django's signatures is made of the name.
    names = {"__qualname__": engine.__qualname__, "engine": engine}
    return type(engine.__name__, (Returning, engine), names)


class Returning(SessionBase):
    """
    What takes sessions back, before an engine in the order of bases. In a thread where it is async:
    several of Django's engines call the sync methods there.
    """

    engine: type[SessionBase]

    def load(self) -> dict[str, Any]:
        key = self._session_key
        return self._or_from_there(key, super().load())

    async def aload(self) -> dict[str, Any]:
        return await sync_to_async(self.load)()

    def save(self, must_create: bool = False) -> None:
        try:
            super().save(must_create)
        except UpdateError:
            if must_create or not self._is_saved_again():
                raise

    async def asave(self, must_create: bool = False) -> None:
        await sync_to_async(self.save)(must_create)

    def delete(self, session_key: str | None = None) -> None:
        key = session_key or self._session_key
        super().delete(session_key)
        self._delete_there(key)

    async def adelete(self, session_key: str | None = None) -> None:
        await sync_to_async(self.delete)(session_key)

    def _or_from_there(self, key: str | None, data: dict[str, Any]) -> dict[str, Any]:
        """Return the contents of a session, which may have to move back here first."""
        if data or not _is_key(key):
            return data
        missed = 0
        try:
            while not (session := self._found(key)) and self._may_return(key, missed):
                missed += 1
        except StoreUnavailable:
            self._session_key = key  # nobody knows: the cookie is not to be deleted
            raise
        if session is None:
            return data
        self._session_key = session.session_key
        self.modified = self.modified or session.session_key != key
        return session._session  # type: ignore[attr-defined,no-any-return]

    def _found(self, key: str | None) -> SessionBase | None:
        """
        Return a session as the engine has it, or None. It may have to move back, or have come back
        since somebody first looked.
        """
        session = self._take_back(key) or self.engine(key)
        return session if session._get_session() else None  # type: ignore[attr-defined]

    def _is_saved_again(self) -> bool:
        """Save a session that was not there to be saved. It may have moved, and move again."""
        for _ in range(SAVES):
            self._take_back(self._session_key)
            with suppress(UpdateError):
                super().save()
                return True
        return False

    def _take_back(self, key: str | None) -> SessionBase | None:
        for store in get_session_stores():
            ours: Any = store
            if (session := ours(key).return_to(self.engine)) is not None:
                found: SessionBase = session
                return found
        return None

    def _may_return(self, key: str | None, missed: int) -> bool:
        stores: list[Any] = get_session_stores()
        return any(ours(key).may_return(missed) for ours in stores)

    def _delete_there(self, key: str | None) -> None:
        """Sign out there, too: the row says that the session has ended."""
        if _is_key(key):
            for store in get_session_stores():
                ours: Any = store
                ours(key).delete()


def _is_key(key: str | None) -> bool:
    return key is not None and SESSION_KEY_PATTERN.fullmatch(key) is not None
