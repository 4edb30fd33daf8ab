"""The ledger: which files were ingested, with what result."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from app.core.database import Database
from app.core.errors import OceanoError
from app.core.locks import flock
from app.library.mounts import Mount

Status = Literal["done", "no_face", "failed", "duplicate"]

_SCHEMA_VERSION: Final = 5
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS files (
    collection TEXT NOT NULL,      -- faces__antelopev2__4ab1d643
    path BLOB NOT NULL,            -- bytes of the absolute path, because names can be in any encoding
    size INTEGER NOT NULL,         -- bytes
    mtime_ns INTEGER NOT NULL,
    image_id TEXT,                 -- SHA-256 of the contents; NULL where they could not be read
    status TEXT NOT NULL CHECK (status IN ('done', 'no_face', 'failed', 'duplicate')),
    reason TEXT,                   -- an error code
    message TEXT,
    faces INTEGER NOT NULL DEFAULT 0,
    updated_at TEXT NOT NULL,
    ctime_ns INTEGER,              -- NULL if recorded before version 4
    PRIMARY KEY (collection, path)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS superseded ( -- images with faces whose file became another image
    collection TEXT NOT NULL,
    image_id TEXT NOT NULL,
    path BLOB NOT NULL,
    faces INTEGER NOT NULL,
    PRIMARY KEY (collection, image_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mounts ( -- drives: files below `place` are on the one mounted at `point`
    place BLOB NOT NULL,
    point BLOB NOT NULL,
    PRIMARY KEY (place, point)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unsettled ( -- images whose faces in the index may lack paths of their files
    collection TEXT NOT NULL,
    image_id TEXT NOT NULL,
    PRIMARY KEY (collection, image_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_image_and_status ON files (collection, image_id, status);
"""
_UNSETTLE_COPIES: Final = (
    "INSERT OR IGNORE INTO unsettled SELECT collection, image_id FROM files "
    "WHERE image_id IS NOT NULL GROUP BY collection, image_id HAVING COUNT(*) > 1;"
)
_UPGRADES: Final = {
    4: "ALTER TABLE files ADD COLUMN ctime_ns INTEGER;",
    5: f"DROP INDEX IF EXISTS files_by_image; {_UNSETTLE_COPIES}",
}


@dataclass(frozen=True, slots=True)
class FileRecord:
    """The result of one file.

    Attributes:
        path: absolute (os.fsdecode).
        size: in bytes.
        mtime_ns: time of the last change in nanoseconds.
        image_id: SHA-256 of the contents; None if they could not be read.
        status: the result.
        faces: number of the image's faces in the index.
        reason: an error code, or a temporary reason such as "unreadable"; None if all went well.
        message: one sentence about the reason.
        ctime_ns: time of the last change of content, name or permissions in nanoseconds; None if unknown.
    """

    path: str
    size: int
    mtime_ns: int
    image_id: str | None
    status: Status
    faces: int = 0
    reason: str | None = None
    message: str | None = None
    ctime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """Numbers of files by result, and of the faces of all images."""

    done: int = 0
    no_face: int = 0
    failed: int = 0
    duplicate: int = 0
    faces: int = 0


_COLUMNS: Final = "path, size, mtime_ns, image_id, status, faces, reason, message, ctime_ns"


class Ledger:
    """The results for one collection. Safe to call from several threads; one process at a time should write.

    Args:
        path: the SQLite file; several collections share it.
        collection: the full name, such as faces__antelopev2__4ab1d643.

    Raises:
        OceanoError: `ledger_unavailable` or `disk_full`, from every method.
    """

    def __init__(self, path: Path, collection: str) -> None:
        self._collection = collection
        self._database = Database(path, schema=_SCHEMA, version=_SCHEMA_VERSION, upgrades=_UPGRADES)

    def check(self) -> None:
        """Check the whole file for damage; takes about 2 s per million files.

        Raises:
            OceanoError: `ledger_unavailable` if it is damaged.
        """
        self._database.check()

    def backup(self, path: Path) -> None:
        """Write a consistent copy of the whole ledger with all collections to `path`; the caller flushes it to disk."""
        self._database.backup(path)

    def merge(self, path: Path) -> None:
        """Add the results of this collection that only a backup has, in one durable transaction.

        Images with several files become unsettled: the index may have other paths of them.

        Args:
            path: a ledger that `backup` wrote, perhaps with an older version; it is not changed.
        """
        copy = self._database.path.with_name(f".{self._database.path.name}.{os.getpid()}.merge")
        try:
            shutil.copyfile(path, copy)
            Ledger(copy, self._collection).close()  # updates its schema
            with self._database.transaction(attached=copy) as connection:
                for table in ("files", "superseded", "unsettled"):
                    connection.execute(
                        f"INSERT OR IGNORE INTO {table} SELECT * FROM attached.{table} WHERE collection = ?",  # noqa: S608
                        (self._collection,),
                    )
                connection.execute("INSERT OR IGNORE INTO mounts SELECT * FROM attached.mounts")
                connection.execute(_UNSETTLE_COPIES)
        finally:
            copy.unlink(missing_ok=True)

    def file(self, path: str) -> FileRecord | None:
        """Return the record of a path; None if there is none."""
        records = self._records(f"SELECT {_COLUMNS} FROM files WHERE collection = ? AND path = ?", os.fsencode(path))  # noqa: S608
        return records[0] if records else None

    def image(self, image_id: str) -> FileRecord | None:
        """Return the record of the file that represents an image (`done` or `no_face`), not that of a copy."""
        records = self._records(
            f"SELECT {_COLUMNS} FROM files WHERE collection = ? AND image_id = ? "  # noqa: S608
            "AND status IN ('done', 'no_face') ORDER BY status, path LIMIT 1",
            image_id,
        )
        return records[0] if records else None

    def files_of(self, image_id: str) -> list[FileRecord]:
        """Return the records of all files of an image, sorted by path."""
        return self._records(
            f"SELECT {_COLUMNS} FROM files WHERE collection = ? AND image_id = ? ORDER BY path",  # noqa: S608
            image_id,
        )

    def paths_of(self, image_id: str) -> list[str]:
        """Return all paths of an image, sorted."""
        return [record.path for record in self.files_of(image_id)]

    def beside(self, path: str, *, after: bool) -> str | None:
        """Return the image with faces whose file is the next one in a folder, or the one before; None at the end.

        Copies of an image whose own file is in the folder are left out: they would lead back to it.

        Args:
            path: a file.
            after: the next file by name, else the one before.
        """
        folder = os.fsencode(path.rpartition("/")[0]) + b"/"
        name, end = os.fsencode(path), folder[:-1] + b"0"
        order, bounds = ("ASC", (name, end)) if after else ("DESC", (folder, name))  # SQLite seeks one lower bound
        inside = "instr(substr({0}.path, ?4), X'2F') = 0"
        rows = self._database.rows(
            f"SELECT image_id FROM files AS file WHERE collection = ?1 AND path > ?2 AND path < ?3 "  # noqa: S608
            f"AND {inside.format('file')} AND (status = 'done' OR (status = 'duplicate' AND EXISTS (SELECT 1 FROM "
            "files AS one WHERE one.collection = file.collection AND one.image_id = file.image_id AND one.status = "
            f"'done' AND NOT (one.path > ?5 AND one.path < ?6 AND {inside.format('one')})))) "
            f"ORDER BY path {order} LIMIT 1",
            (self._collection, *bounds, len(folder) + 1, folder, end),
        )
        return rows[0][0] if rows else None

    def record(
        self,
        records: Sequence[FileRecord],
        *,
        delete: Iterable[str] = (),
        unsettled: Iterable[str] = (),
        settled: Iterable[str] = (),
    ) -> None:
        """Write results in one durable transaction.

        A new result replaces the earlier one of the same path. If that was another image, `unsettled` lists it from now
        on, and if its faces had this path, so does `replaced`.

        Args:
            records: the results, one per path.
            delete: paths whose results are deleted first.
            unsettled: ids of images that `unsettled` lists from now on.
            settled: ids of images that it no longer lists.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows = [
            (
                self._collection, os.fsencode(one.path), one.size, one.mtime_ns, one.image_id, one.status,
                one.faces, one.reason, one.message, one.ctime_ns, now,
            )
            for one in records
        ]  # fmt: skip
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM files WHERE collection = ? AND path = ?",
                [(self._collection, os.fsencode(path)) for path in delete],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO superseded SELECT collection, image_id, path, faces FROM files "
                "WHERE collection = ? AND path = ? AND status = 'done' AND image_id IS NOT ?",
                [(self._collection, os.fsencode(one.path), one.image_id) for one in records],
            )
            connection.executemany(
                "INSERT OR IGNORE INTO unsettled SELECT collection, image_id FROM files "
                "WHERE collection = ? AND path = ? AND image_id IS NOT ? AND image_id IS NOT NULL",
                [(self._collection, os.fsencode(one.path), one.image_id) for one in records],
            )
            connection.executemany(
                f"INSERT OR REPLACE INTO files (collection, {_COLUMNS}, updated_at) "  # noqa: S608
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            connection.executemany(
                "DELETE FROM unsettled WHERE collection = ? AND image_id = ?",
                [(self._collection, image_id) for image_id in settled],
            )
            connection.executemany(
                "INSERT OR IGNORE INTO unsettled VALUES (?, ?)",
                [(self._collection, image_id) for image_id in unsettled],
            )

    def record_ctimes(self, ctimes: Mapping[str, int | None]) -> None:
        """Record the ctime of files by path, for results of versions that did not record it."""
        with self._database.transaction() as connection:
            connection.executemany(
                "UPDATE files SET ctime_ns = ? WHERE collection = ? AND path = ? AND ctime_ns IS NULL",
                [(ctime_ns, self._collection, os.fsencode(path)) for path, ctime_ns in ctimes.items()],
            )

    def replace_by_partners(self, partners: Mapping[str, str]) -> None:
        """Delete the results of files that another file takes the place of; `replaced` lists their images.

        Args:
            partners: path of the other file by path; it counts only if it has faces or is a copy of such an image.
        """
        rows = [
            {"collection": self._collection, "path": os.fsencode(path), "partner": os.fsencode(partner)}
            for path, partner in partners.items()
        ]
        ready = (
            "WHERE collection = :collection AND path = :path AND EXISTS (SELECT 1 FROM files AS other WHERE "
            "other.collection = :collection AND other.path = :partner AND other.status IN ('done', 'duplicate'))"
        )
        with self._database.transaction() as connection:
            connection.executemany(
                f"INSERT OR REPLACE INTO superseded SELECT collection, image_id, :partner, faces FROM files {ready} "  # noqa: S608
                "AND status = 'done'",
                rows,
            )
            connection.executemany(f"DELETE FROM files {ready}", rows)  # noqa: S608

    def delete_images(self, image_ids: Sequence[str]) -> None:
        """Delete the results of every path of these images, so that the next ingest processes them again."""
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM files WHERE collection = ? AND image_id = ?",
                [(self._collection, image_id) for image_id in image_ids],
            )

    def unsettled(self, limit: int) -> list[str]:
        """Return at most `limit` ids of images whose faces in the index may lack paths of their files."""
        rows = self._database.rows(
            "SELECT image_id FROM unsettled WHERE collection = ? ORDER BY image_id LIMIT ?", (self._collection, limit)
        )
        return [image_id for (image_id,) in rows]

    def unsettle_copies(self) -> None:
        """Let `unsettled` list every image with several files."""
        with self._database.transaction() as connection:
            connection.execute(_UNSETTLE_COPIES)

    def replaced(self, folder: str = "/", *, by_image: bool = False) -> list[tuple[str, int]]:
        """Return the ids of replaced images, whose file became another image, with their numbers of faces.

        Args:
            folder: only images whose file was at or below this folder.
            by_image: only images whose file was read since then and has not failed.
        """
        below = os.fsencode(folder.rstrip("/"))
        read = (
            "AND EXISTS (SELECT 1 FROM files WHERE files.collection = superseded.collection "
            "AND files.path = superseded.path AND files.status != 'failed') "
        )
        return [
            (image_id, faces)
            for image_id, faces in self._database.rows(
                "SELECT image_id, faces FROM superseded WHERE collection = ? "  # noqa: S608
                f"AND (path = ? OR substr(path, 1, ?) = ?) {read if by_image else ''}ORDER BY image_id",
                (self._collection, below, len(below) + 1, below + b"/"),
            )
        ]

    def replaced_faces(self, image_id: str) -> int | None:
        """Return the number of faces of a replaced image; None if it is not one."""
        rows = self._database.rows(
            "SELECT faces FROM superseded WHERE collection = ? AND image_id = ?", (self._collection, image_id)
        )
        return int(rows[0][0]) if rows else None

    def delete_replaced(self, *image_ids: str) -> None:
        """Remove images from the list of replaced images."""
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM superseded WHERE collection = ? AND image_id = ?",
                [(self._collection, image_id) for image_id in image_ids],
            )

    def record_mounts(self, mounts: Iterable[Mount]) -> None:
        """Record the drives on which files of later records may be."""
        rows = [(os.fsencode(mount.folder), os.fsencode(mount.point)) for mount in mounts]
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO mounts VALUES (?, ?)", rows)

    def mounts(self) -> list[Mount]:
        """Return the recorded drives."""
        rows = self._database.rows("SELECT place, point FROM mounts ORDER BY place, point")
        return [Mount(os.fsdecode(folder), os.fsdecode(point)) for folder, point in rows]

    def totals(self) -> Totals:
        """Count the files by result, and all faces; reads every row of the collection."""
        rows = self._database.rows(
            "SELECT status, COUNT(*), SUM(faces) FROM files WHERE collection = ? GROUP BY status", (self._collection,)
        )
        counts = {status: count for status, count, _ in rows}
        faces = sum(faces or 0 for status, _, faces in rows if status == "done")
        return Totals(**counts, faces=faces)

    def images(self) -> Iterator[FileRecord]:
        """Yield the records of all images with faces, by path; reads in pages to save memory."""
        return self._pages("status = 'done'", "")

    def files(self, folder: str) -> Iterator[FileRecord]:
        """Yield all records at or below a folder, by path."""
        return self._pages("1", folder)

    def paths(self, folder: str, size: int = 1000) -> Iterator[list[str]]:
        """Yield the paths of all files below a folder, in pages."""
        below = os.fsencode(folder.rstrip("/"))
        last, end = below + b"/", below + b"0"  # "0" comes after "/"
        while True:
            rows = self._database.rows(
                "SELECT path FROM files WHERE collection = ? AND path > ? AND path < ? ORDER BY path LIMIT ?",
                (self._collection, last, end, size),
            )
            yield [os.fsdecode(path) for (path,) in rows]
            if len(rows) < size:
                return
            last = rows[-1][0]

    def without_faces(self, folder: str) -> Iterator[FileRecord]:
        """Yield the records of failed and no-face files at or below a folder, by path."""
        return self._pages("status IN ('failed', 'no_face')", folder)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _pages(self, condition: str, folder: str, size: int = 1000) -> Iterator[FileRecord]:
        below = os.fsencode(folder.rstrip("/"))
        last = b""
        while True:
            records = self._records(
                f"SELECT {_COLUMNS} FROM files WHERE collection = ? AND {condition} AND path > ? "  # noqa: S608
                "AND (path = ? OR substr(path, 1, ?) = ?) ORDER BY path LIMIT ?",
                last, below, len(below) + 1, below + b"/", size,
            )  # fmt: skip
            yield from records
            if len(records) < size:
                return
            last = os.fsencode(records[-1].path)

    def _records(self, query: str, *values: object) -> list[FileRecord]:
        rows = self._database.rows(query, (self._collection, *values))
        return [FileRecord(os.fsdecode(row[0]), *row[1:]) for row in rows]


def restore_marker_path(state_dir: Path, collection: str) -> Path:
    """Return the path of the file that marks an unfinished restore, until it finishes or an ingest starts."""
    return state_dir / f"restore-{collection}.json"


@contextmanager
def only_writer(state_dir: Path) -> Iterator[None]:
    """Hold the lock that allows one ingest or restore at a time per data folder.

    Raises:
        OceanoError: `ingest_in_progress`, with the other process in its details as "pid"; `ledger_unavailable` if the
            file system has no locks.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = state_dir / "ingest.lock"
    with path.open("a+") as lock:
        try:
            flock(lock.fileno(), path, wait=False, code="ledger_unavailable")
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
