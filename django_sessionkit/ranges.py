"""Walking through a table in small ranges, one short transaction each, as a purge does."""

import random
from collections.abc import Callable, Iterator
from typing import Self, TypeVar

from django.db import connections, models, router
from django.db.models.expressions import RawSQL

# How many rows one statement of revoke() or of a purge handles, and how many blocks of 8 KB one
# statement of a purge looks at on PostgreSQL. Either takes a few milliseconds, and holds others up
# for no longer.
ROWS, BLOCKS = 500, 100

# Called by a purge with the number of parts that are done, and of all parts.
Progress = Callable[[int, int], None]

Row = TypeVar("Row", bound=models.Model)


class Pace:
    """How fast a purge goes, and for how long. See purging.purge()."""

    def __init__(
        self,
        progress: Progress | None = None,
        *,
        seconds: float | None = None,
        duty: float = 1.0,
        dry_run: bool = False,
    ) -> None:
        self.progress = progress
        self.seconds, self.duty, self.dry_run = seconds, duty, dry_run


class WalkableQuerySet(models.QuerySet[Row]):
    def primary(self) -> Self:
        """Return the same rows on the database that is written to, never a replica that lags."""
        return self.using(router.db_for_write(self.model))

    def walk(self, progress: Progress | None = None) -> Iterator[Self]:
        """
        Yield the table in small parts, for statements that are each a short transaction.

        Neither table has an index on its expiry, so that a touch stays cheap. To look at every row
        in physical order costs about as much as one big DELETE, and holds nobody up. On PostgreSQL
        the walk begins at a random block, so that runs which are cut short get everywhere in time.
        """
        rows = self.primary()
        if connections[rows.db].vendor == "postgresql":
            parts, total = rows._parts_by_block()
        else:
            parts, total = rows._parts_by_key(), rows.count() // ROWS + 1
        for done, part in enumerate(parts, start=1):
            yield part
            if progress:
                progress(done, max(done, total))

    def delete_now(self) -> int:
        """
        Delete these rows in one statement that looks whether they still match, and return how many
        there were. Where a site has a receiver for deletions, delete() would not look again.
        """
        rows = self
        if connections[self.db].vendor != "postgresql":
            # On MySQL, a DELETE waits for every row that it looks at, also for one that does not
            # match and that a request holds. SQLite would lock the database even if none matches.
            rows = self.filter(pk__in=list(self.values_list("pk", flat=True)))
        deleted: int | None = rows._raw_delete(self.db)  # None: it was not worth a statement
        return deleted or 0

    def _parts_by_block(self) -> tuple[Iterator[Self], int]:
        with connections[self.db].cursor() as cursor:
            cursor.execute(
                "SELECT pg_relation_size(%s::regclass) / current_setting('block_size')::int",
                [self.model._meta.db_table],
            )
            (blocks,) = cursor.fetchone()
        starts = list(range(0, blocks, BLOCKS))
        cut = random.randrange(len(starts)) if starts else 0  # noqa: S311
        in_part = "ctid >= %s::tid AND ctid < %s::tid"
        parts = (
            self.filter(
                RawSQL(  # noqa: S611 (a constant, with its parameters)
                    in_part,
                    [f"({start},0)", f"({start + BLOCKS},0)"],
                    output_field=models.BooleanField(),
                )
            )
            for start in starts[cut:] + starts[:cut]
        )
        return parts, len(starts)

    def _parts_by_key(self) -> Iterator[Self]:
        rows = rest = self.order_by("pk")
        while last := rest.values_list("pk", flat=True)[ROWS - 1 : ROWS].first():
            yield rest.filter(pk__lte=last)
            rest = rows.filter(pk__gt=last)
        yield rest
