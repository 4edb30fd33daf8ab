"""Faces found in several views of one image: usable landmarks, and one face for detections of the same face."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from app.core.types import BBox, Floats, FoundBy, Picture
from app.engine.frames import Detections

_OUTSIDE: Final = 0.25  # how far a landmark may lie outside the box, as a fraction of the box's side
_LEAST_SPREAD: Final = 0.08  # of the landmarks around their mean, as a fraction of the box's diagonal
_MIRRORED: Final = -0.02  # signed area between eyes and mouth over the box's area; a profile has about 0
_SAME_IOU: Final = 0.4
_SAME_COVERED: Final = 0.5  # of the smaller box


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A detected face without an embedding.

    Attributes:
        bbox: (x1, y1, x2, y2) in pixels of the upright image, clipped to it.
        kps: five landmarks in pixels of the upright image, (5, 2).
        score: the detector's score, at most 1.
        found_by: the view that found it: `direct`, `tiles` or a fallback.
    """

    bbox: BBox
    kps: Floats
    score: float
    found_by: FoundBy

    @property
    def side(self) -> float:
        """The shorter side of the box in pixels."""
        return min(self.bbox[2] - self.bbox[0], self.bbox[3] - self.bbox[1])


def consistent(detections: Detections) -> npt.NDArray[np.bool_]:
    """Tell which detections have landmarks that can be those of a face.

    They cannot if the mouth is above the eyes, if left and right are exchanged, if they lie outside the box, or if they
    almost coincide. An embedding of such a face matches nobody.

    Args:
        detections: in pixels of the view that the detector saw.

    Returns:
        A mask, (n,).
    """
    boxes, kps = detections.boxes, detections.kps
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    slack = sides * _OUTSIDE
    inside = (kps >= (boxes[:, :2] - slack)[:, None]) & (kps <= (boxes[:, 2:] + slack)[:, None])
    eyes, down = kps[:, 1] - kps[:, 0], kps[:, 3:].mean(axis=1) - kps[:, :2].mean(axis=1)
    area = eyes[:, 0] * down[:, 1] - eyes[:, 1] * down[:, 0]
    spread = np.sqrt(kps.var(axis=1).sum(axis=1)) / np.linalg.norm(sides, axis=1)
    upright = (down[:, 1] > 0) & (area > _MIRRORED * sides.prod(axis=1))
    mask: npt.NDArray[np.bool_] = inside.all(axis=(1, 2)) & upright & (spread >= _LEAST_SPREAD)
    return mask


def clipped(picture: Picture, detections: Detections, found_by: FoundBy) -> list[Found]:
    """Clip the boxes to the image and drop those with less than a pixel inside.

    Args:
        picture: the image.
        detections: in pixels of the upright image.
        found_by: the view that found them.
    """
    faces = []
    boxes, scores = detections.boxes.tolist(), detections.scores.tolist()
    for (x1, y1, x2, y2), kps, score in zip(boxes, detections.kps, scores, strict=True):
        inside = (max(0.0, x1), max(0.0, y1), min(float(picture.width), x2), min(float(picture.height), y2))
        if inside[2] - inside[0] >= 1 and inside[3] - inside[1] >= 1:
            faces.append(Found(inside, kps, min(1.0, score), found_by))
    return faces


def merged(faces: Sequence[Found], others: Iterable[Found], *, gain: float = 0.0, least: float = 0.0) -> list[Found]:
    """Add the faces of another view; of detections of the same face, keep the one with the best score.

    Args:
        faces: those found so far.
        others: those of the other view, best first; the view may show a face twice.
        gain: a face replaces the one that was found before if its score is higher by this.
        least: the lowest score of an additional face.
    """
    found = [*faces, *sorted(others, key=lambda face: -face.score)]
    is_same = same_faces(found, found)
    scores = np.array([face.score for face in found])
    kept = np.arange(len(found)) < len(faces)
    for index in range(len(faces), len(found)):
        same = kept & is_same[index]
        if same.any():
            replaces = bool((scores[index] > scores[same] + gain).all())
            kept &= ~(same & replaces)
            kept[index] = replaces
        else:
            kept[index] = scores[index] >= least
    return [found[index] for index in np.flatnonzero(kept)]


def same_faces(ones: Sequence[Found], others: Sequence[Found]) -> npt.NDArray[np.bool_]:
    """Tell which detections are of one face: the boxes overlap, or the smaller lies on the larger's middle.

    Args:
        ones: n detections.
        others: m detections.

    Returns:
        A mask, (n, m).
    """
    one, other = (np.array([face.bbox for face in some]).reshape(-1, 4) for some in (ones, others))
    one, other = one[:, None], other[None]
    one_sides, other_sides = one[..., 2:] - one[..., :2], other[..., 2:] - other[..., :2]
    one_areas, other_areas = one_sides.prod(axis=-1), other_sides.prod(axis=-1)
    common = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = np.maximum(common, 0).prod(axis=-1)
    large_sides = np.where((one_areas > other_areas)[..., None], one_sides, other_sides)
    distances = (one[..., :2] + one[..., 2:] - other[..., :2] - other[..., 2:]) / large_sides
    on_middle = (shared > _SAME_COVERED * np.minimum(one_areas, other_areas)) & ((distances**2).sum(axis=-1) < 1)
    mask: npt.NDArray[np.bool_] = (shared > _SAME_IOU * (one_areas + other_areas - shared)) | on_middle
    return mask
