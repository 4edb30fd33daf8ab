"""The ingest path: folder -> faces -> index; also a script.

scan -> read + hash -> decode -> detect -> align + embed -> thumbnails -> upsert -> flush -> ledger

Files are read a little ahead by some threads (`library/reader`), batches of pictures decoded and analyzed by others
(`library/batches`), and written by one, in order. A file is in the ledger only after its faces are durable in the
index. Kill it anywhere and run it again: at most one batch is written over, and since a face's id comes from its
picture, that changes nothing.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final

from app.core.concurrency import Budget, in_order, processors
from app.core.errors import OceanoError
from app.core.paths import readable
from app.core.protocols import Engine, FaceIndex
from app.core.retry import RETRY_SECONDS, retry_index
from app.core.types import face_id_of
from app.images import ThumbStore
from app.library.batches import Batch, BatchProcessor, Outcomes
from app.library.ledger import FileRecord, Ledger
from app.library.mounts import Mount, mounts_of
from app.library.reader import PASSING, Read, Reader, copy_of
from app.library.scan import EVERYTHING, File, Folder, PathFilter

_log = logging.getLogger(__name__)

WRITTEN_AT_ONCE: Final = 16  # files at least, or those of a second; it is a few fsyncs, beside the worker threads
WRITTEN_SECONDS: Final = 1.0
READERS: Final = 4  # they wait for the disk, or for a network
WAITING_BYTES: Final = 200_000_000  # of files that are read, and not yet decoded
CHECK_SECONDS: Final = 10.0


@dataclass(slots=True)
class IngestCounts:
    """What one run did, in files; `faces` are those of the files that are `done` in this run.

    `skipped` files are unchanged since an earlier run (`failed_before` of them had failed), `ignored` ones
    are no pictures by content nor by name.
    """

    files: int = 0
    done: int = 0
    no_face: int = 0
    failed: int = 0
    duplicate: int = 0
    skipped: int = 0
    failed_before: int = 0
    ignored: int = 0
    faces: int = 0

    @property
    def images(self) -> int:
        """Pictures that this run came to a result on."""
        return self.done + self.no_face + self.failed + self.duplicate


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How a run goes.

    A picture with more than `max_pixels` is `failed`, before it is decoded; `enough` pixels of its longer side are
    decoded to begin with, see `images.decode`. `retry` takes up failed and no-face files again, too. At most `limit`
    files are taken up; those that are skipped or no pictures do not count. An index that is gone is waited for,
    `patience` seconds.
    """

    max_pixels: int
    enough: int | None = None
    retry: bool = False
    limit: int | None = None
    patience: float = RETRY_SECONDS


class Ingest:
    """Takes files up: one run over one folder, or over what comes.

    Args:
        stop: once set, what is in work is finished and recorded, and the run ends.
        on_progress: called after every file that is skipped and every batch that is recorded.
    """

    def __init__(
        self,
        engine: Engine,
        index: FaceIndex,
        ledger: Ledger,
        thumbs: ThumbStore,
        options: IngestOptions,
        *,
        stop: Event | None = None,
        on_progress: Callable[[IngestCounts], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._index = index
        self._ledger = ledger
        self._options = options
        self._reader = Reader(
            ledger,
            max_pixels=options.max_pixels,
            enough=options.enough,
            retry=options.retry,
            on_missing=self._require_folder,
        )
        self._concurrency = BatchProcessor(engine, self._reader, thumbs)
        self._folder: Folder | None = None
        self._mounts: set[Mount] = set()  # that the ledger has
        self._bytes = Budget(WAITING_BYTES)
        self.passing = 0  # files that could not be read just now
        self._left = options.limit
        self._stop = stop or Event()
        self._on_progress = on_progress
        self._batch = engine.batch
        self._reading_ahead = 2 * max(engine.batch, WRITTEN_AT_ONCE)
        self._most_workers = max(engine.concurrency, processors())
        self._lanes_ahead = self._most_workers + max(2, WRITTEN_AT_ONCE // engine.batch)
        # Outcomes of the last images: a copy of one that was in work while the copy was read is known by them.
        behind = self._reading_ahead + self._lanes_ahead + WRITTEN_AT_ONCE + 2
        self._outcomes: deque[Outcomes] = deque(maxlen=behind)
        self._checked = time.monotonic()
        self.counts = IngestCounts()

    def run(self, folder: Path | Folder, wanted: PathFilter = EVERYTHING) -> IngestCounts:
        """Ingest every wanted picture below `folder`. A bad file is recorded with its reason and ends nothing.

        Raises OceanoError for what no file is to blame for: `index_unavailable`, `disk_full`, `folder_unavailable`,
        `engine_unhealthy`, `ledger_unavailable`. All that was recorded until then stays.
        """
        self._folder = folder if isinstance(folder, Folder) else Folder(folder)
        _log.info("ingest of %s begins", readable(self._folder.path))
        self._note_mounts()
        self._take_up_what_the_index_lost()
        self.take(self._folder.scan(wanted))
        _log.info("ingest of %s ends: %s", readable(self._folder.path), self.counts)
        return self.counts

    def take(self, files: Iterable[File]) -> None:
        """Ingest these files, as `run` does those of a folder."""
        with (
            ThreadPoolExecutor(READERS, "read") as readers,
            ThreadPoolExecutor(self._most_workers, "ingest-worker") as pool,
        ):
            wanted = self._not_settled(files)
            reads = in_order(readers, self._read, wanted, ahead=self._reading_ahead, full=self._bytes.spent)
            batches = self._batches(reads)
            done = in_order(pool, self._work, batches, ahead=self._lanes_ahead, full=self._bytes.spent)
            with closing(reads), closing(done):
                waiting, written = Batch(), time.monotonic()
                for batch in done:
                    waiting.add(batch)
                    if len(waiting) >= WRITTEN_AT_ONCE or time.monotonic() - written >= WRITTEN_SECONDS:
                        self._write(waiting)
                        waiting, written = Batch(), time.monotonic()
                if len(waiting):
                    self._write(waiting)

    def _read(self, file: File) -> Read:
        """Takes its bytes into account before they are there; `_sort_in` and `_work` let them go."""
        self._bytes.change(file.size)
        read = self._reader.read(file)
        self._bytes.change(read.file.size - file.size)  # it may have grown meanwhile
        return read

    def _work(self, batch: Batch) -> Batch:
        held = sum(read.file.size for read in batch.reads)
        try:
            return self._concurrency.work(batch)
        finally:
            self._bytes.change(-held)

    @property
    def unseen(self) -> int:
        """Files that could not be read just now, and folders that could not be listed."""
        return self.passing + (0 if self._folder is None else self._folder.unlisted)

    def _require_folder(self, failure: OSError) -> None:
        """A file that is not there any more, or does not answer: is it the whole folder?"""
        if self._folder is not None:
            self._folder.require(failure)

    def _take_up_what_the_index_lost(self) -> None:
        """An index that was emptied or restored from an older copy lacks faces of the ledger: those go again."""
        if self._index.count() >= self._ledger.totals().faces:
            return
        lost = []
        for image in self._ledger.images():
            image_id = str(image.image_id)
            ids = [face_id_of(image_id, self._engine.pack.digest, place) for place in range(image.faces)]
            if len(self._index.retrieve(ids)) < image.faces:
                lost.append(image_id)
        _log.warning("the index lacks faces of %d images that the ledger has as done: they go again", len(lost))
        self._ledger.forget_images(lost)

    def _not_settled(self, files: Iterable[File]) -> Iterator[File]:
        for file in files:
            if self._ends:
                return
            self.counts.files += 1
            if (known := self._reader.settled(file)) is None:
                yield file
                continue
            self.counts.skipped += 1
            self.counts.failed_before += known.status == "failed"
            self._on_progress(self.counts)

    @property
    def _ends(self) -> bool:
        return self._stop.is_set() or self._left == 0

    def _batches(self, reads: Iterable[Read]) -> Iterator[Batch]:
        batch = self._new_batch()
        for read in reads:
            if self._ends:
                break
            self._sort_in(read, batch)
            enough = len(batch.reads) >= self._batch or len(batch) >= max(self._batch, WRITTEN_AT_ONCE)
            if enough or (len(batch) and self._bytes.spent()):
                yield batch
                batch = self._new_batch()
        if len(batch):
            yield batch

    def _new_batch(self) -> Batch:
        batch = Batch()
        self._outcomes.append(batch.outcomes)
        return batch

    def _sort_in(self, read: Read, batch: Batch) -> None:
        first = next((outcomes for outcomes in self._outcomes if read.image_id in outcomes), None)
        new = bool(read.data) and first is None
        if not new:
            self._bytes.change(-read.file.size)
        if read.record is None and not read.data:
            self.counts.ignored += 1
            return
        unchanged = read.record is not None and read.record.status in ("done", "no_face")
        if self._left is not None and not unchanged:
            self._left -= 1
        if read.record is not None:
            (batch.unchanged if unchanged else batch.records).append(read.record)
        elif first is not None:
            batch.copies.append((read.file, read.image_id, first))
        else:
            batch.reads.append(read)
            batch.outcomes[read.image_id] = None

    def _write(self, batch: Batch) -> None:
        """Faces first, durable; then the ledger."""
        if batch.points:
            self._require_healthy_engine()
            self._retry_index(lambda: self._index.upsert(batch.points))
            self._retry_index(self._index.flush)
        records = [*batch.records, *filter(None, batch.outcomes.values())]
        records += [
            copy_of(outcome, file) for file, image_id, outcomes in batch.copies if (outcome := outcomes[image_id])
        ]
        self._note_mounts()
        self._ledger.record([*filter(self._counts_for_good, records), *batch.unchanged])
        self.counts.skipped += len(batch.unchanged)
        for one in records:
            if one.status == "failed":
                _log.info("failed: %s: %s (%s)", readable(one.path), one.message, one.reason)
            setattr(self.counts, one.status, getattr(self.counts, one.status) + 1)
            self.counts.faces += one.faces
        self._on_progress(self.counts)

    def _note_mounts(self) -> None:
        """Before files of theirs are recorded: by that, a drive that is not there is told from a deletion."""
        if self._folder is not None and (fresh := mounts_of(self._folder.path) - self._mounts):
            self._ledger.note_mounts(fresh)
            self._mounts |= fresh

    def _counts_for_good(self, record: FileRecord) -> bool:
        """A file that cannot be read just now is still what it was: its faces, and their names, stay its own."""
        if record.reason not in PASSING:
            return True
        self.passing += 1
        known = self._ledger.file(record.path)
        return known is None or known.status == "failed"

    def _require_healthy_engine(self) -> None:
        """Nothing is written while the model is broken."""
        if time.monotonic() - self._checked >= CHECK_SECONDS:
            self._engine.check()
            self._checked = time.monotonic()
        if not self._engine.health.healthy:
            raise OceanoError("engine_unhealthy", self._engine.health.message)

    def _retry_index(self, write: Callable[[], None]) -> None:
        """An index that is gone for a while is waited for; writing a point twice is writing it once."""
        retry_index(write, self._stop, seconds=self._options.patience)


def _run_as_script() -> int:
    """`python app/app/ingest.py FOLDER` is `python -m app ingest FOLDER`."""
    package = Path(__file__).resolve().parents[1]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))}
    os.execve(sys.executable, [sys.executable, "-m", "app", "ingest", *sys.argv[1:]], env)  # noqa: S606 - itself


if __name__ == "__main__":
    sys.exit(_run_as_script())
