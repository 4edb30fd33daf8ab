"""A stored image: its faces, its files, its neighbours, and images that look the same."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from app.catalog import FileRecord, Ledger
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter, FaceRecord
from app.images import ALIKE_DISTANCE, distance
from app.library.neighbours import FolderOrder, Neighbours, near_in_time
from app.library.opening import ImageFile, OpenedFile, Opener

_MAX_FACES: Final = 1000  # of one image
_COMPARED: Final = 5  # largest faces of an image, by which near-identical images are found
_CANDIDATES: Final = 500  # for each of these faces; a copy resembles them more than other images of the person do


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
        self._opener = Opener(roots)
        self._order = FolderOrder(ledger)

    def through(self, index: FaceIndex, ledger: Ledger) -> Pictures:
        """Return the part of the images that an index and a ledger show, which hide whole folders.

        The order of the files in a folder is that of all: it is asked for by files that are shown.
        """
        part = copy.copy(self)
        part._index, part._ledger = index, ledger
        return part

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
        """Open a file of an image that may be shown and has not changed since the ingest; see `Opener.open`."""
        return self._opener.open(image_id, files)

    def require_original(self, image_id: str, files: Sequence[ImageFile]) -> None:
        """Raise what `open_original` does, without reading the files; see `Opener.require`."""
        self._opener.require(image_id, files)

    def neighbours(self, image: StoredImage, by: Literal["folder", "time"]) -> Neighbours:
        """Return the images before and after one, by file name in its folder (in natural order) or by time.

        Raises:
            OceanoError: `index_unavailable`, `ledger_unavailable`.
        """
        if by == "folder":
            return self._order.beside(image.path)
        return near_in_time(self._index, image.image_id, image.taken_at)

    def alike(self, image: StoredImage, threshold: float) -> list[StoredImage]:
        """Return near-identical images, as a search grouped by `alike` counts them: one person, and similar hashes.

        A small copy may have a face that is much less similar to the original's than a face of a large one.

        Args:
            image: the image.
            threshold: lowest cosine of the same person.

        Raises:
            OceanoError: `index_unavailable`, `ledger_unavailable`.
        """
        phash = image.phash
        if phash is None:
            return []
        largest = sorted(image.faces, key=lambda one: one.payload.bbox[0] - one.payload.bbox[2])[:_COMPARED]
        records = self._index.retrieve([one.face_id for one in largest], with_embedding=True)
        embeddings = [one.embedding for one in records if one.embedding is not None]
        found = self._index.search_batch(embeddings, limit=_CANDIDATES, threshold=threshold)
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
        return ImageFile(record.path, record.size, record.mtime_ns, self._opener.may_show(record.path))
