"""Synthetic images, the same on every machine, with which a model's outputs are compared."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from app.core.types import Pixels
from app.engine.alignment import CROP_SIDE

_CROPS: Final = 8
_DETAIL: Final = 28  # cells of noise along a side


def reference_crop(side: int = CROP_SIDE) -> Pixels:
    """Return an image of `side` x `side` pixels."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float64) * (CROP_SIDE / side)
    blue = 127 + 90 * np.sin(x / 9) * np.cos(y / 13)
    green = 255 * (((x - 56) ** 2 + (y - 40) ** 2) < 900)
    red = 2.2 * y
    return np.stack([blue, green, red], axis=-1).clip(0, 255).astype(np.uint8)


def reference_crops(side: int = CROP_SIDE) -> list[Pixels]:
    """Return different images of `side` x `side` pixels, with shapes and noise of several sizes."""
    plain = reference_crop(side).astype(np.float32)
    crops = []
    for seed in range(_CROPS):
        rng = np.random.default_rng(seed)
        noise = rng.normal(0, 25 + 10 * seed, (_DETAIL >> (seed % 3), _DETAIL >> (seed % 3), 3)).astype(np.float32)
        turned = np.rot90(plain, seed) if seed % 2 else plain[:, :, ::-1]
        crop = turned + cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
        crops.append(crop.clip(0, 255).astype(np.uint8))
    return crops
