"""
The tables of engines that a site had before it moved here. What has expired there is deleted, in
small parts that hold nobody up. What is still valid stays: it moves here when it is used next.
"""

import logging
import time
from collections import Counter
from typing import Any

from django.apps import apps
from django.db import connections, models, router
from django.utils import timezone

from django_sessionkit.adoption import Table, engines
from django_sessionkit.purging import Purged
from django_sessionkit.ranges import Progress, WalkableQuerySet
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
    figures, started = Counter[str](), time.monotonic()
    for model in old_tables():
        rows = WalkableQuerySet[Any](model)
        parts, table = rows.walk(progress), model._meta.db_table
        figures[table] = 0
        while (part := Storage.call(next, parts, None)) is not None:
            began = time.monotonic()
            figures[table] += Storage.call(_purge, part, dry_run)
            now = time.monotonic()
            if seconds is not None and now - started >= seconds:
                return Purged(figures, finished=False)
            time.sleep((now - began) * (1 / duty - 1))
        logger.info("Purged %d expired sessions of the table %s", figures[table], table)
    return Purged(figures, finished=True)


def _is_there(model: Model) -> bool:
    connection = connections[router.db_for_write(model)]
    return model._meta.db_table in connection.introspection.table_names()


def _purge(part: WalkableQuerySet[Any], dry_run: bool) -> int:
    """Delete what has expired in a part of a table, and return how many sessions that were."""
    expired = part.filter(expire_date__lt=timezone.now())
    if dry_run:
        return expired.count()
    if connections[part.db].vendor != "postgresql":
        # Named, for a DELETE on MySQL waits for every row that it looks at.
        expired = expired.filter(pk__in=list(expired.values_list("pk", flat=True)))
    # Not delete_now(): a site may have rows that belong to these.
    _, deleted = expired.delete()
    return deleted.get(part.model._meta.label, 0)
