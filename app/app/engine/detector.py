"""Face detection: each image directly, in batches; large ones in tiles; with fallbacks where no face was found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import groupby, islice
from typing import Final, Literal

from app.core.config import Settings
from app.core.onnx_graph import Family
from app.core.types import Floats, FoundBy, Picture
from app.engine import scrfd, yunet
from app.engine.alignment import looks_turned
from app.engine.fallbacks import View, direct, rotated_face, views
from app.engine.found import Found, clipped, consistent, merged, same_face
from app.engine.frames import NO_DETECTIONS, Detections, Frame, fit
from app.engine.runtime import Network
from app.engine.tiles import input_scale, tile_views

_TILED_SCALE: Final = 0.25  # below this scale to the detector's input, images are always searched in tiles
_MAYBE_TILED_SCALE: Final = 0.5  # below this one, if a face is small
_SMALL_SIDE: Final = 24  # pixels of a face's shorter side in the detector's input
_MOST_UNCERTAIN: Final = 64  # limits the time for one image
_MOST_TILE_DETECTIONS: Final = 1000  # of all tiles; merging them takes time by their square
_MOST_TILED_FACES: Final = 500  # limits the time of the recogniser for one image
_TILES_AT_ONCE: Final = 16  # limits the memory of frames
_FACE_VIEW: Final = 160  # pixels: side of the rotated views of one face, which fills half of them
_SMALL_FACE_VIEW: Final = 96  # of the views that tell whether the larger ones are needed
_SMALL_FACE_LOSS: Final = 0.1  # what a turned face may score less in the small views


@dataclass(frozen=True, slots=True)
class _DetectorProfile:
    """How to decode a family of detectors, and when to check its detections in other views.

    A face that scores less than `confident_score` is rechecked in its rotations; with `misfits`, only if its landmarks
    look turned. So are detections that score at least `hint_score`. A turned face must score more than `turned_score`.
    If all faces are uncertain and `recheck_border`, the view with a border replaces them if its best score is higher by
    `min_gain`.
    """

    read_outputs: Callable[[Sequence[Floats], Sequence[Frame], float], list[Detections]]
    min_score: float
    hint_score: float
    turned_score: float
    confident_score: float
    min_gain: float
    recheck_border: bool
    misfits: bool


# min_score: 0.5 is InsightFace's default. YuNet scored 208 of 209 real faces at least 0.84 and one 0.61; in images
# without faces, 0.6 removes half of what it detects at 0.5.
# recheck: SCRFD gives sideways and upside-down faces low scores and wrong landmarks; rotated, the cosine of the
# embedding to the upright one's rises from 0.09 to 1.0. YuNet was trained on faces of 10 to 300 pixels. It scores
# upright faces of that size at least 0.9, faces that fill the frame 0.53 to 0.83, upside-down faces up to 0.89. Within
# a border, which halves their size, the 40 faces of one set were separated by 6.4 standard deviations instead of 4.7.
_PROFILES: Final[Mapping[Family, _DetectorProfile]] = {
    "scrfd": _DetectorProfile(scrfd.read_outputs, 0.5, 0.3, 0.6, 0.72, 0.1, recheck_border=False, misfits=True),
    "yunet": _DetectorProfile(yunet.read_outputs, 0.6, 0.25, 0.7, 0.9, 0.03, recheck_border=True, misfits=False),
}


@dataclass(frozen=True, slots=True)
class _Detected:
    """Detections of one view in pixels of the upright image: faces, and hints that a turned face may be there."""

    faces: Detections
    hints: Detections


class FaceDetector:
    """A face detector with fallbacks; safe to call from several threads.

    Args:
        network: the detector's network.
        settings: for DET_SIZE, DET_THRESHOLD, FALLBACKS and TILES.
        gate: limits the runs of networks at the same time.
        trim: leave out the black margin of a frame, if the network accepts any input size. A margin takes as long as
            an image of its size. Without it, detections differ by at most a tenth of a pixel (cosine of the embeddings
            at least 0.9998).
    """

    def __init__(self, network: Network, settings: Settings, gate: threading.BoundedSemaphore, *, trim: bool) -> None:
        self.network = network
        self._size = network.graph.input_size or settings.det_size
        self._tiles: int | Literal["auto", "off"] = settings.tiles
        self._fallbacks: tuple[FoundBy, ...] = settings.fallbacks
        self._profile = _PROFILES[network.graph.family]
        self._threshold = settings.det_threshold or self._profile.min_score
        hints = "rotated" in self._fallbacks
        self._hint_score = min(self._threshold, self._profile.hint_score) if hints else self._threshold
        self._gate = gate
        self._trim = trim and network.graph.input_size is None

    def find(self, pictures: Sequence[Picture]) -> list[list[Found]]:
        """Detect the faces of each image.

        Args:
            pictures: the images.

        Returns:
            Faces of each image in canonical order: bbox x1, then y1.

        Raises:
            OceanoError: `invalid_image` if a view needs the full image and it cannot be decoded.
            Exception: whatever ONNX Runtime raises.
        """
        direct_detections = self._detect_all([direct(picture, self._size) for picture in pictures], self._hint_score)
        return [
            sorted(self._search(picture, detections), key=lambda face: (face.bbox[0], face.bbox[1]))
            for picture, detections in zip(pictures, direct_detections, strict=True)
        ]

    def _search(self, picture: Picture, detections: _Detected) -> list[Found]:
        """All faces of an image: the direct ones, those of tiles, of fallbacks if there are none, and turned ones."""
        faces = clipped(picture, detections.faces, "direct")
        scale = input_scale(picture, self._size)
        tiled = self._always_tiled(scale)
        if tiled:
            faces = self._add_tiles(picture, faces)
        if not faces:
            faces = self._run_fallbacks(picture, tiled)
        if not tiled and self._maybe_tiled(scale) and any(face.side * scale < _SMALL_SIDE for face in faces):
            faces = self._add_tiles(picture, faces)
        if not faces:
            return []
        return self._turn(picture, self._recheck_border(picture, faces), clipped(picture, detections.hints, "direct"))

    def _always_tiled(self, scale: float) -> bool:
        return scale < _TILED_SCALE if self._tiles == "auto" else self._tiles != "off"

    def _maybe_tiled(self, scale: float) -> bool:
        return self._tiles == "auto" and scale <= _MAYBE_TILED_SCALE

    def _add_tiles(self, picture: Picture, faces: list[Found]) -> list[Found]:
        """Add the faces of the tiles."""
        tiles = tile_views(picture, self._size, self._tiles)
        found: list[Found] = []
        while batch := list(islice(tiles, _TILES_AT_ONCE)):
            for detections in self._detect(batch):
                found += clipped(picture, detections, "tiles")
        found = sorted(found, key=lambda face: -face.score)[:_MOST_TILE_DETECTIONS]
        return sorted(merged(faces, found), key=lambda face: -face.score)[:_MOST_TILED_FACES]

    def _run_fallbacks(self, picture: Picture, tiled: bool) -> list[Found]:
        """The faces of the first fallback that finds any; tiles replace the larger view."""
        fallbacks = (fallback for fallback in self._fallbacks if not (tiled and fallback == "larger"))
        return next((faces for fallback in fallbacks if (faces := self._run_fallback(fallback, picture))), [])

    def _recheck_border(self, picture: Picture, faces: list[Found]) -> list[Found]:
        """If all faces are uncertain, replace them by those within a border, unless that loses one or scores less."""
        profile = self._profile
        if not profile.recheck_border or "border" not in self._fallbacks or faces[0].found_by == "border":
            return faces
        if _best_score(faces) >= profile.confident_score:
            return faces
        others = self._run_fallback("border", picture)
        better = _best_score(others) > _best_score(faces) + profile.min_gain
        return others if better and len(others) >= len(faces) else faces

    def _turn(self, picture: Picture, faces: list[Found], hints: list[Found]) -> list[Found]:
        """Look at uncertain faces and hints in their rotations; if one is turned, search the whole rotated image."""
        if "rotated" not in self._fallbacks or faces[0].found_by == "rotated":
            return faces
        confident = self._profile.confident_score
        uncertain = [face for face in faces if face.score < confident]
        if self._profile.misfits:
            uncertain = [face for face in uncertain if looks_turned(face.kps)]
        uncertain += [hint for hint in hints if not any(same_face(face, hint) for face in faces)]
        turned = [face for one in uncertain[:_MOST_UNCERTAIN] for face in self._turn_one(picture, one)]
        if not turned:
            return faces
        for detections in self._detect(list(views("rotated", picture, self._size))):
            faces = merged(faces, clipped(picture, detections, "rotated"), least=self._profile.turned_score)
        return merged(faces, turned, gain=self._profile.min_gain)

    def _turn_one(self, picture: Picture, face: Found) -> list[Found]:
        """The face as found in the best of its rotations, if that scores higher than the upright ones.

        Small rotations, at a third of the cost of large ones, tell whether a look at the large ones is worthwhile.
        """
        pixels, scale = (picture.full(), 1.0) if face.found_by == "tiles" else (picture.pixels, picture.scale)
        canvas = self.network.graph.input_size
        least = max(self._profile.turned_score, face.score)
        _, *small = rotated_face(pixels, scale, face.bbox, _SMALL_FACE_VIEW, canvas)
        if max(one.scores.max(initial=0.0) for one in self._detect(small)) < least - _SMALL_FACE_LOSS:
            return []
        upright, *rotations = self._detect(list(rotated_face(pixels, scale, face.bbox, _FACE_VIEW, canvas)))
        least = max(least, upright.scores.max(initial=0.0))
        found = [other for one in rotations for other in clipped(picture, one, "rotated")]
        better = [other for other in found if other.score > least and same_face(face, other)]
        return sorted(better, key=lambda one: -one.score)[:1]

    def _run_fallback(self, fallback: FoundBy, picture: Picture) -> list[Found]:
        """The faces of the fallback's view with the best score."""
        if fallback == "larger" and self.network.graph.input_size is not None:
            return []  # the graph takes one size only
        detections = self._detect(list(views(fallback, picture, self._size)))
        found = [clipped(picture, one, fallback) for one in detections]
        return reduce(merged, sorted(found, key=_best_score, reverse=True), [])

    def _detect(self, batch: Sequence[View]) -> list[Detections]:
        """Faces of each view, in pixels of the upright images."""
        return [one.faces for one in self._detect_all(batch, self._threshold)]

    def _detect_all(self, batch: Sequence[View], hint_score: float) -> list[_Detected]:
        """Detections of each view, in pixels of the upright images; frames of one shape run together."""
        results = [_Detected(NO_DETECTIONS, NO_DETECTIONS)] * len(batch)
        fitted = [(index, self._fit(view)) for index, view in enumerate(batch)]
        frames = [(index, frame) for index, frame in fitted if frame is not None]
        frames.sort(key=lambda one: one[1].pixels.shape)
        for _, group in groupby(frames, key=lambda one: one[1].pixels.shape):
            indices, same_shape = zip(*group, strict=True)
            for index, detections in zip(indices, self._run(same_shape, hint_score), strict=True):
                results[index] = self._split(batch[index], detections)
        return results

    def _split(self, view: View, detections: Detections) -> _Detected:
        """Separate faces from hints: low scores, and landmarks that contradict each other."""
        whole = view.uncut(detections)
        is_face = consistent(whole) & (whole.scores >= self._threshold)
        return _Detected(view.back(whole.only(is_face)), view.back(whole.only(~is_face)))

    def _fit(self, view: View) -> Frame | None:
        return fit(view.pixels, view.size, trim=self._trim, stride=self.network.graph.stride)

    def _run(self, frames: Sequence[Frame], threshold: float) -> list[Detections]:
        results: list[Detections] = []
        with self._gate:
            for part, padded, outputs in self.network.batches([frame.pixels for frame in frames]):
                batch = list(frames[part])
                batch += batch[:1] * (padded - len(batch))
                results += self._profile.read_outputs(outputs, batch, threshold)[: part.stop - part.start]
        return results


def _best_score(faces: list[Found]) -> float:
    return max((face.score for face in faces), default=0.0)
