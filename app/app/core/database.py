"""A SQLite database that several threads and processes use: connection, schema, transactions, backup."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from app.core.errors import OceanoError

_TIMEOUT_SECONDS: Final = 30  # to wait for a writer in another process


class Database:
    """One SQLite file. Safe to call from several threads.

    Rollback journal and full synchronisation: SQLite 3.7.0 to 3.51.2 can corrupt a WAL that two connections reset,
    and the service reads while an ingest writes.

    Args:
        path: the file; it and its folder are created if missing.
        schema: SQL that creates everything that is missing, for any version up to `version`.
        version: of the schema, kept as `user_version`; a database with a higher one is refused.
        upgrades: SQL by version that `schema` cannot express, for an existing database of an earlier version.

    Raises:
        OceanoError: `ledger_unavailable` or `disk_full`, from every method.
    """

    def __init__(
        self, path: Path, *, schema: str, version: int, upgrades: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        self.path = path
        self._lock = threading.Lock()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _oceano_errors(path):
            self._connection = sqlite3.connect(
                path, timeout=_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = TRUNCATE")
            self._connection.execute("PRAGMA synchronous = FULL")
            found = self._version()
            if found > version:
                raise OceanoError("ledger_unavailable", f"{path} was written by a newer Oceano (version {found})")
            if found < version:
                newer = [sql for number, sql in sorted(upgrades.items()) if 0 < found < number]
                self._upgrade(f"{schema} {' '.join(newer)}", version)
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

    def check(self) -> None:
        """Read the whole file on a connection of its own, and raise `ledger_unavailable` if it is damaged."""
        with _oceano_errors(self.path), closing(sqlite3.connect(self.path, timeout=_TIMEOUT_SECONDS)) as connection:
            (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if result != "ok":
            raise OceanoError(
                "ledger_unavailable",
                f"{self.path} is damaged: {result}. Stop Oceano, move the file away, and restore it from a backup or "
                "ingest the folders again, which keeps faces and names",
                details={"path": str(self.path)},
            )

    def rows(self, query: str, values: Iterable[object] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._lock, _oceano_errors(self.path):
            return self._connection.execute(query, tuple(values)).fetchall()

    def version(self) -> tuple[int, int]:
        """Return numbers that differ once this or another connection has changed the database."""
        with self._lock, _oceano_errors(self.path):
            (others,) = self._connection.execute("PRAGMA data_version").fetchone()
            return int(others), self._connection.total_changes

    @contextmanager
    def transaction(self, attached: Path | None = None) -> Iterator[sqlite3.Connection]:
        """Run a write transaction: committed and on the disk at the end, rolled back on an error.

        Args:
            attached: another database, readable as the schema `attached`.
        """
        with self._lock, _oceano_errors(self.path):
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
        """Write a consistent copy; the caller puts it on the disk (fsync).

        Writers wait for the copy, so it is made on the database's own disk first and then copied to `path`, which may
        be on a slow one.
        """
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.backup")
        try:
            with self._lock, _oceano_errors(path), closing(sqlite3.connect(temporary)) as copy:
                copy.execute("PRAGMA synchronous = OFF")
                self._connection.backup(copy)
            with _oceano_errors(path):
                shutil.copyfile(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()


@contextmanager
def _oceano_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as failure:
        full = getattr(failure, "sqlite_errorname", "") == "SQLITE_FULL"
        raise OceanoError(
            "disk_full" if full else "ledger_unavailable", f"{path}: {failure}", details={"path": str(path)}
        ) from failure
