"""Quality of a face: how well it can be recognised, and its flaws."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from app.core.types import BBox, Flaw, Floats, Pixels
from app.engine.alignment import CROP_SIDE, aligned_kps

_SMALL_SIDE: Final = 40  # pixels of the bbox's shorter side: the crop enlarges such a face more than twice
_LOW_SCORE: Final = 0.65
_EXTREME_YAW: Final = 0.6  # distance of the nose from the middle between the eyes, in eye distances: about 45 degrees
_PITCH: Final = (0.25, 0.9)  # height of the nose between eyes (0) and mouth (1): head raised, head lowered

# Variance of the Laplacian of the slightly smoothed crop: 40 to 200 for a sharp face. Blurred until the cosine of its
# embedding to the sharp one's is 0.85: 17 to 29; until it is 0.65: 11 to 17.
_BLURRED: Final = 20.0
_SHARP: Final = 40.0
_CENTRE: Final = (slice(16, 104), slice(16, 96))  # rows and columns of the crop that every face fills


def rate(crop: Pixels, bbox: BBox, kps: Floats, det_score: float) -> tuple[float, tuple[Flaw, ...]]:
    """Rate a face by its detection score, size, sharpness and pose.

    Args:
        crop: the aligned face, BGR, uint8, (112, 112, 3).
        bbox: (x1, y1, x2, y2) in pixels of the upright image.
        kps: five landmarks in pixels of the upright image, (5, 2).
        det_score: the detector's score, in [0, 1].

    Returns:
        The quality in [0, 1], the product of four factors of at most 1 each; and the flaws.
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
    frontal = min(1.0, max(0.1, 1.2 - yaw))
    quality = det_score * min(1.0, side / CROP_SIDE) * min(1.0, sharpness / _SHARP) * frontal
    return quality, tuple(flaws)


def _sharpness(crop: Pixels) -> float:
    """Variance of the Laplacian after smoothing; without it, noise and aliasing of large faces count as sharpness."""
    grey = cv2.cvtColor(crop[_CENTRE], cv2.COLOR_BGR2GRAY)
    _, deviation = cv2.meanStdDev(cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 1.0), cv2.CV_32F))
    return float(deviation[0, 0]) ** 2


def _pose(kps: Floats) -> tuple[float, float]:
    """Yaw: the nose's distance from the middle, in eye distances. Pitch: its height from eyes (0) to mouth (1)."""
    left_eye, right_eye, nose, *mouth = aligned_kps(kps)
    eyes, lips = (left_eye + right_eye) / 2, (mouth[0] + mouth[1]) / 2
    eye_distance, height = abs(right_eye - left_eye), (lips - eyes).imag
    yaw = abs((nose - eyes).real) / eye_distance if eye_distance > 1e-6 else np.inf
    pitch = (nose - eyes).imag / height if abs(height) > 1e-6 else np.inf
    return yaw, pitch
