"""Perceptual hashes of images: near-identical images have similar ones, whatever their size, format or quality."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from app.core.types import Pixels

ALIKE_DISTANCE: Final = 6  # bits; see docs/numbers.md

_SIDE: Final = 32
_SAMPLED: Final = 256  # pixels of the shorter side that are read at least
_LOW: Final = 8  # frequencies in each direction


def phash_of(pixels: Pixels) -> str:
    """Return the perceptual hash of an image: the signs of its lowest frequencies (pHash, Zauner 2010).

    Args:
        pixels: BGR, uint8, (H, W, 3), upright.

    Returns:
        64 bits as 16 hex digits.
    """
    height, width = pixels.shape[:2]
    step = max(1, min(height, width) // _SAMPLED)
    # Every `step`th pixel: reading all would take ten times as long, and slicing in NumPy takes six times as long.
    whole = pixels[: height // step * step, : width // step * step]
    sampled = cv2.resize(whole, (width // step, height // step), interpolation=cv2.INTER_NEAREST)
    grey = cv2.resize(cv2.cvtColor(sampled, cv2.COLOR_BGR2GRAY), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(grey.astype(np.float32))[:_LOW, :_LOW].ravel()
    bits = low > np.median(low[1:])  # the first is the mean brightness
    return np.packbits(bits).tobytes().hex()


def distance(one: str, other: str) -> int:
    """Return the number of bits in which two hashes differ, 0 to 64."""
    return (int(one, 16) ^ int(other, 16)).bit_count()
