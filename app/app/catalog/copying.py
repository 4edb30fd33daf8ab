"""Copies the rows of tables between catalogs of either kind, in pages, and computes digests to compare them.

Workers, what they have of a job, and the indexes are not copied: a copy belongs to no process, and to no index yet. A
job that had not ended is interrupted in the copy. If it is resumed there, it scans its folder again, because its list
of files is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Table, select
from sqlalchemy.sql import ColumnElement

from app.catalog.clock import timestamp
from app.catalog.database import insert_or_ignore, storable
from app.catalog.jobs import ENDED
from app.catalog.tables import CLAIMS, COPIED_NAMES, INDEXES, JOBS, METADATA, MISSING, RESERVATIONS, SESSIONS, WORKERS

NOT_COPIED: Final = (CLAIMS, COPIED_NAMES, INDEXES, MISSING, RESERVATIONS, SESSIONS, WORKERS)
COPIED: Final = tuple(table for table in METADATA.sorted_tables if table not in NOT_COPIED)
_PAGE: Final = 1000
_BYTES: Final = 16
_MADE_BY_THE_COPY: Final = frozenset({JOBS.c.ended_at.name})  # not compared

Row = Mapping[str, Any]
Condition = ColumnElement[bool] | None


class Stopped(Exception):
    """The user stopped a copy; the transaction that it was part of has changed nothing."""


@dataclass(frozen=True, slots=True)
class Digest:
    """What two tables with the same rows have in common, whatever their order.

    Attributes:
        rows: number of rows.
        digest: the sum of the rows' hashes modulo 2^128.
    """

    rows: int
    digest: int


class Summing:
    """Adds up the digest of rows."""

    def __init__(self) -> None:
        self._rows = self._sum = 0

    def add(self, row: Row) -> None:
        """Add a row."""
        compared = [value for name, value in row.items() if name not in _MADE_BY_THE_COPY]
        found = hashlib.blake2b(repr(compared).encode("utf-8", "backslashreplace"), digest_size=_BYTES)
        self._rows += 1
        self._sum = (self._sum + int.from_bytes(found.digest())) % (1 << 8 * _BYTES)

    def digest(self) -> Digest:
        """Return the digest of the rows so far."""
        return Digest(self._rows, self._sum)


def never() -> bool:
    """Return False, for a copy that is not stopped."""
    return False


def read_rows(source: Connection, table: Table, where: Condition = None) -> Iterator[list[Row]]:
    """Yield the rows of a table as a copy has them, in pages."""
    query = select(table) if where is None else select(table).where(where)
    for page in source.execute(query.execution_options(yield_per=_PAGE)).mappings().partitions(_PAGE):
        yield [_copied(table, row) for row in page]


def copy_rows(
    source: Connection,
    target: Connection,
    table: Table,
    *,
    where: Condition = None,
    stop: Callable[[], bool] = never,
) -> Digest:
    """Copy the rows that the target lacks; rows with the same key stay as they are.

    Args:
        source: to read from.
        target: in a transaction.
        table: of both.
        where: copy only these rows.
        stop: asked before each page.

    Returns:
        The digest of the source's rows, also of those that the target had already.

    Raises:
        Stopped: `stop` returned true.
    """
    statement = insert_or_ignore(table, target.dialect.name)
    sums = Summing()
    for page in read_rows(source, table, where):
        if stop():
            raise Stopped
        for row in page:
            sums.add(row)
        target.execute(statement, page)
    return sums.digest()


def digest_of(connection: Connection, table: Table, where: Condition = None) -> Digest:
    """Return the digest of a table, or of those of its rows that meet a condition."""
    sums = Summing()
    for page in read_rows(connection, table, where):
        for row in page:
            sums.add(row)
    return sums.digest()


def _copied(table: Table, row: Mapping[Any, Any]) -> Row:
    values: dict[str, Any] = {name: storable(value) if isinstance(value, str) else value for name, value in row.items()}
    if table is not JOBS or values["state"] == "done":
        return values
    if values["state"] not in ENDED:
        values |= {"state": "interrupted", "ended_at": timestamp()}
    return values | {"shared": 0, "phase": "scan", "holder": None}
