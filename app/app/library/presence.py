"""Which files still exist: existing, deleted, or perhaps on a drive that is disconnected."""

from __future__ import annotations

import enum
import errno
import os
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from app.catalog import Ledger, Mount
from app.core.paths import is_in
from app.library.mounts import mounted

_MISSING_ERRORS: Final = frozenset({errno.ENOENT, errno.ENOTDIR})


class Presence(enum.IntEnum):
    """Whether a file exists; the lowest is the best file to represent its image."""

    EXISTS = 0
    UNSURE = 1  # missing, but its drive may be disconnected
    DELETED = 2


class PresenceCheck:
    """Tells deleted files from those on a disconnected drive.

    Args:
        ledger: has the mounts that earlier ingests recorded.
        drives: also files whose drive may be disconnected are deleted.
        on_missing: called when files are missing; it raises if the whole folder is unavailable.
    """

    def __init__(self, ledger: Ledger, *, drives: bool = False, on_missing: Callable[[], None] = lambda: None) -> None:
        self._ledger = ledger
        self._drives = drives
        self._on_missing = on_missing
        self._recorded_mounts: list[Mount] = []
        self._mount_points: set[str] = set()

    def of(self, paths: Iterable[str]) -> dict[str, Presence]:
        """Check files.

        Raises:
            OceanoError: the error of `on_missing`.
        """
        presence = dict.fromkeys(paths, Presence.EXISTS)
        if missing := [path for path in presence if not may_exist(path)]:
            self.refresh_mounts()
            for path in missing:
                deleted = self.disconnected_folder(path) is None
                presence[path] = Presence.DELETED if deleted else Presence.UNSURE
        return presence

    def refresh_mounts(self) -> None:
        """Read the mounts after files were found missing, so that the drives of these files are noticed as missing."""
        self._on_missing()
        self._recorded_mounts, self._mount_points = self._ledger.mounts(), mounted()

    def disconnected_folder(self, path: str) -> str | None:
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


class VisitedPaths:
    """The paths that a scan visited, as 64-bit hashes to save memory: 8 bytes per file."""

    def __init__(self) -> None:
        self._hashes = array("q")
        self._sorted: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None

    def add(self, path: str) -> None:
        """Add a path."""
        self._hashes.append(hash(path))

    def others(self, paths: Sequence[str]) -> list[str]:
        """Return the paths that were not visited; no path can be added afterwards."""
        if self._sorted is None:
            self._sorted = np.sort(np.frombuffer(self._hashes, dtype=np.int64))
        hashes = np.fromiter(map(hash, paths), dtype=np.int64, count=len(paths))
        places = np.searchsorted(self._sorted, hashes)
        return [
            path
            for path, wanted, place in zip(paths, hashes, places, strict=True)
            if place == len(self._sorted) or self._sorted[place] != wanted
        ]


def may_exist(path: str) -> bool:
    """Return whether a path exists, or cannot be checked."""
    try:
        os.lstat(path)
    except OSError as failure:
        return failure.errno not in _MISSING_ERRORS
    return True


def former_spellings(paths: Iterable[str]) -> set[str]:
    """Return the paths under which no file is listed, although they exist.

    A file system that ignores case or normalizes accents also finds a renamed file by its former name.

    Args:
        paths: existing files.
    """
    by_key = defaultdict(list)
    for path in paths:
        by_key[unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())].append(path)
    return {path for group in by_key.values() if len(group) > 1 for path in _unlisted(group)}


def _unlisted(spellings: Sequence[str]) -> list[str]:
    """Return the spellings of one file that its folders do not list; none if all are unlisted."""
    try:
        files = {(status.st_dev, status.st_ino) for status in map(os.lstat, spellings)}
        if len(files) > 1:
            return []
        parts = [path.split("/") for path in spellings]
        first = next(place for place, names in enumerate(zip(*parts, strict=True)) if len(set(names)) > 1)
        unlisted = [path for path in spellings if not _is_listed(path.split("/"), first)]
    except OSError:
        return []
    return unlisted if len(unlisted) < len(spellings) else []


def _is_listed(parts: Sequence[str], first: int) -> bool:
    return all(parts[place] in os.listdir("/".join(parts[:place]) or "/") for place in range(first, len(parts)))  # noqa: PTH208 - surrogates
