"""The monitor: polls index, ledger and engine, so that `/health`, `/status` and the page answer at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from app.catalog import Job, Jobs, Ledger, Totals
from app.core.concurrency import Threads
from app.core.errors import OceanoError
from app.core.program import program
from app.core.protocols import Engine, FaceIndex
from app.core.types import IndexInfo, Strangers
from app.metrics import Metrics
from app.people import NamesCopy
from app.security import Audit
from app.service.kept import KeptSearches
from app.service.running_jobs import set_job_metrics
from app.service.strangers import LEAST_FACES, sampled_strangers

_log = logging.getLogger(__name__)

_EMPTY: Final = "The index is empty (collection %s). If you expected faces, check MODEL_NAME and QDRANT_COLLECTION."
_NEW: Final = "The index is empty, as nothing was ingested yet. To index pictures: %s ingest FOLDER"
_NOT_CHECKED: Final = "not checked yet"

POLL_SECONDS: Final = 2.0
INDEX_TIMEOUT_SECONDS: Final = 5.0
ENGINE_POLL_SECONDS: Final = 60.0
STALE_SECONDS: Final = 10.0
NAMES_POLL_SECONDS: Final = 10.0
KEPT_POLL_SECONDS: Final = 600.0
AUDIT_POLL_SECONDS: Final = 600.0
STRANGERS_POLL_SECONDS: Final = 20.0

_GROWN: Final = 1.3  # times as many faces as when strangers were measured: measure again


@dataclass(slots=True)
class Snapshot:
    """The last known state.

    Attributes:
        index: None: it is unavailable, or was not asked yet.
        index_error: one sentence.
        index_at: when the index last answered, in seconds of the monotonic clock.
        totals: None: the ledger cannot be read.
        ledger_error: one sentence.
        jobs: those that have not ended, newest first; None: they cannot be read.
    """

    index: IndexInfo | None = None
    index_error: str = _NOT_CHECKED
    index_at: float = 0.0
    totals: Totals | None = None
    ledger_error: str = _NOT_CHECKED
    jobs: tuple[Job, ...] | None = None


class Monitor:
    """Polls the parts of a running service; one loop and one thread each, so that a part that hangs delays no other.

    Args:
        engine: compared with its reference picture every `ENGINE_POLL_SECONDS`.
        index: asked for its size every `POLL_SECONDS`.
        ledger: counted every `POLL_SECONDS`, a large one less often; its catalog has the jobs, read as often.
        metrics: the gauges to set.

    Attributes:
        snapshot: the last known state.
        kept: searches that are deleted when their time is over; None: none.
        audit: the log whose old entries are pruned; None: none.
        names: copies to the index what was named since the last copy; None: nothing does.
        is_new: returns whether nothing was ever ingested, so that an empty index is expected.
        strangers: the similarities of different people in this index; None if they are not known yet.
    """

    def __init__(self, engine: Engine, index: FaceIndex, ledger: Ledger, metrics: Metrics) -> None:
        self._engine = engine
        self._index = index
        self._ledger = ledger
        self._metrics = metrics
        self._jobs = Jobs(ledger.database, ledger.collection)
        self._index_thread = Threads(1, "monitor-index")
        self._ledger_thread = Threads(1, "monitor-ledger")
        self._jobs_thread = Threads(1, "monitor-jobs")
        self._jobs_error = ""
        self._engine_thread = Threads(1, "monitor-engine")
        self._engine_checked = False
        self._ledger_checked = False
        self._found_empty = ""  # the collection that was empty at the first check, until this is logged
        self.snapshot = Snapshot()
        self.kept: KeptSearches | None = None
        self.audit: Audit | None = None
        self._audit_anchored = False
        self.names: NamesCopy | None = None
        self._names_thread = Threads(1, "monitor-names")
        self._names_error = ""
        self.is_new: Callable[[], bool] = ledger.is_unused
        self._strangers_thread = Threads(1, "monitor-strangers")
        self._strangers_faces = 0  # in the index when they were measured
        self.strangers: Strangers | None = None

    @property
    def index_ok(self) -> bool:
        """True if the index answered within the last `STALE_SECONDS`."""
        return self.snapshot.index is not None and time.monotonic() - self.snapshot.index_at < STALE_SECONDS

    @property
    def faces_indexed(self) -> int | None:
        """Faces in the index; None while it is unavailable."""
        return self.snapshot.index.points if self.snapshot.index is not None and self.index_ok else None

    async def run(self) -> None:
        """Poll all parts until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._repeat(self.check_index))
            loops.create_task(self._repeat(self.check_ledger))
            loops.create_task(self._repeat(self.check_jobs))
            loops.create_task(self._repeat(self.check_engine))
            loops.create_task(self._repeat(self.check_names))
            loops.create_task(self._repeat(self.check_kept))
            loops.create_task(self._repeat(self.check_audit))
            loops.create_task(self._repeat(self.check_strangers))

    async def check_index(self) -> float:
        """Ask the index once, for at most `INDEX_TIMEOUT_SECONDS`; after a timeout the old state stays until stale.

        Returns:
            Seconds until the next check.
        """
        self._metrics.engine_healthy.set(self._engine.health.healthy)
        try:
            async with asyncio.timeout(INDEX_TIMEOUT_SECONDS):
                info = await self._index_thread.run(self._index.info)
        except TimeoutError:
            self._index_failed(f"the index has not answered within {INDEX_TIMEOUT_SECONDS:g} s")
        except OceanoError as failure:
            self.snapshot.index = None
            self._index_failed(failure.message)
        else:
            self._index_answered(info)
        self._metrics.index_up.set(self.index_ok)
        return POLL_SECONDS

    def _index_answered(self, info: IndexInfo) -> None:
        if not self.snapshot.index_at and not info.points:
            self._found_empty = info.collection
        if info.damaged_files and (self.snapshot.index is None or not self.snapshot.index.damaged_files):
            _log.error("%d files of the index were damaged on the disk; run `oceano doctor --fix`", info.damaged_files)
        self.snapshot.index, self.snapshot.index_error, self.snapshot.index_at = info, "", time.monotonic()
        self._metrics.index_points.set(info.points)
        self._metrics.index_indexed.set(info.indexed)
        if info.disk_bytes is not None:
            self._metrics.index_bytes.set(info.disk_bytes)
        self._metrics.index_maintaining.set(info.maintaining)
        self._metrics.index_copies_missing.set(info.copies_missing)
        self._metrics.index_damaged_files.set(info.damaged_files)

    def _index_failed(self, message: str) -> None:
        if self.snapshot.index_error != message:
            _log.error("%s", message)
        self.snapshot.index_error = message

    async def check_ledger(self) -> float:
        """Count the ledger's files; before the first count, check the ledger for damage. Searches work without it.

        Returns:
            Seconds until the next check. Counting reads every row and blocks an ingest that writes, so it may take
            a twentieth of the time at most.
        """
        start = time.monotonic()
        try:
            if not self._ledger_checked:
                await self._ledger_thread.run(self._ledger.check)
                self._ledger_checked = True
            totals = await self._ledger_thread.run(self._ledger.totals)
            if self._found_empty:
                await self._say_empty(self._found_empty)
                self._found_empty = ""
        except OceanoError as failure:
            if self.snapshot.ledger_error != failure.message:
                _log.error("%s", failure)
            self.snapshot.totals, self.snapshot.ledger_error = None, failure.message
            return max(POLL_SECONDS, 20 * (time.monotonic() - start))
        self.snapshot.totals, self.snapshot.ledger_error = totals, ""
        for status in ("done", "no_face", "failed", "duplicate"):
            self._metrics.ledger_files.labels(status).set(getattr(totals, status))
        return max(POLL_SECONDS, 20 * (time.monotonic() - start))

    async def _say_empty(self, collection: str) -> None:
        """Warn of an empty index, unless the data folder is new; then say how to begin."""
        if await self._ledger_thread.run(self.is_new):
            _log.info(_NEW, program())
        else:
            _log.warning(_EMPTY, collection)

    async def check_names(self) -> float:
        """Copy names to the index that a killed process, a failure or another machine left out.

        Returns:
            Seconds until the next check.
        """
        if self.names is None:
            return NAMES_POLL_SECONDS
        try:
            copied = await self._names_thread.run(self.names.catch_up)
        except OceanoError as failure:
            if self._names_error != failure.message:
                _log.error("names could not be copied to the index: %s", failure)
            self._names_error = failure.message
            return POLL_SECONDS
        if copied:
            _log.info("copied the names of %d images to the index", copied)
        self._names_error = ""
        return NAMES_POLL_SECONDS

    async def check_jobs(self) -> float:
        """Read the jobs that have not ended.

        Returns:
            Seconds until the next check: reading jobs with very many problems may take a twentieth of the time at most.
        """
        start = time.monotonic()
        try:
            jobs = await self._jobs_thread.run(self._jobs.running)
        except OceanoError as failure:
            if self._jobs_error != failure.message:
                _log.error("the jobs cannot be read: %s", failure)
            self.snapshot.jobs, self._jobs_error = None, failure.message
        else:
            self.snapshot.jobs, self._jobs_error = tuple(jobs), ""
            set_job_metrics(self._metrics, jobs)
        return max(POLL_SECONDS, 20 * (time.monotonic() - start))

    async def check_engine(self) -> float:
        """Let the engine embed its reference picture again; the first call does nothing, the engine was just built.

        Returns:
            Seconds until the next check.
        """
        if self._engine_checked:
            health = await self._engine_thread.run(self._engine.check)
            if not health.healthy:
                _log.error("the engine is unhealthy: %s", health.message)
        self._engine_checked = True
        return ENGINE_POLL_SECONDS

    async def check_kept(self) -> float:
        """Delete the kept searches whose time is over.

        Returns:
            Seconds until the next check.
        """
        if self.kept is not None:
            await self._ledger_thread.run(self.kept.delete_ended)
        return KEPT_POLL_SECONDS

    async def check_audit(self) -> float:
        """Write an anchor of the audit log at the first check, and prune entries that are kept no longer.

        Returns:
            Seconds until the next check.
        """
        if self.audit is not None and self.audit.is_kept:
            with contextlib.suppress(OceanoError):  # `check_ledger` says that the catalog is unavailable
                if not self._audit_anchored:
                    await self._ledger_thread.run(self.audit.anchor)
                    self._audit_anchored = True
                await self._ledger_thread.run(self.audit.prune, "oceano")
        return AUDIT_POLL_SECONDS

    async def check_strangers(self) -> float:
        """Measure the similarities of strangers if the index has grown or shrunk much since they were measured.

        Returns:
            Seconds until the next check.
        """
        faces = self.faces_indexed or 0
        if faces >= LEAST_FACES and not self._strangers_faces / _GROWN < faces < self._strangers_faces * _GROWN:
            with contextlib.suppress(OceanoError):  # measured at the next check
                self.strangers = await self._strangers_thread.run(sampled_strangers, self._index, self._engine.pack)
                self._strangers_faces = faces
        return STRANGERS_POLL_SECONDS if faces else POLL_SECONDS

    @staticmethod
    async def _repeat(check: Callable[[], Awaitable[float]]) -> None:
        while True:
            seconds = POLL_SECONDS
            try:
                seconds = await check()
            except Exception:  # noqa: BLE001 - one failed check must not stop the monitor
                _log.exception("a check of the monitor failed")
            await asyncio.sleep(seconds)

    def close(self) -> None:
        """Stop the threads; a call that hangs ends on its own."""
        with contextlib.ExitStack() as stack:
            for threads in (
                self._index_thread,
                self._ledger_thread,
                self._jobs_thread,
                self._engine_thread,
                self._strangers_thread,
                self._names_thread,
            ):
                stack.callback(threads.close)
