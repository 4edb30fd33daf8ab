"""A client's connections to the owner: a few, shared by its threads; the owner is started when there is none."""

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
from app.index.embedded.options import OwnerOptions
from app.index.embedded.protocol import PROTOCOL, dial, read_answer, storage_failure, unavailable
from app.index.embedded.storage import read_key

CONNECTIONS: Final = 8
CONNECT_SECONDS: Final = 20.0
REQUEST_SECONDS: Final = 120.0
_LOG_BYTES: Final = 5_000_000


class Pool:
    """Sends requests. Safe for threads, and for a process that forks (the child makes connections of its own).

    `log_file` takes what the owner has to say; None: nowhere.
    """

    def __init__(self, options: OwnerOptions, log_file: Path | None) -> None:
        self._options = options
        self._log_file = log_file
        self._closed = False
        self._reset()
        reset = weakref.WeakMethod(self._reset)
        os.register_at_fork(after_in_child=lambda: (mine := reset()) and mine())

    def _reset(self) -> None:
        self._free = threading.Condition()
        self._idle: list[Connection] = []
        self._in_use = 0
        self._age = 0  # goes up when an owner is found dead: connections of an older age lead nowhere
        self._starting = threading.Lock()

    def call(self, message: bytes, *, seconds: float | None = REQUEST_SECONDS) -> Any:
        """The answer to a request; if the owner dies over it, the request is sent once more to the next owner.

        Every request may be repeated: inserting, naming and deleting twice is the same as once. Raises OceanoError.
        """
        for last in (False, True):
            try:
                with self._borrow() as connection:
                    connection.send_bytes(message)
                    if not connection.poll(seconds):
                        raise unavailable(f"The index did not answer within {seconds:.0f} s.")
                    reply = connection.recv_bytes()
                return read_answer(reply)
            except (EOFError, ConnectionError) as failure:
                if last:
                    crashed = f"The index process crashed twice while handling this request ({failure!r})."
                    raise unavailable(crashed) from failure
            except OSError as failure:
                raise storage_failure(failure, f"The index in {self._options.folder} cannot be reached") from failure
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Hang up. Requests in flight in other threads finish."""
        with self._free:
            self._closed = True
            self._drop_idle()

    @contextlib.contextmanager
    def _borrow(self) -> Iterator[Connection]:
        """A connection for one request; it goes back only if the request went well."""
        with self._free:
            if not self._free.wait_for(lambda: self._in_use < CONNECTIONS, REQUEST_SECONDS):
                raise unavailable(f"All {CONNECTIONS} connections to the index are busy.")
            if self._closed:
                raise unavailable("The index was closed.")
            self._in_use += 1
            age = self._age
            connection = self._idle.pop() if self._idle else None
        good = False
        try:
            connection = connection or self._connect()
            yield connection
            good = True
        finally:
            with self._free:
                self._in_use -= 1
                if good and connection and age == self._age and not self._closed:
                    self._idle.append(connection)
                else:
                    if connection:
                        connection.close()
                    if age == self._age:  # the first to fail; the others of that age lead nowhere either
                        self._drop_idle()
                self._free.notify()

    def _drop_idle(self) -> None:
        self._age += 1
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _connect(self) -> Connection:
        """Connect to the owner, starting one if need be. An owner that is just leaving is waited for."""
        until = time.monotonic() + CONNECT_SECONDS
        while True:
            if (connection := self._dial()) is not None:
                return connection
            if time.monotonic() > until:
                raise unavailable(self._why_not())
            with self._starting, locked(self._options.folder / "start.lock"):
                if (connection := self._dial()) is not None:
                    return connection
                self._start(until)
            time.sleep(0.01)

    def _dial(self) -> Connection | None:
        """A connection, or None if nobody answers there (yet, or any more)."""
        about = self._about()
        if "socket" not in about:
            return None
        if about["protocol"] != PROTOCOL:
            raise OceanoError(
                "index_in_use",
                f"The index is in use by another version of Oceano (process {about['pid']}); stop that one first.",
            )
        if about["embedding_size"] != self._options.embedding_size:
            raise OceanoError(
                "index_in_use",
                f"The index is in use with embeddings of {about['embedding_size']} dimensions (process "
                f"{about['pid']}); those of this model have {self._options.embedding_size}.",
            )
        try:
            return dial(about["socket"], read_key(self._options.folder))
        except AuthenticationError as failure:
            raise unavailable(
                f"The owner of the index does not know the key in {self._options.folder / 'owner.key'}."
            ) from failure
        except (EOFError, OSError):
            return None

    def _start(self, until: float) -> None:
        """Start an owner if nobody is one, and wait until it listens or ends. Call with the start lock held."""
        folder = self._options.folder
        lock = try_lock(folder / "owner.lock")
        if lock is None:
            return
        (folder / "owner.json").unlink(missing_ok=True)
        os.close(lock)
        process = self._spawn()
        while process.poll() is None and "socket" not in self._about() and time.monotonic() < until:
            time.sleep(0.005)
        if "error" in (about := self._about()):
            raise OceanoError(*about["error"])

    def _spawn(self) -> subprocess.Popen[bytes]:
        """In a session of its own: Ctrl-C in the terminal is for the client."""
        package = str(Path(app.__file__ or "").resolve().parents[1])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        with self._log() as log:
            process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", "app.index.embedded.owner", self._options.to_json()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd="/",
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,
            )
        # Whoever started it also takes note of its end, else it stays behind as a zombie.
        threading.Thread(target=process.wait, name="index-owner", daemon=True).start()
        return process

    @contextlib.contextmanager
    def _log(self) -> Iterator[int]:
        """Where the owner writes; nowhere if that cannot be had, for an index is worth more than its log."""
        with contextlib.ExitStack() as stack:
            file = None
            with contextlib.suppress(OSError):
                if self._log_file is not None:
                    self._log_file.parent.mkdir(parents=True, exist_ok=True)
                    if self._log_file.exists() and self._log_file.stat().st_size > _LOG_BYTES:
                        self._log_file.replace(self._log_file.with_suffix(".log.1"))
                    file = stack.enter_context(self._log_file.open("ab"))
            yield file.fileno() if file else subprocess.DEVNULL

    def _about(self) -> dict[str, Any]:
        """What the owner says of itself: protocol, pid, socket, embedding size; or why it could not start."""
        try:
            found: dict[str, Any] = json.loads((self._options.folder / "owner.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def _why_not(self) -> str:
        about = self._about()
        where = f" {self._log_file} may say why." if self._log_file else ""
        holder = f"process {about['pid']} holds it and does not answer" if "pid" in about else "no owner starts"
        return f"The index in {self._options.folder} cannot be reached: {holder}.{where}"
