"""Sample images for a real model: one real photograph in nine versions, and drawn strangers.

The photograph is `astronaut.png` of scikit-image, which InsightFace requires anyway: Eileen Collins, by NASA, in the
public domain. The other images of her are made from it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from app.core.errors import OceanoError
from app.core.types import Pixels
from app.demo import scenes
from app.demo.gallery import save_jpeg
from app.demo.people import person_name

SAMPLES_VERSION: Final = 1
"""Increase it with every change of an image; the samples of each version have their own folder and index."""

QUERY: Final = Path("eileen-collins", "portrait.jpg")
"""The image to search with."""

_STRANGERS: Final = range(12)
_FACE: Final = (slice(30, 250), slice(120, 340))  # rows and columns of the photograph
_SOURCE: Final = """\
eileen-collins/portrait.jpg: Eileen Collins, photographed by NASA; in the public domain. From scikit-image
(astronaut.png). The other pictures in that folder are made from it. All other people are drawn and do not exist.
"""


def write_samples(folder: Path) -> Path:
    """Write `eileen-collins/*.jpg` and `drawn/*.jpg`; existing images are kept.

    Args:
        folder: the folder of the samples.

    Returns:
        The path of the image to search with.

    Raises:
        OceanoError: `not_found` if the photograph of scikit-image cannot be read.
    """
    photograph = _photograph()
    for name, transform in _VERSIONS.items():
        path = folder / QUERY.parent / f"{name}.jpg"
        if not path.exists():
            save_jpeg(path, transform(photograph))
    for person in _STRANGERS:
        path = folder / "drawn" / f"{person_name(person)}.jpg"
        if not path.exists():
            save_jpeg(path, scenes.portrait(person, 0, (480, 600)).pixels)
    (folder / "SOURCE.txt").write_text(_SOURCE, encoding="utf-8")
    return folder / QUERY


def _photograph() -> Pixels:
    spec = find_spec("skimage")
    folders = spec.submodule_search_locations if spec else None
    path = Path(next(iter(folders or ()), "skimage")) / "data" / "astronaut.png"
    pixels = cv2.imread(str(path))
    if pixels is None:
        raise OceanoError(
            "not_found", f"the photograph of scikit-image that the samples are made from cannot be read: {path}"
        )
    return np.asarray(pixels, np.uint8)


def _close_up(pixels: Pixels) -> Pixels:
    return _pixels(cv2.resize(pixels[_FACE], (640, 640), interpolation=cv2.INTER_CUBIC))


def _black_and_white(pixels: Pixels) -> Pixels:
    return _pixels(cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR))


def _dark(pixels: Pixels) -> Pixels:
    return _pixels(255 * (pixels / 255.0) ** 2.2 * 0.4)


def _mirrored(pixels: Pixels) -> Pixels:
    return _pixels(pixels[:, ::-1] * np.array([0.8, 0.95, 1.1]))


def _on_its_side(pixels: Pixels) -> Pixels:
    return _pixels(cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE))


def _old_print(pixels: Pixels) -> Pixels:
    faded = cv2.GaussianBlur(_black_and_white(pixels), (0, 0), 1.2) * 0.6 + 70.0
    noise = np.random.default_rng(1).normal(0, 9, pixels.shape)
    return _pixels((faded + noise) * np.array([0.78, 0.92, 1.0]))


def _in_a_crowd(pixels: Pixels) -> Pixels:
    """Small, next to drawn people."""
    scene = scenes.group([2, 9, 5], 4, (1600, 900)).pixels.copy()
    small = cv2.resize(pixels, (300, 300), interpolation=cv2.INTER_AREA)
    scene[40:340, 60:360] = small
    return scene


def _tilted(pixels: Pixels) -> Pixels:
    matrix = cv2.getRotationMatrix2D((230.0, 140.0), 18, 0.9)
    return _pixels(cv2.warpAffine(pixels, matrix, (512, 512), borderMode=cv2.BORDER_REFLECT))


_VERSIONS: Final[dict[str, Callable[[Pixels], Pixels]]] = {
    QUERY.stem: lambda pixels: pixels,
    "close-up": _close_up,
    "black-and-white": _black_and_white,
    "dark": _dark,
    "mirrored": _mirrored,
    "on-its-side": _on_its_side,
    "old-print": _old_print,
    "in-a-crowd": _in_a_crowd,
    "tilted": _tilted,
}


def _pixels(values: object) -> Pixels:
    return np.ascontiguousarray(np.clip(np.asarray(values), 0, 255), dtype=np.uint8)
