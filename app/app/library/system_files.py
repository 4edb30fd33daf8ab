"""Names of folders and files that systems and programs make: thumbnails, recycle bins, snapshots, unfinished files."""

from __future__ import annotations

import fnmatch
import re
from pathlib import PurePath
from typing import Final

_FOLDERS: Final = (
    # network storage: Synology, QNAP
    "@eaDir", "@tmp", "@__thumb", ".@__thumb", "@Recycle", "#recycle", "#snapshot", "@Recently-Snapshot", "@sharebin",
    # Windows, macOS, Linux
    "$RECYCLE.BIN", "RECYCLER", "System Volume Information", ".Trash", ".Trash-*", ".Trashes", "Network Trash Folder",
    ".AppleDouble", ".AppleDB", ".AppleDesktop", ".Spotlight-V100", ".fseventsd", ".DocumentRevisions-V100",
    ".TemporaryItems", "lost+found", ".thumbnails", ".snapshot", ".snapshots", ".zfs",
    # programs: Lightroom, digiKam, Dropbox, Syncthing, Resilio, Nextcloud
    "*.lrdata", ".dtrash", ".dropbox.cache", ".stversions", ".stfolder", ".sync", "files_trashbin", "files_versions",
    "appdata_oc*",
)  # fmt: skip
_FILES: Final = (
    "._*", ".syncthing.*.tmp", "~syncthing~*.tmp", "*.part", "*.partial", "*.filepart", "*.crdownload", "*.!sync",
    "*.!bt", "*.tmp", ".~lock*", "~$*", ".nfs*", ".fuse_hidden*",
)  # fmt: skip
_RSYNC_FILE: Final = r"\..+\.[^.]+\.(?:[A-Za-z0-9]{6}|~[0-9a-f]+)"  # .photo.jpg.Ab3dE6; Nextcloud's .photo.jpg.~1a2b
_LIBRARIES: Final = (".photoslibrary", ".photolibrary", ".migratedphotolibrary", ".aplibrary")
_ORIGINALS: Final = frozenset({"originals", "masters"})  # the folders of a macOS library that hold the pictures


def _any_of(patterns: tuple[str, ...]) -> str:
    return "|".join(fnmatch.translate(pattern) for pattern in patterns)


_SYSTEM_FOLDER: Final = re.compile(_any_of(_FOLDERS), re.IGNORECASE)
_SYSTEM_FILE: Final = re.compile(rf"{_any_of(_FILES)}|{_RSYNC_FILE}\Z", re.IGNORECASE)


def is_system_folder(path: str) -> bool:
    """Return whether a folder is made by a system or program, judged by its name and that of its parent.

    In a photo library of macOS, every folder except the originals counts: the others hold smaller copies.
    """
    parent, name = PurePath(path).parent.name, PurePath(path).name
    if parent.lower().endswith(_LIBRARIES):
        return name.lower() not in _ORIGINALS
    return _SYSTEM_FOLDER.match(name) is not None


def is_system_file(path: str) -> bool:
    """Return whether a file's name is that of a resource fork, a lock, or an unfinished download or copy."""
    return _SYSTEM_FILE.match(path.rpartition("/")[2]) is not None
