"""A client's connections to the owner, shared by its threads. The client starts an owner if none is running."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import app
from app.core.errors import OceanoError
from app.core.locks import locked, try_lock
from app.index.embedded.folder_guard import fingerprint, replaced
from app.index.embedded.options import OwnerOptions
from app.index.embedded.protocol import PROTOCOL, connect, read_reply
from app.index.embedded.storage import LOCK, read_key
from app.index.errors import storage_failure, unavailable

CONNECTIONS: Final = 8
CONNECT_SECONDS: Final = 20.0
REQUEST_SECONDS: Final = 120.0
_LOG_BYTES: Final = 5_000_000


class ConnectionPool:
    """At most CONNECTIONS connections to the owner, opened as needed.

    Safe for threads, and for a process that forks: the child opens its own connections.

    Args:
        options: the options of the owner, if this client starts it.
        log_file: where an owner that this client starts logs; None for nowhere.
    """

    def __init__(self, options: OwnerOptions, log_file: Path | None) -> None:
        self._options = options
        self._log_file = log_file
        self._fingerprint: tuple[int, bytes] | None = None  # of the folder to which this client first connected
        self._closed = False
        self._reset()
        reset = weakref.WeakMethod(self._reset)
        os.register_at_fork(after_in_child=lambda: (method := reset()) and method())

    def _reset(self) -> None:
        self._free = threading.Condition()
        self._idle: list[Connection] = []
        self._in_use = 0
        self._generation = 0  # incremented when the owner fails; connections of an older one are closed
        self._starting = threading.Lock()

    def call(self, message: bytes, *, seconds: float | None = REQUEST_SECONDS) -> Any:
        """Send a request; if the owner crashes meanwhile, send it once more to a new owner.

        Every request may run twice: inserting, naming or deleting twice has the effect of once.

        Args:
            message: a packed request.
            seconds: the timeout for the reply; None for no limit.

        Returns:
            The value of the reply.

        Raises:
            OceanoError: the error in the reply; `index_unavailable`, `index_in_use` or `disk_full` if there is none.
        """
        for last in (False, True):
            try:
                with self._borrow() as connection:
                    connection.send_bytes(message)
                    if not connection.poll(seconds):
                        raise unavailable(f"The index did not respond within {seconds:.0f} s.")
                    reply = connection.recv_bytes()
                return read_reply(reply)
            except (EOFError, ConnectionError) as failure:
                if last:
                    crashed = f"The index process crashed twice while handling this request ({failure!r})."
                    raise unavailable(crashed) from failure
            except OSError as failure:
                raise storage_failure(failure, f"The index in {self._options.folder} cannot be reached") from failure
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the idle connections; requests of other threads still finish, new ones fail."""
        with self._free:
            self._closed = True
            self._drop_idle()

    @contextlib.contextmanager
    def _borrow(self) -> Iterator[Connection]:
        """Lend a connection for one request; a connection whose request fails is closed."""
        with self._free:
            if not self._free.wait_for(lambda: self._in_use < CONNECTIONS, REQUEST_SECONDS):
                raise unavailable(f"All {CONNECTIONS} connections to the index are busy.")
            if self._closed:
                raise unavailable("The index was closed.")
            self._in_use += 1
            generation = self._generation
            connection = self._idle.pop() if self._idle else None
        succeeded = False
        try:
            connection = connection or self._connect()
            yield connection
            succeeded = True
        finally:
            with self._free:
                self._in_use -= 1
                if succeeded and connection and generation == self._generation and not self._closed:
                    self._idle.append(connection)
                else:
                    if connection:
                        connection.close()
                    if generation == self._generation:  # the first to fail; the others of this generation will too
                        self._drop_idle()
                self._free.notify()

    def _drop_idle(self) -> None:
        self._generation += 1
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _connect(self) -> Connection:
        """Connect to the owner; start one if none is running, and wait for one that is exiting."""
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            if (connection := self._try_connect()) is not None:
                return connection
            if time.monotonic() > deadline:
                raise unavailable(self._unreachable_reason())
            with self._starting, locked(self._options.folder / "start.lock"):
                if (connection := self._try_connect()) is not None:
                    return connection
                self._start_owner(deadline)
            time.sleep(0.01)

    def _try_connect(self) -> Connection | None:
        """Return a connection, or None if no owner listens."""
        found = fingerprint(self._options.folder)
        if self._fingerprint and self._fingerprint != found:  # an owner of another folder must not start or be used
            raise replaced(self._options.folder)
        owner = self._owner_info()
        if "socket" not in owner:
            return None
        if owner["protocol"] != PROTOCOL:
            raise OceanoError(
                "index_in_use",
                f"The index is in use by another version of Oceano (process {owner['pid']}). Stop that process first.",
            )
        if owner["embedding_size"] != self._options.embedding_size:
            raise OceanoError(
                "index_in_use",
                f"The index is in use with embeddings of {owner['embedding_size']} dimensions (process "
                f"{owner['pid']}); this model's have {self._options.embedding_size}.",
            )
        try:
            connection = connect(owner["socket"], read_key(self._options.folder))
        except AuthenticationError as failure:
            raise unavailable(
                f"The index process rejects the key in {self._options.folder / 'owner.key'}."
            ) from failure
        except (EOFError, OSError):
            return None
        self._fingerprint = found
        return connection

    def _start_owner(self, deadline: float) -> None:
        """Start an owner if none is running, and wait until it listens or exits. The caller holds the start lock."""
        folder = self._options.folder
        lock = try_lock(folder / LOCK)
        if lock is None:
            return
        (folder / "owner.json").unlink(missing_ok=True)
        os.close(lock)
        process = self._spawn_owner()
        while process.poll() is None and "socket" not in self._owner_info() and time.monotonic() < deadline:
            time.sleep(0.005)
        if "error" in (owner := self._owner_info()):
            raise OceanoError(*owner["error"])

    def _spawn_owner(self) -> subprocess.Popen[bytes]:
        """Start the process in its own session, so that Ctrl-C in the terminal stops only the client."""
        package = str(Path(app.__file__ or "").resolve().parents[1])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        with self._open_log() as log:
            process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", "app.index.embedded.owner", self._options.to_json()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd="/",
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,
            )
        # The parent must wait for its child, or the child stays a zombie after its exit.
        threading.Thread(target=process.wait, name="index-owner", daemon=True).start()
        return process

    @contextlib.contextmanager
    def _open_log(self) -> Iterator[int]:
        """Yield a file descriptor for the owner's log; DEVNULL if the file cannot be opened."""
        with contextlib.ExitStack() as stack:
            file = None
            with contextlib.suppress(OSError):
                if self._log_file is not None:
                    self._log_file.parent.mkdir(parents=True, exist_ok=True)
                    if self._log_file.exists() and self._log_file.stat().st_size > _LOG_BYTES:
                        self._log_file.replace(self._log_file.with_suffix(".log.1"))
                    file = stack.enter_context(self._log_file.open("ab"))
            yield file.fileno() if file else subprocess.DEVNULL

    def _owner_info(self) -> dict[str, Any]:
        """Read `owner.json`: the owner's protocol, pid, socket and embedding size, or why it could not start."""
        try:
            found: dict[str, Any] = json.loads((self._options.folder / "owner.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        # In a copy of the folder the file names the owner of the original. Owners of older versions write no "folder".
        is_copied = found.get("folder") not in (None, self._options.folder.stat().st_ino)
        return {} if is_copied else found

    def _unreachable_reason(self) -> str:
        owner = self._owner_info()
        reason = f"process {owner['pid']} does not respond" if "pid" in owner else "its process does not start"
        log = f" See {self._log_file}." if self._log_file else ""
        return f"The index in {self._options.folder} cannot be reached: {reason}.{log}"
