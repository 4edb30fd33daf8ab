"""Faces become square crops, all in one place and size, as ArcFace was trained on them."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from app.core.types import Floats, Picture, Pixels

CROP_SIDE: Final = 112

# Where InsightFace puts the five landmarks in a crop (insightface/utils/face_align.py).
_TEMPLATE: Final = (38.2946 + 51.6963j, 73.5318 + 51.5014j, 56.0252 + 71.7366j, 41.5493 + 92.3655j, 70.7299 + 92.2041j)
_MIDDLE: Final = sum(_TEMPLATE) / 5


def similarity_to_crop(kps: Floats) -> tuple[complex, complex]:
    """The similarity transform that carries kps (5, 2) onto the template, as (a, b) of z' = a z + b.

    Least squares in closed form, with points as complex numbers x + iy (the same solution as Umeyama 1991 for
    landmarks that are not mirrored). |a| is crop pixels per pixel. Five numbers are summed sooner than NumPy is called.
    """
    source = _complex(kps)
    middle = sum(source) / 5
    centred = [point - middle for point in source]
    spread = sum(abs(point) ** 2 for point in centred)
    turned = sum(point.conjugate() * (target - _MIDDLE) for point, target in zip(centred, _TEMPLATE, strict=True))
    a = turned / spread if spread > 1e-9 else 1 + 0j
    return a, _MIDDLE - a * middle


def aligned_kps(kps: Floats) -> list[complex]:
    """Where the five landmarks come to lie in the crop, as x + iy."""
    a, b = similarity_to_crop(kps)
    return [a * point + b for point in _complex(kps)]


def _complex(kps: Floats) -> list[complex]:
    return [complex(x, y) for x, y in kps.tolist()]


def align(picture: Picture, kps: Floats, side: int = CROP_SIDE) -> Pixels:
    """The crop (side, side, 3) of a face with kps (5, 2) in pixels of the upright picture.

    It is cut from the picture as decoded, but from all of its pixels where the crop would be an enlargement.
    Raises OceanoError `invalid_image`.
    """
    a, b = similarity_to_crop(kps)
    if side != CROP_SIDE:  # the template is scaled as InsightFace does it: multiples of 128 have a margin
        ratio, margin = (side / CROP_SIDE, 0.0) if side % CROP_SIDE == 0 else (side / 128, 8 * side / 128)
        a, b = a * ratio, b * ratio + margin
    pixels, scale = picture.pixels, picture.scale
    if scale < 1 and abs(a) > scale:
        pixels, scale = picture.full(), 1.0
    a /= scale
    matrix = np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
    return cv2.warpAffine(pixels, matrix, (side, side), borderValue=0.0).astype(np.uint8, copy=False)
