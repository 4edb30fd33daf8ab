"""ONNX Runtime sessions: where they run, with how many threads, in which precision and in batches of which size.

The only module that imports onnxruntime and insightface, which loads the models.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
from app.engine.rewriting import rewrite

_log = logging.getLogger(__name__)

Precision = Literal["fp32", "fp16"]

# On a GPU cuDNN chooses its algorithms once for every shape: so there are few shapes.
_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64)
# The search that ONNX Runtime takes by itself, EXHAUSTIVE, tries all algorithms out (before 1.20): by what others
# measured, some 0.6 s and up to gigabytes for each shape of six convolutions, and no faster afterwards (PaddleX, pull
# request 5057). DEFAULT can be 50 times slower (PaddleOCR, 17970). bench/device.py compares them.
# No power-of-two growth: two models and a few shapes need far less than the doubling would take.
# IO binding is left out: pictures come from the CPU's memory, and results go there, by the same copies (microsoft/
# onnxruntime, issue 18475).
_CUDA: Final[Mapping[str, str]] = MappingProxyType(
    {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
)
_PROBE_SIDE: Final = 128  # a multiple of every detector's strides
_OUT_OF_MEMORY: Final = ("out of memory", "failed to allocate", "alloc_failed", "cudaerrormemoryallocation", "bfcarena")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how sessions run: providers as ONNX Runtime wants them, threads of each session, precision.

    `reason` says why this device was taken.
    """

    providers: tuple[tuple[str, dict[str, str]], ...]
    reason: str
    threads: int = 1
    precision: Precision = "fp32"

    @property
    def on_cuda(self) -> bool:
        return self.providers[0][0] == "CUDAExecutionProvider"


def place(wanted: str, *, threads: int, precision: Precision = "fp32") -> Placement:
    """`wanted` is the setting DEVICE: auto, cpu or cuda. Raises OceanoError `device_unavailable`."""
    cpu: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})
    available = onnxruntime.get_available_providers()
    if wanted == "cpu":
        return Placement((cpu,), "DEVICE=cpu", threads, precision)
    if "CUDAExecutionProvider" not in available:
        problem = "the installed onnxruntime has no CUDA"
        advice = "install requirements.txt (CUDA 11.8), requirements-cu12.txt or requirements-cu13.txt"
    elif (problem := driver_problem(getattr(onnxruntime, "cuda_version", "") or "") or "") == "":
        if not hasattr(onnxruntime, "preload_dlls"):  # else insightface calls it before its first CUDA session
            preload_libraries()
        return Placement(
            (("CUDAExecutionProvider", dict(_CUDA)), cpu), f"CUDA is there (DEVICE={wanted})", threads, precision
        )
    else:
        advice = "install a driver that fits; see INSTALL.md"
    if wanted == "cuda":
        raise OceanoError(
            "device_unavailable",
            f"DEVICE=cuda, but {problem}: {advice}, or set DEVICE=cpu",
            details={"available": list(available)},
        )
    return Placement((cpu,), problem, threads, precision)


class Network:
    """One model, ready to run; safe to call from several threads.

    Args:
        most: pictures of one run at most. More than 1 frees the batch dimension, which published detectors fix at 1; a
            graph that gives other results then runs picture by picture.

    Attributes:
        graph: what goes in, and how the outputs are read.

    Raises OceanoError `model_corrupt` at construction.
    """

    def __init__(self, path: Path, placement: Placement, *, most: int) -> None:
        self.name = path.name
        self._pad = placement.on_cuda
        self._most = most
        self._session, self.graph = _load(path, placement, free=most > 1)
        if most > 1 and not self._runs_batches():
            _log.warning("%s gives other results for pictures in batches: it runs them one by one", path.name)
            self._most = 1
            self._session, self.graph = _load(path, placement, free=False)

    @property
    def provider(self) -> str:
        """Where the session really runs: ONNX Runtime falls back to the CPU without an error."""
        return str(self._session.get_providers()[0])

    def run(self, blob: Floats) -> list[Floats]:
        """The graph's outputs for (N, 3, H, W). Raises what ONNX Runtime raises."""
        return [
            np.asarray(output, dtype=np.float32) for output in self._session.run(None, {self.graph.input_name: blob})
        ]

    def _runs_batches(self) -> bool:
        """Are two pictures together what they are alone? Asked of recognisers; a detector's batch only has to run."""
        width, height = self.graph.input_size or (_PROBE_SIDE, _PROBE_SIDE)
        blob = np.random.default_rng(1).uniform(-1, 1, (2, 3, height, width)).astype(np.float32)
        try:
            together = self.run(blob)
            if self.graph.role == "detector":
                return True
            alone = np.concatenate([self.run(one[None])[0] for one in blob])
        except Exception as failure:  # noqa: BLE001 - onnxruntime's exceptions have no common base but Exception
            return _is_out_of_memory(failure)  # which says nothing of the graph
        return bool(np.allclose(together[0], alone, rtol=1e-2, atol=1e-2 * float(np.abs(alone).max())))

    def batches(self, pictures: Sequence[Pixels]) -> Iterator[tuple[slice, int, list[Floats]]]:
        """Run over pictures of one size, a batch at a time.

        Yields which pictures, how many the batch was padded to (with black ones, at its end), and its outputs.
        Where the device's memory does not suffice the batch is halved, for good.
        """
        start = 0
        while start < len(pictures):
            count = min(self._most, len(pictures) - start)
            padded = next(size for size in _BUCKETS if size >= count) if self._pad else count
            some = list(pictures[start : start + count])
            if padded > count:
                some += [np.zeros_like(some[0])] * (padded - count)
            try:
                outputs = self.run(blob_of(some, self.graph))
            except Exception as failure:  # onnxruntime's exceptions have no common base but Exception
                if not _is_out_of_memory(failure) or self._most == 1:
                    raise
                self._most = max(1, count // 2)
                _log.warning("%s: the device's memory is full; batches of %d from now on", self.name, self._most)
                continue
            yield slice(start, start + count), padded, outputs
            start += count


def real_device(placement: Placement, wanted: str, networks: Sequence[Network]) -> DeviceInfo:
    """Where the networks run in the end. Raises OceanoError `device_unavailable` if CUDA was asked for in vain."""
    on_cuda = all(network.provider == "CUDAExecutionProvider" for network in networks)
    if wanted == "cuda" and not on_cuda:
        raise OceanoError(
            "device_unavailable",
            "DEVICE=cuda, but ONNX Runtime fell back to the CPU: the CUDA or cuDNN libraries or the driver do "
            "not fit this onnxruntime-gpu. See INSTALL.md, or set DEVICE=cpu",
            details={"onnxruntime": onnxruntime.__version__},
        )
    if on_cuda:
        return DeviceInfo("cuda", "CUDAExecutionProvider", placement.reason)
    fell_back = placement.on_cuda
    reason = "CUDA is offered but did not start; see the log" if fell_back else placement.reason
    return DeviceInfo("cpu", "CPUExecutionProvider", reason)


def probe(wanted: str) -> DeviceInfo:
    """Run a small convolution where DEVICE says: the driver, CUDA and cuDNN are there only if that works.

    Raises OceanoError `device_unavailable`.
    """
    from onnx import TensorProto, helper

    placement = place(wanted, threads=1)
    pixels, weights = [1, 3, 32, 32], [8, 3, 3, 3]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["pixels", "weights"], ["found"])],
        "probe",
        [
            helper.make_tensor_value_info("pixels", TensorProto.FLOAT, pixels),
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, weights),
        ],
        [helper.make_tensor_value_info("found", TensorProto.FLOAT, [1, 8, 30, 30])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = _open(model.SerializeToString(), options, placement)
        (found,) = session.run(None, {"pixels": np.ones(pixels, np.float32), "weights": np.ones(weights, np.float32)})
        right, provider = bool(np.allclose(found, 27)), session.get_providers()[0]
    except Exception as failure:  # onnxruntime's exceptions have no common base but Exception
        raise OceanoError("device_unavailable", f"a convolution does not run: {failure}") from failure
    if not right:
        raise OceanoError("device_unavailable", f"{provider} reckons wrongly: 27 ones are not 27")
    if placement.on_cuda and provider != "CUDAExecutionProvider" and wanted == "cuda":
        raise OceanoError(
            "device_unavailable",
            "DEVICE=cuda, but ONNX Runtime fell back to the CPU: the CUDA or cuDNN libraries or the driver do not fit",
        )
    return DeviceInfo("cuda" if provider == "CUDAExecutionProvider" else "cpu", provider, placement.reason)


def _load(path: Path, placement: Placement, *, free: bool) -> tuple[Any, Graph]:
    """The session, and what its graph takes and gives."""
    import onnx

    try:
        model = onnx.load(path)
        graph = describe(model)
        if isinstance(graph, str):
            raise OceanoError("model_corrupt", f"{path.name} is no face model: {graph}", details={"file": str(path)})
        changed = rewrite(model, graph, free_batch=free, for_cpu=not placement.on_cuda)
        if placement.precision == "fp16":
            from onnxruntime.transformers.float16 import convert_float_to_float16

            model, changed = convert_float_to_float16(model, keep_io_types=True), True
        with tempfile.TemporaryDirectory(prefix="oceano-") as folder:
            ready = Path(folder) / path.name if changed else path
            if changed:
                onnx.save(model, ready)
            del model
            return _session(ready, graph, placement), graph
    except OceanoError:
        raise
    except Exception as failure:  # onnxruntime's and onnx's exceptions have no common base but Exception
        if isinstance(failure, OSError) and is_full(failure):
            folder = tempfile.gettempdir()
            message = f"{path.name} needs {path.stat().st_size} bytes in {folder} while it is loaded: make room there"
            raise OceanoError("disk_full", message, details={"folder": folder}) from failure
        raise OceanoError(
            "model_corrupt", f"{path.name} does not load: {failure}", details={"file": str(path)}
        ) from failure


def _session(path: Path, graph: Graph, placement: Placement) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = placement.threads
    options.inter_op_num_threads = 1
    # Threads that wait for work by spinning keep the other session's from it: 23 ms instead of 50 for a picture.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors: graphs name their outputs' shape for one input size, and any other warns
    if graph.family == "yunet":  # which InsightFace does not know
        return _open(str(path), options, placement)
    names, settings = _providers(placement)
    return get_model(str(path), providers=names, provider_options=settings, sess_options=options).session


def _open(model: str | bytes, options: Any, placement: Placement) -> Any:
    """A session without InsightFace, which else loads CUDA's libraries; `model` is a path or an ONNX file's bytes."""
    if placement.on_cuda and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    names, settings = _providers(placement)
    return onnxruntime.InferenceSession(model, options, names, settings)


def _providers(placement: Placement) -> tuple[list[str], list[dict[str, str]]]:
    """Names and options of the providers, as ONNX Runtime takes them."""
    return [name for name, _ in placement.providers], [options for _, options in placement.providers]


def _is_out_of_memory(failure: Exception) -> bool:
    text = str(failure).lower()
    return any(sign in text for sign in _OUT_OF_MEMORY)
