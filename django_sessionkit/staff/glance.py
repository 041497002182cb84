"""Sessions at a glance: the page of the admin that says how a site's sessions are, in pictures."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from django.contrib.admin import ModelAdmin
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.formats import number_format
from django.utils.http import urlencode
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_sessionkit import tallies
from django_sessionkit.models import DeviceType, EndReason, PurgeRun, get_session_stores
from django_sessionkit.selection import Selection
from django_sessionkit.staff import figures, sentences
from django_sessionkit.staff.permissions import may_view_users
from django_sessionkit.staff.pictures import Meter, Picture, by_day, meters
from django_sessionkit.staff.rendering import render
from django_sessionkit.storage import NodeStatus

# The ends that somebody who looks after security wants to see also where there were none.
SECURITY = EndReason.REUSED, EndReason.MOVED, EndReason.LIMIT
# What requests count that end no session.
REQUESTS = {
    tallies.REFUSED: _("Sign-ins that the limit refused"),
    tallies.UNOPENED: _("Requests whose stored session did not open"),
}

Figures = Mapping[str, Mapping[date, int]]


class Active(NamedTuple):
    """How many sessions are active. ``run``: they were counted then, for there are many."""

    by_device: Mapping[str, int]
    is_part: bool
    run: PurgeRun | None

    @property
    def number(self) -> int:
        return sum(self.by_device.values())


class Purge(NamedTuple):
    last: PurgeRun | None  # that has finished
    newest: PurgeRun | None  # if that has not
    deleted: str
    backlog: str


class Line(NamedTuple):
    """Figures by day of one kind: a line in a table of small pictures."""

    label: str
    picture: Picture
    number: int


def glance_view(model_admin: "ModelAdmin[Any]", request: HttpRequest) -> TemplateResponse:
    """Answer with the page, to whoever may see sessions."""
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    days = tallies.days_until(tallies.today())
    known = _with_today(tallies.figures(days))
    newest, last = figures.Newest.find(), tallies.last_finished()
    active = _active(newest, last, days, known)
    # A day on which nothing else was counted has no figure, rather than one of 0.
    counted = list(known["sign_ins"])
    context = {
        "first": days[0],
        "last": days[-1],
        "active": active,
        "number": sentences.counted(active.number),
        "newest": sentences.counted(figures.NEWEST),
        "active_by_day": _active_by_day(days, known, active),
        "sign_ins": by_day(gettext("Sign-ins"), days, known.get("sign_ins", {})),
        "sign_ins_today": sentences.counted(known["sign_ins"][days[-1]]),
        "ended_today": sentences.counted(_ended_on(days[-1], known)),
        "endings": _endings(days, known, counted),
        "security": [
            *(
                _line(str(reason.label), days, known, f"ended.{reason}", counted)
                for reason in SECURITY
            ),
            *(_line(str(label), days, known, name, counted) for name, label in REQUESTS.items()),
        ],
        "devices": _devices(active),
        "people": _people(newest, may_view_users(request), model_admin),
        "is_part": newest.is_part,
        "stores": _stores(),
        "purge": _purge(last),
    }
    title = gettext("Sessions at a glance")
    return render(model_admin.admin_site, request, "glance", title, **context)


# By day.


def _with_today(known: dict[str, dict[date, int]]) -> dict[str, dict[date, int]]:
    """Return the figures with those of today, which a purge has counted some time ago, or never."""
    day = tallies.today()
    for name, number in figures.since_midnight().items():
        of_name = known.setdefault(name, {})
        # The count is of LIMIT rows at most: the purge may have counted more.
        if number or name == "sign_ins":
            of_name[day] = max(number, of_name.get(day, 0))
    return known


def _active(
    newest: figures.Newest, last: PurgeRun | None, days: Sequence[date], known: Figures
) -> Active:
    day = tallies.day_of(last.finished_at) if last and last.finished_at else date.min
    if not newest.is_part or day < days[0]:
        return Active(newest.by_device(), newest.is_part, None)
    names = ["", *DeviceType.values]
    counted = {name: known.get(f"active.{name}", {}).get(day, 0) for name in names}
    return Active(counted, is_part=False, run=last)


def _active_by_day(days: Sequence[date], known: Figures, active: Active) -> Picture:
    found: dict[date, int] = {}
    for name in ["", *DeviceType.values]:
        for day, number in known.get(f"active.{name}", {}).items():
            found[day] = found.get(day, 0) + number
    if not (active.run or active.is_part):
        found[days[-1]] = active.number
    return by_day(gettext("Active sessions"), days, found)


def _endings(days: Sequence[date], known: Figures, counted: Sequence[date]) -> list[Line]:
    """Return the reasons for which sessions have ended, the most frequent first."""
    lines = [
        _line(str(reason.label), days, known, f"ended.{reason.value}", counted)
        for reason in EndReason
    ]
    return sorted((line for line in lines if line.number), key=lambda line: -line.number)


def _line(
    label: str, days: Sequence[date], known: Figures, name: str, counted: Sequence[date]
) -> Line:
    found = {**dict.fromkeys(counted, 0), **known.get(name, {})}
    return Line(label, by_day(label, days, found), sum(found.values()))


def _ended_on(day: date, known: Figures) -> int:
    return sum(known.get(f"ended.{reason}", {}).get(day, 0) for reason in EndReason.values)


# By device and user.


def _devices(active: Active) -> list[Meter]:
    labels = {**dict(DeviceType.choices), "": gettext("Not known")}
    found = sorted(active.by_device.items(), key=lambda each: -each[1])
    return meters([(str(labels.get(name, name)), number, "") for name, number in found if number])


def _people(
    newest: figures.Newest, names_users: bool, model_admin: "ModelAdmin[Any]"
) -> list[Meter]:
    found = newest.people()
    names = get_user_model()._base_manager.in_bulk(list(found)) if found and names_users else {}
    changelist = reverse(
        "admin:django_sessionkit_usersession_changelist", current_app=model_admin.admin_site.name
    )
    return meters(
        [
            (
                str(names.get(key, key)),
                number,
                f"{changelist}?{urlencode(Selection.of_user(key).as_text())}",
            )
            for key, number in found.items()
        ]
    )


# Stores.


def _stores() -> list[dict[str, str]]:
    return [
        _as_row(f"{store.__module__} {status.name}".strip(), status)
        for store in get_session_stores()
        for status in store.status()
    ]


def _as_row(name: str, status: NodeStatus) -> dict[str, str]:
    latency = status.latency
    return {
        "name": name,
        "latency": "" if latency is None else number_format(1000 * latency, 2),
        "sessions": "" if status.sessions is None else sentences.counted(status.sessions),
        "size": _size(status.size),
        "limit": gettext("no limit") if status.limit == 0 else _size(status.limit),
        "version": status.version,
        "persistence": status.persistence,
        "eviction": status.eviction,
    }


def _size(size: int | None) -> str:
    return "" if size is None else filesizeformat(size)


# The purge.


def _purge(last: PurgeRun | None) -> Purge:
    newest = tallies.last_run()
    is_open = newest is not None and newest.finished_at is None
    return Purge(
        last,
        newest if is_open else None,
        sentences.counted(last.deleted if last else 0),
        sentences.counted(figures.backlog()),
    )
