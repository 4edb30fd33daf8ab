"""The process that owns a collection: `python -m app.index.embedded.owner OPTIONS`.

It serves any number of clients on a Unix socket, runs their writes one at a time, and forwards what needs the shard to
its worker. It exits `linger_s` seconds after its last client disconnects; on SIGTERM it flushes and exits. It holds the
lock `owner.lock` until it exits, so there is at most one owner; its worker and builder inherit the lock.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from app.core.errors import OceanoError
from app.core.files import write_atomic
from app.core.locks import try_lock
from app.index.embedded.handler import RequestHandler
from app.index.embedded.options import OwnerOptions
from app.index.embedded.protocol import PROTOCOL, accept_client, error_reply, socket_paths
from app.index.embedded.storage import LOCK, current_shard, new_name, read_key, remove_leftovers
from app.index.embedded.supervisor import WorkerSupervisor
from app.index.errors import storage_failure, unavailable

log = logging.getLogger("app.index.embedded.owner")

_BACKLOG: Final = 512
_FIRST_CLIENT_SECONDS: Final = 10.0
_LOCK_SECONDS: Final = 2.0
_CHECK_SECONDS: Final = 1.0  # how often the owner looks whether the folder is still its own


def main(arguments: list[str]) -> int:
    """Run an owner until its last client has disconnected.

    Args:
        arguments: the options as JSON.

    Returns:
        The exit code: 0, also if another owner is running; 3 if the owner cannot start, with the reason in
        `owner.json`.
    """
    options = OwnerOptions.from_json(arguments[0])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    lock = _take_lock(options.folder)
    if lock is None:
        return 0  # another owner started first
    try:
        owner = Owner(options, lock)
    except (OceanoError, OSError) as failure:
        error = failure
        if isinstance(error, OSError):
            error = storage_failure(error, f"The index in {options.folder} cannot be opened")
        log.error("%s", error)
        with contextlib.suppress(OSError):
            write_atomic(
                options.folder / "owner.json", json.dumps({"error": [error.code, error.message]}), durable=False
            )
        return 3
    owner.run()
    return 0


def _take_lock(folder: Path) -> int | None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while (lock := try_lock(folder / LOCK)) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return lock


class Owner:
    """Listens on the socket, counts the clients and decides when to exit.

    Args:
        options: the options of the client that starts the owner.
        lock: file descriptor of the held lock.

    Raises:
        OceanoError: `index_unavailable` if the collection is damaged or no socket can be created.
        OSError: a file cannot be read, written or removed.
    """

    def __init__(self, options: OwnerOptions, lock: int) -> None:
        self._options = options
        folder = options.folder
        self._key = read_key(folder, create=True)
        remove_leftovers(folder)
        self._listener, self._path = _listen(folder)
        shard = current_shard(folder) or folder / new_name("shard")
        self._supervisor = WorkerSupervisor(shard, options, lock)
        self._handler = RequestHandler(options, self._supervisor, lock)
        self._clients = 0
        self._last_change = time.monotonic() + _FIRST_CLIENT_SECONDS
        self._count_lock = threading.Lock()
        self._wake_reading, self._wake_writing = socket.socketpair()
        self._wake_writing.setblocking(False)
        self._stopping = False

    def run(self) -> None:
        """Serve clients until the last one has disconnected or a signal arrives, then flush."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        threading.Thread(target=self._open, daemon=True).start()
        try:
            info = {
                "protocol": PROTOCOL,
                "pid": os.getpid(),
                "socket": str(self._path),
                "embedding_size": self._options.embedding_size,
                "folder": self._options.folder.stat().st_ino,
            }
            write_atomic(self._options.folder / "owner.json", json.dumps(info), durable=False)
            log.info("owner %d of %s listens on %s", os.getpid(), self._options.folder, self._path)
            self._accept_clients(self._listener)
        finally:
            self._listener.close()
            if self._supervisor.guard.intact:  # otherwise these files may be another owner's
                self._path.unlink(missing_ok=True)
                (self._options.folder / "owner.json").unlink(missing_ok=True)
            self._handler.close()
            log.info("owner %d exits", os.getpid())

    def _open(self) -> None:
        """Open the shard while the first client connects."""
        with contextlib.suppress(OceanoError):  # each client gets the error in the reply to its request
            self._handler.open()

    def _accept_clients(self, listener: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(self._wake_reading, selectors.EVENT_READ)
            while not self._stopping and (timeout := self._timeout()) > 0:
                for event, _ in selector.select(min(timeout, _CHECK_SECONDS)):
                    if event.fileobj is listener:
                        self._accept(listener)
                    else:
                        self._wake_reading.recv(4096)
                if self._supervisor.kill_if_replaced():
                    log.error("%s was deleted or replaced; requests fail until it is back", self._options.folder)
                self._handler.tend()

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError as failure:  # the client has disconnected, or no file descriptor is free
            log.warning("a connection was not accepted: %s", failure)
            time.sleep(0.05)
            return
        sock.setblocking(True)
        threading.Thread(target=self._serve_connection, args=(sock,), daemon=True).start()

    def _timeout(self) -> float:
        """Return the seconds to wait for another client; 0 or less when the owner should exit."""
        with self._count_lock:
            if self._clients:
                return 3600.0
            return self._last_change + self._options.linger_s - time.monotonic()

    def _serve_connection(self, sock: socket.socket) -> None:
        """Authenticate a client, then handle its requests until it disconnects."""
        try:
            connection = accept_client(sock, self._key)
        except (AuthenticationError, EOFError, OSError) as failure:
            log.warning("a connection was rejected: %s", type(failure).__name__)
            return
        self._change_clients(1)
        try:
            with connection, contextlib.suppress(EOFError, ConnectionError):
                self._handle_requests(connection)
        finally:
            self._change_clients(-1)

    def _handle_requests(self, connection: Connection) -> None:
        while True:
            message = connection.recv_bytes()
            try:
                reply = self._handler.handle(message)
            except OceanoError as failure:
                reply = error_reply(failure)
            except Exception as failure:  # an error in one request must not affect others
                log.exception("a request failed")
                reply = error_reply(unavailable(f"The index process failed: {type(failure).__name__}: {failure}"))
            connection.send_bytes(reply)

    def _change_clients(self, change: int) -> None:
        with self._count_lock:
            self._clients += change
            self._last_change = time.monotonic()
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_writing.send(b"x")

    def _stop(self, *_: object) -> None:
        self._stopping = True
        self._wake()


def _listen(folder: Path) -> tuple[socket.socket, Path]:
    """Listen on the first path that works, with access for this user only; replaces the socket of a killed owner."""
    failures = []
    for path in socket_paths(folder):
        listener = socket.socket(socket.AF_UNIX)
        previous_umask = os.umask(0o177)
        try:
            path.unlink(missing_ok=True)
            listener.bind(str(path))
        except OSError as failure:  # some mounted file systems do not support sockets
            listener.close()
            failures.append(f"{path}: {failure.strerror}")
        else:
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            return listener, path
        finally:
            os.umask(previous_umask)
    raise unavailable(f"No socket for the index can be created; set TMPDIR to a short path ({'; '.join(failures)}).")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
