"""Files become pictures, or the record that says why not."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from app.core.errors import OceanoError
from app.core.paths import readable
from app.core.types import Picture
from app.images import decode, image_id_of
from app.library.ledger import FileRecord, Ledger, Status
from app.library.scan import File, contents, file_at

_log = logging.getLogger(__name__)

# What may be better next time without the file having changed: tried again at every run.
PASSING: Final = frozenset({"unreadable", "vanished", "changed_while_read"})
# What no file is to blame for.
_FATAL: Final = frozenset({"ledger_unavailable", "disk_full", "thumbs_unavailable", "folder_unavailable"})


@dataclass(frozen=True, slots=True)
class Read:
    """A file as it was read: an image's bytes, or the record that says all, or (neither) nothing of ours."""

    file: File
    image_id: str = ""
    data: bytes = b""
    record: FileRecord | None = None


class Reader:
    """Reads files that the ledger does not know. Safe to call from several threads.

    Args:
        max_pixels: a picture with more is `failed`, before it is decoded.
        enough: pixels of a picture's longer side that are enough to begin with, see `images.decode`.
        retry: read failed and no-face files again, too.
        on_missing: asked when a file is not there any more, or does not answer; raises if no file is to blame.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        max_pixels: int,
        enough: int | None,
        retry: bool,
        on_missing: Callable[[OSError], None] = lambda _: None,
    ) -> None:
        self._ledger = ledger
        self._max_pixels = max_pixels
        self._enough = enough
        self._retry = retry
        self._on_missing = on_missing

    def settled(self, file: File) -> FileRecord | None:
        """The record of a file that has not changed since and need not be read again."""
        known = self._ledger.file(file.path)
        if known is None or (known.size, known.mtime_ns) != (file.size, file.mtime_ns):
            return None
        again = known.reason in PASSING or (self._retry and known.status in ("failed", "no_face"))
        if known.status == "duplicate" and self._ledger.image(str(known.image_id)) is None:
            again = True  # what it is a copy of was forgotten
        return None if again else known

    def read(self, file: File) -> Read:
        """One file. Whatever is wrong with it becomes its record; raises OceanoError for what it is not to blame.

        A file that changed since it was listed is looked at once more.
        """
        try:
            file, data = self._contents(file)
            if data is None:
                return Read(file)
            image_id = image_id_of(data)
            if (known := self.known(file, image_id)) is not None:
                return Read(file, image_id, record=known)
            return Read(file, image_id, data)
        except OSError as failure:
            self._on_missing(failure)
            reason = "vanished" if failure.errno == errno.ENOENT else "unreadable"
            return Read(file, record=failed(file, None, reason, failure.strerror or str(failure)))
        except Exception as failure:  # noqa: BLE001 - one file never ends the run
            return Read(file, record=blamed(file, None, failure))

    def _contents(self, file: File) -> tuple[File, bytes | None]:
        try:
            return file, contents(file)
        except OceanoError as failure:
            now = file_at(file.path)
            if failure.code != "changed_while_read" or now is None:
                raise
            return now, contents(now)

    def decode(self, read: Read) -> Picture | FileRecord:
        """The picture, or the record that says why there is none."""
        try:
            return decode(read.data, max_pixels=self._max_pixels, image_id=read.image_id, enough=self._enough)
        except Exception as failure:  # noqa: BLE001 - one file never ends the run
            return blamed(read.file, read.image_id, failure)

    def known(self, file: File, image_id: str) -> FileRecord | None:
        """What to record of a file whose picture is in the ledger already; None if there is work to do."""
        known = self._ledger.image(image_id)
        if known is None or (self._retry and known.status == "no_face"):
            return None
        if known.path == file.path:  # only its time changed
            return replace(known, size=file.size, mtime_ns=file.mtime_ns)
        return record(file, "duplicate", image_id)


def record(
    file: File,
    status: Status,
    image_id: str | None,
    reason: str | None = None,
    message: str | None = None,
    faces: int = 0,
) -> FileRecord:
    """A file's result."""
    return FileRecord(file.path, file.size, file.mtime_ns, image_id, status, faces, reason, message)


def failed(file: File, image_id: str | None, reason: str, message: str) -> FileRecord:
    """The result of a file that could not be taken up; `reason` is an error code."""
    return record(file, "failed", image_id, reason, message)


def blamed(file: File, image_id: str | None, failure: Exception) -> FileRecord:
    """The result of a file over which something failed. Raises `failure` again if no file is to blame for it."""
    if isinstance(failure, OceanoError):
        if failure.code in _FATAL:
            raise failure
        return failed(file, image_id, failure.code, failure.message)
    _log.error("%s", readable(file.path), exc_info=failure)
    return failed(file, image_id, "internal", repr(failure))


def copy_of(first: FileRecord, file: File) -> FileRecord:
    """A copy shares the outcome of the first: of a failed picture it failed, too."""
    if first.status == "failed":
        return failed(file, first.image_id, str(first.reason), str(first.message))
    return record(file, "duplicate", first.image_id)
