"""Views of an image that are tried, in order, when the detector finds no face in the image itself.

A view holds other pixels for the detector, and the transform that maps detections back to the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np

from app.core.types import BBox, Floats, FoundBy, Picture, Pixels
from app.engine.frames import Detections

FALLBACKS: Final[tuple[FoundBy, ...]] = ("border", "larger", "rotated", "contrast")

ALL_TURNS: Final = (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)
UPSIDE_DOWN: Final = (cv2.ROTATE_180,)


@dataclass(frozen=True, slots=True)
class View:
    """Pixels for the detector, and how they map to the image.

    Attributes:
        pixels: BGR, uint8, (H, W, 3).
        size: (width, height) of the detector's input in pixels.
        matrix: (2, 3), maps points (x, y, 1) of `pixels` to the upright image.
        whole: (x1, y1, x2, y2) in `pixels`; a face whose box goes beyond is cut off and whole in another view.
    """

    pixels: Pixels
    size: tuple[int, int]
    matrix: Floats
    whole: BBox | None = None

    def uncut(self, found: Detections) -> Detections:
        """Return the detections of this view that are not cut off, in pixels of the view."""
        if self.whole is None:
            return found
        x1, y1, x2, y2 = found.boxes.T
        low_x, low_y, high_x, high_y = self.whole
        return found.only((x1 >= low_x) & (y1 >= low_y) & (x2 <= high_x) & (y2 <= high_y))

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
    picture = shrunk(picture, size)
    small = picture.pixels
    border = max(small.shape[:2]) // 2
    framed = cv2.copyMakeBorder(small, border, border, border, border, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    yield View(framed.astype(np.uint8, copy=False), size, _scaling(picture.scale, -border))


def _larger(picture: Picture, size: tuple[int, int]) -> Iterator[View]:
    """Double the input size, for small faces in an image that was shrunk to fit."""
    if picture.width <= size[0] and picture.height <= size[1]:
        return
    twice = (2 * size[0], 2 * size[1])
    if picture.scale == picture.full_scale or max(picture.pixels.shape[:2]) >= max(twice):
        yield View(picture.pixels, twice, _scaling(picture.scale))
    else:
        yield View(picture.full(), twice, _scaling(picture.full_scale))


def _rotated(picture: Picture, size: tuple[int, int]) -> Iterator[View]:
    """Rotate by 90, 180 and 270 degrees, for an image on its side whose EXIF does not say so."""
    picture = shrunk(picture, size)
    return (_rotation(picture.pixels, size, _scaling(picture.scale), turn) for turn in ALL_TURNS)


def rotated_face(
    pixels: Pixels,
    scale: float,
    bbox: BBox,
    side: int,
    turns: Sequence[int | None],
    canvas: tuple[int, int] | None,
) -> Iterator[View]:
    """Yield a face and what surrounds it in several rotations.

    Args:
        pixels: the image, BGR, uint8, (H, W, 3).
        scale: of `pixels` relative to the full image.
        bbox: (x1, y1, x2, y2) in pixels of the full image.
        side: of the views, in pixels; the face fills half of it.
        turns: rotations as in cv2.rotate; None for the face as it is.
        canvas: (width, height) of the views in pixels, black outside the face; None: those of the face.

    Yields:
        A view for each rotation.
    """
    x1, y1, x2, y2 = (side * scale for side in bbox)
    half = max(1, round(max(x2 - x1, y2 - y1)))
    left, top = round((x1 + x2) / 2) - half, round((y1 + y2) / 2) - half
    inside = pixels[max(0, top) : top + 2 * half, max(0, left) : left + 2 * half]
    zoom = side / (2 * half)
    height, width = (max(1, round(length * zoom)) for length in inside.shape[:2])  # resized first: a face can be large
    small = cv2.resize(inside, (width, height), interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
    above, before = min(round(max(0, -top) * zoom), side - height), min(round(max(0, -left) * zoom), side - width)
    face = np.zeros((side, side, 3), np.uint8)
    face[above : above + height, before : before + width] = small
    across, down = inside.shape[1] / width, inside.shape[0] / height
    matrix = np.array([[across, 0, max(0, left) - before * across], [0, down, max(0, top) - above * down]], np.float32)
    matrix /= np.float32(scale)
    upright = View(face, (side, side), matrix)
    for turn in turns:
        view = upright if turn is None else _rotation(face, upright.size, matrix, turn)
        yield view if canvas is None else replace(view, pixels=_on_canvas(view.pixels, canvas), size=canvas)


def _on_canvas(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    visible = pixels[: size[1], : size[0]]
    canvas[: visible.shape[0], : visible.shape[1]] = visible
    return canvas


def _rotation(pixels: Pixels, size: tuple[int, int], matrix: Floats, turn: int) -> View:
    """Rotate an image whose points `matrix` maps to the upright image."""
    height, width = pixels.shape[:2]
    back = {
        cv2.ROTATE_90_CLOCKWISE: [[0, 1, 0], [-1, 0, height]],
        cv2.ROTATE_180: [[-1, 0, width], [0, -1, height]],
        cv2.ROTATE_90_COUNTERCLOCKWISE: [[0, -1, width], [1, 0, 0]],
    }
    inner = np.array([*back[turn], [0, 0, 1]], np.float32)
    rotated = cv2.rotate(pixels, turn).astype(np.uint8, copy=False)
    return View(rotated, size, np.asarray(matrix @ inner, dtype=np.float32))


def _contrast(picture: Picture, size: tuple[int, int]) -> Iterator[View]:
    """Raise the local contrast (CLAHE on the lightness), for dark images."""
    picture = shrunk(picture, size)
    lab = cv2.cvtColor(picture.pixels, cv2.COLOR_BGR2LAB)
    lab[:, :, 0] = cv2.createCLAHE(clipLimit=4.0, tileGridSize=(8, 8)).apply(np.ascontiguousarray(lab[:, :, 0]))
    yield View(cv2.cvtColor(lab, cv2.COLOR_LAB2BGR).astype(np.uint8, copy=False), size, _scaling(picture.scale))


_VIEWS: Final[dict[FoundBy, Callable[[Picture, tuple[int, int]], Iterator[View]]]] = {
    "border": _border,
    "larger": _larger,
    "rotated": _rotated,
    "contrast": _contrast,
}


def _scaling(scale: float, offset: float = 0.0) -> Floats:
    """Matrix (2, 3) that adds `offset` (pixels) to points and divides them by `scale`."""
    return np.array([[1, 0, offset], [0, 1, offset]], np.float32) / np.float32(scale)


def shrunk(picture: Picture, size: tuple[int, int]) -> Picture:
    """Shrink an image to the detector's longer side, so that views of a huge image need little time and memory.

    Args:
        picture: the image.
        size: (width, height) of the detector's input in pixels.

    Returns:
        The image with pixels of a smaller scale, or the same.
    """
    height, width = picture.pixels.shape[:2]
    scale = min(1.0, max(size) / max(height, width))
    if scale == 1:
        return picture
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    pixels = cv2.resize(picture.pixels, inner, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return replace(picture, pixels=pixels, scale=picture.scale * scale)
