"""What lies below a folder: files as a stream, and their contents."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.errors import OceanoError
from app.formats import SNIFF_BYTES, sniff

_log = logging.getLogger(__name__)

MAX_FILE_BYTES: Final = 512_000_000
_PICTURE_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif", ".avif"}
)


@dataclass(frozen=True, slots=True)
class File:
    """A regular file: absolute path (os.fsdecode), size in bytes, time of the last change."""

    path: str
    size: int
    mtime_ns: int


def scan(folder: Path) -> Iterator[File]:
    """Regular files at or below a folder, as absolute paths, in a stable order, as a stream.

    A folder that cannot be listed is logged and passed over; links to files are followed, links to folders
    are not (they could lead back up).
    """
    waiting = [os.path.abspath(folder)]  # noqa: PTH100 - Path.resolve would follow links: other names than people know
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as failure:
            _log.error("cannot list %s: %s", readable(here), failure.strerror)
            continue
        waiting += [entry.path for entry in reversed(entries) if entry.is_dir(follow_symlinks=False)]
        for entry in entries:
            if entry.name.startswith("._") or entry.is_dir(follow_symlinks=False):
                continue  # "._": resource forks that macOS leaves beside the real files
            try:
                status = entry.stat()
            except OSError:
                continue  # a dangling link, or gone since
            if stat.S_ISREG(status.st_mode):
                yield File(entry.path, status.st_size, status.st_mtime_ns)


def contents(file: File) -> bytes | None:
    """The bytes of a picture; None for a file that is no picture by content and does not claim to be by name.

    Raises OSError; OceanoError `unsupported_image` and `invalid_image` (called a picture, but is none),
    `image_too_large`.
    """
    with Path(file.path).open("rb") as opened:
        head = opened.read(SNIFF_BYTES)
        if sniff(head) is None:
            if Path(file.path).suffix.lower() not in _PICTURE_SUFFIXES:
                return None
            if not head:
                raise OceanoError("invalid_image", "the file is empty")
            raise OceanoError("unsupported_image", "by its content this is no picture of a supported format")
        if file.size > MAX_FILE_BYTES:
            raise OceanoError(
                "image_too_large", f"{file.size / 1e6:.0f} MB; at most {MAX_FILE_BYTES / 1e6:.0f} MB are read"
            )
        return head + opened.read()


def readable(path: str) -> str:
    """A path as text that any JSON can hold: bytes that are no UTF-8 as backslash escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
