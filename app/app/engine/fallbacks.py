"""What is tried, fallback by fallback, with a picture in which a detector finds nothing.

Each fallback is a view of the picture: other pixels for the detector, and the way back for what it finds there.
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

_TURNS: Final = (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)


@dataclass(frozen=True, slots=True)
class View:
    """Pixels for a detector whose input is `size` (width, height).

    `matrix` (2, 3) carries points (x, y, 1) of `pixels` to the upright picture.
    """

    pixels: Pixels
    size: tuple[int, int]
    matrix: Floats

    def back(self, found: Detections) -> Detections:
        """The same detections in pixels of the upright picture."""
        corners = self._points(found.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2))
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        return Detections(boxes, self._points(found.kps), found.scores)

    def _points(self, points: Floats) -> Floats:
        return np.asarray(points @ self.matrix[:, :2].T + self.matrix[:, 2], dtype=np.float32)


def direct(picture: Picture, size: tuple[int, int]) -> View:
    """The picture as it is, for a detector's input of `size` (width, height)."""
    return View(picture.pixels, size, _scaling(picture.scale))


def views(fallback: FoundBy, picture: Picture, size: tuple[int, int]) -> Iterator[View]:
    """The views of a fallback; none where it would show nothing new. Raises OceanoError `invalid_image`."""
    yield from _VIEWS[fallback](picture, size)


def _border(picture: Picture, size: tuple[int, int]) -> Iterator[View]:
    """Within a black border of half its longer side: for a face that fills the frame."""
    small, scale = _shrunk(picture, size)
    border = max(small.shape[:2]) // 2
    framed = cv2.copyMakeBorder(small, border, border, border, border, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    yield View(framed.astype(np.uint8, copy=False), size, _scaling(scale, -border))


def _larger(picture: Picture, size: tuple[int, int]) -> Iterator[View]:
    """In an input of twice the size: for small faces in a picture that was shrunk."""
    if picture.width <= size[0] and picture.height <= size[1]:
        return
    twice = (2 * size[0], 2 * size[1])
    enough = picture.scale == 1 or max(picture.pixels.shape[:2]) >= max(twice)
    if enough:
        yield View(picture.pixels, twice, _scaling(picture.scale))
    else:
        yield View(picture.full(), twice, _scaling(1.0))


def _rotated(picture: Picture, size: tuple[int, int]) -> Iterator[View]:
    """Turned by 90, 180 and 270 degrees: for a picture that lies on its side without saying so."""
    small, scale = _shrunk(picture, size)
    height, width = small.shape[:2]
    back = {
        cv2.ROTATE_90_CLOCKWISE: [[0, 1, 0], [-1, 0, height]],
        cv2.ROTATE_180: [[-1, 0, width], [0, -1, height]],
        cv2.ROTATE_90_COUNTERCLOCKWISE: [[0, -1, width], [1, 0, 0]],
    }
    for turn in _TURNS:
        turned = cv2.rotate(small, turn).astype(np.uint8, copy=False)
        yield View(turned, size, np.array(back[turn], np.float32) / np.float32(scale))


def _contrast(picture: Picture, size: tuple[int, int]) -> Iterator[View]:
    """With its contrast raised locally (CLAHE on the lightness): for faces in the dark."""
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
    """From pixels that are `scale` times the picture, `offset` pixels off, back to the picture."""
    return np.array([[1, 0, offset], [0, 1, offset]], np.float32) / np.float32(scale)


def _shrunk(picture: Picture, size: tuple[int, int]) -> tuple[Pixels, float]:
    """As small as the detector would make it anyway, so that a huge picture does not become a gigantic one."""
    pixels = picture.pixels
    height, width = pixels.shape[:2]
    scale = min(1.0, max(size) / max(height, width))
    if scale == 1:
        return pixels, picture.scale
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(pixels, inner, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False), picture.scale * scale
