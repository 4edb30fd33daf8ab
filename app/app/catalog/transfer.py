"""Moves catalogs: backups, restores and migrations between SQLite and PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, select, text, union, update
from sqlalchemy.sql import ColumnElement

from app.catalog.audit import lock_audit
from app.catalog.changes import lock_changes
from app.catalog.clock import seconds_now, timestamp
from app.catalog.copying import (
    COPIED,
    NOT_COPIED,
    Digest,
    Stopped,
    copy_rows,
    digest_of,
    never,
)
from app.catalog.database import Database
from app.catalog.jobs import ENDED
from app.catalog.ledger import Ledger
from app.catalog.opening import CATALOG_FILE, EARLIER_LEDGER, open_ledger, open_sqlite
from app.catalog.sqlite import SqliteDatabase
from app.catalog.tables import (
    ASSIGNMENTS,
    AUDIT,
    CHANGED_PEOPLE,
    CHANGED_ROWS,
    CHANGES,
    DISMISSALS,
    FACES,
    FILES,
    JOBS,
    MOUNTS,
    PEOPLE,
    PROBLEMS,
    REJECTIONS,
    SUPERSEDED,
    UNSETTLED,
    WORKERS,
)
from app.catalog.unsettled import unsettle_copies
from app.core.errors import OceanoError

Stop = Callable[[], bool]

_RESULTS: Final = (FACES, FILES, SUPERSEDED, UNSETTLED)  # they belong to the index of their collection
_NAMES: Final = (  # they belong together
    PEOPLE, ASSIGNMENTS, REJECTIONS, DISMISSALS, CHANGES, CHANGED_ROWS, CHANGED_PEOPLE, FACES,
)  # fmt: skip
_TEMPORARY: Final = ".catalog-copy-"
_SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_IDENTITY: Final = text(
    "SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "FROM pg_control_system()"
)


def back_up(database: Database, path: Path, stop: Stop = never) -> None:
    """Write a consistent copy of a catalog as a SQLite file; the caller puts it on the disk (fsync).

    Args:
        database: the catalog; others may write to it meanwhile.
        path: the new file.
        stop: ends the copy once it returns true.

    Raises:
        OceanoError: `ledger_unavailable`, `disk_full`.
        Stopped: `stop` returned true.
    """
    if isinstance(database, SqliteDatabase):
        database.copy(path)
    with closing(open_sqlite(path)) as copy, copy.writing() as target:
        if isinstance(database, SqliteDatabase):
            _leave_workers_behind(target)
        else:
            with _snapshot(database) as source:
                for table in COPIED:
                    copy_rows(source, target, table, stop=stop)
    for left in (f"{path.name}-journal", f".{path.name}.lock"):
        path.with_name(left).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Restored:
    """What is in a catalog after a restore.

    Attributes:
        audit: the audit log of the backup; else the catalog has another one.
        names: the people of the backup with all changes; else the catalog has its own.
    """

    audit: bool
    names: bool


def restore(ledger: Ledger, backup: Path, work_dir: Path, stop: Stop = never) -> Restored:
    """Add what only a backup has, in one durable transaction: an empty catalog becomes that of the backup.

    Of results, only those of the ledger's collection are added, because the index in a backup is of one collection.
    Images with several files become unsettled: the index may have other paths of them. Rows that the catalog has
    already stay as they are. The audit goes on: it is added if the catalog's own is its beginning. People are added if
    the catalog has none and never had.

    Args:
        ledger: of the collection.
        backup: the folder of a file that `back_up` wrote, or of the ledger of an earlier version; it is not changed.
        work_dir: an existing folder for a temporary copy, whose writer's lock the caller has (`only_writer`).
        stop: ends the restore once it returns true.

    Returns:
        What is in the catalog now.

    Raises:
        OceanoError: `ledger_unavailable`, `disk_full`.
        OSError: the copy cannot be written.
        Stopped: `stop` returned true.
    """
    with _temporary_folder(work_dir) as folder:
        for file in (CATALOG_FILE, EARLIER_LEDGER):
            if (backup / file).exists():
                shutil.copyfile(backup / file, folder / file)
                break
        with (
            closing(open_ledger(folder / CATALOG_FILE, ledger.collection)) as source,
            source.database.reading() as reading,
            ledger.database.exclusive(),
            ledger.database.writing() as writing,
        ):
            _let_idle(writing)
            restored = Restored(audit=_continues(reading, writing), names=_has_no_names(reading, writing))
            left_out = {*(() if restored.audit else (AUDIT,)), *(() if restored.names else _NAMES)}
            for table in COPIED:
                where = table.c.collection == ledger.collection if table in _RESULTS else None
                if table not in left_out:
                    copy_rows(reading, writing, table, where=where, stop=stop)
            unsettle_copies(writing)
    return restored


def migrate(source: Database, target: Database, work_dir: Path, stop: Stop = never) -> Mapping[str, Digest]:
    """Copy all rows to another catalog in one transaction, and compare both before it is committed.

    The target may have results and jobs of other collections, but no other people, keys and so on. The source is not
    changed. Nobody may write results to it meanwhile.

    Args:
        source: the current catalog.
        target: another one.
        work_dir: an existing folder for a temporary copy, whose writer's lock the caller has (`only_writer`).
        stop: ends the migration once it returns true.

    Returns:
        The digests by table; those of the target are the same.

    Raises:
        OceanoError: `invalid_request` if the target is the source or has other rows of its collections,
            `ledger_unavailable`, `disk_full`. The target is unchanged then.
        Stopped: `stop` returned true.
    """
    if _identity(source) == _identity(target):
        raise OceanoError("invalid_request", f"{target.name} is the current catalog under another address")
    with _frozen(source, work_dir) as reading, target.writing() as writing:
        _let_idle(writing)
        lock_audit(writing)
        copied = {table.name: copy_rows(reading, writing, table, stop=stop) for table in COPIED}
        collections = _collections(reading)
        for table in COPIED:
            if table is MOUNTS:  # the target may have more of them
                continue
            found = digest_of(writing, table, _of_collections(table, collections))
            if found != copied[table.name]:
                advice = "move this file away" if isinstance(target, SqliteDatabase) else "use an empty database"
                raise OceanoError(
                    "invalid_request",
                    f"{target.name} has other rows in the table {table.name} than the current catalog. Nothing was "
                    f"changed; {advice}, then run the same command again",
                    details={"table": table.name},
                )
            if stop():
                raise Stopped
    return copied


def require_no_workers(database: Database) -> None:
    """Refuse a catalog with workers on this or other machines. On SQLite, the lock of the data folder says that.

    Raises:
        OceanoError: `ingest_in_progress` with their names, `ledger_unavailable`.
    """
    if isinstance(database, SqliteDatabase):
        return
    with database.reading() as connection:
        alive = select(WORKERS.c.name).where(WORKERS.c.leased_until >= seconds_now(connection))
        names = connection.execute(alive.order_by(WORKERS.c.name)).scalars().all()
    if names:
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise OceanoError(
            "ingest_in_progress",
            f"{len(names)} ingests or workers use {database.name} ({shown}); stop them first",
            details={"workers": len(names)},
        )


@contextmanager
def _snapshot(database: Database) -> Iterator[Connection]:
    """Read a PostgreSQL database as it is now, while others write to it."""
    with database.reading() as connection:
        connection.exec_driver_sql(_SNAPSHOT)
        _let_idle(connection)
        yield connection


def _let_idle(connection: Connection) -> None:
    """Let a transaction wait longer than usual for its next statement: the other catalog may be read meanwhile."""
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")


@contextmanager
def _frozen(database: Database, work_dir: Path) -> Iterator[Connection]:
    """Read a catalog as it is now. Of SQLite it is a copy, because others cannot write while it is read."""
    if not isinstance(database, SqliteDatabase):
        with _snapshot(database) as connection:
            yield connection
        return
    with _temporary_folder(work_dir) as folder:
        database.copy(folder / CATALOG_FILE)
        with closing(open_sqlite(folder / CATALOG_FILE)) as copy, copy.reading() as connection:
            yield connection


@contextmanager
def _temporary_folder(work_dir: Path) -> Iterator[Path]:
    """Make a folder for a copy, and remove those of killed processes: only the holder of the writer's lock is here."""
    for left in work_dir.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(dir=work_dir, prefix=_TEMPORARY) as name:
        yield Path(name)


def _leave_workers_behind(connection: Connection) -> None:
    """Do in a copied SQLite file what `copy_rows` does to each row."""
    for table in NOT_COPIED:
        connection.execute(delete(table))
    unfinished = update(JOBS).where(JOBS.c.state.not_in(ENDED))
    connection.execute(unfinished.values(state="interrupted", ended_at=timestamp()))
    continued = update(JOBS).where(JOBS.c.state != "done")
    connection.execute(continued.values(shared=0, phase="scan", holder=None))


def _continues(source: Connection, target: Connection) -> bool:
    """Return whether the target's audit, a chain of digests, is the beginning of the source's."""
    lock_audit(target)
    newest = select(AUDIT.c.number, AUDIT.c.digest).order_by(AUDIT.c.number.desc()).limit(1)
    last = target.execute(newest).one_or_none()
    if last is None:
        return True
    same = select(AUDIT.c.number).where(AUDIT.c.number == last.number, AUDIT.c.digest == last.digest)
    return source.execute(same).one_or_none() is not None


def _has_no_names(source: Connection, target: Connection) -> bool:
    """Return whether the target has no people and no changes, or only those of the source, as after a repeat."""
    lock_changes(target)
    newest = select(CHANGES.c.number, CHANGES.c.at, CHANGES.c.who).order_by(CHANGES.c.number.desc()).limit(1)
    last = target.execute(newest).one_or_none()
    return last is None or last == source.execute(newest).one_or_none()


def _collections(source: Connection) -> list[str]:
    tables = [table for table in COPIED if "collection" in table.c]
    return list(source.execute(union(*(select(table.c.collection) for table in tables))).scalars())


def _of_collections(table: Table, collections: list[str]) -> ColumnElement[bool] | None:
    if "collection" in table.c:
        return table.c.collection.in_(collections)
    if table is PROBLEMS:
        return table.c.job_id.in_(select(JOBS.c.id).where(JOBS.c.collection.in_(collections)))
    return None


def _identity(database: Database) -> tuple[Any, ...]:
    if isinstance(database, SqliteDatabase):
        return (database.path.resolve(),)
    with database.reading() as connection:
        return tuple(connection.execute(_IDENTITY).one())
