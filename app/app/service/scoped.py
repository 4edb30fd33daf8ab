"""What someone sees who may see some folders only: the parts of the service that show nothing else."""

# ruff: noqa: D102 - the Protocols and Ledger describe the methods
from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final

from cachetools import LRUCache

from app.catalog import FileRecord, Job, Ledger
from app.core.errors import OceanoError
from app.images import Thumbs
from app.security import Scope, scope_of
from app.service.monitor import Snapshot
from app.service.scoped_index import ScopedIndex, forbid, part_of

if TYPE_CHECKING:
    from app.service.factory import Services

_COUNT_SECONDS: Final = 30.0
_VIEWS: Final = 100  # of the scopes that were used last; one takes a few kB


class ScopedLedger(Ledger):
    """The files of a ledger that are in a scope, for look-ups by path and by image; other methods are as in `Ledger`.

    Args:
        ledger: all files; stays open as long as this is used.
        scope: the folders.
    """

    def __init__(self, ledger: Ledger, scope: Scope) -> None:
        super().__init__(ledger.database, ledger.collection)
        self._scope = scope

    def file(self, path: str) -> FileRecord | None:
        return super().file(path) if self._scope.has_file(path) else None

    def files_at(self, paths: Sequence[str]) -> dict[str, FileRecord]:
        return super().files_at([path for path in paths if self._scope.has_file(path)])

    def image(self, image_id: str) -> FileRecord | None:
        found = super().image(image_id)
        return found if found is not None and self._scope.has_file(found.path) else None

    def originals(self, image_ids: Sequence[str]) -> dict[str, FileRecord]:
        return {one: found for one, found in super().originals(image_ids).items() if self._scope.has_file(found.path)}

    def files_of(self, image_id: str) -> list[FileRecord]:
        return [record for record in super().files_of(image_id) if self._scope.has_file(record.path)]

    def paths_of_images(self, image_ids: Sequence[str]) -> dict[str, list[str]]:
        found = super().paths_of_images(image_ids).items()
        within = {one: [path for path in paths if self._scope.has_file(path)] for one, paths in found}
        return {image_id: paths for image_id, paths in within.items() if paths}


class ScopedThumbs:
    """The thumbnails of faces that an index shows: the `Thumbs` Protocol. Others are as if they did not exist.

    Args:
        thumbs: all thumbnails.
        index: shows a part of the faces.
    """

    def __init__(self, thumbs: Thumbs, index: ScopedIndex) -> None:
        self._thumbs = thumbs
        self._index = index

    @property
    def previews(self) -> Path:
        return self._thumbs.previews

    def read(self, face_id: str) -> bytes | None:
        return self._thumbs.read(face_id) if self._index.retrieve([face_id]) else None

    def read_many(self, face_ids: Sequence[str]) -> list[bytes | None]:
        seen = [record.face_id for record in self._index.retrieve(face_ids)]
        found = dict(zip(seen, self._thumbs.read_many(seen), strict=True))
        return [found.get(face_id) for face_id in face_ids]

    def write(self, face_id: str, jpeg: bytes) -> None:
        """Store a thumbnail of a face that is shown; others are left as they are."""
        if self._index.retrieve([face_id]):
            self._thumbs.write(face_id, jpeg)

    def write_soon(self, face_id: str, jpeg: bytes) -> None:
        self.write(face_id, jpeg)

    def flush(self) -> None:
        """Do nothing: `write` has stored all."""

    def missing(self, face_ids: Sequence[str]) -> set[str]:
        seen = [record.face_id for record in self._index.retrieve(face_ids)]
        return self._thumbs.missing(seen) | (set(face_ids) - set(seen))

    def face_ids(self) -> Iterator[str]:
        forbid()

    def delete(self, face_ids: Iterable[str]) -> None:
        forbid()


class View:
    """What is known of a scope: its folders, and the number of faces in them, counted at most every half a minute.

    Args:
        scope: the folders.
        index: the faces in them.

    Attributes:
        scope: as above.
        faces: the last known number; None before the first count.
    """

    def __init__(self, scope: Scope, index: ScopedIndex) -> None:
        self.scope = scope
        self.faces: int | None = None
        self._index = index
        self._counted = -_COUNT_SECONDS
        self._lock = Lock()

    def count(self) -> None:
        """Count the faces again if it is time to; blocking. If the index fails, the number stays as it was."""
        if not self._is_due() or not self._lock.acquire(blocking=self.faces is None):
            return  # another thread counts
        try:
            if self._is_due():
                self.faces = self._index.count()
        except OceanoError:
            return
        finally:
            self._counted = time.monotonic()
            self._lock.release()

    def of(self, known: Snapshot) -> Snapshot:
        """Return what a state says of the scope: its number of faces, and the ingests of its folders."""
        index = None if known.index is None or self.faces is None else part_of(known.index, self.faces)
        jobs = None if known.jobs is None else tuple(job for job in known.jobs if self._shows(job))
        return replace(known, index=index, totals=None, jobs=jobs)

    def _is_due(self) -> bool:
        return time.monotonic() - self._counted >= _COUNT_SECONDS

    def _shows(self, job: Job) -> bool:
        return self.scope.has_folder(job.folder)


class Views:
    """The parts of a service that people with a scope use, each made once; those used last are kept. Safe for threads.

    Args:
        make: makes the part for a scope.
    """

    def __init__(self, make: Callable[[Scope], Services]) -> None:
        self._make = make
        self._kept: LRUCache[tuple[str, ...], Services] = LRUCache(_VIEWS)
        self._lock = Lock()

    def get(self, folders: tuple[str, ...]) -> Services:
        """Return the part for folders."""
        with self._lock:
            if (view := self._kept.get(folders)) is None:
                view = self._kept[folders] = self._make(scope_of(folders))
        return view


def view_of(services: Services, scope: Scope) -> Services:
    """Return the service as someone sees it who may see some folders only; threads and caches are shared.

    What is not of pictures stays as it is: settings, engine, keys, audit, kept searches (which have owners), monitor.
    """
    view = copy.copy(services)
    ledger = ScopedLedger(services.ledger, scope)
    index = ScopedIndex(services.index, ledger, scope)
    view.ledger, view.index = ledger, index
    view.thumbs = ScopedThumbs(services.thumbs, index)
    view.search = services.search.through(index, scope.key)
    view.pictures = services.pictures.through(index, ledger)
    view.people = services.people.through(index, view.search.results, scope)
    view.view = View(scope, index)
    return view
