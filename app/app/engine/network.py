"""A network: a model in a runtime, run in batches."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

from app.core.errors import OceanoError
from app.core.types import DeviceInfo, Floats, Pixels
from app.engine.frames import blob_of
from app.engine.onnx_runtime import PROBE_SIDE
from app.engine.placement import Placement
from app.engine.sessions import Session, kept_entry, open_session

_log = logging.getLogger(__name__)

# On a GPU, cuDNN selects its algorithms once for each shape, so batches are padded to a few sizes.
_BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
_NO_GATE: Final = nullcontext()
_OUT_OF_MEMORY: Final = ("out of memory", "failed to allocate", "alloc_failed", "cudaerrormemoryallocation", "bfcarena")


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
        self._session: Session
        self._session, self.graph = open_session(path, placement, free_batch=max_batch > 1)
        kept = kept_entry(path, placement, free_batch=True)
        if max_batch > 1 and not (kept and kept.runs_batches()) and not self._runs_batches():
            _log.warning("%s returns different results in batches: images run one at a time", path.name)
            self._max_batch = 1
            self._session, self.graph = open_session(path, placement, free_batch=False)
        elif max_batch > 1 and kept:
            kept.confirm_batches()

    @property
    def provider(self) -> str:
        """Name of the runtime's device that the model runs on."""
        return self._session.provider

    def run(self, blob: Floats) -> list[Floats]:
        """Run the model once; see `Session`."""
        return self._session.run(blob)

    def release_memory(self) -> None:
        """Return the memory that the runtime keeps from larger inputs; see `Session`."""
        self._session.release_memory()

    def _runs_batches(self) -> bool:
        """Whether two images give the same results together as alone; for a detector, whether a batch of two runs."""
        width, height = self.graph.input_size or (PROBE_SIDE, PROBE_SIDE)
        blob = np.random.default_rng(1).uniform(-1, 1, (2, 3, height, width)).astype(np.float32)
        try:
            together = self.run(blob)
            if self.graph.role == "detector":
                return True
            alone = np.concatenate([self.run(image[None])[0] for image in blob])
        except Exception as failure:  # noqa: BLE001 - the runtimes' exceptions have no common base but Exception
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
            Exception: whatever the runtime raises.
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
            except Exception as failure:  # the runtimes' exceptions have no common base but Exception
                if not _is_out_of_memory(failure) or self._max_batch == 1:
                    raise
                self._max_batch = max(1, count // 2)
                _log.warning("%s: out of device memory; batch size reduced to %d", self.name, self._max_batch)
                continue
            yield slice(start, start + count), padded, outputs
            start += count


def real_device(placement: Placement, wanted: str, detector: Network, recogniser: Network) -> DeviceInfo:
    """Return the device that the loaded networks use.

    Args:
        placement: the device they were loaded for.
        wanted: the setting DEVICE.
        detector: a loaded network.
        recogniser: a loaded network.

    Raises:
        OceanoError: `device_unavailable` if CUDA is required and ONNX Runtime fell back to the CPU.
    """
    on_cuda = all(one.provider == "CUDAExecutionProvider" for one in (detector, recogniser))
    if wanted == "cuda" and not on_cuda:
        raise OceanoError(
            "device_unavailable",
            "DEVICE=cuda, but ONNX Runtime fell back to the CPU: the CUDA or cuDNN libraries or the driver are "
            "not compatible with this onnxruntime-gpu. See INSTALL.md, or set DEVICE=cpu",
            details={"onnxruntime": onnxruntime.__version__},
        )
    if on_cuda:
        return DeviceInfo("cuda", "CUDAExecutionProvider", placement.reason)
    if placement.on_intel_gpu:
        return DeviceInfo("intel_gpu", recogniser.provider, placement.reason)
    fell_back = placement.on_cuda
    reason = "ONNX Runtime offers CUDA, but it did not start; see the log" if fell_back else placement.reason
    return DeviceInfo("cpu", recogniser.provider, reason)


def _is_out_of_memory(failure: Exception) -> bool:
    text = str(failure).lower()
    return any(phrase in text for phrase in _OUT_OF_MEMORY)
