"""The demo pack: two ONNX files that load like any InsightFace pack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.core.files import write_atomic
from app.demo.detector import detector_model
from app.demo.recogniser import recogniser_model

if TYPE_CHECKING:
    import onnx

PACK_VERSION: Final = 1
"""Increase it with every change of a graph or of a drawing; packs of another version are rewritten."""

DETECTOR_FILE: Final = "det_demo.onnx"
RECOGNISER_FILE: Final = "rec_demo.onnx"

_BUILDERS: Final[tuple[tuple[str, Callable[[int], onnx.ModelProto]], ...]] = (
    (DETECTOR_FILE, detector_model),
    (RECOGNISER_FILE, recogniser_model),
)


def write_demo_pack(folder: Path) -> bool:
    """Write the files of the pack that are missing, damaged or of another version.

    Args:
        folder: the pack's folder, created if missing.

    Returns:
        Whether a file was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    outdated = [(name, build) for name, build in _BUILDERS if not _is_current(folder / name)]
    for name, build in outdated:
        write_atomic(folder / name, build(PACK_VERSION).SerializeToString(deterministic=True), durable=False)
    return bool(outdated)


def _is_current(path: Path) -> bool:
    """Whether the file is a readable model of this version."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model(path)
    except (OSError, DecodeError):
        return False
    return model.producer_name == "oceano" and model.model_version == PACK_VERSION
