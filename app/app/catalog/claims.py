"""The files of a job: who processes them, and their results in the ledger and the job's counts, in one transaction.

`JobLedger` is the ledger of an ingest that has all files of its job. `ClaimedLedger` is that of a worker that shares
them with others: it takes files in batches, and writes a result only if it still has the file.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import Connection, Text, and_, bindparam, delete, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert

from app.catalog.clock import seconds_now, timestamp
from app.catalog.database import execute_many, insert_or_ignore, insert_or_replace, storable
from app.catalog.jobs import Counts, add_counts
from app.catalog.leases import require_lease
from app.catalog.ledger import Ledger
from app.catalog.records import FileRecord
from app.catalog.retry import retried
from app.catalog.tables import CLAIMS, FILES, JOBS, MISSING, PROBLEMS, RESERVATIONS, SUPERSEDED, WORKERS, path_key
from app.catalog.workers import Worker
from app.core.types import File

_DEFER_SECONDS: Final = 2  # until an image that another worker has is looked at again
COUNTS_SECONDS: Final = 2.0
_SKIPPED_AT_ONCE: Final = 256
_CLAIM: Final = CLAIMS.c


class JobLedger(Ledger):
    """The ledger of an ingest that is a job; its results count for the job and are among its problems if they failed.

    The counts are written with a result, every few seconds.

    Args:
        worker: this process, which has the job.
        job_id: the job.
    """

    def __init__(self, worker: Worker, job_id: str) -> None:
        super().__init__(worker.database, worker.collection)
        self._worker = worker
        self._job_id = job_id
        self._counts: Counter[str] = Counter()  # that are not written yet
        self._counts_written = -math.inf

    @retried
    def reserve(self, image_id: str) -> bool:
        """Let no other worker process an image until its result is recorded; return False if another one does."""
        if not self.database.has_many_writers:
            return True
        mine = {"collection": self.collection, "image_id": image_id, "worker": self._worker.id}
        with self.database.writing(urgent=True) as connection:
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")  # no reservation outlives its worker
            if connection.execute(_RESERVE, mine).rowcount == 1:
                return True
            one = RESERVATIONS.c
            query = select(one.worker).where(one.collection == self.collection, one.image_id == image_id)
            holder = connection.execute(query).scalar_one_or_none()
            if holder is None:
                self._require_lease(connection)
            return bool(holder == self._worker.id)

    def defer(self, path: str) -> bool:
        """Give back a file whose image another worker processes; return False if the caller has to keep it."""
        del path
        return False

    def skip(self, path: str, count: str) -> None:
        """Count a file without a result, such as one that is not a picture.

        Args:
            path: the file.
            count: name of the count.
        """
        del path
        self._counts[count] += 1

    def flush(self) -> None:
        """Write the counts that are not written yet."""
        self._counts_written = -math.inf
        self.record([])

    def close(self) -> None:
        """Leave the database open: the worker has it, too."""

    def _begin_record(self, connection: Connection, records: Sequence[FileRecord], counts: Counter[str]) -> set[str]:
        lost = self._lost(connection, records, counts)
        failed = [
            {
                "job_id": self._job_id,
                "key": path_key(os.fsencode(one.path)),
                "path": os.fsencode(one.path),
                "code": one.reason or "internal",
                "message": storable(one.message) or "",
            }
            for one in records
            if one.status == "failed" and one.path not in lost
        ]
        execute_many(connection, insert_or_replace(PROBLEMS, connection.dialect.name), failed)
        if self.database.has_many_writers and (images := [one.image_id for one in records if one.image_id]):
            one = RESERVATIONS.c
            mine = delete(RESERVATIONS).where(one.collection == self.collection, one.worker == self._worker.id)
            connection.execute(mine.where(one.image_id.in_(images)))
        return lost

    def _end_record(self, connection: Connection, counts: Counts) -> None:
        self._counts.update(counts)
        if time.monotonic() - self._counts_written >= COUNTS_SECONDS:
            add_counts(connection, self._job_id, self._counts)
            self._counts, self._counts_written = Counter(), time.monotonic()

    def _lost(self, connection: Connection, records: Sequence[FileRecord], counts: Counter[str]) -> set[str]:
        """Return the paths whose results are not written, and take them from the counts."""
        del records, counts
        self._require_lease(connection)
        return set()

    def _require_lease(self, connection: Connection) -> None:
        """Raise `ingest_in_progress` without a lease: others may have processed the same images since."""
        require_lease(connection, self._worker.id, self._job_id)


# No row if the worker has lost its lease: nobody would free the image again.
_RESERVE: Final = (
    insert(RESERVATIONS)
    .from_select(
        ["collection", "image_id", "worker"],
        select(bindparam("collection", type_=Text), bindparam("image_id", type_=Text), WORKERS.c.id)
        .where(WORKERS.c.id == bindparam("worker"))
        .with_for_update(read=True, key_share=True),
    )
    .on_conflict_do_nothing()
)


class ClaimedLedger(JobLedger):
    """The ledger of a worker that shares the files of a job with others; the counts are written with each result."""

    def __init__(self, worker: Worker, job_id: str) -> None:
        super().__init__(worker, job_id)
        self._skipped: list[tuple[str, str]] = []  # path and name of the count

    @retried
    def take(self, most: int) -> list[File]:
        """Take files that no worker has, in the order of the scan.

        Args:
            most: number of files.
        """
        with self.database.writing(urgent=True) as connection:
            free = and_(_CLAIM.finished == 0, _CLAIM.worker.is_(None), _CLAIM.not_before <= seconds_now(connection))
            numbers = select(_CLAIM.number).where(_CLAIM.job_id == self._job_id, free)
            some = numbers.order_by(_CLAIM.number).limit(most).with_for_update(skip_locked=True).scalar_subquery()
            taken = (
                update(CLAIMS)
                .where(_CLAIM.job_id == self._job_id, _CLAIM.number.in_(some))
                .values(worker=self._worker.id)
                .returning(_CLAIM.number, _CLAIM.path, _CLAIM.size, _CLAIM.mtime_ns, _CLAIM.ctime_ns)
            )
            found = sorted(connection.execute(taken).all())
        return [File(os.fsdecode(row.path), row.size, row.mtime_ns, row.ctime_ns) for row in found]

    @retried
    def is_any_free(self) -> bool:
        """Return whether a file is free, or may be soon: one was deferred, or a scan is running."""
        waiting = exists().where(_CLAIM.job_id == JOBS.c.id, _CLAIM.finished == 0, _CLAIM.worker.is_(None))
        scan = and_(JOBS.c.phase == "scan", JOBS.c.holder.is_not(None))
        with self.database.reading() as connection:
            query = select(func.count()).where(JOBS.c.id == self._job_id, waiting | scan)
            return bool(connection.execute(query).scalar_one())

    @retried
    def add(self, files: Sequence[File], total: int) -> bool:
        """Add files that the scan found, but for those that an interrupted scan added before.

        Args:
            files: each path once.
            total: number of files that the scan has found so far.

        Returns:
            False if another worker scans the folder now; then nothing is added.
        """
        keys = {path_key(os.fsencode(one.path)): one for one in files}
        with self.database.writing(urgent=True) as connection:
            if not self._is_holder(connection):
                return False
            last = select(func.max(_CLAIM.number)).where(_CLAIM.job_id == self._job_id)
            number = (connection.execute(last).scalar_one() or 0) + 1
            values = [
                {
                    "job_id": self._job_id,
                    "number": number + place,
                    "key": key,
                    "path": os.fsencode(one.path),
                    "size": one.size,
                    "mtime_ns": one.mtime_ns,
                    "ctime_ns": one.ctime_ns,
                }
                for place, (key, one) in enumerate(keys.items())
            ]
            execute_many(connection, insert_or_ignore(CLAIMS, connection.dialect.name), values)
            self._set_counts(connection, {"files": total})
        return True

    @retried
    def add_missing(self, paths: Sequence[str]) -> None:
        """Add known files that are missing before the scan: a prune at the end of the job removes no others."""
        values = [
            {"job_id": self._job_id, "key": path_key(os.fsencode(path)), "path": os.fsencode(path)} for path in paths
        ]
        with self.database.writing(urgent=True) as connection:
            execute_many(connection, insert_or_ignore(MISSING, connection.dialect.name), values)

    @retried
    def missing(self) -> set[str]:
        """Return the files that were missing before the scan."""
        with self.database.reading() as connection:
            query = select(MISSING.c.path).where(MISSING.c.job_id == self._job_id)
            return {os.fsdecode(path) for path in connection.execute(query).scalars()}

    @retried
    def unclaimed(self, paths: Sequence[str]) -> list[str]:
        """Return the paths, without files of the job."""
        keys = {path_key(os.fsencode(path)): path for path in paths}
        with self.database.reading() as connection:
            query = select(_CLAIM.key).where(_CLAIM.job_id == self._job_id, _CLAIM.key.in_(list(keys)))
            known = set(connection.execute(query).scalars())
        return [path for key, path in keys.items() if key not in known]

    def has_files(self) -> bool:
        """Return whether a scan has added files."""
        return self.total() > 0

    @retried
    def total(self) -> int:
        """Return the number of files that the scan has added."""
        with self.database.reading() as connection:
            return connection.execute(select(func.count()).where(_CLAIM.job_id == self._job_id)).scalar_one()

    @retried
    def end_scan(self, counts: Counts, total: int) -> None:
        """Record that the folder was scanned; add the counts of the scan, which found `total` files."""
        with self.database.writing(urgent=True) as connection:
            if self._is_holder(connection):
                add_counts(connection, self._job_id, counts)
                self._set_counts(connection, {"files": total})
                this = update(JOBS).where(JOBS.c.id == self._job_id)
                connection.execute(this.values(phase="files", holder=None))

    @retried
    def end_job(self, counts: Counts) -> None:
        """Record that the job is done, if no other worker finishes it now; add counts, and delete the list of files."""
        with self.database.writing() as connection:
            if not self._is_holder(connection):
                return
            add_counts(connection, self._job_id, counts)
            done = {"state": "done", "ended_at": timestamp(), "holder": None, "error": None, "message": None}
            connection.execute(update(JOBS).where(JOBS.c.id == self._job_id).values(done))
        for table in (CLAIMS, MISSING):
            with self.database.writing(urgent=True) as connection:
                connection.execute(delete(table).where(table.c.job_id == self._job_id))

    @retried
    def finished_of(self, paths: Sequence[str]) -> int:
        """Return how many of the paths are finished files of the job."""
        keys = [path_key(os.fsencode(path)) for path in paths]
        with self.database.reading() as connection:
            query = select(func.count()).where(_CLAIM.job_id == self._job_id, _CLAIM.key.in_(keys))
            return int(connection.execute(query.where(_CLAIM.finished == 1)).scalar_one())

    @retried
    def defer(self, path: str) -> bool:
        """Give back a file whose image another worker processes; it is free again after some seconds."""
        with self.database.writing(urgent=True) as connection:
            again = seconds_now(connection) + _DEFER_SECONDS
            mine = _CLAIM.key == path_key(os.fsencode(path))
            free = update(CLAIMS).where(_CLAIM.job_id == self._job_id, mine, _CLAIM.worker == self._worker.id)
            connection.execute(free.values(worker=None, not_before=again))
        return True

    def _require_lease(self, connection: Connection) -> None:
        """Nothing: a result counts if this worker has its file, and without a lease it has none."""

    def skip(self, path: str, count: str) -> None:
        """Count a file without a result; it is finished with the next result."""
        self._skipped.append((path, count))
        if len(self._skipped) >= _SKIPPED_AT_ONCE:
            self.flush()

    def _end_record(self, connection: Connection, counts: Counts) -> None:
        skipped, self._skipped = self._skipped, []
        had = self._finish(connection, [path for path, _ in skipped])
        change = Counter(count for path, count in skipped if path_key(os.fsencode(path)) in had)
        change.update(counts)
        add_counts(connection, self._job_id, change)

    def _is_holder(self, connection: Connection) -> bool:
        """Return whether this worker scans or finishes the job; it stays so until the transaction ends."""
        query = select(JOBS.c.holder).where(JOBS.c.id == self._job_id).with_for_update()
        return connection.execute(query).scalar_one_or_none() == self._worker.id

    def _set_counts(self, connection: Connection, counts: Counts) -> None:
        add_counts(connection, self._job_id, counts, replace=True)

    def _lost(self, connection: Connection, records: Sequence[FileRecord], counts: Counter[str]) -> set[str]:
        had = self._finish(connection, [one.path for one in records])
        lost = [one for one in records if path_key(os.fsencode(one.path)) not in had]
        for one in lost:
            counts[one.status] -= 1
            counts["faces"] -= one.faces
        # If the file has changed meanwhile, the other worker never sees this image, and its faces are removed.
        images = {one.image_id: one for one in lost if one.status == "done"}
        file = FILES.c
        known = select(file.image_id).where(
            file.collection == self.collection, file.image_id.in_(list(images)), file.status == "done"
        )
        kept = set(connection.execute(known).scalars()) if images else set()
        execute_many(connection, insert_or_ignore(SUPERSEDED, connection.dialect.name), [
            {"collection": self.collection, "image_id": image_id, "path": os.fsencode(one.path), "faces": one.faces}
            for image_id, one in images.items() if image_id not in kept
        ])  # fmt: skip
        return {one.path for one in lost}

    def _finish(self, connection: Connection, paths: Iterable[str]) -> set[bytes]:
        keys = [path_key(os.fsencode(path)) for path in paths]
        if not keys:
            return set()
        mine = and_(_CLAIM.job_id == self._job_id, _CLAIM.worker == self._worker.id, _CLAIM.key.in_(keys))
        done = update(CLAIMS).where(mine).values(worker=None, finished=1).returning(_CLAIM.key)
        return set(connection.execute(done).scalars())
