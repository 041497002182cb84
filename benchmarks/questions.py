"""What staff ask of a table of sessions, in the words of the list's URL, and in bare SQL."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.utils import timezone

from django_sessionkit import tallies
from django_sessionkit.conf import conf
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.selection import since
from django_sessionkit.staff import figures
from django_sessionkit.staff.seeking import SIZE

# A page is fetched with one session more, which tells whether there are others.
LIMIT = SIZE + 1
# The thousandth page.
FAR = 999 * SIZE

NEWEST = "ORDER BY s.id DESC"
BY_END = "ORDER BY s.ended_at DESC, s.id DESC"
TABLE = "django_sessionkit_usersession s"
PEOPLE = "JOIN auth_user u ON u.id = s.user_id LEFT JOIN auth_user b ON b.id = s.ended_by_id"


class Question(NamedTuple):
    name: str
    asked: Mapping[str, str]  # parameters of the URL of the list
    condition: str  # the same in SQL: s is the session, and u its user
    order: str = NEWEST
    table: str = TABLE

    @property
    def sql(self) -> str:
        return (
            f"SELECT s.*, u.*, b.* FROM {self.table} {PEOPLE}"  # noqa: S608
            f" WHERE {self.condition} {self.order} LIMIT {LIMIT}"
        )


def questions() -> Iterator[Question]:
    """Yield the questions: the filters, the searches and pages far back."""
    one = UserSession.objects.order_by("pk")[UserSession.objects.count() // 2]
    day, week = (timezone.now() - timedelta(days=days) for days in (1, 7))
    long_ago = timezone.now() - timedelta(days=25)

    yield Question("everything", {}, "true")
    yield Question("active", {"state": "active"}, "s.ended_at IS NULL AND s.expires_at > now()")
    yield Question("ended", {"state": "ended"}, "NOT (s.ended_at IS NULL AND s.expires_at > now())")
    yield Question("ended, and why", {"reason": "reused"}, "s.end_reason = 'reused'", BY_END)
    yield Question(
        "ended since yesterday", {"ended_after": _text(day)}, "true", BY_END, _ended(">=", day)
    )
    yield Question(
        "ended a week ago, or before",
        {"ended_before": _text(week)},
        "true",
        BY_END,
        _ended("<", week),
    )
    yield Question("of a user", {"users": "7"}, "s.user_id = 7")
    yield Question("from an address", {"network": "203.0.113.7"}, "s.ip = '203.0.113.7'")
    yield Question("from a network", {"network": "203.0.113.0/24"}, "s.ip <<= '203.0.113.0/24'")
    yield Question("by its handle", {"handle": str(one.pk)}, f"s.id = '{one.pk}'")
    yield Question("of a browser", {"browser": str(one.browser)}, f"s.browser = '{one.browser}'")
    yield Question("of staff", {"staff": "1"}, "(u.is_staff OR u.is_superuser)")
    yield Question("of apps", {"transport": "header"}, "s.transport = 'header'")
    yield Question("from a new device", {"new": "1"}, "s.novelty <> ''")
    yield Question("on a telephone", {"device_type": "mobile"}, "s.device_type = 'mobile'")
    yield Question("begun this week", {"started_after": _text(week)}, f"s.id >= '{since(week)}'")
    yield Question("begun before", {"started_before": _text(week)}, f"s.id < '{since(week)}'")
    yield Question("used since yesterday", {"seen_after": _text(day)}, _seen(">=", day))
    yield Question("not used for 25 days", {"seen_before": _text(long_ago)}, _seen("<", long_ago))

    yield Question("search: a user name", {"q": "user7"}, "u.username = 'user7'")
    yield Question(
        "search: an e-mail address", {"q": "user7@example.org"}, _named_like("user7@example.org")
    )
    yield Question("search: an address", {"q": "203.0.113.7"}, "s.ip = '203.0.113.7'")
    yield Question("search: a handle", {"q": str(one.pk)}, f"s.id = '{one.pk}'")

    for name, asked, condition in (
        ("page 1,000", {}, "true"),
        (
            "page 1,000 of the active ones",
            {"state": "active"},
            "s.ended_at IS NULL AND s.expires_at > now()",
        ),
    ):
        rows = UserSession.objects.order_by("-pk")
        if asked:
            rows = rows.active()
        if place := rows.values_list("pk", flat=True)[FAR - 1 : FAR].first():
            beyond = f"{condition} AND s.id < '{place}'"
            yield Question(name, {**asked, "after": place.hex}, beyond)


def _text(moment: datetime) -> str:
    return moment.isoformat()


def _seen(operator: str, moment: datetime) -> str:
    return f"s.last_seen_at {operator} '{_text(moment)}'"


def _named_like(text: str) -> str:
    users = (
        f"SELECT id FROM auth_user WHERE upper(username) LIKE upper('%{text}%')"  # noqa: S608
        f" OR upper(email) LIKE upper('%{text}%')"
    )
    return f"s.user_id = ANY (ARRAY ({users}))"


def _ended(operator: str, moment: datetime) -> str:
    """Return SQL for sessions, the last ends first: by reason, because the index begins with it."""
    reasons = ", ".join(f"('{reason}')" for reason in EndReason.values)
    return (
        f"(VALUES {reasons}) AS reasons (reason), LATERAL (SELECT * FROM {TABLE}"  # noqa: S608
        f" WHERE end_reason = reason AND ended_at {operator} '{_text(moment)}' {BY_END}"
        f" LIMIT {LIMIT}) s"
    )


class Picture(NamedTuple):
    """What a part of the page "at a glance" counts."""

    name: str
    ours: Callable[[], Mapping[Any, int]]
    sql: str  # of rows, each a figure's name and the figure


def pictures() -> Iterator[Picture]:
    """Yield the parts of the page "at a glance" that ask the tables for something."""
    days = tallies.days_until(tallies.today())
    midnight = tallies.start_of(tallies.today())
    now = timezone.now()
    kept_from = now - timedelta(seconds=conf.SESSIONKIT_RETENTION)
    rows, limit = "django_sessionkit_usersession", figures.LIMIT
    newest = (
        f"(SELECT * FROM {rows} WHERE end_reason = '' AND ended_at IS NULL"  # noqa: S608
        f" ORDER BY end_reason DESC, ended_at DESC, id DESC LIMIT {figures.NEWEST}) AS newest"
    )

    def counted(name: str, condition: str) -> str:
        return (
            f"SELECT {name}, (SELECT count(*) FROM"  # noqa: S608
            f" (SELECT FROM {rows} WHERE {condition} LIMIT {limit}) AS part)"
        )

    def by_reason(prefix: str, condition: str) -> str:
        one = counted(f"'{prefix}' || reason", f"end_reason = reason AND {condition}")
        reasons = ", ".join(f"('{reason}')" for reason in EndReason.values)
        return f"{one} FROM (VALUES {reasons}) AS reasons (reason)"

    today = f"id >= '{since(midnight)}' AND adopted_at IS NULL AND NOT support"
    yield Picture(
        "figures of 30 days",
        lambda: {
            f"{name} {day}": value
            for name, of_name in tallies.figures(days).items()
            for day, value in of_name.items()
        },
        "SELECT name || ' ' || day, value FROM django_sessionkit_tally"  # noqa: S608
        f" WHERE day BETWEEN '{days[0]}' AND '{days[-1]}'",
    )
    yield Picture(
        "since midnight",
        figures.since_midnight,
        f"{counted(repr('sign_ins'), today)} UNION ALL"
        f" {by_reason('ended.', f'ended_at >= {_quoted(midnight)}')}",
    )
    yield Picture(
        "active, by device",
        lambda: figures.Newest.find().by_device(),
        f"SELECT device_type, count(*) FROM {newest} WHERE expires_at > {_quoted(now)} GROUP BY 1",  # noqa: S608
    )
    yield Picture(
        "users with most sessions",
        lambda: figures.Newest.find().people(),
        f"SELECT user_id, count(*) FROM {newest} WHERE expires_at > {_quoted(now)}"  # noqa: S608
        f" GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {figures.PEOPLE}",
    )
    yield Picture(
        "what the purge has to do",
        lambda: {"": figures.backlog()},
        f"SELECT '', sum(count) FROM ({by_reason('', f'ended_at < {_quoted(kept_from)}')})"  # noqa: S608
        " AS parts (reason, count)",
    )


def _quoted(moment: datetime) -> str:
    return f"'{_text(moment)}'"
