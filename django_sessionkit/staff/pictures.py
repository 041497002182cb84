"""
Pictures of figures, as the templates draw them: an <svg> of bars, and the same figures as text. All
positions are whole numbers below 1,000, which no language writes with a comma or a point. There is
no text in a picture, so that a small window does not make that small: labels are HTML around it.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from django.utils.formats import date_format
from django.utils.translation import gettext

from django_sessionkit.staff.sentences import counted

# A bar with the gap beside it is so wide, and a picture so high.
STEP, HEIGHT = 10, 60
# The length of a whole meter.
LENGTH = 100


class Bar(NamedTuple):
    x: int
    y: int
    height: int
    text: str


class Picture(NamedTuple):
    """Figures by day. A day without a figure was not counted: it has no bar, and its text is ""."""

    title: str
    width: int
    bars: list[Bar]
    days: list[tuple[date, str]]
    most: str
    total: str


class Meter(NamedTuple):
    label: str
    number: str
    length: int
    url: str = ""


def by_day(name: str, days: Sequence[date], figures: Mapping[date, int]) -> Picture:
    """Return the picture of figures with this name, "Sign-ins" say, with a bar for each day."""
    most = max(figures.values(), default=0)
    bars = [
        _bar(index * STEP, figures[day], most, _text(day, figures[day]))
        for index, day in enumerate(days)
        if figures.get(day)
    ]
    texts = [(day, counted(figures[day]) if day in figures else "") for day in days]
    title = gettext("%(name)s by day, from %(first)s to %(last)s: %(most)s at most") % {
        "name": name,
        "first": _short(days[0]),
        "last": _short(days[-1]),
        "most": counted(most),
    }
    total = counted(sum(figures.values()))
    return Picture(title, STEP * len(days), bars, texts, counted(most), total)


def meters(parts: Sequence[tuple[str, int, str]]) -> list[Meter]:
    """Return a meter for each label, number and URL. The largest number has the whole length."""
    most = max((number for _label, number, _url in parts), default=0)
    return [
        Meter(label, counted(number), _scaled(number, most, LENGTH), url)
        for label, number, url in parts
    ]


def _bar(x: int, number: int, most: int, text: str) -> Bar:
    height = _scaled(number, most, HEIGHT)
    return Bar(x, HEIGHT - height, height, text)


def _scaled(number: int, most: int, length: int) -> int:
    """Return how long what stands for a number is: what is small is still there to be seen."""
    return max(1, round(length * number / most)) if number else 0


def _text(day: date, number: int) -> str:
    values: dict[str, Any] = {"day": _short(day), "number": counted(number)}
    return gettext("%(day)s: %(number)s") % values


def _short(day: date) -> str:
    return date_format(day, "MONTH_DAY_FORMAT")
