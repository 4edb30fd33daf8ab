"""How far the running ingest is, for other processes: a line in a file that the ingest keeps locked.

The kernel releases the lock when the ingest ends in any way, so that the line of a killed one is not taken for that of
a running one.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Final

from app.core.errors import OceanoError
from app.core.locks import flock, is_locked

WRITE_SECONDS: Final = 2.0
COUNT_AFTER_SECONDS: Final = 3.0  # a short ingest lists its folder only once

_FILE: Final = "ingest.progress"
_LINE: Final = 64  # bytes; always as many, so that a line replaces the one before


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingest is.

    Attributes:
        finished: files that it is done with.
        total: files of its folder; None while they are counted.
    """

    finished: int
    total: int | None

    @property
    def percent(self) -> int | None:
        """Share of the files that are finished, 0 to 99, because settling them takes time, too; None: unknown."""
        return None if self.total is None else min(99, 100 * self.finished // max(1, self.total))


class SharedProgress:
    """Shares how far an ingest is, while the context is open; for the process that may write the ledger.

    If the file cannot be written, the ingest continues without it.

    Args:
        state_dir: the folder of the file.
        files: lists the files to count, in a thread; the ingest does not wait for their number.

    Attributes:
        total: number of files; None while they are counted.
    """

    def __init__(self, state_dir: Path, files: Callable[[], Iterable[object]]) -> None:
        self._path = state_dir / _FILE
        self._files = files
        self._handle: int | None = None
        self._ended = Event()
        self._written = -math.inf
        self.total: int | None = None

    def __enter__(self) -> SharedProgress:
        with suppress(OSError):
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            flock(self._handle, self._path, wait=True, code="ledger_unavailable")  # a reader holds it only for a moment
        self.update(0)
        Thread(target=self._count, name="count-files", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def update(self, finished: int) -> None:
        """Write how many files are finished, at most once in `WRITE_SECONDS`."""
        now = time.monotonic()
        if self._handle is None or now - self._written < WRITE_SECONDS:
            return
        self._written = now
        total = "" if self.total is None else str(self.total)
        with suppress(OSError):
            os.pwrite(self._handle, f"{finished} {total}".ljust(_LINE).encode("ascii"), 0)

    def end(self) -> None:
        """Report no more: the ingest is done with the files that it found."""
        self._ended.set()
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _count(self) -> None:
        if self._ended.wait(COUNT_AFTER_SECONDS):
            return
        total = 0
        with suppress(OceanoError):  # the ingest reports it, too
            for _ in self._files():
                total += 1
                if self._ended.is_set():
                    return
            self.total = total


def running_progress(state_dir: Path) -> Progress | None:
    """Return how far the ingest that runs now is; None if none runs."""
    path = state_dir / _FILE
    try:
        if not is_locked(path):
            return None
        finished, _, total = path.read_text("ascii").partition(" ")
        return Progress(int(finished), int(total) if total.strip() else None)
    except (OSError, ValueError):  # no ingest was ever started, or one is just starting or ending
        return None
