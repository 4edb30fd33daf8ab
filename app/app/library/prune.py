"""Forgetting files that are gone: their faces, thumbnails and results. Only ever done when asked."""

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

_AT_ONCE: Final = 256
_MOST_PLACES: Final = 10
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})


@dataclass(slots=True)
class PruneCounts:
    """Files that are gone and forgotten; of their images: those forgotten with their faces, those that live on in a
    copy; `unsure` files are kept, since a drive may be missing: one was mounted above them and is not now, or they lay
    in a folder that is there and empty. `unsure_below` are the first of those places.
    """

    files: int = 0
    images: int = 0
    faces: int = 0
    moved: int = 0
    unsure: int = 0
    unsure_below: list[str] = field(default_factory=list, compare=False)


class Pruning:
    """Forgets what is gone below a folder. With `dry_run` it only counts; with `drives` also what may be on a drive.

    Kill it anywhere and run it again: thumbnails go first, then faces, the ledger's row that names them last.
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
        self._noted: list[Mount] = []
        self._points: set[str] = set()
        self._looked: set[str] | None = None
        self.counts = PruneCounts()

    def look(self) -> None:
        """Before an ingest: what is gone now may be forgotten afterwards. A file that is moved while the ingest goes
        through the folder may be in neither place when it comes by.
        """
        self._looked = {known.path for known in self._not_there()}

    def run(self) -> PruneCounts:
        """Until all is looked at or `stop` is set.

        Raises OceanoError `folder_unavailable` (nothing more is forgotten then), `index_unavailable`.
        """
        self.counts = PruneCounts()
        self._folder.require()
        for image_id, faces in self._ledger.replaced(self._folder.path):
            if self._stop.is_set():
                break
            self._folder.require()
            self._let_go(image_id, faces)
        missing = (known for known in self._not_there() if self._looked is None or known.path in self._looked)
        while not self._stop.is_set() and (some := list(islice(missing, _AT_ONCE))):
            self._look_at_drives()
            if gone := [known for known in some if self._is_gone(known)]:
                self._forget(gone)
        return self.counts

    def _not_there(self) -> Iterator[FileRecord]:
        return (known for known in self._ledger.files(self._folder.path) if not _is_there(known.path))

    def _look_at_drives(self) -> None:
        """After files were seen to be gone: what is gone with its drive, or the whole folder, is not."""
        self._folder.require()
        self._noted, self._points = self._ledger.mounts(), mounted()

    def _is_gone(self, known: FileRecord) -> bool:
        if (place := self._missing_drive(known.path)) is None:
            return True
        self.counts.unsure += 1
        below = self.counts.unsure_below
        if readable(place) not in below and len(below) < _MOST_PLACES:
            below.append(readable(place))
        return False

    def _missing_drive(self, path: str) -> str | None:
        """Where a drive may be missing. One that is not mounted takes its folder along, or leaves it, mostly empty."""
        if self._drives:
            return None
        noted = [one for one in self._noted if is_in(path, one.folder)]
        for one in noted:
            if one.point not in self._points:
                return one.folder
        there = next(str(parent) for parent in Path(path).parents if os.path.isdir(parent))  # noqa: PTH112 - never raises
        if any(there == one.folder for one in noted):
            return None  # it is mounted, and emptied
        try:
            with os.scandir(there) as listing:
                return there if next(listing, None) is None else None
        except OSError:
            return there

    def _forget(self, gone: Sequence[FileRecord]) -> None:
        self.counts.files += len(gone)
        lost = {one.path for one in gone}
        heirs = []
        for known in gone:
            if known.status in ("done", "no_face") and (heir := self._heir(known, lost)) is not None:
                heirs.append(heir)
        if not self._dry_run:
            self._ledger.record(heirs, forget=sorted(lost))

    def _heir(self, known: FileRecord, lost: set[str]) -> FileRecord | None:
        """The copy in which the image lives on, its faces led there; None if there is none, its faces then gone."""
        image_id = str(known.image_id)
        heir = self._living([one for one in self._ledger.files_of(image_id) if one.path not in lost])
        ids = [face_id_of(image_id, self._digest, place) for place in range(known.faces)]
        if heir is None:
            self.counts.images += 1
            self._drop(ids)
            return None
        self.counts.moved += 1
        if ids and not self._dry_run:
            self._index.set_path(ids, path=readable(heir.path))
        return replace(heir, status=known.status, faces=known.faces, reason=known.reason, message=known.message)

    def _let_go(self, image_id: str, faces: int) -> None:
        """An image whose file became another one, unless it has come back since."""
        files = self._ledger.files_of(image_id)
        heir = self._living(files)
        ids = [face_id_of(image_id, self._digest, place) for place in range(faces)]
        if heir is not None and not self._dry_run:
            self._index.set_path(ids, path=readable(heir.path))
            self._ledger.record([replace(heir, status="done", faces=faces, reason=None, message=None)])
        elif heir is None and all(one.status != "done" for one in files):  # else it is gone, and about to be forgotten
            self.counts.images += 1
            self._drop(ids)
        if not self._dry_run:
            self._ledger.forget_replaced(image_id)

    def _living(self, files: Sequence[FileRecord]) -> FileRecord | None:
        """Which of an image's files stands for it: one that does already, else one that is there, else one that is
        not surely gone: it lies elsewhere, or where a drive may be. Faces are only dropped with the last of them.
        """
        living = [one for one in files if self._may_live(one.path)]
        return min(living, key=lambda one: (one.status != "done", not _is_there(one.path)), default=None)

    def _may_live(self, path: str) -> bool:
        if not is_in(path, self._folder.path) or _is_there(path):
            return True
        self._look_at_drives()
        return self._missing_drive(path) is not None

    def _drop(self, face_ids: Sequence[str]) -> None:
        self.counts.faces += len(face_ids)
        if face_ids and not self._dry_run:
            self._thumbs.delete(face_ids)  # first: of a face that is gone nobody could tell which were its
            self._index.delete(face_ids)


def _is_there(path: str) -> bool:
    """So also where it cannot be looked at: only what is surely gone is gone."""
    try:
        os.lstat(path)
    except OSError as failure:
        return failure.errno not in _GONE
    return True
