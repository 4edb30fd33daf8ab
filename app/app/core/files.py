"""Atomic and durable writes of files, and free space on a disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path


def write_atomic(path: str | Path, content: bytes | str, *, durable: bool = True, mode: int = 0o666) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    The content goes to a temporary file in the same folder, `.NAME.PID-THREAD.tmp`, which is then renamed.

    Args:
        path: the file; its folder exists.
        content: text is written as UTF-8.
        durable: return only when the file and its name are on the disk (fsync).
        mode: permissions of the file, less the umask.

    Raises:
        OSError: the file cannot be written; the old one is unchanged and no temporary file is left.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}-{threading.get_ident()}.tmp")  # noqa: PTH118 - for speed
    rest = memoryview(content.encode() if isinstance(content, str) else content)
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            while rest:
                rest = rest[os.write(handle, rest) :]
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise
    if durable:
        sync(folder or ".")


def make_private(folder: Path) -> None:
    """Let only the owner into a folder, and only the owner read the files that are directly in it.

    Does nothing where the folder is missing, and skips what belongs to another user.
    """
    with contextlib.suppress(OSError):
        folder.chmod(0o700)
    with contextlib.suppress(OSError), os.scandir(folder) as listing:
        for entry in listing:
            if entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    os.chmod(entry.path, 0o600)  # noqa: PTH101


def sync(path: str | Path) -> None:
    """Put a file's content, or the names in a folder, on the disk (fsync).

    Raises:
        OSError: the path does not exist or the disk fails.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that holds a folder."""
    return shutil.disk_usage(folder).free
