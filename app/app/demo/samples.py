"""Writes the sample pictures: one real photograph in nine versions, and drawn strangers, to try a real model with.

The photograph is `astronaut.png` of scikit-image, which InsightFace needs anyway: Eileen Collins, by NASA, in the
public domain. All others of her are made from it.
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
"""Raise it with every change of a picture: the samples of a version have a folder and an index of their own."""

QUERY: Final = Path("eileen-collins", "portrait.jpg")
"""The picture to search with."""

_STRANGERS: Final = range(12)
_FACE: Final = (slice(30, 250), slice(120, 340))  # rows and columns of the photograph
_SOURCE: Final = """\
eileen-collins/portrait.jpg: Eileen Collins, photographed by NASA; in the public domain. From scikit-image
(astronaut.png). The other pictures in that folder are made from it. All other people are drawn and do not exist.
"""


def write_samples(folder: Path) -> Path:
    """Write `eileen-collins/*.jpg` and `drawn/*.jpg`; returns the picture to search with. Those that are there stay.

    Raises OceanoError `not_found` where scikit-image has no such photograph.
    """
    photograph = _photograph()
    for name, make in _MADE.items():
        path = folder / QUERY.parent / f"{name}.jpg"
        if not path.exists():
            save_jpeg(path, make(photograph))
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
        raise OceanoError("not_found", f"the samples are made from a photograph of scikit-image, and {path} is none")
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
    """Small, beside drawn people."""
    scene = scenes.group([2, 9, 5], 4, (1600, 900)).pixels.copy()
    small = cv2.resize(pixels, (300, 300), interpolation=cv2.INTER_AREA)
    scene[40:340, 60:360] = small
    return scene


def _tilted(pixels: Pixels) -> Pixels:
    turn = cv2.getRotationMatrix2D((230.0, 140.0), 18, 0.9)
    return _pixels(cv2.warpAffine(pixels, turn, (512, 512), borderMode=cv2.BORDER_REFLECT))


_MADE: Final[dict[str, Callable[[Pixels], Pixels]]] = {
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
