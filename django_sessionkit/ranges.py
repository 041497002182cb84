"""Walking through a table in small ranges, one short transaction each, as a purge does."""

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self, TypeVar

from django.db import connections, models, router, transaction
from django.db.models.expressions import RawSQL

from django_sessionkit.pace import Pace, Size

# How many rows one statement of revoke() handles. A walk begins with ranges of so many rows or, on
# PostgreSQL, of so many blocks of 8 KB. Either takes a few milliseconds.
ROWS, BLOCKS = 500, 100
# How many rows a statement of a purge writes, at first and at least, if there are so many.
FIRST = 200

Row = TypeVar("Row", bound=models.Model)


class Compiled(NamedTuple):
    """
    A statement about a part of a table. Django takes longer to put it together than PostgreSQL to
    read the part.
    """

    sql: str
    params: tuple[Any, ...]
    marks: list[str]

    def rows(self, part: "WalkableQuerySet[Any]") -> list[tuple[Any, ...]]:
        """Return the rows that the statement finds in another part."""
        marks = dict(zip(self.marks, _marks(part.blocks), strict=True))
        params = [marks.get(each, each) if isinstance(each, str) else each for each in self.params]
        with connections[part.db].cursor() as cursor:
            cursor.execute(self.sql, params)
            found: list[tuple[Any, ...]] = cursor.fetchall()
        return found


def _marks(blocks: tuple[int, int] | None) -> list[str]:
    return [f"({block},0)" for block in blocks or ()]


class WalkableQuerySet(models.QuerySet[Row]):
    # The first block of a part of a table on PostgreSQL, and the one after the last.
    blocks: tuple[int, int] | None = None

    def primary(self) -> Self:
        """Return the same rows on the database that is written to, never a replica that lags."""
        return self.using(router.db_for_write(self.model))

    def walk(self, pace: Pace | None = None, name: str = "", most: int = 0) -> Iterator[Self]:
        """
        Yield the table in small parts, for statements that are each a short transaction.

        Neither table has an index on its expiry, so that a touch stays cheap. To look at every row
        in physical order costs about as much as one big DELETE, and holds nobody up. On PostgreSQL
        the walk begins at a random block, so that runs which are killed get everywhere in time,
        and two at once begin apart. Elsewhere it goes by the primary key. It begins after the key
        ``pace.places[name]["begin"]`` and goes round, if there is one.

        The walk stops when the pace says so, and ``pace.places[name]`` says how far it has come.
        ``name`` is that of the table, if none is given. ``most``: stop after so many parts of the
        first size.
        """
        rows, pace = self.primary(), pace or Pace()
        name = name or str(rows.model._meta.model_name)
        place = pace.places.setdefault(name, {})
        # Whoever has a limit takes longer for each row.
        size = pace.size(f"walk.{name}", max(1, rows.unit() // (8 if most else 1)))
        by_block = connections[rows.db].vendor == "postgresql"
        parts = rows._parts_by_block if by_block else rows._parts_by_key
        told = place.get("done", 0) // rows.unit()
        for part, after in parts(pace, size, place, most * rows.unit()):
            yield part
            place.update(after)
            pace.learn(size)
            # Where the parts have become smaller than the first, not each of them is told.
            done, of = -(-place["done"] // rows.unit()), -(-place["of"] // rows.unit())
            if pace.progress and not most and (done > told or place["is_done"]):
                told = done
                pace.progress(done, max(done, of))

    def compiled(self) -> "Compiled":
        """Return the SQL of a query about a part of a table on PostgreSQL, for other parts, too."""
        sql, params = self.query.get_compiler(self.db).as_sql()
        return Compiled(sql, tuple(params), _marks(self.blocks))

    def unit(self) -> int:
        """Return how many rows, or blocks on PostgreSQL, a first part has."""
        return BLOCKS if connections[self.primary().db].vendor == "postgresql" else ROWS

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
        return rows._delete_all()

    def delete_gently(self, pace: Pace, kind: str) -> int:
        """
        Delete these rows, less those that somebody else holds, in statements of about TARGET, and
        return how many there were. ``kind`` is what the sizes of the statements are kept by.
        """
        return self.each(pace, kind, lambda rows: rows._delete_all())

    def each(
        self,
        pace: Pace,
        kind: str,
        act: Callable[[Self], int],
        then: Callable[[list[Any], int], None] | None = None,
        still: models.Q | None = None,
    ) -> int:
        """
        Do something to these rows, in statements of about TARGET that wait for nobody: rows that
        somebody else holds are left out. Return to how many rows it was done.

        ``act`` is given the rows of one statement, and returns how many it has written. After each
        statement, once its transaction is over, ``then`` is called with the primary keys of the
        rows that were taken, and how many of them were written.

        ``still``: the part of the condition that only looks at the rows themselves, if that is not
        all of it.
        """
        # Where a range is full, it is so small that its statements write less than this.
        first = min(FIRST, ROWS)
        size = pace.size(kind, first, least=first, target=2)
        if connections[self.db].vendor == "postgresql" and then is None:
            return self._each_at_once(pace, size, act)
        return self._each_by_key(pace, size, act, then, still)

    def _each_at_once(self, pace: Pace, size: Size, act: Callable[[Self], int]) -> int:
        """Find the rows, take them and write them in one statement."""
        number = size.number
        total = pace.step(size, lambda number: act(self._free(number)))
        if total == number:  # there are more: go to them, and not past what is written already
            total += sum(rows._each_at_once(pace, size, act) for rows in self._split())
        return total

    def _split(self) -> list[Self]:
        if self.blocks is None or self.blocks[1] - self.blocks[0] == 1:
            return [self]
        start, end = self.blocks
        middle = (start + end) // 2
        return [self._blocks(start, middle), self._blocks(middle, end)]

    def _free(self, number: int) -> Self:
        """
        Return so many of these rows, by a condition that takes them in the statement that it is put
        into. A row that is changed at the same moment is left out, too.
        """
        rows = self.order_by().values(place=RawSQL("ctid", []))[:number]
        sql, params = rows.query.get_compiler(self.db).as_sql()
        condition = f"ctid = ANY(ARRAY({sql} FOR UPDATE SKIP LOCKED))"
        return self._everything().filter(
            RawSQL(condition, params, output_field=models.BooleanField())  # noqa: S611 (of Django)
        )

    def _each_by_key(
        self,
        pace: Pace,
        size: Size,
        act: Callable[[Self], int],
        then: Callable[[list[Any], int], None] | None,
        still: models.Q | None,
    ) -> int:
        """Find the rows, take them, write them."""
        total, found, number = 0, 0, 0
        rest, is_postgresql = self, connections[self.db].vendor == "postgresql"
        if not is_postgresql:
            rest = rest.order_by("pk")

        def take(number: int) -> int:
            nonlocal total, rest
            if is_postgresql:  # which takes what it finds, and would go by the wrong index in order
                with transaction.atomic(self.db):
                    taken = self._lock(rest.order_by()[:number])
                    written = act(self.filter(pk__in=taken)) if taken else 0
                handled = len(taken)
            else:
                keys = list(rest.values_list("pk", flat=True)[:number])
                handled = len(keys)
                # Two must not both say that they have written a row.
                taken, written = self._take(keys, act, still, bool(then)) if keys else ([], 0)
                if keys:
                    rest = rest.filter(pk__gt=keys[-1])
            total += written
            if then and taken:
                then(taken, written)
            return handled

        while found == number:
            number = size.number
            found = pace.step(size, take)
        return total

    def _take(
        self, keys: list[Any], act: Callable[[Self], int], still: models.Q | None, is_exact: bool
    ) -> tuple[list[Any], int]:
        """
        Take those rows that have these keys, and that nobody holds. On MySQL a statement waits for
        all rows that it looks at: this looks only at those that were found. ``is_exact``: return
        the keys of no row that somebody else has written just before.
        """
        rows = self.filter(pk__in=keys)
        if not connections[self.db].features.has_select_for_update_skip_locked:
            if not is_exact:
                return keys, act(rows)
            with transaction.atomic(self.db):
                rows.hold()
                taken = list(rows.order_by().values_list("pk", flat=True))
                return taken, act(rows)
        with transaction.atomic(self.db):
            if not (taken := self._lock(rows.order_by())):
                return [], 0
            # What was asked of other tables is not asked again: MySQL could wait for their rows.
            again = self if still is None else self._everything().filter(still)
            return taken, act(again.filter(pk__in=taken))

    def hold(self) -> None:
        """
        Let nobody else write these rows, on a database without SKIP LOCKED, until the transaction
        is over.
        """
        if not connections[self.db].features.has_select_for_update_skip_locked:
            pk = self.model._meta.pk.attname
            self.order_by().update(**{pk: models.F(pk)})

    def _lock(self, rows: Self) -> list[Any]:
        free = rows.select_for_update(skip_locked=True)
        return list(free.values_list("pk", flat=True))

    def _everything(self) -> Self:
        return type(self)(self.model, using=self.db)

    def _delete_all(self) -> int:
        deleted: int | None = self._raw_delete(self.db)  # None: it was not worth a statement
        return deleted or 0

    def _parts_by_block(
        self, pace: Pace, size: Size, place: dict[str, Any], most: int
    ) -> Iterator[tuple[Self, dict[str, Any]]]:
        if "of" not in place:
            with connections[self.db].cursor() as cursor:
                cursor.execute(
                    "SELECT pg_relation_size(%s::regclass) / current_setting('block_size')::int",
                    [connections[self.db].ops.quote_name(self.model._meta.db_table)],
                )
                (blocks,) = cursor.fetchone()
            begin = place.get("begin", blocks)
            if begin >= blocks:
                units = -(-blocks // BLOCKS)
                begin = BLOCKS * random.randrange(units) if units else 0  # noqa: S311
            place.update(begin=begin, done=0, of=blocks, is_done=not blocks)
        begin, of = place["begin"], place["of"]
        end = min(of, most or of)
        while not place["is_done"] and pace.goes_on():
            start = (begin + place["done"]) % of
            number = min(size.number, end - place["done"], of - start)
            done = place["done"] + number
            yield self._blocks(start, start + number), {"done": done, "is_done": done >= end}

    def _blocks(self, start: int, end: int) -> Self:
        in_part = "ctid >= %s::tid AND ctid < %s::tid"
        rows = self.filter(
            RawSQL(  # noqa: S611 (a constant, with its parameters)
                in_part, _marks((start, end)), output_field=models.BooleanField()
            )
        )
        rows.blocks = start, end
        return rows

    def _clone(self) -> Self:
        clone: Self = super()._clone()  # type: ignore[misc]
        clone.blocks = self.blocks
        return clone

    def _parts_by_key(
        self, pace: Pace, size: Size, place: dict[str, Any], most: int
    ) -> Iterator[tuple[Self, dict[str, Any]]]:
        if "of" not in place:
            count = self.count() if pace.progress and not most else 0
            place.update(after=place.get("after"), done=0, of=count, is_done=False)
        rows, begin = self.order_by("pk"), place.get("begin")
        while not place["is_done"] and pace.goes_on():
            rest = rows if place["after"] is None else rows.filter(pk__gt=place["after"])
            is_last = begin is None or place.get("has_turned", False)
            if is_last and begin is not None:
                rest = rest.filter(pk__lte=begin)
            number = size.number
            last = rest.values_list("pk", flat=True)[number - 1 : number].first()
            done = place["done"] + number
            if last is None and not is_last:
                yield rest, {"after": None, "done": done, "has_turned": True}
            elif last is None:
                yield rest, {"after": None, "done": max(place["of"], done), "is_done": True}
            else:
                after = {"after": str(last), "done": done, "is_done": 0 < most <= done}
                yield rest.filter(pk__lte=last), after
