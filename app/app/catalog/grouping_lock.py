"""The lock that lets one process at a time group the faces of a collection; it dies with the process."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final

from sqlalchemy import func, select

from app.catalog.database import Database
from app.catalog.postgresql import PostgresqlDatabase
from app.catalog.sqlite import SqliteDatabase
from app.catalog.writers_lock import Held
from app.core.errors import OceanoError
from app.core.locks import try_lock

_NUMBER: Final = 0x0CEA_0005  # any number that only Oceano uses in its database
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.-]")


@contextmanager
def only_grouping(database: Database, collection: str) -> Iterator[Callable[[], None]]:
    """Hold the lock of a collection until the context ends.

    Args:
        database: the catalog.
        collection: full name of the index's collection.

    Yields:
        A function that raises OceanoError `ledger_unavailable` if the lock was lost.

    Raises:
        OceanoError: `ingest_in_progress` if another process has it, `ledger_unavailable`.
    """
    if isinstance(database, PostgresqlDatabase):
        with _on_server(database, collection) as require:
            yield require
        return
    assert isinstance(database, SqliteDatabase)  # noqa: S101 - there are two kinds
    path = database.path.with_name(f"grouping-{_UNSAFE.sub('_', collection)}.lock")
    try:
        handle = try_lock(path)
    except OSError as failure:
        raise OceanoError("ledger_unavailable", f"{path} cannot be opened: {failure}") from failure
    if handle is None:
        raise _busy()
    try:
        yield lambda: None
    finally:
        os.close(handle)


@contextmanager
def _on_server(database: PostgresqlDatabase, collection: str) -> Iterator[Callable[[], None]]:
    with database.reading() as connection:
        if not connection.scalar(select(func.pg_try_advisory_xact_lock(_NUMBER, func.hashtext(collection)))):
            raise _busy()
        with closing(Held(connection)) as held:

            def require() -> None:
                if (failure := held.failure()) is not None:
                    raise OceanoError("ledger_unavailable", f"this grouping lost its lock: {failure}") from failure

            yield require


def _busy() -> OceanoError:
    return OceanoError(
        "ingest_in_progress", "another process groups the faces of this index now; what is new will be in its groups"
    )
