"""Atomic and durable writes of files, who may read them, and free space on a disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PRIVATE: Final = 0o077


@dataclass(slots=True)
class _Umask:
    """The umask of the user, while that of the process is another one; else None."""

    of_user: int | None = None


_umask: Final = _Umask()


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


def keep_new_files_private() -> None:
    """Let only the owner read the files that this process makes from now on; `for_user` makes exceptions."""
    before = os.umask(_PRIVATE)
    if _umask.of_user is None:
        _umask.of_user = before


def restore_umask() -> None:
    """Undo `keep_new_files_private`."""
    if _umask.of_user is not None:
        os.umask(_umask.of_user)
        _umask.of_user = None


def for_user(file: int | Path, mode: int = 0o666) -> None:
    """Give a new file the permissions that the user's own umask leaves: the user asked for it, such as an export.

    Does nothing on a file system without permissions.

    Args:
        file: an open file, or the path of a file or folder.
        mode: permissions, less the umask; 0o777 for a folder.
    """
    umask = _umask.of_user
    if umask is None:
        umask = os.umask(_PRIVATE)
        os.umask(umask)
    with contextlib.suppress(OSError):
        special = os.stat(file).st_mode & 0o7000  # noqa: PTH116 - such as the group that a folder hands on
        os.chmod(file, special | mode & ~umask)  # noqa: PTH101 - of an open file, too


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
