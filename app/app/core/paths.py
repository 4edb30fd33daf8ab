"""Paths as text: absolute, readable as UTF-8, and their parent folders."""

from __future__ import annotations

import os
import re
from pathlib import Path


def absolute(path: Path) -> str:
    """Return an absolute, normalized path with a single slash at the start.

    Symbolic links stay as they are, because people know files by these names; `Path.resolve` would follow them.
    """
    return re.sub("^//+", "/", os.path.abspath(path))  # noqa: PTH100


def readable(path: str) -> str:
    """Return a path as valid UTF-8 text, as JSON requires; bytes that are not UTF-8 become backslash escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_in(path: str, folder: str) -> bool:
    """Return whether a path is the folder itself or below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def folders_of(*paths: str) -> tuple[str, ...]:
    """Return every folder above absolute paths, sorted and so outermost first, as in `FacePayload.folder`."""
    folders: set[str] = set()
    for given in paths:
        path = os.path.normpath(given)
        while (folder := os.path.dirname(path)) != path:  # noqa: PTH120 - for every image; Path takes four times as long
            folders.add(folder)
            path = folder
    return tuple(sorted(folders))
