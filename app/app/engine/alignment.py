"""Alignment of faces: crops in which the landmarks always lie in the same place, as ArcFace was trained on them."""

from __future__ import annotations

import cmath
import math
from typing import Final

import cv2
import numpy as np

from app.core.types import Floats, Picture, Pixels

CROP_SIDE: Final = 112

# InsightFace's landmark template (`arcface_dst` in insightface/utils/face_align.py).
_TEMPLATE: Final = (38.2946 + 51.6963j, 73.5318 + 51.5014j, 56.0252 + 71.7366j, 41.5493 + 92.3655j, 70.7299 + 92.2041j)
_TEMPLATE_CENTRE: Final = sum(_TEMPLATE) / 5


def similarity_to_crop(kps: Floats) -> tuple[complex, complex]:
    """Compute the similarity transform from landmarks to the template.

    Points are complex numbers x + iy. The least-squares solution has a closed form, equal to that of Umeyama 1991 for
    landmarks that are not mirrored.

    Args:
        kps: five landmarks in pixels, (5, 2).

    Returns:
        (a, b) of z' = a z + b; |a| is crop pixels per input pixel. If all landmarks coincide, a is 1.

    Source: Umeyama 1991; the template is InsightFace's `arcface_dst`.
    """
    source = _complex(kps)  # plain Python: for five points it is faster than NumPy
    centre = sum(source) / 5
    centred = [point - centre for point in source]
    spread = sum(abs(point) ** 2 for point in centred)
    correlation = sum(
        point.conjugate() * (target - _TEMPLATE_CENTRE) for point, target in zip(centred, _TEMPLATE, strict=True)
    )
    a = correlation / spread if spread > 1e-9 else 1 + 0j
    return a, _TEMPLATE_CENTRE - a * centre


def aligned_kps(kps: Floats) -> list[complex]:
    """Compute the positions of five landmarks in the 112 x 112 crop.

    Args:
        kps: five landmarks in pixels, (5, 2).

    Returns:
        Five points in crop pixels, as x + iy.
    """
    a, b = similarity_to_crop(kps)
    return [a * point + b for point in _complex(kps)]


def fit_of(kps: Floats) -> tuple[float, float]:
    """Compute how landmarks fit the template.

    Args:
        kps: five landmarks in pixels, (5, 2).

    Returns:
        Their distance from the template in pixels of the crop (root mean square), and their roll in degrees, 0 to 180.
    """
    a, b = similarity_to_crop(kps)
    squares = [abs(a * point + b - target) ** 2 for point, target in zip(_complex(kps), _TEMPLATE, strict=True)]
    return math.sqrt(sum(squares) / 5), abs(math.degrees(cmath.phase(a)))


def _complex(kps: Floats) -> list[complex]:
    return [complex(x, y) for x, y in kps.tolist()]


def align(picture: Picture, kps: Floats, side: int = CROP_SIDE) -> Pixels:
    """Warp a face to the template of ArcFace.

    Uses the pixels as decoded, or decodes the full image if the crop would enlarge a reduced one.

    Args:
        picture: the image.
        kps: five landmarks in pixels of the upright image, (5, 2).
        side: side of the crop in pixels, a multiple of 112 or 128.

    Returns:
        The crop, BGR, uint8, (side, side, 3).

    Raises:
        OceanoError: `invalid_image` if the full image cannot be decoded.
    """
    a, b = similarity_to_crop(kps)
    if side != CROP_SIDE:  # scaled as in InsightFace: multiples of 128 have a margin
        ratio, margin = (side / CROP_SIDE, 0.0) if side % CROP_SIDE == 0 else (side / 128, 8 * side / 128)
        a, b = a * ratio, b * ratio + margin
    pixels, scale = picture.pixels, picture.scale
    if scale < picture.full_scale and abs(a) > scale:
        pixels, scale = picture.full(), picture.full_scale
    a /= scale
    matrix = np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
    return cv2.warpAffine(pixels, matrix, (side, side), borderValue=0.0).astype(np.uint8, copy=False)
