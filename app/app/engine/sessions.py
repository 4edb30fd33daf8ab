"""A model that is loaded in one of the runtimes."""

from __future__ import annotations

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
        OceanoError: `model_corrupt` if the file is not a face model or cannot be loaded, `disk_full`.
    """
    import onnx

    try:
        model = onnx.load(path)
        graph = describe(model)
        if isinstance(graph, str):
            raise OceanoError("model_corrupt", f"{path.name} is not a face model: {graph}", details={"file": str(path)})
        in_openvino = placement.runtime == "openvino"
        for_onnx_runtime_on_cpu = not placement.on_cuda and not in_openvino
        changed = rewrite(model, graph, free_batch=free_batch, for_cpu=for_onnx_runtime_on_cpu)
        if placement.precision == "fp16" and not in_openvino:
            from onnxruntime.transformers.float16 import convert_float_to_float16

            model, changed = convert_float_to_float16(model, keep_io_types=True), True
        with tempfile.TemporaryDirectory(prefix="oceano-") as folder:
            file = Path(folder) / path.name if changed else path
            if changed:
                onnx.save(model, file)
            del model
            opened = OpenVinoSession if in_openvino else OnnxRuntimeSession
            return opened(file, graph, placement), graph
    except OceanoError:
        raise
    except Exception as failure:  # the exceptions of onnx and of the runtimes have no common base but Exception
        if isinstance(failure, OSError) and is_full(failure):
            folder = tempfile.gettempdir()
            message = f"loading {path.name} needs {path.stat().st_size} bytes in {folder}: free some space there"
            raise OceanoError("disk_full", message, details={"folder": folder}) from failure
        raise OceanoError(
            "model_corrupt", f"{path.name} cannot be loaded: {failure}", details={"file": str(path)}
        ) from failure
