"""Finds faces in pictures: directly, in batches; then with the fallbacks where nothing was found."""

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
from app.engine.frames import NOTHING, Detections, Frame, fit
from app.engine.runtime import Network


@dataclass(frozen=True, slots=True)
class _Habits:
    """How a family of detectors answers, its least score of a face, and when its answer is doubted.

    A picture all of whose faces score less than `unsure` is also looked at in the views `doubted`, until one makes it
    sure; a view wins whose surest face scores more by `surer`.
    """

    read: Callable[[Sequence[Floats], Sequence[Frame], float], list[Detections]]
    least: float
    unsure: float
    surer: float
    doubted: tuple[FoundBy, ...]


# The least scores: 0.5 is InsightFace's own. Of YuNet's answers 208 of 209 real faces had 0.84 and more and one 0.61;
# in pictures without faces half of what it finds at 0.5 is gone at 0.6.
# SCRFD finds a face on its side or head unsurely and with landmarks that belong to nobody: turned, the embedding's
# cosine to the upright one's goes from 0.09 to 1.0. YuNet, trained on faces of 10 to 300 pixels, scores upright faces
# of that size 0.9 and more; faces that fill the frame 0.53 to 0.83 (within a border, where they are half as large, the
# 40 of one set parted by 6.4 standard deviations instead of 4.7), faces on their head up to 0.89.
_HABITS: Final[Mapping[Family, _Habits]] = {
    "scrfd": _Habits(scrfd.read_outputs, 0.5, 0.7, 0.1, ("rotated",)),
    "yunet": _Habits(yunet.read_outputs, 0.6, 0.9, 0.03, ("border", "rotated")),
}


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A detection before it is embedded: bbox within and kps (5, 2) in pixels of the upright picture."""

    bbox: BBox
    kps: Floats
    score: float
    found_by: FoundBy


class FaceDetector:
    """A detector and the setting FALLBACKS; runs of the network pass through `gate`.

    With `trim` the black margin of a frame is left out. It costs as much as the picture does, and what is found
    without it is the same to a tenth of a pixel (cosine of the embeddings at least 0.9998).
    """

    def __init__(self, detector: Network, settings: Settings, gate: threading.BoundedSemaphore, *, trim: bool) -> None:
        self.detector = detector
        self._size = detector.graph.input_size or settings.det_size
        self._fallbacks: tuple[FoundBy, ...] = settings.fallbacks
        self._habits = _HABITS[detector.graph.family]
        self._threshold = settings.det_threshold or self._habits.least
        self._gate = gate
        self._trim = trim and detector.graph.input_size is None

    def find(self, pictures: Sequence[Picture]) -> list[list[Found]]:
        """Faces of each picture in canonical order. Raises OceanoError `invalid_image` and what the network raises."""
        straight = self._look([direct(picture, self._size) for picture in pictures])
        found = []
        for picture, seen in zip(pictures, straight, strict=True):
            faces = _within(picture, seen, "direct") or self._climb(picture)
            if faces:
                faces = self._surer(picture, faces)
            found.append(sorted(faces, key=lambda one: (one.bbox[0], one.bbox[1])))
        return found

    def _climb(self, picture: Picture) -> list[Found]:
        """What the first fallback on which anything is found finds; of several views, the one that is surest."""
        return next((faces for fallback in self._fallbacks if (faces := self._try(fallback, picture))), [])

    def _surer(self, picture: Picture, faces: list[Found]) -> list[Found]:
        """The faces of a view that is surer, where these are doubted; none is lost to a view that only shrinks."""
        for fallback in self._habits.doubted:
            if _surest(faces) >= self._habits.unsure:
                break
            if fallback not in self._fallbacks or faces[0].found_by == fallback:
                continue
            seen = self._try(fallback, picture)
            enough = fallback == "rotated" or len(seen) >= len(faces)
            if enough and _surest(seen) > _surest(faces) + self._habits.surer:
                faces = seen
        return faces

    def _try(self, fallback: FoundBy, picture: Picture) -> list[Found]:
        if fallback == "larger" and self.detector.graph.input_size is not None:
            return []  # a graph that takes one size only
        seen = self._look(list(views(fallback, picture, self._size)))
        return max((_within(picture, one, fallback) for one in seen), key=_surest, default=[])

    def _look(self, looks: Sequence[View]) -> list[Detections]:
        """Detections in each view, in pixels of the upright pictures; views of one shape go in together."""
        found = [NOTHING] * len(looks)
        fitted = [(place, self._fit(view)) for place, view in enumerate(looks)]
        frames = [(place, frame) for place, frame in fitted if frame is not None]
        frames.sort(key=lambda one: one[1].pixels.shape)
        for _, group in groupby(frames, key=lambda one: one[1].pixels.shape):
            places, alike = zip(*group, strict=True)
            for place, seen in zip(places, self._run(alike), strict=True):
                found[place] = looks[place].back(seen)
        return found

    def _fit(self, view: View) -> Frame | None:
        return fit(view.pixels, view.size, trim=self._trim, stride=self.detector.graph.stride)

    def _run(self, frames: Sequence[Frame]) -> list[Detections]:
        found: list[Detections] = []
        with self._gate:
            for part, padded, outputs in self.detector.batches([frame.pixels for frame in frames]):
                batch = list(frames[part])
                batch += batch[:1] * (padded - len(batch))
                found += self._habits.read(outputs, batch, self._threshold)[: part.stop - part.start]
        return found


def _within(picture: Picture, seen: Detections, found_by: FoundBy) -> list[Found]:
    """What lies within the picture, at least a pixel of it."""
    found = []
    for (x1, y1, x2, y2), kps, score in zip(seen.boxes.tolist(), seen.kps, seen.scores.tolist(), strict=True):
        clipped = (max(0.0, x1), max(0.0, y1), min(float(picture.width), x2), min(float(picture.height), y2))
        if clipped[2] - clipped[0] >= 1 and clipped[3] - clipped[1] >= 1:
            found.append(Found(clipped, kps, min(1.0, score), found_by))
    return found


def _surest(faces: list[Found]) -> float:
    return max((face.score for face in faces), default=0.0)
