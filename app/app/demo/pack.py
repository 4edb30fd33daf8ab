"""Writes the demo pack: two ONNX files that load like any InsightFace pack."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.demo.detector import detector_model
from app.demo.recogniser import recogniser_model

if TYPE_CHECKING:
    import onnx

PACK_VERSION: Final = 1
"""Raise it with every change of a graph or of a drawing: packs of another version are written anew."""

DETECTOR_FILE: Final = "det_demo.onnx"
RECOGNISER_FILE: Final = "rec_demo.onnx"

_MAKERS: Final[tuple[tuple[str, Callable[[int], onnx.ModelProto]], ...]] = (
    (DETECTOR_FILE, detector_model),
    (RECOGNISER_FILE, recogniser_model),
)


def write_demo_pack(folder: Path) -> bool:
    """Write the files that are missing, damaged or of another version, say if there were any; leave the others."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [(name, make) for name, make in _MAKERS if not _current(folder / name)]
    for name, make in missing:
        write_whole(folder / name, make(PACK_VERSION).SerializeToString(deterministic=True))
    return bool(missing)


def write_whole(path: Path, content: bytes) -> None:
    """Write beside, then rename: nobody ever sees half a file."""
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _current(path: Path) -> bool:
    """Is it a readable model of this version?"""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model(path)
    except (OSError, DecodeError):
        return False
    return model.producer_name == "oceano" and model.model_version == PACK_VERSION
