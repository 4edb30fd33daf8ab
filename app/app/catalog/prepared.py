"""Statements of the ingest's most frequent transactions as SQL text; SQLAlchemy's preparation costs more."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import Column, Connection, Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import psycopg

from app.catalog.database import AnyRow, insert_or_replace, insert_or_update

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


def update_rows(
    connection: Connection, table: Table, columns: tuple[str, ...], values: Sequence[tuple[object, ...]]
) -> None:
    """Insert rows, and set some columns of those with the same key.

    Args:
        connection: in a transaction.
        table: the target.
        columns: that are set.
        values: the rows, in the order of the table's columns.
    """
    if values:
        connection.exec_driver_sql(_updating(table, connection.dialect.name, columns), list(values))


def clear_rows(
    connection: Connection, table: Table, columns: tuple[str, ...], keys: Sequence[tuple[object, ...]]
) -> None:
    """Set some columns of rows to NULL; rows that do not exist are left out.

    Args:
        connection: in a transaction.
        table: the target.
        columns: that become NULL.
        keys: the rows, in the order of the table's primary key.
    """
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    empty = ", ".join(f"{name} = NULL" for name in columns)
    these = " AND ".join(f"{column.name} = {mark}" for column in table.primary_key)
    if keys:
        connection.exec_driver_sql(f"UPDATE {table.name} SET {empty} WHERE {these}", list(keys))  # noqa: S608 - no values


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
    return _compiled(insert_or_replace(table, dialect), table, dialect)


@cache
def _updating(table: Table, dialect: str, columns: tuple[str, ...]) -> str:
    return _compiled(insert_or_update(table, dialect, columns), table, dialect)


def _compiled(statement: Any, table: Table, dialect: str) -> str:
    names = [column.name for column in table.columns]
    return str(statement.compile(dialect=_DIALECTS[dialect], column_keys=names))
