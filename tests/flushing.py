"""
Empties the tables after a test that has committed, in place of Django's "flush". That deletes the
content types and the permissions as well, and makes them anew: this takes longer than most tests.
"""

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
        names = {model._meta.db_table for model in KEPT}
        tables = connection.introspection.django_table_names(True, include_views=False)
        statements = connection.ops.sql_flush(no_style(), [*{*tables} - names])
        connection.ops.execute_sql_flush(statements)
    else:
        flush(case)
        made[:] = kept()


def kept() -> list[Any]:
    return [row for model in KEPT for row in model.objects.order_by("pk").values_list()]
