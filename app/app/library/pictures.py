"""A stored image: its faces, its files, its neighbours, and images that look the same."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter, FaceRecord
from app.images import ALIKE_DISTANCE, SNIFF_BYTES, distance, sniff
from app.library.ledger import FileRecord, Ledger

_MAX_FACES: Final = 1000  # of one image
_COMPARED: Final = 5  # largest faces of an image, by which near-identical images are found
_SAME_FACE: Final = 0.9  # cosine of the same face in near-identical images
_CANDIDATES: Final = 200
_NEARBY: Final = 2000  # faces that are read to find the nearest in time
_SHORTEST: Final = timedelta(milliseconds=1)  # a window this short is not divided
_WINDOWS: Final = (
    timedelta(seconds=10),
    timedelta(hours=1),
    timedelta(days=2),
    timedelta(days=365),
    timedelta(days=80_000),  # since the oldest photograph that is preserved
)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file with an image.

    Attributes:
        path: absolute.
        size: in bytes.
        mtime_ns: time of the last change in nanoseconds, when it was ingested.
        may_show: it is below a folder whose files may be shown.
    """

    path: str
    size: int
    mtime_ns: int
    may_show: bool


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image with faces in the index.

    Attributes:
        image_id: SHA-256 (hex) of the file's bytes.
        width: of the upright image in pixels.
        height: of the upright image in pixels.
        taken_at: time of the photograph, ISO 8601, or None.
        ingested_at: time of the ingest, ISO 8601.
        phash: perceptual hash, or None.
        faces: in canonical order.
        files: that contain the image; the one whose path the faces have is first.
    """

    image_id: str
    width: int
    height: int
    taken_at: str | None
    ingested_at: str
    phash: str | None
    faces: tuple[FaceRecord, ...]
    files: tuple[ImageFile, ...]

    @property
    def path(self) -> str:
        """The path that is shown for the image."""
        return self.files[0].path if self.files else self.faces[0].payload.path

    @property
    def may_show(self) -> bool:
        """Whether any of its files may be shown."""
        return any(file.may_show for file in self.files)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The image_ids of the images with faces before and after one; None if there is none."""

    previous: str | None
    next: str | None


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A file that is open for reading; whoever gets it closes `handle`.

    Attributes:
        handle: the file descriptor.
        path: where it was found.
        status: of the open file.
        format: of its content, such as "JPEG".
    """

    handle: int
    path: str
    status: os.stat_result
    format: str

    def close(self) -> None:
        """Close the file."""
        os.close(self.handle)


class Pictures:
    """Looks up stored images. Its methods block; they may be called from several threads.

    Args:
        index: the faces.
        ledger: the files.
        roots: folders whose files may be shown; None: all ingested files.
    """

    def __init__(self, index: FaceIndex, ledger: Ledger, roots: Sequence[Path] | None) -> None:
        self._index = index
        self._ledger = ledger
        self._roots = None if roots is None else [os.path.realpath(root) for root in roots]

    def get(self, image_id: str) -> StoredImage:
        """Return an image.

        Raises:
            OceanoError: `image_unknown` if no face of it is in the index; `index_unavailable`, `ledger_unavailable`.
        """
        found = self._index.scroll(limit=_MAX_FACES, where=FaceFilter(image_id=image_id)).records
        if not found:
            raise OceanoError("image_unknown", "no face of this image is in the index", details={"image_id": image_id})
        faces = sorted(found, key=lambda one: (one.payload.page, one.payload.bbox[0], one.payload.bbox[1]))
        first = faces[0].payload
        return StoredImage(
            image_id=image_id,
            width=first.width,
            height=first.height,
            taken_at=first.taken_at,
            ingested_at=first.ingested_at,
            phash=first.phash,
            faces=tuple(faces),
            files=self.files(image_id, first.path),
        )

    def files(self, image_id: str, first: str = "") -> tuple[ImageFile, ...]:
        """Return the files that contain an image.

        Args:
            image_id: the image.
            first: the path that comes first.

        Raises:
            OceanoError: `ledger_unavailable`.
        """
        records = sorted(self._ledger.files_of(image_id), key=lambda one: (one.path != first, one.path))
        return tuple(self._file(one) for one in records)

    def open_original(self, image_id: str, files: Sequence[ImageFile]) -> OpenedFile:
        """Open a file of an image that may be shown and has not changed since the ingest.

        Args:
            image_id: the image.
            files: those of `files`.

        Raises:
            OceanoError: `image_not_shown` if no file of it is below a folder that may be shown; `image_missing` if the
                files are gone or have changed.
        """
        shown = [file for file in files if file.may_show]
        if not shown:
            raise OceanoError(
                "image_not_shown",
                "this image is in no folder that may be shown; LIBRARY_ROOTS names these folders",
                details={"image_id": image_id},
            )
        for file in shown:
            if opened := self._open(file, image_id):
                return opened
        raise OceanoError(
            "image_missing",
            f"the image was moved, changed or deleted since it was ingested; it was {shown[0].path}",
            details={"image_id": image_id, "path": shown[0].path},
        )

    def neighbours(self, image: StoredImage, by: Literal["folder", "time"]) -> Neighbours:
        """Return the images before and after one, by file name in its folder or by time.

        Raises:
            OceanoError: `index_unavailable`, `ledger_unavailable`.
        """
        if by == "folder":
            before, after = (self._ledger.beside(image.path, after=after) for after in (False, True))
            return Neighbours(before, after)
        if image.taken_at is None:
            return Neighbours(None, None)
        return Neighbours(self._near(image, later=False), self._near(image, later=True))

    def alike(self, image: StoredImage) -> list[StoredImage]:
        """Return near-identical images: those with a very similar face and a similar perceptual hash.

        Raises:
            OceanoError: `index_unavailable`, `ledger_unavailable`.
        """
        phash = image.phash
        if phash is None:
            return []
        largest = sorted(image.faces, key=lambda one: one.payload.bbox[0] - one.payload.bbox[2])[:_COMPARED]
        records = self._index.retrieve([one.face_id for one in largest], with_embedding=True)
        embeddings = [one.embedding for one in records if one.embedding is not None]
        found = self._index.search_batch(embeddings, limit=_CANDIDATES, threshold=_SAME_FACE)
        payloads = [match.payload for matches in found for match in matches]
        alike = dict.fromkeys(
            one.image_id
            for one in payloads
            if one.image_id != image.image_id and one.phash and distance(one.phash, phash) <= ALIKE_DISTANCE
        )
        return [one for image_id in alike if (one := self._find(image_id)) is not None]

    def _find(self, image_id: str) -> StoredImage | None:
        """Return an image; None if it has been deleted meanwhile."""
        try:
            return self.get(image_id)
        except OceanoError as failure:
            if failure.code != "image_unknown":
                raise
            return None

    def _file(self, record: FileRecord) -> ImageFile:
        return ImageFile(record.path, record.size, record.mtime_ns, self._may_show(record.path))

    def _may_show(self, path: str) -> bool:
        if self._roots is None:
            return True
        real = os.path.realpath(path)
        return any(real == root or real.startswith(root.rstrip("/") + "/") for root in self._roots)

    def _open(self, file: ImageFile, image_id: str) -> OpenedFile | None:
        """Open a file if its content is the image; None if it is not."""
        try:
            handle = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would block
        except OSError:
            return None
        kept = False
        try:
            status = os.fstat(handle)
            real = os.path.realpath(f"/proc/self/fd/{handle}")  # what was really opened, whatever the path is now
            if not stat.S_ISREG(status.st_mode) or not self._may_show(real):
                return None
            if status.st_size != file.size:  # another content; hashing it could need any amount of memory
                return None
            if status.st_mtime_ns != file.mtime_ns and _digest(handle, status.st_size) != image_id:
                return None
            kind = sniff(os.pread(handle, SNIFF_BYTES, 0))
            kept = kind is not None
            return OpenedFile(handle, file.path, status, kind) if kind else None
        except OSError:
            return None
        finally:
            if not kept:
                os.close(handle)

    def _near(self, image: StoredImage, *, later: bool) -> str | None:
        """Return the nearest image in time, in ever larger windows; one with too many faces to read is divided."""
        moment = datetime.fromisoformat(image.taken_at or "")
        read, windows = timedelta(0), list(_WINDOWS)
        while windows:
            try:
                ends = [moment + part if later else moment - part for part in (read, windows[0])]
            except OverflowError:
                return None
            first, last = sorted(ends)
            page = self._index.scroll(
                limit=_NEARBY, where=FaceFilter(taken_from=first.isoformat(), taken_to=last.isoformat())
            )
            if page.next_offset is not None and windows[0] - read > _SHORTEST:
                windows.insert(0, (read + windows[0]) / 2)
                continue
            found = [
                (_seconds(record), record.payload.image_id)
                for record in page.records
                if record.payload.image_id != image.image_id and _is_beyond(record, image, moment, later=later)
            ]
            if found:
                return (min(found) if later else max(found))[1]
            read = windows.pop(0)
        return None


def _is_beyond(record: FaceRecord, image: StoredImage, moment: datetime, *, later: bool) -> bool:
    """Return whether a face comes before or after an image; images of the same time are ordered by their ids."""
    difference = _seconds(record) - _instant(moment)
    if difference == 0:
        return (record.payload.image_id > image.image_id) == later
    return (difference > 0) == later


def _seconds(record: FaceRecord) -> float:
    return _instant(datetime.fromisoformat(record.payload.taken_at or ""))


def _instant(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _digest(handle: int, size: int) -> str:
    """SHA-256 of an open file, read in parts."""
    digest = hashlib.sha256()
    for part in _parts(handle, size):
        digest.update(part)
    return digest.hexdigest()


def _parts(handle: int, size: int, part: int = 1 << 20) -> Iterator[bytes]:
    for offset in range(0, size, part):
        yield os.pread(handle, part, offset)
