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
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tenacity
from onnx import TensorProto, helper, numpy_helper

from app.core.errors import OceanoError
from app.packs import download as downloads
from app.packs.known import Archive, KnownFile, KnownPack

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


def embedder(
    *,
    seed: int = 0,
    size: int = 64,
    side: int = 112,
    operations: tuple[str, ...] = (),
    output: Shape | None = None,
    batch: int | str = 1,
    flatten: bool = False,
    unused_input: bool = False,
    quantized: bool = False,
    prelu: bool = False,
    old: bool = False,
    mixing: bool = False,
    opset: int = 21,
) -> bytes:
    """A recogniser that runs: a crop shrunk to 14 x 14, and a random linear map to `size` numbers.

    `operations` come first, as in graphs that scale by themselves. With `quantized` the map's weights are int8 in
    blocks of 49, one of OpenCV Zoo's quirks; `unused_input` lists a name that nothing uses, another one. With
    `flatten` a Reshape to (1, n) ties the graph to one crop. `prelu` puts one between; `old` lists weights as inputs.
    With `mixing` each embedding depends on all crops of a run. Below opset 21 `quantized` is for each row, not block.
    """
    rng = np.random.default_rng(seed)
    weights = [numpy_helper.from_array(np.full(1, 2.0, np.float32), "two")]
    nodes, last = [], "data"
    for place, operation in enumerate(operations):
        nodes.append(helper.make_node(operation, [last, "two"], [f"scaled{place}"]))
        last = f"scaled{place}"
    pool = {"kernel_shape": [side // 14] * 2, "strides": [side // 14] * 2}
    nodes.append(helper.make_node("AveragePool", [last], ["pooled"], **pool))
    if prelu:
        weights.append(numpy_helper.from_array(np.array([-0.4, 0.3, 1.2], np.float32).reshape(3, 1, 1), "slopes"))
        nodes.append(helper.make_node("Sub", ["pooled", "middle"], ["centred"]))
        weights.append(numpy_helper.from_array(np.full(1, 127.0, np.float32), "middle"))
        nodes.append(helper.make_node("PRelu", ["centred", "slopes"], ["bent"]))
    pooled = "bent" if prelu else "pooled"
    if flatten:
        weights.append(numpy_helper.from_array(np.array([1, 3 * 196], np.int64), "flat"))
        nodes.append(helper.make_node("Reshape", [pooled, "flat"], ["features"]))
    else:
        nodes.append(helper.make_node("Flatten", [pooled], ["features"]))
    values = rng.normal(size=(size, 3 * 196)).astype(np.float32)
    if quantized:
        blocks = 12 if opset >= 21 else 1
        scales = (np.abs(values.reshape(size, blocks, -1)).max(axis=2) / 127).astype(np.float32)
        small = np.round(values / np.repeat(scales, 588 // blocks, axis=1)).astype(np.int8)
        how = {"axis": 1, "block_size": 49} if blocks > 1 else {"axis": 0}
        scales = scales if blocks > 1 else scales[:, 0]
        weights += [numpy_helper.from_array(small, "w_quantized"), numpy_helper.from_array(scales, "w_scales")]
        nodes.insert(0, helper.make_node("DequantizeLinear", ["w_quantized", "w_scales"], ["w"], **how))
    else:
        weights.append(numpy_helper.from_array(values, "w"))
    if mixing:
        nodes.append(helper.make_node("ReduceMean", ["features"], ["mean"], keepdims=1))
        nodes.append(helper.make_node("Sub", ["features", "mean"], ["mixed"]))
    nodes.append(helper.make_node("Gemm", ["mixed" if mixing else "features", "w"], ["embedding"], transB=1))
    taken = [helper.make_tensor_value_info("data", TensorProto.FLOAT, [batch, 3, side, side])]
    if unused_input:
        taken.append(helper.make_tensor_value_info("w_before", TensorProto.FLOAT, [size, 3 * 196]))
    if old:
        for tensor in weights:
            taken.insert(0, helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    given = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, output or [batch, size])]
    made = helper.make_graph(nodes, "embedder", taken, given, weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=3 if old else 10)
    return bytes(model.SerializeToString())


def yunet(size: int | None = 64, seed: int = 0) -> bytes:
    """A detector with YuNet's outputs that sees a face where blue and green are bright.

    `size` is what the graph names as its input's sides, as published files do, though it depends on none.
    """
    rng = np.random.default_rng(seed)
    nodes, weights, given = [], [], []

    def add(name: str, values: npt.NDArray[Any]) -> str:
        weights.append(numpy_helper.from_array(values, name))
        return name

    for stride in (8, 16, 32):
        for kind, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            name = f"{kind}_{stride}"
            kernel = np.zeros((width, 3, stride, stride), np.float32)
            if width == 1:
                kernel[:, {"cls": 0, "obj": 1}[kind]] = 0.25 / stride**2
                bias = np.full(1, -32.0, np.float32)
            else:
                kernel += rng.normal(0, 0.004, (width, 3, 1, 1)).astype(np.float32) / stride**2
                bias = rng.normal(0.5, 0.3, width).astype(np.float32)
            inputs = ["input", add(f"{name}_w", kernel), add(f"{name}_b", bias)]
            nodes.append(helper.make_node("Conv", inputs, [f"{name}_c"], strides=[stride, stride]))
            nodes.append(helper.make_node("Transpose", [f"{name}_c"], [f"{name}_t"], perm=[0, 2, 3, 1]))
            shape = add(f"{name}_s", np.array([1, -1, width], np.int64))
            nodes.append(helper.make_node("Reshape", [f"{name}_t", shape], [name if width > 1 else f"{name}_r"]))
            if width == 1:
                nodes.append(helper.make_node("Sigmoid", [f"{name}_r"], [name]))
    sides: Shape = ["h", "w"] if size is None else [size, size]
    taken = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, *sides])]
    for kind, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            cells = "n" if size is None else (size // stride) ** 2
            given.append(helper.make_tensor_value_info(f"{kind}_{stride}", TensorProto.FLOAT, [1, cells, width]))
    made = helper.make_graph(nodes, "yunet", taken, given, weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


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
        KnownFile(DETECTOR, sha(PACK[DETECTOR]), "scrfd"),
        KnownFile(RECOGNISER, sha(PACK[RECOGNISER]), "arcface", embedding_size=512, threshold=0.45),
        Archive(url, len(content), sha(content)),
        "Tiny weights are free.",
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
    """Serves `content`, or one of `files` by its name, with ranges and an ETag.

    `plan` holds a word for each of the next requests that go otherwise.
    """

    daemon_threads = True
    block_on_close = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = ZIP
        self.files: Mapping[str, bytes] = {}
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
        content, start = self.server.files.get(self.path.rsplit("/", 1)[-1], self.server.content), 0
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
