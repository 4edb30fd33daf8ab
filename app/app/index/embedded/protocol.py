"""The language between client, owner and worker: one request, one answer, on a Unix socket.

A request is a header (operation, number of ids), the ids as 16 raw bytes each, and a pickled body; embeddings
travel in it as raw float32. The owner passes requests on without unpickling them: it reads the header and, while a
graph is built, copies the ids. An answer is a pickled pair: (True, value) or (False, OceanoError). Both ends of a
socket prove that they know the index's key before anything is unpickled.
"""

from __future__ import annotations

import enum
import hashlib
import os
import pickle
import socket
import struct
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any, Final

from app.core.errors import OceanoError, is_full

PROTOCOL: Final = 3
ID_BYTES: Final = 16
HANDSHAKE_SECONDS: Final = 10.0
RETRY_AFTER_SECONDS: Final = 2.0
# sun_path holds 108 bytes with its end; a few are kept for odd kernels.
_PATH_BYTES: Final = 100
_HEADER: Final = struct.Struct("<BI")


class Op(enum.IntEnum):
    """Operations; those from PUT on are between owner and worker only."""

    UPSERT = 1
    FLUSH = 2
    SEARCH = 3
    RETRIEVE = 4
    SCROLL = 5
    SET_PAYLOAD = 6
    DELETE = 7
    COUNT = 8
    FACET = 9
    INFO = 10
    MAINTAIN = 11
    BACKUP = 12
    PUT = 20
    CLOSE = 21


WRITES: Final = frozenset({Op.UPSERT, Op.SET_PAYLOAD, Op.DELETE})
READS: Final = frozenset({Op.SEARCH, Op.RETRIEVE, Op.SCROLL, Op.COUNT, Op.FACET})


@dataclass(frozen=True, slots=True)
class Request:
    """A request as read: `ids` are raw UUIDs, one after the other; `body` is still pickled."""

    op: Op
    ids: bytes
    body: memoryview

    def load(self) -> Any:
        return pickle.loads(self.body)  # noqa: S301 - the peer has proved that it knows the key


def pack(op: Op, ids: bytes = b"", body: object = None) -> bytes:
    return _HEADER.pack(op, len(ids) // ID_BYTES) + ids + pickle.dumps(body, protocol=5)


def unpack(message: bytes) -> Request:
    op, count = _HEADER.unpack_from(message)
    end = _HEADER.size + count * ID_BYTES
    return Request(Op(op), message[_HEADER.size : end], memoryview(message)[end:])


def answer(value: object) -> bytes:
    return pickle.dumps((True, value), protocol=5)


def refusal(failure: OceanoError) -> bytes:
    return pickle.dumps((False, failure), protocol=5)


def read_answer(message: bytes) -> Any:
    """The value, or the OceanoError raised here."""
    good, value = pickle.loads(message)  # noqa: S301 - the peer has proved that it knows the key
    if not good:
        raise value
    return value


def join_ids(ids: Iterable[uuid.UUID]) -> bytes:
    return b"".join(one.bytes for one in ids)


def split_ids(ids: bytes) -> list[uuid.UUID]:
    return [uuid.UUID(bytes=ids[at : at + ID_BYTES]) for at in range(0, len(ids), ID_BYTES)]


def unavailable(message: str) -> OceanoError:
    return OceanoError("index_unavailable", message, retry_after=RETRY_AFTER_SECONDS)


def storage_failure(failure: OSError, sentence: str) -> OceanoError:
    """`sentence` says what could not be done, and ends without a full stop."""
    code = "disk_full" if is_full(failure) else "index_unavailable"
    return OceanoError(code, f"{sentence}: {failure.strerror or failure}.")


def greet(plug: socket.socket, key: bytes) -> Connection:
    """The owner's side of the handshake; takes the socket over. Raises AuthenticationError, EOFError, OSError."""
    with plug:
        return _handshake(plug, key, deliver_challenge, answer_challenge)


def dial(path: str, key: bytes) -> Connection:
    """Connect and prove the key. Raises AuthenticationError, EOFError, OSError."""
    with socket.socket(socket.AF_UNIX) as plug:
        plug.connect(path)
        return _handshake(plug, key, answer_challenge, deliver_challenge)


def _handshake(plug: socket.socket, key: bytes, *steps: Callable[[Connection, bytes], None]) -> Connection:
    """A connection of its own to the peer of `plug`, once both sides have proved the key."""
    _patience(plug, HANDSHAKE_SECONDS)
    connection = Connection(os.dup(plug.fileno()))
    try:
        for step in steps:
            step(connection, key)
    except BaseException:
        connection.close()
        raise
    _patience(plug, 0)
    return connection


def _patience(plug: socket.socket, seconds: float) -> None:
    """How long a read may wait (0: for ever); one that waited longer raises BlockingIOError."""
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(seconds), 0))


def socket_places(folder: Path) -> Iterator[Path]:
    """Where the socket may be: beside the index; where that is too long or does not work, in the temporary directory.

    There it is in a folder of this user alone. Raises OceanoError `index_unavailable` if that is not so.
    """
    beside = folder / "owner.sock"
    if len(os.fsencode(beside)) <= _PATH_BYTES:
        yield beside
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32] + ".sock"
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - a private folder in it, checked below
        private = Path(parent) / f"oceano-{os.getuid()}"
        if len(os.fsencode(private / name)) <= _PATH_BYTES:
            _require_private(private)
            yield private / name


def _require_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or (found.st_mode & 0o170777) != 0o040700:
        raise unavailable(f"{folder} must be a folder of this user with mode 0700")
