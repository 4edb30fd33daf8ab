"""A collection's folder: the current shard, the key, sizes and copies.

faces__antelopev2__4ab1d643/
    current             the name of the current shard's folder; replaced atomically
    shard-1f0c52aa/     the shard
    build-…, backup-…, reader-…   temporary copies; after a kill, the next owner removes them
    new                 until a new collection has its shard
    owner.key  owner.lock  owner.sock  owner.json
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from app.core.errors import OceanoError
from app.core.files import sync, write_atomic
from app.core.locks import try_lock
from app.index.errors import unavailable

POINTER: Final = "current"
LOCK: Final = "owner.lock"
KEY: Final = "owner.key"
# Edge writes these files once, during a build, and only reads them afterwards, so a copy may use hard links.
# tests/index/embedded/test_maintenance.py deletes, names, inserts and builds, and compares the bytes.
_VECTORS: Final = "matrix.dat"
_FROZEN: Final = frozenset(
    {
        _VECTORS,
        "quantized.data",
        "links_compressed.bin",
        "links.bin",
        "graph.bin",
        "id_tracker.mappings",
        "point_to_values.bin",
        "values_to_points.bin",
        "data.bin",
    }
)
_FOLDERS: Final = ("shard-", "build-", "backup-", "reader-", "old-")
_FICLONE: Final = 0x40049409


def is_frozen(path: Path) -> bool:
    """Return whether Edge only reads a file; of payloads, only where the segment has a graph, see `built_segments`."""
    if path.name in _FROZEN:
        return True
    payloads = path.parent
    is_page = payloads.name == "payload_storage" and path.name.startswith("page_")
    return is_page and (payloads.parent / "vector_storage" / _VECTORS).exists()


def built_segments(shard: Path) -> list[tuple[Path, int]]:
    """Return the segments that a build has made, each with the bytes of its vectors; other segments take new points."""
    return [
        (path.parents[1], path.stat().st_size) for path in (shard / "segments").glob(f"*/vector_storage/{_VECTORS}")
    ]


def sync_tree(folder: Path) -> None:
    """Sync every file and folder below a folder to disk (fsync)."""
    _sync_all([Path(base, name) for base, _, names in os.walk(folder) for name in (*names, "")])


def sync_log(shard: Path) -> None:
    """Sync Edge's write-ahead log to disk; Edge writes it through a mapping, which fsync covers."""
    log = shard / "wal"
    _sync_all([*log.iterdir(), log])


def _sync_all(paths: list[Path]) -> None:
    """Sync in parallel: the file system's journal then needs fewer writes, 5 times faster for 100 files."""
    with ThreadPoolExecutor(min(16, len(paths))) as threads:
        list(threads.map(_sync, paths))


def _sync(path: Path) -> None:
    try:
        sync(path)
    except FileNotFoundError:
        if not path.parent.exists():
            raise
        # Edge deletes parts of its log that it no longer needs


def wait_until_left(folder: Path, seconds: float = 60.0) -> None:
    """Wait until no owner, worker or builder uses a collection's folder.

    Args:
        folder: the collection's folder.
        seconds: the timeout.

    Raises:
        OceanoError: `index_in_use` after the timeout.
    """
    deadline = time.monotonic() + seconds
    while (handle := try_lock(folder / LOCK)) is None:
        if time.monotonic() > deadline:
            raise OceanoError("index_in_use", f"A process is still using the index in {folder}.")
        time.sleep(0.05)
    os.close(handle)


def read_key(folder: Path, *, create: bool = False) -> bytes:
    """Read the key with which clients and owner authenticate, a file that only this user can read.

    Args:
        folder: the collection's folder.
        create: write a new, random key if there is none.

    Returns:
        32 bytes.

    Raises:
        OceanoError: `index_unavailable` if the key is missing or has another length.
    """
    path = folder / KEY
    if create and not path.exists():
        write_atomic(path, os.urandom(32), mode=0o600)
    key = path.read_bytes() if path.exists() else b""
    if len(key) != 32:
        raise unavailable(f"{path} is missing or damaged; remove it while nothing uses the index.")
    return key


def new_name(kind: str) -> str:
    """Return a unique folder name such as `shard-1f0c52aa`."""
    return f"{kind}-{uuid.uuid4().hex[:8]}"


def current_shard(folder: Path) -> Path | None:
    """Return the current shard.

    Args:
        folder: the collection's folder.

    Returns:
        The shard that `current` names; without that file, the only shard; None if the collection is new.

    Raises:
        OceanoError: `index_unavailable` if the named shard is missing, or if several shards exist and none is named.
    """
    shards = sorted(path for path in folder.glob("shard-*") if (path / "edge_config.json").is_file())
    pointer = folder / POINTER
    if pointer.exists():
        found = folder / pointer.read_text(encoding="utf-8").strip()
        if found.parent != folder or found not in shards:
            raise unavailable(f"{pointer} names {found.name}, which does not exist; restore the index from a backup")
        return found
    if len(shards) > 1:
        raise unavailable(f"{folder} holds {len(shards)} shards and no file {POINTER!r} that names the current one")
    return shards[0] if shards else None  # one without a pointer: its creation was interrupted


def set_current(shard: Path) -> None:
    """Make a shard the current one; atomic and durable."""
    write_atomic(shard.parent / POINTER, shard.name + "\n")


def remove_leftovers(folder: Path) -> None:
    """Remove temporary copies, old shards and temporary files of killed processes.

    The caller must hold the owner's lock.

    Raises:
        OceanoError: `index_unavailable`, see `current_shard`; nothing is removed then.
    """
    current = current_shard(folder)
    for path in folder.iterdir():
        if path != current and path.name.startswith(_FOLDERS) and path.is_dir():
            shutil.rmtree(path)
        elif path.name.startswith((".current.", ".owner.key.", "owner.key.")):
            path.unlink(missing_ok=True)


def disk_bytes(folder: Path) -> int:
    """Return the bytes that a folder occupies on disk; holes do not count, hard links count once."""
    sizes: dict[tuple[int, int], int] = {}
    for base, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found = Path(base, name).lstat()
                sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())


def copy_folder(source: Path, target: Path, *, link_frozen: bool) -> None:
    """Copy a folder whose files do not change meanwhile; shares blocks where the file system can, and keeps holes.

    The copy is not synced to disk.

    Args:
        source: a flushed shard, or a folder of one.
        target: a new folder.
        link_frozen: create hard links for files that Edge only reads.

    Raises:
        OSError: a file cannot be read or written.
    """
    for base, _, names in os.walk(source):
        folder = target / Path(base).relative_to(source)
        folder.mkdir(parents=True)
        for name in names:
            path = Path(base, name)
            if not path.is_file():  # the socket of a killed owner
                continue
            if not (link_frozen and is_frozen(path) and _link(path, folder / name)):
                _copy_file(path, folder / name)


def _link(source: Path, target: Path) -> bool:
    try:
        target.hardlink_to(source)
    except OSError:  # the file system does not support hard links
        return False
    return True


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as reading, target.open("xb") as writing:
        try:
            fcntl.ioctl(writing.fileno(), _FICLONE, reading.fileno())
        except OSError:  # the file system cannot share blocks
            _copy_data(reading.fileno(), writing.fileno())


def _copy_data(reading: int, writing: int) -> None:
    size = os.fstat(reading).st_size
    os.ftruncate(writing, size)
    position = 0
    while position < size:
        try:
            position = os.lseek(reading, position, os.SEEK_DATA)
        except OSError as failure:
            if failure.errno == errno.ENXIO:  # only a hole up to the end
                return
            raise
        end = os.lseek(reading, position, os.SEEK_HOLE)
        os.lseek(reading, position, os.SEEK_SET)
        os.lseek(writing, position, os.SEEK_SET)
        while position < end:
            sent = os.sendfile(writing, reading, position, min(end - position, 1 << 24))
            if not sent:
                return
            position += sent
