"""Jobs: what an ingest shall do, how far it is, and what went wrong; for the commands, the page and other processes."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from sqlalchemy import Connection, bindparam, delete, func, select, update

from app.catalog.clock import timestamp
from app.catalog.database import AnyRow, Database
from app.catalog.leases import (
    IS_ATTENDED,
    LEASE_SECONDS,
    end_unattended,
    is_any_dead,
    is_dead,
    remove_dead,
    require_lease,
)
from app.catalog.retry import retried
from app.catalog.tables import JOBS, PROBLEMS, WORKERS
from app.core.errors import OceanoError

JobState = Literal["queued", "running", "stopping", "done", "failed", "interrupted"]
Phase = Literal["scan", "files", "finish"]
Counts = Mapping[str, int]

ENDED: Final = ("done", "failed", "interrupted")
MOST_KEPT: Final = 200  # jobs that have ended; older ones are deleted with their problems
_RESUMABLE: Final = ("interrupted", "failed")
_PAGE: Final = 1000
_JOB: Final = JOBS.c


@dataclass(frozen=True, slots=True)
class Job:
    """A job.

    Attributes:
        id: a UUID.
        collection: full name of the index's collection.
        kind: such as "ingest".
        folder: absolute (os.fsdecode).
        options: of its request, as JSON.
        state: "interrupted" also if the process of a running job is gone.
        shared: whether workers share its files; else one process has them all.
        phase: of a shared job.
        counts: numbers by name, such as those of `IngestCounts`.
        workers: processes that work on it now.
        problems: number of its problems.
        started_by: the user and the machine.
        created_at: ISO 8601 in UTC, as all times.
        started_at: None if it is queued.
        ended_at: None if it has not ended.
        error: an error code; of a running job, the last error of a worker.
        message: one sentence about the error.
        resumed_at: when a worker last continued it; None if it was never resumed.
        images_before: images processed before that.
    """

    id: str
    collection: str
    kind: str
    folder: str
    options: Mapping[str, Any]
    state: JobState
    shared: bool
    phase: Phase
    counts: Counts
    workers: int
    problems: int
    started_by: str
    created_at: str
    started_at: str | None
    ended_at: str | None
    error: str | None
    message: str | None
    resumed_at: str | None = None
    images_before: int = 0

    @property
    def images(self) -> int:
        """Images processed so far."""
        return images_in(self.counts)

    @property
    def rate(self) -> float | None:
        """Images per second since it was started or resumed; None while it waits for a worker."""
        began = self.resumed_at or self.started_at
        if began is None or not (self.workers or self.ended_at):
            return None
        end = datetime.now(UTC) if self.ended_at is None else datetime.fromisoformat(self.ended_at)
        seconds = (end - datetime.fromisoformat(began)).total_seconds()
        return max(0, self.images - self.images_before) / max(1.0, seconds)


@dataclass(frozen=True, slots=True)
class Problem:
    """A file of a job that failed, with an error code or a temporary reason, and one sentence."""

    path: str
    code: str
    message: str


class Jobs:
    """The jobs of one collection. Safe to call from several threads.

    All methods raise OceanoError: `ledger_unavailable` or `disk_full`.

    Args:
        database: the catalog.
        collection: the full name, such as faces__antelopev2__4ab1d643.
    """

    def __init__(self, database: Database, collection: str) -> None:
        self.database = database
        self._collection = collection

    def add(self, folder: str, options: Mapping[str, Any], started_by: str, *, worker: str | None = None) -> str:
        """Add an ingest of a folder, and delete old jobs that have ended.

        Args:
            folder: absolute.
            options: of the request, as JSON values.
            started_by: the user and the machine.
            worker: the worker that does the job alone and starts now; None: the job is queued for all workers.

        Returns:
            The id of the job.
        """
        job_id, now = str(uuid.uuid4()), timestamp()
        values = {
            "id": job_id,
            "collection": self._collection,
            "kind": "ingest",
            "folder": os.fsencode(folder),
            "options": json.dumps(options),
            "state": "queued" if worker is None else "running",
            "shared": worker is None,
            "phase": "scan",
            "started_by": started_by,
            "created_at": now,
            "started_at": None if worker is None else now,
        }
        with self.database.writing(urgent=True) as connection:
            self._delete_old(connection)
            connection.execute(JOBS.insert(), values)
            if worker is not None:
                connection.execute(update(WORKERS).where(WORKERS.c.id == worker).values(job_id=job_id))
        return job_id

    @retried
    def settle(self) -> None:
        """Remove the workers whose lease has ended, and interrupt or queue their jobs."""
        with self.database.reading() as connection:
            if not is_any_dead(connection):
                return
        with self.database.writing(urgent=True) as connection:
            remove_dead(connection)

    def get(self, job_id: str) -> Job:
        """Return a job.

        Args:
            job_id: its id, or the beginning of it that no other job has.

        Raises:
            OceanoError: `not_found`.
        """
        found = self._jobs(_JOB.id.startswith(job_id, autoescape=True)) if job_id else []
        if len(found) != 1:
            number = "several jobs have" if found else "no job has"
            raise OceanoError("not_found", f"{number} an id that begins with {job_id!r}; see `oceano jobs list`")
        return found[0]

    def newest(self, limit: int = 50) -> list[Job]:
        """Return the newest jobs, newest first."""
        return self._jobs(limit=limit)

    def running(self) -> list[Job]:
        """Return the jobs that have not ended, newest first."""
        return [job for job in self._jobs(_JOB.state.not_in(ENDED)) if job.state not in ENDED]

    def problems(self, job_id: str) -> Iterator[Problem]:
        """Yield the files of a job that failed, in pages."""
        last = b""
        query = select(PROBLEMS).where(PROBLEMS.c.job_id == job_id).order_by(PROBLEMS.c.key).limit(_PAGE)
        while True:
            with self.database.reading() as connection:
                page = connection.execute(query.where(PROBLEMS.c.key > last)).all()
            yield from (Problem(os.fsdecode(row.path), row.code, row.message) for row in page)
            if len(page) < _PAGE:
                return
            last = page[-1].key

    @retried
    def count_problems(self, job_id: str, codes: Collection[str]) -> int:
        """Return the number of files that failed with one of these codes."""
        one = PROBLEMS.c
        with self.database.reading() as connection:
            query = select(func.count()).where(one.job_id == job_id, one.code.in_(codes))
            return int(connection.execute(query).scalar_one())

    def stop(self, job_id: str) -> Job:
        """Stop a job after the current files; one without a worker is interrupted at once.

        Raises:
            OceanoError: `not_found`, `invalid_request` if it has ended.
        """
        self.settle()
        job = self.get(job_id)
        if job.state in ENDED:
            raise OceanoError("invalid_request", f"job {job.id} is {job.state} already")
        with self.database.writing(urgent=True) as connection:
            ask = update(JOBS).where(_JOB.id == job.id, _JOB.state.not_in(ENDED)).values(state="stopping")
            connection.execute(ask)
            end_unattended(connection)
        return self.get(job.id)

    def resume(self, job_id: str) -> Job:
        """Queue a job again that was interrupted or failed; workers continue it.

        Raises:
            OceanoError: `not_found`, `invalid_request` if it is done, runs or is queued.
        """
        self.settle()
        job = self.get(job_id)
        if job.state not in _RESUMABLE:
            killed = f"; a process that was killed counts for {LEASE_SECONDS} s" if job.workers else ""
            raise OceanoError("invalid_request", f"job {job.id} is {job.state}, not interrupted or failed{killed}")
        values = {"state": "queued", "shared": 1, "ended_at": None, "error": None, "message": None, "holder": None}
        if not job.shared:  # it had no list of files
            values |= {"counts": "{}", "phase": "scan", "started_at": None, "resumed_at": None, "images_before": 0}
        with self.database.writing(urgent=True) as connection:
            remove_dead(connection)
            free = update(JOBS).where(_JOB.id == job.id, _JOB.state.in_(_RESUMABLE), ~IS_ATTENDED)
            if not connection.execute(free.values(values)).rowcount:
                raise OceanoError("invalid_request", f"the worker of job {job.id} is ending; resume it in a minute")
        return self.get(job.id)

    def note_error(self, job_id: str, failure: OceanoError) -> None:
        """Record the last error of a worker; the job continues."""
        self._update(job_id, {"error": failure.code, "message": failure.message})

    def set_counts(self, job_id: str, counts: Counts, *, worker: str | None = None) -> None:
        """Replace the counts of a job that one process does alone.

        Args:
            job_id: the job.
            counts: all of them.
            worker: the worker that does the job; None: in any case.

        Raises:
            OceanoError: `ingest_in_progress` if the worker has lost its lease.
        """
        self._update(job_id, {"counts": json.dumps(dict(counts))}, worker)

    @retried
    def set_total(self, job_id: str, total: int, *, worker: str | None = None) -> None:
        """Record how many files a job has that one process does alone, as the count `total`; else as `set_counts`."""
        with self.database.writing(urgent=True) as connection:
            if worker is not None:
                require_lease(connection, worker, job_id)
            add_counts(connection, job_id, {"total": total}, replace=True)

    def end(
        self, job_id: str, state: JobState, failure: OceanoError | None = None, *, worker: str | None = None
    ) -> None:
        """Record that a job which one process does alone has ended; else as `set_counts`."""
        error = {} if failure is None else {"error": failure.code, "message": failure.message}
        self._update(job_id, {"state": state, "ended_at": timestamp(), **error}, worker)

    @retried
    def _update(self, job_id: str, values: Mapping[str, object], worker: str | None = None) -> None:
        with self.database.writing(urgent=True) as connection:
            if worker is not None:
                require_lease(connection, worker, job_id)
            connection.execute(update(JOBS).where(_JOB.id == job_id).values(values))

    @retried
    def _jobs(self, *conditions: Any, limit: int | None = None) -> list[Job]:
        with self.database.reading() as connection:
            alive = ~is_dead(connection)
            workers = select(func.count()).where(WORKERS.c.job_id == _JOB.id, alive).scalar_subquery()
            problems = select(func.count()).where(PROBLEMS.c.job_id == _JOB.id).scalar_subquery()
            query = select(JOBS, workers.label("workers"), problems.label("problems"))
            query = query.where(_JOB.collection == self._collection, *conditions)
            found = connection.execute(query.order_by(_JOB.created_at.desc(), _JOB.id).limit(limit)).all()
        return [_job(row) for row in found]

    def _delete_old(self, connection: Connection) -> None:
        ended = select(_JOB.id).where(_JOB.collection == self._collection, _JOB.state.in_(ENDED))
        old = connection.execute(ended.order_by(_JOB.created_at.desc()).offset(MOST_KEPT)).scalars().all()
        if old:
            connection.execute(delete(JOBS).where(_JOB.id.in_(old)))


_COUNTS: Final = select(_JOB.counts).where(_JOB.id == bindparam("job")).with_for_update()
_SET_COUNTS: Final = update(JOBS).where(_JOB.id == bindparam("job")).values(counts=bindparam("new"))


def images_in(counts: Counts) -> int:
    """Return how many images the counts of a job have."""
    return sum(counts.get(name, 0) for name in ("done", "no_face", "failed", "duplicate", "moved"))


def add_counts(connection: Connection, job_id: str, change: Counts, *, replace: bool = False) -> None:
    """Add to the counts of a job, or replace them; other transactions that do so wait for the end of this one."""
    if not any(change.values()):
        return
    kept = connection.execute(_COUNTS, {"job": job_id}).scalar_one_or_none()
    counts: dict[str, int] = json.loads(kept or "{}")
    for name, number in change.items():
        if number:
            counts[name] = number + (0 if replace else counts.get(name, 0))
    connection.execute(_SET_COUNTS, {"job": job_id, "new": json.dumps(counts)})


def _job(row: AnyRow) -> Job:
    state: JobState = row.state
    if not row.workers:  # a process that was killed cannot record that
        if state == "stopping" or (state == "running" and not row.shared):
            state = "interrupted"
        elif state == "running":
            state = "queued"
    return Job(
        id=row.id,
        collection=row.collection,
        kind=row.kind,
        folder=os.fsdecode(row.folder),
        options=json.loads(row.options),
        state=state,
        shared=bool(row.shared),
        phase=row.phase,
        counts=json.loads(row.counts),
        workers=row.workers,
        problems=row.problems,
        started_by=row.started_by,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        error=row.error,
        message=row.message,
        resumed_at=row.resumed_at,
        images_before=row.images_before,
    )
