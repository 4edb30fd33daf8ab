"""Sessions of OpenVINO, an optional package; on processors with BF16 or VNNI it can be faster than ONNX Runtime."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import threading
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from app.core.onnx_graph import Graph
from app.core.types import Floats, Precision
from app.engine.placement import Placement

# What OpenVINO's CPU plugin calls the precisions, in its capabilities and in its hints.
_CAPABILITIES: Final[dict[Precision, str]] = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16", "int8": "INT8"}
_HINTS: Final[dict[Precision, str]] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}


@cache
def installed() -> bool:
    """Whether the package can be imported; does not import it."""
    return importlib.util.find_spec("openvino") is not None


def version() -> str:
    """The version of the installed package."""
    return importlib.metadata.version("openvino")


@cache
def precisions() -> tuple[Precision, ...]:
    """Return the precisions that this processor has instructions for."""
    capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(precision for precision, name in _CAPABILITIES.items() if name in capabilities)


class OpenVinoSession:
    """A model in OpenVINO; safe to call from several threads.

    Args:
        file: the ONNX file.
        graph: its description.
        placement: where and how to run it.

    Raises:
        Exception: whatever OpenVINO raises.
    """

    def __init__(self, file: Path, graph: Graph, placement: Placement) -> None:
        core = _core()
        model = core.read_model(file)
        model.reshape({graph.input_name: _shape(graph)})
        streams = max(1, placement.streams)
        self._compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _HINTS[placement.precision],
                "NUM_STREAMS": streams,
                "INFERENCE_NUM_THREADS": streams * placement.threads,
                "ENABLE_CPU_PINNING": False,  # other threads of the process use the same processors
            },
        )
        self._outputs = len(self._compiled.outputs)
        self._requests = threading.local()

    @property
    def provider(self) -> str:
        """OpenVINO and the device that it runs on."""
        return "OpenVINO CPU"

    def run(self, blob: Floats) -> list[Floats]:
        """Run the model once; see `Session`."""
        request = getattr(self._requests, "request", None)
        if request is None:
            request = self._requests.request = self._compiled.create_infer_request()
        request.infer([blob], share_inputs=True)
        tensors = (request.get_output_tensor(number) for number in range(self._outputs))
        return [np.array(tensor.data, dtype=np.float32) for tensor in tensors]  # the next run overwrites the tensors

    def release_memory(self) -> None:
        """Return the memory that OpenVINO keeps from larger inputs."""
        self._compiled.release_memory()


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def _shape(graph: Graph) -> list[int]:
    width, height = graph.input_size or (-1, -1)
    return [-1, 3, height, width]
