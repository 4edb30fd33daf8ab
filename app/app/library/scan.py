"""Folders of pictures: which files they contain, as a stream, and the contents of a file."""

from __future__ import annotations

import errno
import fnmatch
import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from app.core.errors import OceanoError
from app.core.paths import absolute, readable
from app.core.types import File
from app.images import SNIFF_BYTES, sniff
from app.library.raw_pairs import RawPairs, is_raw_name
from app.library.system_files import is_system_file, is_system_folder

_log = logging.getLogger(__name__)

MAX_FILE_BYTES: Final = 512_000_000
_PICTURE_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif", ".avif"}
)
# Errors of a disconnected network drive or device, which no single file or folder causes.
_DISCONNECTED_ERRORS: Final = frozenset(
    {errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO}
)


def _compile(patterns: Sequence[str]) -> list[re.Pattern[str]]:
    return [re.compile(fnmatch.translate(pattern.rstrip("/")), re.IGNORECASE) for pattern in patterns]


def _matches(patterns: list[re.Pattern[str]], relative: str) -> bool:
    return any(one.match(relative) or one.match(relative.rpartition("/")[2]) for one in patterns)


class PathFilter:
    """Selection of files in a folder by shell patterns (`*.jpg`, `2024/*`); case is ignored.

    A pattern matches a file's name or its path relative to the folder; `*` also matches slashes.

    Args:
        include: a file must match one of these patterns, if there are any.
        exclude: files and folders that match one of these patterns are left out; such folders are not listed.
        system: also take folders and files that systems make (`library.system_files`).
        raw_pairs: also take raw files beside a JPEG or HEIC of the same name.
    """

    def __init__(
        self,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        *,
        system: bool = False,
        raw_pairs: bool = False,
    ) -> None:
        self._include = _compile(include)
        self._exclude = _compile(exclude)
        self._system = system
        self._raw_pairs = raw_pairs

    def includes_file(self, relative: str) -> bool:
        """Return whether to ingest the file with this path relative to the folder."""
        return (not self._include or _matches(self._include, relative)) and self.includes_folder(relative)

    def includes_folder(self, relative: str) -> bool:
        """Return whether to list the subfolder with this path relative to the folder."""
        return not _matches(self._exclude, relative)

    def skips_system_folder(self, path: str) -> bool:
        """Return whether a subfolder is left out because a system made it."""
        return not self._system and is_system_folder(path)

    def skips_system_file(self, path: str) -> bool:
        """Return whether a file is left out because a system made it or has not finished it."""
        return not self._system and is_system_file(path)

    def may_skip_raw(self, path: str) -> bool:
        """Return whether a file is left out if a JPEG or HEIC of the same name is beside it."""
        return not self._raw_pairs and is_raw_name(path)


EVERYTHING: Final = PathFilter()


class Folder:
    """A folder of pictures that may be disconnected at any time, such as a network drive or a USB stick.

    `path` is absolute; `unlisted` counts the subfolders that scans could not list. `system_folders`, `system_files` and
    `linked_folders` are the paths that scans left out: made by a system, or links to folders. `raw_pairs` are the raw
    files that scans left out, and the JPEG or HEIC beside each.

    Args:
        path: an existing folder, or a file: then the folder is the file's, and scans yield only the file.

    Raises:
        OceanoError: `folder_unavailable`.
    """

    def __init__(self, path: Path) -> None:
        given = absolute(path)
        self._only = None if os.path.isdir(given) or not os.path.isfile(given) else given  # noqa: PTH112, PTH113
        self.path = given if self._only is None else os.path.dirname(given)  # noqa: PTH120
        self._original_identity = self._identity()
        self.unlisted = 0
        self.system_folders: set[str] = set()
        self.system_files: set[str] = set()
        self.linked_folders: set[str] = set()
        self.raw_pairs: dict[str, str] = {}
        self._pairs: tuple[PathFilter, RawPairs] | None = None

    @property
    def is_file(self) -> bool:
        """Whether a single file was given instead of a folder."""
        return self._only is not None

    def scan(self, wanted: PathFilter = EVERYTHING, start: str | None = None) -> Iterator[File]:
        """Yield the regular files at or below the folder; the files of a folder come before its subfolders.

        Links to files are followed. Links to folders are not: they could lead back to a parent, out of the folders that
        REST may ingest, or to a drive whose disconnection would look like deleted files. A subfolder that cannot be
        listed is logged and counted in `unlisted`.

        Args:
            wanted: the files to yield.
            start: list only this subfolder (an absolute path).

        Raises:
            OceanoError: `folder_unavailable`.
        """
        if self._only is not None:
            yield from filter(None, [file_at(self._only)])
            return
        pending = [start or self.path]
        while pending:
            current = pending.pop()
            subfolders: list[str] = []
            try:
                with os.scandir(current) as listing:
                    for entry in listing:
                        if entry.is_dir(follow_symlinks=False):
                            subfolders += [entry.path] if self.lists(entry.path, wanted) else []
                        elif (file := self.file(entry.path, wanted)) is not None:
                            yield file
                        elif entry.is_symlink() and os.path.isdir(entry.path) and self.lists(entry.path, wanted):  # noqa: PTH112 - never raises
                            self.linked_folders.add(entry.path)
            except OSError as failure:
                self.require(failure)
                self.unlisted += 1
                _log.error("cannot list %s: %s", readable(current), failure.strerror)
            pending += sorted(subfolders, reverse=True)
        self.require()  # a listing does not fail when the drive is disconnected: its files would look deleted

    def lists(self, path: str, wanted: PathFilter) -> bool:
        """Return whether a scan lists this subfolder; note it if a system made it."""
        if not wanted.includes_folder(self.relative(path)):
            return False
        if wanted.skips_system_folder(path):
            self.system_folders.add(path)
            return False
        return True

    def file(self, path: str, wanted: PathFilter) -> File | None:
        """Return the regular file at this path if a scan yields it; note it if it is left out."""
        if not wanted.includes_file(self.relative(path)):
            return None
        if wanted.skips_system_file(path):
            self.system_files.add(path)
            return None
        file = file_at(path)
        if file is not None and wanted.may_skip_raw(path) and (partner := self._raw_partner(path, wanted)):
            self.raw_pairs[path] = partner
            return None
        self.raw_pairs.pop(path, None)
        return file

    def _raw_partner(self, path: str, wanted: PathFilter) -> str | None:
        """Return the JPEG or HEIC beside a raw file, if a scan yields it."""
        if self._pairs is None or self._pairs[0] is not wanted:
            self._pairs = (wanted, RawPairs(lambda path: self._takes(path, wanted)))
        return self._pairs[1].partner(path)

    def _takes(self, path: str, wanted: PathFilter) -> bool:
        return wanted.includes_file(self.relative(path)) and not wanted.skips_system_file(path)

    def require(self, failure: OSError | None = None) -> None:
        """Check that the folder is still available and has not been replaced.

        Args:
            failure: an error of a file in the folder, which may be caused by a disconnected drive.

        Raises:
            OceanoError: `folder_unavailable`.
        """
        disconnected = failure is not None and failure.errno in _DISCONNECTED_ERRORS
        if disconnected or self._identity() != self._original_identity:
            raise _unavailable(self.path, failure)

    def _identity(self) -> tuple[int, int]:
        """Device and inode; they change when a drive is unmounted, even if an empty folder remains at the path."""
        try:
            status = os.stat(self.path)  # noqa: PTH116
            with os.scandir(self.path):
                return status.st_dev, status.st_ino
        except OSError as failure:
            raise _unavailable(self.path, failure) from failure

    def relative(self, path: str) -> str:
        """Return an absolute path of this folder relative to it."""
        return path[len(self.path) :].lstrip("/")


def file_at(path: str) -> File | None:
    """Return the regular file at a path; None if there is none, or if it is a resource fork of macOS (`._NAME`)."""
    if os.path.basename(path).startswith("._"):  # noqa: PTH119
        return None
    try:
        status = os.stat(path)  # noqa: PTH116 - faster than Path, for millions of files
    except OSError:
        return None  # a dangling link, or deleted since it was listed
    if not stat.S_ISREG(status.st_mode):
        return None
    return File(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _open_nonblocking(path: str, flags: int) -> int:
    """Open without blocking: the file may have been replaced by a pipe since it was listed."""
    return os.open(path, flags | os.O_NONBLOCK)


def contents(file: File) -> bytes | None:
    """Read a picture.

    Returns:
        The file's bytes; None if neither its content nor its name is that of a picture.

    Raises:
        OSError: the file cannot be read.
        OceanoError: `unsupported_image` or `invalid_image` if only the name is that of a picture, `image_too_large`,
            `changed_while_read`.
    """
    with open(file.path, "rb", opener=_open_nonblocking) as opened:
        head = opened.read(SNIFF_BYTES)
        if sniff(head) is None:
            if Path(file.path).suffix.lower() not in _PICTURE_SUFFIXES:
                return None
            if not head:
                raise OceanoError("invalid_image", "the file is empty")
            raise OceanoError("unsupported_image", "the content is not an image of a supported format")
        if file.size > MAX_FILE_BYTES:
            raise OceanoError(
                "image_too_large",
                f"the file has {file.size / 1e6:.0f} MB; at most {MAX_FILE_BYTES / 1e6:.0f} MB are accepted",
            )
        data = head + opened.read(max(1, file.size - len(head) + 1))  # one more byte shows that it grew
        status = os.fstat(opened.fileno())
    if (len(data), status.st_mtime_ns) != (file.size, file.mtime_ns):
        raise OceanoError("changed_while_read", "the file changed while it was read; the next ingest reads it again")
    return data


def _unavailable(path: str, failure: OSError | None) -> OceanoError:
    problem = f"unavailable ({failure.strerror})" if failure is not None else "unavailable or has been replaced"
    forbidden = failure is not None and failure.errno == errno.EACCES
    advice = f"User {os.getuid()} may not read it." if forbidden else "Is the drive connected?"
    return OceanoError(
        "folder_unavailable",
        f"Folder {readable(path)} is {problem}. {advice} Files ingested so far are kept.",
        details={"folder": readable(path)},
    )
