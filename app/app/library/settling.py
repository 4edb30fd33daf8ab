"""What an ingest settles: copied and moved files as they come, and at the end replaced images and missing files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from threading import Event
from typing import Any, Final

from app.catalog import FileRecord, Ledger
from app.core.protocols import FaceIndex
from app.images import Thumbs
from app.library.locations import IMAGES_AT_ONCE, Locations
from app.library.presence import Presence, PresenceCheck, VisitedPaths

SETTLE_SECONDS: Final = 5.0  # between updates of the paths of copied and moved images
_MAX_UNSETTLED: Final = 4096
_MAX_WITHOUT_COPY: Final = 100_000


class Settling:
    """Settles the images of an ingest (`library.locations`).

    Each update reads all files of an image, so an image with many new copies is not settled after every batch.

    Attributes:
        moved: new files that replaced a deleted file of the same image.
        missing: files that are missing and have no copy.

    Args:
        index: the faces.
        ledger: the known files.
        thumbs: the thumbnails of the faces.
        digest: the digest of the model that made the index.
        on_missing: called when files are missing; it raises if the whole folder is unavailable.
        retry: runs a request to the index, perhaps several times.
        stop: once set, the work at the end is left to the next ingest.
    """

    def __init__(
        self,
        index: FaceIndex,
        ledger: Ledger,
        thumbs: Thumbs,
        *,
        digest: str,
        on_missing: Callable[[], None],
        retry: Callable[[Callable[[], Any]], Any],
        stop: Event,
    ) -> None:
        self._ledger = ledger
        self._check = PresenceCheck(ledger, on_missing=on_missing)
        self._locations = Locations(index, ledger, thumbs, self._check, digest=digest, retry=retry)
        self._stop = stop
        self._new_files: dict[str, set[str]] = {}  # by unsettled image
        self._settled_at = time.monotonic()
        self._pause = SETTLE_SECONDS
        self.moved = 0
        self.missing = 0

    def add(self, records: Iterable[FileRecord]) -> None:
        """Add new files that the ledger has recorded, with their images as unsettled."""
        for record in records:
            self._new_files.setdefault(str(record.image_id), set()).add(record.path)

    def add_image(self, image_id: str) -> None:
        """Add an image whose representative file is missing."""
        self._new_files.setdefault(image_id, set())

    def settle_if_due(self) -> None:
        """Settle the added images if there are many, or if the last time is long enough ago."""
        waited = time.monotonic() - self._settled_at >= self._pause
        if self._new_files and (waited or len(self._new_files) >= _MAX_UNSETTLED):
            self.settle()

    def settle(self) -> None:
        """Settle the added images."""
        start = time.monotonic()
        while self._new_files:
            image_ids = list(islice(self._new_files, IMAGES_AT_ONCE))
            new = set().union(*(self._new_files[image_id] for image_id in image_ids))
            with self._ledger.exclusive():
                settled = self._locations.settle(image_ids, new)
            for image_id, removed in settled.items():
                self.moved += min(len(removed), len(self._new_files.pop(image_id)))
        self._settled_at = time.monotonic()
        self._pause = max(SETTLE_SECONDS, 10 * (self._settled_at - start))

    def settle_replaced(self) -> None:
        """Settle the images whose files became other images that were read."""
        replaced = iter(self._ledger.replaced(by_image=True))
        while not self._stop.is_set() and (images := dict(islice(replaced, IMAGES_AT_ONCE))):
            with self._ledger.exclusive():
                self._locations.settle_replaced(images)

    def settle_earlier(self, new_files: Callable[[Sequence[str]], int] = lambda _: 0) -> None:
        """Settle what earlier ingests left unsettled, and restored images.

        Args:
            new_files: returns how many of the files of an image are new.
        """

        def count_moved(settled: Mapping[str, Sequence[str]]) -> None:
            for image_id, removed in settled.items():
                if removed:
                    self.moved += min(len(removed), new_files(self._ledger.paths_of(image_id)))

        self._locations.settle_all(self._stop, count_moved)

    def settle_missing(self, folder: str, visited: VisitedPaths) -> None:
        """Remove the missing files below a folder whose image exists in another file, and count the others.

        Args:
            folder: a folder that was scanned completely.
            visited: the paths that the scan found.
        """
        without_copy: set[str] = set()
        for page in self._ledger.paths(folder):
            if self._stop.is_set():
                return
            self._settle_missing(visited.others(page), without_copy)
            if len(without_copy) > _MAX_WITHOUT_COPY:
                without_copy.clear()

    def _settle_missing(self, paths: Iterable[str], without_copy: set[str]) -> None:
        presence = self._check.of(paths)
        missing = {
            path: record
            for path, found in presence.items()
            if found is not Presence.EXISTS and (record := self._ledger.file(path)) is not None
        }
        deleted = {path for path in missing if presence[path] is Presence.DELETED}
        # A file on a disconnected drive remains a copy, but does not represent its image.
        image_ids = {
            record.image_id
            for path, record in missing.items()
            if record.image_id is not None and (path in deleted or record.status != "duplicate")
        }
        with self._ledger.exclusive():
            settled = self._locations.settle(sorted(image_ids - without_copy))
        for image_id, removed in settled.items():
            deleted.difference_update(removed)
            if not removed:
                without_copy.add(image_id)
        self.missing += len(deleted)
