"""Where and how a model runs: on CUDA, an Intel GPU or the CPU, its runtime, threads and precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import onnxruntime

from app.core.errors import OceanoError
from app.core.types import Precision, Runtime
from app.engine import intel
from app.engine.cuda import driver_problem, preload_libraries
from app.engine.prepared import Cache

# cudnn_conv_algo_search: EXHAUSTIVE, the default of ONNX Runtime, tries all algorithms (before 1.20). Others measured
# about 0.6 s and up to gigabytes for each shape of six convolutions, and no faster runs afterwards (PaddleX, pull
# request 5057). DEFAULT can be 50 times slower (PaddleOCR, 17970). bench/device.py compares them.
# arena_extend_strategy: two models and a few shapes need far less memory than doubling the arena would allocate.
# No IO binding: images come from CPU memory and results return to it, with the same copies (microsoft/onnxruntime,
# issue 18475).
_CUDA: Final[Mapping[str, str]] = MappingProxyType(
    {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how sessions run.

    Attributes:
        providers: names and options of ONNX Runtime's execution providers, preferred first.
        reason: why this device was chosen.
        threads: of each run; 0 leaves the number to ONNX Runtime.
        streams: runs at the same time that a session is made for.
        runtime: the runtime of the sessions; OpenVINO ignores the providers.
        precision: of the weights and computations; int8 only for a model that `engine/quantization` wrote.
        cache: where prepared graphs are kept; None: nowhere.
        on_intel_gpu: whether OpenVINO runs on an Intel GPU, instead of the CPU.
    """

    providers: tuple[tuple[str, dict[str, str]], ...]
    reason: str
    threads: int = 1
    streams: int = 1
    runtime: Runtime = "onnxruntime"
    precision: Precision = "fp32"
    cache: Cache | None = None
    on_intel_gpu: bool = False

    @property
    def on_gpu(self) -> bool:
        """Whether the model runs on CUDA or on an Intel GPU."""
        return self.on_cuda or self.on_intel_gpu

    @property
    def on_cuda(self) -> bool:
        """Whether CUDA is the preferred provider."""
        return self.providers[0][0] == "CUDAExecutionProvider"


def place(wanted: str, *, threads: int) -> Placement:
    """Choose the device for sessions.

    Args:
        wanted: the setting DEVICE: auto, cpu, cuda or intel_gpu.
        threads: of each run; 0 leaves the number to ONNX Runtime.

    Raises:
        OceanoError: `device_unavailable` if a GPU is required and not available.
    """
    cpu: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})
    available = onnxruntime.get_available_providers()
    if wanted == "cpu":
        return Placement((cpu,), "DEVICE=cpu", threads)
    if wanted == "intel_gpu":
        if no_gpu := intel.gpu_problem():
            raise OceanoError(
                "device_unavailable",
                f"DEVICE=intel_gpu, but {no_gpu}: install OpenVINO and Intel's OpenCL driver (intel-opencl-icd), let "
                "this user open /dev/dri/renderD*, or set DEVICE=cpu",
            )
        return Placement((cpu,), "DEVICE=intel_gpu", threads, runtime="openvino", on_intel_gpu=True)
    if "CUDAExecutionProvider" not in available:
        problem = "the installed onnxruntime does not support CUDA"
        advice = "install requirements.txt (CUDA 11.8), requirements-cu12.txt or requirements-cu13.txt"
    elif (problem := driver_problem(getattr(onnxruntime, "cuda_version", "") or "") or "") == "":
        if not hasattr(onnxruntime, "preload_dlls"):  # otherwise insightface calls it before its first CUDA session
            preload_libraries()
        return Placement((("CUDAExecutionProvider", dict(_CUDA)), cpu), f"CUDA is available (DEVICE={wanted})", threads)
    else:
        advice = "install a compatible driver (see INSTALL.md)"
    if wanted == "cuda":
        raise OceanoError(
            "device_unavailable",
            f"DEVICE=cuda, but {problem}: {advice}, or set DEVICE=cpu",
            details={"available": list(available)},
        )
    return Placement((cpu,), problem, threads)
