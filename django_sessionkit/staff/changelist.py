"""
The list of sessions in the admin: what its URL asks for, and what is on the page. The words of the
URL are those of Selection, and ``q``, which staff have typed.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast

from django.contrib.admin.options import IS_FACETS_VAR, IS_POPUP_VAR, TO_FIELD_VAR
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.utils import display_for_value, quote
from django.contrib.admin.views.main import (
    ALL_VAR,
    ERROR_FLAG,
    ORDER_VAR,
    PAGE_VAR,
    SEARCH_VAR,
    ChangeList,
)
from django.core.exceptions import ValidationError
from django.db import connections
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.http import urlencode
from django.utils.translation import gettext, ngettext

from django_sessionkit.models import (
    DeviceType,
    EndReason,
    Transport,
    UserSession,
    UserSessionQuerySet,
)
from django_sessionkit.paging import SIDES
from django_sessionkit.reach import estimate
from django_sessionkit.selection import PARSERS, Selection, search
from django_sessionkit.staff import sentences
from django_sessionkit.staff.permissions import (
    may_end_sessions,
    may_view_users,
    network_for,
)
from django_sessionkit.staff.seeking import SIZE, Page, is_by_end, page_of
from django_sessionkit.staff.sights import look_at, sight_of

# Users whose names the page says, where it lists the sessions of some.
NAMES = 3
# The parameters of a URL that say nothing about which sessions it asks for.
OTHERS = {
    *SIDES,
    ALL_VAR,
    ERROR_FLAG,
    IS_FACETS_VAR,
    IS_POPUP_VAR,
    ORDER_VAR,
    PAGE_VAR,
    SEARCH_VAR,
    TO_FIELD_VAR,
}
# What asks for sessions that have ended, or may have: then, "active" is not what is meant.
MAY_HAVE_ENDED = "reason", "ended_after", "ended_before", "handle"
ALL = "all"


def asked_of(request: HttpRequest) -> dict[str, str]:
    """Return the parameters of the URL, without those that a form has left empty."""
    return {name: text for name, text in request.GET.dict().items() if text}


def selection_of(request: HttpRequest) -> Selection:
    """
    Return which sessions the URL of the list asks for. Without "state", these are the active ones:
    with "state=all", also those that have ended.

    Raises ValidationError, with a message for people, for what makes no sense.
    """
    asked = asked_of(request)
    words = {name: text for name, text in asked.items() if name not in OTHERS}
    text = asked.get(SEARCH_VAR, "")
    for name in words:
        if name not in PARSERS:
            raise ValidationError(gettext("There is no filter “%s”.") % name)
    state = words.pop("state", "")
    selection = _with(Selection.parse(words), search(text, may_view_users(request)))
    if not state and not any(getattr(selection, name) for name in MAY_HAVE_ENDED):
        state = "active"
    if state and state != ALL:
        selection = replace(selection, state=Selection.parse({"state": state}).state)
    if selection.network:
        selection = replace(selection, network=network_for(request, selection.network))
    selection.rows()  # raises ValidationError for a network that this database cannot find
    return selection


def _with(selection: Selection, words: dict[str, str]) -> Selection:
    """Return the sessions of the selection that also have what these words say."""
    found = Selection.parse(words)
    changes = {name: getattr(found, name) for name in words}
    for name, value in changes.items():
        before = getattr(selection, name)
        if name == "users" and before is not None:
            changes[name] = tuple(key for key in before if key in value)
        elif before not in (None, value):
            raise ValidationError(gettext("Search for one address and one session at a time."))
    return replace(selection, **changes)


@dataclass(frozen=True, kw_only=True)
class Menu:
    """A filter with some choices."""

    name: str  # of the parameter
    label: str
    choices: list[tuple[str, str]]  # value and text
    value: str = ""

    @property
    def options(self) -> list[tuple[str, str, bool]]:
        """The value and the text of each choice, and whether it is the one that was made."""
        return [(value, text, value == self.value) for value, text in self.choices]


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A filter that a link has brought along, and that staff can take away."""

    name: str
    value: str
    label: str
    text: str
    without: str  # the query string of the list without it


class SessionList(ChangeList):
    """The page of the admin with sessions."""

    problem = ""
    selection = Selection()
    page = Page(sessions=[])

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        self.request = request
        self.asked = asked_of(request)
        try:
            self.selection = selection_of(request)
        except ValidationError as error:
            self.problem = " ".join(error.messages)
        super().__init__(request, *args, **kwargs)
        self.title = gettext("Sessions")

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> Any:
        """Return all sessions that the URL asks for: an action ends those of them that are
        ticked."""
        self.filter_specs: list[Any] = []
        self.has_filters = self.has_active_filters = False
        self.clear_all_filters_qs = "?"
        asked = {name: text for name, text in self.asked.items() if name != ERROR_FLAG}
        self.preserved_filters = urlencode(
            {"_changelist_filters": urlencode(asked)} if asked else {}
        )
        return self.rows.none() if self.problem else self.selection.of(self.rows).order_by("-pk")

    @property
    def rows(self) -> UserSessionQuerySet:
        return cast("UserSessionQuerySet", self.root_queryset)

    def get_results(self, request: HttpRequest) -> None:
        if not self.problem:
            rows = self.rows.select_related("user", "ended_by")
            self.page = page_of(rows, self.selection, self.asked)
        self.result_list = self.page.sessions
        self.is_store_silent = not look_at(request, self.page.sessions)
        for session in self.page.sessions:
            if may_end_sessions(request) and session.ended_at is None:
                sight_of(session).end_url = self._delete_url(session)
        # Nothing is counted, so Django's ways to all sessions at once would lie.
        self.result_count = self.full_result_count = len(self.page.sessions)
        self.show_full_result_count = self.can_show_all = self.multi_page = False
        self.show_admin_actions = bool(self.page.sessions)
        self.paginator = self.model_admin.get_paginator(
            request, cast("Any", self.page.sessions), SIZE
        )

    def _delete_url(self, session: UserSession) -> str:
        name = "admin:django_sessionkit_usersession_delete"
        site = self.model_admin.admin_site.name
        url = reverse(name, args=[quote(session.pk)], current_app=site)
        context = {"preserved_filters": self.preserved_filters, "opts": self.opts}
        return str(add_preserved_filters(cast("Any", context), url))

    # Links to other pages.

    def link(self, **changes: str | None) -> str:
        """Return the query string of the first page of this list, with some changes."""
        kept = {n: text for n, text in self.asked.items() if n in PARSERS or n == SEARCH_VAR}
        changed = {name: text for name, text in (kept | changes).items() if text}
        return f"?{urlencode(changed)}"

    @property
    def first_url(self) -> str:
        return "" if self.page.is_first else self.link()

    @property
    def newer_url(self) -> str:
        return self.link(before=self.page.newer) if self.page.newer else ""

    @property
    def older_url(self) -> str:
        return self.link(after=self.page.older) if self.page.older else ""

    @property
    def further_url(self) -> str:
        return self.link(after=self.page.further) if self.page.further else ""

    @property
    def all_url(self) -> str:
        """The list with the sessions that have ended, too; "" if this is that list."""
        return "" if self.problem or self.selection.state != "active" else self.link(state=ALL)

    # What is said beside the list.

    @property
    def is_by_end(self) -> bool:
        return is_by_end(self.selection)

    @property
    def count_text(self) -> str:
        """How many sessions there are, as far as that takes no counting; or ""."""
        count = len(self.page.sessions)
        if self.page.is_whole:
            text = ngettext("%(count)s session", "%(count)s sessions", count)
            return text % {"count": count} if count else ""
        if self.selection == Selection() and (about := self._estimate()):
            return gettext("about %(count)s sessions") % {"count": sentences.counted(about)}
        if self.page.is_first and self.page.older:
            return gettext("more than %(count)s sessions") % {"count": SIZE}
        return ""

    def _estimate(self) -> int:
        """Return how many rows PostgreSQL thinks that the table has, in round figures, or 0."""
        if connections[self.rows.db].vendor != "postgresql":
            return 0
        number = estimate(self.rows.db) or 0  # -1: nothing has looked at the table yet
        return int(float(f"{number:.2g}")) if number > SIZE else 0

    @cached_property
    def search_help(self) -> str:
        names = gettext("a user name")
        if may_view_users(self.request):
            names = gettext("a user name or e-mail address")
        return gettext(
            "Search for %(names)s, an address, a network (192.0.2.0/24), the handle of a session,"
            " the identifier of a browser, or for several: bob 192.0.2.1"
        ) % {"names": names}

    @cached_property
    def menus(self) -> list[Menu]:
        state = self.asked.get("state", "") if self.problem else self.selection.state or ALL
        any_one, any_time = gettext("Any"), gettext("Any time")
        return [
            Menu(
                name="state",
                label=gettext("State"),
                choices=[
                    ("", gettext("Active")),
                    ("ended", gettext("Ended")),
                    (ALL, gettext("All")),
                ],
                value="" if state == "active" else state,
            ),
            self._menu("reason", gettext("Reason of the end"), any_one, EndReason.choices),
            self._menu("ended_after", gettext("Ended"), any_time, self._days()),
            self._menu("device_type", gettext("Device"), any_one, DeviceType.choices),
            self._menu("transport", gettext("Transport"), any_one, Transport.choices),
            self._menu("staff", gettext("Users"), gettext("All"), [("1", gettext("Staff"))]),
            self._menu("new", gettext("Sign-in"), any_one, [("1", gettext("New device or place"))]),
            self._menu("started_after", gettext("Signed in"), any_time, self._days()),
            self._menu("seen_after", gettext("Last active"), any_time, self._days()),
            self._menu("seen_before", gettext("Not used for"), any_time, self._idle_days()),
        ]

    def _menu(self, name: str, label: str, none: str, choices: list[tuple[str, Any]]) -> Menu:
        value = self.asked.get(name, "")
        options = [("", none), *((key, str(text)) for key, text in choices)]
        if value and value not in dict(options):  # a bound that a link has brought along
            options.append((value, self._said(name) or value))
        return Menu(name=name, label=label, choices=options, value=value)

    def _days(self) -> list[tuple[str, str]]:
        return [
            (_day(0), gettext("Today")),
            (_day(7), gettext("Past 7 days")),
            (_day(30), gettext("Past 30 days")),
        ]

    def _idle_days(self) -> list[tuple[str, str]]:
        return [
            (_day(days), ngettext("%(count)s day", "%(count)s days", days) % {"count": days})
            for days in (30, 90)
        ]

    @cached_property
    def chips(self) -> list[Chip]:
        labels = {
            "users": gettext("User"),
            "network": gettext("Address"),
            "handle": gettext("Session"),
            "browser": gettext("Browser"),
            "started_before": gettext("Signed in before"),
            "ended_before": gettext("Ended before"),
        }
        return [
            Chip(
                name=name,
                value=self.asked[name],
                label=label,
                text=self._said(name) or self.asked[name],
                without=self.link(**{name: None}),
            )
            for name, label in labels.items()
            if name in self.asked
        ]

    def _said(self, name: str) -> str:
        """Return what the URL says about this, in words for people; "" if that makes no sense."""
        if self.problem:
            return ""
        value = getattr(self.selection, name)
        if isinstance(value, datetime):
            return str(display_for_value(value, ""))
        if name == "users":
            return sentences.names_by_key(self.request, value, NAMES)
        if name == "network":
            return str(value[0]) if value.num_addresses == 1 else str(value)
        return str(value)


def _day(back: int) -> str:
    """Return the date so many days ago, as a URL has it."""
    now = timezone.now()
    today = timezone.localdate(now) if timezone.is_aware(now) else now.date()
    return (today - timedelta(days=back)).isoformat()
