"""
The tables of engines that a site had before it moved here. What has expired there is deleted, in
small parts that hold nobody up. What is still valid stays: it moves here when it is used next.
"""

import logging
import random
from typing import Any

from django.apps import apps
from django.contrib.sessions.backends.base import VALID_KEY_CHARS
from django.db import connections, models, router, transaction
from django.db.models.deletion import Collector
from django.utils import timezone

from django_sessionkit.adoption import Table, engines
from django_sessionkit.pace import Pace, Progress
from django_sessionkit.purging import Purged
from django_sessionkit.ranges import WalkableQuerySet, Writing
from django_sessionkit.storage import Storage

logger = logging.getLogger("django_sessionkit")

Model = type[models.Model]


def old_tables() -> list[Model]:
    """
    Return the models whose tables are there: those of the engines in SESSIONKIT_ADOPT_FROM, and
    Django's own, as long as its app is installed. Raises StoreUnavailable.
    """
    found: list[Model] = [engine.model for engine in engines() if isinstance(engine, Table)]
    if apps.is_installed("django.contrib.sessions"):
        found.append(apps.get_model("sessions", "Session"))
    return Storage.call(lambda: [model for model in dict.fromkeys(found) if _is_there(model)])


def purge_old_tables(
    progress: Progress | None = None,
    *,
    seconds: float | None = None,
    duty: float = 0.5,
    dry_run: bool = False,
) -> Purged:
    """
    Delete what has expired from the tables of old_tables(). Return how many sessions that were, by
    the name of the table. The arguments are those of purging.purge().

    Raises StoreUnavailable: what was deleted until then stays so.
    """
    pace = Pace(progress, seconds=seconds, duty=duty, dry_run=dry_run)
    for model in old_tables():
        Storage.call(_purge, WalkableQuerySet[Any](model), pace)
    figures = dict(pace.figures)
    logger.info("Purged from old tables: %s", figures)
    return Purged(figures, not pace.is_cut_short)


def _is_there(model: Model) -> bool:
    connection = connections[router.db_for_write(model)]
    return model._meta.db_table in connection.introspection.table_names()


def _purge(rows: WalkableQuerySet[Any], pace: Pace) -> None:
    table = rows.model._meta.db_table
    pace.figures[table] += 0  # two models may have one table
    if pace.time_left() is not None:
        _begin_anywhere(rows, pace.places.setdefault(table, {}))
    now = timezone.now()
    writing = Writing(table, models.Q(expire_date__lt=now))
    is_alone = Collector(using=rows.primary().db).can_fast_delete(rows.all())
    for part in rows.walk(pace, table):
        expired = writing.rows(part)
        if pace.dry_run:
            pace.figures[table] += pace.read(expired.count)
        elif is_alone:
            pace.figures[table] += writing.on(part, pace)
        else:
            pace.figures[table] += expired.each(pace, table, _delete)


def _begin_anywhere(rows: WalkableQuerySet[Any], place: dict[str, Any]) -> None:
    """
    Have a walk by the key begin anywhere: no run notes how far it has come, and those that have too
    little time are to get everywhere.
    """
    is_by_block = connections[rows.primary().db].vendor == "postgresql"
    if not is_by_block and not place and isinstance(rows.model._meta.pk, models.CharField):
        key = "".join(random.choices(VALID_KEY_CHARS, k=8))  # noqa: S311
        if first := rows.primary().filter(pk__gte=key).order_by("pk").first():
            place.update(begin=first.pk, after=first.pk)


def _delete(rows: WalkableQuerySet[Any]) -> int:
    # A site has rows that belong to these, or receivers. So delete() reads these rows first, and
    # deletes them by their keys: nobody is to prolong one in between.
    with transaction.atomic(rows.db):
        rows.hold()
        _, deleted = rows.delete()
    return deleted.get(rows.model._meta.label, 0)
