"""
Empties the tables after a test that has committed, in place of Django's "flush". That deletes the
content types and the permissions as well, and makes them anew: this takes longer than most tests.
"""

from itertools import compress
from typing import Any

from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management.color import no_style
from django.db import connection
from django.test import TransactionTestCase

KEPT = ContentType, Permission

flush: Any = TransactionTestCase._fixture_teardown  # type: ignore[attr-defined]
# The rows that are kept, as Django has made them; nothing before the first flush.
made: list[Any] = []


def empty_tables(case: Any) -> None:
    """In place of ``TransactionTestCase._fixture_teardown()``."""
    usual = case.available_apps is None and not case.serialized_rollback
    if usual and case._databases_names(include_mirrors=False) == ["default"] and made == kept():
        tables = with_rows()
        # To "cascade" is to empty what refers to these tables as well.
        statements = connection.ops.sql_flush(no_style(), tables, allow_cascade=True)
        connection.ops.execute_sql_flush(statements)
    else:
        flush(case)
        made[:] = kept()


def with_rows() -> list[str]:
    """
    Return the tables that a test has written to: few, and PostgreSQL is slow to empty one. There,
    what a test has taken back counts as well: the purge is about the blocks that a table has.
    """
    there = connection.introspection.django_table_names(True, include_views=False)
    tables = {*there} - {model._meta.db_table for model in KEPT}
    has_rows = "EXISTS (SELECT 1 FROM {})"
    if connection.vendor == "postgresql":
        has_rows = "pg_relation_size('{}') > 0"
    asked = ", ".join(has_rows.format(connection.ops.quote_name(table)) for table in tables)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {asked}")
        return [*compress(tables, cursor.fetchone())]


def kept() -> list[Any]:
    return [row for model in KEPT for row in model.objects.order_by("pk").values_list()]
