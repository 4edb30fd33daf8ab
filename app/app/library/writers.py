"""Whether another process has a file open for writing."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import time
from collections.abc import Iterator
from typing import Final

_REFRESH_SECONDS: Final = 1.0


class Writers:
    """The processes of this machine that have files open for writing.

    The system tells by refusing a read lease, which needs a file of our own user (or CAP_LEASE) on a file system with
    leases. For other files, the file descriptors of the processes in /proc count, as far as we may read them. Processes
    on another machine are never seen.
    """

    def __init__(self) -> None:
        self._open: set[tuple[int, int]] = set()
        self._read_at: float | None = None

    def have_open(self, path: str) -> bool:
        """Return whether a process is known to have a file open for writing; False if it cannot be opened."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if (refused := _refuses_lease(handle)) is not None:
                return refused
            status = os.fstat(handle)
        finally:
            os.close(handle)
        return (status.st_dev, status.st_ino) in self._open_files()

    def _open_files(self) -> set[tuple[int, int]]:
        now = time.monotonic()
        if self._read_at is None or now - self._read_at >= _REFRESH_SECONDS:
            self._open = set(_files_open_for_writing())
            self._read_at = time.monotonic()
        return self._open


def _refuses_lease(handle: int) -> bool | None:
    """Return whether an open file has a writer; None if it has no leases for us."""
    try:
        # A process that opens the file for writing breaks the lease. The default signal for that, SIGIO, would end us;
        # SIGURG is ignored by default.
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as failure:
        return True if failure.errno == errno.EAGAIN else None
    with contextlib.suppress(OSError):  # broken meanwhile
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)  # until then, a process that opens it for writing waits
    return False


def _files_open_for_writing() -> Iterator[tuple[int, int]]:
    """Yield device and inode of the regular files that other processes have open for writing."""
    own = str(os.getpid())
    for process in os.listdir("/proc"):  # noqa: PTH208
        if not process.isdecimal() or process == own:
            continue
        with contextlib.suppress(OSError), os.scandir(f"/proc/{process}/fd") as handles:
            for handle in handles:
                with contextlib.suppress(OSError):
                    if handle.stat(follow_symlinks=False).st_mode & stat.S_IWUSR:
                        status = handle.stat()
                        if stat.S_ISREG(status.st_mode):
                            yield status.st_dev, status.st_ino
