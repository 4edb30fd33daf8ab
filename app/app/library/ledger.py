"""The ledger: which files were ingested, with what result."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from app.core.database import Database
from app.library.ledger_schema import SCHEMA, SCHEMA_VERSION, UNSETTLE_COPIES, UPGRADES
from app.library.mounts import Mount
from app.library.records import FileRecord, Status, Totals

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
        self._database = Database(path, schema=SCHEMA, version=SCHEMA_VERSION, upgrades=UPGRADES)

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
                connection.execute(UNSETTLE_COPIES)
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

    def version(self) -> tuple[int, int]:
        """Return numbers that differ once any process has changed the ledger."""
        return self._database.version()

    def names_in(self, folder: bytes) -> Iterator[tuple[bytes, Status, str]]:
        """Yield name, status and image_id of the `done` and `duplicate` files of a folder, not of folders in it.

        Args:
            folder: bytes of the path (os.fsencode) without a slash at the end.
        """
        start = len(folder) + 1
        low, end, size = folder + b"/", folder + b"0", 64  # "0" comes after "/"
        while True:
            rows = self._database.rows(
                "SELECT path, status, image_id FROM files WHERE collection = ? AND path >= ? AND path < ? "
                "AND status IN ('done', 'duplicate') ORDER BY path LIMIT ?",
                (self._collection, low, end, size),
            )
            for path, status, image_id in rows:
                if path < low:
                    continue
                if (slash := path.find(b"/", start)) < 0:
                    low = path + b"\x00"
                    yield path[start:], status, image_id
                else:
                    low = path[:slash] + b"0"  # after the folder: it may have any number of files
            if len(rows) < size:
                return
            # Between many folders, a large page would mostly have files of folders that are skipped.
            size = min(size * 4, 4096) if low == rows[-1][0] + b"\x00" else max(size // 8, 1)

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
            connection.execute(UNSETTLE_COPIES)

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

    def is_unused(self) -> bool:
        """Return whether no file was ever ingested, with any model into any collection."""
        return not self._database.rows("SELECT 1 FROM files LIMIT 1")

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
