from __future__ import annotations

import asyncio
import resource
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


@pytest.mark.parametrize(
    "first", [b"", REQUEST.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n12345")]
)
def test_beyond_the_limit_the_slowest_client_is_disconnected(
    port: int, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    monkeypatch.setattr(connections, "max_connections", lambda: 2)
    monkeypatch.setattr(connections, "HEADER_SECONDS", 5)
    monkeypatch.setattr(connections, "_SPARED_SECONDS", 0.05)
    with _connect(port) as slow, _connect(port) as faster:
        slow.sendall(first)
        faster.sendall(REQUEST[:-2] + b"X: " + b"y" * 500)
        time.sleep(0.1)
        with _connect(port) as third:
            third.sendall(REQUEST)
            assert third.recv(1000).startswith(b"HTTP/1.1 200")
            assert slow.recv(1000) == b""
            faster.sendall(b"\r\n\r\n")
            assert faster.recv(1000).startswith(b"HTTP/1.1 200")


def test_the_limit_is_below_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, most in ((1024, 384), (100, 64)):
        monkeypatch.setattr("resource.getrlimit", lambda _, soft=soft: (soft, 1 << 20))
        assert connections.max_connections() == most


@pytest.mark.parametrize(
    ("limits", "raised"),
    [
        ((1024, 4096), (4096, 4096)),
        ((1024, 1 << 20), (1 << 16, 1 << 20)),
        ((1024, resource.RLIM_INFINITY), (1 << 16, resource.RLIM_INFINITY)),
        ((1024, 1024), None),
        ((1 << 20, 1 << 20), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_the_soft_limit_on_open_files_is_raised(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], raised: tuple[int, int] | None
) -> None:
    made: list[tuple[int, int]] = []
    monkeypatch.setattr("resource.getrlimit", lambda _: limits)
    monkeypatch.setattr("resource.setrlimit", lambda _, to: made.append(to))
    connections.raise_file_limit()
    assert made == ([raised] if raised else [])


def test_connections_that_wait_to_be_accepted_fit_below_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft in (100, 1024, 4096, 1 << 20):
        monkeypatch.setattr("resource.getrlimit", lambda _, soft=soft: (soft, soft))
        assert connections.backlog() <= connections.max_connections() / 4
