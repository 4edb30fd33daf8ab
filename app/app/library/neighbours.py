"""The images before and after one: by name in its folder, or by time."""

from __future__ import annotations

import os
import time
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from typing import Final

from app.catalog import Ledger
from app.core.concurrency import KeyedLocks
from app.core.protocols import FaceIndex
from app.core.times import timestamp
from app.core.types import FaceFilter
from app.library.natural import natural_key

_FOLDERS: Final = 8  # whose order is kept; one of 100,000 files takes 6 MB
_FRESH_SECONDS: Final = 5.0  # an ingest changes the ledger all the time
_NEARBY: Final = 2000  # faces that are read to find the nearest in time
_SHORTEST: Final = timedelta(milliseconds=1)  # a window this short is not divided
_WINDOWS: Final = (
    timedelta(seconds=10),
    timedelta(hours=1),
    timedelta(days=2),
    timedelta(days=365),
    timedelta(days=80_000),  # since the oldest photograph that is preserved
)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The image_ids of the images with faces before and after one; None if there is none."""

    previous: str | None
    next: str | None


@dataclass(frozen=True, slots=True)
class _Kept:
    version: tuple[object, ...]
    until: float
    names: list[bytes]


class FolderOrder:
    """The files of folders in natural order. Safe to call from several threads.

    To read and sort the names of 100,000 files takes half a second (docs/numbers.md), so the order of the last few
    folders is kept until the ledger changes, and for a few seconds even then.

    Args:
        ledger: the files.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._sorting = KeyedLocks()
        self._lock = Lock()
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()

    def beside(self, path: str) -> Neighbours:
        """Return the images with faces whose files are the next ones in the folder of a file.

        Copies of an image whose own file is in the folder are left out: they would lead back to it.

        Args:
            path: a file; it need not be known.

        Raises:
            OceanoError: `ledger_unavailable`.
        """
        folder, _, name = os.fsencode(path).rpartition(b"/")
        names = self._sorted(folder)
        before, after = bisect_left(names, _order(name), key=_order), bisect_right(names, _order(name), key=_order)
        return Neighbours(self._first_image(folder, reversed(names[:before])), self._first_image(folder, names[after:]))

    def _sorted(self, folder: bytes) -> list[bytes]:
        with self._sorting.held(folder):  # other threads that need the same folder wait for its order
            version = self._ledger.version()
            with self._lock:
                kept = self._kept.get(folder)
            if kept is None or (kept.version != version and time.monotonic() > kept.until):
                kept = _Kept(version, time.monotonic() + _FRESH_SECONDS, _names_with_faces(self._ledger, folder))
            with self._lock:
                self._kept[folder] = kept
                self._kept.move_to_end(folder)
                while len(self._kept) > _FOLDERS:
                    self._kept.popitem(last=False)
        return kept.names

    def _first_image(self, folder: bytes, names: Iterable[bytes]) -> str | None:
        """Return the image of the first name whose image has faces; a copy may be one of an image without faces."""
        for name in names:
            record = self._ledger.file(os.fsdecode(folder + b"/" + name))
            if record is None or record.image_id is None:
                continue
            own = record if record.status == "done" else self._ledger.image(record.image_id)
            if own is not None and own.status == "done":
                return record.image_id
        return None


def _names_with_faces(ledger: Ledger, folder: bytes) -> list[bytes]:
    """The names of the files of a folder whose images have faces, and of copies of images from elsewhere, sorted."""
    own, copies = {}, []
    for name, status, image_id in ledger.names_in(folder):
        if status == "done":
            own[name] = image_id
        else:
            copies.append((name, image_id))
    here = set(own.values()) if copies else set()
    return sorted([*own, *(name for name, image_id in copies if image_id not in here)], key=_order)


def _order(name: bytes) -> tuple[str, bytes]:
    return natural_key(name), name


def near_in_time(index: FaceIndex, image_id: str, taken_at: str | None) -> Neighbours:
    """Return the images before and after one by time; images of the same time are ordered by their ids.

    Args:
        index: the faces.
        image_id: the image.
        taken_at: its time, ISO 8601; without one it has no neighbours.

    Raises:
        OceanoError: `index_unavailable`.
    """
    if taken_at is None:
        return Neighbours(None, None)
    moment = datetime.fromisoformat(taken_at)
    return Neighbours(_near(index, image_id, moment, later=False), _near(index, image_id, moment, later=True))


def _near(index: FaceIndex, image_id: str, moment: datetime, *, later: bool) -> str | None:
    """Return the nearest image in time, in ever larger windows; one with too many faces to read is divided."""
    own = (timestamp(moment), image_id)
    read, windows = timedelta(0), list(_WINDOWS)
    while windows:
        try:
            ends = [moment + part if later else moment - part for part in (read, windows[0])]
        except OverflowError:
            return None
        first, last = sorted(ends)
        page = index.scroll(limit=_NEARBY, where=FaceFilter(taken_from=first.isoformat(), taken_to=last.isoformat()))
        if page.next_offset is not None and windows[0] - read > _SHORTEST:
            windows.insert(0, (read + windows[0]) / 2)
            continue
        payloads = [record.payload for record in page.records if record.payload.image_id != image_id]
        keys = [(timestamp(datetime.fromisoformat(one.taken_at or "")), one.image_id) for one in payloads]
        found = [key for key in keys if (key > own) == later]
        if found:
            return (min(found) if later else max(found))[1]
        read = windows.pop(0)
    return None
