"""Locks between processes: an exclusive `flock` on a file, released when the holder closes it or exits."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from app.core.errors import ErrorCode, OceanoError

_UNSUPPORTED: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})

log = logging.getLogger(__name__)


def flock(handle: int, path: Path, *, wait: bool, code: ErrorCode = "index_unavailable") -> None:
    """Lock an open file.

    Args:
        handle: its descriptor.
        path: its path, for the message.
        wait: wait for another holder.
        code: of the error if the file system has no locks.

    Raises:
        BlockingIOError: another descriptor holds the lock, and `wait` is False.
        OceanoError: `code` if the file system has no locks.
        OSError: the lock cannot be taken for another reason.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as failure:
        if failure.errno not in _UNSUPPORTED:
            raise
        raise OceanoError(
            code,
            f"{path.parent} is on a file system without locks ({failure.strerror}), so two processes could damage the "
            "data. Set DATA_DIR to a local disk, or mount the drive with locks",
            details={"path": str(path)},
        ) from failure


def try_lock(path: Path) -> int | None:
    """Lock a file without waiting.

    Args:
        path: the file; created if missing.

    Returns:
        A file descriptor that holds the lock until it is closed; None if another process or descriptor holds it.

    Raises:
        OSError: the file cannot be opened.
        OceanoError: `index_unavailable` if the file system has no locks.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        flock(handle, path, wait=False)
    except (OSError, OceanoError) as failure:
        os.close(handle)
        if isinstance(failure, OSError) and failure.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    return handle


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock on a file; several may ask at a time.

    Raises:
        OSError: the file is missing or cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@contextlib.contextmanager
def locked(path: Path, *, required: bool = True) -> Iterator[None]:
    """Hold the lock on a file; wait for it if necessary.

    Args:
        path: the file; created if missing.
        required: if False, work without a lock where the file system has none.

    Raises:
        OSError: the file cannot be opened.
        OceanoError: `index_unavailable` if the file system has no locks and `required` is True.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            flock(handle, path, wait=False)
        except BlockingIOError:
            log.info("waiting for another process to release %s", path)
            flock(handle, path, wait=True)
        except OceanoError:
            if required:
                raise
            log.warning("%s cannot be locked: its file system has no locks", path)
        yield
    finally:
        os.close(handle)
