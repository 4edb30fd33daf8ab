"""What lies below a folder: files as a stream, and their contents."""

from __future__ import annotations

import errno
import fnmatch
import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.core.errors import OceanoError
from app.core.paths import absolute, readable
from app.images import SNIFF_BYTES, sniff

_log = logging.getLogger(__name__)

MAX_FILE_BYTES: Final = 512_000_000
_PICTURE_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif", ".avif"}
)
# What a network drive or a device that went away answers; no single file or folder is to blame.
_AWAY: Final = frozenset(
    {errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO}
)


@dataclass(frozen=True, slots=True)
class File:
    """A regular file: absolute path (os.fsdecode), size in bytes, time of the last change."""

    path: str
    size: int
    mtime_ns: int


def _compiled(patterns: Sequence[str]) -> list[re.Pattern[str]]:
    return [re.compile(fnmatch.translate(pattern.rstrip("/")), re.IGNORECASE) for pattern in patterns]


def _fits(patterns: list[re.Pattern[str]], below: str) -> bool:
    return any(one.match(below) or one.match(below.rpartition("/")[2]) for one in patterns)


class PathFilter:
    """Which paths below a folder are wanted: patterns as a shell's (`*.jpg`, `2024/*`), case ignored.

    A pattern is held against a file's name and against its path below the folder; `*` goes over slashes. Where there
    are patterns to include, one has to fit; none to exclude may. What is excluded is not entered.
    """

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        self._include = _compiled(include)
        self._exclude = _compiled(exclude)

    def takes(self, below: str) -> bool:
        """Is this file wanted?"""
        return (not self._include or _fits(self._include, below)) and self.enters(below)

    def enters(self, below: str) -> bool:
        """May this folder hold what is wanted?"""
        return not _fits(self._exclude, below)


EVERYTHING: Final = PathFilter()


class Folder:
    """A folder of pictures that may go away while it is read, as a network drive or a memory stick does.

    Raises OceanoError `folder_unavailable` at construction, and from `require` once it is no longer the folder that
    it was.
    """

    def __init__(self, path: Path) -> None:
        self.path = absolute(path)
        self._was = self._identity()
        self.unlisted = 0  # folders below that a scan could not list

    def scan(self, wanted: PathFilter = EVERYTHING, start: str | None = None) -> Iterator[File]:
        """Regular files at or below the folder, or a folder `start` in it, as a stream: a folder's own before others.

        A folder below that cannot be listed is logged and passed over; links to files are followed, links to folders
        are not (they could lead back up). Raises OceanoError `folder_unavailable`.
        """
        waiting = [start or self.path]
        while waiting:
            here = waiting.pop()
            below: list[str] = []
            try:
                with os.scandir(here) as listing:
                    for entry in listing:
                        if entry.is_dir(follow_symlinks=False):
                            below += [entry.path] if wanted.enters(self.below(entry.path)) else []
                        elif wanted.takes(self.below(entry.path)) and (file := file_at(entry.path)) is not None:
                            yield file
            except OSError as failure:
                self.require(failure)
                self.unlisted += 1
                _log.error("cannot list %s: %s", readable(here), failure.strerror)
            waiting += sorted(below, reverse=True)
        self.require()  # a listing goes on without its folder: its files would only seem to be gone

    def require(self, failure: OSError | None = None) -> None:
        """Is it still there? Raises OceanoError `folder_unavailable`, with `failure` as its reason."""
        if (failure is not None and failure.errno in _AWAY) or self._identity() != self._was:
            raise _unavailable(self.path, failure)

    def _identity(self) -> tuple[int, int]:
        """Of the folder: another one (the empty one that a drive was mounted on) has another."""
        try:
            status = os.stat(self.path)  # noqa: PTH116
            with os.scandir(self.path):
                return status.st_dev, status.st_ino
        except OSError as failure:
            raise _unavailable(self.path, failure) from failure

    def below(self, path: str) -> str:
        """A path of this folder without the folder."""
        return path[len(self.path) :].lstrip("/")


def file_at(path: str) -> File | None:
    """The regular file at this path; None for what is none, is gone, or is a resource fork that macOS leaves."""
    if os.path.basename(path).startswith("._"):  # noqa: PTH119
        return None
    try:
        status = os.stat(path)  # noqa: PTH116 - Path would be built a million times
    except OSError:
        return None  # a dangling link, or gone since
    return File(path, status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def _without_waiting(path: str, flags: int) -> int:
    """A file that became a pipe since it was listed would be waited for."""
    return os.open(path, flags | os.O_NONBLOCK)


def contents(file: File) -> bytes | None:
    """The bytes of a picture; None for a file that is no picture by content and does not claim to be by name.

    Raises OSError; OceanoError `unsupported_image` and `invalid_image` (called a picture, but is none),
    `image_too_large`, `changed_while_read`.
    """
    with open(file.path, "rb", opener=_without_waiting) as opened:
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
        data = head + opened.read(max(1, file.size - len(head) + 1))  # one more says that it grew
        status = os.fstat(opened.fileno())
    if (len(data), status.st_mtime_ns) != (file.size, file.mtime_ns):
        raise OceanoError("changed_while_read", "the file changed while it was read; the next run takes it up")
    return data


def _unavailable(path: str, failure: OSError | None) -> OceanoError:
    said = f" is unavailable ({failure.strerror})" if failure is not None else " is unavailable or has been replaced"
    closed = failure is not None and failure.errno == errno.EACCES
    advice = f"User {os.getuid()} may not read it." if closed else "Is the drive connected?"
    return OceanoError(
        "folder_unavailable",
        f"Folder {readable(path)}{said}. {advice} Files ingested so far are kept.",
        details={"folder": readable(path)},
    )
