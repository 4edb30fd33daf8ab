"""The ledger: which files were ingested, with what result."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, delete, func, literal_column, select, update
from sqlalchemy.sql import ColumnElement, Select

from app.catalog.clock import timestamp
from app.catalog.database import (
    AnyRow,
    execute_many,
    insert_or_ignore,
    insert_or_replace,
    rows,
    storable,
)
from app.catalog.prepared import replace_rows, rows_at
from app.catalog.records import FileRecord, Mount, Status, Totals
from app.catalog.retry import retried
from app.catalog.tables import FILES, MOUNTS, SUPERSEDED, UNSETTLED
from app.catalog.unsettled import AT_PATH, UnsettledImages
from app.core.iteration import chunks

_FILE: Final = FILES.c
_COLUMNS: Final = (
    _FILE.path,
    _FILE.size,
    _FILE.mtime_ns,
    _FILE.image_id,
    _FILE.status,
    _FILE.faces,
    _FILE.reason,
    _FILE.message,
    _FILE.ctime_ns,
)
_OF_EARLIER: Final = (_FILE.path, _FILE.image_id, _FILE.status, _FILE.faces)
_FILES_AGAIN: Final = FILES.alias("again").c
_PAGE: Final = 1000
_NO_COUNTS: Final[Mapping[str, int]] = MappingProxyType({})
_AT_ONCE: Final = 500  # paths in one query


class Ledger(UnsettledImages):
    """The results for one collection. Safe to call from several threads.

    Args:
        database: several collections share it.
        collection: the full name, such as faces__antelopev2__4ab1d643.

    Raises:
        OceanoError: `ledger_unavailable` or `disk_full`, from every method.
    """

    def check(self) -> None:
        """Check all tables for damage; takes about 2 s per million files.

        Raises:
            OceanoError: `ledger_unavailable` if they are damaged.
        """
        self.database.check()

    def file(self, path: str) -> FileRecord | None:
        """Return the record of a path; None if there is none."""
        records = self._records(_FILE_AT, {"path": os.fsencode(path)})
        return records[0] if records else None

    @retried
    def files_at(self, paths: Sequence[str]) -> dict[str, FileRecord]:
        """Return the records of several paths, by path; without those that have none."""
        found: dict[str, FileRecord] = {}
        for some in chunks(paths, _AT_ONCE):
            with self.database.reading() as connection:
                at_paths = rows_at(connection, _COLUMNS, self.collection, [os.fsencode(path) for path in some])
            found |= {record.path: record for record in map(_record, at_paths)}
        return found

    @retried
    def recorded_at(self, paths: Sequence[str]) -> dict[str, str]:
        """Return when the results of several paths were recorded, in UTC, ISO 8601; without those that have none."""
        found: dict[str, str] = {}
        for some in chunks(paths, _AT_ONCE):
            with self.database.reading() as connection:
                columns = (_FILE.path, _FILE.updated_at)
                at_paths = rows_at(connection, columns, self.collection, [os.fsencode(path) for path in some])
            found |= {os.fsdecode(path): at for path, at in at_paths}
        return found

    def touch(self, paths: Sequence[str]) -> None:
        """Record that results are as new as if they were recorded now."""
        statement = update(FILES).where(AT_PATH).values(updated_at=timestamp())
        with self.database.writing() as connection:
            execute_many(connection, statement, self._at_paths(map(os.fsencode, paths)))

    def image(self, image_id: str) -> FileRecord | None:
        """Return the record of the file that represents an image (`done` or `no_face`), not that of a copy."""
        records = self._records(_ORIGINAL, {"image_id": image_id})
        return records[0] if records else None

    def originals(self, image_ids: Sequence[str]) -> dict[str, FileRecord]:
        """Return the records of the files that represent several images, by image; without those that have none."""
        found: dict[str, FileRecord] = {}
        for some in chunks(image_ids, _AT_ONCE):
            for record in self._records(_ORIGINALS, {"image_ids": some}):
                found.setdefault(str(record.image_id), record)
        return found

    def files_of(self, image_id: str) -> list[FileRecord]:
        """Return the records of all files of an image, sorted by path."""
        found = self._records(_FILES_OF, {"image_id": image_id})
        return sorted(found, key=lambda record: os.fsencode(record.path))

    def paths_of(self, image_id: str) -> list[str]:
        """Return all paths of an image, sorted."""
        return [record.path for record in self.files_of(image_id)]

    def paths_of_images(self, image_ids: Sequence[str]) -> dict[str, list[str]]:
        """Return all paths of several images, sorted, by image; without those that have none."""
        found: dict[str, list[str]] = {}
        for some in chunks(image_ids, _AT_ONCE):
            values = {"collection": self.collection, "image_ids": some}
            for path, image_id in sorted(rows(self.database, _PATHS_OF, values)):
                found.setdefault(image_id, []).append(os.fsdecode(path))
        return found

    def version(self) -> tuple[object, ...]:
        """Return values that differ once any process has changed the ledger."""
        return self.database.version()

    def names_in(self, folder: bytes) -> Iterator[tuple[bytes, Status, str]]:
        """Yield name, status and image_id of the `done` and `duplicate` files of a folder, not of folders in it.

        Args:
            folder: bytes of the path (os.fsencode) without a slash at the end.
        """
        start = len(folder) + 1
        low, end, size = folder + b"/", folder + b"0", 64  # "0" comes after "/"
        query = (
            select(_FILE.path, _FILE.status, _FILE.image_id)
            .where(_FILE.collection == bindparam("collection"), _FILE.path >= bindparam("low"))
            .where(_FILE.path < bindparam("end"), (_FILE.status == "done") | (_FILE.status == "duplicate"))
            .order_by(_FILE.path)
            .limit(bindparam("size"))
        )
        while True:
            values = {"collection": self.collection, "low": low, "end": end, "size": size}
            found = rows(self.database, query, values)
            for path, status, image_id in found:
                if path < low:
                    continue
                if (slash := path.find(b"/", start)) < 0:
                    low = path + b"\x00"
                    yield path[start:], status, image_id
                else:
                    low = path[:slash] + b"0"  # after the folder: it may have any number of files
            if len(found) < size:
                return
            # Between many folders, a large page would mostly have files of folders that are skipped.
            size = min(size * 4, 4096) if low == found[-1][0] + b"\x00" else max(size // 8, 1)

    @retried
    def record(
        self,
        records: Sequence[FileRecord],
        *,
        delete: Iterable[str] = (),
        unsettled: Iterable[str] = (),
        settled: Iterable[str] = (),
        kept: Sequence[FileRecord] = (),
        counts: Mapping[str, int] = _NO_COUNTS,
    ) -> Mapping[str, int]:
        """Write results in one durable transaction.

        A new result replaces the earlier one of the same path. If that was another image, `unsettled` lists it from now
        on, and if its faces had this path, so does `replaced`.

        Args:
            records: the results, one per path.
            delete: paths whose results are deleted first.
            unsettled: ids of images that `unsettled` lists from now on.
            settled: ids of images that it no longer lists.
            kept: results that are not written, because the earlier ones of their files stay.
            counts: numbers by name that the results add to those of the job.

        Returns:
            The counts, less the results that are not written because another worker has the file now.
        """
        now = timestamp()
        results = {
            (at := os.fsencode(one.path)): (  # in the order of the table's columns
                self.collection, at, one.size, one.mtime_ns, one.ctime_ns, one.image_id, one.status, one.faces,
                one.reason, storable(one.message), now,
            )
            for one in records
        }  # fmt: skip
        image_ids = {os.fsencode(one.path): one.image_id for one in records}
        with self.database.writing() as connection:
            dialect = connection.dialect.name
            counted = Counter(counts)
            for path in self._begin_record(connection, [*records, *kept], counted):
                results.pop(os.fsencode(path), None)
            execute_many(connection, _DELETE_FILE, self._at_paths(map(os.fsencode, delete)))
            changed = self._changed(connection, {path: image_ids[path] for path in results})
            replaced = [one for one in changed if one.status == "done"]
            execute_many(connection, insert_or_replace(SUPERSEDED, dialect), [
                {"collection": self.collection, "image_id": one.image_id, "path": one.path, "faces": one.faces}
                for one in replaced
            ])  # fmt: skip
            lost = [one.image_id for one in changed if one.image_id is not None]
            unsettle = insert_or_ignore(UNSETTLED, dialect)
            execute_many(connection, unsettle, self._image_rows(lost))
            replace_rows(connection, FILES, list(results.values()))
            execute_many(connection, _DELETE_UNSETTLED, self.at_images(settled))
            execute_many(connection, unsettle, self._image_rows(unsettled))
            self._end_record(connection, counted)
        return counted

    def _begin_record(self, connection: Connection, records: Sequence[FileRecord], counts: Counter[str]) -> set[str]:
        """Do what belongs to the transaction of results, for a ledger of a job (`catalog.claims`).

        Args:
            connection: in the transaction.
            records: the results.
            counts: of the job; changed by what is added here.

        Returns:
            Paths whose results must not be written.
        """
        del connection, records, counts
        return set()

    def _end_record(self, connection: Connection, counts: Mapping[str, int]) -> None:
        """Do what comes last in the transaction of results."""

    def reserve(self, image_id: str) -> bool:
        """Let no other worker process an image until its result is recorded; return False if another one does."""
        del image_id
        return True

    def defer(self, path: str) -> bool:
        """Give back a file whose image another worker processes; return False if the caller has to keep it."""
        del path
        return False

    def skip(self, path: str, count: str) -> None:
        """Count a file of the job that gets no result, such as one that is not a picture."""

    def flush(self) -> None:
        """Write the counts of files without a result."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Let no other process or thread write results; this thread may."""
        return self.database.exclusive()

    def _changed(self, connection: Connection, image_ids: Mapping[bytes, object]) -> list[AnyRow]:
        """Return the earlier results of files that had another image."""
        found: list[AnyRow] = []
        for paths in chunks(image_ids, _AT_ONCE):
            found += rows_at(connection, _OF_EARLIER, self.collection, paths)
        return [one for one in found if one.image_id != image_ids[one.path]]

    @retried
    def record_ctimes(self, ctimes: Mapping[str, int | None]) -> None:
        """Record the ctime of files by path, for results of versions that did not record it."""
        statement = update(FILES).where(AT_PATH, _FILE.ctime_ns.is_(None)).values(ctime_ns=bindparam("new"))
        values = [
            {**at, "new": ctime_ns}
            for at, ctime_ns in zip(self._at_paths(map(os.fsencode, ctimes)), ctimes.values(), strict=True)
        ]
        with self.database.writing() as connection:
            execute_many(connection, statement, values)

    @retried
    def delete_images(self, image_ids: Sequence[str]) -> None:
        """Delete the results of every path of these images, so that the next ingest processes them again."""
        with self.database.writing() as connection:
            execute_many(connection, _DELETE_IMAGE, self.at_images(image_ids))

    @retried
    def record_mounts(self, mounts: Iterable[Mount]) -> None:
        """Record the drives on which files of later records may be."""
        values = [{"place": os.fsencode(mount.folder), "point": os.fsencode(mount.point)} for mount in mounts]
        with self.database.writing() as connection:
            execute_many(connection, insert_or_ignore(MOUNTS, connection.dialect.name), values)

    def mounts(self) -> list[Mount]:
        """Return the recorded drives."""
        query = select(MOUNTS.c.place, MOUNTS.c.point).order_by(MOUNTS.c.place, MOUNTS.c.point)
        return [Mount(os.fsdecode(row.place), os.fsdecode(row.point)) for row in rows(self.database, query)]

    def totals(self) -> Totals:
        """Count the files by result, and all faces; reads every row of the collection."""
        query = select(_FILE.status, func.count().label("files"), func.sum(_FILE.faces).label("faces"))
        found = rows(self.database, query.where(_FILE.collection == self.collection).group_by(_FILE.status))
        counts = {row.status: row.files for row in found}
        return Totals(**counts, faces=sum(row.faces or 0 for row in found if row.status == "done"))

    def is_unused(self) -> bool:
        """Return whether no file was ever ingested, with any model into any collection."""
        return not rows(self.database, select(literal_column("1")).select_from(FILES).limit(1))

    def images(self) -> Iterator[FileRecord]:
        """Yield the records of all images with faces, by path; reads in pages to save memory."""
        return self._pages("/", _FILE.status == "done")

    def files(self, folder: str) -> Iterator[FileRecord]:
        """Yield all records at or below a folder, by path."""
        return self._pages(folder)

    def paths(self, folder: str, size: int = _PAGE) -> Iterator[list[str]]:
        """Yield the paths of all files below a folder, in pages."""
        below = os.fsencode(folder.rstrip("/"))
        last = below + b"/"
        query = _after(select(_FILE.path)).limit(size)
        while True:
            values = {"collection": self.collection, "last": last, "end": below + b"0"}
            found = rows(self.database, query, values)
            yield [os.fsdecode(path) for (path,) in found]  # unpacking is faster than names
            if len(found) < size:
                return
            last = found[-1].path

    def without_faces(self, folder: str) -> Iterator[FileRecord]:
        """Yield the records of failed and no-face files at or below a folder, by path."""
        return self._pages(folder, _FILE.status.in_(("failed", "no_face")))

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def _pages(self, folder: str, *conditions: ColumnElement[bool], size: int = _PAGE) -> Iterator[FileRecord]:
        below = os.fsencode(folder.rstrip("/"))
        yield from self._records(_FILE_AT.where(*conditions), {"path": below})
        last = below + b"/"
        query = _after(select(*_COLUMNS)).where(*conditions).limit(size)
        while True:
            records = self._records(query, {"last": last, "end": below + b"0"})
            yield from records
            if len(records) < size:
                return
            last = os.fsencode(records[-1].path)

    def _records(self, query: Select[Any], values: Mapping[str, object]) -> list[FileRecord]:
        found = rows(self.database, query, {"collection": self.collection, **values})
        return [_record(row) for row in found]

    def _at_paths(self, paths: Iterable[bytes]) -> list[dict[str, object]]:
        return [{"at_collection": self.collection, "at_path": path} for path in paths]

    def _image_rows(self, image_ids: Iterable[str]) -> list[dict[str, object]]:
        # sorted, so that transactions that insert the same rows wait for each other in one order
        return [{"collection": self.collection, "image_id": image_id} for image_id in sorted(set(image_ids))]


def _record(row: AnyRow) -> FileRecord:
    """Return the record of a row of `_COLUMNS`."""
    return FileRecord(os.fsdecode(row[0]), *row[1:])


def _after(query: Select[Any]) -> Select[Any]:
    """Restrict a query to the files of a folder after a path."""
    inside = and_(_FILE.path > bindparam("last"), _FILE.path < bindparam("end"))
    return query.where(_FILE.collection == bindparam("collection"), inside).order_by(_FILE.path)


_OF_COLLECTION: Final = select(*_COLUMNS).where(_FILE.collection == bindparam("collection"))
_FILE_AT: Final = _OF_COLLECTION.where(_FILE.path == bindparam("path"))
# SQLite finds the paths of an image in the index by image only if nothing else is asked: for other columns, or sorted
# by path, it would rather read all files in the order of the table.
_FILES_OF: Final = _OF_COLLECTION.where(
    _FILE.path.in_(
        select(_FILES_AGAIN.path).where(
            _FILES_AGAIN.collection == bindparam("collection"), _FILES_AGAIN.image_id == bindparam("image_id")
        )
    )
)
_PATHS_OF: Final = select(_FILE.path, _FILE.image_id).where(
    _FILE.collection == bindparam("collection"), _FILE.image_id.in_(bindparam("image_ids", expanding=True))
)
_REPRESENTATIVES: Final = _OF_COLLECTION.where((_FILE.status == "done") | (_FILE.status == "no_face")).order_by(
    _FILE.status, _FILE.path
)
_ORIGINAL: Final = _REPRESENTATIVES.where(_FILE.image_id == bindparam("image_id")).limit(1)
_ORIGINALS: Final = _REPRESENTATIVES.where(
    _FILE.path.in_(
        select(_FILES_AGAIN.path).where(
            _FILES_AGAIN.collection == bindparam("collection"),
            _FILES_AGAIN.image_id.in_(bindparam("image_ids", expanding=True)),
        )
    )
)
_DELETE_FILE: Final = delete(FILES).where(AT_PATH)
_DELETE_IMAGE: Final = delete(FILES).where(
    _FILE.collection == bindparam("at_collection"), _FILE.image_id == bindparam("at_image")
)
_DELETE_UNSETTLED: Final = delete(UNSETTLED).where(
    UNSETTLED.c.collection == bindparam("at_collection"), UNSETTLED.c.image_id == bindparam("at_image")
)
