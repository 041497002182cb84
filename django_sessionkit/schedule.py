"""
What Celery's beat is to do for the kit. A site's settings import this module, before there are
settings: it knows nothing of them, nor of any app.
"""

import os
import platform
import zlib
from typing import Any

HOUR = 3600  # seconds
CARRY = 15  # seconds


def sessionkit_schedule(
    *, minute: int | None = None, activity: str = "direct"
) -> dict[str, dict[str, Any]]:
    """
    Return entries for ``CELERY_BEAT_SCHEDULE``: the purge, every hour, and, if ``activity`` is
    "buffered", as SESSIONKIT_ACTIVITY is, what carries activity to the rows, every 15 seconds.

    ``minute`` is the minute of the hour in which it runs, 0 to 59. If it is None, the minute goes
    by the names of this machine and of the settings, and by the folder of the process: many sites
    then do not purge at the same time, and a site whose beat is started again keeps its minute.

    A message that no worker has taken within the hour expires, for the next one does its work.

    Raises ValueError for a minute that there is not.
    """
    if minute is None:
        minute = _minute()
    if minute not in range(60):
        raise ValueError(f"There is no minute {minute}.")
    schedule: dict[str, dict[str, Any]] = {
        "django_sessionkit.purge": {
            "task": "django_sessionkit.purge",
            "schedule": _every_hour(minute),
            "options": {"expires": HOUR},
        },
    }
    if activity == "buffered":
        schedule["django_sessionkit.carry_activity"] = {
            "task": "django_sessionkit.carry_activity",
            "schedule": CARRY,
            "options": {"expires": CARRY},
        }
    return schedule


def _minute() -> int:
    names = [platform.node(), os.environ.get("DJANGO_SETTINGS_MODULE", ""), os.getcwd()]
    return zlib.crc32("\0".join(names).encode(errors="surrogateescape")) % 60


def _every_hour(minute: int) -> Any:
    """
    Return a schedule by the clock. A number of seconds would count from the start of beat: one that
    is started again every half hour, and keeps no file, would never purge.
    """
    try:
        from celery.schedules import crontab
    except ImportError:  # a process that runs no beat needs no schedule
        return HOUR
    return crontab(minute=minute)
