"""Many rows for one table in one statement, for logs that a busy gateway writes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from functools import cache

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql

_PART = {"sqlite": 64, "postgresql": 1000}
_PAUSE_S = 0.0002


def insert_rows(connection: Connection, table: Table, rows: Iterable[tuple[object, ...]]) -> None:
    """Adds `rows`, each with a value for every column of `table`, in order. A row whose key is there is left alone.
    They are made as they are needed.

    Past SQLAlchemy's own insert, which costs several microseconds a row: SQLite takes the rows as they are, and
    PostgreSQL takes each column as one array (measured there against `executemany`: a quarter of the time).
    SQLite works in this very thread. On a machine without a core to spare it would keep the event loop from working
    until the last row is written, so it takes a part of them at a time and then lets others go first.

    Raises:
        DataError, IntegrityError: A value does not fit; the caller's transaction may have got the rows before it.
    """
    dialect = connection.dialect.name
    left = iter(rows)
    while part := list(itertools.islice(left, _PART[dialect])):
        if dialect == "sqlite":
            connection.exec_driver_sql(_sqlite(table), part)
            time.sleep(_PAUSE_S)
        else:
            columns = [list(column) for column in zip(*part, strict=True)]
            connection.exec_driver_sql(_postgresql(table), tuple(columns))


@cache
def _sqlite(table: Table) -> str:
    marks = ", ".join("?" * len(table.columns))
    return f"INSERT INTO {table.name} ({_names(table)}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608 - ours


@cache
def _postgresql(table: Table) -> str:
    dialect = postgresql.dialect()
    arrays = ", ".join(f"%s::{column.type.compile(dialect)}[]" for column in table.columns)
    return (
        f"INSERT INTO {table.name} ({_names(table)}) SELECT * FROM unnest({arrays}) "  # noqa: S608 - our own names
        "ON CONFLICT DO NOTHING"
    )


def _names(table: Table) -> str:
    return ", ".join(f'"{column.name}"' for column in table.columns)
