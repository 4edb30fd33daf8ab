"""The face engine: detection, alignment, embedding, and health checks against references.

Networks are in `engine/network`, the choice of their runtimes in `engine/choice`, face detection in `engine/detector`,
crops in `engine/alignment`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np

from app.core.concurrency import FairGate, processors
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.memory import trim
from app.core.types import DeviceInfo, EngineHealth, Face, Floats, ModelPack, Picture, Pixels, Point
from app.engine.alignment import CROP_SIDE, align
from app.engine.choice import choose_all, until_restart
from app.engine.detector import FaceDetector
from app.engine.found import Found
from app.engine.network import Network, real_device
from app.engine.placement import Placement, place
from app.engine.quality import rate
from app.engine.references import reference_crop

_log = logging.getLogger(__name__)

HEALTHY_COSINE: Final = 0.999
_REFERENCE_SIDE: Final = 160  # pixels: side of the reference image of detectors that accept any size

# Images per call of `analyze`, per run of the detector, per run of the recogniser. On a CPU, batches are no faster
# (measured: 20.0 ms per image one by one, 20.6 ms in batches of 4), and small ones keep the threads evenly busy.
_CPU_BATCHES: Final = (1, 1, 8)
_CUDA_BATCHES: Final = (32, 16, 32)
_INTEL_GPU_BATCHES: Final = (1, 1, 1)


@dataclass(frozen=True, slots=True)
class _Models:
    detector: FaceDetector
    recogniser: Network

    @property
    def crop_side(self) -> int:
        """Side of the recogniser's input in pixels."""
        size = self.recogniser.graph.input_size
        return size[0] if size else CROP_SIDE


class FaceEngine:
    """A face engine for one model pack; safe to call from several threads.

    Args:
        pack: the model pack.
        settings: for DEVICE, RUNTIME, PRECISION, GPU_CONCURRENCY and the settings of the detector.
        verified: returns the pack after hashing its files again; called before a broken model is reloaded.
        many: optimize for an ingest, which always has a next image: on a CPU, first measure the runtimes unless they
            have been measured, and run one call per processor at the same time with one thread each, instead of
            GPU_CONCURRENCY calls that share the processors.

    Raises:
        OceanoError: `device_unavailable`, `model_corrupt`, `disk_full`, `engine_unhealthy`.
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
        placement = place(settings.device, threads=0)
        one_thread_each = many and not placement.on_gpu
        self._concurrency = processors() if one_thread_each else settings.gpu_concurrency
        threads = 1 if placement.on_gpu else max(1, processors() // self._concurrency)
        self._many = many
        self._placement = replace(placement, threads=threads, streams=self._concurrency)
        self._placements, runtimes = choose_all(pack, settings, self._placement, "now" if many else "no")
        self._batches = _batches(placement)
        self._gate = FairGate(self._concurrency)
        self._checking = threading.Lock()
        cv2.setNumThreads(1)  # OpenCV's threads would compete with those of the sessions and the ingest
        self._models = self._load(pack)
        networks = self._models.detector.network, self._models.recogniser
        self._device = replace(real_device(self._placement, settings.device, *networks), runtimes=runtimes)
        self._reference, self._health = self._check_startup()
        names = sorted({f"{one.runtime} {one.version} {one.precision}" for one in runtimes.values()})
        _log.info("engine ready: %s %s on %s: %s", pack.name, pack.short_digest, self._device.device, ", ".join(names))

    @property
    def pack(self) -> ModelPack:
        """The model pack in use."""
        return self._pack

    @property
    def device(self) -> DeviceInfo:
        """The device that the sessions use."""
        return self._device

    @property
    def health(self) -> EngineHealth:
        """The result of the last check."""
        return self._health

    @property
    def concurrency(self) -> int:
        """Maximum number of concurrent calls of `analyze`; further calls wait."""
        return self._concurrency

    @property
    def batch(self) -> int:
        """Recommended number of images per call of `analyze`."""
        return self._batches[0]

    def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
        """Detect and embed the faces of each image.

        Large images are also searched in tiles (`engine/tiles`). Images in which no face is found go through the
        fallbacks (`engine/fallbacks`).

        Args:
            pictures: the images.
            timings: if given, the milliseconds of each stage are added to its keys "detect" and "embed".

        Returns:
            Faces of each image in canonical order: bbox x1, then y1.

        Raises:
            OceanoError: `engine_unhealthy`; `invalid_image` if an image cannot be decoded in full; `internal` if a
                healthy engine returns no embedding.
        """
        if not self._health.healthy:
            raise OceanoError("engine_unhealthy", self._health.message, retry_after=10)
        try:
            return self._analyze(pictures, timings)
        except OceanoError as failure:
            if failure.code != "engine_unhealthy":
                raise
            self._recover(failure)
        except Exception as failure:  # noqa: BLE001 - the runtimes and OpenCV raise many types
            self._recover(failure)
        return self._analyze(pictures, timings)

    def crops(self, pictures: Sequence[Picture]) -> list[Pixels]:
        """Detect the faces of images and return them as the recogniser gets them; for calibration.

        Returns:
            Aligned crops, BGR, uint8, of the recogniser's input size; those of the first image first.

        Raises:
            OceanoError: `invalid_image` if an image cannot be decoded in full.
        """
        models = self._models
        return _crops(pictures, models.detector.find(pictures), models.crop_side)

    def check(self) -> EngineHealth:
        """Compare both networks with their references and reload them from verified files if they differ.

        The result is kept until the next check; while it is unhealthy, `analyze` raises `engine_unhealthy`.

        Returns:
            The health after the check and, if needed, the reload.
        """
        with self._checking:
            health = self._compare(self._models)
            if not health.healthy:
                self._health = health
                _log.error("the engine is unhealthy, reloading the model: %s", health.message)
                health = self._reload(health)
            self._health = health
            if health.healthy:
                self._release_memory(self._models)
            return health

    def _analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None) -> list[list[Face]]:
        models = self._models
        with _clock(timings, "detect"):
            found = models.detector.find(pictures)
        with _clock(timings, "embed"):
            side = models.crop_side
            crops = _crops(pictures, found, side)
            embeddings = self._embed(models.recogniser, crops)
            if side != CROP_SIDE:  # quality is measured on crops of one size
                crops = _crops(pictures, found, CROP_SIDE)
            embedded = iter(zip(crops, embeddings, strict=True))
            return [[_face(one, *next(embedded)) for one in faces] for faces in found]

    def _recover(self, failure: Exception) -> None:
        """Return if the model was reloaded, so that the call can be retried; raise otherwise."""
        _log.warning("an analysis failed: %r", failure)
        before = self._models
        health = self.check()
        if not health.healthy:
            raise OceanoError("engine_unhealthy", health.message, retry_after=10) from failure
        if self._models is before:
            if isinstance(failure, OceanoError):
                raise OceanoError("internal", f"no embedding was computed: {failure.message}") from failure
            raise failure

    def _load(self, pack: ModelPack) -> _Models:
        _, max_frames, max_crops = self._batches
        network = Network(pack.detector, self._placements["detector"], max_batch=max_frames)
        detector = FaceDetector(network, self._settings, self._gate, trim=not self._placement.on_gpu)
        return _Models(detector, Network(pack.recogniser, self._placements["recogniser"], max_batch=max_crops))

    def measure_runtimes(self) -> None:
        """Measure the runtimes that have not been measured on this machine, with low priority; takes up to minutes.

        This engine stays as it is: the next one is built with the result, and `device` shows it.
        """
        _, measured = choose_all(self._pack, self._settings, self._placement, "in_background")
        running = self._device.runtimes
        self._device = replace(
            self._device, runtimes={role: until_restart(running[role], info) for role, info in measured.items()}
        )

    def _reload(self, broken: EngineHealth) -> EngineHealth:
        try:
            pack = self._verified()
            if pack.digest != self._pack.digest:
                message = f"the files of {pack.name} are now another model ({pack.short_digest}); restart Oceano"
                return EngineHealth(False, broken.cosine, message)
            models = self._load(pack)
            health = self._compare(models)
        except OceanoError as failure:
            return EngineHealth(False, broken.cosine, failure.message)
        if health.healthy:
            self._models = models
            _log.info("the model was reloaded and is healthy")
        return health

    def _check_startup(self) -> tuple[tuple[Floats, Floats], EngineHealth]:
        """Compute the references and run the first check: a model that loads may still fail to run."""
        try:
            self._reference = self._run_references(self._models)
            return self._reference, self._first_check()
        except OceanoError:
            raise
        except Exception as failure:  # the runtimes' exceptions have no common base but Exception
            raise OceanoError("model_corrupt", f"the model pack {self._pack.name} does not run: {failure}") from failure

    def _first_check(self) -> EngineHealth:
        """Check that the references are numbers, and that another crop has another embedding."""
        crop = reference_crop(self._models.crop_side)
        (other,) = self._embed(self._models.recogniser, [crop[::-1].copy()])
        if float(self._reference[0] @ other) > HEALTHY_COSINE:
            raise OceanoError(
                "engine_unhealthy",
                f"{self._pack.recogniser.name} returns the same embedding for different images; verify the model: "
                f"`oceano models verify {self._pack.name}`",
            )
        health = self._health_of(self._reference)
        if not health.healthy:
            raise OceanoError("engine_unhealthy", health.message)
        return health

    def _compare(self, models: _Models) -> EngineHealth:
        try:
            return self._health_of(self._run_references(models))
        except Exception as failure:  # noqa: BLE001 - any exception means that it is not healthy
            message = failure.message if isinstance(failure, OceanoError) else f"the model does not run: {failure}"
            return EngineHealth(False, 0.0, message)

    def _health_of(self, now: tuple[Floats, Floats]) -> EngineHealth:
        """Compare what the networks return for the reference images with the references."""
        cosines = [float(a @ b) for a, b in zip(now, self._reference, strict=True)]
        for name, cosine in zip((self._pack.recogniser.name, self._pack.detector.name), cosines, strict=True):
            if not cosine >= HEALTHY_COSINE:  # also true for NaN
                message = f"{name} drifted: the cosine of its reference output to that of start-up is {cosine:.4f}"
                return EngineHealth(False, cosine, message)
        return EngineHealth(True, min(cosines))

    def _release_memory(self, models: _Models) -> None:
        """Return memory of large pictures between the requests of a service; an ingest would need it again."""
        if self._many or self._placement.on_gpu:
            return
        try:
            with self._gate:
                models.detector.network.release_memory()
                models.recogniser.release_memory()
            trim()
        except Exception as failure:  # noqa: BLE001 - the next check finds a network that does not run
            _log.warning("the memory of large pictures was not released: %r", failure)

    def _run_references(self, models: _Models) -> tuple[Floats, Floats]:
        """Unit vectors: the embedding of the reference crop, and the detector's raw outputs on an enlarged one."""
        (embedding,) = self._embed(models.recogniser, [reference_crop(models.crop_side)])
        detector = models.detector.network
        size = detector.graph.input_size or (_REFERENCE_SIDE, _REFERENCE_SIDE)
        picture = cv2.resize(reference_crop(), size, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
        outputs = [output.ravel() for _, _, arrays in detector.batches([picture], self._gate) for output in arrays]
        numbers = np.concatenate(outputs)
        return embedding, numbers / max(float(np.linalg.norm(numbers)), 1e-12)

    def _embed(self, recogniser: Network, crops: Sequence[Pixels]) -> list[Floats]:
        """Unit embeddings of crops, in batches. Raises OceanoError `engine_unhealthy`."""
        embeddings: list[Floats] = []
        for part, _, (raw,) in recogniser.batches(crops, self._gate):
            embeddings += _unit(raw[: part.stop - part.start], self._pack.embedding_size)
        return embeddings


def _crops(pictures: Sequence[Picture], found: Sequence[Sequence[Found]], side: int) -> list[Pixels]:
    """Crop the faces of all images, those of the first image first."""
    return [align(picture, one.kps, side) for picture, faces in zip(pictures, found, strict=True) for one in faces]


def _unit(raw: Floats, size: int) -> list[Floats]:
    """Scale rows to norm 1; raise `engine_unhealthy` if one is not finite, zero or constant."""
    if raw.ndim != 2 or raw.shape[1] != size:
        raise OceanoError(
            "model_corrupt", f"the recogniser returns embeddings of shape {raw.shape[1:]}; expected ({size},)"
        )
    norms = np.linalg.norm(raw, axis=1, keepdims=True)
    valid = (norms > 1e-6) & (norms < np.inf) & (np.ptp(raw, axis=1, keepdims=True) > 1e-9)  # false for NaN
    if not valid.all():
        raise OceanoError("engine_unhealthy", "the recogniser returned an embedding of NaN, zeros or one constant")
    return list(raw / norms)


def _face(found: Found, crop: Pixels, embedding: Floats) -> Face:
    points: list[Point] = [(float(x), float(y)) for x, y in found.kps]
    kps = (points[0], points[1], points[2], points[3], points[4])
    quality, flaws = rate(crop, found.bbox, found.kps, found.score)
    return Face(found.bbox, kps, found.score, quality, found.found_by, embedding, flaws)


def _batches(placement: Placement) -> tuple[int, int, int]:
    if placement.on_cuda:
        return _CUDA_BATCHES
    return _INTEL_GPU_BATCHES if placement.on_intel_gpu else _CPU_BATCHES


@contextmanager
def _clock(timings: dict[str, float] | None, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    if timings is not None:
        timings[stage] = timings.get(stage, 0.0) + (time.perf_counter() - start) * 1000
