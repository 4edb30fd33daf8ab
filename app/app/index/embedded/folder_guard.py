"""Whether a collection's folder is still the one that was opened, and whether an empty one may become an index.

A user can delete, rename or replace the folder while processes use it. Its files stay usable until their last process
closes them, so without a check an ingest would write into deleted files, and a second owner could start beside the
first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from app.core.errors import OceanoError
from app.index.embedded.storage import KEY, LOCK, POINTER
from app.index.errors import unavailable

_NEW: Final = "new"  # a file in a collection that has no shard yet; without it, a missing shard is an error


class FolderGuard:
    """Compares the lock file in a collection's folder with the one that this process found first.

    The owner keeps its lock file open, so the file system cannot give the file's number to another file.

    Args:
        folder: the collection's folder; the caller holds its lock.

    Raises:
        OSError: the lock file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._identity = self._find()

    @property
    def intact(self) -> bool:
        """Whether the folder is where it was, with the same lock file."""
        try:
            return self._find() == self._identity
        except OSError:
            return False

    def require(self) -> None:
        """Refuse to continue in a folder that is missing or another.

        Raises:
            OceanoError: `index_unavailable`.
        """
        if not self.intact:
            raise replaced(self._folder)

    def _find(self) -> tuple[int, int]:
        found = (self._folder / LOCK).stat()
        return found.st_dev, found.st_ino


def fingerprint(folder: Path) -> tuple[int, bytes] | None:
    """Return what identifies a collection's folder to a client: its inode and its key; None if it has no key.

    Raises:
        OSError: the key cannot be read.
    """
    try:
        return folder.stat().st_ino, (folder / KEY).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def replaced(folder: Path) -> OceanoError:
    """Return the error `index_unavailable` for a folder that was deleted, renamed or replaced while in use."""
    return unavailable(
        f"The folder of the index was deleted or replaced while the index was in use: {folder}. Put it back, or stop "
        "Oceano and restore a backup."
    )


def mark_new(folder: Path) -> None:
    """Allow the owner of a folder without a shard to create one.

    Raises:
        OSError: the file cannot be written.
    """
    if not _has_shard(folder):
        (folder / _NEW).touch()


def mark_complete(folder: Path) -> None:
    """Undo `mark_new`, once the shard exists.

    Raises:
        OSError: the file cannot be removed.
    """
    (folder / _NEW).unlink(missing_ok=True)


def require_collection(folder: Path, shard: Path | None = None) -> None:
    """Refuse a folder that has lost its shard, so that no empty one is created in its place.

    Args:
        folder: the collection's folder.
        shard: the shard that must exist; None for any.

    Raises:
        OceanoError: `index_unavailable` if the folder is missing, or has no shard and is not new.
    """
    if is_lost(folder) if shard is None else not (shard.is_dir() or (folder / _NEW).exists()):
        what = f"is missing in {folder}" if folder.is_dir() else f"is missing: {folder}"
        raise unavailable(
            f"The index {what}. Put its folder back or restore a backup. To start with an empty index instead, stop "
            f"Oceano and delete the file *.alias.json in {folder.parent}."
        )


def is_lost(folder: Path) -> bool:
    """Return whether a collection's folder is missing, or has no shard and is not new."""
    return not _has_shard(folder) and not (folder / _NEW).exists()


def _has_shard(folder: Path) -> bool:
    return (folder / POINTER).exists() or any(folder.glob("shard-*"))
