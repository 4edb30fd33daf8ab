"""The catalog in one SQLite file: one machine, one process at a time that writes."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, ResourceClosedError
from sqlalchemy.pool import StaticPool

from app.catalog.retry import Patience
from app.core.errors import OceanoError

_TIMEOUT_SECONDS: Final = 30  # to wait for a writer in another process


class SqliteDatabase:
    """One SQLite file, on one connection that threads use in turn.

    Rollback journal and full synchronisation: SQLite 3.7.0 to 3.51.2 can corrupt a WAL that two connections reset,
    and the service reads while an ingest writes.

    Args:
        path: the file; it and its folder are created if missing.
    """

    has_many_writers = False
    longest_path = 1_000_000  # of Linux: 4,096

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self._lock = threading.Lock()
        self.patience = Patience()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.engine = _engine(path)
        with _oceano_errors(self.name):
            self._connection = self.engine.connect()
        with suppress(OSError):  # it belongs to another user
            path.chmod(0o600)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._lock, _oceano_errors(self.name):
            try:
                yield self._connection
            finally:
                self._connection.rollback()

    @contextmanager
    def writing(self, *, urgent: bool = False) -> Iterator[Connection]:
        with self._lock, _oceano_errors(self.name):
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
        with _oceano_errors(self.name), closing(sqlite3.connect(self.path, timeout=_TIMEOUT_SECONDS)) as connection:
            (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if result != "ok":
            raise OceanoError(
                "ledger_unavailable",
                f"{self.path} is damaged: {result}. Stop Oceano, move the file away, and restore it from a backup or "
                "ingest the folders again, which keeps faces and names",
                details={"path": self.name},
            )

    def copy(self, path: Path) -> None:
        """Write a consistent copy; the caller puts it on the disk (fsync).

        Writers wait for the copy, so it is made on the database's own disk first and then copied to `path`, which may
        be on a slow one.
        """
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.backup")
        try:
            with self.reading() as connection, closing(sqlite3.connect(temporary)) as copy:
                copy.execute("PRAGMA synchronous = OFF")
                raw: Any = connection.connection.dbapi_connection
                raw.backup(copy)
            with _oceano_errors(str(path)):
                shutil.copyfile(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def close(self) -> None:
        with self._lock:
            self._connection.close()
            self.engine.dispose()


def _engine(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        poolclass=StaticPool,
        # None: the driver begins no transactions, see `writing`
        connect_args={"timeout": _TIMEOUT_SECONDS, "isolation_level": None, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    return engine


@contextmanager
def _oceano_errors(name: str) -> Iterator[None]:
    try:
        yield
    except ResourceClosedError as failure:
        raise OceanoError("ledger_unavailable", f"{name} is closed", details={"path": name}) from failure
    except (sqlite3.Error, DBAPIError) as failure:
        original = failure.orig if isinstance(failure, DBAPIError) else failure
        full = getattr(original, "sqlite_errorname", "") == "SQLITE_FULL"
        raise OceanoError(
            "disk_full" if full else "ledger_unavailable", f"{name}: {original}", details={"path": name}
        ) from failure
