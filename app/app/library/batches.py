"""Batches of files, and their processing in a worker thread: decode, analyze, write thumbnails, build points."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from app.catalog import FileRecord
from app.core.errors import OceanoError
from app.core.paths import folders_of, readable
from app.core.protocols import Engine
from app.core.types import Face, FacePayload, FacePoint, File, Picture, face_id_of
from app.images import PictureNames, Thumbs, face_thumbnail, phash_of
from app.library.names import NameReader
from app.library.reader import Reader, ReadResult, all_pages_message, failure_record, file_record, first_page_message

_log = logging.getLogger(__name__)

MAX_PAGES: Final = 1000  # of one file; further ones are not read
MAX_PAGES_PIXELS: Final = 10_000_000_000  # of all pages of one file
MAX_PAGES_FACES: Final = 20_000
MAX_FAILED_PAGES: Final = 20
GROUP_PIXELS: Final = 32_000_000  # most decoded pixels per worker thread (100 MB), unless one picture has more
# Errors that a single picture can cause; all others end the run.
_PICTURE_ERRORS: Final = frozenset({"invalid_image", "internal"})


Outcomes = dict[str, FileRecord | None]
"""The records of images by image id; None for an image that is still being processed."""


@dataclass(slots=True)
class Batch:
    """Files that one worker thread processes; several batches are written together.

    Attributes:
        pending: images to process; empty afterwards.
        outcomes: the images of this batch, with their records once they are processed.
        duplicates: copies of an image of this or an earlier batch: the file, its image id, that batch's outcomes.
        records: results that need no processing.
        unchanged: records of files whose image is already `done` or `no_face` in the ledger.
        points: the faces to write to the index.
        names: pictures with names in their metadata.
        pages: pages that were read after the first ones of their files.
        failed_pages: further pages that failed.
    """

    pending: list[ReadResult] = field(default_factory=list)
    outcomes: Outcomes = field(default_factory=dict)
    duplicates: list[tuple[File, str, Outcomes]] = field(default_factory=list)
    records: list[FileRecord] = field(default_factory=list)
    unchanged: list[FileRecord] = field(default_factory=list)
    points: list[FacePoint] = field(default_factory=list)
    names: list[PictureNames] = field(default_factory=list)
    pages: int = 0
    failed_pages: int = 0

    def __len__(self) -> int:
        return len(self.outcomes) + len(self.duplicates) + len(self.records) + len(self.unchanged)

    def merge(self, other: Batch) -> None:
        """Add the results of another processed batch."""
        self.outcomes |= other.outcomes
        self.duplicates += other.duplicates
        self.records += other.records
        self.unchanged += other.unchanged
        self.points += other.points
        self.names += other.names
        self.pages += other.pages
        self.failed_pages += other.failed_pages


class BatchProcessor:
    """Processes batches; safe to call from several threads.

    A picture is analyzed right after decoding, while it is in the processor's cache. For an engine with a larger batch
    size, that many pictures are decoded first.

    Args:
        engine: finds and embeds faces.
        reader: decodes pictures.
        thumbs: receives the thumbnails.
        all_pages: also process the pages after the first of a file.
        names: reads the names in the metadata; None: they are not read.
    """

    def __init__(
        self,
        engine: Engine,
        reader: Reader,
        thumbs: Thumbs,
        *,
        all_pages: bool = False,
        names: NameReader | None = None,
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._thumbs = thumbs
        self._all_pages = all_pages
        self._names = names

    def process(self, batch: Batch) -> Batch:
        """Process the pending images of a batch: write thumbnails, and fill in `outcomes` and `points`.

        The caller flushes the thumbnails.

        Returns:
            The same batch.

        Raises:
            OceanoError: an error that no single picture causes, such as `engine_unhealthy` or `disk_full`.
        """
        for group in self._groups(batch):
            for (read, picture), faces in zip(group, self._analyze(group), strict=True):
                batch.outcomes[read.image_id] = self._outcome(read, picture, faces, batch)
        batch.pending.clear()
        return batch

    def _groups(self, batch: Batch) -> Iterator[list[tuple[ReadResult, Picture]]]:
        """Decode the pictures in groups of the engine's batch size; those that cannot be decoded get their outcome."""
        group: list[tuple[ReadResult, Picture]] = []
        pixels = 0
        for read in batch.pending:
            picture = self._reader.decode(read)
            if isinstance(picture, FileRecord):
                batch.outcomes[read.image_id] = picture
                continue
            group.append((read, picture))
            pixels += picture.pixels.size // 3
            if len(group) >= self._engine.batch or pixels >= GROUP_PIXELS:
                yield group
                group, pixels = [], 0
        if group:
            yield group

    def _analyze(self, group: Sequence[tuple[ReadResult, Picture]]) -> list[list[Face] | FileRecord]:
        """Find the faces of each picture. If a group fails, analyze its pictures one by one to find the bad one."""
        try:
            return list(self._engine.analyze([picture for _, picture in group]))
        except Exception as failure:
            if isinstance(failure, OceanoError) and failure.code not in _PICTURE_ERRORS:
                raise
            if len(group) > 1:
                return [self._analyze([one])[0] for one in group]
            return [failure_record(group[0][0].file, group[0][0].image_id, failure)]

    def _outcome(self, read: ReadResult, picture: Picture, faces: list[Face] | FileRecord, batch: Batch) -> FileRecord:
        if isinstance(faces, FileRecord):
            return faces
        try:
            points = self._points(read.file, picture, faces)
        except OceanoError as failure:  # the picture cannot be decoded at full size
            return failure_record(read.file, read.image_id, failure)
        payloads = [point.payload for point in points]
        if self._names is not None and (names := self._names.read(read.file.path, read.data, payloads)) is not None:
            batch.names.append(names)
        message = None
        if picture.pages > 1:
            message = (
                self._further_pages(read, picture, points, batch)
                if self._all_pages
                else first_page_message(picture.pages)
            )
        batch.points += points
        if points:
            return file_record(read.file, "done", read.image_id, message=message, faces=len(points))
        nothing = "no face was found in the picture"
        message = f"{nothing}; {message}" if message else nothing
        return file_record(read.file, "no_face", read.image_id, "face_not_found", message)

    def _further_pages(self, read: ReadResult, first: Picture, points: list[FacePoint], batch: Batch) -> str:
        """Add the faces of the pages after the first, within the limits, and return the message of the file's record.

        A page that fails is logged and counted; the others are kept.
        """
        path, end, failed, pixels = readable(read.file.path), 1, 0, first.width * first.height
        while (
            end < min(first.pages, MAX_PAGES)
            and failed < MAX_FAILED_PAGES
            and pixels <= MAX_PAGES_PIXELS
            and len(points) <= MAX_PAGES_FACES
        ):
            page = self._page(read, first, end, len(points))
            if isinstance(page, FileRecord):
                _log.warning("%s, page %d: %s (%s)", path, end + 1, page.message, page.reason)
                failed += 1
            else:
                pixels += page[0]
                points += page[1]
            end += 1
        if end < first.pages:
            _log.warning("%s: the pages after page %d exceed the limits and are not read", path, end)
        batch.pages += end - 1 - failed
        batch.failed_pages += failed
        return all_pages_message(end - failed, first.pages)

    def _page(
        self, read: ReadResult, first: Picture, page: int, position: int
    ) -> tuple[int, list[FacePoint]] | FileRecord:
        """Return the number of pixels and the faces of a page, or the record of its failure.

        Args:
            read: the file.
            first: its first page.
            page: number of the page, from 1.
            position: of the page's first face among those of the file.
        """
        picture = self._reader.decode(read, page)
        if isinstance(picture, FileRecord):
            return picture
        picture = replace(picture, taken_at=picture.taken_at or first.taken_at)
        faces = self._analyze([(read, picture)])[0]
        if isinstance(faces, FileRecord):
            return faces
        try:
            points = self._points(read.file, picture, faces, page=page, position=position)
        except OceanoError as failure:  # the page cannot be decoded at full size
            return failure_record(read.file, read.image_id, failure)
        return picture.width * picture.height, points

    def _points(
        self, file: File, picture: Picture, faces: list[Face], *, page: int = 0, position: int = 0
    ) -> list[FacePoint]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        path = readable(file.path)
        folder = folders_of(path)
        thumbs = [face_thumbnail(picture, face.bbox) for face in faces]  # all before any is written: one may fail
        phash = phash_of(picture.pixels) if faces else None
        points = []
        for at, (face, thumb) in enumerate(zip(faces, thumbs, strict=True), position):
            face_id = face_id_of(picture.image_id, self._engine.pack.digest, at)
            self._thumbs.write_soon(face_id, thumb)
            payload = FacePayload(
                image_id=picture.image_id,
                path=path,
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
                flaws=face.flaws,
                page=page,
                phash=phash,
            )
            points.append(FacePoint(face_id, face.embedding, payload))
        return points
