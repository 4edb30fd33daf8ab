"""Pictures for benchmarks: photographed faces on backgrounds of several sizes, as JPEG files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import numpy as np

from app.core.types import Pixels

# width x height, 1.9 megapixels on average
SIZES = ((1600, 1200), (1200, 1600), (1920, 1080), (1280, 960), (2048, 1365), (1080, 1350))
MOST_FACES = 6


def folder_of(variable: str) -> Path:
    """The folder that an environment variable names; ends the program if there is none."""
    value = os.environ.get(variable, "")
    if not Path(value).is_dir() or not value:
        sys.exit(f"set {variable} to a folder: CONTRIBUTING.md says which")
    return Path(value)


def read_picture(path: Path) -> Pixels:
    """Read an image file: BGR, uint8, (H, W, 3)."""
    pixels = cv2.imread(str(path))
    if pixels is None:
        sys.exit(f"{path} cannot be read")
    return pixels.astype(np.uint8, copy=False)


def write_pictures(folder: Path, faces: Path, count: int, *, seed: int = 1, scale: float = 1.0) -> list[Path]:
    """`count` JPEG files in `folder`, each with one to six of the crops in `faces`/people; sizes times `scale`."""
    crops = [read_picture(path) for path in sorted(faces.glob("people/*/*"))]
    backgrounds = [read_picture(path) for path in sorted(faces.glob("groups/*"))]
    rng = np.random.default_rng(seed)
    paths = []
    for number in range(count):
        width, height = (round(side * scale) for side in SIZES[number % len(SIZES)])
        picture = _background(backgrounds[number % len(backgrounds)], width, height, rng)
        _place(picture, [crops[place] for place in rng.choice(len(crops), 1 + number % MOST_FACES)], rng)
        paths.append(folder / f"{number:06}.jpg")
        cv2.imwrite(str(paths[-1]), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return paths


def _background(source: np.ndarray, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Blurred until nobody is in it, with the noise of a camera."""
    blurred = cv2.GaussianBlur(cv2.resize(source, (160, 120)), (0, 0), 12)
    picture = cv2.resize(blurred, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    grain = rng.normal(0, 5, (height // 2, width // 2, 3)).astype(np.float32)
    picture += cv2.resize(grain, (width, height)).astype(np.int16)
    return picture.clip(0, 255).astype(np.uint8)


def _place(picture: np.ndarray, crops: list[np.ndarray], rng: np.random.Generator) -> None:
    """Each crop somewhere in a cell of its own of a grid of 3 x 2."""
    height, width = picture.shape[:2]
    cell = (height // 2, width // 3)
    for crop, place in zip(crops, rng.permutation(MOST_FACES), strict=False):
        side = int(min(cell) * rng.uniform(0.35, 0.9))
        top = place // 3 * cell[0] + int(rng.integers(0, cell[0] - side + 1))
        left = place % 3 * cell[1] + int(rng.integers(0, cell[1] - side + 1))
        interpolation = cv2.INTER_AREA if side < crop.shape[0] else cv2.INTER_CUBIC
        picture[top : top + side, left : left + side] = cv2.resize(crop, (side, side), interpolation=interpolation)
