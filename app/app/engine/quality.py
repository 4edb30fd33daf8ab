"""How well a face can be told from others, and what stands in the way."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from app.core.types import BBox, Flaw, Floats, Pixels
from app.engine.alignment import CROP_SIDE, aligned_kps

_SMALL_SIDE: Final = 40  # pixels: the crop is then enlarged twice
_LOW_SCORE: Final = 0.65
_EXTREME_YAW: Final = 0.6  # the nose this many eye distances off the middle between the eyes: about 45 degrees
_PITCH: Final = (0.25, 0.9)  # where the nose stands between eyes (0) and mouth (1), head up and head down

# Variance of the Laplacian of the slightly smoothed crop: a sharp face has 40 to 200. Blurred until its embedding
# has a cosine of 0.85 to the sharp one's, 17 to 29; until 0.65, 11 to 17.
_BLURRED: Final = 20.0
_SHARP: Final = 40.0
_CENTRE: Final = (slice(16, 104), slice(16, 96))  # rows and columns of the crop that every face fills


def rate(crop: Pixels, bbox: BBox, kps: Floats, det_score: float) -> tuple[float, tuple[Flaw, ...]]:
    """Quality in [0, 1] and the flaws of a face, from its crop (112, 112, 3), bbox, kps (5, 2) and det_score.

    The product of det_score, size, sharpness and how far the face looks at the camera, each at most 1.
    """
    side = min(bbox[2] - bbox[0], bbox[3] - bbox[1])
    sharpness = _sharpness(crop)
    yaw, pitch = _pose(kps)
    flaws: list[Flaw] = []
    if side < _SMALL_SIDE:
        flaws.append("face_too_small")
    if sharpness < _BLURRED:
        flaws.append("blurred")
    if yaw > _EXTREME_YAW or not _PITCH[0] <= pitch <= _PITCH[1]:
        flaws.append("extreme_pose")
    if det_score < _LOW_SCORE:
        flaws.append("low_detection_score")
    facing = min(1.0, max(0.1, 1.2 - yaw))
    quality = det_score * min(1.0, side / CROP_SIDE) * min(1.0, sharpness / _SHARP) * facing
    return quality, tuple(flaws)


def _sharpness(crop: Pixels) -> float:
    """Smoothed first: noise, and what a crop of a far larger face skips, would pass for sharpness."""
    grey = cv2.cvtColor(crop[_CENTRE], cv2.COLOR_BGR2GRAY)
    _, deviation = cv2.meanStdDev(cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 1.0), cv2.CV_32F))
    return float(deviation[0, 0]) ** 2


def _pose(kps: Floats) -> tuple[float, float]:
    """How far the nose is off the middle (in eye distances), and how far down from the eyes to the mouth."""
    left_eye, right_eye, nose, *mouth = aligned_kps(kps)
    eyes, lips = (left_eye + right_eye) / 2, (mouth[0] + mouth[1]) / 2
    apart, height = abs(right_eye - left_eye), (lips - eyes).imag
    yaw = abs((nose - eyes).real) / apart if apart > 1e-6 else np.inf
    pitch = (nose - eyes).imag / height if abs(height) > 1e-6 else np.inf
    return yaw, pitch
