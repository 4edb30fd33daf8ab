"""Takes over the ledger of versions before the catalog: `state/ledger.sqlite3`, in any of its five versions."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Table

from app.catalog.database import insert_or_ignore
from app.catalog.tables import FILES, MOUNTS, SUPERSEDED, UNSETTLED
from app.core.errors import OceanoError
from app.core.files import sync

_log = logging.getLogger(__name__)

_VERSION: Final = 5
_PAGE: Final = 1000
# What versions 2 to 5 added; a database of an earlier version gets it before it is read.
_ADDED: Final = """
CREATE TABLE IF NOT EXISTS superseded (
    collection TEXT NOT NULL, image_id TEXT NOT NULL, path BLOB NOT NULL, faces INTEGER NOT NULL,
    PRIMARY KEY (collection, image_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mounts (place BLOB NOT NULL, point BLOB NOT NULL, PRIMARY KEY (place, point)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unsettled (
    collection TEXT NOT NULL, image_id TEXT NOT NULL, PRIMARY KEY (collection, image_id)
) WITHOUT ROWID;
"""
_CTIME: Final = "ALTER TABLE files ADD COLUMN ctime_ns INTEGER;"
_COPIES: Final = """
INSERT OR IGNORE INTO unsettled SELECT collection, image_id FROM files
WHERE image_id IS NOT NULL GROUP BY collection, image_id HAVING COUNT(*) > 1;
"""


def adopting(ledger: Path) -> Callable[[Connection], None]:
    """Return a function that copies a ledger's rows into a new catalog; nothing if the file does not exist.

    The file is not changed.

    Raises:
        OceanoError: by the function: `ledger_unavailable` if the ledger is damaged, or a newer version wrote it.
    """

    def adopt(connection: Connection) -> None:
        if not ledger.exists():
            return
        copy = ledger.with_name(f".{ledger.name}.{os.getpid()}.adopt")
        try:
            shutil.copyfile(ledger, copy)
            if _journal(ledger).exists():  # of a process that was killed: SQLite rolls its transaction back
                shutil.copyfile(_journal(ledger), _journal(copy))
            _copy_rows(copy, ledger, connection)
        except (sqlite3.Error, OSError, UnicodeDecodeError) as failure:  # a message may quote bytes of a damaged file
            raise OceanoError(
                "ledger_unavailable", f"{ledger} cannot be read: {failure}", details={"path": str(ledger)}
            ) from failure
        finally:
            for path in (copy, _journal(copy)):
                path.unlink(missing_ok=True)

    return adopt


def put_aside(ledger: Path, version: str) -> None:
    """Rename a ledger whose rows are in the catalog; it stays as `ledger.sqlite3.before-VERSION`."""
    if not ledger.exists():
        return
    aside = ledger.with_name(f"{ledger.name}.before-{version}")
    if _journal(ledger).exists():
        _journal(ledger).rename(_journal(aside))
    ledger.rename(aside)
    sync(aside.parent)
    _log.info("the catalog has taken over %s, which is kept as %s", ledger, aside.name)


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}-journal")


def _copy_rows(copy: Path, ledger: Path, connection: Connection) -> None:
    with closing(sqlite3.connect(copy, isolation_level=None)) as old:
        found = int(old.execute("PRAGMA user_version").fetchone()[0])
        if found > _VERSION:
            raise OceanoError("ledger_unavailable", f"{ledger} was written by a newer Oceano (version {found})")
        if found < _VERSION:
            old.executescript(f"BEGIN; {_ADDED} {_CTIME if found < 4 else ''} {_COPIES} COMMIT;")
        for table in (FILES, SUPERSEDED, UNSETTLED, MOUNTS):
            _copy_table(old, table, connection)


def _copy_table(old: sqlite3.Connection, table: Table, connection: Connection) -> None:
    names = [column.name for column in table.columns]
    rows = old.execute(f"SELECT {', '.join(names)} FROM {table.name}")  # noqa: S608 - our own names
    statement = insert_or_ignore(table, connection.dialect.name)
    while page := rows.fetchmany(_PAGE):
        connection.execute(statement, [dict(zip(names, row, strict=True)) for row in page])
