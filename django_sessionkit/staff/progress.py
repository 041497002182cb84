"""
What has become of sessions that end together. The page of an ending may be left and come back to;
where no worker does the work, or none in time, whoever looks at it moves it on.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.contrib.admin import AdminSite, ModelAdmin
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import localize
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_sessionkit import endings
from django_sessionkit.models import DeviceType, Ending, EndReason, Transport
from django_sessionkit.own_sessions import handle_of
from django_sessionkit.selection import PARSERS, Selection
from django_sessionkit.staff import sentences
from django_sessionkit.staff.permissions import may_end_sessions, network_for
from django_sessionkit.staff.rank import may_throw_switch, person_of
from django_sessionkit.staff.rendering import render

# Seconds for which a view of the page of an ending works, and after which the page comes anew.
SLICE = 2
REFRESH = 3
# A form that is sent again after this time is meant: new sessions may have begun since.
AGAIN = timedelta(minutes=1)
# So many endings are listed.
RECENT = 50

ENDING = "admin:django_sessionkit_usersession_ending"

# What a filter is called.
LABELS = {
    "users": _("User"),
    "network": _("Address or network"),
    "handle": _("Handle"),
    "browser": _("Browser"),
    "state": _("State"),
    "reason": _("Reason"),
    "device_type": _("Device type"),
    "transport": _("Transport"),
    "staff": _("Staff"),
    "new": _("New device or unusual place"),
    "started_after": _("Signed in since"),
    "started_before": _("Signed in before"),
    "seen_after": _("Last active since"),
    "seen_before": _("Last active before"),
    "ended_after": _("Ended since"),
    "ended_before": _("Ended before"),
}
CHOICES: dict[str, Any] = {
    "reason": EndReason,
    "device_type": DeviceType,
    "transport": Transport,
}


def ending_view(admin: "ModelAdmin[Any]", request: HttpRequest, number: int) -> HttpResponse:
    """Show how far an ending is, and work on it for SLICE seconds if no worker does."""
    _check_permission(request)
    ending = endings.all_endings().filter(pk=number).select_related("by").first()
    if ending is None:
        raise Http404
    is_open = ending.finished_at is None and not endings.is_left_to_worker(ending)
    if is_open and request.method == "GET":
        endings.work(ending, SLICE)
    percent = _percent(ending)
    return render(
        admin.admin_site,
        request,
        "ending",
        _title(ending, percent),
        ending=ending,
        percent=percent,
        ended=sentences.counted(ending.ended),
        looked_at=_looked_at(ending),
        left_out=list(_left_out(ending)),
        what=list(_described(request, ending)),
        is_switch=ending.scope != Ending.Scope.FILTER,
        still="still" in request.GET,
        refresh=REFRESH,
    )


def endings_view(admin: "ModelAdmin[Any]", request: HttpRequest) -> HttpResponse:
    """List the endings of late."""
    _check_permission(request)
    recent = list(endings.all_endings().select_related("by")[:RECENT])
    lines = [
        {"ending": each, "ended": sentences.counted(each.ended), "percent": _percent(each)}
        for each in recent
    ]
    return render(admin.admin_site, request, "endings", gettext("Recent endings"), endings=lines)


def _check_permission(request: HttpRequest) -> None:
    if not (may_end_sessions(request) or may_throw_switch(request)):
        raise PermissionDenied


# An ending is begun once, also if its form is sent twice: by a double click, or by a page that is
# loaded again.


def moment_of_question(request: HttpRequest) -> str:
    """Return when the page with the question was made, for a hidden field of its form."""
    return request.POST.get("asked") or timezone.now().isoformat()


def begun(
    request: HttpRequest, scope: str, note: str, what: dict[str, Any], **columns: Any
) -> Ending | None:
    """
    Return the ending that this form has begun before, or None. ``what`` has columns of JSON, and
    ``columns`` others, with the values that the form asks for: it may have been changed since.
    """
    with suppress(ValidationError):
        asked = PARSERS["started_after"](moment_of_question(request))
        same = endings.all_endings().filter(
            scope=scope,
            note=note,
            by=person_of(request).pk,
            ended_from=handle_of(request),
            created_at__gte=max(asked, timezone.now() - AGAIN),
            **columns,
        )
        for ending in same:
            if all(json.loads(getattr(ending, name) or "null") == what[name] for name in what):
                return ending
    return None


def to_ending(site: AdminSite, ending: Ending) -> HttpResponseRedirect:
    return HttpResponseRedirect(reverse(ENDING, args=[ending.pk], current_app=site.name))


# The words.


def _percent(ending: Ending) -> int | None:
    """Return how far it is, or None if nobody has counted yet. What is not finished is not 100."""
    if ending.finished_at:
        return 100
    if not ending.total:
        return None
    return min(99, 100 * ending.looked_at // ending.total)


def _title(ending: Ending, percent: int | None) -> str:
    """Return the title, which a screen reader reads first each time that the page comes anew."""
    if ending.finished_at:
        return gettext("Finished: %(sessions)s ended") % {
            "sessions": sentences.sessions(ending.ended)
        }
    if percent is None:
        return gettext("Ending sessions")
    return gettext("Ending sessions: %(percent)d %%") % {"percent": percent}


def _looked_at(ending: Ending) -> str:
    looked_at = sentences.counted(ending.looked_at)
    if ending.total is None:
        return looked_at
    total = sentences.counted(ending.total)
    return gettext("%(number)s of about %(total)s") % {"number": looked_at, "total": total}


def _left_out(ending: Ending) -> Iterator[str]:
    if ending.spares_own:
        yield gettext("the session of who has begun this")
    if ending.spares_superusers:
        yield gettext("superusers")


def _described(request: HttpRequest, ending: Ending) -> Iterator[tuple[str, str]]:
    """Yield what an ending ends, as labels and values."""
    if ending.scope == Ending.Scope.FILTER:
        yield from in_words(request, Selection.parse(json.loads(ending.filters)))
    if ending.scope == Ending.Scope.USER:
        yield str(LABELS["users"]), sentences.names_by_key(request, json.loads(ending.users))


def in_words(request: HttpRequest, selection: Selection) -> Iterator[tuple[str, str]]:
    """Yield what a selection asks for, as labels and values."""
    for name, text in selection.as_text().items():
        value = getattr(selection, name)
        if name == "users":
            text = sentences.names_by_key(request, value)
        elif name == "network":
            text = str(network_for(request, value))
            text = text.removesuffix(f"/{value.max_prefixlen}")
        elif name == "state":
            text = gettext("Active") if text == "active" else gettext("Ended")
        elif name in CHOICES:
            text = str(CHOICES[name](text).label)
        elif value is True:
            text = gettext("Yes")
        elif name.endswith(("_after", "_before")):
            text = str(localize(timezone.localtime(value) if value.tzinfo else value))
        yield str(LABELS[name]), text
