"""Face detection: each image directly, in batches; then with fallbacks where no face was found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from app.core.config import Settings
from app.core.onnx_graph import Family
from app.core.types import BBox, Floats, FoundBy, Picture
from app.engine import scrfd, yunet
from app.engine.fallbacks import View, direct, views
from app.engine.frames import NO_DETECTIONS, Detections, Frame, fit
from app.engine.runtime import Network


@dataclass(frozen=True, slots=True)
class _DetectorProfile:
    """How to decode a family of detectors, and when to check its detections in other views.

    If all faces of an image score less than `confident_score`, the views `recheck` are tried in order, until a score
    reaches it. A view replaces the faces if its best score is higher by `min_gain`.
    """

    read_outputs: Callable[[Sequence[Floats], Sequence[Frame], float], list[Detections]]
    min_score: float
    confident_score: float
    min_gain: float
    recheck: tuple[FoundBy, ...]


# min_score: 0.5 is InsightFace's default. YuNet scored 208 of 209 real faces at least 0.84 and one 0.61; in images
# without faces, 0.6 removes half of what it detects at 0.5.
# recheck: SCRFD gives sideways and upside-down faces low scores and wrong landmarks; rotated, the cosine of the
# embedding to the upright one's rises from 0.09 to 1.0. YuNet was trained on faces of 10 to 300 pixels. It scores
# upright faces of that size at least 0.9, faces that fill the frame 0.53 to 0.83, upside-down faces up to 0.89. Within
# a border, which halves their size, the 40 faces of one set were separated by 6.4 standard deviations instead of 4.7.
_PROFILES: Final[Mapping[Family, _DetectorProfile]] = {
    "scrfd": _DetectorProfile(scrfd.read_outputs, 0.5, 0.7, 0.1, ("rotated",)),
    "yunet": _DetectorProfile(yunet.read_outputs, 0.6, 0.9, 0.03, ("border", "rotated")),
}


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A detected face without an embedding.

    Attributes:
        bbox: (x1, y1, x2, y2) in pixels of the upright image, clipped to it.
        kps: five landmarks in pixels of the upright image, (5, 2).
        score: the detector's score, at most 1.
        found_by: the view that found it, `direct` or a fallback.
    """

    bbox: BBox
    kps: Floats
    score: float
    found_by: FoundBy


class FaceDetector:
    """A face detector with fallbacks; safe to call from several threads.

    Args:
        network: the detector's network.
        settings: for DET_SIZE, DET_THRESHOLD and FALLBACKS.
        gate: limits the runs of networks at the same time.
        trim: leave out the black margin of a frame, if the network accepts any input size. A margin takes as long as
            an image of its size. Without it, detections differ by at most a tenth of a pixel (cosine of the embeddings
            at least 0.9998).
    """

    def __init__(self, network: Network, settings: Settings, gate: threading.BoundedSemaphore, *, trim: bool) -> None:
        self.network = network
        self._size = network.graph.input_size or settings.det_size
        self._fallbacks: tuple[FoundBy, ...] = settings.fallbacks
        self._profile = _PROFILES[network.graph.family]
        self._threshold = settings.det_threshold or self._profile.min_score
        self._gate = gate
        self._trim = trim and network.graph.input_size is None

    def find(self, pictures: Sequence[Picture]) -> list[list[Found]]:
        """Detect the faces of each image, with fallbacks for images in which none is found directly.

        Args:
            pictures: the images.

        Returns:
            Faces of each image in canonical order: bbox x1, then y1.

        Raises:
            OceanoError: `invalid_image` if a fallback needs the full image and it cannot be decoded.
            Exception: whatever ONNX Runtime raises.
        """
        direct_detections = self._detect([direct(picture, self._size) for picture in pictures])
        results = []
        for picture, detections in zip(pictures, direct_detections, strict=True):
            faces = _clipped(picture, detections, "direct") or self._run_fallbacks(picture)
            if faces:
                faces = self._recheck(picture, faces)
            results.append(sorted(faces, key=lambda face: (face.bbox[0], face.bbox[1])))
        return results

    def _run_fallbacks(self, picture: Picture) -> list[Found]:
        """The faces of the first fallback that finds any."""
        return next((faces for fallback in self._fallbacks if (faces := self._run_fallback(fallback, picture))), [])

    def _recheck(self, picture: Picture, faces: list[Found]) -> list[Found]:
        """Replace uncertain faces by those of a view that scores higher.

        A view that only shrinks the faces must not lose one of them.
        """
        for fallback in self._profile.recheck:
            if _best_score(faces) >= self._profile.confident_score:
                break
            if fallback not in self._fallbacks or faces[0].found_by == fallback:
                continue
            others = self._run_fallback(fallback, picture)
            keeps_all = fallback == "rotated" or len(others) >= len(faces)
            if keeps_all and _best_score(others) > _best_score(faces) + self._profile.min_gain:
                faces = others
        return faces

    def _run_fallback(self, fallback: FoundBy, picture: Picture) -> list[Found]:
        """The faces of the fallback's view with the best score."""
        if fallback == "larger" and self.network.graph.input_size is not None:
            return []  # the graph takes one size only
        detections = self._detect(list(views(fallback, picture, self._size)))
        return max((_clipped(picture, one, fallback) for one in detections), key=_best_score, default=[])

    def _detect(self, batch: Sequence[View]) -> list[Detections]:
        """Detections of each view, in pixels of the upright images; frames of one shape run together."""
        results = [NO_DETECTIONS] * len(batch)
        fitted = [(index, self._fit(view)) for index, view in enumerate(batch)]
        frames = [(index, frame) for index, frame in fitted if frame is not None]
        frames.sort(key=lambda one: one[1].pixels.shape)
        for _, group in groupby(frames, key=lambda one: one[1].pixels.shape):
            indices, same_shape = zip(*group, strict=True)
            for index, detections in zip(indices, self._run(same_shape), strict=True):
                results[index] = batch[index].back(detections)
        return results

    def _fit(self, view: View) -> Frame | None:
        return fit(view.pixels, view.size, trim=self._trim, stride=self.network.graph.stride)

    def _run(self, frames: Sequence[Frame]) -> list[Detections]:
        results: list[Detections] = []
        with self._gate:
            for part, padded, outputs in self.network.batches([frame.pixels for frame in frames]):
                batch = list(frames[part])
                batch += batch[:1] * (padded - len(batch))
                results += self._profile.read_outputs(outputs, batch, self._threshold)[: part.stop - part.start]
        return results


def _clipped(picture: Picture, detections: Detections, found_by: FoundBy) -> list[Found]:
    """Clip the boxes to the image and drop those with less than a pixel inside."""
    faces = []
    boxes, scores = detections.boxes.tolist(), detections.scores.tolist()
    for (x1, y1, x2, y2), kps, score in zip(boxes, detections.kps, scores, strict=True):
        clipped = (max(0.0, x1), max(0.0, y1), min(float(picture.width), x2), min(float(picture.height), y2))
        if clipped[2] - clipped[0] >= 1 and clipped[3] - clipped[1] >= 1:
            faces.append(Found(clipped, kps, min(1.0, score), found_by))
    return faces


def _best_score(faces: list[Found]) -> float:
    return max((face.score for face in faces), default=0.0)
