"""Conversion of images with more than 8 bits per channel to 8 bits."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from app.core.types import Pixels

_DEPTHS: Final = (8, 10, 12, 14, 16)  # bits of cameras and scanners, which store them in 16
_ROWS: Final = 256  # rows of floats converted at a time, to limit memory


def eight_bits(values: npt.NDArray[Any]) -> Pixels:
    """Scale samples of any type to 8 bits.

    Integers are scaled by the smallest usual depth (8, 10, 12, 14, 16 bits) that holds all of them; an alpha channel is
    scaled by its own. Numbers with a point are scaled from 0 (or the smallest, if negative) to 1, or to the largest.

    Args:
        values: (H, W) or (H, W, channels), any numeric type. The fourth channel is alpha.

    Returns:
        The samples, uint8, of the same shape.
    """
    if values.dtype == np.uint8:
        return values
    colour = values[..., :3] if values.ndim == 3 else values
    scaled = np.empty(values.shape, np.uint8)
    _scale_into(scaled[..., :3] if values.ndim == 3 else scaled, colour)
    if values.ndim == 3 and values.shape[2] > 3:
        _scale_into(scaled[..., 3:], values[..., 3:])
    return scaled


def _scale_into(target: npt.NDArray[np.uint8], values: npt.NDArray[Any]) -> None:
    low, span = _range(values)
    for row in range(0, len(values), _ROWS):
        some = np.nan_to_num(values[row : row + _ROWS].astype(np.float32), posinf=low + span, neginf=low)
        target[row : row + _ROWS] = np.clip((some - low) * (255.0 / span) + 0.5, 0, 255)


def _range(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the sample that is black, and how far white is from it."""
    if values.dtype.kind == "f":
        low, peak = 0.0, 1.0
        for row in range(0, len(values), _ROWS):
            some = values[row : row + _ROWS]
            finite = some[np.isfinite(some)]
            low, peak = min(low, float(finite.min(initial=low))), max(peak, float(finite.max(initial=peak)))
        return low, peak - low
    peak = int(values.max(initial=0))
    bits = next((bits for bits in _DEPTHS if peak < 1 << bits), None)
    return 0.0, float(peak if bits is None else (1 << bits) - 1)


def decode_wide(data: bytes) -> Pixels | None:
    """Decode a PNG or TIFF file with all its bits, which Pillow does only for grey images, and scale it to 8 bits.

    Returns:
        (H, W) or (H, W, channels), RGB order, uint8; None if OpenCV does not read the file.
    """
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        return None
    pixels = eight_bits(decoded)
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        pixels[..., :3] = pixels[..., 2::-1].copy()
    return pixels
