"""How far apart the perceptual hashes of copies of a photograph are, and those of different photographs.

    REAL_FACES_DIR=... .venv/bin/python app/bench/alike.py

Each photograph of at least 150 pixels is copied as an editor or a messenger would: smaller, compressed, brighter, with
more contrast, in grey, sharpened, with a border cut off. The last line is one JSON object: for each kind of copy the
largest distance of nine of ten, and the share within `ALIKE_DISTANCE`; the same share for pairs of different
photographs, and how many of them are within each distance; milliseconds of a hash of 24 megapixels.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from app.core.types import Pixels
from app.images import ALIKE_DISTANCE, distance, phash_of
from bench.pictures import folder_of, read_picture

REPEATS = 15


def main() -> None:
    photographs = [read_picture(path) for path in sorted(folder_of("REAL_FACES_DIR").glob("*/**/*.*"))]
    photographs = [pixels for pixels in photographs if min(pixels.shape[:2]) >= 150]
    hashes = [phash_of(pixels) for pixels in photographs]
    copies = {
        name: sorted(distance(own, phash_of(copy(pixels))) for own, pixels in zip(hashes, photographs, strict=True))
        for name, copy in COPIES.items()
    }
    others = sorted(distance(one, other) for one, other in combinations(hashes, 2))
    large = cv2.resize(photographs[0], (6000, 4000)).astype(np.uint8, copy=False)
    said = {
        "alike_distance": ALIKE_DISTANCE,
        "photographs": len(photographs),
        "copies": {
            name: {"nine_of_ten": found[len(found) * 9 // 10], "alike": _share(found)} for name, found in copies.items()
        },
        "different": {"pairs": len(others), "alike": _share(others), "nearest": others[:10]},
        "within": {f"{most}": sum(one <= most for one in others) for most in range(2, 17, 2)},
        "ms": round(statistics.median(_milliseconds(large) for _ in range(REPEATS)), 1),
    }
    print(json.dumps(said))


def _share(distances: list[int]) -> float:
    return round(sum(one <= ALIKE_DISTANCE for one in distances) / len(distances), 4)


def _milliseconds(pixels: Pixels) -> float:
    start = time.perf_counter()
    phash_of(pixels)
    return (time.perf_counter() - start) * 1000


def _scaled(pixels: Pixels, share: float) -> Pixels:
    small = cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def _compressed(pixels: Pixels, quality: int) -> Pixels:
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def _toned(pixels: Pixels, contrast: float, brightness: float) -> Pixels:
    return (pixels.astype(np.float32) * contrast + brightness).clip(0, 255).astype(np.uint8)


def _grey(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)


def _sharpened(pixels: Pixels) -> Pixels:
    blurred = cv2.GaussianBlur(pixels, (0, 0), 2)
    return np.asarray(cv2.addWeighted(pixels, 1.8, blurred, -0.8, 0), np.uint8)


def _cut(pixels: Pixels, share: float) -> Pixels:
    height, width = (int(side * share) for side in pixels.shape[:2])
    return pixels[height : pixels.shape[0] - height, width : pixels.shape[1] - width]


COPIES: dict[str, Callable[[Pixels], Pixels]] = {
    "half size": lambda pixels: _scaled(pixels, 0.5),
    "quarter size": lambda pixels: _scaled(pixels, 0.25),
    "JPEG 75": lambda pixels: _compressed(pixels, 75),
    "JPEG 30": lambda pixels: _compressed(pixels, 30),
    "half size, JPEG 50": lambda pixels: _compressed(_scaled(pixels, 0.5), 50),
    "brighter": lambda pixels: _toned(pixels, 1.0, 30),
    "more contrast": lambda pixels: _toned(pixels, 1.3, -30),
    "grey": _grey,
    "sharpened": _sharpened,
    "1 % cut off each side": lambda pixels: _cut(pixels, 0.01),
    "3 % cut off each side": lambda pixels: _cut(pixels, 0.03),
    "8 % cut off each side": lambda pixels: _cut(pixels, 0.08),
    "mirrored": lambda pixels: pixels[:, ::-1],
}


if __name__ == "__main__":
    main()
