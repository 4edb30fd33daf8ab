"""Ingests as jobs in the catalog: who started one, what it shall do, and the ledger that its results go to."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from threading import Event
from typing import Any

from app.catalog import Job, JobLedger, Jobs, Ledger, Worker
from app.core.errors import OceanoError
from app.core.paths import absolute
from app.library import IngestCounts
from app.service.request import IngestRequest

# Fields of a request that only the process uses that was started with it.
_OF_THE_PROCESS = frozenset({"folder", "watch", "dry_run", "report"})


class RecordedIngest:
    """An ingest that this process does alone, as a job in the catalog; `recorded_ingest` makes it.

    Attributes:
        ledger: receives the results, which count for the job.
        job_id: the job.
    """

    def __init__(self, jobs: Jobs, worker: Worker, job_id: str) -> None:
        self._jobs = jobs
        self._worker = worker
        self.job_id = job_id
        self.ledger = JobLedger(worker, job_id)
        self._total_known = False

    def set_total(self, total: int) -> None:
        """Record how many files the folder has, once they are counted."""
        if not self._total_known:
            self._total_known = True
            with suppress(OceanoError):
                self._jobs.set_total(self.job_id, total, worker=self._worker.id)

    def set_counts(self, counts: IngestCounts, total: int | None) -> None:
        """Record all counts, in place of those of the results only."""
        known = {} if total is None else {"total": total}
        with suppress(OceanoError):  # the ingest has reported it, or the lease ends
            self._jobs.set_counts(self.job_id, asdict(counts) | known, worker=self._worker.id)


@contextmanager
def recorded_ingest(ledger: Ledger, request: IngestRequest, stop: Event) -> Iterator[RecordedIngest]:
    """Record an ingest as a running job until the context ends, and then how it ended.

    Args:
        ledger: of the collection.
        request: what it does.
        stop: set by `oceano jobs stop`; if it is set at the end, the job was interrupted.

    Raises:
        OceanoError: `ledger_unavailable`, `disk_full`, `ingest_in_progress` if this process has lost its lease.
    """
    jobs = Jobs(ledger.database, ledger.collection)
    worker = Worker(ledger.database, ledger.collection, this_process(), stop=stop)
    worker.join()
    try:
        job_id = jobs.add(absolute(request.folder), options_of(request), this_user(), worker=worker.id)
        worker.job_id = job_id
        try:
            yield RecordedIngest(jobs, worker, job_id)
        except OceanoError as failure:
            with suppress(OceanoError):
                jobs.end(job_id, "failed", failure, worker=worker.id)
            raise
        jobs.end(job_id, "interrupted" if stop.is_set() else "done", worker=worker.id)
    finally:
        worker.leave()


@dataclass(frozen=True, slots=True)
class QueuedIngest:
    """A queued ingest.

    Attributes:
        job_id: its job.
        is_new: False if the job was queued before.
        other: id of another job with the same folder and options that has not ended; it has listed the folder already,
            so it misses files that came later.
    """

    job_id: str
    is_new: bool = True
    other: str | None = None


def queue_ingest(ledger: Ledger, request: IngestRequest) -> QueuedIngest:
    """Add an ingest for the workers, unless one with the same folder and options has not listed the folder yet.

    With a limit, each one ingests other files, so that all are added.

    Raises:
        OceanoError: `ledger_unavailable`, `disk_full`.
    """
    jobs = Jobs(ledger.database, ledger.collection)
    folder, options = absolute(request.folder), options_of(request)
    same = [] if request.limit is not None else [job for job in jobs.running() if _is_same(job, folder, options)]
    if waiting := [job.id for job in same if job.phase == "scan"]:
        return QueuedIngest(waiting[-1], is_new=False)
    return QueuedIngest(jobs.add(folder, options, this_user()), other=same[-1].id if same else None)


def _is_same(job: Job, folder: str, options: Mapping[str, Any]) -> bool:
    is_open = job.shared and job.state in ("queued", "running")
    return is_open and job.folder == folder and job.options == json.loads(json.dumps(options))


def options_of(request: IngestRequest) -> dict[str, Any]:
    """Return the options of a request for the catalog, as JSON values."""
    return {name: value for name, value in asdict(request).items() if name not in _OF_THE_PROCESS}


def request_of(job: Job) -> IngestRequest:
    """Return the request of a job; options that this version does not know are left out."""
    known = {field.name for field in fields(IngestRequest)} - _OF_THE_PROCESS
    return IngestRequest(Path(job.folder), **{name: _option(job.options, name) for name in known & set(job.options)})


def _option(options: Mapping[str, Any], name: str) -> Any:
    value = options[name]
    return tuple(value) if isinstance(value, list) else value


def this_process() -> str:
    """Return the machine and the number of this process, for people."""
    return f"{socket.gethostname()}:{os.getpid()}"


def this_user() -> str:
    """Return the user of this process and the machine, for people."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container's user often has no name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"
