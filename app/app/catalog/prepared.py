"""Statements of the ingest's most frequent transactions as SQL text; SQLAlchemy's preparation costs more."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import Column, Connection, Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import psycopg

from app.catalog.database import AnyRow, insert_or_replace

_DIALECTS: Final[dict[str, Any]] = {
    "sqlite": sqlite.dialect(paramstyle="qmark"),
    "postgresql": psycopg.dialect(paramstyle="format"),  # type: ignore[no-untyped-call]
}


def replace_rows(connection: Connection, table: Table, values: Sequence[tuple[object, ...]]) -> None:
    """Insert rows, and replace those with the same key.

    Args:
        connection: in a transaction.
        table: the target.
        values: the rows, in the order of the table's columns.
    """
    if values:
        connection.exec_driver_sql(_replacing(table, connection.dialect.name), list(values))


def rows_at(
    connection: Connection, columns: Sequence[Column[Any]], collection: str, paths: Sequence[bytes]
) -> Sequence[AnyRow]:
    """Return columns of the files at some paths that have a result."""
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    query = (
        f"SELECT {', '.join(one.name for one in columns)} FROM files WHERE collection = {mark} "  # noqa: S608 - no values
        f"AND path IN ({', '.join([mark] * len(paths))})"
    )
    return connection.exec_driver_sql(query, (collection, *paths)).all()


@cache
def _replacing(table: Table, dialect: str) -> str:
    names = [column.name for column in table.columns]
    compiled = insert_or_replace(table, dialect).compile(dialect=_DIALECTS[dialect], column_keys=names)
    return str(compiled)
