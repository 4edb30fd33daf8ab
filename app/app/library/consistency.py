"""Compares index, ledger and thumbnails: each face must be in all three, with the paths of its image."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event
from typing import Final

from app.catalog import Ledger
from app.core.iteration import chunks
from app.core.paths import folders_of, readable
from app.core.protocols import FaceIndex
from app.core.types import FaceRecord, face_ids_of
from app.images import Thumbs
from app.library.hashes import without_hash
from app.library.locations import representative

_PAGE_FACES: Final = 500
_PAGE_IMAGES: Final = 200


@dataclass(slots=True)
class Inconsistencies:
    """What index, ledger and thumbnails disagree about.

    Attributes:
        faces: faces in the index.
        images: images with faces in the ledger.
        damaged_faces: faces of the index whose embedding or data is damaged.
        incomplete_images: images of the ledger that lack faces in the index.
        unknown_faces: faces of the index whose image is not in the ledger, or has fewer faces there.
        misplaced_images: images whose path or folders in the index are not those of the ledger.
        misnamed_images: images with a face whose name in the index is not that of the catalog; the caller finds them.
        without_thumbnail: faces without a thumbnail.
        unused_thumbnails: thumbnails of faces that are not in the index.
        without_hash: images without a perceptual hash: older versions stored none. They are no disagreement; only
            near-identical images are not recognized.
    """

    faces: int = 0
    images: int = 0
    damaged_faces: set[str] = field(default_factory=set)
    incomplete_images: set[str] = field(default_factory=set)
    unknown_faces: set[str] = field(default_factory=set)
    misplaced_images: set[str] = field(default_factory=set)
    without_thumbnail: set[str] = field(default_factory=set)
    unused_thumbnails: set[str] = field(default_factory=set)
    misnamed_images: set[str] = field(default_factory=set)
    without_hash: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether all agree."""
        return not (
            self.damaged_faces
            or self.incomplete_images
            or self.unknown_faces
            or self.misplaced_images
            or self.misnamed_images
            or self.without_thumbnail
            or self.unused_thumbnails
        )

    @property
    def is_repairable(self) -> bool:
        """Whether a repair has something to do, such as filling in missing hashes."""
        return bool(self.without_hash) or not self.is_empty


class ConsistencyCheck:
    """Reads every face of the index, every image of the ledger and the names of all thumbnails.

    Args:
        index: the faces.
        ledger: the known files.
        thumbs: the thumbnails of the faces.
        digest: the digest of the model that made the index.
        stop: once set, `run` ends early.
    """

    def __init__(self, index: FaceIndex, ledger: Ledger, thumbs: Thumbs, *, digest: str, stop: Event) -> None:
        self._index = index
        self._ledger = ledger
        self._thumbs = thumbs
        self._digest = digest
        self._stop = stop
        self._found = Inconsistencies()

    def run(self) -> Inconsistencies:
        """Compare all.

        Raises:
            OceanoError: `index_unavailable`, `ledger_unavailable`, `thumbs_unavailable`.
        """
        self._found = Inconsistencies()
        for face_id in self._index.damaged_faces():
            self._found.damaged_faces.add(face_id)
            if self._stop.is_set():
                break
        offset = None
        while not self._stop.is_set():
            page = self._index.scroll(limit=_PAGE_FACES, offset=offset)
            self._found.without_thumbnail |= self._thumbs.missing([record.face_id for record in page.records])
            for record in page.records:
                self._compare_face(record)
            offset = page.next_offset
            if offset is None:
                break
        self._compare_images()
        self._compare_thumbnails()
        return self._found

    def _compare_face(self, record: FaceRecord) -> None:
        face_id, payload, found = record.face_id, record.payload, self._found
        found.faces += 1
        files = self._ledger.files_of(payload.image_id)
        chosen = representative(files)
        if chosen is None:
            if self._ledger.replaced_faces(payload.image_id) is None:
                found.unknown_faces.add(face_id)
            return  # its file became one that cannot be read: the faces stay until a prune
        if face_id not in face_ids_of(payload.image_id, self._digest, chosen.faces):
            found.unknown_faces.add(face_id)
            return
        paths = (readable(file.path) for file in files)
        if payload.path != readable(chosen.path) or set(payload.folder) != set(folders_of(*paths)):
            found.misplaced_images.add(payload.image_id)

    def _compare_images(self) -> None:
        for images in chunks(self._ledger.images(), _PAGE_IMAGES):
            if self._stop.is_set():
                return
            self._found.images += len(images)
            ids = {
                face_id: str(image.image_id)
                for image in images
                for face_id in face_ids_of(str(image.image_id), self._digest, image.faces)
            }
            records = self._index.retrieve(list(ids))
            known = {record.face_id for record in records}
            self._found.without_hash += len(without_hash(records))
            self._found.incomplete_images |= {image for face_id, image in ids.items() if face_id not in known}

    def _compare_thumbnails(self) -> None:
        for face_ids in chunks(self._thumbs.face_ids(), _PAGE_FACES):
            if self._stop.is_set():
                return
            known = {record.face_id for record in self._index.retrieve(face_ids)}
            self._found.unused_thumbnails |= set(face_ids) - known
