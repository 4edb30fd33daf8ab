"""One file from elsewhere: fetched over HTTP, going on where the last try stopped, verified, unzipped."""

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
Taken = TypeVar("Taken")

_MAX_BYTES: Final = 4 * 2**30  # of a file whose size is not known, and of what is unpacked from any zip
_CHUNK: Final = 128 * 1024
_TIMEOUT: Final = (10.0, 60.0)  # seconds to connect, seconds between two chunks
_ATTEMPTS: Final = 5
_WAIT: Final = tenacity.wait_exponential_jitter(initial=1, max=20)
# RuntimeError: encrypted, or a compression that zipfile does not know.
_ZIP_ERRORS: Final = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)

log = logging.getLogger(__name__)


def download(
    url: str,
    part: Path,
    take: Callable[[Path], Taken],
    *,
    size: int | None = None,
    progress: Progress | None = None,
    otherwise: str,
) -> Taken:
    """Complete `part`, remove it once `take` took what it wants from it, and return what that gave.

    What `take` refuses is set aside as `*.corrupt` and, where it was `model_corrupt`, fetched once more. On a full
    disk and a broken connection `part` waits for the next try. `size` in bytes where it is known; `progress` gets the
    bytes so far and in total (None: not told); `otherwise` says what else can be done where the download fails.
    Raises OceanoError `model_download_failed`, `disk_full`, and what `take` raises.
    """
    for last in (False, True):
        _complete(url, part, size, progress, otherwise)
        try:
            taken = take(part)
            break
        except OceanoError as failure:
            if failure.code == "disk_full":
                raise
            part.replace(part.with_suffix(".corrupt"))
            if failure.code != "model_corrupt" or last:
                raise
            log.warning("%s; set aside, fetching it once more", failure.message)
    part.unlink()
    part.with_suffix(".json").unlink(missing_ok=True)
    return taken


def verify(file: Path, size: int, sha256: str) -> None:
    """Compare `file` with what was published of it. Raises OceanoError `model_corrupt`."""
    found = file.stat().st_size
    if found > size:
        raise _unusable(file, f"it is too large, {found} bytes")
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if (found, digest) != (size, sha256):
        why = f"it has {found} bytes and SHA-256 {digest}, the published one {size} bytes and SHA-256 {sha256}"
        raise _unusable(file, why)


def unzip(archive: Path, folder: Path, patterns: Sequence[str]) -> None:
    """Write the members whose base names match one of `patterns` into `folder`, under those names.

    Links, and what points outside, are passed over. Raises OceanoError `model_corrupt`, `disk_full`.
    """
    size = archive.stat().st_size
    if size > _MAX_BYTES:
        raise _unusable(archive, f"it is too large, {size} bytes")
    try:
        with zipfile.ZipFile(archive) as opened:
            chosen = _members(opened, patterns)
            total = sum(member.file_size for member in chosen.values())
            if total > _MAX_BYTES:
                raise _unusable(archive, f"it unpacks to {total} bytes, {_MAX_BYTES} are allowed")
            with room(folder, lambda: total):
                for name, member in chosen.items():
                    _extract(opened, member, folder / name)
    except _ZIP_ERRORS as failure:
        raise _unusable(archive, f"it cannot be unpacked ({failure})") from failure
    except OSError as failure:
        if failure.errno not in (None, errno.EINVAL):  # these two are what zipfile says of some damage
            raise
        raise _unusable(archive, f"it cannot be unpacked ({failure})") from failure


# --- HTTP


class _TransientError(Exception):
    """Worth another try."""


_RETRIED: Final = (_TransientError, requests.ConnectionError, requests.Timeout, ChunkedEncodingError)


def _complete(url: str, part: Path, size: int | None, progress: Progress | None, otherwise: str) -> None:
    shown = f"{urlsplit(url).hostname}{urlsplit(url).path}"  # the rest may hold a password or a signature
    log.info("downloading %s", shown)
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_RETRIED),
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=_WAIT,
        before_sleep=lambda state: log.warning("%s: try %d of %d failed", shown, state.attempt_number, _ATTEMPTS),
        reraise=True,
    )
    try:
        retrying(_fetch, url, part, size, progress)
    except (_TransientError, requests.RequestException) as failure:
        raise OceanoError(
            "model_download_failed",
            f"{shown} cannot be downloaded ({_why(failure)}): try again, it goes on where it stopped, {otherwise}",
            details={"url": shown},
        ) from failure


def _why(failure: Exception) -> str:
    if isinstance(failure, _TransientError | requests.HTTPError):
        return str(failure)
    # What requests says holds the whole URL; the reason inside it does not.
    return f"{type(failure).__name__} {getattr(next(iter(failure.args), None), 'reason', '')}".strip()


def _fetch(url: str, part: Path, size: int | None, progress: Progress | None) -> None:
    """Ask once for what `part` still lacks."""
    key = hashlib.sha256(url.encode()).hexdigest()
    have, validator, total = _there_already(part, key)
    if have and have == total:
        return
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        start, total = _span(response)
        if start is None and have and have == total:
            return
        if start not in (0, have):
            part.unlink(missing_ok=True)
            raise _TransientError(f"the server would not go on at byte {have}")
        if not start:
            part.unlink(missing_ok=True)
            etag = response.headers.get("ETag", "W/")  # a weak one does not vouch for every byte
            validator = response.headers.get("Last-Modified", "") if etag.startswith("W/") else etag
            write_atomic(part.with_suffix(".json"), json.dumps({"url": key, "validator": validator, "total": total}))
        _append(response, part, total or size, size or _MAX_BYTES, progress)


def _there_already(part: Path, key: str) -> tuple[int, str, int | None]:
    """Bytes that can be gone on from, what the server called that version of the file, and its size if told."""
    try:
        side = json.loads(part.with_suffix(".json").read_bytes())
        if side["url"] == key and side["validator"]:
            return part.stat().st_size, str(side["validator"]), side["total"]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        pass
    return 0, "", None


def _span(response: requests.Response) -> tuple[int | None, int | None]:
    """The first byte this answer brings, None for none of use, and the size of the whole file, None if not told."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    if response.status_code in (206, 416):
        told = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)", response.headers.get("Content-Range", ""))
        first, total = told.groups() if told else (None, None)
        return int(first) if first else None, int(total) if total else None
    answer = f"the server answered {response.status_code} {response.reason}"
    if response.status_code in (408, 425, 429) or response.status_code >= 500:
        raise _TransientError(answer)
    raise requests.HTTPError(answer)


def _append(response: requests.Response, part: Path, total: int | None, most: int, progress: Progress | None) -> None:
    done = part.stat().st_size if part.exists() else 0
    with room(part.parent, lambda: (total or done) - done), part.open("ab") as file:
        for chunk in response.iter_content(_CHUNK):
            file.write(chunk)
            done += len(chunk)
            if progress:
                progress(done, total)
            if done > most:
                return  # not what was asked for: its size tells
    if total and done < total:
        raise _TransientError(f"the connection ended after {done} of {total} bytes")


# --- zips


def _members(opened: zipfile.ZipFile, patterns: Sequence[str]) -> dict[str, zipfile.ZipInfo]:
    """By base name, the first of each: some are published with a folder inside."""
    chosen: dict[str, zipfile.ZipInfo] = {}
    for member in opened.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        regular = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG) and not member.is_dir()
        inside = not path.is_absolute() and ".." not in path.parts
        if regular and inside and any(fnmatchcase(path.name, pattern) for pattern in patterns):
            chosen.setdefault(path.name, member)
    return chosen


def _extract(opened: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    with opened.open(member) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, _CHUNK)  # ends at file_size, whatever the member really holds
        target.flush()
        os.fsync(target.fileno())


def _unusable(file: Path, why: str) -> OceanoError:
    return OceanoError("model_corrupt", f"{file} is not what was wanted: {why}", details={"file": str(file)})


# --- the disk


@contextmanager
def room(folder: Path, needed: Callable[[], int]) -> Iterator[None]:
    """Turn a disk that is or becomes full into `disk_full`; `needed` tells the bytes still to be written."""
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
            f"{needed() or 'more'} bytes are needed in {folder}, {free} are free: make room and try again; "
            "what was downloaded is kept",
            details={"folder": str(folder), "needed_bytes": needed(), "free_bytes": free},
        ) from failure
