"""A Qdrant server over HTTP in front of qdrant-client's local mode, and a proxy that simulates faults."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from qdrant_client import QdrantClient, models


def app_of(client: QdrantClient, api_key: str = "", version: str = "1.19.0") -> FastAPI:
    """Return an app with the routes that Oceano's server index uses, on top of `client`."""
    app = FastAPI()
    lock = threading.Lock()  # the local mode is not safe for threads

    @app.get("/")
    def about() -> dict[str, str]:
        return {"title": "qdrant - vector search engine", "version": version}

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    def route(path: str, request: Request, body: dict[str, Any] | None = None) -> JSONResponse:
        if api_key and request.headers.get("api-key") != api_key:
            return JSONResponse({"status": {"error": "Invalid API key"}}, 401)
        with lock:
            try:
                result = _result(client, request.method, path.split("/"), body or {})
            except ValueError as failure:
                return JSONResponse({"status": {"error": str(failure)}}, 404 if "not found" in str(failure) else 400)
        return JSONResponse({"result": result, "status": "ok", "time": 0.0})

    return app


def _result(client: QdrantClient, method: str, path: list[str], body: dict[str, Any]) -> Any:  # noqa: PLR0911, PLR0912
    match (method, *path):
        case ("GET", "aliases"):
            return _json(client.get_aliases())
        case ("GET", "collections"):
            return _json(client.get_collections())
        case ("POST", "collections", "aliases"):
            actions = models.ChangeAliasesOperation(**body).actions
            return client.update_collection_aliases(change_aliases_operations=actions)
        case ("GET", "collections", name, "exists"):
            return {"exists": client.collection_exists(name)}
        case ("GET", "collections", name):
            return _json(client.get_collection(name))
        case ("DELETE", "collections", name):
            return client.delete_collection(name)
        case ("PUT", "collections", name):
            created = models.CreateCollection(**body)
            return client.create_collection(name, vectors_config=created.vectors, metadata=created.metadata)
        case ("PUT", "collections", name, "index"):
            return _done()
        case ("PUT", "collections", name, "points"):
            structs = models.PointsList(**body)
            client.upsert(name, structs.points, update_mode=structs.update_mode)
            return _done()
        case ("POST", "collections", name, "points"):
            requested = models.PointRequest(**body)
            found = client.retrieve(name, requested.ids, bool(requested.with_payload), bool(requested.with_vector))
            return [_json(point) for point in found]
        case ("POST", "collections", name, "points", "query", "batch"):
            return [_json(hits) for hits in client.query_batch_points(name, models.QueryRequestBatch(**body).searches)]
        case ("POST", "collections", name, "points", "scroll"):
            page = models.ScrollRequest(**body)
            records, next_offset = client.scroll(
                name, page.filter, page.limit, None, page.offset, bool(page.with_payload), bool(page.with_vector)
            )
            return {"points": [_json(record) for record in records], "next_page_offset": next_offset}
        case ("POST", "collections", name, "points", "count"):
            return _json(client.count(name, models.CountRequest(**body).filter))
        case ("POST", "collections", name, "facet"):
            counted = models.FacetRequest(**body)
            return _json(client.facet(name, counted.key, counted.filter, counted.limit or 10))
        case ("POST", "collections", name, "points", "payload"):
            fields = models.SetPayload(**body)
            client.set_payload(name, fields.payload, fields.points or [])
            return _done()
        case ("POST", "collections", name, "points", "delete"):
            client.delete(name, models.PointIdsList(**body).points)
            return _done()
    raise ValueError(f"{method} {'/'.join(path)} is not found in the fake server")


def _json(value: Any) -> Any:
    return json.loads(value.model_dump_json())


def _done() -> dict[str, Any]:
    return {"operation_id": 1, "status": "completed"}


@contextlib.contextmanager
def serving(app: FastAPI, *, with_lifespan: bool = False) -> Iterator[int]:
    """Run the app on a free port, and yield the port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
        lifespan: Literal["on", "off"] = "on" if with_lifespan else "off"
        config = uvicorn.Config(app, log_level="critical", lifespan=lifespan, proxy_headers=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        while with_lifespan and thread.is_alive() and not server.started:
            time.sleep(0.01)
        try:
            yield port
        finally:
            server.should_exit = True
            thread.join()


class Proxy:
    """Forwards requests to the port `target`. Each item of `faults` applies to one request, `always` to all.

    "refuse": the connection is reset before the request. "lose": the request is forwarded and its response is lost;
    "half": half of the response is lost. "slow": the response is delayed by `slow_seconds`. "busy", "down", "full",
    "read-only": an error response, without the server. Each connection is closed after one response, so that it carries
    one request.
    """

    RESPONSES: ClassVar = {
        "busy": ("429 Too Many Requests", "Too many requests"),
        "down": ("503 Service Unavailable", "Service unavailable"),
        "full": ("500 Internal Server Error", "No space left on device: WAL buffer size exceeds available disk space"),
        "read-only": ("403 Forbidden", "Write access is forbidden"),
    }

    def __init__(self, target: int) -> None:
        self._target = target
        self.faults: deque[str] = deque()
        self.always = ""
        self.seen = 0
        self.slow_seconds = 0.0
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._sock.getsockname()[1])
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._sock.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(connection,), daemon=True).start()

    def _forward(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if self.always == "refuse":
                return _reset(connection)
            request = _request(connection)
            if not request:
                return None
            self.seen += 1
            fault = self.always or (self.faults.popleft() if self.faults else "")
            if fault == "refuse":
                return _reset(connection)
            if fault in self.RESPONSES:
                return connection.sendall(_http(*self.RESPONSES[fault]))
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                server.sendall(request)
                response = b"".join(iter(lambda: server.recv(1 << 16), b""))
            if fault == "slow":
                time.sleep(self.slow_seconds)
            if fault == "half":
                connection.sendall(response[: len(response) // 2])
            return _reset(connection) if fault in ("lose", "half") else connection.sendall(response)


def _request(connection: socket.socket) -> bytes:
    """Read one request, and add the header that closes the connection after it."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(1 << 16)):
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    length = next((int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(1 << 16)
    return b"\r\n".join([*lines, b"Connection: close", b"", body])


def _http(status: str, error: str) -> bytes:
    body = json.dumps({"status": {"error": error}}).encode()
    retry = "Retry-After: 0\r\n" if status.startswith("429") else ""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{retry}Content-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
