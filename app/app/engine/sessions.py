"""A model that is loaded in one of the runtimes."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Protocol

from app.core.errors import OceanoError, is_full
from app.core.onnx_graph import Graph, describe
from app.core.types import Floats
from app.engine.graph_optimizations import rewrite
from app.engine.onnx_runtime import OnnxRuntimeSession
from app.engine.openvino_runtime import OpenVinoSession
from app.engine.placement import Placement
from app.engine.prepared import Entry

_log = logging.getLogger(__name__)


class Session(Protocol):
    """A loaded model. Safe to call from several threads."""

    @property
    def provider(self) -> str:
        """Name of the runtime's device that the model runs on."""
        ...

    def run(self, blob: Floats) -> list[Floats]:
        """Run the model once.

        Args:
            blob: the input, float32, (N, 3, H, W).

        Returns:
            The graph's outputs as float32.

        Raises:
            Exception: whatever the runtime raises.
        """
        ...

    def release_memory(self) -> None:
        """Return the memory that the runtime keeps from larger inputs.

        Raises:
            Exception: whatever the runtime raises.
        """
        ...


def open_session(path: Path, placement: Placement, *, free_batch: bool) -> tuple[Session, Graph]:
    """Load a model in the runtime of a placement.

    Args:
        path: the ONNX file.
        placement: where and how to run it.
        free_batch: make the batch dimension dynamic.

    Returns:
        The session, and the description of the graph.

    Raises:
        OceanoError: `model_corrupt` if the file is not a face model or cannot be loaded, `device_unavailable` if it
            cannot be loaded on an Intel GPU, `disk_full`.
    """
    kept = kept_entry(path, placement, free_batch=free_batch)
    try:
        if kept and (opened := _kept_session(kept, placement)):
            return opened
        with tempfile.TemporaryDirectory(prefix="oceano-") as folder:
            file, graph = _prepare(path, placement, Path(folder), free_batch=free_batch)
            if placement.runtime == "openvino":
                return OpenVinoSession(file, graph, placement), graph
            return _in_onnx_runtime(file, graph, placement, kept), graph
    except OceanoError:
        raise
    except Exception as failure:  # the exceptions of onnx and of the runtimes have no common base but Exception
        if isinstance(failure, OSError) and is_full(failure):
            folder = tempfile.gettempdir()
            message = f"loading {path.name} needs {path.stat().st_size} bytes in {folder}: free some space there"
            raise OceanoError("disk_full", message, details={"folder": folder}) from failure
        message = f"{path.name} cannot be loaded: {failure}"
        if placement.on_intel_gpu:  # then the driver is the likelier cause
            raise OceanoError("device_unavailable", f"DEVICE=intel_gpu, but {message}; or set DEVICE=cpu") from failure
        raise OceanoError("model_corrupt", message, details={"file": str(path)}) from failure


def _prepare(path: Path, placement: Placement, folder: Path, *, free_batch: bool) -> tuple[Path, Graph]:
    """Return a file that the runtime can load, in `folder` if it differs from the model's, and its description."""
    import onnx

    model = onnx.load(path)
    graph = describe(model)
    if isinstance(graph, str):
        raise OceanoError("model_corrupt", f"{path.name} is not a face model: {graph}", details={"file": str(path)})
    in_openvino = placement.runtime == "openvino"
    for_cpu = not placement.on_cuda and not in_openvino
    in_int8 = placement.precision == "int8"
    changed = rewrite(model, graph, free_batch=free_batch, for_cpu=for_cpu, keep_quantized=in_int8)
    if placement.precision == "fp16" and not in_openvino:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model, changed = convert_float_to_float16(model, keep_io_types=True), True
    if not changed:
        return path, graph
    onnx.save(model, folder / path.name)
    return folder / path.name, graph


def kept_entry(path: Path, placement: Placement, *, free_batch: bool) -> Entry | None:
    """Return where the optimized graph is kept; None if it is not. The arguments are those of `open_session`."""
    if placement.cache is None or placement.on_cuda or placement.runtime == "openvino" or not path.is_file():
        return None
    return placement.cache.entry(path, f"{placement.precision} {free_batch}")


def _kept_session(kept: Entry, placement: Placement) -> tuple[Session, Graph] | None:
    """Load the optimized graph; None if it is not there or cannot be loaded."""
    if graph := kept.read():
        try:
            return OnnxRuntimeSession(kept.file, graph, placement, optimized=True), graph
        except Exception as failure:  # noqa: BLE001 - the exceptions of ONNX Runtime have no common base but Exception
            _log.warning("%s cannot be loaded, so the model is prepared again: %s", kept.file, failure)
    return None


def _in_onnx_runtime(file: Path, graph: Graph, placement: Placement, kept: Entry | None) -> Session:
    """Load a prepared file, and keep it as ONNX Runtime optimizes it."""
    new = kept.new_file(2 * file.stat().st_size) if kept else None
    if kept is None or new is None:
        return OnnxRuntimeSession(file, graph, placement)
    try:
        session = OnnxRuntimeSession(file, graph, placement, save_to=new)
        kept.keep(new, graph)
        return session
    except Exception as failure:  # noqa: BLE001 - as above; such as a disk that is full
        _log.warning("%s is loaded without keeping its optimized graph: %s", file.name, failure)
        return OnnxRuntimeSession(file, graph, placement)
    finally:
        new.unlink(missing_ok=True)
