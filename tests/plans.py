"""How the databases answer a statement."""

from django.db import connection, transaction


@transaction.atomic
def plan_of(sql: str) -> str:
    """Return how the database answers a statement, as it does where tables are large."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            for way in ("sort", "seqscan", "bitmapscan"):
                cursor.execute(f"SET LOCAL enable_{way} = off")
        explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
        cursor.execute(f"{explain} {sql}")
        return "\n".join(str(row) for row in cursor.fetchall())
