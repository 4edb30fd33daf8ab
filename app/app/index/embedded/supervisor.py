"""The owner's line to its worker: starts it, passes requests to it one at a time, replaces one that died."""

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
from app.index.embedded.options import OwnerOptions
from app.index.embedded.protocol import Op, pack, read_answer, unavailable
from app.index.embedded.storage import POINTER, point_to

log = logging.getLogger("app.index.embedded.owner")

# A worker that is silent for so long is taken for stuck: one request, and loading (which may replay a log).
CALL_SECONDS: Final = 300.0
LOAD_SECONDS: Final = 900.0
_FAILURE_SECONDS: Final = 2.0
_ATTEMPTS: Final = 3


class WorkerGone(Exception):
    """The worker ended before it answered."""


class Worker:
    """One worker process on one shard. It inherits the owner's lock, so nobody opens the folder before it is gone."""

    def __init__(self, shard: Path, options: OwnerOptions, lock: int) -> None:
        self.shard = shard
        self._turn = threading.Lock()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command("serve", options, shard, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), lock),
            )
        self._connection = Connection(ours.detach())

    def wait_ready(self) -> None:
        """Return when the shard is open. Raises what kept it from opening."""
        read_answer(self._receive(LOAD_SECONDS))

    def call(self, message: bytes) -> bytes:
        with self._turn:
            try:
                self._connection.send_bytes(message)
            except OSError as failure:
                raise WorkerGone from failure
            return self._receive(CALL_SECONDS)

    def close(self) -> None:
        """Let it finish, flush and end."""
        with contextlib.suppress(WorkerGone, OceanoError):
            read_answer(self.call(pack(Op.CLOSE)))
        with self._turn:
            self._connection.close()
        try:
            self._process.wait(CALL_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def ended_for_want_of_space(self) -> bool:
        """A write to a mapped file with no block behind it on a full disk ends a process by SIGBUS."""
        return self._process.wait() == -signal.SIGBUS

    def _receive(self, seconds: float) -> bytes:
        try:
            if not self._connection.poll(seconds):
                log.error("worker %d is silent for %.0f s and is killed", self._process.pid, seconds)
                self.kill()
            return self._connection.recv_bytes()
        except (EOFError, OSError) as failure:
            raise WorkerGone from failure


class WorkerSupervisor:
    """Where requests for the shard go, whichever worker holds it just now. Safe for threads."""

    def __init__(self, shard: Path, options: OwnerOptions, lock: int) -> None:
        self._options = options
        self._lock = lock
        self._change = threading.Lock()
        self._shard = shard
        self._worker: Worker | None = None
        self._failure: tuple[float, OceanoError] | None = None

    @property
    def shard(self) -> Path:
        return self._shard

    def call(self, message: bytes) -> bytes:
        """Ask the worker; one that dies over it is replaced, and the next one asked. Raises OceanoError."""
        for _ in range(_ATTEMPTS):
            worker = self.worker()
            try:
                return worker.call(message)
            except WorkerGone:
                self._forget(worker)
        raise unavailable(f"The index's worker ended {_ATTEMPTS} times over this request; see the owner's log.")

    def worker(self) -> Worker:
        """The worker, started if there is none. Raises what keeps the shard from opening."""
        with self._change:
            if self._worker is None:
                if self._failure and time.monotonic() - self._failure[0] < _FAILURE_SECONDS:
                    raise self._failure[1]
                self._worker = self._open(self._shard)
                if not (self._shard.parent / POINTER).exists():  # a new index
                    point_to(self._shard)
            return self._worker

    def open_beside(self, shard: Path) -> Worker:
        """A worker on another shard, for `replace`."""
        return self._open(shard)

    def replace(self, fresh: Worker) -> Worker | None:
        """From now on requests go to this worker. The old one is for the caller to close."""
        with self._change:
            old, self._worker, self._shard = self._worker, fresh, fresh.shard
            return old

    def close(self) -> None:
        with self._change:
            if self._worker is not None:
                self._worker.close()
                self._worker = None

    def _open(self, shard: Path) -> Worker:
        worker = Worker(shard, self._options, self._lock)
        try:
            worker.wait_ready()
        except WorkerGone:
            worker.kill()
            failure = unavailable(f"The index's worker ended while it opened {shard.name}; see the owner's log.")
        except OceanoError as raised:
            worker.kill()
            failure = raised
        else:
            self._failure = None
            return worker
        self._failure = (time.monotonic(), failure)
        raise failure

    def _forget(self, worker: Worker) -> None:
        """Take note that this worker is gone; nothing to note if it had been replaced on purpose."""
        with self._change:
            if self._worker is not worker:
                return
            self._worker = None
        worker.kill()
        log.error("worker of %s ended unasked", worker.shard.name)
        if worker.ended_for_want_of_space:
            raise OceanoError("disk_full", "The disk of the index is full; make room and try again.")


def command(task: str, options: OwnerOptions, shard: Path, number: int) -> list[str]:
    return [sys.executable, "-P", "-m", "app.index.embedded.worker", task, options.to_json(), str(shard), str(number)]
