"""Sessions of ONNX Runtime; the only module that loads models with InsightFace."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from app.core.errors import OceanoError
from app.core.onnx_graph import Graph
from app.core.types import DeviceInfo, Floats
from app.engine.openvino_runtime import run_on_gpu
from app.engine.placement import Placement, place

PROBE_SIDE: Final = 128  # a multiple of every detector's strides


class OnnxRuntimeSession:
    """A model in ONNX Runtime; safe to call from several threads.

    Args:
        file: the ONNX file.
        graph: its description.
        placement: where and how to run it.
        save_to: also write the optimized graph to this file.
        optimized: the file is such a graph.

    Raises:
        Exception: whatever ONNX Runtime raises.
    """

    def __init__(
        self,
        file: Path,
        graph: Graph,
        placement: Placement,
        *,
        save_to: Path | None = None,
        optimized: bool = False,
    ) -> None:
        self._graph = graph
        options = _options(placement)
        if save_to:
            options.optimized_model_filepath = str(save_to)
        if optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            self._session = _inference_session(str(file), options, placement)
        else:
            self._session = _session(file, graph, options, placement)

    @property
    def provider(self) -> str:
        """The provider in use; ONNX Runtime falls back to the CPU without an error."""
        return str(self._session.get_providers()[0])

    def run(self, blob: Floats) -> list[Floats]:
        """Run the model once; see `Session`."""
        outputs = self._session.run(None, {self._graph.input_name: blob})
        return [np.asarray(output, dtype=np.float32) for output in outputs]

    def release_memory(self) -> None:
        """Return the memory that ONNX Runtime keeps from larger inputs, on the CPU; runs the model on a small one."""
        width, height = self._graph.input_size or (PROBE_SIDE, PROBE_SIDE)
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._session.run(None, {self._graph.input_name: np.zeros((1, 3, height, width), np.float32)}, options)


def probe(wanted: str) -> DeviceInfo:
    """Test the device by running a small convolution, which needs a working driver, CUDA and cuDNN.

    Args:
        wanted: the setting DEVICE.

    Returns:
        The device in use.

    Raises:
        OceanoError: `device_unavailable` if the convolution fails, or a GPU is required and not used.
    """
    from onnx import TensorProto, helper

    placement = place(wanted, threads=1)
    pixels, weights = [1, 3, 32, 32], [8, 3, 3, 3]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["pixels", "weights"], ["result"])],
        "probe",
        [
            helper.make_tensor_value_info("pixels", TensorProto.FLOAT, pixels),
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, weights),
        ],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, [1, 8, 30, 30])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    inputs = {"pixels": np.ones(pixels, np.float32), "weights": np.ones(weights, np.float32)}
    try:
        result, provider = _run_once(model.SerializeToString(), inputs, placement)
        correct = bool(np.allclose(result, 27))
    except Exception as failure:  # onnxruntime's exceptions have no common base but Exception
        raise OceanoError("device_unavailable", f"a test convolution failed: {failure}") from failure
    if not correct:
        raise OceanoError("device_unavailable", f"{provider} computes a wrong result: the sum of 27 ones is not 27")
    if placement.on_intel_gpu:
        return DeviceInfo("intel_gpu", provider, placement.reason)
    if placement.on_cuda and provider != "CUDAExecutionProvider" and wanted == "cuda":
        raise OceanoError(
            "device_unavailable",
            "DEVICE=cuda, but ONNX Runtime fell back to the CPU: the CUDA or cuDNN libraries or the driver are "
            "not compatible",
        )
    return DeviceInfo("cuda" if provider == "CUDAExecutionProvider" else "cpu", provider, placement.reason)


def _run_once(model: bytes, inputs: dict[str, Floats], placement: Placement) -> tuple[Floats, str]:
    """Return the first output, and the name of the device that computed it."""
    if placement.on_intel_gpu:
        return run_on_gpu(model, inputs), "OpenVINO GPU"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = _inference_session(model, options, placement)
    return session.run(None, inputs)[0], str(session.get_providers()[0])


def _options(placement: Placement) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = placement.threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait slow down the other session: 50 ms instead of 23 for an image.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only: graphs name output shapes of one input size, others cause warnings
    return options


def _session(path: Path, graph: Graph, options: Any, placement: Placement) -> Any:
    if graph.family == "yunet":  # not supported by InsightFace
        return _inference_session(str(path), options, placement)
    from insightface.model_zoo import get_model  # takes half a second; a start from kept graphs does without it

    names, provider_options = _providers(placement)
    return get_model(str(path), providers=names, provider_options=provider_options, sess_options=options).session


def _inference_session(model: str | bytes, options: Any, placement: Placement) -> Any:
    """Open a session without InsightFace, which would load the CUDA libraries; `model` is a path or a file's bytes."""
    if placement.on_cuda and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    names, provider_options = _providers(placement)
    return onnxruntime.InferenceSession(model, options, names, provider_options)


def _providers(placement: Placement) -> tuple[list[str], list[dict[str, str]]]:
    """Names and options of the providers, as ONNX Runtime expects them."""
    return [name for name, _ in placement.providers], [options for _, options in placement.providers]
