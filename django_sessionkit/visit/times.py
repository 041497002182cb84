"""How long ago something was, in words."""

from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.timesince import timesince
from django.utils.translation import gettext, ngettext_lazy

# Whole phrases: languages have another form of "3 days" before "ago".
AGO: dict[str, Any] = {
    "year": ngettext_lazy("%(num)d year ago", "%(num)d years ago", "num"),
    "month": ngettext_lazy("%(num)d month ago", "%(num)d months ago", "num"),
    "week": ngettext_lazy("%(num)d week ago", "%(num)d weeks ago", "num"),
    "day": ngettext_lazy("%(num)d day ago", "%(num)d days ago", "num"),
    "hour": ngettext_lazy("%(num)d hour ago", "%(num)d hours ago", "num"),
    "minute": ngettext_lazy("%(num)d minute ago", "%(num)d minutes ago", "num"),
}


def ago(at: datetime) -> str:
    """Return "3 hours ago", or "just now"."""
    if timezone.now() - at < timedelta(minutes=1):
        return gettext("just now")
    return str(timesince(at, time_strings=AGO, depth=1)).replace("\xa0", " ")
