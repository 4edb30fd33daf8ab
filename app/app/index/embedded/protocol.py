"""The protocol between client, owner and worker: one request, one reply, on a Unix socket.

A request is a header (operation, number of ids), the ids as 16 raw bytes each, and a pickled body; the body holds
embeddings as raw float32. The owner forwards requests without unpickling them: it reads the header and, during a
build, records the ids of writes. A reply is a pickled pair: (True, value) or (False, OceanoError). Client and owner
authenticate each other with the index's key before they unpickle anything.
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
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any, Final, NamedTuple

from app.core.errors import OceanoError
from app.index.errors import unavailable

PROTOCOL: Final = 6
ID_BYTES: Final = 16
HANDSHAKE_SECONDS: Final = 10.0
# sun_path holds 108 bytes with its terminator; a few bytes of margin.
_MAX_PATH_BYTES: Final = 100
_HEADER: Final = struct.Struct("<BI")


class Op(enum.IntEnum):
    """The operations; PUT and CLOSE are sent by the owner to its worker only."""

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
    SEARCH_EXACT = 13
    SEARCH_SCORES = 14
    PUT = 20
    CLOSE = 21


WRITES: Final = frozenset({Op.UPSERT, Op.SET_PAYLOAD, Op.DELETE})
READS: Final = frozenset({Op.SEARCH, Op.SEARCH_SCORES, Op.SEARCH_EXACT, Op.RETRIEVE, Op.SCROLL, Op.COUNT, Op.FACET})


@dataclass(frozen=True, slots=True)
class Request:
    """A received request.

    Args:
        op: the operation.
        ids: raw UUIDs, 16 bytes each, concatenated.
        body: still pickled.
    """

    op: Op
    ids: bytes
    body: memoryview

    def load(self) -> Any:
        """Unpickle the body."""
        return pickle.loads(self.body)  # noqa: S301 - the peer has proved that it knows the key


class ShardSizes(NamedTuple):
    """Numbers of points: the value of INFO between owner and worker.

    Attributes:
        points: all.
        indexed: in a graph.
        removed: still in a graph, but deleted or named since the build; they are not among `indexed`.
        largest: of `indexed`, those in the largest graph.
        segments: the number of segments.
    """

    points: int
    indexed: int
    removed: int
    largest: int
    segments: int


def pack(op: Op, ids: bytes = b"", body: object = None) -> bytes:
    """Return a request as bytes.

    Args:
        op: the operation.
        ids: raw UUIDs, 16 bytes each, concatenated.
        body: any value that can be pickled; its type depends on `op`.
    """
    return _HEADER.pack(op, len(ids) // ID_BYTES) + ids + pickle.dumps(body, protocol=5)


def unpack(message: bytes) -> Request:
    """Split a request into its parts without unpickling the body.

    Raises:
        OceanoError: `index_unavailable` if the message is not a request.
    """
    try:
        op, count = _HEADER.unpack_from(message)
        end = _HEADER.size + count * ID_BYTES
        if end > len(message):
            raise ValueError(f"{count} ids in {len(message)} bytes")
        return Request(Op(op), message[_HEADER.size : end], memoryview(message)[end:])
    except (struct.error, ValueError) as failure:
        raise unavailable(f"The index process received an invalid request: {failure}.") from failure


def value_reply(value: object) -> bytes:
    """Return the reply to a request that succeeded."""
    return pickle.dumps((True, value), protocol=5)


def error_reply(failure: OceanoError) -> bytes:
    """Return the reply to a request that failed."""
    return pickle.dumps((False, failure), protocol=5)


def read_reply(message: bytes) -> Any:
    """Return the value of a reply.

    Raises:
        OceanoError: the error that the reply holds.
    """
    succeeded, value = pickle.loads(message)  # noqa: S301 - the peer has proved that it knows the key
    if not succeeded:
        raise value
    return value


def join_ids(ids: Iterable[uuid.UUID]) -> bytes:
    """Concatenate UUIDs as raw bytes."""
    return b"".join(point_id.bytes for point_id in ids)


def split_ids(ids: bytes) -> list[uuid.UUID]:
    """Return the UUIDs that `join_ids` concatenated."""
    return [uuid.UUID(bytes=ids[start : start + ID_BYTES]) for start in range(0, len(ids), ID_BYTES)]


def accept_client(sock: socket.socket, key: bytes) -> Connection:
    """Authenticate a client and return its connection; the owner's side of the handshake.

    Args:
        sock: an accepted socket; closed in any case.
        key: the index's key, 32 bytes.

    Raises:
        AuthenticationError: the client does not know the key.
        EOFError: the client closed the connection.
        OSError: the connection failed or the client did not respond within HANDSHAKE_SECONDS.
    """
    with sock:
        return _handshake(sock, key, deliver_challenge, answer_challenge)


def connect(path: str, key: bytes) -> Connection:
    """Connect to the owner and authenticate; the client's side of the handshake.

    Args:
        path: the owner's socket.
        key: the index's key, 32 bytes.

    Raises:
        AuthenticationError: the owner does not know the key.
        EOFError: the owner closed the connection.
        OSError: nothing listens on `path`, or the owner did not respond within HANDSHAKE_SECONDS.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        return _handshake(sock, key, answer_challenge, deliver_challenge)


def _handshake(sock: socket.socket, key: bytes, *steps: Callable[[Connection, bytes], None]) -> Connection:
    """Return a connection on a duplicate of `sock`, once both sides have proved that they know the key."""
    _set_read_timeout(sock, HANDSHAKE_SECONDS)
    connection = Connection(os.dup(sock.fileno()))
    try:
        for step in steps:
            step(connection, key)
    except AssertionError as failure:  # Python 3.11 asserts that the peer sends a challenge
        connection.close()
        raise AuthenticationError("the peer does not send a challenge") from failure
    except BaseException:
        connection.close()
        raise
    _set_read_timeout(sock, 0)
    return connection


def _set_read_timeout(sock: socket.socket, seconds: float) -> None:
    """Set the timeout of a read (0: none); a read that exceeds it raises BlockingIOError."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(seconds), 0))


def socket_paths(folder: Path) -> Iterator[Path]:
    """Yield the paths to try for the owner's socket, in order.

    The first is in the collection's folder, unless its path is too long for a socket. The others are in a private
    folder in the temporary directory.

    Args:
        folder: the collection's folder.

    Raises:
        OceanoError: `index_unavailable` if the private folder belongs to another user or has another mode than 0700.
    """
    path = folder / "owner.sock"
    if len(os.fsencode(path)) <= _MAX_PATH_BYTES:
        yield path
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32] + ".sock"
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - a private folder in it, checked below
        private = Path(parent) / f"oceano-{os.getuid()}"
        if len(os.fsencode(private / name)) <= _MAX_PATH_BYTES:
            _require_private(private)
            yield private / name


def _require_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or (found.st_mode & 0o170777) != 0o040700:
        raise unavailable(f"{folder} must be a folder of this user with mode 0700")
