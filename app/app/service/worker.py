"""A worker: takes part in the jobs of the catalog, beside any number of workers on other machines.

One worker scans the folder of a job once and adds its files to the catalog. All workers take files in small batches
and ingest them. The one that finds nothing left settles copies and deleted files, and ends the job. A worker that dies
loses its lease, and others do what it had.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Event, Thread
from typing import Final

from app.catalog import (
    LEASE_SECONDS,
    ClaimedLedger,
    Job,
    Jobs,
    Ledger,
    Worker,
    is_on_this_machine,
)
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.iteration import chunks
from app.core.paths import readable
from app.core.protocols import Engine, FaceIndex
from app.core.types import File
from app.images import Thumbs
from app.ingest import Ingest, IngestOptions
from app.library import TEMPORARY_REASONS, Folder, Pruning, only_writer
from app.service.factory import open_for_ingest
from app.service.grouping import Grouping
from app.service.jobs import request_of, this_process
from app.service.names import people_names
from app.service.thumbs import open_thumbs

_log = logging.getLogger(__name__)

TAKEN_AT_ONCE: Final = 32  # files
POLL_SECONDS: Final = 1.0  # for files or jobs, while there are none
AVOID_SECONDS: Final = 60.0  # a job whose folder this machine does not see
_SCANNED_AT_ONCE: Final = 500
# The machine does not see the folder; other machines may.
_OF_THE_FOLDER: Final = frozenset({"folder_unavailable", "not_found"})


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What a worker ingests with."""

    engine: Engine
    index: FaceIndex
    ledger: Ledger
    thumbs: Thumbs


class IngestWorker:
    """Takes part in jobs until it is stopped; `open_worker` makes it.

    Args:
        parts: engine, index, ledger and thumbnails.
        settings: limits and folders.
        stop: once set, the current files are finished and recorded, and `run` returns.
        on_job: called with each job that the worker begins or leaves, and one word for that.
        on_wait: called with a sentence: once if another process has the data folder and this worker waits for it, and
            after an ingest, about the groups of its faces.
        lease_seconds: as for `Worker`.
    """

    def __init__(
        self,
        parts: WorkerParts,
        settings: Settings,
        stop: Event,
        on_job: Callable[[Job, str], None] = lambda *_: None,
        on_wait: Callable[[str], None] = lambda _: None,
        *,
        lease_seconds: int = LEASE_SECONDS,
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._stop = stop
        self._on_job = on_job
        self._on_wait: Callable[[str], None] | None = on_wait
        self._say = on_wait
        self._jobs = Jobs(parts.ledger.database, parts.ledger.collection)
        self._worker = Worker(
            parts.ledger.database, parts.ledger.collection, this_process(), lease_seconds=lease_seconds
        )
        self._avoided: dict[str, float] = {}  # until when, by job

    def run(self, *, once: bool = False) -> None:
        """Work on jobs.

        Args:
            once: return when no job is queued or running, but for those whose folder this machine does not see.

        Raises:
            OceanoError: `index_unavailable`, `disk_full`, `engine_unhealthy`, `ledger_unavailable`,
                `thumbs_unavailable`; other workers go on.
        """
        self._worker.join()
        Thread(target=self._forward_stop, name="stop", daemon=True).start()
        try:
            while not self._stop.is_set():
                if not self._work_alone():
                    if once and not any(job.shared and job.id not in self._avoided for job in self._jobs.running()):
                        return
                    self._stop.wait(POLL_SECONDS)
        finally:
            self._worker.leave()

    def _work_alone(self) -> bool:
        """As `_work`; with SQLite, which has one writer, only while no other process ingests."""
        if self._parts.ledger.database.has_many_writers:
            return self._work()
        try:
            with only_writer(self._settings.state_dir):
                return self._work()
        except OceanoError as failure:
            if failure.code != "ingest_in_progress":
                raise
            self._say_waiting(failure.details.get("pid"))
            return False

    def _say_waiting(self, pid: object) -> None:
        if self._on_wait is not None:
            self._on_wait(
                f"another process ({pid or 'unknown'}) ingests in this data folder; this worker waits for it. Several "
                "workers at once need a catalog in PostgreSQL: set CATALOG_URL"
            )
            self._on_wait = None

    def _work(self) -> bool:
        """Work on one job as long as there are files; return False if no job has anything to do."""
        now = time.monotonic()
        self._avoided = {job_id: until for job_id, until in self._avoided.items() if until > now}
        if not self._stop.is_set():
            self._worker.stop.clear()
        if (job_id := self._worker.take_job(list(self._avoided))) is None:
            return False
        job = self._jobs.get(job_id)
        self._on_job(job, "started")
        is_ended = False
        try:
            is_ended = _SharedIngest(self._parts, self._settings, self._worker, self._jobs, job).run()
        except OceanoError as failure:
            self._jobs.note_error(job_id, failure)
            if failure.code not in _OF_THE_FOLDER:
                raise
            _log.warning("job %s is left to other workers: %s", job_id, failure.message)
            self._avoided[job_id] = time.monotonic() + AVOID_SECONDS
        finally:
            self._worker.release_job()
        self._on_job(self._jobs.get(job_id), "left")
        if is_ended and self._settings.group_after_ingest:
            parts = self._parts
            if line := Grouping(parts.engine.pack, parts.index, parts.ledger, self._worker.stop).after_ingest():
                self._say(line)
        return True

    def _forward_stop(self) -> None:
        self._stop.wait()
        self._worker.stop.set()


class _SharedIngest:
    """The part of one worker in one job."""

    def __init__(self, parts: WorkerParts, settings: Settings, worker: Worker, jobs: Jobs, job: Job) -> None:
        self._parts = parts
        self._worker = worker
        self._jobs = jobs
        self._job = job
        self._request = request_of(job)
        self._folder = Folder(self._request.folder)
        self._ledger = ClaimedLedger(worker, job.id)
        self._claimed_before = 0  # files that an interrupted scan added
        self._options = IngestOptions(
            settings.max_image_pixels,
            min_decoded_side=settings.min_decoded_side,
            retry=self._request.retry,
            all_pages=self._request.all_pages,
            limit=self._request.limit,
            settle=False,
            read_names=settings.read_names,
            people_from_folders=self._request.people_from_folders,
        )

    def run(self) -> bool:
        """Do what there is to do; return whether this worker ended the job."""
        with ThreadPoolExecutor(1, "scan") as threads:
            scanning = threads.submit(self._scan) if self._worker.hold("scan") else None
            try:
                self._ingest(scanning)
            except BaseException:
                self._worker.stop.set()  # ends the scan
                raise
            if scanning is not None:
                scanning.result()
        return not self._worker.stop.is_set() and self._worker.hold("finish") and self._finish()

    def _ingest(self, scanning: Future[None] | None) -> None:
        """Ingest files until no more are free, and none of those that others have can come back soon."""
        ingest = self._new_ingest(self._ledger, limited=False)
        while not self._worker.stop.is_set():
            # One file is enough to begin; when none is free, what was read is written: others may wait for it.
            if first := self._ledger.take(TAKEN_AT_ONCE):
                self._require_any(first)
                ingest.ingest_files(self._files(first), self._folder)
            elif (scanning is not None and not scanning.done()) or self._ledger.is_any_free():
                self._worker.stop.wait(POLL_SECONDS)
            else:
                return

    def _files(self, first: list[File]) -> Iterator[File]:
        files = first
        while files and not self._worker.stop.is_set():
            yield from files
            files = self._ledger.take(TAKEN_AT_ONCE)

    def _require_any(self, files: list[File]) -> None:
        """Raise `folder_unavailable` if this machine sees none of the files: another drive is mounted at the path."""
        if not any(os.path.lexists(one.path) for one in files):
            self._folder.require()
            raise OceanoError(
                "folder_unavailable",
                f"{self._worker.name} does not see the files of {readable(self._folder.path)}, such as "
                f"{readable(files[0].path)}. Mount the folder at the same path on every machine.",
            )

    def _scan(self) -> None:
        """Add the files of the folder that are to be ingested to the job."""
        ingest = self._new_ingest(self._parts.ledger, limited=True)
        if self._request.prune:
            self._ledger.add_missing(sorted(self._pruning().missing()))
        found = self._folder.scan(self._request.wanted)
        if self._ledger.has_files():  # of a scan that was interrupted
            found = self._without_claimed(found)
        files = ingest.scan(self._folder, found)
        for some in chunks(files, _SCANNED_AT_ONCE):
            if not self._ledger.add(some, self._claimed_before + ingest.counts.files):
                return
        if self._worker.stop.is_set():
            return
        counts = {name: getattr(ingest.counts, name) for name in _COUNTS_OF_THE_SCAN}
        counts["unlisted"] = self._folder.unlisted
        self._ledger.end_scan(counts, self._claimed_before + ingest.counts.files)

    def _without_claimed(self, files: Iterator[File]) -> Iterator[File]:
        for some in chunks(files, _SCANNED_AT_ONCE):
            unclaimed = set(self._ledger.unclaimed([one.path for one in some]))
            self._claimed_before += len(some) - len(unclaimed)
            yield from (one for one in some if one.path in unclaimed)

    def _finish(self) -> bool:
        """Settle copied, moved and deleted files, prune if the request says so, and end the job."""
        wanted = self._request.wanted
        unread = self._jobs.get(self._job.id).counts.get("unlisted", 0)
        unread += self._jobs.count_problems(self._job.id, TEMPORARY_REASONS)
        ingest = self._new_ingest(self._parts.ledger, limited=False)
        ingest.finish(self._folder, wanted, self._ledger.finished_of, unread=unread)
        counts = {"moved": ingest.counts.moved, "duplicate": ingest.counts.duplicate, "missing": ingest.counts.missing}
        if self._request.prune and not unread and not self._worker.stop.is_set():
            with self._parts.ledger.exclusive():
                counts["pruned"] = self._pruning().run(only=self._ledger.missing()).files
        if self._worker.stop.is_set():
            return False
        self._ledger.end_job(counts)
        return True

    def _pruning(self) -> Pruning:
        return Pruning(
            self._folder,
            self._parts.index,
            self._parts.ledger,
            self._parts.thumbs,
            digest=self._parts.engine.pack.digest,
            dry_run=False,
            drives=self._request.forget_drives,
            stop=self._worker.stop,
        )

    def _new_ingest(self, ledger: Ledger, *, limited: bool) -> Ingest:
        options = self._options if limited else replace(self._options, limit=None)
        parts = self._parts
        names = people_names(ledger, parts.index, self._job.started_by)
        return Ingest(parts.engine, parts.index, ledger, parts.thumbs, options, stop=self._worker.stop, names=names)


_COUNTS_OF_THE_SCAN: Final = (
    "skipped", "failed_before", "system_files", "system_folders", "linked_folders", "raw_pairs",
)  # fmt: skip


@contextmanager
def open_worker(
    settings: Settings,
    stop: Event,
    on_job: Callable[[Job, str], None] = lambda *_: None,
    on_wait: Callable[[str], None] = lambda _: None,
) -> Iterator[IngestWorker]:
    """Open engine, index, ledger and thumbnails for a worker until the context ends.

    Raises:
        OceanoError: `invalid_setting` if the index belongs to this machine and the catalog to another one, and as
            `open_for_ingest` does.
    """
    require_shared_index(settings)
    with open_for_ingest(settings) as (engine, index, ledger):
        ledger.database.retries.enable(stop)
        parts = WorkerParts(engine, index, ledger, open_thumbs(settings))
        yield IngestWorker(parts, settings, stop, on_job, on_wait)


def require_shared_index(settings: Settings) -> None:
    """Refuse an index that is a file of this machine beside a catalog on another one.

    Raises:
        OceanoError: `invalid_setting`.
    """
    if settings.catalog_url and not settings.qdrant_url and not is_on_this_machine(settings.catalog_url):
        raise OceanoError(
            "invalid_setting",
            "QDRANT_URL is empty, so the index is a file of this machine, but CATALOG_URL names a database on another "
            "one: the catalog would list faces that no other machine can find. Set QDRANT_URL to a Qdrant server.",
            details={"settings": ["QDRANT_URL", "CATALOG_URL"]},
        )
