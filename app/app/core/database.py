"""SQLite files that several threads and processes use: connection, schema, transactions, copies, errors."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from app.core.errors import ErrorCode, OceanoError

TIMEOUT_SECONDS: Final = 30  # to wait for a writer in another process


class Database:
    """One SQLite file. Safe to call from several threads.

    Args:
        path: the file; it and its folder are created if missing.
        schema: SQL that creates everything that is missing, for any version up to `version`.
        version: of the schema, kept as `user_version`; a database with a higher one is refused.

    Raises:
        OceanoError: `ledger_unavailable` or `disk_full`, from every method.
    """

    def __init__(self, path: Path, *, schema: str, version: int) -> None:
        self.path = path
        self._lock = threading.Lock()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with sqlite_errors(path):
            self._connection = sqlite3.connect(
                path, timeout=TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
            )
            make_durable(self._connection)
            found = self._version()
            if found > version:
                raise OceanoError("ledger_unavailable", f"{path} was written by a newer Oceano (version {found})")
            if found < version:
                self._upgrade(schema, version)
        with suppress(OSError):  # it belongs to another user
            path.chmod(0o600)

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _upgrade(self, sql: str, version: int) -> None:
        try:
            self._connection.executescript(f"BEGIN IMMEDIATE; {sql} PRAGMA user_version = {version}; COMMIT;")
        except sqlite3.OperationalError:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if self._version() < version:  # else another process upgraded it meanwhile
                raise

    def rows(self, query: str, values: Iterable[object] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._lock, sqlite_errors(self.path):
            return self._connection.execute(query, tuple(values)).fetchall()

    @contextmanager
    def transaction(self, attached: Path | None = None) -> Iterator[sqlite3.Connection]:
        """Run a write transaction: committed and on the disk at the end, rolled back on an error.

        Args:
            attached: another database, readable as the schema `attached`.
        """
        with self._lock, sqlite_errors(self.path):
            if attached is not None:
                self._connection.execute("ATTACH ? AS attached", (str(attached),))
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                if attached is not None:
                    self._connection.execute("DETACH attached")

    def backup(self, path: Path) -> None:
        """Write a consistent copy; the caller puts it on the disk (fsync)."""
        with self._lock:
            copy_database(self._connection, self.path, path)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()


def make_durable(connection: sqlite3.Connection) -> None:
    """Use a rollback journal and full synchronisation.

    SQLite 3.7.0 to 3.51.2 can corrupt a WAL that two connections reset, and the service reads while an ingest writes.
    """
    connection.execute("PRAGMA journal_mode = TRUNCATE")
    connection.execute("PRAGMA synchronous = FULL")


def copy_database(connection: sqlite3.Connection, source: Path, target: Path) -> None:
    """Write a consistent copy; the caller puts it on the disk (fsync).

    Writers wait for the copy, so it is made on the database's own disk first and then copied to `target`, which may be
    on a slow one.

    Args:
        connection: to the database; no other thread may use it meanwhile.
        source: the database.
        target: the new file.

    Raises:
        OceanoError: `ledger_unavailable`, `disk_full`.
    """
    temporary = source.with_name(f".{source.name}.{os.getpid()}.backup")
    try:
        with sqlite_errors(target):
            with closing(sqlite3.connect(temporary)) as copy:
                copy.execute("PRAGMA synchronous = OFF")
                connection.backup(copy)
            shutil.copyfile(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Convert errors of SQLite in a file to OceanoErrors: `ledger_unavailable` or `disk_full`."""
    try:
        yield
    except UnicodeDecodeError as failure:  # SQLite's message quotes bytes of a damaged file
        said = failure.object.decode("utf-8", "replace")
        raise OceanoError("ledger_unavailable", f"{path} is damaged: {said}", details={"path": str(path)}) from failure
    except sqlite3.Error as failure:
        raise sqlite_error(path, failure) from failure


def sqlite_error(path: Path, failure: BaseException | None) -> OceanoError:
    """Return the OceanoError of an error of SQLite in a file."""
    full = getattr(failure, "sqlite_errorname", "") == "SQLITE_FULL"
    code: ErrorCode = "disk_full" if full else "ledger_unavailable"
    return OceanoError(code, f"{path}: {failure}", details={"path": str(path)})
