"""The process that owns a collection: `python -m app.index.embedded.owner OPTIONS`.

It answers any number of clients on a Unix socket, puts their writes in order, and hands everything that touches the
shard to its worker. It lives from its first client to its last (and `linger_s` more); SIGTERM ends it with
everything flushed. The lock it holds for life is what makes it the only one; its worker and builder hold it too.
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
from app.index.embedded.handler import Service
from app.index.embedded.options import OwnerOptions
from app.index.embedded.protocol import PROTOCOL, greet, refusal, socket_places, unavailable
from app.index.embedded.storage import current_shard, new_name, read_key, remove_leftovers
from app.index.embedded.supervisor import WorkerSupervisor

log = logging.getLogger("app.index.embedded.owner")

_BACKLOG: Final = 512
_FIRST_CLIENT_SECONDS: Final = 10.0
_LOCK_SECONDS: Final = 2.0


def main(arguments: list[str]) -> int:
    options = OwnerOptions.from_json(arguments[0])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    lock = _take_lock(options.folder)
    if lock is None:
        return 0  # somebody else is quicker
    try:
        owner = Owner(options, lock)
    except OceanoError as failure:
        log.error("%s", failure)
        write_atomic(
            options.folder / "owner.json", json.dumps({"error": [failure.code, failure.message]}), durable=False
        )
        return 3
    owner.run()
    return 0


def _take_lock(folder: Path) -> int | None:
    until = time.monotonic() + _LOCK_SECONDS
    while (lock := try_lock(folder / "owner.lock")) is None and time.monotonic() < until:
        time.sleep(0.02)
    return lock


class Owner:
    """Listens, counts clients, and knows when to go. `lock` is the file descriptor of the held lock."""

    def __init__(self, options: OwnerOptions, lock: int) -> None:
        self._options = options
        folder = options.folder
        self._key = read_key(folder, make=True)
        remove_leftovers(folder)
        self._listener, self._path = _listen(folder)
        shard = current_shard(folder) or folder / new_name("shard")
        self._service = Service(options, WorkerSupervisor(shard, options, lock), lock)
        self._clients = 0
        self._last_change = time.monotonic() + _FIRST_CLIENT_SECONDS
        self._count = threading.Lock()
        self._wake_reading, self._wake_writing = socket.socketpair()
        self._wake_writing.setblocking(False)
        self._stopping = False

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        threading.Thread(target=self._open, daemon=True).start()
        try:
            about = {
                "protocol": PROTOCOL,
                "pid": os.getpid(),
                "socket": str(self._path),
                "embedding_size": self._options.embedding_size,
            }
            write_atomic(self._options.folder / "owner.json", json.dumps(about), durable=False)
            log.info("owner %d of %s listens on %s", os.getpid(), self._options.folder, self._path)
            self._accept(self._listener)
        finally:
            self._listener.close()
            self._path.unlink(missing_ok=True)
            (self._options.folder / "owner.json").unlink(missing_ok=True)
            self._service.close()
            log.info("owner %d ends", os.getpid())

    def _open(self) -> None:
        """Open the shard while the first client says hello."""
        with contextlib.suppress(OceanoError):  # every client is told
            self._service.open()

    def _accept(self, listener: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(self._wake_reading, selectors.EVENT_READ)
            while not self._stopping and (patience := self._patience()) > 0:
                for event, _ in selector.select(patience):
                    if event.fileobj is listener:
                        self._welcome(listener)
                    else:
                        self._wake_reading.recv(4096)

    def _welcome(self, listener: socket.socket) -> None:
        try:
            plug, _ = listener.accept()
        except OSError as failure:  # gone again, or no file descriptor left just now
            log.warning("a connection was not accepted: %s", failure)
            time.sleep(0.05)
            return
        plug.setblocking(True)
        threading.Thread(target=self._serve, args=(plug,), daemon=True).start()

    def _patience(self) -> float:
        """Seconds to wait for another client; not above 0 when it is time to go."""
        with self._count:
            if self._clients:
                return 3600.0
            return self._last_change + self._options.linger_s - time.monotonic()

    def _serve(self, plug: socket.socket) -> None:
        """One connection: the handshake, then one request after the other until the client hangs up."""
        try:
            connection = greet(plug, self._key)
        except (AuthenticationError, EOFError, OSError) as failure:
            log.warning("a connection was refused: %s", type(failure).__name__)
            return
        self._change_clients(1)
        try:
            with connection, contextlib.suppress(EOFError, ConnectionError):
                self._converse(connection)
        finally:
            self._change_clients(-1)

    def _converse(self, connection: Connection) -> None:
        while True:
            message = connection.recv_bytes()
            try:
                reply = self._service.answer(message)
            except OceanoError as failure:
                reply = refusal(failure)
            except Exception as failure:  # one request must not end the others
                log.exception("a request failed")
                reply = refusal(unavailable(f"The index's owner failed: {type(failure).__name__}: {failure}"))
            connection.send_bytes(reply)

    def _change_clients(self, by: int) -> None:
        with self._count:
            self._clients += by
            self._last_change = time.monotonic()
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_writing.send(b"x")

    def _stop(self, *_: object) -> None:
        self._stopping = True
        self._wake()


def _listen(folder: Path) -> tuple[socket.socket, Path]:
    """The socket, for this user alone; one left behind by a killed owner is in nobody's way."""
    failures = []
    for path in socket_places(folder):
        listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            path.unlink(missing_ok=True)
            listener.bind(str(path))
        except OSError as failure:  # some mounted file systems know no sockets
            listener.close()
            failures.append(f"{path}: {failure.strerror}")
        else:
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            return listener, path
        finally:
            os.umask(before)
    raise unavailable(f"No socket for the index can be made; set TMPDIR to a short path ({'; '.join(failures)}).")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
