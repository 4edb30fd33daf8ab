"""Reader processes: copies of the worker that answer reads, so that more than one processor searches.

Edge holds Python's GIL in every call, so one worker answers one request at a time. When reads have to wait for each
other, readers start. A reader opens a copy of the shard: hard links for the files that Edge only reads, so they are on
the disk and in the system's cache once. Every write goes to the worker first and then to the readers before its reply
is sent, so every reply contains all writes before it. A reader holds nothing that the worker does not have: if it
fails, or a build replaces the shard, it is killed and its copy is removed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.core.errors import OceanoError
from app.core.files import free_bytes
from app.index.embedded.catch_up import CatchUp, Journal
from app.index.embedded.options import OwnerOptions
from app.index.embedded.protocol import Op, pack, read_reply
from app.index.embedded.storage import copy_folder, is_frozen, new_name
from app.index.embedded.supervisor import WorkerGone, WorkerProcess, WorkerSupervisor
from app.index.errors import unavailable

log = logging.getLogger("app.index.embedded.owner")

# Reads whose time grows with the number of faces; the others take milliseconds.
_LONG: Final = frozenset({Op.SEARCH_EXACT, Op.SCROLL, Op.COUNT, Op.FACET})
_LONG_WEIGHT: Final = 100  # short reads wait for a long one
_WAITING_READS: Final = 16  # start readers when so many had to wait within _WINDOW_SECONDS
_WINDOW_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 600.0
_AFTER_FAILURE_SECONDS: Final = 2.0  # doubled by each further failure
_MOST_AFTER_FAILURE_SECONDS: Final = 60.0
# Bytes that a copy cannot share with the shard: points outside the graph. Writes wait while they are copied.
_MAX_COPIED: Final = 1_000_000_000


class Readers:
    """Distributes reads over the worker and the readers. Safe for threads.

    Args:
        options: the owner's options; `readers` is the largest number of readers.
        supervisor: sends requests to the worker.
        write_lock: the lock that writes hold.
        lock: file descriptor of the owner's lock; the readers inherit it.
    """

    def __init__(
        self, options: OwnerOptions, supervisor: WorkerSupervisor, write_lock: threading.Lock, lock: int
    ) -> None:
        self._options = options
        self._supervisor = supervisor
        self._write_lock = write_lock
        self._lock = lock
        self._state = threading.Lock()
        self._long = threading.Lock()  # one long read at a time, so that another process is free for short ones
        self._readers: list[WorkerProcess] = []
        self._load: dict[WorkerProcess | None, int] = {None: 0}  # None: the worker
        self._journal: Journal | None = None
        self._starting: threading.Thread | None = None
        self._opening: WorkerProcess | None = None
        self._waited: list[float] = []
        self._last_wait = 0.0
        self._not_before = 0.0
        self._pause = _AFTER_FAILURE_SECONDS
        self._closed = False

    def call(self, op: Op, message: bytes) -> bytes:
        """Send a read to the process with the least to do, and return the packed reply.

        Raises:
            OceanoError: as `WorkerSupervisor.call` does.
        """
        in_turn = self._long if op in _LONG and self._readers else contextlib.nullcontext()
        with in_turn, self._least_loaded(_LONG_WEIGHT if op in _LONG else 1) as reader:
            if reader is not None:
                try:
                    return reader.call(message)
                except WorkerGone:
                    self._drop([reader], "it exited unexpectedly")
            return self._supervisor.call(message)

    def record(self, ids: bytes) -> None:
        """Record the ids of points that are about to be written, for readers that are starting.

        The caller must hold the write lock.
        """
        if self._journal is not None:
            self._journal.append(ids)

    def write(self, message: bytes, reply: bytes) -> None:
        """Repeat a write in the readers, after the worker has replied to it.

        The caller must hold the write lock.
        """
        if not self._readers:
            return
        try:
            read_reply(reply)
        except OceanoError:  # a part of the write may have been done
            self._drop(self._readers, "a write failed")
            return
        for reader in list(self._readers):
            try:
                read_reply(reader.call(message))
            except (WorkerGone, OceanoError) as failure:
                self._drop([reader], f"a write failed: {failure!r}")

    def replaced(self) -> None:
        """Stop all readers, because their shard is no longer the current one.

        The caller must hold the write lock. Reads that are running are repeated.
        """
        self._drop(self._readers, "the shard was replaced")

    def tend(self) -> None:
        """Stop readers that nobody needs; called about once a second."""
        if not self._supervisor.guard.intact:
            self._drop(self._readers, "the folder was deleted or replaced")
        elif time.monotonic() - self._last_wait > _IDLE_SECONDS:
            self._drop(self._readers, "no read has waited for a while")

    def close(self) -> None:
        """Stop all readers and start no more."""
        with self._state:
            self._closed = True
            starting, opening = self._starting, self._opening
        if opening is not None:
            opening.kill()  # it can take a while to open a large shard
        if starting is not None:
            starting.join()
        self._drop(self._readers, "the owner exits")

    @contextmanager
    def _least_loaded(self, weight: int) -> Iterator[WorkerProcess | None]:
        with self._state:
            choices: list[WorkerProcess | None] = [*self._readers, None]  # on a tie a reader: writes need the worker
            chosen = min(choices, key=lambda one: self._load.get(one, 0))
            waits = self._load.get(chosen, 0) > 0
            self._load[chosen] = self._load.get(chosen, 0) + weight
            if waits:
                self._note_wait()
        try:
            yield chosen
        finally:
            with self._state:
                if chosen in self._load:
                    self._load[chosen] -= weight

    def _note_wait(self) -> None:
        """Count a read that has to wait, and start a reader if many had to; the caller holds the state's lock."""
        now = self._last_wait = time.monotonic()
        self._waited = [*(one for one in self._waited if now - one < _WINDOW_SECONDS), now]
        idle = self._starting is None and not self._closed and len(self._readers) < self._options.readers
        if idle and len(self._waited) >= _WAITING_READS and now >= self._not_before:
            self._waited = []
            self._starting = threading.Thread(target=self._start, name="reader", daemon=True)
            self._starting.start()

    def _start(self) -> None:
        began = time.monotonic()
        copy = self._options.folder / new_name("reader")
        reader: WorkerProcess | None = None
        try:
            source, journal = self._copy(copy)
            reader = WorkerProcess(copy, self._options, self._lock, task="read")
            with self._state:
                if self._closed:
                    raise unavailable("The owner exits.")
                self._opening = reader
            reader.wait_ready()
            catch_up = CatchUp(journal, self._supervisor.call, reader.call)
            catch_up.follow()
            self._join(reader, source, catch_up)
            log.info("reader %s started in %.1f s", copy.name, time.monotonic() - began)
            self._pause = _AFTER_FAILURE_SECONDS
        except (OceanoError, OSError, WorkerGone) as failure:
            log.warning("no reader was started: %r", failure)
            self._not_before = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _MOST_AFTER_FAILURE_SECONDS)
            if reader is not None:
                reader.kill()
            shutil.rmtree(copy, ignore_errors=True)
        finally:
            with self._write_lock:
                left, self._journal = self._journal, None
            if left is not None:
                left.close()
            with self._state:
                self._starting = self._opening = None

    def _copy(self, copy: Path) -> tuple[Path, Journal]:
        """Copy the shard, unless that would take too long or too much space; return the shard and a new journal."""
        with self._write_lock:
            read_reply(self._supervisor.call(pack(Op.FLUSH)))
            source = self._supervisor.shard
            needed = _copied_bytes(source)
            if needed > _MAX_COPIED or needed > free_bytes(copy.parent) - 2 * self._options.min_free_mb * 1_000_000:
                raise unavailable(f"A reader would copy {needed // 1_000_000} MB.")
            copy_folder(source, copy, link_frozen=True)
            journal = self._journal = Journal(self._options.folder)
            return source, journal

    def _join(self, reader: WorkerProcess, source: Path, catch_up: CatchUp) -> None:
        """Let a reader answer requests, once it has all that was written."""
        with self._write_lock:
            if self._closed or self._supervisor.shard != source:
                raise unavailable("The owner exits, or a build has replaced the shard.")
            catch_up.finish()
            with self._state:
                self._readers.append(reader)
                self._load[reader] = 0

    def _drop(self, readers: list[WorkerProcess], reason: str) -> None:
        """Stop readers; a read that one of them is running is repeated by the worker."""
        with self._state:
            dropped = [one for one in list(readers) if one in self._readers]
            for reader in dropped:
                self._readers.remove(reader)
                self._load.pop(reader, None)
        for reader in dropped:
            log.info("reader %s stops: %s", reader.shard.name, reason)
            reader.kill()
            shutil.rmtree(reader.shard, ignore_errors=True)  # the next owner removes what is left


def _copied_bytes(shard: Path) -> int:
    """Bytes of the files that a copy does not share with the shard."""
    total = 0
    for base, _, names in os.walk(shard):
        for name in names:
            path = Path(base, name)
            if not is_frozen(path):
                with contextlib.suppress(FileNotFoundError):
                    total += path.lstat().st_blocks * 512
    return total
