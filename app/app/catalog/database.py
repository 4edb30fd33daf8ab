"""A database of the catalog: connections, transactions and errors, for SQLite and PostgreSQL alike.

Statements are SQLAlchemy Core. What the two databases do differently is in `sqlite` and `postgresql`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Protocol

from sqlalchemy import Connection, Row, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import Executable, Select

from app.catalog.retry import RetryPolicy

Values = Mapping[str, object]
AnyRow = Row[*tuple[Any, ...]]


class Database(Protocol):
    """A database with the current tables. Safe for threads.

    All methods raise OceanoError: `ledger_unavailable` or `disk_full`.
    """

    name: str
    """How messages name it: a path, or a URL without the password."""
    has_many_writers: bool
    """Whether several processes may write results at once."""
    retries: RetryPolicy
    """How long requests are retried while the server is away; a file needs none."""
    longest_path: int
    """Bytes of the longest path that has a place in the tables."""

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection for queries; each sees what was committed before it."""
        ...

    def writing(self, *, urgent: bool = False) -> AbstractContextManager[Connection]:
        """A write transaction: committed and on the disk at the end, rolled back on an error.

        It waits while another process or thread has the catalog to itself (`exclusive`), unless it is urgent, as the
        leases of workers are.
        """
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """Let no other process or thread write results; this thread may, and may enter again.

        SQLite: the lock of the data folder allows one ingest anyway.
        """
        ...

    def version(self) -> tuple[object, ...]:
        """Values that differ once this or another connection has changed the database."""
        ...

    def check(self) -> None:
        """Read the tables, and raise `ledger_unavailable` if they are damaged."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


def rows(database: Database, query: Select[Any], values: Values | None = None) -> Sequence[AnyRow]:
    """Return all rows of a query."""

    def read() -> Sequence[AnyRow]:
        with database.reading() as connection:
            return connection.execute(query, values or {}).all()

    return database.retries.run(read)


def storable(value: str | None) -> str | None:
    """Return a text without what a database refuses: NUL characters, and bytes of file names that are not UTF-8."""
    if value is None or (value.isascii() and "\0" not in value):
        return value
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def execute_many(connection: Connection, statement: Executable, values: Sequence[Values]) -> None:
    """Run a statement once for each set of values; nothing if there is none."""
    if values:
        connection.execute(statement, values)


@cache
def insert_or_ignore(table: Table, dialect: str) -> Any:
    """Return an INSERT for `sqlite` or `postgresql` that leaves rows with the same key as they are."""
    return _insert(table, dialect).on_conflict_do_nothing()


@cache
def insert_or_replace(table: Table, dialect: str) -> Any:
    """Return an INSERT for `sqlite` or `postgresql` that replaces rows with the same key."""
    return _replacing(_insert(table, dialect), table)


@cache
def insert_or_update(table: Table, dialect: str, columns: tuple[str, ...]) -> Any:
    """Return an INSERT for `sqlite` or `postgresql` that sets some columns of rows with the same key."""
    return _updating(_insert(table, dialect), table, columns)


def insert_from(table: Table, query: Select[Any], dialect: str, *, replace: bool) -> Any:
    """Return an INSERT of the rows of a query, whose columns are named as those of the table.

    Args:
        table: the target.
        query: the rows.
        dialect: `sqlite` or `postgresql`.
        replace: replace rows with the same key; else they stay as they are.
    """
    statement = _insert(table, dialect).from_select(query.selected_columns.keys(), query)
    return _replacing(statement, table) if replace else statement.on_conflict_do_nothing()


def _insert(table: Table, dialect: str) -> Any:
    return (sqlite if dialect == "sqlite" else postgresql).insert(table)


def _replacing(statement: Any, table: Table) -> Any:
    return _updating(statement, table, [column.name for column in table.columns if not column.primary_key])


def _updating(statement: Any, table: Table, columns: Sequence[str]) -> Any:
    keys = [column.name for column in table.primary_key]
    return statement.on_conflict_do_update(
        index_elements=keys, set_={name: statement.excluded[name] for name in columns}
    )
