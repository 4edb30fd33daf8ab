"""Views of an image that are tried, in order, when the detector finds no face in the image itself.

A view holds other pixels for the detector, and the transform that maps detections back to the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from app.core.types import Floats, FoundBy, Picture, Pixels
from app.engine.frames import Detections

FALLBACKS: Final[tuple[FoundBy, ...]] = ("border", "larger", "rotated", "contrast")

_ROTATIONS: Final = (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)


@dataclass(frozen=True, slots=True)
class View:
    """Pixels for the detector, and how they map to the image.

    Attributes:
        pixels: BGR, uint8, (H, W, 3).
        size: (width, height) of the detector's input in pixels.
        matrix: (2, 3), maps points (x, y, 1) of `pixels` to the upright image.
    """

    pixels: Pixels
    size: tuple[int, int]
    matrix: Floats

    def back(self, found: Detections) -> Detections:
        """Map detections of this view to pixels of the upright image."""
        corners = self._mapped(found.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2))
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        return Detections(boxes, self._mapped(found.kps), found.scores)

    def _mapped(self, points: Floats) -> Floats:
        return np.asarray(points @ self.matrix[:, :2].T + self.matrix[:, 2], dtype=np.float32)


def direct(picture: Picture, size: tuple[int, int]) -> View:
    """Return the unchanged image as a view.

    Args:
        picture: the image.
        size: (width, height) of the detector's input in pixels.
    """
    return View(picture.pixels, size, _scaling(picture.scale))


def views(fallback: FoundBy, picture: Picture, size: tuple[int, int]) -> Iterator[View]:
    """Yield the views of one fallback.

    Args:
        fallback: one of `FALLBACKS`.
        picture: the image.
        size: (width, height) of the detector's input in pixels.

    Yields:
        The views, none where they would show nothing new.

    Raises:
        OceanoError: `invalid_image` if the full image is needed and cannot be decoded.
    """
    yield from _VIEWS[fallback](picture, size)


def _border(picture: Picture, size: tuple[int, int]) -> Iterator[View]:
    """Add a black border of half the longer side, for a face that fills the frame."""
    small, scale = _shrunk(picture, size)
    border = max(small.shape[:2]) // 2
    framed = cv2.copyMakeBorder(small, border, border, border, border, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    yield View(framed.astype(np.uint8, copy=False), size, _scaling(scale, -border))


def _larger(picture: Picture, size: tuple[int, int]) -> Iterator[View]:
    """Double the input size, for small faces in an image that was shrunk to fit."""
    if picture.width <= size[0] and picture.height <= size[1]:
        return
    twice = (2 * size[0], 2 * size[1])
    if picture.scale == 1 or max(picture.pixels.shape[:2]) >= max(twice):
        yield View(picture.pixels, twice, _scaling(picture.scale))
    else:
        yield View(picture.full(), twice, _scaling(1.0))


def _rotated(picture: Picture, size: tuple[int, int]) -> Iterator[View]:
    """Rotate by 90, 180 and 270 degrees, for an image on its side whose EXIF does not say so."""
    small, scale = _shrunk(picture, size)
    height, width = small.shape[:2]
    back = {
        cv2.ROTATE_90_CLOCKWISE: [[0, 1, 0], [-1, 0, height]],
        cv2.ROTATE_180: [[-1, 0, width], [0, -1, height]],
        cv2.ROTATE_90_COUNTERCLOCKWISE: [[0, -1, width], [1, 0, 0]],
    }
    for rotation in _ROTATIONS:
        rotated = cv2.rotate(small, rotation).astype(np.uint8, copy=False)
        yield View(rotated, size, np.array(back[rotation], np.float32) / np.float32(scale))


def _contrast(picture: Picture, size: tuple[int, int]) -> Iterator[View]:
    """Raise the local contrast (CLAHE on the lightness), for dark images."""
    small, scale = _shrunk(picture, size)
    lab = cv2.cvtColor(small, cv2.COLOR_BGR2LAB)
    lab[:, :, 0] = cv2.createCLAHE(clipLimit=4.0, tileGridSize=(8, 8)).apply(np.ascontiguousarray(lab[:, :, 0]))
    yield View(cv2.cvtColor(lab, cv2.COLOR_LAB2BGR).astype(np.uint8, copy=False), size, _scaling(scale))


_VIEWS: Final[dict[FoundBy, Callable[[Picture, tuple[int, int]], Iterator[View]]]] = {
    "border": _border,
    "larger": _larger,
    "rotated": _rotated,
    "contrast": _contrast,
}


def _scaling(scale: float, offset: float = 0.0) -> Floats:
    """Matrix (2, 3) that adds `offset` (pixels) to points and divides them by `scale`."""
    return np.array([[1, 0, offset], [0, 1, offset]], np.float32) / np.float32(scale)


def _shrunk(picture: Picture, size: tuple[int, int]) -> tuple[Pixels, float]:
    """Shrink the image to the detector's longer side, so that views of a huge image need little memory.

    Returns the pixels and their scale relative to the full image.
    """
    pixels = picture.pixels
    height, width = pixels.shape[:2]
    scale = min(1.0, max(size) / max(height, width))
    if scale == 1:
        return pixels, picture.scale
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(pixels, inner, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False), picture.scale * scale
