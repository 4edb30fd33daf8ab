"""Downloads over HTTP that resume after an interruption, and the verification and unpacking of downloaded files."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import lzma
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar
from urllib.parse import urlsplit

import requests
import tenacity
from requests.exceptions import ChunkedEncodingError

from app.core.errors import OceanoError, is_full
from app.core.files import free_bytes, write_atomic

Progress = Callable[[int, int | None], None]
Result = TypeVar("Result")

_MAX_BYTES: Final = 4 * 2**30  # of a file of unknown size, and of the unpacked content of any zip
_CHUNK: Final = 128 * 1024
_TIMEOUT: Final = (10.0, 60.0)  # seconds to connect, seconds between two chunks
_ATTEMPTS: Final = 5
_WAIT: Final = tenacity.wait_exponential_jitter(initial=1, max=20)
# RuntimeError: encrypted, or a compression that zipfile does not support.
_ZIP_ERRORS: Final = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)

log = logging.getLogger(__name__)


def download(
    url: str,
    part: Path,
    use: Callable[[Path], Result],
    *,
    size: int | None = None,
    progress: Progress | None = None,
    alternatives: str,
) -> Result:
    """Download a file, or the rest of it, and pass it to a function.

    Args:
        url: the address of the file.
        part: where the file is downloaded to. It is kept if the connection breaks or the disk is full, so that the next
            call resumes, and removed after `use` has returned. If `use` raises another error than `disk_full`, it is
            renamed to `*.corrupt`; after `model_corrupt` it is downloaded once more.
        use: called with the complete file; checks it and copies what is needed.
        size: bytes of the file; None if unknown.
        progress: called with the bytes so far and the total, None if the server does not report it.
        alternatives: what the user can do if the download fails; a part of the error message.

    Returns:
        The result of `use`.

    Raises:
        OceanoError: `model_download_failed`, `disk_full`, and the errors of `use`.
    """
    for last_attempt in (False, True):
        _complete(url, part, size, progress, alternatives)
        try:
            result = use(part)
            break
        except OceanoError as failure:
            if failure.code == "disk_full":
                raise
            corrupt = part.with_suffix(".corrupt")
            part.replace(corrupt)
            if failure.code != "model_corrupt" or last_attempt:
                raise
            log.warning("%s; renamed it to %s, downloading it again", failure.message, corrupt.name)
    part.unlink()
    part.with_suffix(".json").unlink(missing_ok=True)
    return result


def verify(file: Path, size: int, sha256: str) -> None:
    """Compare a file with its published size and hash.

    Args:
        file: the file.
        size: the published size in bytes.
        sha256: the published SHA-256, hex.

    Raises:
        OceanoError: `model_corrupt` if they differ.
    """
    found = file.stat().st_size
    if found > size:
        raise _corrupt(file, f"it is too large, {found} bytes")
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if (found, digest) != (size, sha256):
        reason = f"it has {found} bytes and SHA-256 {digest}, the published file {size} bytes and SHA-256 {sha256}"
        raise _corrupt(file, reason)


def unzip(archive: Path, folder: Path, patterns: Sequence[str]) -> None:
    """Unpack the files of a zip whose base names match a pattern, without their folders.

    Links, and members whose path is absolute or contains `..`, are skipped. Of several members with the same base name,
    the first is unpacked.

    Args:
        archive: the zip.
        folder: an existing folder for the files.
        patterns: of the base names, as in `fnmatch`.

    Raises:
        OceanoError: `model_corrupt` if the zip is damaged, encrypted or too large; `disk_full`.
    """
    size = archive.stat().st_size
    if size > _MAX_BYTES:
        raise _corrupt(archive, f"it is too large, {size} bytes")
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _members(opened, patterns)
            total = sum(member.file_size for member in members.values())
            if total > _MAX_BYTES:
                raise _corrupt(archive, f"it unpacks to {total} bytes, at most {_MAX_BYTES} are allowed")
            with require_free_space(folder, lambda: total):
                for name, member in members.items():
                    _extract(opened, member, folder / name)
    except _ZIP_ERRORS as failure:
        raise _corrupt(archive, f"it cannot be unpacked ({failure})") from failure
    except OSError as failure:
        if failure.errno not in (None, errno.EINVAL):  # zipfile raises these two for some damaged zips
            raise
        raise _corrupt(archive, f"it cannot be unpacked ({failure})") from failure


# --- HTTP


class _TransientError(Exception):
    """An error after which a retry may succeed."""


_RETRIED: Final = (_TransientError, requests.ConnectionError, requests.Timeout, ChunkedEncodingError)


def _complete(url: str, part: Path, size: int | None, progress: Progress | None, alternatives: str) -> None:
    """Download what `part` lacks, with retries."""
    address = f"{urlsplit(url).hostname}{urlsplit(url).path}"  # the rest may contain a password or a signature
    log.info("downloading %s", address)
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_RETRIED),
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=_WAIT,
        before_sleep=lambda state: log.warning("%s: attempt %d of %d failed", address, state.attempt_number, _ATTEMPTS),
        reraise=True,
    )
    try:
        retrying(_fetch, url, part, size, progress)
    except (_TransientError, requests.RequestException) as failure:
        raise OceanoError(
            "model_download_failed",
            f"{address} cannot be downloaded ({_reason(failure)}): try again to resume the download, or {alternatives}",
            details={"url": address},
        ) from failure


def _reason(failure: Exception) -> str:
    if isinstance(failure, _TransientError | requests.HTTPError):
        return str(failure)
    # The message of requests contains the whole URL; the reason inside does not.
    return f"{type(failure).__name__} {getattr(next(iter(failure.args), None), 'reason', '')}".strip()


def _fetch(url: str, part: Path, size: int | None, progress: Progress | None) -> None:
    """Send one request for what `part` lacks."""
    url_hash = hashlib.sha256(url.encode()).hexdigest()
    present, validator, total = _resume_state(part, url_hash)
    if present and present == total:
        return
    headers = {"Accept-Encoding": "identity"}
    if present:
        headers |= {"Range": f"bytes={present}-", "If-Range": validator}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        start, total = _content_range(response)
        if start is None and present and present == total:
            return
        if start not in (0, present):
            part.unlink(missing_ok=True)
            raise _TransientError(f"the server did not resume at byte {present}")
        if not start:
            part.unlink(missing_ok=True)
            etag = response.headers.get("ETag", "W/")  # a weak ETag does not promise identical bytes
            validator = response.headers.get("Last-Modified", "") if etag.startswith("W/") else etag
            state = {"url": url_hash, "validator": validator, "total": total}
            write_atomic(part.with_suffix(".json"), json.dumps(state))
        _append(response, part, total or size, size or _MAX_BYTES, progress)


def _resume_state(part: Path, url_hash: str) -> tuple[int, str, int | None]:
    """The bytes that are present, the server's validator of that version, and the total size or None.

    0 bytes if `part` is of another URL or cannot be resumed.
    """
    try:
        state = json.loads(part.with_suffix(".json").read_bytes())
        if state["url"] == url_hash and state["validator"]:
            return part.stat().st_size, str(state["validator"]), state["total"]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        pass
    return 0, "", None


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """The first byte of the response, None if it has no usable content, and the total size, None if not reported."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    if response.status_code in (206, 416):
        header = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)", header)
        first, total = match.groups() if match else (None, None)
        return int(first) if first else None, int(total) if total else None
    message = f"the server responded with {response.status_code} {response.reason}"
    if response.status_code in (408, 425, 429) or response.status_code >= 500:
        raise _TransientError(message)
    raise requests.HTTPError(message)


def _append(
    response: requests.Response, part: Path, total: int | None, max_bytes: int, progress: Progress | None
) -> None:
    done = part.stat().st_size if part.exists() else 0
    with require_free_space(part.parent, lambda: (total or done) - done), part.open("ab") as file:
        for chunk in response.iter_content(_CHUNK):
            file.write(chunk)
            done += len(chunk)
            if progress:
                progress(done, total)
            if done > max_bytes:
                return  # `verify` and `unzip` reject the file by its size
    if total and done < total:
        raise _TransientError(f"the connection ended after {done} of {total} bytes")


# --- zips


def _members(opened: zipfile.ZipFile, patterns: Sequence[str]) -> dict[str, zipfile.ZipInfo]:
    """The members to unpack by base name, because some zips are published with a folder inside."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in opened.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        is_regular = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG) and not member.is_dir()
        is_inside = not path.is_absolute() and ".." not in path.parts
        if is_regular and is_inside and any(fnmatchcase(path.name, pattern) for pattern in patterns):
            members.setdefault(path.name, member)
    return members


def _extract(opened: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    with opened.open(member) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, _CHUNK)  # zipfile stops at `file_size`, even if the member has more data
        target.flush()
        os.fsync(target.fileno())


def _corrupt(file: Path, reason: str) -> OceanoError:
    return OceanoError("model_corrupt", f"{file} cannot be used: {reason}", details={"file": str(file)})


# --- the disk


@contextmanager
def require_free_space(folder: Path, needed: Callable[[], int]) -> Iterator[None]:
    """Raise `disk_full` if the disk has too little free space at the start or becomes full during the block.

    Args:
        folder: a folder on the disk.
        needed: returns the bytes that are still to be written; 0 if unknown.

    Raises:
        OceanoError: `disk_full`, with the needed and the free bytes.
    """
    try:
        if free_bytes(folder) < needed():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield
    except OSError as failure:
        if not is_full(failure):
            raise
        free = free_bytes(folder)
        raise OceanoError(
            "disk_full",
            f"{needed() or 'more'} bytes are needed in {folder}, {free} are free: free some space and try again; "
            "the downloaded data is kept",
            details={"folder": str(folder), "needed_bytes": needed(), "free_bytes": free},
        ) from failure
