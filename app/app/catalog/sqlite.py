"""The catalog in one SQLite file: one machine, one process at a time that writes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, ResourceClosedError
from sqlalchemy.pool import StaticPool

from app.catalog.retry import RetryPolicy
from app.core.database import TIMEOUT_SECONDS, copy_database, make_durable, sqlite_error, sqlite_errors
from app.core.errors import OceanoError


class SqliteDatabase:
    """One SQLite file, on one connection that threads use in turn.

    Args:
        path: the file; it and its folder are created if missing.
    """

    has_many_writers = False
    longest_path = 1_000_000  # of Linux: 4,096

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self._lock = threading.Lock()
        self.retries = RetryPolicy()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.engine = _engine(path)
        with _oceano_errors(self.path):
            self._connection = self.engine.connect()
        with suppress(OSError):  # it belongs to another user
            path.chmod(0o600)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._lock, _oceano_errors(self.path):
            try:
                yield self._connection
            finally:
                self._connection.rollback()

    @contextmanager
    def writing(self, *, urgent: bool = False) -> Iterator[Connection]:
        with self._lock, _oceano_errors(self.path):
            self._connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.commit()
            except BaseException:
                self._connection.rollback()
                raise

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        yield

    def version(self) -> tuple[object, ...]:
        with self.reading() as connection:
            others = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
            raw: Any = connection.connection.dbapi_connection
            return others, raw.total_changes

    def check(self) -> None:
        with _oceano_errors(self.path), closing(sqlite3.connect(self.path, timeout=TIMEOUT_SECONDS)) as connection:
            (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if result != "ok":
            raise OceanoError(
                "ledger_unavailable",
                f"{self.path} is damaged: {result}. Stop Oceano, move the file away, and restore it from a backup or "
                "ingest the folders again, which keeps faces and names",
                details={"path": self.name},
            )

    def copy(self, path: Path) -> None:
        """Write a consistent copy; the caller puts it on the disk (fsync)."""
        with self.reading() as connection:
            raw: Any = connection.connection.dbapi_connection
            copy_database(raw, self.path, path)

    def close(self) -> None:
        with self._lock:
            self._connection.close()
            self.engine.dispose()


def _engine(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        poolclass=StaticPool,
        # None: the driver begins no transactions, see `writing`
        connect_args={"timeout": TIMEOUT_SECONDS, "isolation_level": None, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: object) -> None:
        make_durable(connection)
        connection.execute("PRAGMA foreign_keys = ON")

    return engine


@contextmanager
def _oceano_errors(path: Path) -> Iterator[None]:
    try:
        with sqlite_errors(path):
            yield
    except ResourceClosedError as failure:
        raise OceanoError("ledger_unavailable", f"{path} is closed", details={"path": str(path)}) from failure
    except DBAPIError as failure:
        raise sqlite_error(path, failure.orig) from failure
