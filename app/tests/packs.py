"""Model packs of tiny ONNX graphs, and an HTTP server on 127.0.0.1 that hands them out, well or badly."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tenacity
from onnx import TensorProto, helper

from app import downloads
from app.errors import OceanoError
from app.weights import KnownPack

DETECTOR, RECOGNISER = "det.onnx", "rec.onnx"
Shape = list[int | str]


def graph(
    inputs: list[Shape],
    outputs: list[Shape],
    *,
    filling: int = 0,
    seed: int = 0,
    old: bool = False,
    external: bool = False,
) -> bytes:
    """A graph with those shapes and `filling` random bytes of weights; `old` lists the weights among the inputs."""
    taken = [helper.make_tensor_value_info(f"in{n}", TensorProto.FLOAT, shape) for n, shape in enumerate(inputs)]
    given = [helper.make_tensor_value_info(f"out{n}", TensorProto.FLOAT, shape) for n, shape in enumerate(outputs)]
    raw = np.random.default_rng(seed).bytes(filling + 4)
    tensor = helper.make_tensor("w", TensorProto.UINT8, [len(raw)], raw, raw=True)
    if external:
        tensor.data_location = TensorProto.EXTERNAL
    if old:
        taken.insert(0, helper.make_tensor_value_info("w", TensorProto.UINT8, [len(raw)]))
    nodes = [helper.make_node("Identity", ["in0"], [value.name]) for value in given]
    model = helper.make_model(helper.make_graph(nodes, "g", taken, given, [tensor]))
    return bytes(model.SerializeToString())


def detector(strides: int = 3, landmarks: bool = True, seed: int = 0) -> bytes:
    widths = (1, 4, 10) if landmarks else (1, 4)
    return graph([[1, 3, "?", "?"]], [[100, width] for width in widths for _ in range(strides)], seed=seed)


def recogniser(size: int = 112, width: int = 512, *, filling: int = 0, seed: int = 0, old: bool = False) -> bytes:
    return graph([["N", 3, size, size]], [["N", width]], filling=filling, seed=seed, old=old)


OTHERS = {
    "1k3d68.onnx": graph([["N", 3, 192, 192]], [[1, 3309]]),
    "2d106det.onnx": graph([["N", 3, 192, 192]], [[1, 212]]),
    "genderage.onnx": graph([["N", 3, 96, 96]], [[1, 3]]),
    "inswapper.onnx": graph([[1, 3, 128, 128], [1, 512]], [[1, 3, 128, 128]]),
    ".rec.onnx": recogniser(seed=12),
}
PACK = {DETECTOR: detector(), RECOGNISER: recogniser(filling=900_000)}


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digest_of(det: bytes, rec: bytes) -> str:
    return sha(f"{sha(det)}\n{sha(rec)}\n1".encode())


PACK_DIGEST = digest_of(PACK[DETECTOR], PACK[RECOGNISER])


def put(folder: Path, files: Mapping[str, bytes] = PACK) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, ns=(10**18, 10**18))
    return folder


def zipped(
    files: Mapping[str | zipfile.ZipInfo, bytes] | Mapping[str, bytes], compression: int = zipfile.ZIP_STORED
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


ZIP = zipped({f"tiny/tiny/{name}": content for name, content in {**PACK, **OTHERS}.items()})
INSTALLED = {f"tiny/{DETECTOR}", f"tiny/{RECOGNISER}"}


def known_as(content: bytes = ZIP, url: str = "http://127.0.0.1:9/none.zip") -> KnownPack:
    return KnownPack(
        url, len(content), sha(content), (DETECTOR, sha(PACK[DETECTOR])), (RECOGNISER, sha(PACK[RECOGNISER]))
    )


def refused(code: str, call: Callable[[], object]) -> OceanoError:
    with pytest.raises(OceanoError) as caught:
        call()
    assert caught.value.code == code, caught.value
    return caught.value


def everything(folder: Path) -> set[str]:
    """All files below it, but the locks and the pins."""
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return files - {".install.lock", ".pins.lock", "pins.json"}


class Server(ThreadingHTTPServer):
    """Serves `content` with ranges and an ETag; `plan` holds a word for each of the next requests that go otherwise."""

    daemon_threads = True
    block_on_close = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = ZIP
        self.plan: list[str] = []
        self.asked: list[dict[str, str]] = []
        self.sent: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/tiny.zip"

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.asked]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(dict(self.headers))
        word, _, value = (self.server.plan.pop(0) if self.server.plan else "").partition(" ")
        content, start = self.server.content, 0
        etag = f'"{sha(content)[:8]}"'
        asked = self.headers.get("Range")
        if asked and self.headers.get("If-Range") == etag and word not in ("whole", "shifted"):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if word == "status":
            return self.answer(int(value), {}, b"no")
        if start >= len(content) or word == "refuse":
            return self.answer(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
        headers = {"ETag": etag}
        if word == "shifted":
            start = 7
        if word == "weak":
            headers["ETag"] = f"W/{etag}"
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        if word == "piece":
            body = body[: int(value)]
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(content)}"
        headers["Content-Length"] = str(len(body))
        if word == "untold":
            del headers["Content-Length"]
        return self.answer(206 if start else 200, headers, body[: int(value)] if value else body)

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status >= 400:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.server.sent.append(len(body))
        with suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server, and downloads that do not wait between two tries."""
    monkeypatch.setattr(downloads, "_WAIT", tenacity.wait_none())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()
