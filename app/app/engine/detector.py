"""Face detection: each image directly, in batches; large ones in tiles; with fallbacks where no face was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import reduce
from itertools import groupby, islice
from typing import Final, Literal

import numpy as np

from app.core.config import Settings
from app.core.onnx_graph import Family
from app.core.types import Floats, FoundBy, Picture
from app.engine import scrfd, yunet
from app.engine.alignment import fit_of
from app.engine.fallbacks import ALL_TURNS, UPSIDE_DOWN, View, direct, rotated_face, shrunk, views
from app.engine.found import Found, clipped, consistent, merged, same_faces
from app.engine.frames import NO_DETECTIONS, Detections, Frame, fit
from app.engine.network import Network
from app.engine.tiles import input_scale, shows_something, tile_views

_TILED_SCALE: Final = 0.25  # below this scale to the detector's input, images are always searched in tiles
_MAYBE_TILED_SCALE: Final = 0.5  # below this one, if a face is small
_SMALL_SIDE: Final = 24  # pixels of a face's shorter side in the detector's input
_MOST_UNCERTAIN: Final = 64  # limits the time for one image
_MOST_TILE_DETECTIONS: Final = 1000  # of all tiles; merging them takes time by their square
_MOST_TILED_FACES: Final = 500  # limits the time of the recogniser for one image
_TILES_AT_ONCE: Final = 16  # limits the memory of frames
_FACE_VIEW: Final = 160  # pixels: side of the rotated views of one face, which fills half of them
_SMALL_FACE_VIEW: Final = 96  # of the views that tell whether the larger ones are needed
_LEAST_ROLL: Final = 25.0  # degrees; landmarks with more are those of a face on its side, which SCRFD turned in part
_SMALL_FACE_LOSS: Final = 0.1  # what a turned face may score less in the small views


@dataclass(frozen=True, slots=True)
class _DetectorProfile:
    """How to decode a family of detectors, and when to check its detections in other views.

    Attributes:
        read_outputs: decodes the outputs of the network.
        min_score: the lowest score of a face.
        confident_score: faces with less are checked in other views.
        min_gain: how much higher a face must score in another view.
        recheck_border: if all faces are uncertain, check the view with a border, too.
        hint_score: the lowest score of a detection that is no face but is checked for a turned face.
        turned_score: the lowest score of a turned face.
        fitting_score: from this score on, a face is checked in its rotations only if its landmarks look turned: they
            are rotated, or further than `most_misfit` from the template.
        most_misfit: pixels of the crop, root mean square.
        rolls: the landmarks of a face on its side are rotated, too; otherwise they are those of an upright face.
    """

    read_outputs: Callable[[Sequence[Floats], Sequence[Frame], float], list[Detections]]
    min_score: float
    confident_score: float
    min_gain: float
    recheck_border: bool
    hint_score: float
    turned_score: float
    fitting_score: float
    most_misfit: float
    rolls: bool


# min_score: 0.5 is InsightFace's default. YuNet scored 208 of 209 real faces at least 0.84 and one 0.61; in images
# without faces, 0.6 removes half of what it detects at 0.5.
# SCRFD gives sideways and upside-down faces low scores and wrong landmarks; rotated, the cosine of the embedding to the
# upright one's rises from 0.09 to 1.0. Half of the upright faces that it is not sure of are within 3.2 pixels of the
# template; of 40 turned ones, 8.
# YuNet was trained on faces of 10 to 300 pixels. It scores upright faces of that size at least 0.85, most of them 0.9,
# faces that fill the frame 0.53 to 0.83, upside-down faces up to 0.9. Within a border, which halves their size, the 40
# faces of one set were separated by 6.4 standard deviations instead of 4.7.
_PROFILES: Final[Mapping[Family, _DetectorProfile]] = {
    "scrfd": _DetectorProfile(
        scrfd.read_outputs,
        min_score=0.5,
        confident_score=0.72,
        min_gain=0.1,
        recheck_border=False,
        hint_score=0.3,
        turned_score=0.6,
        fitting_score=0.0,
        most_misfit=3.2,
        rolls=True,
    ),
    "yunet": _DetectorProfile(
        yunet.read_outputs,
        min_score=0.6,
        confident_score=0.9,
        min_gain=0.03,
        recheck_border=True,
        hint_score=0.25,
        turned_score=0.7,
        fitting_score=0.8,
        most_misfit=2.4,
        rolls=False,
    ),
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
        gate: entered for each run of the network; limits those at the same time.
        trim: leave out the black margin of a frame, if the network accepts any input size. A margin takes as long as
            an image of its size. Without it, detections differ by at most a tenth of a pixel (cosine of the embeddings
            at least 0.9998).
    """

    def __init__(
        self, network: Network, settings: Settings, gate: AbstractContextManager[object], *, trim: bool
    ) -> None:
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
        tiles = (view for view in tile_views(picture, self._size, self._tiles) if shows_something(view.pixels))
        found: list[Found] = []
        while batch := list(islice(tiles, _TILES_AT_ONCE)):
            for detections in self._detect(batch):
                found += clipped(picture, detections, "tiles")
        found = sorted(found, key=lambda face: -face.score)[:_MOST_TILE_DETECTIONS]
        return sorted(merged(faces, found), key=lambda face: -face.score)[:_MOST_TILED_FACES]

    def _run_fallbacks(self, picture: Picture, tiled: bool) -> list[Found]:
        """The faces of the first fallback that finds any; tiles replace the larger view."""
        small = shrunk(picture, self._size)  # once for all views: shrinking a huge image takes longer than the detector
        for fallback in self._fallbacks:
            if tiled and fallback == "larger":
                continue
            if faces := self._run_fallback(fallback, picture if fallback == "larger" else small):
                return faces
        return []

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
        uncertain = [(face, turns) for face in faces if (turns := self._possible_turns(face))]
        known = np.flatnonzero(same_faces(hints, faces).any(axis=1))
        uncertain += [(hint, ALL_TURNS) for index, hint in enumerate(hints) if index not in known]
        turned = [face for one, turns in uncertain[:_MOST_UNCERTAIN] for face in self._turn_one(picture, one, turns)]
        if not turned:
            return faces
        for detections in self._detect(list(views("rotated", picture, self._size))):
            faces = merged(faces, clipped(picture, detections, "rotated"), least=self._profile.turned_score)
        return merged(faces, turned, gain=self._profile.min_gain)

    def _possible_turns(self, face: Found) -> Sequence[int]:
        """The rotations in which a face may be upright; none if it is most likely upright now."""
        profile = self._profile
        if face.score >= profile.confident_score:
            return ()
        misfit, roll = fit_of(face.kps)
        if face.score >= profile.fitting_score and misfit <= profile.most_misfit and roll <= _LEAST_ROLL:
            return ()
        return UPSIDE_DOWN if profile.rolls and roll <= _LEAST_ROLL else ALL_TURNS

    def _turn_one(self, picture: Picture, face: Found, turns: Sequence[int]) -> list[Found]:
        """The face as found in the best of its rotations, if that scores higher than the upright ones.

        Small rotations, at a third of the cost of large ones, tell whether a look at the large ones is worthwhile.
        """
        pixels, scale = (picture.full(), 1.0) if face.found_by == "tiles" else (picture.pixels, picture.scale)
        canvas = self.network.graph.input_size
        least = max(self._profile.turned_score, face.score)
        small = list(rotated_face(pixels, scale, face.bbox, _SMALL_FACE_VIEW, turns, canvas))
        best = [one.scores.max(initial=0.0) for one in self._detect(small)]
        turns = [turn for turn, score in zip(turns, best, strict=True) if score >= least - _SMALL_FACE_LOSS]
        if not turns:
            return []
        views = rotated_face(pixels, scale, face.bbox, _FACE_VIEW, (None, *turns), canvas)
        upright, *rotations = self._detect(list(views))
        least = max(least, upright.scores.max(initial=0.0))
        found = [other for one in rotations for other in clipped(picture, one, "rotated")]
        same = same_faces([face], found)[0]
        better = [other for other, is_same in zip(found, same, strict=True) if is_same and other.score > least]
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
        for part, padded, outputs in self.network.batches([frame.pixels for frame in frames], self._gate):
            batch = list(frames[part])
            batch += batch[:1] * (padded - len(batch))
            results += self._profile.read_outputs(outputs, batch, threshold)[: part.stop - part.start]
        return results


def _best_score(faces: list[Found]) -> float:
    return max((face.score for face in faces), default=0.0)
