"""The ingest pipeline, from a folder to the index; also a script.

scan -> read + hash -> decode -> detect -> align + embed -> thumbnails -> upsert -> flush -> ledger

Reader threads read files ahead (`library/reader`), worker threads decode and analyze batches (`library/batches`), and
the calling thread writes the results in the order of the files. A file is recorded in the ledger only after its faces
are durable in the index. An ingest can be killed at any point and run again: at most one batch is repeated, which
changes nothing, because a face's id comes from its picture.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Final, TypeVar

from app.catalog import FileRecord, Ledger, Mount
from app.core.concurrency import Budget, in_order, processors
from app.core.errors import OceanoError
from app.core.iteration import chunks
from app.core.paths import readable
from app.core.protocols import Engine, FaceIndex
from app.core.retry import RETRY_SECONDS, retry_index
from app.core.types import File, face_ids_of
from app.images import DecoderPool, NameProblem, Thumbs
from app.library.batches import Batch, BatchProcessor, Outcomes
from app.library.ingest_counts import IngestCounts, counts_of
from app.library.ingested_names import IngestedNames
from app.library.mounts import mounts_of
from app.library.names import PeopleNames
from app.library.presence import VisitedPaths
from app.library.raw_pairs import raw_files_beside
from app.library.reader import (
    PATH_TOO_LONG,
    TEMPORARY_REASONS,
    Reader,
    ReadResult,
    Unchanged,
    duplicate_record,
)
from app.library.scan import EVERYTHING, Folder, PathFilter
from app.library.settling import Settling

T = TypeVar("T")

_log = logging.getLogger(__name__)

# Results are written after this many files or this time, whichever comes first; a write costs a few fsyncs.
WRITE_BATCH_FILES: Final = 16
WRITE_SECONDS: Final = 1.0
READER_THREADS: Final = 4
DECODE_SECONDS: Final = 60.0  # for one picture, in a decoder process
CTIMES_AT_ONCE: Final = 1000  # recorded in one transaction, for results of versions that did not record them
RAW_PAIRS_AT_ONCE: Final = 1000
LOOKED_UP_AT_ONCE: Final = 256  # files looked up in one query of the ledger, while they are unchanged
LOOKED_UP_TO_READ: Final = 16  # the same while some must be read
MAX_READ_AHEAD_BYTES: Final = 200_000_000  # of files that are read but not decoded yet
DEFER_SECONDS: Final = 1.0  # until files are read again whose image another worker processes
ENGINE_CHECK_SECONDS: Final = 10.0
KEPT_FAILURES: Final = 5  # for the summary; the ledger has all of them


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """Options of a run.

    Attributes:
        max_pixels: a picture with more pixels is `failed`, before it is decoded.
        min_decoded_side: as for `images.decode`.
        retry: also ingest files again that failed or had no face.
        all_pages: process all pages of a TIFF, MPO or HEIF file, and read files again of which only the first was read.
        limit: ingest at most this many files; skipped and ignored files do not count.
        settle: settle copied, moved and replaced files (`library.settling`); else `finish` does so for all workers.
        retry_seconds: how long to retry writes while the index is unavailable.
        read_names: read names in the metadata of pictures and their sidecars.
        people_from_folders: take the name of a picture's folder for that of the person in it, if it has one face.
    """

    max_pixels: int
    min_decoded_side: int | None = None
    retry: bool = False
    all_pages: bool = False
    limit: int | None = None
    settle: bool = True
    retry_seconds: float = RETRY_SECONDS
    read_names: bool = False
    people_from_folders: bool = False


class Ingest:
    """One run over a folder, or over a list of files.

    Args:
        engine: finds and embeds faces.
        index: receives the faces.
        ledger: receives the results.
        thumbs: receives the thumbnails.
        options: of this run.
        stop: once set, the current files are finished and recorded, and the run ends.
        on_progress: called after every skipped file and every recorded batch.
        names: the people of the catalog; None: the faces that are stored get no names.

    Attributes:
        counts: what the run did so far.
        failures: the first `KEPT_FAILURES` files that failed.
    """

    def __init__(
        self,
        engine: Engine,
        index: FaceIndex,
        ledger: Ledger,
        thumbs: Thumbs,
        options: IngestOptions,
        *,
        stop: Event | None = None,
        on_progress: Callable[[IngestCounts], None] = lambda _: None,
        names: PeopleNames | None = None,
    ) -> None:
        self._engine = engine
        self._index = index
        self._ledger = ledger
        self._options = options
        self._decoders = DecoderPool(processors(), seconds=DECODE_SECONDS)
        self._reader = Reader(
            ledger,
            self._decoders,
            max_pixels=options.max_pixels,
            min_decoded_side=options.min_decoded_side,
            retry=options.retry,
            all_pages=options.all_pages,
            on_missing=self._require_folder,
        )
        self._thumbs = thumbs
        self._names = IngestedNames(
            names,
            index,
            ledger,
            engine.pack.digest,
            metadata=options.read_names,
            from_folders=options.people_from_folders,
            retry=self._retry_index,
        )
        self._processor = BatchProcessor(
            engine, self._reader, thumbs, all_pages=options.all_pages, names=self._names.reader
        )
        self._stop = stop or Event()
        self._settling = Settling(
            index,
            ledger,
            thumbs,
            digest=engine.pack.digest,
            on_missing=self._require_folder,
            retry=self._retry_index,
            stop=self._stop,
        )
        self._index_ahead = False
        self._deferred: list[File] = []  # whose image another worker processes
        self._visited: VisitedPaths | None = None
        self._folder: Folder | None = None
        self._recorded_mounts: set[Mount] = set()
        self._read_ahead = Budget(MAX_READ_AHEAD_BYTES)
        self._temporarily_unreadable = 0
        self._remaining = options.limit
        self._on_progress = on_progress
        self._batch_size = engine.batch
        self._files_ahead = 2 * max(engine.batch, WRITE_BATCH_FILES)
        self._max_workers = max(engine.concurrency, processors())
        self._batches_ahead = self._max_workers + max(2, WRITE_BATCH_FILES // engine.batch)
        # Outcomes of recent batches. A copy of one of their images was perhaps read before the image was in the ledger.
        recent = self._files_ahead + self._batches_ahead + WRITE_BATCH_FILES + 2
        self._outcomes: deque[Outcomes] = deque(maxlen=recent)
        self._last_check = time.monotonic()
        self.counts = IngestCounts()
        self.failures: list[FileRecord] = []

    def run(
        self,
        folder: Path | Folder,
        wanted: PathFilter = EVERYTHING,
        *,
        select: Callable[[Iterator[File]], Iterator[File]] = lambda files: files,
    ) -> IngestCounts:
        """Ingest the pictures of a folder. A file that fails is recorded with the reason; the run continues.

        Args:
            folder: the folder.
            wanted: the files to ingest.
            select: chooses the files to ingest now, of those that are wanted.

        Returns:
            `counts`.

        Raises:
            OceanoError: `index_unavailable`, `disk_full`, `folder_unavailable`, `engine_unhealthy`,
                `ledger_unavailable`, `thumbs_unavailable`. Files recorded so far stay recorded and are in `counts`.
        """
        self._folder = folder if isinstance(folder, Folder) else Folder(folder)
        _log.info("ingest of %s started", readable(self._folder.path))
        self._record_mounts()
        self._requeue_lost_images()
        self._visited = VisitedPaths()
        try:
            self.ingest_files(select(self._folder.scan(wanted)))
            self._replace_raw_pairs(self._folder.raw_pairs)
            self._settle_rest(self._folder, self._visited)
        finally:
            self._visited = None
            self.count_left_out()
        _log.info("ingest of %s finished: %s", readable(self._folder.path), self.counts)
        return self.counts

    def ingest_files(self, files: Iterable[File], folder: Folder | None = None) -> None:
        """Ingest files, as `run` does with those of a folder.

        Args:
            files: the files.
            folder: the folder in which they are; None: that of `run`.

        Raises:
            OceanoError: as `run` does.
        """
        self._folder = folder or self._folder
        with (
            closing(self._decoders),
            ThreadPoolExecutor(READER_THREADS, "read") as readers,
            ThreadPoolExecutor(self._max_workers, "ingest-worker") as workers,
        ):
            self._process_files(
                self._unfinished(self._names.watch(files, self._read_changed_sidecars)), readers, workers
            )
            while self._deferred and not self._should_stop:
                self._stop.wait(DEFER_SECONDS)
                deferred, self._deferred = self._deferred, []
                self._process_files(iter(deferred), readers, workers)
        self._read_changed_sidecars()
        self._ledger.flush()
        if not self._options.settle:
            return
        self._settling.settle()
        if not self._should_stop:  # else a file with a replaced image may have been read, but not recorded
            self._settling.settle_replaced()
            self._settling.settle_earlier()
        self._count_moved()

    def scan(self, folder: Folder, files: Iterable[File]) -> Iterator[File]:
        """Yield the files that workers shall ingest (`ingest_files`); count the others, and what the scan left out.

        Args:
            folder: the folder.
            files: its files.

        Raises:
            OceanoError: as `run` does.
        """
        self._folder = folder
        self._record_mounts()
        self._requeue_lost_images()
        for file in self._unfinished(files):
            yield file
            if self._remaining is not None:
                self._remaining -= 1
        self.count_left_out()

    def finish(
        self, folder: Folder, wanted: PathFilter, finished: Callable[[Sequence[str]], int], *, unread: int
    ) -> None:
        """Settle the files of a folder that workers have ingested with `settle=False`; the counts are in `counts`.

        Args:
            folder: the folder.
            wanted: as for `run`.
            finished: returns how many of some paths the workers have ingested.
            unread: number of files and folders that could not be read; missing files cannot be told from them.

        Raises:
            OceanoError: as `run` does.
        """
        self._folder = folder
        self._temporarily_unreadable = unread
        for paths in self._ledger.paths(folder.path):
            for path in filter(wanted.may_skip_raw, paths):
                folder.file(path, wanted)  # notes whether a JPEG takes its place
        self._replace_raw_pairs(folder.raw_pairs)
        self._settling.settle_earlier(finished)
        self._settle_rest(folder, VisitedPaths())
        self._count_moved()

    def _process_files(self, files: Iterator[File], readers: ThreadPoolExecutor, workers: ThreadPoolExecutor) -> None:
        full = self._read_ahead.is_exceeded
        reads = in_order(readers, self._read, files, ahead=self._files_ahead, full=full)
        batches = self._batches(reads)
        processed = in_order(workers, self._process, batches, ahead=self._batches_ahead, full=full)
        with closing(reads), closing(processed):
            unwritten, last_write = Batch(), time.monotonic()
            for batch in processed:
                unwritten.merge(batch)
                if len(unwritten) >= WRITE_BATCH_FILES or time.monotonic() - last_write >= WRITE_SECONDS:
                    self._write(unwritten)
                    unwritten, last_write = Batch(), time.monotonic()
            if len(unwritten):
                self._write(unwritten)

    def _settle_rest(self, folder: Folder, visited: VisitedPaths) -> None:
        """Settle raw files and, if the folder was scanned completely, its missing files."""
        if self._should_stop:
            return
        self._settling.settle_replaced()  # those of raw files
        if not folder.is_file and not self.unread:
            self._settling.settle_missing(folder.path, visited)
            self.counts.missing = self._settling.missing

    def _count_moved(self) -> None:
        moved = self._settling.moved - self.counts.moved
        self.counts.moved += moved
        self.counts.duplicate -= moved

    def replace_raw_files(self, files: Iterable[File], wanted: PathFilter) -> None:
        """Let JPEG and HEIC files that were just ingested replace the raw files beside them.

        Args:
            files: the files.
            wanted: as for `run`.
        """
        if self._folder is None:
            return
        raw_files = list(raw_files_beside(file.path for file in files))
        for path in raw_files:
            self._folder.file(path, wanted)  # notes whether it is left out
        noted = self._folder.raw_pairs
        if partners := {path: noted[path] for path in raw_files if path in noted}:
            self._replace_raw_pairs(partners)
            self._settling.settle_replaced()

    def _replace_raw_pairs(self, partners: Mapping[str, str]) -> None:
        """Let the JPEG beside a raw file take its place, if an earlier ingest took the raw file."""
        for pairs in chunks(partners.items(), RAW_PAIRS_AT_ONCE):
            self._ledger.replace_by_partners(dict(pairs))

    def count_left_out(self) -> None:
        """Count what the scans of the folder left out so far."""
        if self._folder is not None:
            self.counts.system_files = len(self._folder.system_files)
            self.counts.system_folders = len(self._folder.system_folders)
            self.counts.linked_folders = len(self._folder.linked_folders)
            self.counts.raw_pairs = len(self._folder.raw_pairs)

    @property
    def name_problems(self) -> Sequence[NameProblem]:
        """The first names in metadata that no face got."""
        return self._names.problems

    @property
    def unread(self) -> int:
        """Files that were temporarily unreadable, and folders that could not be listed."""
        return self._temporarily_unreadable + (0 if self._folder is None else self._folder.unlisted)

    def _read(self, file: File) -> ReadResult:
        """Read a file; its bytes count as read ahead until `_add_to_batch` or `_process` subtracts them."""
        self._read_ahead.change(file.size)
        read = self._reader.read(file)
        self._read_ahead.change(read.file.size - file.size)  # the file may have changed since it was listed
        return read

    def _process(self, batch: Batch) -> Batch:
        size = sum(read.file.size for read in batch.pending)
        try:
            return self._processor.process(batch)
        finally:
            self._read_ahead.change(-size)

    def _require_folder(self, failure: OSError | None = None) -> None:
        """Raise `folder_unavailable` if a file is missing or unreadable because the whole folder is unavailable."""
        if self._folder is not None:
            self._folder.require(failure)

    def _requeue_lost_images(self) -> None:
        """Ingest images again whose faces the index lost, because it was emptied or restored from an older copy."""
        in_index, in_ledger = self._index.count(), self._ledger.totals().faces
        self._index_ahead = in_index > in_ledger
        if in_index >= in_ledger:
            return
        lost, unsettled = [], []
        for image in self._ledger.images():
            image_id = str(image.image_id)
            found = self._index.retrieve(face_ids_of(image_id, self._engine.pack.digest, image.faces))
            if len(found) < image.faces:
                lost.append(image_id)
            elif any(face.payload.path != readable(image.path) for face in found):
                unsettled.append(image_id)
        _log.warning("the index lacks faces of %d images that are done in the ledger; ingesting them again", len(lost))
        self._ledger.delete_images(lost)
        self._index_ahead = True
        self._ledger.record([], unsettled=unsettled)
        self._ledger.unsettle_copies()

    def _unfinished(self, files: Iterable[File]) -> Iterator[File]:
        """Yield the files to read; count the unchanged ones as skipped."""
        without_ctime: dict[str, int | None] = {}
        for file, known in self._looked_up(files):
            self.counts.files += 1
            if self._visited is not None:
                self._visited.add(file.path)
            if known is None:
                yield file
                continue
            earlier = known.record
            if known.lost_original():
                self._add_unsettled(str(earlier.image_id))
            if earlier.ctime_ns is None:
                without_ctime[file.path] = file.ctime_ns
            if len(without_ctime) >= CTIMES_AT_ONCE:
                self._ledger.record_ctimes(without_ctime)
                without_ctime.clear()
            self.counts.skipped += 1
            self._ledger.skip(file.path, "skipped")
            self.counts.failed_before += earlier.status == "failed"
            self._on_progress(self.counts)
        if without_ctime:
            self._ledger.record_ctimes(without_ctime)

    def _looked_up(self, files: Iterable[File]) -> Iterator[tuple[File, Unchanged | None]]:
        """Yield files until the run should stop, each with what the ledger has if it is unchanged.

        One query looks up several files. It begins with one file, so that the first is not delayed, and many only
        follow unchanged ones: a file to read may change or vanish while it waits.
        """
        rest, size = iter(files), 1
        while not self._should_stop and (some := list(islice(rest, size))):
            found = self._reader.unchanged(some)
            for file, known in zip(some, found, strict=True):
                if self._should_stop:
                    return
                yield file, known
            size = min(2 * size, LOOKED_UP_TO_READ if None in found else LOOKED_UP_AT_ONCE)

    def _add_unsettled(self, image_id: str) -> None:
        if self._options.settle:
            self._settling.add_image(image_id)
        else:
            self._ledger.record([], unsettled=[image_id])

    @property
    def _should_stop(self) -> bool:
        return self._stop.is_set() or self._remaining == 0

    def _batches(self, reads: Iterable[ReadResult]) -> Iterator[Batch]:
        """Group files into batches, each with at most the engine's batch size of images to process."""
        batch = self._new_batch()
        for read in reads:
            if self._should_stop:
                break
            self._add_to_batch(read, batch)
            full = len(batch.pending) >= self._batch_size or len(batch) >= max(self._batch_size, WRITE_BATCH_FILES)
            if full or (len(batch) and self._read_ahead.is_exceeded()):
                yield batch
                batch = self._new_batch()
        if len(batch):
            yield batch

    def _new_batch(self) -> Batch:
        batch = Batch()
        self._outcomes.append(batch.outcomes)
        return batch

    def _add_to_batch(self, read: ReadResult, batch: Batch) -> None:
        original = next((outcomes for outcomes in self._outcomes if read.image_id in outcomes), None)
        to_process = bool(read.data) and original is None
        if not to_process:
            self._read_ahead.change(-read.file.size)
        if read.reserved:
            if not self._ledger.defer(read.file.path):
                self._deferred.append(read.file)
            return
        if read.record is None and not read.data:
            self.counts.ignored += 1
            self._ledger.skip(read.file.path, "ignored")
            return
        unchanged = read.record is not None and read.record.status in ("done", "no_face")
        if self._remaining is not None and not unchanged:
            self._remaining -= 1
        if read.record is not None:
            (batch.unchanged if unchanged else batch.records).append(read.record)
        elif original is not None:
            batch.duplicates.append((read.file, read.image_id, original))
        else:
            batch.pending.append(read)
            batch.outcomes[read.image_id] = None

    def _write(self, batch: Batch) -> None:
        """Write the faces to the index and, once they are durable, the results to the ledger."""
        named = Counter[str]()
        if batch.points:
            self._require_healthy_engine()
            self._thumbs.flush()
            points = self._names.stamped(batch.points, filter(None, batch.outcomes.values()))
            self._retry_index(lambda: self._index.upsert(points))
            self._retry_index(self._index.flush)
            named = self._names.apply(batch.names, points)
        records = [*batch.records, *filter(None, batch.outcomes.values())]
        records += [
            duplicate_record(outcome, file)
            for file, image_id, outcomes in batch.duplicates
            if (outcome := outcomes[image_id])
        ]
        self._record_mounts()
        recorded: list[FileRecord] = []
        kept: list[FileRecord] = []
        for record in records:
            (recorded if self._should_record(record) else kept).append(record)
        # Faces that the index has, but the ledger lacked, may have the path of another file.
        unsettled = [
            one for one in recorded if one.status == "duplicate" or (self._index_ahead and one.status == "done")
        ]
        counts = self._ledger.record(
            [*recorded, *batch.unchanged],
            unsettled=[str(one.image_id) for one in unsettled],
            kept=kept,
            counts=counts_of(batch, records) + named,
        )
        self.counts.add(counts)
        for record in records:
            if record.status == "failed":
                _log.info("failed: %s: %s (%s)", readable(record.path), record.message, record.reason)
                if len(self.failures) < KEPT_FAILURES:
                    self.failures.append(record)
        if self._options.settle:
            self._settling.add(unsettled)
            self._settling.settle_if_due()
            self._count_moved()
        self._on_progress(self.counts)

    def _read_changed_sidecars(self) -> None:
        for counts in self._names.apply_sidecars():
            self.counts.add(counts)

    def _record_mounts(self) -> None:
        """Record new mounts before the files on them, so that a prune can tell a missing drive from deleted files."""
        if self._folder is not None and (new := mounts_of(self._folder.path) - self._recorded_mounts):
            self._ledger.record_mounts(new)
            self._recorded_mounts |= new

    def _should_record(self, record: FileRecord) -> bool:
        """Count a temporarily unreadable file; it keeps an earlier record, and so its faces and their names."""
        if record.reason == PATH_TOO_LONG:
            return False
        if record.reason not in TEMPORARY_REASONS:
            return True
        self._temporarily_unreadable += 1
        earlier = self._ledger.file(record.path)
        return earlier is None or earlier.status == "failed"

    def _require_healthy_engine(self) -> None:
        """Raise `engine_unhealthy` rather than write faces that a broken model made."""
        if time.monotonic() - self._last_check >= ENGINE_CHECK_SECONDS:
            self._engine.check()
            self._last_check = time.monotonic()
        if not self._engine.health.healthy:
            raise OceanoError("engine_unhealthy", self._engine.health.message)

    def _retry_index(self, work: Callable[[], T]) -> T:
        """Retry a request while the index is unavailable; writing a point twice is the same as writing it once."""
        return retry_index(work, self._stop, seconds=self._options.retry_seconds)


def _run_as_script() -> int:
    """Run `python -m app ingest` with the same arguments, for `python app/app/ingest.py FOLDER`."""
    package = Path(__file__).resolve().parents[1]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))}
    os.execve(sys.executable, [sys.executable, "-m", "app", "ingest", *sys.argv[1:]], env)  # noqa: S606 - this Python


if __name__ == "__main__":
    sys.exit(_run_as_script())
