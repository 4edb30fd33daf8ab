"""ONNX Runtime sessions: device, threads, precision and batch size.

The only module that imports onnxruntime and insightface (which loads the models).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import onnxruntime
from insightface.model_zoo import get_model

from app.core.errors import OceanoError, is_full
from app.core.onnx_graph import Graph, describe
from app.core.types import DeviceInfo, Floats, Pixels
from app.engine.cuda import driver_problem, preload_libraries
from app.engine.frames import blob_of
from app.engine.graph_optimizations import rewrite

_log = logging.getLogger(__name__)

Precision = Literal["fp32", "fp16"]

# On a GPU, cuDNN selects its algorithms once for each shape, so batches are padded to a few sizes.
_BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
# cudnn_conv_algo_search: EXHAUSTIVE, the default of ONNX Runtime, tries all algorithms (before 1.20). Others measured
# about 0.6 s and up to gigabytes for each shape of six convolutions, and no faster runs afterwards (PaddleX, pull
# request 5057). DEFAULT can be 50 times slower (PaddleOCR, 17970). bench/device.py compares them.
# arena_extend_strategy: two models and a few shapes need far less memory than doubling the arena would allocate.
# No IO binding: images come from CPU memory and results return to it, with the same copies (microsoft/onnxruntime,
# issue 18475).
_CUDA: Final[Mapping[str, str]] = MappingProxyType(
    {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
)
_NO_GATE: Final = nullcontext()
_PROBE_SIDE: Final = 128  # a multiple of every detector's strides
_OUT_OF_MEMORY: Final = ("out of memory", "failed to allocate", "alloc_failed", "cudaerrormemoryallocation", "bfcarena")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how sessions run.

    Attributes:
        providers: names and options of ONNX Runtime's execution providers, preferred first.
        reason: why this device was chosen.
        threads: of each session; 0 leaves the number to ONNX Runtime.
        precision: of the weights and computations.
    """

    providers: tuple[tuple[str, dict[str, str]], ...]
    reason: str
    threads: int = 1
    precision: Precision = "fp32"

    @property
    def on_cuda(self) -> bool:
        """Whether CUDA is the preferred provider."""
        return self.providers[0][0] == "CUDAExecutionProvider"


def place(wanted: str, *, threads: int, precision: Precision = "fp32") -> Placement:
    """Choose the device for sessions.

    Args:
        wanted: the setting DEVICE: auto, cpu or cuda.
        threads: of each session; 0 leaves the number to ONNX Runtime.
        precision: of the weights and computations.

    Raises:
        OceanoError: `device_unavailable` if CUDA is required and not available.
    """
    cpu: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})
    available = onnxruntime.get_available_providers()
    if wanted == "cpu":
        return Placement((cpu,), "DEVICE=cpu", threads, precision)
    if "CUDAExecutionProvider" not in available:
        problem = "the installed onnxruntime does not support CUDA"
        advice = "install requirements.txt (CUDA 11.8), requirements-cu12.txt or requirements-cu13.txt"
    elif (problem := driver_problem(getattr(onnxruntime, "cuda_version", "") or "") or "") == "":
        if not hasattr(onnxruntime, "preload_dlls"):  # otherwise insightface calls it before its first CUDA session
            preload_libraries()
        return Placement(
            (("CUDAExecutionProvider", dict(_CUDA)), cpu), f"CUDA is available (DEVICE={wanted})", threads, precision
        )
    else:
        advice = "install a compatible driver (see INSTALL.md)"
    if wanted == "cuda":
        raise OceanoError(
            "device_unavailable",
            f"DEVICE=cuda, but {problem}: {advice}, or set DEVICE=cpu",
            details={"available": list(available)},
        )
    return Placement((cpu,), problem, threads, precision)


class Network:
    """A loaded model; safe to call from several threads.

    Args:
        path: the ONNX file.
        placement: where and how to run it.
        max_batch: largest number of images per run. Above 1, the batch dimension, which published detectors fix at 1,
            is made dynamic; a graph whose results then differ runs one image at a time.

    Attributes:
        name: the file's name.
        graph: description of the input, and how to read the outputs.

    Raises:
        OceanoError: `model_corrupt` if the file is not a face model or cannot be loaded, `disk_full`.
    """

    def __init__(self, path: Path, placement: Placement, *, max_batch: int) -> None:
        self.name = path.name
        self._pad = placement.on_cuda
        self._max_batch = max_batch
        self._session, self.graph = _load(path, placement, free_batch=max_batch > 1)
        if max_batch > 1 and not self._runs_batches():
            _log.warning("%s returns different results in batches: images run one at a time", path.name)
            self._max_batch = 1
            self._session, self.graph = _load(path, placement, free_batch=False)

    @property
    def provider(self) -> str:
        """The provider in use; ONNX Runtime falls back to the CPU without an error."""
        return str(self._session.get_providers()[0])

    def run(self, blob: Floats) -> list[Floats]:
        """Run the model once.

        Args:
            blob: the input, float32, (N, 3, H, W).

        Returns:
            The graph's outputs as float32.

        Raises:
            Exception: whatever ONNX Runtime raises.
        """
        return [
            np.asarray(output, dtype=np.float32) for output in self._session.run(None, {self.graph.input_name: blob})
        ]

    def release_memory(self) -> None:
        """Return the memory that ONNX Runtime keeps from larger inputs, on the CPU; runs the model on a small one.

        Raises:
            Exception: whatever ONNX Runtime raises.
        """
        width, height = self.graph.input_size or (_PROBE_SIDE, _PROBE_SIDE)
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._session.run(None, {self.graph.input_name: np.zeros((1, 3, height, width), np.float32)}, options)

    def _runs_batches(self) -> bool:
        """Whether two images give the same results together as alone; for a detector, whether a batch of two runs."""
        width, height = self.graph.input_size or (_PROBE_SIDE, _PROBE_SIDE)
        blob = np.random.default_rng(1).uniform(-1, 1, (2, 3, height, width)).astype(np.float32)
        try:
            together = self.run(blob)
            if self.graph.role == "detector":
                return True
            alone = np.concatenate([self.run(image[None])[0] for image in blob])
        except Exception as failure:  # noqa: BLE001 - onnxruntime's exceptions have no common base but Exception
            return _is_out_of_memory(failure)  # says nothing about the graph
        return bool(np.allclose(together[0], alone, rtol=1e-2, atol=1e-2 * float(np.abs(alone).max())))

    def batches(
        self, pictures: Sequence[Pixels], gate: AbstractContextManager[object] = _NO_GATE
    ) -> Iterator[tuple[slice, int, list[Floats]]]:
        """Run the model on images, one batch at a time.

        If the device runs out of memory, the batch size is halved permanently.

        Args:
            pictures: images of one size, BGR, uint8, (H, W, 3).
            gate: entered for each run, so that the images of other callers come between.

        Yields:
            The batch as a slice of `pictures`, its size after padding with black images at the end, and the outputs.

        Raises:
            Exception: whatever ONNX Runtime raises.
        """
        start = 0
        while start < len(pictures):
            count = min(self._max_batch, len(pictures) - start)
            padded = next(size for size in _BATCH_SIZES if size >= count) if self._pad else count
            batch = list(pictures[start : start + count])
            if padded > count:
                batch += [np.zeros_like(batch[0])] * (padded - count)
            blob = blob_of(batch, self.graph)
            try:
                with gate:
                    outputs = self.run(blob)
            except Exception as failure:  # onnxruntime's exceptions have no common base but Exception
                if not _is_out_of_memory(failure) or self._max_batch == 1:
                    raise
                self._max_batch = max(1, count // 2)
                _log.warning("%s: out of device memory; batch size reduced to %d", self.name, self._max_batch)
                continue
            yield slice(start, start + count), padded, outputs
            start += count


def real_device(placement: Placement, wanted: str, networks: Sequence[Network]) -> DeviceInfo:
    """Return the device that the loaded networks use.

    Args:
        placement: the placement they were loaded with.
        wanted: the setting DEVICE: auto, cpu or cuda.
        networks: the loaded networks.

    Raises:
        OceanoError: `device_unavailable` if CUDA is required and ONNX Runtime fell back to the CPU.
    """
    on_cuda = all(network.provider == "CUDAExecutionProvider" for network in networks)
    if wanted == "cuda" and not on_cuda:
        raise OceanoError(
            "device_unavailable",
            "DEVICE=cuda, but ONNX Runtime fell back to the CPU: the CUDA or cuDNN libraries or the driver are "
            "not compatible with this onnxruntime-gpu. See INSTALL.md, or set DEVICE=cpu",
            details={"onnxruntime": onnxruntime.__version__},
        )
    if on_cuda:
        return DeviceInfo("cuda", "CUDAExecutionProvider", placement.reason)
    fell_back = placement.on_cuda
    reason = "ONNX Runtime offers CUDA, but it did not start; see the log" if fell_back else placement.reason
    return DeviceInfo("cpu", "CPUExecutionProvider", reason)


def probe(wanted: str) -> DeviceInfo:
    """Test the device by running a small convolution, which needs a working driver, CUDA and cuDNN.

    Args:
        wanted: the setting DEVICE: auto, cpu or cuda.

    Returns:
        The device in use.

    Raises:
        OceanoError: `device_unavailable` if the convolution fails, or CUDA is required and not used.
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
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = _inference_session(model.SerializeToString(), options, placement)
        (result,) = session.run(None, {"pixels": np.ones(pixels, np.float32), "weights": np.ones(weights, np.float32)})
        correct, provider = bool(np.allclose(result, 27)), session.get_providers()[0]
    except Exception as failure:  # onnxruntime's exceptions have no common base but Exception
        raise OceanoError("device_unavailable", f"a test convolution failed: {failure}") from failure
    if not correct:
        raise OceanoError("device_unavailable", f"{provider} computes a wrong result: the sum of 27 ones is not 27")
    if placement.on_cuda and provider != "CUDAExecutionProvider" and wanted == "cuda":
        raise OceanoError(
            "device_unavailable",
            "DEVICE=cuda, but ONNX Runtime fell back to the CPU: the CUDA or cuDNN libraries or the driver are "
            "not compatible",
        )
    return DeviceInfo("cuda" if provider == "CUDAExecutionProvider" else "cpu", provider, placement.reason)


def _load(path: Path, placement: Placement, *, free_batch: bool) -> tuple[Any, Graph]:
    """The session and the description of its graph."""
    import onnx

    try:
        model = onnx.load(path)
        graph = describe(model)
        if isinstance(graph, str):
            raise OceanoError("model_corrupt", f"{path.name} is not a face model: {graph}", details={"file": str(path)})
        changed = rewrite(model, graph, free_batch=free_batch, for_cpu=not placement.on_cuda)
        if placement.precision == "fp16":
            from onnxruntime.transformers.float16 import convert_float_to_float16

            model, changed = convert_float_to_float16(model, keep_io_types=True), True
        with tempfile.TemporaryDirectory(prefix="oceano-") as folder:
            file = Path(folder) / path.name if changed else path
            if changed:
                onnx.save(model, file)
            del model
            return _session(file, graph, placement), graph
    except OceanoError:
        raise
    except Exception as failure:  # onnxruntime's and onnx's exceptions have no common base but Exception
        if isinstance(failure, OSError) and is_full(failure):
            folder = tempfile.gettempdir()
            message = f"loading {path.name} needs {path.stat().st_size} bytes in {folder}: free some space there"
            raise OceanoError("disk_full", message, details={"folder": folder}) from failure
        raise OceanoError(
            "model_corrupt", f"{path.name} cannot be loaded: {failure}", details={"file": str(path)}
        ) from failure


def _session(path: Path, graph: Graph, placement: Placement) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = placement.threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait slow down the other session: 50 ms instead of 23 for an image.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only: graphs name output shapes of one input size, others cause warnings
    if graph.family == "yunet":  # not supported by InsightFace
        return _inference_session(str(path), options, placement)
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


def _is_out_of_memory(failure: Exception) -> bool:
    text = str(failure).lower()
    return any(phrase in text for phrase in _OUT_OF_MEMORY)
