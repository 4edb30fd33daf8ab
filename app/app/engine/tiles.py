"""Overlapping tiles of a large image, each of the size of the detector's input, for faces that are small in it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final, Literal

import cv2
import numpy as np

from app.core.types import Floats, Picture, Pixels
from app.engine.fallbacks import View

# A detector finds faces from about 10 pixels in its input. At half the size of the image it finds those of 20, and
# smaller ones cannot be recognised.
_LEAST_SCALE: Final = 0.5
_FULL_SIZE: Final = 3  # images up to this many inputs long are searched at full resolution
_ENOUGH: Final = 0.7  # pixels decoded at this fraction of the wanted scale suffice
_OVERLAP: Final = 0.25  # of the tile; a larger face is whole in the next level
_LEVEL: Final = 0.25  # scale of a level relative to the one before: 0.25 of the tile is then 0.06
_LEAST_RANGE: Final = 8  # of grey levels
_CUT: Final = 0.01  # of the tile: a box that ends this close to its border is cut off


def tile_views(picture: Picture, size: tuple[int, int], tiles: int | Literal["auto", "off"]) -> Iterator[View]:
    """Yield the tiles of an image in which small faces are found, at one or more scales.

    Args:
        picture: the image.
        size: (width, height) of the detector's input in pixels.
        tiles: how many along the longer side; auto: as many as faces of 20 pixels need; off: none.

    Yields:
        The tiles. None if the image is not larger than the input.

    Raises:
        OceanoError: `invalid_image` if the full image is needed and cannot be decoded.
    """
    direct = input_scale(picture, size)
    scale = min(1.0, _scale(direct, tiles))
    if scale <= direct:
        return
    reduced = picture.scale >= scale * _ENOUGH
    pixels, decoded = (picture.pixels, picture.scale) if reduced else (picture.full(), picture.full_scale)
    while scale > direct * (1 + _OVERLAP):
        level = min(1.0, scale / decoded)
        if level < 1:
            height, width = pixels.shape[:2]
            inner = (max(1, round(width * level)), max(1, round(height * level)))
            pixels = cv2.resize(pixels, inner, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        decoded *= level
        yield from _cut(pixels, size, decoded)
        scale = decoded * _LEVEL


def shows_something(pixels: Pixels) -> bool:
    """Return whether pixels differ enough to show a face; those of a scanned page's margin do not.

    Args:
        pixels: BGR, uint8, (H, W, 3).
    """
    return int(pixels.max()) - int(pixels.min()) >= _LEAST_RANGE


def input_scale(picture: Picture, size: tuple[int, int]) -> float:
    """Return the scale at which an image fits the detector's input, at most 1.

    Args:
        picture: the image.
        size: (width, height) of the detector's input in pixels.
    """
    return min(1.0, size[0] / picture.width, size[1] / picture.height)


def _scale(direct: float, tiles: int | Literal["auto", "off"]) -> float:
    """Scale of the finest level relative to the full image."""
    if tiles == "off":
        return 0.0
    if tiles == "auto":
        return max(_LEAST_SCALE, direct * _FULL_SIZE)
    return direct * (1 + (tiles - 1) * (1 - _OVERLAP))


def _cut(pixels: Pixels, size: tuple[int, int], scale: float) -> Iterator[View]:
    height, width = pixels.shape[:2]
    (tile_width, tile_height), margins = size, (size[0] * _CUT, size[1] * _CUT)
    for top, left in product(_starts(height, tile_height), _starts(width, tile_width)):
        bottom, right = min(height, top + tile_height), min(width, left + tile_width)
        whole = (
            margins[0] if left else -np.inf,
            margins[1] if top else -np.inf,
            right - left - margins[0] if right < width else np.inf,
            bottom - top - margins[1] if bottom < height else np.inf,
        )
        matrix: Floats = np.array([[1, 0, left], [0, 1, top]], np.float32) / np.float32(scale)
        yield View(pixels[top:bottom, left:right], size, matrix, whole)


def _starts(length: int, tile: int) -> list[int]:
    """Starts of tiles that cover a side evenly and overlap by at least `_OVERLAP`."""
    last = max(0, length - tile)
    count = 1 + int(np.ceil(last / (tile * (1 - _OVERLAP))))
    return [round(index * last / max(1, count - 1)) for index in range(count)]
