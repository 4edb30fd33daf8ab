"""Finds faces in pictures: straight on, in batches; then up the ladder with those in which nothing was found."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from app.config import Settings
from app.detection import NOTHING, Detections, Frame, fit, read_outputs
from app.ladder import View, direct, views
from app.sessions import Network
from app.types import BBox, Floats, FoundBy, Picture

# A picture all of whose faces score less than _UNSURE is looked at turned, too; what scores more by _SURER wins.
# On a photograph on its side the embedding's cosine to the upright one's goes from 0.09 to 1.0 by that.
_UNSURE: Final = 0.7
_SURER: Final = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A detection before it is embedded: bbox within and kps (5, 2) in pixels of the upright picture."""

    bbox: BBox
    kps: Floats
    score: float
    found_by: FoundBy


class Finder:
    """A detector and the setting FALLBACKS; runs of the network pass through `gate`.

    With `trim` the black margin of a frame is left out. It costs as much as the picture does, and what is found
    without it is the same to a tenth of a pixel (cosine of the embeddings at least 0.9998).
    """

    def __init__(self, detector: Network, settings: Settings, gate: threading.BoundedSemaphore, *, trim: bool) -> None:
        self.detector = detector
        self._size = detector.input_size or settings.det_size
        self._threshold = settings.det_threshold
        self._rungs: tuple[FoundBy, ...] = settings.fallbacks
        self._gate = gate
        self._trim = trim and detector.input_size is None

    def find(self, pictures: Sequence[Picture]) -> list[list[Found]]:
        """Faces of each picture in canonical order. Raises OceanoError `invalid_image` and what the network raises."""
        straight = self._look([direct(picture, self._size) for picture in pictures])
        found = []
        for picture, seen in zip(pictures, straight, strict=True):
            faces = _within(picture, seen, "direct") or self._climb(picture)
            if faces and _surest(faces) < _UNSURE:
                faces = self._turned_if_surer(picture, faces)
            found.append(sorted(faces, key=lambda one: (one.bbox[0], one.bbox[1])))
        return found

    def _climb(self, picture: Picture) -> list[Found]:
        """What the first rung on which anything is found finds; of several views, the one that is surest."""
        return next((faces for rung in self._rungs if (faces := self._try(rung, picture))), [])

    def _turned_if_surer(self, picture: Picture, faces: list[Found]) -> list[Found]:
        """A face on its side or head is often found, unsurely and with landmarks that belong to nobody."""
        turned = self._try("rotated", picture) if "rotated" in self._rungs and faces[0].found_by != "rotated" else []
        return turned if _surest(turned) > _surest(faces) + _SURER else faces

    def _try(self, rung: FoundBy, picture: Picture) -> list[Found]:
        if rung == "larger" and self.detector.input_size is not None:
            return []  # a graph that takes one size only
        seen = self._look(list(views(rung, picture, self._size)))
        return max((_within(picture, one, rung) for one in seen), key=_surest, default=[])

    def _look(self, looks: Sequence[View]) -> list[Detections]:
        """Detections in each view, in pixels of the upright pictures; views of one shape go in together."""
        found = [NOTHING] * len(looks)
        fitted = [(place, fit(view.pixels, view.size, trim=self._trim)) for place, view in enumerate(looks)]
        frames = [(place, frame) for place, frame in fitted if frame is not None]
        frames.sort(key=lambda one: one[1].pixels.shape)
        for _, group in groupby(frames, key=lambda one: one[1].pixels.shape):
            places, alike = zip(*group, strict=True)
            for place, seen in zip(places, self._run(alike), strict=True):
                found[place] = looks[place].back(seen)
        return found

    def _run(self, frames: Sequence[Frame]) -> list[Detections]:
        found: list[Detections] = []
        with self._gate:
            for part, padded, outputs in self.detector.batches([frame.pixels for frame in frames]):
                batch = list(frames[part])
                batch += batch[:1] * (padded - len(batch))
                found += read_outputs(outputs, batch, self._threshold)[: part.stop - part.start]
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
