"""
The choice of a user who has signed in on one device too many: which of the other sessions are to
end. The page and the JSON API offer it. See limits.py, where a session begins to wait for room.
"""

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

from django.contrib.auth.base_user import AbstractBaseUser
from django.utils.translation import ngettext

from django_sessionkit import epochs
from django_sessionkit.accounts import key_of
from django_sessionkit.models import EndReason, UserSession, UserSessionQuerySet
from django_sessionkit.paging import Page, page_of, with_activity


def asked_for(needed: int) -> str:
    """Return what a user is told who has chosen fewer sessions than have to end."""
    text = ngettext("Choose at least one device.", "Choose at least %(count)d devices.", needed)
    return text % {"count": needed}


@dataclass(frozen=True)
class Choice:
    """The choice of the user of a row that waits for room under a limit."""

    row: UserSession
    limit: int

    @property
    def others(self) -> UserSessionQuerySet:
        over = epochs.over([key_of(self.row.user)])
        rows = UserSession.objects.primary().filter(~over, user=self.row.user, counts=True)
        return with_activity(rows.exclude(pk=self.row.pk), self.row.pk)

    def page(self, asked: Mapping[str, str]) -> Page:
        """Return the page that the parameters of a URL ask for. Raises StoreUnavailable."""
        return page_of(self.others, self.row.pk, asked)

    def surplus(self, page: Page) -> int:
        """Return how many sessions are too many."""
        return max(0, page.other_count + 1 - self.limit)

    def needed(self, page: Page) -> int:
        """Return how many sessions have to be chosen at once on this page."""
        # Of several pages, each is sent by itself, and may well be not enough.
        surplus = self.surplus(page)
        return surplus if page.is_whole else min(1, surplus)

    def alive(self, handles: Collection[uuid.UUID]) -> list[uuid.UUID]:
        """Return which of these handles can be chosen. Raises StoreUnavailable."""
        # Not only on this page: what was used since it was shown is on the first page now.
        return [row.pk for row in self.others.filter(pk__in=handles).alive()]

    def end(self, handles: Collection[uuid.UUID] | None) -> None:
        """End the sessions with these handles, or all others. Raises StoreUnavailable."""
        rows = self.others if handles is None else UserSession.objects.filter(pk__in=handles)
        user = cast("AbstractBaseUser", self.row.user)
        rows.revoke(EndReason.LIMIT, by=user, ended_from=self.row.pk)
