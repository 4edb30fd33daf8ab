"""The embedded index's socket: what a peer without the key sends, and the headers of requests.

A peer without the key must never reach pickle. Pickles themselves are not mutated: to load one runs what it says.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import tempfile
import threading
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NoReturn

from app.core.errors import OceanoError
from app.index.embedded import protocol
from app.index.embedded.protocol import Op, accept_client, connect, pack, split_ids, unpack

_KEY: Final = b"k" * 32
_REJECTED: Final = (AuthenticationError, EOFError, OSError)  # as documented


def fuzz_one(data: bytes) -> None:
    """Unpack a request; shake hands with a peer that sends these bytes, as owner and as client."""
    try:
        request = unpack(data)
        split_ids(request.ids)
    except OceanoError as failure:
        assert failure.status < 600
    loads, pickle.loads = pickle.loads, _no_pickle
    try:
        _as_owner(data)
        _as_client(data)
    finally:
        pickle.loads = loads


def _no_pickle(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("unpickles what a peer without the key has sent")


def _as_owner(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        _send(theirs, data)
        _must_reject(lambda: accept_client(ours, _KEY))


def _as_client(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="oceano-fuzz-") as folder:
        path = str(Path(folder) / "s")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()

            def serve() -> None:
                peer, _ = listener.accept()
                with peer, contextlib.suppress(ConnectionError):  # the client closes first
                    _send(peer, data)
                    while peer.recv(1024):
                        pass

            thread = threading.Thread(target=serve)
            thread.start()
            try:
                _must_reject(lambda: connect(path, _KEY))
            finally:
                thread.join()


def _send(peer: socket.socket, data: bytes) -> None:
    peer.sendall(data[:4096])
    peer.shutdown(socket.SHUT_WR)


def _must_reject(shake_hands: Any) -> None:
    try:
        connection: Connection = shake_hands()
    except _REJECTED:
        return
    connection.close()
    raise AssertionError("a peer without the key was accepted")


def _framed(*messages: bytes) -> bytes:
    return b"".join(len(message).to_bytes(4, "big") + message for message in messages)


SEEDS: Final = [
    pack(Op.SEARCH, b"i" * 32, {"limit": 5}),
    pack(Op.COUNT),
    protocol.value_reply([1, 2]),
    _framed(b"#CHALLENGE#" + b"c" * 20, b"#WELCOME#"),
    _framed(b"#CHALLENGE#{sha256}" + b"c" * 40, b"#WELCOME#"),
    _framed(b"d" * 16, b"#CHALLENGE#" + b"c" * 20, b"#WELCOME#"),
    b"\xff\xff\xff\xff" + (1 << 40).to_bytes(8, "big") + b"x",
]
