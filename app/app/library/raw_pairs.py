"""Raw files beside the JPEG or HEIC of the same photograph, such as IMG_1.CR2 and IMG_1.JPG."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Final

_RAW_SUFFIXES: Final = frozenset(
    {
        ".3fr", ".arw", ".cr2", ".cr3", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".nef", ".nrw",
        ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
    }
)  # fmt: skip
_DEVELOPED_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".jpe", ".heic", ".heif", ".hif"})


def is_raw_name(path: str) -> bool:
    """Return whether a file's name is that of a camera's raw file."""
    return os.path.splitext(path)[1].lower() in _RAW_SUFFIXES  # noqa: PTH122 - for millions of files


def raw_files_beside(paths: Iterable[str]) -> Iterator[str]:
    """Yield the raw files beside JPEG and HEIC files: in the same folder, with the same name except suffix and case."""
    stems: defaultdict[str, set[str]] = defaultdict(set)
    for path in paths:
        folder, name = os.path.split(path)
        stem, suffix = os.path.splitext(name)  # noqa: PTH122
        if suffix.lower() in _DEVELOPED_SUFFIXES:
            stems[folder].add(stem.lower())
    for folder, wanted in stems.items():
        with contextlib.suppress(OSError), os.scandir(folder) as listing:
            for entry in listing:
                if is_raw_name(entry.name) and PurePath(entry.name).stem.lower() in wanted:
                    yield entry.path


class RawPairs:
    """Finds the JPEG or HEIC beside a raw file: in the same folder, with the same name except suffix and case.

    The names of one folder are kept, and read again when the folder has changed.

    Args:
        wanted: whether a file at a path is ingested; others are no partners.
    """

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._state: tuple[str, int] | None = None
        self._names: Mapping[str, str] = {}

    def partner(self, path: str) -> str | None:
        """Return the path of the JPEG or HEIC beside a raw file; None if there is none."""
        folder, name = os.path.split(path)
        try:
            state = (folder, os.stat(folder).st_mtime_ns)  # noqa: PTH116
            if state != self._state:
                self._names = self._developed(folder)
                self._state = state
        except OSError:
            return None
        return self._names.get(PurePath(name).stem.lower())

    def _developed(self, folder: str) -> dict[str, str]:
        """Return the paths of the JPEG and HEIC files of a folder by their names without suffix, in lower case."""
        with os.scandir(folder) as listing:
            return {
                stem.lower(): entry.path
                for entry in listing
                for stem, suffix in [os.path.splitext(entry.name)]  # noqa: PTH122
                if suffix.lower() in _DEVELOPED_SUFFIXES and entry.is_file() and self._wanted(entry.path)
            }
