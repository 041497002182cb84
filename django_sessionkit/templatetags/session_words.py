"""What the user's pages say of times and sign-ins. For templates that replace those of the kit."""

from datetime import datetime, timedelta
from typing import Any

from django import template
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.timesince import timesince
from django.utils.translation import ngettext_lazy

from django_sessionkit.own_sessions import is_new
from django_sessionkit.visit.methods import method_of
from django_sessionkit.visit.times import AGO, ago

register = template.Library()
register.filter("sign_in_method", method_of)
register.filter("is_new", is_new)
register.filter("ago", ago, expects_localtime=True)

UNUSED: dict[str, Any] = {
    "year": ngettext_lazy("Not used for %(num)d year", "Not used for %(num)d years", "num"),
    "month": ngettext_lazy("Not used for %(num)d month", "Not used for %(num)d months", "num"),
    "week": ngettext_lazy("Not used for %(num)d week", "Not used for %(num)d weeks", "num"),
}
FORTNIGHT = timedelta(days=14)


@register.filter(expects_localtime=True)
def machine_time(at: datetime) -> str:
    """Return a time as HTML takes it in ``datetime``, with three fractional digits at most."""
    return at.isoformat(timespec="seconds")


@register.filter(expects_localtime=True)
def last_used(at: datetime) -> str:
    """Return "3 hours ago" or, after two weeks, "Not used for 2 weeks"."""
    if _age(at) < FORTNIGHT:
        return ago(at)
    return str(timesince(at, time_strings={**AGO, **UNUSED}, depth=1)).replace("\xa0", " ")


@register.filter(expects_localtime=True)
def until(at: datetime) -> str:
    """Return the day, and the time as well if that is within two days."""
    is_soon = -_age(at) < timedelta(days=2)
    return date_format(at, "DATETIME_FORMAT" if is_soon else "DATE_FORMAT")


def _age(at: datetime) -> timedelta:
    return timezone.now() - at
