"""Pruning: removes deleted files from index, ledger and thumbnails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from threading import Event
from typing import Final

from app.catalog import FileRecord, Ledger
from app.core.paths import is_in, readable
from app.core.protocols import FaceIndex
from app.images import Thumbs
from app.library.locations import Locations, Placement, place, representative, with_faces
from app.library.presence import Presence, PresenceCheck, may_exist
from app.library.scan import Folder

_BATCH_FILES: Final = 256
_MAX_FOLDERS: Final = 10


@dataclass(slots=True)
class PruneCounts:
    """What a prune removed, or would remove.

    Attributes:
        files: deleted files that were removed.
        images: images that were removed because no copy exists.
        faces: faces of these images.
        moved: images that are kept because a copy exists.
        unsure: missing files that are kept because a drive may be disconnected: one was mounted above them and is not
            now, or their folder exists but is empty.
        unsure_below: the first folders of such files.
    """

    files: int = 0
    images: int = 0
    faces: int = 0
    moved: int = 0
    unsure: int = 0
    unsure_below: list[str] = field(default_factory=list, compare=False)


class Pruning:
    """Removes the files below a folder that were deleted; safe to kill and run again.

    It deletes thumbnails first, then faces, and the ledger's record last, because only the record names the others.

    Args:
        folder: only files at or below it are removed.
        index: the faces.
        ledger: the known files.
        thumbs: the thumbnails of the faces.
        digest: the digest of the model that made the index.
        dry_run: only count.
        drives: also remove files whose drive may be disconnected.
        stop: once set, `run` ends after the current batch.
    """

    def __init__(
        self,
        folder: Folder,
        index: FaceIndex,
        ledger: Ledger,
        thumbs: Thumbs,
        *,
        digest: str,
        dry_run: bool,
        drives: bool = False,
        stop: Event | None = None,
    ) -> None:
        self._folder = folder
        self._ledger = ledger
        self._check = PresenceCheck(ledger, drives=drives, on_missing=folder.require)
        self._locations = Locations(index, ledger, thumbs, self._check, digest=digest)
        self._dry_run = dry_run
        self._stop = stop or Event()
        self.counts = PruneCounts()

    def missing(self) -> set[str]:
        """Return the files that are missing, for `run` after an ingest.

        A file that is moved during the ingest may be missed at both of its paths.
        """
        return {record.path for record in self._missing_files()}

    def run(self, *, only: Set[str] | None = None) -> PruneCounts:
        """Remove the deleted files and the replaced images.

        Args:
            only: the files that were missing before the ingest; no others are removed. None: all that are missing.

        Raises:
            OceanoError: `folder_unavailable`, `index_unavailable`, `ledger_unavailable`; files removed so far stay
                removed.
        """
        self.counts = PruneCounts()
        self._folder.require()
        for image_id, faces in self._ledger.replaced(self._folder.path):
            if self._stop.is_set():
                break
            self._folder.require()
            self._remove_replaced(image_id, faces)
        missing = (record for record in self._missing_files() if only is None or record.path in only)
        while not self._stop.is_set() and (batch := list(islice(missing, _BATCH_FILES))):
            self._check.refresh_mounts()
            if deleted := [record for record in batch if self._is_deleted(record)]:
                self._remove_files(deleted)
        return self.counts

    def _missing_files(self) -> Iterator[FileRecord]:
        return (record for record in self._ledger.files(self._folder.path) if not may_exist(record.path))

    def _is_deleted(self, record: FileRecord) -> bool:
        """Tell a deleted file from one on a disconnected drive, which is counted as unsure."""
        if (folder := self._check.disconnected_folder(record.path)) is None:
            return True
        self.counts.unsure += 1
        below = self.counts.unsure_below
        if readable(folder) not in below and len(below) < _MAX_FOLDERS:
            below.append(readable(folder))
        return False

    def _remove_files(self, deleted: Sequence[FileRecord]) -> None:
        self.counts.files += len(deleted)
        paths = {record.path for record in deleted}
        placements = [
            placement
            for image_id in dict.fromkeys(record.image_id for record in deleted if record.image_id is not None)
            if (placement := self._without(image_id, paths)) is not None
        ]
        if not self._dry_run:
            self._locations.write(placements)
            changes = [record for placement in placements for record in placement.changes]
            self._ledger.record(changes, delete=sorted(paths))

    def _without(self, image_id: str, deleted: Set[str]) -> Placement | None:
        """Return where an image lies without its deleted files; delete its faces if it lies nowhere else."""
        files = self._ledger.files_of(image_id)
        if (former := representative(files)) is None:
            return None
        presence = self._presence([file for file in files if file.path not in deleted])
        kept = [file for file in files if presence.get(file.path, Presence.DELETED) is not Presence.DELETED]
        if former.path in deleted:
            if not kept:
                self.counts.images += 1
                self._delete_faces(image_id, former.faces)
                return None
            self.counts.moved += 1
        elif former not in kept:  # missing, too, and removed later
            return None
        return place(kept, presence, former) if kept else None

    def _remove_replaced(self, image_id: str, faces: int) -> None:
        """Remove an image whose file became another image, unless the image still exists in some file."""
        files = self._ledger.files_of(image_id)
        presence = self._presence(files)
        kept = [file for file in files if presence[file.path] is not Presence.DELETED]
        if kept and not self._dry_run:
            placement = place(kept, presence, representative(files) or with_faces(kept[0], faces))
            self._locations.write([placement])
            self._ledger.record(placement.changes)
        elif not kept and all(file.status != "done" for file in files):  # a deleted `done` file is removed later
            self.counts.images += 1
            self._delete_faces(image_id, faces)
        if not self._dry_run:
            self._ledger.delete_replaced(image_id)

    def _presence(self, files: Sequence[FileRecord]) -> dict[str, Presence]:
        """Check files; those outside the folder are never deleted."""
        presence = self._check.of(file.path for file in files)
        for path, found in presence.items():
            if found is Presence.DELETED and not is_in(path, self._folder.path):
                presence[path] = Presence.UNSURE
        return presence

    def _delete_faces(self, image_id: str, faces: int) -> None:
        self.counts.faces += faces
        if not self._dry_run:
            self._locations.delete_faces({image_id: faces})
