"""A collection's folder: which shard is the current one, locks, whole-file writes, quick copies.

faces__antelopev2__4ab1d643/
    current             the name of the shard's folder that counts; replaced in one rename
    shard-1f0c52aa/     the shard
    build-…, backup-…   a copy in the making; left over only by a kill, removed by the next owner
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
from app.index.embedded.protocol import unavailable

POINTER: Final = "current"
# Written once, while a graph is built, and only read afterwards: a second name for the file is as good as a copy.
# (Checked: tests/index/test_maintenance.py deletes, names, inserts and builds, and compares the bytes.)
FROZEN: Final = frozenset({"matrix.dat", "quantized.data", "links_compressed.bin", "links.bin", "graph.bin"})
_FICLONE: Final = 0x40049409


def sync_tree(folder: Path) -> None:
    """Put every file below a folder on the disk, whoever wrote it and however."""
    _sync_all([Path(base, name) for base, _, names in os.walk(folder) for name in (*names, "")])


def sync_log(shard: Path) -> None:
    """Put Edge's write-ahead log on the disk; it is written through a mapping, which fsync covers."""
    log = shard / "wal"
    _sync_all([*log.iterdir(), log])


def _sync_all(paths: list[Path]) -> None:
    """All at once, for then a file system's journal takes them in a few writes: 5 times quicker for 100 files."""
    with ThreadPoolExecutor(min(16, len(paths))) as threads:
        list(threads.map(_sync, paths))


def _sync(path: Path) -> None:
    try:
        sync(path)
    except FileNotFoundError:
        if not path.parent.exists():
            raise
        # Edge drops parts of its log that it no longer needs


def wait_until_left(folder: Path, seconds: float = 60.0) -> None:
    """Until a collection's folder has neither owner nor worker: its files are quiet then.

    Raises OceanoError `index_in_use`.
    """
    until = time.monotonic() + seconds
    while (handle := try_lock(folder / "owner.lock")) is None:
        if time.monotonic() > until:
            raise OceanoError("index_in_use", f"A process does not leave the index in {folder}.")
        time.sleep(0.05)
    os.close(handle)


def read_key(folder: Path, *, make: bool = False) -> bytes:
    """The key beside the index, 32 random bytes in a file that only this user can read; the owner makes it.

    Raises OceanoError `index_unavailable`.
    """
    path = folder / "owner.key"
    if make and not path.exists():
        write_atomic(path, os.urandom(32), mode=0o600)
    key = path.read_bytes() if path.exists() else b""
    if len(key) != 32:
        raise unavailable(f"{path} is missing or damaged; remove it while nothing uses the index.")
    return key


def new_name(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:8]}"


def current_shard(folder: Path) -> Path | None:
    """The shard that counts, or None in a new collection. Raises OceanoError `index_unavailable` on a damaged one."""
    shards = sorted(path for path in folder.glob("shard-*") if (path / "edge_config.json").is_file())
    pointer = folder / POINTER
    if pointer.exists():
        found = folder / pointer.read_text(encoding="utf-8").strip()
        if found.parent != folder or found not in shards:
            raise unavailable(f"{pointer} names {found.name}, which is not there; restore the index from a backup")
        return found
    if len(shards) > 1:
        raise unavailable(f"{folder} holds {len(shards)} shards and no file {POINTER!r} that names the right one")
    return shards[0] if shards else None  # one alone: its creation was cut off before it was pointed to


def point_to(shard: Path) -> None:
    write_atomic(shard.parent / POINTER, shard.name + "\n")


def remove_leftovers(folder: Path) -> None:
    """Drop what a kill left behind: everything but the shard that is pointed to. Call with the owner's lock held."""
    keep = current_shard(folder)
    for path in folder.iterdir():
        if path != keep and path.name.startswith(("shard-", "build-", "backup-", "old-")) and path.is_dir():
            shutil.rmtree(path)
        elif path.name.startswith((".current.", ".owner.key.", "owner.key.")):
            path.unlink(missing_ok=True)


def disk_bytes(folder: Path) -> int:
    """Bytes on disk, holes not counted, a file with two names once."""
    sizes: dict[tuple[int, int], int] = {}
    for base, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found = Path(base, name).lstat()
                sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())


def copy_folder(source: Path, target: Path, *, link_frozen: bool) -> None:
    """Copy a quiet shard's folder: shared blocks where the file system can, holes kept. Not on the disk on return.

    With `link_frozen` the files that Edge only reads get a second name instead of a copy.
    """
    for base, _, names in os.walk(source):
        there = target / Path(base).relative_to(source)
        there.mkdir(parents=True)
        for name in names:
            path = Path(base, name)
            if not path.is_file():  # a socket that a killed owner left
                continue
            if not (link_frozen and name in FROZEN and _link(path, there / name)):
                _copy_file(path, there / name)


def _link(source: Path, target: Path) -> bool:
    try:
        target.hardlink_to(source)
    except OSError:  # the file system knows no second names
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
    at = 0
    while at < size:
        try:
            at = os.lseek(reading, at, os.SEEK_DATA)
        except OSError as failure:
            if failure.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        end = os.lseek(reading, at, os.SEEK_HOLE)
        os.lseek(reading, at, os.SEEK_SET)
        os.lseek(writing, at, os.SEEK_SET)
        while at < end:
            sent = os.sendfile(writing, reading, at, min(end - at, 1 << 24))
            if not sent:
                return
            at += sent
