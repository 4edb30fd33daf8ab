"""Pruning: removes deleted files from index, ledger and thumbnails."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Final

from app.core.paths import is_in, readable
from app.core.protocols import FaceIndex
from app.core.types import face_id_of
from app.images import ThumbStore
from app.library.ledger import FileRecord, Ledger
from app.library.mounts import Mount, mounted
from app.library.scan import Folder

_BATCH_FILES: Final = 256
_MAX_FOLDERS: Final = 10
_MISSING_ERRORS: Final = frozenset({errno.ENOENT, errno.ENOTDIR})


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
        thumbs: ThumbStore,
        *,
        digest: str,
        dry_run: bool,
        drives: bool = False,
        stop: Event | None = None,
    ) -> None:
        self._folder = folder
        self._index = index
        self._ledger = ledger
        self._thumbs = thumbs
        self._digest = digest
        self._dry_run = dry_run
        self._stop = stop or Event()
        self._drives = drives
        self._recorded_mounts: list[Mount] = []
        self._mount_points: set[str] = set()
        self._missing_before: set[str] | None = None
        self.counts = PruneCounts()

    def note_missing(self) -> None:
        """Note the files that are missing before an ingest; `run` then removes no others.

        A file that is moved during the ingest may be missed at both of its paths.
        """
        self._missing_before = {record.path for record in self._missing_files()}

    def run(self) -> PruneCounts:
        """Remove the deleted files and the replaced images.

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
        before = self._missing_before
        missing = (record for record in self._missing_files() if before is None or record.path in before)
        while not self._stop.is_set() and (batch := list(islice(missing, _BATCH_FILES))):
            self._refresh_mounts()
            if deleted := [record for record in batch if self._is_deleted(record)]:
                self._remove_files(deleted)
        return self.counts

    def _missing_files(self) -> Iterator[FileRecord]:
        return (record for record in self._ledger.files(self._folder.path) if not _may_exist(record.path))

    def _refresh_mounts(self) -> None:
        """Read the mounts after files were found missing, so that the drives of these files are noticed as missing."""
        self._folder.require()
        self._recorded_mounts, self._mount_points = self._ledger.mounts(), mounted()

    def _is_deleted(self, record: FileRecord) -> bool:
        """Tell a deleted file from one on a disconnected drive, which is counted as unsure."""
        if (folder := self._disconnected_folder(record.path)) is None:
            return True
        self.counts.unsure += 1
        below = self.counts.unsure_below
        if readable(folder) not in below and len(below) < _MAX_FOLDERS:
            below.append(readable(folder))
        return False

    def _disconnected_folder(self, path: str) -> str | None:
        """Return the folder above a missing file whose drive may be disconnected.

        The mount point of a disconnected drive may be missing, too, or be an empty folder.
        """
        if self._drives:
            return None
        mounts = [mount for mount in self._recorded_mounts if is_in(path, mount.folder)]
        for mount in mounts:
            if mount.point not in self._mount_points:
                return mount.folder
        existing = next(str(parent) for parent in Path(path).parents if os.path.isdir(parent))  # noqa: PTH112 - never raises
        if any(existing == mount.folder for mount in mounts):
            return None  # the drive is mounted and empty
        try:
            with os.scandir(existing) as listing:
                return existing if next(listing, None) is None else None
        except OSError:
            return existing

    def _remove_files(self, deleted: Sequence[FileRecord]) -> None:
        self.counts.files += len(deleted)
        paths = {record.path for record in deleted}
        survivors = []
        for record in deleted:
            if record.status in ("done", "no_face") and (survivor := self._surviving_copy(record, paths)) is not None:
                survivors.append(survivor)
        if not self._dry_run:
            self._ledger.record(survivors, delete=sorted(paths))

    def _surviving_copy(self, record: FileRecord, deleted: set[str]) -> FileRecord | None:
        """Make a copy represent the image of a deleted file, or delete its faces if there is none.

        Returns:
            The new record of the copy; its faces then have the copy's path.
        """
        image_id = str(record.image_id)
        copy = self._choose_file([file for file in self._ledger.files_of(image_id) if file.path not in deleted])
        face_ids = [face_id_of(image_id, self._digest, position) for position in range(record.faces)]
        if copy is None:
            self.counts.images += 1
            self._delete_faces(face_ids)
            return None
        self.counts.moved += 1
        if face_ids and not self._dry_run:
            self._index.set_path(face_ids, path=readable(copy.path))
        return replace(copy, status=record.status, faces=record.faces, reason=record.reason, message=record.message)

    def _remove_replaced(self, image_id: str, faces: int) -> None:
        """Remove an image whose file became another image, unless the image still exists in some file."""
        files = self._ledger.files_of(image_id)
        copy = self._choose_file(files)
        face_ids = [face_id_of(image_id, self._digest, position) for position in range(faces)]
        if copy is not None and not self._dry_run:
            self._index.set_path(face_ids, path=readable(copy.path))
            self._ledger.record([replace(copy, status="done", faces=faces, reason=None, message=None)])
        elif copy is None and all(file.status != "done" for file in files):  # a deleted `done` file is removed later
            self.counts.images += 1
            self._delete_faces(face_ids)
        if not self._dry_run:
            self._ledger.delete_replaced(image_id)

    def _choose_file(self, files: Sequence[FileRecord]) -> FileRecord | None:
        """Choose the file that represents an image; None if all its files were deleted.

        Prefer the one that does already, then one that exists, then one that may exist: outside the folder, or on a
        disconnected drive.
        """
        candidates = [file for file in files if self._is_kept(file.path)]
        return min(candidates, key=lambda file: (file.status != "done", not _may_exist(file.path)), default=None)

    def _is_kept(self, path: str) -> bool:
        if not is_in(path, self._folder.path) or _may_exist(path):
            return True
        self._refresh_mounts()
        return self._disconnected_folder(path) is not None

    def _delete_faces(self, face_ids: Sequence[str]) -> None:
        self.counts.faces += len(face_ids)
        if face_ids and not self._dry_run:
            self._thumbs.delete(face_ids)  # first: without the faces, nothing tells which thumbnails were theirs
            self._index.delete(face_ids)


def _may_exist(path: str) -> bool:
    """Return whether a path exists, or cannot be checked."""
    try:
        os.lstat(path)
    except OSError as failure:
        return failure.errno not in _MISSING_ERRORS
    return True
