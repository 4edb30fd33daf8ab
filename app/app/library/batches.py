"""Batches of pictures in a worker thread: decoded, analyzed, with thumbnails and points, ready to be written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from app.core.errors import OceanoError
from app.core.paths import folders_of, readable
from app.core.protocols import Engine
from app.core.types import Face, FacePayload, FacePoint, Picture, face_id_of
from app.images import ThumbStore, face_thumbnail
from app.library.ledger import FileRecord
from app.library.reader import Read, Reader, blamed, record
from app.library.scan import File

GROUP_PIXELS: Final = 32_000_000  # decoded at once by a worker thread: 100 MB, or one picture
# Errors of one picture, when it is analyzed alone; all others are of the parts, and end the run.
_OF_THE_PICTURE: Final = frozenset({"invalid_image", "internal"})


Outcomes = dict[str, FileRecord | None]
"""What became of images, by their id; None of one that is still in work."""


@dataclass(slots=True)
class Batch:
    """What a worker thread is given at once; several are written together. It leaves `points` and each image's outcome.

    `copies` are files of an image of this batch or one before, with that batch's outcomes; `records` are results known
    before any work, `unchanged` those of them that the ledger has already.
    """

    reads: list[Read] = field(default_factory=list)
    outcomes: Outcomes = field(default_factory=dict)
    copies: list[tuple[File, str, Outcomes]] = field(default_factory=list)
    records: list[FileRecord] = field(default_factory=list)
    unchanged: list[FileRecord] = field(default_factory=list)
    points: list[FacePoint] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.outcomes) + len(self.copies) + len(self.records) + len(self.unchanged)

    def add(self, other: Batch) -> None:
        """Take over what came of another one."""
        self.outcomes |= other.outcomes
        self.copies += other.copies
        self.records += other.records
        self.unchanged += other.unchanged
        self.points += other.points


class BatchProcessor:
    """Processes batches, any number at a time, each in a worker thread.

    It decodes a picture and analyzes it while it is still in the processor's cache; for an engine that is best
    given several at once, it decodes as many first.
    """

    def __init__(self, engine: Engine, reader: Reader, thumbs: ThumbStore) -> None:
        self._engine = engine
        self._reader = reader
        self._thumbs = thumbs

    def work(self, batch: Batch) -> Batch:
        """Faces, thumbnails and points of a batch. Raises OceanoError for what no picture is to blame for."""
        for group in self._groups(batch):
            for (read, picture), faces in zip(group, self._faces(group), strict=True):
                batch.outcomes[read.image_id] = self._settle(read, picture, faces, batch.points)
        batch.reads.clear()
        return batch

    def _groups(self, batch: Batch) -> Iterator[list[tuple[Read, Picture]]]:
        """Decoded pictures, as many as the engine is best given. One that cannot be decoded has its outcome."""
        group: list[tuple[Read, Picture]] = []
        pixels = 0
        for read in batch.reads:
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

    def _faces(self, group: Sequence[tuple[Read, Picture]]) -> list[list[Face] | FileRecord]:
        """Faces of each picture. If a group fails, its pictures go one by one: the one that fails alone is to blame."""
        try:
            return list(self._engine.analyze([picture for _, picture in group]))
        except Exception as failure:
            if isinstance(failure, OceanoError) and failure.code not in _OF_THE_PICTURE:
                raise
            if len(group) > 1:
                return [self._faces([one])[0] for one in group]
            return [blamed(group[0][0].file, group[0][0].image_id, failure)]

    def _settle(
        self, read: Read, picture: Picture, faces: list[Face] | FileRecord, points: list[FacePoint]
    ) -> FileRecord:
        if isinstance(faces, FileRecord):
            return faces
        if not faces:
            message = "no face was found in the picture"
            return record(read.file, "no_face", read.image_id, "face_not_found", message)
        try:
            points += self._points(read.file, picture, faces)
        except OceanoError as failure:  # it could not be decoded in full
            return blamed(read.file, read.image_id, failure)
        return record(read.file, "done", read.image_id, faces=len(faces))

    def _points(self, file: File, picture: Picture, faces: list[Face]) -> list[FacePoint]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        path = readable(file.path)
        folder = folders_of(path)
        thumbs = [face_thumbnail(picture, face.bbox) for face in faces]  # of all or none: it may be cut off
        points = []
        for place, (face, thumb) in enumerate(zip(faces, thumbs, strict=True)):
            face_id = face_id_of(picture.image_id, self._engine.pack.digest, place)
            self._thumbs.write(face_id, thumb)
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
            )
            points.append(FacePoint(face_id, face.embedding, payload))
        return points
