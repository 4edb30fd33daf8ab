"""The names in the metadata of pictures, as an ingest reads them, and what it hands them to."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from app.catalog import FileRecord
from app.core.errors import OceanoError
from app.core.paths import readable
from app.core.protocols import FaceIndex
from app.core.types import FacePayload, FacePoint, face_ids_of
from app.images import EditedImage, FileNames, NamesApplied, PictureNames, names_of_file
from app.library.scan import contents, file_at

_log = logging.getLogger(__name__)


class PeopleNames(Protocol):
    """The people of the catalog, as an ingest needs them; `app.people.MetadataNames` is one."""

    def stamped(self, points: Sequence[FacePoint]) -> list[FacePoint]:
        """Return faces to store with the people that the catalog assigns them to.

        Raises:
            OceanoError: `ledger_unavailable`.
        """
        ...

    def carry(self, images: Sequence[EditedImage]) -> None:
        """Take names over from images to those that their files became; twice is the same as once.

        Raises:
            OceanoError: `ledger_unavailable`, `disk_full`, `index_unavailable`.
        """
        ...

    def apply(self, pictures: Sequence[PictureNames], stored: Sequence[FacePoint]) -> NamesApplied:
        """Name the faces of pictures as their metadata says; doing it twice is the same as doing it once.

        Args:
            pictures: those with names.
            stored: faces that were just stored in the index; those that the catalog has names for get them.

        Raises:
            OceanoError: `ledger_unavailable`, `disk_full`, `index_unavailable`.
        """
        ...


class NameReader:
    """Reads the names in the metadata of pictures. Safe to call from several threads.

    Args:
        metadata: read regions and names in files and sidecars.
        from_folders: take the name of a picture's folder for that of the person in it.
    """

    def __init__(self, *, metadata: bool, from_folders: bool) -> None:
        self._metadata = metadata
        self._from_folders = from_folders

    def read(self, path: str, data: bytes, faces: Sequence[FacePayload]) -> PictureNames | None:
        """Return the names of a picture; None if there are none, or no faces.

        Args:
            path: of the file.
            data: its bytes.
            faces: of its first page.
        """
        if not faces:
            return None
        found = FileNames()
        if self._metadata:
            try:
                found = names_of_file(path, data)
            except Exception:  # noqa: BLE001 - metadata never makes a picture fail
                _log.exception("%s: its metadata cannot be read", readable(path))
        folder = os.path.basename(os.path.dirname(path)) if self._from_folders else ""  # noqa: PTH119, PTH120
        if not (found or folder):
            return None
        first = faces[0]
        boxes = tuple(face.bbox for face in faces)
        return PictureNames(path, first.image_id, first.width, first.height, boxes, found, readable(folder))


class KnownNames:
    """Reads the names of pictures that were ingested before.

    Args:
        reader: reads them.
        index: has the faces.
        digest: of the model pack.
    """

    def __init__(self, reader: NameReader, index: FaceIndex, digest: str) -> None:
        self._reader = reader
        self._index = index
        self._digest = digest

    def read(self, records: Iterable[FileRecord], originals: Iterable[FileRecord] = ()) -> Iterator[PictureNames]:
        """Yield the pictures that have names, and faces in the index, without files that changed or cannot be read.

        Args:
            records: of files.
            originals: records of the files that represent the images of those that are copies.

        Raises:
            OceanoError: `index_unavailable`.
        """
        counts = {one.image_id: one.faces for one in originals}
        for record in records:
            number = counts.get(record.image_id, record.faces)
            if record.image_id is None or not number:
                continue
            ids = face_ids_of(record.image_id, self._digest, number)
            faces = [one.payload for one in self._index.retrieve(ids) if one.payload.page == 0]
            data = self._contents(record) if faces else None
            if data is not None and (names := self._reader.read(record.path, data, faces)) is not None:
                yield names

    @staticmethod
    def _contents(record: FileRecord) -> bytes | None:
        file = file_at(record.path)
        if file is None or (file.size, file.mtime_ns) != (record.size, record.mtime_ns):
            return None
        try:
            return contents(file)
        except (OSError, OceanoError) as failure:
            _log.warning("%s: %s", readable(record.path), failure)
            return None
