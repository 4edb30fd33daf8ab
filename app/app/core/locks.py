"""Locks between processes: an exclusive `flock` on a file, released when the holder closes it or exits."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)


def try_lock(path: Path) -> int | None:
    """Lock a file without waiting.

    Args:
        path: the file; created if missing.

    Returns:
        A file descriptor that holds the lock until it is closed; None if another process or descriptor holds it.

    Raises:
        OSError: the file cannot be opened, or its file system has no locks.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as failure:
        os.close(handle)
        if failure.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    return handle


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on a file; wait for it if necessary.

    Args:
        path: the file; created if missing.

    Raises:
        OSError: the file cannot be opened, or its file system has no locks.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process to release %s", path)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
