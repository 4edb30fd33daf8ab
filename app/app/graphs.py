"""What an ONNX file is: which one, by its fingerprint, and in which role, by its graph."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from app.errors import OceanoError
from app.types import EMBEDDING_SIZE

Role = Literal["detector", "recogniser"]
ROLES: Final[tuple[Role, Role]] = ("detector", "recogniser")

_SETTLED_NS: Final = 2 * 10**9


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
    found: dict[Role, Path] = {}
    for role in ROLES:
        candidates = [path for path, told in looks.items() if told == role]
        if len(candidates) != 1:
            seen = "; ".join(f"{path.name}: {told}" for path, told in looks.items()) or "no .onnx files"
            message = f"exactly one {role} needed, {len(candidates)} found: {seen}"
            raise OceanoError("model_not_found", message, details={"folder": str(folder)})
        found[role] = candidates[0]
    return found


def look(path: Path) -> str:
    """A role, or in words why it is none, as InsightFace's own router tells it from inputs and outputs."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError:
        return "not a readable ONNX file"
    except OSError as failure:
        return f"it cannot be read ({failure.strerror})"
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        return "its weights lie in another file, where no digest covers them"
    weights = {tensor.name for tensor in graph.initializer}  # old files list them among the inputs
    inputs = [_shape(value) for value in graph.input if value.name not in weights]
    outputs = [_shape(value) for value in graph.output]
    if len(inputs) != 1 or len(inputs[0]) != 4 or inputs[0][1] not in (0, 3):
        return "another model"
    return _recogniser_or_not(inputs[0], outputs[0]) if len(outputs) == 1 else _detector_or_not(outputs)


def _recogniser_or_not(taken: list[int], given: list[int]) -> str:
    height, width = taken[2:]
    if height != width or height < 112 or height % 16 or height == 192:  # 192: InsightFace's landmark models
        return f"another model, input {width}x{height}"
    if given[-1:] not in ([], [0], [EMBEDDING_SIZE]):
        return f"embeddings of {given[-1]} values, not {EMBEDDING_SIZE}"
    return "recogniser"


def _detector_or_not(outputs: list[list[int]]) -> str:
    """SCRFD and RetinaFace give scores, boxes and landmarks, 1, 4 and 10 values wide, for each of 3 or 5 strides."""
    strides = 3 if len(outputs) in (6, 9) else 5
    if len(outputs) not in (2 * strides, 3 * strides):
        return "another model"
    widths = [(1, 4, 10)[number // strides] for number in range(len(outputs))]
    if any(shape[-1:] not in ([], [0], [width]) for shape, width in zip(outputs, widths, strict=True)):
        return "another model"
    return "detector" if len(outputs) == 3 * strides else "a detector without landmarks"


def _shape(value: Any) -> list[int]:
    """0 where a dimension is free."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]
