"""Opens files of images: only below folders that may be shown, and only while they are what was ingested."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.core.errors import OceanoError
from app.images import SNIFF_BYTES, sniff

_PART_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file with an image.

    Attributes:
        path: absolute.
        size: in bytes.
        mtime_ns: time of the last change in nanoseconds, when it was ingested.
        may_show: it is below a folder whose files may be shown.
    """

    path: str
    size: int
    mtime_ns: int
    may_show: bool


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A file that is open for reading; whoever gets it closes `handle`.

    Attributes:
        handle: the file descriptor.
        path: where it was found.
        status: of the open file.
        format: of its content, such as "JPEG".
    """

    handle: int
    path: str
    status: os.stat_result
    format: str

    def close(self) -> None:
        """Close the file."""
        os.close(self.handle)


class Opener:
    """Decides which files may be shown, and opens them.

    Args:
        roots: folders whose files may be shown; None: all.
    """

    def __init__(self, roots: Sequence[Path] | None) -> None:
        self._roots = None if roots is None else [os.path.realpath(root) for root in roots]

    def may_show(self, path: str) -> bool:
        """Return whether a file is below a folder whose files may be shown, wherever symbolic links lead."""
        if self._roots is None:
            return True
        real = os.path.realpath(path)
        return any(real == root or real.startswith(root.rstrip("/") + "/") for root in self._roots)

    def open(self, image_id: str, files: Sequence[ImageFile]) -> OpenedFile:
        """Open the first file that may be shown and has not changed since the ingest.

        Args:
            image_id: the image.
            files: those that contain it.

        Raises:
            OceanoError: `image_not_shown` if no file of it is below a folder that may be shown; `image_missing` if the
                files are gone or have changed.
        """
        shown = _shown(image_id, files)
        for file in shown:
            if opened := self._open(file, image_id):
                return opened
        raise _missing(image_id, shown)

    def require(self, image_id: str, files: Sequence[ImageFile]) -> None:
        """Check as `open` does, but only the sizes of the files: this takes a microsecond each and reads no content.

        Raises:
            OceanoError: as `open` does.
        """
        shown = _shown(image_id, files)
        if not any(_has_size(file) for file in shown):
            raise _missing(image_id, shown)

    def _open(self, file: ImageFile, image_id: str) -> OpenedFile | None:
        """Open a file if its content is the image; None if it is not."""
        try:
            handle = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would block
        except OSError:
            return None
        kept = False
        try:
            status = os.fstat(handle)
            real = os.path.realpath(f"/proc/self/fd/{handle}")  # what was really opened, whatever the path is now
            if not stat.S_ISREG(status.st_mode) or not self.may_show(real):
                return None
            if status.st_size != file.size:  # another content; hashing it could need any amount of memory
                return None
            if status.st_mtime_ns != file.mtime_ns and _digest(handle, status.st_size) != image_id:
                return None
            kind = sniff(os.pread(handle, SNIFF_BYTES, 0))
            kept = kind is not None
            return OpenedFile(handle, file.path, status, kind) if kind else None
        except OSError:
            return None
        finally:
            if not kept:
                os.close(handle)


def _shown(image_id: str, files: Sequence[ImageFile]) -> list[ImageFile]:
    if shown := [file for file in files if file.may_show]:
        return shown
    raise OceanoError(
        "image_not_shown",
        "this image is in no folder that may be shown; LIBRARY_ROOTS names these folders",
        details={"image_id": image_id},
    )


def _missing(image_id: str, shown: Sequence[ImageFile]) -> OceanoError:
    return OceanoError(
        "image_missing",
        f"the image was moved, changed or deleted since it was ingested; it was {shown[0].path}",
        details={"image_id": image_id, "path": shown[0].path},
    )


def _has_size(file: ImageFile) -> bool:
    try:
        status = os.stat(file.path)  # noqa: PTH116 - names in any encoding
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == file.size


def _digest(handle: int, size: int) -> str:
    """SHA-256 of an open file, read in parts."""
    digest = hashlib.sha256()
    for offset in range(0, size, _PART_BYTES):
        digest.update(os.pread(handle, _PART_BYTES, offset))
    return digest.hexdigest()
