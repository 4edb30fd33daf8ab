"""The owner's worker processes: start, send requests one at a time, restart after a crash."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from app.core.errors import OceanoError
from app.index.embedded.folder_guard import FolderGuard, mark_complete, require_collection
from app.index.embedded.options import OwnerOptions
from app.index.embedded.protocol import Op, pack, read_reply
from app.index.embedded.storage import POINTER, set_current
from app.index.errors import storage_failure, unavailable

log = logging.getLogger("app.index.embedded.owner")

# Timeouts of one request and of loading a shard (which may replay a log); a worker that exceeds one is killed.
CALL_SECONDS: Final = 300.0
LOAD_SECONDS: Final = 900.0
_START_FAILURE_SECONDS: Final = 2.0  # after a failed start, requests fail with the same error for this time
_ATTEMPTS: Final = 3


class WorkerGone(Exception):
    """The worker exited before it replied."""


class WorkerStuck(WorkerGone):
    """The worker did not reply in time and was killed."""


class WorkerProcess:
    """A worker process with one shard open.

    The process inherits the owner's lock, so no other owner can start before it exits.

    Args:
        shard: the shard's folder.
        options: the owner's options.
        lock: file descriptor of the owner's lock.
        task: `serve`, or `read` for a copy that is only read from and brought up to date.
    """

    def __init__(self, shard: Path, options: OwnerOptions, lock: int, *, task: str = "serve") -> None:
        self.shard = shard
        self._request_lock = threading.Lock()
        own_end, worker_end = socket.socketpair()
        with worker_end:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command(task, options, shard, worker_end.fileno()),
                stdin=subprocess.DEVNULL,
                pass_fds=(worker_end.fileno(), lock),
            )
        self._connection = Connection(own_end.detach())

    def wait_ready(self) -> None:
        """Wait until the shard is open.

        Raises:
            OceanoError: the error that the worker reports.
            WorkerGone: the worker exited.
            WorkerStuck: it did not open the shard within LOAD_SECONDS.
        """
        read_reply(self._receive(LOAD_SECONDS))

    def call(self, message: bytes) -> bytes:
        """Send a packed request and return the packed reply.

        Raises:
            WorkerGone: the worker exited.
            WorkerStuck: it did not reply within CALL_SECONDS.
        """
        with self._request_lock:
            try:
                self._connection.send_bytes(message)
            except OSError as failure:
                raise WorkerGone from failure
            return self._receive(CALL_SECONDS)

    def close(self) -> None:
        """Let the worker finish its request, flush and exit; kill it after CALL_SECONDS."""
        with contextlib.suppress(WorkerGone, OceanoError):
            read_reply(self.call(pack(Op.CLOSE)))
        with self._request_lock:
            self._connection.close()
        try:
            self._process.wait(CALL_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the process and wait for its exit."""
        self._process.kill()
        self._process.wait()

    @property
    def killed_by_full_disk(self) -> bool:
        """Whether SIGBUS ended the process: on a full disk, a write to a mapped page without a block raises it."""
        return self._process.wait() == -signal.SIGBUS

    def _receive(self, seconds: float) -> bytes:
        try:
            if not self._connection.poll(seconds):
                log.error("worker %d did not reply within %.0f s and is killed", self._process.pid, seconds)
                self.kill()
                raise WorkerStuck
            return self._connection.recv_bytes()
        except (EOFError, OSError) as failure:
            raise WorkerGone from failure


class WorkerSupervisor:
    """Sends requests for the shard to the current worker and restarts a worker that crashed. Safe for threads.

    `guard` notices when the collection's folder is deleted, renamed or replaced; no request runs then.

    Args:
        shard: the folder of the current shard, or of the shard to create.
        options: the owner's options.
        lock: file descriptor of the owner's lock.
    """

    def __init__(self, shard: Path, options: OwnerOptions, lock: int) -> None:
        self.guard = FolderGuard(options.folder)
        self._options = options
        self._lock = lock
        self._change = threading.Lock()
        self._shard = shard
        self._worker: WorkerProcess | None = None
        self._failure: tuple[float, OceanoError] | None = None

    @property
    def shard(self) -> Path:
        """The folder of the shard that the current worker serves."""
        return self._shard

    def call(self, message: bytes) -> bytes:
        """Send a packed request to the worker and return the packed reply.

        A request during which the worker crashes is repeated with a new worker, three attempts in all.

        Raises:
            OceanoError: `index_unavailable` after the last attempt, `disk_full`, or see `worker`.
        """
        for _ in range(_ATTEMPTS):
            self.guard.require()
            worker = self.worker()
            try:
                return worker.call(message)
            except WorkerGone:
                self._discard(worker)
        raise unavailable(f"The index worker crashed {_ATTEMPTS} times while handling this request; see the index log.")

    def worker(self) -> WorkerProcess:
        """Return the current worker; start one if there is none.

        Raises:
            OceanoError: the shard cannot be opened, or its folder was deleted or replaced.
        """
        with self._change:
            if self._worker is None:
                if self._failure and time.monotonic() - self._failure[0] < _START_FAILURE_SECONDS:
                    raise self._failure[1]
                self.guard.require()
                try:
                    self._worker = self._open_current()
                except OceanoError as failure:
                    self._failure = (time.monotonic(), failure)
                    raise
                self._failure = None
            return self._worker

    def kill_if_replaced(self) -> bool:
        """Kill the worker if the folder was deleted, renamed or replaced, before it writes into another folder.

        If the folder is put back, the next request starts a worker, which reads the log: no write is lost.

        Returns:
            Whether a worker was killed.
        """
        # While a worker opens the shard, `_change` is held for minutes; the next check kills it then.
        if self._worker is None or self.guard.intact or not self._change.acquire(blocking=False):
            return False
        try:
            worker, self._worker = self._worker, None
        finally:
            self._change.release()
        if worker is not None:
            worker.kill()
        return worker is not None

    def start_worker(self, shard: Path) -> WorkerProcess:
        """Start a worker with another shard, to be passed to `replace`.

        Raises:
            OceanoError: the shard cannot be opened.
        """
        return self._start(shard)

    def replace(self, worker: WorkerProcess) -> WorkerProcess | None:
        """Send all further requests to `worker`.

        Returns:
            The previous worker, if any; the caller closes it.
        """
        with self._change:
            previous, self._worker, self._shard = self._worker, worker, worker.shard
            return previous

    def close(self) -> None:
        """Close the current worker, if any; kill it if the folder was deleted, renamed or replaced."""
        with self._change:
            worker, self._worker = self._worker, None
            if worker is not None:
                worker.close() if self.guard.intact else worker.kill()

    def _open_current(self) -> WorkerProcess:
        """Start a worker with the current shard; only a new index may lack it."""
        folder = self._shard.parent
        require_collection(folder, self._shard)
        worker = self._start(self._shard)
        try:
            if not (folder / POINTER).exists():
                set_current(self._shard)
            mark_complete(folder)
        except OSError as failure:
            worker.kill()
            raise storage_failure(failure, f"The index in {folder} cannot be written") from failure
        return worker

    def _start(self, shard: Path) -> WorkerProcess:
        """Start a worker and wait until it has opened the shard; start another if it exits without an error."""
        for _ in range(_ATTEMPTS):
            worker = WorkerProcess(shard, self._options, self._lock)
            try:
                worker.wait_ready()
            except WorkerStuck:
                raise unavailable(
                    f"The index worker did not open {shard.name} within {LOAD_SECONDS:.0f} s; see the index log."
                ) from None
            except WorkerGone:
                worker.kill()
                log.error("the worker exited unexpectedly while opening %s", shard.name)
                _require_disk_space(worker)
            except OceanoError:
                worker.kill()
                raise
            else:
                return worker
        raise unavailable(f"The index worker crashed {_ATTEMPTS} times while opening {shard.name}; see the index log.")

    def _discard(self, worker: WorkerProcess) -> None:
        """Drop a worker that crashed, unless it has been replaced already."""
        with self._change:
            if self._worker is not worker:
                return
            self._worker = None
        worker.kill()
        log.error("the worker of %s exited unexpectedly", worker.shard.name)
        _require_disk_space(worker)


def _require_disk_space(worker: WorkerProcess) -> None:
    """Raise `disk_full` if a full disk ended the worker."""
    if worker.killed_by_full_disk:
        raise OceanoError("disk_full", "The disk of the index is full. Free some space and try again.")


def command(task: str, options: OwnerOptions, shard: Path, number: int) -> list[str]:
    """Return the command line of a worker or builder.

    Args:
        task: `serve`, `read` or `build`.
        options: the owner's options.
        shard: the folder to open.
        number: for `serve` and `read` the file descriptor of the socket, for `build` the owner's process id.
    """
    return [sys.executable, "-P", "-m", "app.index.embedded.worker", task, options.to_json(), str(shard), str(number)]
