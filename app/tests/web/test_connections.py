from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from app.web import Connection, connections

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def _slow(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers after 0.3 s."""
    await asyncio.sleep(0.3)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.6)
    server = uvicorn.Server(uvicorn.Config(_slow, http=Connection, lifespan="off", log_config=None, access_log=False))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nHost: loc", REQUEST + b"GET / HT"])
def test_a_client_that_does_not_finish_its_headers_is_disconnected(port: int, first: bytes) -> None:
    with _connect(port) as client:
        client.sendall(first)
        while client.recv(1000):  # a response, perhaps; then the end; a timeout is an error
            pass


def test_a_request_that_takes_longer_than_the_deadline_for_headers_is_answered(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.1)
    with _connect(port) as client:
        client.sendall(REQUEST)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_client_that_closes_its_sending_side_gets_its_response(port: int) -> None:
    with _connect(port) as client:
        client.sendall(REQUEST)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(1000), b""))
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"ok")


def test_connections_beyond_the_limit_are_closed_and_the_others_answered(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "max_connections", lambda: 2)
    with _connect(port) as one, _connect(port) as two:
        time.sleep(0.1)
        for _ in range(3):
            with _connect(port) as third:
                assert third.recv(1000) == b""
        for client in (one, two):
            client.sendall(REQUEST)
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
    assert caplog.text.count("as many as the limit") == 1


def test_the_limit_is_below_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, most in ((1024, 768), (100, 64)):
        monkeypatch.setattr("resource.getrlimit", lambda _, soft=soft: (soft, 1 << 20))
        assert connections.max_connections() == most
