"""Paths as text."""

from __future__ import annotations

import os
import re
from pathlib import Path


def absolute(path: Path) -> str:
    """By the names that people know: Path.resolve would follow links. Two slashes at the beginning are one."""
    return re.sub("^//+", "/", os.path.abspath(path))  # noqa: PTH100


def readable(path: str) -> str:
    """A path as text that any JSON can hold: bytes that are no UTF-8 as backslash escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_in(path: str, folder: str) -> bool:
    """Is it this folder, or something below it?"""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def folders_of(path: str) -> tuple[str, ...]:
    """Every folder above an absolute path, outermost first, as in `FacePayload.folder`."""
    above: list[str] = []
    path = os.path.normpath(path)
    while (folder := os.path.dirname(path)) != path:  # noqa: PTH120 - for every picture; Path takes four times as long
        above.append(folder)
        path = folder
    return tuple(reversed(above))
