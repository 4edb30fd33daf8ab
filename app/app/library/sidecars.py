"""Sidecars that are new or were changed since their picture was ingested."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from app.catalog import FileRecord, Ledger
from app.core.types import File
from app.images import SIDECAR

_AT_ONCE: Final = 256  # looked up in one query
_MARGIN: Final = timedelta(minutes=2)  # a sidecar may be written while its picture is read, and clocks differ


class ChangedSidecars:
    """Notices sidecars among the files of a scan, and says which known pictures have a newer one.

    Args:
        ledger: says when each picture was last ingested.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._noted: list[File] = []
        self._folder: tuple[str, int] | None = None
        self._stems: dict[str, list[str]] = {}

    @property
    def is_full(self) -> bool:
        """Whether `take` should be called."""
        return len(self._noted) >= _AT_ONCE

    def watch(self, files: Iterable[File]) -> Iterator[File]:
        """Yield files, and note the sidecars among them."""
        for file in files:
            if file.path[-len(SIDECAR) :].lower() == SIDECAR:
                self._noted.append(file)
            yield file

    def take(self) -> list[FileRecord]:
        """Return the records of the pictures whose noted sidecars are newer than they are; forget these sidecars.

        Raises:
            OceanoError: `ledger_unavailable`.
        """
        newest: dict[str, datetime] = {}
        for file in self._noted:
            changed = _time(max(file.mtime_ns, file.ctime_ns or 0))
            for path in self._pictures(file.path[: -len(SIDECAR)]):
                newest[path] = max(changed, newest.get(path, changed))
        self._noted.clear()
        recorded = self._ledger.recorded_at([*newest])
        older = [path for path, at in recorded.items() if datetime.fromisoformat(at) - _MARGIN < newest[path]]
        records = self._ledger.files_at(older)
        return [record for record in records.values() if record.status in ("done", "duplicate")]

    def _pictures(self, base: str) -> list[str]:
        """Return the paths that a sidecar may belong to: photo.jpg of photo.jpg.xmp, and photo.* of photo.xmp."""
        folder, name = os.path.split(base)
        try:
            state = (folder, os.stat(folder).st_mtime_ns)  # noqa: PTH116
            if state != self._folder:
                self._stems = _stems(folder)
                self._folder = state
        except OSError:
            return [base]
        return [base, *self._stems.get(name, ())]


def _stems(folder: str) -> dict[str, list[str]]:
    """Return the paths in a folder by their names without suffix, without those of sidecars."""
    found: dict[str, list[str]] = {}
    with os.scandir(folder) as listing:
        for entry in listing:
            stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122
            if suffix.lower() != SIDECAR:
                found.setdefault(stem, []).append(entry.path)
    return found


def _time(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / 1e9, UTC)
