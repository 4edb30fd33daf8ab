"""Checksums of a shard's files, so that damage on the disk is found instead of answered with wrong faces.

`checksums.json` in the shard's folder has two lists:

- `frozen`: files that Edge writes once, during a build (`storage.is_frozen`). They are recorded when the build ends.
- `closed`: all other files, recorded after a clean close. The list is removed before the shard is opened again, so
  that a killed process never leaves one behind. Of a large index, only the smaller files are recorded, because
  opening and closing must take less than a second.

Holes of sparse files count as zeros. Edge's log is left out; Edge has checksums for it.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from app.core.errors import OceanoError
from app.core.files import write_atomic
from app.index.embedded.storage import is_frozen, sync_tree
from app.index.errors import unavailable

log = logging.getLogger("app.index.embedded.owner")

CHECKSUMS: Final = "checksums.json"
OPENING_BYTES: Final = 256_000_000  # are read while a shard is opened or closed
FIRST_CHECK_SECONDS: Final = 60.0  # after the index was opened
CHECK_SECONDS: Final = 24 * 3600.0
CHECK_BYTES_PER_SECOND: Final = 50_000_000
_BLOCK: Final = 1 << 16  # bytes; zlib releases the GIL for blocks of this size

Sums = dict[str, list[int]]
"""Size in bytes and checksum of files, by their path relative to the shard."""


def require_undamaged(shard: Path) -> None:
    """Compare a shard with its checksums before it is opened, then remove the list of a closed shard.

    Raises:
        OceanoError: `index_unavailable` if a file was changed; the list stays, so that the next call fails, too.
        OSError: the list cannot be written.
    """
    sums = _read(shard)
    if damaged := _damaged(shard, sums["frozen"] | sums["closed"], limit=OPENING_BYTES):
        raise _error(shard, damaged)
    if sums["closed"]:
        _write(shard, sums["frozen"], {})


def record_closed(shard: Path) -> None:
    """Record the files of a shard that has just been closed; new frozen files are recorded for good.

    Raises:
        OSError: a file cannot be read, or the list cannot be written.
    """
    sync_tree(shard)
    known = _read(shard)["frozen"]
    frozen: Sums = {}
    closed: Sums = {}
    left = OPENING_BYTES
    for size, path in _files(shard):
        name = str(path.relative_to(shard))
        if is_frozen(path):
            frozen[name] = known.get(name) or [size, _checksum(path)]
        elif (left := left - _data_bytes(path)) >= 0:
            closed[name] = [size, _checksum(path)]
    _write(shard, frozen, closed)


def damaged_frozen_files(shard: Path, pause: Callable[[int], object] = lambda _: None) -> list[str]:
    """Read all frozen files and return those that were changed since the build.

    Args:
        shard: its folder.
        pause: called with the number of bytes after each part that was read; may raise an exception to end the check.
    """
    return _damaged(shard, _read(shard)["frozen"], pause=pause)


def require_frozen_files(shard: Path) -> None:
    """Raise OceanoError `index_unavailable` if a frozen file was changed since the build."""
    if damaged := damaged_frozen_files(shard):
        raise _error(shard, damaged)


class _StoppedError(Exception):
    """The check was stopped."""


class FrozenCheck:
    """Checks the frozen files of the current shard in the background: a minute after the start, then once a day.

    Args:
        shard: returns the current shard.
    """

    def __init__(self, shard: Callable[[], Path]) -> None:
        self._shard = shard
        self._stop = threading.Event()
        self.damaged: list[str] = []

    def start(self) -> None:
        """Start the check in a thread of its own."""
        threading.Thread(target=self._run, name="integrity", daemon=True).start()

    def close(self) -> None:
        """End the check."""
        self._stop.set()

    def _run(self) -> None:
        wait = FIRST_CHECK_SECONDS
        while not self._stop.wait(wait):
            wait = CHECK_SECONDS
            shard = self._shard()
            try:
                damaged = damaged_frozen_files(shard, self._pause)
            except _StoppedError:
                return
            except OSError as failure:
                log.warning("the files of %s could not be checked: %s", shard, failure)
                continue
            if shard.exists():  # not replaced meanwhile by that of a build
                self.damaged = damaged
            if self.damaged:
                log.error("%s", _error(shard, self.damaged).message)

    def _pause(self, size: int) -> None:
        if self._stop.wait(size / CHECK_BYTES_PER_SECOND):
            raise _StoppedError


def _error(shard: Path, damaged: list[str]) -> OceanoError:
    names = ", ".join(damaged[:3]) + (f" and {len(damaged) - 3} more" if len(damaged) > 3 else "")
    error = unavailable(
        f"Files of the index in {shard} were damaged on the disk: {names}. Restore a backup, or run "
        "`oceano doctor --fix`, which builds the index again from what can be read and from the pictures."
    )
    error.details["damaged"] = [*damaged[:100]]
    return error


def _damaged(
    shard: Path, sums: Sums, *, limit: int | None = None, pause: Callable[[int], object] = lambda _: None
) -> list[str]:
    """Return the files that differ, smaller files first; only sizes are compared beyond `limit` bytes."""
    damaged = []
    for name, (size, checksum) in sorted(sums.items(), key=lambda item: item[1][0]):
        path = shard / name
        try:
            differs = path.stat().st_size != size
            if not differs and (limit is None or (limit := limit - _data_bytes(path)) >= 0):
                differs = _checksum(path, pause) != checksum
        except FileNotFoundError:
            differs = True
        if differs:
            damaged.append(name)
    return damaged


def _files(shard: Path) -> list[tuple[int, Path]]:
    """Sizes and paths of the files with checksums, smaller ones first."""
    segments = (Path(base, name) for base, _, names in os.walk(shard / "segments") for name in names)
    return sorted((path.stat().st_size, path) for path in segments)


def _data_bytes(path: Path) -> int:
    status = path.stat()
    return min(status.st_size, status.st_blocks * 512)


def _checksum(path: Path, pause: Callable[[int], object] = lambda _: None) -> int:
    """CRC-32 of the blocks of a file that are not zero, with their positions; holes are not read."""
    checksum = position = 0
    with path.open("rb", buffering=0) as file:
        while (start := _next_data(file.fileno(), position)) is not None:
            position = start // _BLOCK * _BLOCK
            block = os.pread(file.fileno(), _BLOCK, position)
            if block.count(0) != len(block):
                checksum = zlib.crc32(block, zlib.crc32(position.to_bytes(8, "little"), checksum))
            position += _BLOCK
            pause(len(block))
    return checksum


def _next_data(handle: int, position: int) -> int | None:
    """Position of the next byte that is not in a hole; None if there is none."""
    try:
        return os.lseek(handle, position, os.SEEK_DATA)
    except OSError as failure:
        if failure.errno == errno.ENXIO:
            return None
        raise


def _read(shard: Path) -> dict[str, Sums]:
    """The lists; empty ones for a shard of an earlier version, or if the file was damaged."""
    try:
        found: Any = json.loads((shard / CHECKSUMS).read_text(encoding="utf-8"))
        return {
            kind: {str(name): [int(size), int(checksum)] for name, (size, checksum) in found[kind].items()}
            for kind in ("frozen", "closed")
        }
    except FileNotFoundError:
        return {"frozen": {}, "closed": {}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as failure:
        log.warning("%s cannot be read and is ignored: %s", shard / CHECKSUMS, failure)
        return {"frozen": {}, "closed": {}}


def _write(shard: Path, frozen: Sums, closed: Sums) -> None:
    write_atomic(shard / CHECKSUMS, json.dumps({"frozen": frozen, "closed": closed}), mode=0o600)
