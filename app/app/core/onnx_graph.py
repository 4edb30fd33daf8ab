"""What an ONNX file is: which one, by its fingerprint, and which kind of model, by its graph."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from app.core.errors import OceanoError

Role = Literal["detector", "recogniser"]
Family = Literal["scrfd", "yunet", "arcface"]
ROLES: Final[tuple[Role, Role]] = ("detector", "recogniser")
LARGEST_EMBEDDING: Final = 4096
_LARGEST_CROP: Final = 448
_FLOAT: Final = 1  # onnx.TensorProto.FLOAT, without importing onnx
_EXTERNAL: Final = 1  # onnx.TensorProto.EXTERNAL

_SETTLED_NS: Final = 2 * 10**9


@dataclass(frozen=True, slots=True)
class Graph:
    """What an ONNX graph takes and gives.

    family: how its inputs and outputs are read. `scrfd`: SCRFD and RetinaFace detectors; `yunet`: YuNet detectors;
        `arcface`: recognisers that take an aligned crop.
    input_name: the one input that is no weight.
    input_size: (width, height) in pixels, None where the graph takes any.
    mean, std: pixels go in as (value - mean) / std.
    swap: channels go in as RGB; else as BGR.
    embedding_size: numbers of an embedding; 0 for a detector.
    stride: the sides of a detector's input are multiples of it, in pixels.
    """

    family: Family
    input_name: str
    input_size: tuple[int, int] | None
    mean: float
    std: float
    swap: bool
    embedding_size: int = 0
    stride: int = 32

    @property
    def role(self) -> Role:
        return "recogniser" if self.family == "arcface" else "detector"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A file as hashed; `stamp` is its size (bytes), mtime (ns) and inode, None where that proves nothing."""

    file: str
    sha256: str
    stamp: tuple[int, ...] | None


def fingerprint(path: Path, before: Fingerprint | None = None) -> Fingerprint:
    """Read and hash the file, unless its stamp is still the one `before`. Raises OceanoError `model_corrupt`."""
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            stamp = (info.st_size, info.st_mtime_ns, info.st_ino)
            if before and (before.file, before.stamp) == (path.name, stamp):
                return before
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as failure:
        message = f"{path} cannot be read: {failure}"
        raise OceanoError("model_corrupt", message, details={"file": str(path)}) from failure
    # Two writes within one tick of the file system's clock leave the same mtime: not to be told apart by it.
    settled = time.time_ns() - info.st_mtime_ns > _SETTLED_NS
    return Fingerprint(path.name, sha256, stamp if settled else None)


def onnx_files(folder: Path) -> list[Path]:
    """Sorted by name, hidden ones left out; none where the folder is missing or may not be entered."""
    try:
        return sorted(path for path in folder.glob("*.onnx") if is_there(path) and not path.name.startswith("."))
    except OSError:
        return []


def is_there(file: Path) -> bool:
    """Not so where its folder may not be entered."""
    try:
        return file.is_file()
    except OSError:
        return False


def find_roles(folder: Path) -> dict[Role, Path]:
    """The one detector and the one recogniser in `folder`, among whatever other models.

    Raises OceanoError `model_not_found`, saying what was seen.
    """
    looks = {path: look(path) for path in onnx_files(folder)}
    roles = {path: seen.role for path, seen in looks.items() if isinstance(seen, Graph)}
    found: dict[Role, Path] = {}
    for role in ROLES:
        candidates = [path for path, told in roles.items() if told == role]
        if len(candidates) != 1:
            seen = "; ".join(f"{path.name}: {roles.get(path, told)}" for path, told in looks.items())
            message = f"exactly one {role} needed, {len(candidates)} found: {seen or 'no .onnx files'}"
            raise OceanoError("model_not_found", message, details={"folder": str(folder)})
        found[role] = candidates[0]
    return found


def look(path: Path) -> Graph | str:
    """What the file holds, or in words why it is no face model that Oceano can run."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return describe(onnx.load(path, load_external_data=False))
    except DecodeError:
        return "not a readable ONNX file"
    except OSError as failure:
        return f"it cannot be read ({failure.strerror})"
    except Exception as failure:  # noqa: BLE001 - a graph can be wrong in any way; it is one among other files
        return f"not a valid ONNX graph ({type(failure).__name__})"


def describe(model: Any) -> Graph | str:
    """Like `look`, for an onnx.ModelProto: told from inputs and outputs, as InsightFace's own router does."""
    graph = model.graph
    if _is_external(graph):
        return "its weights lie in another file, where no digest covers them"
    inputs = real_inputs(graph)
    if len(inputs) != 1:
        return "another model"
    shape = _shape(inputs[0])
    if len(shape) != 4 or shape[1] not in (0, 3) or min(shape) < 0:
        return "another model"
    if inputs[0].type.tensor_type.elem_type != _FLOAT:
        return "another model, its input is not float32"
    outputs = [_shape(value) for value in graph.output]
    if len(outputs) == 1:
        return _recogniser(model, inputs[0].name, shape, outputs[0])
    return _detector(graph, inputs[0].name, shape, outputs)


def _is_external(graph: Any) -> bool:
    """Also for the tensors of Constant nodes, and of graphs inside nodes."""
    tensors = list(graph.initializer)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        tensors += [attribute.t, *attribute.tensors]
        if any(
            _is_external(inner) for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
        ):
            return True
    return any(tensor.data_location == _EXTERNAL for tensor in tensors)


def real_inputs(graph: Any) -> list[Any]:
    """The inputs that a run must be given: old files list weights among them, and names that nothing uses any more."""
    weights = {tensor.name for tensor in graph.initializer}
    used = {name for node in graph.node for name in node.input}
    inputs = [value for value in graph.input if value.name not in weights]
    return [value for value in inputs if value.name in used] if len(inputs) > 1 else inputs


def _recogniser(model: Any, name: str, taken: list[int], given: list[int]) -> Graph | str:
    height, width = (side or 112 for side in taken[2:])
    if height != width or height > _LARGEST_CROP or (height % 112 and height % 128):  # as InsightFace aligns crops
        return f"another model, input {width}x{height}"
    size = given[-1] if len(given) == 2 and given[-1] else _inferred_size(model)
    if not size:
        return f"another model, output {'x'.join(map(str, given))}"
    if size % 32 or not 0 < size <= LARGEST_EMBEDDING:  # 1000: a classifier
        return f"another model, {size} values for a picture"
    mean, std = (0.0, 1.0) if _scales_by_itself(model.graph, name) else (127.5, 127.5)
    return Graph("arcface", name, (width, height), mean, std, swap=True, embedding_size=size)


def _inferred_size(model: Any) -> int:
    """Of an embedding, where the graph's output does not say it; 0 if the output is no list of vectors."""
    import onnx

    untold = onnx.ModelProto()
    untold.CopyFrom(model)
    untold.graph.output[0].type.tensor_type.ClearField("shape")
    shape = _shape(onnx.shape_inference.infer_shapes(untold).graph.output[0])
    return shape[1] if len(shape) == 2 else 0


def _scales_by_itself(graph: Any, name: str) -> bool:
    """Does the graph subtract a mean from its input and multiply, before anything else?"""
    found = []
    for _ in range(2):
        node = next((node for node in graph.node if name in node.input), None)
        if node is None:
            break
        found.append(node.op_type)
        name = node.output[0]
    return found in (["Sub", "Mul"], ["Sub", "Div"])


def _detector(graph: Any, name: str, taken: list[int], outputs: list[list[int]]) -> Graph | str:
    size = (taken[3], taken[2]) if taken[2] and taken[3] else None
    if len(outputs) == 12:
        return _yunet(graph, name, size, outputs)
    return _scrfd(name, size, outputs)


def _scrfd(name: str, size: tuple[int, int] | None, outputs: list[list[int]]) -> Graph | str:
    """SCRFD and RetinaFace give scores, boxes and landmarks, 1, 4 and 10 values wide, for each of 3 or 5 strides."""
    strides = 3 if len(outputs) in (6, 9) else 5
    if len(outputs) not in (2 * strides, 3 * strides):
        return "another model"
    widths = [(1, 4, 10)[number // strides] for number in range(len(outputs))]
    if not _are_wide(outputs, widths):
        return "another model"
    if len(outputs) == 2 * strides:
        return "a detector without landmarks"
    return Graph("scrfd", name, size, 127.5, 128.0, swap=True, stride=32 if strides == 3 else 128)


def _yunet(graph: Any, name: str, size: tuple[int, int] | None, outputs: list[list[int]]) -> Graph | str:
    """YuNet gives class and object scores, boxes and landmarks, 1, 1, 4 and 10 values wide, for each of 3 strides."""
    if not _are_wide(outputs, [(1, 1, 4, 10)[number // 3] for number in range(12)]):
        return "another model"
    return Graph("yunet", name, size if _depends_on_size(graph) else None, 0.0, 1.0, swap=False)


def _depends_on_size(graph: Any) -> bool:
    """Published YuNet files name 640 x 640 as their input, but only these operations could tie them to it."""
    if any(node.op_type == "Resize" and len(node.input) > 3 and node.input[3] for node in graph.node):
        return True
    return any(shape is None or -1 not in shape for _, shape in reshapes(graph))


def reshapes(graph: Any) -> list[tuple[Any, Any]]:
    """The Reshape nodes that depend on the graph's input, each with its new shape: integers, None where computed."""
    from onnx import numpy_helper

    constant = {name for node in constant_nodes(graph) for name in node.output}
    values = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            values[node.output[0]] = node.attribute[0].t
    nodes = [node for node in graph.node if node.op_type == "Reshape" and node.input[0] not in constant]
    shapes = [values.get(node.input[1]) for node in nodes]
    return [
        (node, None if shape is None else numpy_helper.to_array(shape))
        for node, shape in zip(nodes, shapes, strict=True)
    ]


def constant_nodes(graph: Any) -> list[Any]:
    """The nodes that depend on weights alone, not on the graph's input."""
    known = {tensor.name for tensor in graph.initializer} | {""}
    found = []
    for node in graph.node:
        if (node.input and known.issuperset(node.input)) or node.op_type == "Constant":
            known.update(node.output)
            found.append(node)
    return found


def _are_wide(shapes: list[list[int]], widths: list[int]) -> bool:
    return all(shape[-1:] in ([], [0], [width]) for shape, width in zip(shapes, widths, strict=True))


def _shape(value: Any) -> list[int]:
    """0 where a dimension is free."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]
