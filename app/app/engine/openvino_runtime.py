"""Sessions of OpenVINO, an optional package, on a CPU or an Intel GPU.

On processors with BF16 or VNNI it can be faster than ONNX Runtime.
"""

from __future__ import annotations

import contextlib
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

# What OpenVINO calls the precisions, in the capabilities of a device and in its hints. Without a hint, GPUs use f16.
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
        model.reshape({graph.input_name: _shape(graph, placement)})
        self._device = "GPU" if placement.on_intel_gpu else "CPU"
        self._compiled = core.compile_model(model, self._device, _options(placement))
        self._outputs = len(self._compiled.outputs)
        self._requests = threading.local()

    @property
    def provider(self) -> str:
        """OpenVINO and the device that it runs on."""
        return f"OpenVINO {self._device}"

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


def run_on_gpu(model: bytes, inputs: dict[str, Floats]) -> Floats:
    """Run a small model once on an Intel GPU, in fp32.

    Args:
        model: an ONNX file's bytes.
        inputs: by name.

    Returns:
        The first output.

    Raises:
        Exception: whatever OpenVINO raises.
    """
    core = _core()
    compiled = core.compile_model(core.read_model(model), "GPU", {"INFERENCE_PRECISION_HINT": _HINTS["fp32"]})
    return np.array(compiled(inputs)[0], dtype=np.float32)


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def _options(placement: Placement) -> dict[str, Any]:
    streams = max(1, placement.streams)
    options = {"INFERENCE_PRECISION_HINT": _HINTS[placement.precision], "NUM_STREAMS": streams}
    if not placement.on_intel_gpu:
        return options | {
            "INFERENCE_NUM_THREADS": streams * placement.threads,
            "ENABLE_CPU_PINNING": False,  # other threads of the process use the same processors
        }
    if placement.cache:  # compiling the kernels of a GPU can take minutes
        folder = placement.cache.folder / "openvino"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            options["CACHE_DIR"] = str(folder)
    return options


def _shape(graph: Graph, placement: Placement) -> list[int]:
    """Return the input's shape; on a GPU, a batch of any size would be slow or not possible."""
    width, height = graph.input_size or (-1, -1)
    return [1 if placement.on_intel_gpu else -1, 3, height, width]
