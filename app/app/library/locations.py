"""The files in which each image lies: keeps its record in the ledger and its paths in the index up to date.

One file represents an image: its record is `done` or `no_face`, and its path is that of the faces in the index. The
other files are `duplicate`. The folders of the faces are those of all files. The index is written before the ledger,
and the ledger lists unsettled images, so that the next ingest repeats what was killed in between.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Any, Final

from app.catalog import FaceTable, FileRecord, Ledger
from app.core.paths import folders_of, readable
from app.core.protocols import FaceIndex
from app.core.types import face_ids_of
from app.images import PreviewStore, Thumbs
from app.library.presence import Presence, PresenceCheck, former_spellings

IMAGES_AT_ONCE: Final = 256  # settled in one transaction


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an image lies.

    Attributes:
        image_id: SHA-256 of the contents.
        faces: number of the image's faces in the index.
        paths: of its files, that of the representative first.
        changes: the records that differ from those in the ledger.
    """

    image_id: str
    faces: int
    paths: tuple[str, ...]
    changes: tuple[FileRecord, ...]


def representative(files: Iterable[FileRecord]) -> FileRecord | None:
    """Return the record that represents an image; None if none of its files does."""
    represents = [file for file in files if file.status in ("done", "no_face")]
    return min(represents, key=lambda file: file.status, default=None)


def place(files: Sequence[FileRecord], presence: Mapping[str, Presence], former: FileRecord) -> Placement:
    """Choose the file that represents an image from now on: best an existing one, and then the one that did so far.

    Args:
        files: the files of the image, at least one.
        presence: whether they exist.
        former: has the status and the number of faces of the image.
    """
    chosen = min(files, key=lambda file: (presence[file.path], file.status not in ("done", "no_face"), file.status))
    surviving = replace(chosen, status=former.status, faces=former.faces, reason=former.reason, message=former.message)
    others = [file for file in files if file is not chosen]
    changes = [surviving] if surviving != chosen else []
    for file in others:
        if file.status in ("done", "no_face"):
            changes.append(replace(file, status="duplicate", faces=0, reason=None, message=None))
    paths = (chosen.path, *(file.path for file in others))
    return Placement(str(former.image_id), former.faces, paths, tuple(changes))


def _once(write: Callable[[], Any]) -> Any:
    return write()


class Locations:
    """Settles images whose files were copied, moved, replaced or deleted.

    Args:
        index: the faces.
        ledger: the known files.
        thumbs: the thumbnails of the faces.
        check: tells deleted files from others.
        digest: the digest of the model that made the index.
        retry: runs a request to the index, perhaps several times.
    """

    def __init__(
        self,
        index: FaceIndex,
        ledger: Ledger,
        thumbs: Thumbs,
        check: PresenceCheck,
        *,
        digest: str,
        retry: Callable[[Callable[[], Any]], Any] = _once,
    ) -> None:
        self._index = index
        self._ledger = ledger
        self._thumbs = thumbs
        self._check = check
        self._digest = digest
        self._retry = retry
        self._faces = FaceTable(ledger.database, ledger.collection)

    def settle(self, image_ids: Sequence[str], new: Collection[str] = ()) -> dict[str, list[str]]:
        """Make an existing file represent each image, and write the paths of all its files to the index.

        Deleted files of an image are removed from the ledger if another of its files exists.

        Args:
            image_ids: images that are in the ledger.
            new: paths that this ingest has just read, under this spelling.

        Returns:
            The removed paths by image.
        """
        if not image_ids:
            return {}
        files = {image_id: self._ledger.files_of(image_id) for image_id in image_ids}
        presence = self._check.of(file.path for one in files.values() for file in one)
        removed = {}
        placements = []
        for image_id, known in files.items():
            existing = [file.path for file in known if presence[file.path] is Presence.EXISTS]
            presence |= dict.fromkeys(former_spellings(existing) - set(new), Presence.DELETED)
            deleted = {file.path for file in known if presence[file.path] is Presence.DELETED} if existing else set()
            removed[image_id] = sorted(deleted)
            if (former := representative(known) or self._replaced(known)) is not None:
                kept = [file for file in known if file.path not in deleted]
                placements.append(place(kept, presence, former))
        self.write(placements)
        self._ledger.record(
            [record for placement in placements for record in placement.changes],
            delete=[path for paths in removed.values() for path in paths],
            settled=image_ids,
        )
        return removed

    def settle_all(
        self, stop: Event, on_settled: Callable[[Mapping[str, Sequence[str]]], None] = lambda _: None
    ) -> None:
        """Settle every image that the ledger lists as unsettled, until `stop` is set.

        Args:
            stop: ends the work.
            on_settled: called with what `settle` returns, for some images at a time.
        """
        while not stop.is_set() and (image_ids := self._ledger.unsettled(IMAGES_AT_ONCE)):
            with self._ledger.exclusive():
                removed = self.settle(image_ids)
            on_settled(removed)

    def settle_replaced(self, images: Mapping[str, int]) -> None:
        """Settle images whose files became other images; remove those that lie in no other file.

        Args:
            images: the numbers of faces by image.
        """
        elsewhere = [image_id for image_id in images if self._ledger.files_of(image_id)]
        self.settle(elsewhere)
        self.delete_faces({image_id: faces for image_id, faces in images.items() if image_id not in elsewhere})
        self._ledger.delete_replaced(*images)

    def _replaced(self, files: Sequence[FileRecord]) -> FileRecord | None:
        """Return the record of an image with faces whose representative file became another image."""
        faces = self._ledger.replaced_faces(str(files[0].image_id)) if files else None
        return None if faces is None else with_faces(files[0], faces)

    def write(self, placements: Sequence[Placement]) -> None:
        """Write the paths of images to the index, where they differ; durable on return."""
        ids = {placement.image_id: self._face_ids(placement.image_id, placement.faces) for placement in placements}
        all_ids = [face_id for some in ids.values() for face_id in some]
        if not all_ids:
            return
        found = {record.face_id: record.payload for record in self._retry(lambda: self._index.retrieve(all_ids))}
        for placement in placements:
            paths = [readable(path) for path in placement.paths]
            wanted = (paths[0], folders_of(*paths))
            differing = [
                face_id
                for face_id in ids[placement.image_id]
                if face_id in found and (found[face_id].path, found[face_id].folder) != wanted
            ]
            if differing:
                self._retry(partial(self._index.set_paths, differing, paths=paths))

    def delete_faces(self, images: Mapping[str, int]) -> None:
        """Delete thumbnails and previews, then the faces of images; without the faces, nothing names the thumbnails.

        Args:
            images: the numbers of faces by image.
        """
        if face_ids := [face_id for image_id, faces in images.items() for face_id in self._face_ids(image_id, faces)]:
            self._thumbs.delete(face_ids)
            previews = PreviewStore(self._thumbs.previews, max_bytes=0)
            for image_id in images:
                previews.delete(image_id)
            self._retry(lambda: self._index.delete(face_ids))
            self._faces.remove(face_ids)

    def _face_ids(self, image_id: str, faces: int) -> list[str]:
        return face_ids_of(image_id, self._digest, faces)


def with_faces(file: FileRecord, faces: int) -> FileRecord:
    """Return the record of a file that represents its image, which has faces."""
    return replace(file, status="done", faces=faces, reason=None, message=None)
