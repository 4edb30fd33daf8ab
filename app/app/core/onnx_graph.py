"""Fingerprints of ONNX files, and the kind of model that a file holds."""

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

_MIN_STAMP_AGE_NS: Final = 2 * 10**9


@dataclass(frozen=True, slots=True)
class Graph:
    """The inputs and outputs of an ONNX graph.

    Attributes:
        family: how the input and outputs are read. `scrfd`: SCRFD and RetinaFace detectors; `yunet`: YuNet detectors;
            `arcface`: recognisers of aligned crops.
        input_name: the name of the only input that is not a weight.
        input_size: (width, height) in pixels, None if the graph accepts any size.
        mean: subtracted from pixel values.
        std: divides pixel values after the subtraction.
        swap: whether channels are in the order RGB; otherwise BGR.
        embedding_size: length of an embedding, 0 for a detector.
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
        """The role in a model pack."""
        return "recogniser" if self.family == "arcface" else "detector"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The hash of a file, and a stamp that tells whether the file has changed since.

    Attributes:
        file: the file's name.
        sha256: SHA-256 of its bytes, hex.
        stamp: size (bytes), mtime (ns) and inode; None if the file was too new for its mtime to prove anything.
    """

    file: str
    sha256: str
    stamp: tuple[int, ...] | None


def fingerprint(path: Path, before: Fingerprint | None = None) -> Fingerprint:
    """Hash a file, unless its stamp is the same as before.

    Args:
        path: the file.
        before: an earlier fingerprint, which is returned if name and stamp are unchanged.

    Raises:
        OceanoError: `model_corrupt` if the file cannot be read.
    """
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
    # Two writes within one tick of the file system's clock have the same mtime, so a recent mtime proves nothing.
    is_old_enough = time.time_ns() - info.st_mtime_ns > _MIN_STAMP_AGE_NS
    return Fingerprint(path.name, sha256, stamp if is_old_enough else None)


def onnx_files(folder: Path) -> list[Path]:
    """List the ONNX files of a folder, sorted by name.

    Args:
        folder: the folder.

    Returns:
        The files without hidden ones; none if the folder is missing or cannot be entered.
    """
    try:
        return sorted(path for path in folder.glob("*.onnx") if is_there(path) and not path.name.startswith("."))
    except OSError:
        return []


def is_there(file: Path) -> bool:
    """Return whether the file exists; False if its folder cannot be entered."""
    try:
        return file.is_file()
    except OSError:
        return False


def find_roles(folder: Path) -> dict[Role, Path]:
    """Find the only detector and the only recogniser in a folder; other models are ignored.

    Args:
        folder: the folder.

    Returns:
        The file of each role.

    Raises:
        OceanoError: `model_not_found` if a role has no file or several; the message lists all files.
    """
    contents = {path: look(path) for path in onnx_files(folder)}
    roles = {path: content.role for path, content in contents.items() if isinstance(content, Graph)}
    found: dict[Role, Path] = {}
    for role in ROLES:
        candidates = [path for path, other in roles.items() if other == role]
        if len(candidates) != 1:
            seen = "; ".join(f"{path.name}: {roles.get(path, content)}" for path, content in contents.items())
            message = f"exactly one {role} needed, {len(candidates)} found: {seen or 'no .onnx files'}"
            raise OceanoError("model_not_found", message, details={"folder": str(folder)})
        found[role] = candidates[0]
    return found


def look(path: Path) -> Graph | str:
    """Read an ONNX file and describe its graph.

    Args:
        path: the file.

    Returns:
        The description, or the reason why it is not a face model that Oceano can run.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return describe(onnx.load(path, load_external_data=False))
    except DecodeError:
        return "not a readable ONNX file"
    except OSError as failure:
        return f"it cannot be read ({failure.strerror})"
    except Exception as failure:  # noqa: BLE001 - an invalid graph can raise anything, and must not hide the other files
        return f"not a valid ONNX graph ({type(failure).__name__})"


def describe(model: Any) -> Graph | str:
    """Describe a model by its inputs and outputs, as InsightFace's model router does.

    Args:
        model: an onnx.ModelProto.

    Returns:
        The description, or the reason why it is not a face model that Oceano can run.
    """
    graph = model.graph
    if _is_external(graph):
        return "its weights are in another file, which the digest does not cover"
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
    """Whether a tensor is stored in another file, including those of Constant nodes and nested graphs."""
    tensors = list(graph.initializer)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        tensors += [attribute.t, *attribute.tensors]
        if any(
            _is_external(inner) for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
        ):
            return True
    return any(tensor.data_location == _EXTERNAL for tensor in tensors)


def real_inputs(graph: Any) -> list[Any]:
    """List the inputs that a run needs.

    Args:
        graph: an onnx.GraphProto.

    Returns:
        The inputs without weights and unused names, which old files list too.
    """
    weights = {tensor.name for tensor in graph.initializer}
    used = {name for node in graph.node for name in node.input}
    inputs = [value for value in graph.input if value.name not in weights]
    return [value for value in inputs if value.name in used] if len(inputs) > 1 else inputs


def _recogniser(model: Any, name: str, input_shape: list[int], output_shape: list[int]) -> Graph | str:
    height, width = (side or 112 for side in input_shape[2:])
    if height != width or height > _LARGEST_CROP or (height % 112 and height % 128):  # as InsightFace aligns crops
        return f"another model, input {width}x{height}"
    size = output_shape[-1] if len(output_shape) == 2 and output_shape[-1] else _inferred_size(model)
    if not size:
        return f"another model, output {'x'.join(map(str, output_shape))}"
    if size % 32 or not 0 < size <= LARGEST_EMBEDDING:  # 1000: a classifier
        return f"another model, {size} values per image"
    mean, std = (0.0, 1.0) if _normalizes_input(model.graph, name) else (127.5, 127.5)
    return Graph("arcface", name, (width, height), mean, std, swap=True, embedding_size=size)


def _inferred_size(model: Any) -> int:
    """Embedding size by shape inference, if the output has no shape; 0 if the output is not (N, size)."""
    import onnx

    without_shape = onnx.ModelProto()
    without_shape.CopyFrom(model)
    without_shape.graph.output[0].type.tensor_type.ClearField("shape")
    shape = _shape(onnx.shape_inference.infer_shapes(without_shape).graph.output[0])
    return shape[1] if len(shape) == 2 else 0


def _normalizes_input(graph: Any, name: str) -> bool:
    """Whether the graph starts by subtracting a mean from its input and scaling it."""
    operators = []
    for _ in range(2):
        node = next((node for node in graph.node if name in node.input), None)
        if node is None:
            break
        operators.append(node.op_type)
        name = node.output[0]
    return operators in (["Sub", "Mul"], ["Sub", "Div"])


def _detector(graph: Any, name: str, input_shape: list[int], outputs: list[list[int]]) -> Graph | str:
    size = (input_shape[3], input_shape[2]) if input_shape[2] and input_shape[3] else None
    if len(outputs) == 12:
        return _yunet(graph, name, size, outputs)
    return _scrfd(name, size, outputs)


def _scrfd(name: str, size: tuple[int, int] | None, outputs: list[list[int]]) -> Graph | str:
    """SCRFD and RetinaFace return scores, boxes and landmarks, 1, 4 and 10 values wide, for each of 3 or 5 strides."""
    strides = 3 if len(outputs) in (6, 9) else 5
    if len(outputs) not in (2 * strides, 3 * strides):
        return "another model"
    widths = [(1, 4, 10)[number // strides] for number in range(len(outputs))]
    if not _have_widths(outputs, widths):
        return "another model"
    if len(outputs) == 2 * strides:
        return "a detector without landmarks"
    return Graph("scrfd", name, size, 127.5, 128.0, swap=True, stride=32 if strides == 3 else 128)


def _yunet(graph: Any, name: str, size: tuple[int, int] | None, outputs: list[list[int]]) -> Graph | str:
    """YuNet returns class and object scores, boxes and landmarks, 1, 1, 4 and 10 values wide, for each of 3 strides."""
    if not _have_widths(outputs, [(1, 1, 4, 10)[number // 3] for number in range(12)]):
        return "another model"
    return Graph("yunet", name, size if _depends_on_size(graph) else None, 0.0, 1.0, swap=False)


def _depends_on_size(graph: Any) -> bool:
    """Published YuNet files name an input of 640 x 640, but only these operations would depend on it."""
    if any(node.op_type == "Resize" and len(node.input) > 3 and node.input[3] for node in graph.node):
        return True
    return any(shape is None or -1 not in shape for _, shape in reshapes(graph))


def reshapes(graph: Any) -> list[tuple[Any, Any]]:
    """List the Reshape nodes that depend on the graph's input.

    Args:
        graph: an onnx.GraphProto.

    Returns:
        Each node with its new shape as an array of integers, None if the shape is computed.
    """
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
    """List the nodes that depend on weights alone, not on the graph's input.

    Args:
        graph: an onnx.GraphProto.
    """
    known = {tensor.name for tensor in graph.initializer} | {""}
    nodes = []
    for node in graph.node:
        if (node.input and known.issuperset(node.input)) or node.op_type == "Constant":
            known.update(node.output)
            nodes.append(node)
    return nodes


def _have_widths(shapes: list[list[int]], widths: list[int]) -> bool:
    return all(shape[-1:] in ([], [0], [width]) for shape, width in zip(shapes, widths, strict=True))


def _shape(value: Any) -> list[int]:
    """The shape, with 0 for dynamic dimensions."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]
