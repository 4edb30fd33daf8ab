"""FaceEngine: detect, align, embed; the border fallback; the reference-picture check.

The only module that imports onnxruntime and insightface.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import cv2
import numpy as np
import onnxruntime
from insightface.model_zoo import get_model

from app.config import Settings
from app.cuda import driver_problem, preload_libraries
from app.errors import OceanoError
from app.types import (
    EMBEDDING_SIZE,
    BBox,
    DeviceInfo,
    EngineHealth,
    Face,
    Floats,
    FoundBy,
    ModelPack,
    Pixels,
    Point,
)

_log = logging.getLogger(__name__)

CROP_SIDE: Final = 112
EMBED_BATCH: Final = 32
HEALTHY_COSINE: Final = 0.999

# Where InsightFace puts the five landmarks in a crop of 112 x 112 (insightface/utils/face_align.py).
_TEMPLATE: Final = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    dtype=np.float64,
)


class _Found:
    """A detection before it is embedded: bbox and kps in pixels of the upright image."""

    __slots__ = ("bbox", "found_by", "kps", "score")

    def __init__(self, bbox: BBox, kps: Floats, score: float, found_by: FoundBy) -> None:
        self.bbox, self.kps, self.score, self.found_by = bbox, kps, score, found_by


class FaceEngine:
    """Finds and embeds faces with one model pack; safe to call from several threads.

    Model runs go through one semaphore of `settings.gpu_concurrency`.
    Raises OceanoError at construction: `device_unavailable`, `model_corrupt`, `engine_unhealthy`.
    """

    def __init__(self, pack: ModelPack, settings: Settings) -> None:
        self._pack = pack
        self._det_size = settings.det_size
        self._det_threshold = settings.det_threshold
        self._gate = threading.BoundedSemaphore(settings.gpu_concurrency)
        providers, reason = _providers(settings.device)
        self._detector = _load(pack, pack.detector.name, str(pack.detector), providers)
        self._recogniser = _load(pack, pack.recogniser.name, str(pack.recogniser), providers)
        self._device = self._real_device(settings.device, reason)
        self._reference = self._embed([_reference_crop()])[0]
        self._health = self._first_check()
        _log.info(
            "engine ready: %s %s on %s (%s)", pack.name, pack.short_digest, self._device.device, self._device.reason
        )

    @property
    def pack(self) -> ModelPack:
        return self._pack

    @property
    def device(self) -> DeviceInfo:
        return self._device

    @property
    def health(self) -> EngineHealth:
        """What the last check said."""
        return self._health

    def analyze(self, pictures: Sequence[Pixels], timings: dict[str, float] | None = None) -> list[list[Face]]:
        """Faces of each picture (BGR, uint8, upright), in canonical order: bbox x1, then y1.

        A picture in which nothing is found is tried again within a border of half its longer side, for
        faces that fill the frame. Adds "detect" and "embed" milliseconds to `timings`.
        Raises OceanoError `engine_unhealthy`: embeddings that are no embeddings.
        """
        if not self._health.healthy:
            raise OceanoError("engine_unhealthy", self._health.message, retry_after=10)
        with _clock(timings, "detect"):
            found = [self._detect(pixels) for pixels in pictures]
        with _clock(timings, "embed"):
            crops = [_align(pixels, one.kps) for pixels, many in zip(pictures, found, strict=True) for one in many]
            embeddings = iter(self._embed(crops))
        return [[_face(one, next(embeddings)) for one in many] for many in found]

    def check(self) -> EngineHealth:
        """Embed the reference crop again and compare it with start-up's; the result stands until the next check."""
        try:
            again = self._embed([_reference_crop()])[0]
        except OceanoError as failure:
            self._health = EngineHealth(False, 0.0, failure.message)
            return self._health
        cosine = float(again @ self._reference)
        healthy = cosine >= HEALTHY_COSINE
        message = "" if healthy else f"the reference picture's embedding drifted: cosine {cosine:.4f} to start-up's"
        self._health = EngineHealth(healthy, cosine, message)
        return self._health

    def _first_check(self) -> EngineHealth:
        """A model that gives every crop the same vector passes a comparison with itself: compare two crops."""
        other = self._embed([_reference_crop()[::-1].copy()])[0]
        if float(other @ self._reference) > HEALTHY_COSINE:
            raise OceanoError(
                "engine_unhealthy",
                f"{self._pack.recogniser.name} gives different pictures the same embedding; verify the model: "
                f"`oceano models verify {self._pack.name}`",
            )
        health = self.check()
        if not health.healthy:
            raise OceanoError("engine_unhealthy", health.message)
        return health

    def _real_device(self, wanted: str, reason: str) -> DeviceInfo:
        """Where the sessions really run: ONNX Runtime falls back to the CPU without an error."""
        sessions = (self._detector.session, self._recogniser.session)
        on_cuda = all(session.get_providers()[0] == "CUDAExecutionProvider" for session in sessions)
        if wanted == "cuda" and not on_cuda:
            raise OceanoError(
                "device_unavailable",
                "DEVICE=cuda, but ONNX Runtime fell back to the CPU: the CUDA or cuDNN libraries or the driver do "
                "not fit this onnxruntime-gpu. See INSTALL.md, or set DEVICE=cpu",
                details={"onnxruntime": onnxruntime.__version__},
            )
        if on_cuda:
            return DeviceInfo("cuda", "CUDAExecutionProvider", reason)
        if wanted == "auto" and reason.startswith("CUDA"):
            reason = "CUDA is offered but did not start; see the log"
        return DeviceInfo("cpu", "CPUExecutionProvider", reason)

    def _detect(self, pixels: Pixels) -> list[_Found]:
        found = self._detect_once(pixels, pixels.shape[:2], 1.0, 0, "direct")
        if not found:
            framed, scale, border = _with_border(pixels, max(self._det_size))
            found = self._detect_once(framed, pixels.shape[:2], scale, border, "border")
        return sorted(found, key=lambda one: (one.bbox[0], one.bbox[1]))

    def _detect_once(
        self, pixels: Pixels, shape: tuple[int, ...], scale: float, border: int, found_by: FoundBy
    ) -> list[_Found]:
        """Detections in `pixels`, carried back to the picture of `shape` that it was scaled and framed from."""
        if min(pixels.shape[:2]) * min(self._det_size) < max(pixels.shape[:2]):
            return []  # a sliver: less than a pixel of it would be left in the detector's input
        with self._gate:
            boxes, landmarks = self._detector.detect(pixels, input_size=self._det_size, det_thresh=self._det_threshold)
        height, width = shape[:2]
        found = []
        for box, kps in zip(boxes, landmarks, strict=True):
            x1, y1, x2, y2 = ((box[:4] - border) / scale).tolist()
            clipped = (max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2))
            if clipped[2] - clipped[0] >= 1 and clipped[3] - clipped[1] >= 1:
                found.append(_Found(clipped, (kps - border) / scale, min(1.0, float(box[4])), found_by))
        return found

    def _embed(self, crops: Sequence[Pixels]) -> list[Floats]:
        """Unit embeddings of aligned crops, in batches. Raises OceanoError `engine_unhealthy`."""
        embeddings: list[Floats] = []
        for start in range(0, len(crops), EMBED_BATCH):
            with self._gate:
                raw = self._recogniser.get_feat(list(crops[start : start + EMBED_BATCH]))
            embeddings.extend(_unit(np.asarray(raw, dtype=np.float32)))
        return embeddings


def _providers(wanted: str) -> tuple[list[str], str]:
    available = onnxruntime.get_available_providers()
    if wanted == "cpu":
        return ["CPUExecutionProvider"], "DEVICE=cpu"
    if "CUDAExecutionProvider" not in available:
        problem = "the installed onnxruntime has no CUDA"
        advice = "install requirements.txt (CUDA 11.8), requirements-cu12.txt or requirements-cu13.txt"
    elif (problem := driver_problem() or "") == "":
        if not hasattr(onnxruntime, "preload_dlls"):  # else insightface calls it before its first CUDA session
            preload_libraries()
        return ["CUDAExecutionProvider", "CPUExecutionProvider"], f"CUDA is there (DEVICE={wanted})"
    else:
        advice = "install a driver that fits; see INSTALL.md"
    if wanted == "cuda":
        raise OceanoError(
            "device_unavailable",
            f"DEVICE=cuda, but {problem}: {advice}, or set DEVICE=cpu",
            details={"available": list(available)},
        )
    return ["CPUExecutionProvider"], problem


def _load(pack: ModelPack, name: str, path: str, providers: list[str]) -> Any:
    try:
        model = get_model(path, providers=providers)
    except Exception as failure:  # onnxruntime's exceptions have no common base but Exception
        raise OceanoError(
            "model_corrupt", f"{name} of {pack.name} does not load: {failure}", details={"file": path}
        ) from failure
    if model is None:
        raise OceanoError("model_corrupt", f"{name} of {pack.name} is no face model", details={"file": path})
    return model


def _with_border(pixels: Pixels, det_side: int) -> tuple[Pixels, float, int]:
    """The picture within a black border of half its longer side; with its scale and the border's pixels.

    Shrunk first where the detector would shrink it anyway, so that a huge picture does not become a gigantic one.
    """
    longer = max(pixels.shape[:2])
    scale = min(1.0, det_side / longer)
    if scale < 1:
        height, width = pixels.shape[:2]
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    border = max(pixels.shape[:2]) // 2
    framed = cv2.copyMakeBorder(pixels, border, border, border, border, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    return framed.astype(np.uint8, copy=False), scale, border


def _align(pixels: Pixels, kps: Floats) -> Pixels:
    """The face's 112 x 112 crop: the similarity transform that carries kps (5, 2) onto the template.

    Least squares in closed form, with points as complex numbers: z' = a z + b
    (the same solution as Umeyama 1991 for landmarks that are not mirrored).
    """
    source = kps[:, 0].astype(np.float64) + 1j * kps[:, 1].astype(np.float64)
    target = _TEMPLATE[:, 0] + 1j * _TEMPLATE[:, 1]
    centred = source - source.mean()
    spread = float(np.vdot(centred, centred).real)
    a = complex(np.vdot(centred, target - target.mean()) / spread) if spread > 1e-9 else 1 + 0j
    b = complex(target.mean() - a * source.mean())
    matrix = np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
    return cv2.warpAffine(pixels, matrix, (CROP_SIDE, CROP_SIDE), borderValue=0.0).astype(np.uint8, copy=False)


def _unit(raw: Floats) -> list[Floats]:
    """Rows scaled to norm 1; a row that is not finite, zero or constant says the engine is broken."""
    if raw.ndim != 2 or raw.shape[1] != EMBEDDING_SIZE:
        raise OceanoError(
            "model_corrupt", f"the recogniser gives {raw.shape[1:]} numbers a face; Oceano needs {EMBEDDING_SIZE}"
        )
    norms = np.linalg.norm(raw, axis=1, keepdims=True)
    if not np.isfinite(raw).all() or (norms < 1e-6).any() or (raw.std(axis=1) < 1e-9).any():
        raise OceanoError("engine_unhealthy", "the recogniser gave an embedding of NaN, zeros or one constant")
    return list(raw / norms)


def _face(found: _Found, embedding: Floats) -> Face:
    points: list[Point] = [(float(x), float(y)) for x, y in found.kps]
    kps = (points[0], points[1], points[2], points[3], points[4])
    x1, y1, x2, y2 = found.bbox
    size = min(1.0, min(x2 - x1, y2 - y1) / CROP_SIDE)
    return Face(found.bbox, kps, found.score, found.score * size, found.found_by, embedding)


def _reference_crop() -> Pixels:
    """A fixed picture of 112 x 112, the same on every machine."""
    y, x = np.mgrid[0:CROP_SIDE, 0:CROP_SIDE].astype(np.float64)
    blue = 127 + 90 * np.sin(x / 9) * np.cos(y / 13)
    green = 255 * (((x - 56) ** 2 + (y - 40) ** 2) < 900)
    red = 2.2 * y
    return np.stack([blue, green, red], axis=-1).clip(0, 255).astype(np.uint8)


@contextmanager
def _clock(timings: dict[str, float] | None, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    if timings is not None:
        timings[stage] = timings.get(stage, 0.0) + (time.perf_counter() - start) * 1000
