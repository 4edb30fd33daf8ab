"""Perceptual hashes of images whose faces older versions stored without them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from typing import Final

from app.catalog import FileRecord, Ledger
from app.core.concurrency import in_order, processors
from app.core.errors import OceanoError
from app.core.iteration import chunks
from app.core.protocols import FaceIndex
from app.core.types import FaceRecord, face_ids_of
from app.images import DecoderPool, phash_of
from app.library.originals import original

_IMAGES_AT_ONCE: Final = 200


def without_hash(records: Iterable[FaceRecord]) -> dict[str, list[FaceRecord]]:
    """Return the faces that have no perceptual hash, by their images."""
    found: dict[str, list[FaceRecord]] = {}
    for record in records:
        if record.payload.phash is None:
            found.setdefault(record.payload.image_id, []).append(record)
    return found


@dataclass(frozen=True, slots=True)
class Hashed:
    """How many images have got a hash, and how many have not, because no file with them can be read."""

    images: int = 0
    without_file: int = 0


class MissingHashes:
    """Computes missing hashes from the files. It can be killed and run again: images with a hash are not read.

    Args:
        index: the faces.
        ledger: the files.
        decoders: decode the images.
        max_pixels: the largest image to decode.
        min_decoded_side: as for `app.images.decode`; an ingest uses the same.
        digest: the digest of the model that made the index.
        stop: once set, `fill` ends after a few images.
    """

    def __init__(
        self,
        index: FaceIndex,
        ledger: Ledger,
        decoders: DecoderPool,
        *,
        max_pixels: int,
        min_decoded_side: int | None,
        digest: str,
        stop: Event,
    ) -> None:
        self._index = index
        self._ledger = ledger
        self._decoders = decoders
        self._max_pixels = max_pixels
        self._min_decoded_side = min_decoded_side
        self._digest = digest
        self._stop = stop

    def fill(self) -> Hashed:
        """Give a hash to every image of the ledger whose faces have none.

        Raises:
            OceanoError: `index_unavailable`, `disk_full`, `ledger_unavailable`.
        """
        images = without_file = 0
        with ThreadPoolExecutor(processors(), "hashes") as threads:
            hashed = in_order(threads, self._hashes, self._lacking(), ahead=2 * processors())
            with closing(hashed):
                for faces, hashes in hashed:
                    for page, phash in hashes.items():
                        self._index.set_phash([one.face_id for one in faces if one.payload.page == page], phash=phash)
                    if self._stop.is_set() and not hashes:
                        break
                    complete = all(one.payload.page in hashes for one in faces)
                    images, without_file = images + complete, without_file + (not complete)
        return Hashed(images, without_file)

    def _lacking(self) -> Iterator[list[FaceRecord]]:
        """Yield the faces without a hash of each image; the memory needed does not depend on their number."""
        for images in chunks(self._ledger.images(), _IMAGES_AT_ONCE):
            if self._stop.is_set():
                return
            yield from without_hash(self._index.retrieve(self._face_ids(images))).values()

    def _face_ids(self, images: Iterable[FileRecord]) -> list[str]:
        return [one for image in images for one in face_ids_of(str(image.image_id), self._digest, image.faces)]

    def _hashes(self, faces: list[FaceRecord]) -> tuple[list[FaceRecord], Mapping[int, str]]:
        """Return the faces of an image, and the hash of each page that can be decoded."""
        hashes: dict[int, str] = {}
        if self._stop.is_set() or (data := original(faces[0].payload, self._ledger)) is None:
            return faces, hashes
        for page in sorted({one.payload.page for one in faces}):
            try:
                picture = self._decoders.decode(
                    data,
                    max_pixels=self._max_pixels,
                    image_id=faces[0].payload.image_id,
                    min_decoded_side=self._min_decoded_side,
                    page=page,
                )
            except OceanoError:  # such as a pixel limit that was lowered since the ingest
                continue
            hashes[page] = phash_of(picture.pixels)
        return faces, hashes
