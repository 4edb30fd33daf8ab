"""The ingest job: opens the parts, ingests a folder, watches or prunes it, writes the report."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Final

from app.catalog import FileRecord, Ledger
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.paths import absolute, readable
from app.core.protocols import Engine, FaceIndex
from app.images import NameProblem, Thumbs
from app.index import remove_restore_leftovers
from app.ingest import Ingest, IngestOptions
from app.library import (
    Folder,
    IngestCounts,
    PruneCounts,
    Pruning,
    SharedProgress,
    Watch,
    only_writer,
    restore_marker_path,
)
from app.service.factory import open_for_ingest, open_without_engine
from app.service.grouping import Grouping
from app.service.jobs import RecordedIngest, recorded_ingest, this_user
from app.service.names import people_names
from app.service.request import IngestRequest, require_writable
from app.service.thumbs import open_thumbs

QUIET_SECONDS: Final = 30.0
"""Seconds without a new file after which a watched folder's faces are grouped."""


class IngestJob:
    """One ingest of one folder; `open_ingest_job` makes it.

    Args:
        request: a checked request.
        settings: limits and folders.
        parts: engine, index and ledger.
        stop: once set, the files in work are finished and the job ends.
        on_note: called with what else the user should know while the job runs.
    """

    def __init__(
        self,
        request: IngestRequest,
        settings: Settings,
        parts: tuple[Engine, FaceIndex, Ledger],
        stop: Event,
        on_note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._request = request
        self._on_note = on_note
        self._groups = settings.group_after_ingest
        self._grouped = 0  # faces of this run
        self._engine, self._index, self._ledger = parts
        self._thumbs = open_thumbs(settings)
        self._state_dir = settings.state_dir
        self._stop = stop
        self._options = IngestOptions(
            settings.max_image_pixels,
            min_decoded_side=settings.min_decoded_side,
            retry=request.retry,
            all_pages=request.all_pages,
            limit=request.limit,
            read_names=settings.read_names,
            people_from_folders=request.people_from_folders,
        )
        self.counts = IngestCounts()
        self.failures: list[FileRecord] = []  # the first ones of the run
        self.name_problems: Sequence[NameProblem] = ()
        self.pruned: PruneCounts | None = None
        self.unread = 0

    def run(self, on_progress: Callable[[IngestCounts, int | None], None] = lambda *_: None) -> None:
        """Ingest, then prune if the request says so; the results are in `counts`, `failures`, `pruned` and `unread`.

        Nothing is pruned if files or folders could not be read (`unread`): missing files could not be told from
        deleted ones.

        Args:
            on_progress: called after every file that is skipped and every batch that is recorded, with the number of
                all files, or None while they are counted.

        Raises:
            OceanoError: as `Ingest.run` does; the counts so far are in its details as "ingest".
        """
        with recorded_ingest(self._ledger, self._request, self._stop) as recorded:
            self._run(recorded, on_progress)

    def _run(self, recorded: RecordedIngest, on_progress: Callable[[IngestCounts, int | None], None]) -> None:
        shared = SharedProgress(self._state_dir, lambda: Folder(self._request.folder).scan(self._request.wanted))

        def update(counts: IngestCounts) -> None:
            shared.update(counts.finished)
            if shared.total is not None:
                recorded.set_total(shared.total)
            on_progress(counts, shared.total)

        ingest = Ingest(
            self._engine,
            self._index,
            recorded.ledger,
            self._thumbs,
            self._options,
            stop=self._stop,
            on_progress=update,
            names=people_names(recorded.ledger, self._index, this_user()),
        )
        self.counts, self.failures, self.name_problems = ingest.counts, ingest.failures, ingest.name_problems
        folder = Folder(self._request.folder)
        digest = self._engine.pack.digest
        pruning = _pruning(self._request, folder, self._index, self._ledger, self._thumbs, digest, self._stop)
        try:
            with shared:
                missing = pruning.missing() if self._request.prune else None
                if self._request.watch:
                    self._watch(ingest, folder, shared)
                else:
                    ingest.run(folder, self._request.wanted)
                self.unread = ingest.unread
                if self._request.prune and not self.unread and not self._stop.is_set():
                    with self._ledger.exclusive():
                        self.pruned = pruning.run(only=missing)
        except OceanoError as failure:
            failure.details["ingest"] = asdict(self.counts)
            raise
        finally:
            recorded.set_counts(self.counts, shared.total)

    def group(self) -> None:
        """Group the new faces by person, if the settings say so; a failure is only told, as a note."""
        if self._groups and not self._stop.is_set():
            self._grouped = self.counts.faces
            if line := Grouping(self._engine.pack, self._index, self._ledger, self._stop).after_ingest():
                self._on_note(line)

    def write_report(self) -> None:
        """Write the failed and no-face files of the folder, of this run and earlier ones, to the request's report.

        Then follow the names of this run that no face got.

        Raises:
            OceanoError: `invalid_request` if the report cannot be written.
        """
        if self._request.report is not None:
            records = self._ledger.without_faces(absolute(self._request.folder))
            _write_report(self._request.report, records, self.name_problems)

    def _watch(self, ingest: Ingest, folder: Folder, shared: SharedProgress) -> None:
        """Ingest the folder, then files as they arrive; the watch starts first, so that no file is missed."""
        wanted = self._request.wanted
        watch = Watch(folder, self._stop, wanted)
        arriving = watch.arrivals()
        next(arriving, None)
        ingest.run(folder, wanted, select=watch.complete)
        shared.end()
        quiet_since = time.monotonic()
        for files in arriving:
            if files:
                quiet_since = time.monotonic()
            elif self.counts.faces > self._grouped and time.monotonic() - quiet_since > QUIET_SECONDS:
                self.group()
            if files:
                ingest.ingest_files(files)
                ingest.replace_raw_files(files, wanted)
            ingest.count_left_out()


@contextmanager
def open_ingest_job(
    request: IngestRequest, settings: Settings, stop: Event, on_note: Callable[[str], None] = lambda _: None
) -> Iterator[IngestJob]:
    """Check a request, take the lock of the ledger, and open engine, index and ledger until the context ends.

    Args:
        request: what to ingest.
        settings: limits and folders.
        stop: as for `IngestJob`.
        on_note: as for `IngestJob`.

    Raises:
        OceanoError: `not_found`, `invalid_request`, `ingest_in_progress`, and as `open_for_ingest` does.
    """
    with _only_ingest(request, settings), open_for_ingest(settings) as parts:
        parts[2].database.retries.enable(stop)
        parts[2].check()  # a damaged ledger would lose results, and call existing files deleted
        yield IngestJob(request, settings, parts, stop, on_note)


def preview_prune(request: IngestRequest, settings: Settings, stop: Event) -> tuple[PruneCounts, int]:
    """Count what a prune would remove, without loading a model; folders that cannot be listed come second.

    Raises:
        OceanoError: `not_found`, `invalid_request`, `ingest_in_progress`, and as `open_without_engine` does.
    """
    with _only_ingest(request, settings), open_without_engine(settings) as (pack, index, ledger):
        ledger.check()
        folder = Folder(request.folder)
        thumbs = open_thumbs(settings)
        counts = _pruning(request, folder, index, ledger, thumbs, pack.digest, stop).run()
        for _ in folder.scan():  # a prune removes nothing if a folder cannot be listed
            if stop.is_set():
                break
        return counts, folder.unlisted


@contextmanager
def _only_ingest(request: IngestRequest, settings: Settings) -> Iterator[None]:
    request.check()
    with only_writer(settings.state_dir):
        # the ingest is newer than an unfinished restore
        restore_marker_path(settings.state_dir, settings.qdrant_collection).unlink(missing_ok=True)
        remove_restore_leftovers(settings)
        if request.report is not None:
            require_writable(request.report)
        yield


def _pruning(
    request: IngestRequest,
    folder: Folder,
    index: FaceIndex,
    ledger: Ledger,
    thumbs: Thumbs,
    digest: str,
    stop: Event,
) -> Pruning:
    return Pruning(
        folder,
        index,
        ledger,
        thumbs,
        digest=digest,
        dry_run=request.dry_run,
        drives=request.forget_drives,
        stop=stop,
    )


def _write_report(report: Path, records: Iterable[FileRecord], names: Iterable[NameProblem]) -> None:
    try:
        with report.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "status", "reason", "message"])
            for record in records:
                writer.writerow([readable(record.path), record.status, record.reason, record.message])
            for one in names:
                writer.writerow([readable(one.path), "name", one.reason, one.message])
    except OSError as failure:
        raise OceanoError("invalid_request", f"--report {report}: {failure.strerror}") from failure
