"""FaceEngine: detect, align, embed; the check against references.

Networks are in `engine/runtime`, finding faces in `engine/detector`, crops in `engine/alignment`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from app.core.concurrency import processors
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import DeviceInfo, EngineHealth, Face, Floats, ModelPack, Picture, Pixels, Point
from app.engine.alignment import CROP_SIDE, align
from app.engine.detector import FaceDetector, Found
from app.engine.quality import rate
from app.engine.runtime import Network, Placement, place, real_device

_log = logging.getLogger(__name__)

HEALTHY_COSINE: Final = 0.999
_REFERENCE_SIDE: Final = 160  # pixels of the picture that the detector is compared on

# Pictures of one call, and of one run of detector and recogniser. On a CPU a batch is no faster than its pictures one
# by one (measured: 20.0 ms against 20.6 ms a picture in batches of 4), and smaller ones keep the threads evenly busy.
_CPU_BATCHES: Final = (1, 1, 8)
_CUDA_BATCHES: Final = (32, 16, 32)


@dataclass(frozen=True, slots=True)
class _Models:
    finder: FaceDetector
    recogniser: Network

    @property
    def crop_side(self) -> int:
        """Pixels of the crops that the recogniser takes."""
        size = self.recogniser.graph.input_size
        return size[0] if size else CROP_SIDE


class FaceEngine:
    """Finds and embeds faces with one model pack; safe to call from several threads.

    Args:
        verified: hashes the pack's files again and returns it; asked before a broken model is loaded anew.
        many: for an ingest, which always has a next picture: on a CPU as many calls at once as there are processors,
            each with one thread, instead of one after the other with all threads.

    Raises OceanoError at construction: `device_unavailable`, `model_corrupt`, `engine_unhealthy`.
    """

    def __init__(
        self,
        pack: ModelPack,
        settings: Settings,
        *,
        verified: Callable[[], ModelPack] | None = None,
        many: bool = False,
    ) -> None:
        self._pack = pack
        self._settings = settings
        self._verified = verified or (lambda: pack)
        placement = place(settings.device, threads=0, precision=settings.precision)
        spread = many and not placement.on_cuda
        self._concurrency = processors() if spread else settings.gpu_concurrency
        threads = 1 if placement.on_cuda else max(1, processors() // self._concurrency)
        self._placement = Placement(placement.providers, placement.reason, threads, settings.precision)
        self._batches = _CUDA_BATCHES if placement.on_cuda else _CPU_BATCHES
        self._gate = threading.BoundedSemaphore(self._concurrency)
        self._checking = threading.Lock()
        cv2.setNumThreads(1)  # OpenCV's threads would compete with the sessions' and the ingest's
        self._models = self._load(pack)
        self._device = real_device(
            self._placement, settings.device, (self._models.finder.detector, self._models.recogniser)
        )
        self._reference, self._health = self._first_look()
        _log.info("engine ready: %s %s on %s", pack.name, pack.short_digest, self._device)

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

    @property
    def concurrency(self) -> int:
        """Calls of `analyze` that run at the same time; more of them wait."""
        return self._concurrency

    @property
    def batch(self) -> int:
        """Pictures that one call of `analyze` is best given."""
        return self._batches[0]

    def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
        """Faces of each picture, in canonical order: bbox x1, then y1.

        Pictures in which nothing is found go through the fallbacks (`engine/fallbacks`). Adds "detect" and "embed"
        milliseconds to `timings`.
        Raises OceanoError `engine_unhealthy`, `invalid_image`; `internal` for a picture that a healthy engine gives
        no embedding.
        """
        if not self._health.healthy:
            raise OceanoError("engine_unhealthy", self._health.message, retry_after=10)
        try:
            return self._analyze(pictures, timings)
        except OceanoError as failure:
            if failure.code != "engine_unhealthy":
                raise
            self._attribute(failure)
        except Exception as failure:  # noqa: BLE001 - onnxruntime and OpenCV raise what they like
            self._attribute(failure)
        return self._analyze(pictures, timings)

    def check(self) -> EngineHealth:
        """Compare both networks with their references, and load them again from verified files if they differ.

        The result stands until the next check; while it is unhealthy, `analyze` refuses.
        """
        with self._checking:
            health = self._compare(self._models)
            if not health.healthy:
                self._health = health
                _log.error("the engine is unhealthy, the model is loaded again: %s", health.message)
                health = self._reload(health)
            self._health = health
            return health

    def _analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None) -> list[list[Face]]:
        models = self._models
        with _clock(timings, "detect"):
            found = models.finder.find(pictures)
        with _clock(timings, "embed"):
            side = models.crop_side
            flat = [(picture, one.kps) for picture, many in zip(pictures, found, strict=True) for one in many]
            crops = [align(picture, kps, side) for picture, kps in flat]
            embedded = self._embed(models.recogniser, crops)
            if side != CROP_SIDE:  # quality is measured on crops of one size
                crops = [align(picture, kps) for picture, kps in flat]
            each = iter(zip(crops, embedded, strict=True))
            return [[_face(one, *next(each)) for one in many] for many in found]

    def _attribute(self, failure: Exception) -> None:
        """Whose fault was it? A healthy engine (as it was, or loaded again) gets a second try, a broken one raises."""
        _log.warning("an analysis failed: %r", failure)
        before = self._models
        health = self.check()
        if not health.healthy:
            raise OceanoError("engine_unhealthy", health.message, retry_after=10) from failure
        if self._models is before:
            if isinstance(failure, OceanoError):
                raise OceanoError("internal", f"no embedding comes out: {failure.message}") from failure
            raise failure

    def _load(self, pack: ModelPack) -> _Models:
        _, most_frames, most_crops = self._batches
        detector = Network(pack.detector, self._placement, most=most_frames)
        finder = FaceDetector(detector, self._settings, self._gate, trim=not self._placement.on_cuda)
        return _Models(finder, Network(pack.recogniser, self._placement, most=most_crops))

    def _reload(self, broken: EngineHealth) -> EngineHealth:
        try:
            pack = self._verified()
            if pack.digest != self._pack.digest:
                message = f"the files of {pack.name} have become another model ({pack.short_digest}); restart Oceano"
                return EngineHealth(False, broken.cosine, message)
            models = self._load(pack)
            health = self._compare(models)
        except OceanoError as failure:
            return EngineHealth(False, broken.cosine, failure.message)
        if health.healthy:
            self._models = models
            _log.info("the model was loaded again and is well")
        return health

    def _first_look(self) -> tuple[tuple[Floats, Floats], EngineHealth]:
        """The references, and what the first check says. A model that loads may still not run."""
        try:
            self._reference = self._look_at_references(self._models)
            return self._reference, self._first_check()
        except OceanoError:
            raise
        except Exception as failure:  # onnxruntime's exceptions have no common base but Exception
            raise OceanoError("model_corrupt", f"the pack {self._pack.name} does not run: {failure}") from failure

    def _first_check(self) -> EngineHealth:
        """A model that gives every crop the same vector passes a comparison with itself: compare two crops."""
        crop = _reference_crop(self._models.crop_side)
        one, other = self._embed(self._models.recogniser, [crop, crop[::-1].copy()])
        if float(one @ other) > HEALTHY_COSINE:
            raise OceanoError(
                "engine_unhealthy",
                f"{self._pack.recogniser.name} gives different pictures the same embedding; verify the model: "
                f"`oceano models verify {self._pack.name}`",
            )
        health = self._compare(self._models)
        if not health.healthy:
            raise OceanoError("engine_unhealthy", health.message)
        return health

    def _compare(self, models: _Models) -> EngineHealth:
        try:
            now = self._look_at_references(models)
        except Exception as failure:  # noqa: BLE001 - whatever it raises, it is not healthy
            message = failure.message if isinstance(failure, OceanoError) else f"the model does not run: {failure}"
            return EngineHealth(False, 0.0, message)
        cosines = [float(a @ b) for a, b in zip(now, self._reference, strict=True)]
        for name, cosine in zip((self._pack.recogniser.name, self._pack.detector.name), cosines, strict=True):
            if not cosine >= HEALTHY_COSINE:  # NaN is none, too
                message = f"{name} drifted: on its reference its cosine to start-up's is {cosine:.4f}"
                return EngineHealth(False, cosine, message)
        return EngineHealth(True, min(cosines))

    def _look_at_references(self, models: _Models) -> tuple[Floats, Floats]:
        """Unit vectors: the embedding of the reference crop, and the detector's first outputs on a larger one."""
        (embedding,) = self._embed(models.recogniser, [_reference_crop(models.crop_side)])
        detector = models.finder.detector
        size = detector.graph.input_size or (_REFERENCE_SIDE, _REFERENCE_SIDE)
        picture = cv2.resize(_reference_crop(), size, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
        with self._gate:
            outputs = [output.ravel() for _, _, many in detector.batches([picture]) for output in many]
        numbers = np.concatenate(outputs)
        return embedding, numbers / max(float(np.linalg.norm(numbers)), 1e-12)

    def _embed(self, recogniser: Network, crops: Sequence[Pixels]) -> list[Floats]:
        """Unit embeddings of crops, in batches. Raises OceanoError `engine_unhealthy`."""
        embeddings: list[Floats] = []
        with self._gate:
            for part, _, (raw,) in recogniser.batches(crops):
                embeddings += _unit(raw[: part.stop - part.start], self._pack.embedding_size)
        return embeddings


def _unit(raw: Floats, size: int) -> list[Floats]:
    """Rows scaled to norm 1; a row that is not finite, zero or constant says the engine is broken."""
    if raw.ndim != 2 or raw.shape[1] != size:
        raise OceanoError(
            "model_corrupt", f"the recogniser gives embeddings of shape {raw.shape[1:]}; ({size},) was expected"
        )
    norms = np.linalg.norm(raw, axis=1, keepdims=True)
    sane = (norms > 1e-6) & (norms < np.inf) & (np.ptp(raw, axis=1, keepdims=True) > 1e-9)  # all false for NaN
    if not sane.all():
        raise OceanoError("engine_unhealthy", "the recogniser gave an embedding of NaN, zeros or one constant")
    return list(raw / norms)


def _face(found: Found, crop: Pixels, embedding: Floats) -> Face:
    points: list[Point] = [(float(x), float(y)) for x, y in found.kps]
    kps = (points[0], points[1], points[2], points[3], points[4])
    quality, flaws = rate(crop, found.bbox, found.kps, found.score)
    return Face(found.bbox, kps, found.score, quality, found.found_by, embedding, flaws)


def _reference_crop(side: int = CROP_SIDE) -> Pixels:
    """A fixed picture of `side` x `side` pixels, the same on every machine."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float64) * (CROP_SIDE / side)
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
