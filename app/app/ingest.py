"""The ingest path: folder -> faces -> index; also a script.

scan -> read + hash -> decode -> detect -> align + embed -> thumbnails -> upsert -> flush -> ledger

A file is in the ledger only after its faces are durable in the index. Kill it anywhere and run it
again: at most one batch is done over, and since a face's id comes from its picture, doing it over
changes nothing.
"""

from __future__ import annotations

if __name__ == "__main__":  # as a script: this folder comes first on the path and would hide the library's `types`
    import sys

    sys.path[0] = sys.path[0] + "/.."
    from app.cli import main

    sys.exit(main(["ingest", *sys.argv[1:]]))

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Final

from app.errors import OceanoError
from app.folders import File, contents, readable, scan
from app.images import ThumbStore, decode, face_thumbnail, image_id_of
from app.ledger import FileRecord, Ledger, Status
from app.types import Engine, Face, FaceIndex, FacePayload, FacePoint, Picture, face_id_of

_log = logging.getLogger(__name__)

BATCH_PICTURES: Final = 16
BATCH_PIXELS: Final = 64_000_000
# What may be better next time without the file having changed: tried again at every run.
_PASSING: Final = frozenset({"unreadable"})


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
class _Read:
    """A file as the reading stage leaves it: a picture, or the record that says all, or (neither) nothing of ours."""

    file: File
    picture: Picture | None = None
    record: FileRecord | None = None


@dataclass(slots=True)
class _Batch:
    """Pictures to analyze together, their copies among the files read with them, and results already known.

    `unchanged` are files of which only the time changed: they keep their result.
    """

    pictures: list[tuple[File, Picture]] = field(default_factory=list)
    copies: list[tuple[File, str]] = field(default_factory=list)
    records: list[FileRecord] = field(default_factory=list)
    unchanged: list[FileRecord] = field(default_factory=list)
    pixels: int = 0

    def add(self, file: File, picture: Picture) -> None:
        self.pictures.append((file, picture))
        self.pixels += picture.width * picture.height

    def holds(self, image_id: str) -> bool:
        return any(picture.image_id == image_id for _, picture in self.pictures)

    @property
    def full(self) -> bool:
        results = len(self.pictures) + len(self.records) + len(self.unchanged)
        return results >= BATCH_PICTURES or self.pixels >= BATCH_PIXELS


class Ingest:
    """One run over one folder.

    Args:
        max_pixels: a picture with more is `failed`, before it is decoded.
        retry: take up failed and no-face files again, too.
        stop: once set, what is in work is finished and recorded, and the run ends.
        on_progress: called after every file that is skipped and every batch that is recorded.
    """

    def __init__(
        self,
        engine: Engine,
        index: FaceIndex,
        ledger: Ledger,
        thumbs: ThumbStore,
        *,
        max_pixels: int,
        retry: bool = False,
        stop: Event | None = None,
        on_progress: Callable[[IngestCounts], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._index = index
        self._ledger = ledger
        self._thumbs = thumbs
        self._max_pixels = max_pixels
        self._retry = retry
        self._stop = stop or Event()
        self._on_progress = on_progress
        self.counts = IngestCounts()

    def run(self, folder: Path) -> IngestCounts:
        """Ingest every picture below `folder`. A bad file is recorded with its reason and ends nothing.

        Raises OceanoError for what no file is to blame for: `index_unavailable`, `disk_full`,
        `engine_unhealthy`, `ledger_unavailable`. All that was recorded until then stays.
        """
        _log.info("ingest of %s begins", folder)
        self._take_up_what_the_index_lost()
        batch = _Batch()
        for read in self._read_ahead(folder):
            self._sort_in(read, batch)
            if batch.full:
                self._finish(batch)
                batch = _Batch()
        self._finish(batch)
        _log.info("ingest of %s ends: %s", folder, self.counts)
        return self.counts

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

    def _read_ahead(self, folder: Path) -> Iterator[_Read]:
        """Files in the order of the scan, read, hashed and decoded by a few threads a few files ahead."""
        threads = os.cpu_count() or 1
        with ThreadPoolExecutor(threads, "read") as pool:
            ahead: deque[Future[_Read]] = deque()
            try:
                for file in scan(folder):
                    if self._stop.is_set():
                        break
                    self.counts.files += 1
                    if self._skips(file):
                        continue
                    ahead.append(pool.submit(self._read, file))
                    if len(ahead) > 2 * threads:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _skips(self, file: File) -> bool:
        known = self._ledger.file(file.path)
        if known is None or (known.size, known.mtime_ns) != (file.size, file.mtime_ns):
            return False
        if known.reason in _PASSING or (self._retry and known.status in ("failed", "no_face")):
            return False
        self.counts.skipped += 1
        self.counts.failed_before += known.status == "failed"
        self._on_progress(self.counts)
        return True

    def _read(self, file: File) -> _Read:
        """One file, in a thread of the pool. Whatever is wrong with it becomes its record."""
        image_id = None
        try:
            data = contents(file)
            if data is None:
                return _Read(file)
            image_id = image_id_of(data)
            if (known := self._known(file, image_id)) is not None:
                return _Read(file, record=known)
            return _Read(file, decode(data, max_pixels=self._max_pixels, image_id=image_id))
        except OceanoError as failure:
            if failure.code in ("ledger_unavailable", "disk_full"):
                raise
            return _Read(file, record=_failed(file, image_id, failure.code, failure.message))
        except OSError as failure:
            return _Read(file, record=_failed(file, None, "unreadable", failure.strerror or str(failure)))
        except Exception as failure:  # noqa: BLE001 - one file never ends the run
            return _Read(file, record=_unexpected(file, image_id, failure))

    def _known(self, file: File, image_id: str) -> FileRecord | None:
        """What to record of a file whose picture is in the ledger already; None if there is work to do."""
        known = self._ledger.image(image_id)
        if known is None or (self._retry and known.status == "no_face"):
            return None
        if known.path == file.path:  # only its time changed
            return replace(known, size=file.size, mtime_ns=file.mtime_ns)
        return _record(file, "duplicate", image_id)

    def _sort_in(self, read: _Read, batch: _Batch) -> None:
        if read.record is not None:
            unchanged = read.record.status in ("done", "no_face")
            (batch.unchanged if unchanged else batch.records).append(read.record)
        elif read.picture is None:
            self.counts.ignored += 1
        elif batch.holds(read.picture.image_id):
            batch.copies.append((read.file, read.picture.image_id))
        elif (known := self._known(read.file, read.picture.image_id)) is not None:  # became known since it was read
            batch.records.append(known)
        else:
            batch.add(read.file, read.picture)

    def _finish(self, batch: _Batch) -> None:
        """Faces first, durable; then the ledger."""
        points: list[FacePoint] = []
        fates: dict[str, FileRecord] = {}
        for (file, picture), faces in zip(batch.pictures, self._analyze(batch.pictures), strict=True):
            if isinstance(faces, FileRecord):
                fate = faces
            elif faces:
                points += self._points(file, picture, faces)
                fate = _record(file, "done", picture.image_id, faces=len(faces))
            else:
                fate = _record(file, "no_face", picture.image_id, "face_not_found", "no face was found in the picture")
            fates[picture.image_id] = fate
        if points:
            self._index.upsert(points)
            self._index.flush()
        copies = [_copy(file, fates[image_id]) for file, image_id in batch.copies]
        records = [*batch.records, *fates.values(), *copies]
        if records or batch.unchanged:
            self._ledger.record([*records, *batch.unchanged])
        self.counts.skipped += len(batch.unchanged)
        for record in records:
            if record.status == "failed":
                _log.info("failed: %s: %s (%s)", readable(record.path), record.message, record.reason)
            setattr(self.counts, record.status, getattr(self.counts, record.status) + 1)
            self.counts.faces += record.faces
        self._on_progress(self.counts)

    def _analyze(self, pictures: list[tuple[File, Picture]]) -> list[list[Face] | FileRecord]:
        """Faces of each picture. If a batch fails, its pictures go one by one: the one that fails alone is to blame."""
        if not pictures:
            return []
        try:
            return list(self._engine.analyze([picture.pixels for _, picture in pictures]))
        except OceanoError:
            raise
        except Exception as failure:  # noqa: BLE001 - onnxruntime and OpenCV raise what they like
            if len(pictures) > 1:
                return [self._analyze([one])[0] for one in pictures]
            file, picture = pictures[0]
            return [_unexpected(file, picture.image_id, failure)]

    def _points(self, file: File, picture: Picture, faces: list[Face]) -> list[FacePoint]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        shown = readable(file.path)
        folder = tuple(str(parent) for parent in reversed(Path(shown).parents))
        points = []
        for place, face in enumerate(faces):
            face_id = face_id_of(picture.image_id, self._engine.pack.digest, place)
            self._thumbs.write(face_id, face_thumbnail(picture.pixels, face.bbox))
            payload = FacePayload(
                image_id=picture.image_id,
                path=shown,
                folder=folder,
                bbox=face.bbox,
                kps=face.kps,
                width=picture.width,
                height=picture.height,
                det_score=face.det_score,
                quality=face.quality,
                person=None,
                taken_at=picture.taken_at,
                ingested_at=now,
            )
            points.append(FacePoint(face_id, face.embedding, payload))
        return points


def _record(
    file: File,
    status: Status,
    image_id: str | None,
    reason: str | None = None,
    message: str | None = None,
    faces: int = 0,
) -> FileRecord:
    return FileRecord(file.path, file.size, file.mtime_ns, image_id, status, faces, reason, message)


def _failed(file: File, image_id: str | None, reason: str, message: str) -> FileRecord:
    return _record(file, "failed", image_id, reason, message)


def _unexpected(file: File, image_id: str | None, failure: Exception) -> FileRecord:
    _log.error("%s", readable(file.path), exc_info=failure)
    return _failed(file, image_id, "internal", repr(failure))


def _copy(file: File, first: FileRecord) -> FileRecord:
    """A copy within one batch shares the fate of the first: of a failed picture it failed, too."""
    if first.status == "failed":
        return _failed(file, first.image_id, str(first.reason), str(first.message))
    return _record(file, "duplicate", first.image_id)
