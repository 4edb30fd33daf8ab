"""Reads and decodes files; a file that fails gets a ledger record with the reason."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.catalog import FileRecord, Ledger, Status
from app.core.errors import OceanoError
from app.core.paths import readable
from app.core.types import File, Picture
from app.images import DecoderPool, image_id_of
from app.library.presence import may_exist
from app.library.scan import contents, file_at

_log = logging.getLogger(__name__)

# Reasons of failures that may pass without a change of the file; such files are read again in every run.
TEMPORARY_REASONS: Final = frozenset({"unreadable", "vanished", "changed_while_read"})
PATH_TOO_LONG: Final = "path_too_long"  # the reason of a failure that the ledger cannot record
# Parts of the message of a record, which tell which pages of the file were read.
_FURTHER_PAGES_UNREAD: Final = "only the first of its"
_FURTHER_PAGES_READ: Final = "pages of"
# Errors that no single file causes; they end the run.
_FATAL: Final = frozenset(
    {"ledger_unavailable", "disk_full", "thumbs_unavailable", "folder_unavailable", "ingest_in_progress"}
)


@dataclass(frozen=True, slots=True)
class ReadResult:
    """A file after reading: `data` if the image is to be processed, or else the `record` for the ledger.

    Both are empty for a file that is not a picture, and if the image is `reserved`: another worker processes it.
    """

    file: File
    image_id: str = ""
    data: bytes = b""
    record: FileRecord | None = None
    reserved: bool = False


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A file that is unchanged since an earlier ingest.

    Attributes:
        record: the result of the earlier ingest.
        original: for a copy, the record of the file that represents the image.
    """

    record: FileRecord
    original: FileRecord | None = None

    def lost_original(self) -> bool:
        """Return whether it is the copy of an image whose representative file is missing."""
        return self.original is not None and not may_exist(self.original.path)


class Reader:
    """Reads the files of an ingest and decodes them. Safe to call from several threads.

    Args:
        ledger: the results of earlier ingests.
        decoders: decode the pictures.
        max_pixels: a picture with more pixels is `failed`, before it is decoded.
        min_decoded_side: as for `images.decode`.
        retry: also read files again that failed or had no face.
        all_pages: also read files again of which only the first page was read.
        on_missing: called with the error of a file that cannot be read; it raises if the whole folder is unavailable.
    """

    def __init__(
        self,
        ledger: Ledger,
        decoders: DecoderPool,
        *,
        max_pixels: int,
        min_decoded_side: int | None,
        retry: bool,
        all_pages: bool = False,
        on_missing: Callable[[OSError], None] = lambda _: None,
    ) -> None:
        self._ledger = ledger
        self._decoders = decoders
        self._max_pixels = max_pixels
        self._min_decoded_side = min_decoded_side
        self._retry = retry
        self._all_pages = all_pages
        self._on_missing = on_missing

    def unchanged(self, files: Sequence[File]) -> list[Unchanged | None]:
        """Return for each file what an earlier ingest recorded if it is unchanged since then; None: it must be read."""
        found = self._ledger.files_at([file.path for file in files])
        records = [self._if_unchanged(file, found.get(file.path)) for file in files]
        copies = {str(one.image_id) for one in records if one is not None and one.status == "duplicate"}
        originals = self._ledger.originals(sorted(copies))
        return [None if one is None else _with_original(one, originals) for one in records]

    def read(self, file: File) -> ReadResult:
        """Read a file; if it fails, the result is its record. A file that changed since it was listed is read again.

        Raises:
            OceanoError: an error that the file does not cause, such as `ledger_unavailable` or `folder_unavailable`.
        """
        if len(os.fsencode(file.path)) > self._ledger.database.longest_path:
            message = f"the catalog has no place for paths of more than {self._ledger.database.longest_path} bytes"
            return ReadResult(file, record=failed_record(file, None, PATH_TOO_LONG, message))
        try:
            return self._read(*self._contents(file))
        except OSError as failure:
            self._on_missing(failure)
            reason = "vanished" if failure.errno == errno.ENOENT else "unreadable"
            return ReadResult(file, record=failed_record(file, None, reason, failure.strerror or str(failure)))
        except Exception as failure:  # noqa: BLE001 - one file never ends the run
            return ReadResult(file, record=failure_record(file, None, failure))

    def _read(self, file: File, data: bytes | None) -> ReadResult:
        if data is None:
            return ReadResult(file)
        image_id = image_id_of(data)
        if not self._ledger.reserve(image_id):
            return ReadResult(file, image_id, reserved=True)
        if (known := self._record_of_known_image(file, image_id)) is not None:
            return ReadResult(file, image_id, record=known)
        return ReadResult(file, image_id, data)

    def decode(self, read: ReadResult, page: int = 0) -> Picture | FileRecord:
        """Decode the image of a file.

        Args:
            read: the file.
            page: number of the page, from 0.

        Returns:
            The image, or the file's `failed` record.
        """
        try:
            picture = self._decoders.decode(
                read.data,
                max_pixels=self._max_pixels,
                image_id=read.image_id,
                min_decoded_side=self._min_decoded_side,
                page=page,
                name=readable(read.file.path),
            )
            if page == 0 and picture.frames > 1 and not (self._all_pages and picture.pages > 1):
                pages = "pages" if picture.pages > 1 else "frames"
                _log.info("%s: only the first of its %d %s is read", readable(read.file.path), picture.frames, pages)
            return picture
        except Exception as failure:  # noqa: BLE001 - one file never ends the run
            return failure_record(read.file, read.image_id, failure)

    def _if_unchanged(self, file: File, earlier: FileRecord | None) -> FileRecord | None:
        """Return the earlier record of a file if it is still right.

        Programs that edit a picture can set its earlier size and mtime again, but not its ctime.
        """
        if earlier is None or (earlier.size, earlier.mtime_ns) != (file.size, file.mtime_ns):
            return None
        if earlier.ctime_ns not in (None, file.ctime_ns) or earlier.reason in TEMPORARY_REASONS:
            return None
        retry = (self._retry and earlier.status in ("failed", "no_face")) or self._lacks_pages(earlier)
        return None if retry else earlier

    def _lacks_pages(self, record: FileRecord) -> bool:
        """Return whether to read further pages of a file of which an earlier ingest read only the first."""
        return self._all_pages and has_unread_pages(record)

    def _contents(self, file: File) -> tuple[File, bytes | None]:
        try:
            return file, contents(file)
        except OceanoError as failure:
            changed = file_at(file.path)
            if failure.code != "changed_while_read" or changed is None:
                raise
            return changed, contents(changed)

    def _record_of_known_image(self, file: File, image_id: str) -> FileRecord | None:
        """The new record of a file whose image is in the ledger; None if the image must be processed."""
        known = self._ledger.image(image_id)
        if known is None or (self._retry and known.status == "no_face"):
            return None
        if known.path == file.path and self._lacks_pages(known):
            return None
        if known.path == file.path:  # only its times changed
            return replace(known, size=file.size, mtime_ns=file.mtime_ns, ctime_ns=file.ctime_ns)
        return file_record(file, "duplicate", image_id)


def _with_original(record: FileRecord, originals: Mapping[str, FileRecord]) -> Unchanged | None:
    """Add the original to the record of a copy; None if it was removed, so that the copy must be read."""
    if record.status != "duplicate":
        return Unchanged(record)
    original = originals.get(str(record.image_id))
    return None if original is None else Unchanged(record, original)


def first_page_message(pages: int) -> str:
    """Return the message of a file with further pages that are not read."""
    return f"{_FURTHER_PAGES_UNREAD} {pages} pages is read"


def has_unread_pages(record: FileRecord) -> bool:
    """Return whether a file has further pages that were not read because the ingest reads only first pages."""
    return _FURTHER_PAGES_UNREAD in (record.message or "")


def has_read_pages(record: FileRecord) -> bool:
    """Return whether further pages of a file were read."""
    return _FURTHER_PAGES_READ in (record.message or "")


def all_pages_message(read: int, pages: int) -> str:
    """Return the message of a file whose further pages were read, less those that failed."""
    return f"{read} {_FURTHER_PAGES_READ} {pages} are read"


def file_record(
    file: File,
    status: Status,
    image_id: str | None,
    reason: str | None = None,
    message: str | None = None,
    faces: int = 0,
) -> FileRecord:
    """Return the ledger record of a file."""
    return FileRecord(file.path, file.size, file.mtime_ns, image_id, status, faces, reason, message, file.ctime_ns)


def failed_record(file: File, image_id: str | None, reason: str, message: str) -> FileRecord:
    """Return the `failed` record of a file; `reason` is an error code or one of `TEMPORARY_REASONS`."""
    return file_record(file, "failed", image_id, reason, message)


def failure_record(file: File, image_id: str | None, failure: Exception) -> FileRecord:
    """Return the `failed` record of a file that caused an exception.

    Raises:
        OceanoError: `failure` itself, if it is an error that no single file causes.
    """
    if isinstance(failure, OceanoError):
        if failure.code in _FATAL:
            raise failure
        return failed_record(file, image_id, failure.code, failure.message)
    _log.error("%s", readable(file.path), exc_info=failure)
    return failed_record(file, image_id, "internal", repr(failure))


def duplicate_record(original: FileRecord, file: File) -> FileRecord:
    """Return the record of a copy: `duplicate`, or `failed` if the original failed."""
    if original.status == "failed":
        return failed_record(file, original.image_id, str(original.reason), str(original.message))
    return file_record(file, "duplicate", original.image_id)
