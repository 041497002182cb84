"""Walking through a table in small ranges, one short transaction each, as a purge does."""

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self, TypeVar

from django.db import connections, models, router, transaction
from django.db.models.expressions import RawSQL
from django.db.models.sql import DeleteQuery, UpdateQuery

from django_sessionkit.pace import Pace, Size

# How many rows one statement of revoke() handles. A walk begins with ranges of so many rows or, on
# PostgreSQL, of so many blocks of 8 KB. Either takes a few milliseconds.
ROWS, BLOCKS = 500, 100
# How many rows a statement of a purge writes, at first and at least, if there are so many.
FIRST = 200

Row = TypeVar("Row", bound=models.Model)


class Statement(NamedTuple):
    """
    A statement about a part of a table. Django takes longer to put it together than PostgreSQL to
    read the part.
    """

    sql: str
    params: tuple[Any, ...]
    marks: list[str]

    def rows(self, part: "WalkableQuerySet[Any]") -> list[tuple[Any, ...]]:
        """Return the rows that the statement finds in another part."""
        with connections[part.db].cursor() as cursor:
            cursor.execute(self.sql, self._params(part))
            found: list[tuple[Any, ...]] = cursor.fetchall()
        return found

    def written(self, part: "WalkableQuerySet[Any]") -> int:
        """Return how many rows the statement has written in another part."""
        with connections[part.db].cursor() as cursor:
            cursor.execute(self.sql, self._params(part))
            written: int = cursor.rowcount
        return written

    def _params(self, part: "WalkableQuerySet[Any]") -> list[Any]:
        marks = dict(zip(self.marks, _marks(part.blocks), strict=True))
        return [marks.get(each, each) if isinstance(each, str) else each for each in self.params]


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
        most_of_all, blocks = most * rows.unit(), rows._count_blocks()
        if blocks is None:
            parts = rows._parts_by_key(pace, size, place, most_of_all)
        else:
            parts = rows._parts_by_block(pace, size, place, most_of_all, blocks)
        told = place.get("done", 0) // rows.unit()
        for part, after in parts:
            yield part
            place.update(after)
            pace.learn(size)
            # Where the parts have become smaller than the first, not each of them is told.
            done, of = -(-place["done"] // rows.unit()), -(-place["of"] // rows.unit())
            if pace.progress and not most and (done > told or place["is_done"]):
                told = done
                pace.progress(done, max(done, of))

    def statement(self, query: Any = None) -> Statement:
        """
        Return the statement of this query, or of another one about the same part of a table on
        PostgreSQL, for other parts, too.
        """
        sql, params = (query or self.query).get_compiler(self.db).as_sql()
        return Statement(sql, tuple(params), _marks(self.blocks))

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

    def each(
        self,
        pace: Pace,
        kind: str,
        act: Callable[[Self], int],
        then: Callable[[list[Any], int], None] | None = None,
    ) -> int:
        """
        Find these rows, take them, and do something to them. The arguments are those of Writing,
        but for ``act``: it is given the rows of one statement, and returns how many it has written.
        """
        size = _size(pace, kind, statements=3)
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
                taken, written = self._take(keys, act, bool(then)) if keys else ([], 0)
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

    def halves(self) -> list[Self]:
        """Return the two halves of a part with blocks, or the part if it has only one."""
        start, end = self.blocks or (0, 0)
        if end - start < 2:
            return [self]
        middle = (start + end) // 2
        everything = self._everything()
        return [everything._blocks(start, middle), everything._blocks(middle, end)]

    def free(self, number: int) -> Self:
        """
        Return so many of these rows, on PostgreSQL, by a condition that takes them in the statement
        that it is put into. A row that is changed at the same moment is left out, too.
        """
        rows = self.order_by().values(place=RawSQL("ctid", []))[:number]
        sql, params = rows.query.get_compiler(self.db).as_sql()
        condition = f"ctid = ANY(ARRAY({sql} FOR UPDATE SKIP LOCKED))"
        if not connections[self.db].in_atomic_block:
            # A crash of the server may undo the last moment of a purge: the next one does it again.
            # So the statement need not wait for the disk.
            condition = (
                f"{condition} AND (SELECT set_config('synchronous_commit', 'off', true)) = 'off'"
            )
        return self._everything().filter(
            RawSQL(condition, params, output_field=models.BooleanField())  # noqa: S611 (of Django)
        )

    def _take(
        self, keys: list[Any], act: Callable[[Self], int], is_exact: bool
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
        with transaction.atomic(self.db), connections[self.db].execute_wrapper(self._by_key):
            taken = self._lock(rows.order_by())
            return taken, act(self._everything().filter(pk__in=taken)) if taken else 0

    def _by_key(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        """
        Have MySQL delete rows by their keys. To delete most of a small table, it would read all of
        that, and wait for whoever holds another row.
        """
        quote, meta = connections[self.db].ops.quote_name, self.model._meta
        table, key = quote(meta.db_table), quote(str(meta.pk.column))
        if sql.startswith(f"DELETE FROM {table} WHERE {table}.{key} IN ("):  # noqa: S608
            # The first SELECT finds nothing: it says what the keys are compared as.
            keys = " UNION ALL SELECT ".join(["%s"] * len(params))
            sql = (
                f"DELETE {table} FROM (SELECT {key} AS taken FROM {table} WHERE FALSE"  # noqa: S608
                f" UNION ALL SELECT {keys}) AS found"
                f" STRAIGHT_JOIN {table} ON {table}.{key} = found.taken"
            )
        return execute(sql, params, many, context)

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

    def write(self, values: dict[str, Any] | None) -> int:
        """Write these values, or delete the rows. Return how many there were."""
        return self._delete_all() if values is None else self.update(**values)

    def _delete_all(self) -> int:
        deleted: int | None = self._raw_delete(self.db)  # None: it was not worth a statement
        return deleted or 0

    def _count_blocks(self) -> int | None:
        """
        Return how many blocks the table has, or None if it cannot be walked through by block. The
        blocks of a partitioned table are those of its partitions.
        """
        if connections[self.db].vendor != "postgresql":
            return None
        size = "pg_relation_size(oid) / current_setting('block_size')::int"
        with connections[self.db].cursor() as cursor:
            cursor.execute(
                f"SELECT CASE relkind WHEN 'p' THEN NULL ELSE {size} END"  # noqa: S608
                " FROM pg_class WHERE oid = %s::regclass",
                [connections[self.db].ops.quote_name(self.model._meta.db_table)],
            )
            blocks: int | None = cursor.fetchone()[0]
        return blocks

    def _parts_by_block(
        self, pace: Pace, size: Size, place: dict[str, Any], most: int, blocks: int
    ) -> Iterator[tuple[Self, dict[str, Any]]]:
        if "of" not in place:
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


class Writing:
    """
    What a purge writes to rows of one kind, in any part of a table, in statements of about two
    TARGETs that wait for nobody: rows that somebody else holds are left out.

    ``kind`` is what the sizes of the statements are kept by. ``which`` is the condition for the
    rows. ``values`` is what is written, by column, or None: the rows are deleted.

    After each statement, once its transaction is over, ``then`` is called with the primary keys of
    the rows that were taken, and how many of them were written.
    """

    def __init__(
        self,
        kind: str,
        which: models.Q,
        values: dict[str, Any] | None = None,
        then: Callable[[list[Any], int], None] | None = None,
    ) -> None:
        self.kind, self._which, self._values = kind, which, values
        self._then = then
        self._statements: dict[int, Statement] = {}  # by how many rows they write

    def rows(self, part: WalkableQuerySet[Any]) -> WalkableQuerySet[Any]:
        """Return the rows of this kind in a part."""
        return part.filter(self._which)

    def on(self, part: WalkableQuerySet[Any], pace: Pace) -> int:
        """Write to the rows of a part, and return to how many."""
        if part.blocks and self._then is None:
            return self._at_once(part, pace, _size(pace, self.kind, statements=1))
        rows = self.rows(part)
        return rows.each(pace, self.kind, lambda rows: rows.write(self._values), self._then)

    def _at_once(self, part: WalkableQuerySet[Any], pace: Pace, size: Size) -> int:
        """Find the rows, take them and write them in one statement."""
        number = size.number
        total = pace.step(size, lambda number: self._statement(part, number).written(part))
        if total == number:  # there are more: go to them, and not past what is written already
            total += sum(self._at_once(half, pace, size) for half in part.halves())
        return total

    def _statement(self, part: WalkableQuerySet[Any], number: int) -> Statement:
        if number not in self._statements:
            rows = self.rows(part).free(number)
            query: Any = rows.query.chain(DeleteQuery if self._values is None else UpdateQuery)
            if self._values is not None:
                query.add_update_values(self._values)
            self._statements[number] = part.statement(query)
        return self._statements[number]


def _size(pace: Pace, kind: str, statements: int) -> Size:
    """Return how many rows so many statements handle, which write to them or prepare that."""
    # Where a range is full, it is so small that its statements write less than this.
    first = min(FIRST, ROWS)
    return pace.size(kind, first, least=first, target=1 + statements)
