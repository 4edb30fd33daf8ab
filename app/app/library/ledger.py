"""SQLite: what was ingested, from where, with what result. The only module that imports sqlite3."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from app.core.errors import OceanoError
from app.library.mounts import Mount

Status = Literal["done", "no_face", "failed", "duplicate"]

_SCHEMA_VERSION: Final = 3
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS files (
    collection TEXT NOT NULL,      -- faces__antelopev2__4ab1d643
    path BLOB NOT NULL,            -- the bytes of the absolute path: names can be in any encoding
    size INTEGER NOT NULL,         -- bytes
    mtime_ns INTEGER NOT NULL,
    image_id TEXT,                 -- SHA-256 of the contents; NULL where they could not be read
    status TEXT NOT NULL CHECK (status IN ('done', 'no_face', 'failed', 'duplicate')),
    reason TEXT,                   -- an error code
    message TEXT,
    faces INTEGER NOT NULL DEFAULT 0,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (collection, path)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS superseded ( -- images with faces whose file became another image
    collection TEXT NOT NULL,
    image_id TEXT NOT NULL,
    path BLOB NOT NULL,
    faces INTEGER NOT NULL,
    PRIMARY KEY (collection, image_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mounts ( -- drives with such files: those below `place`, where one is mounted at `point`
    place BLOB NOT NULL,
    point BLOB NOT NULL,
    PRIMARY KEY (place, point)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_image ON files (collection, image_id);
"""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file's result; `path` is absolute (os.fsdecode), `size` in bytes, `faces` points in the index."""

    path: str
    size: int
    mtime_ns: int
    image_id: str | None
    status: Status
    faces: int = 0
    reason: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """Files by result, and the faces of all images together."""

    done: int = 0
    no_face: int = 0
    failed: int = 0
    duplicate: int = 0
    faces: int = 0


_COLUMNS: Final = "path, size, mtime_ns, image_id, status, faces, reason, message"


class Ledger:
    """The results for one collection. Safe to call from several threads; one process at a time should write.

    Rollback journal and full synchronisation: a WAL that two connections reset can be corrupted by
    SQLite 3.7.0 to 3.51.2, and the service reads while the ingest writes.
    Every method raises OceanoError `ledger_unavailable`, or `disk_full`.
    """

    def __init__(self, path: Path, collection: str) -> None:
        self._collection = collection
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with _as_oceano_error(path):
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = TRUNCATE")
            self._db.execute("PRAGMA synchronous = FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > _SCHEMA_VERSION:
                raise OceanoError("ledger_unavailable", f"{path} was written by a newer Oceano (version {version})")
            if version < _SCHEMA_VERSION:
                self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
        self._path = path

    def backup(self, path: Path) -> None:
        """A consistent copy of the whole ledger, all collections, at `path`, for whoever syncs it to the disk.

        Writers wait meanwhile, so it is made where the ledger is, whose disk is quick, and carried to `path` then.
        """
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}.backup")
        try:
            with self._lock, _as_oceano_error(path), closing(sqlite3.connect(beside)) as copy:
                copy.execute("PRAGMA synchronous = OFF")
                self._db.backup(copy)
            with _as_oceano_error(path):
                shutil.copyfile(beside, path)
        finally:
            beside.unlink(missing_ok=True)

    def bring(self, path: Path) -> None:
        """Take over what a backup knows of this collection and this ledger does not, in one durable transaction."""
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}.kept")  # the backup itself is only read
        try:
            with _as_oceano_error(path):
                shutil.copyfile(path, beside)
            Ledger(beside, self._collection).close()  # bring its schema up to date
            self._bring(beside)
        finally:
            beside.unlink(missing_ok=True)

    def _bring(self, path: Path) -> None:
        with self._lock, _as_oceano_error(self._path):
            self._db.execute("ATTACH ? AS kept", (str(path),))
            try:
                self._db.execute("BEGIN IMMEDIATE")
                for table in ("files", "superseded"):
                    self._db.execute(
                        f"INSERT OR IGNORE INTO {table} SELECT * FROM kept.{table} WHERE collection = ?",  # noqa: S608
                        (self._collection,),
                    )
                self._db.execute("INSERT OR IGNORE INTO mounts SELECT * FROM kept.mounts")
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._db.execute("DETACH kept")

    def file(self, path: str) -> FileRecord | None:
        """What is known of this path."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM files WHERE collection = ? AND path = ?", os.fsencode(path))  # noqa: S608
        return rows[0] if rows else None

    def image(self, image_id: str) -> FileRecord | None:
        """The file that stands for an image (`done` or `no_face`), not its copies."""
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM files WHERE collection = ? AND image_id = ? "  # noqa: S608
            "AND status IN ('done', 'no_face') ORDER BY status, path LIMIT 1",
            image_id,
        )
        return rows[0] if rows else None

    def files_of(self, image_id: str) -> list[FileRecord]:
        """Every file in which an image was seen, by path."""
        return self._rows(
            f"SELECT {_COLUMNS} FROM files WHERE collection = ? AND image_id = ? ORDER BY path",  # noqa: S608
            image_id,
        )

    def paths_of(self, image_id: str) -> list[str]:
        """Every path at which an image was seen, sorted."""
        return [one.path for one in self.files_of(image_id)]

    def record(self, records: Sequence[FileRecord], *, forget: Sequence[str] = ()) -> None:
        """Write results in one durable transaction; an earlier result of the same path is replaced.

        Where that was another image with faces, `superseded` has it from now on. `forget` are paths to drop.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows = [
            (
                self._collection, os.fsencode(one.path), one.size, one.mtime_ns, one.image_id, one.status,
                one.faces, one.reason, one.message, now,
            )
            for one in records
        ]  # fmt: skip
        with self._lock, _as_oceano_error(self._path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(
                    "DELETE FROM files WHERE collection = ? AND path = ?",
                    [(self._collection, os.fsencode(path)) for path in forget],
                )
                self._db.executemany(
                    "INSERT OR REPLACE INTO superseded SELECT collection, image_id, path, faces FROM files "
                    "WHERE collection = ? AND path = ? AND status = 'done' AND image_id IS NOT ?",
                    [(self._collection, os.fsencode(one.path), one.image_id) for one in records],
                )
                self._db.executemany(
                    f"INSERT OR REPLACE INTO files (collection, {_COLUMNS}, updated_at) "  # noqa: S608
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    rows,
                )
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def forget_images(self, image_ids: Sequence[str]) -> None:
        """Forget every path of these images, so that the next ingest takes them up again."""
        with self._lock, _as_oceano_error(self._path):
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "DELETE FROM files WHERE collection = ? AND image_id = ?",
                [(self._collection, image_id) for image_id in image_ids],
            )
            self._db.execute("COMMIT")

    def superseded(self, folder: str = "/") -> list[tuple[str, int]]:
        """Images at or below a folder whose file became another one, and how many faces each has in the index."""
        below = os.fsencode(folder.rstrip("/"))
        with self._lock, _as_oceano_error(self._path):
            return self._db.execute(
                "SELECT image_id, faces FROM superseded WHERE collection = ? "
                "AND (path = ? OR substr(path, 1, ?) = ?) ORDER BY image_id",
                (self._collection, below, len(below) + 1, below + b"/"),
            ).fetchall()

    def settle_superseded(self, image_id: str) -> None:
        """Remove this image from the list of replaced images."""
        with self._lock, _as_oceano_error(self._path):
            self._db.execute(
                "DELETE FROM superseded WHERE collection = ? AND image_id = ?", (self._collection, image_id)
            )

    def note_mounts(self, mounts: Iterable[Mount]) -> None:
        """Files that are recorded from now on may be on these drives."""
        rows = [(os.fsencode(one.place), os.fsencode(one.point)) for one in mounts]
        with self._lock, _as_oceano_error(self._path):
            self._db.executemany("INSERT OR IGNORE INTO mounts VALUES (?, ?)", rows)

    def mounts(self) -> list[Mount]:
        """Drives that recorded files are on, or were."""
        with self._lock, _as_oceano_error(self._path):
            rows = self._db.execute("SELECT place, point FROM mounts ORDER BY place, point").fetchall()
        return [Mount(os.fsdecode(place), os.fsdecode(point)) for place, point in rows]

    def totals(self) -> Totals:
        """Files by result and all faces."""
        with self._lock, _as_oceano_error(self._path):
            rows = self._db.execute(
                "SELECT status, COUNT(*), SUM(faces) FROM files WHERE collection = ? GROUP BY status",
                (self._collection,),
            ).fetchall()
        counts = {status: count for status, count, _ in rows}
        faces = sum(faces or 0 for status, _, faces in rows if status == "done")
        return Totals(**counts, faces=faces)

    def images(self) -> Iterator[FileRecord]:
        """Every image with faces, by path, in pages: memory does not grow with their number."""
        return self._pages("status = 'done'", "")

    def files(self, folder: str) -> Iterator[FileRecord]:
        """All that is known at or below a folder, by path."""
        return self._pages("1", folder)

    def without_faces(self, folder: str) -> Iterator[FileRecord]:
        """Failed and no-face files at or below a folder, by path, with their reasons."""
        return self._pages("status IN ('failed', 'no_face')", folder)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _pages(self, condition: str, folder: str, size: int = 1000) -> Iterator[FileRecord]:
        below = os.fsencode(folder.rstrip("/"))
        last = b""
        while True:
            rows = self._rows(
                f"SELECT {_COLUMNS} FROM files WHERE collection = ? AND {condition} AND path > ? "  # noqa: S608
                "AND (path = ? OR substr(path, 1, ?) = ?) ORDER BY path LIMIT ?",
                last, below, len(below) + 1, below + b"/", size,
            )  # fmt: skip
            yield from rows
            if len(rows) < size:
                return
            last = os.fsencode(rows[-1].path)

    def _rows(self, query: str, *values: object) -> list[FileRecord]:
        with self._lock, _as_oceano_error(self._path):
            rows = self._db.execute(query, (self._collection, *values)).fetchall()
        return [FileRecord(os.fsdecode(row[0]), *row[1:]) for row in rows]


def restore_note(state_dir: Path, collection: str) -> Path:
    """Where a restore that was begun is noted, until it is done or an ingest goes over it."""
    return state_dir / f"restore-{collection}.json"


@contextmanager
def only_writer(state_dir: Path) -> Iterator[None]:
    """One ingest at a time per data folder writes the ledger. Raises OceanoError `ingest_in_progress`."""
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir / "ingest.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read(20).strip() or "unknown"
            raise OceanoError(
                "ingest_in_progress",
                f"another ingest or restore is running (process {holder}); wait for it or stop it",
                details={"pid": int(holder) if holder.isdecimal() else None},
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextmanager
def _as_oceano_error(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as failure:
        full = getattr(failure, "sqlite_errorname", "") == "SQLITE_FULL"
        raise OceanoError(
            "disk_full" if full else "ledger_unavailable", f"{path}: {failure}", details={"path": str(path)}
        ) from failure
